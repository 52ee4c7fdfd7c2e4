// Objects that a host stores for a while under an id: the audio of an answer, and the container that ran code. Requests
// that refer to one reach the endpoint where it was made, and only its own tenant can refer to it.
import { afterAll, beforeAll, expect, test } from "vitest";
import { Edge, type Json, keyDigest, read, region, rules, serve, stopAll } from "./harness.js";

let edge: Edge, keyless: Edge;
/** The bodies that the endpoint received. */
const sent: Json[] = [];

const chunk = (delta: Json) => {
  const choices = [{ index: 0, delta, finish_reason: null }];
  return `data: ${JSON.stringify({ id: "c", object: "chat.completion.chunk", model: "m", choices })}\n\n`;
};

beforeAll(async () => {
  const url = await serve((request, response) => {
    let text = "";
    request.on("data", (piece) => (text += piece));
    request.on("end", () => {
      const body = JSON.parse(text);
      sent.push(body);
      if (body.stream) {
        response.writeHead(200, { "content-type": "text/event-stream" });
        return void response.end(
          `${chunk({ role: "assistant", audio: { id: "audio_raw", transcript: "hi" } })}data: [DONE]\n\n`,
        );
      }
      const answer = request.url!.endsWith("responses")
        ? {
            id: "resp_raw",
            object: "response",
            status: "completed",
            model: "m",
            tools: body.tools,
            output: [
              { type: "code_interpreter_call", id: "ci_raw", container_id: "cntr_raw", code: "1", status: "completed" },
            ],
          }
        : {
            id: "c",
            object: "chat.completion",
            model: "m",
            choices: [
              {
                index: 0,
                finish_reason: "stop",
                message: {
                  role: "assistant",
                  content: null,
                  audio: { id: "audio_raw", data: "AAAA", transcript: "hi", expires_at: 1 },
                },
              },
            ],
          };
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(answer));
    });
  });
  const document = rules(
    1,
    region("DE", "eu", [url]),
    { regions: ["eu"], allow: ["hosted_tools"] },
    {
      tenants: Object.fromEntries(
        ["acme", "emca"].map((name) => [name, { key_sha256: [keyDigest(`sk-${name}`)], services: ["chat"] }]),
      ),
    },
  );
  edge = await Edge.start(document, { STATE_KEY: "k".repeat(40) });
  keyless = await Edge.start(document);
});
afterAll(stopAll);

async function ask(path: string, json: Json, { at = edge, tenant = "acme" } = {}) {
  sent.length = 0;
  return {
    ...(await read(await at.ask({ path, json, headers: { authorization: `Bearer sk-${tenant}` } }))),
    sent: sent[0],
  };
}
const said = (audio?: Json, more: Json = {}) => ({
  model: "m",
  modalities: ["text", "audio"],
  audio: { voice: "alloy", format: "wav" },
  messages: [{ role: "user", content: "hi" }, ...(audio ? [{ role: "assistant", audio }] : [])],
  ...more,
});

test("only its own tenant can refer to the audio of an answer", async () => {
  const first = await ask("/v1/chat/completions", said());
  const { id } = first.json.choices[0].message.audio;
  expect(id).toMatch(/^audio_bw1/);
  const second = await ask("/v1/chat/completions", said({ id }));
  expect(second).toMatchObject({ status: 200, sent: { messages: [{}, { audio: { id: "audio_raw" } }] } });
  for (const [audio, tenant] of [
    [{ id }, "emca"],
    [{ id: "audio_raw" }, "acme"],
    [{ ID: "audio_raw" }, "acme"],
  ] as const) {
    expect(await ask("/v1/chat/completions", said(audio), { tenant })).toMatchObject({
      status: 404,
      code: "not_found",
      sent: undefined,
    });
  }
});

test("only its own tenant can refer to the audio of a streamed answer", async () => {
  const { text } = await ask("/v1/chat/completions", said(undefined, { stream: true }));
  expect(text).toMatch(/"audio":\{"id":"audio_bw1/);
  expect(text).not.toContain("audio_raw");
});

test("without a STATE_KEY there is an answer, but its audio can't be referred to", async () => {
  expect(await ask("/v1/chat/completions", said(), { at: keyless })).toMatchObject({ status: 200 });
  expect(await ask("/v1/chat/completions", said({ id: "audio_raw" }), { at: keyless })).toMatchObject({
    status: 503,
    code: "no_state_key",
    sent: undefined,
  });
});

const running = (container: unknown, input: unknown = "1+1") => ({
  model: "m",
  store: false,
  input,
  tools: [{ type: "code_interpreter", container }],
});

test("only its own tenant can use a container again", async () => {
  const first = await ask("/v1/responses", running({ type: "auto" }));
  expect(first).toMatchObject({ status: 200, sent: { tools: [{ container: { type: "auto" } }] } });
  const { container_id: id } = first.json.output[0];
  expect(id).toMatch(/^cntr_bw1/);
  const second = await ask("/v1/responses", running(id));
  expect(second).toMatchObject({ status: 200, sent: { tools: [{ container: "cntr_raw" }] } });
  expect(second.text).not.toContain("cntr_raw");
  const call = (container_id: string) =>
    running({ type: "auto" }, [
      { type: "code_interpreter_call", id: "ci_x", code: "1", status: "completed", container_id },
    ]);
  expect(await ask("/v1/responses", call(id))).toMatchObject({
    status: 200,
    sent: { input: [{ container_id: "cntr_raw" }] },
  });
  for (const [body, tenant] of [
    [running(id), "emca"],
    [running("cntr_raw"), "acme"],
    [call(id), "emca"],
    [call("cntr_raw"), "acme"],
  ] as const) {
    expect(await ask("/v1/responses", body, { tenant })).toMatchObject({
      status: 404,
      code: "not_found",
      sent: undefined,
    });
  }
});
