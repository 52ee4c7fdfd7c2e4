// A client that goes away takes the endpoint's work with it, whatever the request is waiting for. GPUs do not write for nobody.
//
// Limits are long here: nothing but the client's going ends these requests. workerd sees a reset at once, and a connection that
// is merely closed with its next write: until then it might be half closed, by a client that still listens. (Cloudflare's own
// front tells of both.)
import { connect } from "node:net";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Faulty } from "./faulty.js";
import { region, rules, serve, stopAll, until } from "./harness.js";
import { workerd } from "./workerd.js";

const FAULTS = ["silent", "slow-headers", "slow-body", "late-silent", "late-drip", "late-flow"];
let faulty: Faulty, next: Faulty, url: string;

beforeAll(async () => {
  [faulty, next] = await Promise.all([Faulty.start(), Faulty.start()]);
  const document = rules(1, {}, {}, { networks: [{ prefix: "198.51.100.0/24", country: "DE" }] });
  document.services = {};
  for (const fault of FAULTS) {
    const regions = { ...region("DE", `de-${fault}`, [`${faulty.url}/${fault}`]), ...region("FR", `fr-${fault}`, [next.url]) };
    Object.assign(document.regions, regions);
    const limits = { headers_streamed: "300s", headers_unary: "300s", idle: "300s" };
    document.services[fault] = rules(1, regions, { hosts: [`${fault}.example`], limits }).services.chat;
  }
  const node = await serve((_, response) => response.end(JSON.stringify(document)));
  ({ url } = await workerd({ RULES_URL: `${node}/v1/rules` }));
});
beforeEach(() => void (faulty.asked.length = 0));
afterAll(stopAll);

test.each([
  ["before headers", "silent", true, "reset"],
  ["before headers, unary", "silent", false, "reset"],
  ["in the middle of headers", "slow-headers", true, "reset"],
  ["before the first content", "slow-body", true, "reset"],
  ["in the middle of a unary answer", "slow-body", false, "reset"],
  ["while the stream is silent", "late-silent", true, "reset"],
  ["in the middle of an event", "late-drip", true, "reset"],
  ["while events flow", "late-flow", true, "reset"],
  ["while events flow", "late-flow", true, "close"],
] as const)("%s (%s, stream: %s): by a %s", async (_, fault, stream, how) => {
  const closed = faulty.closed(fault);
  const body = JSON.stringify({ model: "m", stream, messages: [] });
  const socket = connect(Number(new URL(url).port), "127.0.0.1").on("error", () => {});
  socket.write(`POST /v1/chat/completions HTTP/1.1\r\nhost: ${fault}.example\r\ncf-connecting-ip: 198.51.100.7\r\ncontent-length: ${body.length}\r\n\r\n${body}`);
  if (fault.startsWith("late")) await new Promise((resolve) => socket.once("data", resolve));
  else await until(async () => faulty.asked.length, (asked) => asked === 1);
  expect(faulty.closed(fault)).toBe(closed);
  if (how === "reset") socket.resetAndDestroy();
  else socket.destroy();
  await until(async () => faulty.closed(fault), (now) => now === closed + 1, 10_000);
  expect(next.asked, "nobody else is asked for a client that has gone").toEqual([]);
});
