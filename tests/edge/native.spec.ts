// What the native gateway does itself, and no runtime for it.
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { connect } from "node:net";
import { afterAll, describe, expect, test } from "vitest";
import { type Json, onStop, read, region, rules, serve, stopAll, until } from "./harness.js";
import { Native, isNative } from "./native.js";

afterAll(stopAll);

const body = (stream: boolean) =>
  JSON.stringify({ model: "m", stream, messages: [{ role: "user", content: "Hello." }] });
const event = (text: string, finish: string | null = null) =>
  `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: text }, finish_reason: finish }] })}\n\n`;

/** A gateway whose only endpoint is `url`. */
async function start(
  url: string,
  options?: string[],
  service: Json = {},
  bindings: Record<string, string> = {},
): Promise<Native> {
  const native = await Native.start(bindings, options);
  onStop(() => native.dispose());
  const kv = await native.getKVNamespace();
  await kv.put("rules", JSON.stringify(rules(1, region("DE", "eu-frankfurt", [url]), service)));
  return native;
}

const ask = (native: Native, more: object = {}, signal?: AbortSignal) =>
  native.dispatchFetch("http://chat.example/v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json", ...more },
    body: body(true),
    cf: { country: "DE" },
    signal,
  });

describe.skipIf(!isNative)("the native gateway", () => {
  test("a stream in flight is passed on to its end after SIGTERM, and the process ends with 0", async () => {
    let answer: ServerResponse | undefined;
    const url = await serve((request, response) => {
      request.resume();
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(event("one"));
      answer = response;
    });
    const native = await start(url);
    const reply = await ask(native);
    expect(reply.status).toBe(200);
    const exit = once(native.child, "exit");
    native.child.kill("SIGTERM");
    await until(
      async () => native.log.join(),
      (log) => log.includes("draining"),
    );
    answer!.end(`${event("two", "stop")}data: [DONE]\n\n`);
    const { text } = await read(reply as never);
    expect(text).toContain("one");
    expect(text).toContain("two");
    expect(text.trimEnd().endsWith("data: [DONE]")).toBe(true);
    expect(await exit).toEqual([0, null]);
  });

  test("from a proxy that isn't trusted, a client's address and place don't count", async () => {
    let asked = 0;
    const url = await serve((_request, response) => {
      asked += 1;
      response.end("{}");
    });
    const native = await start(url, ["--threads", "2"]);
    const reply = await ask(native, { "cf-connecting-ip": "192.0.2.1" });
    expect([(await read(reply as never)).code, reply.status, asked]).toEqual(["residency_denied", 451, 0]);
  });

  /** Sends these octets as they are. Returns what comes until the gateway closes or `until` has come. */
  async function raw(native: Native, octets: string, until: RegExp): Promise<string> {
    const [host, port] = native.address.split(":");
    const socket = connect(Number(port), host);
    socket.write(octets);
    let text = "";
    for await (const chunk of socket) {
      text += chunk;
      if (until.test(text)) break;
    }
    return text;
  }

  test("a request with two hosts, or with a host that is none, is refused", async () => {
    const native = await start("http://127.0.0.1:9");
    for (const hosts of ["chat.example\r\nHost: other.example", "chat.example/v1/files?", "me@chat.example", "a b"]) {
      const text = await raw(native, `GET /v1/models HTTP/1.1\r\nHost: ${hosts}\r\n\r\n`, /\r\n\r\n/);
      expect(text, hosts).toMatch(/^HTTP\/1\.1 400 /);
    }
  });

  test("a request with more than 100 headers is refused", async () => {
    const native = await start("http://127.0.0.1:9");
    const many = Array.from({ length: 100 }, (_, i) => `x-${i}: 1\r\n`).join("");
    const text = await raw(native, `GET /v1/models HTTP/1.1\r\nHost: chat.example\r\n${many}\r\n`, /\r\n\r\n/);
    expect(text).toMatch(/^HTTP\/1\.1 431 /);
  });

  test("requests to endpoints have a length, also without a body, unless they only get something", async () => {
    const asked: string[] = [];
    const url = await serve((request, response) => {
      asked.push(`${request.method} ${request.headers["content-length"]}`);
      response.writeHead(200, { "content-type": "application/json" }).end('{"id":"resp_1","object":"response"}');
    });
    const service = { allow: ["store"] };
    const native = await start(url, undefined, service, { STATE_KEY: "k".repeat(40) });
    const state = (method: string, path: string, body?: string) =>
      native.dispatchFetch(`http://chat.example/v1/responses${path}`, {
        method,
        headers: { "content-type": "application/json" },
        body,
        cf: { country: "DE" },
      });
    const { json } = await read((await state("POST", "", '{"model":"m","input":"x","store":true}')) as never);
    for (const [method, path] of [
      ["POST", "/cancel"],
      ["DELETE", ""],
      ["GET", ""],
    ])
      expect((await state(method, `/${json.id}${path}`)).status).toBe(200);
    expect(asked.slice(1)).toEqual(["POST 0", "DELETE 0", "GET undefined"]);
  });

  test("of a short stream with a length that breaks off the client gets nothing, and the next is asked", async () => {
    let calls = 0;
    const whole = `${event("one", "stop")}data: [DONE]\n\n`;
    const url = await serve((request, response) => {
      request.resume();
      calls += 1;
      response.writeHead(200, { "content-type": "text/event-stream", "content-length": whole.length });
      if (calls > 1) return void response.end(whole);
      response.write(whole.slice(0, -20), () => setTimeout(() => response.destroy(), 20));
    });
    const native = await Native.start({});
    onStop(() => native.dispose());
    const kv = await native.getKVNamespace();
    await kv.put("rules", JSON.stringify(rules(1, region("DE", "eu-frankfurt", [url, url]))));
    const { status, text, attempts } = await read((await ask(native)) as never);
    expect([status, text, calls]).toEqual([200, whole, 2]);
    expect(attempts).toMatch(/outcome=network.*outcome=committed/);
  });

  test("a trusted proxy's headers count if there is one of each", async () => {
    const native = await start("http://127.0.0.1:9");
    const place = (country: string) => `bailiwick-cf: {"country":"${country}"}\r\n`;
    const ask = (places: string) => {
      const head = `Host: chat.example\r\nContent-Type: application/json\r\nContent-Length: ${body(false).length}\r\n`;
      return raw(native, `POST /v1/chat/completions HTTP/1.1\r\n${head}${places}\r\n${body(false)}`, /"code"/);
    };
    expect(await ask(place("DE")), "its only endpoint is gone").toContain("region_unavailable");
    expect(await ask(place("DE") + place("DE"))).toContain("residency_denied");
  });

  test("a client that goes before its answer ends the request at the endpoint", async () => {
    let gone = false;
    let asked = false;
    const url = await serve((request, response) => {
      asked = true;
      request.resume();
      response.on("close", () => (gone = true));
    });
    const native = await start(url);
    const leaving = new AbortController();
    const answer = ask(native, {}, leaving.signal);
    await until(async () => asked, Boolean);
    leaving.abort();
    await expect(answer).rejects.toThrow();
    // Sooner than the limit of an endpoint's headers, which would end it too.
    await until(async () => gone, Boolean, 5_000);
  });

  test("a body that doesn't come ends with 408, and its connection is closed", async () => {
    const native = await start("http://127.0.0.1:9", undefined, { limits: { idle: "1s" } });
    const head = "Host: chat.example\r\nContent-Type: application/json\r\nContent-Length: 100\r\n";
    const text = await raw(native, `POST /v1/chat/completions HTTP/1.1\r\n${head}\r\n{`, /never/);
    expect(text).toMatch(/^HTTP\/1\.1 408 /);
  });
});
