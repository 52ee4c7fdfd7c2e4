// Rules and health while the Worker runs: from KV and from a DNS node's API, valid, invalid, late and missing.
import type { IncomingHttpHeaders } from "node:http";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import {
  Edge,
  type Json,
  StandIn,
  keyDigest,
  read,
  refusingUrl,
  region,
  rules,
  serve,
  stopAll,
  until,
} from "./harness.js";

let fra: StandIn, par: StandIn, edge: Edge;

beforeAll(async () => {
  [fra, par] = await Promise.all(["eu-frankfurt", "eu-paris"].map((name) => StandIn.start(name)));
});
beforeEach(() => Promise.all([fra, par].map((standIn) => standIn.reset())));
afterEach(() => edge.stop());
afterAll(stopAll);

const frankfurt = () => region("DE", "eu-frankfurt", [fra.url]);
const paris = () => region("FR", "eu-paris", [par.url]);

/** Which region serves a German client, and by which revision of the rules. */
async function seen(): Promise<{ status: number; region: string | null; revision: string | null }> {
  const reply = await edge.chat("DE");
  const { status, region } = await read(reply);
  return { status, region, revision: reply.headers.get("x-bailiwick-revision") };
}

/** A stand-in for a DNS node's API, with the paths that the Worker uses. */
class Node {
  document = "";
  health: Json | null = null;
  /** The stage that the head of its document says, and the document that is for all nodes. */
  stage = "rest";
  earlier: string | null = null;
  /** Whether it knows nothing of stages, as before there were any. */
  knowsStages = true;
  rulesAsked: IncomingHttpHeaders[] = [];
  healthAsked: IncomingHttpHeaders[] = [];
  url = "";

  async start(): Promise<Node> {
    this.url = await serve((request, response) => {
      const { pathname, search } = new URL(request.url ?? "", this.url || "http://node");
      if (pathname === "/v1/rules") {
        this.rulesAsked.push(request.headers);
        const isForAll = this.stage === "rest" || !(this.knowsStages && search === "?stage=rest");
        const document = isForAll ? this.document : this.earlier;
        if (document === null) return response.writeHead(204).end();
        const etag = `"${keyDigest(document)}"`;
        const head = Buffer.from(JSON.stringify({ stage: isForAll ? this.stage : "rest" })).toString("base64url");
        const known = request.headers["if-none-match"] === etag;
        const headers = { etag, "x-bailiwick-head": head };
        return response.writeHead(known ? 304 : 200, headers).end(known ? undefined : document);
      }
      this.healthAsked.push(request.headers);
      if (this.health === null) return response.writeHead(500).end();
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(this.health));
    });
    return this;
  }

  /** Reports these regions as down, and all other regions of the rules as up. */
  reports(down: string[], forced: Json = {}): void {
    const report = (name: string) => {
      const status = down.includes(name) ? "down" : "up";
      return {
        status,
        probed: status,
        stale: false,
        override: forced[name] ?? null,
        age_ms: 0,
        interval_ms: 5000,
        endpoints: {},
      };
    };
    this.health = {
      node: "ns1",
      revision: 1,
      rules_sha256: "",
      regions: Object.fromEntries(["eu-frankfurt", "eu-paris"].map((name) => [name, report(name)])),
    };
  }
}

test("rules that some nodes try first are taken when they are for all nodes", async () => {
  const nodes = await Promise.all([1, 2].map(() => new Node().start()));
  for (const node of nodes) {
    node.document = JSON.stringify(rules(8, paris()));
    node.stage = "canary";
    node.earlier = JSON.stringify(rules(7, frankfurt()));
  }
  // The second has nothing that is for all nodes.
  nodes[1].earlier = null;
  edge = await Edge.start(null, {
    RULES_URLS: nodes.map((node) => `${node.url}/v1/rules`).join(),
    RULES_REFRESH_SECONDS: "0.2",
  });
  expect(await seen(), "a new isolate begins with what is for all nodes").toMatchObject({
    region: "eu-frankfurt",
    revision: "7",
  });
  // A node that gives its document whatever is asked for says its stage all the same.
  for (const stage of ["canary", "early"]) {
    for (const node of nodes) [node.stage, node.knowsStages] = [stage, false];
    const asked = nodes[0].rulesAsked.length;
    await until(
      async () => (await seen(), nodes[0].rulesAsked.length),
      (now) => now > asked + 1,
    );
    expect((await seen()).region).toBe("eu-frankfurt");
  }
  nodes[0].stage = "rest";
  expect(await until(seen, ({ revision }) => revision === "8")).toMatchObject({ region: "eu-paris" });
});

test("an edit in KV takes effect without a restart", async () => {
  edge = await Edge.start(rules(1, frankfurt()));
  expect(await seen()).toEqual({ status: 200, region: "eu-frankfurt", revision: "1" });
  await edge.put(rules(2, paris()));
  expect(await until(seen, ({ revision }) => revision === "2")).toMatchObject({ region: "eu-paris" });
});

test("with invalid documents the last valid one stays in use, and every answer reports that", async () => {
  edge = await Edge.start(rules(5, frankfurt()));
  expect(await seen()).toMatchObject({ revision: "5" });
  const bad: [string, Json | string, string][] = [
    ["no JSON", "{", "5;feed=invalid"],
    ["a violation", { ...rules(6, paris()), regoins: {} }, "5;feed=invalid"],
    ["the same revision with other rules", rules(5, paris()), "5;feed=conflict"],
    ["nothing", "", "5;feed=invalid"],
  ];
  for (const [name, document, expected] of bad) {
    await edge.put(document);
    const now = await until(seen, ({ revision }) => revision === expected);
    expect(now, name).toEqual({ status: 200, region: "eu-frankfurt", revision: expected });
    // The source returns to the current document, so that the next invalid document is reported again.
    await edge.put(rules(5, frankfurt()));
    await until(seen, ({ revision }) => revision === "5");
  }
  await edge.put(rules(4, paris()));
  await edge.put(rules(6, paris()));
  expect(await until(seen, ({ revision }) => revision === "6")).toMatchObject({ region: "eu-paris" });
});

test("without any rules every request gets 503", async () => {
  edge = await Edge.start(null);
  expect(await read(await edge.chat("DE"))).toMatchObject({ status: 503, code: "not_ready" });
  const health = await read(await edge.ask({ path: "/.well-known/bailiwick/healthz" }));
  expect(health).toMatchObject({ status: 503, json: { status: "no rules", revision: null } });
  await edge.put(rules(1, frankfurt()));
  await until(seen, ({ revision }) => revision === "1");
  const ready = await read(await edge.ask({ path: "/.well-known/bailiwick/healthz" }));
  expect(ready).toMatchObject({ status: 200, json: { status: "ok", revision: 1, rules_feed: "ok" } });
});

test("RULES_URL is polled by ETag, with its token, and an edit takes effect", async () => {
  const node = await new Node().start();
  node.document = JSON.stringify(rules(1, frankfurt()));
  edge = await Edge.start(rules(99, paris()), { RULES_URL: `${node.url}/v1/rules`, RULES_TOKEN: "rules-token" });
  expect(await seen(), "the first request isn't steered by the feed").toEqual({
    status: 200,
    region: "eu-frankfurt",
    revision: "1",
  });
  await until(
    async () => (await seen(), node.rulesAsked),
    (asked) => asked.some((headers) => headers["if-none-match"]),
  );
  expect(node.rulesAsked.every((headers) => headers.authorization === "Bearer rules-token")).toBe(true);
  node.document = JSON.stringify(rules(2, paris()));
  expect(await until(seen, ({ revision }) => revision === "2")).toMatchObject({ region: "eu-paris" });
});

test("without the feed the rules stay in use, and answers report that", async () => {
  edge = await Edge.start(null, { RULES_URL: `${await refusingUrl()}/v1/rules` });
  expect(await read(await edge.chat("DE"))).toMatchObject({ status: 503, code: "not_ready" });
});

test("health moves traffic, even for the first request", async () => {
  const node = await new Node().start();
  node.reports(["eu-frankfurt"]);
  edge = await Edge.start(rules(1, { ...frankfurt(), ...paris() }), {
    HEALTH_URLS: `${node.url}/v1/health`,
    HEALTH_TOKEN: "health-token",
  });
  expect(await seen()).toMatchObject({ status: 200, region: "eu-paris" });
  expect(node.healthAsked[0].authorization).toBe("Bearer health-token");
  node.reports([]);
  await until(seen, ({ region }) => region === "eu-frankfurt");
  node.reports([], { "eu-frankfurt": { status: "down", until: "2999-01-01T00:00:00Z", reason: "drill" } });
  await until(seen, ({ region }) => region === "eu-paris");
});

test("the majority of nodes decides, and nodes that fail or send invalid reports don't count", async () => {
  const nodes = await Promise.all([0, 1, 2, 3, 4].map(() => new Node().start()));
  for (const node of nodes.slice(0, 2)) node.reports(["eu-frankfurt"]);
  nodes[2].reports([]);
  nodes[3].health = { node: 7, regions: "canary" };
  const urls = [...nodes.map((node) => node.url), await refusingUrl()].map((url) => `${url}/v1/health`);
  edge = await Edge.start(rules(1, { ...frankfurt(), ...paris() }), { HEALTH_URLS: urls.join(", ") });
  expect(await seen()).toMatchObject({ status: 200, region: "eu-paris" });
  nodes[0].reports([]);
  await until(seen, ({ region }) => region === "eu-frankfurt");
});

test("if all regions of a fence are down, they are asked all the same, unless the service forbids it", async () => {
  const node = await new Node().start();
  node.reports(["eu-frankfurt"]);
  edge = await Edge.start(rules(1, frankfurt()), { HEALTH_URLS: `${node.url}/v1/health` });
  expect(await seen()).toMatchObject({ status: 200, region: "eu-frankfurt" });
  await edge.put(rules(2, frankfurt(), { when_all_down: "fail" }));
  await until(seen, ({ revision }) => revision === "2");
  const before = await fra.requests();
  const reply = await edge.chat("DE");
  expect(reply.headers.get("x-should-retry")).toBe("false");
  expect(await read(reply)).toMatchObject({ status: 503, code: "region_unavailable" });
  expect(await fra.requests()).toHaveLength(before.length);
});

test("feeds that accept and don't answer delay only the first request", async () => {
  const silent = await serve(() => {});
  edge = await Edge.start(null, { RULES_URL: `${silent}/v1/rules`, HEALTH_URLS: `${silent}/v1/health` });
  const began = Date.now();
  expect(await read(await edge.chat("DE"))).toMatchObject({ status: 503, code: "not_ready" });
  const first = Date.now() - began;
  expect(first).toBeLessThan(10_000);
  for (let i = 0; i < 5; i += 1) await (await edge.chat("DE")).arrayBuffer();
  expect(Date.now() - began - first).toBeLessThan(first);
});
