// Tests that need the test build of the Worker. The shared vectors run in its Wasm, from the same files as the native
// tests, so that DNS server and Worker decide alike. And a panic, which the test build can cause on purpose.
import { readFileSync, readdirSync } from "node:fs";
import type { Readable } from "node:stream";
import { Miniflare } from "miniflare";
import { afterAll, beforeAll, expect, test } from "vitest";
import { onStop, options, root, stopAll, until } from "./harness.js";

const vectors = `${root}tests/vectors`;
let worker: Miniflare;
let logged = "";

beforeAll(async () => {
  worker = new Miniflare(
    options(
      {},
      {
        handleRuntimeStdio(stdout: Readable, stderr: Readable) {
          for (const stream of [stdout, stderr]) stream.on("data", (chunk: Buffer) => (logged += chunk));
        },
      },
      `${root}edge-worker/build-vectors`,
    ),
  );
  onStop(() => worker.dispose());
  await worker.ready;
});
afterAll(stopAll);

async function run(text: string): Promise<{ status: number; cases?: number; message?: string }> {
  const reply = await worker.dispatchFetch("http://edge.example/.well-known/bailiwick/test/vectors", {
    method: "POST",
    body: text,
  });
  return { status: reply.status, ...((await reply.json()) as object) };
}

const files = readdirSync(vectors).filter((name) => name.endsWith(".json"));

test.each(files)("%s", async (name) => {
  const text = readFileSync(`${vectors}/${name}`, "utf8");
  expect(await run(text)).toEqual({ status: 200, cases: JSON.parse(text).cases.length });
});

test("a wrong expectation fails", async () => {
  const vector = JSON.parse(readFileSync(`${vectors}/${files[0]}`, "utf8"));
  vector.cases[0].expect.fence = ["nowhere"];
  expect(await run(JSON.stringify(vector))).toMatchObject({ status: 422, message: expect.stringContaining("nowhere") });
});

test("a panic ends one request, logs none of its text, and the next request is served", async () => {
  const before = await worker.dispatchFetch("http://edge.example/.well-known/bailiwick/healthz");
  expect(before.headers.get("x-bailiwick-request-id")).not.toBeNull();
  const reply = await worker.dispatchFetch("http://edge.example/.well-known/bailiwick/test/panic?canary");
  expect(reply.status).toBe(500);
  expect(reply.headers.get("x-bailiwick-request-id")).toMatch(/^[0-9a-f-]{36}$/);
  expect(await reply.json()).toMatchObject({ error: { type: "server_error", code: "internal_error" } });
  const after = await worker.dispatchFetch("http://edge.example/.well-known/bailiwick/healthz");
  expect(after.headers.get("x-bailiwick-request-id")).not.toBeNull();
  await until(
    async () => logged,
    (text) => text.includes('"event":"panic"'),
  );
  expect(logged).not.toContain("canary");
});
