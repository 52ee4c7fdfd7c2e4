// Load, with all its parts: the Worker counts, a real node adds up and plans, and the Worker moves a share of sessions.
// Only the endpoints are stand-ins.
import { afterAll, expect, test } from "vitest";
import { Edge, StandIn, read, region, rules, stopAll } from "./harness.js";
import { DnsNode, WORKER_TOKEN } from "./node.js";

afterAll(stopAll);

test("as load rises in Frankfurt a share of its sessions moves within the fence", async () => {
  const names = ["eu-frankfurt", "eu-paris", "uk-london"];
  const [fra, par, lon] = await Promise.all(names.map((name) => StandIn.start(name)));
  const regions = {
    ...region("DE", "eu-frankfurt", [fra.url], { capacity: 8 }),
    ...region("FR", "eu-paris", [par.url], { capacity: 40 }),
    ...region("GB", "uk-london", [lon.url], { capacity: 400 }),
  };
  const document = rules(1, regions, { slew: "100%/1s" });
  const node = await DnsNode.start(document);
  const edge = await Edge.start(document, {
    HEALTH_URLS: `${node.url}/v1/health`,
    HEALTH_TOKEN: WORKER_TOKEN,
    OBSERVATIONS_URLS: `${node.url}/v1/observations`,
    OBSERVATIONS_SECONDS: "1",
  });
  // Every answer takes a second, so twelve clients keep twelve requests in flight: more than Frankfurt has room for.
  for (const standIn of [fra, par]) await standIn.fail({ mode: "slow", delay_ms: 1_000 });
  const end = Date.now() + 60_000;
  let moved: string | null = null;
  const client = async (n: number) => {
    while (moved === null && Date.now() < end) {
      const reply = await edge.chat("DE", {}, { headers: { "x-session-id": `session-${n}` } });
      const { status, region } = await read(reply);
      expect(status).toBe(200);
      const shed = reply.headers.get("x-bailiwick-shed");
      expect(region).toBe(shed === null ? "eu-frankfurt" : "eu-paris");
      moved ??= shed;
    }
  };
  await Promise.all([...Array(12).keys()].map(client));
  expect(moved).toMatch(/^from=eu-frankfurt;to=eu-paris;share=0\.\d+$/);
  expect(await lon.requests()).toEqual([]);
  const health: any = await (await fetch(`${node.url}/v1/health`)).json();
  const [shares] = health.shares.services.chat;
  expect(shares.order).toEqual(["eu-frankfurt", "eu-paris"]);
  expect(shares.moves.map((move: { to: string }) => move.to)).toEqual(["eu-paris"]);
}, 90_000);
