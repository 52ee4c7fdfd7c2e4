// The built module: it is small enough, and the oldest supported runtime starts it.
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { afterAll, expect, test } from "vitest";
import { Edge, build, read, stopAll } from "./harness.js";

afterAll(stopAll);

test("the Wasm is under 1 MB gzipped", () => {
  expect(gzipSync(readFileSync(`${build}/index_bg.wasm`), { level: 9 }).length).toBeLessThan(1_000_000);
});

test("workerd starts it with the date and flags of wrangler.toml", async () => {
  const edge = await Edge.start(null);
  expect(await read(await edge.ask({ path: "/.well-known/bailiwick/healthz" }))).toMatchObject({
    json: { status: "no rules" },
  });
});

test("functions that only tests may call are not in the released Wasm", async () => {
  const edge = await Edge.start(null);
  const path = "/.well-known/bailiwick/test/vectors";
  expect(await read(await edge.ask({ path, method: "POST", body: "{}" }))).toMatchObject({
    status: 404,
    code: "unknown_path",
  });
});
