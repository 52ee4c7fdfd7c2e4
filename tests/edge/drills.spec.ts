// A drill with a real node and the real Worker: the Worker sends the same share of a region's clients elsewhere, never
// out of their fence, and what it counts proves it at the node.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Edge, type Json, StandIn, onStop, read, region, rules, stopAll, until } from "./harness.js";
import { DnsNode, WORKER_TOKEN } from "./node.js";

const TOKEN = "0123456789abcdef0123456789abcdef";
const CLIENTS = 80;
let fra: StandIn, par: StandIn, lon: StandIn, nyc: StandIn;
let tokenFile: string;

beforeAll(async () => {
  const names = ["eu-frankfurt", "eu-paris", "uk-london", "us-virginia"];
  [fra, par, lon, nyc] = await Promise.all(names.map((name) => StandIn.start(name)));
  const folder = mkdtempSync(join(tmpdir(), "bailiwick-drill-"));
  onStop(() => rmSync(folder, { recursive: true, force: true }));
  tokenFile = join(folder, "api.token");
  writeFileSync(tokenFile, TOKEN, { mode: 0o600 });
});
beforeEach(async () => {
  await Promise.all([fra, par, lon, nyc].map((one) => one.reset()));
});
afterAll(stopAll);

/** Four regions that are probed, and a drill of London. */
function document(service: Json = {}): Json {
  const regions: Json = {
    ...region("DE", "eu-frankfurt", [fra.url]),
    ...region("FR", "eu-paris", [par.url]),
    ...region("GB", "uk-london", [lon.url]),
    ...region("US", "us-virginia", [nyc.url]),
  };
  for (const [name, stand] of [
    ["eu-frankfurt", fra],
    ["eu-paris", par],
    ["uk-london", lon],
    ["us-virginia", nyc],
  ] as const) {
    const address = new URL(stand.url).host;
    regions[name].monitor = { type: "tcp", address, interval: "500ms", timeout: "400ms", up_thresh: 1 };
    regions[name].load = { capacity: 100, demand: 10 };
  }
  return rules(1, regions, service, { drills: { london: { region: "uk-london", for: "10m" } } });
}

/** A node and a Worker that follows it and posts to it. */
async function start(service: Json = {}): Promise<{ node: DnsNode; edge: Edge }> {
  const node = await DnsNode.start(document(service), `token_file = "${tokenFile}"\n`);
  const edge = await Edge.start(document(service), {
    HEALTH_URLS: `${node.url}/v1/health`,
    HEALTH_TOKEN: WORKER_TOKEN,
    OBSERVATIONS_URLS: `${node.url}/v1/observations`,
    OBSERVATIONS_SECONDS: "0.1",
  });
  const told = await until(
    async () => (await fetch(`${node.url}/v1/drills`)).json() as Promise<Json>,
    (told) => told.drills.london.preflight.verdict === "go",
  );
  expect(told.drills.london.preflight.reasons).toEqual([]);
  return { node, edge };
}

/** Asks for a share; returns when the drill began. */
async function ask(node: DnsNode, share: number, began?: string): Promise<string> {
  const body = JSON.stringify({ name: "london", share, began, hold_ms: 120_000 });
  const headers = { authorization: `Bearer ${TOKEN}`, "content-type": "application/json" };
  const reply = await fetch(`${node.url}/v1/drills`, { method: "POST", headers, body });
  const text = await reply.text();
  expect(reply.status, text).toBe(200);
  return JSON.parse(text).began;
}

/** Which of the British clients are served elsewhere than in London. */
async function elsewhere(edge: Edge): Promise<number[]> {
  const served = await Promise.all(
    [...Array(CLIENTS).keys()].map(async (n) => {
      const reply = await edge.chat("GB", {}, { headers: { "x-session-id": `session-${n}` } });
      const { region, status } = await read(reply);
      expect(status).toBe(200);
      expect(["uk-london", "eu-paris", "eu-frankfurt"]).toContain(region);
      const shed = String(reply.headers.get("x-bailiwick-shed"));
      expect(shed).toMatch(
        region === "uk-london" ? /^null$/ : /^from=uk-london;to=eu-[a-z]+;share=[01](\.\d+)?;drill$/,
      );
      return region === "uk-london" ? [] : [n];
    }),
  );
  return served.flat();
}

const settled = (edge: Edge, fits: (moved: number[]) => boolean) => until(() => elsewhere(edge), fits, 25_000);

test("the Worker moves 10, 50 and 100 % and back, and its counts prove that none left the fence", async () => {
  const { node, edge } = await start();
  expect(await elsewhere(edge)).toEqual([]);
  const began = await ask(node, 10);
  // The share may arrive in the midst of the first requests.
  await settled(edge, (moved) => moved.length > 0);
  const some = await elsewhere(edge);
  expect(some.length).toBeLessThan(CLIENTS * 0.25);
  expect(await elsewhere(edge), "the same clients each time").toEqual(some);
  await ask(node, 50, began);
  const half = await settled(edge, (moved) => moved.length > CLIENTS * 0.3);
  expect(half.length).toBeLessThan(CLIENTS * 0.7);
  expect(half).toEqual(expect.arrayContaining(some));
  await ask(node, 100, began);
  await settled(edge, (moved) => moved.length === CLIENTS);
  await lon.reset();
  await elsewhere(edge);
  expect(await lon.requests(), "nobody comes to London").toEqual([]);
  expect((await read(await edge.chat("DE"))).region, "others stay where they are").toBe("eu-frankfurt");

  const headers = { authorization: `Bearer ${TOKEN}`, "content-type": "application/json" };
  const body = JSON.stringify({ reason: "enough" });
  expect((await fetch(`${node.url}/v1/drills/london`, { method: "DELETE", headers, body })).status).toBe(200);
  await settled(edge, (moved) => moved.length === 0);

  const sent = (await Promise.all([fra, par].map(async (one) => (await one.requests()).length))).reduce(
    (a, b) => a + b,
  );
  expect(sent).toBeGreaterThan(2 * CLIENTS);
  expect(await nyc.requests()).toEqual([]);
  const look = await until(
    async () => {
      await edge.ask({ path: "/.well-known/bailiwick/healthz" });
      return (await (await fetch(`${node.url}/v1/drills/london`)).json()) as Json;
    },
    ({ counted }) => counted.checked.edge >= 5 * CLIENTS,
  );
  const { edge_outside, edge_by_tenant } = look.counted.checked;
  expect([edge_outside, edge_by_tenant]).toEqual([0, 0]);
  expect(look.counted.regions["eu-paris"].edge.sent + look.counted.regions["eu-frankfurt"].edge.sent).toBeGreaterThan(
    0,
  );
});

test("a client that has no other region stays, whatever the share", async () => {
  const { node, edge } = await start();
  await ask(node, 100);
  await settled(edge, (moved) => moved.length === CLIENTS);
  await Promise.all([fra, par].map((one) => one.fail({ mode: "status", status: 500, times: 1000 })));
  // London is asked when the others fail.
  const { region, status } = await read(await edge.chat("GB", { model: "other" }));
  expect([region, status]).toEqual(["uk-london", 200]);
});

test("a service whose clients are never moved because of load takes part in a drill", async () => {
  const { node, edge } = await start({ shed: "never" });
  await ask(node, 100);
  await settled(edge, (moved) => moved.length === CLIENTS);
});
