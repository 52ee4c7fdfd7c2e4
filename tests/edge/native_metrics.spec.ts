// The native gateway's page for its operator: /metrics of all threads, and /healthz.
import { spawnSync } from "node:child_process";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ask, dial } from "./asking.js";
import { Gateway, METRICS, TOP, certificate } from "./gateway.js";
import { stopAll, until } from "./harness.js";
import { Endpoint } from "./held.js";
import { country, mmdb } from "./mmdb.js";
import { isNative } from "./native.js";

afterAll(stopAll);

describe.skipIf(!isNative)("the native gateway's metrics", () => {
  let endpoint: Endpoint, gateway: Gateway;
  beforeAll(async () => {
    endpoint = await Endpoint.start();
    const { cert, key } = certificate("one");
    const files = { "edge.pem": cert, "edge.key": key, "places.mmdb": mmdb({ "192.0.2.0/24": country("DE") }) };
    gateway = await Gateway.start({
      config:
        `${TOP.replace("threads = 1", "threads = 3")}${METRICS}geoip = "places.mmdb"\n` +
        'tls = { cert = "edge.pem", key = "edge.key" }\n',
      files: { ...files, "rules.json": endpoint.local() },
    });
  });
  const get = (path: string, init?: RequestInit) => fetch(`http://${gateway.metricsAddress}${path}`, init);

  test("requests of every thread are counted, each with its label", async () => {
    const total = async () => {
      const samples = Object.entries(await gateway.samples()).filter(([name]) =>
        name.startsWith("bailiwick_edge_requests_total{"),
      );
      const threads = new Set(samples.map(([name]) => name.match(/thread="(\d)"/)?.[1]));
      return { threads, sum: samples.reduce((sum, [, value]) => sum + value, 0) };
    };
    let asked = 0;
    // The kernel chooses the thread of a connection.
    await until(
      async () => {
        await Promise.all(Array.from({ length: 12 }, () => ask(gateway.address, { isTls: true })));
        asked += 12;
        return (await total()).threads.size;
      },
      (threads) => threads === 3,
    );
    const { threads, sum } = await total();
    expect([[...threads].sort(), sum]).toEqual([["0", "1", "2"], asked]);
    const samples = await gateway.samples();
    expect(samples["bailiwick_edge_connections_total"]).toBe(asked);
    expect(samples["bailiwick_edge_threads_silent"]).toBe(0);
    expect(samples["bailiwick_edge_accept_errors_total"]).toBe(0);
    for (const thread of threads)
      expect(samples[`bailiwick_edge_memory_bytes{thread="${thread}"}`]).toBeGreaterThan(1e6);
  });

  test("they tell connections, why some were closed, and the age of files", async () => {
    const before = await gateway.samples();
    for (const reason of ["silent", "idle", "stalled", "proxy_header", "tls_handshake"])
      expect(before[`bailiwick_edge_connections_closed_total{reason="${reason}"}`], reason).toBe(0);
    const silent = await dial(gateway.address);
    await until(
      () => gateway.samples(),
      (samples) => samples["bailiwick_edge_connections"] === 1,
    );
    silent.write("this is no handshake\r\n\r\n");
    silent.on("error", () => {}).resume();
    await until(
      () => gateway.samples(),
      (samples) => samples['bailiwick_edge_connections_closed_total{reason="tls_handshake"}'] === 1,
    );
    await until(
      () => gateway.samples(),
      (samples) => samples["bailiwick_edge_connections"] === 0,
    );
    const now = Date.now() / 1000;
    const expiry = before["bailiwick_edge_certificate_expiry_timestamp_seconds"];
    expect(expiry).toBeGreaterThan(now + 29 * 86_400);
    expect(expiry).toBeLessThan(now + 31 * 86_400);
    expect(before["bailiwick_edge_geoip_built_timestamp_seconds"]).toBeGreaterThan(0);
  });

  test("promtool can read them", async () => {
    const answer = await get("/metrics");
    expect(answer.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
    const text = await answer.text();
    const checked = spawnSync("promtool", ["check", "metrics"], { input: text, encoding: "utf8" });
    if (!checked.error) expect([checked.status, checked.stderr]).toEqual([0, ""]);
    const heads = text.match(/^# TYPE \S+/gm)!;
    expect(new Set(heads).size).toBe(heads.length);
  });

  test("/healthz says ok, and there is nothing else", async () => {
    const healthz = await get("/healthz");
    expect([healthz.status, await healthz.text()]).toEqual([200, "ok\n"]);
    expect((await get("/metrics", { method: "HEAD" })).status).toBe(200);
    expect((await get("/metrics", { method: "POST" })).status).toBe(405);
    for (const path of ["/", "/v1/chat/completions", "/.well-known/bailiwick/healthz", "/metrics/"])
      expect((await get(path)).status, path).toBe(404);
  });

  test("clients' address doesn't serve them", async () => {
    for (const path of ["/metrics", "/healthz"]) {
      const { status, text } = await ask(gateway.address, { path, isTls: true });
      expect(status, path).toBe(404);
      expect(text).not.toContain("bailiwick_edge_");
    }
    const { status, text } = await ask(gateway.address, { path: "/.well-known/bailiwick/metrics", isTls: true });
    expect([status, text.includes("bailiwick_edge_")]).toEqual([expect.any(Number), false]);
    expect(status).toBeGreaterThanOrEqual(400);
  });

  test("many who ask at once are all told", async () => {
    const all = await Promise.all(Array.from({ length: 20 }, () => gateway.samples()));
    for (const samples of all) expect(samples["bailiwick_edge_threads_silent"]).toBe(0);
  });
});
