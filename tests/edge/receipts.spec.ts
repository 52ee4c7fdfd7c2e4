// Receipts: their content; that the npm package `jose` and `bailiwick receipt verify` accept them and no others; and
// that nothing is sent without a signing key if receipts are required.
import { execFileSync, spawnSync } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { calculateJwkThumbprint, createLocalJWKSet, decodeProtectedHeader, jwtVerify } from "jose";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Edge, type Json, StandIn, keyDigest, onStop, read, region, rules, stopAll, until } from "./harness.js";
import { program } from "./program.js";

const pair = generateKeyPairSync("ed25519");
const pem = pair.privateKey.export({ type: "pkcs8", format: "pem" }) as string;
const jwk = JSON.stringify(pair.privateKey.export({ format: "jwk" }));
const retired = generateKeyPairSync("ed25519").publicKey.export({ format: "jwk" });

let fra: StandIn, ams: StandIn, edge: Edge, document: Json;
let logged = "";

/** Collects the log of the Worker. */
const logging: any = {
  handleRuntimeStdio(stdout: NodeJS.ReadableStream, stderr: NodeJS.ReadableStream) {
    for (const stream of [stdout, stderr]) stream.on("data", (chunk) => (logged += chunk));
  },
};

beforeAll(async () => {
  [fra, ams] = await Promise.all([StandIn.start("eu-frankfurt"), StandIn.start("eu-amsterdam")]);
  const regions = { ...region("DE", "eu-frankfurt", [fra.url]), ...region("NL", "eu-amsterdam", [ams.url]) };
  document = rules(
    7,
    regions,
    {},
    {
      tenants: {
        "acme-canary-tenant": { key_sha256: [keyDigest("sk-canary-key")], residency: "eu", services: ["keyed"] },
      },
    },
  );
  const service = (host: string, receipts?: string) => ({ ...document.services.chat, hosts: [host], receipts });
  document.services.off = service("off.example", "off");
  document.services.required = service("required.example", "required");
  document.services.keyed = service("keyed.example", "required");
  edge = await Edge.start(
    document,
    { RECEIPT_KEY: pem, RECEIPT_PUBLIC_KEYS: JSON.stringify({ keys: [retired] }) },
    logging,
  );
});
beforeEach(() => Promise.all([fra.reset(), ams.reset()]));
afterAll(stopAll);

async function keySet(of = edge): Promise<any> {
  return read(await of.ask({ path: "/.well-known/bailiwick/jwks.json" })).then(({ json }) => json);
}

/** The claims that `jose` reads in an answer's receipt. */
async function claims(reply: { headers: { get(name: string): string | null } }): Promise<any> {
  const receipt = reply.headers.get("x-bailiwick-receipt")!;
  const options = { algorithms: ["EdDSA"], typ: "bailiwick-receipt+jwt", maxTokenAge: "1 minute" };
  return (await jwtVerify(receipt, createLocalJWKSet(await keySet()), options)).payload;
}

test("the public keys are listed, the signing key first, then earlier keys, without private parts", async () => {
  const { keys } = await keySet();
  const { x } = pair.publicKey.export({ format: "jwk" });
  expect(keys.map((key: Json) => key.x)).toEqual([x, retired.x]);
  for (const key of keys) {
    expect(key).toMatchObject({
      kty: "OKP",
      crv: "Ed25519",
      alg: "EdDSA",
      use: "sig",
      kid: await calculateJwkThumbprint(key),
    });
    expect(Object.keys(key)).not.toContain("d");
  }
});

test.each([
  ["unary", false],
  ["streamed", true],
])("the receipt of a %s answer names the request's endpoint, and jose verifies it", async (_, stream) => {
  const reply = await edge.chat("DE", { stream, model: `plain-${stream}` });
  const health = await read(await edge.ask({ path: "/.well-known/bailiwick/healthz" }));
  await reply.text();
  const { jti, iat, attempts, ...rest } = await claims(reply);
  expect(jti).toBe(reply.headers.get("x-bailiwick-request-id"));
  expect(Math.abs(iat * 1000 - Date.now())).toBeLessThan(60_000);
  expect(attempts).toEqual([
    { region: "eu-frankfurt", endpoint: "eu-frankfurt-1", outcome: "committed", ms: expect.any(Number) },
  ]);
  expect(rest).toEqual({
    service: "chat",
    revision: 7,
    rules_sha256: health.json.rules_sha256,
    client: { jurisdictions: ["eu"], source: "geography" },
    fence: ["eu-frankfurt", "eu-amsterdam"],
    committed: { region: "eu-frankfurt", endpoint: "eu-frankfurt-1", jurisdiction: "eu" },
    status: 200,
  });
  const [key] = (await keySet()).keys;
  expect(decodeProtectedHeader(reply.headers.get("x-bailiwick-receipt")!)).toEqual({
    alg: "EdDSA",
    typ: "bailiwick-receipt+jwt",
    kid: key.kid,
  });
});

test("a receipt names every endpoint that may have the body, also if the request fails", async () => {
  await fra.fail({ mode: "status", status: 500 });
  const moved = await claims(await edge.chat("DE", { model: "moved" }));
  expect(moved.attempts.map(({ endpoint, outcome }: Json) => [endpoint, outcome])).toEqual([
    ["eu-frankfurt-1", "http_500"],
    ["eu-amsterdam-1", "committed"],
  ]);
  expect(moved.committed.region).toBe("eu-amsterdam");

  await ams.fail({ mode: "reset-headers" });
  const failed = await claims(await edge.chat("DE", { model: "failed" }));
  expect(failed).toMatchObject({
    status: 503,
    attempts: [{ outcome: "http_500" }, { outcome: "network" }, { outcome: "network" }],
  });
  expect(failed.committed).toBeUndefined();
});

test("no canary of prompt, key or upstream error shows in a receipt or a log, nor a tenant in a receipt", async () => {
  const canary = { messages: [{ role: "user", content: "canary-prompt" }] };
  const headers = { authorization: "Bearer sk-canary-key" };
  for (const failure of [
    null,
    { mode: "status", status: 400, body: { error: { message: "canary-upstream", code: "canary_code" } } },
    { mode: "status", status: 500 },
  ]) {
    if (failure) for (const one of [fra, ams]) await one.fail(failure);
    const reply = await edge.chat("DE", { ...canary, model: "canary-model" }, { host: "keyed.example", headers });
    const text = JSON.stringify(await claims(reply));
    expect(text).toContain('"service":"keyed"');
    expect(text).not.toMatch(/canary/);
  }
  // Waits for a line that must be there, which shows that this test sees the log.
  await until(
    async () => logged,
    (text) => text.includes("http_500"),
  );
  // The log may hold the tenant's name in the rules, which identifies no person.
  expect(logged.replaceAll("acme-canary-tenant", "")).not.toMatch(/canary|PRIVATE/);
});

test("there is no receipt if receipts are off or nothing was steered", async () => {
  expect((await edge.chat("DE", {}, { host: "off.example" })).headers.has("x-bailiwick-receipt")).toBe(false);
  expect((await edge.ask({ path: "/v1/nowhere" })).headers.has("x-bailiwick-receipt")).toBe(false);
});

test("the receipt of a huge fence is short, and counts the regions that it leaves out", async () => {
  const many: Json = {};
  for (let i = 0; i < 300; i++) many[`region-with-quite-a-name-${i}`] = { countries: ["DE"] };
  const huge = rules(1, { ...region("DE", "eu-frankfurt", [fra.url]), ...many });
  const other = await Edge.start(huge, { RECEIPT_KEY: jwk });
  const reply = await other.chat("DE", { model: "huge" });
  expect(reply.headers.get("x-bailiwick-receipt")!.length).toBeLessThanOrEqual(2048);
  // This Worker has the same key as the others, so the key set of the others verifies the receipt.
  const { fence, fence_more } = await claims(reply);
  expect(fence.length + fence_more).toBe(301);
  await other.stop();
});

const mismatched = JSON.stringify({ ...JSON.parse(jwk), x: retired.x });
test.each<[string, Record<string, string>]>([
  ["no key", {}],
  ["an empty key", { RECEIPT_KEY: " " }],
  ["text that isn't a key", { RECEIPT_KEY: "canary" }],
  [
    "a key of another kind",
    { RECEIPT_KEY: generateKeyPairSync("x25519").privateKey.export({ type: "pkcs8", format: "pem" }) as string },
  ],
  ["a pair that doesn't belong together", { RECEIPT_KEY: mismatched }],
])("with %s nothing is sent if receipts are required, and otherwise there are no receipts", async (_, bindings) => {
  const other = await Edge.start(document, bindings, logging);
  const required = await other.chat("DE", {}, { host: "required.example" });
  expect(await read(required)).toMatchObject({ status: 503, code: "receipt_unavailable" });
  expect([...(await fra.requests()), ...(await ams.requests())]).toEqual([]);
  const optional = await other.chat("DE");
  expect([optional.status, optional.headers.has("x-bailiwick-receipt")]).toEqual([200, false]);
  expect((await keySet(other)).keys).toEqual([]);
  expect(logged.replaceAll("acme-canary-tenant", "")).not.toMatch(/canary/);
  await other.stop();
});

test("bailiwick receipt verify accepts a receipt, and no changed receipt", async () => {
  const binary = program("bailiwick");
  const folder = mkdtempSync(join(tmpdir(), "bailiwick-receipt-"));
  onStop(() => rmSync(folder, { recursive: true, force: true }));
  const jwks = join(folder, "jwks.json");
  writeFileSync(jwks, JSON.stringify(await keySet()));

  const headers = { authorization: "Bearer sk-canary-key" };
  const reply = await edge.chat("FR", { model: "verify" }, { host: "keyed.example", headers });
  const receipt = reply.headers.get("x-bailiwick-receipt")!;
  const verify = (receipt: string, ...more: string[]) =>
    spawnSync(binary, ["receipt", "verify", "--jwks", jwks, receipt, ...more], { encoding: "utf8" });
  const reported = verify(receipt, "--tenant", "acme-canary-tenant", "--max-age", "10m");
  expect([reported.status, reported.stderr]).toEqual([0, ""]);
  expect(reported.stdout).toContain("client     eu, as its tenant declares\n");
  expect(JSON.parse(verify(receipt, "--json").stdout)).toEqual(await claims(reply));
  expect(verify(receipt, "--tenant", "globe").status).toBe(1);
  // The last character isn't changed: two of its bits have no meaning, and jose ignores them.
  for (const at of [3, receipt.indexOf(".") + 20, receipt.length - 2]) {
    const changed = receipt.slice(0, at) + (receipt[at] === "A" ? "B" : "A") + receipt.slice(at + 1);
    expect(verify(changed).status).toBe(1);
    await expect(claims({ headers: new Headers({ "x-bailiwick-receipt": changed }) })).rejects.toThrow();
  }
  expect(spawnSync(binary, ["receipt", "verify", receipt]).status).toBe(2);

  // The Worker accepts a key that `bailiwick receipt` generates.
  const made = execFileSync(binary, ["receipt", "keygen"], { encoding: "utf8" });
  const other = await Edge.start(document, { RECEIPT_KEY: made });
  expect((await keySet(other)).keys.map(({ kid }: Json) => kid)).toEqual([JSON.parse(made).kid]);
  await other.stop();
});
