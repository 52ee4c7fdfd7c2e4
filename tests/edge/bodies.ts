// Makes random bodies of the model API. Called by planting.ts, which puts something forbidden into some of them.
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
export const makers: Record<string, (c: Chance) => Json> = {
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
export const vllm = (c: Chance): Json =>
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
