// Releases: a real DNS node asks endpoints what they run, and the Worker withholds a region that runs something else
// from requests for that model, but never the last region.
import { afterAll, beforeAll, expect, test } from "vitest";
import { Edge, type Json, StandIn, read, region, rules, serve, stopAll, until } from "./harness.js";
import { DnsNode, WORKER_TOKEN } from "./node.js";

const names = ["eu-frankfurt", "eu-milan", "eu-paris"];
const countries = ["DE", "IT", "FR"];
let endpoints: StandIn[], pages: string;

/** The engine of each region. */
const runs: Record<string, string> = {};

beforeAll(async () => {
  endpoints = await Promise.all(names.map((name) => StandIn.start(name)));
  pages = await serve((request, response) => {
    const [, name, ...rest] = (request.url ?? "").split("/");
    const path = rest.join("/");
    let body = "";
    request.on("data", (piece) => (body += piece));
    request.on("end", () => {
      if (path === "v1/models") {
        response.writeHead(200, { "content-type": "application/json" });
        response.end(JSON.stringify({ object: "list", data: [{ id: "m", object: "model", max_model_len: 8192 }] }));
      } else if (JSON.parse(body).stream) {
        response.writeHead(200, { "content-type": "text/event-stream" });
        response.end('data: {"choices":[{"delta":{"content":"Yes"},"finish_reason":"length"}]}\n\ndata: [DONE]\n\n');
      } else {
        response.writeHead(200, { "content-type": "application/json" });
        const choices = [{ index: 0, message: { role: "assistant", content: "Yes" }, finish_reason: "length" }];
        response.end(JSON.stringify({ model: "m", system_fingerprint: runs[name], choices }));
      }
    });
  });
});
afterAll(stopAll);

const document = (release: Json): Json => {
  const regions: Json = {};
  names.forEach((name, at) => {
    const one = region(countries[at], name, [endpoints[at].url]) as Json;
    for (const endpoint of Object.values(one[name].endpoints) as Json[]) {
      endpoint.models = { m: "m", other: "other" };
      endpoint.monitor = { type: "openai", model: "m", url: `${pages}/${name}/v1`, interval: "2s", first_token: "1s" };
    }
    Object.assign(regions, one);
  });
  return rules(1, regions, {}, { releases: { m: { interval: "1s", ...release } } });
};

async function start(release: Json): Promise<Edge> {
  const book = document(release);
  const node = await DnsNode.start(book);
  const bindings = { HEALTH_URLS: `${node.url}/v1/health`, HEALTH_TOKEN: WORKER_TOKEN, EXPLAIN_TOKEN: "operator" };
  return Edge.start(book, bindings);
}

const run = (...engines: string[]) => names.forEach((name, at) => (runs[name] = engines[at]));

/** Where a chat completion of a model from Germany is served. */
const served = async (edge: Edge, model: string) => (await read(await edge.chat("DE", { model }))).region;

const untilServed = (edge: Edge, wanted: (region: string | null) => boolean) => until(() => served(edge, "m"), wanted);

test("a region that runs another engine is withheld for that model, and for no other, and comes back", async () => {
  run("b2-new", "b1-old", "b1-old");
  const edge = await start({ skew: "withhold" });
  await untilServed(edge, (region) => region !== null && region !== "eu-frankfurt");
  expect(await served(edge, "other")).toBe("eu-frankfurt");
  const explained = await edge.ask({
    path: "/.well-known/bailiwick/explain?service=chat&country=DE&model=m",
    headers: { authorization: "Bearer operator" },
  });
  const { json } = await read(explained);
  expect(json.withheld).toEqual([{ region: "eu-frankfurt", reason: "skew", differs: ["fingerprint"] }]);
  run("b1-old", "b1-old", "b1-old");
  await untilServed(edge, (region) => region === "eu-frankfurt");
}, 60_000);

test("the last region is served whatever it runs", async () => {
  run("b2-new", "b2-new", "b2-new");
  const edge = await start({ skew: "withhold", fingerprint: "b1-*" });
  const explain = async () => {
    const path = "/.well-known/bailiwick/explain?service=chat&country=DE&model=m";
    return (await read(await edge.ask({ path, headers: { authorization: "Bearer operator" } }))).json;
  };
  const explained = await until(explain, (now) => now.skewed === true);
  expect(explained.ordered.length).toBe(3);
  expect(await served(edge, "m")).toBe("eu-frankfurt");
}, 60_000);
