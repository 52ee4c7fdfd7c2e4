// A service with a wildcard among its hosts: which requests it gets, as RFC 4592 reads the names in the rules.
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Edge, StandIn, read, region, residency, rules, stopAll } from "./harness.js";

let fra: StandIn, par: StandIn, edge: Edge;

beforeAll(async () => {
  [fra, par] = await Promise.all(["eu-frankfurt", "eu-paris"].map((name) => StandIn.start(name)));
  const regions = { ...region("DE", "eu-frankfurt", [fra.url]), ...region("FR", "eu-paris", [par.url]) };
  const document = rules(1, regions, { hosts: ["*.chat.example.com"], regions: ["eu-frankfurt"] });
  // A host that the rules name has priority over the wildcard above it.
  document.services.own = {
    hosts: ["paris.eu.chat.example.com"],
    pattern: "active-active",
    regions: ["eu-paris"],
    residency,
  };
  edge = await Edge.start(document);
});
beforeEach(() => Promise.all([fra, par].map((standIn) => standIn.reset())));
afterAll(stopAll);

const chat = async (host: string) => await read(await edge.chat("DE", {}, { host }));

test.each(["a.chat.example.com", "A.Chat.EXAMPLE.com", "a.chat.example.com:8443", "c.b.a.chat.example.com"])(
  "%s matches the wildcard",
  async (host) => {
    expect(await chat(host)).toMatchObject({ status: 200, region: "eu-frankfurt" });
    expect(await fra.requests()).toHaveLength(1);
  },
);

test("a host that the rules name is served by its own service", async () => {
  expect(await chat("paris.eu.chat.example.com")).toMatchObject({ status: 200, region: "eu-paris" });
  expect(await fra.requests()).toEqual([]);
});

test.each([
  ["its own parent", "chat.example.com"],
  ["a name beside it", "achat.example.com"],
  ["a name that exists as one below it is written down", "eu.chat.example.com"],
  ["a name below such a one", "x.eu.chat.example.com"],
  ["a name below a host that is written down", "x.paris.eu.chat.example.com"],
])("%s belongs to no service: %s", async (_, host) => {
  expect(await chat(host)).toMatchObject({ status: 404, code: "unknown_host" });
  for (const standIn of [fra, par]) expect(await standIn.requests()).toEqual([]);
});

test("the fence holds for hosts of a wildcard, too", async () => {
  expect(await read(await edge.chat("US", {}, { host: "a.chat.example.com" }))).toMatchObject({
    status: 451,
    code: "residency_denied",
  });
  for (const standIn of [fra, par]) expect(await standIn.requests()).toEqual([]);
});
