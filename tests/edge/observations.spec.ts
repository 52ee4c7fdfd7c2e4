// Observations: counts that the Worker makes and DNS nodes add up. With a real node, and with nodes that refuse, stall
// or are gone.
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  Edge,
  type Json,
  StandIn,
  keyDigest,
  read,
  refusingUrl,
  region,
  rules,
  serve,
  stopAll,
  until,
} from "./harness.js";
import { DnsNode, WORKER_TOKEN } from "./node.js";

const KEY = "sk-canary-key-0123456789";
let fra: StandIn, par: StandIn;

beforeAll(async () => {
  [fra, par] = await Promise.all(["eu-frankfurt", "eu-paris"].map((name) => StandIn.start(name)));
});
afterAll(stopAll);

/** Both regions; Frankfurt's endpoint lists the model `m`. */
function document(more: Json = {}): Json {
  const regions = {
    ...region("DE", "eu-frankfurt", [fra.url], { models: { m: "m", n: "n" } }),
    ...region("FR", "eu-paris", [par.url]),
  };
  return rules(1, regions, {}, more);
}

/** Variables for posting to these nodes at a short interval. */
const posting = (...urls: string[]) => ({
  OBSERVATIONS_URLS: urls.map((url) => `${url}/v1/observations`).join(","),
  HEALTH_TOKEN: WORKER_TOKEN,
  OBSERVATIONS_SECONDS: "0.1",
});

/** A stand-in for a node's API. It records batches, and answers as the test says. */
async function stubNode(
  answer: () => number | null = () => 200,
): Promise<{ url: string; batches: Json[]; texts: string[] }> {
  const batches: Json[] = [];
  const texts: string[] = [];
  const url = await serve(async (request, response) => {
    let text = "";
    for await (const chunk of request) text += chunk;
    texts.push(JSON.stringify(request.headers) + text);
    batches.push(JSON.parse(text));
    const status = answer();
    if (status !== null) response.writeHead(status).end("{}");
  });
  return { url, batches, texts };
}

const sum = (batches: Json[], of: (count: Json) => number | undefined) =>
  batches.flatMap((batch) => batch.counts).reduce((total, count) => total + (of(count) ?? 0), 0);

test("a real node adds up the counts of a Worker, and has them in its metrics", async () => {
  const node = await DnsNode.start(document());
  const edge = await Edge.start(document(), posting(node.url));
  for (let i = 0; i < 3; i++) expect((await read(await edge.chat("DE"))).status).toBe(200);
  const stream = await read(await edge.chat("AT", { stream: true, stream_options: { include_usage: true } }));
  expect(stream.status).toBe(200);
  await fra.fail({ mode: "status", status: 500, times: 1 });
  expect((await read(await edge.chat("DE", { model: "n" }))).region).toBe("eu-paris");
  expect((await read(await edge.chat("JP"))).status).toBe(451);

  const at = (name: string, endpoint: string, model: string) =>
    `service="chat",clients="eu",region="${name}",endpoint="${endpoint}",model="${model}"`;
  const nowhere = `service="chat",clients="unknown",region="",endpoint="",model=""`;
  const frankfurt = at("eu-frankfurt", "eu-frankfurt-1", "m");
  const reported = await until(
    async () => {
      await edge.ask({ path: "/.well-known/bailiwick/healthz" });
      return node.samples("bailiwick_obser");
    },
    (samples) =>
      samples[`bailiwick_observed_requests_total{${nowhere},code="residency_denied"}`] === 1 &&
      samples[`bailiwick_observed_requests_total{${frankfurt},code="ok"}`] === 4,
  );
  expect(reported).toMatchObject({
    [`bailiwick_observed_attempts_total{${frankfurt},outcome="committed"}`]: 4,
    [`bailiwick_observed_attempts_total{${at("eu-frankfurt", "eu-frankfurt-1", "n")},outcome="http_5xx"}`]: 1,
    // Paris lists no models, so the client's name of the model isn't used as a label.
    [`bailiwick_observed_requests_total{${at("eu-paris", "eu-paris-1", "other")},code="ok"}`]: 1,
    [`bailiwick_observed_finish_total{${frankfurt},reason="stop"}`]: 4,
    [`bailiwick_observed_tokens_total{${frankfurt},direction="in"}`]: 4,
    [`bailiwick_observed_first_token_seconds_count{${frankfurt}}`]: 1,
    [`bailiwick_observed_between_tokens_seconds_count{${frankfurt}}`]: 1,
    [`bailiwick_observed_request_seconds_count{${frankfurt}}`]: 4,
    "bailiwick_observation_batches_missed_total{}": 0,
    "bailiwick_observations_dropped_total{}": 0,
    bailiwick_observing_isolates: 1,
  });
});

test("a batch holds counts only: nothing of a key, an address, a prompt, an answer or an id", async () => {
  const { url, batches, texts } = await stubNode();
  const tenants = { acme: { key_sha256: [keyDigest(KEY)], residency: "eu", services: ["chat"] } };
  const edge = await Edge.start(document({ tenants }), posting(url));
  const headers = {
    authorization: `Bearer ${KEY}`,
    "cf-connecting-ip": "198.51.100.77",
    "x-session-id": "canary-session",
    "user-agent": "canary-agent",
    "x-request-id": "canary-request",
  };
  const messages = [{ role: "user", content: "canary-prompt" }];
  const reply = await edge.chat("DE", { model: "canary-model", user: "canary-user", messages }, { headers });
  expect(reply.headers.get("x-bailiwick-request-id")).toBeTruthy();
  const id = reply.headers.get("x-bailiwick-request-id")!;
  const body = await reply.text();
  await edge.chat("DE", { messages }, { headers });
  await until(
    async () => sum(batches, (count) => count.requests?.ok),
    (count) => count >= 1,
  );
  for (const text of texts) {
    const rest = text.replace(WORKER_TOKEN, "");
    for (const secret of ["canary", KEY, keyDigest(KEY), "198.51.100", "acme", id, JSON.parse(body).id]) {
      expect(rest).not.toContain(secret);
    }
  }
});

test("requests in flight are reported while they last, and their end is reported too", async () => {
  const { url, batches } = await stubNode();
  const edge = await Edge.start(document(), posting(url));
  await fra.fail({ mode: "slow", delay_ms: 300, times: 1 });
  const slow = edge.chat("DE", { stream: true });
  const inFlight = () => batches.at(-1)?.in_flight.reduce((total: number, one: Json) => total + one.count, 0);
  const ask = async () => {
    await edge.ask({ path: "/.well-known/bailiwick/healthz" });
    return inFlight();
  };
  await until(ask, (count) => count === 1);
  expect(batches.at(-1)!.in_flight).toEqual([{ region: "eu-frankfurt", endpoint: "eu-frankfurt-1", count: 1 }]);
  await (await slow).text();
  await until(ask, (count) => count === 0);
  const busy = sum(batches, (count) => count.busy_ms);
  expect(busy).toBeGreaterThan(600);
  const demand = batches.flatMap((batch) => batch.demand);
  expect(demand[0]).toMatchObject({ service: "chat", order: ["eu-frankfurt", "eu-paris"] });
  const numbers = batches.map((batch) => batch.sequence);
  expect(numbers).toEqual(numbers.map((_, i) => i + 1));
});

test("nodes that refuse, stall or are gone delay no request, and the other nodes get every batch", async () => {
  const good = await stubNode();
  const refusing = await stubNode(() => 403);
  const stalling = await stubNode(() => null);
  const gone = await refusingUrl();
  const operator = "operator-token-0123456789";
  const edge = await Edge.start(document(), {
    ...posting(good.url, refusing.url, stalling.url, gone, "no url"),
    EXPLAIN_TOKEN: operator,
  });
  const began = Date.now();
  for (let i = 0; i < 10; i++) expect((await read(await edge.chat("DE"))).status).toBe(200);
  expect(Date.now() - began).toBeLessThan(2_000);
  await until(
    async () => {
      await edge.ask({ path: "/.well-known/bailiwick/healthz" });
      return sum(good.batches, (count) => count.requests?.ok);
    },
    (count) => count === 10,
  );
  expect(refusing.batches.length).toBeGreaterThan(0);
});

test("without OBSERVATIONS_URLS nothing is counted or sent", async () => {
  const edge = await Edge.start(document(), { EXPLAIN_TOKEN: "operator-token-0123456789" });
  expect((await read(await edge.chat("DE"))).status).toBe(200);
  const headers = { authorization: "Bearer operator-token-0123456789" };
  const text = await (await edge.ask({ path: "/.well-known/bailiwick/metrics", headers })).text();
  expect(text).toContain("bailiwick_edge_requests_total");
  expect(text).not.toContain("observation");
});
