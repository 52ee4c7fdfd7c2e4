// Measures how long a large new document of rules delays requests and streams. Called by run.mjs for --reloads.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { request } from "node:http";
import { spread, written } from "./common.mjs";

/** How many more tenants, networks, regions and services the large document has. */
const TENANTS = 20_000,
  NETWORKS = 20_000,
  REGIONS = 200,
  SERVICES = 100;

/** The text of `rules` with many more tenants, networks, regions and services. */
export function enlarged(rules, revision) {
  const large = structuredClone({ ...rules, revision });
  for (let i = 0; i < REGIONS; i++)
    large.regions[`eu-region-${i}`] = {
      countries: ["DE"],
      location: { latitude: 47 + i / 40, longitude: 10 },
      endpoints: { [`gpu-${i}`]: { url: `https://gpu${i}.example.net/v1`, secret: "FRA_KEY" } },
    };
  const names = Object.keys(large.regions).filter((name) => name.startsWith("eu-region"));
  for (let i = 0; i < SERVICES; i++)
    large.services[`service-${i}`] = {
      hosts: [`service-${i}.bench.example`],
      pattern: "active-active",
      regions: names.slice(i, i + REGIONS / 2),
      residency: [
        { clients: ["eu"], process_in: ["eu"] },
        { clients: ["*"], process_in: ["*"] },
      ],
    };
  for (let i = 0; i < TENANTS; i++)
    large.tenants[`tenant-${i}`] = {
      key_sha256: [createHash("sha256").update(`key-${i}`).digest("hex")],
      residency: "eu",
      services: [`service-${i % SERVICES}`],
    };
  large.networks = Array.from({ length: NETWORKS }, (_, i) => ({
    prefix: `10.${i >> 8}.${i & 255}.0/24`,
    country: "DE",
  }));
  return JSON.stringify(large);
}

/** The results of a window of time: the slowest request and the longest gap between two events of a stream, in ms. */
const emptyWindow = () => ({ request: 0, gap: 0, requests: 0, errors: 0 });

/**
 * Offers `rounds` new documents to a running gateway. For each document, measures two windows of `seconds`: one without
 * and one with the new document. Meanwhile the gateway answers requests, one after the other, and a stream. `offer`
 * makes the node serve its next document, and returns the document's revision. `job` has the port, path and headers,
 * `bodies` has the bodies.
 */
export async function measureReloads({ gateway, job, bodies, rounds, seconds, offer }) {
  let seen = emptyWindow();
  let over = false;
  let revision = "";
  const send = (body, onData) =>
    new Promise((done) => {
      const sent = request({ ...job, method: "POST", host: "127.0.0.1" }, (reply) => {
        revision = String(reply.headers["x-bailiwick-revision"]);
        reply
          .on("data", onData)
          .on("error", () => done(false))
          .on("end", () => done(reply.statusCode === 200));
      });
      sent.on("error", () => done(false)).end(body);
    });
  const requests = async () => {
    while (!over) {
      const began = performance.now();
      const isGood = await send(bodies.unary, () => {});
      seen.request = Math.max(seen.request, performance.now() - began);
      seen.requests++;
      seen.errors += Number(!isGood);
      await new Promise((done) => setTimeout(done, 5));
    }
  };
  const streams = async () => {
    while (!over) {
      /** @type {number | undefined} */
      let last;
      await send(bodies.streamed, () => {
        const now = performance.now();
        if (last !== undefined) seen.gap = Math.max(seen.gap, now - last);
        last = now;
      });
    }
  };
  const loads = [requests(), streams()];
  const window = async () => {
    seen = emptyWindow();
    await new Promise((done) => setTimeout(done, seconds * 1000));
    return seen;
  };
  await window();
  const samples = [];
  for (let round = 0; round < rounds; round++) {
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[Kreload ${round + 1} of ${rounds}: ${gateway.title}`);
    const quiet = await window();
    const next = String(offer());
    const reload = await window();
    if (!revision.startsWith(next))
      throw new Error(`${gateway.title} has not taken revision ${next}; give more --secs`);
    samples.push({ quiet, reload, memory: memory(gateway.child.pid) });
  }
  if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
  over = true;
  await Promise.all(loads);
  return samples;
}

/** The resident memory of a process, in MiB. */
const memory = (pid) => Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) / 1024;

/** The samples of each gateway as a table. */
export function reloadTable(rows) {
  const lines = [
    "| through | slowest request, ms: without, with a new document | longest gap, ms: without, with | memory, MiB: " +
      "first, last | errors |",
    "|---|---|---|---|---|",
  ];
  for (const { gateway, samples } of rows) {
    const of = (window, field) => written(spread(samples.map((sample) => sample[window][field])), 1);
    const errors = samples.reduce((sum, { quiet, reload }) => sum + quiet.errors + reload.errors, 0);
    const [first, last] = [samples[0], samples[samples.length - 1]].map(({ memory }) => memory.toFixed(0));
    lines.push(
      `| ${gateway.title} | ${of("quiet", "request")}, ${of("reload", "request")} ` +
        `| ${of("quiet", "gap")}, ${of("reload", "gap")} | ${first}, ${last} | ${errors} |`,
    );
  }
  return lines.join("\n");
}
