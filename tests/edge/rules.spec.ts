// How old the rules and the health may be that serve a request, and which of several sources they come from. The tests
// move the clock, as between two requests of an idle isolate.
import type { IncomingMessage, ServerResponse } from "node:http";
import { connect } from "node:net";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { startWithClock } from "./clock.js";
import {
  type Edge,
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

const MINUTE = 60_000,
  HOUR = 60 * MINUTE;
let fra: StandIn, par: StandIn, edge: Edge, forward: (ms: number) => Promise<void>;

beforeAll(async () => {
  [fra, par] = await Promise.all(["eu-frankfurt", "eu-paris"].map((name) => StandIn.start(name)));
});
beforeEach(() => Promise.all([fra, par].map((standIn) => standIn.reset())));
afterEach(() => edge.stop());
afterAll(stopAll);

const frankfurt = () => region("DE", "eu-frankfurt", [fra.url]);
const paris = () => region("FR", "eu-paris", [par.url]);
const both = () => ({ ...frankfurt(), ...paris() });

/** The behaviour of a source of rules or of health: it answers with this document, or calls this function. */
type Behaviour = Json | string | ((request: IncomingMessage, response: ServerResponse) => void);

/** A source that counts how often it is asked. */
class Source {
  asked: (string | undefined)[] = [];
  private constructor(
    public behaviour: Behaviour,
    readonly url: string,
  ) {}

  static async start(behaviour: Behaviour): Promise<Source> {
    let source: Source;
    const url = await serve((request, response) => {
      source.asked.push(request.headers["if-none-match"]);
      const { behaviour } = source;
      if (typeof behaviour === "function") return behaviour(request, response);
      const text = typeof behaviour === "string" ? behaviour : JSON.stringify(behaviour);
      const etag = `"${keyDigest(text)}"`;
      const known = request.headers["if-none-match"] === etag;
      response.writeHead(known ? 304 : 200, { etag }).end(known ? undefined : text);
    });
    source = new Source(behaviour, `${url}/v1`);
    return source;
  }
}

const hang: Behaviour = () => {};
const gone: Behaviour = (_, response) => void response.destroy();
const broken: Behaviour = (_, response) => void response.writeHead(500).end();

/** Starts the Worker with these sources, at the default intervals. */
async function start(
  sources: Source[],
  more: Record<string, string> = {},
  document: Json | null = null,
): Promise<void> {
  const urls = sources.map(({ url }) => url).join(" , ");
  const defaults = { RULES_URLS: urls, RULES_REFRESH_SECONDS: "5", HEALTH_REFRESH_SECONDS: "5" };
  ({ edge, forward } = await startWithClock(document, { ...defaults, ...more }));
}

async function seen(): Promise<{
  status: number;
  code: string | null;
  region: string | null;
  revision: string | null;
  age: string | null;
}> {
  const reply = await edge.chat("DE");
  const { status, code, region } = await read(reply);
  const header = (name: string) => reply.headers.get(`x-bailiwick-${name}`);
  return { status, code, region, revision: header("revision"), age: header("rules-age") };
}

const fresh = (revision: string, region = "eu-frankfurt") => ({ status: 200, code: null, region, revision, age: null });

test("the next request of an idle isolate is served by the current rules", async () => {
  const source = await Source.start(rules(1, frankfurt()));
  await start([source]);
  expect(await seen()).toEqual(fresh("1"));
  source.behaviour = rules(2, paris());
  expect(await seen(), "the rules are young enough").toEqual(fresh("1"));
  await forward(15_000);
  expect(await seen()).toEqual(fresh("2", "eu-paris"));
  source.behaviour = rules(
    3,
    { ...paris() },
    {},
    { tenants: { acme: { key_sha256: [keyDigest("sk")], services: ["chat"] } } },
  );
  await forward(20 * MINUTE);
  expect(await seen(), "a client that was served before is denied now").toMatchObject({
    status: 401,
    code: "missing_api_key",
    revision: "3",
  });
});

test("a hundred concurrent first requests fetch the rules once, and all use the result", async () => {
  const source = await Source.start(rules(1, frankfurt()));
  await start([source]);
  await seen();
  const before = source.asked.length;
  const document = rules(2, paris());
  // The source answers late, so that all requests have arrived before.
  source.behaviour = (_, response) => void setTimeout(() => response.end(JSON.stringify(document)), 400);
  await forward(HOUR);
  const all = await Promise.all(Array.from({ length: 100 }, seen));
  expect(all).toEqual(Array.from({ length: 100 }, () => fresh("2", "eu-paris")));
  expect(source.asked.length - before).toBe(1);
});

test("the first requests of a new isolate fetch the rules once, too", async () => {
  const source = await Source.start(() => {});
  source.behaviour = (_, response) => void setTimeout(() => response.end(JSON.stringify(rules(1, frankfurt()))), 400);
  await start([source]);
  expect(await Promise.all(Array.from({ length: 20 }, seen))).toEqual(Array.from({ length: 20 }, () => fresh("1")));
  expect(source.asked).toHaveLength(1);
});

test("a request that waits for a fetch gets its result even if the client that began the fetch has gone", async () => {
  const source = await Source.start(rules(1, frankfurt()));
  await start([source]);
  await seen();
  await forward(HOUR);
  const before = source.asked.length;
  let answer = () => {};
  source.behaviour = (_, response) => void (answer = () => response.end(JSON.stringify(rules(2, paris()))));
  const { hostname, port } = await edge.miniflare.ready;
  const first = connect(Number(port), hostname);
  first.write("POST /v1/chat/completions HTTP/1.1\r\nhost: chat.example\r\ncontent-length: 2\r\n\r\n{}");
  await until(
    async () => source.asked.length,
    (asked) => asked > before,
  );
  const second = seen();
  first.destroy();
  answer();
  expect(await second).toEqual(fresh("2", "eu-paris"));
  expect(source.asked.length - before).toBe(1);
});

test.each<[string, Behaviour]>([
  ["is gone", gone],
  ["hangs", hang],
  ["answers 500", broken],
  ["answers with something else", "<html>Please log in.</html>"],
  ["answers with nothing", ""],
  ["answers with other rules of the same revision", rules(1, { nowhere: { countries: ["DE"] } })],
])(
  "while their source %s, rules are used for the time that they allow, and every answer has their age",
  async (_, behaviour) => {
    const source = await Source.start(rules(1, frankfurt()));
    await start([source]);
    expect(await seen()).toEqual(fresh("1"));
    source.behaviour = behaviour;
    await forward(MINUTE);
    const stale = await seen();
    expect(stale).toMatchObject({ status: 200, region: "eu-frankfurt" });
    expect(Number(stale.age)).toBeGreaterThanOrEqual(60);
    expect(Number(stale.age)).toBeLessThan(75);

    await forward(HOUR);
    const reply = await edge.chat("DE");
    expect(reply.headers.get("retry-after")).toBe("5");
    expect(reply.headers.get("x-should-retry")).toBeNull();
    const { status, code, json } = await read(reply);
    expect({ status, code }).toEqual({ status: 503, code: "rules_too_old" });
    expect(json.error.message).toContain("RULES_URLS");
    const health = await read(await edge.ask({ path: "/.well-known/bailiwick/healthz" }));
    expect(health).toMatchObject({ status: 503, json: { status: "rules too old", revision: 1 } });

    source.behaviour = rules(2, paris());
    await forward(5_000);
    expect(await seen(), "the next request doesn't notice that the source is back").toEqual(fresh("2", "eu-paris"));
  },
);

test("a document may forbid its use without confirmation", async () => {
  const source = await Source.start(rules(1, frankfurt(), {}, { rules: { stale_for: "0s" } }));
  await start([source]);
  expect(await seen()).toEqual(fresh("1"));
  source.behaviour = gone;
  await forward(14_000);
  expect(await seen()).toEqual(fresh("1"));
  await forward(15_000);
  expect(await seen()).toMatchObject({ status: 503, code: "rules_too_old" });
});

test("RULES_MAX_AGE is the greatest age", async () => {
  const source = await Source.start(rules(1, frankfurt()));
  await start([source], { RULES_MAX_AGE: "2m" });
  expect(await seen()).toEqual(fresh("1"));
  source.behaviour = rules(2, paris());
  await forward(2 * MINUTE - 2_000);
  expect(await seen(), "the fetch delays the request").toEqual(fresh("1"));
  await until(seen, ({ revision }) => revision === "2");
  source.behaviour = rules(3, frankfurt());
  await forward(2 * MINUTE);
  expect(await seen()).toEqual(fresh("3"));
});

test("a clock that is set back doesn't make old rules count as young", async () => {
  const source = await Source.start(rules(1, frankfurt()));
  await start([source]);
  await seen();
  source.behaviour = rules(2, paris());
  await forward(-HOUR);
  expect(await seen()).toEqual(fresh("2", "eu-paris"));
  source.behaviour = gone;
  await forward(MINUTE);
  await forward(-3 * HOUR);
  expect(await seen(), "the rules have another age than before").toMatchObject({
    status: 200,
    revision: "2;feed=unreachable",
  });
});

test("a stream in progress isn't cut when its rules become too old", async () => {
  const source = await Source.start(rules(1, frankfurt(), {}, { rules: { stale_for: "0s" } }));
  await start([source]);
  await fra.fail({ mode: "slow", delay_ms: 300, times: 1 });
  const reply = await edge.chat("DE", { stream: true });
  expect(reply.status).toBe(200);
  source.behaviour = gone;
  await forward(20_000);
  expect(await seen()).toMatchObject({ status: 503, code: "rules_too_old" });
  expect(await reply.text()).toContain("[DONE]");
});

test("of several sources the highest revision wins, in any order", async () => {
  const [a, b, c] = await Promise.all(
    [rules(3, frankfurt()), rules(7, paris()), rules(5, frankfurt())].map(Source.start),
  );
  await start([a, b, c]);
  expect(await seen()).toEqual(fresh("7", "eu-paris"));
  await forward(MINUTE);
  expect(await seen()).toEqual(fresh("7", "eu-paris"));
  expect(
    [a, b, c].map(({ asked }) => asked[1]),
    "each source has its own entity tag",
  ).toEqual([a, b, c].map(({ behaviour }) => `"${keyDigest(JSON.stringify(behaviour))}"`));
});

test.each<[string, Behaviour]>([
  ["hangs", hang],
  ["is gone", gone],
  ["answers with something else", "<html>"],
])("one of two sources that %s delays no request", async (_, behaviour) => {
  const [dead, well] = [await Source.start(behaviour), await Source.start(rules(1, frankfurt()))];
  await start([dead, well]);
  const began = performance.now();
  expect(await seen()).toMatchObject({ status: 200, region: "eu-frankfurt", age: null });
  for (const revision of [2, 3, 4]) {
    well.behaviour = rules(revision, paris());
    await forward(MINUTE);
    expect(await seen()).toMatchObject({ status: 200, region: "eu-paris", age: null });
  }
  // Four fetches, each of which would take three seconds.
  expect(performance.now() - began).toBeLessThan(6_000);
});

test("RULES_URL is one of the sources, and an unreachable source is skipped", async () => {
  const well = await Source.start(rules(4, frankfurt()));
  await start([well], { RULES_URL: `${await refusingUrl()}/v1/rules` });
  expect(await seen()).toEqual(fresh("4"));
});

test("the same revision with other bytes is a conflict, and the current rules stay", async () => {
  const [a, b] = [await Source.start(rules(1, frankfurt())), await Source.start(gone)];
  await start([a, b]);
  expect(await seen()).toEqual(fresh("1"));
  b.behaviour = rules(1, paris());
  await forward(MINUTE);
  expect(await seen()).toEqual(fresh("1;feed=conflict"));
  b.behaviour = rules(2, paris());
  await forward(MINUTE);
  expect(await seen()).toEqual(fresh("2", "eu-paris"));
});

test("KV is read only if no URL answers", async () => {
  const source = await Source.start(rules(1, frankfurt()));
  await start([source], {}, rules(9, paris()));
  expect(await seen(), "KV was read though a URL answers").toEqual(fresh("1"));
  source.behaviour = gone;
  await forward(MINUTE);
  expect(await seen()).toMatchObject({ status: 200, region: "eu-paris", revision: "9;feed=unreachable", age: null });
});

/** A node's report that these regions are down. */
function report(down: string[]): Json {
  const of = (name: string) => {
    const status = down.includes(name) ? "down" : "up";
    return [
      name,
      { status, probed: status, stale: false, override: null, age_ms: 0, interval_ms: 5_000, endpoints: {} },
    ];
  };
  return {
    node: "ns1",
    revision: 1,
    rules_sha256: "",
    regions: Object.fromEntries(["eu-frankfurt", "eu-paris"].map(of)),
  };
}

test("the next request of an idle isolate is steered by the current health", async () => {
  const [source, node] = [await Source.start(rules(1, both())), await Source.start(report(["eu-frankfurt"]))];
  const silent = await Source.start(hang);
  await start([source], { HEALTH_URLS: `${node.url},${silent.url}` });
  expect(await seen()).toEqual(fresh("1", "eu-paris"));
  await forward(HOUR);
  const before = node.asked.length;
  expect(await Promise.all([seen(), seen(), seen()]), "a region that is down became unknown after an hour").toEqual(
    [1, 2, 3].map(() => fresh("1", "eu-paris")),
  );
  expect(node.asked.length - before).toBe(1);
  node.behaviour = report(["eu-paris"]);
  await forward(HOUR);
  expect(await seen()).toEqual(fresh("1", "eu-frankfurt"));
});

test("if no node answers, requests wait for health once, and then it is unknown", async () => {
  const [source, node] = [await Source.start(rules(1, both())), await Source.start(report(["eu-frankfurt"]))];
  await start([source], { HEALTH_URLS: node.url });
  expect(await seen()).toEqual(fresh("1", "eu-paris"));
  node.behaviour = hang;
  await forward(HOUR);
  const began = performance.now();
  for (let i = 0; i < 5; i += 1) expect(await seen()).toEqual(fresh("1", "eu-frankfurt"));
  expect(performance.now() - began).toBeLessThan(5_000);
});
