// How an endpoint behaves: draws a behaviour, and plays it on a socket when a request has come. A behaviour says how;
// the request says what: a stream or not, of which path. Called by cases.ts and endpoint.ts.
import type { Socket } from "node:net";
import { texts } from "../bodies.js";
import type { Json } from "../harness.js";
import { Draw } from "./draw.js";
import { content, events } from "./contents.js";
import type { Message } from "./wire.js";

/** A behaviour. Its seed decides whatever isn't said here. */
export interface Behaviour {
  kind: Kind;
  seed: number;
  /** Whether a stream pauses after its first content, so that all sides begin to pipe it there. */
  pauses?: boolean;
}

export type Kind = (typeof KINDS)[number][1];

/** Kinds by how often they occur. */
const KINDS = [
  [56, "good"],
  [14, "status"],
  [3, "refusal"],
  [2, "redirect"],
  [5, "odd"],
  [3, "type"],
  [2, "empty"],
  [5, "cut"],
  [2, "silent"],
  [2, "reset"],
  [3, "nonsense"],
  [4, "marred"],
  [3, "head"],
] as const;

export const draw = (d: Draw): Behaviour => ({ kind: d.weighted(KINDS), seed: d.below(2 ** 30) });

/** Whether the behaviour may make the edge wait for a limit. */
export const isSlow = ({ kind }: Behaviour): boolean => kind === "silent";

/** How long after the last byte a connection is reset, in milliseconds: a reset drops what is still queued. */
const BEFORE_RESET = 25;

/** What is written: pieces, with waits between them in milliseconds, then how the connection ends. */
interface Script {
  pieces: (Buffer | number)[];
  /** `keep`: it stays open for the next request. `hang`: it stays open, and nothing more comes. */
  end: "keep" | "fin" | "reset" | "hang";
}

/** Plays a behaviour as the answer to a request. Resolves when the connection may get the next one. */
export async function play(socket: Socket, behaviour: Behaviour, request: Message): Promise<void> {
  const d = new Draw(behaviour.seed);
  const { pieces, end } = script(d, behaviour, request);
  for (const piece of pieces) {
    if (socket.destroyed) return;
    if (typeof piece === "number") await new Promise((resolve) => setTimeout(resolve, piece));
    else socket.write(piece);
  }
  if (end === "fin") socket.end();
  if (end === "reset") setTimeout(() => socket.resetAndDestroy(), BEFORE_RESET);
}

/** Headers that endpoints send, of which some pass. */
const HEADERS: readonly (readonly [string, readonly string[]])[] = [
  ["x-request-id", ["req_1", "", "a b", "x".repeat(300)]],
  ["openai-processing-ms", ["12"]],
  ["openai-organization", ["org-x"]],
  ["openai-version", ["2020-10-01"]],
  ["x-ratelimit-remaining-requests", ["0", "9", "x"]],
  ["x-ratelimit-reset-requests", ["30s", "6m0s", "x"]],
  ["x-ratelimit-limit-tokens", ["1000"]],
  ["retry-after", ["30"]],
  ["server", ["uvicorn", "cloudflare"]],
  ["date", ["Mon, 30 Nov 2026 12:00:00 GMT"]],
  ["set-cookie", ["a=b; path=/", "c=d"]],
  ["set-cookie", ["e=f"]],
  ["cache-control", ["public, max-age=60"]],
  ["etag", ['"x"']],
  ["vary", ["accept-encoding", "origin"]],
  ["content-disposition", ['attachment; filename="a.txt"']],
  ["content-language", ["de"]],
  ["x-bailiwick-region", ["mars"]],
  ["access-control-allow-origin", ["*"]],
  ["strict-transport-security", ["max-age=1"]],
  ["cf-ray", ["8a"]],
  ["azureml-model-session", ["d1"]],
  ["x-ms-region", ["Sweden Central", "West Europe"]],
  ["via", ["1.1 proxy"]],
  ["x-empty", [""]],
  ["x-latin", ["caf\u00e9"]],
  ["x-utf8", ["caf\u00c3\u00a9"]],
  ["x-many", ["a", "b"]],
  ["X-Many", ["c"]],
  ["trailer", ["x-checksum"]],
];

function more(d: Draw): string {
  const some = HEADERS.filter(() => d.is(0.08)).map(([name, values]) => `${name}: ${d.of(values)}\r\n`);
  return some.join("");
}

const head = (status: number, lines: string) => Buffer.from(`HTTP/1.1 ${status} Whatever\r\n${lines}\r\n`, "latin1");

interface Answer {
  status: number;
  type: string;
  body: Buffer;
  /** Headers beside it. */
  lines?: string;
  /** How much of the body is sent before it breaks off. Absent: all. */
  cut?: number;
}

interface How {
  isHead: boolean;
  pauses: boolean;
}

/** How long a stream pauses, in milliseconds. */
const PAUSE = 40;

/** A part of an answer in random pieces. Where a stream pauses, one piece ends behind the first content. */
function pieced(d: Draw, part: Buffer, most: number, pauses: boolean): (Buffer | number)[] {
  const delayed = (piece: Buffer) => [...(d.is(0.3) ? [d.between(0, 4)] : []), piece];
  const [first] = part.toString("latin1").match(CONTENT) ?? [""];
  if (!pauses || first === "") return d.split(part, most).flatMap(delayed);
  const rest = d.split(part.subarray(first.length), most);
  return [part.subarray(0, first.length), PAUSE, ...rest.flatMap(delayed), PAUSE];
}

/** A stream up to its first event with content. */
const CONTENT = /^[^]*?"(?:content|text|delta)": ?"[^"][^]*?(?:\r\n\r\n|\n\n|\r\r)/;

/** The answer as pieces: with its length, in chunks, or up to the connection's end. */
function written(d: Draw, { status, type, body, lines = "", cut }: Answer, { isHead, pauses }: How): Script {
  const stream = type.startsWith("text/event-stream");
  const framing = d.weighted([
    [stream ? 1 : 6, "length"],
    [stream ? 8 : 3, "chunked"],
    [1, "close"],
  ] as const);
  const common = `${type && `content-type: ${type}\r\n`}${more(d)}${lines}`;
  const part = body.subarray(0, cut ?? body.length);
  const length = `content-length: ${body.length}\r\n`;
  if (isHead) return { pieces: [head(status, common + length)], end: "keep" };
  if (status === 204 || status === 304) return { pieces: [head(status, common)], end: "keep" };
  const ending = (): Script["end"] => (cut === undefined ? "keep" : d.of(["fin", "reset"]));
  if (framing === "chunked") {
    const chunks = pieced(d, part, 6, pauses).map((piece) => (typeof piece === "number" ? piece : chunked(d, piece)));
    const trailer = d.is(0.05) ? "x-checksum: abc\r\n" : "";
    const last = cut === undefined ? [Buffer.from(`0\r\n${trailer}\r\n`)] : [];
    return { pieces: [head(status, `${common}transfer-encoding: chunked\r\n`), ...chunks, ...last], end: ending() };
  }
  const pieces = pieced(d, part, 4, pauses);
  if (framing === "length") return { pieces: [head(status, common + length), ...pieces], end: ending() };
  return {
    pieces: [head(status, `${common}connection: close\r\n`), ...pieces],
    end: cut === undefined ? "fin" : ending(),
  };
}

const chunked = (d: Draw, piece: Buffer) =>
  Buffer.concat([
    Buffer.from(`${piece.length.toString(16)}${d.is(0.03) ? ";a=b" : ""}\r\n`),
    piece,
    Buffer.from("\r\n"),
  ]);

const RETRY_AFTER = ["1", "5", "20", "0", "abc", "-1", "1.5", "99999999999", "Fri, 31 Dec 1999 23:59:59 GMT", ""];

/** What a request asks for. */
export interface Asked {
  method: string;
  /** The path without `/v1` and the deployment of an Azure endpoint. */
  path: string;
  stream: boolean;
  model: string;
}

function asked(request: Message): Asked {
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

function script(d: Draw, { kind, pauses = false }: Behaviour, request: Message): Script {
  const ask = asked(request);
  const how = { isHead: ask.method === "HEAD", pauses };
  const good = (): Answer =>
    ask.stream ? { status: 200, type: "text/event-stream", body: events(d, ask) } : { status: 200, ...content(d, ask) };
  switch (kind) {
    case "good":
      return written(d, good(), how);
    case "status":
      return written(d, failed(d), how);
    case "refusal":
      return written(d, refusal(d), how);
    case "redirect": {
      const location = `location: ${d.of(["http://127.0.0.1:9/", "/v1/models", "https://a.example/x", ""])}\r\n`;
      return written(
        d,
        { status: d.of([301, 302, 303, 307, 308, 304]), type: "", body: Buffer.alloc(0), lines: location },
        how,
      );
    }
    case "odd":
      return written(d, { ...good(), body: odd(d, ask.stream) }, how);
    case "type":
      return written(d, { ...good(), type: d.of(TYPES) }, how);
    case "empty":
      return written(d, { ...good(), status: d.of([200, 200, 204, 202]), body: Buffer.alloc(0) }, how);
    case "cut": {
      const whole = good();
      return written(d, { ...whole, cut: d.below(whole.body.length) }, how);
    }
    case "marred":
      return written(d, marred(d, good()), how);
    case "silent": {
      const whole = written(d, good(), how);
      // Nobody notices the silence of a stream that is piped.
      const most = pauses ? 2 : whole.pieces.length;
      return { pieces: whole.pieces.slice(0, d.below(most)), end: "hang" };
    }
    case "reset":
      return { pieces: d.is(0.5) ? [] : [Buffer.from("HTTP/1.1 200 OK\r\ncontent-ty")], end: d.of(["reset", "fin"]) };
    case "nonsense":
      return { pieces: [Buffer.from(d.of(NONSENSE), "latin1")], end: "fin" };
    case "head": {
      const whole = written(d, { ...good(), lines: d.of(HEADS)() }, how);
      return d.is(0.3) ? { ...whole, pieces: [Buffer.from(d.of(BEFORE)), ...whole.pieces] } : whole;
    }
  }
}

const json = (value: unknown) => Buffer.from(JSON.stringify(value));

function failed(d: Draw): Answer {
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

function refusal(d: Draw): Answer {
  return { status: d.of([400, 400, 403, 404, 422, 429]), type: "application/json", body: d.of(ERRORS)(d) };
}

function odd(d: Draw, stream: boolean): Buffer {
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

const TYPES = [
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
function marred(d: Draw, answer: Answer): Answer {
  const body = Buffer.from(answer.body);
  for (let n = d.between(1, 3); n > 0 && body.length > 0; n--)
    body[d.below(body.length)] = d.of([0, 10, 13, 34, 44, 58, 92, 123, 125, 0xc3, 0xff, d.below(256)]);
  const tail = d.of(["", "", "\n", d.of(texts), "data: {}\n\n", "event: x\ndata: y\n\n", ": c"]);
  return { ...answer, body: Buffer.concat([body, Buffer.from(tail)]) };
}

const PLAIN = 'content-length: 21\r\ncontent-type: application/json\r\n\r\n{"choices":[{"a":1}]}';

const NONSENSE = [
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
const HEADS: readonly (() => string)[] = [
  () => `x-long: ${"y".repeat(7_000)}\r\n`,
  () => `x-long: ${"y".repeat(30_000)}\r\n`,
  () => Array.from({ length: 60 }, (_, i) => `x-h${i}: ${i}\r\n`).join(""),
  () => "x-odd-name_: 1\r\nX-UPPER: Y\r\n",
  () => "keep-alive: timeout=5\r\nproxy-authenticate: Basic\r\n",
  () => "x-tab: a\tb\r\n",
  () => "x-space:    a   \r\n",
];

/** What comes before the answer. */
const BEFORE = [
  "HTTP/1.1 100 Continue\r\n\r\n",
  "HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n",
  "HTTP/1.1 102 Processing\r\n\r\n",
];
