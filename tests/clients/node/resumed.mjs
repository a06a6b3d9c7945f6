import { all, client, model, say, some } from "./client.mjs";

// The provider is slow, so all of this happens while the response is made.
const stream = await client.responses.create({ model, input: "Count", background: true, stream: true });
const seen = await some(stream, 7);
const { id } = seen[0].response;
const { sequence_number: after } = seen.at(-1);
const followers = Array.from({ length: 4 }, async (_, number) =>
  all(await client.responses.retrieve(id, { stream: true, starting_after: number })),
);
const helper = client.responses.stream({ response_id: id, starting_after: after });
const helped = [];
helper.on("event", (event) => helped.push(event.sequence_number));
const [rest, final, ...followed] = await Promise.all([
  client.responses.retrieve(id, { stream: true, starting_after: after }).then(all),
  helper.finalResponse(),
  ...followers,
]);
const whole = await all(await client.responses.retrieve(id, { stream: true }));
const retrieved = await client.responses.retrieve(id);
say({ seen, rest, final, helped, followed, whole, retrieved });
