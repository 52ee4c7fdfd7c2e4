// Writes an endpoint's answer as pieces of bytes, with waits between them: with its length, in chunks, or up to the
// connection's end. Called by behaviours.ts.
import type { Draw } from "./draw.js";

/** What is written: pieces, with waits between them in milliseconds, then how the connection ends. */
export interface Script {
  pieces: (Buffer | number)[];
  /** `keep`: it stays open for the next request. `hang`: it stays open, and nothing more comes. */
  end: "keep" | "fin" | "reset" | "hang";
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

export interface Answer {
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
export function written(d: Draw, { status, type, body, lines = "", cut }: Answer, { isHead, pauses }: How): Script {
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
