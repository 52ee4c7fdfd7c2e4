// Replicas of knowledge: a real DNS node reads how far copies are behind, and the Worker withholds a region only from
// the paths that need the copy. What an answer from stale knowledge says of itself, in its headers and its receipt.
import { generateKeyPairSync } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Edge, type Json, StandIn, read, region, rules, serve, stopAll, until } from "./harness.js";
import { DnsNode, WORKER_TOKEN } from "./node.js";

let fra: StandIn, par: StandIn, pages: string;

/** What each region's page says, in seconds and a version. */
const said: Record<string, { lag: number; model: string }> = {};

beforeAll(async () => {
  [fra, par] = await Promise.all([StandIn.start("eu-frankfurt"), StandIn.start("eu-paris")]);
  pages = await serve((request, response) => {
    const page = said[(request.url ?? "").slice(1)];
    response.writeHead(page ? 200 : 503, { "content-type": "application/json" });
    response.end(JSON.stringify(page ?? {}));
  });
});
afterAll(stopAll);

const document = (revision: number, replica: Json, service: Json = {}): Json => {
  const copy = (name: string) => ({
    replicas: {
      kb: { url: `${pages}/${name}`, as: "seconds", read: "/lag", version: "/model", interval: "500ms" },
    },
  });
  const regions = { ...region("DE", "eu-frankfurt", [fra.url]), ...region("FR", "eu-paris", [par.url]) };
  for (const [name, one] of Object.entries(regions)) Object.assign(one as Json, copy(name));
  const needs = { "/chat/completions": ["kb"], "/embeddings": [] };
  return rules(
    revision,
    regions,
    { needs, ...service },
    { replicas: { kb: { max_lag: "60s", resume: "20s", down_thresh: 2, up_thresh: 2, ...replica } } },
  );
};

async function start(rules: Json, bindings: Record<string, string> = {}): Promise<Edge> {
  const node = await DnsNode.start(rules);
  return Edge.start(rules, { HEALTH_URLS: `${node.url}/v1/health`, HEALTH_TOKEN: WORKER_TOKEN, ...bindings });
}

const say = (lags: [number, number], models: [string, string] = ["e5", "e5"]) =>
  ["eu-frankfurt", "eu-paris"].forEach((name, i) => (said[name] = { lag: lags[i], model: models[i] }));

/** A chat completion from Germany: status, region, and what is said of its knowledge. */
async function chat(edge: Edge): Promise<Json> {
  const reply = await edge.chat("DE");
  const stale = reply.headers.get("x-bailiwick-stale");
  const receipt = reply.headers.get("x-bailiwick-receipt");
  return { ...(await read(reply)), stale, receipt };
}

async function embed(edge: Edge): Promise<Json> {
  const reply = await edge.ask({ path: "/v1/embeddings", json: { model: "m", input: "x" } });
  return { ...(await read(reply)), stale: reply.headers.get("x-bailiwick-stale") };
}

const chats = (edge: Edge, wanted: Json) =>
  until(
    () => chat(edge),
    (now) => Object.entries(wanted).every(([key, value]) => now[key] === value),
  );

test("a region that lags is withheld from the paths that need the copy, and from no other", async () => {
  say([3, 3]);
  const edge = await start(document(1, {}));
  await chats(edge, { region: "eu-frankfurt", status: 200 });
  say([61, 3]);
  await chats(edge, { region: "eu-paris", status: 200, stale: null });
  expect(await embed(edge)).toMatchObject({ region: "eu-frankfurt", stale: null });
  say([61, 90]);
  await chats(edge, { status: 503, region: null });
  expect(await embed(edge)).toMatchObject({ region: "eu-frankfurt", stale: null });
  say([20, 90]);
  await chats(edge, { region: "eu-frankfurt", status: 200, stale: null });
}, 60_000);

test("the freshest region is kept where the rules say so, and its answers and receipts say how far it is", async () => {
  say([90, 75]);
  const pair = generateKeyPairSync("ed25519");
  const pem = pair.privateKey.export({ type: "pkcs8", format: "pem" }) as string;
  const edge = await start(document(1, { keep_freshest: true }, { receipts: "required" }), { RECEIPT_KEY: pem });
  const kept = await chats(edge, { region: "eu-paris", status: 200, stale: "kb;lag=75s" });
  const claims = JSON.parse(Buffer.from(kept.receipt.split(".")[1], "base64url").toString());
  expect(claims).toMatchObject({ stale: ["kb;lag=75s"], committed: { region: "eu-paris" } });
  say([1, 75]);
  const fresh = await chats(edge, { region: "eu-frankfurt", status: 200, stale: null });
  expect(JSON.parse(Buffer.from(fresh.receipt.split(".")[1], "base64url").toString())).not.toHaveProperty("stale");
}, 60_000);

test("two embedding models are never mixed", async () => {
  say([1, 1], ["e5", "bge"]);
  const edge = await start(document(1, { group: "version", version: "bge" }), { EXPLAIN_TOKEN: "operator" });
  await chats(edge, { region: "eu-paris", status: 200 });
  const explain = (path: string) =>
    edge.ask({
      path: `/.well-known/bailiwick/explain?service=chat&country=DE&path=${path}`,
      headers: { authorization: "Bearer operator" },
    });
  const { json } = await read(await explain("/v1/chat/completions"));
  expect(json.withheld).toEqual([{ region: "eu-frankfurt", reason: "version" }]);
  expect((await read(await explain("/v1/embeddings"))).json.withheld).toEqual([]);
  say([1, 1], ["bge", "bge"]);
  await chats(edge, { region: "eu-frankfurt", status: 200 });
}, 60_000);
