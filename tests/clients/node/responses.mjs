import { all, client, model, refused, say, weather } from "./client.mjs";

const made = await client.responses.create({ model, input: "Hello", metadata: { topic: "greeting" } });
const retrieved = await client.responses.retrieve(made.id);
const events = await all(await client.responses.create({ model, input: "Count", stream: true }));

const stream = client.responses.stream({ model, input: "Weather?", tools: [weather] });
const snapshots = [];
stream.on("response.output_text.delta", (event) => snapshots.push(event.snapshot));
const asked = await stream.finalResponse();
const called = asked.output.find((item) => item.type === "function_call");
const told = await client.responses.create({
  model,
  previous_response_id: asked.id,
  input: [{ type: "function_call_output", call_id: called.call_id, output: "sunny" }],
  tools: [weather],
});

await client.responses.delete(made.id);
const gone = [
  await refused(client.responses.retrieve(made.id)),
  await refused(client.responses.delete(made.id)),
  await refused(client.responses.inputItems.list(made.id)),
  await refused(client.responses.create({ model, previous_response_id: made.id, input: "And?" })),
];
const unknown = await refused(client.responses.create({ model: "nobody", input: "Hello", stream: true }));
say({ made, retrieved, events, snapshots, asked, told, gone, unknown });
