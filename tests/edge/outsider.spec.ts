// The edge as an outside tester sees it: workerd on a real socket, with requests that no library would send. A refusal
// comes in OpenAI's envelope with our headers, and nothing is sent. What passes carries nothing that it shouldn't.
import { type IncomingHttpHeaders, request } from "node:http";
import { connect } from "node:net";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Faulty } from "./faulty.js";
import { type Json, keyDigest, region, rules, serve, stopAll, until } from "./harness.js";
import { workerd } from "./workerd.js";

let url: string, fra: Faulty, down: Faulty, health: Json;

beforeAll(async () => {
  [fra, down] = await Promise.all([Faulty.start(), Faulty.start()]);
  const regions = {
    ...region("DE", "eu-frankfurt", [`${fra.url}/echo`], { secret: "FRA_KEY" }),
    ...region("FR", "eu-secretless", [`${down.url}/echo`], { secret: "NOT_SET" }),
    "eu-pair": {
      countries: ["NL"],
      endpoints: {
        "pair-1": { url: `${down.url}/echo/v1`, priority: 0 },
        "pair-2": { url: `${fra.url}/echo/v1`, priority: 1 },
      },
    },
  };
  const networks = [
    { prefix: "198.51.100.0/24", country: "DE" },
    { prefix: "2001:db8::/32", country: "JP" },
  ];
  const key = (key: string, ...services: string[]) => ({ key_sha256: [keyDigest(key)], services });
  const document = rules(
    1,
    regions,
    { hosts: ["open.example"], regions: ["eu-frankfurt"] },
    {
      networks,
      tenants: { acme: key("sk-acme", "keyed"), other: key("sk-other", "elsewhere") },
    },
  );
  const service = (hosts: string[], regions: string[]) => ({ ...document.services.chat, hosts, regions });
  Object.assign(document.services, {
    keyed: service(["keyed.example"], ["eu-frankfurt"]),
    elsewhere: service(["elsewhere.example"], ["eu-frankfurt"]),
    secretless: service(["secretless.example"], ["eu-secretless"]),
    either: service(["either.example"], ["eu-secretless", "eu-frankfurt"]),
    pair: service(["pair.example"], ["eu-pair"]),
  });
  const report = { status: "up", probed: "up", stale: false, override: null, age_ms: 0, interval_ms: 5000 };
  health = {
    node: "ns1",
    revision: 1,
    rules_sha256: "",
    regions: { "eu-pair": { ...report, endpoints: { "pair-1": { status: "down" }, "pair-2": { status: "up" } } } },
  };
  const node = await serve((request, response) =>
    response.end(JSON.stringify(request.url?.startsWith("/v1/rules") ? document : health)),
  );
  ({ url } = await workerd({ RULES_URL: `${node}/v1/rules`, HEALTH_URLS: `${node}/v1/health`, FRA_KEY: "upstream" }));
});
beforeEach(() => {
  fra.asked.length = down.asked.length = 0;
});
afterAll(stopAll);

interface Probe {
  host?: string;
  path?: string;
  method?: string;
  body?: string | Buffer;
  /** A body that is sent without a length. */
  chunked?: boolean;
  headers?: Record<string, string | string[]>;
}

const BODY = '{"model":"m","messages":[]}';

function ask({
  host = "open.example",
  path = "/v1/chat/completions",
  method = "POST",
  body = BODY,
  chunked = false,
  headers = {},
}: Probe) {
  return new Promise<{ status: number; headers: IncomingHttpHeaders; text: string; json: any }>((resolve, reject) => {
    const bytes = Buffer.from(body);
    const length: Record<string, string> = chunked || method === "GET" ? {} : { "content-length": `${bytes.length}` };
    const sent = request(
      url,
      { path, method, agent: false, headers: { host, "cf-connecting-ip": "198.51.100.7", ...length, ...headers } },
      (response) => {
        let text = "";
        response.on("data", (chunk) => (text += chunk)).on("error", reject);
        response.on("end", () => {
          let json = null;
          try {
            json = JSON.parse(text);
          } catch {}
          resolve({ status: response.statusCode!, headers: response.headers, text, json });
        });
      },
    );
    sent.on("error", reject);
    if (method === "GET") sent.end();
    else sent.end(bytes);
  });
}

const bearer = (key: string) => ({ authorization: `Bearer ${key}` });
const keyed = (headers: Record<string, string | string[]>): Probe => ({ host: "keyed.example", headers });
const image = (value: unknown) => ({
  body: JSON.stringify({
    model: "m",
    messages: [{ role: "user", content: [{ type: "image_url", image_url: value }] }],
  }),
});
const MB = 1 << 20;

const refused: [string, Probe, number, string][] = [
  // Keys.
  ["no key", keyed({}), 401, "missing_api_key"],
  ["an empty key", keyed({ authorization: "Bearer", "api-key": "" }), 401, "missing_api_key"],
  [
    "a key in the query alone",
    { host: "keyed.example", path: "/v1/chat/completions?api-key=sk-acme" },
    400,
    "key_in_query",
  ],
  ["a key in the query of another spelling", { path: "/v1/models?Access-Token=x", method: "GET" }, 400, "key_in_query"],
  ["a key written in another case", keyed(bearer("SK-ACME")), 401, "invalid_api_key"],
  ["a key with a tail", keyed(bearer("sk-acme,")), 401, "invalid_api_key"],
  ["the header twice", keyed({ authorization: ["Bearer sk-acme", "Bearer sk-other"] }), 401, "invalid_api_key"],
  ["api-key twice", keyed({ "api-key": ["sk-acme", "sk-other"] }), 401, "invalid_api_key"],
  ["two keys, one of them wrong", keyed({ ...bearer("sk-acme"), "api-key": "sk-nobody" }), 401, "conflicting_api_keys"],
  ["a tenant of another service", keyed(bearer("sk-other")), 403, "service_not_allowed"],
  ["the digest in place of the key", keyed(bearer(keyDigest("sk-acme"))), 401, "invalid_api_key"],
  // Hosts and places.
  ["a host nobody has", { host: "example" }, 404, "unknown_host"],
  ["a host with a name in front", { host: "x.open.example" }, 404, "unknown_host"],
  ["an address instead of a body", { headers: { "cf-connecting-ip": "::ffff:203.0.113.9" } }, 451, "residency_denied"],
  ["a client from elsewhere", { headers: { "cf-connecting-ip": "2001:db8::1" } }, 451, "residency_denied"],
  ["addresses in a list", { headers: { "cf-connecting-ip": "198.51.100.7, 198.51.100.8" } }, 451, "residency_denied"],
  [
    "a country that only a header claims",
    {
      headers: {
        "cf-connecting-ip": "",
        "cf-ipcountry": "DE",
        "x-forwarded-for": "198.51.100.7",
        "x-bailiwick-region": "eu-frankfurt",
      },
    },
    451,
    "residency_denied",
  ],
  // Bodies.
  ["33 MiB announced", { body: Buffer.alloc(33 * MB, " ") }, 413, "body_too_large"],
  ["33 MiB in chunks", { body: Buffer.alloc(33 * MB, " "), chunked: true }, 413, "body_too_large"],
  ["nothing", { body: "" }, 400, "missing_body"],
  ["nothing, in chunks", { body: "", chunked: true }, 400, "missing_body"],
  ["spaces", { body: " \n\t" }, 400, "invalid_json"],
  ["UTF-16", { body: Buffer.from(`\ufeff${BODY}`, "utf16le") }, 400, "invalid_json"],
  ["a byte-order mark", { body: `\ufeff${BODY}` }, 400, "invalid_json"],
  ["two documents", { body: `${BODY}\n${BODY}` }, 400, "invalid_json"],
  ["a comment", { body: `${BODY}//` }, 400, "invalid_json"],
  ["a trailing comma", { body: '{"model":"m",}' }, 400, "invalid_json"],
  ["a raw control character", { body: '{"model":"m\u0001"}' }, 400, "invalid_json"],
  [
    "an overlong encoding",
    { body: Buffer.from([...Buffer.from('{"model":"'), 0xc0, 0xaf, ...Buffer.from('"}')]) },
    400,
    "invalid_json",
  ],
  [
    "a form",
    { body: "model=m", headers: { "content-type": "application/x-www-form-urlencoded" } },
    400,
    "invalid_json",
  ],
  ["gzip", { headers: { "content-encoding": "gzip" } }, 415, "unsupported_content_encoding"],
  ["identity and br", { headers: { "content-encoding": "identity, br" } }, 415, "unsupported_content_encoding"],
  [
    "a key twice, one of them escaped",
    { body: '{"model":"m","\\u0073tream":true,"stream":false}' },
    400,
    "duplicate_key",
  ],
  ["an empty key twice", { body: '{"":1,"model":"m","":2}' }, 400, "duplicate_key"],
  ["stream as a string", { body: '{"model":"m","stream":"false"}' }, 400, "invalid_field"],
  ["stream as a number", { body: '{"model":"m","stream":1}' }, 400, "invalid_field"],
  ["model as a list", { body: '{"model":["m"]}' }, 400, "invalid_field"],
  ["no model", { body: '{"messages":[]}' }, 400, "invalid_field"],
  ["a model of 300 bytes", { body: JSON.stringify({ model: "m".repeat(300) }) }, 400, "invalid_field"],
  ["STREAM", { body: '{"model":"m","STREAM":true}' }, 400, "miscased_key"],
  [
    "tools, with the s that Go takes for one",
    { body: '{"model":"m","tool\\u017f":[{"type":"web_search"}]}' },
    400,
    "miscased_key",
  ],
  [
    "a search at the model host",
    { body: '{"model":"m","search_parameters":{"mode":"on"}}' },
    400,
    "hosted_tool_not_allowed",
  ],
  ["tools that are no list", { body: '{"model":"m","tools":{"type":"web_search"}}' }, 400, "invalid_field"],
  ["a tool that is a word", { body: '{"model":"m","tools":["web_search"]}' }, 400, "hosted_tool_not_allowed"],
  ["a remote image", image({ url: "https://x.example/" }), 400, "remote_url_not_allowed"],
  ["a remote image, its scheme in capitals", image({ url: "\tHTTPS://x.example/" }), 400, "remote_url_not_allowed"],
  ["a remote image, with no object around", image("ftp://x.example/"), 400, "remote_url_not_allowed"],
  ["a file of the host's", image({ url: "file:///etc/passwd" }), 400, "remote_url_not_allowed"],
  ["a form where one is taken", { path: "/v1/audio/transcriptions" }, 400, "invalid_form"],
  // Paths and methods.
  ["capitals", { path: "/V1/chat/completions" }, 404, "unknown_path"],
  ["a parameter in the path", { path: "/v1/chat/completions;x=1" }, 404, "unknown_path"],
  ["a slash at the end", { path: "/v1/chat/completions/" }, 400, "invalid_path"],
  ["an encoded NUL", { path: "/v1/models/%00", method: "GET" }, 400, "invalid_path"],
  ["an encoded percent sign", { path: "/v1/models/%252e%252e", method: "GET" }, 400, "invalid_path"],
  ["half an escape", { path: "/v1/models/%e", method: "GET" }, 400, "invalid_path"],
  ["a look-alike slash", { path: "/v1/chat%ef%bc%8fcompletions" }, 404, "unknown_path"],
  ["broken UTF-8", { path: "/v1/models/%c3%28", method: "GET" }, 400, "invalid_path"],
  ["bytes in the query", { path: "/v1/models?limit=%ff", method: "GET" }, 400, "invalid_query"],
  ["a path of 20 kB", { path: `/v1/models/${"x".repeat(20_000)}`, method: "GET" }, 400, "invalid_path"],
  ["OPTIONS", { method: "OPTIONS" }, 405, "method_not_allowed"],
  ["DELETE of all models", { method: "DELETE", path: "/v1/models" }, 405, "method_not_allowed"],
  // Endpoints.
  ["a fence whose one secret is missing", { host: "secretless.example" }, 503, "region_unavailable"],
];

describe("refused", () => {
  test.each(refused)("%s", async (_, probe, status, code) => {
    const { headers, json, ...reply } = await ask(probe);
    expect({ status: reply.status, code: json?.error?.code }).toEqual({ status, code });
    expect(Object.keys(json.error).sort()).toEqual(["code", "message", "param", "type"]);
    expect(json.error.message).toMatch(/^.{20,}[.)]$/s);
    expect(headers["content-type"]).toBe("application/json");
    expect(headers["cache-control"]).toBe("no-store");
    expect(headers["x-bailiwick-request-id"]).toMatch(/^[0-9a-f-]{36}$/);
    expect(headers["x-bailiwick-revision"]).toBe("1");
    expect(headers["server-timing"]).toMatch(/^steer;dur=\d+, upstream;dur=\d+$/);
    expect([...fra.asked, ...down.asked]).toEqual([]);
  });
});

describe("served", () => {
  test.each<[string, Probe, string?]>([
    ["a body in chunks", { chunked: true }],
    ["identity", { headers: { "content-encoding": "identity" } }],
    ["another type named", { headers: { "content-type": "text/plain; charset=utf-16" } }],
    ["a dot after the host, capitals, a port", { host: "OPEN.example.:8443" }],
    ["letters that needn't be encoded", { path: "/v1/%63hat/completions" }],
    ["no /v1", { path: "/chat/completions" }],
    ["a v4 address written as v6", { headers: { "cf-connecting-ip": "::ffff:198.51.100.7" } }],
    ["a bearer in another case", keyed({ authorization: "BEARER   sk-acme" })],
    ["a scheme nobody reads beside a key", keyed({ authorization: "Basic eDp5", "api-key": "sk-acme" })],
    ["an unknown query", { path: "/v1/chat/completions?utm_source=x&api-version=1999" }],
    ["the endpoint that has its secret", { host: "either.example" }],
    ["the endpoint that isn't down, though the other comes first", { host: "pair.example" }, "pair-2"],
    [
      "64 headers of 100 bytes",
      { headers: Object.fromEntries(Array.from({ length: 64 }, (_, i) => [`x-odd-${i}`, "y".repeat(100)])) },
    ],
  ])("%s", async (_, probe, endpoint = "eu-frankfurt-1") => {
    const { status, headers } = await ask(probe);
    expect([status, headers["x-bailiwick-endpoint"], headers["x-bailiwick-attempts"]]).toEqual([
      200,
      endpoint,
      `${endpoint};outcome=committed`,
    ]);
    expect(down.asked).toEqual([]);
    expect(fra.asked).toHaveLength(1);
    const [{ path, body, headers: sent }] = fra.asked;
    expect([path, body]).toEqual(["/echo/v1/chat/completions", BODY]);
    expect(sent.authorization ?? "Bearer upstream").toBe("Bearer upstream");
  });

  test("only headers on the allow-list pass", async () => {
    const headers = {
      connection: "close, x-hop",
      "x-hop": "canary",
      te: "trailers",
      "proxy-authorization": "canary",
      cookie: "a=canary",
      forwarded: "for=canary",
      "x-forwarded-for": "canary",
      "x-forwarded-host": "canary",
      "x-forwarded-proto": "canary",
      "x-real-ip": "canary",
      "true-client-ip": "canary",
      via: "canary",
      "cf-ipcountry": "canary",
      "cf-visitor": "canary",
      "cf-ew-via": "canary",
      "x-bailiwick-receipt": "canary",
      "x-request-id": "canary",
      "x-api-key": "canary",
      "openai-organization": "canary",
      "openai-project": "canary",
      referer: "canary",
      origin: "https://canary",
      "user-agent": "canary",
      "accept-language": "canary",
      range: "bytes=0-1",
      "if-none-match": "canary",
      expect: "100-continue",
      "accept-encoding": "gzip",
      accept: "application/json",
      "idempotency-key": expect.stringMatching(/^bw-[0-9a-f]{32}$/),
    };
    expect((await ask({ headers })).status).toBe(200);
    const [{ headers: sent }] = fra.asked;
    expect(JSON.stringify(sent)).not.toContain("canary");
    expect(sent).toMatchObject({
      accept: "application/json",
      "idempotency-key": expect.stringMatching(/^bw-[0-9a-f]{32}$/),
      "accept-encoding": "identity",
      "content-type": "application/json",
    });
    const known = [
      "accept",
      "accept-encoding",
      "authorization",
      "cf-worker",
      "content-length",
      "content-type",
      "host",
      "idempotency-key",
      "connection",
    ];
    expect(Object.keys(sent).filter((name) => !known.includes(name))).toEqual([]);
  });
});

/** Sends bytes on a socket. Returns what comes back, up to `end`. */
function raw(text: string, end: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(Number(new URL(url).port), "127.0.0.1");
    let seen = "";
    socket.on("data", (chunk) => {
      seen += chunk.toString("latin1");
      if (seen.includes(end)) (resolve(seen), socket.destroy());
    });
    socket.on("error", reject).on("close", () => resolve(seen));
    socket.write(Buffer.from(text, "latin1"));
  });
}

describe("bytes that are nearly HTTP", () => {
  const after = (headers: string) =>
    `POST /v1/chat/completions HTTP/1.1\r\nHost: open.example\r\nCF-Connecting-IP: 198.51.100.7\r\n${headers}`;
  test.each([
    ["two lengths", after(`Content-Length: 2\r\nContent-Length: 27\r\n\r\n${BODY}`)],
    ["a length and chunks", after(`Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n1b\r\n${BODY}\r\n0\r\n\r\n`)],
    ["a folded header", after(`Content-Length: 27\r\ntraceparent: a\r\n b: c\r\n\r\n${BODY}`)],
    ["a header with a CR in it", after(`Content-Length: 27\r\ntraceparent: a\rx-evil: b\r\n\r\n${BODY}`)],
    ["a space before the colon", after(`Content-Length: 27\r\nauthorization : Bearer x\r\n\r\n${BODY}`)],
    ["chunks that are none", after("Transfer-Encoding: chunked\r\n\r\nzz\r\n")],
    ["a header of 1 MB", after(`x-large: ${"x".repeat(MB)}\r\nContent-Length: 27\r\n\r\n${BODY}`)],
    ["no method", "\r\n\r\n\u0000\u0001\u0002\r\n\r\n"],
    [
      "an absolute form of somewhere else",
      "POST http://user:pw@nobody.example/v1/chat/completions HTTP/1.1\r\nHost: open.example\r\n" +
        `CF-Connecting-IP: 198.51.100.7\r\nContent-Length: 27\r\n\r\n${BODY}`,
    ],
  ])("%s", async (_, text) => {
    const seen = await raw(text, "\r\n\r\n");
    expect(seen).toMatch(/^(HTTP\/1\.1 [2-5]\d\d |$)/);
    // Whichever way workerd reads the bytes, they are one complete request.
    for (const { body, headers } of fra.asked) {
      expect(body).toBe(BODY);
      expect(JSON.stringify(headers)).not.toContain("evil");
    }
    expect(fra.asked.length).toBeLessThan(2);
    expect((await ask({})).status, "the next request isn't served").toBe(200);
  });
});

test("large bodies beyond 64 MiB at a time are refused, until there is room again", async () => {
  const sockets = Array.from({ length: 12 }, () =>
    connect(Number(new URL(url).port), "127.0.0.1").on("error", () => {}),
  );
  const answers = sockets.map((socket) => {
    socket.write(
      "POST /v1/chat/completions HTTP/1.1\r\nHost: open.example\r\nCF-Connecting-IP: 198.51.100.7\r\n" +
        `Content-Length: ${8 * MB}\r\n\r\n`,
    );
    // All bytes but the last are sent, so that the Worker holds them.
    socket.write(Buffer.alloc(8 * MB - 1, " "));
    return new Promise<string>((resolve) => socket.on("data", (chunk) => resolve(String(chunk))));
  });
  const answer = await Promise.race(answers);
  expect(answer).toMatch(/^HTTP\/1\.1 503 /);
  expect(answer.toLowerCase()).toContain("retry-after: 1");
  expect(fra.asked).toEqual([]);
  for (const socket of sockets) socket.destroy();
  await until(
    () => ask({ body: `${" ".repeat(MB)}${BODY}` }),
    ({ status }) => status === 200,
  );
});
