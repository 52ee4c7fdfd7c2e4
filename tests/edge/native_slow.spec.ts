// Slow clients of the native gateway, with limits of one second: of headers, of bodies, of reading, and those that ask
// for nothing. Each ends after its limit, its request at the endpoint ends with it, and others are served meanwhile.
import type { ServerResponse } from "node:http";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { HEALTHZ } from "./asking.js";
import * as h2 from "./frames.js";
import { GET, H2, POST, block, frame } from "./frames.js";
import { onStop, stopAll, until } from "./harness.js";
import { event } from "./held.js";
import { isNative } from "./native.js";
import { Client, type Seen, Wire, chat, post } from "./wire.js";

const LIMITS = '[limits]\nheaders = "1s"\nidle = "2s"\nwrite = "1s"\n';
const MIB = 1 << 20;

/** How long this takes, in milliseconds. */
async function span(of: Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await of;
  return performance.now() - begun;
}

/** Sends a byte again and again, faster than any limit, until the connection ends. */
function drips(client: Client, byte = "a"): void {
  const timer = setInterval(() => client.socket.writable && client.send(byte), 50);
  client.socket.on("close", () => clearInterval(timer));
  client.socket.on("end", () => clearInterval(timer));
  onStop(() => clearInterval(timer));
}

describe.skipIf(!isNative)("slow clients", () => {
  let wire: Wire;
  /** How many requests to the endpoint its client has left. */
  let left = 0;

  /** Answers that never end, or are large, by the model. */
  function answer({ body, url }: Seen, response: ServerResponse): void {
    const model = url.endsWith("/models") ? "models" : JSON.parse(body || "{}").model;
    response.on("close", () => (left += Number(!response.writableFinished)));
    if (model === "endless") {
      response.writeHead(200, { "content-type": "text/event-stream" });
      const piece = event("a".repeat(8_000));
      const write = () => {
        while (!response.destroyed && response.write(piece));
      };
      response.on("drain", write);
      return write();
    }
    response.writeHead(200, { "content-type": "application/json" });
    const content = { large: "a".repeat(16 * MIB), short: "a".repeat(70_000) }[model as string] ?? "Hello.";
    const choices = [{ index: 0, message: { role: "assistant", content }, finish_reason: "stop" }];
    response.end(JSON.stringify({ id: "c", object: "chat.completion", created: 1, model: "m", choices }));
  }

  beforeAll(async () => {
    wire = await Wire.start({ toml: LIMITS, limits: { idle: "1s" }, answer });
    await wire.serves();
  });
  afterAll(stopAll);

  test.concurrent("a client that sends nothing is closed after limits.headers", async () => {
    const client = new Client(wire.open());
    const took = await span(client.closed());
    expect([took > 900, took < 4_000, client.received]).toEqual([true, true, ""]);
  });

  test.concurrent("headers byte by byte are closed after limits.headers, however steadily they come", async () => {
    const client = new Client(wire.open()).send("GET / HTTP/1.1\r\nHost: chat.example\r\nX: ");
    drips(client);
    const took = await span(client.closed());
    expect([took > 900, took < 4_000]).toEqual([true, true]);
  });

  test.concurrent("those of a further request are closed after limits.idle", async () => {
    const client = new Client(wire.open()).send(HEALTHZ);
    await client.answers(1);
    client.send("GET / HTTP/1.1\r\nHost: chat.example\r\nX: ");
    drips(client);
    const took = await span(client.closed());
    expect([took > 1_400, took < 5_000]).toEqual([true, true]);
  });

  test.concurrent("headers of HTTP/2 that don't end are closed likewise", async () => {
    for (const first of [false, true]) {
      const client = new H2(wire.open(), { isAlive: false });
      // No other frame may come in between.
      await client.until(() => client.settings.size > 0);
      if (first) expect(await client.request(1, GET).outcome(1)).toBe("200");
      client.send(frame(h2.HEADERS, h2.END_STREAM, 3, block(GET)));
      const took = await span(client.until(() => client.isClosed));
      expect([took > 900, took < 5_000]).toEqual([true, true]);
    }
  });

  test.concurrent("a body that stops is answered 408 after limits.idle of the rules", async () => {
    const head = "POST /v1/chat/completions HTTP/1.1\r\nHost: chat.example\r\nContent-Type: application/json\r\n";
    const client = new Client(wire.open()).send(`${head}Content-Length: 1000\r\n\r\n{`);
    const answers = await client.closed();
    expect(answers.map((answer) => answer.status)).toEqual([408]);
    const other = new H2(wire.open()).send(frame(h2.HEADERS, h2.END_HEADERS, 1, block(POST)));
    expect(await other.outcome(1)).toBe("408");
    other.socket.destroy();
  });

  test.concurrent("a body byte by byte costs the endpoint nothing, and others are served", async () => {
    const before = wire.seen.filter(({ body }) => body.includes("dripped")).length;
    const head = "POST /v1/chat/completions HTTP/1.1\r\nHost: chat.example\r\nContent-Type: application/json\r\n";
    const clients = Array.from({ length: 20 }, () => {
      const client = new Client(wire.open()).send(`${head}Content-Length: 1000000\r\n\r\n${chat("dripped")}`);
      drips(client, " ");
      return client;
    });
    for (let i = 0; i < 5; i += 1) expect(await wire.serves()).toBe(true);
    clients.forEach((client) => client.socket.destroy());
    expect(wire.seen.filter(({ body }) => body.includes("dripped")).length).toBe(before);
  });

  test.concurrent("an idle connection of HTTP/1.1 is closed after limits.idle", async () => {
    const client = new Client(wire.open()).send(HEALTHZ);
    await client.answers(1);
    const took = await span(client.closed());
    expect([took > 1_400, took < 5_000, client.isReset]).toEqual([true, true, false]);
  });

  test.concurrent("one of HTTP/2 gets GOAWAY, though it answers pings", async () => {
    const client = new H2(wire.open());
    await client.request(1, GET).outcome(1);
    const took = await span(client.until(() => client.goaway !== undefined));
    expect([took > 1_400, took < 5_000, client.goaway]).toEqual([true, true, h2.NO_ERROR]);
    await client.until(() => client.isClosed);
    expect(client.pings).toBeGreaterThan(0);
  });

  test.concurrent("a connection with requests isn't idle, however quickly they are answered", async () => {
    const client = new Client(wire.open());
    const other = new H2(wire.open());
    const end = performance.now() + 4_500;
    let count = 0;
    for (; performance.now() < end; count += 1) {
      const answers = await client.send(HEALTHZ).answers(count + 1);
      expect(answers.length).toBe(count + 1);
      expect(await other.request(2 * count + 1, GET).outcome(2 * count + 1)).toBe("200");
      // Some pause between two requests, so that no look at the limits finds one.
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    client.socket.destroy();
    other.socket.destroy();
    expect(count).toBeGreaterThan(10);
  });

  /** Clients that ask and read nothing more after the answer has begun. */
  const unread: [name: string, open: (model: string) => { isClosed: () => boolean; end: () => void }][] = [
    [
      "HTTP/1.1",
      (model) => {
        const socket = wire.open();
        let closed = false;
        socket.pause();
        // A paused socket notices its end only by writing.
        socket.on("close", () => (closed = true));
        socket.write(post(chat(model, { stream: model === "endless" })));
        const timer = setInterval(() => socket.write("\r\n"), 100);
        const end = () => (clearInterval(timer), socket.destroy());
        onStop(end);
        return { isClosed: () => closed, end };
      },
    ],
    [
      "HTTP/2, whose windows stay as they are",
      (model) => {
        const client = new H2(wire.open(), { isReading: false });
        client.request(1, POST, chat(model, { stream: model === "endless" }));
        return { isClosed: () => client.isClosed, end: () => client.socket.destroy() };
      },
    ],
    [
      "HTTP/2 with a window of 0",
      (model) => {
        const client = new H2(wire.open(), { settings: [[4, 0]] });
        client.request(1, POST, chat(model, { stream: model === "endless" }));
        return { isClosed: () => client.isClosed, end: () => client.socket.destroy() };
      },
    ],
  ];
  describe.each(unread)("a client of %s that doesn't read", (name, open) => {
    test.each(["short", "large", "endless"])("an answer that is %s is closed after limits.write", async (model) => {
      const before = [left, wire.memory()];
      // HTTP/1.1 leaves a short answer to the kernel.
      if (model === "short" && name === "HTTP/1.1") return;
      const count = model === "large" ? 2 : 10;
      const clients = Array.from({ length: count }, () => open(model));
      expect(await wire.serves()).toBe(true);
      await until(async () => clients.every((client) => client.isClosed()), Boolean);
      clients.forEach((client) => client.end());
      if (model === "endless") {
        await until(
          async () => left - before[0],
          (ended) => ended >= count,
        );
        expect(wire.memory() - before[1]).toBeLessThan(40_000);
      }
      expect(wire.lives()).toBe(true);
    });
  });

  test.concurrent("of clients past limits.connections the rest wait until silent ones are closed", async () => {
    const few = await Wire.start({ toml: `${LIMITS}connections = 4\n` });
    const silent = Array.from({ length: 4 }, () => new Client(few.open()));
    const took = await span(few.serves().then((served) => expect(served).toBe(true)));
    expect([took > 500, took < 5_000]).toEqual([true, true]);
    for (const client of silent) expect((await client.closed()).length).toBe(0);
  });
});
