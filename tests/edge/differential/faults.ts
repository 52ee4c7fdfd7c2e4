// What endpoints answer when something is wrong: errors in the words of engines and providers, odd JSON, answers with
// wrong bytes, and what is no HTTP. Called by behaviours.ts.
import { texts } from "../bodies.js";
import type { Json } from "../harness.js";
import type { Draw } from "./draw.js";
import type { Answer } from "./writing.js";

const RETRY_AFTER = ["1", "5", "20", "0", "abc", "-1", "1.5", "99999999999", "Fri, 31 Dec 1999 23:59:59 GMT", ""];
const json = (value: unknown) => Buffer.from(JSON.stringify(value));

export function failed(d: Draw): Answer {
  const status = d.of([
    400, 401, 402, 403, 404, 405, 408, 409, 413, 422, 429, 429, 429, 500, 500, 501, 502, 503, 504, 529,
  ]);
  const lines = d.weighted([
    [5, ""],
    [4, `retry-after: ${d.of(RETRY_AFTER)}\r\n`],
    [1, `retry-after-ms: ${d.of(["300", "5000", "x"])}\r\n`],
    [1, "x-ratelimit-remaining-tokens: 0\r\nx-ratelimit-reset-tokens: 12s\r\n"],
    [1, `x-should-retry: ${d.of(["true", "false"])}\r\n`],
  ]);
  const type = d.weighted([
    [8, "application/json"],
    [1, "text/html; charset=utf-8"],
    [1, "text/plain"],
    [1, ""],
  ]);
  return { status, type, lines, body: d.of(ERRORS)(d) };
}

/** Sentences by which engines and providers say what was wrong. */
const SENTENCES = [
  "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4900 in the messages).",
  "Rate limit reached for m. Please try again in 5 seconds.",
  "You exceeded your current quota, please check your plan and billing details.",
  "The model `m` does not exist or you do not have access to it.",
  "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
  "Incorrect API key provided: sk-x.",
  "Input is too long for requested model.",
  "upstream connect error or disconnect/reset before headers",
  "",
];
const CODES = [
  "context_length_exceeded",
  "rate_limit_exceeded",
  "insufficient_quota",
  "model_not_found",
  "content_filter",
  "invalid_api_key",
  null,
  400,
];
const ERRORS: readonly ((d: Draw) => Buffer)[] = [
  (d) => json({ error: { message: d.of(SENTENCES), type: "invalid_request_error", param: null, code: d.of(CODES) } }),
  (d) => json({ error: { message: d.of(SENTENCES), type: "server_error", param: "messages", code: d.of(CODES) } }),
  (d) => json({ object: "error", message: d.of(SENTENCES), type: "BadRequestError", param: null, code: 400 }),
  (d) => json({ error: d.of(SENTENCES), error_type: "validation" }),
  (d) => json({ detail: d.of<Json | string>([d.of(SENTENCES), { msg: "x" }]) }),
  () => json({ detail: [{ loc: ["body", "messages"], msg: "field required", type: "value_error.missing" }] }),
  () => Buffer.from("<html><body><h1>502 Bad Gateway</h1></body></html>"),
  () => Buffer.from('{"error": {"message": "cut'),
  () => Buffer.alloc(0),
  (d) => json({ error: { message: "x".repeat(d.below(80_000)), code: d.of(CODES) } }),
];

export function refusal(d: Draw): Answer {
  return { status: d.of([400, 400, 403, 404, 422, 429]), type: "application/json", body: d.of(ERRORS)(d) };
}

export function odd(d: Draw, stream: boolean): Buffer {
  const shapes = [
    { error: { message: "overloaded", type: "server_error", code: "overloaded" } },
    { id: "", choices: null, data: null, error: { message: "x" } },
    { choices: [] },
    { object: "error", message: "x", code: 500 },
    [],
    {},
    null,
    "text",
    7,
    { detail: "Not Found" },
    { id: "c", choices: [{ index: 0, message: { role: "assistant", content: null }, finish_reason: null }] },
    { id: "c", choices: [{ index: 0, delta: {}, finish_reason: "stop" }] },
    { id: "c", model: 7, choices: [{ message: { content: "x" } }], usage: { prompt_tokens: -1, total_tokens: 1e400 } },
    { usage: { prompt_tokens: 1e20, completion_tokens: 2, total_tokens: 3 }, choices: [{ index: 0, text: "x" }] },
  ];
  const text = d.weighted([
    [6, JSON.stringify(d.of(shapes))],
    [1, '{"a": 1'],
    [1, '{"a": 1} {"b": 2}'],
    [1, "\ufeff{}"],
    [1, "[".repeat(200)],
    [1, '{"id":"c","id":"d","choices":[{"index":0,"message":{"content":"\\ud800"},"finish_reason":"stop"}]}'],
    [1, " \n\t "],
    [1, "upstream connect error"],
  ]);
  return Buffer.from(stream && d.is(0.8) ? `data: ${text}\n\n${d.is(0.5) ? "data: [DONE]\n\n" : ""}` : text);
}

export const TYPES = [
  "text/html",
  "text/plain",
  "application/json; charset=utf-8",
  "Application/JSON",
  "text/event-stream; charset=utf-8",
  "text/event-stream;charset=UTF-8",
  "application/x-ndjson",
  "application/octet-stream",
  "",
  "audio/mpeg",
  "application/problem+json",
  "multipart/form-data; boundary=B",
];

/** Changes a few bytes of an answer, or adds some. */
export function marred(d: Draw, answer: Answer): Answer {
  const body = Buffer.from(answer.body);
  for (let n = d.between(1, 3); n > 0 && body.length > 0; n--)
    body[d.below(body.length)] = d.of([0, 10, 13, 34, 44, 58, 92, 123, 125, 0xc3, 0xff, d.below(256)]);
  const tail = d.of(["", "", "\n", d.of(texts), "data: {}\n\n", "event: x\ndata: y\n\n", ": c"]);
  return { ...answer, body: Buffer.concat([body, Buffer.from(tail)]) };
}

const PLAIN = 'content-length: 21\r\ncontent-type: application/json\r\n\r\n{"choices":[{"a":1}]}';

export const NONSENSE = [
  "SSH-2.0-OpenSSH_9\r\n",
  "HTTP/1.1 abc\r\n\r\n",
  "HTTP/1.1 200 OK\r\ncontent-length: abc\r\n\r\n{}",
  "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}",
  "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
  "HTTP/1.1 200 OK\r\nno colon here\r\n\r\n{}",
  "HTTP/1.1 99 OK\r\n\r\n",
  "\r\n\r\n",
  "<html>",
  "HTTP/2 200\r\n\r\n",
  // What lenient clients read, and strict ones don't.
  `HTTP/1.1 200\r\n${PLAIN}`,
  `HTTP/1.0 200 OK\r\n${PLAIN}`,
  `HTTP/1.1 200 OK\n${PLAIN.replaceAll("\r\n", "\n")}`,
  `HTTP/1.1 200 OK\r\nx-fold: a\r\n b\r\n${PLAIN}`,
  `HTTP/1.1 200 OK\r\ncontent-length: 21\r\n${PLAIN}`,
  `HTTP/1.1 200 OK\r\ncontent-length: 20\r\n${PLAIN}`,
  `HTTP/1.1 200 OK\r\ncontent-length: 21, 21\r\n${PLAIN.slice(PLAIN.indexOf("\r\n") + 2)}`,
  `HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n${PLAIN}`,
  `HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n15\r\n{"choices":[{"a":1}]}\r\n0\r\n\r\n`,
  `HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\n{"choices":[{"a":1}]}`,
  `HTTP/1.1 200 OK\r\nbad name: x\r\n${PLAIN}`,
  `HTTP/1.1 200 OK\r\nx-nul: a\0b\r\n${PLAIN}`,
  `HTTP/1.1 200 OK\r\nx-cr: a\rb\r\n${PLAIN}`,
  `\r\nHTTP/1.1 200 OK\r\n${PLAIN}`,
  `HTTP/1.1 200 OK\r\n${PLAIN}and more than that`,
];

/** Unusual headers of an answer that is otherwise good. */
export const HEADS: readonly (() => string)[] = [
  () => `x-long: ${"y".repeat(7_000)}\r\n`,
  () => `x-long: ${"y".repeat(30_000)}\r\n`,
  () => Array.from({ length: 60 }, (_, i) => `x-h${i}: ${i}\r\n`).join(""),
  () => "x-odd-name_: 1\r\nX-UPPER: Y\r\n",
  () => "keep-alive: timeout=5\r\nproxy-authenticate: Basic\r\n",
  () => "x-tab: a\tb\r\n",
  () => "x-space:    a   \r\n",
];

/** What comes before the answer. */
export const BEFORE = [
  "HTTP/1.1 100 Continue\r\n\r\n",
  "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n",
  "HTTP/1.1 102 Processing\r\n\r\n",
];
