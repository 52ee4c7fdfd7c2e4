// A clock that is set back, as on a machine whose clock was wrong. Nothing waits until it has caught up.
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { startWithClock } from "./clock.js";
import { type Edge, StandIn, read, region, rules, stopAll, until } from "./harness.js";

const HOUR = 3_600_000;
let fra: StandIn, par: StandIn, edge: Edge, forward: (ms: number) => Promise<void>;

const limits = { headers_unary: "500ms", headers_streamed: "500ms", idle: "500ms" };
const document = (revision: number) =>
  rules(revision, { ...region("DE", "eu-frankfurt", [fra.url]), ...region("FR", "eu-paris", [par.url]) }, { limits });

beforeAll(async () => {
  [fra, par] = await Promise.all(["eu-frankfurt", "eu-paris"].map((name) => StandIn.start(name)));
  ({ edge, forward } = await startWithClock(document(1)));
});
beforeEach(() => Promise.all([fra, par].map((standIn) => standIn.reset())));
afterAll(stopAll);

test("after the clock is set back by an hour, a rest of a minute doesn't last an hour", async () => {
  await fra.fail({ mode: "status", status: 429, headers: { "retry-after": "30" } });
  expect(await read(await edge.chat("DE", { model: "a" }))).toMatchObject({ status: 200, region: "eu-paris" });
  await fra.reset();
  expect(await read(await edge.chat("DE", { model: "a" })), "the endpoint rests").toMatchObject({ region: "eu-paris" });
  await forward(-HOUR);
  expect(await read(await edge.chat("DE", { model: "a" }))).toMatchObject({ status: 200, region: "eu-frankfurt" });
});

test("newer rules are taken after the clock is set back", async () => {
  await forward(-HOUR);
  await edge.put(document(2));
  await until(
    async () => (await edge.chat("DE", { model: "b" })).headers.get("x-bailiwick-revision"),
    (revision) => revision === "2",
  );
});

test("timeouts of silent endpoints and clients keep their length after the clock is set back", async () => {
  for (const standIn of [fra, par]) await standIn.fail({ mode: "hang-headers" });
  const reply = edge.chat("DE", { model: "c" });
  await until(
    () => fra.open(),
    (open) => open === 1,
  );
  await forward(-HOUR);
  const began = performance.now();
  expect(await read(await reply)).toMatchObject({ status: 504, code: "upstream_timeout" });
  expect(performance.now() - began).toBeLessThan(15_000);
});
