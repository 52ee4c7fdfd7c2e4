// A client that asked for a stream gets comments from the edge while endpoints are slow or fail.
import { generateKeyPairSync } from "node:crypto";
import type { ServerResponse } from "node:http";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Edge, type Json, region, rules, serve, stopAll, until } from "./harness.js";

const delta = (content: string) =>
  `data: ${JSON.stringify({ id: "c", choices: [{ index: 0, delta: { content }, finish_reason: null }] })}\n\n`;
const DONE = "data: [DONE]\n\n";
const COMMENT = ": keep-alive\n\n";
const ORIGIN = "https://app.example.com";

/** What each endpoint does with a request, how often it was asked, and how many of its requests were aborted. */
let plays: ((response: ServerResponse) => void)[], asked: number[], gone: number;
let edge: Edge,
  urls: string[],
  models = 0;

const events = (response: ServerResponse, ...texts: string[]) => {
  response.writeHead(200, { "content-type": "text/event-stream", "x-request-id": "theirs" }).flushHeaders();
  for (const text of texts) response.write(text);
};
const silent = (response: ServerResponse) => void response.on("close", () => (gone += 1));
const broken = (response: ServerResponse) => void response.writeHead(503).end("{}");
const later = (ms: number, play: (response: ServerResponse) => void) => (response: ServerResponse) =>
  void setTimeout(() => play(response), ms);
const document = (service: Json = {}) => {
  const limits = { headers_streamed: "1500ms", headers_unary: "5s" };
  return rules(1, region("DE", "fra", urls), { limits, keepalive: "1s", cors: { origins: [ORIGIN] }, ...service });
};

beforeAll(async () => {
  urls = await Promise.all(
    [0, 1].map((n) =>
      serve((request, response) => {
        asked[n] += 1;
        request.resume().on("end", () => plays[n](response));
      }),
    ),
  );
  edge = await Edge.start(document());
});
beforeEach(() => void ((asked = [0, 0]), (gone = 0)));
afterAll(stopAll);

const chat = (of = edge, body: Json = {}, more: Json = {}) =>
  of.chat("DE", { stream: true, model: `m${models++}`, ...body }, { headers: { origin: ORIGIN }, ...more });

test("comments come first, then the second endpoint's content and its region", async () => {
  plays = [silent, later(1_000, (response) => (events(response, `\ufeff${delta("42")}`), response.end(DONE)))];
  const began = performance.now();
  const reply = await chat();
  expect(performance.now() - began, "no comments came during the silence of 1.5 s").toBeLessThan(1_450);
  const header = (name: string) => reply.headers.get(name);
  expect([reply.status, header("content-type"), header("cache-control")]).toEqual([
    200,
    "text/event-stream; charset=utf-8",
    "no-store",
  ]);
  expect([header("x-bailiwick-revision"), header("access-control-allow-origin")]).toEqual(["1", ORIGIN]);
  expect(header("x-request-id")).toBe(header("x-bailiwick-request-id"));
  for (const name of ["endpoint", "region", "attempts", "upstream-request-id"])
    expect(header(`x-bailiwick-${name}`)).toBeNull();
  const text = await reply.text();
  expect(text).toMatch(/^(: keep-alive\n\n)+: bailiwick endpoint=fra-2 region=fra\n\n(?!:)/);
  expect(text.endsWith(delta("42") + DONE)).toBe(true);
  expect(text.slice(text.indexOf("region=fra\n\n") + 12)).toBe(delta("42") + DONE);
  expect([asked, gone]).toEqual([[1, 1], 1]);
});

test("an answer in time is the same as without comments", async () => {
  plays = [(response) => (events(response, delta("42")), response.end(DONE)), silent];
  const reply = await chat();
  expect(reply.headers.get("x-bailiwick-attempts")).toBe("fra-1;outcome=committed");
  expect(await reply.text()).toBe(delta("42") + DONE);
});

test("when all endpoints fail, one error event ends the stream", async () => {
  plays = [silent, broken];
  const text = await (await chat()).text();
  expect(text).toMatch(/^(: keep-alive\n\n)+data: \{"error":\{.*\}\}\n\n$/);
  expect(text).not.toContain("[DONE]");
  expect(JSON.parse(text.slice(text.indexOf("data: ") + 6)).error).toMatchObject({
    code: "region_unavailable",
    type: "server_error",
  });
});

test("in a stream of the Responses API, the error event has the form of that API", async () => {
  plays = [silent, broken];
  const reply = await edge.ask({ path: "/v1/responses", json: { model: `r${models++}`, input: "hi", stream: true } });
  const text = await reply.text();
  expect(text).toMatch(/^(: keep-alive\n\n)+event: error\ndata: \{.*\}\n\n$/);
  expect(JSON.parse(text.slice(text.indexOf("data: ") + 6))).toMatchObject({
    type: "error",
    code: "region_unavailable",
  });
});

test("the attempt ends when its client goes away during comments", async () => {
  plays = [(response) => (events(response, ": thinking\n\n"), silent(response)), silent];
  const reader = (await chat()).body!.getReader();
  expect(new TextDecoder().decode((await reader.read()).value)).toBe(COMMENT);
  await reader.cancel();
  await until(
    async () => gone,
    (now) => now === 1,
    5_000,
  );
  expect(asked).toEqual([1, 0]);
});

test("an answer that isn't streamed never begins with comments", async () => {
  plays = [
    later(1_300, (response) =>
      response.writeHead(200, { "content-type": "application/json" }).end('{"id":"c","choices":[]}'),
    ),
    silent,
  ];
  const reply = await chat(edge, { stream: false });
  expect(reply.headers.get("x-bailiwick-endpoint")).toBe("fra-1");
  expect(await reply.text()).toBe('{"id":"c","choices":[]}');
});

test.each([
  ["without keepalive", { keepalive: undefined }],
  ["where receipts are required", { receipts: "required" }],
] as [string, Json][])("%s no comments come before the answer", async (_, service) => {
  const { d, x, kty, crv } = generateKeyPairSync("ed25519").privateKey.export({ format: "jwk" });
  const other = await Edge.start(document(service), { RECEIPT_KEY: JSON.stringify({ kty, crv, d, x }) });
  plays = [later(1_300, (response) => (events(response, delta("42")), response.end(DONE))), silent];
  const reply = await chat(other);
  expect(reply.headers.get("x-bailiwick-endpoint")).toBe("fra-1");
  expect(reply.headers.has("x-bailiwick-receipt")).toBe(true);
  expect(await reply.text()).toBe(delta("42") + DONE);
  await other.stop();
});
