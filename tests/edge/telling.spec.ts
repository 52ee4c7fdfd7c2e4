// Logs and metrics of the edge: a log line with fixed fields for each failed request, and counters.
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { request } from "node:http";
import { type Json, StandIn, keyDigest, refusingUrl, region, rules, serve, stopAll, until } from "./harness.js";
import { workerd } from "./workerd.js";

const OPERATOR = "operator-token",
  CANARY = "CANARY-PROMPT",
  KEY = "sk-acme";
let fra: StandIn, par: StandIn, document: Json, edge: { url: string; log(): string }, feed: string;

beforeAll(async () => {
  [fra, par] = await Promise.all(["eu-frankfurt", "eu-paris"].map((name) => StandIn.start(name)));
  const models = { models: { known: "known" } };
  const regions = {
    ...region("DE", "eu-frankfurt", [fra.url], models),
    ...region("FR", "eu-paris", [par.url], models),
  };
  document = rules(
    7,
    regions,
    {},
    {
      networks: [
        { prefix: "198.51.100.0/24", country: "DE" },
        { prefix: "203.0.113.0/24", country: "JP" },
      ],
      tenants: { acme: { key_sha256: [keyDigest(KEY)], services: ["chat"] } },
    },
  );
  const until = "2999-01-01T00:00:00Z";
  document.services.drill = {
    ...document.services.chat,
    hosts: ["drill.example"],
    regions: ["eu-drill"],
    when_all_down: "fail",
  };
  Object.assign(document.regions, region("DE", "eu-drill", [fra.url]));
  document.overrides = [{ region: "eu-drill", status: "down", until, reason: "drill" }];
  feed = await serve((_, response) => response.end(JSON.stringify(document)));
  edge = await start();
});
beforeEach(() => Promise.all([fra, par].map((standIn) => standIn.reset())));
afterAll(stopAll);

const start = async (more: Record<string, string> = {}) =>
  workerd({ RULES_URLS: `${feed}/v1/rules,${await refusingUrl()}/v1/rules`, EXPLAIN_TOKEN: OPERATOR, ...more });

/** Sends a request on its own connection. Returns the answer, and the request's id. */
function ask(
  path: string,
  headers: Record<string, string>,
  json?: Json,
  to = edge,
): Promise<{ status: number; id: string; type: string; text: string }> {
  return new Promise((resolve, reject) => {
    const all = { host: "chat.example", "cf-connecting-ip": "198.51.100.7", ...headers };
    const sent = request(to.url, { path, method: json ? "POST" : "GET", agent: false, headers: all }, (response) => {
      let text = "";
      response.on("data", (chunk) => (text += chunk)).on("error", reject);
      response.on("end", () =>
        resolve({
          status: response.statusCode!,
          id: String(response.headers["x-bailiwick-request-id"]),
          type: String(response.headers["content-type"]),
          text,
        }),
      );
    });
    sent.on("error", reject).end(json && JSON.stringify(json));
  });
}

const chat = (headers: Json = {}, more: Json = {}, to = edge) =>
  ask(
    "/v1/chat/completions",
    { authorization: `Bearer ${KEY}`, "content-type": "application/json", ...headers },
    { model: "known", messages: [{ role: "user", content: CANARY }], ...more },
    to,
  );

/** All lines of the log that are JSON. */
const lines = (log: string): Json[] =>
  log.split("\n").flatMap((line) => (line.startsWith("{") ? [JSON.parse(line)] : []));

/** The one line about a request. */
async function line(id: string, to = edge): Promise<Json> {
  const found = () => lines(to.log()).filter((one) => one.request_id === id);
  await until(
    async () => found().length,
    (count) => count > 0,
  );
  expect(found()).toHaveLength(1);
  return found()[0];
}

test.each<[string, () => ReturnType<typeof ask>, Json]>([
  [
    "a missing key",
    () => chat({ authorization: "" }),
    { status: 401, code: "missing_api_key", service: "chat", tenant: null },
  ],
  [
    "a host of no service",
    () => chat({ host: "nobody.example" }),
    { status: 404, code: "unknown_host", service: null },
  ],
  [
    "no residency",
    () => chat({ "cf-connecting-ip": "203.0.113.9" }),
    { status: 451, code: "residency_denied", service: "chat", tenant: "acme", reason: "no_rule", withheld: {} },
  ],
  [
    "an override",
    () => chat({ host: "drill.example", authorization: "" }),
    {
      status: 503,
      code: "region_unavailable",
      service: "drill",
      tenant: null,
      reason: "forced",
      withheld: { "eu-drill": "forced" },
    },
  ],
  [
    "a model of no endpoint",
    () => chat({}, { model: "other" }),
    {
      status: 404,
      code: "model_not_found",
      tenant: "acme",
      reason: "no_model",
      withheld: { "eu-frankfurt": "no_model", "eu-paris": "no_model" },
    },
  ],
])("a request refused for %s has one log line with the reason", async (_, send, expected) => {
  const { id, status } = await send();
  const reported = await line(id);
  expect(reported).toMatchObject({ event: "answer", revision: "7", ...expected });
  expect(status).toBe(expected.status);
});

test("failed attempts are logged in the Worker's own words", async () => {
  await fra.fail({ mode: "status", status: 500, body: CANARY });
  const retried = await line((await chat()).id);
  expect(retried).toMatchObject({
    event: "answer",
    code: "ok",
    service: "chat",
    tenant: "acme",
    region: "eu-paris",
    endpoint: "eu-paris-1",
    end: "whole",
    stopped: null,
  });
  expect(retried.attempts).toMatch(/^eu-frankfurt-1;outcome=http_500;ms=\d+, eu-paris-1;outcome=committed$/);
});

test("a request without failures is logged only with LOG=all", async () => {
  const all = await start({ LOG: "all" });
  const { id } = await chat({}, {}, all);
  expect(await line(id, all)).toMatchObject({
    event: "answer",
    code: "ok",
    tenant: "acme",
    region: expect.any(String),
    end: "whole",
  });
  const [smooth, rough] = [await chat(), await chat({ authorization: "" })];
  await line(rough.id);
  expect(lines(edge.log()).filter((one) => one.request_id === smooth.id)).toEqual([]);
});

test("a source that can't be read is logged with its host and a word for the reason", () => {
  const reported = lines(edge.log()).filter(({ event }) => event === "rules_unreachable");
  expect(reported).toEqual([
    {
      event: "rules_unreachable",
      source: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
      reason: expect.stringMatching(/^(refused|connection)$/),
    },
  ]);
});

test("only the operator gets metrics", async () => {
  for (const authorization of ["", `Bearer ${KEY}`, "Bearer nobody"]) {
    const { status, text } = await ask("/.well-known/bailiwick/metrics", { authorization });
    expect([status, JSON.parse(text).error.code]).toEqual([401, "metrics_unauthorized"]);
  }
  const nobody = await start({ EXPLAIN_TOKEN: "" });
  expect((await ask("/.well-known/bailiwick/metrics", { authorization: "Bearer " }, undefined, nobody)).status).toBe(
    401,
  );
});

test("metrics count requests, attempts and fetches of rules, in both formats", async () => {
  const own = await start();
  await fra.fail({ mode: "status", status: 500, times: 1 });
  await chat({}, {}, own);
  await chat({ authorization: "" }, {}, own);
  await chat({ host: "drill.example" }, {}, own);
  const get = (accept: string) =>
    ask("/.well-known/bailiwick/metrics", { authorization: `Bearer ${OPERATOR}`, accept }, undefined, own);
  const { status, type, text } = await get("*/*");
  expect([status, type]).toEqual([200, "text/plain; version=0.0.4; charset=utf-8"]);
  const samples = text.split("\n").filter((one) => one && !one.startsWith("#"));
  for (const sample of samples)
    expect(sample).toMatch(/^bailiwick_edge_[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? -?[0-9.]+$/);
  for (const sample of [
    'bailiwick_edge_requests_total{service="chat",code="ok"} 1',
    'bailiwick_edge_requests_total{service="chat",code="missing_api_key"} 1',
    'bailiwick_edge_requests_total{service="drill",code="region_unavailable"} 1',
    'bailiwick_edge_attempts_total{region="eu-frankfurt",endpoint="eu-frankfurt-1",outcome="http_5xx"} 1',
    'bailiwick_edge_attempts_total{region="eu-paris",endpoint="eu-paris-1",outcome="committed"} 1',
    "bailiwick_edge_retries_total 1",
    "bailiwick_edge_rules_revision 7",
    "bailiwick_edge_requests_in_flight 1",
    "bailiwick_edge_held_bytes 0",
  ])
    expect(samples).toContain(sample);
  expect(
    samples.filter((one) => one.startsWith("bailiwick_edge_endpoint_resting")),
    "the endpoint rests for one tenant alone",
  ).toEqual([]);
  expect(
    samples.some((one) => /^bailiwick_edge_rules_looks_total\{source="127.0.0.1:\d+",outcome="taken"\} 1$/.test(one)),
  ).toBe(true);
  expect(samples.some((one) => /^bailiwick_edge_memory_bytes [1-9]\d+$/.test(one))).toBe(true);
  expect(samples.some((one) => /^bailiwick_edge_rules_age_seconds \d+\.\d{3}$/.test(one))).toBe(true);
  const families = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name]) => name);
  expect(new Set(families).size).toBe(families.length);
  for (const sample of samples) expect(families).toContain(sample.split(/[{ ]/)[0]);
  const open = await get("application/openmetrics-text; version=1.0.0");
  expect(open.type).toBe("application/openmetrics-text; version=1.0.0; charset=utf-8");
  expect(open.text).toMatch(/# TYPE bailiwick_edge_requests counter\n[^]*# EOF\n$/);
});

test("the log holds nothing of a client", () => {
  for (const word of [CANARY, KEY, OPERATOR, "198.51.100.7", "completions", "Some(", '"End'])
    expect(edge.log()).not.toContain(word);
});
