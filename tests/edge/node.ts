// Starts the real DNS server with files of its own, and asks its API.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Json, onStop, root, until } from "./harness.js";
import { program } from "./program.js";

/** The token that Workers send. It may read and post. */
export const WORKER_TOKEN = "3333333333333333333333333333333333333333333333333333333333333333";

const zone =
  "$ORIGIN ai.example.com.\n$TTL 300\n@ SOA ns1 hostmaster 1 3600 600 86400 60\n@ NS ns1\nns1 A 192.0.2.53\n";

/** A running DNS server with the zone ai.example.com. */
export class DnsNode {
  private constructor(
    private readonly folder: string,
    /** Host and port that answer DNS. */
    readonly dns: { host: string; port: string },
    /** The base URL of its API. */
    readonly url: string,
    /** Ends it before `stopAll` would. */
    readonly stop: () => Promise<void>,
    /** Sends its process a signal: one that hangs is made by SIGSTOP. */
    readonly signal: (name: "SIGSTOP" | "SIGCONT") => void,
  ) {}

  /** Starts it, with more lines of its configuration: the first belong to `[api]`. */
  static async start(document: Json, more = "", api = "127.0.0.1:0"): Promise<DnsNode> {
    const binary = program("bailiwick");
    const folder = mkdtempSync(join(tmpdir(), "bailiwick-node-"));
    onStop(() => rmSync(folder, { recursive: true, force: true }));
    const write = (name: string, text: string) => writeFileSync(join(folder, name), text, { mode: 0o600 });
    write("rules.json", JSON.stringify(document));
    write("ai.example.com.zone", zone);
    write("worker.token", WORKER_TOKEN);
    const database = `${root}node_modules/@ip-location-db/geo-whois-asn-country-mmdb/geo-whois-asn-country.mmdb`;
    write(
      "bailiwick.toml",
      `listen = ["127.0.0.1:0"]\nrules = "rules.json"\ngeoip = "${database}"\n` +
        `[zones]\n"ai.example.com" = "ai.example.com.zone"\n[api]\nlisten = "${api}"\n` +
        `worker_token_files = ["worker.token"]\n${more}`,
    );
    const ready = join(folder, "ready.json");
    const server = spawn(binary, ["serve", "--config", join(folder, "bailiwick.toml"), "--ready-file", ready], {
      stdio: ["ignore", "ignore", openSync(join(folder, "log"), "w")],
    });
    const stop = async () => {
      if (server.exitCode !== null || server.signalCode !== null) return;
      server.kill();
      // A process that is stopped takes no other signal.
      server.kill("SIGCONT");
      await once(server, "exit");
    };
    onStop(stop);
    const reported = await until(
      async () => {
        if (server.exitCode !== null) throw new Error(readFileSync(join(folder, "log"), "utf8"));
        return existsSync(ready) ? JSON.parse(readFileSync(ready, "utf8")) : null;
      },
      (value) => value !== null,
    );
    const [host, port] = reported.dns[0].split(":");
    return new DnsNode(folder, { host, port }, `http://${reported.api}`, stop, (name) => server.kill(name));
  }

  /** Replaces its rules by a document, or by any text, in one step. */
  publish(document: Json | string): void {
    const text = typeof document === "string" ? document : JSON.stringify(document);
    writeFileSync(join(this.folder, ".rules.json"), text);
    renameSync(join(this.folder, ".rules.json"), join(this.folder, "rules.json"));
  }

  /** The samples of its metrics whose names begin so, by name and labels. */
  async samples(prefix: string): Promise<Record<string, number>> {
    const text = await (await fetch(`${this.url}/metrics`)).text();
    const lines = text.split("\n").filter((line) => line.startsWith(prefix));
    return Object.fromEntries(lines.map((line) => [line.replace(/ [^ ]*$/, ""), Number(line.match(/[^ ]*$/)![0])]));
  }
}
