// The Worker moves shares of clients because of load, by the plan of a node: inside their fence, the same clients each
// time, and never to a region that is down. The node is a stand-in that reports the plans of the test.
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Edge, type Json, StandIn, keyDigest, read, region, rules, serve, stopAll, until } from "./harness.js";

const OPERATOR = "operator-token-0123456789";
let fra: StandIn, par: StandIn, lon: StandIn;
/** What the node reports: the classes of `chat`, the age of the plan, and which regions are down. */
let reported: { classes: Json[]; age: number; down: string[]; loads: Record<string, number | null> };
let node: string;

beforeAll(async () => {
  const names = ["eu-frankfurt", "eu-paris", "uk-london"];
  [fra, par, lon] = await Promise.all(names.map((name) => StandIn.start(name)));
  node = await serve((_, response) => {
    const status = (name: string) => {
      const word = reported.down.includes(name) ? "down" : "up";
      return { status: word, probed: word, stale: false, override: null, age_ms: 0, interval_ms: 5000, endpoints: {} };
    };
    const at = new Date(Date.now() - reported.age).toISOString();
    const shares = { at, interval_ms: 1000, services: { chat: reported.classes } };
    const regions = Object.fromEntries(names.map((name) => [name, status(name)]));
    const load = ([name, load]: [string, number | null]) => [name, { load, read: 1, missing: 0, endpoints: {} }];
    const loads = Object.fromEntries(Object.entries(reported.loads).map(load));
    response.end(JSON.stringify({ node: "ns1", revision: 1, rules_sha256: "", regions, loads, shares }));
  });
});
beforeEach(() => {
  reported = { classes: [], age: 0, down: [], loads: {} };
});
afterAll(stopAll);

const start = (service: Json = {}) => {
  const regions = {
    ...region("DE", "eu-frankfurt", [fra.url]),
    ...region("FR", "eu-paris", [par.url]),
    ...region("GB", "uk-london", [lon.url]),
  };
  return Edge.start(rules(1, regions, service), { HEALTH_URLS: node, EXPLAIN_TOKEN: OPERATOR });
};
const order = ["eu-frankfurt", "eu-paris"];
const share = (share: number) => [{ order, moves: [{ to: "eu-paris", share }] }];

/** Which of 60 sessions of German clients are served in Paris. */
async function inParis(edge: Edge): Promise<number[]> {
  const served = await Promise.all(
    [...Array(60).keys()].map(async (n) => {
      const reply = await edge.chat("DE", {}, { headers: { "x-session-id": `session-${n}` } });
      const { region, status } = await read(reply);
      expect(status).toBe(200);
      const shed = region === "eu-paris" ? /^from=eu-frankfurt;to=eu-paris;share=0\.\d+$/ : /^null$/;
      expect(String(reply.headers.get("x-bailiwick-shed"))).toMatch(shed);
      return region === "eu-paris" ? [n] : [];
    }),
  );
  return served.flat();
}

/** The sessions in Paris, once the Worker has the current report of the node. */
async function settled(edge: Edge, fits: (moved: number[]) => boolean): Promise<number[]> {
  return until(() => inParis(edge), fits);
}

test("a share moves the same sessions each time, and a growing share only adds some", async () => {
  const edge = await start();
  expect(await inParis(edge)).toEqual([]);
  reported.classes = share(0.3);
  const some = await settled(edge, (moved) => moved.length > 0);
  expect(some.length).toBeGreaterThan(6);
  expect(some.length).toBeLessThan(32);
  expect(await inParis(edge)).toEqual(some);
  reported.classes = share(0.7);
  const more = await settled(edge, (moved) => moved.length > some.length);
  expect(more.length).toBeGreaterThan(30);
  expect(more).toEqual(expect.arrayContaining(some));
  reported.classes = [];
  await settled(edge, (moved) => moved.length === 0);
});

test("explain shows the shares with their numbers", async () => {
  const edge = await start();
  reported.classes = share(0.25);
  const headers = { authorization: `Bearer ${OPERATOR}` };
  const path = "/.well-known/bailiwick/explain?service=chat&country=DE";
  const explained = await until(
    async () => (await read(await edge.ask({ path, headers }))).json,
    (explained) => explained.shed !== undefined,
  );
  expect(explained.shed).toEqual([{ from: "eu-frankfurt", to: "eu-paris", share: 0.25 }]);
  const text = await (await edge.ask({ path, headers: { ...headers, accept: "text/plain" } })).text();
  expect(text).toContain("load       25.0 % of these clients go from eu-frankfurt to eu-paris\n");
});

test("no client leaves its fence, even if a node reports an invalid plan", async () => {
  const edge = await start();
  await lon.reset();
  reported.classes = [
    { order, moves: [{ to: "uk-london", share: 0.9 }] },
    { order: ["eu-frankfurt", "eu-paris", "uk-london"], moves: [{ to: "uk-london", share: 1 }] },
    { order: ["eu-frankfurt", "uk-london"], moves: [{ to: "uk-london", share: 1 }] },
    { order: [], moves: [{ to: "uk-london", share: 1 }] },
  ];
  for (let i = 0; i < 3; i++) expect(await inParis(edge)).toEqual([]);
  expect(await lon.requests()).toEqual([]);
});

test("no client is moved to a region that is down, or by an old plan", async () => {
  const edge = await start();
  reported = { classes: share(0.6), age: 0, down: ["eu-paris"], loads: {} };
  for (let i = 0; i < 3; i++) expect(await inParis(edge)).toEqual([]);
  reported.down = [];
  const all = await settled(edge, (moved) => moved.length > 0);
  // A plan is valid for three intervals. In twelve more intervals its shares shrink to nothing.
  reported.age = 9_000;
  const half = await settled(edge, (moved) => moved.length < all.length);
  expect(half.length).toBeGreaterThan(0);
  expect(all).toEqual(expect.arrayContaining(half));
  reported.age = 60_000;
  await settled(edge, (moved) => moved.length === 0);
});

test("clients of a service without moves, or whose clients DNS moves, aren't moved", async () => {
  for (const service of [{ shed: "never" }, { shed_at: "dns" }, { pattern: "regional-sharding" }]) {
    const edge = await start(service);
    reported.classes = share(1);
    for (let i = 0; i < 3; i++) expect(await inParis(edge)).toEqual([]);
    await edge.stop();
  }
});

test("a tier is refused while all regions of its fence are too full, and never by unknown load", async () => {
  const tenant = (tier: string) => ({ key_sha256: [keyDigest(tier)], residency: "eu", services: ["chat"], tier });
  const regions = { ...region("DE", "eu-frankfurt", [fra.url]), ...region("FR", "eu-paris", [par.url]) };
  const document = rules(
    1,
    regions,
    {},
    {
      tiers: { enterprise: { rank: 0, refuse_at: 1.2 }, batch: { rank: 9, refuse_at: 0.85 } },
      tenants: { acme: tenant("enterprise"), bulk: tenant("batch") },
    },
  );
  const edge = await Edge.start(document, { HEALTH_URLS: node });
  const ask = async (tier: string) => {
    const reply = await edge.chat("DE", {}, { headers: { authorization: `Bearer ${tier}` } });
    const { status, code } = await read(reply);
    return { status, code, wait: reply.headers.get("retry-after") };
  };
  reported.loads = { "eu-frankfurt": 0.9, "eu-paris": 0.86 };
  const refused = await until(
    () => ask("batch"),
    ({ status }) => status === 429,
  );
  expect(refused.code).toBe("capacity_refused");
  expect(Number(refused.wait)).toBeGreaterThan(0);
  expect((await ask("enterprise")).status).toBe(200);
  for (const paris of [0.84, null]) {
    reported.loads = { "eu-frankfurt": 2, "eu-paris": paris };
    await until(
      () => ask("batch"),
      ({ status }) => status === 200,
    );
    reported.loads = { "eu-frankfurt": 2, "eu-paris": 2 };
    await until(
      () => ask("enterprise"),
      ({ status }) => status === 429,
    );
  }
});

test("while most of a fence is down, a lower tier is refused instead of moved, but served at home", async () => {
  const tenant = (tier: string) => ({ key_sha256: [keyDigest(tier)], services: ["chat"], tier });
  const regions = {
    ...region("DE", "eu-frankfurt", [fra.url], { capacity: 60 }),
    ...region("FR", "eu-paris", [par.url], { capacity: 50 }),
  };
  const tiers = { enterprise: { rank: 0, refuse_at: 1.2 }, batch: { rank: 9, refuse_at: 0.85 } };
  const tenants = { acme: tenant("enterprise"), bulk: tenant("batch") };
  const edge = await Edge.start(rules(1, regions, {}, { tiers, tenants }), { HEALTH_URLS: node });
  const ask = async (tier: string, country: string) => {
    const { status, code, region } = await read(
      await edge.chat(country, {}, { headers: { authorization: `Bearer ${tier}` } }),
    );
    return { status, code, region };
  };
  expect(await ask("batch", "DE")).toMatchObject({ status: 200, region: "eu-frankfurt" });
  reported.down = ["eu-frankfurt"];
  const refused = await until(
    () => ask("batch", "DE"),
    ({ status }) => status !== 200,
  );
  expect(refused).toMatchObject({ status: 429, code: "capacity_refused" });
  expect(await ask("enterprise", "DE")).toMatchObject({ status: 200, region: "eu-paris" });
  expect(await ask("batch", "FR")).toMatchObject({ status: 200, region: "eu-paris" });
  // Frankfurt has more than half of the capacity of the fence, so without Paris no client is refused.
  reported.down = ["eu-paris"];
  await until(
    () => ask("batch", "FR"),
    ({ status, region }) => status === 200 && region === "eu-frankfurt",
  );
});
