import { all, client, model, say } from "./client.mjs";

const image = { type: "input_image", image_url: "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs=", detail: "low" };
const input = Array.from({ length: 7 }, (_, number) => ({ role: "user", content: `word ${number}` }));
const made = await client.responses.create({ model, input: [...input, { role: "user", content: [image] }] });
const list = (query) => client.responses.inputItems.list(made.id, query);
const words = (items) => items.map((item) => item.content[0].text ?? item.content[0].image_url);
const asc = words(await all(list({ limit: 2, order: "asc" })));
const desc = words(await all(list({ limit: 3, order: "desc" })));
const included = words(await all(list({ limit: 1, include: ["message.input_image.image_url"] })));
const pages = [];
for await (const page of (await list({ limit: 3 })).iterPages()) pages.push(page.data.length);
say({ asc, desc, included, pages });
