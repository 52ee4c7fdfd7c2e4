// /.well-known/bailiwick/explain: who may use it, and that it describes what a request really gets, in the words of
// `bailiwick explain`.
import { execFileSync } from "node:child_process";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Edge, type Json, StandIn, keyDigest, read, region, rules, stopAll } from "./harness.js";
import { program } from "./program.js";

let fra: StandIn, nyc: StandIn, edge: Edge, document: Json;

beforeAll(async () => {
  [fra, nyc] = await Promise.all(["eu-frankfurt", "us-virginia"].map((name) => StandIn.start(name)));
  const regions = { ...region("DE", "eu-frankfurt", [fra.url]), ...region("US", "us-virginia", [nyc.url]) };
  document = rules(
    3,
    regions,
    {},
    {
      tenants: {
        acme: { key_sha256: [keyDigest("sk-acme")], residency: "eu", services: ["keyed"] },
        "globe-canary": { key_sha256: [keyDigest("sk-globe")], residency: "us", services: ["keyed"] },
      },
    },
  );
  document.services.keyed = { ...document.services.chat, hosts: ["keyed.example"] };
  edge = await Edge.start(document, { EXPLAIN_TOKEN: "operators-token" });
});
beforeEach(() => Promise.all([fra.reset(), nyc.reset()]));
afterAll(stopAll);

const bearer = (key: string) => ({ authorization: `Bearer ${key}` });

function explain(query: string, headers: Record<string, string>, host = "keyed.example", country = "US") {
  return edge.ask({ path: `/.well-known/bailiwick/explain?${query}`, headers, host, cf: { country } });
}

test("a tenant gets the explanation of its own request", async () => {
  const { json } = await read(await explain("model=m&path=/v1/chat/completions", bearer("sk-acme")));
  expect(json).toMatchObject({
    revision: 3,
    service: "keyed",
    client: { country: "US", jurisdictions: ["eu"], source: "tenant" },
    fence: ["eu-frankfurt"],
    ordered: [{ region: "eu-frankfurt", tier: 0 }],
    withheld: [],
    valid_until: null,
  });
  const { region } = await read(
    await edge.chat("US", {}, { host: "keyed.example", headers: { "api-key": "sk-acme" } }),
  );
  expect(region).toBe(json.ordered[0].region);
});

test.each<[string, string, Record<string, string>, string, number, string]>([
  ["without a key", "", {}, "keyed.example", 401, "explain_unauthorized"],
  ["with nobody's key", "", bearer("sk-nobody"), "keyed.example", 401, "invalid_api_key"],
  [
    "with two keys",
    "",
    { ...bearer("sk-acme"), "api-key": "operators-token" },
    "keyed.example",
    401,
    "conflicting_api_keys",
  ],
  ["of a service that knows no tenants", "", bearer("sk-acme"), "chat.example", 401, "explain_unauthorized"],
  ["of nobody's host", "", bearer("sk-acme"), "nobody.example", 404, "unknown_host"],
  ["of another tenant", "tenant=globe-canary", bearer("sk-acme"), "keyed.example", 403, "explain_not_allowed"],
  ["of a tenant that doesn't exist", "tenant=nobody", bearer("sk-acme"), "keyed.example", 403, "explain_not_allowed"],
  ["of another country", "country=DE", bearer("sk-acme"), "keyed.example", 403, "explain_not_allowed"],
  ["with a token in the query", "token=operators-token", {}, "keyed.example", 400, "key_in_query"],
  ["with words that mean nothing", "modle=m", bearer("sk-acme"), "keyed.example", 400, "invalid_question"],
])("a request %s gets no explanation", async (_, query, headers, host, status, code) => {
  const reply = await read(await explain(query, headers, host));
  expect(reply).toMatchObject({ status, code });
  expect(reply.text).not.toMatch(/canary|frankfurt|operators-token/);
});

test("without EXPLAIN_TOKEN there is no operator", async () => {
  for (const bindings of [{}, { EXPLAIN_TOKEN: "" }]) {
    const other = await Edge.start(document, bindings as Record<string, string>);
    for (const headers of [{}, bearer(""), bearer("operators-token")]) {
      const reply = await other.ask({ path: "/.well-known/bailiwick/explain", host: "keyed.example", headers });
      expect(reply.status).toBe(401);
    }
    await other.stop();
  }
});

test("the operator gets the explanation of any client's request, in the words of the command line", async () => {
  const binary = program("bailiwick");
  for (const [query, ...more] of [
    ["service=chat&country=FR", "--service", "chat", "--country", "FR"],
    ["service=chat&client=unknown", "--service", "chat", "--client", "unknown"],
    [
      "service=keyed&country=US&tenant=globe-canary&model=m",
      "--service",
      "keyed",
      "--country",
      "US",
      "--tenant",
      "globe-canary",
      "--model",
      "m",
    ],
  ]) {
    const command = (...flags: string[]) =>
      execFileSync(binary, ["explain", "--rules", "-", ...more, ...flags], {
        input: JSON.stringify(document),
        encoding: "utf8",
        stdio: ["pipe", "pipe", "ignore"],
      });
    const json = await explain(query, bearer("operators-token"), "ops.example");
    expect(await json.json()).toEqual(JSON.parse(command("--json")));
    const text = await explain(query, { ...bearer("operators-token"), accept: "text/plain" }, "ops.example");
    expect(text.headers.get("content-type")).toBe("text/plain; charset=utf-8");
    expect(await text.text()).toBe(command());
  }
});

test("the explanation names an endpoint that rests in this isolate", async () => {
  await fra.fail({ mode: "status", status: 429, headers: { "retry-after": "30" } });
  // Two clients weren't served, so the endpoint rests for all clients.
  for (const at of ["198.51.100.1", "203.0.113.1"])
    await edge.chat("DE", { model: "resting" }, { headers: { "cf-connecting-ip": at } });
  const { json } = await read(await explain("service=chat&country=DE&model=resting", bearer("operators-token")));
  expect(json.revived).toBe(true);
  expect(Date.parse(json.valid_until)).toBeGreaterThan(Date.now());
});

test("other methods than GET are refused, and all mistakes of a query are reported at once", async () => {
  const headers = bearer("operators-token");
  const posted = await edge.ask({
    path: "/.well-known/bailiwick/explain",
    method: "POST",
    body: "{}",
    headers,
    host: "keyed.example",
  });
  expect([posted.status, posted.headers.get("allow")]).toEqual([405, "GET"]);
  const { status, json } = await read(await explain("service=caht&country=Germany", headers));
  expect(status).toBe(400);
  expect(json.error.message).toMatch(/service: .*"caht".*country: .*"Germany"/);
});
