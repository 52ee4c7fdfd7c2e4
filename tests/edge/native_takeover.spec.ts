// A new process takes the native gateway's place without a failed request.
import { once } from "node:events";
import { Agent } from "node:http";
import { Agent as TlsAgent } from "node:https";
import { connect as connectHttp2, constants } from "node:http2";
import { type AddressInfo, createServer } from "node:net";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { ask, open, told } from "./asking.js";
import { Gateway, METRICS, TOP, certificate } from "./gateway.js";
import { onStop, stopAll, until } from "./harness.js";
import { END, Endpoint, event } from "./held.js";
import { isNative } from "./native.js";

const config = `${TOP}${METRICS}state_dir = "state"\n`;
let endpoint: Endpoint;
beforeAll(async () => {
  endpoint = await Endpoint.start();
});
afterAll(stopAll);

/** Processes that a gateway started by itself. */
const started: number[] = [];
const kill = (pid: number) => {
  try {
    process.kill(pid, "SIGKILL");
  } catch {}
};
afterEach(() => started.splice(0).forEach(kill));

/** The line by which a process that another one started says that it serves. The log is that of the other one. */
async function successor(gateway: Gateway): Promise<{ pid: number; line: Record<string, any> }> {
  const { pid } = await gateway.line(({ message }) => /SIGUSR2: a new process was started/.test(message));
  started.push(pid);
  const first = gateway.lines.findIndex((line) => line.event === "serving");
  return { pid, line: await gateway.line(({ event }) => event === "serving", first + 1) };
}

/** Asks without end, in four ways at once. Returns what `stop` counts. */
function load(address: string, isTls: boolean) {
  const failures: unknown[] = [];
  const counts = { fresh: 0, kept: 0, http2: 0 };
  let isOver = false;
  const repeat = async (kind: keyof typeof counts, once_: () => Promise<unknown>) => {
    while (!isOver) {
      try {
        expect(await once_()).toBe(200);
        counts[kind] += 1;
      } catch (error) {
        failures.push(`${kind}: ${error}`);
      }
    }
  };
  const fresh = async () => (await ask(address, { isTls })).status;
  const names = { servername: "chat.example", rejectUnauthorized: false };
  const agent = isTls ? new TlsAgent({ keepAlive: true, ...names }) : new Agent({ keepAlive: true });
  const kept = async () => (await ask(address, { agent })).status;
  const connectAgain = () => connectHttp2(`${isTls ? "https" : "http"}://${address}`, { rejectUnauthorized: false });
  let session = connectAgain();
  const overHttp2 = async (): Promise<unknown> => {
    // A client takes a new connection once it is told that this one ends.
    if (session.closed || session.destroyed) session = connectAgain();
    const asked = session.request({ ":path": "/.well-known/bailiwick/healthz", ":authority": "chat.example" });
    try {
      const [headers] = await once(asked, "response");
      await once(asked.resume(), "end");
      return headers[":status"];
    } catch (error) {
      // Its own library refuses what it hadn't sent when it was told so. That is safe to ask again (RFC 9113 §8.7).
      if (asked.rstCode === constants.NGHTTP2_REFUSED_STREAM && session.closed) return overHttp2();
      throw error;
    }
  };
  const all = [repeat("fresh", fresh), repeat("fresh", fresh), repeat("kept", kept), repeat("http2", overHttp2)];
  const stop = async () => {
    isOver = true;
    await Promise.all(all);
    session.destroy();
    agent.destroy();
    return { failures, counts };
  };
  const more = (number: number) => {
    const least = Object.values(counts).map((count) => count + number);
    return until(
      async () => Object.values(counts),
      (all) => all.every((count, i) => count >= least[i]),
    );
  };
  return { stop, more };
}

describe.skipIf(!isNative)("a takeover of the native gateway", () => {
  test.each([
    ["serve --takeover", false],
    ["SIGUSR2", false],
    ["serve --takeover", true],
  ])("by %s (TLS: %s) fails no request, and streams go on", async (how, isTls) => {
    const { cert, key } = certificate("one");
    const tls = isTls ? 'tls = { cert = "edge.pem", key = "edge.key" }\n' : "";
    const files = { "rules.json": endpoint.local(), "edge.pem": cert, "edge.key": key };
    // With TLS there are several threads, too.
    const threads = isTls ? config.replace("threads = 1", "threads = 2") : config;
    const old = await Gateway.start({ config: threads + tls, files });
    const streams = [await endpoint.stream(old, isTls), await endpoint.stream(old, isTls)];
    const work = load(old.address, isTls);
    await work.more(20);
    let address: string;
    if (how === "SIGUSR2") {
      old.child.kill("SIGUSR2");
      address = (await successor(old)).line.address;
    } else {
      address = (await Gateway.start({ at: old.folder, options: ["--takeover"] })).address;
    }
    expect(address).toBe(old.address);
    await old.line(({ event }) => event === "draining");
    await work.more(30);
    const { failures, counts } = await work.stop();
    expect(failures).toEqual([]);
    console.log(`requests during the takeover: ${JSON.stringify(counts)}`);

    expect(old.hasEnded).toBe(false);
    for (const { answer } of streams) {
      answer.write(event("after"));
      answer.end(END);
    }
    for (const { reading } of streams) expect((await reading).text).toMatch(/begin.*after.*\[DONE\]\n\n$/s);
    expect(await old.exit).toEqual([0, null]);
    expect((await ask(address, { isTls })).region).toBe("eu-frankfurt");
  });

  test("the new process serves its own file's settings and metrics, and can be replaced again", async () => {
    const old = await Gateway.start({ config, files: { "rules.json": endpoint.local() } });
    for (let i = 0; i < 5; i += 1) await ask(old.address);
    const held = await endpoint.stream(old);
    const agent = new Agent({ keepAlive: true });
    onStop(() => agent.destroy());
    const scrape = async () => {
      const { text } = await told(await open(old.metricsAddress, { path: "/metrics", agent }));
      const sample = (name: string) => Number(text.match(new RegExp(`^${name} (.*)$`, "m"))?.[1]);
      return [
        sample("bailiwick_edge_connections_total"),
        (text.match(/^bailiwick_edge_memory_bytes\{/gm) ?? []).length,
      ];
    };
    expect(await scrape()).toEqual([6, 1]);
    old.write("edge.toml", config.replace("threads = 1", "threads = 2"));
    const second = await Gateway.start({ at: old.folder, options: ["--takeover"] });
    expect([second.address, second.metricsAddress]).toEqual([old.address, old.metricsAddress]);
    await old.line(({ event }) => event === "draining");
    // Whoever asks both in turn would see counters jump, also over a connection that is kept.
    for (let i = 0; i < 10; i += 1) expect(await until(scrape, ([, threads]) => threads === 2)).toEqual([0, 2]);
    expect(old.hasEnded).toBe(false);
    const third = await Gateway.start({ at: old.folder, options: ["--takeover"] });
    expect(await second.exit).toEqual([0, null]);
    held.answer.end(END);
    await held.reading;
    expect(await old.exit).toEqual([0, null]);
    expect((await ask(third.address)).region).toBe("eu-frankfurt");
  });

  test("a new process that can't start leaves the old one serving", async () => {
    const old = await Gateway.start({ config, files: { "rules.json": endpoint.local() } });
    const taken = createServer().listen(0, "127.0.0.1");
    await once(taken, "listening");
    onStop(() => taken.close());
    const busy = `127.0.0.1:${(taken.address() as AddressInfo).port}`;
    const bad: [string, RegExp][] = [
      [config.replace("listen", "lisetn"), /unknown field `lisetn`/],
      [`${config}tls = { cert = "no.pem", key = "no.key" }\n`, /no\.pem/],
      // It fails after it has the old one's sockets.
      [config.replace('"127.0.0.1:0"', `["127.0.0.1:0", "${busy}"]`), new RegExp(busy)],
    ];
    for (const [text, why] of bad) {
      old.write("edge.toml", text);
      const next = Gateway.launch({ at: old.folder, options: ["--takeover"] });
      expect(await next.exit).toEqual([1, null]);
      await until(
        async () => next.lines.map(({ text }) => text).join("\n"),
        (log) => why.test(log),
      );
      expect((await ask(old.address)).region).toBe("eu-frankfurt");
    }
    const from = old.lines.length;
    old.child.kill("SIGUSR2");
    await old.line(
      ({ message }) => /the new process ended with exit status: 1; this one goes on serving/.test(message),
      from,
    );
    expect((await ask(old.address)).region).toBe("eu-frankfurt");
    expect(old.lines.some(({ event }) => event === "draining")).toBe(false);

    old.write("edge.toml", config);
    const good = await Gateway.start({ at: old.folder, options: ["--takeover"] });
    expect(await old.exit).toEqual([0, null]);
    expect((await ask(good.address)).region).toBe("eu-frankfurt");
  });

  test("where nobody serves, --takeover simply serves; and after an end nothing is in the way", async () => {
    const first = await Gateway.start({ config, files: { "rules.json": endpoint.local() }, options: ["--takeover"] });
    expect((await ask(first.address)).region).toBe("eu-frankfurt");
    first.child.kill("SIGTERM");
    expect(await first.exit).toEqual([0, null]);
    const second = await Gateway.start({ at: first.folder });
    // One that is killed leaves its socket behind.
    second.child.kill("SIGKILL");
    await second.exit;
    const third = await Gateway.start({ at: first.folder, options: ["--takeover"] });
    expect((await ask(third.address)).region).toBe("eu-frankfurt");
  });
});
