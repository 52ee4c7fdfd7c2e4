// Paths of the model API: names of models with slashes, paths below /responses that ask a model, images as JSON, and
// the answers for paths that are nearly right or not offered.
import OpenAI from "openai";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { type Ask, Edge, type Json, read, region, rules, serve, stopAll } from "./harness.js";

const NAME = "meta-llama/Llama-3.3-70B-Instruct";

/** An endpoint that answers as if it had every model, and records the requests that it receives. */
const seen: { method: string; url: string; type: string; body: string }[] = [];
let url: string, closed: Edge, open: Edge;

beforeAll(async () => {
  url = await serve(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString("latin1");
    seen.push({ method: request.method!, url: request.url!, type: request.headers["content-type"] ?? "", body });
    const id = request.url!.startsWith("/v1/models/") ? decodeURIComponent(request.url!.slice(11)) : "x";
    const answer: Json = { id, object: "model", created: 1, owned_by: "x", data: [], model: id };
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(answer));
  });
  closed = await Edge.start(rules(1, region("DE", "fra", [url], { models: { [NAME]: "llama" } })));
  open = await Edge.start(rules(1, region("DE", "fra", [url])), { STATE_KEY: "k".repeat(32) });
});
beforeEach(() => void seen.splice(0));
afterAll(stopAll);

const get = async (edge: Edge, path: string, more: Ask = {}) => read(await edge.ask({ path, ...more }));
const post = async (edge: Edge, path: string, json: Json = { model: "m", input: "x", messages: [] }) =>
  read(await edge.ask({ path, json }));

test.each(["/v1/models/" + NAME, "/v1/models/" + NAME.replace("/", "%2F"), "/models/" + NAME.replace("/", "%2f")])(
  "%s is retrieved from a closed map and an open one",
  async (path) => {
    expect(await get(closed, path)).toMatchObject({ status: 200, json: { id: NAME, object: "model" } });
    expect(seen).toEqual([]);
    expect(await get(open, path)).toMatchObject({ status: 200, json: { id: NAME } });
    // The official clients send the name as one segment with encoded slashes; decoding the path gives the same name.
    expect(seen.map((one) => one.url)).toEqual(["/v1/models/" + NAME.replace("/", "%2F")]);
  },
);

test("the official client retrieves what it lists", async () => {
  const base = await closed.miniflare.ready;
  const client = new OpenAI({ baseURL: `http://localhost:${base.port}/v1`, apiKey: "none", maxRetries: 0 });
  // A client of Miniflare's own port has no country, so this service accepts unknown clients.
  const anyone = rules(2, region("DE", "fra", [url], { models: { [NAME]: "llama" } }), {
    residency: [{ clients: ["*", "unknown"], process_in: ["*"] }],
  });
  await closed.put(anyone);
  await expect.poll(async () => (await get(closed, "/v1/models", { cf: {} })).status).toBe(200);
  const names = (await client.models.list()).data.map((model) => model.id);
  expect(names).toEqual([NAME]);
  expect((await client.models.retrieve(names[0])).id).toBe(NAME);
});

test.each([
  "/v1/models/a%2F..%2F..%2Ffiles",
  "/v1/models/a%2F%2e%2e",
  "/v1/models/a%5c..",
  "/v1/models/a%252Fb",
  "/v1/models/a%2F%2Fb",
])("%s gets 400 and reaches no endpoint", async (path) => {
  expect(await get(open, path)).toMatchObject({ status: 400, code: "invalid_path" });
  expect(seen).toEqual([]);
});

test("HEAD is GET without the content, for models", async () => {
  for (const edge of [closed, open]) {
    const reply = await edge.ask({ path: "/v1/models", method: "HEAD" });
    expect([reply.status, await reply.text()]).toEqual([200, ""]);
  }
  expect(seen.map((one) => one.method)).toEqual(["GET"]);
  const files = await open.ask({ path: "/v1/files", method: "HEAD" });
  expect([files.status, files.headers.get("allow")]).toEqual([405, "GET, POST"]);
});

test.each(["/v1/responses/compact", "/v1/responses/input_tokens"])(
  "%s asks a model, so its body is judged",
  async (path) => {
    expect(await post(open, path, { model: "m", input: "x" })).toMatchObject({ status: 200, region: "fra" });
    // These paths have no "store", so the Worker doesn't add it.
    expect(JSON.parse(seen[0].body)).toEqual({ model: "m", input: "x" });
    expect(seen[0].url).toBe(path);
    const refused = {
      model: "m",
      input: [{ role: "user", content: [{ type: "input_image", image_url: "https://example.com/a.png" }] }],
    };
    expect(await post(open, path, refused)).toMatchObject({ status: 400, code: "remote_url_not_allowed" });
    expect(await post(open, path, { model: "m", tools: [{ type: "web_search" }] })).toMatchObject({
      status: 400,
      code: "hosted_tool_not_allowed",
    });
    expect(await post(open, path, { input: "x" })).toMatchObject({ status: 400 });
    const wrong = await open.ask({ path });
    expect([wrong.status, wrong.headers.get("allow")]).toEqual([405, "POST"]);
    expect(seen.length).toBe(1);
  },
);

test.each([
  ["/v1/v1/chat/completions", 404, "unknown_path", "https://HOST/v1"],
  ["/v1/chat/completions/", 400, "invalid_path", "Leave the slash out"],
  ["/v1//chat/completions", 400, "invalid_path", "without a slash at its end"],
  ["/openai/v1/chat/completions", 404, "unknown_path", "https://HOST/v1"],
  ["/openai/deployments/m/chat/completions?api-version=2024-10-21", 404, "unknown_path", "https://HOST/v1"],
  ["/health", 404, "unknown_path", "/.well-known/bailiwick/healthz"],
  ["/v1/messages", 404, "not_offered", "Anthropic"],
  ["/rerank", 404, "not_offered", "Rerankings"],
  ["/api/chat", 404, "not_offered", "Ollama"],
  ["/v1/realtime/client_secrets", 404, "not_offered", "client secrets"],
  ["/v1/fine_tuning/alpha/graders/run", 404, "not_offered", "Graders"],
  ["/v1/nothing", 404, "unknown_path", "/v1"],
] as [string, number, string, string][])(
  "the error for %s says what to write instead",
  async (path, status, code, words) => {
    const reply = await post(open, path);
    expect(reply).toMatchObject({ status, code });
    expect(reply.json.error.message).toContain(words);
    expect(seen).toEqual([]);
  },
);

const JSON_BODY = JSON.stringify({ model: "m", prompt: "x", images: [{ image_url: "data:image/png;base64,AAAA" }] });
const part = (name: string, value: string, file = "") =>
  `--B\r\nContent-Disposition: form-data; name="${name}"${file && `; filename="${file}"`}\r\n\r\n${value}\r\n`;
const FORM_BODY = part("model", "m") + part("prompt", "x") + part("image[]", "PNG", "a.png") + "--B--\r\n";
const edits = async (body: string, type?: string) =>
  read(
    await open.ask({
      path: "/v1/images/edits",
      method: "POST",
      body: Buffer.from(body),
      headers: type === undefined ? {} : { "content-type": type },
    }),
  );

test("images to edit may come as JSON or as a form, and are sent in the form in which they were read", async () => {
  for (const type of [
    "application/json",
    undefined,
    "text/plain",
    "application/json, multipart/form-data; boundary=B",
  ]) {
    expect(await edits(JSON_BODY, type)).toMatchObject({ status: 200 });
    expect(seen.pop()).toMatchObject({ type: "application/json", body: JSON_BODY });
  }
  expect(await edits(FORM_BODY, "Multipart/Form-Data; boundary=B")).toMatchObject({ status: 200 });
  expect(seen.pop()!.type).toMatch(/^multipart\/form-data; boundary=bailiwick-/);
});

test.each([
  ["JSON sent as a form", JSON_BODY, "multipart/form-data; boundary=B"],
  ["a form sent as JSON", FORM_BODY, "application/json"],
  ["a form of no type", FORM_BODY, undefined],
  ["a form of another type", FORM_BODY, "multipart/mixed; boundary=B"],
  ["a form that is called JSON first", FORM_BODY, "application/json, multipart/form-data; boundary=B"],
  ["a remote image", JSON_BODY.replace("data:image/png;base64,AAAA", "https://example.com/a.png"), "application/json"],
  ["a remote mask", JSON_BODY.replace("}]}", '}],"mask":{"image_url":"https://example.com/a.png"}}'), undefined],
] as [string, string, string | undefined][])("%s doesn't avoid inspection", async (_, body, type) => {
  expect(await edits(body, type)).toMatchObject({ status: 400 });
  expect(seen).toEqual([]);
});

test("a file to edit has to belong to the tenant", async () => {
  const body = JSON_BODY.replace('"image_url":"data:image/png;base64,AAAA"', '"file_id":"file-of-another"');
  expect(await edits(body, "application/json")).toMatchObject({ status: 404, code: "not_found" });
  expect(seen).toEqual([]);
});
