// A search of every byte that leaves the edge for what a client or an endpoint wrote. A sentinel (a word that stands
// nowhere else) is put into each place where such text comes in. Then everything that left is searched for all of them,
// in many spellings: collectors, observations, metrics, the log, headers, requests for rules and health, endpoints that
// the fence excludes, and KV.
import { createHash } from "node:crypto";
import { request } from "node:http";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Collector } from "./collector.js";
import { Edge, type Json, formPart, keyDigest, region, rules, serve, stopAll, until } from "./harness.js";
import { workerd } from "./workerd.js";

const OPERATOR = "operator-token-0123456789";

/** Each place where text of a client or endpoint comes in, with its sentinel. */
const places = [
  "prompt",
  "system",
  "toolargument",
  "toolname",
  "schema",
  "user",
  "conversation",
  "cachekey",
  "metadata",
  "model",
  "image",
  "key",
  "header",
  "agent",
  "cookie",
  "session",
  "idempotency",
  "traceparent",
  "tracestate",
  "baggage",
  "query",
  "path",
  "host",
  "requestid",
  "errorbody",
  "errormessage",
  "errorheader",
  "answer",
  "answermodel",
  "answerid",
  "upstreamid",
  "file",
] as const;
type Place = (typeof places)[number];
const sentinel = Object.fromEntries(
  places.map((place) => [place, `Zq${createHash("sha256").update(place).digest("hex").slice(0, 12)}xW`]),
) as Record<Place, string>;
/** The client's address. Nothing else here has these octets. */
const ADDRESS = "203.0.113.197",
  KEY = `sk-${sentinel.key}`;

/** A sentinel in many spellings. */
function spellings(word: string): string[] {
  const bytes = Buffer.from(word);
  // Base64 of a text that holds the word has one of three forms, by where in the text the word begins. The characters
  // at both ends depend on what stands beside it.
  const inner = [0, 1, 2].flatMap((before) => {
    const text = Buffer.concat([Buffer.alloc(before), bytes])
      .toString("base64")
      .replace(/=+$/, "");
    const begin = [0, 2, 3][before];
    const whole = text.slice(begin, text.length - 2);
    return [whole, whole.replaceAll("+", "-").replaceAll("/", "_")];
  });
  const each = (form: (code: string) => string) =>
    [...bytes].map((byte) => form(byte.toString(16).padStart(2, "0"))).join("");
  const all = [
    word,
    word.toLowerCase(),
    word.toUpperCase(),
    [...word].reverse().join(""),
    ...inner,
    bytes.toString("hex"),
    bytes.toString("hex").toUpperCase(),
    each((code) => `%${code}`),
    each((code) => `%${code.toUpperCase()}`),
    each((code) => `%25${code}`),
    each((code) => `\\u00${code}`),
    each((code) => `\\\\u00${code}`),
    each((code) => `\\x${code}`),
    each((code) => `&#x${code};`),
    [...bytes].join(","),
    [...bytes].join(", "),
    Buffer.from(word, "utf16le").toString("latin1"),
    createHash("sha256").update(word).digest("hex"),
    createHash("sha256").update(word).digest("base64url"),
  ];
  return [...new Set(all)];
}

/** The places whose sentinels a text holds, and in which spelling. */
function found(text: string, besides: Place[] = []): string[] {
  const words: [string, string][] = places.filter((one) => !besides.includes(one)).map((one) => [one, sentinel[one]]);
  words.push(["address", ADDRESS], ["key's digest", keyDigest(KEY)]);
  return words.flatMap(([place, word]) =>
    spellings(word)
      .filter((form) => text.includes(form))
      .map((form) => `${place}: ${form}`),
  );
}

/** A server that keeps every byte that it gets: method, path, headers and body. */
async function keeper(answer: (text: string, path: string, response: any) => void) {
  const kept: string[] = [];
  const url = await serve(async (incoming, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of incoming) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString("latin1");
    kept.push([`${incoming.method} ${incoming.url}`, ...incoming.rawHeaders, body].join("\n"));
    answer(body, incoming.url!, response);
  });
  return { url, kept };
}

const json = (response: any, status: number, value: Json, headers: Json = {}) =>
  response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(value));

/** An endpoint that refuses or answers, always with sentinels. */
const talkative = () => {
  let asked = 0;
  return keeper((body, path, response) => {
    asked++;
    const error = {
      error: { message: sentinel.errormessage, type: "x", code: sentinel.errorbody, param: sentinel.errorbody },
    };
    const headers = { "x-error": sentinel.errorheader, "x-request-id": sentinel.upstreamid };
    if (asked % 3 === 0) return json(response, 500, error, headers);
    if (asked % 7 === 0) return json(response, 400, error, headers);
    if (!path.includes("chat")) return json(response, 404, error, headers);
    const message = { role: "assistant", content: sentinel.answer };
    const usage = { prompt_tokens: 3, completion_tokens: 4 };
    const about = { id: sentinel.answerid, model: sentinel.answermodel, system_fingerprint: sentinel.answer };
    if (!body.includes('"stream":true')) {
      const choices = [{ index: 0, finish_reason: sentinel.answer, message }];
      return json(response, 200, { ...about, object: "chat.completion", choices, usage }, headers);
    }
    response.writeHead(200, { "content-type": "text/event-stream", ...headers });
    const event = (more: Json) => `data: ${JSON.stringify({ ...about, object: "chat.completion.chunk", ...more })}\n\n`;
    response.write(event({ choices: [{ index: 0, delta: message }] }));
    if (asked % 5 === 0) return response.end(`data: ${JSON.stringify(error)}\n\n`);
    response.end(`${event({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }], usage })}data: [DONE]\n\n`);
  });
};

/** Requests that carry every sentinel, in bodies that are served and bodies that are refused. */
function requests(): { path: string; headers: Json; body: string }[] {
  const tool = {
    type: "function",
    function: {
      name: sentinel.toolname,
      description: sentinel.schema,
      parameters: { type: "object", title: sentinel.schema },
    },
  };
  const call = {
    id: "call_1",
    type: "function",
    function: { name: sentinel.toolname, arguments: JSON.stringify({ at: sentinel.toolargument }) },
  };
  const body = (more: Json = {}) => ({
    model: "m",
    messages: [
      { role: "system", content: sentinel.system },
      { role: "user", name: sentinel.user, content: sentinel.prompt },
      { role: "assistant", tool_calls: [call] },
      { role: "tool", tool_call_id: "call_1", content: sentinel.toolargument },
    ],
    tools: [tool],
    user: sentinel.user,
    prompt_cache_key: sentinel.cachekey,
    safety_identifier: sentinel.user,
    metadata: { note: sentinel.metadata },
    ...more,
  });
  const headers = {
    authorization: `Bearer ${KEY}`,
    "cf-connecting-ip": ADDRESS,
    "content-type": "application/json",
    "user-agent": sentinel.agent,
    cookie: `a=${sentinel.cookie}`,
    "x-custom": sentinel.header,
    "x-session-id": sentinel.session,
    "x-request-id": sentinel.requestid,
    "idempotency-key": sentinel.idempotency,
    "openai-organization": sentinel.header,
    traceparent: `00-${sentinel.traceparent}`,
    tracestate: `v=${sentinel.tracestate}`,
    baggage: `user=${sentinel.baggage}`,
    "x-bailiwick-bundle": `prompts@${sentinel.header}`,
  };
  const chat = (more: Json = {}, path = "/v1/chat/completions", also: Json = {}) => ({
    path,
    headers: { ...headers, ...also },
    body: JSON.stringify(body(more)),
  });
  return [
    ...Array.from({ length: 12 }, () => chat()),
    ...Array.from({ length: 12 }, () => chat({ stream: true })),
    chat({ model: sentinel.model }),
    chat({ [sentinel.prompt]: sentinel.prompt }),
    chat({
      messages: [
        { role: "user", content: [{ type: "image_url", image_url: { url: `https://${sentinel.image}.example/` } }] },
      ],
    }),
    chat({}, `/v1/chat/completions?${sentinel.query}=${sentinel.query}`),
    chat({}, `/v1/${sentinel.path}`),
    chat({}, "/v1/chat/completions", { host: `${sentinel.host}.example` }),
    chat({}, "/v1/chat/completions", { authorization: `Bearer wrong-${sentinel.key}` }),
    { ...chat(), body: `{"${sentinel.prompt}` },
    {
      path: "/v1/responses",
      headers,
      body: JSON.stringify({
        model: "m",
        input: sentinel.prompt,
        instructions: sentinel.system,
        conversation: sentinel.conversation,
      }),
    },
    {
      path: "/v1/responses",
      headers,
      body: JSON.stringify({
        model: "m",
        input: sentinel.prompt,
        previous_response_id: `resp_${sentinel.conversation}`,
      }),
    },
    { path: `/v1/files/${sentinel.file}`, headers, body: "" },
    {
      path: "/v1/files",
      headers: { ...headers, "content-type": "multipart/form-data; boundary=B" },
      body: `${formPart("file", sentinel.file, `; filename="${sentinel.file}"`)}--B--\r\n`,
    },
  ];
}

/** Sends a request. Returns the answer's status and headers, and its body apart: that is the client's own. */
function send(
  url: string,
  one: { path: string; headers: Json; body: string },
): Promise<{ head: string; body: string }> {
  return new Promise((resolve, reject) => {
    const method = one.body === "" ? "GET" : "POST";
    const all = {
      host: "chat.example",
      ...one.headers,
      ...(one.body === "" ? {} : { "content-length": Buffer.byteLength(one.body) }),
    };
    const sent = request(url, { path: one.path, method, agent: false, headers: all }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk) => chunks.push(chunk)).on("error", reject);
      response.on("end", () =>
        resolve({
          head: [response.statusCode, ...response.rawHeaders].join("\n"),
          body: Buffer.concat(chunks).toString("latin1"),
        }),
      );
    });
    sent.on("error", reject).end(one.body);
  });
}

let egress: Record<string, string>, heads: string[], bodies: string[], inside: string, document: Json;

beforeAll(async () => {
  const [fra, par, nyc] = await Promise.all([talkative(), talkative(), talkative()]);
  const [sink, elsewhere] = await Promise.all([Collector.start(), Collector.start()]);
  const models = { models: { m: "llama" } };
  const regions = {
    ...region("DE", "eu-frankfurt", [fra.url], models),
    ...region("FR", "eu-paris", [par.url], models),
    ...region("US", "us-virginia", [nyc.url], models),
  };
  document = rules(
    7,
    regions,
    {},
    {
      logs: {
        eu: sink.sink(["eu"], { traces: `${sink.url}/v1/traces`, secret: "OTEL_EU" }),
        us: elsewhere.sink(["US"], { traces: `${elsewhere.url}/v1/traces` }),
      },
      networks: [{ prefix: "203.0.113.0/24", country: "DE" }],
      tenants: { acme: { key_sha256: [keyDigest(KEY)], services: ["chat"] } },
    },
  );
  const node = await keeper((_, path, response) => {
    if (path.startsWith("/v1/rules")) response.end(JSON.stringify(document));
    else if (path.startsWith("/v1/observations")) response.end("{}");
    else response.writeHead(404).end();
  });
  const edge = await workerd({
    RULES_URLS: `${node.url}/v1/rules`,
    HEALTH_URLS: `${node.url}/v1/health`,
    OBSERVATIONS_URLS: `${node.url}/v1/observations`,
    LEASES_URLS: `${node.url}/v1/leases`,
    OBSERVATIONS_SECONDS: "0.1",
    HEALTH_TOKEN: "worker-token",
    EXPLAIN_TOKEN: OPERATOR,
    OTEL_EU: "sink-token",
    LOGS_KEY: "pseudonym-key-0123456789-0123456789",
    STATE_KEY: "k".repeat(44),
    LOG: "all",
  });
  const answers = [];
  for (const one of requests()) answers.push(await send(edge.url, one));
  heads = answers.map(({ head }) => head);
  bodies = answers.map(({ body }) => body);
  await sink.holds('"eventName"', 24);
  await sink.holds('"startTimeUnixNano"', 24);
  const operator = { host: "chat.example", authorization: `Bearer ${OPERATOR}` };
  const asked = (path: string) => send(edge.url, { path, headers: operator, body: "" });
  await until(
    async () => node.kept.filter((one) => one.startsWith("POST /v1/observations")).length,
    (count) => count > 0,
  );
  const posts = (of: Collector) => of.posts.map((post) => JSON.stringify(post)).join("\n");
  egress = {
    "the fence's sink": posts(sink),
    "the sink outside": posts(elsewhere),
    "observations, rules, health, leases": node.kept.join("\n"),
    metrics: (await asked("/.well-known/bailiwick/metrics")).body,
    "health page": (await asked("/.well-known/bailiwick/healthz")).body,
    log: edge.log(),
    "the endpoint outside": nyc.kept.join("\n"),
  };
  inside = [...fra.kept, ...par.kept].join("\n");
}, 120_000);
afterAll(stopAll);

test("the search finds a sentinel in every spelling", () => {
  for (const place of places) {
    for (const form of spellings(sentinel[place])) {
      expect(
        found(`what stands before ${form} and after`).some((one) => one.startsWith(`${place}: `)),
        form,
      ).toBe(true);
    }
    for (let before = 0; before < 9; before++) {
      const text = `${"x".repeat(before)}${sentinel[place]}${"y".repeat(9 - before)}`;
      expect(found(Buffer.from(text).toString("base64")), place).not.toEqual([]);
      expect(found(Buffer.from(text).toString("base64url")), place).not.toEqual([]);
      expect(found(encodeURIComponent(text)), place).not.toEqual([]);
    }
  }
});

test("the sentinels were there: endpoints of the fence got them, and the client got the answers", () => {
  for (const place of ["prompt", "system", "toolargument", "toolname", "metadata", "user"] as const) {
    expect(inside, place).toContain(sentinel[place]);
  }
  expect(bodies.join()).toContain(sentinel.answer);
});

test("nothing that a client or an endpoint wrote left for a sink, a node, a log, a metric or another endpoint", () => {
  const rows = Object.entries(egress).map(([name, text]) => [name, Buffer.byteLength(text)] as const);
  const total = rows.reduce((sum, [, bytes]) => sum + bytes, 0);
  const forms = places.reduce((sum, place) => sum + spellings(sentinel[place]).length, 0);
  process.stdout.write(
    `\n${places.length + 2} sentinels in ${forms} spellings, searched in\n` +
      [...rows, ["all", total] as const]
        .map(([name, bytes]) => `${String(bytes).padStart(9)} bytes  ${name}\n`)
        .join(""),
  );
  expect(Object.entries(egress).map(([name, text]) => [name, found(text)])).toEqual(rows.map(([name]) => [name, []]));
  expect(egress["the fence's sink"].length).toBeGreaterThan(20_000);
  expect([egress["the sink outside"], egress["the endpoint outside"]]).toEqual(["", ""]);
  expect(egress.log.length).toBeGreaterThan(10_000);
});

test("headers of answers tell the client nothing but the endpoint's request id", () => {
  const all = heads.join("\n");
  process.stdout.write(`${String(Buffer.byteLength(all)).padStart(9)} bytes  headers of ${heads.length} answers\n`);
  expect(found(all, ["upstreamid"])).toEqual([]);
});

test("KV holds the rules alone", async () => {
  const edge = await Edge.start(document, { OTEL_EU: "sink-token", STATE_KEY: "k".repeat(44) });
  for (const { path, headers, body } of requests().slice(0, 30)) {
    const init = { path, headers, ...(body === "" ? {} : { method: "POST", body }) };
    await (await edge.ask(init)).text();
  }
  const kv = await edge.miniflare.getKVNamespace("RULES");
  const { keys } = await kv.list();
  expect(keys.map(({ name }) => name)).toEqual(["rules"]);
  const value = (await kv.get("rules", "text")) as string;
  process.stdout.write(`${String(Buffer.byteLength(value)).padStart(9)} bytes  KV\n`);
  expect(found(value).filter((one) => !one.startsWith("key's digest"))).toEqual([]);
});
