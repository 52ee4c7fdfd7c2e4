// API keys: to whom they belong and what they allow. No key ever falls back to geography, and none is sent on.
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Edge, StandIn, keyDigest, read, region, residency, rules, stopAll } from "./harness.js";

let fra: StandIn, nyc: StandIn, edge: Edge;

beforeAll(async () => {
  [fra, nyc] = await Promise.all(
    ["eu-frankfurt", "us-virginia"].map((name) => StandIn.start(name, "--secret", "upstream-secret")),
  );
  const regions = {
    ...region("DE", "eu-frankfurt", [fra.url], { secret: "FRA_KEY" }),
    ...region("US", "us-virginia", [nyc.url], { secret: "NYC_KEY" }),
  };
  const document = rules(
    1,
    regions,
    {},
    {
      tenants: {
        acme: { key_sha256: [keyDigest("sk-acme"), keyDigest("sk-acme-2")], residency: "eu", services: ["chat"] },
        globe: { key_sha256: [keyDigest("sk-globe")], services: ["chat"] },
        other: { key_sha256: [keyDigest("sk-other")], services: ["other"] },
      },
      networks: [{ prefix: "198.51.100.0/24", country: "DE" }],
    },
  );
  const more = { pattern: "active-active", regions: Object.keys(regions), residency };
  document.services.other = { hosts: ["other.example"], ...more };
  document.services.open = { hosts: ["open.example"], ...more };
  edge = await Edge.start(document, { FRA_KEY: "upstream-secret", NYC_KEY: "upstream-secret" });
});
beforeEach(() => Promise.all([fra, nyc].map((standIn) => standIn.reset())));
afterAll(stopAll);

const bearer = (key: string) => ({ authorization: `Bearer ${key}` });

test.each<[string, Record<string, string>, string]>([
  ["declared residency over geography", bearer("sk-acme"), "eu-frankfurt"],
  ["a second key of the same tenant", bearer("sk-acme-2"), "eu-frankfurt"],
  ["the key in api-key", { "api-key": "sk-acme" }, "eu-frankfurt"],
  ["the same key twice", { ...bearer("sk-acme"), "api-key": "sk-acme" }, "eu-frankfurt"],
  ["a tenant without residency goes by geography", bearer("sk-globe"), "us-virginia"],
  ["networks before geography", { ...bearer("sk-globe"), "cf-connecting-ip": "198.51.100.7" }, "eu-frankfurt"],
])("%s", async (_, headers, expected) => {
  const { status, region } = await read(await edge.chat("US", {}, { headers }));
  expect({ status, region }).toEqual({ status: 200, region: expected });
});

test.each<[string, Record<string, string>, number, string]>([
  ["no key", {}, 401, "missing_api_key"],
  ["another scheme", { authorization: "Basic c2stYWNtZQ==" }, 401, "missing_api_key"],
  ["nobody's key", bearer("sk-nobody"), 401, "invalid_api_key"],
  ["an odd key", bearer(" \u00ff\u00fe,,=="), 401, "invalid_api_key"],
  ["a very long key", bearer("k".repeat(8000)), 401, "invalid_api_key"],
  ["two keys", { ...bearer("sk-acme"), "api-key": "sk-globe" }, 401, "conflicting_api_keys"],
  ["a key of another service", bearer("sk-other"), 403, "service_not_allowed"],
])("%s is refused and sent nowhere", async (_, headers, status, code) => {
  expect(await read(await edge.chat("DE", {}, { headers }))).toMatchObject({ status, code });
  expect([...(await fra.requests()), ...(await nyc.requests())]).toEqual([]);
});

test("a key in the query is refused", async () => {
  const path = "/v1/chat/completions?api-key=sk-acme";
  const { status, code, text } = await read(await edge.chat("DE", {}, { path, headers: bearer("sk-acme") }));
  expect({ status, code }).toEqual({ status: 400, code: "key_in_query" });
  expect(text).not.toContain("sk-acme");
});

test("a service without tenants ignores whatever key is sent", async () => {
  for (const headers of [{}, bearer("sk-nobody"), { ...bearer("a"), "api-key": "b" }]) {
    expect(await read(await edge.chat("US", {}, { headers, host: "open.example" }))).toMatchObject({
      status: 200,
      region: "us-virginia",
    });
  }
});

test("the endpoint gets its own credential and nothing that is the client's", async () => {
  const headers = {
    ...bearer("sk-acme"),
    "api-key": "sk-acme",
    cookie: "session=canary",
    "cf-connecting-ip": "198.51.100.7",
    "cf-ray": "canary",
    "x-forwarded-for": "198.51.100.7",
    "x-real-ip": "198.51.100.7",
    "x-bailiwick-region": "canary",
    origin: "https://canary.example",
    referer: "https://canary.example/",
    forwarded: "for=198.51.100.7",
    "x-canary": "canary",
    te: "trailers",
  };
  await (await edge.chat("DE", {}, { headers })).arrayBuffer();
  const [{ headers: sent, body, path }] = await fra.requests();
  expect(sent.authorization).toBe("Bearer upstream-secret");
  expect(path).toBe("/v1/chat/completions");
  expect(body).toBe('{"model":"m","messages":[{"role":"user","content":"Say hello."}]}');
  const all = JSON.stringify(sent);
  for (const canary of ["sk-acme", "canary", "198.51.100.7", "x-bailiwick"]) expect(all).not.toContain(canary);
  // A header of one connection (RFC 9110 §7.6.1) goes no further.
  expect(sent.te).toBeUndefined();
  // `cf-worker` is the runtime's own: it names the zone of the Worker, and is written after we have let go of the
  // request.
  for (const name of Object.keys(sent))
    expect(name).not.toMatch(/^(cf-(?!worker$)|x-forwarded|x-real|cookie|api-key|forwarded)/);
});

test("tenants whose requests run side by side never see each other's region", async () => {
  const keys = Array.from({ length: 40 }, (_, i) => (i % 2 ? "sk-acme" : "sk-globe"));
  const replies = await Promise.all(keys.map((key) => edge.chat("US", {}, { headers: bearer(key) }).then(read)));
  expect(replies.map(({ region }) => region)).toEqual(
    keys.map((key) => (key === "sk-acme" ? "eu-frankfurt" : "us-virginia")),
  );
});
