// OpenAI's own client for JavaScript before a service of ours: makes calls, and tells what came of each as JSON.
import OpenAI from "openai";

const asked = JSON.parse(process.argv[2]);
const messages = [{ role: "user", content: "What is Drift?" }];
const answer = { model: asked.model, messages, temperature: 0, max_tokens: 40 };
const forever = { ignore_eos: true };
const weather = {
  type: "object",
  properties: { city: { enum: ["Paris", "Rome"] }, hourly: { type: "boolean" } },
  required: ["city", "hourly"],
  additionalProperties: false,
};
const tool = { type: "function", function: { name: "weather", description: "ahead", parameters: weather } };

const client = (apiKey = asked.key) => new OpenAI({ baseURL: asked.url, apiKey, maxRetries: 0, timeout: 60_000 });
const create = (fields = {}, options = {}, key = asked.key) =>
  client(key).chat.completions.create({ ...answer, ...fields }, options);

function answered(found) {
  const [choice] = found.choices;
  return {
    text: choice.message.content,
    finish_reason: choice.finish_reason,
    usage: {
      input_tokens: found.usage.prompt_tokens,
      output_tokens: found.usage.completion_tokens,
      total_tokens: found.usage.total_tokens,
    },
  };
}

async function streamed() {
  const stream = await create({ ...forever, stream: true, stream_options: { include_usage: true } });
  let [text, pieces, finish_reason, usage] = ["", 0, null, null];
  for await (const part of stream) {
    const choice = part.choices[0];
    if (choice?.delta.content) {
      text += choice.delta.content;
      pieces += 1;
    }
    finish_reason = choice?.finish_reason ?? finish_reason;
    usage = part.usage ?? usage;
  }
  const { prompt_tokens: input_tokens, completion_tokens: output_tokens, total_tokens } = usage;
  return { text, pieces, finish_reason, usage: { input_tokens, output_tokens, total_tokens } };
}

async function helped() {
  const stream = client().chat.completions.stream({ ...answer, ...forever });
  let deltas = "";
  stream.on("content", (delta) => (deltas += delta));
  const whole = await stream.finalChatCompletion();
  return { text: whole.choices[0].message.content, deltas };
}

async function toolAndBack() {
  const wanted = { tools: [tool], tool_choice: "required", parallel_tool_calls: false, max_tokens: 120 };
  const { message } = (await create(wanted)).choices[0];
  const [call] = message.tool_calls;
  const result = { role: "tool", tool_call_id: call.id, content: "21 degrees" };
  const after = await create({ ...forever, messages: [...messages, message, result], tools: [tool], max_tokens: 8 });
  return { name: call.function.name, args: JSON.parse(call.function.arguments), after: answered(after) };
}

async function structured() {
  const schema = { name: "weather", schema: weather, strict: true };
  const found = await create({ response_format: { type: "json_schema", json_schema: schema }, max_tokens: 60 });
  return JSON.parse(found.choices[0].message.content);
}

async function completion(fields = {}) {
  const { messages: _, ...rest } = answer;
  return client().completions.create({ ...rest, ...forever, prompt: "What is Drift?", ...fields });
}

async function completionStreamed() {
  let text = "";
  for await (const part of await completion({ stream: true })) text += part.choices[0].text;
  return text;
}

async function aborted() {
  const controller = new AbortController();
  const long = { ...forever, stream: true, max_tokens: asked.long };
  const stream = await create(long, { signal: controller.signal });
  let pieces = 0;
  for await (const _ of stream) {
    pieces += 1;
    if (pieces === 3) controller.abort();
  }
  return { pieces };
}

async function untilLimited() {
  for (let time = 0; time < 3; time += 1) await create({ max_tokens: 1 }, {}, asked.limited_key);
}

const calls = {
  "models": async () => (await client().models.list()).data.map((model) => model.id),
  "whole": async () => answered(await create(forever)),
  "stream": streamed,
  "stream helper": helped,
  "tool": toolAndBack,
  "json_schema": structured,
  "completion": async () => (await completion()).choices[0].text,
  "completion stream": completionStreamed,
  "abort": aborted,
  "another model": () => create({ model: "another" }),
  "too long": () => create({ messages: [{ role: "user", content: messages[0].content.repeat(2000) }] }),
  "bad field": () => create({ top_p: 2.0 }),
  "wrong key": () => create({}, {}, "wrong"),
  "limited": untilLimited,
  "embeddings": () => client().embeddings.create({ model: asked.model, input: "What is Drift?" }),
};

function raised(error) {
  const kinds = [];
  for (let kind = error.constructor; kind?.name; kind = Object.getPrototypeOf(kind)) kinds.push(kind.name);
  const retry_after = error.headers?.get?.("retry-after") ?? null;
  return { raised: kinds, status: error.status ?? null, code: error.code ?? null, message: error.message, retry_after };
}

const told = {};
for (const name of asked.only ?? Object.keys(calls)) {
  try {
    told[name] = await calls[name]();
  } catch (error) {
    told[name] = raised(error);
  }
}
process.stdout.write(JSON.stringify(told));
