// Events and spans: one event per request, to the sink that lies in the client's fence and to no other, whatever sinks
// do. Posts are decoded with OpenTelemetry's protobufs.
import { generateKeyPairSync } from "node:crypto";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Collector, attributes, takes } from "./collector.js";
import { Edge, type Json, StandIn, keyDigest, read, refusingUrl, region, rules, stopAll, until } from "./harness.js";

const OPERATOR = "operator-token-0123456789";
const LOGS_KEY = "pseudonym-key-0123456789-0123456789";
const ACME = "sk-acme-0123456789";
let fra: StandIn, par: StandIn, lon: StandIn, nyc: StandIn;

beforeAll(async () => {
  [fra, par, lon, nyc] = await Promise.all(
    ["eu-frankfurt", "eu-paris", "uk-london", "us-virginia"].map((name) => StandIn.start(name)),
  );
});
beforeEach(() => Promise.all([fra, par, lon, nyc].map((standIn) => standIn.reset())));
afterAll(stopAll);

/** Four regions, whose endpoints list models. Britons may be processed in the EU, too. */
function document(logs: Json, service: Json = {}, more: Json = {}, revision = 1): Json {
  const models = { models: { m: "llama", n: "llama-n" } };
  const regions = {
    ...region("DE", "eu-frankfurt", [fra.url], models),
    ...region("FR", "eu-paris", [par.url], models),
    ...region("GB", "uk-london", [lon.url], models),
    ...region("US", "us-virginia", [nyc.url], models),
  };
  return rules(revision, regions, service, { logs, ...more });
}

const start = (logs: Json, bindings: Record<string, string> = {}, service: Json = {}, more: Json = {}) =>
  Edge.start(document(logs, service, more), { EXPLAIN_TOKEN: OPERATOR, ...bindings });

/** The edge's metrics of this name. */
async function samples(edge: Edge, name: string): Promise<Record<string, number>> {
  const headers = { authorization: `Bearer ${OPERATOR}` };
  const text = await (await edge.ask({ path: "/.well-known/bailiwick/metrics", headers })).text();
  const lines = text.split("\n").filter((line) => line.startsWith(`bailiwick_edge_${name}{`));
  return Object.fromEntries(
    lines.map((line) => [line.slice(line.indexOf("{"), line.lastIndexOf(" ")), Number(line.match(/[^ ]+$/)![0])]),
  );
}

const records = (sink: string, outcome: string, signal = "logs") =>
  `{sink="${sink}",signal="${signal}",outcome="${outcome}"}`;
const failures = (sink: string, reason: string) => `{sink="${sink}",signal="logs",reason="${reason}"}`;
const id = (reply: { headers: { get(name: string): string | null } }) => reply.headers.get("x-bailiwick-request-id")!;

describe("events", () => {
  test("each request has one event, in its own fence's sink, in OpenTelemetry's words", async () => {
    const [eu, us] = await Promise.all([Collector.start(), Collector.start()]);
    const logs = { eu: eu.sink(["eu"], { secret: "OTEL_EU" }), us: us.sink(["US"], { secret: "OTEL_US" }) };
    const edge = await start(logs, { OTEL_EU: "eu-token", OTEL_US: "Basic dXM6cHc=" });
    const plain = await edge.chat("DE");
    await plain.text();
    const stream = await edge.chat("FR", { stream: true, stream_options: { include_usage: true } });
    await stream.text();
    await fra.fail({ mode: "status", status: 500, times: 1 });
    const retried = await edge.chat("DE", { model: "n" });
    await retried.text();
    const refused = await edge.chat("DE", { model: "unlisted" });
    expect((await read(refused)).status).toBe(404);
    const american = await edge.chat("US");
    await american.text();
    await edge.chat("JP");
    await edge.chat("GB");
    const nonsense = await edge.ask({ path: "/v1/nonsense", method: "POST", body: "{}" });
    const misread = await edge.ask({ path: "/v1/chat/completions?key=x", json: { model: "m" } });
    expect([nonsense.status, misread.status]).toEqual([404, 400]);
    await edge.ask({ host: "nobody.example" });
    await Promise.all([eu.holds('"eventName"', 6), us.holds('"eventName"')]);

    const events = Object.fromEntries(eu.events().map((event) => [attributes(event)["bailiwick.request.id"], event]));
    expect(Object.keys(events).sort()).toEqual([plain, stream, retried, refused, nonsense, misread].map(id).sort());
    const common = {
      "bailiwick.service": "chat",
      "bailiwick.revision": 1,
      "bailiwick.fence": ["eu-frankfurt", "eu-paris"],
    };
    const served = {
      "gen_ai.operation.name": "chat",
      "gen_ai.provider.name": "openai",
      "bailiwick.jurisdiction": "eu",
    };
    expect(attributes(events[id(plain)])).toEqual({
      ...common,
      ...served,
      "gen_ai.request.model": "m",
      "gen_ai.response.model": "llama",
      "gen_ai.usage.input_tokens": 1,
      "gen_ai.usage.output_tokens": expect.any(Number),
      "http.response.status_code": 200,
      "bailiwick.request.id": id(plain),
      "bailiwick.attempts": "eu-frankfurt-1;outcome=committed",
      "bailiwick.region": "eu-frankfurt",
      "bailiwick.endpoint": "eu-frankfurt-1",
      "bailiwick.duration_ms": expect.any(Number),
    });
    expect(events[id(plain)]).toMatchObject({
      eventName: "gen_ai.client.inference.operation.details",
      severityText: "INFO",
      body: { stringValue: "ok" },
    });
    expect(attributes(events[id(stream)])).toMatchObject({ ...served, "bailiwick.first_token_ms": expect.any(Number) });
    expect(attributes(events[id(retried)])).toMatchObject({
      "bailiwick.region": "eu-paris",
      "bailiwick.attempts": retried.headers.get("x-bailiwick-attempts"),
      "gen_ai.response.model": "llama-n",
    });
    expect(attributes(events[id(refused)])).toMatchObject({
      ...common,
      "error.type": "model_not_found",
      "http.response.status_code": 404,
    });
    // A request for what the edge doesn't have is its client's, too.
    expect(attributes(events[id(nonsense)])).toMatchObject({ ...common, "error.type": "unknown_path" });
    expect(attributes(events[id(misread)])).toMatchObject({ ...common, "http.response.status_code": 400 });
    expect(attributes(us.events()[0])).toMatchObject({ "bailiwick.region": "us-virginia" });
    expect(us.events()).toHaveLength(1);
    expect(eu.posts.map((post) => post.headers.authorization)).toEqual(eu.posts.map(() => "Bearer eu-token"));
    expect(us.posts[0].headers.authorization).toBe("Basic dXM6cHc=");
    const counted = await samples(edge, "sink_records_total");
    expect(counted).toEqual({
      // From Japan and Britain, and one for a host of no service.
      [records("", "dropped_no_sink")]: 3,
      [records("eu", "taken")]: 6,
      [records("us", "taken")]: 1,
    });
    process.stdout.write(`\ndecoded with the official protobufs: ${eu.posts.length + us.posts.length} posts\n`);
  });

  test("an event comes although no request follows, after a stream too", async () => {
    const eu = await Collector.start();
    const edge = await start({ eu: eu.sink(["eu"]) });
    await fra.fail({ mode: "slow", delay_ms: 700, times: 1 });
    const reply = await edge.chat("DE", { stream: true });
    expect(eu.posts).toEqual([]);
    await reply.text();
    await eu.holds(id(reply));
  });

  test("a client that goes away leaves an event", async () => {
    const eu = await Collector.start();
    const edge = await start({ eu: eu.sink(["eu"]) });
    await fra.fail({ mode: "slow", delay_ms: 400, times: 1 });
    const reply = await edge.chat("DE", { stream: true });
    await reply.body!.cancel();
    await eu.holds(id(reply));
    expect(attributes(eu.events()[0])).toMatchObject({ "error.type": "client_gone" });
  });

  test("a tenant has a pseudonym, by its own fence's sink", async () => {
    const [eu, us] = await Promise.all([Collector.start(), Collector.start()]);
    const acme = { key_sha256: [keyDigest(ACME)], services: ["chat"], process_in: ["us"] };
    const emca = { key_sha256: [keyDigest("sk-emca-0123456789")], services: ["chat"], residency: "eu" };
    const edge = await start(
      { eu: eu.sink(["eu"]), us: us.sink(["US"]) },
      { LOGS_KEY },
      {},
      { tenants: { acme, emca } },
    );
    for (const key of [ACME, ACME, "sk-emca-0123456789", "sk-nobody"]) {
      await (await edge.chat("DE", {}, { headers: { authorization: `Bearer ${key}` } })).text();
    }
    await Promise.all([eu.holds('"eventName"'), us.holds('"eventName"', 2)]);
    const [first, second] = us.events().map((event) => attributes(event)["bailiwick.tenant"]);
    const [other] = eu.events().map((event) => attributes(event)["bailiwick.tenant"]);
    expect(first).toMatch(/^[A-Za-z0-9_-]{22}$/);
    expect([second, other === first]).toEqual([first, false]);
    expect(us.posts.map((post) => post.body).join()).not.toMatch(/acme|emca/);
    expect(await samples(edge, "sink_records_total")).toMatchObject({ [records("", "dropped_no_sink")]: 1 });
  });
});

describe("traces", () => {
  const PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

  test("a client's trace is continued by a span for each attempt", async () => {
    const eu = await Collector.start();
    const edge = await start({ eu: eu.sink(["eu"], { traces: `${eu.url}/v1/traces` }) });
    await fra.fail({ mode: "status", status: 500, times: 1 });
    const reply = await edge.chat("DE", {}, { headers: { traceparent: PARENT, tracestate: "vendor=words" } });
    await reply.text();
    await eu.holds('"parentSpanId"', 3);
    const spans = eu.spans();
    const [whole, failed, good] = ["SPAN_KIND_SERVER", "eu-frankfurt", "eu-paris"].map((which) =>
      spans.find(
        (span) =>
          span.kind === which || (span.kind === "SPAN_KIND_CLIENT" && attributes(span)["bailiwick.region"] === which),
      )!,
    );
    expect(spans).toHaveLength(3);
    expect(new Set(spans.map((span) => span.traceId)).size).toBe(1);
    expect([failed.parentSpanId, good.parentSpanId]).toEqual([whole.spanId, whole.spanId]);
    expect([failed.status, attributes(failed)["error.type"]]).toEqual([{ code: "STATUS_CODE_ERROR" }, "http_5xx"]);
    expect(attributes(good)).toMatchObject({ "gen_ai.usage.input_tokens": 1, "gen_ai.request.model": "m" });
    const hex = (id: string) => Buffer.from(id, "base64").toString("hex");
    expect(hex(whole.traceId)).toBe("4bf92f3577b34da6a3ce929d0e0e4736");
    expect(hex(whole.parentSpanId)).toBe("00f067aa0ba902b7");
    for (const [standIn, span] of [
      [fra, failed],
      [par, good],
    ] as const) {
      const [{ headers }] = await standIn.requests();
      expect(headers.traceparent).toBe(`00-4bf92f3577b34da6a3ce929d0e0e4736-${hex(span.spanId)}-01`);
      expect(headers).not.toHaveProperty("tracestate");
    }
    const [event] = eu.events();
    expect([event.traceId, event.spanId]).toEqual([whole.traceId, whole.spanId]);
  });

  test("what isn't a trace context reaches nobody; a trace that isn't sampled has no spans", async () => {
    const eu = await Collector.start();
    const edge = await start({ eu: eu.sink(["eu"], { traces: `${eu.url}/v1/traces` }) });
    await (await edge.chat("DE", {}, { headers: { traceparent: "secret words" } })).text();
    const unsampled = PARENT.replace(/01$/, "00");
    await (await edge.chat("DE", {}, { headers: { traceparent: unsampled } })).text();
    await eu.holds('"eventName"', 2);
    await eu.holds('"startTimeUnixNano"', 2);
    const sent = (await fra.requests()).map(({ headers }) => headers.traceparent);
    expect(sent[0]).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
    expect(sent[1]).toMatch(/^00-4bf92f3577b34da6a3ce929d0e0e4736-[0-9a-f]{16}-00$/);
    expect(eu.spans()).toHaveLength(2);
    expect(eu.posts.map((post) => post.body).join()).not.toMatch(/secret words/);
  });
});

describe("prompts and answers", () => {
  const asked = { messages: [{ role: "user", content: 'Was kostet das? \u2028 "x"' }] };
  const RECEIPT_KEY = generateKeyPairSync("ed25519").privateKey.export({ format: "pem", type: "pkcs8" }).toString();
  const service = {
    log_content: true,
    receipts: "required",
    keepalive: "1s",
    residency: [{ clients: ["eu"], process_in: ["eu"] }],
  };

  test("are kept where service and sink say so, and the receipt says it", async () => {
    const eu = await Collector.start();
    const logs = { eu: eu.sink(["eu"], { content: true }) };
    const edge = await start(logs, { RECEIPT_KEY }, service);
    const plain = await edge.chat("DE", asked);
    const answer = await plain.text();
    // It takes longer than the interval of comments, which would begin the stream without a receipt.
    await fra.fail({ mode: "slow", delay_ms: 1_500, times: 1 });
    const stream = await edge.chat("DE", { ...asked, stream: true });
    const events = await stream.text();
    await eu.holds('"eventName"', 2);
    const kept = Object.fromEntries(
      eu.events().map((event) => [attributes(event)["bailiwick.request.id"], attributes(event)]),
    );
    expect(kept[id(plain)]).toMatchObject({
      "bailiwick.request.body": JSON.stringify({ model: "m", ...asked }),
      "bailiwick.response.body": answer,
    });
    expect(kept[id(stream)]["bailiwick.response.body"]).toBe(events);
    const claims = (reply: typeof plain) =>
      JSON.parse(Buffer.from(reply.headers.get("x-bailiwick-receipt")!.split(".")[1], "base64url").toString());
    expect([claims(plain).content_to, claims(stream).content_to]).toEqual(["eu", "eu"]);

    await edge.put(document(logs, { ...service, log_content: false }, {}, 2));
    const after = await until(
      async () => {
        const reply = await edge.chat("DE", asked);
        await reply.text();
        return reply;
      },
      (reply) => reply.headers.get("x-bailiwick-revision") === "2",
    );
    expect(claims(after)).not.toHaveProperty("content_to");
    await eu.holds(id(after));
    const last = eu.events().find((event) => attributes(event)["bailiwick.request.id"] === id(after))!;
    expect(JSON.stringify(last)).not.toMatch(/kostet|Hello/);
  });

  test("are kept of nobody who gets no receipt", async () => {
    const eu = await Collector.start();
    const edge = await start({ eu: eu.sink(["eu"], { content: true }) }, {}, service);
    const reply = await read(await edge.chat("DE", asked));
    expect([reply.status, reply.code]).toEqual([503, "receipt_unavailable"]);
    await eu.holds('"eventName"');
    expect(JSON.stringify(eu.events())).not.toMatch(/kostet|request\.body|response\.body/);
    expect(await fra.requests()).toEqual([]);
  });

  test("are cut where they are too long", async () => {
    const eu = await Collector.start();
    const edge = await start({ eu: eu.sink(["eu"], { content: true }) }, { RECEIPT_KEY }, service);
    const long = { messages: [{ role: "user", content: "é".repeat(1 << 18) }] };
    await (await edge.chat("DE", long)).text();
    await eu.holds('"eventName"');
    const kept = attributes(eu.events()[0]);
    expect(kept["bailiwick.body.truncated"]).toBe(true);
    const whole = JSON.stringify({ model: "m", ...long });
    const bytes = Buffer.from(kept["bailiwick.request.body"]).length;
    expect(whole.startsWith(kept["bailiwick.request.body"])).toBe(true);
    // Half a character at the end is left out.
    expect([1 << 18, (1 << 18) - 1]).toContain(bytes);
  });
});

describe("sinks that fail", () => {
  test("a batch that wasn't taken is posted again, and to the same sink", async () => {
    const [eu, us] = await Promise.all([Collector.start(), Collector.start()]);
    let left = 2;
    eu.answer = (request, response) =>
      left-- > 0 ? void response.writeHead(503).end("overloaded") : takes(request, response);
    const edge = await start({ eu: eu.sink(["eu"]), us: us.sink(["US"]) });
    const reply = await edge.chat("DE");
    await reply.text();
    await eu.holds(id(reply), 3);
    expect(us.posts).toEqual([]);
    await until(
      () => samples(edge, "sink_records_total"),
      (counted) => counted[records("eu", "taken")] === 1,
    );
    expect(await samples(edge, "sink_failures_total")).toEqual({ [failures("eu", "http_5xx")]: 2 });
  });

  test("a refusal is final, and partial success is believed", async () => {
    const eu = await Collector.start((_, response) => void response.writeHead(401).end());
    const edge = await start({ eu: eu.sink(["eu"]) });
    await (await edge.chat("DE")).text();
    await until(
      () => samples(edge, "sink_records_total"),
      (counted) => counted[records("eu", "lost")] === 1,
    );
    eu.answer = (_, response) => void response.end('{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"x"}}');
    await (await edge.chat("DE")).text();
    await until(
      () => samples(edge, "sink_records_total"),
      (counted) => counted[records("eu", "rejected")] === 1,
    );
    expect(eu.posts).toHaveLength(2);
  });

  test("an answer that no collector gives is neither kept nor believed", async () => {
    const vast = `[${"0,".repeat(4 << 20)}0]`;
    const eu = await Collector.start((_, response) => void response.end(vast));
    const edge = await start({ eu: eu.sink(["eu"]) });
    await (await edge.chat("DE")).text();
    await until(
      () => samples(edge, "sink_records_total"),
      (counted) => counted[records("eu", "lost")] === 1,
    );
    expect(await samples(edge, "sink_failures_total")).toEqual({ [failures("eu", "too_large")]: 1 });
    expect((await edge.chat("DE")).status).toBe(200);
  });

  test("a sink waits for no other sink", async () => {
    const us = await Collector.start();
    const eu = await Collector.start(() => {});
    const edge = await start({ eu: eu.sink(["eu"]), us: us.sink(["US"]) });
    const german = await edge.chat("DE");
    await german.text();
    await eu.holds(id(german));
    const american = await edge.chat("US");
    await american.text();
    await us.holds(id(american));
    expect(await samples(edge, "sink_failures_total"), "the other is silent still").toEqual({});
  });

  test("without logs in the rules nothing more is posted", async () => {
    const eu = await Collector.start((_, response) => void response.writeHead(503).end());
    const edge = await start({ eu: eu.sink(["eu"]) });
    const reply = await edge.chat("DE");
    await reply.text();
    await eu.holds(id(reply));
    await edge.put(document({}, {}, {}, 2));
    await until(
      async () => {
        const reply = await edge.chat("DE");
        await reply.text();
        return reply;
      },
      (reply) => reply.headers.get("x-bailiwick-revision") === "2",
    );
    const posted = eu.posts.length;
    eu.answer = takes;
    await edge.put(document({ eu: eu.sink(["eu"], { content: true }) }, {}, {}, 3));
    const after = await until(
      async () => {
        const reply = await edge.chat("DE");
        await reply.text();
        return reply;
      },
      (reply) => reply.headers.get("x-bailiwick-revision") === "3",
    );
    await eu.holds(id(after));
    expect(
      eu.posts
        .slice(posted)
        .map((post) => post.body)
        .join(),
    ).not.toContain(id(reply));
  });

  test("a sink without the value of its secret gets nothing", async () => {
    const eu = await Collector.start();
    const edge = await start({ eu: eu.sink(["eu"], { secret: "OTEL_EU" }) });
    await (await edge.chat("DE")).text();
    await until(
      () => samples(edge, "sink_failures_total"),
      (counted) => counted[failures("eu", "no_key")] === 1,
    );
    expect(eu.posts).toEqual([]);
  });

  test("what waits for a sink that left the rules goes nowhere", async () => {
    const eu = await Collector.start((_, response) => void response.writeHead(503).end());
    const moved = await Collector.start();
    const edge = await start({ eu: eu.sink(["eu"]) });
    const reply = await edge.chat("DE");
    await reply.text();
    await eu.holds(id(reply));
    await edge.put(document({ eu: moved.sink(["eu"]) }, {}, {}, 2));
    const after = await until(
      async () => {
        const reply = await edge.chat("DE");
        await reply.text();
        return reply;
      },
      (reply) => reply.headers.get("x-bailiwick-revision") === "2",
    );
    await moved.holds(id(after));
    expect(moved.posts.map((post) => post.body).join()).not.toContain(id(reply));
    expect((await samples(edge, "sink_records_total"))[records("", "dropped_no_sink")]).toBeGreaterThanOrEqual(1);
  });

  test("slow, full, gone or talking nonsense, a sink costs no request anything", async () => {
    const endless = (_: unknown, response: any) => {
      response.writeHead(200);
      const timer = setInterval(() => response.write("x".repeat(1 << 16)), 1);
      response.on("close", () => clearInterval(timer));
    };
    const kinds: Record<string, typeof takes | null> = {
      "no logs": null,
      fine: takes,
      silent: () => {},
      "full (503)": (_, response) => void response.writeHead(503).end(),
      "full (429)": (_, response) => void response.writeHead(429).end(),
      gone: null,
      "a login page": (_, response) => void response.end("<html>"),
      "a redirect": (_, response) => void response.writeHead(302, { location: nyc.url }).end(),
      "an endless answer": endless,
      "a reset": (request) => void request.socket.destroy(),
    };
    const rows: Json[] = [];
    for (const [kind, answer] of Object.entries(kinds)) {
      const collector = answer && (await Collector.start(answer));
      const sink = collector?.sink(["eu"]) ?? { countries: ["eu"], otlp: `${await refusingUrl()}/v1/logs` };
      const edge = await start(kind === "no logs" ? {} : { eu: sink }, {});
      for (let i = 0; i < 20; i++) await (await edge.chat("DE")).text();
      // From now on the sink is what it is.
      if (collector) await collector.holds('"eventName"');
      else if (kind !== "no logs")
        await until(
          () => samples(edge, "sink_failures_total"),
          (failed) => Object.keys(failed).length > 0,
        );
      const times: number[] = [];
      for (let i = 0; i < 200; i++) {
        const began = performance.now();
        const reply = await edge.chat("DE");
        expect([reply.status, reply.headers.get("x-bailiwick-attempts")]).toEqual([
          200,
          "eu-frankfurt-1;outcome=committed",
        ]);
        await reply.text();
        times.push(performance.now() - began);
      }
      times.sort((a, b) => a - b);
      const at = (part: number) => Number(times[Math.floor(part * times.length)].toFixed(2));
      rows.push({ sink: kind, p50_ms: at(0.5), p95_ms: at(0.95), max_ms: at(0.999) });
      await edge.stop();
    }
    process.stdout.write(`\n200 requests each:\n${rows.map((row) => `${JSON.stringify(row)}\n`).join("")}`);
    const [without] = rows;
    // Records gather for 1 s, and a sink may take 5 s. Not one request waited for either, on a machine that is busy.
    for (const row of rows) expect(row.max_ms, row.sink).toBeLessThan(without.max_ms + 900);
    expect(await nyc.requests(), "no redirect is followed").toEqual([]);
  }, 120_000);
});

test("without logs nothing is sent or counted, and the client's trace context passes unread", async () => {
  const edge = await start({});
  await (await edge.chat("DE", {}, { headers: { traceparent: "as it came" } })).text();
  expect((await fra.requests())[0].headers.traceparent).toBe("as it came");
  const headers = { authorization: `Bearer ${OPERATOR}` };
  const text = await (await edge.ask({ path: "/.well-known/bailiwick/metrics", headers })).text();
  expect(text).toContain("bailiwick_edge_requests_total");
  expect(text).not.toContain("sink");
});
