// Streams. Whole events pass unchanged. A stream that breaks off ends with an event that says so.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Edge, StandIn, region, rules, serve, stopAll, until } from "./harness.js";

let fra: StandIn, edge: Edge;

beforeAll(async () => {
  fra = await StandIn.start("eu-frankfurt", "--country", "DE");
  const limits = { idle: "700ms", headers_streamed: "2s" };
  edge = await Edge.start(rules(1, region("DE", "eu-frankfurt", [fra.url]), { limits }), {}, { cf: { country: "DE" } });
});
beforeEach(() => fra.reset());
afterAll(stopAll);

let models = 0;
/** A model that no other test uses, because an endpoint that fails rests for the model of the failed request. */
const model = () => `stream-${(models += 1)}`;

/** The text of a stream that the stand-in sends if it is asked directly. */
async function direct(path: string, body: object): Promise<string> {
  return (await fetch(`${fra.url}${path}`, { method: "POST", body: JSON.stringify(body) })).text();
}

/** The text of a stream without ids and times, which differ in each answer. */
const withoutIds = (text: string) =>
  text.replace(/stand-in-eu-frankfurt-\d+/g, "ID").replace(/"(created|created_at)":\d+/g, '"$1":0');

test.each([
  ["/v1/chat/completions", { messages: [{ role: "user", content: "hi" }], stream_options: { include_usage: true } }],
  ["/v1/completions", { prompt: "hi" }],
  ["/v1/responses", { input: "hi", store: false }],
])("%s passes byte by byte", async (path, more) => {
  const body = { model: model(), stream: true, ...more };
  const reply = await edge.ask({ path, json: body });
  expect(reply.headers.get("content-type")).toMatch(/^text\/event-stream/);
  expect(reply.headers.get("x-bailiwick-region")).toBe("eu-frankfurt");
  expect(withoutIds(await reply.text())).toBe(withoutIds(await direct(path, body)));
});

test("events arrive as they are made, not at the end", async () => {
  await fra.fail({ mode: "hang", after: 1 });
  const reply = await edge.chat("DE", { model: model(), stream: true });
  const reader = reply.body!.getReader();
  const { value } = await reader.read();
  expect(new TextDecoder().decode(value)).toContain("Hello ");
  await reader.cancel();
});

describe("a stream that dies after its first content", () => {
  test.each([["reset"], ["end"], ["hang"]])(
    "by %s ends for the client with an error event and no [DONE]",
    async (mode) => {
      await fra.fail({ mode, after: 2 });
      const reply = await edge.chat("DE", { model: model(), stream: true });
      expect(reply.status).toBe(200);
      const events = (await reply.text()).split("\n\n").filter(Boolean);
      const last = JSON.parse(events.at(-1)!.replace(/^data: /, ""));
      expect(last.error).toMatchObject({ type: "server_error" });
      expect(events.join("")).toContain("Hello ");
      expect(events.join("")).not.toContain("[DONE]");
      for (const event of events.filter((event) => event.startsWith("data:"))) JSON.parse(event.replace(/^data: /, ""));
    },
  );
});

describe("an event longer than is held", () => {
  const long = "A".repeat(2 << 20);
  const delta = 'data: {"type":"response.output_text.delta","delta":"x"}\n\n';
  test.each([
    [
      "a final image",
      "/v1/images/generations",
      `event: image_generation.completed\ndata: {"type":"image_generation.completed","b64_json":"${long}"}\n\n`,
    ],
    [
      "a final image without a name",
      "/v1/images/generations",
      `data: {"type":"image_generation.completed","b64_json":"${long}"}\n\n`,
    ],
    [
      "a whole response",
      "/v1/responses",
      `${delta}data: {"type":"response.completed","response":{"output":[{"text":"${long}"}]}}\n\n`,
    ],
  ])("doesn't change how a stream ends: %s", async (_, path, text) => {
    const url = await serve((request, response) => {
      request.resume().on("end", () => response.writeHead(200, { "content-type": "text/event-stream" }).end(text));
    });
    const edge = await Edge.start(rules(1, region("DE", "eu-frankfurt", [url])));
    const passed = await (await edge.ask({ path, json: { model: model(), stream: true } })).text();
    expect([passed.length, passed.slice(-200)]).toEqual([text.length, text.slice(-200)]);
    expect(passed === text).toBe(true);
  });

  test("isn't taken for a complete event if it breaks off", async () => {
    const url = await serve((request, response) => {
      const half = `data: {"type":"image_generation.completed","b64_json":"${long}`;
      request.resume().on("end", () => response.writeHead(200, { "content-type": "text/event-stream" }).end(half));
    });
    const edge = await Edge.start(rules(1, region("DE", "eu-frankfurt", [url])));
    const reply = await edge.ask({ path: "/v1/images/generations", json: { model: model(), stream: true } });
    const text = await reply.text().catch(() => "broken off");
    expect(text).not.toContain("\n\n");
  });
});

describe("after the last event", () => {
  const text = `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: "Hello" } }] })}\n\ndata: [DONE]\n\n`;
  /** An endpoint that records its connections, and the Worker in front of it. */
  async function watched(after: (response: import("node:http").ServerResponse) => void) {
    const sockets = new Set<import("node:net").Socket>();
    const url = await serve((request, response) => {
      sockets.add(request.socket);
      request.resume().on("end", () => {
        response.writeHead(200, { "content-type": "text/event-stream" });
        response.write(text);
        after(response);
      });
    });
    return { sockets, edge: await Edge.start(rules(1, region("DE", "eu-frankfurt", [url]))) };
  }

  test("the connection to an endpoint that ends its stream is used again", async () => {
    const { sockets, edge } = await watched((response) => response.end());
    for (let i = 0; i < 5; i++) expect(await (await edge.chat("DE", { stream: true })).text()).toBe(text);
    expect(sockets.size).toBe(1);
  });

  test("the connection to an endpoint that doesn't end its stream is closed", async () => {
    const { sockets, edge } = await watched(() => {});
    expect(await (await edge.chat("DE", { stream: true })).text()).toBe(text);
    await until(async () => [...sockets].every((socket) => socket.destroyed), Boolean);
  });
});
