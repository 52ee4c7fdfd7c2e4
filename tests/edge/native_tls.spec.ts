// The native gateway's TLS and its files that are read again: certificates, secrets.
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import { join } from "node:path";
import { type TLSSocket, connect as connectTls } from "node:tls";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { STREAM, ask, dial, open, told } from "./asking.js";
import { Gateway, TOP, certificate } from "./gateway.js";
import { onStop, region, rules, stopAll, until } from "./harness.js";
import { END, Endpoint, event } from "./held.js";
import { isNative } from "./native.js";

afterAll(stopAll);

describe.skipIf(!isNative)("the native gateway's TLS", () => {
  const [one, two] = [certificate("one"), certificate("two")];
  const config = `${TOP}tls = { cert = "edge.pem", key = "edge.key" }\n`;
  let endpoint: Endpoint;
  beforeAll(async () => {
    endpoint = await Endpoint.start();
  });
  const start = () =>
    Gateway.start({ config, files: { "rules.json": endpoint.local(), "edge.pem": one.cert, "edge.key": one.key } });

  /** The name in the certificate that a new connection gets. */
  async function served(gateway: Gateway): Promise<string> {
    const socket = (await dial(gateway.address, { isTls: true })) as TLSSocket;
    const { CN } = socket.getPeerCertificate().subject;
    socket.destroy();
    return CN as string;
  }

  test("HTTP/2 is spoken if a client offers it, otherwise HTTP/1.1", async () => {
    const gateway = await start();
    const [host, port] = gateway.address.split(":");
    const protocol = async (ALPNProtocols?: string[]) => {
      const options = { ALPNProtocols, servername: "chat.example", rejectUnauthorized: false };
      const socket = connectTls({ host, port: Number(port), ...options });
      await once(socket, "secureConnect");
      socket.destroy();
      return socket.alpnProtocol;
    };
    expect(await protocol(["http/1.1", "h2"])).toBe("h2");
    expect(await protocol(["http/1.1"])).toBe("http/1.1");
    expect(await protocol()).toBe(false);
    await expect(protocol(["spdy/3"])).rejects.toThrow(/no application protocol/i);
    expect((await ask(gateway.address, { isTls: true })).region).toBe("eu-frankfurt");

    const session = connectHttp2(`https://${gateway.address}`, { rejectUnauthorized: false });
    onStop(() => session.destroy());
    const stream = session.request({
      ":method": "POST",
      ":path": "/v1/chat/completions",
      ":authority": "chat.example",
      "content-type": "application/json",
    });
    stream.end(STREAM);
    const [headers] = await once(stream, "response");
    expect([headers[":status"], headers["x-bailiwick-region"]]).toEqual([200, "eu-frankfurt"]);
    let text = "";
    stream.setEncoding("utf8").on("data", (chunk) => (text += chunk));
    await until(
      async () => text,
      (text) => text.includes("begin"),
    );
    endpoint.streams.at(-1)!.end(END);
    await once(stream, "end");
    expect(text.endsWith("data: [DONE]\n\n")).toBe(true);
    // Without TLS nobody is answered in the clear.
    await expect(ask(gateway.address)).rejects.toThrow();
  });

  test("curl is satisfied, also with the certificate checked", async () => {
    const gateway = await start();
    const [, port] = gateway.address.split(":");
    for (const version of ["--http1.1", "--http2"]) {
      const url = `https://chat.example:${port}/.well-known/bailiwick/healthz`;
      // prettier-ignore
      const options = ["-sS", version, "--cacert", join(gateway.folder, "edge.pem"), "--noproxy", "*",
        "--resolve", `chat.example:${port}:127.0.0.1`, "-w", "\n%{http_version}", url];
      const { stdout, stderr, error } = spawnSync("curl", options, { encoding: "utf8" });
      if (error) return;
      expect(stderr).toBe("");
      expect(stdout).toMatch(version === "--http2" ? /"status":"ok".*\n2$/s : /"status":"ok".*\n1\.1$/s);
    }
  });

  test("a new certificate is served within seconds, and a stream under the old one goes on", async () => {
    const gateway = await start();
    expect(await served(gateway)).toBe("one");
    const stream = await open(gateway.address, { isTls: true, body: STREAM });
    await until(
      async () => endpoint.streams.length,
      (count) => count > 0,
    );
    const answer = endpoint.streams.at(-1)!;
    const reading = told(stream);
    gateway.write("edge.key", two.key);
    gateway.write("edge.pem", two.cert);
    await until(
      () => served(gateway),
      (name) => name === "two",
      5_000,
    );
    await gateway.line(({ message, files }) => message === "read again" && files.includes("edge.pem"));
    answer.write(event("after"));
    answer.end(END);
    const { text } = await reading;
    expect(text).toContain("after");
    expect(text.endsWith("data: [DONE]\n\n")).toBe(true);
  });

  test("a bad certificate leaves the last good one, and the log says why", async () => {
    const gateway = await start();
    const bad: [string, string, RegExp][] = [
      ["edge.pem", "nonsense", /edge\.pem: holds no certificate.*the version before it stays in service/],
      ["edge.pem", two.cert, /edge\.pem: .*edge\.key.*belong together; the version before it stays in service/],
    ];
    for (const [name, text, why] of bad) {
      const from = gateway.lines.length;
      gateway.renew(name, text);
      const line = await gateway.line(({ message }) => why.test(message), from);
      expect(line.level).toBe("ERROR");
      expect(await served(gateway)).toBe("one");
      expect((await ask(gateway.address, { isTls: true })).region).toBe("eu-frankfurt");
    }
    // The key that belongs to the certificate completes the change.
    gateway.renew("edge.key", two.key);
    await until(
      () => served(gateway),
      (name) => name === "two",
      5_000,
    );
  });

  test("SIGHUP reads files again at once, also those that haven't changed", async () => {
    const gateway = await start();
    const from = gateway.lines.length;
    gateway.child.kill("SIGHUP");
    await gateway.line(({ message, files }) => message === "read again" && files.includes("edge.pem"), from);
    expect(await served(gateway)).toBe("one");
    expect((await ask(gateway.address, { isTls: true })).status).toBe(200);
  });
});

describe.skipIf(!isNative)("the native gateway's secrets", () => {
  /** Starts one whose endpoint wants the secret KEY, and returns what the endpoint is sent. */
  async function start(sections: string, files: Record<string, string>, env: Record<string, string> = {}) {
    const endpoint = await Endpoint.start();
    const regions = region("DE", "eu-frankfurt", [endpoint.url], { secret: "KEY" });
    const document = rules(1, regions, {}, { networks: [{ prefix: "127.0.0.0/8", country: "DE" }] });
    const setup = { config: TOP + sections, files: { "rules.json": JSON.stringify(document), ...files }, env };
    const gateway = await Gateway.start(setup);
    const sent = async () => {
      const { status, text } = await ask(gateway.address);
      return status === 200 ? endpoint.seen.at(-1)!.headers.authorization : text;
    };
    return { gateway, sent };
  }

  test("a file counts more than [variables], and those more than the environment", async () => {
    const variables = '[variables]\nKEY = "of-variables"\n';
    const env = { KEY: "of-environment" };
    const file = { "key.txt": "of-file\n" };
    expect(await (await start("", {}, env)).sent()).toBe("Bearer of-environment");
    expect(await (await start(variables, {}, env)).sent()).toBe("Bearer of-variables");
    expect(await (await start(`${variables}[secrets]\nKEY = "key.txt"\n`, file, env)).sent()).toBe("Bearer of-file");
  });

  test("a secret's file is read again, and a bad one leaves the last good secret", async () => {
    const { gateway, sent } = await start('[secrets]\nKEY = "key.txt"\n', { "key.txt": "first\n" });
    expect(await sent()).toBe("Bearer first");
    gateway.write("key.txt", "second\r\n");
    await until(sent, (key) => key === "Bearer second", 5_000);
    const from = gateway.lines.length;
    gateway.renew("key.txt", "\n");
    await gateway.line(
      ({ message }) => /key\.txt: is empty; write the secret KEY there; the version before/.test(message),
      from,
    );
    expect(await sent()).toBe("Bearer second");
    expect(JSON.stringify(gateway.lines)).not.toMatch(/first|second/);
  });
});
