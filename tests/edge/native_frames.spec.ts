// Bad input over HTTP/2: malformed requests, floods of frames and of resets. What each gets, that the endpoint sees
// none of it, that memory stays bounded, and that other clients are served meanwhile. docs/edge-wire.md lists them.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import * as h2 from "./frames.js";
import { type Field, GET, H2, POST, block, frame, indexed, literal, number } from "./frames.js";
import { stopAll } from "./harness.js";
import { isNative } from "./native.js";
import { Wire, chat } from "./wire.js";

const B = chat();
const with_ = (name: string, value: string) => GET.map((field) => (field[0] === name ? [name, value] : field) as Field);
const without = (name: string) => GET.filter((field) => field[0] !== name);
const and = (name: string, value: string): Field[] => [...GET, [name, value]];
const many = (count: number): Field[] => [...GET, ...Array.from({ length: count }, (_, i) => [`x-${i}`, "1"] as Field)];

const MALFORMED = `reset ${h2.PROTOCOL_ERROR}`;
const BROKEN = `goaway ${h2.PROTOCOL_ERROR}`;
const CALM = `goaway ${h2.ENHANCE_YOUR_CALM}`;

/** The outcome of a request of GET with these fields. */
const heads: [name: string, fields: Field[], outcome: string][] = [
  ["a good one", GET, "200"],
  ["Host as :authority", and("host", "chat.example"), "200"],
  ["another Host", and("host", "other.example"), "400"],
  ["two Hosts", [...GET, ["host", "chat.example"], ["host", "chat.example"]], "400"],
  ["Host alone", [...without(":authority"), ["host", "chat.example"]], "200"],
  ["no host at all", without(":authority"), "400"],
  [":authority with a user", with_(":authority", "me@chat.example"), "400"],
  [":authority with a space", with_(":authority", "a b"), MALFORMED],
  ["an empty :authority", with_(":authority", ""), MALFORMED],
  ["two of :authority", [...GET, [":authority", "chat.example"]], MALFORMED],
  ["connection", and("connection", "close"), MALFORMED],
  ["keep-alive", and("keep-alive", "timeout=5"), MALFORMED],
  ["proxy-connection", and("proxy-connection", "close"), MALFORMED],
  ["transfer-encoding", and("transfer-encoding", "chunked"), MALFORMED],
  ["upgrade", and("upgrade", "h2c"), MALFORMED],
  ["te: trailers", and("te", "trailers"), "200"],
  ["te: gzip", and("te", "gzip"), MALFORMED],
  ["a name in upper case", and("X-Upper", "1"), BROKEN],
  ["a name with a space", and("x a", "1"), BROKEN],
  ["a name with a colon", and("x:a", "1"), BROKEN],
  ["an empty name", and("", "1"), BROKEN],
  ["a name with LF", and("x\na", "1"), BROKEN],
  ["a value with CR", and("x-a", "a\rb"), BROKEN],
  ["a value with LF", and("x-a", "a\nb"), BROKEN],
  ["a value with CRLF and a header", and("x-a", "a\r\nHost: other.example"), BROKEN],
  ["a value with NUL", and("x-a", "a\0b"), BROKEN],
  ["a pseudo-header after others", [GET[0], GET[1], ["x-a", "1"], GET[2], GET[3]], MALFORMED],
  ["an unknown pseudo-header", [[":odd", "1"], ...GET], BROKEN],
  ["a pseudo-header of answers", [[":status", "200"], ...GET], MALFORMED],
  ["two of :method", [GET[0], ...GET], MALFORMED],
  ["no :method", without(":method"), MALFORMED],
  ["a :method with a space", with_(":method", "GE T"), BROKEN],
  ["a :method with a line of HTTP/1.1", with_(":method", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"), BROKEN],
  ["no :scheme", without(":scheme"), MALFORMED],
  ["another :scheme", with_(":scheme", "ftp"), "400"],
  ["a :scheme with a space", with_(":scheme", "h ttp"), MALFORMED],
  ["no :path", without(":path"), MALFORMED],
  ["an empty :path", with_(":path", ""), MALFORMED],
  ["a :path without a slash", with_(":path", "v1/models"), MALFORMED],
  ["a :path that is a URL", with_(":path", "http://other.example/v1/models"), MALFORMED],
  ["a :path with a host", with_(":path", "//other.example/v1/models"), "400"],
  ["a :path with a space", with_(":path", "/v1/mo dels"), MALFORMED],
  ["a :path with a line of HTTP/1.1", with_(":path", "/ HTTP/1.1\r\nX: y"), MALFORMED],
  ["* without OPTIONS", with_(":path", "*"), "400"],
  ["CONNECT", [[":method", "CONNECT"], GET[2]], "501"],
  ["CONNECT with a path", with_(":method", "CONNECT"), MALFORMED],
  ["CONNECT to WebSocket", [...with_(":method", "CONNECT"), [":protocol", "websocket"]], MALFORMED],
  ["a content-length without a body", and("content-length", "5"), MALFORMED],
  ["a content-length with +", and("content-length", "+0"), MALFORMED],
  ["two content-lengths", [...GET, ["content-length", "0"], ["content-length", "1"]], MALFORMED],
  ["200 fields", many(200), "200"],
  ["2,000 fields", many(2_000), "431"],
  ["70,000 bytes of a field", and("x-a", "a".repeat(70_000)), "431"],
];

/** Sends so many frames that `make` makes, in pieces, until the gateway ends the connection. */
async function flood(client: H2, count: number, make: (i: number) => Buffer[]): Promise<void> {
  for (let from = 0; from < count && !client.isClosed && client.goaway === undefined; from += 500) {
    const size = Math.min(500, count - from);
    client.send(...Array.from({ length: size }, (_, i) => make(from + i)).flat());
    await new Promise((resolve) => setImmediate(resolve));
  }
}

const odd = (i: number) => 2 * i + 1;
const open = (id: number) => frame(h2.HEADERS, h2.END_HEADERS, id, block(POST));
const LAST = 100_001;

/** Frames that are sent so many times, and what becomes of the request after them. */
const floods: [name: string, count: number, make: (i: number) => Buffer[], outcome: string, first?: Buffer][] = [
  [
    "requests that are reset at once",
    10_000,
    (i) => [frame(h2.HEADERS, 5, odd(i), block(GET)), frame(h2.RST_STREAM, 0, odd(i), number(h2.CANCEL))],
    CALM,
  ],
  [
    "requests that the gateway has to reset: a window past its end",
    10_000,
    (i) => [open(odd(i)), frame(h2.WINDOW_UPDATE, 0, odd(i), number(0x7fffffff))],
    CALM,
  ],
  [
    "requests that the gateway has to reset: a stream that depends on itself",
    10_000,
    (i) => [open(odd(i)), frame(h2.PRIORITY, 0, odd(i), Buffer.concat([number(odd(i)), Buffer.from([1])]))],
    CALM,
  ],
  [
    "requests that the gateway has to reset: malformed ones",
    10_000,
    (i) => [frame(h2.HEADERS, 5, odd(i), block(and("te", "gzip")))],
    CALM,
  ],
  ["a window that opens by 0", 10_000, (i) => [open(odd(i)), frame(h2.WINDOW_UPDATE, 0, odd(i), number(0))], BROKEN],
  [
    "DATA after the end of a request",
    10_000,
    (i) => [frame(h2.HEADERS, 5, odd(i), block(GET)), frame(h2.DATA, 0, odd(i), Buffer.from("x"))],
    BROKEN,
  ],
  [
    "CONTINUATION with headers",
    10_000,
    (i) => [frame(h2.CONTINUATION, 0, 1, block([[`x-${i}`, "a".repeat(1_000)]]))],
    CALM,
    frame(h2.HEADERS, h2.END_STREAM, 1, block(GET)),
  ],
  [
    "empty CONTINUATION",
    10_000,
    () => [frame(h2.CONTINUATION, 0, 1)],
    CALM,
    frame(h2.HEADERS, h2.END_STREAM, 1, block(GET)),
  ],
  ["empty DATA", 100_000, () => [frame(h2.DATA, 0, 1)], CALM, open(1)],
  ["DATA of one byte", 100_000, () => [frame(h2.DATA, 0, 1, Buffer.from(" "))], CALM, open(1)],
  ["SETTINGS", 100_000, () => [frame(h2.SETTINGS, 0, 0, Buffer.concat([Buffer.from([0, 3]), number(100)]))], "200"],
  ["PING", 100_000, () => [frame(h2.PING, 0, 0, Buffer.alloc(8))], "200"],
  [
    "PRIORITY",
    100_000,
    (i) => [frame(h2.PRIORITY, 0, odd(i % 1_000), Buffer.concat([number(odd(i % 1_000) + 2), Buffer.from([1])]))],
    "200",
  ],
  ["WINDOW_UPDATE", 100_000, () => [frame(h2.WINDOW_UPDATE, 0, 0, number(1))], "200"],
  ["frames of a type that nobody knows", 100_000, () => [frame(0x42, 0, 0, Buffer.alloc(10))], "200"],
];

/** Frames that break the connection, and the error of GOAWAY. */
const breaks: [name: string, frames: Buffer[], outcome: string][] = [
  ["a field that refers to nothing", [frame(h2.HEADERS, 5, 1, Buffer.concat([block(GET), indexed(99)]))], BROKEN],
  [
    "a table past the limit",
    [frame(h2.HEADERS, 5, 1, Buffer.concat([Buffer.from([0x3f, 0xe1, 0xff, 0xff, 0x07]), block(GET)]))],
    BROKEN,
  ],
  ["half a field", [frame(h2.HEADERS, 5, 1, block(GET).subarray(0, -3))], BROKEN],
  ["a frame past the limit", [frame(h2.DATA, 0, 1, Buffer.alloc(16_385))], `goaway ${h2.FRAME_SIZE_ERROR}`],
  ["DATA without a request", [frame(h2.DATA, 0, 1, Buffer.alloc(5))], BROKEN],
  ["a reset without a request", [frame(h2.RST_STREAM, 0, 5, number(h2.CANCEL))], BROKEN],
  ["a stream with an even number", [frame(h2.HEADERS, 5, 2, block(GET))], BROKEN],
  ["PUSH_PROMISE of a client", [frame(5, h2.END_HEADERS, 1, Buffer.concat([number(2), block(GET)]))], BROKEN],
  [
    "PING between HEADERS and CONTINUATION",
    [frame(h2.HEADERS, h2.END_STREAM, 1, block(GET)), frame(h2.PING, 0, 0, Buffer.alloc(8))],
    BROKEN,
  ],
  ["SETTINGS of 5 bytes", [frame(h2.SETTINGS, 0, 0, Buffer.alloc(5))], BROKEN],
  ["a window past its end", [frame(h2.WINDOW_UPDATE, 0, 0, number(0x7fffffff))], `goaway ${h2.FLOW_CONTROL_ERROR}`],
  [
    "an entry of the table, 12,000 times",
    [
      frame(
        h2.HEADERS,
        5,
        1,
        Buffer.concat([
          block(GET),
          literal(["x-a", "a".repeat(3_900)], true),
          ...Array.from({ length: 12_000 }, () => indexed(62)),
        ]),
      ),
    ],
    CALM,
  ],
];

describe.skipIf(!isNative)("bad input over HTTP/2", () => {
  let wire: Wire;
  beforeAll(async () => {
    wire = await Wire.start({ toml: '[limits]\nheaders = "5s"\nstreams = 16\n', limits: { idle: "2s" } });
    await wire.serves();
  });
  afterAll(stopAll);

  test.each(heads)("a request with %s", async (_name, fields, outcome) => {
    const before = wire.seen.length;
    const client = new H2(wire.open());
    const octets = block(fields);
    const pieces = Array.from({ length: Math.ceil(octets.length / 16_000) }, (_, i) =>
      octets.subarray(i * 16_000, (i + 1) * 16_000),
    );
    const last = pieces.length - 1;
    client.send(
      ...pieces.map((piece, i) =>
        frame(i ? h2.CONTINUATION : h2.HEADERS, (i === last ? h2.END_HEADERS : 0) | (i ? 0 : h2.END_STREAM), 1, piece),
      ),
    );
    expect(await client.outcome(1)).toBe(outcome);
    // A stream's error leaves the others alone.
    expect(await client.request(3, GET).outcome(3)).toBe(outcome.startsWith("goaway") ? outcome : "200");
    client.socket.destroy();
    expect([wire.seen.length - before, wire.lives()]).toEqual([0, true]);
  });

  test.each([
    ["less than its content-length", [["content-length", String(B.length + 1)]] as Field[], MALFORMED, 0],
    ["more than its content-length", [["content-length", String(B.length - 1)]] as Field[], MALFORMED, 0],
    ["as much as its content-length", [["content-length", String(B.length)]] as Field[], "200", 1],
  ])("a body of %s", async (_name, more, outcome, count) => {
    const before = wire.seen.length;
    const client = new H2(wire.open()).request(1, [...POST, ...more], B);
    expect(await client.outcome(1)).toBe(outcome);
    expect(await client.request(3, GET).outcome(3)).toBe("200");
    client.socket.destroy();
    expect(wire.seen.length - before).toBe(count);
  });

  test("trailers don't reach the endpoint", async () => {
    const before = wire.seen.length;
    const client = new H2(wire.open());
    const trailers: Field[] = [
      ["x-t", "1"],
      ["host", "other.example"],
      ["content-length", "1"],
    ];
    client.send(open(1), frame(h2.DATA, 0, 1, Buffer.from(B)), frame(h2.HEADERS, 5, 1, block(trailers)));
    expect(await client.outcome(1)).toBe("200");
    client.socket.destroy();
    const [seen, ...more] = wire.seen.slice(before);
    expect([seen.body, { ...seen.trailers }, more]).toEqual([B, {}, []]);
    expect(Object.keys(seen.headers).sort()).toEqual(["accept-encoding", "content-length", "content-type", "host"]);
  });

  test("a pseudo-header in trailers is malformed", async () => {
    const before = wire.seen.length;
    const client = new H2(wire.open());
    const trailers = block([
      ["x-t", "1"],
      [":path", "/x"],
    ]);
    client.send(open(1), frame(h2.DATA, 0, 1, Buffer.from(B)), frame(h2.HEADERS, 5, 1, trailers));
    expect([await client.outcome(1), wire.seen.length - before]).toEqual([MALFORMED, 0]);
    client.socket.destroy();
  });

  test.each(breaks)("%s ends the connection", async (_name, frames, outcome) => {
    const before = [wire.seen.length, wire.memory()];
    const client = new H2(wire.open()).send(...frames);
    await client.until(() => client.goaway !== undefined);
    expect(`goaway ${client.goaway}`).toBe(outcome);
    await client.until(() => client.isClosed);
    client.socket.destroy();
    expect(wire.seen.length).toBe(before[0]);
    expect(wire.memory() - before[1]).toBeLessThan(16_000);
  });

  test("a body past the window ends its request, or the connection", async () => {
    const before = [wire.seen.length, wire.memory()];
    const client = new H2(wire.open());
    client.send(open(1), ...Array.from({ length: 200 }, () => frame(h2.DATA, 0, 1, Buffer.alloc(16_000))));
    const { FLOW_CONTROL_ERROR } = h2;
    expect([`reset ${FLOW_CONTROL_ERROR}`, `goaway ${FLOW_CONTROL_ERROR}`]).toContain(await client.outcome(1));
    client.socket.destroy();
    expect(wire.seen.length).toBe(before[0]);
    expect(wire.memory() - before[1]).toBeLessThan(16_000);
  });

  test.each(floods)("a flood of %s", async (_name, count, make, outcome, first) => {
    await wire.serves();
    const before = [wire.seen.length, wire.memory()];
    const clients = Array.from({ length: 3 }, () => new H2(wire.open()));
    if (first) for (const client of clients) client.send(first);
    const flooding = Promise.all(clients.map((client) => flood(client, count, make)));
    expect(await wire.serves(), "another client is served meanwhile").toBe(true);
    await flooding;
    for (const client of clients) {
      client.request(LAST, GET);
      expect(await client.outcome(LAST)).toBe(outcome);
      client.socket.destroy();
    }
    expect(wire.seen.length - before[0], "what reached the endpoint").toBe(1);
    expect(wire.memory() - before[1]).toBeLessThan(16_000);
    expect(wire.lives()).toBe(true);
  });

  test("SETTINGS and PING whose answers nobody reads wait in TCP, not in memory", async () => {
    await wire.serves();
    const before = wire.memory();
    for (const bait of [frame(h2.SETTINGS, 0, 0), frame(h2.PING, 0, 0, Buffer.alloc(8))]) {
      const client = new H2(wire.open());
      client.socket.pause();
      const bunch = Buffer.concat(Array.from({ length: 100_000 }, () => bait));
      for (let i = 0; i < 20; i += 1) client.send(bunch);
      // The gateway stops reading: what is sent stays in this process.
      expect(await wire.serves()).toBe(true);
      expect(client.socket.writableLength).toBeGreaterThan(10 * bunch.length);
      client.socket.destroy();
    }
    expect(wire.memory() - before).toBeLessThan(16_000);
  });

  test("a client that takes back most of its requests, one after the other, is cut off", async () => {
    const before = wire.seen.length;
    const client = new H2(wire.open());
    let sent = 0;
    for (; sent < 2_000 && !client.isClosed; sent += 1) {
      // The request is being worked on when it is reset: the answer to a PING says that it was read.
      const { pongs } = client;
      client.send(open(odd(sent)), frame(h2.PING, 0, 0, Buffer.alloc(8)));
      await client.until(() => client.pongs > pongs);
      client.send(frame(h2.RST_STREAM, 0, odd(sent), number(h2.CANCEL)));
    }
    await client.until(() => client.isClosed);
    expect(sent).toBeGreaterThan(100);
    expect(sent).toBeLessThan(200);
    expect(wire.seen.length - before).toBe(0);
    expect(await wire.serves()).toBe(true);
  });

  test("of more requests at once than limits.streams allows, those past it are refused", async () => {
    const client = new H2(wire.open());
    await client.until(() => client.settings.size > 0);
    expect(client.settings.get(3)).toBe(16);
    for (let i = 0; i < 17; i += 1) client.send(open(odd(i)));
    expect(await client.outcome(odd(16))).toBe(`reset ${h2.REFUSED_STREAM}`);
    for (let i = 0; i < 16; i += 1) client.send(frame(h2.DATA, h2.END_STREAM, odd(i), Buffer.from(B)));
    for (let i = 0; i < 16; i += 1) expect(await client.outcome(odd(i))).toBe("200");
    client.socket.destroy();
  });
});
