import { client, model, polled, refused, say } from "./client.mjs";

const made = await client.responses.create({ model, input: "Count", background: true });
const done = await polled(made.id);
const unchanged = await client.responses.cancel(made.id);
const unstored = await client.responses.create({ model, input: "Count", background: true, store: false });
const inMemory = await polled(unstored.id);
const failed = await polled((await client.responses.create({ model, input: "Fail", background: true })).id);
const unstreamed = await refused(client.responses.retrieve(made.id, { stream: true }));
say({ made, done, unchanged, inMemory, failed, unstreamed });
