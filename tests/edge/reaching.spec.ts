// Values that a model host would open, fetch, route by, compile or unpickle: paths for media, URLs into the host's own
// network, field names made of routing words, and inputs of engines. Some are allowed if the service allows them.
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Edge, type Json, StandIn, formPart, read, region, rules, stopAll } from "./harness.js";

let plain: StandIn, vllm: StandIn, edge: Edge;

beforeAll(async () => {
  [plain, vllm] = await Promise.all(["plain", "vllm"].map((name) => StandIn.start(name)));
  const regions = { ...region("DE", "plain", [plain.url]), ...region("DE", "vllm", [vllm.url], { engine: "vllm" }) };
  const document = rules(1, regions, {
    regions: ["plain"],
    residency: [
      { clients: ["*"], process_in: ["*"] },
      { clients: ["unknown"], process_in: ["*"] },
    ],
  });
  const service = (host: string, allow: string[], where = "plain") => ({
    ...document.services.chat,
    hosts: [`${host}.example`],
    regions: [where],
    allow,
  });
  Object.assign(document.services, {
    odd: service("odd", ["unknown_fields"]),
    remote: service("remote", ["remote_urls", "unknown_fields"]),
    vllm: service("vllm", [], "vllm"),
    hosted: service("hosted", ["hosted_tools"]),
    trusting: service("trusting", ["engine_inputs"], "vllm"),
  });
  edge = await Edge.start(document);
});
beforeEach(() => Promise.all([plain, vllm].map((one) => one.reset())));
afterAll(stopAll);

const PNG = Buffer.concat([Buffer.from([0x89]), Buffer.from("PNG\r\n\x1a\n\0\0\0\rIHDR")]).toString("base64");
const PART = "/messages/0/content/0";

/** Asks for a chat completion. Returns what was refused, and whether anything was sent. */
async function ask(
  host: string,
  body: Json,
): Promise<{ status: number; code: string | null; param: string | null; sent: number }> {
  const { status, code, json } = await read(await edge.chat("DE", body, { host: `${host}.example` }));
  const sent = (await Promise.all([plain.requests(), vllm.requests()])).flat().length;
  await Promise.all([plain.reset(), vllm.reset()]);
  return { status, code, param: json?.error?.param ?? null, sent };
}
const askPart = (host: string, part: Json) => ask(host, { messages: [{ role: "user", content: [part] }] });
const passes = { status: 200, sent: 1 };
const refused = (code: string, param: string) => ({ status: 400, code, param, sent: 0 });

test.each<[string, Json]>([
  ["/path", { type: "image", path: "/mnt/a" }],
  ["/source", { type: "image", source: "/mnt/a" }],
  ["/url", { type: "image", url: "cats.png" }],
  ["/base64", { type: "image", base64: "data/images/cats" }],
  ["/anything", { type: "image", anything: "cats" }],
  ["/image_url/path", { type: "image_url", image_url: { path: "/mnt/a" } }],
  ["/image_url/file", { type: "image_url", image_url: { url: `data:image/png;base64,${PNG}`, file: "a" } }],
  ["/input_audio/path", { type: "input_audio", input_audio: { path: "/mnt/a", format: "wav" } }],
  ["/input_audio/data", { type: "input_audio", input_audio: { data: "etc/passwd", format: "wav" } }],
  ["/file/path", { type: "file", file: { path: "/mnt/a" } }],
  ["/image_path", { type: "text", text: "x", image_path: "a" }],
])("a path on the host's disk is refused: %s", async (at, part) => {
  for (const host of ["chat", "odd", "remote"]) {
    expect(await askPart(host, part), host).toMatchObject(refused("remote_url_not_allowed", PART + at));
  }
});

test("paths outside of messages' content and under unknown fields are refused", async () => {
  const images = { messages: [{ role: "user", content: "x", images: ["/mnt/a"] }] };
  expect(await ask("chat", images)).toMatchObject(refused("remote_url_not_allowed", "/messages/0/images/0"));
  expect(await ask("odd", { ref_audio: "cats" })).toMatchObject(refused("remote_url_not_allowed", "/ref_audio"));
  expect(await ask("odd", { image_config: { aspect_ratio: "16:9" }, mystery: "x" })).toMatchObject(passes);
});

test("media itself passes, as documented", async () => {
  for (const part of [
    { type: "image_url", image_url: { url: PNG, detail: "low" } },
    { type: "image", base64: PNG },
    {
      type: "image",
      source: { type: "base64", media_type: "image/png", data: PNG },
      cache_control: { type: "ephemeral" },
    },
    { type: "document", source: { type: "text", media_type: "text/plain", data: "https://a.example/" }, title: "t" },
    { type: "file", file: { file_data: Buffer.from("name;amount\nalice;12\n").toString("base64"), filename: "a.csv" } },
  ]) {
    expect(await askPart("chat", part), JSON.stringify(part)).toMatchObject(passes);
  }
});

test.each([
  "file:///etc/passwd",
  "http://169.254.169.254/latest/",
  "http://[fd00:ec2::254]/",
  "http://metadata.google.internal/",
  "http://127.0.0.1/",
  "http://[::1]/",
  "http://10.1.2.3/",
  "http://2130706433/",
  "http://0x7f.1/",
  "http://0177.0.0.1/",
  "http://localhost:8000/",
  "https://intranet/",
  "gs://bucket/x",
  "//a.example/x",
  "https://a.example@127.0.0.1/",
  "/mnt/a",
  "data/images/cats",
])("where remote URLs are allowed, %s is not", async (url) => {
  const at = `${PART}/image_url/url`;
  expect(await askPart("remote", { type: "image_url", image_url: { url } })).toMatchObject(
    refused("remote_url_not_allowed", at),
  );
});

test("where remote URLs are allowed, those of the public internet pass", async () => {
  for (const url of [
    "https://images.example.com/a.png",
    "http://8.8.8.8:8080/a",
    "https://[2606:4700::1111]/",
    "data:,x",
  ]) {
    expect(await askPart("remote", { type: "image_url", image_url: { url } }), url).toMatchObject(passes);
  }
});

test.each([
  "model_id",
  "modelName",
  "conversation_id",
  "threadId",
  "cache",
  "apiKey",
  "apikey",
  "litellm_session_id",
  "guardrailConfig",
  "a.provider",
  "fallbacks[0]",
])("%s counts as routing and is never allowed", async (key) => {
  for (const value of ["x", { a: "b" }, true]) {
    expect(await ask("odd", { [key]: value })).toMatchObject(refused("unknown_field", `/${key}`));
    expect(await ask("odd", { options: { [key]: value } })).toMatchObject(refused("unknown_field", `/options/${key}`));
  }
});

test("what an engine compiles or unpickles passes only where a service allows it", async () => {
  for (const [at, body] of [
    ["/chat_template", { chat_template: "{{ x }}" }],
    ["/chat_template_kwargs/chat_template", { chat_template_kwargs: { chat_template: "{{ x }}" } }],
    ["/prompt_embeds", { prompt_embeds: "UEsDBAAACAgAAAAAAAA=" }],
    ["/mm_processor_kwargs", { mm_processor_kwargs: { num_crops: 4 } }],
    ["/media_io_kwargs", { media_io_kwargs: { video: { num_frames: 40 } } }],
    [
      `${PART}/image_embeds`,
      { messages: [{ role: "user", content: [{ type: "image_embeds", image_embeds: "UEsDBAAACAgAAAAAAAA=" }] }] },
    ],
  ] as [string, Json][]) {
    expect(await ask("vllm", body), at).toMatchObject(refused("engine_input_not_allowed", at));
    expect(await ask("trusting", body), at).toMatchObject(passes);
  }
  expect(await ask("vllm", { chat_template_kwargs: { enable_thinking: true } })).toMatchObject(passes);
});

test("servers of hosted tools have to be public, and plain words aren't taken for paths", async () => {
  const mcp = (server_url: string) => ({ tools: [{ type: "mcp", server_label: "x", server_url }] });
  expect(await ask("hosted", mcp("https://mcp.example/sse"))).toMatchObject(passes);
  for (const url of ["http://169.254.169.254/", "http://localhost:8000/", "http://[::1]/"]) {
    expect(await ask("hosted", mcp(url)), url).toMatchObject(refused("remote_url_not_allowed", "/tools/0/server_url"));
  }
  expect(await ask("chat", { audio: { voice: "/mnt/a.pt", format: "mp3" } })).toMatchObject(
    refused("remote_url_not_allowed", "/audio/voice"),
  );
});

test("names of forms are judged part by part", async () => {
  const file = formPart("file", "RIFF", '; filename="a.wav"');
  const form = (name: string) => `${formPart("model", "m")}${formPart(name, "x")}${file}--B--\r\n`;
  const send = async (name: string) =>
    read(
      await edge.ask({
        path: "/v1/audio/transcriptions",
        host: "odd.example",
        method: "POST",
        body: form(name),
        headers: { "content-type": "multipart/form-data; boundary=B" },
      }),
    );
  for (const name of [
    "a[fallbacks]",
    "fallbacks.0",
    "x[model]",
    "fallbacks[0][model]",
    "[models]",
    "api.base",
    "a[chat_template]",
  ]) {
    expect(await send(name), name).toMatchObject({ status: 400 });
  }
  expect(await plain.requests()).toEqual([]);
  expect(await send("chunking_strategy[type]")).toMatchObject({ status: 200 });
});
