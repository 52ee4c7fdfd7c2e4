// A half-open breaker. When its rest is over, one request tries the endpoint, and its result decides for all others.
import type { ServerResponse } from "node:http";
import { afterAll, beforeEach, expect, test } from "vitest";
import { startWithClock } from "./clock.js";
import { completion } from "./faulty.js";
import { type Edge, StandIn, read, region, rules, serve, stopAll, until } from "./harness.js";

const FAULTS = 5;
const REST = 10_000;
/** More time than passes between two readings of the clock in a test. */
const A_WHILE = 5_000;

let edge: Edge, forward: (ms: number) => Promise<void>;
let asked: number, answer: (response: ServerResponse) => void, models: number;

const fail = (response: ServerResponse) => response.writeHead(500).end("{}");
const serveWell = (response: ServerResponse) =>
  response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(completion()));

/** A request for a new model. So the whole endpoint rests, and not only one model at it. */
const ask = async () =>
  (await read(await edge.chat("DE", { model: `m${models++}` }))).attempts!.replace(/;ms=\d+/g, "");
const passed = "par-1;outcome=committed";
const failed = `fra-1;outcome=http_500, ${passed}`;

beforeEach(async () => {
  [asked, models, answer] = [0, 0, fail];
  const fra = await serve((request, response) => void request.resume().on("end", () => (asked++, answer(response))));
  const par = await StandIn.start("eu-paris");
  ({ edge, forward } = await startWithClock(
    rules(1, { ...region("DE", "fra", [fra]), ...region("FR", "par", [par.url]) }),
  ));
  for (let i = 0; i < FAULTS; i++) expect(await ask()).toBe(failed);
  expect([await ask(), asked]).toEqual([passed, FAULTS]);
});
afterAll(stopAll);

/** Makes the endpoint hold its answers back. The returned function sends them. */
function hold(): (give: (response: ServerResponse) => void) => void {
  const held: ServerResponse[] = [];
  answer = (response) => held.push(response);
  return (give) => {
    answer = give;
    held.splice(0).forEach(give);
  };
}

test("after the rest one request tries the endpoint, and its answer closes the breaker", async () => {
  await forward(REST - A_WHILE);
  expect([await ask(), asked]).toEqual([passed, FAULTS]);
  await forward(A_WHILE);
  const release = hold();
  const probe = ask();
  await until(
    async () => asked,
    (asked) => asked === FAULTS + 1,
  );
  expect(await Promise.all(Array.from({ length: 8 }, ask)), "while the probe has no result").toEqual(
    Array(8).fill(passed),
  );
  expect(asked).toBe(FAULTS + 1);
  release(serveWell);
  expect(await probe).toBe("fra-1;outcome=committed");
  expect(new Set(await Promise.all(Array.from({ length: 8 }, ask)))).toEqual(new Set(["fra-1;outcome=committed"]));
});

test("of many requests that arrive at once when the rest is over, one tries the endpoint", async () => {
  await forward(REST);
  const release = hold();
  const all = Array.from({ length: 8 }, ask);
  await until(
    async () => asked,
    (asked) => asked === FAULTS + 1,
  );
  // While the probe is held back, the other requests are answered elsewhere.
  let done = 0;
  for (const one of all) void one.then(() => done++);
  await until(
    async () => done,
    (done) => done === 7,
  );
  expect(asked).toBe(FAULTS + 1);
  release(serveWell);
  expect((await Promise.all(all)).sort()).toEqual(["fra-1;outcome=committed", ...Array(7).fill(passed)]);
});

test("a probe that fails is served elsewhere, and the next rest is twice as long", async () => {
  await forward(REST);
  expect([await ask(), asked]).toEqual([failed, FAULTS + 1]);
  await forward(2 * REST - A_WHILE);
  expect([await ask(), asked]).toEqual([passed, FAULTS + 1]);
  await forward(A_WHILE);
  expect([await ask(), asked]).toEqual([failed, FAULTS + 2]);
});

test("after a probe without a result, another probe is sent", async () => {
  await forward(REST);
  const release = hold();
  const lost = ask();
  await until(
    async () => asked,
    (asked) => asked === FAULTS + 1,
  );
  expect(await ask()).toBe(passed);
  await forward(REST);
  answer = serveWell;
  expect([await ask(), asked]).toEqual(["fra-1;outcome=committed", FAULTS + 2]);
  release(serveWell);
  expect(await lost, "the late answer is complete").toBe("fra-1;outcome=committed");
});
