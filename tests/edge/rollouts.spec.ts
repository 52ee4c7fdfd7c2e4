// Rollouts at the edge: each session has one of two arms. The answer, the receipt and the observations tell which. A
// session keeps the new arm while the share grows; the other arm doesn't suffer when the new one fails.
import { generateKeyPairSync } from "node:crypto";
import { createLocalJWKSet, jwtVerify } from "jose";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Edge, type Json, StandIn, keyDigest, read, region, rules, serve, stopAll, until } from "./harness.js";
import { DnsNode, WORKER_TOKEN } from "./node.js";

const KEY = "sk-acme-0123456789";
let fra: StandIn, second: StandIn, par: StandIn;
const pem = generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" }) as string;

beforeAll(async () => {
  const names = ["eu-frankfurt", "eu-frankfurt-new", "eu-paris"];
  [fra, second, par] = await Promise.all(names.map((name) => StandIn.start(name)));
});
beforeEach(() => Promise.all([fra, second, par].map((one) => one.reset())));
afterAll(stopAll);

const OF_MODEL = { model: "large", from: "bf16", to: "fp8" };
const OF_ENDPOINTS = { endpoints: { "eu-frankfurt": { from: "eu-frankfurt-1", to: "eu-frankfurt-2" } } };

/** Rules with a rollout that stands at these shares; without any, with none. */
function document(revision: number, change: Json, shares?: Json, urls = [fra.url]): Json {
  const models = { models: { large: "bf16", small: "gemma" } };
  const regions = {
    ...region("DE", "eu-frankfurt", urls, models),
    ...region("FR", "eu-paris", [par.url], models),
  };
  const tenants = { acme: { key_sha256: [keyDigest(KEY)], residency: "eu", services: ["chat"] } };
  const rollout = {
    service: "chat",
    ...change,
    regions: change.endpoints ? ["eu-frankfurt"] : ["eu-frankfurt", "eu-paris"],
    checks: { error_rate: { max_diff: 0.01 } },
    progress: shares && { shares, since: "2026-12-01T06:00:00Z" },
  };
  const rollouts = Object.keys(change).length > 0 ? { next: rollout } : undefined;
  return rules(revision, regions, { receipts: "optional" }, { tenants, rollouts });
}

/** One request of a session: the arm, where it was served, and which model the endpoint was asked for. */
async function ask(edge: Edge, session: number, model = "large") {
  const headers = { authorization: `Bearer ${KEY}`, "x-session-id": `session-${session}` };
  const reply = await edge.chat("DE", { model }, { headers });
  const { status, json, region, endpoint, attempts } = await read(reply);
  expect(status).toBe(200);
  expect(json.model).toBe(model);
  const arm = reply.headers.get("x-bailiwick-arm");
  return { arm, region, endpoint, attempts, receipt: reply.headers.get("x-bailiwick-receipt")! };
}

const SESSIONS = [...Array(40).keys()];

/** The sessions with the new arm. */
async function withNew(edge: Edge): Promise<number[]> {
  const all = await Promise.all(SESSIONS.map(async (session) => ({ session, ...(await ask(edge, session)) })));
  return all.filter(({ arm }) => arm === "new").map(({ session }) => session);
}

/** Puts a document, and waits until the Worker serves by it. */
async function follow(edge: Edge, next: Json): Promise<void> {
  await edge.put(next);
  await until(
    async () => (await edge.chat("DE", {}, { headers: { authorization: `Bearer ${KEY}` } })).headers,
    (headers) => headers.get("x-bailiwick-revision") === String(next.revision),
  );
}

test("without a rollout, and before it begins, nothing tells of arms", async () => {
  for (const change of [{}, OF_MODEL]) {
    const edge = await Edge.start(document(1, change));
    expect((await ask(edge, 1)).arm).toBeNull();
    await edge.stop();
  }
  expect((await fra.requests()).map(({ body }) => JSON.parse(body).model)).toEqual(["bf16", "bf16"]);
});

test("each session keeps its arm, and a growing share only adds sessions", async () => {
  const edge = await Edge.start(document(1, OF_MODEL, { "eu-frankfurt": 25 }));
  const some = await withNew(edge);
  expect(some.length).toBeGreaterThan(2);
  expect(some.length).toBeLessThan(22);
  expect(await withNew(edge)).toEqual(some);
  const asked = (await fra.requests()).map(({ body }) => JSON.parse(body).model);
  expect(asked.filter((model) => model === "fp8").length).toBe(2 * some.length);
  expect(asked.filter((model) => model === "bf16").length).toBe(2 * (SESSIONS.length - some.length));
  expect((await ask(edge, some[0], "small")).arm).toBeNull();

  await follow(edge, document(2, OF_MODEL, { "eu-frankfurt": 75 }));
  const more = await withNew(edge);
  expect(more).toEqual(expect.arrayContaining(some));
  expect(more.length).toBeGreaterThan(some.length);
  await follow(edge, document(3, OF_MODEL, { "eu-frankfurt": 100 }));
  expect(await withNew(edge)).toEqual(SESSIONS);
  await follow(edge, document(4, OF_MODEL, {}));
  expect(await withNew(edge)).toEqual([]);
});

test("a new endpoint serves the new arm alone, and the old one helps out", async () => {
  const urls = [fra.url, second.url];
  const edge = await Edge.start(document(1, OF_ENDPOINTS, { "eu-frankfurt": 50 }, urls));
  const arms = await Promise.all(SESSIONS.map((session) => ask(edge, session)));
  const endpoints: Record<string, string> = { old: "eu-frankfurt-1", new: "eu-frankfurt-2" };
  for (const { arm, endpoint } of arms) expect(endpoint).toBe(endpoints[arm!]);
  const session = arms.findIndex(({ arm }) => arm === "new");
  expect(session).toBeGreaterThanOrEqual(0);
  await second.fail({ mode: "status", status: 500, times: 1 });
  const helped = await ask(edge, session);
  expect(helped).toMatchObject({ arm: "old", endpoint: "eu-frankfurt-1" });
  expect(helped.attempts).toContain("eu-frankfurt-2");

  await follow(edge, document(2, OF_ENDPOINTS, undefined, urls));
  await second.reset();
  await Promise.all(SESSIONS.map((session) => ask(edge, session)));
  expect(await second.requests()).toEqual([]);
});

test("an endpoint where the new arm failed rests for the new arm alone", async () => {
  const edge = await Edge.start(document(1, OF_MODEL, { "eu-frankfurt": 50 }));
  const some = await withNew(edge);
  const old = SESSIONS.find((session) => !some.includes(session))!;
  await fra.fail({ mode: "status", status: 500, times: 1 });
  const moved = await ask(edge, some[0]);
  // Paris hasn't begun, so there is no arm there.
  expect(moved).toMatchObject({ arm: null, region: "eu-paris" });
  expect(moved.attempts).toContain("eu-frankfurt");
  await fra.reset();
  // The new arm rests there, and the old one doesn't.
  expect((await ask(edge, some[0])).attempts).not.toContain("eu-frankfurt");
  const served = await ask(edge, old);
  expect(served).toMatchObject({ arm: "old", region: "eu-frankfurt" });
});

test("a retry in another region has the arm of that region", async () => {
  const edge = await Edge.start(document(1, OF_MODEL, { "eu-frankfurt": 100, "eu-paris": 50 }));
  expect(await withNew(edge)).toEqual(SESSIONS);
  await fra.fail({ mode: "status", status: 500 });
  // One after the other, so that the endpoint rests after the first failure.
  const moved = [];
  for (const session of SESSIONS) moved.push(await ask(edge, session));
  expect(moved.every(({ region }) => region === "eu-paris")).toBe(true);
  const arms = moved.map(({ arm }) => arm);
  expect(arms).toContain("old");
  expect(arms).toContain("new");
  const asked = (await par.requests()).map(({ body }) => JSON.parse(body).model);
  expect(asked.filter((model) => model === "fp8").length).toBe(arms.filter((arm) => arm === "new").length);
});

test("a real node adds up both arms since the step began", async () => {
  const rules = document(1, OF_MODEL, { "eu-frankfurt": 50 });
  rules.rollouts.next.progress.since = new Date(Date.now() - 600_000).toISOString();
  const node = await DnsNode.start(rules);
  const posting = { OBSERVATIONS_URLS: `${node.url}/v1/observations`, HEALTH_TOKEN: WORKER_TOKEN };
  const edge = await Edge.start(rules, { ...posting, OBSERVATIONS_SECONDS: "0.1" });
  const some = await withNew(edge);
  const told = await until(
    async () => {
      await edge.ask({ path: "/.well-known/bailiwick/healthz" });
      return (await (await fetch(`${node.url}/v1/rollouts`)).json()) as Json;
    },
    ({ rollouts }) => rollouts.next.regions["eu-frankfurt"].new.newest !== undefined,
  );
  const { obstacles, regions } = told.rollouts.next;
  expect(obstacles).toEqual([]);
  expect(Object.keys(regions)).toEqual(["eu-frankfurt"]);
  const { new: arm, since } = regions["eu-frankfurt"];
  expect(Date.parse(since)).toBe(Date.parse(rules.rollouts.next.progress.since));
  expect(arm.counts.attempts.committed).toBeGreaterThan(0);
  expect(arm.counts.attempts.committed).toBeLessThanOrEqual(some.length);
  expect(arm.counts.finish.stop).toBe(arm.counts.attempts.committed);
  const labels = 'region="eu-frankfurt",endpoint="eu-frankfurt-1",model="large",arm="new"';
  const samples = await node.samples("bailiwick_observed_attempts_total");
  expect(Object.keys(samples).some((name) => name.includes(labels))).toBe(true);
});

test("the receipt and the observations name the arm of each attempt", async () => {
  const batches: Json[] = [];
  const node = await serve(async (request, response) => {
    let text = "";
    for await (const chunk of request) text += chunk;
    batches.push(JSON.parse(text));
    response.end("{}");
  });
  const posting = { OBSERVATIONS_URLS: `${node}/v1/observations`, HEALTH_TOKEN: "t", OBSERVATIONS_SECONDS: "0.1" };
  const edge = await Edge.start(document(1, OF_MODEL, { "eu-frankfurt": 50 }), { ...posting, RECEIPT_KEY: pem });
  const some = await withNew(edge);
  // What the rollout is judged by: some attempts of a tenant, chosen when they begin.
  const judged = (arm: string, word: string) =>
    batches
      .flatMap(({ arms }) => arms ?? [])
      .filter((one: Json) => one.service === "chat" && one.region === "eu-frankfurt" && one.arm === arm)
      .map(({ counts }: Json) => counts.attempts?.[word] ?? 0);
  await until(
    async () => {
      await edge.ask({ path: "/.well-known/bailiwick/healthz" });
      return judged("old", "committed").length;
    },
    (count) => count > 0,
  );
  await fra.fail({ mode: "status", status: 500, times: 1 });
  const { receipt } = await ask(edge, some[0]);
  const keys = (await read(await edge.ask({ path: "/.well-known/bailiwick/jwks.json" }))).json;
  const { payload } = await jwtVerify(receipt, createLocalJWKSet(keys), { typ: "bailiwick-receipt+jwt" });
  expect((payload as Json).attempts).toMatchObject([{ region: "eu-frankfurt", arm: "new" }, { region: "eu-paris" }]);
  expect((payload as Json).attempts[1]).not.toHaveProperty("arm");

  const attempts = (region: string, arm: string | undefined, word: string) =>
    batches
      .flatMap(({ counts }) => counts)
      .filter((count: Json) => count.region === region && count.arm === arm)
      .reduce((sum: number, count: Json) => sum + (count.attempts?.[word] ?? 0), 0);
  await until(
    async () => {
      await edge.ask({ path: "/.well-known/bailiwick/healthz" });
      return attempts("eu-paris", undefined, "committed");
    },
    (count) => count === 1,
  );
  expect(attempts("eu-frankfurt", "new", "committed")).toBe(some.length);
  expect(attempts("eu-frankfurt", "new", "http_5xx")).toBe(1);
  expect(attempts("eu-frankfurt", "old", "committed")).toBe(SESSIONS.length - some.length);

  const sum = (counts: number[]) => counts.reduce((sum, count) => sum + count, 0);
  expect(sum(judged("old", "committed"))).toBeLessThanOrEqual(SESSIONS.length - some.length);
  expect(sum(judged("new", "http_5xx"))).toBe(1);
});
