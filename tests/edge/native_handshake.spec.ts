// What comes before HTTP at the native gateway: TLS that is half open, old or none, and the PROXY protocol that is
// missing, broken, or sent by somebody who isn't trusted. docs/edge-wire.md lists them.
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ConnectionOptions, type TLSSocket, connect } from "node:tls";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { HEALTHZ } from "./asking.js";
import { onStop, stopAll } from "./harness.js";
import { isNative } from "./native.js";
import { Client, Wire, post } from "./wire.js";

const LIMITS = '[limits]\nheaders = "1s"\n';
const FOUR = "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";

/** A header of version 2: command, family, length, and what follows. */
const binary = (command: number, family: number, length: number, said: number[]) =>
  Buffer.concat([
    Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1"),
    Buffer.from([command, family, length >> 8, length & 255, ...said]),
  ]);
const ADDRESSES = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 4, 1, 0xbb];

/** How long the gateway lets a client be, and what it got. */
async function left(client: Client): Promise<[boolean, string]> {
  const begun = performance.now();
  await client.closed();
  const took = performance.now() - begun;
  return [took > 900 && took < 5_000, client.received];
}

describe.skipIf(!isNative)("TLS", () => {
  let wire: Wire;
  beforeAll(async () => {
    const folder = mkdtempSync(join(tmpdir(), "bailiwick-tls-"));
    onStop(() => rmSync(folder, { recursive: true, force: true }));
    const [key, cert] = [join(folder, "edge.key"), join(folder, "edge.pem")];
    const kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    const args = ["req", ...kind, "-subj", "/CN=chat.example", "-keyout", key, "-out", cert];
    execFileSync("openssl", args, { stdio: "ignore" });
    wire = await Wire.start({
      toml: `tls = { cert = "edge.pem", key = "edge.key" }\n${LIMITS}`,
      files: { "edge.key": readFileSync(key, "utf8"), "edge.pem": readFileSync(cert, "utf8") },
    });
  });
  afterAll(stopAll);

  function secure(options: ConnectionOptions = {}): TLSSocket {
    const [host, port] = wire.native.address.split(":");
    const socket = connect({ host, port: Number(port), rejectUnauthorized: false, ...options });
    socket.on("error", () => {});
    onStop(() => socket.destroy());
    return socket;
  }

  /** Whether another client is served over TLS. */
  async function serves(): Promise<boolean> {
    const client = new Client(secure());
    const [answer] = await client.send(post()).answers(1);
    client.socket.destroy();
    return answer?.status === 200;
  }

  /** The code of the alert that ends a handshake. */
  async function alert(options: ConnectionOptions): Promise<string> {
    const [error] = await once(secure(options), "error");
    return error.code;
  }

  /** The first bytes of a real client. */
  async function hello(): Promise<Buffer> {
    const { createServer } = await import("node:net");
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as { port: number };
    const client = connect({ host: "127.0.0.1", port });
    client.on("error", () => {});
    const [socket] = await once(server, "connection");
    const [bytes] = await once(socket, "data");
    socket.destroy();
    client.destroy();
    server.close();
    return bytes;
  }

  test("who sends nothing, or half a ClientHello, is closed after limits.headers; others are served", async () => {
    const whole = await hello();
    const half = whole.subarray(0, whole.length / 2);
    const clients = Array.from({ length: 100 }, (_, i) => new Client(wire.open()).send(i % 2 ? half : ""));
    const all = Promise.all(clients.map(left));
    expect(await serves()).toBe(true);
    expect(await all).toEqual(clients.map(() => [true, ""]));
    expect(await serves()).toBe(true);
  });

  test("who sends nothing after the handshake is closed after limits.headers", async () => {
    const socket = secure();
    await once(socket, "secureConnect");
    expect(await left(new Client(socket))).toEqual([true, ""]);
  });

  test.each([
    ["HTTP in the clear", HEALTHZ],
    ["bytes that are nothing", "\xff".repeat(1_000)],
    ["a record past the limit", "\x16\x03\x01\xff\xff".padEnd(70_000, "\0")],
  ])("%s gets no answer in the clear", async (_name, octets) => {
    const before = wire.seen.length;
    const client = new Client(wire.open()).send(octets);
    await client.closed();
    expect(client.received).not.toContain("HTTP");
    // Nothing, or an alert.
    expect(client.received.length).toBeLessThan(16);
    expect([wire.seen.length - before, await serves()]).toEqual([0, true]);
  });

  test("TLS 1.0 and 1.1 are refused by an alert", async () => {
    for (const version of ["TLSv1", "TLSv1.1"] as const) {
      const old = { minVersion: version, maxVersion: version, ciphers: "DEFAULT@SECLEVEL=0" };
      expect(await alert(old)).toBe("ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE");
    }
  });

  test("so is another application protocol", async () => {
    expect(await alert({ ALPNProtocols: ["spdy/1"] })).toBe("ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL");
  });
});

describe.skipIf(!isNative)("the PROXY protocol", () => {
  let wire: Wire;
  beforeAll(async () => {
    const toml = `proxy = { trust = ["127.0.0.0/8"], protocol = true }\n${LIMITS}`;
    wire = await Wire.start({ toml, clients: ["eu"] });
  });
  afterAll(stopAll);

  test("a header of a trusted proxy is read, however it comes", async () => {
    for (const header of [Buffer.from(FOUR), binary(0x21, 0x11, 12, ADDRESSES), binary(0x20, 0, 0, [])]) {
      const client = new Client(wire.open());
      for (const byte of header) client.send(Buffer.from([byte]));
      expect((await client.send(HEALTHZ).answers(1))[0].status).toBe(200);
      client.socket.destroy();
    }
  });

  test.each([
    ["no header", Buffer.from(HEALTHZ)],
    ["a header in lower case", Buffer.from(FOUR.toLowerCase())],
    ["a header without ports", Buffer.from("PROXY TCP4 192.0.2.7 198.51.100.1\r\n")],
    ["a header past 107 bytes", Buffer.from(`PROXY TCP4 ${"1".repeat(200)}`)],
    ["a header of version 2 past 4,096 bytes", binary(0x21, 0x11, 0xffff, ADDRESSES)],
    ["a header of version 2 with another command", binary(0x22, 0x11, 12, ADDRESSES)],
    ["a header of version 2 too short for its addresses", binary(0x21, 0x11, 4, [192, 0, 2, 7])],
    ["bytes that are nothing", Buffer.alloc(1_000, 0xff)],
  ])("%s is closed without an answer", async (_name, octets) => {
    const client = new Client(wire.open()).send(octets).send(HEALTHZ);
    await client.closed();
    expect([client.received, wire.seen.length, wire.lives()]).toEqual(["", 0, true]);
  });

  test("half a header is closed after limits.headers", async () => {
    for (const half of [Buffer.from(FOUR.slice(0, 20)), binary(0x21, 0x11, 12, [192, 0])])
      expect(await left(new Client(wire.open()).send(half))).toEqual([true, ""]);
  });

  test("a second header is bad HTTP", async () => {
    const client = new Client(wire.open()).send(FOUR + FOUR + HEALTHZ);
    expect((await client.closed()).map((answer) => answer.status)).toEqual([400]);
  });

  test("behind a header, what the client says of itself doesn't count", async () => {
    const said = 'bailiwick-cf: {"country":"DE"}\r\nCF-Connecting-IP: 192.0.2.9\r\nX-Forwarded-For: 192.0.2.9\r\n';
    const client = new Client(wire.open()).send(FOUR + post(undefined, said));
    const [answer] = await client.answers(1);
    expect([answer.status, JSON.parse(answer.body).error.code]).toEqual([451, "residency_denied"]);
    expect(wire.seen.length).toBe(0);
    client.socket.destroy();
  });

  test("a header of somebody who isn't trusted is bad HTTP, and others need none", async () => {
    const toml = `proxy = { trust = ["192.0.2.0/24"], protocol = true }\n${LIMITS}`;
    const other = await Wire.start({ toml });
    for (const header of [Buffer.from(FOUR), binary(0x21, 0x11, 12, ADDRESSES)]) {
      const client = new Client(other.open()).send(Buffer.concat([header, Buffer.from(post())]));
      expect((await client.closed()).map((answer) => answer.status)).toEqual([400]);
    }
    expect(other.seen.length).toBe(0);
    expect(await other.serves()).toBe(true);
  });
});
