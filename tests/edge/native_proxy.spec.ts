// Proxies in front of the native gateway: whose word counts for the client's address and place.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { HEALTHZ, type Question, ask, dial, heard } from "./asking.js";
import { Gateway, METRICS, TOP, certificate } from "./gateway.js";
import { stopAll } from "./harness.js";
import { Endpoint } from "./held.js";
import { isNative } from "./native.js";

afterAll(stopAll);

/** The address of a proxy that is trusted, of a second one, and of somebody else. */
const [PROXY, SECOND, OTHER] = ["127.0.0.2", "127.0.0.3", "127.0.9.9"];
const TRUST = 'trust = ["127.0.0.0/24", "2001:db8:aaaa::/48"]\n';
const networks = [
  { prefix: "192.0.2.0/24", country: "DE" },
  { prefix: "198.51.100.0/24", country: "US" },
  { prefix: "2001:db8:1::/48", country: "DE" },
  { prefix: "2001:db8:2::/48", country: "US" },
];

const DE = "eu-frankfurt";
const US = "us-virginia";
const DENIED = "residency_denied";

describe.skipIf(!isNative)("behind a proxy, the native gateway", () => {
  let endpoint: Endpoint;
  beforeAll(async () => {
    endpoint = await Endpoint.start();
  });
  const start = (proxy: string, more: object[] = [], top = "", files = {}) =>
    Gateway.start({
      config: `${TOP}${METRICS}${top}[proxy]\n${TRUST}${proxy}`,
      files: { "rules.json": endpoint.rules({ networks: [...networks, ...more] }), ...files },
    });
  const place = async (gateway: Gateway, question: Question) => {
    const { region, code, status } = await ask(gateway.address, question);
    return region ?? code ?? String(status);
  };

  test("takes the client's address from CF-Connecting-IP", async () => {
    const gateway = await start("");
    const cases: [string, string, Record<string, string | string[]>, string][] = [
      [PROXY, "a client in Germany", { "cf-connecting-ip": "192.0.2.7" }, DE],
      [PROXY, "a client in the United States", { "cf-connecting-ip": "2001:db8:2::7" }, US],
      [PROXY, "two headers", { "cf-connecting-ip": ["192.0.2.7", "192.0.2.8"] }, DENIED],
      [PROXY, "the same header twice", { "cf-connecting-ip": ["192.0.2.7", "192.0.2.7"] }, DENIED],
      [PROXY, "a list", { "cf-connecting-ip": "192.0.2.7,192.0.2.8" }, DENIED],
      [PROXY, "no address", { "cf-connecting-ip": "germany" }, DENIED],
      [PROXY, "no header", {}, DENIED],
      [PROXY, "the other header", { "x-forwarded-for": "192.0.2.7" }, DENIED],
      [OTHER, "an untrusted peer's header", { "cf-connecting-ip": "192.0.2.7" }, DENIED],
    ];
    for (const [from, why, headers, expected] of cases)
      expect(await place(gateway, { from, headers }), why).toBe(expected);
  });

  test("knows a proxy and a client by IPv4, too, where it listens by IPv6 for both", async () => {
    const config = `${TOP.replace("127.0.0.1", "[::]")}[proxy]\n${TRUST}`;
    const more = [{ prefix: "127.0.9.0/24", country: "US" }];
    const files = { "rules.json": endpoint.rules({ networks: [...networks, ...more] }) };
    const gateway = await Gateway.start({ config, files });
    const address = gateway.address.replace("[::]", "127.0.0.1");
    const headers = { "cf-connecting-ip": "192.0.2.7" };
    expect((await ask(address, { from: PROXY, headers })).region).toBe(DE);
    expect((await ask(address, { from: OTHER, headers })).region).toBe(US);
  });

  test("takes the last address of X-Forwarded-For that no trusted proxy has", async () => {
    const gateway = await start('address = "x-forwarded-for"\n');
    const cases: [string, string | string[] | undefined, string][] = [
      ["one address", "192.0.2.7", DE],
      ["a chain of trusted proxies", `198.51.100.7, ${SECOND}, ${PROXY}`, US],
      ["a trusted proxy by IPv6", "192.0.2.7, 2001:db8:aaaa::1", DE],
      ["a prefix that the client forged", "192.0.2.7, 198.51.100.7", US],
      ["a prefix that the client forged, and a chain", `192.0.2.7, 198.51.100.7, ${SECOND}`, US],
      ["a forged prefix that names a trusted proxy", `192.0.2.7, ${SECOND}, 198.51.100.7`, US],
      ["several headers", ["192.0.2.7", "198.51.100.7"], US],
      ["several headers, the last of them a proxy", ["192.0.2.7, 198.51.100.7", SECOND], US],
      ["a port", "198.51.100.7:4711", US],
      ["a port behind brackets", "[2001:db8:1::7]:443", DE],
      ["IPv6 without brackets", "2001:db8:2::7", US],
      ["IPv4 within IPv6", "::ffff:192.0.2.7", DE],
      ["a proxy as IPv4 within IPv6", `192.0.2.7, ::ffff:${SECOND}`, DE],
      ["a word at the end, which isn't skipped", "192.0.2.7, unknown", DENIED],
      ["an empty end, which isn't skipped", "192.0.2.7,", DENIED],
      ["a second header that is empty", ["192.0.2.7", ""], DENIED],
      ["only proxies", `${SECOND}, ${PROXY}`, DENIED],
      ["no header", undefined, DENIED],
    ];
    for (const [why, value, expected] of cases) {
      const headers = { "cf-connecting-ip": "192.0.2.7", ...(value === undefined ? {} : { "x-forwarded-for": value }) };
      expect(await place(gateway, { from: PROXY, headers }), why).toBe(expected);
    }
    expect(await place(gateway, { from: OTHER, headers: { "x-forwarded-for": "192.0.2.7" } }), "a peer").toBe(DENIED);
    // A longest chain is read in time, too.
    const long = `192.0.2.7, ${Array(900).fill(SECOND).join(", ")}`;
    expect(await place(gateway, { from: PROXY, headers: { "x-forwarded-for": long } })).toBe(DE);
  });

  test("takes a client's place from bailiwick-cf of a trusted proxy only", async () => {
    const gateway = await start("");
    const at = (country: string) => JSON.stringify({ country, latitude: 50, longitude: 8 });
    const cases: [string, string, Record<string, string | string[]>, string][] = [
      [PROXY, "a place", { "bailiwick-cf": at("DE") }, DE],
      [PROXY, "another place", { "bailiwick-cf": at("US") }, US],
      [
        PROXY,
        "networks of the rules count first",
        { "bailiwick-cf": at("DE"), "cf-connecting-ip": "198.51.100.7" },
        US,
      ],
      [PROXY, "two headers", { "bailiwick-cf": [at("DE"), at("DE")] }, DENIED],
      [PROXY, "no JSON", { "bailiwick-cf": "DE" }, DENIED],
      [PROXY, "a code that is no country", { "bailiwick-cf": at("ZZ") }, DENIED],
      [PROXY, "a line break in it", { "bailiwick-cf": '{"country":"DE\\nx"}' }, DENIED],
      [OTHER, "an untrusted peer's place", { "bailiwick-cf": at("DE") }, DENIED],
    ];
    for (const [from, why, headers, expected] of cases)
      expect(await place(gateway, { from, headers }), why).toBe(expected);
    const sent = endpoint.seen.at(-1)!.headers;
    expect([sent["bailiwick-cf"], sent["cf-connecting-ip"]]).toEqual([undefined, undefined]);
  });

  /** A header of version 2. */
  function v2(client: string, { command = 0x21, more = Buffer.alloc(0) } = {}): Buffer {
    const is4 = !client.includes(":");
    const groups = (text: string) => {
      const [head, tail = ""] = text.split("::").map((part) => part.split(":").filter(Boolean));
      const all = [...head, ...Array(8 - head.length - tail.length).fill("0"), ...tail];
      return all.flatMap((group) => [Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 0xff]);
    };
    const octets = is4 ? client.split(".").map(Number) : groups(client);
    const said = Buffer.concat([Buffer.from([...octets, ...octets.map(() => 1), 0x12, 0x34, 0x01, 0xbb]), more]);
    const head = Buffer.from([command, is4 ? 0x11 : 0x21, said.length >> 8, said.length & 0xff]);
    return Buffer.concat([Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1"), head, said]);
  }
  const v1 = (client: string) => `PROXY TCP${client.includes(":") ? 6 : 4} ${client} ${client} 56324 443\r\n`;

  test.each([false, true])("reads the PROXY protocol, versions 1 and 2 (TLS: %s)", async (isTls) => {
    const { cert, key } = certificate("one");
    const tls = isTls ? 'tls = { cert = "edge.pem", key = "edge.key" }\n' : "";
    const more = [
      { prefix: "127.0.0.2/32", country: "DE" },
      { prefix: "127.0.9.0/24", country: "US" },
    ];
    const gateway = await start("protocol = true\n", more, tls, { "edge.pem": cert, "edge.key": key });
    const extension = Buffer.concat([Buffer.from([0x04, 0x02, 0x00]), Buffer.alloc(512)]);
    const cases: [string, string | Buffer, string][] = [
      ["version 1 by IPv4", v1("198.51.100.7"), US],
      ["version 1 by IPv6", v1("2001:db8:1::7"), DE],
      ["version 1, unknown: the proxy itself", "PROXY UNKNOWN\r\n", DE],
      ["version 2 by IPv4", v2("198.51.100.7"), US],
      ["version 2 by IPv6", v2("2001:db8:2:0:0:0:0:7"), US],
      ["version 2 with extensions", v2("198.51.100.7", { more: extension }), US],
      ["version 2 of the proxy's own health check", v2("198.51.100.7", { command: 0x20 }), DE],
      ["a client in no network", v2("203.0.113.7"), DENIED],
    ];
    for (const [why, before, expected] of cases) {
      // Then headers say nothing, not even those of a trusted proxy.
      const headers = { "cf-connecting-ip": "192.0.2.7", "bailiwick-cf": '{"country":"DE"}' };
      expect(await place(gateway, { from: PROXY, before, isTls, headers }), why).toBe(expected);
    }
    const headers = { "cf-connecting-ip": "192.0.2.7", "bailiwick-cf": '{"country":"DE"}' };
    expect(await place(gateway, { from: OTHER, isTls, headers }), "others are served as ever").toBe(US);
    // A header of somebody who isn't trusted is part of a bad request.
    if (!isTls) {
      const socket = await dial(gateway.address, { from: OTHER, before: v1("192.0.2.7") + HEALTHZ });
      expect(await heard(socket)).toMatch(/^HTTP\/1\.1 400 /);
    }

    const broken = [
      "GET / HTTP/1.1\r\nHost: chat.example\r\n\r\n",
      "PROXY TCP4 1.2.3.4\r\n",
      `PROXY ${"x".repeat(200)}`,
    ];
    for (const before of broken) {
      const socket = await dial(gateway.address, { from: PROXY, before });
      expect(await heard(socket), before).toBe("");
    }
    const name = 'bailiwick_edge_connections_closed_total{reason="proxy_header"}';
    expect((await gateway.samples())[name]).toBe(broken.length);
  });

  test("reads a PROXY header and TLS that come octet by octet", async () => {
    const gateway = await start("protocol = true\n");
    const header = v2("198.51.100.7");
    const socket = await dial(gateway.address, { from: PROXY });
    socket.setNoDelay(true);
    const hearing = heard(socket);
    const request = HEALTHZ.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    for (const octet of Buffer.concat([header, Buffer.from(request)]))
      await new Promise((written) => socket.write(Buffer.from([octet]), written));
    expect(await hearing).toMatch(/^HTTP\/1\.1 200 /);
  });
});
