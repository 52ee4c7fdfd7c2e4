// Clients that send their bodies slowly. Each gets an error after the limits of its service, and the delay doesn't
// count against an endpoint.
import { type Socket, connect } from "node:net";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { StandIn, region, rules, serve, stopAll } from "./harness.js";
import { workerd } from "./workerd.js";

const IDLE = 400;
let url: string, fra: StandIn, par: StandIn;

beforeAll(async () => {
  [fra, par] = await Promise.all(["eu-frankfurt", "eu-paris"].map((name) => StandIn.start(name)));
  const limits = { idle: `${IDLE}ms`, headers_unary: "1500ms", headers_streamed: "1500ms", total: "3s" };
  const document = rules(
    1,
    { ...region("DE", "eu-frankfurt", [fra.url]), ...region("FR", "eu-paris", [par.url]) },
    { limits },
    { networks: [{ prefix: "198.51.100.0/24", country: "DE" }] },
  );
  const node = await serve((_, response) => response.end(JSON.stringify(document)));
  ({ url } = await workerd({ RULES_URL: `${node}/v1/rules`, STATE_KEY: "k".repeat(32) }));
});
beforeEach(() => fra.reset());
afterAll(stopAll);

const head = (path: string, headers: string) =>
  `POST ${path} HTTP/1.1\r\nhost: chat.example\r\ncf-connecting-ip: 198.51.100.7\r\n${headers}\r\n\r\n`;
const part = '--XX\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n';
const upload = (more: string) =>
  head("/v1/files", "content-type: multipart/form-data; boundary=XX\r\ncontent-length: 100000000") + part + more;

/** Sends `begin`, then `drip` again and again. Returns the answer. */
async function ask(begin: string, drip = ""): Promise<{ status: number; code: string; attempts?: string; ms: number }> {
  const began = performance.now();
  const socket: Socket = connect(Number(new URL(url).port), "127.0.0.1").on("error", () => {});
  socket.write(begin);
  const timer = drip && setInterval(() => socket.write(drip), IDLE / 4);
  let text = "";
  for await (const chunk of socket) {
    text += chunk;
    if (/\r\n\r\n.*\}\}$/s.test(text)) break;
  }
  if (timer) clearInterval(timer);
  const status = Number(text.split(" ")[1]);
  const attempts = text.match(/x-bailiwick-attempts: (.*)\r\n/i)?.[1];
  return {
    status,
    code: JSON.parse(text.slice(text.indexOf("\r\n\r\n"))).error.code,
    attempts,
    ms: performance.now() - began,
  };
}

const chunk = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`;

test.each([
  ["JSON whose length is known", head("/v1/chat/completions", "content-length: 100") + "{", ""],
  ["JSON in chunks", head("/v1/chat/completions", "transfer-encoding: chunked") + chunk("{"), ""],
  ["JSON that comes in drips", head("/v1/chat/completions", "transfer-encoding: chunked") + chunk("{"), chunk(" ")],
  ["an upload that has hardly begun", upload(""), ""],
  ["an upload that comes in drips", upload(""), "x"],
])("nothing of %s reaches an endpoint", async (_, begin, drip) => {
  const { ms, ...answer } = await ask(begin, drip);
  expect(answer).toEqual({ status: 408, code: "request_timeout", attempts: undefined });
  // The idle limit applies to a client that stops sending, the total limit to a client that goes on sending.
  expect(ms).toBeGreaterThan(drip ? 2_500 : IDLE - 50);
  expect(await fra.requests()).toEqual([]);
});

test("a refusal doesn't wait for the end of the body", async () => {
  const { ms, ...answer } = await ask(head("/v1/nothing", "transfer-encoding: chunked") + chunk("{"), chunk(" "));
  expect(answer).toEqual({ status: 404, code: "unknown_path", attempts: undefined });
  expect(ms).toBeLessThan(20_000);
});

test.each([
  ["falls silent", "", IDLE],
  ["takes longer than the endpoint may", "x".repeat(100), 1_500],
])("an upload that %s in the middle doesn't count against the endpoint", async (_, drip, least) => {
  const { ms, attempts, ...answer } = await ask(upload("x".repeat(500_000)), drip);
  expect(answer).toEqual({ status: 408, code: "request_timeout" });
  expect(attempts).toMatch(/^eu-frankfurt-1;outcome=client_gone;ms=\d+$/);
  expect(ms).toBeGreaterThan(least - 50);
  expect(await fra.requests(), "the endpoint got a complete body").toEqual([]);
});

test("after all these requests the first endpoint is still asked first", async () => {
  const body = JSON.stringify({ model: "m", messages: [] });
  const socket = connect(Number(new URL(url).port), "127.0.0.1");
  socket.write(head("/v1/chat/completions", `content-length: ${body.length}`) + body);
  let text = "";
  for await (const chunk of socket) {
    text += chunk;
    if (text.includes("\r\n\r\n")) break;
  }
  expect(text).toMatch(/^HTTP\/1\.1 200 .*x-bailiwick-attempts: eu-frankfurt-1;outcome=committed\r\n/is);
});
