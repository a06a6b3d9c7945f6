import { all, client, model, refused, say, some } from "./client.mjs";

// The provider says one word, and then nothing any more.
const stream = await client.responses.create({ model, input: "Count", background: true, stream: true });
const seen = await some(stream, 6);
const { id } = seen[0].response;
const following = client.responses.retrieve(id, { stream: true, starting_after: 5 }).then(all);
const cancelled = await client.responses.cancel(id);
const again = await client.responses.cancel(id);
const retrieved = await client.responses.retrieve(id);
const rest = await following;

const running = await client.responses.create({ model, input: "Count", background: true });
await client.responses.delete(running.id);
const gone = [
  await refused(client.responses.retrieve(running.id)),
  await refused(client.responses.cancel(running.id)),
  await refused(client.responses.delete(running.id)),
];

const waited = await client.responses.create({ model, input: "Hello" });
const foreground = await refused(client.responses.cancel(waited.id));
say({ cancelled, again, retrieved, rest, gone, foreground });
