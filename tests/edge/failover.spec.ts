// Every way in which an endpoint fails before it has answered. The next one inside the fence answers, and no endpoint
// outside is asked.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Edge, type Json, StandIn, read, refusingUrl, region, rules, stopAll } from "./harness.js";

let fra: StandIn, par: StandIn, nyc: StandIn, edge: Edge;

beforeAll(async () => {
  [fra, par, nyc] = await Promise.all(["eu-frankfurt", "eu-paris", "us-virginia"].map((name) => StandIn.start(name)));
});
// Each test has a fresh isolate, so that a test isn't affected by endpoints that rest because of another.
beforeEach(async () => {
  await Promise.all([fra, par, nyc].map((standIn) => standIn.reset()));
  edge = await Edge.start(document(fra.url));
});
afterEach(() => edge.stop());
afterAll(stopAll);

function document(frankfurt: string, service: Json = {}): Json {
  const limits = { headers_streamed: "1s", headers_unary: "1s", idle: "1s" };
  return rules(
    1,
    {
      ...region("DE", "eu-frankfurt", [frankfurt]),
      ...region("FR", "eu-paris", [par.url]),
      ...region("US", "us-virginia", [nyc.url]),
    },
    { limits, ...service },
  );
}

async function servedByParis(stream: boolean): Promise<string> {
  const { status, region, attempts, text } = await read(await edge.chat("DE", { stream }));
  expect({ status, region }).toEqual({ status: 200, region: "eu-paris" });
  expect(text).toContain("eu-paris");
  expect(text).not.toContain("eu-frankfurt");
  expect(attempts).toMatch(/^eu-frankfurt-1;outcome=[a-z0-9_]+(;ms=\d+)?, eu-paris-1;outcome=committed(;ms=\d+)?$/);
  expect(await nyc.connections()).toBe(0);
  return attempts!;
}

describe.each([
  ["unary", false],
  ["streamed", true],
] as const)("%s", (_, stream) => {
  test.each<[string, Json]>([
    ["429", { mode: "status", status: 429 }],
    ["408", { mode: "status", status: 408 }],
    ["500", { mode: "status", status: 500 }],
    ["503", { mode: "status", status: 503 }],
    ["529", { mode: "status", status: 529 }],
    ["401: our credential is wrong there", { mode: "status", status: 401 }],
    ["a status that HTTP doesn't know", { mode: "status", status: 999 }],
    ["a redirect", { mode: "redirect", location: "http://127.0.0.1:9/v1/chat/completions" }],
    ["an HTML page", { mode: "wrong-type" }],
    ["an empty body", { mode: "empty" }],
    ["200 with an error", { mode: "error-event" }],
    ["a reset instead of headers", { mode: "reset-headers" }],
    ["silence instead of headers", { mode: "hang-headers" }],
    ["a reset before the first content", { mode: "reset", after: 0 }],
    ["an end before the first content", { mode: "end", after: 0 }],
    ["silence before the first content", { mode: "hang", after: 0 }],
  ])("%s", async (_, failure) => {
    await fra.fail(failure);
    await servedByParis(stream);
    expect(await fra.requests()).toHaveLength(1);
    const [[first], [second]] = [await fra.requests(), await par.requests()];
    expect(second.body).toBe(first.body);
  });

  test("a refused connection", async () => {
    await edge.put({ ...document(await refusingUrl()), revision: 2 });
    await servedByParis(stream);
  });
});

test("a redirect out of the fence is not followed", async () => {
  await fra.fail({ mode: "redirect", location: `${nyc.url}/v1/chat/completions` });
  await servedByParis(false);
  expect(await nyc.connections()).toBe(0);
});

test("if all endpoints are at their limit, the answer is 429 with the shortest wait", async () => {
  await fra.fail({ mode: "status", status: 429, headers: { "retry-after": "7" } });
  await par.fail({ mode: "status", status: 429, headers: { "retry-after": "3" } });
  const reply = await edge.chat("DE");
  expect(reply.headers.get("retry-after")).toBe("3");
  expect(reply.headers.get("x-should-retry")).toBeNull();
  expect(await read(reply)).toMatchObject({ status: 429, code: "rate_limit_exceeded" });
});

test("if all endpoints are too slow, the answer is 504", async () => {
  for (const standIn of [fra, par]) await standIn.fail({ mode: "hang-headers" });
  const reply = await edge.chat("DE");
  expect(reply.headers.get("x-should-retry")).toBeNull();
  expect(await read(reply)).toMatchObject({ status: 504, code: "upstream_timeout" });
});

test("an endpoint that failed rests, but if all endpoints of the fence rest, they are asked", async () => {
  await fra.fail({ mode: "status", status: 429, headers: { "retry-after": "30" } });
  await servedByParis(false);
  expect((await read(await edge.chat("DE"))).attempts).toMatch(/^eu-paris-1;outcome=committed/);
  expect(await fra.requests()).toHaveLength(1);
});

test("a request that the endpoint refuses is not retried, and the error has none of the endpoint's text", async () => {
  const body = {
    error: {
      message: "canary of the endpoint",
      type: "invalid_request_error",
      param: "messages",
      code: "context_length_exceeded",
    },
  };
  await fra.fail({ mode: "status", status: 400, body });
  const { status, json, text, attempts } = await read(await edge.chat("DE"));
  expect(status).toBe(400);
  expect(json.error).toMatchObject({
    type: "invalid_request_error",
    param: "messages",
    code: "context_length_exceeded",
  });
  expect(text).not.toContain("canary");
  expect(attempts).toMatch(/^eu-frankfurt-1;outcome=/);
  expect(await par.requests()).toEqual([]);
});

test("an endpoint's headers pass by allow-list only", async () => {
  const headers = {
    "set-cookie": "canary=1",
    "alt-svc": 'h3=":443"',
    link: "<canary>",
    nel: "{}",
    "report-to": "{}",
    refresh: "0;url=canary",
    location: "https://canary.example/",
    "x-bailiwick-region": "canary",
    "x-canary": "canary",
    server: "canary",
    "cf-ray": "canary",
  };
  // An answer with headers that an endpoint mustn't send to a client.
  await fra.fail({
    mode: "status",
    status: 200,
    headers,
    body: {
      id: "x",
      object: "chat.completion",
      choices: [{ index: 0, message: { role: "assistant", content: "hi" } }],
    },
  });
  const reply = await edge.chat("DE");
  expect(reply.status).toBe(200);
  expect(reply.headers.get("x-bailiwick-region")).toBe("eu-frankfurt");
  for (const name of [
    "set-cookie",
    "alt-svc",
    "link",
    "nel",
    "report-to",
    "refresh",
    "location",
    "x-canary",
    "server",
    "cf-ray",
  ]) {
    expect(reply.headers.get(name), name).toBeNull();
  }
});
