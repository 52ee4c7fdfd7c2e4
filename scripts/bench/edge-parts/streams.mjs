// Measures streams at the pace of models: a number of streams at once, with an event every `pace` ms, through each
// gateway in turns. Called by run.mjs for --streams.
import { readFileSync } from "node:fs";
import { spread, written } from "./common.mjs";

/** How many events a stream of endpoint.mjs has: 50 words, the finish reason, and `[DONE]`. */
export const EVENTS = 52;

/** The resident memory of a process, in MiB. */
const memory = (pid) => Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) / 1024;

/**
 * Measures running `gateways`. `crowds` are the numbers of streams. Each is measured `rounds` times for `seconds`,
 * after `warm` seconds to warm up. `cpu` returns the CPU time of a process in µs, `ask` sends a job to paced.mjs,
 * `answers` yields the lines of its output.
 */
export async function measureStreams({ gateways, crowds, rounds, seconds, warm, pace, cpu, ask, answers }) {
  const rows = [];
  for (const gateway of gateways) {
    ask(gateway, { streams: 100, spread: 1, seconds: warm });
    for (let line = 0; line < 2; line++) await answers.next();
  }
  for (const streams of crowds) for (const gateway of gateways) rows.push({ streams, gateway, samples: [] });
  for (let round = 0; round < rounds; round++) {
    // The order is reversed in every second round, so that no gateway always runs after the same other gateway.
    for (const row of round % 2 ? rows.toReversed() : rows) {
      if (process.stderr.isTTY)
        process.stderr.write(`\r\x1b[Kround ${round + 1} of ${rounds}: ${row.gateway.title}, ${row.streams} streams`);
      ask(row.gateway, { streams: row.streams, spread: (EVENTS * pace) / 1000, seconds });
      await answers.next();
      const before = cpu(row.gateway.child.pid);
      const result = JSON.parse((await answers.next()).value);
      const used = cpu(row.gateway.child.pid) - before;
      row.samples.push({
        ...result,
        cpu: used / Math.max(result.events, 1),
        core: used / (seconds * 1e6),
        memory: memory(row.gateway.child.pid),
      });
    }
  }
  if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
  return rows;
}

/** The rows as a table, with the ratio to pass.js in the same rounds. */
export function table(rows) {
  const lines = [
    "| streams | through | CPU per event, µs | × pass.js | first event p99, ms | gap p99, ms | memory, MiB " +
      "| core used | errors |",
    "|---|---|---|---|---|---|---|---|---|",
  ];
  for (const { streams, gateway, samples } of rows) {
    const pass = rows.find((row) => row.streams === streams && row.gateway.name === "pass");
    const ratios =
      pass && gateway.name !== "direct" ? samples.map((sample, i) => sample.cpu / pass.samples[i].cpu) : undefined;
    const of = (field, digits = 0, unit = 1) => written(spread(samples.map((sample) => sample[field] / unit)), digits);
    lines.push(
      `| ${streams} | ${gateway.title} | ${of("cpu")} | ${ratios ? written(spread(ratios), 2) : ""} ` +
        `| ${of("first99", 1, 1000)} | ${of("gap99", 1, 1000)} | ${of("memory")} | ${of("core", 2)} ` +
        `| ${samples.reduce((sum, sample) => sum + sample.errors, 0)} |`,
    );
  }
  return lines.join("\n");
}
