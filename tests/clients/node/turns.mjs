import { all, client, model, polled, refused, say, weather } from "./client.mjs";

const { id: conversation } = await client.conversations.create({ items: [{ role: "user", content: "I am Ada." }] });
const tools = [weather];
const asked = await client.responses.create({ model, conversation, input: "Weather?", tools });
const called = asked.output.find((item) => item.type === "function_call");
const unanswered = await refused(client.responses.create({ model, conversation, input: "Well?", tools }));
const output = { type: "function_call_output", call_id: called.call_id, output: "sunny" };
const told = await client.responses
  .stream({ model, conversation: { id: conversation }, input: [output], tools })
  .finalResponse();

const running = await client.responses.create({ model, conversation, input: "Who am I?", background: true });
const locked = await refused(client.responses.create({ model, conversation, input: "Who else?" }));
const lockedItems = await refused(
  client.conversations.items.create(conversation, { items: [{ role: "user", content: "?" }] }),
);
const done = await polled(running.id);
const items = await all(client.conversations.items.list(conversation, { limit: 2, order: "asc" }));
const types = items.map((item) => item.type);

await client.conversations.delete(conversation);
const lost = await refused(client.responses.create({ model, conversation, input: "Hello?" }));
const on = await client.responses.create({ model, previous_response_id: done.id, input: "And now?" });
say({ conversation, asked, unanswered, told, locked, lockedItems, done, types, lost, on });
