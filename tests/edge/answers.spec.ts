// A client gets the whole answer, or a visible error where the endpoint broke off, and each chunk arrives without
// delay.
//
// These tests run against workerd without Miniflare, because only a real socket shows how a body ended.
import { type ServerResponse, request } from "node:http";
import { afterAll, beforeAll, expect, test } from "vitest";
import OpenAI from "openai";
import { region, rules, serve, stopAll } from "./harness.js";
import { workerd } from "./workerd.js";

/** What an endpoint does with a request, by the model that the request names. */
type Play = (response: ServerResponse, body: any) => unknown;
const plays = new Map<string, Play>();
const MIB = 1 << 20;
const PAIRS = 3;
let url: string;
/** Which endpoints were asked, in order. */
let asked: string[] = [];

beforeAll(async () => {
  const endpoint = (name: string) =>
    serve((request, response) => {
      let text = "";
      request.on("data", (chunk) => (text += chunk));
      request.on("end", () => {
        asked.push(name);
        if (name === "second")
          return void response
            .writeHead(200, { "content-type": "application/json" })
            .end(JSON.stringify({ object: "list", data: [] }));
        if (request.method === "POST" && request.url === "/v1/files")
          return void json(response, { id: "file-1", object: "file" });
        const body = text.startsWith("{") ? JSON.parse(text) : {};
        const play = plays.get(body.model ?? (request.url!.endsWith("/content") ? "file" : "look"));
        if (!play) return void response.writeHead(500).end();
        Promise.resolve(play(response, body)).catch((error) => response.destroy(error));
      });
    });
  const [first, second] = await Promise.all([endpoint("first"), endpoint("second")]);
  // Tests of failures have their own regions, because an endpoint that broke off rests.
  const pairs = Array.from({ length: PAIRS }, (_, i) => region("FR", `eu-pair${i}`, [first, second]));
  const regions = Object.assign(region("DE", "eu-alone", [first]), ...pairs);
  const document = rules(
    1,
    regions,
    { regions: ["eu-alone"] },
    { networks: [{ prefix: "198.51.100.0/24", country: "DE" }] },
  );
  for (let i = 0; i < PAIRS; i++)
    document.services[`pair${i}`] = {
      ...document.services.chat,
      hosts: [`pair${i}.example`],
      regions: [`eu-pair${i}`],
    };
  const node = await serve((_, response) => response.end(JSON.stringify(document)));
  ({ url } = await workerd({ RULES_URL: `${node}/v1/rules`, STATE_KEY: "k".repeat(32) }));
});
afterAll(stopAll);

interface Got {
  status: number;
  headers: Record<string, any>;
  body: Buffer;
  /** Whether the body ended as HTTP says it should. */
  whole: boolean;
}

interface Ask {
  path?: string;
  host?: string;
  json?: unknown;
  form?: string;
  headers?: Record<string, string>;
  onData?: (bytes: Buffer) => void;
}

function ask({ path = "/v1/chat/completions", host = "localhost", json, form, headers, onData }: Ask): Promise<Got> {
  return new Promise((resolve, reject) => {
    const body = json === undefined ? form : JSON.stringify(json);
    const sent = request(
      `${url}${path}`,
      {
        method: body === undefined ? "GET" : "POST",
        agent: false,
        headers: { host, "cf-connecting-ip": "198.51.100.7", ...headers },
      },
      (response) => {
        const parts: Buffer[] = [];
        const done = () =>
          resolve({
            status: response.statusCode!,
            headers: response.headers,
            body: Buffer.concat(parts),
            whole: response.complete,
          });
        response.on("data", (chunk) => {
          parts.push(chunk);
          onData?.(chunk);
        });
        response.on("end", done).on("error", done);
      },
    );
    sent.on("error", reject);
    sent.end(body);
  });
}

let models = 0;
/** Sends a request for a new model. The first endpoint answers it as `how` says. */
function play(how: Play, more: Ask & { body?: object } = {}): Promise<Got> {
  const model = `answers-${(models += 1)}`;
  plays.set(model, how);
  asked = [];
  return ask({ json: { model, ...documented(more.path), ...more.body }, ...more });
}

/** A minimal valid body for a path. The Worker refuses other fields. */
function documented(path = "/v1/chat/completions"): object {
  if (path === "/v1/completions") return { prompt: "hi" };
  if (path === "/v1/embeddings") return { input: "hi" };
  return path === "/v1/audio/speech" ? { input: "hi", voice: "alloy" } : { messages: [] };
}

const json = (response: ServerResponse, value: unknown) =>
  response
    .writeHead(200, { "content-type": "application/json" })
    .end(typeof value === "string" ? value : JSON.stringify(value));
const event = (value: unknown) => `data: ${JSON.stringify(value)}\n\n`;
const chunk = (delta: object, finish_reason: string | null = null, index = 0) =>
  event({ id: "c", object: "chat.completion.chunk", choices: [{ index, delta, finish_reason }] });
const events =
  (text: string, { end = true, kind = "text/event-stream" } = {}): Play =>
  (response) => {
    response.writeHead(200, { "content-type": kind }).write(text);
    return end ? response.end() : setTimeout(() => response.destroy(), 20);
  };
const hello = chunk({ content: "Hello" });
const stop = chunk({}, "stop");
const DONE = "data: [DONE]\n\n";

test.each([
  ["a chat", hello + stop, {}],
  ["a chat with its usage behind", hello + stop + event({ choices: [], usage: { total_tokens: 2 } }), {}],
  [
    "a completion",
    event({ choices: [{ index: 0, text: "x", finish_reason: null }] }) +
      event({ choices: [{ index: 0, text: "", finish_reason: "length" }] }),
    { path: "/v1/completions" },
  ],
  ["two choices", hello + chunk({ content: "Hi" }, null, 1) + stop + chunk({}, "stop", 1), { body: { n: 2 } }],
] as [string, string, object][])(
  "%s that ends without [DONE] is complete, and the client gets [DONE]",
  async (_, text, more) => {
    const { body: asks, ...rest } = more as { body?: object };
    const got = await play(events(text), { ...rest, body: { stream: true, ...asks } });
    expect([got.status, got.body.toString(), got.whole]).toEqual([200, text + DONE, true]);
  },
);

test.each([
  ["nothing says why it finished", hello, {}],
  ["one choice of two says so", hello + chunk({ content: "Hi" }, null, 1) + stop, { n: 2 }],
  ["the second choice never came", hello + stop, { n: 2 }],
] as [string, string, object][])("a stream that ends cleanly is still incomplete if %s", async (_, text, more) => {
  const got = await play(events(text), { body: { stream: true, ...more } });
  expect(got.body.toString().startsWith(text)).toBe(true);
  expect(JSON.parse(got.body.toString().slice(text.length).replace("data: ", "")).error.code).toBe(
    "upstream_interrupted",
  );
});

test("a last event without an empty line after it counts, and the client gets the empty line", async () => {
  const got = await play(events(hello + stop.trimEnd()), { body: { stream: true } });
  expect(got.body.toString()).toBe(hello + stop + DONE);
});

const completion = {
  id: "c-1",
  object: "chat.completion",
  created: 7,
  model: "m",
  choices: [
    {
      index: 0,
      message: {
        role: "assistant",
        content: "Hello",
        tool_calls: [{ id: "t", type: "function", function: { name: "f", arguments: "{}" } }],
      },
      finish_reason: "tool_calls",
      logprobs: null,
    },
  ],
  usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 },
};

test("JSON instead of a stream becomes one event, which the official client reads", async () => {
  plays.set("whole-chat", (response) => json(response, JSON.stringify(completion, null, 2)));
  const client = new OpenAI({
    baseURL: `${url.replace("127.0.0.1", "localhost")}/v1`,
    apiKey: "any",
    maxRetries: 0,
    defaultHeaders: { "cf-connecting-ip": "198.51.100.7" },
  });
  const stream = client.chat.completions.stream({ model: "whole-chat", messages: [], stream: true } as never);
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  expect(chunks).toMatchObject([
    { object: "chat.completion.chunk", choices: [{ delta: { content: "Hello" }, finish_reason: "tool_calls" }] },
  ]);
  expect((await stream.finalChatCompletion()).choices[0].message).toMatchObject({
    content: "Hello",
    tool_calls: [{ id: "t", function: { name: "f" } }],
  });
});

test("a JSON response instead of a stream becomes a series of events, which the official client reads", async () => {
  const response = {
    id: "resp_1",
    object: "response",
    created_at: 1,
    status: "completed",
    model: "m",
    error: null,
    output: [
      {
        id: "msg_1",
        type: "message",
        role: "assistant",
        status: "completed",
        content: [{ type: "output_text", text: "Hello", annotations: [] }],
      },
    ],
  };
  plays.set("whole-response", (reply) => json(reply, response));
  const client = new OpenAI({
    baseURL: `${url.replace("127.0.0.1", "localhost")}/v1`,
    apiKey: "any",
    maxRetries: 0,
    defaultHeaders: { "cf-connecting-ip": "198.51.100.7" },
  });
  const stream = client.responses.stream({ model: "whole-response", input: "hi" });
  let text = "";
  for await (const event of stream) if (event.type === "response.output_text.delta") text += event.delta;
  expect([text, (await stream.finalResponse()).output_text]).toEqual(["Hello", "Hello"]);
});

test("NaN and Infinity, as Python writes them, pass byte for byte", async () => {
  const text = '{"object":"list","data":[{"score":NaN},{"score":-Infinity}]}';
  const unary = await play((response) => json(response, text), { path: "/v1/embeddings" });
  expect([unary.status, unary.body.toString()]).toEqual([200, text]);
  const odd =
    'data: {"choices":[{"index":0,"delta":{"content":"x"},"logprobs":{"content":[{"logprob":-Infinity}]}}]}\n\n';
  const streamed = await play(events(odd + stop + DONE), { body: { stream: true } });
  expect(streamed.body.toString()).toBe(odd + stop + DONE);
});

/** An endpoint that begins a body of type `kind`, and breaks it off after `bytes` bytes. */
const cut =
  (kind: string, bytes: number, headers: object = {}): Play =>
  (response) => {
    response.writeHead(200, { "content-type": kind, ...headers });
    const begin = kind === "application/json" ? '{"data":"' : "";
    response.write(begin + "A".repeat(bytes), () => setTimeout(() => response.destroy(), 20));
  };

test.each([
  ["JSON", 0, "application/json", "/v1/embeddings"],
  ["JSON with a length", 1, "application/json", "/v1/embeddings", { "content-length": 900_000 }],
  ["a transcript as text", 2, "text/plain; charset=utf-8", "/v1/audio/speech"],
] as [string, number, string, string, object?][])(
  "%s that is cut within 8 MiB is served by the next endpoint",
  async (_, pair, kind, path, headers) => {
    const got = await play(cut(kind, 300_000, headers), { path, host: `pair${pair}.example` });
    expect([got.status, got.body.toString(), asked]).toEqual([200, '{"object":"list","data":[]}', ["first", "second"]]);
    expect(got.headers["x-bailiwick-attempts"]).toMatch(
      /^eu-pair\d-1;outcome=network;ms=\d+, eu-pair\d-2;outcome=committed$/,
    );
  },
);

test.each([
  ["speech", "audio/mpeg", "/v1/audio/speech", 200_000],
  ["speech with a length", "audio/mpeg", "/v1/audio/speech", 200_000, { "content-length": 900_000 }],
  ["long JSON", "application/json", "/v1/embeddings", 9 * MIB],
  ["a long text", "text/plain", "/v1/audio/speech", 9 * MIB],
] as [string, string, string, number, object?][])(
  "%s that is cut is broken off for the client too",
  async (_, kind, path, bytes, headers) => {
    const got = await play(cut(kind, bytes, headers), { path });
    expect([got.status, got.whole, asked]).toEqual([200, false, ["first"]]);
    expect(got.body.length).toBeGreaterThan(0);
  },
);

test("an answer that breaks off while a slow client still reads is broken off for this client too", async () => {
  // Whether the gateway holds bytes at the moment of the break depends on chance, so the test tries it often.
  for (let i = 0; i < 40; i++) {
    const broken: Play = (response) => {
      response.writeHead(200, { "content-type": "audio/mpeg" });
      response.write("A".repeat(3 * MIB + i * 1_000), () => response.destroy());
    };
    const got = await play(broken, { path: "/v1/audio/speech" });
    expect([got.status, got.whole]).toEqual([200, false]);
  }
});

test("an event that was sent partly is not completed when the endpoint breaks off", async () => {
  const got = await play(events(`${hello}data: {"choices":[{"index":0,"delta":{"content":"${"x".repeat(2 * MIB)}`), {
    body: { stream: true },
  });
  expect([got.status, got.whole]).toEqual([200, false]);
});

/** The client's id of a file. */
async function file(): Promise<string> {
  const form = ['purpose"\r\n\r\nuser_data', 'file"; filename="a"\r\n\r\nx'].map(
    (part) => `--B\r\nContent-Disposition: form-data; name="${part}\r\n`,
  );
  const got = await ask({
    path: "/v1/files",
    form: `${form.join("")}--B--\r\n`,
    headers: { "content-type": "multipart/form-data; boundary=B" },
  });
  return JSON.parse(got.body.toString()).id;
}

test("a file without a content-length is held, and gets one", async () => {
  const content = async (play: Play) => {
    plays.set("file", play);
    return ask({ path: `/v1/files/${await file()}/content` });
  };
  const text = "A".repeat(3 * MIB);
  const whole = await content((response) => response.writeHead(200, { "content-type": "application/jsonl" }).end(text));
  expect([whole.status, whole.headers["content-length"], whole.body.toString() === text]).toEqual([
    200,
    String(text.length),
    true,
  ]);
  expect((await content(cut("application/jsonl", 300_000))).status).toBe(503);
  const sized = await content(cut("application/jsonl", 300_000, { "content-length": 900_000 }));
  expect([sized.status, sized.headers["content-length"], sized.whole]).toEqual([200, "900000", false]);
  const long = await content(cut("application/jsonl", 9 * MIB));
  expect([long.status, long.whole]).toEqual([200, false]);
});

test.each([
  ["mp3", "audio/mpeg", {}],
  ["mp3 whose length is known", "audio/mpeg", { "content-length": 6 }],
  ["pcm", "audio/pcm", {}],
  ["bytes", "application/octet-stream", {}],
] as [string, string, object][])(
  "the beginning of an audio answer arrives before the endpoint has sent the rest: %s",
  async (_, kind, headers) => {
    let heard!: () => void;
    const first = new Promise<void>((resolve) => (heard = resolve));
    const got = await play(
      async (response) => {
        response.writeHead(200, { "content-type": kind, ...headers }).write("abc");
        await first;
        response.end("def");
      },
      { path: "/v1/audio/speech", onData: heard },
    );
    expect([got.status, got.body.toString(), got.whole]).toEqual([200, "abcdef", true]);
  },
);

test("audio in events arrives event by event, and ends with the last event of its own format", async () => {
  let heard!: () => void;
  const first = new Promise<void>((resolve) => (heard = resolve));
  const [delta, last] = [
    event({ type: "speech.audio.delta", audio: "AAAA" }),
    event({ type: "speech.audio.done", usage: {} }),
  ];
  const got = await play(
    async (response) => {
      response.writeHead(200, { "content-type": "text/event-stream" }).write(delta);
      await first;
      response.end(last);
    },
    { path: "/v1/audio/speech", onData: heard },
  );
  expect([got.body.toString(), got.whole]).toEqual([delta + last, true]);
});
