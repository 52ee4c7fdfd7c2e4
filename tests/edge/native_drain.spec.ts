// How the native gateway ends: what is answered to its end, what is refused, and its exit code.
import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { HEALTHZ, ask, askStream, dial, heard } from "./asking.js";
import { TOP } from "./gateway.js";
import { onStop, stopAll, until } from "./harness.js";
import { END, Endpoint } from "./held.js";
import { isNative } from "./native.js";

afterAll(stopAll);

let endpoint: Endpoint;
beforeAll(async () => {
  endpoint = await Endpoint.start();
});

describe.skipIf(!isNative)("the native gateway's end", () => {
  test.each([
    ["", "SIGTERM"],
    ['state_dir = "state"\n', "SIGTERM"],
    ['state_dir = "state"\n', "SIGINT"],
  ] as const)("%safter %s streams go on, new connections are refused, and it ends with 0", async (more, signal) => {
    const gateway = await endpoint.gateway(TOP + more);
    const { reading, answer } = await endpoint.stream(gateway);
    gateway.child.kill(signal);
    await gateway.line(({ event }) => event === "draining");
    await until(
      () =>
        dial(gateway.address).then(
          (socket) => (socket.destroy(), "open"),
          ({ code }) => code,
        ),
      (code) => code === "ECONNREFUSED",
      2_000,
    );
    expect(gateway.hasEnded).toBe(false);
    answer.end(END);
    expect((await reading).text.endsWith("data: [DONE]\n\n")).toBe(true);
    expect(await gateway.exit).toEqual([0, null]);
  });

  test("a connection that is open but has asked nothing yet is answered once", async () => {
    const gateway = await endpoint.gateway(TOP);
    const sockets = await Promise.all(Array.from({ length: 5 }, () => dial(gateway.address)));
    // They have been accepted when a later one is answered.
    await ask(gateway.address);
    gateway.child.kill("SIGTERM");
    await gateway.line(({ event }) => event === "draining");
    const all = sockets.map((socket) => {
      socket.write(HEALTHZ);
      return heard(socket);
    });
    for (const text of await Promise.all(all)) {
      expect(text).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
      expect(text).toMatch(/connection: close\r\n/i);
    }
    expect(await gateway.exit).toEqual([0, null]);
  });

  test("connections that ask nothing don't hold it up", async () => {
    const gateway = await endpoint.gateway(TOP);
    const [silent, idle] = [await dial(gateway.address), await dial(gateway.address)];
    idle.write(HEALTHZ);
    await once(idle, "data");
    const began = Date.now();
    gateway.child.kill("SIGTERM");
    expect(await gateway.exit).toEqual([0, null]);
    // limits.drain is 30 s.
    expect(Date.now() - began).toBeLessThan(10_000);
    expect([await heard(silent), await heard(idle)]).toEqual(["", ""]);
  });

  test("past limits.drain streams break off, so that a client notices, and it ends with 0", async () => {
    const gateway = await endpoint.gateway(`${TOP}[limits]\ndrain = "200ms"\n`);
    const { reading, answer } = await endpoint.stream(gateway);
    const gone = once(answer, "close");
    gateway.child.kill("SIGTERM");
    await expect(reading).rejects.toThrow(/aborted|reset|hang up/);
    await gone;
    expect(await gateway.exit).toEqual([0, null]);
  });

  test("a second SIGTERM ends it at once with 1", async () => {
    const gateway = await endpoint.gateway(TOP);
    const { reading } = await endpoint.stream(gateway);
    gateway.child.kill("SIGTERM");
    await gateway.line(({ event }) => event === "draining");
    gateway.child.kill("SIGTERM");
    expect(await gateway.exit).toEqual([1, null]);
    await expect(reading).rejects.toThrow();
  });

  test("a stream of HTTP/2 goes on after SIGTERM, and the client is told to take another connection", async () => {
    const gateway = await endpoint.gateway(TOP);
    const session = connectHttp2(`http://${gateway.address}`);
    onStop(() => session.destroy());
    const before = endpoint.streams.length;
    const asked = askStream(session);
    await until(
      async () => endpoint.streams.length,
      (count) => count > before,
    );
    const goaway = once(session, "goaway");
    gateway.child.kill("SIGTERM");
    expect((await goaway)[0]).toBe(0);
    let text = "";
    asked.setEncoding("utf8").on("data", (chunk) => (text += chunk));
    endpoint.streams.at(-1)!.end(END);
    await once(asked, "end");
    expect(text.endsWith("data: [DONE]\n\n")).toBe(true);
    expect(await gateway.exit).toEqual([0, null]);
  });
});
