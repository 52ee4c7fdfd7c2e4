// If a client goes away, the endpoint's work ends too, in every state of the request. So no GPU generates an answer
// that no client receives.
//
// The limits are long here, so these requests end only because the client leaves. When workerd notices that depends on
// the socket:
//
//   the client              TCP                                                      a Unix socket
//   resets                  at once                                                  (not possible)
//   closes both directions  at the next write: a FIN alone may close only one        at once
//   closes its direction    never: it still reads, and gets its whole answer         never
//
// workerd aborts the request's signal, for unary and for streamed answers, before a write fails. Without the flag for
// that signal it still ends the fetches of the request. How Cloudflare's own front handles a closed connection can't be
// tested here.
import { once } from "node:events";
import { type Socket, connect } from "node:net";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Faulty } from "./faulty.js";
import { region, rules, serve, stopAll, until } from "./harness.js";
import { workerd } from "./workerd.js";

const FAULTS = ["silent", "slow-headers", "slow-body", "late-silent", "late-drip", "late-flow", "late-slow"];
let faulty: Faulty, next: Faulty, url: string, path: string;

beforeAll(async () => {
  [faulty, next] = await Promise.all([Faulty.start(), Faulty.start()]);
  const document = rules(1, {}, {}, { networks: [{ prefix: "198.51.100.0/24", country: "DE" }] });
  document.services = {};
  for (const fault of FAULTS) {
    const regions = {
      ...region("DE", `de-${fault}`, [`${faulty.url}/${fault}`]),
      ...region("FR", `fr-${fault}`, [next.url]),
    };
    Object.assign(document.regions, regions);
    const limits = { headers_streamed: "300s", headers_unary: "300s", idle: "300s" };
    document.services[fault] = rules(1, regions, { hosts: [`${fault}.example`], limits }).services.chat;
    const piped = { hosts: [`piped-${fault}.example`], limits, streams: "pipe" };
    document.services[`piped-${fault}`] = rules(1, regions, piped).services.chat;
  }
  const node = await serve((_, response) => response.end(JSON.stringify(document)));
  ({ url, path } = await workerd({ RULES_URL: `${node}/v1/rules` }));
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
  ["before headers", "silent", true, "close on a Unix socket"],
  ["before headers, unary", "silent", false, "close on a Unix socket"],
  ["before the first content", "slow-body", true, "close on a Unix socket"],
  ["in the middle of a unary answer", "slow-body", false, "close on a Unix socket"],
  ["while the stream is silent", "late-silent", true, "close on a Unix socket"],
  ["while events flow", "late-flow", true, "close on a Unix socket"],
  ["before the first content of a pipe", "slow-body", true, "reset", "piped-"],
  ["while a pipe is silent", "late-silent", true, "reset", "piped-"],
  ["in the middle of an event of a pipe", "late-drip", true, "reset", "piped-"],
  ["while events flow through a pipe", "late-flow", true, "reset", "piped-"],
  ["while events flow through a pipe", "late-flow", true, "close", "piped-"],
  ["while a pipe is silent", "late-silent", true, "close on a Unix socket", "piped-"],
  ["while events flow through a pipe", "late-flow", true, "close on a Unix socket", "piped-"],
] as const)("%s (%s, stream: %s): by a %s", async (_, fault, stream, how, service: "" | "piped-" = "") => {
  const closed = faulty.closed(fault);
  const socket = ask(`${service}${fault}`, stream, how === "close on a Unix socket");
  if (fault.startsWith("late")) await once(socket, "data");
  else
    await until(
      async () => faulty.asked.length,
      (asked) => asked === 1,
    );
  expect(faulty.closed(fault)).toBe(closed);
  if (how === "reset") socket.resetAndDestroy();
  else socket.destroy();
  await until(
    async () => faulty.closed(fault),
    (now) => now === closed + 1,
    10_000,
  );
  expect(next.asked, "no other endpoint is asked after the client has gone").toEqual([]);
});

test.each([
  ["a port", false, "late-slow"],
  ["a Unix socket", true, "late-slow"],
  ["a port, piped", false, "piped-late-slow"],
  ["a Unix socket, piped", true, "piped-late-slow"],
] as const)(
  "a client that closes only its sending half, on %s, still gets the whole answer",
  async (_, local, service) => {
    const socket = ask(service, true, local);
    let text = "";
    socket.on("data", (chunk) => (text += chunk));
    socket.end();
    await once(socket, "end");
    expect(text).toContain("data: [DONE]\n\n");
  },
);

/** Sends a request over a connection of its own. */
function ask(service: string, stream: boolean, local: boolean): Socket {
  const to = local ? { path } : { port: Number(new URL(url).port), host: "127.0.0.1" };
  const socket = connect({ ...to, allowHalfOpen: true }).on("error", () => {});
  const body = JSON.stringify({ model: "m", stream, messages: [] });
  const headers = `host: ${service}.example\r\ncf-connecting-ip: 198.51.100.7\r\ncontent-length: ${body.length}\r\n`;
  socket.write(`POST /v1/chat/completions HTTP/1.1\r\n${headers}\r\n${body}`);
  return socket;
}
