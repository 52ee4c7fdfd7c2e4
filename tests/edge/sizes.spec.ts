// Large bodies. Bodies that hosts accept pass, and are held once however often they are sent. Bodies that don't fit are
// refused, and the isolate lives.
import { createHash } from "node:crypto";
import { request as httpRequest } from "node:http";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { type Json, region, rules, serve, stopAll, until } from "./harness.js";
import { workerd } from "./workerd.js";

interface Seen {
  length: number;
  announced: string | undefined;
  sha: string;
}

/** The requests of the endpoints. While `gate` is shut, no endpoint answers. The next `failures` answers fail. */
const seen: Seen[] = [];
let gate: Promise<void> = Promise.resolve();
let failures = 0;
let url: string, small: string, fresh: string, unannounced: string, log: () => string;

beforeAll(async () => {
  const endpoint = await serve(async (request, response) => {
    const hash = createHash("sha256");
    let length = 0;
    for await (const chunk of request) {
      length += chunk.length;
      hash.update(chunk);
    }
    seen.push({ length, announced: request.headers["content-length"], sha: hash.digest("hex") });
    await gate;
    const fails = failures > 0;
    failures -= Number(fails);
    response.statusCode = fails ? 503 : 200;
    response.setHeader("content-type", "application/json");
    response.end(
      JSON.stringify({
        id: "x",
        object: "chat.completion",
        model: "m",
        text: "hi",
        choices: [{ index: 0, finish_reason: "stop", message: { role: "assistant", content: "hi" } }],
      }),
    );
  });
  const start = async (service: Json) => {
    const residency = [{ clients: ["*", "unknown"], process_in: ["*"] }];
    const book = rules(1, region("DE", "fra", [endpoint, endpoint]), { residency, hosts: ["127.0.0.1"], ...service });
    const feed = await serve((_, response) => response.end(JSON.stringify(book)));
    const started = await workerd({ RULES_URL: `${feed}/v1/rules` });
    await until(
      async () => (await fetch(`${started.url}/.well-known/bailiwick/healthz`)).status,
      (status) => status === 200,
    );
    return started;
  };
  ({ url } = await start({}));
  // A fresh isolate, whose memory isn't fragmented by earlier bodies.
  unannounced = (await start({})).url;
  ({ url: fresh, log } = await start({}));
  small = (await start({ limits: { body_bytes: 1_000_000 } })).url;
});
beforeEach(() => {
  seen.splice(0);
  gate = Promise.resolve();
  failures = 0;
});
afterAll(stopAll);

interface Reply {
  status: number;
  json: any;
  retryAfter: string | undefined;
}

function post(to: string, path: string, type: string, body: Buffer, chunked = false): Promise<Reply> {
  const headers = { "content-type": type, ...(chunked ? {} : { "content-length": body.length }) };
  return new Promise((resolve, reject) => {
    const sent = httpRequest(`${to}${path}`, { method: "POST", agent: false, headers }, async (response) => {
      let text = "";
      for await (const chunk of response) text += chunk;
      resolve({ status: response.statusCode!, json: JSON.parse(text), retryAfter: response.headers["retry-after"] });
    });
    sent.on("error", reject);
    if (!chunked) return sent.end(body);
    for (let at = 0; at < body.length; at += 1 << 16) sent.write(body.subarray(at, at + (1 << 16)));
    sent.end();
  });
}

const FORM = "multipart/form-data; boundary=B";
const audio = (megabytes: number, model = "m") =>
  Buffer.concat([
    Buffer.from('--B\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n\r\n'),
    Buffer.alloc(megabytes * 1e6, "0123456789\r\n--"),
    Buffer.from(`\r\n--B\r\nContent-Disposition: form-data; name="model"\r\n\r\n${model}\r\n--B--\r\n`),
  ]);
const image = (megabytes: number, model = "m") =>
  Buffer.from(
    JSON.stringify({
      model,
      messages: [
        {
          role: "user",
          content: [
            {
              type: "image_url",
              image_url: { url: `data:image/png;base64,${Buffer.alloc(megabytes * 1e6, 7).toString("base64")}` },
            },
          ],
        },
      ],
    }),
  );

test.each([2, 7, 20])("an image of %d MB in a chat passes as it is, with its length", async (megabytes) => {
  const body = image(megabytes);
  expect(await post(url, "/v1/chat/completions", "application/json", body)).toMatchObject({ status: 200 });
  expect(seen).toEqual([
    { length: body.length, announced: String(body.length), sha: createHash("sha256").update(body).digest("hex") },
  ]);
});

test("audio of 25 MB passes, with and without content-length, and is sent again when an endpoint fails", async () => {
  for (const chunked of [false, true]) {
    seen.splice(0);
    failures = 1;
    expect(
      await post(chunked ? unannounced : url, "/v1/audio/transcriptions", FORM, audio(25, `fails-${chunked}`), chunked),
    ).toMatchObject({ status: 200 });
    expect(seen.length).toBe(2);
    expect(
      seen.every((one) => one.length > 25e6 && one.announced === String(one.length)) && seen[0].sha === seen[1].sha,
    ).toBe(true);
  }
});

test("a body over the service's limit gets an error with the limit", async () => {
  for (const chunked of [false, true]) {
    const reply = await post(small, "/v1/audio/transcriptions", FORM, audio(2), chunked);
    expect(reply).toMatchObject({
      status: 413,
      json: { error: { code: "body_too_large", message: expect.stringContaining("1000000 bytes") } },
    });
  }
  expect(seen).toEqual([]);
});

test(
  "of many large bodies at once those that fit pass, the others get 503 with a wait, and small bodies pass",
  { timeout: 120_000 },
  async () => {
    let open = () => {};
    gate = new Promise((resolve) => (open = resolve));
    const body = audio(25);
    const many = Array.from({ length: 6 }, () => post(fresh, "/v1/audio/transcriptions", FORM, body));
    const first = many.map((one) => one.then((reply) => reply.status));
    // Two bodies of 25 MB are held and wait. The others were refused.
    await expect.poll(() => seen.length, { timeout: 60_000 }).toBeGreaterThanOrEqual(2);
    const chat = Buffer.from(JSON.stringify({ model: "m", messages: [{ role: "user", content: "hi" }] }));
    const beside = post(fresh, "/v1/chat/completions", "application/json", chat);
    await expect.poll(() => seen.some((one) => one.length === chat.length), { timeout: 30_000 }).toBe(true);
    open();
    expect((await beside).status).toBe(200);
    const statuses = await Promise.all(first);
    expect(statuses.filter((status) => status === 200).length).toBeGreaterThanOrEqual(2);
    for (const reply of await Promise.all(many)) {
      if (reply.status !== 200)
        expect(reply).toMatchObject({ status: 503, retryAfter: "1", json: { error: { code: "busy" } } });
    }
    expect(log()).not.toContain("panic");
    // All memory was freed.
    expect(await post(fresh, "/v1/audio/transcriptions", FORM, body)).toMatchObject({ status: 200 });
  },
);
