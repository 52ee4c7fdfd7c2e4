// Regions of a tier in the order of the time to the first token: Workers count, a real node tells the medians, and the
// Worker follows them. Only the endpoints are stand-ins.
import { afterAll, expect, test } from "vitest";
import { Edge, StandIn, read, region, rules, stopAll, until } from "./harness.js";
import { DnsNode, WORKER_TOKEN } from "./node.js";

afterAll(stopAll);

const OPERATOR = "operator-token-0123456789";

test("a faster region of the fence comes first, and explain shows both numbers", async () => {
  const names = ["eu-frankfurt", "eu-paris", "uk-london"];
  const [fra, par, lon] = await Promise.all(names.map((name) => StandIn.start(name)));
  const regions = {
    ...region("DE", "eu-frankfurt", [fra.url]),
    ...region("FR", "eu-paris", [par.url]),
    ...region("GB", "uk-london", [lon.url]),
  };
  const document = rules(1, regions, { order: "first-token" });
  const node = await DnsNode.start(document);
  const edge = await Edge.start(document, {
    HEALTH_URLS: `${node.url}/v1/health`,
    HEALTH_TOKEN: WORKER_TOKEN,
    OBSERVATIONS_URLS: `${node.url}/v1/observations`,
    OBSERVATIONS_SECONDS: "0.2",
    EXPLAIN_TOKEN: OPERATOR,
  });
  const served = async (country: string) => (await read(await edge.chat(country))).region;
  expect(await served("DE")).toBe("eu-frankfurt");
  await fra.fail({ mode: "slow", delay_ms: 300 });
  const stream = (country: string) => edge.chat(country, { stream: true }).then((reply) => reply.text());
  const countries = [...Array(25).keys()].flatMap(() => ["DE", "FR"]);
  await Promise.all(countries.map(stream));
  await until(
    () => served("DE"),
    (region) => region === "eu-paris",
    30_000,
  );
  expect(await served("FR")).toBe("eu-paris");
  expect(await lon.requests()).toEqual([]);

  const health: any = await (await fetch(`${node.url}/v1/health`)).json();
  const medians = health.first_token_ms.chat;
  expect(medians["eu-frankfurt"]).toBeGreaterThan(300);
  expect(medians["eu-paris"]).toBeLessThan(medians["eu-frankfurt"]);
  const headers = { authorization: `Bearer ${OPERATOR}` };
  const path = "/.well-known/bailiwick/explain?service=chat&country=DE";
  const { json } = await read(await edge.ask({ path, headers }));
  expect(json.fence).toEqual(["eu-frankfurt", "eu-paris"]);
  const [first, second] = json.ordered;
  expect([first.region, second.region]).toEqual(["eu-paris", "eu-frankfurt"]);
  expect(first.way_ms).toBe(Math.round(first.km / 100));
  expect(first.first_token_ms + first.way_ms).toBeLessThan(0.8 * (second.first_token_ms + second.way_ms));
  const text = await (await edge.ask({ path, headers: { ...headers, accept: "text/plain" } })).text();
  expect(text).toMatch(/order +1 +eu-paris \(tier 0, \d+ km away, \d+ ms \+ \d+ ms to the first token\)\n/);
}, 90_000);
