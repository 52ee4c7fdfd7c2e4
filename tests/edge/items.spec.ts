// Items of answers, fine-tuned models and encrypted reasoning: a client may send them again, they reach only the
// endpoint where they were made, and only the client's own tenant can use them.
import type { IncomingMessage, ServerResponse } from "node:http";
import OpenAI from "openai";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Ask, Edge, type Json, keyDigest, read, rules, serve, stopAll } from "./harness.js";

const STATE_KEY = "a-secret-of-more-than-thirty-two-characters";
const key = (name: string) => ({ authorization: `Bearer sk-${name}` });
const tuned = "ft:gpt-4o-2024-08-06:acme:merger-plans:abc";

/** A model host that stores items. Where a request refers to a stored item, the host uses its stored content. */
class Host {
  readonly stored = new Map<string, string>();
  readonly asked: { method: string; path: string; json: Json }[] = [];
  url = "";

  static async start(name: string): Promise<Host> {
    const host = new Host(name);
    host.url = await serve((request, response) => void host.take(request, response));
    return host;
  }

  private constructor(readonly name: string) {}

  private async take(request: IncomingMessage, response: ServerResponse) {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const text = Buffer.concat(chunks).toString();
    const json: Json = text ? JSON.parse(text) : {};
    const path = request.url!.replace(/^(\/own)?\/v1/, "");
    this.asked.push({ method: request.method!, path, json });
    const tell = (status: number, body: unknown) => {
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
    };
    const refuse = (status: number, code: string) =>
      tell(status, { error: { message: "x", type: "invalid_request_error", param: "input", code } });
    if (path === "/models") {
      return tell(200, {
        object: "list",
        data: [
          { id: "gpt-4o", object: "model", parent: null },
          { id: tuned, object: "model" },
          { id: "lora", object: "model", parent: "base" },
        ],
      });
    }
    if (path.startsWith("/models/"))
      return tell(200, {
        id: decodeURIComponent(path.slice(8)),
        object: "model",
        deleted: request.method === "DELETE",
      });
    if (path.endsWith("/events")) {
      return tell(200, {
        object: "list",
        data: [{ id: "ftevent-1", object: "fine_tuning.job.event", message: `New fine-tuned model created: ${tuned}` }],
        has_more: false,
      });
    }
    if (path.endsWith("/checkpoints")) {
      return tell(200, {
        object: "list",
        data: [{ id: "ftckpt_1", fine_tuning_job_id: "ftjob-1", fine_tuned_model_checkpoint: `${tuned}:ckpt-step-1` }],
      });
    }
    if (path.startsWith("/fine_tuning/jobs")) {
      return tell(200, {
        object: "fine_tuning.job",
        id: "ftjob-1",
        status: "succeeded",
        model: json.model ?? "gpt-4o",
        fine_tuned_model: tuned,
        training_file: null,
        error: null,
      });
    }
    if (path === "/chat/completions") {
      const choices = [{ index: 0, message: { role: "assistant", content: "CANARY" }, finish_reason: "stop" }];
      return tell(200, { id: "chatcmpl-1", object: "chat.completion", created: 1, model: json.model, choices });
    }
    const items: Json[] = Array.isArray(json.input) ? json.input : [];
    const used = items.filter((item) => this.stored.has(item.id)).map((item) => this.stored.get(item.id));
    const lost = items.find(
      (item) =>
        item.id &&
        !item.encrypted_content &&
        ["reasoning", "item_reference"].includes(item.type) &&
        !this.stored.has(item.id),
    );
    if (lost) return refuse(404, "item_not_found");
    if (items.some((item) => item.encrypted_content && !item.encrypted_content.startsWith(this.name)))
      return refuse(400, "invalid_encrypted_content");
    const answer = this.answer(json, items, used.join(" | "));
    if (!json.stream) return tell(200, answer);
    response.writeHead(200, { "content-type": "text/event-stream" });
    let sequence_number = 0;
    const event = (type: string, fields: Json) =>
      response.write(
        `event: ${type}\ndata: ${JSON.stringify({ type, sequence_number: sequence_number++, ...fields })}\n\n`,
      );
    event("response.created", { response: { ...answer, status: "in_progress", output: [] } });
    for (const [output_index, item] of answer.output.entries()) {
      event("response.output_item.added", { output_index, item: item.content ? { ...item, content: [] } : item });
      if (item.type === "function_call")
        event("response.function_call_arguments.done", {
          item_id: item.id,
          output_index,
          name: item.name,
          arguments: item.arguments,
        });
      if (item.type === "message") {
        event("response.content_part.added", {
          item_id: item.id,
          output_index,
          content_index: 0,
          part: { type: "output_text", text: "", annotations: [] },
        });
        event("response.output_text.delta", {
          item_id: item.id,
          output_index,
          content_index: 0,
          delta: item.content[0].text,
        });
      }
      event("response.output_item.done", { output_index, item });
    }
    event("response.completed", { response: answer });
    response.end();
  }

  private answer(json: Json, items: Json[], used: string): Json {
    const n = this.stored.size + 1;
    const [rs, ig, fc, msg] = ["rs", "ig", "fc", "msg"].map((kind) => `${kind}_${this.name}${n}`);
    if (json.store !== false)
      for (const id of [rs, ig, fc, msg]) this.stored.set(id, `${id} of ${JSON.stringify(items[0] ?? json.input)}`);
    const encrypted = json.include?.includes("reasoning.encrypted_content")
      ? { encrypted_content: `${this.name}-gAAAA` }
      : {};
    const wantsTool = json.tools && !items.some((item) => item.type === "function_call_output");
    const last = wantsTool
      ? { type: "function_call", id: fc, call_id: `call_${n}`, name: "weather", arguments: "{}", status: "completed" }
      : {
          type: "message",
          id: msg,
          role: "assistant",
          status: "completed",
          content: [{ type: "output_text", text: `seen: ${used}`, annotations: [] }],
        };
    const output = [
      { type: "reasoning", id: rs, summary: [], ...encrypted },
      { type: "image_generation_call", id: ig, status: "completed", result: null },
      last,
    ];
    return {
      id: `resp_${this.name}${n}`,
      object: "response",
      created_at: 1,
      status: "completed",
      model: json.model,
      store: json.store ?? true,
      output,
    };
  }
}

let a: Host, b: Host;
const tenants = (services: string[]) => ({
  tenants: {
    acme: { key_sha256: [keyDigest("sk-acme")], services },
    emca: { key_sha256: [keyDigest("sk-emca")], services },
    solo: { key_sha256: [keyDigest("sk-solo")], services: ["own"] },
  },
});

beforeAll(async () => {
  [a, b] = await Promise.all([Host.start("A"), Host.start("B")]);
});
beforeEach(() => {
  for (const host of [a, b]) host.asked.length = 0;
});
afterAll(stopAll);

/** Rules with two hosts of equal rank in one region. The service `own` uses another account, of a single tenant. */
function document(service: Json = {}, keys = true): Json {
  const endpoints = { "fra-1": { url: `${a.url}/v1` }, "fra-2": { url: `${b.url}/v1` } };
  const own = { "par-1": { url: `${b.url}/own/v1`, secret: "OWN_KEY" } };
  const regions = { fra: { countries: ["DE"], endpoints }, par: { countries: ["FR"], endpoints: own } };
  const made = rules(1, regions, { regions: ["fra"], ...service }, keys ? tenants(["chat"]) : {});
  if (keys) made.services.own = { ...made.services.chat, hosts: ["own.example"], regions: ["par"] };
  return made;
}

const respond = (edge: Edge, json: Json, more: Ask = {}) =>
  edge.ask({ path: "/v1/responses", headers: key("acme"), json: { model: "o", ...json }, ...more }).then(read);
const user = (content: string) => ({ role: "user", content });
const inputs = () => [...a.asked, ...b.asked].map((one) => one.json.input);

describe("where answers are stored", () => {
  let edge: Edge;
  beforeAll(async () => {
    edge = await Edge.start(document({ allow: ["store", "hosted_tools"] }), { STATE_KEY }, { cf: { country: "DE" } });
  });

  test("items go to the host that stores them, with its own ids, in every form that a client may send", async () => {
    const used = new Set<string | null>();
    for (let i = 0; i < 12; i += 1) {
      const one = await respond(edge, { input: [user(`q${i}`)] });
      used.add(one.endpoint);
      const [reasoning, image, message] = one.json.output;
      for (const item of one.json.output) expect(item.id).toMatch(/^(rs|ig|msg)_bw1/);
      const whole = await respond(edge, { input: [user("other"), reasoning, image, message, user("more")] });
      expect([whole.status, whole.endpoint]).toEqual([200, one.endpoint]);
      const referred = await respond(edge, {
        input: [{ type: "item_reference", id: reasoning.id }, { id: message.id }, user("more")],
      });
      expect([referred.status, referred.endpoint]).toEqual([200, one.endpoint]);
      const sent = inputs().at(-1)!;
      expect([...a.stored.keys(), ...b.stored.keys()]).toEqual(expect.arrayContaining([sent[0].id, sent[1].id]));
    }
    expect([...used].sort()).toEqual(["fra-1", "fra-2"]);
  });

  test("items of another tenant count as missing, by sealed and raw ids", async () => {
    const secret = await respond(edge, { input: [user("CANARY")] });
    const [reasoning, image, message] = secret.json.output;
    const raw = [...a.stored]
      .concat([...b.stored])
      .filter(([, text]) => text.includes("CANARY"))
      .map(([id]) => id);
    expect(raw).toHaveLength(4);
    for (const host of [a, b]) host.asked.length = 0;
    const theft = (item: Json) => respond(edge, { input: [user("x"), item] }, { headers: key("emca") });
    const bare = [
      reasoning,
      image,
      message,
      { type: "item_reference", id: reasoning.id },
      { type: "item_reference", id: raw[0] },
      { id: raw[1] },
      { type: "reasoning", id: raw[0], summary: [] },
      { type: "image_generation_call", id: raw[1] },
    ];
    for (const item of bare) expect(await theft(item)).toMatchObject({ status: 404, code: "not_found" });
    expect([...a.asked, ...b.asked]).toEqual([]);
    // An item with all its content passes, but its id no longer refers to the stored item.
    const whole = [
      { type: "message", role: "assistant", id: raw[3], content: "c" },
      { type: "function_call", id: raw[2], call_id: "call_1", name: "f", arguments: "{}" },
      { type: "image_generation_call", ID: raw[1], result: "AAAA" },
      { type: "mcp_approval_response", approval_request_id: raw[0], approve: true },
    ];
    for (const item of whole) {
      const reply = await theft(item);
      expect(reply.status).toBe(200);
      expect(reply.text).not.toContain("CANARY");
    }
    expect((await theft({ type: "reasoning", id: raw[0], summary: [], encrypted_content: "A-x" })).text).not.toContain(
      "CANARY",
    );
    const sent = JSON.stringify(inputs());
    for (const id of raw) expect(sent).not.toContain(id);
    expect(sent).toContain("call_1");
  });

  test("an item that only its host can read decides the host, and such items of two hosts are refused", async () => {
    const made = new Map<string | null, Json[]>();
    for (let i = 0; made.size < 2; i += 1) {
      const { endpoint, json } = await respond(edge, { input: [user(`two ${i}`)] });
      made.set(endpoint, json.output);
    }
    const [[first, one], [, other]] = made;
    expect(await respond(edge, { input: [user("x"), one[0], other[2]] })).toMatchObject({
      status: 200,
      endpoint: first,
    });
    expect(await respond(edge, { input: [user("x"), one[0], other[0]] })).toMatchObject({
      status: 400,
      code: "ids_apart",
    });
  });

  test("the id of an item that wasn't stored may be sent again", async () => {
    const one = await respond(edge, { store: false, include: ["reasoning.encrypted_content"], input: [user("q")] });
    expect(one.json.output[0].id).toMatch(/^rs_[AB]/);
    const [reasoning, , message] = one.json.output;
    const two = await respond(edge, { store: false, input: [user("q"), reasoning, message, user("more")] });
    expect([two.status, two.endpoint]).toEqual([200, one.endpoint]);
    const [, sent, sentMessage] = inputs().at(-1)!;
    expect(sent).toEqual({ type: "reasoning", summary: [], encrypted_content: reasoning.encrypted_content });
    expect(sentMessage.id).toMatch(/^msg_[0-9a-f]{48}$/);
  });

  test.each([false, true])("the official client calls a tool over two turns (stream: %s)", async (stream) => {
    const { port } = await edge.miniflare.ready;
    const client = new OpenAI({ apiKey: "sk-acme", baseURL: `http://localhost:${port}/v1`, maxRetries: 0 });
    const tools = [{ type: "function" as const, name: "weather", parameters: {}, strict: false }];
    const ask = async (input: any) => {
      const body = { model: "o", tools, input };
      if (!stream) return client.responses.create(body);
      const ids = new Set<string>();
      const run = client.responses.stream(body);
      for await (const event of run as AsyncIterable<any>)
        for (const id of [event.item_id, event.item?.id, event.response?.id]) if (id) ids.add(id);
      const final = await run.finalResponse();
      expect([...ids].sort()).toEqual([final.id, ...final.output.map((item: any) => item.id)].sort());
      return final;
    };
    const input: any[] = [user("What is the weather?")];
    const one = await ask(input);
    for (const item of one.output) expect(item.id).toMatch(/^(rs|ig|fc)_bw1/);
    const call: any = one.output.at(-1);
    expect(call.call_id).toMatch(/^call_\d+$/);
    input.push(...one.output, { type: "function_call_output", call_id: call.call_id, output: "sunny" });
    const two = await ask(input);
    expect(two.output_text).toMatch(/seen: rs_/);
    const three = await client.responses.create({
      model: "o",
      previous_response_id: two.id,
      input: [{ type: "item_reference", id: two.output[0].id! }],
    });
    expect(three.status).toBe("completed");
    expect(
      await client.responses
        .create({ model: "o", input: [{ type: "item_reference", id: "rs_A1" }] })
        .catch((error) => error.status),
    ).toBe(404);
  });
});

describe("where nothing is stored", () => {
  test("a reference to an item is refused without a retry, and the error says what to do instead", async () => {
    const edge = await Edge.start(document({}, false), {}, { cf: { country: "DE" } });
    const { port } = await edge.miniflare.ready;
    const client = new OpenAI({ apiKey: "x", baseURL: `http://localhost:${port}/v1` });
    for (const item of [{ type: "item_reference", id: "rs_1" }, { id: "rs_1" }]) {
      const error = await client.responses
        .create({ model: "o", input: [user("q"), item] as any })
        .catch((error) => error);
      expect(error).toMatchObject({ status: 400, code: "item_reference_not_allowed", param: "input" });
      expect(error.message).toContain("reasoning.encrypted_content");
    }
    expect([...a.asked, ...b.asked]).toEqual([]);
    await edge.stop();
  });

  test("items pass unchanged without a STATE_KEY", async () => {
    const edge = await Edge.start(document({}, false));
    const items = [
      user("q"),
      { type: "reasoning", id: "rs_x", summary: [], encrypted_content: "" },
      { type: "message", role: "assistant", id: "msg_x", content: "c" },
    ];
    a.stored.set("rs_x", "x");
    b.stored.set("rs_x", "x");
    expect((await respond(edge, { input: items }, { headers: {} })).status).toBe(200);
    expect(inputs()).toEqual([items]);
    await edge.stop();
  });

  test("items that another service stores in the same account can't be referred to", async () => {
    const shared = document();
    shared.services.stores = { ...shared.services.chat, hosts: ["stores.example"], allow: ["store"] };
    shared.tenants.acme.services = ["stores"];
    const edge = await Edge.start(shared, { STATE_KEY });
    await respond(edge, { input: [user("CANARY")] }, { host: "stores.example" });
    const raw = [...a.stored, ...b.stored].filter(([, text]) => text.includes("CANARY")).map(([id]) => id);
    const theft = (item: Json) => respond(edge, { input: [item] }, { headers: key("emca") });
    expect(await theft({ type: "image_generation_call", id: raw[1] })).toMatchObject({
      status: 404,
      code: "not_found",
    });
    const reply = await theft({ type: "message", role: "assistant", id: raw.at(-1), content: "c" });
    expect([reply.status, reply.text.includes("CANARY")]).toEqual([200, false]);
    await edge.stop();
  });

  test("the second turn goes to the endpoint of the first, which can read its reasoning", async () => {
    const edge = await Edge.start(document({}, false));
    const used = new Set<string | null>();
    for (let i = 0; i < 20; i += 1) {
      const ask = { store: false, include: ["reasoning.encrypted_content"], instructions: "Be kind." };
      const one = await respond(edge, { ...ask, input: `q${i}` }, { headers: {} });
      const two = await respond(
        edge,
        { ...ask, input: [user(`q${i}`), one.json.output[0], user("more")] },
        { headers: {} },
      );
      expect([two.status, two.endpoint]).toEqual([200, one.endpoint]);
      used.add(one.endpoint);
    }
    expect(used.size).toBe(2);
    await edge.stop();
  });
});

describe("models fine-tuned with a tenant's data", () => {
  let edge: Edge;
  beforeAll(async () => {
    edge = await Edge.start(document(), { STATE_KEY, OWN_KEY: "k" });
  });
  const get = (path: string, name = "acme", more: Ask = {}) =>
    edge.ask({ path, headers: key(name), ...more }).then(read);
  const chat = (model: string, name = "acme", more: Ask = {}) =>
    edge.ask({ headers: key(name), json: { model, messages: [user("hi")] }, ...more }).then(read);

  test("are neither listed nor usable by their raw names if tenants share the account", async () => {
    for (const name of ["acme", "emca"]) {
      expect((await get("/v1/models", name)).json.data.map((model: Json) => model.id)).toEqual(["gpt-4o"]);
      for (const model of [tuned, tuned.toUpperCase(), "gpt-4o.ft-0123"]) {
        expect(await chat(model, name)).toMatchObject({ status: 404, code: "model_not_found" });
        expect(await get(`/v1/models/${model}`, name)).toMatchObject({ status: 404, code: "model_not_found" });
      }
    }
    expect([...a.asked, ...b.asked].filter((one) => one.path !== "/models")).toEqual([]);
  });

  test("have a sealed name, which only their tenant can use, at the endpoint where they were made", async () => {
    const job = await edge
      .ask({ path: "/v1/fine_tuning/jobs", headers: key("acme"), json: { model: "gpt-4o", training_file: null } })
      .then(read);
    const model = job.json.fine_tuned_model;
    expect(model).toMatch(/^ft:gpt-4o-2024-08-06:bw1/);
    const path = `/v1/fine_tuning/jobs/${job.json.id}`;
    expect((await get(`${path}/events`)).json.data[0].message).toBe(`New fine-tuned model created: ${model}`);
    const [checkpoint] = (await get(`${path}/checkpoints`)).json.data;
    expect(checkpoint.fine_tuned_model_checkpoint).toMatch(/^ft:gpt-4o-2024-08-06:bw1/);
    for (let i = 0; i < 8; i += 1) {
      const reply = await edge.ask({ headers: key("acme"), json: { model, messages: [user(`hi ${i}`)] } }).then(read);
      expect(reply).toMatchObject({ status: 200, endpoint: job.endpoint, json: { model } });
    }
    const host = job.endpoint === "fra-1" ? a : b;
    expect(host.asked.at(-1)!.json.model).toBe(tuned);
    expect((await chat(checkpoint.fine_tuned_model_checkpoint)).endpoint).toBe(job.endpoint);
    expect(await get(`/v1/models/${model}`)).toMatchObject({
      status: 200,
      endpoint: job.endpoint,
      json: { id: model },
    });
    for (const host of [a, b]) host.asked.length = 0;
    for (const path of [`/v1/models/${model}`, `/v1/models/${tuned}`]) {
      expect(await edge.ask({ path, method: "DELETE", headers: key("emca") }).then(read)).toMatchObject({
        status: 404,
        code: "model_not_found",
      });
    }
    expect(await chat(model, "emca")).toMatchObject({ status: 404, code: "model_not_found" });
    expect(await chat(`${model}A`)).toMatchObject({ status: 404, code: "model_not_found" });
    expect([...a.asked, ...b.asked]).toEqual([]);
    const gone = await edge.ask({ path: `/v1/models/${model}`, method: "DELETE", headers: key("acme") }).then(read);
    expect(gone).toMatchObject({ status: 200, json: { id: model, deleted: true } });
    expect(host.asked).toMatchObject([{ method: "DELETE", path: `/models/${tuned}` }]);
  });

  test("are listed and usable by their raw names if the account belongs to one tenant alone", async () => {
    const french = { host: "own.example", cf: { country: "FR" } };
    expect((await get("/v1/models", "solo", french)).json.data).toHaveLength(3);
    expect(await chat(tuned, "solo", french)).toMatchObject({ status: 200, endpoint: "par-1", json: { model: tuned } });
  });

  test("are usable by their names in the operator's map", async () => {
    const mapped = document();
    for (const endpoint of Object.values<Json>(mapped.regions.fra.endpoints))
      endpoint.models = { plans: tuned, [tuned]: tuned };
    const closed = await Edge.start(mapped, { STATE_KEY, OWN_KEY: "k" });
    for (const model of ["plans", tuned]) {
      const reply = await closed.ask({ headers: key("emca"), json: { model, messages: [] } }).then(read);
      expect(reply).toMatchObject({ status: 200, json: { model } });
    }
    await closed.stop();
  });
});
