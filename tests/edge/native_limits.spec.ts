// The native gateway's limits: which connections and requests wait, and which are refused or closed.
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { Agent } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import type { Socket } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { HEALTHZ, STREAM, ask, askStream, dial, heard } from "./asking.js";
import { Gateway, METRICS, TOP } from "./gateway.js";
import { onStop, stopAll, until } from "./harness.js";
import { END, Endpoint } from "./held.js";
import { isNative } from "./native.js";

afterAll(stopAll);

let endpoint: Endpoint;
beforeAll(async () => {
  endpoint = await Endpoint.start();
});

describe.skipIf(!isNative)("the native gateway's limits", () => {
  test("connections past limits.connections wait, and are served when others end", async () => {
    const gateway = await endpoint.gateway(`${TOP}${METRICS}[limits]\nconnections = 2\n`);
    const healthz = async (socket: Socket) => {
      socket.write(HEALTHZ);
      const [answer] = await once(socket, "data");
      expect(String(answer)).toMatch(/^HTTP\/1\.1 200 /);
    };
    const total = async () => (await gateway.samples())["bailiwick_edge_connections_total"];
    const [first, second] = [await dial(gateway.address), await dial(gateway.address)];
    await healthz(first);
    await healthz(second);
    const third = await dial(gateway.address);
    const answered = healthz(third);
    // The thread has turned often enough since then to accept it.
    for (let i = 0; i < 20; i += 1) await healthz(first);
    expect(await total()).toBe(2);
    first.destroy();
    await answered;
    expect(await total()).toBe(3);
    second.destroy();
    third.destroy();
    await until(
      () => gateway.samples(),
      (samples) => samples["bailiwick_edge_connections"] === 0,
    );
  });

  test("it may open as many files as the system allows, whatever it is started with", async () => {
    const by = ["sh", "-c", 'ulimit -S -n 64; exec "$@"', "sh"];
    const gateway = await Gateway.start({ by, config: TOP, files: { "rules.json": endpoint.local() } });
    const limits = readFileSync(`/proc/${gateway.child.pid}/limits`, "utf8");
    const [, soft, hard] = /^Max open files +(\d+) +(\d+)/m.exec(limits)!;
    expect(soft).toBe(hard);
  });

  test("requests past limits.streams of a connection wait", async () => {
    const gateway = await endpoint.gateway(`${TOP}[limits]\nstreams = 2\n`);
    const session = connectHttp2(`http://${gateway.address}`);
    onStop(() => session.destroy());
    await once(session, "remoteSettings");
    expect(session.remoteSettings.maxConcurrentStreams).toBe(2);
    const before = endpoint.streams.length;
    const request = () => askStream(session).resume();
    const all = [request(), request(), request()];
    const ends = Promise.all(all.map((asked) => once(asked, "end")));
    await until(
      async () => endpoint.streams.length,
      (count) => count === before + 2,
    );
    endpoint.streams[before].end(END);
    await until(
      async () => endpoint.streams.length,
      (count) => count === before + 3,
    );
    endpoint.streams.slice(before).forEach((answer) => answer.end(END));
    await ends;
  });

  test("headers past limits.header_bytes are refused with 431", async () => {
    const gateway = await endpoint.gateway(`${TOP}[limits]\nheader_bytes = 8192\n`);
    const ask_ = (length: number) => ask(gateway.address, { headers: { "x-long": "x".repeat(length) } });
    expect((await ask_(4_000)).status).toBe(200);
    expect((await ask_(9_000)).status).toBe(431);
    const larger = await endpoint.gateway(TOP);
    expect((await ask(larger.address, { headers: { "x-long": "x".repeat(9_000) } })).status).toBe(200);
  });

  test("a connection is closed that asks nothing for limits.headers, or nothing more for limits.idle", async () => {
    const gateway = await endpoint.gateway(`${TOP}${METRICS}[limits]\nheaders = "1s"\nidle = "1s"\n`);
    const silent = await dial(gateway.address);
    const idle = await dial(gateway.address);
    idle.write(HEALTHZ);
    const began = Date.now();
    expect(await heard(silent)).toBe("");
    expect(await heard(idle)).toMatch(/^HTTP\/1\.1 200 /);
    const took = Date.now() - began;
    expect(took).toBeGreaterThan(900);
    expect(took).toBeLessThan(5_000);
    const samples = await gateway.samples();
    for (const reason of ["silent", "idle"])
      expect(samples[`bailiwick_edge_connections_closed_total{reason="${reason}"}`], reason).toBe(1);
  });

  test("a stream whose client takes nothing is closed after limits.write", async () => {
    const gateway = await endpoint.gateway(`${TOP}${METRICS}[limits]\nwrite = "1s"\n`);
    const socket = await dial(gateway.address);
    socket.pause();
    const before = endpoint.streams.length;
    const head = `Host: chat.example\r\nContent-Type: application/json\r\nContent-Length: ${STREAM.length}\r\n`;
    socket.write(`POST /v1/chat/completions HTTP/1.1\r\n${head}\r\n${STREAM}`);
    await until(
      async () => endpoint.streams.length,
      (count) => count > before,
    );
    const answer = endpoint.streams.at(-1)!;
    const closed = once(answer, "close");
    const piece = `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: "x".repeat(60_000) } }] })}\n\n`;
    const fill = () => {
      while (!answer.destroyed && answer.write(piece));
    };
    answer.on("drain", fill);
    fill();
    await closed;
    const name = 'bailiwick_edge_connections_closed_total{reason="stalled"}';
    await until(
      () => gateway.samples(),
      (samples) => samples[name] === 1,
    );
    socket.destroy();
  });

  test("a connection is kept for many requests", async () => {
    const gateway = await endpoint.gateway(TOP + METRICS);
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    onStop(() => agent.destroy());
    for (let i = 0; i < 20; i += 1) expect((await ask(gateway.address, { agent })).status).toBe(200);
    expect((await gateway.samples())["bailiwick_edge_connections_total"]).toBe(1);
  });
});
