// Every metric that the board of the edge names is one that a real Worker has.
import { readFileSync } from "node:fs";
import { afterAll, expect, test } from "vitest";
import { Edge, StandIn, read, region, root, rules, stopAll, until } from "./harness.js";
import { DnsNode, WORKER_TOKEN } from "./node.js";

afterAll(stopAll);

const OPERATOR = "operator-token-0123456789";

test("the board names metrics that a Worker has", async () => {
  const board = readFileSync(`${root}deploy/grafana/bailiwick-edge.json`, "utf8");
  const named = new Set(board.match(/bailiwick_edge_[a-z_]+/g));
  // Absent until something odd happens, and until an endpoint rests for the clients of all tenants.
  const written = readFileSync(`${root}edge-worker/src/runtime/metrics/text.rs`, "utf8");
  for (const name of ["events", "endpoint_resting"]) {
    expect(written).toContain(`"${name}"`);
    expect(named.delete(`bailiwick_edge_${name === "events" ? "events_total" : name}`)).toBe(true);
  }
  expect(named.size).toBeGreaterThan(10);
  const [fra, par] = await Promise.all(["eu-frankfurt", "eu-paris"].map((name) => StandIn.start(name)));
  const regions = {
    ...region("DE", "eu-frankfurt", [fra.url], { quota: "swc" }),
    ...region("FR", "eu-paris", [par.url]),
  };
  const document = rules(1, regions, {}, { quotas: { swc: { requests: 60, headroom: 0 } } });
  const node = await DnsNode.start(document);
  const edge = await Edge.start(document, {
    EXPLAIN_TOKEN: OPERATOR,
    RULES_URLS: `${node.url}/v1/rules`,
    RULES_TOKEN: WORKER_TOKEN,
    HEALTH_URLS: `${node.url}/v1/health`,
    HEALTH_TOKEN: WORKER_TOKEN,
    OBSERVATIONS_URLS: `${node.url}/v1/observations`,
    OBSERVATIONS_SECONDS: "0.1",
  });
  await fra.fail({ mode: "status", status: 429, headers: { "retry-after": "30" }, times: 1 });
  await read(await edge.chat("DE"));
  const missing = async () => {
    await read(await edge.chat("FR"));
    const headers = { authorization: `Bearer ${OPERATOR}` };
    const text = await (await edge.ask({ path: "/.well-known/bailiwick/metrics", headers })).text();
    const known = new Set(text.split("\n").map((line) => line.match(/^bailiwick_edge_[a-z_]+/)?.[0]));
    return [...named].filter((name) => !known.has(name));
  };
  await until(missing, (names) => names.length === 0);
});
