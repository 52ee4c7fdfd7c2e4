// Bad input over HTTP/1.1: what each kind of it gets, that nothing of it reaches the endpoint as a request of its own,
// and that the connection is closed wherever the next request's beginning is in doubt. docs/edge-wire.md lists them.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { HEALTHZ } from "./asking.js";
import { stopAll } from "./harness.js";
import { isNative } from "./native.js";
import { Client, Wire, chat, post } from "./wire.js";

const B = chat();
const SIZE = B.length.toString(16);
/** A whole request that must not be answered where it stands inside another. */
const SMUGGLED = post(chat("smuggled"));
const HEAD = "Host: chat.example\r\nContent-Type: application/json\r\n";
const POST = `POST /v1/chat/completions HTTP/1.1\r\n${HEAD}`;
const CHUNKED = `${SIZE}\r\n${B}\r\n0\r\n\r\n`;
const length = (value: string, more = "") => `${POST}Content-Length:${value}\r\n${more}\r\n${B}${SMUGGLED}`;
const encoded = (value: string, body = CHUNKED, more = "") =>
  `${POST}Transfer-Encoding:${value}\r\n${more}\r\n${body}${SMUGGLED}`;
const chunks = (body: string) => encoded(" chunked", body);
const get = (line: string, host = "Host: chat.example\r\n", more = "") => `${line}\r\n${host}${more}\r\n`;
const PATH = "/.well-known/bailiwick/healthz";
const header = (lines: string) => get(`GET ${PATH} HTTP/1.1`, undefined, lines) + SMUGGLED;
const host = (lines: string) => get(`GET ${PATH} HTTP/1.1`, lines) + SMUGGLED;
const target = (line: string) => get(line) + SMUGGLED;

/** What is sent; the statuses of the answers; whether the connection stays open; the models that the endpoint sees. */
type Row = [name: string, octets: string, statuses: number[], then: "open" | "closed", models?: string[]];
const refused = (name: string, octets: string, status = 400): Row => [name, octets, [status], "closed"];

const lengths: Row[] = [
  [
    "Content-Length, then chunked: chunked counts",
    length(` ${CHUNKED.length + SMUGGLED.length}`, "X: y\r\n")
      .replace("X: y\r\n", "Transfer-Encoding: chunked\r\n")
      .replace(`\r\n\r\n${B}`, `\r\n\r\n${CHUNKED}`),
    [200],
    "closed",
    ["m"],
  ],
  [
    "chunked, then Content-Length: chunked counts",
    encoded(" chunked", CHUNKED, `Content-Length: ${CHUNKED.length + SMUGGLED.length}\r\n`),
    [200],
    "closed",
    ["m"],
  ],
  [
    "chunked with too short a Content-Length",
    encoded(" chunked", CHUNKED, "Content-Length: 4\r\n"),
    [200],
    "closed",
    ["m"],
  ],
  [
    "chunked with Content-Length and keep-alive",
    encoded(" chunked", CHUNKED, "Content-Length: 4\r\nConnection: keep-alive\r\n"),
    [200],
    "closed",
    ["m"],
  ],
  [
    "two equal lengths: one counts",
    length(` ${B.length}`, `Content-Length: ${B.length}\r\n`),
    [200, 200],
    "open",
    ["m", "smuggled"],
  ],
  refused("two different lengths", length(` ${B.length}`, "Content-Length: 0\r\n")),
  refused("a list of equal lengths", length(` ${B.length}, ${B.length}`)),
  refused("a list of different lengths", length(` ${B.length}, 0`)),
  refused("a length with +", length(` +${B.length}`)),
  refused("a length with -", length(` -${B.length}`)),
  refused("a length with a space inside", length(` 0 ${B.length}`)),
  refused("a hexadecimal length", length(` 0x${SIZE}`)),
  refused("an empty length", length("")),
  refused("a length past 64 bits", length(` ${2n ** 64n + BigInt(B.length)}`)),
  refused("the greatest length of 64 bits", length(` ${2n ** 64n - 1n}`), 431),
  ["a length with zeros before it", length(` 000${B.length}`), [200, 200], "open", ["m", "smuggled"]],
  ["a length with spaces around it", length(`\t ${B.length} \t`), [200, 200], "open", ["m", "smuggled"]],
];

const encodings: Row[] = [
  ["chunked", encoded(" chunked"), [200, 200], "open", ["m", "smuggled"]],
  ["ChUnKeD with spaces around it", encoded("\t ChUnKeD \t"), [200, 200], "open", ["m", "smuggled"]],
  refused("chunked, chunked", encoded(" chunked, chunked")),
  refused("chunked in two lines", encoded(" chunked", CHUNKED, "Transfer-Encoding: chunked\r\n")),
  refused("identity", encoded(" identity")),
  refused("identity, chunked", encoded(" identity, chunked"), 501),
  refused("gzip, chunked", encoded(" gzip, chunked"), 501),
  refused("gzip and chunked in two lines", encoded(" gzip", CHUNKED, "Transfer-Encoding: chunked\r\n"), 501),
  refused("chunked, gzip", encoded(" chunked, gzip")),
  refused("chunked, identity in two lines", encoded(" chunked", CHUNKED, "Transfer-Encoding: identity\r\n")),
  refused("xchunked", encoded(" xchunked")),
  refused("chunked;q=1", encoded(" chunked;q=1")),
  refused("chunked with a comma", encoded(" chunked,")),
  refused('"chunked"', encoded(' "chunked"')),
  refused("chunked after a vertical tab", encoded("\x0bchunked")),
  refused("nothing", encoded("")),
  refused("a space before the colon", encoded(" x").replace("Transfer-Encoding: x", "Transfer-Encoding : chunked")),
  refused("chunked, folded", length(` ${B.length}`, "Transfer-Encoding:\r\n chunked\r\n")),
  refused("chunked over HTTP/1.0", encoded(" chunked").replace("HTTP/1.1", "HTTP/1.0")),
];

const bodies: Row[] = [
  ["an extension", chunks(`${SIZE};a=b;c="d"\r\n${B}\r\n0\r\n\r\n`), [200, 200], "open", ["m", "smuggled"]],
  ["a space after the size", chunks(`${SIZE} \r\n${B}\r\n0\r\n\r\n`), [200, 200], "open", ["m", "smuggled"]],
  refused("a size past 64 bits", chunks(`ffffffffffffffff1\r\n${B}\r\n0\r\n\r\n`)),
  refused("a size past 64 bits by zeros", chunks(`1${"0".repeat(16)}\r\n${B}\r\n0\r\n\r\n`)),
  refused("20,000 bytes of extensions", chunks(`${SIZE};${"a".repeat(20_000)}\r\n${B}\r\n0\r\n\r\n`)),
  refused("a bare LF in an extension", chunks(`${SIZE};a\nb\r\n${B}\r\n0\r\n\r\n`)),
  refused("a bare CR in an extension", chunks(`${SIZE};a\rb\r\n${B}\r\n0\r\n\r\n`)),
  refused("a bare LF after the size", chunks(`${SIZE}\n${B}\r\n0\r\n\r\n`)),
  refused("a bare LF after the data", chunks(`${SIZE}\r\n${B}\n0\r\n\r\n`)),
  refused("nothing after the data", chunks(`${SIZE}\r\n${B}0\r\n\r\n`)),
  [
    "a bare LF at the end: what follows is a trailer",
    chunks(`${SIZE}\r\n${B}\r\n0\r\n\n`),
    [200, 400],
    "closed",
    ["m"],
  ],
  refused("a size with 0x", chunks(`0x${SIZE}\r\n${B}\r\n0\r\n\r\n`)),
  refused("a size with -", chunks(`-1\r\n${B}\r\n0\r\n\r\n`)),
  refused("a space before the size", chunks(` ${SIZE}\r\n${B}\r\n0\r\n\r\n`)),
  refused("no size", chunks(`\r\n${B}\r\n0\r\n\r\n`)),
  [
    "trailers that frame or route",
    chunks(
      `${SIZE}\r\n${B}\r\n0\r\nContent-Length: 5\r\nHost: other.example\r\nTransfer-Encoding: gzip\r\nX-T: 1\r\n\r\n`,
    ),
    [200, 200],
    "open",
    ["m", "smuggled"],
  ],
  refused("a trailer without a colon", chunks(`${SIZE}\r\n${B}\r\n0\r\nno trailer\r\n\r\n`)),
  refused("trailers that end with LF", chunks(`${SIZE}\r\n${B}\r\n0\r\nX-T: 1\nX-U: 2\r\n\r\n`)),
  refused("35,000 bytes of trailers", chunks(`${SIZE}\r\n${B}\r\n0\r\n${"X: 12\r\n".repeat(5_000)}\r\n`)),
  [
    "a body of GET isn't a request",
    `GET /v1/models HTTP/1.1\r\n${HEAD}Content-Length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`,
    [200],
    "open",
    [""],
  ],
  [
    "a chunked body of GET neither",
    `GET /v1/models HTTP/1.1\r\n${HEAD}Transfer-Encoding: chunked\r\n\r\n` +
      `${SMUGGLED.length.toString(16)}\r\n${SMUGGLED}\r\n0\r\n\r\n`,
    [200],
    "open",
    [""],
  ],
];

const lines: Row[] = [
  ["bare LF for CRLF: the same request", post().replaceAll("\r\n", "\n"), [200], "open", ["m"]],
  ["one bare LF among CRLF", post().replace("Host: chat.example\r\n", "Host: chat.example\n"), [200], "open", ["m"]],
  ["empty lines before a request", `\r\n\r\n${HEALTHZ}`, [200], "open"],
  refused("a bare CR in a value", header("X: a\rTransfer-Encoding: chunked\r\n")),
  refused("NUL in a value", header("X: a\0b\r\n")),
  refused("another control character in a value", header("X: a\x01b\r\n")),
  refused("NUL in a name", header("X\0: a\r\n")),
  refused("a folded value", header("X: a\r\n b\r\n")),
  refused("a folded first line", host(" Host: chat.example\r\n")),
  refused("a space before the colon", host("Host : chat.example\r\n")),
  refused("an empty name", header(": a\r\n")),
  refused("a line without a colon", header("abc\r\n")),
  refused("a space in a name", header("a b: c\r\n")),
];

const targets: Row[] = [
  [
    "a URL whose host isn't that of Host: the URL's counts",
    get(`GET http://chat.example${PATH} HTTP/1.1`, "Host: other.example\r\n"),
    [200],
    "open",
  ],
  [
    "a URL of another host",
    get(`GET http://other.example${PATH} HTTP/1.1`) + get("GET http://other.example/v1/models HTTP/1.1"),
    [200, 404],
    "open",
  ],
  refused("a URL without Host", `GET http://chat.example${PATH} HTTP/1.1\r\n\r\n${SMUGGLED}`),
  refused("a URL with a user", target(`GET http://me@chat.example${PATH} HTTP/1.1`)),
  refused("a URL of another scheme", target("GET ftp://chat.example/v1/models HTTP/1.1")),
  refused("a file's URL", target("GET file:///etc/passwd HTTP/1.1")),
  refused("CONNECT: no tunnel", target("CONNECT chat.example:443 HTTP/1.1"), 501),
  refused("CONNECT with a path", target("CONNECT /v1/models HTTP/1.1"), 501),
  refused("a host and a port without CONNECT", target("GET chat.example:443 HTTP/1.1")),
  ["OPTIONS *", get("OPTIONS * HTTP/1.1"), [404], "open"],
  refused("* without OPTIONS", target("GET * HTTP/1.1")),
  refused("a path without a slash", target("GET v1/models HTTP/1.1")),
  refused("NUL in the target", target("GET /v1/\0 HTTP/1.1")),
  refused("a space in the target", target("GET /v1/mo dels HTTP/1.1")),
  refused("two spaces", target("GET  /v1/models HTTP/1.1")),
  refused("tabs for spaces", target("GET\t/v1/models\tHTTP/1.1")),
  refused("no method", target(" /v1/models HTTP/1.1")),
  refused("a method with @", target("G@T /v1/models HTTP/1.1")),
  ["dots and backslashes", get("GET /v1/../v1/models HTTP/1.1") + get("GET /v1\\models HTTP/1.1"), [400, 400], "open"],
  ["TRACE gets nothing back", get("TRACE /v1/models HTTP/1.1"), [405], "open"],
  refused("HTTP/0.9", `GET /v1/models\r\n\r\n${SMUGGLED}`),
  refused("HTTP/3.7", target("GET /v1/models HTTP/3.7")),
  refused("HTTP/1.2", target("GET /v1/models HTTP/1.2")),
  refused("http/1.1", target("GET /v1/models http/1.1")),
  refused("HTTP/2.0 that isn't its preface", `PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n${SMUGGLED}`),
  refused("bytes that are no HTTP", `\x00\x01\x02${"\xff".repeat(100)}`),
  refused("a target of 70,000 bytes", target(`GET /${"a".repeat(70_000)} HTTP/1.1`), 431),
];

const hosts: Row[] = [
  refused("two", host("Host: chat.example\r\nHost: other.example\r\n")),
  refused("two that are equal", host("Host: chat.example\r\nHost: chat.example\r\n")),
  refused("none", host("")),
  ["none over HTTP/1.0", get(`GET ${PATH} HTTP/1.0`, ""), [200], "closed"],
  refused("an empty one", host("Host:\r\n")),
  refused("one with a user", host("Host: me@chat.example\r\n")),
  refused("one with a space", host("Host: chat.example other.example\r\n")),
  refused("one with a comma", host("Host: chat.example,other.example\r\n")),
  refused("one with a slash", host("Host: chat.example/v1\r\n")),
  refused("one with a port that is none", host("Host: chat.example:99999\r\n")),
  refused("one with %", host("Host: chat%2eexample\r\n")),
  refused("a broken address", host("Host: [[]\r\n")),
];

const others: Row[] = [
  [
    "pipelined requests: answers in order",
    get("GET /v1/nothing HTTP/1.1") + post() + HEALTHZ,
    [404, 200, 200],
    "open",
    ["m"],
  ],
  [
    "a bad one after a good one, and one after it",
    post() + get("GET /v1/models HTTP/3.7") + SMUGGLED,
    [200, 400],
    "closed",
    ["m"],
  ],
  ["100 headers", get(`GET ${PATH} HTTP/1.1`, undefined, "X: 1\r\n".repeat(99)), [200], "open"],
  refused("101 headers", header("X: 1\r\n".repeat(100)), 431),
  refused("66,000 bytes of headers", header(`X: ${"a".repeat(66_000)}\r\n`), 431),
  refused("headers without an end", `GET ${PATH} HTTP/1.1\r\nX: ${"a".repeat(1 << 20)}`, 431),
  [
    "Connection: close, then keep-alive",
    post(B, "Connection: close\r\nConnection: keep-alive\r\n") + SMUGGLED,
    [200],
    "closed",
    ["m"],
  ],
  ["another expectation", post(B, "Expect: 200-ok\r\n"), [200], "open", ["m"]],
  [
    "an upgrade to h2c is ignored",
    post(B, "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
    [200],
    "open",
    ["m"],
  ],
  [
    "an upgrade to WebSocket",
    get(
      "GET /v1/realtime HTTP/1.1",
      undefined,
      "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
    ),
    [501],
    "open",
  ],
  [
    "bytes after an upgrade are requests",
    get("GET /v1/realtime HTTP/1.1", undefined, "Connection: Upgrade\r\nUpgrade: websocket\r\n") + post(),
    [501, 200],
    "open",
    ["m"],
  ],
];

describe.skipIf(!isNative)("bad input over HTTP/1.1", () => {
  let wire: Wire;
  beforeAll(async () => {
    wire = await Wire.start({ toml: '[limits]\nheaders = "5s"\n', limits: { idle: "2s" } });
  });
  afterAll(stopAll);

  const tables: [string, Row[]][] = [
    ["lengths", lengths],
    ["transfer codings", encodings],
    ["chunked bodies", bodies],
    ["lines of headers", lines],
    ["targets and versions", targets],
    ["hosts", hosts],
    ["connections", others],
  ];
  describe.each(tables)("%s", (_kind, rows) => {
    test.each(rows)("%s", async (_name, octets, statuses, then, models = []) => {
      const before = wire.seen.length;
      const client = new Client(wire.open()).send(octets);
      const answers = then === "closed" ? await client.closed() : await client.answers(statuses.length);
      expect(
        answers.map((answer) => answer.status),
        client.received.slice(0, 500),
      ).toEqual(statuses);
      if (then === "open") {
        client.send(HEALTHZ);
        const after = await client.answers(statuses.length + 1);
        expect(after.map((answer) => answer.status)).toEqual([...statuses, 200]);
      }
      expect(client.isReset).toBe(false);
      client.socket.destroy();
      expect(wire.seen.slice(before).map((seen) => (seen.body ? JSON.parse(seen.body).model : ""))).toEqual(models);
      expect(wire.lives()).toBe(true);
    });
  });

  test("nothing reaches the endpoint that concerns the connection, or says who the client is", async () => {
    const more =
      "Connection: content-length, host, content-type, authorization, x-odd\r\nKeep-Alive: 5\r\nTE: trailers\r\n" +
      "Trailer: X-T\r\nProxy-Connection: x\r\nProxy-Authorization: y\r\nUpgrade: h2c\r\n" +
      "X-Forwarded-For: 192.0.2.1\r\n" +
      "Forwarded: for=192.0.2.1\r\nCF-Connecting-IP: 192.0.2.1\r\nX-Odd: 1\r\n";
    const before = wire.seen.length;
    const client = new Client(wire.open()).send(post(B, more));
    expect((await client.answers(1))[0].status).toBe(200);
    const { headers, body } = wire.seen[before];
    expect(Object.keys(headers).sort()).toEqual(["accept-encoding", "content-length", "content-type", "host"]);
    expect([headers["content-length"], body]).toEqual([String(B.length), B]);
  });

  test("no trailer reaches the endpoint, and a length that was chunked is its own", async () => {
    const before = wire.seen.length;
    const client = new Client(wire.open());
    client.send(`${POST}Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n${SIZE}\r\n${B}\r\n0\r\nX-T: 1\r\n\r\n`);
    expect((await client.answers(1))[0].status).toBe(200);
    const { headers, trailers } = wire.seen[before];
    expect([headers["transfer-encoding"], headers["content-length"], { ...trailers }]).toEqual([
      undefined,
      String(B.length),
      {},
    ]);
  });

  test("a body that is refused at its head isn't asked for by 100", async () => {
    const head = `POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: ${B.length}\r\n`;
    const client = new Client(wire.open()).send(`${head}Expect: 100-continue\r\n\r\n`);
    expect((await client.closed()).map((answer) => answer.status)).toEqual([400]);
    const asking = new Client(wire.open()).send(`${POST}Content-Length: ${B.length}\r\nExpect: 100-continue\r\n\r\n`);
    expect((await asking.answers(1)).map((answer) => answer.status)).toEqual([100]);
    asking.send(B);
    expect((await asking.answers(2)).map((answer) => answer.status)).toEqual([100, 200]);
  });

  test("whoever sends a large body that is refused gets the answer, not a reset", async () => {
    const head = "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 20000000\r\n\r\n";
    for (let i = 0; i < 5; i += 1) {
      const client = new Client(wire.open()).send(head).send(Buffer.alloc(20_000_000, "a"));
      const answers = await client.closed();
      expect([answers.map((answer) => answer.status), client.isReset]).toEqual([[400], false]);
      client.socket.destroy();
    }
  });

  test("1,000 clients with headers without an end cost memory for no more than those", async () => {
    await wire.serves();
    const before = wire.memory();
    const clients = Array.from({ length: 200 }, () => new Client(wire.open()));
    for (let round = 0; round < 5; round += 1) {
      const answers = await Promise.all(
        clients.map((_, i) => {
          const client = new Client(wire.open()).send(`GET / HTTP/1.1\r\n${`X-${i}: a\r\n`.repeat(9_000)}`);
          return client.closed().then((answers) => (client.socket.destroy(), answers[0]?.status));
        }),
      );
      expect(new Set(answers)).toEqual(new Set([431]));
      expect(await wire.serves()).toBe(true);
    }
    expect(wire.memory() - before).toBeLessThan(60_000);
  });
});
