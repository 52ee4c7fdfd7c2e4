// A native gateway whose clients send bytes of the test's choice: over a bare socket, with what came back read as
// HTTP/1.1. Its endpoint is in the test's process and remembers what it was asked, so that a smuggled request shows.
import { readFileSync } from "node:fs";
import type { IncomingHttpHeaders, ServerResponse } from "node:http";
import { type Socket, connect } from "node:net";
import { join } from "node:path";
import { folder } from "./gateway.js";
import { type Json, onStop, region, rules, serve } from "./harness.js";
import { Native } from "./native.js";

/** A request that reached the endpoint. */
export interface Seen {
  method: string;
  url: string;
  headers: IncomingHttpHeaders;
  trailers: NodeJS.Dict<string>;
  body: string;
}

/** An answer that came over HTTP/1.1. */
export interface Answer {
  status: number;
  headers: Record<string, string>;
  body: string;
}

const message = { role: "assistant", content: "Hello." };
/** What the endpoint answers, unless a test answers itself. */
export const COMPLETION = JSON.stringify({
  id: "c",
  object: "chat.completion",
  created: 1,
  model: "m",
  choices: [{ index: 0, message, finish_reason: "stop" }],
  usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 },
});

/** The body of a chat completion. */
export const chat = (model = "m", more: Json = {}) =>
  JSON.stringify({ model, messages: [{ role: "user", content: "Hello." }], ...more });

/** A whole chat completion as HTTP/1.1, with more lines of headers. */
export function post(body = chat(), more = "", host = "Host: chat.example\r\n"): string {
  const length = `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n`;
  return `POST /v1/chat/completions HTTP/1.1\r\n${host}${length}${more}\r\n${body}`;
}

export interface Options {
  /** `[limits]` and whatever else of edge.toml. */
  toml?: string;
  /** `limits` of the service. */
  limits?: Json;
  /** Whose clients are served: by default everybody's. */
  clients?: string[];
  /** Answers in place of the endpoint. */
  answer?: (seen: Seen, response: ServerResponse) => void;
  /** Files beside edge.toml. */
  files?: Record<string, string>;
}

export class Wire {
  private constructor(
    readonly native: Native,
    /** What the endpoint was asked. */
    readonly seen: Seen[],
  ) {}

  /** Starts an endpoint, and a gateway of one thread with an edge.toml of its own. */
  static async start({
    toml = "",
    limits = {},
    clients = ["*", "unknown"],
    answer,
    files = {},
  }: Options = {}): Promise<Wire> {
    const seen: Seen[] = [];
    const url = await serve(async (request, response) => {
      let body = "";
      request.on("error", () => {});
      try {
        for await (const chunk of request) body += chunk;
      } catch {
        return;
      }
      const { method = "", url = "", headers, trailers } = request;
      const asked = { method, url, headers, trailers, body };
      seen.push(asked);
      if (answer) return answer(asked, response);
      response.writeHead(200, { "content-type": "application/json" }).end(COMPLETION);
    });
    const at = folder({ ...files, "edge.toml": toml });
    const options = ["--threads", "1", "--config", join(at, "edge.toml")];
    const native = await Native.start({}, options, { isQuiet: true });
    onStop(() => native.dispose());
    const anywhere = { residency: [{ clients, process_in: ["eu"] }], limits };
    const document = rules(1, region("DE", "eu-frankfurt", [url]), anywhere);
    await (await native.getKVNamespace()).put("rules", JSON.stringify(document));
    return new Wire(native, seen);
  }

  /** Connects to the gateway. Errors of the socket show as its end. */
  open(): Socket {
    const [host, port] = this.native.address.split(":");
    const socket = connect({ port: Number(port), host, allowHalfOpen: true, noDelay: true });
    socket.on("error", () => {});
    onStop(() => socket.destroy());
    return socket;
  }

  /** The memory of the gateway's process, in KiB. */
  memory(): number {
    const status = readFileSync(`/proc/${this.native.child.pid}/status`, "utf8");
    return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)![1]);
  }

  /** Whether another client is served by the endpoint. */
  async serves(): Promise<boolean> {
    const reply = new Client(this.open());
    reply.send(post());
    const [answer] = await reply.answers(1);
    reply.socket.destroy();
    return answer?.status === 200 && answer.body.includes("chat.completion");
  }

  /** Whether the process lives. */
  lives(): boolean {
    return this.native.child.exitCode === null && this.native.child.signalCode === null;
  }
}

/** A client over a socket, with what it was answered. */
export class Client {
  private text = "";
  private ended = false;
  /** Whether the connection was reset. */
  isReset = false;
  private news: () => void = () => {};

  constructor(
    readonly socket: Socket,
    private readonly method = "POST",
  ) {
    socket.setEncoding("latin1");
    socket.on("data", (chunk: string) => {
      this.text += chunk;
      this.news();
    });
    socket.on("error", (error: NodeJS.ErrnoException) => (this.isReset ||= error.code === "ECONNRESET"));
    for (const event of ["end", "close"])
      socket.on(event, () => {
        this.ended = true;
        this.news();
      });
  }

  /** Sends these octets. */
  send(octets: string | Buffer): this {
    this.socket.write(typeof octets === "string" ? Buffer.from(octets, "latin1") : octets);
    return this;
  }

  /** What has come, as it is. */
  get received(): string {
    return this.text;
  }

  private async until(fits: () => boolean, within: number): Promise<void> {
    const end = Date.now() + within;
    while (!fits()) {
      const left = end - Date.now();
      if (left <= 0) throw new Error(`not within ${within} ms; what came: ${JSON.stringify(this.text.slice(0, 600))}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.news = () => (clearTimeout(timer), resolve());
      });
    }
  }

  /** Waits for so many answers, or for the end of the connection. */
  async answers(count: number, within = 8_000): Promise<Answer[]> {
    await this.until(() => this.ended || parsed(this.text, this.method).length >= count, within);
    return parsed(this.text, this.method);
  }

  /** Waits until these characters have come. */
  async receives(text: string, within = 8_000): Promise<void> {
    await this.until(() => this.ended || this.text.includes(text), within);
  }

  /** Waits until the gateway closes the connection. */
  async closed(within = 8_000): Promise<Answer[]> {
    await this.until(() => this.ended, within);
    return parsed(this.text, this.method);
  }
}

/** The complete answers in a text; 100 is one, too. */
function parsed(text: string, method: string): Answer[] {
  const answers: Answer[] = [];
  for (let rest = text; ;) {
    const end = rest.indexOf("\r\n\r\n");
    if (end < 0) return answers;
    const [first, ...lines] = rest.slice(0, end).split("\r\n");
    const headers = Object.fromEntries(
      lines.map((line) => {
        const at = line.indexOf(":");
        return [line.slice(0, at).toLowerCase(), line.slice(at + 1).trim()];
      }),
    );
    const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(first)?.[1]);
    rest = rest.slice(end + 4);
    let body = "";
    if (headers["transfer-encoding"] === "chunked") {
      for (;;) {
        const line = /^([0-9a-f]+)\r\n/i.exec(rest);
        if (!line) return answers;
        const size = Number.parseInt(line[1], 16);
        if (rest.length < line[0].length + size + 2) return answers;
        body += rest.slice(line[0].length, line[0].length + size);
        rest = rest.slice(line[0].length + size + 2);
        if (size === 0) break;
      }
    } else if (status >= 200 && method !== "HEAD") {
      const length = Number(headers["content-length"] ?? 0);
      if (rest.length < length) return answers;
      body = rest.slice(0, length);
      rest = rest.slice(length);
    }
    answers.push({ status, headers, body });
  }
}
