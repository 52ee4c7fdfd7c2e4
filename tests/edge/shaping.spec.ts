// In both directions the bytes stay as they were, except for the names that differ.
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Edge, StandIn, keyDigest, read, region, rules, stopAll } from "./harness.js";

let fra: StandIn, azure: StandIn, edge: Edge;

beforeAll(async () => {
  [fra, azure] = await Promise.all(["eu-frankfurt", "eu-azure"].map((name) => StandIn.start(name)));
  const regions = region("DE", "eu-frankfurt", [fra.url], { models: { "chat-large": "org/llama-3.3", same: "same" } });
  const hosted = { style: "azure", url: azure.url, api_version: "2024-10-21", models: { "chat-azure": "gpt-4o" } };
  const document = rules(
    1,
    { ...regions, "eu-azure": { countries: ["eu"], endpoints: { azure: hosted } } },
    {},
    {
      tenants: {
        acme: { key_sha256: [keyDigest("sk-acme")], services: ["keyed"] },
        emca: { key_sha256: [keyDigest("sk-emca")], services: ["keyed"] },
      },
    },
  );
  document.services.keyed = { ...document.services.chat, hosts: ["keyed.example"] };
  edge = await Edge.start(document);
});
beforeEach(() => Promise.all([fra, azure].map((standIn) => standIn.reset())));
afterAll(stopAll);

const messages = [{ role: "user", content: "Say hello." }];

test("the endpoint gets its own name of the model, and the client gets its own name back", async () => {
  const unary = await read(await edge.chat("DE", { model: "chat-large" }));
  expect(unary.json.model).toBe("chat-large");
  expect(JSON.parse((await fra.requests())[0].body).model).toBe("org/llama-3.3");
  const direct = await (
    await fetch(`${fra.url}/v1/chat/completions`, {
      method: "POST",
      body: JSON.stringify({ model: "org/llama-3.3", messages }),
    })
  ).text();
  const volatile = (text: string) =>
    text
      .replace(/stand-in-eu-frankfurt-\d+/g, "ID")
      .replace(/"created":\d+/g, "")
      .trim();
  expect(volatile(unary.text)).toBe(volatile(direct).replace("org/llama-3.3", "chat-large"));
});

test.each(["/v1/chat/completions", "/v1/completions", "/v1/responses"])(
  "in every event of a stream: %s",
  async (path) => {
    const input = path.endsWith("responses")
      ? { input: "x", store: false }
      : path.includes("chat")
        ? { messages }
        : { prompt: "x" };
    const ask = { model: "chat-large", stream: true, ...input };
    const spliced = await (await edge.ask({ path, json: ask })).text();
    const direct = await (
      await fetch(`${fra.url}${path}`, { method: "POST", body: JSON.stringify({ ...ask, model: "org/llama-3.3" }) })
    ).text();
    const volatile = (text: string) =>
      text.replace(/stand-in-eu-frankfurt-\d+/g, "ID").replace(/"created(_at)?":\d+/g, "");
    expect(volatile(spliced)).toBe(volatile(direct).replaceAll("org/llama-3.3", "chat-large"));
  },
);

test("requests to Azure have the deployment, the version and the api-key header", async () => {
  const reply = await read(
    await edge.chat("DE", { model: "chat-azure" }, { path: "/v1/chat/completions?api-version=1" }),
  );
  expect(reply).toMatchObject({ status: 200, region: "eu-azure", json: { model: "chat-azure" } });
  expect((await azure.requests())[0].path).toBe("/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21");
});

test("idempotency keys of different tenants don't collide", async () => {
  for (const key of ["sk-acme", "sk-acme", "sk-emca"]) {
    const headers = { authorization: `Bearer ${key}`, "idempotency-key": "same" };
    expect((await edge.chat("DE", { model: "same" }, { host: "keyed.example", headers })).status).toBe(200);
  }
  const [one, again, other] = (await fra.requests()).map(({ headers }) => headers["idempotency-key"]);
  expect(one).toBe(again);
  expect(new Set([one, other, "same"]).size).toBe(3);
});

test.each([
  ["a conversation kept elsewhere", { conversation: "conv_1" }, 501],
  ["a prompt kept elsewhere", { prompt: { id: "pmpt_1" } }, 400],
  ["an item kept elsewhere", { input: [{ type: "item_reference", id: "msg_1" }] }, 400],
  ["deciding keys in other letters", { Conversation: "conv_1" }, 400],
])("%s is refused before anything is sent", async (_, more, status) => {
  const reply = await read(
    await edge.ask({ path: "/v1/responses", json: { model: "chat-large", input: "x", ...more } }),
  );
  expect(reply.status).toBe(status);
  expect(await fra.requests()).toEqual([]);
});

test("bodies that together exceed the memory are refused, and served when there is room again", async () => {
  const roomy = await Edge.start(rules(1, region("DE", "eu-frankfurt", [fra.url])));
  await fra.fail({ mode: "slow", delay_ms: 1_500 });
  const pad = "x".repeat(7_900_000);
  const replies = await Promise.all(
    Array.from({ length: 6 }, async () => read(await roomy.chat("DE", { metadata: { pad } }))),
  );
  const statuses = replies.map(({ status }) => status).sort();
  expect(statuses.filter((status) => status === 503).length).toBeGreaterThan(0);
  expect(statuses.filter((status) => status === 200).length).toBeGreaterThan(0);
  expect(replies.find(({ status }) => status === 503)!.code).toBe("busy");
  await fra.reset();
  expect((await read(await roomy.chat("DE", { metadata: { pad } }))).status).toBe(200);
});
