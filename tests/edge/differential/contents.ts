// What good endpoints answer, by path: JSON and other content, and streams of events. Called by behaviours.ts.
import { texts } from "../bodies.js";
import type { Json } from "../harness.js";
import type { Draw } from "./draw.js";
import type { Message } from "./wire.js";

/** What a request asks for. */
export interface Asked {
  method: string;
  /** The path without `/v1` and the deployment of an Azure endpoint. */
  path: string;
  stream: boolean;
  model: string;
}

/** Reads what a request asks for. */
export function asked(request: Message): Asked {
  const [method, target] = request.first.split(" ");
  const path = target.split("?")[0].replace(/^\/[^/]+\/[^/]+(\/v1)?(\/openai\/deployments\/[^/]+)?/, "");
  const text = request.body.toString("latin1");
  return {
    method,
    path,
    stream: /"stream": ?true/.test(text) || /name="stream"\r\n\r\ntrue/.test(text),
    model: text.match(/"model": ?"([^"\\]*)"/)?.[1] ?? "m",
  };
}

const json = (d: Draw, value: unknown) => ({
  type: d.weighted([
    [9, "application/json"],
    [1, "application/json; charset=utf-8"],
  ]),
  body: Buffer.from(d.is(0.15) ? JSON.stringify(value, null, 2) : JSON.stringify(value)),
});

const usage = (d: Draw): Json =>
  d.weighted<Json>([
    [4, { usage: { prompt_tokens: d.below(100), completion_tokens: d.below(100), total_tokens: 100 } }],
    [2, {}],
    [1, { usage: null }],
    [1, { usage: { input_tokens: 3, output_tokens: 4, total_tokens: 7, input_tokens_details: { cached_tokens: 1 } } }],
  ]);

const text = (d: Draw) =>
  d.weighted([
    [6, d.of(texts)],
    [1, "x".repeat(d.below(150_000))],
    [1, "Gr\u00fc\u00dfe \u2603 \ud83d\ude00"],
  ]);

/** What an endpoint answers that isn't asked for a stream. */
export function content(d: Draw, { method, path, model }: Asked): { type: string; body: Buffer } {
  const names: Json = {
    model: d.of([model, model, "other", `${model}-2026`]),
    ...d.some({ system_fingerprint: "fp_1" }),
  };
  const id = (prefix: string) => `${prefix}${d.of(["abc", "A-b_9", "x".repeat(40)])}`;
  const [first, second = "", third = ""] = path.split("/").slice(1);
  if (method === "DELETE") return json(d, { id: id("file-"), object: "file", deleted: true });
  if (first === "models") {
    const one = (name: string) => ({ id: name, object: "model", created: 0, owned_by: "x" });
    return json(d, second ? one(decodeURIComponent(second)) : { object: "list", data: ["m", "n", "a/b"].map(one) });
  }
  if (path === "/chat/completions") {
    const choice = (index: number) => ({
      index,
      message: { role: "assistant", content: text(d), ...d.some({ refusal: null, reasoning_content: "hm" }) },
      finish_reason: d.of(["stop", "length", "tool_calls", null]),
    });
    const choices = Array.from({ length: d.is(0.2) ? 2 : 1 }, (_, i) => choice(i));
    return json(d, { id: id("chatcmpl-"), object: "chat.completion", created: 1, ...names, choices, ...usage(d) });
  }
  if (path === "/completions")
    return json(d, {
      id: id("cmpl-"),
      object: "text_completion",
      created: 1,
      ...names,
      choices: [{ index: 0, text: text(d), logprobs: null, finish_reason: "stop" }],
      ...usage(d),
    });
  if (first === "responses" && second !== "input_tokens")
    return json(d, { ...response(d, id("resp_"), names), ...usage(d) });
  if (path === "/embeddings")
    return json(d, {
      object: "list",
      ...names,
      data: [{ object: "embedding", index: 0, embedding: d.list(40, () => d.next() - 0.5) }],
      ...usage(d),
    });
  if (path === "/audio/speech")
    return { type: d.of(["audio/mpeg", "audio/wav"]), body: Buffer.from(d.list(9_000, () => d.below(256))) };
  if (first === "audio" && d.is(0.4)) return { type: "text/plain", body: Buffer.from(text(d)) };
  if (first === "audio") return json(d, { text: text(d), ...usage(d) });
  if (first === "images") return json(d, { created: 1, data: [{ b64_json: "iVBORw0KGgo=" }], ...usage(d) });
  if (path === "/moderations") return json(d, { id: id("modr-"), ...names, results: [{ flagged: false }] });
  if (third === "content" || path.endsWith("/content"))
    return { type: d.of(["text/plain", "application/octet-stream", ""]), body: Buffer.from(text(d)) };
  const kinds: Record<string, [prefix: string, object: string]> = {
    files: ["file-", "file"],
    uploads: ["upload_", "upload"],
    batches: ["batch_", "batch"],
    fine_tuning: ["ftjob-", "fine_tuning.job"],
    vector_stores: ["vs_", "vector_store"],
  };
  const [prefix, object] = kinds[first] ?? ["", "thing"];
  const one = (): Json => ({
    id: id(prefix),
    object,
    ...d.some({
      filename: "a.txt",
      purpose: "user_data",
      status: "completed",
      input_file_id: id("file-"),
      output_file_id: d.of([id("file-"), null]),
      fine_tuned_model: "ft:m:acme::abc",
      training_file: id("file-"),
      metadata: { a: id("file-") },
      ...usage(d),
    }),
  });
  const isList = method === "GET" && path.split("/").length <= 2;
  return json(d, isList ? { object: "list", data: d.list(3, one), has_more: d.is(0.3), last_id: id(prefix) } : one());
}

function response(d: Draw, id: string, names: Json): Json {
  const output = [
    {
      type: "message",
      id: "msg_1",
      role: "assistant",
      status: "completed",
      content: [{ type: "output_text", text: text(d), annotations: [] }],
    },
  ];
  const status = d.of(["completed", "completed", "incomplete", "failed"]);
  const error = status === "failed" ? { code: "server_error", message: "x" } : null;
  return {
    id,
    object: "response",
    created_at: 1,
    status,
    error,
    ...names,
    output,
    ...d.some({ previous_response_id: "resp_0" }),
  };
}

/** The events of a stream, whole or without some of its end, with what engines put between them. */
export function events(d: Draw, ask: Asked): Buffer {
  const end = d.weighted([
    [8, "\n\n"],
    [1, "\r\n\r\n"],
    [1, "\r\r"],
  ]);
  const line = end.slice(end.length / 2);
  const between = () =>
    d.weighted([
      [16, ""],
      [1, `: ping${end}`],
      [1, `:${line}`],
      [1, `event: ping${line}data: {"type": "ping"}${end}`],
      [1, `data: ping${end}`],
      [1, `id: 7${line}retry: 10${end}`],
      [1, end],
    ]);
  const list = ask.path.startsWith("/responses") ? responseEvents(d, ask.model) : chunkEvents(d, ask);
  const written = list.map(([name, data]) => {
    const field = d.is(0.9) ? "data: " : "data:";
    return `${between()}${name ? `event: ${name}${line}` : ""}${field}${data}${end}`;
  });
  return Buffer.from((d.is(0.03) ? "\ufeff" : "") + written.join("") + between());
}

type Event = readonly [name: string, data: string];

function chunkEvents(d: Draw, { path, model }: Asked): Event[] {
  const isChat = path === "/chat/completions";
  const common = { id: "chatcmpl-1", object: isChat ? "chat.completion.chunk" : "text_completion", created: 1, model };
  const chunk = (choices: Json[], more: Json = {}): Event => ["", JSON.stringify({ ...common, choices, ...more })];
  const choice = (content: Json, finish_reason: string | null = null): Json =>
    isChat ? { index: 0, delta: content, finish_reason } : { index: 0, text: content.content ?? "", finish_reason };
  const contents = d.list(d.is(0.1) ? 60 : 6, () => chunk([choice({ content: d.of(texts) })]));
  const failure: Event = ["", JSON.stringify({ error: { message: "it broke", type: "server_error", code: 500 } })];
  return [
    ...(isChat && d.is(0.8) ? [chunk([choice({ role: "assistant", content: "" })])] : []),
    ...contents,
    ...(d.is(0.05) ? [failure] : []),
    ...(d.is(0.92) ? [chunk([choice({}, d.of(["stop", "length"]))])] : []),
    ...(d.is(0.4) ? [chunk([], { usage: { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7 } })] : []),
    ...(d.is(0.9) ? [["", "[DONE]"] as const] : []),
  ];
}

function responseEvents(d: Draw, model: string): Event[] {
  const made = response(d, "resp_1", { model });
  const event = (type: string, more: Json): Event => [d.is(0.9) ? type : "", JSON.stringify({ type, ...more })];
  return [
    event("response.created", { response: { ...made, status: "in_progress", output: [] } }),
    ...(d.is(0.5) ? [event("response.in_progress", { response: { id: "resp_1" } })] : []),
    ...d.list(5, () => event("response.output_text.delta", { item_id: "msg_1", delta: d.of(texts) })),
    ...(d.is(0.05) ? [event("error", { code: "server_error", message: "it broke" })] : []),
    ...(d.is(0.9) ? [event(`response.${made.status}`, { response: { ...made, ...usage(d) } })] : []),
    ...(d.is(0.2) ? [["", "[DONE]"] as const] : []),
  ];
}
