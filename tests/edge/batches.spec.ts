// Batches. Each line of the input is judged and rewritten like the same request alone. The order of the form's fields
// doesn't matter. The output has the client's ids.
import { type ServerResponse } from "node:http";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Edge, type Json, formPart, keyDigest, read, region, rules, serve, stopAll } from "./harness.js";

const PLACE = "https://collector.example/x";
const STATE_KEY = "k".repeat(40);
/** The last body that an endpoint received, by path. */
const sent = new Map<string, string>();
/** How the endpoints answer, by path. */
const answers = new Map<string, (response: ServerResponse) => unknown>();
let edge: Edge;

beforeAll(async () => {
  const [shared, own] = await Promise.all(
    [0, 1].map(() =>
      serve((request, response) => {
        let text = "";
        request.on("data", (chunk) => (text += chunk));
        request.on("end", () => {
          sent.set(request.url!, text);
          const answer = answers.get(request.url!) ?? json({ id: "file-1", object: "file", purpose: "batch" });
          answer(response);
        });
      }),
    ),
  );
  const regions = { ...region("DE", "shared", [shared], { engine: "vllm" }), ...region("DE", "own", [own]) };
  const document = rules(
    1,
    regions,
    { regions: ["shared"], allow: ["batch"] },
    {
      tenants: {
        acme: { key_sha256: [keyDigest("sk-acme")], services: ["chat", "own"] },
        emca: { key_sha256: [keyDigest("sk-emca")], services: ["chat"] },
      },
    },
  );
  document.services.own = { ...document.services.chat, hosts: ["own.example"], regions: ["own"] };
  edge = await Edge.start(document, { STATE_KEY });
});
afterAll(stopAll);

const json =
  (value: unknown, headers: object = {}) =>
  (response: ServerResponse) =>
    response.writeHead(200, { "content-type": "application/json", ...headers }).end(JSON.stringify(value));

type Part = [name: string, value: string];
const form = (parts: Part[]) => {
  const written = parts.map(([name, value]) => formPart(name, value, name === "file" ? '; filename="in.jsonl"' : ""));
  return `${written.join("")}--B--\r\n`;
};

const as = (name: string) => ({ authorization: `Bearer sk-${name}` });

/** Uploads a file. Returns the answer, and what the endpoint received. */
async function upload(parts: Part[], { host = "chat.example", tenant = "acme" } = {}) {
  sent.clear();
  const headers = { ...as(tenant), "content-type": "multipart/form-data; boundary=B" };
  const reported = await read(await edge.ask({ path: "/v1/files", method: "POST", body: form(parts), headers, host }));
  return { ...reported, sent: sent.get("/v1/files") };
}

const purpose: Part = ["purpose", "batch"];
const line = (body: Json, url = "/v1/chat/completions") =>
  `${JSON.stringify({ custom_id: "1", method: "POST", url, body })}\n`;
const chat = (more: Json = {}) => ({ model: "m", messages: [{ role: "user", content: "hi" }], ...more });
const part = (value: Json) => chat({ messages: [{ role: "user", content: [value] }] });

const refused: [string, string, string, string?][] = [
  [
    "a remote image",
    line(part({ type: "image_url", image_url: { url: PLACE } })),
    "remote_url_not_allowed",
    "/messages/0/content/0/image_url/url",
  ],
  ["a fallback", line(chat({ fallbacks: ["gpt"] })), "unknown_field", "/fallbacks"],
  [
    "a hosted tool",
    line({ model: "m", tools: [{ type: "web_search" }] }, "/v1/responses"),
    "hosted_tool_not_allowed",
    "tools",
  ],
  ["another tenant's fine-tuned model", line(chat({ model: "ft:gpt-4o:emca::1" })), "model_not_found", "model"],
  [
    "another tenant's fine-tuned model at Azure",
    line(chat({ model: "gpt-4o-2024-08-06.ft-0123" })),
    "model_not_found",
    "model",
  ],
  ["a model that routes", line(chat({ model: "gpt-4o:online" })), "model_not_found", "model"],
  ["a raw id of a file", line(part({ type: "file", file: { file_id: "file-emca" } })), "not_found"],
  [
    "a raw id of an answer",
    line({ model: "m", input: "x", previous_response_id: "resp_emca" }, "/v1/responses"),
    "not_found",
  ],
  ["a path of state", line({ model: "m" }, "/v1/files"), "invalid_field", "url"],
  ["another engine's field", line(chat({ ebnf: "root ::= x" })), "unknown_field", "ebnf"],
];

test.each(refused)("%s is refused in a line, at any position of the field purpose", async (_, bad, code, param) => {
  // All lines of a file have the same path.
  const good = bad.includes('"/v1/responses"') ? line({ model: "m", input: "x" }, "/v1/responses") : line(chat());
  const file: Part = ["file", good + bad];
  for (const parts of [
    [purpose, file],
    [file, purpose],
  ]) {
    const reported = await upload(parts);
    expect(reported).toMatchObject({ code, sent: undefined, ...(param && { json: { error: { param } } }) });
    expect(reported.json.error.message).toContain("Line 2 of the batch");
    expect(reported.text).not.toContain("collector.example");
  }
  // A file for another purpose passes without being read.
  expect(await upload([["purpose", "user_data"], file])).toMatchObject({ status: 200 });
});

test("a line is rewritten like the same request", async () => {
  const body = chat({ store: true, prompt_cache_key: "k", cache_salt: "emca" });
  const reported = await upload([["file", line(body)], purpose]);
  expect(reported).toMatchObject({ status: 200 });
  const [, text] = reported.sent!.match(/^(\{.*\})\r?$/m)!;
  const asked = JSON.parse(text).body;
  expect(asked).toMatchObject({
    model: "m",
    store: false,
    cache_salt: expect.stringMatching(/^bw-/),
    prompt_cache_key: expect.stringMatching(/^bw-/),
  });
  // The scoped name is the same as in a single request, and differs from that of another tenant.
  answers.set("/v1/chat/completions", json({ id: "c", object: "chat.completion", model: "m", choices: [] }));
  const alone = async (tenant: string) => {
    await edge.ask({ path: "/v1/chat/completions", json: body, headers: as(tenant) });
    return JSON.parse(sent.get("/v1/chat/completions")!);
  };
  expect((await alone("acme")).cache_salt).toBe(asked.cache_salt);
  expect((await alone("emca")).cache_salt).not.toBe(asked.cache_salt);
});

test("a line may name ids that its tenant got", async () => {
  const file = await upload([
    ["purpose", "user_data"],
    ["file", "x"],
  ]);
  const mine = line(part({ type: "file", file: { file_id: file.json.id } }));
  expect((await upload([purpose, ["file", mine]])).sent).toContain('"file_id":"file-1"');
  expect(await upload([purpose, ["file", mine]], { tenant: "emca" })).toMatchObject({ status: 404, code: "not_found" });
});

test("in the account of a single tenant, raw names of models are allowed, as in a request", async () => {
  const tuned = line(chat({ model: "ft:gpt-4o:acme::1" }));
  const reported = await upload([purpose, ["file", tuned]], { host: "own.example" });
  expect(reported).toMatchObject({ status: 200 });
  expect(reported.sent).toContain(tuned);
});

test("an upload in parts can't be the input of a batch", async () => {
  const begin = { filename: "a", bytes: 1, mime_type: "application/jsonl", purpose: "batch" };
  const reported = await read(await edge.ask({ path: "/v1/uploads", json: begin, headers: as("acme") }));
  expect(reported).toMatchObject({ status: 400, code: "invalid_field", json: { error: { param: "purpose" } } });
  expect(reported.json.error.message).toContain("/files");
});

test("the results of a batch have the client's ids", async () => {
  const batch = "batch_68af4030baa48193b0b43b4c2a176a1a";
  answers.set("/v1/files/file-1/content", (response) =>
    response
      .writeHead(200, {
        "content-type": "application/jsonl",
        "content-disposition": `attachment; filename="${batch}_file-1_output.jsonl"`,
      })
      .end("{}\n"),
  );
  const {
    json: { id },
  } = await upload([
    ["purpose", "user_data"],
    ["file", "x"],
  ]);
  const got = await edge.ask({ path: `/v1/files/${id}/content`, headers: as("acme") });
  await got.text();
  const named = got.headers.get("content-disposition")!;
  expect(named).toContain(`_${id}_output.jsonl`);
  expect(named).toMatch(/filename="batch_bw1[\w-]+_file-bw1/);
  expect(named).not.toContain(batch);
});
