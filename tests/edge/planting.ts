// Makes random bodies of the model API and puts a forbidden value into some of them. Takes a generator of random
// numbers; returns a path, a body, and a name for the forbidden value. Called by bodies.spec.ts and forms.ts. judge.ts
// decides which bodies have to be refused.
import { type Chance, makers, media, paths, vllm } from "./bodies.js";
import type { Json } from "./harness.js";

/** Addresses that a model host could fetch from or connect to, in many spellings. */
export const places = [
  "https://collector.example/x",
  "HTTPS://COLLECTOR.EXAMPLE",
  " https://collector.example",
  "ht\ttps://collector.example",
  "http:/\\collector.example",
  "https:collector.example",
  "//collector.example/x",
  "\\\\collector.example\\x",
  "gs://bucket/x",
  "s3://bucket/x",
  "ftp://collector.example",
  "file:///etc/passwd",
  "ws://collector.example",
  "odd+scheme://x",
  "collector.example:443",
  "collector.example:443/x",
  "u@collector.example:22",
  "192.0.2.1",
  "192.0.2.1:9999",
  "192.0.2.1/x",
  "2001:db8::1",
  "[2001:db8::1]:443",
  "::1",
  "https%3A%2F%2Fcollector.example",
  "https%253A%252F%252Fcollector.example",
  "ｈｔｔｐｓ：／／collector.example",
  "h\u200bttps://collector.example",
  "\u0000https://collector.example",
  "<https://collector.example>",
  "192。0。2。1",
  "localhost:8080",
  "\nhttps://collector.example",
];
/** Undocumented keys. */
export const strangeKeys = [
  "foo",
  "x_url",
  "reference",
  "link",
  "uri",
  "href",
  "src",
  "url",
  "image",
  "video",
  "source",
  "input_references",
  "ref_audio",
  "seeds",
];
/** Keys that decide where a request is processed. */
export const routing = [
  "fallbacks",
  "models",
  "provider",
  "route",
  "transforms",
  "api_base",
  "base_url",
  "region",
  "inference_geo",
  "kv_transfer_params",
  "bootstrap_host",
  "bootstrap_port",
  "bootstrap_room",
  "connectors",
  "extra_body",
  "data_parallel_rank",
  "lora_path",
  "Fallbacks",
  "session_params",
];
/** Undocumented names that are made of routing words. */
export const routingLike = [
  "base_model",
  "modelName2",
  "sessionToken",
  "cacheKey",
  "semantic_cache",
  "litellm_x",
  "x-api-key",
  "providerX",
  "regionHint",
  "conversation_ref",
];
/** Fields that engines compile, unpickle, or use as settings when they read media. */
export const engineInputs = [
  "chat_template",
  "prompt_embeds",
  "image_embeds",
  "audio_embeds",
  "mm_processor_kwargs",
  "media_io_kwargs",
  "chatTemplate",
];
/** Keys that make the host search or run a tool. */
export const hosting = [
  "webSearch",
  "web_search",
  "search",
  "search_options",
  "enable_search",
  "web_search_options",
  "search_parameters",
  "plugins",
  "data_sources",
];

/** Names of models: plain names, and names that contain a route or an owner. */
export const innerModels = [
  "m",
  "omni",
  "alias",
  "other",
  "gpt:online",
  "us.anthropic.claude",
  "gemini@europe-west4",
  "ft:gpt-4o:acme::1",
  "@preset/x",
];
const modelKeys = ["model", "Model", "judge_model", "graderModel", "model_id"];
const idKeys = [
  "file_id",
  "fileId",
  "image_file_id",
  "skill_id",
  "conversation_id",
  "container",
  "vector_stores",
  "previousResponseId",
  "vector_store_ids",
];

/** Every object and list in a body, and the body itself. */
function containers(value: any, found: any[] = []): any[] {
  if (value && typeof value === "object") {
    found.push(value);
    Object.values(value).forEach((inner) => containers(inner, found));
  }
  return found;
}

/** Puts a forbidden value into a body, and returns a name for it. */
function plant(c: Chance, body: Json): string {
  const all = containers(body);
  const objects = all.filter((container) => !Array.isArray(container));
  const leaves = all.flatMap((container) =>
    Object.entries(container)
      .filter(([, value]) => typeof value !== "object")
      .map(([key]) => [container, key]),
  );
  const odd = () =>
    c.of<any>([
      c.of(places),
      [c.of(places)],
      { deep: { er: c.of(places) } },
      "word",
      ["word"],
      { a: "b" },
      7,
      true,
      null,
      [],
      {},
    ]);
  switch (c.below(17)) {
    case 0:
    case 1: {
      const strings = leaves.filter(
        ([container, key]) => typeof container[key] === "string" && !(container === body && key === "purpose"),
      );
      if (strings.length === 0) return "nothing";
      const [container, key] = c.of(strings);
      container[key] = c.of(places);
      return "a place for a string";
    }
    case 2:
    case 3:
      c.of(objects)[c.of(strangeKeys)] = odd();
      return "an unknown key";
    case 4:
      c.of([body, c.of(objects)])[c.of(routing)] = odd();
      return "a key that routes";
    case 5:
      body[c.of(hosting)] = c.of<any>([true, false, null, {}, { a: "b" }, 1]);
      return "a key that hosts";
    case 6: {
      const plain = leaves.filter(
        ([container, key]) => typeof container[key] !== "string" && key !== "store" && key !== "stream",
      );
      if (plain.length === 0) return "nothing";
      const [container, key] = c.of(plain);
      container[key] = c.of(places);
      return "a place for a number or switch";
    }
    case 7:
      body.tools = c.of<any>([
        [{ type: "web_search" }],
        [{ type: "mcp", server_label: "x" }],
        ["x"],
        [{ google_search: {} }],
        [{ type: "shell" }],
      ]);
      return "a hosted tool";
    case 8: {
      const strings = leaves.filter(([container, key]) => media.includes(container[key]));
      if (strings.length === 0) return "nothing";
      const [container, key] = c.of(strings);
      container[key] = c.of(paths);
      return "a path for media";
    }
    case 9: {
      const parts = objects.filter(
        (object) => /image|audio|file|screenshot/.test(object.type) || object.url || object.data || object.file_data,
      );
      c.of(parts.length > 0 ? parts : objects)[c.of([...strangeKeys, "path", "image_path", "base64", "location"])] =
        c.of<any>([
          c.of(paths),
          [c.of(paths)],
          { a: c.of(paths) },
          c.of(media),
          [c.of(media)],
          { url: c.of(media), detail: "low" },
        ]);
      return "a path or media under an unknown key";
    }
    case 10:
      body[c.of(routingLike)] = c.of<any>(["x", ["x"], { a: "b" }, true, false, null, 7]);
      return "a key of words that route";
    case 11:
      c.of([body, c.of(objects)])[c.of(engineInputs)] = c.of<any>([
        c.of(media),
        [c.of(media)],
        { a: 1 },
        true,
        false,
        null,
        7,
        "{{ x }}",
      ]);
      return "an engine's input";
    case 12: {
      const inner = objects.filter((object) => object !== body);
      if (inner.length === 0) return "nothing";
      c.of(inner)[c.of(modelKeys)] = c.of<any>([
        c.of(innerModels),
        c.of(innerModels),
        [c.of(innerModels)],
        { id: "m" },
        7,
        null,
      ]);
      return "a model below the top level";
    }
    case 13:
      c.of(objects)[c.of(idKeys)] = c.of<any>(["raw", ["raw"], { id: "raw" }, 7, true, false, null, []]);
      return "a raw id";
    case 14:
      if (!("metadata" in body)) return "nothing";
      body.metadata = c.of<any>([
        { tags: ["eu"] },
        { model_info: { id: "x" } },
        { [c.of(routing)]: "x" },
        { apiBase: "x" },
        ["x"],
        "x",
        [],
        {},
        null,
        { a: null, fallbacks: null },
        7,
      ]);
      return "odd metadata";
    case 15: {
      const graders = objects.filter((object) => typeof object.type === "string" && "name" in object && body.method);
      if (graders.length === 0) return "nothing";
      Object.assign(
        c.of(graders),
        c.of<Json>([
          { type: "python" },
          { source: "import os" },
          { type: "python", source: "x" },
          { type: "endpoint" },
        ]),
      );
      return "code of the client's";
    }
    default: {
      const parts = objects.filter(
        (object) => typeof object.type === "string" && Array.isArray(body.messages ?? body.input),
      );
      if (parts.length === 0) return "nothing";
      c.of(parts).type = c.of(["teleport", "web_fetch", "url"]);
      return "an unknown kind";
    }
  }
}

/** Makes a path and a body for it, or a body for the given path. With `engine`, the body is for an endpoint of vLLM. */
export function make(c: Chance, engine: boolean, only?: string): { path: string; body: Json; planted: string } {
  const path = only ?? (c.is(0.35) ? "/v1/chat/completions" : c.is(0.35) ? "/v1/responses" : c.of(Object.keys(makers)));
  const body = structuredClone({ ...makers[path](c), ...(engine && path === "/v1/chat/completions" ? vllm(c) : {}) });
  const planted = c.is(0.65) ? plant(c, body) : "nothing";
  return { path, body, planted };
}
