// Files, batches, fine-tuning, vector stores and stored answers. Each exists at one endpoint, ids name the endpoint and
// the owner, and the fence is checked with every use.
import OpenAI, { toFile } from "openai";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Ask, Edge, type Json, StandIn, keyDigest, read, region, rules, stopAll } from "./harness.js";

const STATE_KEY = "a secret of more than thirty-two characters".replaceAll(" ", "-");
const ids = /"(file|batch|ftjob|vs|resp|chatcmpl)[-_]([^"]*)"(?!:)/g;

let fra: StandIn, iad: StandIn, own: StandIn, edge: Edge, document: Json;
const acme = { authorization: "Bearer sk-acme" };
const emca = { authorization: "Bearer sk-emca" };

beforeAll(async () => {
  [fra, iad, own] = await Promise.all(["eu-frankfurt", "us-virginia", "eu-own"].map((name) => StandIn.start(name)));
  const regions = {
    ...region("DE", "eu-frankfurt", [fra.url], { models: { small: "llama-small", large: "llama-large" } }),
    ...region("US", "us-virginia", [iad.url], { models: { small: "gpt-small" } }),
    ...region("DE", "eu-own", [own.url]),
  };
  document = rules(
    1,
    regions,
    { regions: ["eu-frankfurt", "us-virginia"], allow: ["store", "batch", "hosted_tools"] },
    {
      tenants: {
        acme: { key_sha256: [keyDigest("sk-acme")], services: ["chat", "own"] },
        emca: { key_sha256: [keyDigest("sk-emca")], services: ["chat"] },
      },
    },
  );
  document.services.own = { ...document.services.chat, hosts: ["own.example", "localhost"], regions: ["eu-own"] };
  document.services.chat.hosts = ["chat.example"];
  edge = await Edge.start(document, { STATE_KEY }, { cf: { country: "DE" } });
});
afterAll(stopAll);

/** Uploads a file of the tenant acme to Frankfurt. */
async function upload(purpose = "user_data", more: Ask = {}): Promise<string> {
  const form = new FormData();
  form.append("file", new Blob([purpose === "batch" ? "{}" : "canary"], { type: "text/plain" }), "a.txt");
  form.append("purpose", purpose);
  const { status, json } = await read(
    await edge.ask({ path: "/v1/files", method: "POST", body: await packed(form), ...(await typed(form)), ...more }),
  );
  expect(status).toBe(200);
  return json.id;
}

/** A request with a form. `dispatchFetch` doesn't accept a FormData of another realm, so it gets the bytes. */
const requests = new WeakMap<FormData, Request>();
function request(form: FormData): Request {
  if (!requests.has(form)) requests.set(form, new Request("http://x", { method: "POST", body: form }));
  return requests.get(form)!;
}
const packed = async (form: FormData) => new Uint8Array(await request(form).clone().arrayBuffer());
const typed = async (form: FormData) => ({
  headers: { ...acme, "content-type": request(form).headers.get("content-type")! },
});

const get = (path: string, more: Ask = {}) => edge.ask({ path, headers: acme, ...more });
const post = (path: string, json: unknown, more: Ask = {}) => edge.ask({ path, headers: acme, json, ...more });

/** Checks that every id in a text is a sealed id of the Worker. */
function expectSealed(text: string) {
  const shown = [...text.matchAll(ids)].map(([, , rest]) => rest);
  expect(shown.length).toBeGreaterThan(0);
  for (const rest of shown) expect(rest).toMatch(/^bw1/);
}

test("a file is read, downloaded with its type and deleted at the endpoint where it was made", async () => {
  const id = await upload();
  const about = await read(await get(`/v1/files/${id}`));
  expect(about).toMatchObject({
    status: 200,
    region: "eu-frankfurt",
    json: { id, filename: "a.txt", purpose: "user_data" },
  });
  const content = await get(`/v1/files/${id}/content`);
  expect([content.headers.get("content-type"), await content.text()]).toEqual(["text/plain", "canary"]);
  expect((await read(await get(`/v1/files/${id}`, { method: "DELETE" }))).json).toMatchObject({ id, deleted: true });
  expect((await read(await get(`/v1/files/${id}`))).status).toBe(404);
});

test("an upload in parts becomes a file of the endpoint that got its parts", async () => {
  const begin = { filename: "b.bin", bytes: 8, mime_type: "text/plain", purpose: "user_data" };
  const { status, region, json: upload } = await read(await post("/v1/uploads", begin));
  expect({ status, region, upload }).toMatchObject({
    status: 200,
    region: "eu-frankfurt",
    upload: { id: expect.stringMatching(/^upload_bw1/), status: "pending" },
  });
  const path = `/v1/uploads/${upload.id}`;
  const parts: string[] = [];
  for (const text of ["nary", "ca"]) {
    const form = new FormData();
    form.append("data", new Blob([text]), "blob");
    const part = await read(
      await edge.ask({ path: `${path}/parts`, method: "POST", body: await packed(form), ...(await typed(form)) }),
    );
    expect(part.json).toMatchObject({ id: expect.stringMatching(/^part_bw1/), upload_id: upload.id });
    parts.push(part.json.id);
  }
  await fra.reset();
  const other = { headers: emca };
  expect(await read(await post(`${path}/complete`, { part_ids: parts }, other))).toMatchObject({
    status: 404,
    code: "not_found",
  });
  expect(await read(await post(`${path}/complete`, { part_ids: ["part_eu-frankfurt-2"] }))).toMatchObject({
    status: 404,
    code: "not_found",
  });
  expect(await read(await post(`${path}/complete`, { part_ids: parts }, { cf: { country: "US" } }))).toMatchObject({
    status: 451,
    code: "residency_denied",
  });
  expect([...(await fra.requests()), ...(await iad.requests())]).toEqual([]);
  const done = await read(await post(`${path}/complete`, { part_ids: parts.reverse() }));
  expect(done.json).toMatchObject({
    id: upload.id,
    status: "completed",
    file: { id: expect.stringMatching(/^file-bw1/), bytes: 6 },
  });
  expect(await (await get(`/v1/files/${done.json.file.id}/content`)).text()).toBe("canary");
  expect((await read(await get(`/v1/files/${done.json.file.id}`, { headers: emca }))).status).toBe(404);
  const second = await read(await post("/v1/uploads", begin));
  expect(
    (await read(await post(`/v1/uploads/${second.json.id}/cancel`, undefined, { method: "POST" }))).json.status,
  ).toBe("cancelled");
});

test("ids of another tenant, an endpoint's raw ids and altered ids all count as missing", async () => {
  const id = await upload();
  await fra.reset();
  const altered = [...id].map((letter, i) => (i === id.length - 20 ? (letter === "A" ? "B" : "A") : letter)).join("");
  const replies = await Promise.all(
    [
      edge.ask({ path: `/v1/files/${id}`, headers: emca }),
      get("/v1/files/file-eu-frankfurt-1"),
      get(`/v1/files/${altered}`),
      get("/v1/files/file-nobodys"),
      edge.ask({ path: `/v1/files/${id}`, headers: acme, host: "own.example" }),
    ].map(async (reply) => {
      const { status, text, attempts } = await read(await reply);
      return { status, text, attempts };
    }),
  );
  for (const reply of replies) expect(reply).toEqual(replies[0]);
  expect(replies[0]).toMatchObject({ status: 404, attempts: null });
  for (const json of [
    { input_file_id: "file-eu-frankfurt-1", endpoint: "/v1/chat/completions" },
    { input_file_id: altered },
  ]) {
    expect(await read(await post("/v1/batches", json))).toMatchObject({ status: 404, code: "not_found" });
  }
  expect(await fra.requests()).toEqual([]);
});

test("the fence is checked with every use of an id", async () => {
  const id = await upload();
  await fra.reset();
  const reply = await read(await get(`/v1/files/${id}`, { cf: { country: "US" } }));
  expect(reply).toMatchObject({ status: 451, code: "residency_denied" });
  const chat = { model: "small", messages: [{ role: "user", content: [{ type: "file", file: { file_id: id } }] }] };
  expect(await read(await post("/v1/chat/completions", chat, { cf: { country: "US" } }))).toMatchObject({
    status: 451,
  });
  expect([...(await fra.requests()), ...(await iad.requests())]).toEqual([]);
  expect(await read(await post("/v1/chat/completions", chat))).toMatchObject({ status: 200, region: "eu-frankfurt" });
  const [{ body }] = await fra.requests();
  expect(JSON.parse(body).messages[0].content[0].file.file_id).toMatch(/^file-eu-frankfurt-/);
});

test("if the endpoint of an id fails, no other endpoint is asked", async () => {
  const id = await upload();
  await Promise.all([fra.reset(), iad.reset()]);
  await fra.fail({ mode: "status", status: 500, path: "/v1/files" });
  expect(await read(await get(`/v1/files/${id}`))).toMatchObject({ status: 503, code: "region_unavailable" });
  expect(
    [(await fra.requests()).length, (await iad.requests()).length],
    "a request that only reads is tried twice",
  ).toEqual([2, 0]);
  await fra.reset();
  // The endpoint is asked although it rests, because there is no other.
  expect((await read(await get(`/v1/files/${id}`))).status).toBe(200);
});

test("all ids of batches and fine-tuning jobs are sealed for the client and raw for the endpoint", async () => {
  const input = await upload("batch");
  const made = await read(
    await post("/v1/batches", {
      input_file_id: input,
      endpoint: "/v1/chat/completions",
      metadata: { file_id: "mine" },
    }),
  );
  expect(made.json).toMatchObject({ input_file_id: input, error_file_id: null, metadata: { file_id: "mine" } });
  expectSealed(made.text);
  const output = await get(`/v1/files/${made.json.output_file_id}/content`);
  expect(await output.text()).toBe('{"answered":1}\n');
  expect(
    (await read(await post(`/v1/batches/${made.json.id}/cancel`, undefined, { method: "POST" }))).json.status,
  ).toBe("cancelled");

  const job = await read(await post("/v1/fine_tuning/jobs", { model: "small", training_file: input }));
  expectSealed(job.text);
  expect(job.json).toMatchObject({ model: "small", training_file: input });
  expect((await fra.requests()).at(-1)!.body).toContain('"model":"llama-small"');
  const events = await read(await get(`/v1/fine_tuning/jobs/${job.json.id}/events`));
  const after = await read(await get(`/v1/fine_tuning/jobs/${job.json.id}/events?after=${events.json.data[0].id}`));
  expect([events.json.data.length, after.json.data.length]).toEqual([1, 0]);
  const metrics = await get(`/v1/files/${job.json.result_files[0]}/content`);
  expect([metrics.headers.get("content-type"), await metrics.text()]).toEqual(["text/csv", "step,loss\n"]);
});

test("vector stores", async () => {
  const file = await upload();
  const store = await read(await post("/v1/vector_stores", { name: "s", file_ids: [file] }));
  const path = `/v1/vector_stores/${store.json.id}`;
  expect((await read(await get(`${path}/files/${file}`))).json).toMatchObject({
    id: file,
    vector_store_id: store.json.id,
  });
  expect((await read(await get(`${path}/files`))).json).toMatchObject({
    data: [{ id: file }],
    first_id: file,
    last_id: file,
  });
  expect((await read(await post(`${path}/search`, { query: "x" }))).json.data[0].file_id).toBe(file);
  expect((await read(await get(path, { method: "DELETE" }))).json).toMatchObject({ id: store.json.id, deleted: true });
});

test("a stored response is continued at its endpoint, streamed or not", async () => {
  const first = await read(await post("/v1/responses", { model: "large", input: "hi" }));
  expect(first.json).toMatchObject({ id: expect.stringMatching(/^resp_bw1/), model: "large" });
  const stream = await post("/v1/responses", {
    model: "large",
    input: "and?",
    previous_response_id: first.json.id,
    stream: true,
  });
  const events = (await stream.text())
    .split("\n\n")
    .filter(Boolean)
    .map((event) => JSON.parse(event.replace(/^event: .*\ndata: /, "")));
  const responses = events.map((event) => event.response).filter(Boolean);
  expect(new Set(responses.map((response) => response.id)).size).toBe(1);
  for (const response of responses) {
    expect(response).toMatchObject({
      id: expect.stringMatching(/^resp_bw1/),
      previous_response_id: first.json.id,
      model: "large",
    });
  }
  const { id } = responses[0];
  expect((await read(await get(`/v1/responses/${id}`))).json).toMatchObject({
    id,
    previous_response_id: first.json.id,
  });
  expect((await read(await get(`/v1/responses/${id}/input_items`))).json.data[0].content).toBe("and?");
  expect((await read(await edge.ask({ path: `/v1/responses/${id}`, headers: emca }))).status).toBe(404);
  expect((await read(await get(`/v1/responses/${id}`, { method: "DELETE" }))).json).toMatchObject({
    id,
    deleted: true,
  });
  const gone = await read(
    await post("/v1/responses", { model: "large", input: "x", previous_response_id: "resp_raw" }),
  );
  expect(gone).toMatchObject({ status: 404, code: "not_found" });
});

test("a stored chat completion", async () => {
  const made = await read(await post("/v1/chat/completions", { model: "small", messages: [], store: true }));
  expect((await read(await get(`/v1/chat/completions/${made.json.id}`))).json.id).toBe(made.json.id);
  const plain = await read(await post("/v1/chat/completions", { model: "small", messages: [] }));
  expect(plain.json.id).toMatch(/^chatcmpl-stand-in/);
});

test("a list shows only the tenant's own objects, or nothing", async () => {
  await upload();
  for (const headers of [acme, emca]) {
    for (const path of ["/v1/files", "/v1/batches", "/v1/vector_stores", "/v1/fine_tuning/jobs"]) {
      expect(await read(await edge.ask({ path, headers }))).toMatchObject({ status: 403, code: "list_not_allowed" });
    }
  }
  const id = await upload("user_data", { host: "own.example" });
  const list = await read(await get("/v1/files", { host: "own.example" }));
  expect(list).toMatchObject({ status: 200, json: { data: [{ id }], first_id: id, last_id: id } });
  expect((await read(await get(`/v1/files?after=${id}`, { host: "own.example" }))).json.data).toEqual([]);
});

test("without a STATE_KEY requests that need one get 503, and nothing is sent", async () => {
  await fra.reset();
  for (const bindings of [{}, { STATE_KEY: "short" }] as Record<string, string>[]) {
    const keyless = await Edge.start(document, bindings);
    const replies = [
      await read(await keyless.ask({ path: "/v1/files/file-1", headers: acme })),
      await read(await keyless.ask({ path: "/v1/responses", headers: acme, json: { model: "small", input: "x" } })),
    ];
    for (const reply of replies) expect(reply).toMatchObject({ status: 503, code: "no_state_key" });
    expect(
      (
        await read(
          await keyless.ask({
            path: "/v1/responses",
            headers: acme,
            json: { model: "small", input: "x", store: false },
          }),
        )
      ).status,
    ).toBe(200);
    await keyless.stop();
  }
  expect((await fra.requests()).length).toBe(2);
});

test("hub paths go to the hub, or get 451 if it is outside the fence, 503 if it is down", async () => {
  const service = { pattern: "hub-and-spoke", hub: { region: "us-virginia", paths: ["/files", "/batches"] } };
  const residency = [
    { clients: ["eu"], process_in: ["eu"] },
    { clients: ["us"], process_in: [["us", "eu"]] },
  ];
  const both = { ...region("DE", "eu-frankfurt", [fra.url]), ...region("US", "us-virginia", [iad.url]) };
  const until = new Date(Date.now() + 3_600_000).toISOString();
  const hub = await Edge.start(rules(1, both, { ...service, residency }), { STATE_KEY });
  const form = new FormData();
  form.append("purpose", "user_data");
  form.append("file", new Blob(["x"]), "a.txt");
  const file = { path: "/v1/files", method: "POST", body: await packed(form), ...(await typed(form)) };
  expect(await read(await hub.ask({ ...file, cf: { country: "US" } }))).toMatchObject({
    status: 200,
    region: "us-virginia",
  });
  expect(await read(await hub.ask({ ...file, cf: { country: "DE" } }))).toMatchObject({ status: 451 });
  expect(await read(await hub.chat("DE"))).toMatchObject({ status: 200, region: "eu-frankfurt" });
  await hub.stop();
  const overrides = [{ region: "us-virginia", status: "down", until, reason: "drill" }];
  const down = await Edge.start(rules(1, both, { ...service, residency }, { overrides }), { STATE_KEY });
  await Promise.all([fra.reset(), iad.reset()]);
  expect(await read(await down.ask({ ...file, cf: { country: "US" } }))).toMatchObject({ status: 503 });
  expect([...(await fra.requests()), ...(await iad.requests())]).toEqual([]);
  await down.stop();
});

test("the official client: files, batches, vector stores, responses", async () => {
  const { port } = await edge.miniflare.ready;
  const client = new OpenAI({ apiKey: "sk-acme", baseURL: `http://localhost:${port}/v1`, maxRetries: 0 });
  const file = await client.files.create({
    file: await toFile(Buffer.from('{"a":1}\n'), "in.jsonl"),
    purpose: "batch",
  });
  const batch = await client.batches.create({
    input_file_id: file.id,
    endpoint: "/v1/chat/completions",
    completion_window: "24h",
  });
  expect(await (await client.files.content(batch.output_file_id!)).text()).toBe('{"answered":1}\n');
  expect((await client.batches.retrieve(batch.id)).input_file_id).toBe(file.id);
  const store = await client.vectorStores.create({ file_ids: [file.id] });
  expect((await client.vectorStores.files.retrieve(file.id, { vector_store_id: store.id })).id).toBe(file.id);
  const names = [];
  for await (const each of client.files.list()) names.push(each.id);
  expect(names).toContain(file.id);
  const first = await client.responses.create({ model: "any", input: "hi" });
  const second = await client.responses.create({ model: "any", input: "and?", previous_response_id: first.id });
  expect((await client.responses.retrieve(second.id)).previous_response_id).toBe(first.id);
  await expect(client.files.retrieve("file-nobodys")).rejects.toBeInstanceOf(OpenAI.NotFoundError);
});
