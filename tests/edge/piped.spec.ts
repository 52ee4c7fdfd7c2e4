// Streams that the runtime's own pipe passes on (`"streams": "pipe"`). The client gets the same bytes as with
// inspection, but the Worker doesn't read them. Faults of such streams and clients that go away are tested in
// faults.spec.ts and gone.spec.ts.
import { once } from "node:events";
import { createServer } from "node:http";
import { connect } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Faulty } from "./faulty.js";
import { Edge, type Json, StandIn, onStop, read, region, rules, serve, stopAll, until } from "./harness.js";
import { workerd } from "./workerd.js";

let fra: StandIn, faulty: Faulty, edge: Edge;

/** Rules with two services for each endpoint: one whose streams are inspected, and one whose streams are piped. */
function document(endpoints: Record<string, [url: string, models?: Json]>): Json {
  const all = rules(1, {}, {}, { networks: [{ prefix: "198.51.100.0/24", country: "DE" }] });
  all.services = {};
  for (const [name, [url, models]] of Object.entries(endpoints)) {
    const here = region("DE", `de-${name}`, [url]);
    if (models) Object.values<Json>(here[`de-${name}`].endpoints)[0].models = models;
    Object.assign(all.regions, here);
    const limits = { idle: "100ms" };
    for (const streams of ["inspect", "pipe"]) {
      const service = { hosts: [`${name}.${streams}.example`], limits, streams };
      all.services[`${name}-${streams}`] = rules(1, here, service).services.chat;
    }
  }
  return all;
}

beforeAll(async () => {
  [fra, faulty] = await Promise.all([StandIn.start("eu-frankfurt", "--country", "DE"), Faulty.start()]);
  edge = await Edge.start(
    document({
      well: [fra.url],
      renamed: [fra.url, { "chat-large": "llama-3.3-70b" }],
      slow: [`${faulty.url}/late-slow`],
    }),
  );
});
afterAll(stopAll);

/** The text of a stream without ids and times, which differ in each answer. */
const withoutIds = (text: string) =>
  text.replace(/stand-in-eu-frankfurt-\d+/g, "ID").replace(/"(created|created_at)":\d+/g, '"$1":0');

test.each([
  ["/v1/chat/completions", { messages: [{ role: "user", content: "hi" }], stream_options: { include_usage: true } }],
  ["/v1/completions", { prompt: "hi" }],
  ["/v1/responses", { input: "hi", store: false }],
])("%s passes byte by byte, with the same headers as an inspected stream", async (path, more) => {
  const json = { model: "m", stream: true, ...more };
  const direct = await (await fetch(`${fra.url}${path}`, { method: "POST", body: JSON.stringify(json) })).text();
  const names: string[][] = [];
  for (const streams of ["inspect", "pipe"]) {
    const reply = await edge.ask({ path, json, host: `well.${streams}.example`, cf: { country: "DE" } });
    expect(withoutIds(await reply.text()), streams).toBe(withoutIds(direct));
    const framing = ["content-length", "transfer-encoding"];
    names.push([...reply.headers.keys()].filter((name) => !framing.includes(name)).sort());
  }
  expect(names[1]).toEqual(names[0]);
});

test("a stream whose model's name must be replaced is inspected even with pipe", async () => {
  const reply = await edge.chat("DE", { model: "chat-large", stream: true }, { host: "renamed.pipe.example" });
  const text = await reply.text();
  expect(text).toContain('"model":"chat-large"');
  expect(text).not.toContain("llama");
});

test("a piped stream may be silent without limit, an inspected stream may not", async () => {
  const ask = (streams: string) => edge.chat("DE", { stream: true }, { host: `slow.${streams}.example` });
  expect(await (await ask("pipe")).text()).toMatch(/data: \[DONE\]\n\n$/);
  expect(await (await ask("inspect")).text()).toContain("upstream_interrupted");
});

test("an answer in one piece isn't piped", async () => {
  const reply = await edge.chat("DE", {}, { host: "well.pipe.example" });
  expect((await read(reply)).json.object).toBe("chat.completion");
});

test("a client that doesn't read stops its endpoint, and nothing is buffered in between", async () => {
  const event = `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: "x".repeat(60_000) } }] })}\n\n`;
  let sent = 0;
  const server = createServer((request, response) => {
    request.resume();
    response.writeHead(200, { "content-type": "text/event-stream" });
    const more = () => {
      while (sent < 512 << 20) {
        sent += event.length;
        if (!response.write(event)) return void response.once("drain", more);
      }
    };
    more();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  onStop(() => server.closeAllConnections());
  onStop(() => server.close());
  const { port } = server.address() as { port: number };
  const text = JSON.stringify(document({ flood: [`http://127.0.0.1:${port}`] }));
  const node = await serve((_, response) => response.end(text));
  const { url } = await workerd({ RULES_URL: `${node}/v1/rules` });
  for (const streams of ["inspect", "pipe"]) {
    sent = 0;
    const socket = connect(Number(new URL(url).port), "127.0.0.1").on("error", () => {});
    const body = JSON.stringify({ model: "m", stream: true, messages: [] });
    socket.write(
      `POST /v1/chat/completions HTTP/1.1\r\nhost: flood.${streams}.example\r\ncf-connecting-ip: 198.51.100.7\r\n` +
        `content-length: ${body.length}\r\n\r\n${body}`,
    );
    await once(socket, "readable");
    // Waits until the endpoint has sent nothing more for 25 polls.
    let [before, unchanged] = [-1, 0];
    const unchangedPolls = async () => {
      unchanged = sent === before ? unchanged + 1 : 0;
      before = sent;
      return unchanged;
    };
    await until(unchangedPolls, (polls) => polls >= 25, 20_000);
    expect(sent, streams).toBeLessThan(32 << 20);
    socket.destroy();
  }
});
