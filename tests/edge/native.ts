// The native gateway (bailiwick-edge), with what specs use of Miniflare, so that the same specs run on both.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request as send } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { program } from "./program.js";

/** Whether specs run on the native gateway instead of workerd. */
export const isNative = process.env.EDGE === "native";

/** How a gateway is started beside its options. */
interface More {
  hasKv?: boolean;
  isQuiet?: boolean;
  country?: string;
  /** Gets standard output and standard error, as Miniflare's `handleRuntimeStdio` does. */
  onLog?: (stdout: Readable, stderr: Readable) => void;
}

/** The address of the trusted proxy where others connect, too. */
const PROXY = "127.0.0.2";

export class Native {
  /** Its lines of log. */
  readonly log: string[] = [];

  private constructor(
    readonly address: string,
    private readonly folder: string,
    readonly child: ChildProcess,
    private readonly country?: string,
  ) {}

  /**
   * Without `hasKv` its rules aren't in a file. `isQuiet` keeps its log out of the test's own output. Clients of the
   * tests are trusted proxies, which say where a client is. With `country`, only `dispatchFetch` is one; whoever else
   * connects is a client of that country, by `networks` of the rules.
   */
  static async start(
    bindings: Record<string, string>,
    options = ["--threads", "1", "--trust", "127.0.0.0/8"],
    { hasKv = true, isQuiet = false, country, onLog }: More = {},
  ): Promise<Native> {
    if (country) options = options.map((word) => (word === "127.0.0.0/8" ? `${PROXY}/32` : word));
    const folder = mkdtempSync(join(tmpdir(), "bailiwick-edge-"));
    const more = hasKv ? [...options, "--rules", join(folder, "rules.json")] : options;
    const child = spawn(program("bailiwick-edge"), ["serve", "--listen", "127.0.0.1:0", ...more], {
      stdio: ["ignore", "inherit", "pipe"],
      env: { RULES_REFRESH_SECONDS: "0", HEALTH_REFRESH_SECONDS: "0", ...bindings },
    });
    const lines = createInterface({ input: child.stderr! });
    const [line] = await once(lines, "line");
    const native = new Native(JSON.parse(line).address, folder, child, country);
    onLog?.(Readable.from([]), child.stderr!);
    lines.on("line", (line) => {
      native.log.push(line);
      if (!isQuiet) console.log(line);
    });
    return native;
  }

  /** Where it listens. */
  get ready(): Promise<URL> {
    return Promise.resolve(new URL(`http://${this.address}`));
  }

  /** The rules are in a file in place of KV. */
  async getKVNamespace() {
    const placed = (text: string) => {
      if (!this.country) return text;
      const { networks = [], ...rest } = JSON.parse(text);
      return JSON.stringify({ ...rest, networks: [...networks, { prefix: "127.0.0.1/32", country: this.country }] });
    };
    return { put: async (key: string, text: string) => writeFileSync(join(this.folder, `${key}.json`), placed(text)) };
  }

  /** Sends a request to the host of `url`. The place of the client is in a header, as a trusted proxy sends it. */
  dispatchFetch(url: string, { cf, signal, ...init }: any): Promise<Response> {
    const { host, pathname, search } = new URL(url);
    const asked = new Request(url, { ...init, ...(init.body ? { duplex: "half" } : {}) });
    // Miniflare says that clients are on this machine, too.
    const proxy = { "cf-connecting-ip": this.country ? PROXY : "127.0.0.1", "bailiwick-cf": JSON.stringify(cf ?? {}) };
    // Of itself Node sends the body of a DELETE without saying where it ends, and what follows would be read as part of
    // the next request.
    const framed = asked.body && !asked.headers.has("content-length") ? { "transfer-encoding": "chunked" } : {};
    const headers = { ...proxy, ...framed, ...Object.fromEntries(asked.headers), host };
    const to = new URL(`http://${this.address}`);
    const options = {
      host: to.hostname,
      port: to.port,
      method: asked.method,
      path: pathname + search,
      headers,
      signal,
      ...(this.country ? { localAddress: PROXY } : {}),
    };
    return new Promise((answer, fail) => {
      const sent = send(options, (got) => {
        const given = Object.entries(got.headers).map(([name, value]) => [name, String(value)] as [string, string]);
        const isEmpty = [204, 304].includes(got.statusCode!);
        const body = isEmpty ? null : (Readable.toWeb(got) as ReadableStream);
        answer(new Response(body, { status: got.statusCode, headers: given }));
      });
      sent.on("error", fail);
      if (asked.body) Readable.fromWeb(asked.body as never).pipe(sent);
      else sent.end();
    });
  }

  async dispose(): Promise<void> {
    if (this.child.exitCode === null && this.child.kill()) await once(this.child, "exit");
    rmSync(this.folder, { recursive: true, force: true });
  }
}
