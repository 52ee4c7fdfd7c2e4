// The limits of a tenant: budgets, requests in flight, and the service tier that endpoints get as priority.
import { afterAll, afterEach, expect, test } from "vitest";
import { Edge, type Json, StandIn, keyDigest, read, region, rules, stopAll, until } from "./harness.js";
import { DnsNode, WORKER_TOKEN } from "./node.js";

let edges: Edge[] = [];
afterEach(async () => {
  await Promise.all(edges.splice(0).map((edge) => edge.stop()));
});
afterAll(stopAll);

const tenant = (name: string, limits: Json) => ({
  [name]: { key_sha256: [keyDigest(`sk-${name}`)], residency: "eu", services: ["chat"], ...limits },
});

async function start(document: Json, bindings: Record<string, string> = {}): Promise<Edge> {
  const edge = await Edge.start(document, bindings);
  edges.push(edge);
  return edge;
}

const chat = (edge: Edge, name: string, body: Json = {}) =>
  edge.chat("DE", body, { headers: { authorization: `Bearer sk-${name}` } });

const limits = (reply: { headers: { get(name: string): string | null } }) =>
  Object.fromEntries(
    ["requests", "tokens"].flatMap((kind) =>
      ["limit", "remaining", "reset"].map((what) => [
        `${what}-${kind}`,
        reply.headers.get(`x-ratelimit-${what}-${kind}`),
      ]),
    ),
  );

test("every answer has the state of the budget, and a refusal says when the budget has room again", async () => {
  const fra = await StandIn.start("eu-frankfurt");
  const budget = { requests: 3, tokens: 10_000, per: "1h" };
  const tenants = { ...tenant("acme", { budget }), ...tenant("beta", {}) };
  const edge = await start(rules(1, region("DE", "eu-frankfurt", [fra.url]), {}, { tenants }));
  const first = await chat(edge, "acme");
  await first.text();
  expect(limits(first)).toMatchObject({ "limit-requests": "3", "remaining-requests": "2", "limit-tokens": "10000" });
  expect(limits(first)["reset-requests"]).toMatch(/^(20m0s|19m59\.\d+s)$/);
  for (let i = 0; i < 2; i++) expect((await read(await chat(edge, "acme"))).status).toBe(200);
  const reply = await chat(edge, "acme");
  const { status, json } = await read(reply);
  expect({ status, code: json.error.code, type: json.error.type }).toEqual({
    status: 429,
    code: "budget_exhausted",
    type: "rate_limit_error",
  });
  expect(Number(reply.headers.get("retry-after"))).toBeGreaterThan(1000);
  expect(reply.headers.get("x-should-retry")).toBe("false");
  expect(limits(reply)["remaining-requests"]).toBe("0");
  expect(await fra.requests()).toHaveLength(3);
  // Other tenants aren't charged, and answers to tenants without a budget have no limits in their headers.
  const other = await chat(edge, "beta");
  expect((await read(other)).status).toBe(200);
  expect(Object.values(limits(other)).filter(Boolean)).toEqual([]);
});

test("a token budget is charged with the used tokens, for streams too", async () => {
  const fra = await StandIn.start("eu-frankfurt");
  const tenants = tenant("acme", { budget: { tokens: 1000, per: "1h" } });
  const edge = await start(rules(1, region("DE", "eu-frankfurt", [fra.url]), {}, { tenants }));
  for (const stream of [false, true, true]) {
    const { status, text } = await read(await chat(edge, "acme", { stream }));
    expect({ status, reported: text.includes('"usage":{') }).toEqual({ status: 200, reported: !stream });
  }
  const reply = await chat(edge, "acme", { max_tokens: 950 });
  expect((await read(reply)).status).toBe(200);
  expect((await read(await chat(edge, "acme", { max_tokens: 997 }))).code).toMatch("budget_exhausted");
  expect((await read(await chat(edge, "acme", { max_tokens: 2000 }))).code).toMatch("larger_than_quota");
});

test("a tenant's requests in flight are limited, and a finished or abandoned request frees its place", async () => {
  const fra = await StandIn.start("eu-frankfurt");
  const tenants = { ...tenant("acme", { concurrency: 2 }), ...tenant("beta", {}) };
  const edge = await start(rules(1, region("DE", "eu-frankfurt", [fra.url]), {}, { tenants }));
  await fra.fail({ mode: "slow", delay_ms: 1000 });
  const { port } = await edge.miniflare.ready;
  const leaving = new AbortController();
  const open = () =>
    fetch(`http://localhost:${port}/v1/chat/completions`, {
      method: "POST",
      headers: { authorization: "Bearer sk-acme" },
      body: JSON.stringify({ model: "m", stream: true, messages: [{ role: "user", content: "Say hello." }] }),
      signal: leaving.signal,
    }).then(async (reply) => {
      await reply.body!.getReader().read();
      return reply.status;
    });
  expect(await Promise.all([open(), open()])).toEqual([200, 200]);
  await fra.reset();
  const refused = await chat(edge, "acme");
  expect((await read(refused)).code).toBe("concurrency_exhausted");
  expect(refused.headers.get("retry-after")).toBe("1");
  expect((await read(await chat(edge, "beta"))).status).toBe(200);
  leaving.abort();
  await until(
    () => chat(edge, "acme").then(read),
    ({ status }) => status === 200,
  );
});

test("endpoints get the tenant's tier as priority, and never the priority that the client wrote", async () => {
  const names = ["eu-frankfurt", "eu-paris", "eu-milan", "eu-madrid"];
  const [fra, par, mil, mad] = await Promise.all(names.map((name) => StandIn.start(name)));
  const regions = {
    ...region("DE", "eu-frankfurt", [fra.url], { priority_as: "vllm" }),
    ...region("FR", "eu-paris", [par.url], { priority_as: "openai" }),
    ...region("IT", "eu-milan", [mil.url], { priority_as: "llm-d" }),
    ...region("ES", "eu-madrid", [mad.url]),
  };
  const tiers = { gold: { rank: 0, refuse_at: 1.2 }, batch: { rank: 9, refuse_at: 0.85 } };
  const tenants = { ...tenant("acme", { tier: "batch" }), ...tenant("beta", { tier: "gold" }), ...tenant("none", {}) };
  const edge = await start(rules(1, regions, { pattern: "active-passive" }, { tenants, tiers }));
  const reported = async (name: string, standIns: StandIn[]) => {
    for (const standIn of [fra, par, mil, mad]) await standIn.reset();
    for (const standIn of [fra, par, mil, mad].filter((one) => !standIns.includes(one)))
      await standIn.fail({ mode: "status", status: 503 });
    const own = { service_tier: "priority" };
    const headers = { authorization: `Bearer sk-${name}`, "x-gateway-inference-objective": "stolen" };
    const reply = await edge.chat("DE", { ...own, model: `${name}-${standIns[0].region}` }, { headers });
    expect(await read(reply)).toMatchObject({ status: 200, region: standIns[0].region });
    const [{ body, headers: sent }] = await standIns[0].requests();
    const { priority, service_tier } = JSON.parse(body);
    return { priority, service_tier, objective: sent["x-gateway-inference-objective"] };
  };
  const nothing = { priority: undefined, service_tier: undefined, objective: undefined };
  expect(await reported("acme", [fra])).toEqual({ ...nothing, priority: 9 });
  expect(await reported("beta", [fra])).toEqual({ ...nothing, priority: 0 });
  expect(await reported("none", [fra])).toEqual(nothing);
  expect(await reported("acme", [par])).toEqual({ ...nothing, service_tier: "flex" });
  expect(await reported("beta", [par])).toEqual({ ...nothing, service_tier: "priority" });
  expect(await reported("acme", [mil])).toEqual({ ...nothing, objective: "batch" });
});

test("the leases of a node keep a budget over several isolates", async () => {
  const fra = await StandIn.start("eu-frankfurt");
  const tenants = tenant("acme", { budget: { requests: 60, per: "24h" } });
  const document = rules(1, region("DE", "eu-frankfurt", [fra.url]), {}, { tenants });
  const node = await DnsNode.start(document);
  const bindings = { LEASES_URLS: `${node.url}/v1/leases`, HEALTH_TOKEN: WORKER_TOKEN };
  const all = await Promise.all([1, 2, 3].map(() => start(document, bindings)));
  let served = 0;
  const end = Date.now() + 8000;
  const use = async (edge: Edge) => {
    while (Date.now() < end) {
      const { status } = await read(await chat(edge, "acme"));
      if (status === 200) served += 1;
      await new Promise((resolve) => setTimeout(resolve, 40));
    }
  };
  await Promise.all(all.map(use));
  console.log(`served ${served} of 60 over three isolates`);
  expect(served).toBeGreaterThanOrEqual(45);
  expect(served).toBeLessThanOrEqual(70);
});
