// The Worker on workerd and the native gateway, with the same random requests and behaviours of endpoints: they decide
// alike, and send, answer and record the same. `scripts/differential --edge` runs more cases.
import { afterEach, describe, expect, test } from "vitest";
import { excepted, told } from "./differential/compare.js";
import { type Outcome, run } from "./differential/run.js";
import { Side } from "./differential/side.js";
import { stopAll } from "./harness.js";
import { isNative } from "./native.js";

afterEach(stopAll);

const number = (name: string, otherwise: number) => Number(process.env[name] ?? otherwise);
const SEED = number("BAILIWICK_SEED", 1);
const FIRST = number("BAILIWICK_CASE", 0);
const CASES = number("BAILIWICK_CASES", process.env.BAILIWICK_CASE ? 1 : 750);
/** How many differing cases are told, and how many differences of each. */
const MOST_TOLD = 20;
const MOST_PARTS = 5;

const note = (text: string) => process.stdout.write(`${text}\n`);
const numbers = (first: number, count: number) => Array.from({ length: count }, (_, i) => first + i);

function report({ cases, requests, calls, records, answers, differing, unsteady }: Outcome, began: number): void {
  for (const { number, differences } of [...differing, ...unsteady].slice(0, MOST_TOLD))
    note(`case ${number} of seed ${SEED}\n${differences.slice(0, MOST_PARTS).map(told).join("\n")}`);
  const often = [...answers].sort(([, a], [, b]) => b - a);
  note(`answers: ${often.map(([what, times]) => `${times} × ${what}`).join(", ")}`);
  for (const [why, times] of excepted) note(`excepted ${times} times: ${why}`);
  const took = ((Date.now() - began) / 1000).toFixed(0);
  note(
    `differential cases: ${cases}, seed ${SEED}: ${requests} requests, ${calls} sent on, ${records} records; ` +
      `${differing.length} differ, ${unsteady.length} only once; ${took} s`,
  );
}

describe.skipIf(!isNative)("on workerd and on the native gateway", () => {
  test("random cases are the same", { timeout: 3_600_000 }, async () => {
    const [workerd, native] = await Promise.all([Side.workerd(), Side.native()]);
    const began = Date.now();
    const outcome = await run(SEED, numbers(FIRST, CASES), workerd, native, note);
    report(outcome, began);
    expect(outcome.differing.map(({ number }) => number).join()).toBe("");
    expect(outcome.unsteady.length).toBeLessThanOrEqual(CASES / 100);
    // Whatever is refused at once compares little.
    if (CASES >= 500) expect(outcome.calls).toBeGreaterThan(CASES / 3);
  });

  test("cases differ where one side has other secrets", { timeout: 120_000 }, async () => {
    const other = { STATE_KEY: "k".repeat(40), LOGS_KEY: "l".repeat(40), FRA_KEY: "another-key" };
    const [workerd, native] = await Promise.all([Side.workerd(), Side.native(other)]);
    const { differing } = await run(1, numbers(0, 100), workerd, native, () => {});
    const parts = new Set(differing.flatMap(({ differences }) => differences.map(({ what }) => what)));
    for (const part of ["answer 0 body", "call 0 headers", "event 0"]) expect([...parts]).toContain(part);
  });
});
