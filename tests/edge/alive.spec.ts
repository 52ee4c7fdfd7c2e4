// Endpoints that are slow with their first content. An endpoint that sends signs of life gets more time, a silent
// endpoint doesn't.
import type { IncomingMessage, ServerResponse } from "node:http";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Edge, type Json, read, region, rules, serve, stopAll } from "./harness.js";

const chunk = (delta: Json, finish_reason: string | null) => {
  const choices = [{ index: 0, delta, finish_reason }];
  return `data: ${JSON.stringify({ id: "c", object: "chat.completion.chunk", choices })}\n\n`;
};
const delta = (content: string) => chunk({ content }, null);
const last = `${chunk({}, "stop")}data: [DONE]\n\n`;
const event = (type: string, more: Json = {}) => `event: ${type}\ndata: ${JSON.stringify({ type, ...more })}\n\n`;
const role = `data: ${JSON.stringify({ choices: [{ index: 0, delta: { role: "assistant", content: "" } }] })}\n\n`;

/** What the first endpoint does with a request, and how often each endpoint was asked. */
let play: (response: ServerResponse, request: IncomingMessage) => void;
let asked: number[], slow: string, next: string;

const events = (response: ServerResponse) =>
  response.writeHead(200, { "content-type": "text/event-stream" }).flushHeaders();

/** Sends `sign` again and again, and an answer once `ms` have passed. */
function after(ms: number, sign: string, answer = delta("42") + last): typeof play {
  return (response) => {
    events(response);
    const began = performance.now();
    response.write(sign);
    const timer = setInterval(() => {
      if (performance.now() - began < ms) return void response.write(sign);
      clearInterval(timer);
      response.end(answer);
    }, 50);
    response.on("close", () => clearInterval(timer));
  };
}

beforeAll(async () => {
  slow = await serve(
    (request, response) => void ((asked[0] += 1), request.resume().on("end", () => play(response, request))),
  );
  next = await serve((request, response) => {
    asked[1] += 1;
    request.resume().on("end", () => (events(response), response.end(delta("next") + last)));
  });
});
beforeEach(() => void (asked = [0, 0]));
afterAll(stopAll);

const start = (limits: Json, service: Json = {}) =>
  Edge.start(
    rules(1, region("DE", "fra", [slow, next]), { limits: { headers_streamed: "300ms", ...limits }, ...service }),
  );

let models = 0;
const chat = (edge: Edge) => edge.chat("DE", { stream: true, model: `m${models++}` });

test.each([
  ["comments", ": ping\n\n"],
  ["comments without an empty line", ": OPENROUTER PROCESSING\n"],
  ["roles", role],
  ["events without a choice", `data: ${JSON.stringify({ choices: [], prompt_filter_results: [] })}\n\n`],
  ["heartbeats that are no JSON", "data: ping\n\n"],
  ["named heartbeats", "event: heartbeat\ndata: 12:00:01\n\n"],
])("an endpoint that sends %s after the limit for headers is still waited for", async (_, sign) => {
  const edge = await start({});
  play = after(900, sign);
  const began = performance.now();
  const { status, attempts, text } = await read(await chat(edge));
  expect({ status, attempts, asked }).toEqual({ status: 200, attempts: "fra-1;outcome=committed", asked: [1, 0] });
  expect(performance.now() - began).toBeGreaterThan(850);
  expect(text).toContain("42");
  expect(text).not.toMatch(/^data: (?![{[])/m);
  await edge.stop();
});

test("progress events of a response are a sign of life too", async () => {
  const edge = await start({});
  const done =
    event("response.output_text.delta", { delta: "42" }) + event("response.completed", { response: { id: "resp_1" } });
  play = after(900, event("response.created", { response: { id: "resp_1" } }) + event("response.in_progress"), done);
  const json = { model: "r", input: "hi", stream: true };
  const { status, attempts, text } = await read(await edge.ask({ path: "/v1/responses", json }));
  expect({ status, attempts, asked }).toEqual({ status: 200, attempts: "fra-1;outcome=committed", asked: [1, 0] });
  expect(text).toContain("response.completed");
  await edge.stop();
});

test.each([
  ["headers alone, held to headers_streamed", (response: ServerResponse) => events(response), {}, 300],
  ["signs of life for ever, held to first_token", after(60_000, ": ping\n"), { first_token: "700ms" }, 700],
  [
    "one sign of life and silence, held to idle",
    (response: ServerResponse) => (events(response), response.write(role)),
    { idle: "500ms" },
    500,
  ],
] as [string, typeof play, Json, number][])("late: %s", async (_, plays, limits, least) => {
  const edge = await start(limits);
  play = plays;
  const { status, attempts, text } = await read(await chat(edge));
  expect(status).toBe(200);
  const ms = Number(attempts?.match(/^fra-1;outcome=timeout;ms=(\d+), fra-2;outcome=committed$/)?.[1]);
  expect(ms).toBeGreaterThanOrEqual(least);
  expect(ms).toBeLessThan(least + 1_500);
  expect(text).toContain("next");
  await edge.stop();
});

test("an event that is neither content nor a heartbeat is a failed attempt at once", async () => {
  const edge = await start({});
  play = (response) => (events(response), response.write(": ping\n\ndata: upstream connect error\n\n"));
  const { attempts } = await read(await chat(edge));
  expect(attempts).toMatch(/^fra-1;outcome=error_event;ms=\d+, fra-2;outcome=committed$/);
  await edge.stop();
});
