// Starts the real DNS node with a document of rules, for specs in which Workers talk to it.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Json, onStop, root, until } from "./harness.js";

/** The token that Workers send. It may read and post. */
export const WORKER_TOKEN = "3333333333333333333333333333333333333333333333333333333333333333";

/** A running node: the base URL of its API, and a way to end it. */
export interface DnsNode {
  url: string;
  stop(): Promise<void>;
}

export async function startNode(document: Json): Promise<DnsNode> {
  const folder = mkdtempSync(join(tmpdir(), "bailiwick-node-"));
  onStop(() => rmSync(folder, { recursive: true, force: true }));
  const write = (name: string, text: string) => writeFileSync(join(folder, name), text, { mode: 0o600 });
  write("rules.json", JSON.stringify(document));
  write("token", WORKER_TOKEN);
  write(
    "bailiwick.toml",
    'listen = ["127.0.0.1:0"]\nrules = "rules.json"\n[api]\nlisten = "127.0.0.1:0"\nworker_token_files = ["token"]\n',
  );
  const binary = `${process.env.CARGO_TARGET_DIR ?? `${root}target`}/debug/bailiwick`;
  if (!existsSync(binary)) throw new Error(`${binary} is missing; run cargo build --package bailiwick-dns`);
  const ready = join(folder, "ready.json");
  const child = spawn(binary, ["serve", "--config", join(folder, "bailiwick.toml"), "--ready-file", ready], {
    stdio: ["ignore", "ignore", openSync(join(folder, "log"), "w")],
  });
  const stop = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill();
    await once(child, "exit");
  };
  onStop(stop);
  const told = await until(
    async () => {
      if (child.exitCode !== null) throw new Error(readFileSync(join(folder, "log"), "utf8"));
      return existsSync(ready) ? JSON.parse(readFileSync(ready, "utf8")) : null;
    },
    (value) => value !== null,
  );
  return { url: `http://${told.api}`, stop };
}
