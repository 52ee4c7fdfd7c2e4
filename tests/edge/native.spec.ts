// What the native gateway does itself, and no runtime for it.
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import { connect } from "node:net";
import { afterAll, describe, expect, test } from "vitest";
import { onStop, read, region, rules, serve, stopAll, until } from "./harness.js";
import { Native, isNative } from "./native.js";

afterAll(stopAll);

const body = (stream: boolean) =>
  JSON.stringify({ model: "m", stream, messages: [{ role: "user", content: "Hello." }] });
const event = (text: string, finish: string | null = null) =>
  `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: text }, finish_reason: finish }] })}\n\n`;

/** A gateway whose only endpoint is `url`. */
async function start(url: string, options?: string[]): Promise<Native> {
  const native = await Native.start({}, options);
  onStop(() => native.dispose());
  const kv = await native.getKVNamespace();
  await kv.put("rules", JSON.stringify(rules(1, region("DE", "eu-frankfurt", [url]))));
  return native;
}

const ask = (native: Native, more: object = {}) =>
  native.dispatchFetch("http://chat.example/v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json", ...more },
    body: body(true),
    cf: { country: "DE" },
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

  test("a request with two hosts is refused", async () => {
    const native = await start("http://127.0.0.1:9");
    const [host, port] = native.address.split(":");
    const socket = connect(Number(port), host);
    socket.end("GET /v1/models HTTP/1.1\r\nHost: chat.example\r\nHost: other.example\r\n\r\n");
    const chunks: Buffer[] = [];
    for await (const chunk of socket) chunks.push(chunk);
    expect(Buffer.concat(chunks).toString()).toMatch(/^HTTP\/1\.1 400 /);
  });
});
