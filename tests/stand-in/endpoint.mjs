#!/usr/bin/env node
// A stand-in for a regional model endpoint: it speaks the shape of the OpenAI API, generates nothing, and says which
// region it stands for. The demo and the tests start it, make it fail on demand, and read what it was sent.

import { fstatSync } from "node:fs";
import { createServer } from "node:http";
import { parseArgs } from "node:util";
import { formOf, stateOf } from "./state.mjs";

const HELP = `usage: endpoint.mjs [options]

A stand-in model endpoint, for demos and tests: no model behind it.

  --region NAME       what its answers name (default: nowhere)
  --country CODE      named behind the region, as in "Hello from eu-frankfurt (DE)"
  --models A,B        what /v1/models lists (default: stand-in)
  --secret VALUE      demand this credential, as "Authorization: Bearer" or "api-key"
  --host ADDRESS      (default: 127.0.0.1)
  --port PORT         0 takes a free one (default: 0)
  --pace MS           wait between the events of a stream (default: 0)
  --exit-with-parent  end when the parent process does, or when stdin (a pipe) closes

Once it listens it prints one line of JSON: {"message":"listening on http://127.0.0.1:PORT","url":…,"region":…,"pid":…}

Serves GET /health, GET /metrics, GET /v1/models, and POST /v1/chat/completions, /v1/completions, /v1/embeddings,
/v1/responses and a form to /v1/audio/transcriptions (also below /openai/deployments/NAME, as Azure has them). It
remembers /v1/files, /v1/uploads, /v1/batches, /v1/fine_tuning/jobs, /v1/vector_stores, and /v1/responses/ID and
/v1/chat/completions/ID where they were stored.

Control:
  GET    /_stand-in/           region, health, failure, connections, how many requests, how many of them open
  PUT    /_stand-in/health     {"status":"up"} or {"status":"down"}
  PUT    /_stand-in/engine     {"running":N, "waiting":N, "kv":X}: what GET /metrics tells, as vLLM would
  PUT    /_stand-in/failure    {"mode":…, "times":N, …}; without times: until DELETE. Or a list, of which the first fits
  DELETE /_stand-in/failure
  GET    /_stand-in/requests   every request to the API: method, path, headers, body. Health probes are only counted
  DELETE /_stand-in/requests   forget them, and the counts

Failure modes:
  status         answer "status" with "headers" and "body" (default: an error in OpenAI's envelope)
  redirect       307 (or "status") to "location"
  wrong-type     200 with an HTML page
  empty          200, the right content type, no body
  error-event    200, then an error where the answer should be
  reset-headers  reset the connection instead of answering
  reset          reset it after "after" content events (default 1; 0: after the role). Unary: half the JSON
  end            end cleanly there, without the terminal event
  hang-headers   accept the request and say nothing
  hang           fall silent after "after" content events
  slow           wait "delay_ms" (default 1000) before the headers and before each event
Each may carry "path": only requests whose path starts so fail; "model": only requests for that model; "every": only
one in so many of them.
`;

const MODES = new Set([
  "status",
  "redirect",
  "wrong-type",
  "empty",
  "error-event",
  "reset-headers",
  "reset",
  "end",
  "hang-headers",
  "hang",
  "slow",
]);
const BODY_RECORDED = 1 << 20;

const { values: options } = parseArgs({
  options: {
    region: { type: "string", default: "nowhere" },
    country: { type: "string" },
    models: { type: "string", default: "stand-in" },
    secret: { type: "string" },
    host: { type: "string", default: "127.0.0.1" },
    port: { type: "string", default: "0" },
    pace: { type: "string", default: "0" },
    "exit-with-parent": { type: "boolean", default: false },
    help: { type: "boolean", short: "h", default: false },
  },
});
if (options.help) {
  process.stdout.write(HELP);
  process.exit(0);
}

const greeting = `Hello from ${options.region}${options.country ? ` (${options.country})` : ""}`;

/** A failure as a test asked for it (see `checkedFailure`).
 * @typedef {{
 *   mode: string, times?: number, path?: string, status?: number, headers?: Record<string, string>,
 *   body?: string | object, location?: string, after?: number, delay_ms?: number, model?: string, every?: number,
 *   seen?: number,
 * }} Failure
 */
/** @typedef {{ method: string, path: string, headers: object, body: string, body_bytes: number }} Recorded */

const state = {
  healthy: true,
  engine: { running: 0, waiting: 0, kv: 0 },
  failures: /** @type {Failure[]} */ ([]),
  requests: /** @type {Recorded[]} */ ([]),
  count: 0,
  open: 0,
  probes: 0,
  connections: noConnections(),
  counting: {},
};

const memory = stateOf(options.region, envelope);

/** Connections by what their first request was for; `silent` ones have sent none yet. */
function noConnections() {
  return { model: 0, health: 0, control: 0, silent: 0 };
}

const server = createServer((request, response) => {
  answer(request, response).catch((error) => {
    // The peer went away, or the request was no HTTP worth an answer: a stand-in must outlive both.
    if (!response.headersSent && !response.destroyed)
      json(response, 400, envelope("invalid_request_error", error.message));
    else response.destroy();
  });
});
// Hanging on purpose is one of its failure modes; the server's own limits would end it.
server.requestTimeout = 0;
server.headersTimeout = 0;

server.on("connection", (socket) => {
  socket.on("error", () => {});
  Object.assign(socket, { kind: "silent", counting: state.counting });
  state.connections.silent += 1;
});

server.listen(Number(options.port), options.host, () => {
  const { address, port, family } = /** @type {import("node:net").AddressInfo} */ (server.address());
  const url = `http://${family === "IPv6" ? `[${address}]` : address}:${port}`;
  console.log(JSON.stringify({ message: `listening on ${url}`, url, region: options.region, pid: process.pid }));
});
server.on("error", (error) => {
  console.error(`stand-in ${options.region}: cannot listen on ${options.host}:${options.port}: ${error.message}`);
  process.exit(1);
});

for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(0));
if (options["exit-with-parent"]) {
  const parent = process.ppid;
  setInterval(() => process.ppid === parent || process.exit(0), 500);
  // In a script's background, stdin is /dev/null and "closed" from the start: only a pipe tells of a parent.
  const stdin = fstatSync(0);
  if (stdin.isFIFO() || stdin.isSocket())
    process.stdin
      .on("close", () => process.exit(0))
      .on("end", () => process.exit(0))
      .resume();
}

async function answer(request, response) {
  const url = new URL(request.url, "http://stand-in");
  const looks = ["/health", "/metrics"].includes(url.pathname);
  const kind = url.pathname.startsWith("/_stand-in/") ? "control" : looks ? "health" : "model";
  // A kept-alive connection from before the counts were forgotten is counted again when it is used again.
  const { socket } = request;
  if (socket.kind === "silent" || socket.counting !== state.counting) {
    if (socket.kind === "silent" && socket.counting === state.counting) state.connections.silent -= 1;
    state.connections[kind] += 1;
    Object.assign(socket, { kind, counting: state.counting });
  }
  const body = await readBody(request);
  if (kind === "control") return control(request.method, url.pathname.slice("/_stand-in/".length), body, response);
  if (url.pathname === "/metrics") return void response.end(enginePage());
  if (kind === "health") {
    state.probes += 1;
    return json(response, state.healthy ? 200 : 503, { status: state.healthy ? "ok" : "down", region: options.region });
  }
  state.count += 1;
  state.open += 1;
  response.on("close", () => (state.open -= 1));
  state.requests.push({
    method: request.method,
    path: request.url,
    headers: request.headers,
    body: body.subarray(0, BODY_RECORDED).toString("utf8"),
    body_bytes: body.length,
  });

  const failure = takeFailure(url.pathname, body);
  if (failure && (await failBeforeAnswer(failure, request, response))) return;
  if (options.secret !== undefined && !authorised(request.headers)) {
    return json(
      response,
      401,
      envelope("invalid_request_error", "the stand-in was not sent its credential", "invalid_api_key"),
    );
  }
  await api(request, url, body, response, failure);
}

/** The gauges of an engine, as vLLM writes them. */
function enginePage() {
  const gauges = {
    num_requests_running: state.engine.running,
    num_requests_waiting: state.engine.waiting,
    kv_cache_usage_perc: state.engine.kv,
  };
  const lines = Object.entries(gauges).map(
    ([name, value]) => `# TYPE vllm:${name} gauge\nvllm:${name}{engine="0",model_name="stand-in"} ${value}\n`,
  );
  return lines.join("");
}

async function readBody(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function authorised(headers) {
  return headers.authorization === `Bearer ${options.secret}` || headers["api-key"] === options.secret;
}

// --- The API --------------------------------------------------------------------------------------------------------

async function api({ method, headers }, { pathname: path, searchParams }, body, response, failure) {
  const name = path.replace(/^\/openai(\/deployments\/[^/]+)?/, "/v1");
  if (method === "GET" && name === "/v1/models") {
    const data = options.models.split(",").map((id) => ({ id, object: "model", created: 0, owned_by: options.region }));
    return send(response, failure, { object: "list", data });
  }
  const kept = memory.answer(method, name, searchParams, headers, body);
  if (kept?.bytes) return void response.writeHead(200, { "content-type": kept.type }).end(kept.bytes);
  if (kept && kept.status !== 200) return json(response, kept.status, kept.json);
  if (kept) return send(response, failure, kept.json);
  if (method === "POST" && name === "/v1/audio/transcriptions") {
    const form = formOf(headers["content-type"] ?? "", body);
    return send(response, failure, {
      text: greeting,
      model: form.get("model")?.bytes.toString(),
      bytes: form.get("file")?.bytes.length,
    });
  }
  const maker = method === "POST" ? makers[name] : undefined;
  if (!maker) return json(response, 404, envelope("invalid_request_error", `the stand-in has no ${method} ${path}`));
  let ask;
  try {
    ask = JSON.parse(body.toString("utf8"));
  } catch (error) {
    return json(
      response,
      400,
      envelope("invalid_request_error", `the body is not JSON: ${/** @type {Error} */ (error).message}`),
    );
  }
  const lost = memory.lost(ask ?? {});
  if (lost) return json(response, lost.status, lost.json);
  const made = maker(ask ?? {}, `stand-in-${options.region}-${state.count}`, Math.floor(Date.now() / 1000));
  memory.keepAnswer(ask ?? {}, made.whole);
  if (ask?.stream === true && made.events) return stream(response, failure, made.events);
  return send(response, failure, made.whole);
}

/** What the text is made of, so that a stream has more than one content event. */
function pieces() {
  return greeting.split(/(?<= )/);
}

/**
 * An event of a stream: its name, its data, and whether the text of the answer is in it.
 * @typedef {{ event?: string, data: object | string, content?: boolean }} Event
 */

const makers = {
  "/v1/chat/completions"(ask, id, created) {
    const base = { id: `chatcmpl-${id}`, created, model: ask.model ?? "stand-in" };
    const usage = { prompt_tokens: 1, completion_tokens: pieces().length, total_tokens: 1 + pieces().length };
    /** @type {(delta: object, finish_reason?: string | null) => Event} */
    const chunk = (delta, finish_reason = null) => ({
      data: { ...base, object: "chat.completion.chunk", choices: [{ index: 0, delta, logprobs: null, finish_reason }] },
    });
    const events = [
      chunk({ role: "assistant", content: "" }),
      ...pieces().map((content) => ({ ...chunk({ content }), content: true })),
      chunk({}, "stop"),
    ];
    if (ask.stream_options?.include_usage)
      events.push({ data: { ...base, object: "chat.completion.chunk", choices: [], usage } });
    events.push({ data: "[DONE]" });
    const message = { role: "assistant", content: greeting, refusal: null };
    const whole = {
      ...base,
      object: "chat.completion",
      choices: [{ index: 0, message, logprobs: null, finish_reason: "stop" }],
      usage,
    };
    return { whole, events };
  },

  "/v1/completions"(ask, id, created) {
    const base = { id: `cmpl-${id}`, object: "text_completion", created, model: ask.model ?? "stand-in" };
    const choice = (text, finish_reason) => ({ ...base, choices: [{ index: 0, text, logprobs: null, finish_reason }] });
    const usage = { prompt_tokens: 1, completion_tokens: pieces().length, total_tokens: 1 + pieces().length };
    const events = [
      ...pieces().map((text) => ({ data: choice(text, null), content: true })),
      { data: choice("", "stop") },
      { data: "[DONE]" },
    ];
    return { whole: { ...choice(greeting, "stop"), usage }, events };
  },

  "/v1/embeddings"(ask) {
    const inputs = Array.isArray(ask.input) ? ask.input : [ask.input];
    const vector = [0.25, -0.5, 0.125];
    // The official client asks for base64 of little-endian floats unless told otherwise.
    const embedding =
      ask.encoding_format === "base64" ? Buffer.from(Float32Array.from(vector).buffer).toString("base64") : vector;
    const data = inputs.map((_, index) => ({ object: "embedding", index, embedding }));
    return {
      whole: { object: "list", data, model: ask.model ?? "stand-in", usage: { prompt_tokens: 1, total_tokens: 1 } },
    };
  },

  "/v1/responses"(ask, id, created_at) {
    const item_id = `msg_${id}`;
    const message = (status, content) => ({ id: item_id, type: "message", status, role: "assistant", content });
    const part = { type: "output_text", text: greeting, annotations: [] };
    const whole = (status, output) => ({
      id: `resp_${id}`,
      object: "response",
      previous_response_id: ask.previous_response_id ?? null,
      created_at,
      status,
      model: ask.model ?? "stand-in",
      output,
      error: null,
      incomplete_details: null,
      instructions: null,
      metadata: {},
      parallel_tool_calls: true,
      store: ask.store ?? true,
      temperature: 1,
      tool_choice: "auto",
      tools: [],
      top_p: 1,
      usage:
        status === "completed"
          ? { input_tokens: 1, output_tokens: pieces().length, total_tokens: 1 + pieces().length }
          : null,
    });
    const at = { item_id, output_index: 0, content_index: 0 };
    const events = [
      { type: "response.created", response: whole("in_progress", []) },
      { type: "response.in_progress", response: whole("in_progress", []) },
      { type: "response.output_item.added", output_index: 0, item: message("in_progress", []) },
      { type: "response.content_part.added", ...at, part: { ...part, text: "" } },
      ...pieces().map((delta) => ({ type: "response.output_text.delta", ...at, delta })),
      { type: "response.output_text.done", ...at, text: greeting },
      { type: "response.content_part.done", ...at, part },
      { type: "response.output_item.done", output_index: 0, item: message("completed", [part]) },
      { type: "response.completed", response: whole("completed", [message("completed", [part])]) },
    ].map((data, sequence_number) => ({
      event: data.type,
      data: { ...data, sequence_number },
      content: data.type === "response.output_text.delta",
    }));
    return { whole: whole("completed", [message("completed", [part])]), events };
  },
};

// --- Sending, and failing on the way --------------------------------------------------------------------------------

async function send(response, failure, value) {
  const text = JSON.stringify(value);
  const half = text.slice(0, text.length / 2);
  response.writeHead(200, { "content-type": "application/json", "x-stand-in-region": options.region });
  switch (failure?.mode) {
    case "empty":
      return response.end();
    case "error-event":
      return response.end(JSON.stringify(envelope("server_error", "the stand-in fails on purpose")));
    case "end":
      return response.end(half);
    case "hang":
      return void response.write(half);
    case "reset":
      return response.write(half, () => response.socket?.resetAndDestroy());
    default:
      return response.end(text);
  }
}

async function stream(response, failure, events) {
  const pace = failure?.mode === "slow" ? failure.delay_ms : Number(options.pace);
  const breaks = ["reset", "end", "hang"].includes(failure?.mode);
  response.writeHead(200, {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-stand-in-region": options.region,
  });
  if (failure?.mode === "empty") return response.end();
  response.flushHeaders();
  if (failure?.mode === "error-event") {
    return response.end(eventText({ data: envelope("server_error", "the stand-in fails on purpose") }));
  }
  let left = failure?.after ?? 1;
  for (const [index, event] of events.entries()) {
    const comesToIt = breaks && (event.content ? left-- <= 0 : index === events.length - 1);
    if (comesToIt) {
      if (failure.mode === "end") response.end();
      // A reset throws away what is still in the socket's queue: let it go out first.
      if (failure.mode === "reset")
        response.write(": cut\n\n", () => setTimeout(() => response.socket?.resetAndDestroy(), 20));
      return;
    }
    if (pace > 0) await pause(pace);
    if (response.destroyed) return;
    // One write per event and a turn of the loop between, so that they tend to arrive one by one.
    await new Promise((written) => response.write(eventText(event), () => setImmediate(written)));
  }
  response.end();
}

/** @param {Event} event */
function eventText({ event, data }) {
  return `${event ? `event: ${event}\n` : ""}data: ${typeof data === "string" ? data : JSON.stringify(data)}\n\n`;
}

/** The failures that need no answer to spoil. True: the request has had its reply, or will never get one. */
async function failBeforeAnswer(failure, request, response) {
  switch (failure.mode) {
    case "status": {
      const body = failure.body ?? envelope("server_error", `the stand-in answers ${failure.status} on purpose`);
      const text = typeof body === "string" ? body : JSON.stringify(body);
      response.writeHead(failure.status, { "content-type": "application/json", ...failure.headers }).end(text);
      return true;
    }
    case "redirect":
      response.writeHead(failure.status ?? 307, { location: failure.location, ...failure.headers }).end();
      return true;
    case "wrong-type":
      response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><title>Please log in</title>");
      return true;
    case "reset-headers":
      request.socket.resetAndDestroy();
      return true;
    case "hang-headers":
      return true;
    case "slow":
      await pause(failure.delay_ms);
      return false;
    default:
      return false;
  }
}

function pause(ms) {
  return new Promise((over) => setTimeout(over, ms));
}

// --- Control --------------------------------------------------------------------------------------------------------

/** The failure of a request, if it is to fail. */
function takeFailure(path, body) {
  const isOf = (/** @type {string} */ model) => {
    try {
      return JSON.parse(body.toString("utf8")).model === model;
    } catch {
      return false;
    }
  };
  for (const failure of state.failures) {
    if (!path.startsWith(failure.path ?? "/") || (failure.model !== undefined && !isOf(failure.model))) continue;
    failure.seen = (failure.seen ?? 0) + 1;
    if (failure.seen % (failure.every ?? 1) !== 0) continue;
    if (failure.times !== undefined && --failure.times <= 0) {
      state.failures = state.failures.filter((one) => one !== failure);
    }
    return failure;
  }
  return null;
}

function control(method, name, body, response) {
  switch (`${method} ${name}`) {
    case "GET ":
      return json(response, 200, {
        region: options.region,
        country: options.country ?? null,
        health: state.healthy ? "up" : "down",
        failure: state.failures[0] ?? null,
        connections: state.connections,
        requests: state.requests.length,
        open: state.open,
        health_checks: state.probes,
      });
    case "PUT health": {
      const { status } = JSON.parse(body.toString());
      if (status !== "up" && status !== "down") throw new Error('"status" must be "up" or "down"');
      state.healthy = status === "up";
      return json(response, 200, { health: status });
    }
    case "PUT engine":
      state.engine = { ...state.engine, ...JSON.parse(body.toString()) };
      return json(response, 200, { engine: state.engine });
    case "PUT failure":
      state.failures = [JSON.parse(body.toString())].flat().map(checkedFailure);
      return json(response, 200, { failure: state.failures[0] ?? null });
    case "DELETE failure":
      state.failures = [];
      return json(response, 200, { failure: null });
    case "GET requests":
      return json(response, 200, { requests: state.requests });
    case "DELETE requests":
      Object.assign(state, { requests: [], probes: 0, connections: noConnections(), counting: {} });
      return json(response, 200, { requests: [] });
    default:
      return json(
        response,
        404,
        envelope("invalid_request_error", `no control called ${method} /_stand-in/${name}; see endpoint.mjs --help`),
      );
  }
}

/** A misspelt failure that fails nothing would make a test pass for the wrong reason. */
function checkedFailure(failure) {
  const which = ["times", "path", "model", "every"];
  const known = ["mode", ...which, "status", "headers", "body", "location", "after", "delay_ms"];
  const unknown = Object.keys(failure).filter((key) => !known.includes(key));
  if (unknown.length > 0) throw new Error(`unknown: ${unknown.join(", ")}; known: ${known.join(", ")}`);
  if (!MODES.has(failure.mode)) throw new Error(`"mode" must be one of: ${[...MODES].join(", ")}`);
  if (failure.mode === "status" && !Number.isInteger(failure.status)) throw new Error('mode "status" needs a "status"');
  if (failure.mode === "redirect" && typeof failure.location !== "string")
    throw new Error('mode "redirect" needs a "location"');
  if (failure.times !== undefined && !(failure.times >= 1)) throw new Error('"times" must be 1 or more');
  if (failure.every !== undefined && !(failure.every >= 1)) throw new Error('"every" must be 1 or more');
  return failure.mode === "slow" ? { delay_ms: 1000, ...failure } : failure;
}

/** @type {(type: string, message: string, code?: string | null) => object} */
function envelope(type, message, code = null) {
  return { error: { message, type, param: null, code } };
}

function json(response, status, value) {
  response.writeHead(status, { "content-type": "application/json" }).end(`${JSON.stringify(value)}\n`);
}
