// Quotas of providers: only requests that fit are sent, the next endpoint of the same fence serves the others, and
// estimated tokens are replaced by the used tokens.
import { type IncomingMessage, type ServerResponse } from "node:http";
import OpenAI from "openai";
import { afterAll, afterEach, expect, test } from "vitest";
import { Edge, type Json, StandIn, keyDigest, read, region, rules, serve, stopAll, until } from "./harness.js";

let edge: Edge;
afterEach(() => edge.stop());
afterAll(stopAll);

/** Starts the Worker with a quota for Frankfurt, and with other regions. */
async function start(quota: Json, frankfurt: string[], others: Json = {}, more: Json = {}): Promise<Edge> {
  const regions = { ...region("DE", "eu-frankfurt", frankfurt, { quota: "swc" }), ...others };
  const bindings = { EXPLAIN_TOKEN: "for-operators-only-0123456789" };
  return (edge = await Edge.start(
    rules(1, regions, {}, { quotas: { swc: { headroom: 0, ...quota } }, ...more }),
    bindings,
  ));
}

const acme = { tenants: { acme: { key_sha256: [keyDigest("sk-acme")], residency: "eu", services: ["chat"] } } };

/** The metrics that the Worker shows to its operator. */
async function metrics(): Promise<string> {
  const headers = { authorization: "Bearer for-operators-only-0123456789" };
  return (await read(await edge.ask({ path: "/.well-known/bailiwick/metrics", headers }))).text;
}

/** A provider whose answers are made by `answer`. */
function provider(answer: (request: IncomingMessage, response: ServerResponse, body: string) => void): Promise<string> {
  return serve(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    answer(request, response, body);
  });
}

function completion(response: ServerResponse, headers: Json = {}, usage: Json = {}): void {
  response.writeHead(200, { "content-type": "application/json", ...headers });
  const choices = [{ index: 0, message: { role: "assistant", content: "Hello" }, finish_reason: "stop" }];
  response.end(JSON.stringify({ object: "chat.completion", choices, usage }));
}

test("of five parallel calls against a quota of tokens only what fits is sent", async () => {
  const held: ServerResponse[] = [];
  const url = await provider((_, response) => void held.push(response));
  // A request has 18 tokens of prompt and 20 of answer. Two requests fit into a burst of 100 tokens.
  await start({ tokens: 200, burst: "30s" }, [url, url]);
  const calls = Array.from({ length: 5 }, () => edge.chat("DE", { max_tokens: 20 }).then(read));
  const settled: number[] = [];
  calls.forEach((call) => void call.then(({ status }) => settled.push(status)));
  await until(
    async () => [settled.length, held.length],
    ([refused, sent]) => refused + sent === 5,
  );
  expect(settled).toEqual([429, 429, 429]);
  held.forEach((response) => completion(response, {}, { prompt_tokens: 18, completion_tokens: 20 }));
  const answers = await Promise.all(calls);
  expect(answers.map(({ code }) => code).filter(Boolean)).toEqual(Array(3).fill("quota_exhausted"));
  expect(held).toHaveLength(2);
});

test("a refusal has the shortest wait, in seconds and milliseconds", async () => {
  const fra = await StandIn.start("eu-frankfurt");
  await start({ requests: 60, burst: "1s" }, [fra.url]);
  expect((await read(await edge.chat("DE"))).status).toBe(200);
  const reply = await edge.chat("DE");
  const { status, json } = await read(reply);
  expect({ status, type: json.error.type, code: json.error.code }).toEqual({
    status: 429,
    type: "rate_limit_error",
    code: "quota_exhausted",
  });
  const wait = Number(reply.headers.get("retry-after-ms"));
  expect(wait).toBeGreaterThan(0);
  expect(wait).toBeLessThanOrEqual(1000);
  expect(reply.headers.get("retry-after")).toBe("1");
  expect(reply.headers.get("x-should-retry")).toBeNull();
  expect(reply.headers.get("x-bailiwick-attempts")).toBeNull();
  expect(await fra.requests()).toHaveLength(1);
  await until(
    () => edge.chat("DE").then(read),
    ({ status }) => status === 200,
  );
});

test("while a quota is used up, the next endpoint of the same fence serves, and none outside of it", async () => {
  const [fra, par, nyc] = await Promise.all(
    ["eu-frankfurt", "eu-paris", "us-virginia"].map((one) => StandIn.start(one)),
  );
  const others = { ...region("FR", "eu-paris", [par.url]), ...region("US", "us-virginia", [nyc.url]) };
  await start({ requests: 2, burst: "30s", per: "1h" }, [fra.url], others);
  const regions = [];
  for (let i = 0; i < 4; i++) regions.push((await read(await edge.chat("DE"))).region);
  expect(regions).toEqual(["eu-frankfurt", "eu-paris", "eu-paris", "eu-paris"]);
  expect(await nyc.connections()).toBe(0);
  // The fence of an American client has no other region.
  expect((await read(await edge.chat("US"))).region).toBe("us-virginia");
});

test("the estimated tokens are replaced by the used tokens, for streams too", async () => {
  const fra = await StandIn.start("eu-frankfurt");
  await start({ tokens: 1000, burst: "30s", output_default: 400 }, [fra.url]);
  for (const stream of [false, true, false, true]) {
    // The estimate is about 420 of the 500 tokens of a burst. The request gives all but a few of them back.
    const { status, text } = await read(await edge.chat("DE", { stream }));
    expect(status).toBe(200);
    expect(text.includes('"usage":{')).toBe(!stream);
  }
  expect((await read(await edge.chat("DE", { max_tokens: 480 }))).status).toBe(200);
  expect((await read(await edge.chat("DE", { max_tokens: 600 }))).code).toBe("quota_exhausted");
  const tooLarge = await edge.chat("DE", { max_tokens: 2000 });
  expect(tooLarge.headers.get("x-should-retry")).toBe("false");
  expect((await read(tooLarge)).code).toBe("larger_than_quota");
});

test("a stream is asked for its usage, and a client that didn't ask doesn't get it", async () => {
  const [fra, par] = await Promise.all(["eu-frankfurt", "eu-paris"].map((name) => StandIn.start(name)));
  await start({ tokens: 100_000 }, [fra.url], region("FR", "eu-paris", [par.url]));
  const asked = async () => JSON.parse((await fra.requests()).at(-1)!.body).stream_options;
  const plain = await read(await edge.chat("DE", { stream: true }));
  expect(await asked()).toEqual({ include_usage: true });
  expect(plain.text).not.toContain("usage");
  expect(plain.text).toMatch(/data: \[DONE\]\n\n$/);
  const own = await read(await edge.chat("DE", { stream: true, stream_options: { include_usage: true } }));
  expect(own.text).toMatch(/"choices":\[\],"usage":\{.*\n\ndata: \[DONE\]\n\n$/);
  // Paris has no quota, so its requests are unchanged.
  await edge.chat("FR", { stream: true }).then(read);
  expect(JSON.parse((await par.requests())[0].body).stream_options).toBeUndefined();
});

test("a client that goes away is charged at least the estimate", async () => {
  const fra = await StandIn.start("eu-frankfurt");
  await start({ tokens: 1000, burst: "30s", output_default: 400 }, [fra.url], {}, acme);
  await fra.fail({ mode: "slow", delay_ms: 100 });
  const { port } = await edge.miniflare.ready;
  const leaving = new AbortController();
  const reply = await fetch(`http://localhost:${port}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: "Bearer sk-acme" },
    body: JSON.stringify({ model: "m", stream: true, messages: [{ role: "user", content: "Say hello." }] }),
    signal: leaving.signal,
  });
  await reply.body!.getReader().read();
  leaving.abort();
  await until(
    () => fra.open(),
    (open) => open === 0,
  );
  const headers = { authorization: "Bearer sk-acme" };
  expect((await read(await edge.chat("DE", {}, { headers }))).code).toBe("quota_exhausted");
});

test("the tokens of a failed attempt are given back", async () => {
  const [fra, par] = await Promise.all(["eu-frankfurt", "eu-paris"].map((name) => StandIn.start(name)));
  await start({ tokens: 1000, burst: "30s", output_default: 400 }, [fra.url], region("FR", "eu-paris", [par.url]));
  await fra.fail({ mode: "status", status: 400, body: '{"error":{"message":"no"}}', times: 3 });
  for (let i = 0; i < 3; i++) expect((await read(await edge.chat("DE"))).status).toBe(400);
  expect((await read(await edge.chat("DE"))).region).toBe("eu-frankfurt");
});

test("a provider's remaining number closes its quota, and isn't sent to the client", async () => {
  let left: Json = {};
  const url = await provider((_, response) => completion(response, left));
  const par = await StandIn.start("eu-paris");
  await start({ requests: 600, burst: "30s" }, [url], region("FR", "eu-paris", [par.url]));
  left = {
    "x-ratelimit-limit-requests": "-1",
    "x-ratelimit-remaining-requests": "-1",
    "x-ratelimit-reset-requests": "0",
  };
  expect((await read(await edge.chat("DE"))).region).toBe("eu-frankfurt");
  left = { "x-ratelimit-remaining-tokens": "0" };
  expect((await read(await edge.chat("DE"))).region).toBe("eu-frankfurt");
  left = {
    "x-ratelimit-limit-tokens": "1000",
    "x-ratelimit-remaining-tokens": "0",
    "x-ratelimit-reset-tokens": "1h0m0s",
    "x-ratelimit-reset-requests": "120ms",
  };
  const last = await edge.chat("DE");
  expect((await read(last)).region).toBe("eu-frankfurt");
  expect([...last.headers.keys()].filter((name) => name.startsWith("x-ratelimit"))).toEqual([]);
  expect((await read(await edge.chat("DE"))).region).toBe("eu-paris");
});

test("a 429 closes the quota for all endpoints that share it, for the time that the answer names", async () => {
  const [first, second] = await Promise.all(["eu-frankfurt", "eu-frankfurt"].map((name) => StandIn.start(name)));
  await start({ requests: 600, burst: "30s" }, [first.url, second.url]);
  await first.fail({ mode: "status", status: 429, headers: { "x-ms-retry-after-ms": "1500" }, times: 1 });
  const reply = await edge.chat("DE");
  expect((await read(reply)).code).toBe("quota_exhausted");
  expect(Number(reply.headers.get("retry-after-ms"))).toBeGreaterThan(1000);
  expect(await metrics()).toMatch(/quota_closed_seconds\{quota="swc"\} (1\.[0-4]|0\.)\d+/);
  expect(await second.requests()).toHaveLength(0);
  expect(await first.requests()).toHaveLength(1);
  await until(
    () => edge.chat("DE").then(read),
    ({ status }) => status === 200,
  );
});

test("the official client doesn't multiply a refusal that lasts", async () => {
  const fra = await StandIn.start("eu-frankfurt");
  await start({ requests: 1, per: "1h" }, [fra.url], {}, acme);
  const { port } = await edge.miniflare.ready;
  let asked = 0;
  const counting: typeof fetch = (...ask) => ((asked += 1), fetch(...ask));
  const client = new OpenAI({
    apiKey: "sk-acme",
    baseURL: `http://localhost:${port}/v1`,
    maxRetries: 4,
    fetch: counting,
  });
  const messages = [{ role: "user" as const, content: "Say hello." }];
  await client.chat.completions.create({ model: "m", messages });
  const refusal = await client.chat.completions.create({ model: "m", messages }).catch((error) => error);
  expect(refusal).toBeInstanceOf(OpenAI.RateLimitError);
  expect(Number(refusal.headers.get("retry-after"))).toBeGreaterThan(120);
  expect(asked).toBe(2);
  expect(await fra.requests()).toHaveLength(1);
});

test("an answer from another country than the rules say is logged as a warning", async () => {
  let place = "Germany West Central";
  const url = await provider((_, response) => completion(response, { "x-ms-region": place }));
  await start({ requests: 600 }, [url]);
  const count = async () => Number((await metrics()).match(/\{event="answer_from_elsewhere"\} (\d+)/)?.[1] ?? 0);
  expect((await read(await edge.chat("DE"))).status).toBe(200);
  expect(await count()).toBe(0);
  place = "East US 2";
  expect((await read(await edge.chat("DE"))).status).toBe(200);
  expect(await count()).toBe(1);
});
