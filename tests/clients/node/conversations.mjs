import { all, client, refused, say } from "./client.mjs";

const user = (content) => ({ type: "message", role: "user", content });
const words = (items) => items.map((item) => item.content[0].text);
const { conversations } = client;

const made = await conversations.create({ items: [user("first")], metadata: { topic: "greeting" } });
const { id } = made;
const retrieved = await conversations.retrieve(id);
const updated = await conversations.update(id, { metadata: { owner: "ada" } });
const added = await conversations.items.create(id, { items: Array.from({ length: 6 }, (_, n) => user(`more ${n}`)) });
const asc = words(await all(conversations.items.list(id, { limit: 2, order: "asc" })));
const desc = words(await all(conversations.items.list(id, { limit: 3 })));
const last = added.data.at(-1);
const item = await conversations.items.retrieve(last.id, { conversation_id: id });
const left = await conversations.items.delete(last.id, { conversation_id: id });
const rest = words(await all(conversations.items.list(id, { order: "asc" })));
const missing = await refused(conversations.items.retrieve(last.id, { conversation_id: id }));
const deleted = await conversations.delete(id);
const empty = await all(conversations.items.list((await conversations.create()).id));
const gone = [
  await refused(conversations.retrieve(id)),
  await refused(conversations.update(id, { metadata: {} })),
  await refused(conversations.items.create(id, { items: [user("?")] })),
  await refused(conversations.items.list(id)),
  await refused(conversations.items.delete(last.id, { conversation_id: id })),
  await refused(conversations.delete(id)),
];
say({ made, retrieved, updated, added, asc, desc, item, left, rest, missing, deleted, empty, gone });
