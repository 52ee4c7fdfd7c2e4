// An operator names the region that serves a request: the fence still decides whether that region may be asked, and it
// is asked once. Nobody else may name one.
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Edge, type Json, StandIn, keyDigest, read, region, rules, serve, stopAll, until } from "./harness.js";

const KEY = "sk-acme-0123456789";
const OPERATOR = "operators-token-0123456789";
let fra: StandIn, fra2: StandIn, par: StandIn, virginia: StandIn;
let edge: Edge;

beforeAll(async () => {
  const names = ["eu-frankfurt", "eu-frankfurt-2", "eu-paris", "us-virginia"];
  [fra, fra2, par, virginia] = await Promise.all(names.map((name) => StandIn.start(name)));
  edge = await Edge.start(document(), { EXPLAIN_TOKEN: OPERATOR, STATE_KEY: "k".repeat(32) });
});
beforeEach(() => Promise.all([fra, fra2, par, virginia].map((one) => one.reset())));
afterAll(stopAll);

function document(more: Json = {}): Json {
  const models = { models: { large: "bf16", small: "gemma" } };
  const regions = {
    ...region("DE", "eu-frankfurt", [fra.url, fra2.url], models),
    ...region("FR", "eu-paris", [par.url], models),
    ...region("US", "us-virginia", [virginia.url], models),
  };
  const tenants = { acme: { key_sha256: [keyDigest(KEY)], residency: "eu", services: ["chat"] } };
  return rules(1, regions, { allow: ["store"] }, { tenants, ...more });
}

/** What a request is answered whose header says where it is to be served. */
async function pinned(pin: string, { model = "large", token = OPERATOR as string | null, on = edge, ...more } = {}) {
  const operator: Json = token === null ? {} : { "x-bailiwick-operator": token };
  const headers = { authorization: `Bearer ${KEY}`, "x-bailiwick-pin": pin, ...operator };
  const reply = await on.chat("DE", { model }, { headers, ...more });
  return { ...(await read(reply)), arm: reply.headers.get("x-bailiwick-arm") };
}

/** How many requests each endpoint got. */
const counts = () => Promise.all([fra, fra2, par, virginia].map(async (one) => (await one.requests()).length));

test("the region that is named answers, and no other is asked", async () => {
  for (const name of ["eu-paris", "eu-frankfurt", " eu-paris "]) {
    expect(await pinned(name)).toMatchObject({ status: 200, region: name.trim() });
  }
  expect(await pinned("eu-paris", { token: `Bearer ${OPERATOR}` })).toMatchObject({ status: 200, region: "eu-paris" });
  expect((await counts())[2]).toBe(3);
  const [{ headers }] = await par.requests();
  expect(JSON.stringify(headers)).not.toContain("x-bailiwick");
  expect(JSON.stringify(headers)).not.toContain(OPERATOR);
});

test("the fence still decides", async () => {
  expect(await pinned("us-virginia")).toMatchObject({ status: 451, code: "residency_denied", region: null });
  expect(await counts()).toEqual([0, 0, 0, 0]);
});

test("nobody but the operator may name a region", async () => {
  for (const token of [null, "", "guess", KEY, `Bearer ${KEY}`]) {
    expect(await pinned("eu-paris", { token })).toMatchObject({ status: 401, code: "pin_unauthorized" });
  }
  for (const bindings of [{}, { EXPLAIN_TOKEN: "" }] as Record<string, string>[]) {
    const on = await Edge.start(document(), bindings);
    for (const token of [OPERATOR, ""]) {
      expect(await pinned("eu-paris", { on, token })).toMatchObject({ status: 401, code: "pin_unauthorized" });
    }
    await on.stop();
  }
  // The operator's token is no tenant's key.
  const headers = { "x-bailiwick-pin": "eu-paris", "x-bailiwick-operator": OPERATOR };
  expect(await read(await edge.chat("DE", { model: "large" }, { headers }))).toMatchObject({ status: 401 });
  expect(await counts()).toEqual([0, 0, 0, 0]);
});

test("it is asked once: no other endpoint, no other region, not again", async () => {
  for (const failure of [
    { mode: "status", status: 500 },
    { mode: "status", status: 429, headers: { "retry-after": "1" } },
    { mode: "reset" },
  ]) {
    const on = await Edge.start(document(), { EXPLAIN_TOKEN: OPERATOR });
    await Promise.all([fra, fra2].map((one) => one.fail(failure)));
    const failed = await pinned("eu-frankfurt", { on });
    expect(failed.status, JSON.stringify(failure)).toBeGreaterThanOrEqual(429);
    expect(failed.attempts!.split(",").length).toBe(1);
    const [one, two, three, four] = await counts();
    expect([one + two, three, four]).toEqual([1, 0, 0]);
    await Promise.all([fra.reset(), fra2.reset()]);
    await on.stop();
  }
});

test("a region that is down, or whose endpoints rest, is asked all the same", async () => {
  const health = await serve((_, response) => {
    const ill = { status: "down", probed: "down", stale: false, override: null };
    const regions = { "eu-paris": { ...ill, age_ms: 0, interval_ms: 5000, endpoints: {} } };
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify({ node: "ns1", revision: 1, rules_sha256: "", regions }));
  });
  const on = await Edge.start(document(), { EXPLAIN_TOKEN: OPERATOR, HEALTH_URLS: `${health}/v1/health` });
  const headers = { authorization: `Bearer ${KEY}` };
  const inParis = async () => read(await on.chat("FR", { model: "large" }, { headers, cf: { country: "FR" } }));
  await until(inParis, ({ region }) => region === "eu-frankfurt");
  expect(await pinned("eu-paris", { on })).toMatchObject({ status: 200, region: "eu-paris" });
  await par.fail({ mode: "status", status: 500, times: 1 });
  expect((await pinned("eu-paris", { on })).status).toBe(503);
  expect(await pinned("eu-paris", { on })).toMatchObject({ status: 200, region: "eu-paris" });
  expect(await inParis()).toMatchObject({ region: "eu-frankfurt" });
});

test("what can't be followed is refused, with a word of how to mend it", async () => {
  for (const pin of ["eu-rome", "eu-paris, eu-frankfurt", "eu-paris;arm=best", "eu-paris;arm=new;x", "eu-paris;"]) {
    const refused = await pinned(pin);
    expect(refused, pin).toMatchObject({ status: 400, code: "invalid_pin" });
    expect(refused.json.error.message).toContain("x-bailiwick-pin");
  }
  expect(await pinned("eu-paris", { model: "huge" })).toMatchObject({ status: 404, code: "model_not_found" });
  expect(await pinned("eu-paris;arm=new")).toMatchObject({ status: 400, code: "invalid_pin" });
  const headers = {
    authorization: `Bearer ${KEY}`,
    "x-bailiwick-pin": "eu-paris",
    "x-bailiwick-operator": OPERATOR,
  };
  for (const path of ["/v1/files", "/v1/responses/resp_1", "/v1/models"]) {
    const refused = await read(await edge.ask({ path, headers }));
    expect(refused.status, `${path}: ${refused.text}`).toBe(400);
    expect(refused.code).toBe("invalid_pin");
  }
  expect(await counts()).toEqual([0, 0, 0, 0]);
});

test("either arm of a rollout is tried, before it begins and after", async () => {
  for (const shares of [undefined, { "eu-frankfurt": 5 }]) {
    const rollout = {
      service: "chat",
      model: "large",
      from: "bf16",
      to: "fp8",
      regions: ["eu-frankfurt", "eu-paris"],
      checks: { error_rate: { max_diff: 0.01 } },
      progress: shares && { shares, since: "2026-12-01T06:00:00Z" },
    };
    const on = await Edge.start(document({ rollouts: { next: rollout } }), { EXPLAIN_TOKEN: OPERATOR });
    for (const [arm, name] of [
      ["old", "bf16"],
      ["new", "fp8"],
    ]) {
      for (const where of ["eu-paris", "eu-frankfurt"]) {
        const told = await pinned(`${where};arm=${arm}`, { on });
        expect(told).toMatchObject({ status: 200, region: where, arm, json: { model: "large" } });
      }
      expect(JSON.parse((await par.requests()).at(-1)!.body).model).toBe(name);
    }
    // What fails in the new arm takes the endpoint from nobody else.
    await par.fail({ mode: "status", status: 500, times: 1 });
    expect((await pinned("eu-paris;arm=new", { on })).status).toBe(503);
    const headers = { authorization: `Bearer ${KEY}` };
    const others = await read(await on.chat("FR", { model: "large" }, { headers, cf: { country: "FR" } }));
    expect(others).toMatchObject({ status: 200, region: "eu-paris" });
    await on.stop();
  }
});

test("what an operator sends somewhere isn't counted as demand", async () => {
  const batches: Json[] = [];
  const node = await serve(async (request, response) => {
    let text = "";
    for await (const chunk of request) text += chunk;
    batches.push(JSON.parse(text));
    response.end("{}");
  });
  const posting = { OBSERVATIONS_URLS: `${node}/v1/observations`, HEALTH_TOKEN: "t", OBSERVATIONS_SECONDS: "0.1" };
  const on = await Edge.start(document(), { EXPLAIN_TOKEN: OPERATOR, ...posting });
  expect((await pinned("eu-paris", { on })).status).toBe(200);
  const headers = { authorization: `Bearer ${KEY}` };
  expect((await read(await on.chat("DE", { model: "large" }, { headers }))).region).toBe("eu-frankfurt");
  const counted = await until(
    async () => {
      await on.ask({ path: "/.well-known/bailiwick/healthz" });
      return batches.flatMap(({ counts }) => counts as Json[]);
    },
    (counts) => counts.some(({ region }) => region === "eu-frankfurt"),
  );
  expect(counted.filter(({ region }) => region === "eu-paris")).toEqual([]);
});
