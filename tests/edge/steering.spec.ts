// Where a request goes, by its client's place, and what happens to it if a whole fence fails.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Edge, StandIn, read, region, rules, stopAll } from "./harness.js";

let fra: StandIn, lon: StandIn, nyc: StandIn, edge: Edge;

beforeAll(async () => {
  [fra, lon, nyc] = await Promise.all(["eu-frankfurt", "uk-london", "us-virginia"].map((name) => StandIn.start(name)));
  edge = await Edge.start(
    rules(7, {
      ...region("DE", "eu-frankfurt", [fra.url]),
      ...region("GB", "uk-london", [lon.url]),
      ...region("US", "us-virginia", [nyc.url]),
    }),
  );
});
beforeEach(() => Promise.all([fra, lon, nyc].map((standIn) => standIn.reset())));
afterAll(stopAll);

describe("a client is served inside its fence", () => {
  test.each([
    ["DE", "eu-frankfurt", "eu"],
    ["FR", "eu-frankfurt", "eu"],
    ["GB", "uk-london", "uk"],
    ["US", "us-virginia", "us"],
  ])("from %s, placed by %s", async (country, expected, jurisdiction) => {
    const reply = await edge.chat(country);
    expect(reply.headers.get("x-bailiwick-jurisdiction")).toBe(jurisdiction);
    expect(reply.headers.get("x-bailiwick-revision")).toBe("7");
    expect(reply.headers.get("x-bailiwick-request-id")).toMatch(/^[0-9a-f-]{36}$/);
    expect(reply.headers.get("server-timing")).toMatch(/^steer;dur=\d+, upstream;dur=\d+$/);
    expect(reply.headers.get("cache-control")).toBe("no-store");
    const { status, region, endpoint, attempts, json } = await read(reply);
    expect({ status, region, endpoint }).toEqual({ status: 200, region: expected, endpoint: `${expected}-1` });
    expect(attempts).toMatch(new RegExp(`^${expected}-1;outcome=committed(;ms=\\d+)?$`));
    expect(json.choices[0].message.content).toContain(`Hello from ${expected}`);
  });

  test("regardless of other fields of request.cf and of the host's upper and lower case", async () => {
    const cf = { country: "GB", latitude: "50.11", longitude: "8.68", city: "Frankfurt" };
    expect((await read(await edge.chat("", {}, { cf, host: "CHAT.example:8080" }))).region).toBe("uk-london");
  });
});

describe("a client whose place isn't known is denied, and nothing is sent", () => {
  test.each<[string, unknown]>([
    ["a country that no rule takes", { country: "JP" }],
    ["no country", {}],
    ["XX", { country: "XX" }],
    ["Tor", { country: "T1" }],
    ["a number", { country: 49 }],
    ["an object", { country: { toString: "DE" }, latitude: [], longitude: {} }],
    ["a list", { country: ["DE"] }],
    ["lower case", { country: "de" }],
    ["null", { country: null, latitude: null }],
  ])("%s", async (_, cf) => {
    const reply = await edge.chat("", {}, { cf });
    expect(reply.headers.get("x-should-retry")).toBe("false");
    const { status, code, region, json } = await read(reply);
    expect({ status, code, region }).toEqual({ status: 451, code: "residency_denied", region: null });
    expect(Object.keys(json.error).sort()).toEqual(["code", "message", "param", "type"]);
    for (const standIn of [fra, lon, nyc]) expect(await standIn.requests()).toEqual([]);
  });
});

test("while all endpoints of the fence fail, none outside of it sees a connection", async () => {
  await fra.fail({ mode: "status", status: 500 });
  for (const body of [{ model: "fence-unary" }, { model: "fence-stream", stream: true }]) {
    const reply = await edge.chat("DE", body);
    expect(reply.headers.get("x-should-retry")).toBeNull();
    expect(await read(reply)).toMatchObject({ status: 503, code: "region_unavailable" });
  }
  expect(await fra.requests()).not.toEqual([]);
  expect(await lon.connections()).toBe(0);
  expect(await nyc.connections()).toBe(0);
});

test("a second tier is inside the fence", async () => {
  await lon.fail({ mode: "status", status: 503 });
  const { status, region, attempts } = await read(await edge.chat("GB", { model: "second-tier" }));
  expect({ status, region }).toEqual({ status: 200, region: "eu-frankfurt" });
  expect(attempts).toMatch(/^uk-london-1;outcome=[a-z0-9_]+(;ms=\d+)?, eu-frankfurt-1;outcome=committed(;ms=\d+)?$/);
  expect(await nyc.connections()).toBe(0);
});

test("a host that no service has is 404", async () => {
  expect(await read(await edge.chat("DE", {}, { host: "nobody.example" }))).toMatchObject({
    status: 404,
    code: "unknown_host",
  });
});

test("the list of models comes from an endpoint inside the fence if the rules have no map", async () => {
  const { status, region, json } = await read(await edge.ask({ path: "/v1/models", cf: { country: "GB" } }));
  expect({ status, region }).toEqual({ status: 200, region: "uk-london" });
  expect(json.data[0]).toMatchObject({ id: "stand-in", owned_by: "uk-london" });
  expect(await read(await edge.ask({ path: "/v1/models", cf: { country: "JP" } }))).toMatchObject({ status: 451 });
});

test("a request to an Azure endpoint has Azure's form", async () => {
  const azure = region("US", "us-azure", [nyc.url], {
    url: nyc.url,
    style: "azure",
    api_version: "2024-10-21",
    secret: "AZURE_KEY",
    models: { "chat-large": "gpt-4o-us" },
  });
  const own = await Edge.start(rules(1, azure), { AZURE_KEY: "azure-key" });
  const reply = await read(
    await own.chat("US", { model: "chat-large" }, { headers: { authorization: "Bearer canary" } }),
  );
  expect(reply).toMatchObject({ status: 200, region: "us-azure" });
  const [{ path, headers, body }] = await nyc.requests();
  expect(path).toBe("/openai/deployments/gpt-4o-us/chat/completions?api-version=2024-10-21");
  expect([headers["api-key"], headers.authorization]).toEqual(["azure-key", undefined]);
  expect(JSON.parse(body).messages).toHaveLength(1);
});

test("an endpoint whose secret has no value in this Worker is left out", async () => {
  const regions = {
    ...region("DE", "eu-frankfurt", [fra.url], { secret: "MISSING" }),
    ...region("GB", "uk-london", [lon.url]),
  };
  const own = await Edge.start(rules(1, regions));
  expect(await read(await own.chat("GB"))).toMatchObject({ status: 200, region: "uk-london" });
  expect(await read(await own.chat("DE"))).toMatchObject({ status: 503, code: "region_unavailable" });
  expect(await fra.requests()).toEqual([]);
});
