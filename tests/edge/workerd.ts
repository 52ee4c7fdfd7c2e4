// Runs the built Worker on workerd without Miniflare, for tests that need real sockets or the log.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { build, onStop, setting } from "./harness.js";

/**
 * Starts the built Worker, or another build of it, with these variables and secrets, on a port of its own (`url`) and a
 * Unix socket (`path`). `log` and `lines` are what workerd has written so far; `isQuiet` keeps it out of the test's own
 * output. `place` is the header that says where a client is.
 */
export async function workerd(
  bindings: Record<string, string>,
  { from = build, place, isQuiet = false }: { from?: string; place?: string; isQuiet?: boolean } = {},
): Promise<{ url: string; path: string; log(): string; lines: readonly string[] }> {
  const dir = mkdtempSync(join(tmpdir(), "bailiwick-workerd-"));
  onStop(() => rmSync(dir, { recursive: true, force: true }));
  const path = join(dir, "edge.sock");
  const quote = (text: string) => JSON.stringify(text);
  const list = (items: string[]) => `[${items.join(", ")}]`;
  const http = place === undefined ? "()" : `(cfBlobHeader = ${quote(place)})`;
  writeFileSync(
    join(dir, "config.capnp"),
    `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "edge", worker = .edge),
    (name = "internet", network = (allow = ["public", "private"])),
  ],
  sockets = [
    (name = "local", address = ${quote(`unix:${path}`)}, http = ${http}, service = "edge"),
    (name = "http", address = "127.0.0.1:0", http = ${http}, service = "edge"),
  ],
);
const edge :Workerd.Worker = (
  modules = [
    (name = "index.js", esModule = embed "index.js"),
    (name = "index_bg.wasm", wasm = embed "index_bg.wasm"),
  ],
  compatibilityDate = ${quote(setting("compatibility_date")[0])},
  compatibilityFlags = ${list(setting("compatibility_flags").map(quote))},
  bindings = ${list(Object.entries(bindings).map(([name, text]) => `(name = ${quote(name)}, text = ${quote(text)})`))},
);
`,
  );
  for (const file of ["index.js", "index_bg.wasm"]) copyFileSync(join(from, file), join(dir, file));
  const binary = createRequire(import.meta.url).resolve("workerd/bin/workerd");
  const child = spawn(binary, ["serve", "config.capnp", "--control-fd=3"], {
    cwd: dir,
    stdio: ["ignore", "pipe", "pipe", "pipe"],
  });
  onStop(() => child.kill());
  const lines: string[] = [];
  for (const stream of [child.stdout!, child.stderr!]) {
    createInterface({ input: stream }).on("line", (line) => {
      lines.push(line);
      if (!isQuiet) console.error(line);
    });
  }
  // It writes the port of each socket as a line of JSON to the control descriptor.
  for await (const line of createInterface({ input: child.stdio[3] as NodeJS.ReadableStream })) {
    const reported = JSON.parse(line);
    if (reported.event === "listen" && reported.socket === "http")
      return { url: `http://127.0.0.1:${reported.port}`, path, log: () => lines.join("\n"), lines };
  }
  throw new Error(`workerd ended: ${await once(child, "exit")}`);
}
