// The native gateway (bailiwick-edge), with what specs use of Miniflare, so that the same specs run on both.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request as send } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../", import.meta.url));

/** Whether specs run on the native gateway instead of workerd. */
export const isNative = process.env.EDGE === "native";

export class Native {
  /** Its lines of log. */
  readonly log: string[] = [];

  private constructor(
    readonly address: string,
    private readonly folder: string,
    readonly child: ChildProcess,
  ) {}

  /** Without `hasKv` its rules aren't in a file. `isQuiet` keeps its log out of the test's own output. */
  static async start(
    bindings: Record<string, string>,
    options = ["--threads", "1", "--trust", "127.0.0.0/8"],
    { hasKv = true, isQuiet = false } = {},
  ): Promise<Native> {
    const binary = `${process.env.CARGO_TARGET_DIR ?? `${root}target`}/debug/bailiwick-edge`;
    if (!existsSync(binary)) throw new Error(`${binary} is missing; run cargo build --package bailiwick-edge`);
    const folder = mkdtempSync(join(tmpdir(), "bailiwick-edge-"));
    const more = hasKv ? [...options, "--rules", join(folder, "rules.json")] : options;
    const child = spawn(binary, ["serve", "--listen", "127.0.0.1:0", ...more], {
      stdio: ["ignore", "inherit", "pipe"],
      env: { RULES_REFRESH_SECONDS: "0", HEALTH_REFRESH_SECONDS: "0", ...bindings },
    });
    const lines = createInterface({ input: child.stderr! });
    const [line] = await once(lines, "line");
    const native = new Native(JSON.parse(line).address, folder, child);
    lines.on("line", (line) => {
      native.log.push(line);
      if (!isQuiet) console.log(line);
    });
    return native;
  }

  /** The rules are in a file in place of KV. */
  async getKVNamespace() {
    return { put: async (key: string, text: string) => writeFileSync(join(this.folder, `${key}.json`), text) };
  }

  /** Sends a request to the host of `url`. The place of the client is in a header, as a trusted proxy sends it. */
  dispatchFetch(url: string, { cf, signal, ...init }: any): Promise<Response> {
    const { host, pathname, search } = new URL(url);
    const asked = new Request(url, { ...init, ...(init.body ? { duplex: "half" } : {}) });
    // Miniflare says that clients are on this machine, too.
    const proxy = { "cf-connecting-ip": "127.0.0.1", "bailiwick-cf": JSON.stringify(cf ?? {}) };
    const headers = { ...proxy, ...Object.fromEntries(asked.headers), host };
    const to = new URL(`http://${this.address}`);
    const options = {
      host: to.hostname,
      port: to.port,
      method: asked.method,
      path: pathname + search,
      headers,
      signal,
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
