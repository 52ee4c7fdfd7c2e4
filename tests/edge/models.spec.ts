// Models that a request names below its top level, because the host runs them in addition to the request's own model:
// to make an image, to grade, to moderate. Also names that contain a model's region or owner. Each is judged like the
// request's own model.
import { afterAll, beforeAll, expect, test } from "vitest";
import { Edge, type Json, formPart, keyDigest, read, region, rules, serve, stopAll } from "./harness.js";

let edge: Edge;
/** The requests that endpoints received: the name of the endpoint, and the body. */
const sent: { at: string; body: Json }[] = [];

const endpoint = (at: string) =>
  serve((request, response) => {
    let text = "";
    request.on("data", (piece) => (text += piece));
    request.on("end", () => {
      const isForm = String(request.headers["content-type"]).startsWith("multipart");
      // The Worker asks for the file object before it sends a request for a batch.
      if (request.method !== "GET") sent.push({ at, body: isForm ? { text } : JSON.parse(text) });
      const answer = request.url!.endsWith("responses")
        ? { id: "resp_1", object: "response", status: "completed", model: "m", output: [] }
        : request.url!.endsWith("completions")
          ? {
              id: "c",
              object: "chat.completion",
              model: "m",
              choices: [{ index: 0, finish_reason: "stop", message: { role: "assistant", content: "x" } }],
            }
          : { id: request.url!.endsWith("files") ? "file-1" : "job-1", object: "x" };
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(answer));
    });
  });

beforeAll(async () => {
  const [open, small, large, sglang] = await Promise.all(["open", "small", "large", "sglang"].map(endpoint));
  const regions = {
    ...region("DE", "open", [open]),
    ...region("DE", "small", [small], { models: { chat: "llama" } }),
    ...region("DE", "large", [large], { models: { chat: "gpt-5", draw: "gpt-image-1", eu: "eu.anthropic.claude" } }),
    ...region("DE", "sglang", [sglang], { engine: "sglang" }),
  };
  const document = rules(
    1,
    regions,
    { regions: ["open"], allow: ["hosted_tools", "batch"] },
    {
      tenants: Object.fromEntries(
        ["acme", "emca"].map((name) => [name, { key_sha256: [keyDigest(`sk-${name}`)], services: ["tenants"] }]),
      ),
    },
  );
  const service = (host: string, more: Json) => ({ ...document.services.chat, hosts: [host], ...more });
  Object.assign(document.services, {
    mapped: service("mapped.example", { regions: ["small", "large"], pattern: "active-passive" }),
    small: service("small.example", { regions: ["small"] }),
    plain: service("plain.example", { allow: [] }),
    tenants: service("tenants.example", { regions: ["sglang"] }),
    sglang: service("sglang.example", { regions: ["sglang"] }),
  });
  edge = await Edge.start(document, { STATE_KEY: "k".repeat(40) });
});
afterAll(stopAll);

async function ask(path: string, json: Json, host = "chat.example", headers: Record<string, string> = {}) {
  sent.length = 0;
  return { ...(await read(await edge.ask({ path: `/v1/${path}`, json, host, headers }))), sent: [...sent] };
}
const notFound = (param: string) => ({ status: 404, code: "model_not_found", sent: [], json: { error: { param } } });
const drawing = (model: unknown) => ({
  model: "chat",
  store: false,
  input: "x",
  tools: [{ type: "image_generation", model }],
});
const tuning = (grader: Json) => ({ model: "chat", method: { type: "reinforcement", reinforcement: { grader } } });

test("a closed map applies to all models of a request, and each is sent by the endpoint's name", async () => {
  const reported = await ask("responses", drawing("draw"), "mapped.example");
  expect(reported).toMatchObject({
    status: 200,
    sent: [{ at: "large", body: { model: "gpt-5", tools: [{ model: "gpt-image-1" }] } }],
  });
  expect(await ask("responses", drawing("chat"), "mapped.example")).toMatchObject({
    sent: [{ at: "small", body: { tools: [{ model: "llama" }] } }],
  });
  expect(await ask("responses", drawing("eu"), "mapped.example")).toMatchObject({
    sent: [{ body: { tools: [{ model: "eu.anthropic.claude" }] } }],
  });
  for (const model of ["gpt-image-1", "llama", "other", "eu.anthropic.claude"]) {
    expect(await ask("responses", drawing(model), "mapped.example"), model).toMatchObject(notFound("/tools/0/model"));
  }
  expect(
    await ask("responses", drawing("draw"), "small.example"),
    "each model is in the fence, but no endpoint has both",
  ).toMatchObject(notFound("/tools/0/model"));
});

const named: [string, string, Json, string][] = [
  [
    "a reasoning model",
    "responses",
    { model: "chat", input: "x", reasoning: { effort: "low", model: "other" } },
    "/reasoning/model",
  ],
  [
    "a tool that is chosen",
    "responses",
    { model: "chat", input: "x", tool_choice: { type: "image_generation", model: "other" } },
    "/tool_choice/model",
  ],
  [
    "a model that compacts",
    "responses",
    { model: "chat", input: "x", context_management: [{ type: "compaction", model: "other" }] },
    "/context_management/0/model",
  ],
  [
    "a model that moderates",
    "chat/completions",
    { model: "chat", messages: [], moderation: { model: "other" } },
    "/moderation/model",
  ],
  [
    "a model that moderates, as a text",
    "chat/completions",
    { model: "chat", messages: [], moderation: "other" },
    "/moderation",
  ],
  [
    "a model that transcribes",
    "chat/completions",
    { model: "chat", messages: [], audio: { voice: "alloy", format: "wav", transcription: { model: "other" } } },
    "/audio/transcription/model",
  ],
  [
    "a model that draws vectors",
    "images/generations",
    { model: "chat", prompt: "x", svg: { model: "other" } },
    "/svg/model",
  ],
  [
    "a model that grades",
    "fine_tuning/jobs",
    tuning({ type: "score_model", name: "g", model: "other", input: [] }),
    "/method/reinforcement/grader/model",
  ],
  [
    "one of several that grade",
    "fine_tuning/jobs",
    tuning({ type: "multi", graders: { a: { type: "label_model", model: "other" } } }),
    "/method/reinforcement/grader/graders/a/model",
  ],
];
test.each(named)("%s has to be in the map, or is refused", async (_, path, body, param) => {
  expect(await ask(path, body, "small.example")).toMatchObject(notFound(param));
  const written = (model: string) => JSON.parse(JSON.stringify(body).replace(/"(other|chat)"/g, `"${model}"`));
  const reported = await ask(path, written("chat"), "small.example");
  expect(reported).toMatchObject({ status: 200 });
  expect(reported.sent[0].body).toEqual({ ...written("llama"), ...(path === "responses" && { store: false }) });
});

test("with an open map every model passes whose name contains neither a region nor an owner", async () => {
  expect(await ask("responses", drawing("gpt-image-1"))).toMatchObject({
    status: 200,
    sent: [{ body: { tools: [{ model: "gpt-image-1" }] } }],
  });
  const wrong = [
    "gpt:online",
    "@preset/x",
    "x-cloud:1-cloud",
    "us.anthropic.claude",
    "gemini@us-central1",
    "ft:gpt-4o:emca::1",
    "arn:aws:bedrock:x:1:y/z",
  ];
  for (const model of wrong) {
    expect(await ask("responses", drawing(model)), model).toMatchObject(notFound("/tools/0/model"));
    expect(await ask("responses", { model, input: "x" }), model).toMatchObject(notFound("model"));
  }
  expect(await ask("responses", drawing({ id: "x" }))).toMatchObject({ status: 400, code: "unknown_field", sent: [] });
});

test("a model's name that contains a region is allowed only if the map lists it", async () => {
  for (const model of [
    "eu.anthropic.claude-sonnet-4",
    "azure/eu/gpt-4o",
    "projects/p/locations/eu/models/m",
    "gpt-4o-swedencentral",
  ]) {
    expect(await ask("chat/completions", { model, messages: [] }), model).toMatchObject(notFound("model"));
  }
  expect(await ask("chat/completions", { model: "eu", messages: [] }, "mapped.example")).toMatchObject({
    sent: [{ body: { model: "eu.anthropic.claude" } }],
  });
});

test("a LoRA adapter after a colon is refused at an engine that tenants share", async () => {
  const asked = (model: string, host: string, headers = {}) =>
    ask("chat/completions", { model, messages: [] }, host, headers);
  const acme = { authorization: "Bearer sk-acme" };
  expect(await asked("llama:emca-lora", "tenants.example", acme)).toMatchObject(notFound("model"));
  expect(await asked("llama", "tenants.example", acme)).toMatchObject({ status: 200 });
  expect(await asked("llama:lora", "sglang.example"), "the service has no tenants").toMatchObject({ status: 200 });
});

test("a grader that runs code at the host counts as a hosted tool", async () => {
  const graders: Json[] = [
    { type: "python", name: "g", source: "import os" },
    { type: "multi", graders: { a: { type: "string_check", name: "a" }, b: { type: "python", source: "import os" } } },
    { type: "multi", graders: [{ source: "import os" }] },
  ];
  for (const grader of graders) {
    expect(await ask("fine_tuning/jobs", tuning(grader), "plain.example")).toMatchObject({
      status: 400,
      code: "hosted_tool_not_allowed",
      sent: [],
    });
    expect(await ask("fine_tuning/jobs", tuning(grader))).toMatchObject({ status: 200 });
  }
  const check = tuning({ type: "string_check", name: "g", input: "a", reference: "b", operation: "eq" });
  expect(await ask("fine_tuning/jobs", check, "plain.example")).toMatchObject({ status: 200, sent: [{ body: check }] });
});

test("metadata has to be a map of texts", async () => {
  const asked = (metadata: unknown) => ask("chat/completions", { model: "m", messages: [], metadata });
  for (const [metadata, param] of [
    [{ tags: ["eu"] }, "/metadata/tags"],
    [{ model_info: { id: "x" } }, "/metadata/model_info"],
    [["a"], "/metadata"],
    [{ fallbacks: "gpt" }, "/metadata/fallbacks"],
  ] as const) {
    expect(await asked(metadata)).toMatchObject({
      status: 400,
      code: "unknown_field",
      sent: [],
      json: { error: { param } },
    });
  }
  const own = { url: "https://a.example/", model: "x", region: "emea", n: 7 };
  expect(await asked(own)).toMatchObject({ status: 200, sent: [{ body: { metadata: own } }] });
});

test("ids that a host would look up have to be ids that the client got", async () => {
  for (const [path, fields] of [
    ["responses", { previous_response_id: { id: "resp_raw" } }],
    ["responses", { previous_response_id: 7 }],
    ["responses", { prompt: { id: "pmpt_raw", version: "2" } }],
    ["responses", { tools: [{ type: "code_interpreter", container: { id: "cntr_raw" } }] }],
    ["responses", { tools: [{ type: "code_interpreter", container: ["cntr_raw"] }] }],
    [
      "responses",
      {
        tools: [
          {
            type: "shell",
            environment: { type: "container_auto", skills: [{ type: "skill_reference", skill_id: "skill_raw" }] },
          },
        ],
      },
    ],
    ["responses", { tools: [{ type: "file_search", vector_stores: ["vs_raw"] }] }],
    ["batches", { input_file_id: ["file-raw"], endpoint: "/v1/responses", completion_window: "24h" }],
    ["fine_tuning/jobs", { training_file: { id: "file-raw" } }],
  ] as [string, Json][]) {
    expect(
      await ask(path, { ...(path !== "batches" && { model: "m" }), ...fields }),
      JSON.stringify(fields),
    ).toMatchObject({ status: 404, code: "not_found", sent: [] });
  }
});

test("an unknown field is refused even if it is empty", async () => {
  for (const value of [[], {}, "", ["x"]]) {
    expect(await ask("chat/completions", { model: "m", messages: [], foo: value })).toMatchObject({
      status: 400,
      code: "unknown_field",
      sent: [],
    });
  }
  expect(await ask("responses/compact", { model: "m", input: "x", messages: [] })).toMatchObject({ status: 200 });
});

const batch = (parts: [string, string, string?][]) => {
  const written = parts.map(([name, value, type]) => {
    const filename = name === "file" ? '; filename="in.jsonl"' : "";
    return formPart(name, value, `${filename}${type ? `\r\nContent-Type: ${type}` : ""}`);
  });
  return `${written.join("")}--B--\r\n`;
};
async function upload(parts: [string, string, string?][]) {
  sent.length = 0;
  const headers = { "content-type": "multipart/form-data; boundary=B" };
  return {
    ...(await read(await edge.ask({ path: "/v1/files", method: "POST", body: batch(parts), headers }))),
    sent: [...sent],
  };
}

test("all lines of a batch have the same path, are UTF-8, and the path is supported", async () => {
  const line = (url: string) =>
    `${JSON.stringify({ custom_id: "1", method: "POST", url, body: { model: "m", input: "x" } })}\n`;
  const [embed, respond] = ["/v1/embeddings", "/v1/responses"].map(line);
  for (const order of [0, 1]) {
    const send = (file: string, type?: string) => {
      const parts: [string, string, string?][] = [
        ["purpose", "batch"],
        ["file", file, type],
      ];
      return upload(order ? parts.reverse() : parts);
    };
    expect(await send(embed + embed)).toMatchObject({ status: 200 });
    expect(await send(embed + respond)).toMatchObject({
      status: 400,
      code: "invalid_field",
      sent: [],
      json: { error: { param: "url" } },
    });
    expect(await send(`\ufeff${embed}`)).toMatchObject({ status: 400, code: "invalid_batch_line", sent: [] });
    expect(await send(embed, "text/plain; charset=utf-16")).toMatchObject({
      status: 400,
      code: "invalid_form",
      sent: [],
    });
    expect(await send(embed, "text/plain; charset=utf-8")).toMatchObject({ status: 200 });
  }
  const {
    json: { id },
  } = await upload([
    ["purpose", "batch"],
    ["file", embed],
  ]);
  const made = (path: unknown) => ask("batches", { input_file_id: id, endpoint: path, completion_window: "24h" });
  expect(await made("/v1/embeddings")).toMatchObject({ status: 200, sent: [{ body: { input_file_id: "file-1" } }] });
  for (const path of ["/v1/files", "/v1/videos", "/v1/audio/transcriptions", ["/v1/responses"], "responses"]) {
    expect(await made(path)).toMatchObject({
      status: 400,
      code: "invalid_field",
      sent: [],
      json: { error: { param: "endpoint" } },
    });
  }
});
