// The official client against the edge over real sockets. It notices only better errors.
import OpenAI from "openai";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Faulty } from "./faulty.js";
import { Edge, StandIn, keyDigest, region, rules, stopAll, until } from "./harness.js";

let fra: StandIn, par: StandIn, edge: Edge, client: OpenAI;

beforeAll(async () => {
  [fra, par] = await Promise.all(
    ["eu-frankfurt", "eu-paris"].map((name) => StandIn.start(name, "--secret", "upstream")),
  );
  const models = { "chat-large": "llama-3.3-70b-fp8", "chat-small": "llama-3.2-3b" };
  const more = { secret: "EU_KEY", models };
  const document = rules(
    1,
    { ...region("DE", "eu-frankfurt", [fra.url], more), ...region("FR", "eu-paris", [par.url], more) },
    {},
    {
      tenants: { acme: { key_sha256: [keyDigest("sk-acme")], services: ["chat"] } },
    },
  );
  edge = await Edge.start(document, { EU_KEY: "upstream" }, { cf: { country: "DE" } });
  const { port } = await edge.miniflare.ready;
  client = new OpenAI({ apiKey: "sk-acme", baseURL: `http://localhost:${port}/v1`, maxRetries: 2 });
});
beforeEach(() => Promise.all([fra, par].map((standIn) => standIn.reset())));
afterAll(stopAll);

const messages = [{ role: "user" as const, content: "Say hello." }];

test("a chat completion", async () => {
  const { data, response } = await client.chat.completions.create({ model: "chat-large", messages }).withResponse();
  expect(data.choices[0].message.content).toBe("Hello from eu-frankfurt");
  expect(response.headers.get("x-bailiwick-region")).toBe("eu-frankfurt");
  const [{ body, headers }] = await fra.requests();
  expect(JSON.parse(body).model).toBe("llama-3.3-70b-fp8");
  expect(headers.authorization).toBe("Bearer upstream");
});

test("a streamed chat completion", async () => {
  const stream = await client.chat.completions.create({ model: "chat-large", messages, stream: true });
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
  expect(text).toBe("Hello from eu-frankfurt");
});

test("a streamed response, an embedding, a completion", async () => {
  let text = "";
  for await (const event of await client.responses.create({ model: "chat-large", input: "hi", stream: true })) {
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  expect(text).toBe("Hello from eu-frankfurt");
  const { data } = await client.embeddings.create({ model: "chat-small", input: "hi" });
  expect(data[0].embedding).toEqual([0.25, -0.5, 0.125]);
  const completion = await client.completions.create({ model: "chat-small", prompt: "hi" });
  expect(completion.choices[0].text).toBe("Hello from eu-frankfurt");
});

test("the models of the fence, by the client's names, without asking an endpoint", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  expect(names.sort()).toEqual(["chat-large", "chat-small"]);
  expect((await client.models.retrieve("chat-large")).id).toBe("chat-large");
  await expect(client.models.retrieve("chat-huge")).rejects.toMatchObject({ status: 404, code: "model_not_found" });
  expect(await fra.requests()).toEqual([]);
});

test("errors are of the client's own classes, and the client retries those that a retry may mend", async () => {
  await expect(client.chat.completions.create({ model: "chat-huge", messages })).rejects.toMatchObject({
    status: 404,
    code: "model_not_found",
  });
  const stranger = new OpenAI({ apiKey: "sk-nobody", baseURL: client.baseURL });
  await expect(stranger.chat.completions.create({ model: "chat-large", messages })).rejects.toThrow(
    OpenAI.AuthenticationError,
  );
  for (const standIn of [fra, par]) await standIn.fail({ mode: "status", status: 500 });
  await expect(client.chat.completions.create({ model: "chat-small", messages })).rejects.toMatchObject({
    status: 503,
    code: "region_unavailable",
  });
  expect([(await fra.requests()).length, (await par.requests()).length]).toEqual([3, 3]);
});

test("a stream that dies is an error to the client, not a short answer", async () => {
  await fra.fail({ mode: "reset", after: 1 });
  const read = async () => {
    for await (const _ of await client.chat.completions.create({ model: "chat-large", messages, stream: true })) void _;
  };
  await expect(read()).rejects.toThrow(OpenAI.APIError);
});

test("every refusal is the client's own class of error, with a code", async () => {
  const ask = (more: object, own = client) =>
    own.chat.completions.create({ model: "chat-large", messages, ...more } as never);
  const refused = async (promise: Promise<unknown>, kind: new (...args: never[]) => Error, code: string) => {
    const error = await promise.then(
      () => null,
      (error) => error,
    );
    expect(error).toBeInstanceOf(kind);
    expect(error).toMatchObject({
      code,
      type: expect.any(String),
      requestID: expect.stringMatching(/^[0-9a-f-]{36}$/),
    });
    expect(error.headers.get("x-bailiwick-request-id")).toMatch(/^[0-9a-f-]{36}$/);
  };
  await refused(ask({ tools: 7 }), OpenAI.BadRequestError, "invalid_field");
  await refused(ask({ web_search_options: {} }), OpenAI.BadRequestError, "hosted_tool_not_allowed");
  await refused(
    ask({
      messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "https://x.example/y.png" } }] }],
    }),
    OpenAI.BadRequestError,
    "remote_url_not_allowed",
  );
  await refused(
    client.responses.create({ model: "chat-large", input: "hi", background: true }),
    OpenAI.BadRequestError,
    "background_not_allowed",
  );
  await refused(client.embeddings.create({ model: "chat-huge", input: "hi" }), OpenAI.NotFoundError, "model_not_found");
  expect(await fra.requests()).toEqual([]);
});

test("if all endpoints are at their limit, the client gets a RateLimitError with the wait", async () => {
  for (const standIn of [fra, par])
    await standIn.fail({ mode: "status", status: 429, headers: { "retry-after": "7" }, path: "/v1/embeddings" });
  const error = await client.embeddings
    .create({ model: "chat-large", input: "hi" }, { maxRetries: 0 })
    .catch((error) => error);
  expect(error).toBeInstanceOf(OpenAI.RateLimitError);
  expect(error.headers.get("retry-after")).toBe("7");
});

test("an aborted stream is aborted at the endpoint", async () => {
  const faulty = await Faulty.start();
  const own = await Edge.start(
    rules(1, region("DE", "eu-frankfurt", [`${faulty.url}/late-flow`])),
    {},
    { cf: { country: "DE" } },
  );
  const { port } = await own.miniflare.ready;
  const stream = await new OpenAI({ apiKey: "any", baseURL: `http://localhost:${port}/v1` }).chat.completions.create({
    model: "m",
    messages,
    stream: true,
  });
  for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break;
  stream.controller.abort();
  await until(
    async () => faulty.closed("late-flow"),
    (closed) => closed === 1,
  );
});
