// A drill with a real node and the real Worker: the Worker sends the same share of a region's clients elsewhere, never
// out of their fence, and what it counts proves it at the node.
import { spawn, spawnSync } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CompactSign, decodeJwt, decodeProtectedHeader } from "jose";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Edge, type Json, StandIn, onStop, read, region, rules, stopAll, until } from "./harness.js";
import { DnsNode, WORKER_TOKEN } from "./node.js";
import { program } from "./program.js";

const TOKEN = "0123456789abcdef0123456789abcdef";
const CLIENTS = 80;
let fra: StandIn, par: StandIn, lon: StandIn, nyc: StandIn;
let folder: string;
let tokenFile: string;

beforeAll(async () => {
  const names = ["eu-frankfurt", "eu-paris", "uk-london", "us-virginia"];
  [fra, par, lon, nyc] = await Promise.all(names.map((name) => StandIn.start(name)));
  folder = mkdtempSync(join(tmpdir(), "bailiwick-drill-"));
  onStop(() => rmSync(folder, { recursive: true, force: true }));
  tokenFile = join(folder, "api.token");
  writeFileSync(tokenFile, TOKEN, { mode: 0o600 });
});
beforeEach(async () => {
  await Promise.all([fra, par, lon, nyc].map((one) => one.reset()));
});
afterAll(stopAll);

/** Four regions that are probed, and a drill of London. */
function document(service: Json, drill: Json): Json {
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
  return rules(1, regions, service, { drills: { london: { region: "uk-london", for: "10m", ...drill } } });
}

/** A node and a Worker that follows it and posts to it. */
async function start(service: Json = {}, drill: Json = {}, bindings: Record<string, string> = {}) {
  const node = await DnsNode.start(document(service, drill), `token_file = "${tokenFile}"\n`);
  const edge = await Edge.start(document(service, drill), {
    ...bindings,
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

/** The receipts of British clients' requests while a command runs, and the command's exit code. */
async function receiptsWhile(edge: Edge, command: string[]): Promise<{ receipts: string[]; code: number | null }> {
  const runner = spawn(command[0], command.slice(1), { stdio: "ignore" });
  onStop(() => runner.kill("SIGKILL"));
  const receipts: string[] = [];
  await until(
    async () => {
      const number = receipts.length;
      const reply = await edge.chat("GB", {}, { headers: { "x-session-id": `session-${number}` } });
      expect((await read(reply)).status).toBe(200);
      receipts.push(reply.headers.get("x-bailiwick-receipt")!);
      return runner.exitCode;
    },
    (code) => code !== null,
    60_000,
  );
  return { receipts, code: runner.exitCode };
}

test("receipts of a drill are counted in its report, and one that lies outside makes it fail", async () => {
  const pair = generateKeyPairSync("ed25519");
  const key = pair.privateKey.export({ type: "pkcs8", format: "pem" }) as string;
  const { node, edge } = await start({}, { ramp: [100], for: "4s" }, { RECEIPT_KEY: key });
  const binary = program("bailiwick");
  const file = (name: string, text?: string) => {
    if (text !== undefined) writeFileSync(join(folder, name), text, { mode: 0o600 });
    return join(folder, name);
  };
  const [record, page, signKey] = [file("record.json"), file("london.html"), file("receipt.key", key)];
  const way = ["--api", node.url, "--token-file", tokenFile, "--record", record];
  const spans = ["--every", "1s", "--before", "3s", "--after", "1s"];
  const { receipts, code } = await receiptsWhile(edge, [binary, "drill", "run", "london", ...way, ...spans]);
  expect([code, JSON.parse(readFileSync(record, "utf8")).outcome]).toEqual([0, "done"]);
  const served = new Set(receipts.map((receipt) => (decodeJwt(receipt) as Json).committed.region));
  expect(served.has("uk-london") && served.size > 1, [...served].join()).toBe(true);

  const jwks = file("jwks.json", (await read(await edge.ask({ path: "/.well-known/bailiwick/jwks.json" }))).text);
  const report = (lines: string[], ...more: string[]) => {
    const given = ["--receipts", file("receipts.txt", lines.join("\n")), "--jwks", jwks];
    return spawnSync(binary, ["drill", "report", "london", ...way, ...given, ...more], { encoding: "utf8" });
  };
  // The first requests may have come a moment before the drill's time.
  const good = report(receipts);
  const { checked, other_time, ...rest } = JSON.parse(good.stdout).receipts;
  expect([good.status, good.stderr]).toEqual([0, ""]);
  expect([checked + other_time, rest]).toEqual([
    receipts.length,
    { outside: 0, unproved: 0, repeated: 0, invalid: 0, other_fence: 0 },
  ]);
  expect(checked).toBeGreaterThan(receipts.length / 2);
  expect(JSON.parse(good.stdout).outside).toBe(0);

  // Receipts that no Worker of this version gives: this one has the key, and was sent to a region outside.
  const genuine = receipts[receipts.length >> 1];
  const sign = (claims: Json) =>
    new CompactSign(new TextEncoder().encode(JSON.stringify(claims)))
      .setProtectedHeader(decodeProtectedHeader(genuine) as Json as { alg: string })
      .sign(pair.privateKey);
  const claims = decodeJwt(genuine) as Json;
  const attempts = [{ ...claims.attempts[0], region: "us-virginia" }];
  const outside = await sign({ ...claims, jti: "outside", attempts });
  const earlier = await sign({ ...claims, jti: "earlier", attempts, iat: claims.iat - 3600 });
  const changed = `${genuine.slice(0, -9)}${genuine.at(-9) === "A" ? "B" : "A"}${genuine.slice(-8)}`;
  const lines = [...receipts, outside, genuine, outside, earlier, changed];
  const bad = report(lines);
  expect(bad.status).toBe(1);
  expect(JSON.parse(bad.stdout)).toMatchObject({
    outside: 1,
    receipts: { checked: checked + 1, other_time: other_time + 1, outside: 1, repeated: 2, invalid: 1, unproved: 0 },
  });

  // The same on a page, and in what was signed.
  const verify = () => spawnSync(binary, ["drill", "verify", page, "--jwks", jwks], { encoding: "utf8" });
  const signed = ["--html", page, "--sign-key", signKey];
  expect(report(receipts, ...signed).status).toBe(0);
  expect([verify().status, verify().stdout]).toEqual([0, expect.stringContaining(`0 of ${checked} outside`)]);
  const told = report(lines, ...signed);
  expect([told.status, told.stdout]).toEqual([
    1,
    expect.stringContaining(`receipts   1 of ${checked + 1} outside the fence`),
  ]);
  expect(readFileSync(page, "utf8")).toContain('<p class="big bad">1</p>');
  const { status, stdout } = verify();
  expect([status, stdout]).toEqual([1, expect.stringContaining("outside    1 in all")]);
  expect(stdout).toContain(`receipts   1 of ${checked + 1} outside, 1 aren't valid`);
});
