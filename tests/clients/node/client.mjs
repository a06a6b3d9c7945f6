// What the scripts share: a client that retries nothing, and the one line of JSON that a test reads.
// Run as `node <script> <base url> <key>`.
import OpenAI from "openai";

const [baseURL, apiKey] = process.argv.slice(2);

export const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 10_000 });

export const model = "test-model";

export const weather = {
  type: "function",
  name: "get_weather",
  description: "Says what the weather is.",
  parameters: {
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
    additionalProperties: false,
  },
  strict: true,
};

export function say(value) {
  console.log(JSON.stringify(value));
}

// The error a call is refused with, as its user sees it.
export async function refused(call) {
  try {
    await call;
  } catch (error) {
    const { status, code, param, requestID } = error;
    return { name: error.constructor.name, status, code, param, named: Boolean(requestID) };
  }
  throw new Error("expected to be refused");
}

export async function all(iterable) {
  const found = [];
  for await (const one of iterable) found.push(one);
  return found;
}

export async function polled(id) {
  for (;;) {
    const response = await client.responses.retrieve(id);
    if (!["queued", "in_progress"].includes(response.status)) return response;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

// The first events of a stream; whoever stops to iterate over it has left it.
export async function some(stream, count) {
  const found = [];
  for await (const event of stream) {
    found.push(event);
    if (found.length === count) break;
  }
  return found;
}
