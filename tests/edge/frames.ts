// HTTP/2 by hand: frames as a test wants them, right or wrong, and what came back.
import type { Socket } from "node:net";

export const DATA = 0;
export const HEADERS = 1;
export const PRIORITY = 2;
export const RST_STREAM = 3;
export const SETTINGS = 4;
export const PING = 6;
export const GOAWAY = 7;
export const WINDOW_UPDATE = 8;
export const CONTINUATION = 9;

export const END_STREAM = 1;
export const ACK = 1;
export const END_HEADERS = 4;

/** Codes of errors (RFC 9113 §7). */
export const NO_ERROR = 0;
export const PROTOCOL_ERROR = 1;
export const FLOW_CONTROL_ERROR = 3;
export const FRAME_SIZE_ERROR = 6;
export const REFUSED_STREAM = 7;
export const CANCEL = 8;
export const COMPRESSION_ERROR = 9;
export const ENHANCE_YOUR_CALM = 11;

export type Field = [name: string, value: string];

/** A request that the gateway answers by itself. */
export const GET: Field[] = [
  [":method", "GET"],
  [":scheme", "http"],
  [":authority", "chat.example"],
  [":path", "/.well-known/bailiwick/healthz"],
];
/** A chat completion, before its body. */
export const POST: Field[] = [
  [":method", "POST"],
  [":scheme", "http"],
  [":authority", "chat.example"],
  [":path", "/v1/chat/completions"],
  ["content-type", "application/json"],
];

/** A frame (RFC 9113 §4.1). */
export function frame(type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** A number of 32 bits, as RST_STREAM and WINDOW_UPDATE have it. */
export function number(value: number): Buffer {
  const octets = Buffer.alloc(4);
  octets.writeUInt32BE(value);
  return octets;
}

/** An integer of HPACK with a prefix of so many bits (RFC 7541 §5.1). */
function integer(value: number, bits: number, first = 0): number[] {
  const most = 2 ** bits - 1;
  if (value < most) return [first | value];
  const octets = [first | most];
  for (value -= most; value >= 128; value >>>= 7) octets.push((value & 127) | 128);
  return [...octets, value];
}

const text = (value: string) => Buffer.concat([Buffer.from(integer(value.length, 7)), Buffer.from(value, "latin1")]);

/** A field as a literal that isn't remembered, or that is (RFC 7541 §6.2). */
export const literal = ([name, value]: Field, isRemembered = false) =>
  Buffer.concat([Buffer.from([isRemembered ? 0x40 : 0]), text(name), text(value)]);

/** A field by its number in the tables (RFC 7541 §6.1). */
export const indexed = (index: number) => Buffer.from(integer(index, 7, 0x80));

export const block = (fields: Field[]) => Buffer.concat(fields.map((field) => literal(field)));

/** What came for a stream. */
export interface Stream {
  status?: number;
  bytes: number;
  text: string;
  isEnded: boolean;
  reset?: number;
}

export interface Options {
  /** More settings: the number and the value. */
  settings?: [number, number][];
  /** Whether windows are opened again as data comes. */
  isReading?: boolean;
  /** Whether PING is answered. */
  isAlive?: boolean;
}

/** A client of HTTP/2 over a socket. It answers SETTINGS and PING by itself. */
export class H2 {
  readonly streams = new Map<number, Stream>();
  /** The error of GOAWAY. */
  goaway?: number;
  settings = new Map<number, number>();
  /** How many acknowledgements of SETTINGS and of PING have come. */
  acks = 0;
  pongs = 0;
  pings = 0;
  isClosed = false;
  private readonly isAlive: boolean;
  private pending = Buffer.alloc(0);
  private news: () => void = () => {};

  constructor(
    readonly socket: Socket,
    { settings = [], isReading = true, isAlive = true }: Options = {},
  ) {
    this.isAlive = isAlive;
    socket.on("data", (chunk: Buffer) => this.take(chunk, isReading));
    for (const event of ["end", "close"])
      socket.on(event, () => {
        this.isClosed = true;
        this.news();
      });
    // No table for the answers' headers, so that they can be read one by one.
    const all = [[1, 0], ...settings].map(([key, value]) => Buffer.concat([Buffer.from([0, key]), number(value)]));
    this.send(Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(SETTINGS, 0, 0, Buffer.concat(all)));
  }

  send(...frames: Buffer[]): this {
    if (this.socket.writable) this.socket.write(Buffer.concat(frames));
    return this;
  }

  /** Sends a request of one block of headers, and of a body if there is one. */
  request(id: number, fields: Field[], body?: string): this {
    this.send(frame(HEADERS, END_HEADERS | (body === undefined ? END_STREAM : 0), id, block(fields)));
    return body === undefined ? this : this.send(frame(DATA, END_STREAM, id, Buffer.from(body)));
  }

  stream(id: number): Stream {
    let stream = this.streams.get(id);
    if (!stream) this.streams.set(id, (stream = { bytes: 0, text: "", isEnded: false }));
    return stream;
  }

  private take(chunk: Buffer, isReading: boolean): void {
    this.pending = Buffer.concat([this.pending, chunk]);
    while (this.pending.length >= 9) {
      const length = this.pending.readUIntBE(0, 3);
      if (this.pending.length < 9 + length) break;
      const [type, flags, id] = [this.pending[3], this.pending[4], this.pending.readUInt32BE(5)];
      const payload = this.pending.subarray(9, 9 + length);
      this.pending = this.pending.subarray(9 + length);
      this.frame(type, flags, id, payload, isReading);
    }
    this.news();
  }

  private frame(type: number, flags: number, id: number, payload: Buffer, isReading: boolean): void {
    if (type === HEADERS) this.stream(id).status ??= status(payload);
    if (type === DATA) {
      const stream = this.stream(id);
      stream.bytes += payload.length;
      if (stream.text.length < 4_096) stream.text += payload.toString("latin1");
      if (isReading && payload.length > 0)
        this.send(...[0, id].map((of) => frame(WINDOW_UPDATE, 0, of, number(payload.length))));
    }
    if ((type === HEADERS || type === DATA) && flags & END_STREAM) this.stream(id).isEnded = true;
    if (type === RST_STREAM) this.stream(id).reset = payload.readUInt32BE(0);
    if (type === GOAWAY) this.goaway = payload.readUInt32BE(4);
    if (type === SETTINGS && flags & ACK) this.acks += 1;
    else if (type === SETTINGS) {
      for (let at = 0; at < payload.length; at += 6)
        this.settings.set(payload.readUInt16BE(at), payload.readUInt32BE(at + 2));
      this.send(frame(SETTINGS, ACK, 0));
    }
    if (type === PING && flags & ACK) this.pongs += 1;
    else if (type === PING) {
      this.pings += 1;
      if (this.isAlive) this.send(frame(PING, ACK, 0, payload));
    }
  }

  /** Waits until this holds, or the connection has ended. */
  async until(fits: () => boolean, within = 8_000): Promise<this> {
    const end = Date.now() + within;
    while (!fits() && !this.isClosed) {
      const left = end - Date.now();
      if (left <= 0) throw new Error(`not within ${within} ms: ${this.state()}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.news = () => (clearTimeout(timer), resolve());
      });
    }
    return this;
  }

  /** What became of a stream: its status once it has ended, or the error of its end or of the connection's. */
  async outcome(id: number, within?: number): Promise<string> {
    const stream = this.stream(id);
    await this.until(() => stream.isEnded || stream.reset !== undefined || this.goaway !== undefined, within);
    if (stream.isEnded) return `${stream.status}`;
    if (stream.reset !== undefined) return `reset ${stream.reset}`;
    return this.goaway === undefined ? "closed" : `goaway ${this.goaway}`;
  }

  private state(): string {
    return JSON.stringify({ streams: [...this.streams], goaway: this.goaway, acks: this.acks, pongs: this.pongs });
  }
}

/** The status, which comes first: by its number in the static table, or as digits, maybe by Huffman's code. */
function status(payload: Buffer): number | undefined {
  // A table that became smaller is said first (RFC 7541 §6.3).
  const octets = payload.subarray(payload.findIndex((octet) => octet >> 5 !== 1));
  if (octets[0] & 0x80) return [200, 204, 206, 304, 400, 404, 500][(octets[0] & 127) - 8];
  const value = octets.subarray(2, 2 + (octets[1] & 127));
  if (!(octets[1] & 0x80)) return Number(value.toString());
  let bits = [...value].map((octet) => octet.toString(2).padStart(8, "0")).join("");
  let digits = "";
  while (digits.length < 3) {
    // 0, 1 and 2 have 5 bits, the others 6 (RFC 7541, appendix B).
    const short = Number.parseInt(bits.slice(0, 5), 2);
    digits += short < 3 ? short : Number.parseInt(bits.slice(0, 6), 2) - 22;
    bits = bits.slice(short < 3 ? 5 : 6);
  }
  return Number(digits);
}
