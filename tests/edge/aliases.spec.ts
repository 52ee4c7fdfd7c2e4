// Names of models in both directions: the client sees and uses only its own names, and the endpoint only its own.
import { type ServerResponse } from "node:http";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Edge, formPart, read, region, rules, serve, stopAll } from "./harness.js";

const MIB = 1 << 20;
/** The last body that the endpoint received, by path. */
const sent = new Map<string, string>();
/** How the endpoint answers, by path. */
const answers = new Map<string, (response: ServerResponse) => unknown>();
let edge: Edge;

beforeAll(async () => {
  const url = await serve((request, response) => {
    let text = "";
    request.on("data", (chunk) => (text += chunk));
    request.on("end", () => {
      sent.set(request.url!, text);
      const answer = answers.get(request.url!);
      if (answer) return void answer(response);
      response.writeHead(404, { "content-type": "application/json" }).end("{}");
    });
  });
  const models = { "chat-large": "llama-3.3-70b", embed: "bge-m3" };
  const named = region("DE", "eu-named", [url], { models });
  const regions = { ...named, ...region("FR", "eu-any", [url]) };
  const document = rules(1, regions, { regions: ["eu-named"], allow: ["batch"] });
  // One endpoint of the fence has no map of models. So the Worker asks it for its list, although the other has a map.
  document.services.mixed = {
    ...document.services.chat,
    hosts: ["mixed.example"],
    regions: ["eu-named", "eu-any"],
    pattern: "active-passive",
  };
  edge = await Edge.start(document, { STATE_KEY: "k".repeat(32) });
});
afterAll(stopAll);

const json =
  (value: unknown, headers: object = {}) =>
  (response: ServerResponse) =>
    response.writeHead(200, { "content-type": "application/json", ...headers }).end(JSON.stringify(value));

type Part = [name: string, value: string];
function form(parts: Part[]): string {
  const written = parts.map(([name, value]) => formPart(name, value, name === "file" ? '; filename="in.jsonl"' : ""));
  return `${written.join("")}--B--\r\n`;
}
const upload = (parts: Part[]) =>
  edge
    .ask({
      path: "/v1/files",
      method: "POST",
      body: form(parts),
      headers: { "content-type": "multipart/form-data; boundary=B" },
    })
    .then(read);

const line = (model: string, more = "") => {
  const body = { model, messages: [{ role: "user", content: `chat-large${more}` }] };
  return `${JSON.stringify({ custom_id: "1", method: "POST", url: "/v1/chat/completions", body })}\n`;
};
const batch: Part = ["purpose", "batch"];

test.each([
  ["a short one", line("chat-large") + line("embed"), line("llama-3.3-70b") + line("bge-m3")],
  [
    "a long one",
    line("chat-large", "x".repeat(3 * MIB)).repeat(2),
    line("llama-3.3-70b", "x".repeat(3 * MIB)).repeat(2),
  ],
])("the lines of a batch are sent with the endpoint's names of models: %s", async (_, ours, theirs) => {
  answers.set("/v1/files", json({ id: "file-1", object: "file", bytes: 9, purpose: "batch" }));
  for (const parts of [
    [batch, ["file", ours]],
    [["file", ours], batch],
  ] as Part[][]) {
    expect(await upload(parts)).toMatchObject({ status: 200 });
    const got = sent.get("/v1/files")!;
    expect(got.slice(got.indexOf('{"custom_id"')).startsWith(theirs)).toBe(true);
  }
});

test("a line that names a model outside of the map is refused at any position", async () => {
  sent.clear();
  for (const parts of [
    [batch, ["file", line("embed") + line("llama-3.3-70b")]],
    [["file", line("embed") + line("gpt")], batch],
  ] as Part[][]) {
    const refused = await upload(parts);
    expect(refused).toMatchObject({ status: 404, code: "model_not_found" });
    expect(refused.json.error.message).toContain("Line 2");
  }
  expect(await upload([batch, ["file", '{"custom_id":\n']])).toMatchObject({ status: 400, code: "invalid_batch_line" });
  expect([...sent.keys()]).toEqual([]);
  const parts = { filename: "a", bytes: 1, mime_type: "application/jsonl", purpose: "batch" };
  expect(await read(await edge.ask({ path: "/v1/uploads", json: parts }))).toMatchObject({
    status: 400,
    code: "invalid_field",
  });
});

test("a file for another purpose than batches keeps every byte", async () => {
  answers.set("/v1/files", json({ id: "file-1", object: "file", bytes: 9, purpose: "user_data" }));
  expect(
    await upload([
      ["purpose", "user_data"],
      ["file", line("chat-large")],
    ]),
  ).toMatchObject({ status: 200 });
  expect(sent.get("/v1/files")).toContain(line("chat-large"));
  expect(
    await upload([
      ["file", line("chat-large")],
      ["purpose", "user_data"],
    ]),
  ).toMatchObject({ status: 400, code: "invalid_form" });
});

/** Puts a file at the endpoint, and gets its content. */
async function content(purpose: string, text: string, headers: object = {}) {
  answers.set("/v1/files", json({ id: "file-2", object: "file" }));
  const { json: file } = await upload([
    ["purpose", "user_data"],
    ["file", "x"],
  ]);
  answers.set("/v1/files/file-2", json({ id: "file-2", object: "file", bytes: text.length, purpose }));
  answers.set("/v1/files/file-2/content", (response) =>
    response.writeHead(200, { "content-type": "application/jsonl", ...headers }).end(text),
  );
  const reply = await edge.ask({ path: `/v1/files/${file.id}/content` });
  return { status: reply.status, length: reply.headers.get("content-length"), text: await reply.text() };
}

const result = (model: string) => {
  const body = { id: "c", model, choices: [{ message: { content: "llama-3.3-70b" } }] };
  const response = { status_code: 200, request_id: "r", body };
  return `${JSON.stringify({ id: "batch_req_1", custom_id: "1", response, error: null })}\n`;
};

test("the output of a batch has the client's names, and files that a client stored stay as they are", async () => {
  expect((await content("batch_output", result("llama-3.3-70b") + result("bge-m3"))).text).toBe(
    result("chat-large") + result("embed"),
  );
  expect((await content("batch", line("llama-3.3-70b"))).text).toBe(line("chat-large"));
  expect((await content("user_data", result("llama-3.3-70b"))).text).toBe(result("llama-3.3-70b"));
});

test("a long file without a content-length gets the length in its file object", async () => {
  const long = "0123456789abcdef".repeat((9 * MIB) / 16);
  const got = await content("user_data", long);
  expect([got.status, got.length, got.text === long]).toEqual([200, String(long.length), true]);
});

test.each([
  [
    "a job",
    "GET",
    "/v1/fine_tuning/jobs/ftjob-1",
    { object: "fine_tuning.job", id: "ftjob-1", model: "llama-3.3-70b", error: null },
  ],
  ["a batch", "GET", "/v1/batches/batch-1", { object: "batch", id: "batch-1", model: "bge-m3" }],
])("%s, retrieved by its id, names the client's model", async (_, method, path, object) => {
  const made = path.includes("batches")
    ? ["/v1/batches", { input_file_id: "" }]
    : ["/v1/fine_tuning/jobs", { model: "chat-large" }];
  answers.set(made[0] as string, json(object));
  answers.set(path, json(object));
  answers.set("/v1/files", json({ id: "file-1", object: "file" }));
  const file = await upload([
    ["purpose", "user_data"],
    ["file", "x"],
  ]);
  const created = await read(
    await edge.ask({
      path: made[0] as string,
      json: {
        ...(made[1] as object),
        ...(path.includes("batches") ? { input_file_id: file.json.id } : { training_file: file.json.id }),
      },
    }),
  );
  expect(created).toMatchObject({ status: 200, json: { model: path.includes("batches") ? "embed" : "chat-large" } });
  if (!path.includes("batches")) expect(JSON.parse(sent.get(made[0] as string)!).model).toBe("llama-3.3-70b");
  const got = await read(await edge.ask({ path: path.replace(/[^/]*$/, created.json.id), method }));
  expect(got.json.model).toBe(path.includes("batches") ? "embed" : "chat-large");
});

test("an endpoint's list of models has the client's names", async () => {
  answers.set(
    "/v1/models",
    json({
      object: "list",
      data: [
        { id: "llama-3.3-70b", object: "model", root: "llama-3.3-70b" },
        { id: "bge-m3", object: "model" },
      ],
    }),
  );
  answers.set("/v1/models/llama-3.3-70b", json({ id: "llama-3.3-70b", object: "model" }));
  const list = await read(await edge.ask({ path: "/v1/models", host: "mixed.example" }));
  expect(list).toMatchObject({
    status: 200,
    json: { data: [{ id: "chat-large", root: "chat-large" }, { id: "embed" }] },
  });
  const one = await read(await edge.ask({ path: "/v1/models/chat-large", host: "mixed.example" }));
  expect(one).toMatchObject({ status: 200, json: { id: "chat-large" } });
});

test("headers name the client's model, and nothing about the provider's account", async () => {
  answers.set(
    "/v1/chat/completions",
    json(
      { id: "c", model: "llama-3.3-70b", choices: [], score: NaN },
      {
        "openai-model": "llama-3.3-70b",
        "openai-organization": "org-secret",
        "openai-project": "proj-secret",
        "x-served-by": "host-7",
        via: "1.1 host",
        server: "uvicorn",
        "x-ms-deployment-name": "llama",
        "azureml-model-session": "d-1",
        "x-ratelimit-remaining-tokens": "7",
      },
    ),
  );
  const reply = await edge.chat("DE", { model: "chat-large" });
  expect(reply.headers.get("openai-model")).toBe("chat-large");
  const all = [...reply.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
  expect(all).not.toMatch(/secret|host-7|1\.1 host|uvicorn|deployment|session|llama/);
  expect(((await reply.json()) as any).model).toBe("chat-large");
});

test("where a name is replaced, numbers that JSON doesn't have become null", async () => {
  answers.set("/v1/chat/completions", (response) =>
    response
      .writeHead(200, { "content-type": "application/json" })
      .end('{"a":NaN,"model":"llama-3.3-70b","choices":[{"logprob":-Infinity}]}'),
  );
  expect(await (await edge.chat("DE", { model: "chat-large" })).text()).toBe(
    '{"a":null,"model":"chat-large","choices":[{"logprob":null}]}',
  );
});
