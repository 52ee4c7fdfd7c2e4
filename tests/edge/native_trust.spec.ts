// Whom the native gateway trusts when it asks others by HTTPS: DNS nodes and endpoints whose certificates are of an
// authority of one's own.
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ask } from "./asking.js";
import { Gateway, folder } from "./gateway.js";
import { region, rules, onStop, stopAll, until } from "./harness.js";
import { isNative } from "./native.js";

afterAll(stopAll);

describe.skipIf(!isNative)("an authority of one's own", () => {
  let authority: string, url: string;
  /** What the server was asked. */
  const asked: string[] = [];
  beforeAll(async () => {
    const at = folder({ "leaf.ext": "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n" });
    const run = (...options: string[]) => execFileSync("openssl", options, { cwd: at, stdio: "ignore" });
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    run("req", "-x509", ...key, "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem");
    run("req", "-new", ...key, "-subj", "/CN=node", "-keyout", "leaf.key", "-out", "leaf.csr");
    const by = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2"];
    run("x509", "-req", "-in", "leaf.csr", ...by, "-extfile", "leaf.ext", "-out", "leaf.pem");
    authority = join(at, "ca.pem");
    const [cert, own] = ["leaf.pem", "leaf.key"].map((name) => readFileSync(join(at, name)));
    const server = createServer({ cert, key: own }, (request, response) => {
      asked.push(request.url!.replace(/\?.*/, ""));
      request.resume();
      response.setHeader("content-type", "application/json");
      if (!request.url!.startsWith("/v1/rules")) return void response.end(JSON.stringify({ choices: [] }));
      const networks = [{ prefix: "127.0.0.0/8", country: "DE" }];
      response.end(JSON.stringify(rules(1, region("DE", "eu-frankfurt", [url]), {}, { networks })));
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    onStop(() => (server.closeAllConnections(), server.close()));
    url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  const start = (env: Record<string, string>) =>
    Gateway.start({
      config: `listen = "127.0.0.1:0"\nthreads = 1\n[variables]\nRULES_URLS = "${url}/v1/rules"\n`,
      env,
    });

  test("is trusted for DNS nodes and endpoints if SSL_CERT_FILE names it", async () => {
    const gateway = await start({ SSL_CERT_FILE: authority });
    const { status } = await until(
      () => ask(gateway.address),
      ({ status }) => status !== 503,
    );
    expect(status).toBe(200);
    expect(new Set(asked)).toEqual(new Set(["/v1/rules", "/v1/chat/completions"]));
  });

  test("isn't trusted otherwise, and the log says that it is TLS", async () => {
    const before = asked.length;
    const gateway = await start({});
    expect(await ask(gateway.address)).toMatchObject({ status: 503, code: "not_ready" });
    const line = await gateway.line(({ event }) => event === "rules_unreachable");
    expect(line.reason).toBe("tls");
    expect(asked.length).toBe(before);
  });
});
