// A rollout of a bundle at the edge: the application has chosen the prompts, and names their version in a header. That
// decides which arm the request counts for. Nobody else gets the header, and the old arm doesn't suffer from the new.
import { generateKeyPairSync } from "node:crypto";
import type { ServerResponse } from "node:http";
import { createLocalJWKSet, jwtVerify } from "jose";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { completion } from "./faulty.js";
import { type Ask, Edge, type Json, StandIn, read, region, rules, serve, stopAll, until } from "./harness.js";
import { DnsNode, WORKER_TOKEN } from "./node.js";

const OPERATOR = "operators-token-0123456789";
const ONE = "1".repeat(64),
  TWO = "2".repeat(64),
  THREE = "3".repeat(64);
const OLD = `prompts@${ONE};region=eu-frankfurt`,
  NEW = `prompts@${TWO};region=eu-frankfurt`;
const pem = generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" }) as string;
let fra: StandIn, par: StandIn;

beforeAll(async () => {
  [fra, par] = await Promise.all(["eu-frankfurt", "eu-paris"].map((name) => StandIn.start(name)));
});
beforeEach(() => Promise.all([fra, par].map((one) => one.reset())));
afterAll(stopAll);

/** Rules with a rollout of the prompts to version 2 that stands at these shares; without any, it hasn't begun. */
function document(revision: number, shares?: Json, urls = [fra.url, par.url]): Json {
  const regions = { ...region("DE", "eu-frankfurt", [urls[0]]), ...region("FR", "eu-paris", [urls[1]]) };
  const next = {
    service: "chat",
    bundle: "prompts",
    to: TWO,
    regions: ["eu-frankfurt", "eu-paris"],
    checks: { error_rate: { max_diff: 0.01 } },
    progress: shares && { shares, since: new Date(Date.now() - 600_000).toISOString() },
  };
  const bundles = { prompts: { version: ONE }, tools: { version: ONE } };
  return rules(revision, regions, { receipts: "optional" }, { bundles, rollouts: { next } });
}

/** One request with this statement of the versions: its status, its arm and where it was served. */
async function ask(edge: Edge, bundle: string | null, body: Json = {}, more: Ask = {}) {
  const headers: Json = bundle === null ? {} : { "x-bailiwick-bundle": bundle };
  const reply = await edge.chat("DE", body, { ...more, headers: { ...headers, ...(more.headers as Json) } });
  const { status, region, attempts, text } = await read(reply);
  const header = (name: string) => reply.headers.get(`x-bailiwick-${name}`);
  return { status, arm: header("arm"), region, attempts, text, receipt: header("receipt")! };
}

test("the version that the application names decides the arm, and the endpoint doesn't get it", async () => {
  const edge = await Edge.start(document(1, { "eu-frankfurt": 5 }));
  for (const [bundle, arm] of [
    [OLD, "old"],
    [NEW, "new"],
    [` tools@${THREE} ,${NEW}`, "new"],
    [`prompts@${TWO}`, "new"],
    [`prompts@${TWO};region=eu-paris`, "new"],
    [`prompts@${TWO};region=none`, "new"],
    [`${NEW}, tools@${ONE}`, "new"],
    [null, null],
    [`prompts@${THREE}`, null],
    [`tools@${TWO}`, null],
  ] as const) {
    expect(await ask(edge, bundle), String(bundle)).toMatchObject({ status: 200, arm, region: "eu-frankfurt" });
  }
  // What can't be read is served like what isn't there, as the answer is the same.
  const odd = ["", "prompts", "prompts@2", `prompts@${"A".repeat(64)}`, `prompts@${ONE};q=1`];
  for (const statement of [...odd, `${OLD}, ${NEW}`, "\u00e9@;,=,,", `${OLD}, prompts@${ONE}`]) {
    expect(await ask(edge, statement), statement).toMatchObject({ status: 200, arm: null });
  }
  const asked = await fra.requests();
  expect(asked.length).toBe(18);
  for (const { headers, body } of asked) {
    expect(JSON.stringify(headers)).not.toMatch(/bailiwick|prompts|2222/);
    expect(body).not.toMatch(/prompts|2222/);
  }
});

test("a region without a share has no arms, and one with all of it counts both", async () => {
  for (const [shares, expected] of [
    [undefined, [null, null]],
    [{}, [null, null]],
    [{ "eu-frankfurt": 100, "eu-paris": 1 }, ["old", "new"]],
  ] as [Json | undefined, (string | null)[]][]) {
    const edge = await Edge.start(document(1, shares));
    expect([(await ask(edge, OLD)).arm, (await ask(edge, NEW)).arm]).toEqual(expected);
    await edge.stop();
  }
});

test("a retry has the arm of the region that it is sent to", async () => {
  const edge = await Edge.start(document(1, { "eu-frankfurt": 25 }));
  await fra.fail({ mode: "status", status: 500, times: 1 });
  expect(await ask(edge, NEW, { model: "a" })).toMatchObject({ status: 200, arm: null, region: "eu-paris" });
  const both = await Edge.start(document(1, { "eu-frankfurt": 100, "eu-paris": 25 }));
  await fra.fail({ mode: "status", status: 500, times: 1 });
  expect(await ask(both, NEW, { model: "a" })).toMatchObject({ status: 200, arm: "new", region: "eu-paris" });
});

test("failures of new prompts take no endpoint away from the old ones", async () => {
  let answer: (response: ServerResponse) => void;
  const fail = (response: ServerResponse) => response.writeHead(500).end("{}");
  const serveWell = (response: ServerResponse) =>
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(completion()));
  const flaky = await serve((request, response) => void request.resume().on("end", () => answer(response)));
  for (const [failing, isSpared] of [
    [NEW, true],
    [OLD, false],
  ] as const) {
    const edge = await Edge.start(document(1, { "eu-frankfurt": 50 }, [flaky, par.url]));
    answer = fail;
    // Each for another model, so that the whole endpoint would rest by its breaker.
    for (let i = 0; i < 8; i++)
      expect(await ask(edge, failing, { model: `m${i}` })).toMatchObject({ region: "eu-paris" });
    // And one that names no model, which would let the endpoint rest for all models.
    const moderation = { path: "/v1/moderations", method: "POST", body: JSON.stringify({ input: "x" }) };
    const headers = { "content-type": "application/json", "x-bailiwick-bundle": failing };
    await read(await edge.ask({ ...moderation, headers }));
    answer = serveWell;
    const after = await ask(edge, OLD, { model: "another" });
    expect(after.region, failing).toBe(isSpared ? "eu-frankfurt" : "eu-paris");
    // The same model rests there for the new arm alone.
    if (isSpared) {
      expect(await ask(edge, OLD, { model: "m0" })).toMatchObject({ region: "eu-frankfurt", arm: "old" });
      expect(await ask(edge, NEW, { model: "m7" })).toMatchObject({ region: "eu-paris" });
    }
    await edge.stop();
  }
});

test("an operator pins no arm, as the application chooses it", async () => {
  const edge = await Edge.start(document(1, { "eu-frankfurt": 50 }), { EXPLAIN_TOKEN: OPERATOR });
  const pinned = (pin: string) =>
    ask(edge, NEW, {}, { headers: { "x-bailiwick-pin": pin, "x-bailiwick-operator": OPERATOR } });
  const refused = await pinned("eu-frankfurt;arm=new");
  expect(refused.status).toBe(400);
  expect(JSON.parse(refused.text).error).toMatchObject({ code: "invalid_pin" });
  expect(JSON.parse(refused.text).error.message).toContain("x-bailiwick-bundle");
  expect(await pinned("eu-frankfurt")).toMatchObject({ status: 200, arm: "new" });
  expect((await fra.requests()).length).toBe(1);
});

test("a real node adds up both arms, and the receipt names each attempt's", async () => {
  const rules = document(1, { "eu-frankfurt": 50 });
  const node = await DnsNode.start(rules);
  const posting = { OBSERVATIONS_URLS: `${node.url}/v1/observations`, HEALTH_TOKEN: WORKER_TOKEN };
  const edge = await Edge.start(rules, { ...posting, OBSERVATIONS_SECONDS: "0.1", RECEIPT_KEY: pem });
  for (let i = 0; i < 6; i++) await ask(edge, OLD);
  for (let i = 0; i < 4; i++) await ask(edge, NEW);
  for (let i = 0; i < 3; i++) await ask(edge, null);
  // Chosen by the share of another region, or nobody knows by which: the arms wouldn't be alike.
  for (const other of [`prompts@${ONE}`, `prompts@${TWO};region=eu-paris`, `prompts@${TWO};region=none`]) {
    await ask(edge, other);
  }
  await fra.fail({ mode: "status", status: 500, times: 1 });
  const { receipt, arm } = await ask(edge, NEW, { model: "a" });
  expect(arm).toBeNull();
  const keys = (await read(await edge.ask({ path: "/.well-known/bailiwick/jwks.json" }))).json;
  const { payload } = await jwtVerify(receipt, createLocalJWKSet(keys), { typ: "bailiwick-receipt+jwt" });
  expect((payload as Json).attempts).toMatchObject([{ region: "eu-frankfurt", arm: "new" }, { region: "eu-paris" }]);
  expect((payload as Json).attempts[1]).not.toHaveProperty("arm");
  const counted = await until(
    async () => {
      await edge.ask({ path: "/.well-known/bailiwick/healthz" });
      const { rollouts } = (await (await fetch(`${node.url}/v1/rollouts`)).json()) as Json;
      const { old, new: next } = rollouts.next.regions["eu-frankfurt"];
      return [old, next].map(({ counts }: Json) => counts.attempts ?? {});
    },
    ([old, next]) => old.committed >= 6 && next.committed >= 4 && next.http_5xx >= 1,
  );
  expect(counted).toEqual([{ committed: 6 }, { committed: 4, http_5xx: 1 }]);
});
