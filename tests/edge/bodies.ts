// Random bodies of the model API, some with something forbidden in them, and an independent judge. From the API's
// reference alone it decides whether a model host could fetch, share or route by a body. It knows nothing of how the
// Worker decides.
import { isIP } from "node:net";
import type { Json } from "./harness.js";

/** A generator of random numbers that a seed makes repeatable (mulberry32). */
export class Chance {
  private state: number;

  constructor(seed: number) {
    this.state = seed;
  }

  next(): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  below(n: number): number {
    return Math.floor(this.next() * n);
  }

  of<T>(items: readonly T[]): T {
    return items[this.below(items.length)];
  }

  is(probability: number): boolean {
    return this.next() < probability;
  }

  /** Some of these fields. */
  some(fields: Json): Json {
    return Object.fromEntries(Object.entries(fields).filter(() => this.is(0.4)));
  }

  list<T>(most: number, make: () => T): T[] {
    return Array.from({ length: 1 + this.below(most) }, make);
  }
}

const URL_TEXT = "see https://a.example/x, 192.0.2.7:80 and //b.example";
export const texts = [
  "",
  "hi",
  URL_TEXT,
  "https://a.example/",
  "192.0.2.1",
  "\u0000é\ud83d\ude00",
  "fallbacks",
  "data:,x",
  "//x",
];
const base64 = (...parts: (string | number[])[]) =>
  Buffer.concat(parts.map((one) => Buffer.from(one as string))).toString("base64");
/** Media as it may occur in a body: files with a signature, a table, and data longer than any path. */
export const media = [
  "data:image/png;base64,AAAA",
  "data:,x",
  "/9j/4AAQSkZJRg==",
  base64([0x89], "PNG\r\n", [0x1a], "\n"),
  base64("RIFF", [36, 0, 0, 0], "WAVEfmt "),
  base64("name;amount\nMüller;12\n"),
  base64("%PDF-1.7\n"),
  base64([0, 0, 0, 32], "ftypisom"),
  "_-b".repeat(100),
  `//uQ${"A".repeat(300)}`,
];
/** Paths on a host's disk, and words in base64's letters that could be paths. */
export const paths = [
  "data/images/cats",
  "/mnt/a",
  "cats",
  "etc/passwd",
  "id_rsa",
  "AAAA",
  "a-b_c=",
  "./a.png",
  "../../x",
  "home/alice/pictures/img0001",
];
const labels = ["c1", "session:123", "call_9", "a b", "google-oauth2|1", "x.y", "gpt-4.1", "é", "a/b"];

const schema = (c: Chance, depth = 2): Json => ({
  type: "object",
  ...c.some({ title: c.of(texts), description: c.of(texts), $comment: c.of(texts), additionalProperties: false }),
  ...c.some({
    $schema: "http://json-schema.org/draft-07/schema#",
    $id: "https://a.example/s",
    default: { url: c.of(texts) },
  }),
  properties: {
    image_url: {
      type: ["string", "null"],
      pattern: "^https://",
      enum: [c.of(texts)],
      examples: [c.of(texts)],
      const: c.of(texts),
    },
    models: { $ref: "#/$defs/d" },
    ...(depth > 0 ? { provider: schema(c, depth - 1) } : {}),
  },
  $defs: { d: { anyOf: [{ type: "string" }, { not: { const: c.of(texts) } }] } },
});

const format = (c: Chance): Json =>
  c.of([
    { type: "text" },
    { type: "json_object" },
    {
      type: "json_schema",
      json_schema: { name: "n", strict: true, schema: schema(c), ...c.some({ description: c.of(texts) }) },
    },
  ]);

const chatTool = (c: Chance): Json =>
  c.is(0.8)
    ? {
        type: "function",
        function: { name: "f", ...c.some({ description: c.of(texts), strict: true, parameters: schema(c) }) },
      }
    : {
        type: "custom",
        custom: { name: "g", format: { type: "grammar", grammar: { syntax: "lark", definition: c.of(texts) } } },
      };

const part = (c: Chance): Json =>
  c.of<() => Json>([
    () => ({ type: "text", text: c.of(texts) }),
    () => ({ type: "image_url", image_url: { url: c.of(media), ...c.some({ detail: "low" }) } }),
    () => ({ type: "input_audio", input_audio: { data: c.of(media), format: "mp3" } }),
    () => ({ type: "file", file: { file_data: c.of(media), filename: "a.pdf" } }),
    () => ({ type: "text", text: c.of(texts), cache_control: { type: "ephemeral" } }),
  ])();

const message = (c: Chance): Json =>
  c.of<() => Json>([
    () => ({ role: "user", content: c.of(texts), ...c.some({ name: "bob" }) }),
    () => ({ role: "user", content: c.list(3, () => part(c)) }),
    () => ({
      role: c.of(["system", "developer"]),
      content: c.is(0.5) ? c.of(texts) : [{ type: "text", text: c.of(texts) }],
    }),
    () => ({
      role: "assistant",
      content: null,
      refusal: null,
      annotations: [],
      tool_calls: [{ id: c.of(labels), type: "function", function: { name: "f", arguments: c.of(texts) } }],
    }),
    () => ({
      role: "assistant",
      content: c.of(texts),
      ...c.some({ reasoning_content: c.of(texts), parsed: { url: c.of(texts) } }),
      annotations: [
        {
          type: "url_citation",
          url_citation: { url: "https://a.example", title: c.of(texts), start_index: 0, end_index: 1 },
        },
      ],
    }),
    () => ({ role: "tool", tool_call_id: c.of(labels), content: c.of(texts) }),
  ])();

const metadata = (c: Chance): Json => ({
  url: c.of(texts),
  models: c.of(texts),
  ...c.some({ region: "emea", model: c.of(texts), n: 7, yes: true, none: null }),
});

const chat = (c: Chance): Json => ({
  model: "m",
  messages: c.list(4, () => message(c)),
  ...c.some({
    temperature: 0.5,
    max_tokens: 9,
    max_completion_tokens: 9,
    n: 1,
    seed: 2 ** 53,
    stop: [c.of(texts)],
    user: c.of(labels),
    metadata: metadata(c),
    response_format: format(c),
    tools: c.list(3, () => chatTool(c)),
    tool_choice: "auto",
    parallel_tool_calls: true,
    logit_bias: { "50256": -100 },
    stream_options: { include_usage: true },
    verbosity: "low",
  }),
  ...c.some({
    modalities: ["text", "audio"],
    audio: { voice: "alloy", format: "mp3" },
    prediction: { type: "content", content: c.of(texts) },
    reasoning_effort: "low",
    service_tier: "auto",
    safety_identifier: c.of(labels),
    prompt_cache_key: c.of(labels),
    prompt_cache_retention: "24h",
    logprobs: true,
    top_logprobs: 2,
    functions: [{ name: "f", parameters: schema(c) }],
    moderation: c.of<any>([{ model: "omni", policy: { input: { mode: "score" } } }, "omni"]),
    top_k: 40,
    some_number: 7,
    some_switch: true,
    nothing: null,
  }),
});

const item = (c: Chance): Json =>
  c.of<() => Json>([
    () => ({ role: "user", content: c.of(texts) }),
    () => ({
      role: "user",
      content: [
        { type: "input_text", text: c.of(texts) },
        { type: "input_image", image_url: c.of(media), detail: "low" },
        { type: "input_file", file_data: c.of(media), filename: "a.pdf" },
      ],
    }),
    () => ({
      type: "message",
      role: "assistant",
      status: "completed",
      content: [
        {
          type: "output_text",
          text: c.of(texts),
          logprobs: [],
          annotations: [
            { type: "url_citation", url: "https://a.example", title: c.of(texts), start_index: 0, end_index: 1 },
          ],
        },
      ],
    }),
    () => ({ type: "function_call", call_id: c.of(labels), name: "f", arguments: c.of(texts) }),
    () => ({ type: "function_call_output", call_id: c.of(labels), output: c.of(texts) }),
    () => ({ type: "custom_tool_call", call_id: c.of(labels), name: "g", input: c.of(texts) }),
    () => ({
      type: "reasoning",
      summary: [{ type: "summary_text", text: c.of(texts) }],
      encrypted_content: "gAAAA_-=",
    }),
    () => ({
      type: "computer_call_output",
      call_id: "c",
      output: { type: "computer_screenshot", image_url: c.of(media) },
    }),
    () => ({ type: "local_shell_call_output", id: "l", output: c.of(texts) }),
    () => ({
      type: "shell_call_output",
      call_id: "c",
      output: [{ stdout: c.of(texts), stderr: c.of(texts), outcome: { type: "exit", exit_code: 0 } }],
    }),
  ])();

const responses = (c: Chance): Json => ({
  model: "m",
  store: false,
  input: c.is(0.2) ? c.of(texts) : c.list(4, () => item(c)),
  ...c.some({
    instructions: c.of(texts),
    include: ["message.input_image.image_url", "reasoning.encrypted_content"],
    max_output_tokens: 9,
    metadata: metadata(c),
    reasoning: { effort: "low", summary: "auto" },
    truncation: "auto",
    top_p: 1,
    user: c.of(labels),
    text: { verbosity: "low", format: { type: "json_schema", name: "n", schema: schema(c), description: c.of(texts) } },
    tools: [
      { type: "function", name: "f", strict: false, parameters: schema(c), description: c.of(texts) },
      {
        type: "namespace",
        name: "n",
        description: c.of(texts),
        tools: [{ type: "function", name: "f", parameters: null }],
      },
      { type: "shell", environment: { type: "local" } },
      { type: "local_shell" },
      { type: "apply_patch" },
    ],
    tool_choice: { type: "allowed_tools", mode: "auto", tools: [{ type: "function", name: "f" }] },
  }),
});

const grader = (c: Chance, depth = 1): Json =>
  c.of<() => Json>([
    () => ({ type: "string_check", name: "a", input: c.of(texts), reference: c.of(texts), operation: "eq" }),
    () => ({
      type: "text_similarity",
      name: "b",
      input: c.of(texts),
      reference: c.of(texts),
      evaluation_metric: "bleu",
    }),
    () => ({
      type: "score_model",
      name: "c",
      model: "omni",
      input: [{ role: "user", type: "message", content: c.of(texts) }],
      ...c.some({ range: [0, 1], sampling_params: { seed: 1, temperature: 0.5 } }),
    }),
    () =>
      depth > 0
        ? {
            type: "multi",
            name: "d",
            calculate_output: "x + y",
            graders: { x: grader(c, depth - 1), y: grader(c, depth - 1) },
          }
        : grader(c, 0),
  ])();

/** For each path, the function that makes its bodies. */
const makers: Record<string, (c: Chance) => Json> = {
  "/v1/chat/completions": chat,
  "/v1/responses": responses,
  "/v1/completions": (c) => ({
    model: "m",
    prompt: c.of([c.of(texts), [c.of(texts)], [1, 2], [[1], [2]]]),
    ...c.some({
      suffix: c.of(texts),
      stop: c.of(texts),
      max_tokens: 5,
      logprobs: 2,
      echo: true,
      user: c.of(labels),
      best_of: 1,
    }),
  }),
  "/v1/embeddings": (c) => ({
    model: "m",
    input: c.of([c.of(texts), [c.of(texts), "b"], [1, 2], [[1], [2]]]),
    ...c.some({ encoding_format: "base64", dimensions: 8, user: c.of(labels) }),
  }),
  "/v1/moderations": (c) => ({
    model: "m",
    input: c.of([
      c.of(texts),
      [c.of(texts)],
      [
        { type: "text", text: c.of(texts) },
        { type: "image_url", image_url: { url: c.of(media) } },
      ],
    ]),
  }),
  "/v1/images/generations": (c) => ({
    model: "m",
    prompt: c.of(texts),
    ...c.some({
      n: 1,
      size: "1024x1024",
      quality: "high",
      background: "transparent",
      output_format: "png",
      style: "vivid",
      moderation: "low",
    }),
  }),
  "/v1/audio/speech": (c) => ({
    model: "m",
    input: c.of(texts),
    voice: c.of(["alloy", "ash"]),
    ...c.some({ instructions: c.of(texts), response_format: "mp3", speed: 1.5, stream_format: "audio" }),
  }),
  "/v1/vector_stores": (c) => ({
    name: c.of(texts),
    ...c.some({
      metadata: metadata(c),
      description: c.of(texts),
      expires_after: { anchor: "last_active_at", days: 1 },
    }),
    ...c.some({ chunking_strategy: { type: "static", static: { max_chunk_size_tokens: 9, chunk_overlap_tokens: 1 } } }),
  }),
  "/v1/fine_tuning/jobs": (c) => ({
    model: "m",
    method: {
      type: "reinforcement",
      reinforcement: { grader: grader(c), ...c.some({ hyperparameters: { n_epochs: "auto", batch_size: 4 } }) },
    },
    ...c.some({ metadata: metadata(c), seed: 7, suffix: "x" }),
  }),
  "/v1/uploads": (c) => ({ bytes: 1, filename: "a.bin", mime_type: "text/plain; charset=utf-8", purpose: "user_data" }),
};

/** vLLM's own fields, for endpoints whose engine is vLLM. */
const vllm = (c: Chance): Json =>
  c.some({
    top_k: 40,
    min_p: 0.1,
    repetition_penalty: 1.1,
    stop_token_ids: [1, 2],
    bad_words: [c.of(texts)],
    ignore_eos: true,
    guided_json: schema(c),
    guided_regex: c.of(texts),
    guided_choice: [c.of(texts)],
    structured_outputs: { json: schema(c), regex: c.of(texts) },
    chat_template_kwargs: { enable_thinking: true, lang: "de" },
    documents: [{ title: "t", text: c.of(texts) }],
    vllm_xargs: { a: 1, b: "x" },
    truncation_side: "left",
  });

export const places = [
  "https://collector.example/x",
  "HTTPS://COLLECTOR.EXAMPLE",
  " https://collector.example",
  "ht\ttps://collector.example",
  "http:/\\collector.example",
  "https:collector.example",
  "//collector.example/x",
  "\\\\collector.example\\x",
  "gs://bucket/x",
  "s3://bucket/x",
  "ftp://collector.example",
  "file:///etc/passwd",
  "ws://collector.example",
  "odd+scheme://x",
  "collector.example:443",
  "collector.example:443/x",
  "u@collector.example:22",
  "192.0.2.1",
  "192.0.2.1:9999",
  "192.0.2.1/x",
  "2001:db8::1",
  "[2001:db8::1]:443",
  "::1",
  "https%3A%2F%2Fcollector.example",
  "https%253A%252F%252Fcollector.example",
  "ｈｔｔｐｓ：／／collector.example",
  "h\u200bttps://collector.example",
  "\u0000https://collector.example",
  "<https://collector.example>",
  "192。0。2。1",
  "localhost:8080",
  "\nhttps://collector.example",
];
export const strangeKeys = [
  "foo",
  "x_url",
  "reference",
  "link",
  "uri",
  "href",
  "src",
  "url",
  "image",
  "video",
  "source",
  "input_references",
  "ref_audio",
  "seeds",
];
export const routing = [
  "fallbacks",
  "models",
  "provider",
  "route",
  "transforms",
  "api_base",
  "base_url",
  "region",
  "inference_geo",
  "kv_transfer_params",
  "bootstrap_host",
  "bootstrap_port",
  "bootstrap_room",
  "connectors",
  "extra_body",
  "data_parallel_rank",
  "lora_path",
  "Fallbacks",
  "session_params",
];
/** Undocumented names that are made of routing words. */
export const routingLike = [
  "base_model",
  "modelName2",
  "sessionToken",
  "cacheKey",
  "semantic_cache",
  "litellm_x",
  "x-api-key",
  "providerX",
  "regionHint",
  "conversation_ref",
];
/** Fields that engines compile, unpickle, or obey when they read media. */
export const engineInputs = [
  "chat_template",
  "prompt_embeds",
  "image_embeds",
  "audio_embeds",
  "mm_processor_kwargs",
  "media_io_kwargs",
  "chatTemplate",
];
export const hosting = [
  "webSearch",
  "web_search",
  "search",
  "search_options",
  "enable_search",
  "web_search_options",
  "search_parameters",
  "plugins",
  "data_sources",
];

/** Models: plain ones, and ones whose names say where to go or who owns them. */
export const innerModels = [
  "m",
  "omni",
  "alias",
  "other",
  "gpt:online",
  "us.anthropic.claude",
  "gemini@europe-west4",
  "ft:gpt-4o:acme::1",
  "@preset/x",
];
const modelKeys = ["model", "Model", "judge_model", "graderModel", "model_id"];
const idKeys = [
  "file_id",
  "fileId",
  "image_file_id",
  "skill_id",
  "conversation_id",
  "container",
  "vector_stores",
  "previousResponseId",
  "vector_store_ids",
];

/** Every object and list in a body, and the body itself. */
function containers(value: any, found: any[] = []): any[] {
  if (value && typeof value === "object") {
    found.push(value);
    Object.values(value).forEach((inner) => containers(inner, found));
  }
  return found;
}

/** Puts something forbidden into a body, and says what. */
function plant(c: Chance, body: Json): string {
  const all = containers(body);
  const objects = all.filter((one) => !Array.isArray(one));
  const leaves = all.flatMap((one) =>
    Object.entries(one)
      .filter(([, value]) => typeof value !== "object")
      .map(([key]) => [one, key]),
  );
  const odd = () =>
    c.of<any>([
      c.of(places),
      [c.of(places)],
      { deep: { er: c.of(places) } },
      "word",
      ["word"],
      { a: "b" },
      7,
      true,
      null,
      [],
      {},
    ]);
  switch (c.below(17)) {
    case 0:
    case 1: {
      const strings = leaves.filter(
        ([one, key]) => typeof one[key] === "string" && !(one === body && key === "purpose"),
      );
      if (strings.length === 0) return "nothing";
      const [one, key] = c.of(strings);
      one[key] = c.of(places);
      return "a place for a string";
    }
    case 2:
    case 3:
      c.of(objects)[c.of(strangeKeys)] = odd();
      return "an unknown key";
    case 4:
      c.of([body, c.of(objects)])[c.of(routing)] = odd();
      return "a key that routes";
    case 5:
      body[c.of(hosting)] = c.of<any>([true, false, null, {}, { a: "b" }, 1]);
      return "a key that hosts";
    case 6: {
      const plain = leaves.filter(([one, key]) => typeof one[key] !== "string" && key !== "store" && key !== "stream");
      if (plain.length === 0) return "nothing";
      const [one, key] = c.of(plain);
      one[key] = c.of(places);
      return "a place for a number or switch";
    }
    case 7:
      body.tools = c.of<any>([
        [{ type: "web_search" }],
        [{ type: "mcp", server_label: "x" }],
        ["x"],
        [{ google_search: {} }],
        [{ type: "shell" }],
      ]);
      return "a hosted tool";
    case 8: {
      const strings = leaves.filter(([one, key]) => media.includes(one[key]));
      if (strings.length === 0) return "nothing";
      const [one, key] = c.of(strings);
      one[key] = c.of(paths);
      return "a path for media";
    }
    case 9: {
      const parts = objects.filter(
        (one) => /image|audio|file|screenshot/.test(one.type) || one.url || one.data || one.file_data,
      );
      c.of(parts.length > 0 ? parts : objects)[c.of([...strangeKeys, "path", "image_path", "base64", "location"])] =
        c.of<any>([
          c.of(paths),
          [c.of(paths)],
          { a: c.of(paths) },
          c.of(media),
          [c.of(media)],
          { url: c.of(media), detail: "low" },
        ]);
      return "a path or media under an unknown key";
    }
    case 10:
      body[c.of(routingLike)] = c.of<any>(["x", ["x"], { a: "b" }, true, false, null, 7]);
      return "a key of words that route";
    case 11:
      c.of([body, c.of(objects)])[c.of(engineInputs)] = c.of<any>([
        c.of(media),
        [c.of(media)],
        { a: 1 },
        true,
        false,
        null,
        7,
        "{{ x }}",
      ]);
      return "an engine's input";
    case 12: {
      const inner = objects.filter((one) => one !== body);
      if (inner.length === 0) return "nothing";
      c.of(inner)[c.of(modelKeys)] = c.of<any>([
        c.of(innerModels),
        c.of(innerModels),
        [c.of(innerModels)],
        { id: "m" },
        7,
        null,
      ]);
      return "a model below the top level";
    }
    case 13:
      c.of(objects)[c.of(idKeys)] = c.of<any>(["raw", ["raw"], { id: "raw" }, 7, true, false, null, []]);
      return "a raw id";
    case 14:
      if (!("metadata" in body)) return "nothing";
      body.metadata = c.of<any>([
        { tags: ["eu"] },
        { model_info: { id: "x" } },
        { [c.of(routing)]: "x" },
        { apiBase: "x" },
        ["x"],
        "x",
        [],
        {},
        null,
        { a: null, fallbacks: null },
        7,
      ]);
      return "odd metadata";
    case 15: {
      const graders = objects.filter((one) => typeof one.type === "string" && "name" in one && body.method);
      if (graders.length === 0) return "nothing";
      Object.assign(
        c.of(graders),
        c.of<Json>([
          { type: "python" },
          { source: "import os" },
          { type: "python", source: "x" },
          { type: "endpoint" },
        ]),
      );
      return "code of the client's";
    }
    default: {
      const parts = objects.filter((one) => typeof one.type === "string" && Array.isArray(body.messages ?? body.input));
      if (parts.length === 0) return "nothing";
      c.of(parts).type = c.of(["teleport", "web_fetch", "url"]);
      return "an unknown kind";
    }
  }
}

/** Makes a path and a body for it, or a body for the given path. With `engine`, the body is for an endpoint of vLLM. */
export function make(c: Chance, engine: boolean, only?: string): { path: string; body: Json; planted: string } {
  const path = only ?? (c.is(0.35) ? "/v1/chat/completions" : c.is(0.35) ? "/v1/responses" : c.of(Object.keys(makers)));
  const body = structuredClone({ ...makers[path](c), ...(engine && path === "/v1/chat/completions" ? vllm(c) : {}) });
  const planted = c.is(0.65) ? plant(c, body) : "nothing";
  return { path, body, planted };
}

/** Where the API has text or the client's own data, by path. `*` is an index, `**` anything below. */
const MESSAGES = [
  "messages.*.content",
  "messages.*.content.*",
  "messages.*.content.*.text",
  "messages.*.refusal",
  "messages.*.reasoning_content",
  "messages.*.parsed.**",
  "messages.*.tool_calls.*.function.arguments",
  "messages.*.annotations.*.url_citation.url",
  "messages.*.annotations.*.url_citation.title",
  // As in the Responses API. People read what an answer cited, in either shape.
  "messages.*.annotations.*.url",
  "messages.*.annotations.*.title",
];
const TEXT: Record<string, string[]> = {
  "/v1/chat/completions": [
    ...MESSAGES,
    "metadata.**",
    "stop",
    "stop.*",
    "prediction.content",
    "tools.*.function.description",
    "functions.*.description",
    "tools.*.custom.description",
    "tools.*.custom.format.grammar.definition",
    "response_format.json_schema.description",
  ],
  "/v1/responses": [
    "input",
    "input.*.content",
    "input.*.content.*.text",
    "input.*.content.*.annotations.*.url",
    "input.*.content.*.annotations.*.title",
    "input.*.arguments",
    "input.*.output",
    "input.*.input",
    "input.*.summary.*.text",
    "input.*.output.*.stdout",
    "input.*.output.*.stderr",
    "instructions",
    "metadata.**",
    "text.format.description",
    "tools.*.description",
  ],
  "/v1/completions": ["prompt", "prompt.*", "prompt.*.*", "suffix", "stop", "stop.*"],
  "/v1/embeddings": ["input", "input.*", "input.*.*"],
  "/v1/moderations": ["input", "input.*", "input.*.text"],
  "/v1/images/generations": ["prompt"],
  "/v1/audio/speech": ["input", "instructions"],
  "/v1/vector_stores": ["name", "description", "metadata.**"],
  "/v1/fine_tuning/jobs": [
    "metadata.**",
    // In a map of graders too, a value under a field's name belongs to that field.
    ...["grader", "grader.graders", "grader.graders.x", "grader.graders.y"]
      .map((at) => `method.reinforcement.${at}`)
      .flatMap((at) =>
        ["input", "reference", "source", "calculate_output", "input.*.content", "reference.*", "source.*"].map(
          (key) => `${at}.${key}`,
        ),
      ),
  ],
  "/v1/uploads": [],
};
const ENGINE_TEXT = [
  "bad_words.*",
  "guided_regex",
  "guided_choice.*",
  "structured_outputs.regex",
  ...["title", "text", "content", "contents", "snippet", "url"].map((key) => `documents.*.${key}`),
];
const SCHEMAS = [
  "tools.*.function.parameters",
  "functions.*.parameters",
  "response_format.json_schema.schema",
  "text.format.schema",
  "tools.*.parameters",
  "guided_json",
  "structured_outputs.json",
];
/** Content itself belongs there. */
const MEDIA = [
  "messages.*.content.*.image_url.url",
  "messages.*.content.*.input_audio.data",
  "messages.*.content.*.file.file_data",
  "input.*.image_url.url",
  "input.*.content.*.image_url",
  "input.*.content.*.file_data",
  "input.*.output.image_url",
];
const GRADERS = ["string_check", "text_similarity", "score_model", "label_model", "multi"];
const KINDS = [
  "messages.*.content.*.type",
  "input.*.content.*.type",
  "input.*.type",
  "input.*.summary.*.type",
  "input.*.output.type",
];
const kinds = new Set([
  "text",
  "image_url",
  "input_audio",
  "file",
  "input_text",
  "input_image",
  "input_file",
  "output_text",
  "message",
  "function_call",
  "function_call_output",
  "custom_tool_call",
  "reasoning",
  "summary_text",
  "computer_call_output",
  "computer_screenshot",
  "local_shell_call_output",
  "shell_call_output",
  "refusal",
]);
/** Names that the client made up. A colon and digits in them are not a port. */
const NAMES = /(^|\.)(user|safety_identifier|prompt_cache_key|name|id|call_id|tool_call_id|filename|model)$/;
const DOCUMENTED: Record<string, string> = {
  "/v1/chat/completions":
    "model messages temperature max_tokens max_completion_tokens n seed stop user metadata response_format tools " +
    "tool_choice parallel_tool_calls logit_bias stream_options verbosity modalities audio prediction " +
    "reasoning_effort service_tier safety_identifier prompt_cache_key " +
    "prompt_cache_retention logprobs top_logprobs functions moderation",
  "/v1/fine_tuning/jobs": "model method metadata seed suffix",
  "/v1/responses":
    "model messages store input instructions include max_output_tokens metadata reasoning truncation top_p user text " +
    "tools tool_choice image",
  "/v1/completions": "model prompt suffix stop max_tokens logprobs echo user best_of",
  "/v1/embeddings": "model input encoding_format dimensions user",
  "/v1/moderations": "model input",
  "/v1/images/generations": "model prompt n size quality background output_format style moderation",
  "/v1/audio/speech": "model input voice instructions response_format speed stream_format",
  "/v1/vector_stores": "name metadata description expires_after chunking_strategy",
  "/v1/uploads": "bytes filename mime_type purpose",
};
const ENGINES_OWN =
  "top_k min_p repetition_penalty stop_token_ids bad_words ignore_eos guided_json guided_regex guided_choice " +
  "structured_outputs chat_template_kwargs documents vllm_xargs truncation_side tools tool_choice";
const LOCAL = new Set([
  "function",
  "custom",
  "local_shell",
  "apply_patch",
  "computer",
  "namespace",
  "shell",
  "tool_search",
]);

const matches = (pattern: string, at: string[]): boolean => {
  const words = pattern.split(".");
  // A list of texts is text.
  if (at.length === words.length + 1 && words.at(-1) === "url" && /^\d+$/.test(at.at(-1)!))
    return matches(pattern, at.slice(0, -1));
  if (words.at(-1) === "**")
    return (
      at.length >= words.length &&
      words.slice(0, -1).every((word, i) => (word === "*" ? /^\d+$/.test(at[i]) : word === at[i]))
    );
  return words.length === at.length && words.every((word, i) => (word === "*" ? /^\d+$/.test(at[i]) : word === at[i]));
};
const beneath = (patterns: string[], at: string[]) =>
  patterns
    .map((pattern) => pattern.split(".").length)
    .find((length, i) => at.length >= length && matches(patterns[i], at.slice(0, length)));

/** Whether any reader could take a value for a place to connect to. */
export function isPlace(value: string, isName = false): boolean {
  if (/^\s*data:/i.test(value)) return false;
  // Base64 may begin like this. No host's name is so long.
  if (/^\/\/[A-Za-z0-9+/_=-]{64,}$/.test(value) && isMedia(value)) return false;
  let text = value
    .normalize("NFKC")
    .replace(/[\p{Cc}\p{Cf}]/gu, "")
    .replaceAll("。", ".")
    .replaceAll("\\", "/");
  for (let i = 0; i < 3; i++) {
    try {
      text = decodeURIComponent(text);
    } catch {}
  }
  text = text.replace(/^[\s"'<(]+|[\s>)]+$/g, "");
  if (/^\/\/[^/]/.test(text) || /^[a-z][a-z0-9+.-]+:\/\S/i.test(text) || /^(https?|wss?|ftp|file):\S/i.test(text))
    return true;
  const host = text.replace(/[/?#].*$/s, "").replace(/^.*@/, "");
  const named = host.match(/^\[(.*)\](:\d+)?$/);
  if (isIP(named ? named[1] : host) !== 0) return true;
  const [, name, port] = host.match(/^([^:\s]+):(\d{1,5})$/) ?? [];
  if (!port) return false;
  return (
    isIP(name) !== 0 ||
    name === "localhost" ||
    /^([\w-]+\.)+[a-z]{2,}$/i.test(name) ||
    (!isName && /^[\w-]*[a-z][\w-]*$/i.test(name))
  );
}

/** Whether a string is media: it decodes to media or to text, or is too long for a path. */
export function isMedia(value: string): boolean {
  const text = value.trim();
  if (text === "" || /^data:/i.test(text)) return true;
  if (!/^[A-Za-z0-9+/_=-]+$/.test(text)) return false;
  if (text.length > 4096 || text.split("/").some((piece) => piece.length > 255)) return true;
  const bytes = Buffer.from(text, "base64");
  const begins = bytes.subarray(0, 12).toString("latin1");
  if (
    /^(\x89PNG|\xff\xd8\xff|GIF8|RIFF|ID3|OggS|fLaC|%PDF|\x1aE\xdf\xa3|PK\x03\x04)/.test(begins) ||
    begins.slice(4, 8) === "ftyp"
  )
    return true;
  const read = bytes.toString("utf8");
  return bytes.length >= 12 && Buffer.from(read).equals(bytes) && !/[^\P{Cc}\n\r\t]/u.test(read);
}

const letters = (key: string) => key.toLowerCase().replace(/[^a-z0-9]/g, "");
const NAMES_OF_MEDIA = new RegExp(
  "(image|img|picture|photo|audio|sound|video|movie|clip|frames|media|mask|attachment|(?<!pro)file|pdf|" +
    "path|dir|directory|folder|url|uri|href|src|source|link|base64|b64|blob)s?$",
);
/** Whether a host that finds a string under this name may look for media there. */
const namesMedia = (key: string) =>
  NAMES_OF_MEDIA.test(letters(key)) ||
  (/(image|audio|video|file|inline).*(data|input|content|bytes|reference|ref|location)s?$/.test(letters(key)) &&
    !/metadata$/.test(letters(key)));
const MEDIA_TYPES = new RegExp(
  "^(image_url|input_image|input_audio|(input_)?file|image|audio|video|(audio|video|file|document)_url|document|" +
    "computer_screenshot|\\w+_embeds)$",
);
/** Documented keys with words or names in a part of media, or in an object within one. */
const WORDS_OF_MEDIA = new Set([
  "type",
  "detail",
  "format",
  "filename",
  "id",
  "name",
  "uuid",
  "text",
  "role",
  "cache_control",
  "content",
  "input",
]);

/**
 * Whether a value holds an undocumented string that could be a path. `hasWords`: documented words are beside the media.
 */
function strays(value: any, hasWords = true): boolean {
  if (typeof value === "string") return !isMedia(value);
  if (Array.isArray(value)) return value.some((inner) => strays(inner, hasWords));
  if (typeof value !== "object" || value === null) return false;
  // Models are names in every place.
  const isWord = (key: string, inner: any) =>
    (hasWords && WORDS_OF_MEDIA.has(key)) || (isModel(key) && (typeof inner === "string" || Array.isArray(inner)));
  return Object.entries(value).some(([key, inner]) => !isWord(key, inner) && strays(inner, namesMedia(key)));
}

const where = (at: string[]) => at.join(".");
/** Whether a position is a message, a part or an item, or an object of media in one of them. */
const isNode = (at: string[]) => /^(messages|input)(\.\d+)?(\.(content|output|summary)(\.\d+)?)?$/.test(where(at));
const isMediaObject = (at: string[]) => /^(messages|input)\..*\.(image_url|input_audio|file)$/.test(where(at));
/** Positions of text and names under a key that sounds like media. */
const MEDIA_IS_TEXT = /annotations\.\d+\.(url|file)$|url_citation\.url$/;

/** Why a service that allows nothing must refuse a body; null if it may pass. */
export function judge(path: string, body: Json, engine: boolean): string | null {
  const documented = new Set(DOCUMENTED[path].split(" "));
  if (engine && path !== "/v1/vector_stores" && path !== "/v1/uploads")
    ENGINES_OWN.split(" ").forEach((key) => documented.add(key));
  const text = [...TEXT[path], ...(engine ? ENGINE_TEXT : [])];
  for (const [key, value] of Object.entries(body)) {
    if (documented.has(key) || value === null) continue;
    if (routing.some((name) => name.toLowerCase() === key.toLowerCase())) return `routes: ${key}`;
    if (routingLike.includes(key) && value !== false && typeof value !== "number")
      return `made of routing words: ${key}`;
    if (hosting.includes(key) && value !== false) return `hosted: ${key}`;
    if (ROUTING_IDS.includes(key)) return `routes: ${key}`;
    if (isId(key) && !holdsNoId(value)) return `an id: ${key}`;
    // The keys of all paths below are in one table, and an empty list of ids names none.
    if (path === "/v1/vector_stores" && /^file_ids?$/.test(key)) continue;
    if (typeof value === "string" || typeof value === "object") return `unknown: ${key}`;
  }
  if ("tools" in body && body.tools !== null && !Array.isArray(body.tools)) return "tools are no list";
  return below(path, body, [], text);
}

function below(path: string, value: any, at: string[], text: string[]): string | null {
  const where = at.join(".");
  if (text.some((pattern) => matches(pattern, at) && (typeof value !== "object" || pattern.endsWith("**"))))
    return null;
  const schemaAt = beneath(SCHEMAS, at);
  if (schemaAt !== undefined) return typeof value === "object" ? null : inSchema(value, at.slice(schemaAt));
  if (typeof value === "string") {
    if (KINDS.some((pattern) => matches(pattern, at))) return kinds.has(value) ? null : `kind: ${where}`;
    if (MEDIA.some((pattern) => matches(pattern, at))) return isMedia(value) ? null : `no content: ${where}`;
    return isPlace(value, NAMES.test(where)) ? `place: ${where}` : null;
  }
  return null;
}

/** In a schema only references matter. Names of properties, and data in it, are the client's. */
function inSchema(value: unknown, at: string[]): string | null {
  if (typeof value !== "string") return null;
  const data = ["enum", "const", "default", "examples"].some((word) => at.slice(0, -1).includes(word));
  const key = at.at(-1),
    isName = ["properties", "$defs"].includes(at.at(-2) ?? "");
  if (data || isName) return null;
  if (key === "$ref" && !value.trimStart().startsWith("#")) return `reference: ${at.join(".")}`;
  if (key === "$schema" && !/^https?:\/\/json-schema\.org\//.test(value) && isPlace(value))
    return `dialect: ${at.join(".")}`;
  return null;
}

/** Metadata is a map of the client's own words. A key that only instructs a gateway isn't one. */
function odd(metadata: unknown): string | null {
  if (metadata === undefined || metadata === null || typeof metadata === "number" || typeof metadata === "boolean")
    return null;
  if (typeof metadata !== "object" || Array.isArray(metadata)) return "metadata is no map";
  for (const [key, value] of Object.entries(metadata as Json)) {
    if (value !== null && typeof value === "object") return `no text: metadata.${key}`;
    const isInstruction = /^fallbacks$/i.test(key) || key === "apiBase" || (routing.includes(key) && key.includes("_"));
    if (isInstruction && value !== null) return `routes: metadata.${key}`;
  }
  return null;
}

/**
 * Whether a host may run these models beside the request's own: those of a map, or any whose name says nothing but the
 * model.
 */
function mayRun(value: unknown, known: string[] | null): boolean {
  const isFine = (name: string) =>
    known
      ? known.includes(name)
      : !/:online$|^(us|eu|apac|jp)\.|@(preset\/|[a-z]+-[a-z]+\d)|^ft:/.test(name) && !isPlace(name, true);
  if (typeof value === "string") return isFine(value);
  if (Array.isArray(value)) return value.every((one) => mayRun(one, known));
  return value === null || typeof value !== "object";
}

/** Whether a value holds no id. All ids are sealed here. */
const holdsNoId = (value: unknown): boolean =>
  value === null ||
  value === false ||
  (Array.isArray(value) && value.every(holdsNoId)) ||
  (typeof value === "object" && !Array.isArray(value) && Object.keys(value!).length === 0);
const isId = (key: string) =>
  /(^|_)(file|skill|conversation|response|container|vector_store)_ids?$/.test(key) ||
  /^(fileId|previousResponseId|container|vector_stores)$/.test(key);
/** Ids by which gateways choose the model or the endpoint. */
const ROUTING_IDS = ["conversation_id", "model_id"];
const isModel = (key: string) => /^(.*_)?model(_id)?$/i.test(key) || /[a-z]Model$/.test(key);

function graded(value: any): string | null {
  if (typeof value !== "object" || value === null) return null;
  if (typeof value.type === "string" && !GRADERS.includes(value.type)) return `a grader of type ${value.type}`;
  if (typeof value.source === "string") return "a grader's source";
  for (const inner of Object.values(value.graders ?? {})) {
    const problem = graded(inner);
    if (problem) return problem;
  }
  return null;
}

/**
 * Judges every value of a body, and its tools as a whole. `known` are the models of an endpoint that has a map of them.
 */
export function verdict(path: string, body: Json, engine: boolean, known: string[] | null = null): string | null {
  const first = judge(path, body, engine) ?? odd(body.metadata) ?? graded(body.method?.reinforcement?.grader);
  if (first) return first;
  if (typeof body.moderation === "string" && !path.includes("images") && !mayRun(body.moderation, known))
    return "a model: moderation";
  const text = [...TEXT[path], ...(engine ? ENGINE_TEXT : [])];
  const walk = (value: any, at: string[]): string | null => {
    const found = below(path, value, at, text);
    if (found) return found;
    if (typeof value !== "object" || value === null) return null;
    const isSchema = beneath(SCHEMAS, at) !== undefined;
    // The keys are tokens, or the client's own.
    const isBias = at.join(".") === "logit_bias" || at.join(".") === "metadata";
    const isFree = isBias || text.some((pattern) => pattern.endsWith("**") && matches(pattern, [...at, "0"]));
    const isMediaPart = !Array.isArray(value) && ((MEDIA_TYPES.test(value.type) && isNode(at)) || isMediaObject(at));
    if (!isSchema && !isFree && isMediaPart && strays(value)) return `no media: ${where(at)}`;
    for (const [key, inner] of Object.entries(value)) {
      if (
        !Array.isArray(value) &&
        !isSchema &&
        !isFree &&
        inner !== null &&
        !text.some((pattern) => matches(pattern, [...at, key]))
      ) {
        if (inner !== false && engineInputs.some((name) => letters(name) === letters(key)))
          return `an engine's input: ${where([...at, key])}`;
        const isTop = at.length === 0;
        if (!isTop && namesMedia(key) && !MEDIA_IS_TEXT.test(where([...at, key])) && strays(inner))
          return `no media: ${where([...at, key])}`;
      }
      const isRoute = routing.some((name) => name.toLowerCase() === key.toLowerCase());
      if (at.length > 0 && !Array.isArray(value) && isRoute && inner !== null && !isSchema && !isFree)
        return `routes: ${[...at, key].join(".")}`;
      if (at.length > 0 && !Array.isArray(value) && !isSchema && !isFree) {
        if (ROUTING_IDS.includes(key) && inner !== null) return `routes: ${[...at, key].join(".")}`;
        // The object around it is undocumented.
        const isUndocumented = at.includes("outcome") || at[0] === "vllm_xargs";
        if (isUndocumented && /^location$/i.test(key) && inner !== null) return `routes: ${[...at, key].join(".")}`;
        if (isUndocumented && isModel(key) && !/^model$/i.test(key) && !mayRun(inner, []))
          return `made of routing words: ${key}`;
        if (isModel(key) && !mayRun(inner, known)) return `a model: ${[...at, key].join(".")}`;
        if (isId(key) && !holdsNoId(inner)) return `an id: ${[...at, key].join(".")}`;
      }
      const problem = walk(inner, [...at, key]);
      if (problem) return problem;
    }
    return null;
  };
  return walk(body, []) ?? tools(body.tools, body.tool_choice);
}

function tools(list: unknown, choice: any): string | null {
  for (const tool of Array.isArray(list) ? list : []) {
    if (typeof tool !== "object" || tool === null || typeof tool.type !== "string" || !LOCAL.has(tool.type))
      return "a hosted tool";
    if (tool.type === "shell" && tool.environment?.type !== "local") return "a hosted shell";
    const inner = tools(tool.tools, null);
    if (inner) return inner;
  }
  if (choice && typeof choice === "object") {
    if (choice.type !== "allowed_tools" && !LOCAL.has(choice.type)) return "a hosted choice";
    return tools(choice.tools, null);
  }
  return null;
}
