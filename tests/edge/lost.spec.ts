// Requests whose client or Wasm instance goes away. Their memory is freed, and no client waits for ever.
import { once } from "node:events";
import { type Socket, connect } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Faulty } from "./faulty.js";
import { StandIn, region, root, rules, serve, stopAll, until } from "./harness.js";
import { workerd } from "./workerd.js";

const MIB = 1 << 20;
/** The longest time between two reports of an exchange, in milliseconds: MAX_SILENCE of exchange.js. */
const MAX_SILENCE = 5_000;
let node: string;

beforeAll(async () => {
  const [fra, faulty] = await Promise.all([StandIn.start("eu-frankfurt"), Faulty.start()]);
  const document = rules(1, {}, {}, { networks: [{ prefix: "198.51.100.0/24", country: "DE" }] });
  document.services = {};
  for (const [name, url] of [
    ["well", fra.url],
    ["silent", `${faulty.url}/silent`],
    ["late", `${faulty.url}/late-silent`],
  ] as const) {
    const here = region("DE", `de-${name}`, [url]);
    Object.assign(document.regions, here);
    const limits = { headers_streamed: "300s", headers_unary: "300s", idle: "300s" };
    document.services[name] = rules(1, here, { hosts: [`${name}.example`], limits }).services.chat;
    const piped = { hosts: [`piped-${name}.example`], limits, streams: "pipe" };
    document.services[`piped-${name}`] = rules(1, here, piped).services.chat;
  }
  node = await serve((_, response) => response.end(JSON.stringify(document)));
});
afterAll(stopAll);

/** Sends a request over its own socket, with only the beginning `body` of a body of `announced` bytes. */
function ask(url: string, host: string, body: string, announced = body.length, path = "/v1/chat/completions") {
  const socket: Socket = connect(Number(new URL(url).port), "127.0.0.1").on("error", () => {});
  const head = [
    `POST ${path} HTTP/1.1`,
    `host: ${host}.example`,
    "cf-connecting-ip: 198.51.100.7",
    `content-length: ${announced}`,
  ];
  if (path === "/v1/files") head.push("content-type: multipart/form-data; boundary=XX");
  socket.write(`${head.join("\r\n")}\r\n\r\n${body}`);
  let text = "";
  socket.setEncoding("latin1").on("data", (more) => {
    text += more;
    const [head, ...rest] = text.split("\r\n\r\n");
    const length = head.match(/\r\ncontent-length: (\d+)/i)?.[1];
    // workerd keeps connections open, even with `connection: close`.
    if (length ? rest.join("\r\n\r\n").length >= Number(length) : text.endsWith("\r\n0\r\n\r\n")) socket.destroy();
  });
  return { socket, text: () => text, ended: once(socket, "close").then(() => text) };
}
const chat = (more: object) =>
  JSON.stringify({ model: "chat-large", messages: [{ role: "user", content: "hi" }], ...more });
const large = chat({ user: "x".repeat(MIB) });

test.each([
  ["JSON", "/v1/chat/completions"],
  ["an upload", "/v1/files"],
])(
  "the memory for clients that reset the connection in the middle of %s is freed",
  async (_, path) => {
    const { url } = await workerd({ RULES_URL: `${node}/v1/rules`, STATE_KEY: "k".repeat(32) });
    const probe = async () => Number((await ask(url, "well", large).ended).split(" ")[1]);
    expect(await probe()).toBe(200);
    const part = '--XX\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n';
    const begun = path === "/v1/files" ? part + "x".repeat(200_000) : large.slice(0, 900_000);
    const clients: ReturnType<typeof ask>[] = [];
    // These requests fill the memory that the isolate has for bodies.
    const more = () => {
      for (let i = 0; i < 10; i++) clients.push(ask(url, "well", begun, 8 * MIB - 1, path));
      return probe();
    };
    await until(more, (status) => status === 503);
    for (const { socket } of clients) socket.resetAndDestroy();
    const together = () => Promise.all(Array.from({ length: 28 }, probe));
    await until(together, (statuses) => statuses.every((status) => status === 200));
  },
  60_000,
);

test("all clients of a Wasm instance that panicked get an answer", async () => {
  const { url, log } = await workerd(
    { RULES_URL: `${node}/v1/rules`, STATE_KEY: "k".repeat(32) },
    { from: `${root}edge-worker/build-vectors` },
  );
  const asked = [
    ask(url, "silent", chat({})),
    ask(url, "well", large.slice(0, 500_000), large.length),
    ask(url, "well", "{", 100),
    ask(url, "well", "--XX", 100_000, "/v1/files"),
  ];
  const streams = ["late", "piped-late"].map((service) => ask(url, service, chat({ stream: true })));
  await until(
    async () => streams,
    (streams) => streams.every((stream) => stream.text().includes("data: ")),
  );
  const [panicked] = await Promise.all([ask(url, "well", "", 0, "/.well-known/bailiwick/test/panic?canary").ended]);
  const began = performance.now();
  for (const text of [panicked, ...(await Promise.all(asked.map(({ ended }) => ended)))]) {
    expect(text).toMatch(/^HTTP\/1.1 500 /);
    expect(text).toMatch(/\r\nx-bailiwick-request-id: [0-9a-f-]{36}\r\n/i);
    expect(text).toContain('"code":"internal_error"');
  }
  for (const text of await Promise.all(streams.map(({ ended }) => ended))) {
    expect(text.lastIndexOf("data: ")).toBe(text.lastIndexOf('data: {"error":'));
    expect(text).not.toContain("[DONE]");
  }
  expect(performance.now() - began).toBeLessThan(MAX_SILENCE + 5_000);
  expect((await ask(url, "well", chat({})).ended).split(" ")[1]).toBe("200");
  expect(log()).not.toContain("canary");
}, 60_000);
