// docs/self-hosting.md: edge-worker/workerd.capnp unchanged, on a socket of the test's choice, behind a front that says
// where requests come from.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, readdirSync } from "node:fs";
import { request as ask } from "node:http";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { StandIn, onStop, read, region, root, rules, serve, setting, stopAll } from "./harness.js";

const file = `${root}edge-worker/workerd.capnp`;
let url: string, fra: StandIn, nyc: StandIn;

beforeAll(async () => {
  [fra, nyc] = await Promise.all(
    ["eu-frankfurt", "us-virginia"].map((name) => StandIn.start(name, "--secret", "upstream-secret")),
  );
  const secret = { secret: "FRA_KEY" };
  const regions = {
    ...region("DE", "eu-frankfurt", [fra.url], secret),
    ...region("US", "us-virginia", [nyc.url], secret),
  };
  const document = rules(1, regions, {}, { networks: [{ prefix: "198.51.100.0/24", country: "US" }] });
  const node = await serve((_, response) => response.end(JSON.stringify(document)));
  const binary = createRequire(import.meta.url).resolve("workerd/bin/workerd");
  const env = {
    PATH: process.env.PATH,
    RULES_URL: `${node}/v1/rules`,
    FRA_KEY: "upstream-secret",
    STATE_KEY: "k".repeat(44),
  };
  const args = ["serve", file, "--socket-addr", "http=127.0.0.1:0", "--control-fd=3"];
  const child = spawn(binary, args, { env, stdio: ["ignore", "inherit", "inherit", "pipe"] });
  onStop(() => child.kill());
  for await (const line of createInterface({ input: child.stdio[3] as NodeJS.ReadableStream })) {
    const reported = JSON.parse(line);
    if (reported.event === "listen") {
      url = `http://127.0.0.1:${reported.port}`;
      return;
    }
  }
  throw new Error(`workerd ended: ${await once(child, "exit")}`);
});
beforeEach(() => Promise.all([fra.reset(), nyc.reset()]));
afterAll(stopAll);

async function chat(headers: Record<string, string>, to = url, path = "/v1/chat/completions", method = "POST") {
  const reply = await new Promise<Response>((resolve, reject) => {
    const all = { host: "chat.example", "content-type": "application/json", ...headers };
    const asked = ask(to, { path, method, agent: false, headers: all }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () =>
        resolve(
          new Response(Buffer.concat(chunks), { status: response.statusCode, headers: response.headers as never }),
        ),
      );
    });
    asked.on("error", reject);
    asked.end(method === "POST" ? JSON.stringify({ model: "m", messages: [] }) : undefined);
  });
  return read(reply as never);
}

test("a client is placed by the headers of the front", async () => {
  expect(await chat({ "bailiwick-cf": '{"country":"DE"}' })).toMatchObject({ status: 200, region: "eu-frankfurt" });
  expect(await chat({ "bailiwick-cf": '{"country":"US"}' })).toMatchObject({ status: 200, region: "us-virginia" });
  expect(await chat({ "bailiwick-cf": '{"country":"DE"}', "cf-connecting-ip": "198.51.100.9" })).toMatchObject({
    region: "us-virginia",
  });
  for (const { headers } of [...(await fra.requests()), ...(await nyc.requests())]) {
    expect(Object.keys(headers).filter((name) => /^(cf-|bailiwick)/.test(name))).toEqual([]);
    expect(headers.authorization).toBe("Bearer upstream-secret");
  }
});

test.each<[string, Record<string, string>]>([
  ["nothing", {}],
  ["an empty country", { "bailiwick-cf": '{"country":""}' }],
  ["no country", { "bailiwick-cf": "{}" }],
  ["XX", { "bailiwick-cf": '{"country":"XX"}' }],
  ["a header that only Cloudflare would set", { "cf-ipcountry": "DE" }],
])("a client with %s is unknown, and denied", async (_, headers) => {
  expect(await chat(headers)).toMatchObject({ status: 451, code: "residency_denied" });
  expect([...(await fra.requests()), ...(await nyc.requests())]).toEqual([]);
});

test("behind a front that overwrites both headers, a client can't choose its country", async () => {
  const front = await serve((incoming, response) => {
    // The front overwrites headers as `proxy_set_header` does.
    const headers = { ...incoming.headers, "cf-connecting-ip": "203.0.113.7", "bailiwick-cf": '{"country":"DE"}' };
    incoming.pipe(
      ask(`${url}${incoming.url}`, { method: incoming.method, headers }, (answer) => {
        response.writeHead(answer.statusCode!, answer.headers);
        answer.pipe(response);
      }),
    );
  });
  const forged = { "Bailiwick-CF": '{"country":"US"}', "CF-Connecting-IP": "198.51.100.9" };
  expect(await chat(forged, front)).toMatchObject({ status: 200, region: "eu-frankfurt" });
  expect(await nyc.requests()).toEqual([]);
});

test("workerd.capnp and wrangler.toml have the same compatibility date and flags", () => {
  const text = readFileSync(file, "utf8");
  expect(text).toContain(`compatibilityDate = "${setting("compatibility_date")[0]}"`);
  expect(text).toContain(
    `compatibilityFlags = [${setting("compatibility_flags")
      .map((flag) => `"${flag}"`)
      .join(", ")}]`,
  );
  expect(text).toMatch(/address = "127\.0\.0\.1:8787"/);
});

test("the page names the header that workerd.capnp reads", () => {
  const [, header] = readFileSync(file, "utf8").match(/cfBlobHeader = "([^"]+)"/)!;
  const page = readFileSync(`${root}docs/self-hosting.md`, "utf8");
  expect(page).toMatch(new RegExp(`proxy_set_header +${header} `));
  expect(page).toMatch(/proxy_set_header +CF-Connecting-IP +\$remote_addr;/);
});

test("STATE_KEY reaches the Worker from the environment", async () => {
  const one = await chat({ "bailiwick-cf": '{"country":"DE"}' }, url, "/v1/files/file-1", "GET");
  expect(one, "STATE_KEY is set, so the id is only unknown").toMatchObject({ status: 404, code: "not_found" });
});

/** Matches names of variables and secrets in a text. */
const NAMES = /\b(?:RULES|HEALTH|LEASES|OBSERVATIONS|STATE|LOGS|RECEIPT|EXPLAIN)_[A-Z_]+\b|\bLOG\b(?==|`| =)/g;
const named = (text: string) => [...new Set(text.match(NAMES))].sort();

test("every variable that a page names is read by the code, and bound in workerd.capnp", () => {
  const folder = `${root}edge-worker/src`;
  const files = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".rs"));
  const code = files.map((name) => readFileSync(`${folder}/${name}`, "utf8")).join("\n");
  const read = [...new Set([...code.matchAll(/"([A-Z]+(?:_[A-Z]+)*)"/g)].map(([, name]) => name))];
  const bound = [...readFileSync(file, "utf8").matchAll(/\(name = "([A-Z_]+)", fromEnvironment = "([A-Z_]+)"\)/g)];
  expect(bound.filter(([, name, from]) => name !== from)).toEqual([]);
  const bindings = bound.map(([, name]) => name).filter((name) => name !== "FRA_KEY");
  const pages = ["docs/self-hosting.md", "wrangler.toml", "docs/edge-operations.md"];
  for (const page of pages) {
    const names = named(readFileSync(`${root}${page}`, "utf8"));
    expect(names.length, page).toBeGreaterThan(5);
    expect(
      names.filter((name) => !read.includes(name)),
      `${page} names what nothing reads`,
    ).toEqual([]);
    expect(
      names.filter((name) => !bindings.includes(name)),
      `${page} names what workerd.capnp doesn't bind`,
    ).toEqual([]);
  }
  const reported = named(
    pages
      .slice(0, 2)
      .map((page) => readFileSync(`${root}${page}`, "utf8"))
      .join("\n"),
  );
  expect(
    bindings.filter((name) => !reported.includes(name)),
    "bound but documented nowhere",
  ).toEqual([]);
  expect(
    bindings.filter((name) => !read.includes(name)),
    "bound but read nowhere",
  ).toEqual([]);
});
