// Starts what specs need: stand-in endpoints, the built Worker on workerd (or the native gateway), and small servers in
// place of a DNS node. All ports are free ones, and `stopAll` ends whatever was started.
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type IncomingMessage, type ServerResponse, createServer } from "node:http";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import {
  Miniflare,
  type MiniflareOptions,
  type RequestInit as WorkerInit,
  type Response as WorkerResponse,
} from "miniflare";
import { Native, isNative } from "./native.js";

export const root = fileURLToPath(new URL("../../", import.meta.url));
export const build = `${root}edge-worker/build`;

const stops: (() => Promise<unknown> | unknown)[] = [];

/** Registers a function that `stopAll` calls, before it ends what was started earlier. */
export function onStop(stop: () => unknown): void {
  stops.push(stop);
}

/** Ends everything that was started since the last call. For `afterAll`. */
export async function stopAll(): Promise<void> {
  for (const stop of stops.splice(0).reverse()) await stop();
}

export interface Recorded {
  method: string;
  path: string;
  headers: Record<string, string>;
  body: string;
}

/** A stand-in endpoint in its own process, so that its sockets and resets are real. */
export class StandIn {
  private constructor(
    readonly region: string,
    readonly url: string,
  ) {}

  static async start(region: string, ...options: string[]): Promise<StandIn> {
    const script = `${root}tests/stand-in/endpoint.mjs`;
    const child: ChildProcess = spawn(
      process.execPath,
      [script, "--region", region, "--exit-with-parent", ...options],
      {
        stdio: ["pipe", "pipe", "inherit"],
      },
    );
    stops.push(() => child.kill());
    const [line] = await once(createInterface({ input: child.stdout! }), "line");
    return new StandIn(region, JSON.parse(line).url);
  }

  private async control(method: string, name: string, body?: Json): Promise<any> {
    const reply = await fetch(`${this.url}/_stand-in/${name}`, { method, body: body && JSON.stringify(body) });
    const value = await reply.json();
    if (!reply.ok) throw new Error(JSON.stringify(value));
    return value;
  }

  fail(failure: Record<string, unknown>): Promise<unknown> {
    return this.control("PUT", "failure", failure);
  }

  /** Makes the endpoint succeed again, and forgets the recorded requests. */
  async reset(): Promise<void> {
    await this.control("DELETE", "failure");
    await this.control("DELETE", "requests");
  }

  /** Makes the endpoint's health check fail. */
  ill(): Promise<unknown> {
    return this.control("PUT", "health", { status: "down" });
  }

  /** Makes the endpoint and its health check succeed again. */
  async well(): Promise<void> {
    await this.control("DELETE", "failure");
    await this.control("PUT", "health", { status: "up" });
  }

  async requests(): Promise<Recorded[]> {
    return (await this.control("GET", "requests")).requests;
  }

  /** The number of requests that are neither answered completely nor given up by their client. */
  async open(): Promise<number> {
    return (await this.control("GET", "")).open;
  }

  /** The number of connections that could have carried a client's request: all but those of this harness. */
  async connections(): Promise<number> {
    const { connections } = await this.control("GET", "");
    return connections.model + connections.health + connections.silent;
  }
}

/** An address where nobody listens. */
export async function refusingUrl(): Promise<string> {
  const server = createTcpServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return `http://127.0.0.1:${port}`;
}

/** Starts a server in the test's process, such as a DNS node's API. */
export async function serve(answer: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
  const server = createServer(answer).listen(0, "127.0.0.1");
  await once(server, "listening");
  stops.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

export type Json = Record<string, any>;

/** A part of a multipart form whose boundary is `B`. `more` is appended to its Content-Disposition. */
export function formPart(name: string, value: string, more = ""): string {
  return `--B\r\nContent-Disposition: form-data; name="${name}"${more}\r\n\r\n${value}\r\n`;
}

/** The digest of an API key, as in the rules. */
export function keyDigest(key: string): string {
  return createHash("sha256").update(key).digest("hex");
}

/** A region with an endpoint for each URL. They are named `<region>-1`, `-2`, …, and tried in that order. */
export function region(country: string, name: string, urls: string[], more: Json = {}): Json {
  const endpoints = urls.map((url, i) => [`${name}-${i + 1}`, { url: `${url}/v1`, priority: i, ...more }]);
  return { [name]: { countries: [country], endpoints: Object.fromEntries(endpoints) } };
}

export const jurisdictions = { eu: { include: ["EU"] }, uk: { countries: ["GB"] }, us: { countries: ["US"] } };

export const residency = [
  { clients: ["eu"], process_in: ["eu"] },
  { clients: ["uk"], process_in: ["uk", "eu"] },
  { clients: ["us"], process_in: ["us"] },
];

/** A rules document with the service `chat` at chat.example and localhost over all `regions`. */
export function rules(revision: number, regions: Json, service: Json = {}, more: Json = {}): Json {
  return {
    version: 1,
    revision,
    jurisdictions,
    regions,
    services: {
      chat: {
        hosts: ["chat.example", "localhost"],
        pattern: "active-active",
        regions: Object.keys(regions),
        residency,
        ...service,
      },
    },
    ...more,
  };
}

/** The string or the list of strings after `name = ` in wrangler.toml. */
export function setting(name: string): string[] {
  const wrangler = readFileSync(`${root}wrangler.toml`, "utf8");
  const value = wrangler.match(new RegExp(`^${name} = (\\[[^\\]]*\\]|".*")$`, "m"))?.[1];
  if (!value) throw new Error(`wrangler.toml has no ${name}`);
  return [...value.replace(/^\s*#.*$/gm, "").matchAll(/"([^"]*)"/g)].map((match) => match[1]);
}

/**
 * Options to run the built Worker: with the date and flags of wrangler.toml, KV in memory, and feeds that are fetched
 * with every request.
 */
export function options(
  bindings: Record<string, string> = {},
  more: Partial<MiniflareOptions> = {},
  dir = build,
): MiniflareOptions {
  return {
    modules: true,
    rootPath: dir,
    scriptPath: "index.js",
    modulesRules: [
      { type: "ESModule", include: ["**/*.js"] },
      { type: "CompiledWasm", include: ["**/*.wasm"] },
    ],
    compatibilityDate: setting("compatibility_date")[0],
    compatibilityFlags: setting("compatibility_flags"),
    kvNamespaces: ["RULES"],
    bindings: { RULES_REFRESH_SECONDS: "0", HEALTH_REFRESH_SECONDS: "0", ...bindings },
    ...more,
  } as MiniflareOptions;
}

/** Miniflare invents a place (in Texas) for what `cf` leaves out. This removes it. */
const nowhere = { country: undefined, latitude: undefined, longitude: undefined };

export interface Ask extends WorkerInit {
  /** `request.cf`. Fields that it leaves out are missing. */
  cf?: any;
  path?: string;
  host?: string;
  json?: unknown;
}

/** The Worker on workerd, or the native gateway. */
export class Edge {
  private constructor(
    readonly miniflare: Miniflare,
    private readonly dispose: () => Promise<void>,
  ) {}

  /** Starts the Worker with variables and secrets, and with a document in KV if there is one. */
  static async start(
    document: Json | null,
    bindings: Record<string, string> = {},
    more: Partial<MiniflareOptions> = {},
  ) {
    const miniflare = isNative
      ? ((await Native.start(bindings, undefined, {
          country: (more.cf as any)?.country,
          onLog: (more as any).handleRuntimeStdio,
        })) as unknown as Miniflare)
      : new Miniflare(options(bindings, more));
    let disposed: Promise<void> | undefined;
    const dispose = () => (disposed ??= miniflare.dispose());
    stops.push(dispose);
    const edge = new Edge(miniflare, dispose);
    if (document) await edge.put(document);
    return edge;
  }

  /** Ends the Worker before `stopAll` would. */
  async stop(): Promise<void> {
    await this.dispose();
  }

  /** Writes a document, or any text, to KV as the rules. */
  async put(document: Json | string): Promise<void> {
    const kv = await this.miniflare.getKVNamespace("RULES");
    await kv.put("rules", typeof document === "string" ? document : JSON.stringify(document));
  }

  /** Sends a request, by default a chat completion from Germany. */
  ask({
    cf = { country: "DE" },
    path = "/v1/chat/completions",
    host = "chat.example",
    json,
    ...init
  }: Ask = {}): Promise<WorkerResponse> {
    const body = json === undefined ? init.body : JSON.stringify(json);
    const method = init.method ?? (body === undefined ? "GET" : "POST");
    const headers = {
      ...(body === undefined ? {} : { "content-type": "application/json" }),
      ...(init.headers as Json),
    };
    return this.miniflare.dispatchFetch(`http://${host}${path}`, {
      ...init,
      method,
      headers,
      body,
      cf: { ...nowhere, ...cf },
    } as never);
  }

  /** Sends a chat completion. Tests use different models, because an endpoint that failed rests for that model. */
  chat(country: string, body: Json = {}, more: Ask = {}): Promise<WorkerResponse> {
    const json = { model: "m", messages: [{ role: "user", content: "Say hello." }], ...body };
    return this.ask({ cf: { country }, json, ...more });
  }
}

/** Reads a reply: its status, its body, and what the Worker's headers say. */
export async function read(reply: WorkerResponse): Promise<{
  status: number;
  region: string | null;
  endpoint: string | null;
  attempts: string | null;
  code: string | null;
  text: string;
  json: any;
}> {
  const text = await reply.text();
  let json: any = null;
  try {
    json = JSON.parse(text);
  } catch {}
  const header = (name: string) => reply.headers.get(`x-bailiwick-${name}`);
  return {
    status: reply.status,
    region: header("region"),
    endpoint: header("endpoint"),
    attempts: header("attempts"),
    code: json?.error?.code ?? null,
    text,
    json,
  };
}

/** Calls `ask` until its result `fits`, because feeds are refreshed in the background. */
export async function until<T>(ask: () => Promise<T>, fits: (value: T) => boolean, within = 15_000): Promise<T> {
  const end = Date.now() + within;
  for (;;) {
    const value = await ask();
    if (fits(value)) return value;
    if (Date.now() > end) throw new Error(`not within ${within} ms; last seen: ${JSON.stringify(value)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
