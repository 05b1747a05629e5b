// The official openai client for JavaScript against a running gateway; prints which behaviours hold.
import OpenAI from "openai";

const { BASE, KEY, MODEL } = process.env;
const client = new OpenAI({ baseURL: BASE, apiKey: KEY, maxRetries: 0 });
const messages = [{ role: "user", content: "turn off the kitchen light" }];
const schema = { type: "object", properties: { level: { type: "integer" } }, required: ["level"] };
const found = {};

const answer = await client.chat.completions.create({ model: MODEL, messages });
const text = answer.choices[0].message.content;
found.chat = text.length > 0 && answer.usage.total_tokens > 0;

let streamed = "";
let usage = null;
const options = { model: MODEL, messages, stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create(options)) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
found.stream = streamed === text;
found.usage = usage?.total_tokens === answer.usage.total_tokens;

const word = text.slice(5, 9);
const stopped = await client.chat.completions.create({ model: MODEL, messages, stop: [word] });
found.stop = stopped.choices[0].message.content === text.slice(0, text.indexOf(word));

const form = { type: "json_schema", json_schema: { name: "light", schema } };
const formed = await client.chat.completions.create({ model: MODEL, messages, response_format: form, max_tokens: 60 });
found.schema = Number.isInteger(JSON.parse(formed.choices[0].message.content).level);

try {
  await client.chat.completions.create({ model: "nothing", messages });
} catch (error) {
  found.error = error instanceof OpenAI.NotFoundError && error.code === "model_not_found";
}

const stream = await client.chat.completions.create({ model: MODEL, messages, stream: true, max_tokens: 500 });
for await (const _ of stream) {
  stream.controller.abort();
}
found.cancel = stream.controller.signal.aborted;

found.models = (await client.models.list()).data.some((one) => one.id === MODEL);
const body = { completion_id: answer.id, corrected: "light.npm()" };
found.correction = (await client.post("/corrections", { body })).answer === text;

console.log(JSON.stringify(found));
