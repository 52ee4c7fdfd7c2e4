// What one side's edge talks to: the endpoints of all cases, the node that serves rules, and sinks. It is one server on
// bare sockets, and records every byte that it gets. Called by side.ts.
import { once } from "node:events";
import { type AddressInfo, type Socket, createServer } from "node:net";
import { onStop } from "../harness.js";
import { type Behaviour, play } from "./behaviours.js";
import { type Message, Reader, field } from "./wire.js";

export class Endpoints {
  /** What endpoints got, by the name of the case. */
  readonly seen = new Map<string, Message[]>();
  /** What sinks got. */
  readonly posts: Message[] = [];
  port = 0;
  /** By the name of the case and of the endpoint (`c1/e0`): how it behaves, request by request; then as at last. */
  private readonly scripts = new Map<string, Behaviour[]>();
  private rules = "";

  static async start(): Promise<Endpoints> {
    const endpoints = new Endpoints();
    const open = new Set<Socket>();
    const server = createServer({ noDelay: true }, (socket) => {
      open.add(socket);
      socket.on("error", () => {}).on("close", () => open.delete(socket));
      endpoints.serve(socket);
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    endpoints.port = (server.address() as AddressInfo).port;
    onStop(() => {
      for (const socket of open) socket.destroy();
      server.close();
    });
    return endpoints;
  }

  /** Replaces the rules. In them, the port of this server stands for `PORT`. */
  follow(rules: string): void {
    this.rules = rules.replaceAll("PORT", String(this.port));
  }

  script(endpoint: string, behaviours: Behaviour[]): void {
    this.scripts.set(endpoint, [...behaviours]);
  }

  /** How many requests of a case have come. */
  calls(name: string): number {
    return this.seen.get(name)?.length ?? 0;
  }

  private serve(socket: Socket): void {
    let turn = Promise.resolve();
    const reader = new Reader((message) => {
      turn = turn.then(() => this.answer(socket, message));
    });
    socket.on("data", (chunk) => reader.push(chunk));
    // What broke off is recorded as well.
    socket.on("close", () => reader.end(false));
  }

  private async answer(socket: Socket, message: Message): Promise<void> {
    const path = message.first.split(" ")[1];
    if (path.startsWith("/v1/rules")) return this.tellRules(socket, message);
    if (path.startsWith("/sink/")) {
      this.posts.push(message);
      return void socket.write(whole('{"partialSuccess":{}}'));
    }
    const [name, endpoint] = path.split("/").slice(1);
    if (name === "filler") return void socket.write(whole('{"object":"list","data":[],"model":"m"}'));
    const seen = this.seen.get(name) ?? [];
    this.seen.set(name, [...seen, message]);
    if (!message.isWhole) return;
    const script = this.scripts.get(`${name}/${endpoint}`) ?? [];
    const behaviour = script[0];
    // workerd sends a GET that got no answer again by itself (compare.ts), and that has to end in the same way.
    const isRepeated = message.first.startsWith("GET ") && ["reset", "nonsense"].includes(behaviour?.kind);
    if (script.length > 1 && !isRepeated) script.shift();
    if (behaviour) await play(socket, behaviour, message);
    else socket.end();
  }

  private tellRules(socket: Socket, message: Message): void {
    const tag = `"${this.rules.match(/"revision":(\d+)/)?.[1]}"`;
    const isKnown = field(message.fields, "if-none-match") === tag;
    socket.write(isKnown ? `HTTP/1.1 304 Not Modified\r\netag: ${tag}\r\n\r\n` : whole(this.rules, `etag: ${tag}\r\n`));
  }
}

function whole(text: string, lines = ""): Buffer {
  const type = "content-type: application/json\r\n";
  return Buffer.from(`HTTP/1.1 200 OK\r\n${type}${lines}content-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`);
}
