// Web pages of other origins: preflights, what a page may read, and the official client in a real browser.
import { spawnSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildSync } from "esbuild";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Edge, type Json, StandIn, keyDigest, read, region, root, rules, serve, stopAll } from "./harness.js";
import { workerd } from "./workerd.js";

const ORIGIN = "https://app.example.com";
const KEY = "sk-acme";
let fra: StandIn, edge: Edge, closed: Edge;

const tenants = { acme: { key_sha256: [keyDigest(KEY)], residency: "eu", services: ["chat"] } };
const document = (cors?: Json, more: Json = {}) =>
  rules(
    1,
    region("DE", "fra", [fra.url]),
    { limits: { body_bytes: 100_000 }, ...(cors && { cors }), ...more },
    { tenants },
  );

beforeAll(async () => {
  fra = await StandIn.start("fra");
  edge = await Edge.start(document({ origins: [ORIGIN, "http://localhost:3000"], max_age: "1h" }));
  closed = await Edge.start(document());
});
beforeEach(() => fra.reset());
afterAll(stopAll);

const preflight = (
  of: Edge,
  path = "/v1/chat/completions",
  method = "POST",
  origin = ORIGIN,
  headers = "authorization,content-type,x-stainless-lang",
) =>
  of.ask({
    path,
    method: "OPTIONS",
    headers: { origin, "access-control-request-method": method, "access-control-request-headers": headers },
  });
const chat = { model: "m", messages: [{ role: "user", content: "Say hello." }] };
const ask = (of: Edge, json: Json = chat, headers: Json = {}, path = "/v1/chat/completions") =>
  of.ask({ path, json, headers: { origin: ORIGIN, authorization: `Bearer ${KEY}`, ...headers } });

test("a preflight of a listed origin needs no key, and its answer lists what may be sent", async () => {
  const reply = await preflight(edge);
  const allowed = (name: string) => reply.headers.get(`access-control-${name}`);
  expect([reply.status, allowed("allow-origin"), allowed("allow-methods"), allowed("max-age")]).toEqual([
    204,
    ORIGIN,
    "POST",
    "3600",
  ]);
  expect(allowed("allow-headers")).toBe("authorization, content-type, x-stainless-lang");
  expect([reply.headers.get("vary"), allowed("allow-credentials")]).toEqual(["Origin", null]);
  expect((await preflight(edge, "/v1/chat/completions", "POST", "http://localhost:3000")).status).toBe(204);
  expect((await preflight(edge, "/v1/files/file-1", "DELETE")).status).toBe(204);
  const spoofed = await preflight(edge, undefined, undefined, undefined, "cf-connecting-ip, authorization");
  expect(spoofed.headers.get("access-control-allow-headers")).toBe("authorization");
  expect(await fra.requests()).toEqual([]);
});

test.each([
  ["another origin", "/v1/chat/completions", "POST", "https://app.example.com.evil.example", 403, "origin_not_allowed"],
  ["another port", "/v1/chat/completions", "POST", `${ORIGIN}:8443`, 403, "origin_not_allowed"],
  ["another scheme", "/v1/chat/completions", "POST", "http://app.example.com", 403, "origin_not_allowed"],
  ["no origin at all", "/v1/chat/completions", "POST", "null", 403, "origin_not_allowed"],
  ["an unknown path", "/v1/admin", "POST", ORIGIN, 404, "unknown_path"],
  ["a method the path hasn't", "/v1/chat/completions", "PUT", ORIGIN, 405, "method_not_allowed"],
] as [string, string, string, string, number, string][])(
  "a preflight for %s fails",
  async (_, path, method, origin, status, code) => {
    const reply = await preflight(edge, path, method, origin);
    expect(await read(reply)).toMatchObject({ status, code });
    if (status === 403) expect(reply.headers.get("access-control-allow-origin")).toBeNull();
  },
);

test("without cors a preflight is refused, and all other requests are served as before", async () => {
  expect(await read(await preflight(closed))).toMatchObject({ status: 403, code: "origin_not_allowed" });
  const reply = await ask(closed);
  expect([reply.status, reply.headers.get("access-control-allow-origin"), reply.headers.get("vary")]).toEqual([
    200,
    null,
    null,
  ]);
  // This isn't a preflight, so a key is required, as before.
  expect((await closed.ask({ method: "OPTIONS", headers: { origin: ORIGIN } })).status).toBe(401);
});

test("a script can read answers, errors and their headers", async () => {
  const open = (reply: { headers: { get(name: string): string | null } }) =>
    reply.headers.get("access-control-allow-origin");
  const good = await ask(edge);
  expect([good.status, open(good)]).toEqual([200, ORIGIN]);
  const exposed = good.headers.get("access-control-expose-headers")!.split(", ");
  expect(exposed).toEqual(
    expect.arrayContaining(["x-bailiwick-region", "x-bailiwick-attempts", "x-bailiwick-request-id"]),
  );
  const streamed = await ask(edge, { ...chat, stream: true });
  expect([streamed.status, open(streamed), streamed.headers.get("content-type")]).toEqual([
    200,
    ORIGIN,
    expect.stringContaining("text/event-stream"),
  ]);
  await streamed.text();
  for (const [status, reply] of [
    [401, await ask(edge, chat, { authorization: "Bearer nobody" })],
    [401, await ask(edge, chat, { authorization: "" })],
    [404, await ask(edge, chat, {}, "/v1/admin")],
    [413, await ask(edge, { ...chat, x: "x".repeat(200_000) })],
  ] as const) {
    expect([reply.status, open(reply), reply.headers.get("vary")]).toEqual([status, ORIGIN, "Origin"]);
  }
  await fra.fail({ mode: "status", status: 429 });
  const limited = await ask(edge, { ...chat, model: "limited" });
  expect([limited.status, open(limited)]).toEqual([429, ORIGIN]);
  await fra.fail({ mode: "status", status: 500 });
  const failed = await ask(edge, { ...chat, model: "failed" });
  expect([failed.status, open(failed)]).toEqual([503, ORIGIN]);
});

test("a request of an unlisted page reaches no endpoint, even if the browser sends no preflight", async () => {
  const reply = await ask(edge, chat, { origin: "https://evil.example", "content-type": "text/plain" });
  expect([reply.headers.get("access-control-allow-origin"), await read(reply)]).toMatchObject([
    null,
    { status: 403, code: "origin_not_allowed" },
  ]);
  expect(reply.headers.get("vary")).toBe("Origin");
  expect(await fra.requests()).toEqual([]);
});

test("a cached answer to a request without an origin is not used for a page", async () => {
  for (const headers of [{}, { origin: "" }] as Json[]) {
    const reply = await edge.ask({
      path: "/v1/chat/completions",
      json: chat,
      headers: { authorization: `Bearer ${KEY}`, ...headers },
    });
    expect([reply.status, reply.headers.get("vary"), reply.headers.get("access-control-allow-origin")]).toEqual([
      200,
      "Origin",
      null,
    ]);
  }
  const refused = await edge.ask({ path: "/v1/chat/completions", json: chat });
  expect([refused.status, refused.headers.get("vary")]).toEqual([401, "Origin"]);
  const without = await closed.ask({
    path: "/v1/chat/completions",
    json: chat,
    headers: { authorization: `Bearer ${KEY}` },
  });
  expect([without.status, without.headers.get("vary")]).toEqual([200, null]);
});

test("any origin may be allowed if every request needs a key", async () => {
  const any = await Edge.start(document({ origins: ["*"] }));
  const reply = await ask(any, chat, { origin: "null" });
  expect([reply.status, reply.headers.get("access-control-allow-origin"), reply.headers.get("vary")]).toEqual([
    200,
    "*",
    null,
  ]);
});

const CHROMIUM = ["chromium", "chromium-browser", "google-chrome"].find(
  (name) => spawnSync(name, ["--version"]).status === 0,
);

/** A page with the official client. It writes its results into its title. */
const script = () => {
  const source = `
    import OpenAI from "openai";
    const { base, key } = Object.fromEntries(new URLSearchParams(location.search));
    const client = new OpenAI({ baseURL: base, apiKey: key, dangerouslyAllowBrowser: true, maxRetries: 0 });
    const chat = { model: "m", messages: [{ role: "user", content: "Say hello." }] };
    const results = {};
    const note = async (name, ask) => {
      try {
        results[name] = await ask();
      } catch (error) {
        results[name] = { error: error.constructor.name, status: error.status, code: error.code };
      }
    };
    await note("whole", async () => {
      const { data, response } = await client.chat.completions.create(chat).withResponse();
      return { text: data.choices[0].message.content, region: response.headers.get("x-bailiwick-region") };
    });
    await note("streamed", async () => {
      let text = "";
      const stream = await client.chat.completions.create({ ...chat, stream: true });
      for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
      return { text };
    });
    await note("refused", () => client.chat.completions.create({ ...chat, tools: [{ type: "web_search" }] }));
    document.body.textContent = JSON.stringify(results);
    await fetch("/results", { method: "POST", body: JSON.stringify(results) });`;
  const built = buildSync({
    stdin: { contents: source, resolveDir: root, loader: "js" },
    bundle: true,
    format: "esm",
    platform: "browser",
    write: false,
    logLevel: "silent",
  });
  return built.outputFiles[0].text;
};

/** Opens a page at a new origin. Returns the results that the page reports. */
async function page(of: (origin: string) => Promise<string>): Promise<Json> {
  const code = script();
  let resolveResults: (results: Json) => void;
  const results = new Promise<Json>((resolve) => (resolveResults = resolve));
  const site = await serve((request, response) => {
    if (request.method === "POST") {
      let body = "";
      request.on("data", (chunk) => (body += chunk));
      request.on("end", () => {
        response.end();
        resolveResults(JSON.parse(body));
      });
    } else if (request.url === "/page.js") {
      response.setHeader("content-type", "text/javascript");
      response.end(code);
    } else {
      response.setHeader("content-type", "text/html");
      response.end('<!doctype html><meta charset="utf-8"><body><script type="module" src="/page.js"></script>');
    }
  });
  const profile = mkdtempSync(join(tmpdir(), "bailiwick-browser-"));
  const url = `${site}/?${new URLSearchParams({ base: await of(site), key: KEY })}`;
  const flags = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    `--user-data-dir=${profile}`,
    "--no-first-run",
  ];
  const browser = spawn(CHROMIUM!, [...flags, url], { stdio: "ignore", detached: true });
  const ended = new Promise((resolve) => browser.once("exit", resolve));
  try {
    return await results;
  } finally {
    process.kill(-browser.pid!, "SIGKILL");
    await ended;
    rmSync(profile, { recursive: true, force: true, maxRetries: 20 });
  }
}

/** Starts the Worker on its own socket, for pages of these origins. */
async function gateway(origins: string[]): Promise<string> {
  const residency = [{ clients: ["eu", "*", "unknown"], process_in: ["*"] }];
  const book = rules(
    1,
    region("DE", "fra", [fra.url]),
    { cors: { origins }, residency, hosts: ["127.0.0.1", "localhost"] },
    { tenants },
  );
  const feed = await serve((_, response) => response.end(JSON.stringify(book)));
  const { url } = await workerd({ RULES_URL: `${feed}/v1/rules` });
  await expect
    .poll(async () => (await fetch(`${url}/.well-known/bailiwick/healthz`)).status, { timeout: 20_000 })
    .toBe(200);
  return `${url}/v1`;
}

test.skipIf(!CHROMIUM)(
  "the official client works in a page of a listed origin, and sees errors",
  { timeout: 60_000 },
  async () => {
    const results = await page((origin) => gateway([origin]));
    expect(results.whole).toMatchObject({ text: expect.any(String), region: "fra" });
    expect(results.streamed.text.length).toBeGreaterThan(0);
    expect(results.refused).toMatchObject({ status: 400, code: "hosted_tool_not_allowed" });
  },
);

test.skipIf(!CHROMIUM)("a page of another origin is kept out by its browser", { timeout: 60_000 }, async () => {
  const results = await page(() => gateway(["https://app.example.com"]));
  expect(results.whole).toMatchObject({ error: "APIConnectionError" });
  expect(results.streamed).toMatchObject({ error: "APIConnectionError" });
  expect(await fra.requests()).toEqual([]);
});
