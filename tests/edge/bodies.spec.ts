// Values in bodies that a model host would fetch, share or route by. Each kind is tested alone. Bodies of real clients
// have to pass. Random bodies, forms and batch files are compared with an independent judge (judge.ts, forms.ts);
// BODIES_CASES sets their number, BODIES_SEED the seed.
import { Agent, request } from "node:http";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Chance } from "./bodies.js";
import { verdict } from "./judge.js";
import { make } from "./planting.js";
import { type Part, formVerdict, isSame, makeBatch, makeForm, parsed, written } from "./forms.js";
import { type Json, formPart, keyDigest, region, rules, serve, stopAll } from "./harness.js";
import { workerd } from "./workerd.js";

const CASES = Number(process.env.BODIES_CASES ?? 3_000);
/** The seed is fixed, so that only a change of the code changes the outcome. Other seeds are for long runs. */
const SEED = Number(process.env.BODIES_SEED ?? 20_261_128);
/** How many requests are under way at once. */
const AT_ONCE = 24;

/** The map of models of an endpoint. One of the models has another name there. */
const MAPPED = { m: "m", omni: "omni", alias: "theirs" };

const agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE });
/** The bodies that endpoints received, with the region, by the trace id of the request. */
const arrived = new Map<string, { body: string; at: string }>();
let url: string;
let asked = 0;

const answers: [RegExp, Json][] = [
  [/embeddings$/, { object: "list", data: [] }],
  [/responses$/, { id: "resp_1", object: "response", status: "completed", model: "m", output: [] }],
  [/files$/, { id: "file-1", object: "file" }],
  [/(audio|images)\//, { text: "x", data: [] }],
  [/vector_stores$/, { id: "vs_1", object: "vector_store" }],
  [/uploads$/, { id: "upload_1", object: "upload" }],
  [/jobs$/, { id: "ftjob-1", object: "fine_tuning.job" }],
];

async function endpoint(at: string): Promise<string> {
  return serve((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      const trace = String(request.headers.traceparent).split("-")[1];
      arrived.set(trace, { body: Buffer.concat(chunks).toString(), at });
      const [, value] = answers.find(([path]) => path.test(request.url!)) ?? [
        null,
        {
          id: "c",
          object: "chat.completion",
          model: "m",
          choices: [{ index: 0, message: { role: "assistant", content: "x" }, finish_reason: "stop" }],
        },
      ];
      const text = JSON.stringify(value);
      response
        .writeHead(200, { "content-type": "application/json", "content-length": Buffer.byteLength(text) })
        .end(text);
    });
  });
}

beforeAll(async () => {
  const [plain, vllm] = [await endpoint("plain"), await endpoint("vllm")];
  const regions = {
    ...region("DE", "plain", [plain]),
    ...region("DE", "vllm", [vllm], { engine: "vllm" }),
    ...region("DE", "closed", [plain], { models: { m: "m", "gpt-4o:online": "llama" } }),
    ...region("DE", "mapped", [plain], { models: MAPPED }),
  };
  const residency = [{ clients: ["unknown"], process_in: ["*"] }];
  const document = rules(1, regions, { regions: ["plain"], residency });
  const service = (host: string, more: Json) => ({ ...document.services.chat, hosts: [host], ...more });
  Object.assign(document.services, {
    vllm: service("vllm.example", { regions: ["vllm"] }),
    both: service("both.example", { regions: ["plain", "vllm"], pattern: "active-passive" }),
    closed: service("closed.example", { regions: ["closed"] }),
    mapped: service("mapped.example", { regions: ["mapped"] }),
    odd: service("odd.example", { allow: ["unknown_fields"] }),
    remote: service("remote.example", { allow: ["remote_urls"] }),
    tenants: service("tenants.example", { regions: ["vllm"] }),
    batch: service("batch.example", { allow: ["batch"] }),
    "vllm-batch": service("vllm-batch.example", { regions: ["vllm"], allow: ["batch"] }),
  });
  document.tenants = Object.fromEntries(
    ["acme", "emca"].map((name) => [name, { key_sha256: [keyDigest(`sk-${name}`)], services: ["tenants"] }]),
  );
  const node = await serve((_, response) => response.end(JSON.stringify(document)));
  ({ url } = await workerd({ RULES_URL: `${node}/v1/rules`, STATE_KEY: "k".repeat(40) }));
});
afterAll(() => {
  agent.destroy();
  return stopAll();
});

interface Reported {
  status: number;
  code: string | null;
  param: string | null;
  text: string;
  sent: string | null;
  at: string | null;
}

/** Sends a request. Returns the answer, and what an endpoint received. */
function ask(
  path: string,
  body: Json | string,
  { host = "chat.example", headers = {} as Json } = {},
): Promise<Reported> {
  const trace = (++asked).toString(16).padStart(32, "0");
  const bytes = typeof body === "string" ? body : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const all = {
      host,
      "content-type": "application/json",
      traceparent: `00-${trace}-0000000000000001-01`,
      ...headers,
    };
    const sent = request(
      url,
      { path, method: "POST", agent, headers: { ...all, "content-length": Buffer.byteLength(bytes) } },
      (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () => {
          const text = Buffer.concat(chunks).toString();
          const error = text.startsWith('{"error"') ? JSON.parse(text).error : {};
          const there = arrived.get(trace);
          arrived.delete(trace);
          resolve({
            status: response.statusCode!,
            code: error.code ?? null,
            param: error.param ?? null,
            text,
            sent: there?.body ?? null,
            at: there?.at ?? null,
          });
        });
      },
    );
    sent.on("error", reject);
    sent.end(bytes);
  });
}

const chat = (more: Json = {}) => ({ model: "m", messages: [{ role: "user", content: "hi" }], ...more });
const asking = (more: Json, host?: string) => ask("/v1/chat/completions", chat(more), host ? { host } : {});
const PLACE = "https://collector.example/x";
const part = (value: Json) => chat({ messages: [{ role: "user", content: [value] }] });
const form = (fields: [string, string][]) =>
  `${fields.map(([name, value]) => formPart(name, value)).join("")}--B--\r\n`;
const asForm = { headers: { "content-type": "multipart/form-data; boundary=B" } };

const reachesOut: [string, string, Json, string, string?][] = [
  [
    "a remote image",
    "chat/completions",
    part({ type: "image_url", image_url: { url: PLACE } }),
    "remote_url_not_allowed",
    "/messages/0/content/0/image_url/url",
  ],
  [
    "a URL for audio",
    "chat/completions",
    part({ type: "input_audio", input_audio: { data: PLACE } }),
    "remote_url_not_allowed",
    "/messages/0/content/0/input_audio/data",
  ],
  [
    "frames of a video",
    "chat/completions",
    part({ type: "video", video: [PLACE] }),
    "remote_url_not_allowed",
    "/messages/0/content/0/video/0",
  ],
  [
    "an image as Hugging Face has it",
    "chat/completions",
    part({ type: "image", image: PLACE }),
    "remote_url_not_allowed",
    "/messages/0/content/0/image",
  ],
  [
    "an image as Anthropic has it",
    "chat/completions",
    part({ type: "image", source: { type: "url", url: PLACE } }),
    "remote_url_not_allowed",
    "/messages/0/content/0/source/url",
  ],
  [
    "a part of no known type",
    "chat/completions",
    part({ type: "web_page", page: "x" }),
    "unknown_field",
    "/messages/0/content/0/type",
  ],
  [
    "a prefill elsewhere",
    "chat/completions",
    chat({ kv_transfer_params: { do_remote_prefill: true, remote_host: "h" } }),
    "unknown_field",
  ],
  ["a room to meet in", "chat/completions", chat({ bootstrap_room: 1 }), "unknown_field", "/bootstrap_room"],
  ["fallbacks", "chat/completions", chat({ fallbacks: [{ model: "gpt-us" }] }), "unknown_field", "/fallbacks"],
  ["models to choose from", "chat/completions", chat({ models: ["us-model"] }), "unknown_field", "/models"],
  ["where to process", "chat/completions", chat({ inference_geo: "us" }), "unknown_field", "/inference_geo"],
  [
    "an image to generate from",
    "images/generations",
    { model: "m", prompt: "x", image: PLACE },
    "remote_url_not_allowed",
    "/image",
  ],
  [
    "references of images",
    "images/generations",
    { model: "m", prompt: "x", input_references: [{ image_url: { url: PLACE } }] },
    "remote_url_not_allowed",
    "/input_references/0/image_url/url",
  ],
  [
    "a voice to copy",
    "audio/speech",
    { model: "m", input: "x", ref_audio: PLACE },
    "remote_url_not_allowed",
    "/ref_audio",
  ],
  [
    "embeddings of images",
    "embeddings",
    { model: "m", input: [{ image: PLACE }] },
    "remote_url_not_allowed",
    "/input/0/image",
  ],
  [
    "a body within the body",
    "chat/completions",
    chat({ extra_body: { google: { tools: [] } } }),
    "unknown_field",
    "/extra_body",
  ],
  ["a search", "chat/completions", chat({ web_search: true }), "hosted_tool_not_allowed"],
  [
    "tools of a message",
    "chat/completions",
    chat({ messages: [{ role: "developer", content: "x", tools: [{ type: "mcp" }] }] }),
    "hosted_tool_not_allowed",
  ],
  [
    "a schema elsewhere",
    "chat/completions",
    chat({ response_format: { type: "json_schema", json_schema: { schema: { $ref: PLACE } } } }),
    "remote_url_not_allowed",
    "/response_format/json_schema/schema/$ref",
  ],
];

test.each(reachesOut)("%s is refused, and nothing is sent", async (_, path, body, code, param) => {
  const reported = await ask(`/v1/${path}`, body);
  expect(reported).toMatchObject({ status: 400, code, sent: null, ...(param && { param }) });
  expect(reported.text).not.toContain("collector.example");
});

test("fields of forms are judged like those of JSON", async () => {
  const model: [string, string] = ["model", "m"];
  for (const [name, value, code] of [
    ["url", PLACE, "remote_url_not_allowed"],
    ["source", PLACE, "remote_url_not_allowed"],
    ["language", "//collector.example", "remote_url_not_allowed"],
    ["provider", "us", "unknown_field"],
    ["decoder", "x", "unknown_field"],
    ["chunking_strategy", `{"type":"${PLACE}"}`, "remote_url_not_allowed"],
  ]) {
    expect(await ask("/v1/audio/transcriptions", form([model, [name, value]]), asForm), name).toMatchObject({
      status: 400,
      code,
      sent: null,
    });
  }
  const reported = await ask(
    "/v1/audio/transcriptions",
    form([model, ["prompt", PLACE], ["language", "de"], ["temperature", "0"], ["seed", "7"]]),
    asForm,
  );
  expect(reported).toMatchObject({ status: 200 });
  expect(reported.sent).toContain(PLACE);
});

test("a model's name that contains a route is allowed only if the rules list it", async () => {
  for (const model of ["gpt-4o:online", "a/b:nitro", "gpt-oss:120b-cloud", "@preset/x"]) {
    expect(await asking({ model }), model).toMatchObject({ status: 404, code: "model_not_found", sent: null });
  }
  expect(await asking({ model: PLACE })).toMatchObject({ status: 400, code: "remote_url_not_allowed", sent: null });
  const known = await asking({ model: "gpt-4o:online" }, "closed.example");
  expect(known).toMatchObject({ status: 200 });
  expect(JSON.parse(known.sent!).model).toBe("llama");
  expect(await asking({ model: "llama3:8b" })).toMatchObject({ status: 200 });
});

test("what a service allows passes, and nothing else", async () => {
  expect(await asking({ mystery: { a: ["b"] } }, "odd.example")).toMatchObject({ status: 200 });
  expect(await asking({ mystery: { a: [PLACE] } }, "odd.example")).toMatchObject({
    status: 400,
    code: "remote_url_not_allowed",
  });
  expect(await asking({ fallbacks: ["b"] }, "odd.example")).toMatchObject({ status: 400, code: "unknown_field" });
  expect(
    await ask("/v1/chat/completions", part({ type: "image_url", image_url: { url: PLACE } }), {
      host: "remote.example",
    }),
  ).toMatchObject({ status: 200 });
  expect(await asking({ mystery: PLACE }, "remote.example")).toMatchObject({ status: 400, code: "unknown_field" });
});

test("an engine's own field goes to an endpoint of that engine, and to no other", async () => {
  const field = { guided_choice: ["https://a.example", "b"] };
  expect(await asking(field)).toMatchObject({ status: 400, code: "unknown_field", param: "guided_choice", sent: null });
  expect(await asking(field, "vllm.example")).toMatchObject({ status: 200, at: "vllm" });
  expect(await asking(field, "both.example")).toMatchObject({ status: 200, at: "vllm" });
  expect(await asking({}, "both.example")).toMatchObject({ status: 200, at: "plain" });
  expect(await asking({ top_k: 40 }, "both.example")).toMatchObject({ status: 200, at: "plain" });
  expect(await asking({ ebnf: "root ::= x" }, "both.example")).toMatchObject({
    status: 400,
    code: "unknown_field",
    sent: null,
  });
});

test("names in caches that an engine shares among all clients are separated by tenant", async () => {
  const media = part({ type: "image_url", image_url: null, uuid: "passport-1" });
  const as = (name: string, body: Json) =>
    ask("/v1/chat/completions", body, { host: "tenants.example", headers: { authorization: `Bearer sk-${name}` } });
  const names = (reported: Reported) => {
    const body = JSON.parse(reported.sent!);
    return [body.messages[0].content[0].uuid, body.cache_salt, body.prompt_cache_key, body.request_id];
  };
  const body = { ...media, prompt_cache_key: "k", cache_salt: "acme", request_id: "1" };
  const [acme, again, emca] = [
    names(await as("acme", body)),
    names(await as("acme", body)),
    names(await as("emca", body)),
  ];
  expect(acme).toEqual(again);
  acme.forEach((name, i) => {
    expect(name).toMatch(/^bw-[0-9a-f]{32}$/);
    expect(name).not.toBe(emca[i]);
  });
  const [, unsalted] = names(await as("emca", media));
  expect(unsalted).toMatch(/^bw-[0-9a-f]{32}$/);
  const [stranger] = names(await ask("/v1/chat/completions", media, { host: "vllm.example" }));
  expect(stranger).not.toBe(names(await ask("/v1/chat/completions", media, { host: "vllm.example" }))[0]);
});

test("every other byte stays as the client sent it", async () => {
  const text =
    '{ "model" :"m","n":1e400,\n\t"messages":[{"role":"user","content":"\\ud800 \\u0000"}] ,' +
    '"seed":1180591620717411303424,"z":-0.0 }';
  expect(await ask("/v1/chat/completions", text)).toMatchObject({ status: 200, sent: text });
});

/** A body without the parts that the Worker writes into it. */
function undone(sent: string, engine: boolean): string {
  return engine ? sent.replace(/^\{"cache_salt":"bw-[0-9a-f]{32}",/, "{") : sent;
}

/** One case: the request, whether and why it must be refused, and whether the endpoint received the right body. */
interface Case {
  path: string;
  planted: string;
  why: string | null;
  reported: Reported;
  asked: string;
  isRight: boolean;
}

async function bodyCase(chance: Chance): Promise<Case> {
  const engine = chance.is(0.3);
  const known = !engine && chance.is(0.3) ? Object.keys(MAPPED) : null;
  const { path, body, planted } = make(chance, engine);
  const [asked, why] = [JSON.stringify(body), verdict(path, body, engine, known)];
  const reported = await ask(path, asked, {
    host: engine ? "vllm.example" : known ? "mapped.example" : "chat.example",
  });
  const sent = undone(reported.sent ?? "", engine);
  return {
    path,
    planted,
    why,
    reported,
    asked,
    isRight: (known ? sent.replaceAll('"theirs"', '"alias"') : sent) === asked,
  };
}

async function formCase(chance: Chance): Promise<Case> {
  const form = makeForm(chance);
  const [asked, why] = [written(form), formVerdict(form)];
  const reported = await ask(form.path, asked, asForm);
  return { ...form, why, reported, asked, isRight: isSame(form, reported.sent ?? "") };
}

async function batchCase(chance: Chance): Promise<Case> {
  const engine = chance.is(0.3);
  const { lines, why, planted } = makeBatch(chance, engine);
  const file: Part = { name: "file", value: lines.map((line) => `${line}\n`).join(""), filename: "in.jsonl" };
  const purpose: Part = { name: "purpose", value: "batch" };
  const asked = written({ path: "", planted, parts: chance.is(0.5) ? [purpose, file] : [file, purpose] });
  const reported = await ask("/v1/files", asked, { ...asForm, host: engine ? "vllm-batch.example" : "batch.example" });
  const sent = reported.sent === null ? undefined : parsed(reported.sent).find((part) => part.name === "file");
  const undoneLines = sent?.value.replace(/"body":\{"cache_salt":"bw-[0-9a-f]{32}",/g, '"body":{');
  return { path: "a batch", planted, why, reported, asked, isRight: undoneLines === file.value };
}

/** For each kind of request, how many had to be refused, and how many had to pass. */
type Counts = Record<string, { refused: number; passed: number }>;
function count(counts: Counts, key: string, why: string | null): void {
  counts[key] ??= { refused: 0, passed: 0 };
  counts[key][why === null ? "passed" : "refused"] += 1;
}

test(
  `${CASES} random bodies: the Worker and the judge agree (BODIES_SEED=${SEED})`,
  { timeout: 3_600_000 },
  async () => {
    const chance = new Chance(SEED);
    const disagreements: unknown[] = [];
    const [paths, plants, total]: Counts[] = [{}, {}, { all: { refused: 0, passed: 0 } }];
    let left = CASES,
      disagreed = 0,
      noticed = Date.now();
    const tell = (text: string) =>
      void (process.env.BODIES_CASES && process.stderr.write(`bodies: seed ${SEED}, ${text}, ${disagreed} disagree\n`));
    const work = async () => {
      while (left-- > 0) {
        const one = await chance.of([bodyCase, bodyCase, bodyCase, formCase, batchCase])(chance);
        const { path, planted, why, reported, asked } = one;
        [
          [paths, path],
          [plants, planted],
          [total, "all"],
        ].forEach(([counts, key]) => count(counts as Counts, key as string, why));
        const isRight =
          why === null
            ? reported.status === 200 && one.isRight
            : reported.status >= 400 && reported.status < 500 && reported.sent === null;
        if (!isRight && ++disagreed <= 40)
          disagreements.push({
            ...one,
            reported: { ...reported, sent: reported.sent === asked ? "as it was" : reported.sent },
          });
        if (Date.now() - noticed > 20_000) {
          noticed = Date.now();
          tell(`${CASES - left} of ${CASES} cases`);
        }
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    const { refused, passed } = total.all;
    tell(`${refused} to refuse, ${passed} to pass; ${JSON.stringify({ paths, plants })}`);
    console.log(
      `bodies: seed ${SEED}, ${passed + refused} cases, ${refused} to refuse, ${passed} to pass, ${disagreed} disagree`,
    );
    expect(disagreements).toEqual([]);
    expect(Math.min(passed, refused)).toBeGreaterThan(CASES / 5);
  },
);
