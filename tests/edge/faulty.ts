// An endpoint that fails in the way that its path names: `http://…/silent/v1`. It uses bare sockets. So it can send
// half a line of headers or half a frame, and it counts sockets and bytes instead of parsed requests.
import { once } from "node:events";
import { type AddressInfo, type Socket, createServer } from "node:net";
import { onStop } from "./harness.js";

export interface Asked {
  /** The first segment of the path. */
  fault: string;
  path: string;
  headers: Record<string, string>;
  body: string;
}

type Play = (socket: Socket, ask: Asked, stream: boolean) => unknown;

export class Faulty {
  sockets = 0;
  bytes = 0;
  readonly asked: Asked[] = [];
  private readonly gone: string[] = [];
  url = "";

  /** `redirect`: where the fault of that name points. */
  static async start(redirect = "http://127.0.0.1:9"): Promise<Faulty> {
    const faulty = new Faulty();
    const open = new Set<Socket>();
    const server = createServer((socket) => {
      faulty.sockets += 1;
      open.add(socket);
      socket.on("error", () => {}).on("close", () => open.delete(socket));
      faulty.listen(socket, redirect);
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    onStop(() => {
      for (const socket of open) socket.destroy();
      server.close();
    });
    faulty.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    return faulty;
  }

  /** How often each path was requested. */
  calls(path: string): number {
    return this.asked.filter((ask) => ask.path.startsWith(path)).length;
  }

  /** How many connections to a fault have ended. */
  closed(fault: string): number {
    return this.gone.filter((gone) => gone === fault).length;
  }

  private listen(socket: Socket, redirect: string): void {
    let text = "";
    socket.on("data", (chunk) => {
      this.bytes += chunk.length;
      text += chunk.toString("latin1");
      const end = text.indexOf("\r\n\r\n");
      if (end < 0) return;
      const [first, ...lines] = text.slice(0, end).split("\r\n");
      const headers = Object.fromEntries(
        lines.map((line) => [line.split(":")[0].toLowerCase(), line.slice(line.indexOf(":") + 1).trim()]),
      );
      const length = Number(headers["content-length"] ?? 0);
      if (text.length < end + 4 + length) return;
      const body = Buffer.from(text.slice(end + 4, end + 4 + length), "latin1").toString("utf8");
      text = text.slice(end + 4 + length);
      const path = first.split(" ")[1];
      const fault = path.split("/")[1];
      this.asked.push({ fault, path, headers, body });
      socket.on("close", () => this.gone.push(fault));
      const play = fault === "redirect" ? redirectTo(redirect) : (faults[fault] ?? faults.well);
      play(socket, this.asked.at(-1)!, body.includes('"stream":true'));
    });
  }
}

/** Every answer closes its connection. So a body without a length ends cleanly. */
function head(status: number, headers: Record<string, string | number> = {}): string {
  const lines = Object.entries({ connection: "close", ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${status} Whatever\r\n${lines.join("")}\r\n`;
}

const kind = (stream: boolean) => ({ "content-type": stream ? "text/event-stream" : "application/json" });
const event = (value: unknown) => `data: ${JSON.stringify(value)}\n\n`;
const delta = (delta: object, finish_reason: string | null = null) =>
  event({
    id: "c",
    object: "chat.completion.chunk",
    created: 0,
    model: "m",
    choices: [{ index: 0, delta, finish_reason }],
  });

const role = delta({ role: "assistant", content: "" });
const hello = delta({ content: "Hello " });
const rest = delta({ content: "there" }) + delta({}, "stop") + "data: [DONE]\n\n";
/** A text that no client may ever read. */
export const canary = "UPSTREAM-CANARY";
const error = {
  error: { message: `${canary}: something broke`, type: "server_error", param: null, code: "overloaded" },
};

export const completion = (content = "Hello there") => ({
  id: "c",
  object: "chat.completion",
  created: 0,
  model: "m",
  choices: [{ index: 0, message: { role: "assistant", content }, finish_reason: "stop" }],
});

function whole(socket: Socket, status: number, value: unknown, headers: Record<string, string> = {}): void {
  const text = JSON.stringify(value);
  socket.end(
    head(status, { "content-type": "application/json", "content-length": Buffer.byteLength(text), ...headers }) + text,
  );
}

/** Writes one piece after another until the peer closes the connection. */
function drip(socket: Socket, pieces: Iterable<string>, every: number): void {
  const iterator = pieces[Symbol.iterator]();
  const timer = setInterval(() => {
    const { done, value } = iterator.next();
    if (!done) return void socket.write(value);
    clearInterval(timer);
    socket.end();
  }, every);
  socket.on("close", () => clearInterval(timer));
}

function* forever(piece: string) {
  for (;;) yield piece;
}

/** Resets the connection after a moment, because a reset drops what is still queued. */
const reset = (socket: Socket) => setTimeout(() => socket.resetAndDestroy(), 20);
const redirectTo =
  (location: string): Play =>
  (socket) =>
    socket.end(head(307, { location, "content-length": 0 }));
const status =
  (status: number, headers: Record<string, string> = {}): Play =>
  (socket) =>
    whole(socket, status, error, headers);

/** Half of a unary answer: with the length of the whole, or without one, so that its end looks clean. */
function half(socket: Socket, length: boolean): void {
  const text = JSON.stringify(completion());
  socket.write(
    head(200, { ...kind(false), ...(length && { "content-length": text.length }) }) + text.slice(0, text.length / 2),
  );
}

const large = JSON.stringify(completion("x".repeat(300_000)));

const faults: Record<string, Play> = {
  well(socket, ask, stream) {
    if (stream) return socket.end(head(200, kind(true)) + role + hello + rest);
    whole(socket, 200, completion());
  },
  /** Answers with the path, the credential and the body of the request. */
  echo(socket, ask) {
    whole(
      socket,
      200,
      completion(JSON.stringify({ path: ask.path, credential: ask.headers.authorization, body: ask.body })),
    );
  },
  429: status(429, { "retry-after": "30", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "30s" }),
  "429-ms": status(429, { "retry-after-ms": "300", "retry-after": "30" }),
  "429-reset": status(429, { "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m30s" }),
  "429-bare": status(429),
  408: status(408),
  500: status(500),
  401: status(401),
  400: (socket) =>
    whole(socket, 400, {
      error: { message: canary, type: "invalid_request_error", param: "messages", code: "context_length_exceeded" },
    }),
  silent() {},
  "error-event"(socket, _, stream) {
    if (stream) return socket.end(head(200, kind(true)) + event(error));
    whole(socket, 200, error);
  },
  "wrong-type": (socket) =>
    socket.end(`${head(200, { "content-type": "text/html" })}<!doctype html><title>${canary}</title>`),
  empty: (socket, _, stream) => socket.end(head(200, { ...kind(stream), "content-length": 0 })),
  "no-content": (socket, _, stream) => socket.end(head(204, kind(stream))),
  "mid-frame-reset"(socket, _, stream) {
    if (stream) socket.write(head(200, kind(true)) + role + hello.slice(0, 20));
    else half(socket, true);
    reset(socket);
  },
  "clean-fin"(socket, _, stream) {
    if (stream) return socket.end(head(200, kind(true)) + role);
    half(socket, false);
    socket.end();
  },
  "slow-headers": (socket, _, stream) => drip(socket, head(200, kind(stream)).padEnd(5_000, "x"), 50),
  "slow-body"(socket, _, stream) {
    socket.write(head(200, kind(stream)));
    drip(socket, forever(stream ? ": one moment\n\n" : " "), 50);
  },
  garbage: (socket) => socket.end(`SSH-2.0-${canary}\r\n`),
  packed: (socket, _, stream) =>
    socket.end(head(200, { ...kind(stream), "content-encoding": "gzip" }) + "this is no gzip"),
  /**
   * An answer larger than the limit in an encoding that nobody asked for and nobody decodes. Its bytes may contain
   * readable text.
   */
  "packed-otherwise": (socket, _, stream) =>
    socket.end(head(200, { ...kind(stream), "content-encoding": "zstd" }) + `(\xb5/\xfd${canary}` + large),
  /** A long text that isn't JSON. */
  "no-json": (socket, _, stream) =>
    socket.end(head(200, kind(stream)) + (stream ? event(error) : `${canary} `.repeat(10_000))),
  sentence: (socket, _, stream) =>
    socket.end(head(200, kind(stream)) + (stream ? event(error) : JSON.stringify(canary))),
  "error-beside-null": (socket, _, stream) =>
    socket.end(
      head(200, kind(stream)) + (stream ? event : JSON.stringify)({ id: "", choices: null, data: null, ...error }),
    ),
  // After the first content: too late for another endpoint.
  "late-reset"(socket) {
    socket.write(head(200, kind(true)) + role + hello + hello.slice(0, 20));
    reset(socket);
  },
  "late-fin": (socket) => socket.end(head(200, kind(true)) + role + hello),
  "late-error": (socket) => socket.end(head(200, kind(true)) + role + hello + event(error) + "data: [DONE]\n\n"),
  "late-silent": (socket) => socket.write(head(200, kind(true)) + role + hello),
  "late-drip"(socket) {
    socket.write(head(200, kind(true)) + role + hello);
    drip(socket, forever("x"), 50);
  },
  "late-flow"(socket) {
    socket.write(head(200, kind(true)) + role);
    drip(socket, forever(hello), 20);
  },
  "late-error-apart"(socket) {
    socket.write(head(200, kind(true)) + role + hello);
    drip(socket, [event(error), "data: [DONE]\n\n"], 50);
  },
  "late-slow"(socket) {
    socket.write(head(200, kind(true)) + role + hello);
    drip(socket, [hello, hello, hello, hello, rest], 150);
  },
  "late-cut"(socket) {
    socket.write(head(200, { ...kind(false), "content-length": large.length }) + large.slice(0, 200_000), () =>
      setTimeout(() => socket.destroy(), 50),
    );
  },
};
