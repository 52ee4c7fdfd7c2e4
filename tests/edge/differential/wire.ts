// HTTP/1.1 on bare sockets, so that every byte counts: reads requests at the stand-in, and sends requests and reads
// answers as a client.
import { type Socket, connect } from "node:net";

/** Names in lower case, in the order in which they came. Each character of a value is a byte. */
export type Fields = [name: string, value: string][];

export interface Message {
  /** The request line or the status line. */
  first: string;
  fields: Fields;
  body: Buffer;
  /** How the message's length is told. */
  framing: "none" | "length" | "chunked" | "close";
  /** False if the message broke off. */
  isWhole: boolean;
}

export const field = (fields: Fields, name: string): string | undefined => fields.find(([key]) => key === name)?.[1];

/** Reads messages of one direction of a connection. */
export class Reader {
  private held = Buffer.alloc(0);
  private pieces: Buffer[] = [];
  private head: Message | undefined;

  /** `hasBody`: whether an answer has a body. `undefined`: the messages are requests. */
  constructor(
    private readonly done: (message: Message) => void,
    private readonly hasBody?: (status: number) => boolean,
  ) {}

  push(chunk: Buffer): void {
    this.pieces.push(chunk);
    // An answer that ends with its connection is put together at its end.
    if (this.head?.framing === "close") return;
    this.held = Buffer.concat([this.held, ...this.pieces.splice(0)]);
    while (this.step());
  }

  /** The connection has ended. Returns whether no message was under way. */
  end(isClean: boolean): void {
    this.held = Buffer.concat([this.held, ...this.pieces.splice(0)]);
    if (!this.head) return;
    const head = this.head;
    this.head = undefined;
    const body = head.framing === "chunked" ? Buffer.concat(chunks(this.held).data) : this.held;
    this.done({ ...head, body, isWhole: isClean && head.framing === "close" });
  }

  private step(): boolean {
    this.head ??= this.begin();
    const head = this.head;
    if (!head) return false;
    if (head.framing === "close") return false;
    if (head.framing === "chunked") {
      const { data, end } = chunks(this.held);
      return end !== undefined && this.finish(head, Buffer.concat(data), end);
    }
    const length = head.framing === "length" ? Number(field(head.fields, "content-length")) : 0;
    return this.held.length >= length && this.finish(head, this.held.subarray(0, length), length);
  }

  private finish(head: Message, body: Buffer, end: number): boolean {
    this.held = this.held.subarray(end);
    this.head = undefined;
    this.done({ ...head, body: Buffer.from(body), isWhole: true });
    return this.held.length > 0;
  }

  private begin(): Message | undefined {
    const end = this.held.indexOf("\r\n\r\n");
    if (end < 0) return undefined;
    const [first, ...lines] = this.held.subarray(0, end).toString("latin1").split("\r\n");
    this.held = this.held.subarray(end + 4);
    const fields = lines.map((line): Fields[number] => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
    });
    const status = Number(first.split(" ")[1]);
    const message = { first, fields, body: Buffer.alloc(0), isWhole: false };
    const isEmpty = this.hasBody && (!this.hasBody(status) || status < 200 || status === 204 || status === 304);
    if (isEmpty) return { ...message, framing: "none" };
    if (field(fields, "transfer-encoding")?.toLowerCase() === "chunked") return { ...message, framing: "chunked" };
    if (field(fields, "content-length") !== undefined) return { ...message, framing: "length" };
    return { ...message, framing: this.hasBody ? "close" : "none" };
  }
}

/** The chunks of a chunked body, and where the body ends, if it does. */
function chunks(held: Buffer): { data: Buffer[]; end?: number } {
  const data: Buffer[] = [];
  let at = 0;
  for (;;) {
    const line = held.indexOf("\r\n", at);
    if (line < 0) return { data };
    const size = Number.parseInt(held.subarray(at, line).toString("latin1"), 16);
    if (size === 0) {
      const end = held
        .subarray(line)
        .toString("latin1")
        .match(/^\r\n(?:[^\r]+\r\n)*\r\n/);
      return end ? { data, end: line + end[0].length } : { data };
    }
    data.push(held.subarray(line + 2, line + 2 + size));
    at = line + 2 + size + 2;
    if (!(size > 0) || at > held.length) return { data };
  }
}

export interface Sent {
  method: string;
  target: string;
  /** Each character of a value is sent as one byte. */
  fields: Fields;
  body?: Buffer;
  /** The sizes of the pieces that the body is sent in as chunks. Without them it is sent with its length. */
  chunked?: Buffer[];
}

export interface Answered {
  status: number;
  fields: Fields;
  body: Buffer;
  framing: Message["framing"];
  isWhole: boolean;
}

/** No answer: the connection was closed before one came. */
export const NOTHING: Answered = { status: 0, fields: [], body: Buffer.alloc(0), framing: "none", isWhole: false };

/** How long a client waits for an answer, in milliseconds. */
const PATIENCE = 20_000;

/** Sends a request over a connection of its own, and returns the answer. Informational answers (1xx) are left out. */
export function ask(port: number, sent: Sent): Promise<Answered> {
  const { method, target, fields, body, chunked } = sent;
  const framing: Fields = chunked
    ? [["Transfer-Encoding", "chunked"]]
    : body
      ? [["Content-Length", String(body.length)]]
      : [];
  const lines = [...fields, ...framing].map(([name, value]) => `${name}: ${value}\r\n`).join("");
  const head = Buffer.from(`${method} ${target} HTTP/1.1\r\n${lines}\r\n`, "latin1");
  const pieces = chunked
    ? [...chunked.map((piece) => Buffer.concat([Buffer.from(`${piece.length.toString(16)}\r\n`), piece, CRLF])), LAST]
    : body
      ? [body]
      : [];
  return new Promise((resolve) => {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true });
    const finish = (answered: Answered) => {
      clearTimeout(limit);
      socket.destroy();
      resolve(answered);
    };
    const limit = setTimeout(() => finish({ ...NOTHING, status: -1 }), PATIENCE);
    const reader = new Reader(
      ({ first, fields, body, framing, isWhole }) => {
        const status = Number(first.split(" ")[1]);
        if (status >= 200) finish({ status, fields, body, framing, isWhole });
      },
      () => method !== "HEAD",
    );
    socket.on("data", (chunk) => reader.push(chunk));
    socket.on("end", () => {
      reader.end(true);
      finish(NOTHING);
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      reader.end(false);
      finish(NOTHING);
    });
    void write(socket, [head, ...pieces]);
  });
}

const CRLF = Buffer.from("\r\n");
const LAST = Buffer.from("0\r\n\r\n");

/** Writes the first two pieces at once, and every further one in a turn of its own. */
async function write(socket: Socket, pieces: Buffer[]): Promise<void> {
  socket.write(Buffer.concat(pieces.slice(0, 2)));
  for (const piece of pieces.slice(2)) {
    await new Promise(setImmediate);
    if (socket.destroyed) return;
    socket.write(piece);
  }
}
