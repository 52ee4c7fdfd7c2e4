// Fault injection: every way in which an endpoint can fail, with unary and streamed requests, and what the client
// notices. Prints a table and writes it to target/edge-faults.txt. No endpoint outside the fence ever sees a socket or
// a byte.
import { mkdirSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Faulty, canary } from "./faulty.js";
import { Edge, type Json, refusingUrl, region, rules, root, stopAll } from "./harness.js";

const LIMIT = 400;
const limits = {
  headers_streamed: `${LIMIT}ms`,
  first_token: `${LIMIT}ms`,
  headers_unary: `${LIMIT}ms`,
  idle: `${LIMIT}ms`,
  total: "10s",
};

/** A row of the table: the fault of an endpoint, the form of the request, and the expected outcome. */
interface Row {
  fault: string;
  name: string;
  second: string;
  stream: boolean;
  /** How streams are passed on. */
  streams: "inspect" | "pipe";
  outcome: string;
  calls: [number, number];
  /** The longest time that the request may take, in milliseconds, on an idle machine. */
  within: number;
}

const rows: Row[] = [];
function row(name: string, fault: string, stream: boolean, outcome: string, more: Partial<Row> = {}): void {
  rows.push({
    name,
    fault,
    stream,
    outcome,
    streams: "inspect",
    second: "well",
    calls: [1, 1],
    within: LIMIT,
    ...more,
  });
}

const before: [string, string, number?][] = [
  ["429 with Retry-After", "429"],
  ["429 without a word of when", "429-bare"],
  ["408", "408"],
  ["500", "500"],
  ["401: our credential", "401"],
  ["silent", "silent", LIMIT],
  ["slow headers", "slow-headers", LIMIT],
  ["slow body", "slow-body", 2 * LIMIT],
  ["200 with an error event", "error-event"],
  ["wrong content type", "wrong-type"],
  ["empty body", "empty"],
  ["204", "no-content"],
  ["reset in a frame", "mid-frame-reset"],
  ["clean FIN, no terminal", "clean-fin"],
  ["307 to outside the fence", "redirect"],
  ["no HTTP at all", "garbage"],
  ["gzip that is none", "packed"],
  ["zstd, which nobody unpacks", "packed-otherwise"],
  ["200 with 100 kB of no JSON", "no-json"],
  ["200 with a sentence", "sentence"],
  ["200 with an error beside null choices", "error-beside-null"],
  ["connection refused", "refused"],
];
for (const [stream, streams] of [
  [false, "inspect"],
  [true, "inspect"],
  [true, "pipe"],
] as const) {
  for (const [name, fault, within = 0] of before) {
    const calls: [number, number] = [fault === "refused" ? 0 : 1, 1];
    row(name, fault, stream, "served by the next", { streams, within: LIMIT + within, calls });
  }
  for (const [name, second, outcome, within = 0] of [
    ["refuse connections", "refused", "503 region_unavailable"],
    ["500", "500", "503 region_unavailable"],
    ["429", "429", "429 rate_limit_exceeded, retry-after 30"],
    ["silent", "silent", "504 upstream_timeout", 2 * LIMIT],
    ["307 to outside the fence", "redirect", "503 region_unavailable"],
  ] as const) {
    const calls: [number, number] = second === "refused" ? [0, 0] : [1, 1];
    row(`all allowed regions: ${name}`, second, stream, outcome, { streams, second, calls, within: LIMIT + within });
  }
  row("what the client got wrong: 400", "400", stream, "400 context_length_exceeded", { streams, calls: [1, 0] });
}
const interrupted = "error event, no [DONE]";
row("after content: reset in a frame", "late-reset", true, interrupted, { calls: [1, 0] });
row("after content: clean FIN, no terminal", "late-fin", true, interrupted, { calls: [1, 0] });
row("after content: error event", "late-error", true, interrupted, { calls: [1, 0] });
row("after content: silent", "late-silent", true, interrupted, { calls: [1, 0], within: 2 * LIMIT });
row("after content: a frame without end", "late-drip", true, interrupted, { calls: [1, 0], within: 2 * LIMIT });
row("after content: slow, but in time", "late-slow", true, "whole", { calls: [1, 0], within: 5 * LIMIT });
// The Worker doesn't read what a pipe passes on. So it notices only a broken connection.
const piped: Partial<Row> = { streams: "pipe", calls: [1, 0] };
row("after content: reset in a frame", "late-reset", true, "part of an event, then an error event", piped);
row("after content: clean FIN, no terminal", "late-fin", true, "just ends", piped);
row("after content: error event", "late-error-apart", true, "the endpoint's own error event", piped);
row("after content: slow, but in time", "late-slow", true, "whole", { ...piped, within: 5 * LIMIT });
row("cut within 8 MiB", "late-cut", false, "served by the next");

/** An isolate has a budget of ten retries at once, and most rows need one retry. */
const ROWS_PER_ISOLATE = 11;
const edges: Edge[] = [];
let fence: Faulty, second: Faulty, outside: Faulty, nobody: string;

beforeAll(async () => {
  outside = await Faulty.start();
  [fence, second, nobody] = await Promise.all([
    Faulty.start(`${outside.url}/redirect/v1/chat/completions`),
    Faulty.start(`${outside.url}/redirect/v1/chat/completions`),
    refusingUrl(),
  ]);
  for (let from = 0; from < rows.length; from += ROWS_PER_ISOLATE) edges.push(await Edge.start(document(from)));
});
afterAll(async () => {
  await stopAll();
  report();
});

const url = (faulty: Faulty, row: number, fault: string) =>
  fault === "refused" ? nobody : `${faulty.url}/${fault}/r${row}`;

/** Rules with own regions, an own service and an own host for each row, so that rows don't affect each other. */
function document(from: number): Json {
  const all = rules(1, {});
  all.services = {};
  rows.slice(from, from + ROWS_PER_ISOLATE).forEach((row, index) => {
    const at = from + index;
    const regions = {
      ...region("DE", `r${at}-eu-first`, [url(fence, at, row.fault)]),
      ...region("FR", `r${at}-eu-second`, [url(second, at, row.second)]),
      ...region("US", `r${at}-us`, [url(outside, at, "well")]),
    };
    Object.assign(all.regions, regions);
    const { chat } = rules(1, regions, { hosts: [`r${at}.example`], limits, streams: row.streams }).services;
    all.services[`r${at}`] = chat;
  });
  return all;
}

const seen: { row: Row; ms: number; outcome: string; calls: number[]; sockets: number; bytes: number }[] = [];

test.each(rows.map((row, at) => [`${asked(row)}: ${row.name}`, row, at] as const))("%s", async (_, row, at) => {
  const edge = edges[Math.floor(at / ROWS_PER_ISOLATE)];
  // The first request of an isolate also compiles the rules, so it may take longer.
  await (await edge.ask({ path: "/.well-known/bailiwick/healthz" })).arrayBuffer();
  const [sockets, bytes] = [outside.sockets, outside.bytes];
  const began = performance.now();
  const reply = await edge.chat("DE", { stream: row.stream }, { host: `r${at}.example` });
  const text = await reply.text().catch(() => null);
  const ms = performance.now() - began;
  const outcome = outcomeOf(reply.status, reply.headers, text);
  const calls = [fence, second].map((faulty) => faulty.asked.filter((ask) => ask.path.includes(`/r${at}/`)).length);
  const left = { sockets: outside.sockets - sockets, bytes: outside.bytes - bytes };
  seen.push({ row, ms, outcome, calls, ...left });

  expect({ outcome, calls, ...left }).toEqual({ outcome: row.outcome, calls: row.calls, sockets: 0, bytes: 0 });
  expect(ms, "a request took too long").toBeLessThan(row.within + 5_000);
  // A pipe passes the endpoint's own error text on.
  const isPassed = row.streams === "pipe" && row.fault === "late-error-apart";
  if (isPassed) expect(text).toContain(canary);
  else expect(`${text} ${JSON.stringify([...reply.headers])}`).not.toContain(canary);
  for (const name of ["request-id", "revision", "attempts"])
    expect(reply.headers.get(`x-bailiwick-${name}`), name).toBeTruthy();
  expect(reply.headers.get("cache-control")).toBe("no-store");
  expect(reply.headers.get("server-timing")).toBeTruthy();
});

/** The form of a row's request and answer, for the table. */
function asked({ stream, streams }: Row): string {
  if (!stream) return "unary";
  return streams === "pipe" ? "piped" : "stream";
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function outcomeOf(status: number, headers: { get(name: string): string | null }, text: string | null): string {
  if (text === null) return "broken off";
  if (status !== 200) {
    const { code, message, type } = JSON.parse(text).error;
    expect([typeof message, typeof type]).toEqual(["string", "string"]);
    // The official clients may retry, except if a retry can't help. Here that is a redirect.
    expect(headers.get("x-should-retry")).toBe(message.includes("credential or address") ? "false" : null);
    const wait = headers.get("retry-after");
    return `${status} ${code}${wait ? `, retry-after ${wait}` : ""}`;
  }
  if (headers.get("content-type")?.startsWith("text/event-stream")) {
    const events = text
      .split("\n\n")
      .filter(Boolean)
      .map((event) => event.replace(/^data: /, ""));
    if (events.at(-1) === "[DONE]" && events.some((event) => event.startsWith('{"error":'))) {
      return "the endpoint's own error event";
    }
    const broken = events.findIndex((event) => event !== "[DONE]" && !isJson(event));
    if (broken >= 0) {
      expect([broken, JSON.parse(events.at(-1)!).error.code]).toEqual([events.length - 2, "upstream_interrupted"]);
      return "part of an event, then an error event";
    }
    if (events.at(-1) !== "[DONE]")
      return JSON.parse(events.at(-1)!).error && !text.includes("[DONE]") ? interrupted : "just ends";
  } else {
    // Miniflare, between workerd and this test, turns the reset into an end of the body. bare.spec.ts tests the reset.
    try {
      JSON.parse(text);
    } catch {
      return "broken off";
    }
  }
  return headers.get("x-bailiwick-region")?.endsWith("-second") ? "served by the next" : "whole";
}

test("the listener outside the fence records connections", async () => {
  const reply = await edges[0].chat("US", {}, { host: "r0.example" });
  expect(reply.status).toBe(200);
  await reply.arrayBuffer();
  expect(outside.sockets).toBe(1);
  expect(outside.bytes).toBeGreaterThan(100);
});

function report(): void {
  const cells = seen.map(({ row, ms, outcome, calls, sockets, bytes }) => [
    row.name,
    asked(row),
    outcome,
    `${Math.round(ms)} ms`,
    calls.join(" + "),
    `${bytes} B, ${sockets} sockets`,
  ]);
  const table = [["fault", "asked", "outcome for the client", "after", "calls", "left the fence"], ...cells];
  const widths = table[0].map((_, column) => Math.max(...table.map((line) => line[column].length)));
  const lines = table.map((line) =>
    line
      .map((cell, column) => cell.padEnd(widths[column]))
      .join("  ")
      .trimEnd(),
  );
  lines.splice(1, 0, widths.map((width) => "-".repeat(width)).join("  "));
  const title = `Two endpoints inside the fence, one outside; time limits of ${LIMIT} ms.`;
  const text = `${title} Calls: to the first + to the second endpoint.\n\n${lines.join("\n")}\n`;
  mkdirSync(`${root}target`, { recursive: true });
  writeFileSync(`${root}target/edge-faults.txt`, text);
  process.stdout.write(`\n${text}\n`);
}
