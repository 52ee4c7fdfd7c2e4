// Tests of API keys: which tenant a key belongs to, and what the key allows. A request with a bad key is refused; it is
// never steered by geography instead. A client's key is never sent to an endpoint.
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Edge, StandIn, keyDigest, read, region, residency, rules, stopAll } from "./harness.js";

// Stand-ins for the endpoints of the regions eu-frankfurt and us-virginia, and the Worker under test.
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
  // Two services besides "chat". No tenant may use "open", so it needs no key.
  const common = { pattern: "active-active", regions: Object.keys(regions), residency };
  document.services.other = { hosts: ["other.example"], ...common };
  document.services.open = { hosts: ["open.example"], ...common };
  edge = await Edge.start(document, { FRA_KEY: "upstream-secret", NYC_KEY: "upstream-secret" });
});
beforeEach(() => Promise.all([fra, nyc].map((standIn) => standIn.reset())));
afterAll(stopAll);

const bearer = (key: string) => ({ authorization: `Bearer ${key}` });

test.each<[string, Record<string, string>, string]>([
  ["a tenant's declared residency counts more than geography", bearer("sk-acme"), "eu-frankfurt"],
  ["a tenant may have two keys", bearer("sk-acme-2"), "eu-frankfurt"],
  ["a key may come in the header api-key", { "api-key": "sk-acme" }, "eu-frankfurt"],
  ["the same key may come in both headers", { ...bearer("sk-acme"), "api-key": "sk-acme" }, "eu-frankfurt"],
  ["a tenant without residency is steered by geography", bearer("sk-globe"), "us-virginia"],
  [
    "the rules' networks count more than geography",
    { ...bearer("sk-globe"), "cf-connecting-ip": "198.51.100.7" },
    "eu-frankfurt",
  ],
])("%s", async (_, headers, expected) => {
  const { status, region } = await read(await edge.chat("US", {}, { headers }));
  expect({ status, region }).toEqual({ status: 200, region: expected });
});

test.each<[string, Record<string, string>, number, string]>([
  ["no key", {}, 401, "missing_api_key"],
  ["another scheme than Bearer", { authorization: "Basic c2stYWNtZQ==" }, 401, "missing_api_key"],
  ["a key of no tenant", bearer("sk-nobody"), 401, "invalid_api_key"],
  ["a key with unusual characters", bearer(" \u00ff\u00fe,,=="), 401, "invalid_api_key"],
  ["a key of 8000 characters", bearer("k".repeat(8000)), 401, "invalid_api_key"],
  ["two different keys", { ...bearer("sk-acme"), "api-key": "sk-globe" }, 401, "conflicting_api_keys"],
  ["the key of a tenant of another service", bearer("sk-other"), 403, "service_not_allowed"],
])("a request with %s is refused and reaches no endpoint", async (_, headers, status, code) => {
  expect(await read(await edge.chat("DE", {}, { headers }))).toMatchObject({ status, code });
  expect([...(await fra.requests()), ...(await nyc.requests())]).toEqual([]);
});

test("a request with a key in its query is refused, and the error doesn't repeat the key", async () => {
  const path = "/v1/chat/completions?api-key=sk-acme";
  const { status, code, text } = await read(await edge.chat("DE", {}, { path, headers: bearer("sk-acme") }));
  expect({ status, code }).toEqual({ status: 400, code: "key_in_query" });
  expect(text).not.toContain("sk-acme");
});

test("a service that no tenant uses ignores all keys", async () => {
  for (const headers of [{}, bearer("sk-nobody"), { ...bearer("a"), "api-key": "b" }]) {
    expect(await read(await edge.chat("US", {}, { headers, host: "open.example" }))).toMatchObject({
      status: 200,
      region: "us-virginia",
    });
  }
});

test("an endpoint receives its own credential, and no credential, address or cookie of the client", async () => {
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
  const allHeaders = JSON.stringify(sent);
  for (const canary of ["sk-acme", "canary", "198.51.100.7", "x-bailiwick"]) expect(allHeaders).not.toContain(canary);
  // TE is a header of one connection (RFC 9110 §7.6.1), so it isn't forwarded.
  expect(sent.te).toBeUndefined();
  // `cf-worker` names the Worker's zone. The runtime adds this header to the request after the Worker has sent it.
  for (const name of Object.keys(sent))
    expect(name).not.toMatch(/^(cf-(?!worker$)|x-forwarded|x-real|cookie|api-key|forwarded)/);
});

test("concurrent requests of two tenants each go to their own tenant's region", async () => {
  const keys = Array.from({ length: 40 }, (_, i) => (i % 2 ? "sk-acme" : "sk-globe"));
  const replies = await Promise.all(keys.map((key) => edge.chat("US", {}, { headers: bearer(key) }).then(read)));
  expect(replies.map(({ region }) => region)).toEqual(
    keys.map((key) => (key === "sk-acme" ? "eu-frankfurt" : "us-virginia")),
  );
});
