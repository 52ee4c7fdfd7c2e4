// Starts the native gateway with an edge.toml of its own. `asking.ts` sends requests to it, `held.ts` is an endpoint.
import { type ChildProcess, type SpawnOptions, execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type Json, onStop, root, until } from "./harness.js";
import { program } from "./program.js";

/** The real GeoIP database among the packages. */
export const realDatabase = `${root}node_modules/@ip-location-db/geo-whois-asn-country-mmdb/geo-whois-asn-country.mmdb`;

/** The first lines of most configurations. */
export const TOP = 'listen = "127.0.0.1:0"\nrules = "rules.json"\nthreads = 1\n';
export const METRICS = 'metrics = { listen = "127.0.0.1:0" }\n';

export type Files = Record<string, string | Buffer>;

/** A folder that `stopAll` removes, with these files. */
export function folder(files: Files = {}): string {
  const path = mkdtempSync(join(tmpdir(), "bailiwick-gateway-"));
  onStop(() => rmSync(path, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), text);
  return path;
}

/** Replaces a file in one step. */
export function replace(path: string, text: string | Buffer): void {
  writeFileSync(`${path}.new`, text);
  renameSync(`${path}.new`, path);
}

/** Runs the program to its end. */
export function run(options: string[], cwd?: string): { code: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync(program("bailiwick-edge"), options, {
    cwd,
    encoding: "utf8",
    timeout: 20_000,
  });
  return { code: status, out: stdout, err: stderr };
}

/** A certificate for chat.example, signed by its own key, and the key. */
export function certificate(name: string): { cert: string; key: string } {
  const at = folder();
  const [cert, key] = [join(at, "cert.pem"), join(at, "key.pem")];
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const subject = ["-subj", `/CN=${name}`, "-addext", "subjectAltName=DNS:chat.example", "-days", "30"];
  execFileSync("openssl", ["req", "-x509", ...curve, ...subject, "-keyout", key, "-out", cert], { stdio: "ignore" });
  return { cert: readFileSync(cert, "utf8"), key: readFileSync(key, "utf8") };
}

export interface Setup {
  /** edge.toml. */
  config?: string;
  /** More files beside it. */
  files?: Files;
  /** More options of `serve`. */
  options?: string[];
  env?: Record<string, string>;
  /** A folder that another gateway uses, with its files. */
  at?: string;
  /** What starts the program, such as a shell that is passed the command as arguments. */
  by?: string[];
  stdio?: SpawnOptions["stdio"];
}

/** A process of the gateway. */
export class Gateway {
  /** Its lines of log. */
  readonly lines: Json[] = [];
  readonly exit: Promise<[number | null, string | null]>;

  private constructor(
    readonly folder: string,
    readonly child: ChildProcess,
  ) {
    this.exit = once(child, "exit") as Promise<[number | null, string | null]>;
    createInterface({ input: child.stderr! }).on("line", (line) => {
      console.log(`${child.pid}: ${line}`);
      this.lines.push(line.startsWith("{") ? JSON.parse(line) : { text: line });
    });
    onStop(() => this.stop());
  }

  /** Starts one without waiting for it. */
  static launch({ config = TOP, files = {}, options = [], env = {}, at, by = [], stdio }: Setup = {}): Gateway {
    const path = at ?? folder({ "edge.toml": config, ...files });
    const [first, ...rest] = [
      ...by,
      program("bailiwick-edge"),
      "serve",
      "--config",
      join(path, "edge.toml"),
      ...options,
    ];
    const child = spawn(first, rest, {
      stdio: stdio ?? ["ignore", "ignore", "pipe"],
      env: { PATH: process.env.PATH, RULES_REFRESH_SECONDS: "0", ...env },
    });
    return new Gateway(path, child);
  }

  /** Starts one, and waits until it serves. */
  static async start(setup: Setup = {}): Promise<Gateway> {
    const gateway = Gateway.launch(setup);
    await gateway.serving();
    return gateway;
  }

  /** What it says when it serves. */
  async serving(): Promise<Json> {
    return this.line(({ event }) => event === "serving");
  }

  /** The first line of its log that fits, from the line with the number `from` on. */
  async line(fits: (line: Json) => boolean, from = 0): Promise<Json> {
    const found = await until(
      async () => {
        const found = this.lines.slice(from).find(fits);
        if (!found && this.hasEnded) throw new Error(`it has ended: ${JSON.stringify(this.lines)}`);
        return found;
      },
      (found) => found !== undefined,
    );
    return found!;
  }

  /** Its address for clients, and that of its metrics. */
  get address(): string {
    return this.lines.find(({ event }) => event === "serving")!.address;
  }

  get metricsAddress(): string {
    return this.lines.find(({ event }) => event === "serving")!.metrics;
  }

  get hasEnded(): boolean {
    return this.child.exitCode !== null || this.child.signalCode !== null;
  }

  /** Replaces one of its files. */
  write(name: string, text: string | Buffer): void {
    replace(join(this.folder, name), text);
  }

  /** Replaces one of its files, and has files read again at once. */
  renew(name: string, text: string | Buffer): void {
    this.write(name, text);
    this.child.kill("SIGHUP");
  }

  /** The values of its metrics, by name and labels. */
  async samples(): Promise<Record<string, number>> {
    const text = await (await fetch(`http://${this.metricsAddress}/metrics`)).text();
    const lines = text.split("\n").filter((line) => line && !line.startsWith("#"));
    return Object.fromEntries(lines.map((line) => [line.replace(/ [^ ]*$/, ""), Number(line.match(/[^ ]*$/)![0])]));
  }

  async stop(): Promise<void> {
    if (!this.hasEnded && this.child.kill("SIGKILL")) await this.exit;
  }
}
