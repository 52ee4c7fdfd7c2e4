// Random requests of a client: known paths with bodies as the API has them, some with something forbidden in them, and
// what no client should send. Called by cases.ts.
import { makers, texts } from "../bodies.js";
import { makeBatch, makeForm, written } from "../forms.js";
import { formPart } from "../harness.js";
import { make, places, strangeKeys } from "../planting.js";
import type { Draw } from "./draw.js";
import { type Client, HEADERS, REFUSED, identity } from "./senders.js";
import { OPERATOR } from "./side.js";
import { type Ask, get, models, oddBody, oddPath, post } from "./targets.js";
import type { Fields, Sent } from "./wire.js";

export function steps(d: Draw, client: Client, most: number): Sent[] {
  const asks = d.is(0.12) ? stored(d) : Array.from({ length: most }, () => one(d, client));
  const own = identity(d, client);
  return asks.slice(0, Math.max(most, 1)).map((ask) => sent(d, client, ask, own));
}

const form = "multipart/form-data; boundary=B";

/** Makes something, then looks at it and removes it. */
function stored(d: Draw): Ask[] {
  const file = formPart("purpose", "user_data") + formPart("file", d.of(texts), '; filename="a.txt"');
  const id = "@ID@";
  return d.of<() => Ask[]>([
    () => [
      post("/v1/files", `${file}--B--\r\n`, form),
      d.of([get(`/v1/files/${id}`), get(`/v1/files/${id}/content`)]),
      { method: "DELETE", target: `/v1/files/${id}` },
    ],
    () => [
      post("/v1/responses", { model: "m", input: "x", store: true }),
      d.of([get(`/v1/responses/${id}`), post("/v1/responses", { model: "m", input: "y", previous_response_id: id })]),
      get(`/v1/responses/${id}/input_items?limit=2`),
    ],
    () => [
      post("/v1/vector_stores", { name: "v" }),
      get(`/v1/vector_stores/${id}`),
      post(`/v1/vector_stores/${id}/search`, { query: "x" }),
    ],
    () => [
      post("/v1/uploads", { bytes: 1, filename: "a.bin", mime_type: "text/plain", purpose: "user_data" }),
      post(`/v1/uploads/${id}/parts`, `${formPart("data", "x", '; filename="b"')}--B--\r\n`, form),
      post(`/v1/uploads/${id}/complete`, { part_ids: ["part_1"] }),
    ],
    () => [
      post("/v1/fine_tuning/jobs", { model: "m", training_file: "file-raw" }),
      get(`/v1/fine_tuning/jobs/${id}/events?after=x`),
    ],
  ])();
}

function one(d: Draw, client: Client): Ask {
  return d.weighted<() => Ask>([
    [70, () => inference(d, client)],
    [14, () => formAsk(d)],
    [4, () => batch(d, client)],
    [6, () => models(d)],
    [6, () => oddBody(d)],
    [6, () => oddPath(d)],
    [6, () => own(d, client)],
    [5, () => ({ ...inference(d, client), method: d.of(["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"]) })],
    [5, () => get(d.of(STATE_PATHS))],
    [2, () => ({ method: d.of(["DELETE", "GET", "POST"]), target: d.of(STATE_PATHS) })],
  ])();
}

const STATE_PATHS = [
  "/v1/files",
  "/v1/files?limit=2&purpose=x",
  "/v1/files/file-abc",
  "/v1/files/file-bw1AAAA/content",
  "/v1/batches",
  "/v1/batches/batch_1",
  "/v1/fine_tuning/jobs?limit=1",
  "/v1/vector_stores",
  "/v1/vector_stores/vs_1/files",
  "/v1/responses/resp_1",
  "/v1/chat/completions/chatcmpl-1/messages",
  "/v1/uploads/upload_1/cancel",
];

const STREAMED = ["/v1/chat/completions", "/v1/completions", "/v1/responses"];

/** A body of the model API, in one of five with something in it that it may not have. */
function inference(d: Draw, { engine }: Client): Ask {
  const others = Object.keys(makers).filter((path) => !path.includes("stores") && !path.includes("uploads"));
  const path = d.weighted([
    [8, "/v1/chat/completions"],
    // Sound is passed on as it comes, so its breaks are seen.
    [3, "/v1/audio/speech"],
    [9, d.of(others)],
  ]);
  const body = d.is(0.12) ? make(d, engine, path).body : structuredClone(makers[path](d));
  if (STREAMED.includes(path) && d.is(0.45)) {
    body.stream = true;
    if (d.is(0.4)) body.stream_options = { include_usage: d.is(0.7) };
  }
  if (d.is(0.1)) body.model = d.of(["n", "unlisted", "a/b", "", "M", 7, "ft:m:acme::x"]);
  if (d.is(0.03)) body[d.of(strangeKeys)] = d.of(places);
  const shortened = d.is(0.15) ? path.slice("/v1".length) : path;
  const query = d.weighted([
    [12, ""],
    [1, "?"],
    [1, d.of(["?api-version=x", "?key=sk-x", "?a=b&c=%20", "?stream=true", "?%zz", "?q=\u00e9"])],
  ]);
  return post(shortened + query, d.is(0.1) ? JSON.stringify(body, null, 1) : body);
}

function formAsk(d: Draw): Ask {
  const made = makeForm(d);
  const type = d.weighted([
    [10, form],
    [1, "multipart/form-data; boundary=C"],
    [1, 'Multipart/Form-Data; boundary="B"'],
    [1, "application/json"],
  ]);
  const text = written(made);
  return post(made.path, d.is(0.08) ? text.slice(0, d.below(text.length)) : text, type);
}

function batch(d: Draw, { engine }: Client): Ask {
  const lines = makeBatch(d, engine).lines.join("\n");
  const body = formPart("purpose", "batch") + formPart("file", lines, '; filename="in.jsonl"');
  return post("/v1/files", `${body}--B--\r\n`, form);
}

const own = (d: Draw, { name }: Client): Ask => ({
  method: d.of(["GET", "GET", "GET", "GET", "HEAD", "POST", "OPTIONS"]),
  target: `/.well-known/bailiwick/${d.of([
    "healthz",
    "jwks.json",
    "explain",
    "explain?model=m",
    "explain?model=m&path=/v1/files",
    `explain?service=${name}&country=DE`,
    `explain?service=${name}&client=198.51.100.7&path=/responses`,
    `explain?all&service=${name}`,
    `explain?service=${name}&tenant=${name}-t`,
    "explain?nonsense=1",
    "explain?model=%zz",
    "metrics",
    "nothing",
    "",
  ])}`,
});

function sent(d: Draw, { name }: Client, { method, target, type, body }: Ask, own: Fields): Sent {
  const host = d.weighted([
    [80, `${name}.example`],
    [1, `${name}.example:8443`],
    [1, `${name}.EXAMPLE`],
    [1, `x.${name}.example`],
    [1, `${name}.example.`],
    [1, "nobody.example"],
  ]);
  const many = d.is(0.02) ? Array.from({ length: 60 }, (_, i): Fields[number] => [`X-H${i}`, `${i}`]) : [];
  const fields: Fields = [
    ["Host", host],
    ...(type === undefined ? [] : ([["Content-Type", type]] as Fields)),
    // A page of metrics counts what all cases do. So nobody gets one; run.ts reads it when all is quiet.
    ...own.filter(([, value]) => !target.endsWith("/metrics") || !value.includes(OPERATOR)),
    ...HEADERS.filter(() => d.is(0.025)),
    ...REFUSED.filter(() => d.is(0.006)),
    ...many,
  ];
  if (body === undefined || (["GET", "HEAD"].includes(method) && d.is(0.7))) return { method, target, fields };
  const bytes = Buffer.from(body);
  return { method, target, fields, body: bytes, ...(d.is(0.25) ? { chunked: d.split(bytes, 4) } : {}) };
}
