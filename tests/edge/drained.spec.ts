// Overrides that drain an endpoint or a region, set in the document or reported by nodes. No request is sent there
// while the override lasts, and requests come back afterwards. Also the two address families in nodes' reports.
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Edge, type Json, StandIn, read, region, rules, serve, stopAll, until } from "./harness.js";

let first: StandIn, second: StandIn, paris: StandIn;

beforeAll(async () => {
  [first, second] = await Promise.all([1, 2].map(() => StandIn.start("eu-frankfurt")));
  paris = await StandIn.start("eu-paris");
});
beforeEach(() => Promise.all([first, second, paris].map((standIn) => standIn.reset())));
afterAll(stopAll);

const document = (revision: number, more: Json = {}): Json =>
  rules(
    revision,
    { ...region("DE", "eu-frankfurt", [first.url, second.url]), ...region("FR", "eu-paris", [paris.url]) },
    {},
    more,
  );

const soon = () => new Date(Date.now() + 3_600_000).toISOString();
const down = (endpoint?: string): Json => ({
  region: "eu-frankfurt",
  ...(endpoint && { endpoint }),
  status: "down",
  until: soon(),
  reason: "new driver",
});

async function seen(edge: Edge): Promise<{ status: number; endpoint: string | null; revision: string | null }> {
  const reply = await edge.chat("DE");
  const revision = reply.headers.get("x-bailiwick-revision");
  const { status, endpoint } = await read(reply);
  return { status, endpoint, revision };
}

test("overrides in the document move requests to the other endpoint, to the other region, and back", async () => {
  const edge = await Edge.start(document(1));
  const at = async (revision: string) =>
    await until(
      () => seen(edge),
      (now) => now.revision === revision,
    );
  expect(await at("1")).toMatchObject({ status: 200, endpoint: "eu-frankfurt-1" });

  await edge.put(document(2, { overrides: [down("eu-frankfurt-1")] }));
  expect(await at("2")).toMatchObject({ status: 200, endpoint: "eu-frankfurt-2" });
  await edge.put(document(3, { overrides: [down("eu-frankfurt-1"), down("eu-frankfurt-2")] }));
  expect(await at("3")).toMatchObject({ status: 200, endpoint: "eu-paris-1" });
  await Promise.all([first, second].map((standIn) => standIn.reset()));
  expect(await at("3")).toMatchObject({ endpoint: "eu-paris-1" });
  for (const drained of [first, second]) expect(await drained.requests()).toEqual([]);
  await edge.put(document(4, { overrides: [down("eu-frankfurt-2")] }));
  expect(await at("4")).toMatchObject({ status: 200, endpoint: "eu-frankfurt-1" });
  await edge.put(document(5, { overrides: [down()] }));
  expect(await at("5")).toMatchObject({ status: 200, endpoint: "eu-paris-1" });
  await edge.put(document(6));
  expect(await at("6")).toMatchObject({ status: 200, endpoint: "eu-frankfurt-1" });
});

/** A node that reports each endpoint as up, except for those in `reported`. */
async function node(): Promise<{ url: string; reported: Json; families: Json }> {
  const self = { url: "", reported: {} as Json, families: {} as Json };
  self.url = await serve((_, response) => {
    const endpoint = (name: string) => [name, self.reported[name] ?? { status: "up" }];
    const of = (name: string, endpoints: string[]) => {
      const status = self.families[name] ? (Object.values(self.families[name]).includes("up") ? "up" : "down") : "up";
      const more = self.families[name] ? { families: self.families[name] } : {};
      return [
        name,
        {
          status,
          probed: status,
          stale: false,
          override: null,
          age_ms: 0,
          interval_ms: 5_000,
          ...more,
          endpoints: Object.fromEntries(endpoints.map(endpoint)),
        },
      ];
    };
    const regions = [of("eu-frankfurt", ["eu-frankfurt-1", "eu-frankfurt-2"]), of("eu-paris", ["eu-paris-1"])];
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify({ node: "ns1", revision: 1, rules_sha256: "", regions: Object.fromEntries(regions) }));
  });
  return self;
}

const to = async (edge: Edge, endpoint: string) =>
  await until(
    () => seen(edge),
    (now) => now.endpoint === endpoint,
  );

test("overrides by a node's API move requests to the other endpoint, to the other region, and back", async () => {
  const ns1 = await node();
  const edge = await Edge.start(document(1), { HEALTH_URLS: ns1.url });
  await to(edge, "eu-frankfurt-1");
  const drained = { status: "down", probed: "up", override: { status: "down", until: soon(), reason: "new driver" } };
  ns1.reported = { "eu-frankfurt-1": drained };
  await to(edge, "eu-frankfurt-2");
  ns1.reported = { "eu-frankfurt-1": drained, "eu-frankfurt-2": drained };
  await to(edge, "eu-paris-1");
  await Promise.all([first, second].map((standIn) => standIn.reset()));
  expect(await seen(edge)).toMatchObject({ status: 200, endpoint: "eu-paris-1" });
  for (const standIn of [first, second]) expect(await standIn.requests()).toEqual([]);
  ns1.reported = {};
  await to(edge, "eu-frankfurt-1");
});

test("monitors may name hosts, authorities and families; a region is usable while one family is up", async () => {
  const ns1 = await node();
  const monitored = document(1);
  monitored.regions["eu-frankfurt"].monitor = {
    type: "http",
    url: "https://gpu.example.net/health",
    host: "a.example.net",
    sni: "b.example.net",
    ca_file: "private.pem",
    family: "both",
  };
  ns1.families = { "eu-frankfurt": { ipv4: "up", ipv6: "down" } };
  const edge = await Edge.start(monitored, { HEALTH_URLS: ns1.url });
  await to(edge, "eu-frankfurt-1");
  ns1.families = { "eu-frankfurt": { ipv4: "down", ipv6: "down" } };
  await to(edge, "eu-paris-1");
  ns1.families = { "eu-frankfurt": { ipv4: "down", ipv6: "up" } };
  await to(edge, "eu-frankfurt-1");
});
