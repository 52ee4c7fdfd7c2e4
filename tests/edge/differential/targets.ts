// Requests that are unusual by themselves: bodies that are no JSON or more of it than anybody sends, and paths that are
// unknown, misspelt or odd. Called by requests.ts.
import type { Json } from "../harness.js";
import type { Draw } from "./draw.js";

/** What a request is about: all but its headers of the client. */
export interface Ask {
  method: string;
  target: string;
  type?: string;
  body?: string | Buffer;
}

export const get = (target: string): Ask => ({ method: "GET", target });
export const post = (target: string, body: Json | string, type = "application/json"): Ask => ({
  method: "POST",
  target,
  type,
  body: typeof body === "string" ? body : JSON.stringify(body),
});

/** Bodies that are no JSON, or more of it than anybody sends. */
export function oddBody(d: Draw): Ask {
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

export function oddPath(d: Draw): Ask {
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

export const models = (d: Draw): Ask => ({
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
