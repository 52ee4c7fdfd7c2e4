// State that an isolate keeps from earlier requests: cool-downs, breakers, the retry budget, and the endpoint of
// related requests.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Faulty } from "./faulty.js";
import { type Ask, Edge, type Json, read, region, rules, stopAll, until } from "./harness.js";

let first: Faulty, second: Faulty, edge: Edge;

beforeAll(async () => {
  [first, second] = await Promise.all([Faulty.start(), Faulty.start()]);
});
beforeEach(() => {
  for (const faulty of [first, second]) faulty.asked.length = 0;
});
afterEach(() => edge.stop());
afterAll(stopAll);

/** Makes the first endpoint fail in this way, and the second never. */
async function failing(fault: string): Promise<void> {
  const regions = { ...region("DE", "fra", [`${first.url}/${fault}`]), ...region("FR", "par", [second.url]) };
  edge = await Edge.start(rules(1, regions, { limits: { idle: "300ms", headers_streamed: "300ms" } }));
}

const by = async (body: Json = {}, more: Ask = {}) => (await read(await edge.chat("DE", body, more))).attempts;
const tried = expect.stringMatching(/^fra-1;.*, par-1;outcome=committed$/);
const passed = "par-1;outcome=committed";

describe("an endpoint that asks for a pause gets it", () => {
  test.each(["429", "429-reset"])("with %s the endpoint is asked once, and no request waits", async (fault) => {
    await failing(fault);
    const began = Date.now();
    expect(await by()).toEqual(tried);
    for (let i = 0; i < 5; i += 1) expect(await by()).toBe(passed);
    expect(first.asked).toHaveLength(1);
    expect(await by({ model: "another" }), "a rate limit concerns one model only").toEqual(tried);
    expect(Date.now() - began).toBeLessThan(10_000);
  });

  test("retry-after-ms counts more than retry-after", async () => {
    await failing("429-ms");
    const began = Date.now();
    expect(await by()).toEqual(tried);
    await until(
      () => by(),
      (attempts) => attempts !== passed,
    );
    const rested = Date.now() - began;
    expect(rested).toBeGreaterThanOrEqual(290);
    expect(rested, "the 30 s of retry-after were used").toBeLessThan(15_000);
  });
});

test("a refused credential concerns all models of the endpoint", async () => {
  await failing("401");
  expect(await by()).toEqual(tried);
  expect(await by({ model: "another" })).toBe(passed);
});

test("five faults in a row open the breaker, even with different models", async () => {
  await failing("500");
  for (let i = 0; i < 5; i += 1) expect(await by({ model: `m${i}` })).toEqual(tried);
  for (let i = 5; i < 10; i += 1) expect(await by({ model: `m${i}` })).toBe(passed);
  expect(first.asked).toHaveLength(5);
});

test("streams that break off after their first content count as faults, though they can't be retried", async () => {
  await failing("late-reset");
  for (let i = 0; i < 5; i += 1) {
    const { attempts, text } = await read(await edge.chat("DE", { model: `m${i}`, stream: true }));
    expect(attempts).toBe("fra-1;outcome=committed");
    expect(text).toContain("upstream_interrupted");
  }
  expect(await by({ model: "m5", stream: true })).toBe(passed);
});

test("rate limits open no breaker; the budget is ten retries and a fifth of a retry per request", async () => {
  await failing("429-bare");
  const replies = [];
  for (let i = 0; i < 16; i += 1) replies.push(await read(await edge.chat("DE", { model: `m${i}` })));
  const served = replies.filter(({ status }) => status === 200).length;
  expect(first.asked).toHaveLength(16);
  expect(served).toBeGreaterThanOrEqual(12);
  expect(served, "a retry comes back every ten seconds").toBeLessThan(16);
  const poor = replies.filter(({ status }) => status !== 200);
  for (const { status, code, attempts } of poor)
    expect([status, code, attempts]).toEqual([
      429,
      "rate_limit_exceeded",
      expect.stringMatching(/^fra-1;outcome=http_429;ms=\d+$/),
    ]);
  expect(second.asked).toHaveLength(served);
});

test("an endpoint that rests is withheld, but if all of the fence rests, it is asked all the same", async () => {
  await failing("well");
  await edge.put(rules(2, region("DE", "fra", [`${first.url}/500`])));
  await until(
    () => edge.chat("DE").then(read),
    ({ status }) => status === 503,
  );
  const before = first.asked.length;
  for (let i = 0; i < 8; i += 1)
    expect(await read(await edge.chat("DE"))).toMatchObject({ status: 503, code: "region_unavailable" });
  expect(first.asked.length - before, "an endpoint was never asked").toBeGreaterThanOrEqual(8);
});

describe("requests that belong together go to one endpoint", () => {
  const endpoints = () =>
    Object.fromEntries([first, second].map((faulty, i) => [`gpu-${i}`, { url: `${faulty.url}/v1` }]));
  beforeEach(async () => {
    edge = await Edge.start(rules(1, { fra: { countries: ["DE"], endpoints: endpoints() } }));
  });

  const of = async (hint: (name: string) => [Json, Ask], name: string) =>
    (await read(await edge.chat("DE", ...hint(name)))).endpoint;

  test.each<[string, (name: string) => [Json, Ask]]>([
    ["prompt_cache_key", (name) => [{ prompt_cache_key: name }, {}]],
    ["x-session-id", (name) => [{}, { headers: { "x-session-id": name } }]],
    ["user", (name) => [{ user: name }, {}]],
    [
      "prompt_cache_key before x-session-id and user",
      (name) => [
        { prompt_cache_key: name, user: `${Math.random()}` },
        { headers: { "x-session-id": `${Math.random()}` } },
      ],
    ],
  ])("requests with the same %s go to one endpoint", async (_, hint) => {
    const names = Array.from({ length: 24 }, (_, i) => `conversation ${i}`);
    const chosen = await Promise.all(names.map((name) => of(hint, name)));
    expect(new Set(chosen).size, "different values don't spread over the endpoints").toBe(2);
    expect(await Promise.all(names.map((name) => of(hint, name)))).toEqual(chosen);
  });

  test("requests without such a value spread over the endpoints, even from one address", async () => {
    const headers = { "cf-connecting-ip": "203.0.113.9" };
    const said = (name: string): [Json, Ask] => [{ messages: [{ role: "user", content: name }] }, { headers }];
    const chosen = await Promise.all(Array.from({ length: 24 }, (_, i) => of(said, `question ${i}`)));
    expect(new Set(chosen).size).toBe(2);
  });
});
