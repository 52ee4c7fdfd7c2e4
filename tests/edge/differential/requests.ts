// Random requests of a client: known paths with bodies as the API has them, some with something forbidden in them, and
// what no client should send. Called by cases.ts.
import { makers, texts } from "../bodies.js";
import { makeBatch, makeForm, written } from "../forms.js";
import { formPart } from "../harness.js";
import type { Json } from "../harness.js";
import { make, places, strangeKeys } from "../planting.js";
import type { Draw } from "./draw.js";
import { OPERATOR } from "./side.js";
import type { Fields, Sent } from "./wire.js";

export interface Client {
  /** The name of its service. */
  name: string;
  number: number;
  /** Its country. */
  place: string | undefined;
  hasTenant: boolean;
  /** Whether the endpoints run an engine with fields of its own. */
  engine: boolean;
}

/** What a request is about: all but its headers of the client. */
interface Ask {
  method: string;
  target: string;
  type?: string;
  body?: string | Buffer;
}

export function steps(d: Draw, client: Client, most: number): Sent[] {
  const asks = d.is(0.12) ? stored(d) : Array.from({ length: most }, () => one(d, client));
  const own = identity(d, client);
  return asks.slice(0, Math.max(most, 1)).map((ask) => sent(d, client, ask, own));
}

const form = "multipart/form-data; boundary=B";
const get = (target: string): Ask => ({ method: "GET", target });
const post = (target: string, body: Json | string, type = "application/json"): Ask => ({
  method: "POST",
  target,
  type,
  body: typeof body === "string" ? body : JSON.stringify(body),
});

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
    [6, () => odd(d)],
    [6, () => unknown(d)],
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
  const path = d.is(0.4)
    ? "/v1/chat/completions"
    : d.of(Object.keys(makers).filter((path) => !path.includes("stores") && !path.includes("uploads")));
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

const models = (d: Draw): Ask => ({
  method: d.of(["GET", "GET", "GET", "HEAD", "POST", "DELETE"]),
  target: d.of([
    "/v1/models",
    "/models",
    "/v1/models/m",
    "/v1/models/n",
    "/v1/models/a/b",
    "/v1/models/a%2Fb",
    "/v1/models/a%2fb",
    "/v1/models/unlisted",
    "/v1/models/..%2fx",
    "/v1/models/\u00c3\u00a9",
    "/v1/models/%C3%A9",
    "/v1/models/a%00b",
    "/v1/models?limit=1",
  ]),
});

/** Bodies that are no JSON, or more of it than anybody sends. */
function odd(d: Draw): Ask {
  const chat = '{"model":"m","messages":[{"role":"user","content":"x"}]';
  const body = d.of<() => string | Buffer>([
    () => chat,
    () => `${chat},}`,
    () => `${chat}} {}`,
    () => `${chat},"model":"n"}`,
    () => `${chat},"\\u006dodel":"n"}`,
    () => `\ufeff${chat}}`,
    () => `${chat},"n":${"9".repeat(400)}}`,
    () => `${chat},"n":1e999,"seed":-0,"temperature":1E-400}`,
    () => `${chat},"metadata":{"a":${"[".repeat(500)}${"]".repeat(500)}}}`,
    () => "[".repeat(5_000),
    () => "",
    () => "null",
    () => "[]",
    () => `${chat},"user":"\ud800"}`,
    () => Buffer.from([...Buffer.from('{"model":"m","messages":"'), 0xff, 0xc3, ...Buffer.from('"}')]),
    () => `${chat},"user":"${"u".repeat(d.below(200_000))}"}`,
    () => `${chat},"tools":[],"logit_bias":{"1":1},"stop":["a"],"n":0}`,
    () => `  \n${chat}}\n`,
  ])();
  const type = d.weighted([
    [5, "application/json"],
    [1, undefined],
    [1, d.of(["text/plain", "application/x-www-form-urlencoded", "application/json;charset=latin1", ""])],
  ]);
  return { method: "POST", target: d.of(["/v1/chat/completions", "/v1/embeddings", "/v1/responses"]), type, body };
}

function unknown(d: Draw): Ask {
  const target = d.of([
    "/",
    "/v1",
    "/v1/",
    "//v1/models",
    "/v1//models",
    "/v1/models/",
    "/v1/v1/models",
    "/V1/models",
    "/v1/../v1/models",
    "/v1/./models",
    "/v1/chat/completions/../../models",
    "/v1/%2e%2e/models",
    "/v1\\models",
    "/v1/chat%2Fcompletions",
    "/openai/v1/models",
    "/openai/deployments/m/chat/completions?api-version=x",
    "/health",
    "/metrics",
    "/v1/assistants",
    "/v1/threads/t/messages",
    "/v1/messages",
    "/v1/rerank",
    "/api/generate",
    "/v1/realtime",
    "/v1/nonsense",
    "/v1/models#x",
    "/v1/models;x",
    "/v1/mod els".replace(" ", "%20"),
    "/v1/models?\u00c3\u00a9=1",
    `/v1/${"x".repeat(3_000)}`,
    "/.well-known/other",
    "/v1/chat/completions%00",
    "/v1/models%",
    '/v1/"models"',
    "/v1/{models}|^`",
    "/v1/models?a=[b]|{c}^`'\"<d>",
  ]);
  return d.is(0.5) ? get(target) : post(target, { model: "m", messages: [] });
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

/** What is the client's own: its address and place, its key, and what it sends with all of its requests. */
function identity(d: Draw, { number, place, hasTenant, name }: Client): Fields {
  const fields: Fields = [];
  const address = d.weighted([
    [40, `10.${(number >> 16) & 255}.${(number >> 8) & 255}.${number & 255}`],
    [6, `2001:db8:${(number >> 8).toString(16)}:${(number & 255).toString(16)}::1`],
    [1, `198.51.100.${number & 255}`],
    [1, ""],
    [1, "no address"],
  ]);
  if (address) fields.push(["CF-Connecting-IP", address]);
  const where = d.weighted<Json | undefined>([
    [30, { country: place }],
    [5, { country: place, latitude: "52.5", longitude: "13.4" }],
    [1, { country: place, latitude: 48.1, longitude: 2 }],
    [1, { country: place?.toLowerCase() }],
    [1, {}],
    [1, { country: 7, latitude: null }],
    [1, undefined],
  ]);
  if (where) fields.push(["bailiwick-cf", JSON.stringify(where)]);
  const key = d.weighted<Fields>([
    [hasTenant ? 40 : 8, [["Authorization", `Bearer sk-${name}`]]],
    [2, [["api-key", `sk-${name}`]]],
    [1, [["Authorization", `bearer  sk-${name}`]]],
    [1, [["Authorization", `Basic sk-${name}`]]],
    [1, [["Authorization", "Bearer sk-nobody"]]],
    [1, [["Authorization", `Bearer ${OPERATOR}`]]],
    [
      1,
      [
        ["Authorization", `Bearer sk-${name}`],
        ["api-key", "sk-nobody"],
      ],
    ],
    [
      1,
      [
        ["Authorization", `Bearer sk-${name}`],
        ["Authorization", "Bearer sk-nobody"],
      ],
    ],
    [1, [["Authorization", ""]]],
    [hasTenant ? 1 : 20, []],
  ]);
  return [...fields, ...key];
}

/** Headers for which most requests are refused. */
const REFUSED: Fields = [
  ["Origin", "https://other.example"],
  ["Origin", "null"],
  ["x-bailiwick-pin", "eu"],
  ["Content-Encoding", "gzip"],
  ["Content-Encoding", "identity"],
];

/** Further headers that clients send. */
const HEADERS: Fields = [
  ["Accept", "text/plain"],
  ["Accept", "*/*"],
  ["Accept-Encoding", "gzip, br"],
  ["User-Agent", "OpenAI/Python 1.0"],
  ["X-Stainless-Lang", "js"],
  ["Idempotency-Key", "k1"],
  ["OpenAI-Organization", "org-x"],
  ["OpenAI-Beta", "assistants=v2"],
  ["x-session-id", "s1"],
  ["traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
  ["traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"],
  ["traceparent", "nonsense"],
  ["tracestate", "a=b"],
  ["baggage", "user=alice"],
  ["Cookie", "a=b"],
  ["Origin", "https://app.example.com"],
  ["Access-Control-Request-Method", "POST"],
  ["Access-Control-Request-Headers", "authorization,x-other"],
  ["x-bailiwick-operator", OPERATOR],
  ["x-bailiwick-bundle", "prompts@abc"],
  ["X-Forwarded-For", "192.0.2.1"],
  ["X-Forwarded-Proto", "https"],
  ["Forwarded", "for=192.0.2.1"],
  ["CF-IPCountry", "US"],
  ["CF-Ray", "x"],
  ["Via", "1.1 x"],
  ["Range", "bytes=0-1"],
  ["If-None-Match", '"x"'],
  ["Content-Language", "de"],
  ["X-Latin", "caf\u00e9"],
  ["X-Utf8", "caf\u00c3\u00a9"],
  ["X-Empty", ""],
  ["X-Many", "a"],
  ["X-Many", "b"],
  ["x_under", "1"],
  ["X-Long", "z".repeat(6_000)],
  ["X-Tab", "a\tb"],
  ["Expect", "100-continue"],
  ["Connection", "close"],
  ["Connection", "keep-alive"],
  ["Connection", "X-Many"],
  ["Keep-Alive", "timeout=5"],
  ["Te", "trailers"],
  ["Upgrade-Insecure-Requests", "1"],
  ["Priority", "u=1"],
  ["Proxy-Authorization", "Basic x"],
  ["Pragma", "no-cache"],
  ["x-api-key", "sk-x"],
];

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
