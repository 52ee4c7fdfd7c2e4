// Residency at the edge: a tenant's own fence, places where the law of the EU applies, codes that aren't countries, and
// that only the operator sees which endpoints lack their secret.
import { generateKeyPairSync } from "node:crypto";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Edge, type Json, StandIn, keyDigest, read, region, rules, stopAll, until } from "./harness.js";

const pem = generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" }) as string;
const operator = { authorization: "Bearer operators-token" };
const bearer = (key: string) => ({ authorization: `Bearer ${key}` });

let fra: StandIn, lon: StandIn, nyc: StandIn, edge: Edge, document: Json;
let logged = "";

/** Collects the log of the Worker. */
const logging: any = {
  handleRuntimeStdio(stdout: NodeJS.ReadableStream, stderr: NodeJS.ReadableStream) {
    for (const stream of [stdout, stderr]) stream.on("data", (chunk) => (logged += chunk));
  },
};

beforeAll(async () => {
  [fra, lon, nyc] = await Promise.all(["eu-frankfurt", "uk-london", "us-virginia"].map((name) => StandIn.start(name)));
  const regions = {
    ...region("DE", "eu-frankfurt", [fra.url]),
    ...region("GB", "uk-london", [lon.url]),
    ...region("US", "us-virginia", [nyc.url]),
  };
  // A second endpoint of a region, whose secret isn't set.
  regions["eu-frankfurt"].endpoints.unkeyed = { url: `${fra.url}/v1`, priority: 9, secret: "CANARY_KEY" };
  const residency = [
    { clients: ["eu"], process_in: ["eu"] },
    { clients: ["uk"], process_in: ["uk", "eu"] },
    { clients: ["*"], process_in: ["us"] },
    { clients: ["unknown"], process_in: ["eu"] },
  ];
  document = rules(
    1,
    regions,
    { residency },
    {
      tenants: {
        hospital: { key_sha256: [keyDigest("sk-hospital")], residency: "uk", process_in: ["uk"], services: ["keyed"] },
        tiered: { key_sha256: [keyDigest("sk-tiered")], process_in: ["uk", "*"], services: ["keyed"] },
        shop: { key_sha256: [keyDigest("sk-shop")], residency: "uk", services: ["keyed"] },
      },
    },
  );
  document.services.keyed = { ...document.services.chat, hosts: ["keyed.example"] };
  edge = await Edge.start(document, { EXPLAIN_TOKEN: "operators-token", RECEIPT_KEY: pem }, logging);
});
beforeEach(() => Promise.all([fra, lon, nyc].map((standIn) => standIn.reset())));
afterAll(stopAll);

const keyed = (key: string, country: string, body: Json = {}) =>
  edge.chat(country, body, { host: "keyed.example", headers: bearer(key) });
const ours = (path: string, headers: Record<string, string> = {}) =>
  edge.ask({ path: `/.well-known/bailiwick/${path}`, host: "keyed.example", headers, cf: { country: "US" } });

test.each(["GB", "US", "DE", "XX"])("a tenant is processed in its own fence when it asks from %s", async (country) => {
  const reply = await keyed("sk-hospital", country);
  const claims = JSON.parse(
    Buffer.from(reply.headers.get("x-bailiwick-receipt")!.split(".")[1], "base64url").toString(),
  );
  expect(claims).toMatchObject({ fence: ["uk-london"], fence_by: "tenant", committed: { jurisdiction: "uk" } });
  expect(await read(reply)).toMatchObject({ status: 200, region: "uk-london" });
});

test("nothing outside a tenant's own fence is tried, even if the service's rule would allow it", async () => {
  await lon.fail({ mode: "status", status: 500 });
  expect(await read(await keyed("sk-hospital", "GB", { model: "failing" }))).toMatchObject({ status: 503 });
  expect([...(await fra.requests()), ...(await nyc.requests())]).toEqual([]);
  // The service's rule for `uk` has the EU as its second tier. The tenant that only declares a residency goes there.
  expect(await read(await keyed("sk-shop", "GB", { model: "failing" }))).toMatchObject({
    status: 200,
    region: "eu-frankfurt",
  });
});

test("a tenant's fence has tiers", async () => {
  expect(await read(await keyed("sk-tiered", "US", { model: "tiers" }))).toMatchObject({ region: "uk-london" });
  await lon.fail({ mode: "status", status: 500 });
  expect(await read(await keyed("sk-tiered", "US", { model: "tiers" }))).toMatchObject({ region: "us-virginia" });
});

test.each<[string, string]>([
  ["GF", "eu-frankfurt"],
  ["RE", "eu-frankfurt"],
  ["AX", "eu-frankfurt"],
  ["MF", "eu-frankfurt"],
  ["BL", "us-virginia"],
  ["PF", "us-virginia"],
  ["JE", "us-virginia"],
  ["XK", "us-virginia"],
  ["ZZ", "eu-frankfurt"],
  ["EU", "eu-frankfurt"],
  ["A1", "eu-frankfurt"],
  ["UK", "eu-frankfurt"],
  ["T1", "eu-frankfurt"],
])("a client with the cf country %s is processed in %s", async (country, expected) => {
  expect(await read(await edge.chat(country))).toMatchObject({ status: 200, region: expected });
});

test("only the operator sees all fences", async () => {
  const { json } = await read(await ours("explain?all", operator));
  const of = (tenant: string) => json.fences.find((row: Json) => row.tenant === tenant);
  expect(of("hospital")).toEqual({
    service: "keyed",
    tenant: "hospital",
    clients: "all",
    fence_by: "tenant",
    fence: [{ region: "uk-london", tier: 0 }],
  });
  expect(of("shop")).toMatchObject({ clients: "declared", jurisdictions: ["uk"], fence_by: "rule", rule: 1 });
  const unknown = json.fences.find((row: Json) => row.clients === "unknown");
  expect(unknown).toMatchObject({ service: "chat", rule: 3, fence: [{ region: "eu-frankfurt", tier: 0 }] });
  const text = await (await ours("explain?all", { ...operator, accept: "text/plain" })).text();
  expect(text).toMatch(/^keyed +hospital +all, wherever they are +process_in +uk-london$/m);
  expect(await read(await ours("explain?all", bearer("sk-hospital")))).toMatchObject({
    status: 403,
    code: "explain_not_allowed",
  });
  expect((await ours("explain?all")).status).toBe(401);
});

test("a tenant's explanation names the rule that defines its fence", async () => {
  const { json } = await read(await ours("explain", bearer("sk-hospital")));
  expect(json).toMatchObject({
    fence: ["uk-london"],
    fence_by: "tenant",
    client: { jurisdictions: ["uk"], source: "tenant" },
  });
  const territory = await read(await ours("explain?service=chat&country=GF", operator));
  expect(territory.json.client).toMatchObject({
    country: "GF",
    jurisdictions: ["eu"],
    territory: expect.stringContaining("355(1)"),
  });
});

test("only the operator sees which endpoints lack their secret", async () => {
  const missing = [{ region: "eu-frankfurt", endpoint: "unkeyed", secret: "CANARY_KEY" }];
  expect((await read(await ours("explain?service=chat&country=DE", operator))).json.no_secret).toEqual(missing);
  expect((await read(await ours("explain?service=chat&country=US", operator))).json.no_secret).toBeUndefined();
  expect((await read(await ours("healthz", operator))).json).toMatchObject({ status: "ok", no_secret: missing });
  const reported = await (await ours("explain?all", { ...operator, accept: "text/plain" })).text();
  expect(reported).toContain("no secret  eu-frankfurt/unkeyed: CANARY_KEY has no value here");
  for (const headers of [{}, bearer("sk-tiered"), bearer("nobody")]) {
    expect(await (await ours("healthz", headers)).text()).not.toContain("CANARY_KEY");
    expect(await (await ours("explain", headers)).text()).not.toContain("CANARY_KEY");
  }
  const line = () => logged.split("\n").find((line) => line.includes('"event":"no_secret"'));
  expect(await until(async () => line(), Boolean)).toContain('"secret":"CANARY_KEY"');
});

test("if a secret is missing, the log names the endpoint, and the answer doesn't", async () => {
  await fra.fail({ mode: "status", status: 500 });
  const reply = await read(await edge.chat("DE", { model: "unkeyed" }));
  expect(reply.status).toBe(503);
  expect(reply.text).not.toContain("CANARY_KEY");
  await until(
    async () => logged,
    (text) => text.includes('"no_secret":["eu-frankfurt/unkeyed"]'),
  );
});
