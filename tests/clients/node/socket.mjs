// The WebSocket client: one connection, then the lanes of a session on another.
import { ResponsesWS } from "openai/resources/responses/ws";
import { ResponsesWebSocketSession } from "openai/lib/responses/responses-websocket-session";
import { ResponsesWebSocketAccumulator } from "openai/lib/responses/responses-websocket-accumulator";
import { client, model, say, weather } from "./client.mjs";

const limits = { maxLanes: 8, maxBufferedEvents: 1000, maxBufferedBytes: 1 << 24 };
const lasting = ["response.completed", "response.incomplete", "response.failed"];

// What the server says to what is sent, up to the end of a response or an error.
async function turn(socket, event) {
  const events = [];
  socket.send(event);
  for await (const one of socket.stream()) {
    if (one.type === "error") return [...events, one.error.error];
    if (one.type !== "message") continue;
    events.push(one.message);
    if (lasting.includes(one.message.type)) return events;
  }
  throw new Error("the connection was closed");
}

const create = { type: "response.create", model, store: false };

// A conversation that only the connection holds.
const socket = new ResponsesWS(client);
const asked = await turn(socket, { ...create, input: "Weather?", tools: [weather] });
const [, called] = asked.at(-1).response.output;
const told = await turn(socket, {
  ...create,
  previous_response_id: asked.at(-1).response.id,
  input: [{ type: "function_call_output", call_id: called.call_id, output: "sunny" }],
  tools: [weather],
});
const unknown = (await turn(socket, { ...create, model: "nobody", input: "Hello" })).at(-1);
const warmUp = await turn(socket, { ...create, generate: false, input: "I am Ada." });
const warm = await turn(socket, {
  ...create,
  previous_response_id: warmUp.at(-1).response.id,
  input: "Who am I?",
});
socket.close();

// Lanes, one of which forks from the other.
const connection = new ResponsesWS(client);
for await (const one of connection.stream()) if (one.type === "open") break;
const session = new ResponsesWebSocketSession(connection, limits);
const source = session.lane("source");
const fork = session.lane("fork");
source.create({ model, store: false, input: "Root" });
const root = await source.finalResponse();
fork.create({ model, store: false, input: "left", previous_response_id: root.id });
for (let event = await fork.receive(); event.type !== "response.in_progress"; ) event = await fork.receive();
source.create({ model, store: false, input: "right", previous_response_id: root.id });
const [right, left] = await Promise.all([source.finalResponse(), fork.finalResponse()]);

// Words said to a response, and what is heard of it meanwhile.
const heard = new ResponsesWebSocketAccumulator();
source.create({ model, store: false, input: "Count", tools: [weather] });
const steered = [];
for (let event = await source.receive(); ; event = await source.receive()) {
  heard.add(event);
  steered.push(event);
  if (event.type === "response.output_text.delta" && steered.filter((one) => one.type === event.type).length === 1) {
    const { id } = steered[0].response;
    connection.send({ type: "response.steer", previous_response_id: id, input: "In Spanish" });
  }
  if (lasting.includes(event.type)) break;
}
const successor = await source.finalResponse({ signal: AbortSignal.timeout(10_000) });
const { phase } = heard.current;

// An error belongs to its lane.
fork.create({ model, store: false, input: "And?", previous_response_id: "resp_unknown" });
const lost = await fork.finalResponse().then(
  () => "answered",
  (error) => error.error?.error ?? String(error),
);
source.create({ model, store: false, input: "Still there?", previous_response_id: successor.id });
const still = await source.finalResponse();
session.close();
connection.close();

// A key that is not ours.
const stranger = new ResponsesWS(client.withOptions({ apiKey: "somebody-elses" }));
const refused = await new Promise((resolve) => stranger.on("error", (error) => resolve(error.message)));

say({ asked, told, unknown, warmUp, warm, root, left, right, steered, successor, phase, lost, still, refused });
