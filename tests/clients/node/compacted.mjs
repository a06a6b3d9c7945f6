import { client, model, refused, say, weather } from "./client.mjs";

const count = (body) => client.responses.inputTokens.count({ model, ...body });
const short = await count({ input: "Hello" });
const long = await count({ input: "Hello", instructions: "Be very brief.", tools: [weather] });

const input = [
  { role: "user", content: "I am Ada." },
  { role: "assistant", content: "Hello, Ada." },
  { role: "user", content: "Remember me." },
];
const compacted = await client.responses.compact({ model, input });
const told = await client.responses.create({
  model,
  input: [...compacted.output, { role: "user", content: "Who am I?" }],
});
const continued = await refused(
  client.responses.create({ model, previous_response_id: compacted.id, input: "Who am I?" }),
);

// The SDK has no header for its `idempotencyKey`, so it is given as any other.
const headers = { "Idempotency-Key": "node-1" };
const ask = (words) => client.responses.create({ model, input: words }, { headers }).withResponse();
const first = await ask("Hello");
const second = await ask("Hello");
const reused = await refused(ask("Something else"));
const ids = [first.data.id, second.data.id];
const replays = [first, second].map((one) => one.response.headers.get("idempotent-replay"));
say({ short, long, compacted, told, continued, ids, replays, reused });
