// Measures the picture. Takes the program and arguments, prints a table. Called by scripts/bench/picture.
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { fleet } from "./fleet.mjs";
import { startNode } from "./node.mjs";
import { scroll } from "./scroll.mjs";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    regions: { type: "string", default: "1000" },
    nodes: { type: "string", default: "200" },
    events: { type: "string", default: "10000" },
    viewers: { type: "string", default: "0" },
    seconds: { type: "string", default: "10" },
    files: { type: "boolean", default: false },
    pages: { type: "string", default: "now,timeline,nodes,capacity" },
  },
});
const [binary] = positionals;
if (binary === undefined) throw new Error("usage: run.mjs PROGRAM [--regions N] …; see scripts/bench/picture --help");
const [regions, nodes, events, viewers, seconds] = ["regions", "nodes", "events", "viewers", "seconds"].map((name) =>
  Number(values[name]),
);

const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const peers = await fleet(nodes - 1);
const node = await startNode(binary, regions, peers.urls);
peers.follow(node.url);
const changing = node.change(3_600_000 / events);
// Checks, probes and the health of all others are behind it, and changes come, before anybody looks.
await wait(40_000);
const before = node.memory();

/** Follows events without looking at them. */
const followers = Array.from({ length: viewers }, async () => {
  const response = await fetch(`${node.url}/v1/events`);
  for await (const _ of response.body ?? []) if (node.isOver) return;
});
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
try {
  const rows = [];
  for (const page of values.pages.split(",")) {
    rows.push({
      page,
      ...(await scroll(browser, node.url, page === "now" ? "" : page, { seconds, files: values.files })),
    });
  }
  console.table(rows);
  const after = node.memory();
  const mib = (bytes) => (bytes / 2 ** 20).toFixed(1);
  console.log(
    `node: ${mib(before)} MiB before anybody looked, ${mib(after)} MiB after ${await node.changes()} changes, ` +
      `${(await (await fetch(`${node.url}/v1/picture`)).arrayBuffer()).byteLength} bytes of /v1/picture`,
  );
} finally {
  clearInterval(changing);
  await browser.close();
  await node.stop();
  peers.stop();
}
await Promise.allSettled(followers);
process.exit(0);
