// Requests that try to break the Worker. Each gets an answer in OpenAI's envelope, none causes a panic, and afterwards
// the same isolate still serves.
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Ask, Edge, StandIn, read, region, rules, stopAll } from "./harness.js";

let fra: StandIn, edge: Edge;

beforeAll(async () => {
  fra = await StandIn.start("eu-frankfurt");
  edge = await Edge.start(rules(1, region("DE", "eu-frankfurt", [fra.url]), { limits: { body_bytes: 100_000 } }));
});
afterAll(stopAll);

const post = (body: string | Uint8Array, headers: Record<string, string> = {}): Ask => ({
  method: "POST",
  body,
  headers,
});
const path = (path: string, method = "POST"): Ask => ({
  path,
  method,
  ...(method !== "GET" && { body: '{"model":"m"}' }),
});

const hostile: [string, Ask, number][] = [
  ["no body", { method: "POST" }, 400],
  ["an empty body", post(""), 400],
  ["no JSON", post("{"), 400],
  ["JSON that is no object", post("[]"), 400],
  ["null", post("null"), 400],
  ["bytes that are no UTF-8", post(new Uint8Array([0x7b, 0xff, 0xfe, 0x7d])), 400],
  ["a byte order mark", post("\ufeff{}"), 400],
  ["a duplicate key", post('{"model":"a","model":"b"}'), 400],
  ["a duplicate key, escaped", post('{"model":"a","mod\\u0065l":"b"}'), 400],
  ["a model that is a number", post('{"model":7}'), 400],
  ["nesting without end", post(`{"model":"m","x":${"[".repeat(40_000)}${"]".repeat(40_000)}}`), 400],
  ["text after the end", post('{"model":"m"} {}'), 400],
  ["a body over the limit", post(`{"model":"m","pad":"${"x".repeat(100_000)}"}`), 413],
  ["a compressed body", post("{}", { "content-encoding": "gzip" }), 415],
  ["a realtime session", { path: "/v1/realtime?model=m", headers: { upgrade: "websocket" } }, 501],
  ["GET where it takes POST", { method: "GET" }, 405],
  ["an unknown method", path("/v1/chat/completions", "PROPFIND"), 405],
  ["the root", path("/"), 404],
  ["an unknown path", path("/v1/chat/completions/more/than/there/is"), 404],
  ["an admin's path", path("/v1/organization/admin_api_keys"), 404],
  ["evals, which are left out", path("/v1/evals/eval_1/runs"), 404],
  ["conversations, which are left out", path("/v1/conversations", "GET"), 404],
  ["the health check of the endpoint", path("/health", "GET"), 404],
  ["empty segments", path("/v1//chat/completions"), 400],
  ["encoded dots, which clients resolve", path("/v1/%2e%2e/admin"), 404],
  ["an encoded slash", path("/v1/chat%2fcompletions"), 400],
  ["an encoded backslash", path("/v1/chat%5ccompletions"), 400],
  ["a broken escape", path("/v1/chat/completions%zz"), 400],
  ["a key in the query", path("/v1/chat/completions?api-key=canary"), 400],
  ["an absurd host", { ...path("/v1/chat/completions"), host: `${"a".repeat(60)}.${"b".repeat(60)}.example` }, 404],
  ["an address as host", { ...path("/v1/chat/completions"), host: "[::1]:99" }, 404],
  ["nothing of ours below .well-known", path("/.well-known/bailiwick/../../v1/models", "DELETE"), 405],
  ["an unknown name of ours", path("/.well-known/bailiwick/canary", "GET"), 404],
];

test.each(hostile)("%s", async (_, ask, status) => {
  const reply = await read(await edge.ask(ask));
  expect({ status: reply.status, text: reply.text }).toMatchObject({ status });
  expect(Object.keys(reply.json.error).sort()).toEqual(["code", "message", "param", "type"]);
  expect(reply.json.error.message.length).toBeGreaterThan(20);
  expect(reply.text).not.toContain("canary");
});

test("unusual headers pass or are dropped, and the isolate still serves", async () => {
  const headers = {
    authorization: "\u00ff",
    "api-key": ",,,",
    "cf-connecting-ip": "not an address",
    "content-length": "14",
    "content-type": "text/plain",
    "x-session-id": "\u00e9".repeat(3000),
    "accept-language": "*",
    "idempotency-key": "x".repeat(5000),
    "openai-organization": "org",
  };
  const { status } = await read(await edge.ask({ method: "POST", headers, body: '{"model":"m" }' }));
  expect(status).toBe(200);
});

test("a model's name with a lone surrogate is unknown, and harmless", async () => {
  expect(await read(await edge.ask(post('{"model":"\\ud800"}')))).toMatchObject({ status: 200 });
});

test("after all these requests the same isolate still serves", async () => {
  expect(await read(await edge.chat("DE"))).toMatchObject({ status: 200, region: "eu-frankfurt" });
});

test("none of these requests reached an endpoint", async () => {
  for (const { path, method } of await fra.requests()) expect([method, path]).toEqual(["POST", "/v1/chat/completions"]);
});
