// Judges a body of the model API. From the API's reference alone it decides whether a model host could fetch, share or
// route by the body. It knows nothing of how the Worker decides. Called by bodies.spec.ts and forms.ts.
import { isIP } from "node:net";
import type { Json } from "./harness.js";
import { engineInputs, hosting, routing, routingLike } from "./planting.js";

/** Where the API has text or the client's own data, by path. `*` is an index, `**` anything below. */
const MESSAGES = [
  "messages.*.content",
  "messages.*.content.*",
  "messages.*.content.*.text",
  "messages.*.refusal",
  "messages.*.reasoning_content",
  "messages.*.parsed.**",
  "messages.*.tool_calls.*.function.arguments",
  "messages.*.annotations.*.url_citation.url",
  "messages.*.annotations.*.url_citation.title",
  // As in the Responses API. People read what an answer cited, in either shape.
  "messages.*.annotations.*.url",
  "messages.*.annotations.*.title",
];
const TEXT: Record<string, string[]> = {
  "/v1/chat/completions": [
    ...MESSAGES,
    "metadata.**",
    "stop",
    "stop.*",
    "prediction.content",
    "tools.*.function.description",
    "functions.*.description",
    "tools.*.custom.description",
    "tools.*.custom.format.grammar.definition",
    "response_format.json_schema.description",
  ],
  "/v1/responses": [
    "input",
    "input.*.content",
    "input.*.content.*.text",
    "input.*.content.*.annotations.*.url",
    "input.*.content.*.annotations.*.title",
    "input.*.arguments",
    "input.*.output",
    "input.*.input",
    "input.*.summary.*.text",
    "input.*.output.*.stdout",
    "input.*.output.*.stderr",
    "instructions",
    "metadata.**",
    "text.format.description",
    "tools.*.description",
  ],
  "/v1/completions": ["prompt", "prompt.*", "prompt.*.*", "suffix", "stop", "stop.*"],
  "/v1/embeddings": ["input", "input.*", "input.*.*"],
  "/v1/moderations": ["input", "input.*", "input.*.text"],
  "/v1/images/generations": ["prompt"],
  "/v1/audio/speech": ["input", "instructions"],
  "/v1/vector_stores": ["name", "description", "metadata.**"],
  "/v1/fine_tuning/jobs": [
    "metadata.**",
    // In a map of graders too, a value under a field's name belongs to that field.
    ...["grader", "grader.graders", "grader.graders.x", "grader.graders.y"]
      .map((at) => `method.reinforcement.${at}`)
      .flatMap((at) =>
        ["input", "reference", "source", "calculate_output", "input.*.content", "reference.*", "source.*"].map(
          (key) => `${at}.${key}`,
        ),
      ),
  ],
  "/v1/uploads": [],
};
const ENGINE_TEXT = [
  "bad_words.*",
  "guided_regex",
  "guided_choice.*",
  "structured_outputs.regex",
  ...["title", "text", "content", "contents", "snippet", "url"].map((key) => `documents.*.${key}`),
];
const SCHEMAS = [
  "tools.*.function.parameters",
  "functions.*.parameters",
  "response_format.json_schema.schema",
  "text.format.schema",
  "tools.*.parameters",
  "guided_json",
  "structured_outputs.json",
];
/** Content itself belongs there. */
const MEDIA = [
  "messages.*.content.*.image_url.url",
  "messages.*.content.*.input_audio.data",
  "messages.*.content.*.file.file_data",
  "input.*.image_url.url",
  "input.*.content.*.image_url",
  "input.*.content.*.file_data",
  "input.*.output.image_url",
];
const GRADERS = ["string_check", "text_similarity", "score_model", "label_model", "multi"];
const KINDS = [
  "messages.*.content.*.type",
  "input.*.content.*.type",
  "input.*.type",
  "input.*.summary.*.type",
  "input.*.output.type",
];
const kinds = new Set([
  "text",
  "image_url",
  "input_audio",
  "file",
  "input_text",
  "input_image",
  "input_file",
  "output_text",
  "message",
  "function_call",
  "function_call_output",
  "custom_tool_call",
  "reasoning",
  "summary_text",
  "computer_call_output",
  "computer_screenshot",
  "local_shell_call_output",
  "shell_call_output",
  "refusal",
]);
/** Names that the client made up. A colon and digits in them are not a port. */
const NAMES = /(^|\.)(user|safety_identifier|prompt_cache_key|name|id|call_id|tool_call_id|filename|model)$/;
const DOCUMENTED: Record<string, string> = {
  "/v1/chat/completions":
    "model messages temperature max_tokens max_completion_tokens n seed stop user metadata response_format tools " +
    "tool_choice parallel_tool_calls logit_bias stream_options verbosity modalities audio prediction " +
    "reasoning_effort service_tier safety_identifier prompt_cache_key " +
    "prompt_cache_retention logprobs top_logprobs functions moderation",
  "/v1/fine_tuning/jobs": "model method metadata seed suffix",
  "/v1/responses":
    "model messages store input instructions include max_output_tokens metadata reasoning truncation top_p user text " +
    "tools tool_choice image",
  "/v1/completions": "model prompt suffix stop max_tokens logprobs echo user best_of",
  "/v1/embeddings": "model input encoding_format dimensions user",
  "/v1/moderations": "model input",
  "/v1/images/generations": "model prompt n size quality background output_format style moderation",
  "/v1/audio/speech": "model input voice instructions response_format speed stream_format",
  "/v1/vector_stores": "name metadata description expires_after chunking_strategy",
  "/v1/uploads": "bytes filename mime_type purpose",
};
const ENGINES_OWN =
  "top_k min_p repetition_penalty stop_token_ids bad_words ignore_eos guided_json guided_regex guided_choice " +
  "structured_outputs chat_template_kwargs documents vllm_xargs truncation_side tools tool_choice";
const LOCAL = new Set([
  "function",
  "custom",
  "local_shell",
  "apply_patch",
  "computer",
  "namespace",
  "shell",
  "tool_search",
]);

const matches = (pattern: string, at: string[]): boolean => {
  const words = pattern.split(".");
  // A list of texts is text.
  if (at.length === words.length + 1 && words.at(-1) === "url" && /^\d+$/.test(at.at(-1)!))
    return matches(pattern, at.slice(0, -1));
  if (words.at(-1) === "**")
    return (
      at.length >= words.length &&
      words.slice(0, -1).every((word, i) => (word === "*" ? /^\d+$/.test(at[i]) : word === at[i]))
    );
  return words.length === at.length && words.every((word, i) => (word === "*" ? /^\d+$/.test(at[i]) : word === at[i]));
};
const beneath = (patterns: string[], at: string[]) =>
  patterns
    .map((pattern) => pattern.split(".").length)
    .find((length, i) => at.length >= length && matches(patterns[i], at.slice(0, length)));

/** Whether any reader could take a value for a place to connect to. */
export function isPlace(value: string, isName = false): boolean {
  if (/^\s*data:/i.test(value)) return false;
  // Base64 may begin like this. No host's name is so long.
  if (/^\/\/[A-Za-z0-9+/_=-]{64,}$/.test(value) && isMedia(value)) return false;
  let text = value
    .normalize("NFKC")
    .replace(/[\p{Cc}\p{Cf}]/gu, "")
    .replaceAll("。", ".")
    .replaceAll("\\", "/");
  for (let i = 0; i < 3; i++) {
    try {
      text = decodeURIComponent(text);
    } catch {}
  }
  text = text.replace(/^[\s"'<(]+|[\s>)]+$/g, "");
  if (/^\/\/[^/]/.test(text) || /^[a-z][a-z0-9+.-]+:\/\S/i.test(text) || /^(https?|wss?|ftp|file):\S/i.test(text))
    return true;
  const host = text.replace(/[/?#].*$/s, "").replace(/^.*@/, "");
  const named = host.match(/^\[(.*)\](:\d+)?$/);
  if (isIP(named ? named[1] : host) !== 0) return true;
  const [, name, port] = host.match(/^([^:\s]+):(\d{1,5})$/) ?? [];
  if (!port) return false;
  return (
    isIP(name) !== 0 ||
    name === "localhost" ||
    /^([\w-]+\.)+[a-z]{2,}$/i.test(name) ||
    (!isName && /^[\w-]*[a-z][\w-]*$/i.test(name))
  );
}

/** Whether a string is media: it decodes to media or to text, or is too long for a path. */
export function isMedia(value: string): boolean {
  const text = value.trim();
  if (text === "" || /^data:/i.test(text)) return true;
  if (!/^[A-Za-z0-9+/_=-]+$/.test(text)) return false;
  if (text.length > 4096 || text.split("/").some((piece) => piece.length > 255)) return true;
  const bytes = Buffer.from(text, "base64");
  const begins = bytes.subarray(0, 12).toString("latin1");
  if (
    /^(\x89PNG|\xff\xd8\xff|GIF8|RIFF|ID3|OggS|fLaC|%PDF|\x1aE\xdf\xa3|PK\x03\x04)/.test(begins) ||
    begins.slice(4, 8) === "ftyp"
  )
    return true;
  const read = bytes.toString("utf8");
  return bytes.length >= 12 && Buffer.from(read).equals(bytes) && !/[^\P{Cc}\n\r\t]/u.test(read);
}

const letters = (key: string) => key.toLowerCase().replace(/[^a-z0-9]/g, "");
const NAMES_OF_MEDIA = new RegExp(
  "(image|img|picture|photo|audio|sound|video|movie|clip|frames|media|mask|attachment|(?<!pro)file|pdf|" +
    "path|dir|directory|folder|url|uri|href|src|source|link|base64|b64|blob)s?$",
);
/** Whether a host that finds a string under this name may look for media there. */
const namesMedia = (key: string) =>
  NAMES_OF_MEDIA.test(letters(key)) ||
  (/(image|audio|video|file|inline).*(data|input|content|bytes|reference|ref|location)s?$/.test(letters(key)) &&
    !/metadata$/.test(letters(key)));
const MEDIA_TYPES = new RegExp(
  "^(image_url|input_image|input_audio|(input_)?file|image|audio|video|(audio|video|file|document)_url|document|" +
    "computer_screenshot|\\w+_embeds)$",
);
/** Documented keys with words or names in a part of media, or in an object within one. */
const WORDS_OF_MEDIA = new Set([
  "type",
  "detail",
  "format",
  "filename",
  "id",
  "name",
  "uuid",
  "text",
  "role",
  "cache_control",
  "content",
  "input",
]);

/**
 * Whether a value holds an undocumented string that could be a path. `hasWords`: documented words are beside the media.
 */
function strays(value: any, hasWords = true): boolean {
  if (typeof value === "string") return !isMedia(value);
  if (Array.isArray(value)) return value.some((inner) => strays(inner, hasWords));
  if (typeof value !== "object" || value === null) return false;
  // Models are names in every place.
  const isWord = (key: string, inner: any) =>
    (hasWords && WORDS_OF_MEDIA.has(key)) || (isModel(key) && (typeof inner === "string" || Array.isArray(inner)));
  return Object.entries(value).some(([key, inner]) => !isWord(key, inner) && strays(inner, namesMedia(key)));
}

const where = (at: string[]) => at.join(".");
/** Whether a position is a message, a part or an item, or an object of media in one of them. */
const isNode = (at: string[]) => /^(messages|input)(\.\d+)?(\.(content|output|summary)(\.\d+)?)?$/.test(where(at));
const isMediaObject = (at: string[]) => /^(messages|input)\..*\.(image_url|input_audio|file)$/.test(where(at));
/** Positions of text and names under a key that sounds like media. */
const MEDIA_IS_TEXT = /annotations\.\d+\.(url|file)$|url_citation\.url$/;

/** Why a service that allows nothing must refuse a body; null if it may pass. */
export function judge(path: string, body: Json, engine: boolean): string | null {
  const documented = new Set(DOCUMENTED[path].split(" "));
  if (engine && path !== "/v1/vector_stores" && path !== "/v1/uploads")
    ENGINES_OWN.split(" ").forEach((key) => documented.add(key));
  const text = [...TEXT[path], ...(engine ? ENGINE_TEXT : [])];
  for (const [key, value] of Object.entries(body)) {
    if (documented.has(key) || value === null) continue;
    if (routing.some((name) => name.toLowerCase() === key.toLowerCase())) return `routes: ${key}`;
    if (routingLike.includes(key) && value !== false && typeof value !== "number")
      return `made of routing words: ${key}`;
    if (hosting.includes(key) && value !== false) return `hosted: ${key}`;
    if (ROUTING_IDS.includes(key)) return `routes: ${key}`;
    if (isId(key) && !holdsNoId(value)) return `an id: ${key}`;
    // The keys of all paths below are in one table, and an empty list of ids names none.
    if (path === "/v1/vector_stores" && /^file_ids?$/.test(key)) continue;
    if (typeof value === "string" || typeof value === "object") return `unknown: ${key}`;
  }
  if ("tools" in body && body.tools !== null && !Array.isArray(body.tools)) return "tools are no list";
  return below(path, body, [], text);
}

function below(path: string, value: any, at: string[], text: string[]): string | null {
  const where = at.join(".");
  if (text.some((pattern) => matches(pattern, at) && (typeof value !== "object" || pattern.endsWith("**"))))
    return null;
  const schemaAt = beneath(SCHEMAS, at);
  if (schemaAt !== undefined) return typeof value === "object" ? null : inSchema(value, at.slice(schemaAt));
  if (typeof value === "string") {
    if (KINDS.some((pattern) => matches(pattern, at))) return kinds.has(value) ? null : `kind: ${where}`;
    if (MEDIA.some((pattern) => matches(pattern, at))) return isMedia(value) ? null : `no content: ${where}`;
    return isPlace(value, NAMES.test(where)) ? `place: ${where}` : null;
  }
  return null;
}

/** In a schema only references matter. Names of properties, and data in it, are the client's. */
function inSchema(value: unknown, at: string[]): string | null {
  if (typeof value !== "string") return null;
  const data = ["enum", "const", "default", "examples"].some((word) => at.slice(0, -1).includes(word));
  const key = at.at(-1),
    isName = ["properties", "$defs"].includes(at.at(-2) ?? "");
  if (data || isName) return null;
  if (key === "$ref" && !value.trimStart().startsWith("#")) return `reference: ${at.join(".")}`;
  if (key === "$schema" && !/^https?:\/\/json-schema\.org\//.test(value) && isPlace(value))
    return `dialect: ${at.join(".")}`;
  return null;
}

/** Metadata is a map of the client's own words. A key that only instructs a gateway isn't one. */
function odd(metadata: unknown): string | null {
  if (metadata === undefined || metadata === null || typeof metadata === "number" || typeof metadata === "boolean")
    return null;
  if (typeof metadata !== "object" || Array.isArray(metadata)) return "metadata is no map";
  for (const [key, value] of Object.entries(metadata as Json)) {
    if (value !== null && typeof value === "object") return `no text: metadata.${key}`;
    const isInstruction = /^fallbacks$/i.test(key) || key === "apiBase" || (routing.includes(key) && key.includes("_"));
    if (isInstruction && value !== null) return `routes: metadata.${key}`;
  }
  return null;
}

/**
 * Whether a host may run these models beside the request's own: those of a map, or any whose name says nothing but the
 * model.
 */
function mayRun(value: unknown, known: string[] | null): boolean {
  const isFine = (name: string) =>
    known
      ? known.includes(name)
      : !/:online$|^(us|eu|apac|jp)\.|@(preset\/|[a-z]+-[a-z]+\d)|^ft:/.test(name) && !isPlace(name, true);
  if (typeof value === "string") return isFine(value);
  if (Array.isArray(value)) return value.every((one) => mayRun(one, known));
  return value === null || typeof value !== "object";
}

/** Whether a value holds no id. All ids are sealed here. */
const holdsNoId = (value: unknown): boolean =>
  value === null ||
  value === false ||
  (Array.isArray(value) && value.every(holdsNoId)) ||
  (typeof value === "object" && !Array.isArray(value) && Object.keys(value!).length === 0);
const isId = (key: string) =>
  /(^|_)(file|skill|conversation|response|container|vector_store)_ids?$/.test(key) ||
  /^(fileId|previousResponseId|container|vector_stores)$/.test(key);
/** Ids by which gateways choose the model or the endpoint. */
const ROUTING_IDS = ["conversation_id", "model_id"];
const isModel = (key: string) => /^(.*_)?model(_id)?$/i.test(key) || /[a-z]Model$/.test(key);

function graded(value: any): string | null {
  if (typeof value !== "object" || value === null) return null;
  if (typeof value.type === "string" && !GRADERS.includes(value.type)) return `a grader of type ${value.type}`;
  if (typeof value.source === "string") return "a grader's source";
  for (const inner of Object.values(value.graders ?? {})) {
    const problem = graded(inner);
    if (problem) return problem;
  }
  return null;
}

/**
 * Judges every value of a body, and its tools as a whole. `known` are the models of an endpoint that has a map of them.
 */
export function verdict(path: string, body: Json, engine: boolean, known: string[] | null = null): string | null {
  const first = judge(path, body, engine) ?? odd(body.metadata) ?? graded(body.method?.reinforcement?.grader);
  if (first) return first;
  if (typeof body.moderation === "string" && !path.includes("images") && !mayRun(body.moderation, known))
    return "a model: moderation";
  const text = [...TEXT[path], ...(engine ? ENGINE_TEXT : [])];
  const walk = (value: any, at: string[]): string | null => {
    const found = below(path, value, at, text);
    if (found) return found;
    if (typeof value !== "object" || value === null) return null;
    const isSchema = beneath(SCHEMAS, at) !== undefined;
    // The keys are tokens, or the client's own.
    const isBias = at.join(".") === "logit_bias" || at.join(".") === "metadata";
    const isFree = isBias || text.some((pattern) => pattern.endsWith("**") && matches(pattern, [...at, "0"]));
    const isMediaPart = !Array.isArray(value) && ((MEDIA_TYPES.test(value.type) && isNode(at)) || isMediaObject(at));
    if (!isSchema && !isFree && isMediaPart && strays(value)) return `no media: ${where(at)}`;
    for (const [key, inner] of Object.entries(value)) {
      if (
        !Array.isArray(value) &&
        !isSchema &&
        !isFree &&
        inner !== null &&
        !text.some((pattern) => matches(pattern, [...at, key]))
      ) {
        if (inner !== false && engineInputs.some((name) => letters(name) === letters(key)))
          return `an engine's input: ${where([...at, key])}`;
        const isTop = at.length === 0;
        if (!isTop && namesMedia(key) && !MEDIA_IS_TEXT.test(where([...at, key])) && strays(inner))
          return `no media: ${where([...at, key])}`;
      }
      const isRoute = routing.some((name) => name.toLowerCase() === key.toLowerCase());
      if (at.length > 0 && !Array.isArray(value) && isRoute && inner !== null && !isSchema && !isFree)
        return `routes: ${[...at, key].join(".")}`;
      if (at.length > 0 && !Array.isArray(value) && !isSchema && !isFree) {
        if (ROUTING_IDS.includes(key) && inner !== null) return `routes: ${[...at, key].join(".")}`;
        // The object around it is undocumented.
        const isUndocumented = at.includes("outcome") || at[0] === "vllm_xargs";
        if (isUndocumented && /^location$/i.test(key) && inner !== null) return `routes: ${[...at, key].join(".")}`;
        if (isUndocumented && isModel(key) && !/^model$/i.test(key) && !mayRun(inner, []))
          return `made of routing words: ${key}`;
        if (isModel(key) && !mayRun(inner, known)) return `a model: ${[...at, key].join(".")}`;
        if (isId(key) && !holdsNoId(inner)) return `an id: ${[...at, key].join(".")}`;
      }
      const problem = walk(inner, [...at, key]);
      if (problem) return problem;
    }
    return null;
  };
  return walk(body, []) ?? tools(body.tools, body.tool_choice);
}

function tools(list: unknown, choice: any): string | null {
  for (const tool of Array.isArray(list) ? list : []) {
    if (typeof tool !== "object" || tool === null || typeof tool.type !== "string" || !LOCAL.has(tool.type))
      return "a hosted tool";
    if (tool.type === "shell" && tool.environment?.type !== "local") return "a hosted shell";
    const inner = tools(tool.tools, null);
    if (inner) return inner;
  }
  if (choice && typeof choice === "object") {
    if (choice.type !== "allowed_tools" && !LOCAL.has(choice.type)) return "a hosted choice";
    return tools(choice.tools, null);
  }
  return null;
}
