// Random forms and files of batches, some with something forbidden in them, and an independent judge of them.
// planting.ts and judge.ts do the same for JSON.
import { type Chance, media, paths, texts } from "./bodies.js";
import { isMedia, isPlace, verdict } from "./judge.js";
import { engineInputs, hosting, make, places, routing, routingLike, strangeKeys } from "./planting.js";
import type { Json } from "./harness.js";

/** A field of a form, or a file. */
export interface Part {
  name: string;
  value: string;
  filename?: string;
}

export interface Form {
  path: string;
  parts: Part[];
  planted: string;
}

/** The fields of each path, with values that are allowed in them. */
interface Known {
  fields: Record<string, readonly string[]>;
  /** Text for the model. Anything is allowed. */
  text: string[];
  /** Content, such as media. */
  media: string[];
  file: string;
}

const WORDS = ["json", "auto", "word", "de", "1024x1024", "high", "a b"];
const CONTENT = media;
const LABELS = ["bob", "session:123", "google-oauth2|1"];

const audio: Known = {
  fields: {
    prompt: texts,
    "keywords[]": texts,
    "known_speaker_names[]": texts,
    language: ["de"],
    "languages[]": ["de", "fr"],
    response_format: WORDS,
    stream: ["true", "false", ""],
    temperature: ["0", "0.5"],
    "timestamp_granularities[]": ["word", "segment"],
    "include[]": ["logprobs"],
    chunking_strategy: ["auto", '{"type":"server_vad","threshold":0.5}'],
    "chunking_strategy[type]": ["server_vad"],
    "known_speaker_references[]": CONTENT,
  },
  text: ["prompt", "keywords", "known_speaker_names"],
  media: ["known_speaker_references", "file"],
  file: "file",
};
const images: Known = {
  fields: {
    n: ["1", "2"],
    size: WORDS,
    quality: WORDS,
    response_format: ["b64_json"],
    output_format: ["png"],
    output_compression: ["80"],
    background: ["auto"],
    input_fidelity: ["high"],
    moderation: ["low"],
    partial_images: ["1"],
    stream: ["false"],
    user: LABELS,
    safety_identifier: LABELS,
    mask: CONTENT,
  },
  text: ["prompt"],
  media: ["image", "mask", "markup"],
  file: "image",
};
const KNOWN: Record<string, Known> = {
  "/v1/audio/transcriptions": audio,
  "/v1/audio/translations": { ...audio, fields: { prompt: texts, response_format: WORDS, temperature: ["0"] } },
  "/v1/images/edits": { ...images, fields: { ...images.fields, prompt: texts } },
  "/v1/images/variations": images,
  "/v1/files": {
    fields: { "expires_after[anchor]": ["created_at"], "expires_after[seconds]": ["3600"] },
    text: [],
    media: ["file"],
    file: "file",
  },
  "/v1/videos": {
    fields: { prompt: texts, seconds: ["4"], size: WORDS },
    text: ["prompt"],
    media: ["input_reference"],
    file: "input_reference",
  },
};
const DECIDING = ["model", "stream", "user", "purpose", "file"];
const FILE_NAMES = [
  "a.wav",
  "https://collector.example/x.mp3",
  "192.0.2.1",
  "..\\a.png",
  "Gespräch.mp3",
  "a;b.png",
  "x",
];

/** The forbidden things that may be put into a form, by name. */
const PLANTS: Record<string, (c: Chance, form: Form) => void> = {
  "a place in a field": (c, { parts }) => {
    const plain = parts.filter((part) => part.filename === undefined);
    if (plain.length > 0) c.of(plain).value = c.of(places);
  },
  "an unknown field": (c, { parts }) =>
    void parts.push({
      name: c.of(strangeKeys) + c.of(["", "", "[]", "[a]"]),
      value: c.of([c.of(places), "word", "7", "true", '{"a":"b"}', "null"]),
    }),
  "a field that routes": (c, { parts }) =>
    void parts.push({
      name: c.of(routing) + c.of(["", "[]"]),
      value: c.of([c.of(places), "x", "7", "true", "null", '["a"]']),
    }),
  "a path for media": (c, form) =>
    void form.parts.push({ name: c.of([...KNOWN[form.path].media, "mask"]), value: c.of([c.of(paths), c.of(media)]) }),
  "a name with parts": (c, { parts }) => {
    const word = c.of([
      c.of(routing),
      c.of(routingLike),
      "model",
      "models",
      "a",
      "type",
      c.of(engineInputs),
      "file_id",
    ]);
    const name = c.of(["a", "size", "chunking_strategy", "prompt"]);
    parts.push({
      name: c.of([`${name}[${word}]`, `${name}.${word}`, `${word}.0`, `${word}[0][b]`, `[${word}]`]),
      value: c.of(["x", "7", "null", '{"a":"b"}']),
    });
  },
  "an engine's input": (c, { parts }) =>
    void parts.push({
      name: c.of(engineInputs),
      value: c.of(["x", "{}", "7", "null", "false"]),
      ...(c.is(0.3) && { filename: "a" }),
    }),
  "a field that hosts": (c, { parts }) =>
    void parts.push({ name: c.of(hosting), value: c.of(["true", "false", "null", "{}", "x"]) }),
  "a field twice": (c, { parts }) => void parts.push({ ...c.of(parts) }),
  "a field in other letters": (c, { parts }) => {
    const part = c.of(parts);
    part.name = part.name.toUpperCase();
  },
  "an object with a place": (c, { parts }) =>
    void parts.push({
      name: c.of(["chunking_strategy", "size", "foo"]),
      value: JSON.stringify({ type: "x", deep: [c.of(places)] }),
    }),
  "an id": (c, { parts }) =>
    void parts.push({ name: c.of(["file_id", "images[0][file_id]", "vector_store_ids[]"]), value: "file-1" }),
  "a file of any name": (c, { parts }) =>
    void parts.push({ name: c.of(strangeKeys), value: "x", filename: c.of(FILE_NAMES) }),
};

/** Makes a form for a path. */
export function makeForm(c: Chance): Form {
  const path = c.of(Object.keys(KNOWN));
  const { fields, file } = KNOWN[path];
  const parts: Part[] = [
    path === "/v1/files"
      ? { name: "purpose", value: c.of(["user_data", "assistants", "vision"]) }
      : { name: "model", value: "m" },
  ];
  for (const [name, values] of Object.entries(fields)) {
    const times = name.endsWith("[]") ? c.below(3) : c.is(0.35) ? 1 : 0;
    for (let i = 0; i < times; i++) parts.push({ name, value: c.of(values) });
  }
  parts.splice(c.below(parts.length + 1), 0, {
    name: file,
    value: "RIFF\r\n--b\r\nhttps://a.example/",
    filename: c.of(FILE_NAMES),
  });
  const form = { path, parts, planted: "nothing" };
  if (c.is(0.6)) {
    form.planted = c.of(Object.keys(PLANTS));
    PLANTS[form.planted](c, form);
  }
  return form;
}

/** The form's bytes, with the boundary `B`. */
export function written({ parts }: Form): string {
  const head = ({ name, filename }: Part) => {
    const more = filename === undefined ? "" : `; filename="${filename.replace(/[\\"]/g, "\\$&")}"`;
    return `Content-Disposition: form-data; name="${name}"${more}`;
  };
  return `${parts.map((part) => `--B\r\n${head(part)}\r\n\r\n${part.value}\r\n`).join("")}--B--\r\n`;
}

/** Reads the parts of a form that was sent on. */
export function parsed(text: string): Part[] {
  const boundary = text.slice(0, text.indexOf("\r\n"));
  return text
    .split(`${boundary}\r\n`)
    .slice(1)
    .map((part) => {
      const [, name, filename] = part.match(/name="([^"]*)"(?:; filename="([^"]*)")?/)!;
      const value = part.slice(part.indexOf("\r\n\r\n") + 4);
      const end = value.indexOf(`\r\n${boundary}--`);
      return {
        name,
        value: end < 0 ? value.slice(0, -2) : value.slice(0, end),
        ...(filename !== undefined && { filename }),
      };
    });
}

/** Whether the form that was sent on equals the client's. Names of files may be plainer. */
export function isSame(form: Form, sent: string): boolean {
  const parts = parsed(sent);
  const isPlain = (name: string | undefined) => name === undefined || !/[/\\"]/.test(name);
  return (
    parts.length === form.parts.length &&
    parts.every((part, i) => {
      const { name, value, filename } = form.parts[i];
      return (
        part.name === name &&
        part.value === value &&
        (part.filename === undefined) === (filename === undefined) &&
        isPlain(part.filename)
      );
    })
  );
}

/** Why a service that allows nothing must refuse a form; null if it may pass. */
export function formVerdict({ path, parts }: Form): string | null {
  if (path === "/v1/videos") return "videos are not offered";
  const seen = new Set<string>();
  for (const part of parts) {
    const isList = part.name.endsWith("[]") && path !== "/v1/files";
    const isImages = path.startsWith("/v1/images") && part.name === "image" && part.filename !== undefined;
    const key = path === "/v1/files" ? part.name.toLowerCase() : part.name;
    if (seen.has(key) && !isList && !isImages) return `twice: ${part.name}`;
    seen.add(key);
    const problem = fieldVerdict(path, part);
    if (problem) return problem;
  }
  for (const needed of path === "/v1/files" ? ["purpose", "file"] : ["model"]) {
    if (!seen.has(needed)) return `no ${needed}`;
  }
  return null;
}

function fieldVerdict(path: string, { name, value, filename }: Part): string | null {
  const isFiles = path === "/v1/files";
  const parts = name.split(/[^\w-]+/).filter((part) => part !== "");
  if (isFiles && name !== "purpose" && name !== "file" && ["purpose", "file"].includes(parts[0]))
    return `read as another: ${name}`;
  if (name !== parts[0]) {
    const isRoute = (part: string) =>
      [...routing, ...routingLike, "model", "models"].some((one) => one.toLowerCase() === part.toLowerCase());
    if (
      parts.some(
        (part) => isRoute(part) || engineInputs.includes(part) || ["file_id", "vector_store_ids"].includes(part),
      )
    )
      return `a part of the name: ${name}`;
  }
  const deciding = DECIDING.find(
    (known) =>
      known === name.toLowerCase() && (isFiles ? ["purpose", "file"] : ["model", "stream", "user"]).includes(known),
  );
  if (deciding && deciding !== name) return `in other letters: ${name}`;
  if (/(^|\[)(file_id|vector_store_ids)\]?(\[\])?$/.test(name)) return `an id: ${name}`;
  if (isFiles) {
    if ((name === "file") !== (filename !== undefined)) return `no file, or one too many: ${name}`;
    if (name === "purpose") return /^[a-z_-]{1,64}$/.test(value) && !value.startsWith("batch") ? null : "a purpose";
  } else if (deciding && filename !== undefined) return `a file: ${name}`;
  if (filename !== undefined)
    return isFiles || KNOWN[path].media.includes(name.split("[")[0]) ? null : `a file nobody knows: ${name}`;
  if (name === "model") return value === "" || isPlace(value, true) ? "a model that routes" : null;
  if (name === "stream" && !isFiles) return ["true", "false", ""].includes(value.trim()) ? null : "a stream";
  const base = name.split(/[[.]/)[0];
  const json = read(value);
  const { fields, text, media } = KNOWN[path];
  const documented = [...text, ...media, ...Object.keys(fields).map((field) => field.split("[")[0])];
  const isRoute = routing.some((one) => one.toLowerCase() === base.toLowerCase());
  if (!documented.includes(base)) {
    if (json === null) return null;
    if (engineInputs.includes(base) && json !== false) return `an engine's input: ${name}`;
    if (isRoute) return `routes: ${name}`;
    if (hosting.includes(base) && json !== false) return `hosted: ${name}`;
    if (typeof json === "string" || typeof json === "object") return `unknown: ${name}`;
    return null;
  }
  if (text.includes(base)) return null;
  return strings(json).some((one) =>
    media.includes(base) ? !isMedia(one) : isPlace(one, ["user", "safety_identifier"].includes(base)),
  )
    ? `place: ${name}`
    : null;
}

/** The value that readers of forms see in a field. */
function read(value: string): any {
  if (value.startsWith('"')) return value;
  try {
    return JSON.parse(value);
  } catch {
    return value;
  }
}

const strings = (value: any): string[] =>
  typeof value === "string" ? [value] : value && typeof value === "object" ? Object.values(value).flatMap(strings) : [];

/** The paths that batches may use. */
const ASKED = [
  "/v1/chat/completions",
  "/v1/responses",
  "/v1/completions",
  "/v1/embeddings",
  "/v1/moderations",
  "/v1/images/generations",
  "/v1/audio/speech",
];

export interface Batch {
  lines: string[];
  why: string | null;
  planted: string;
}

/** Makes the input of a batch, and says whether it must be refused. All its lines use one path. */
export function makeBatch(c: Chance, engine: boolean): Batch {
  const [path, other] = [c.of([...ASKED, ...ASKED.slice(0, 2)]), c.of(ASKED)];
  const made = c.list(4, () => batchLine(c, engine, path));
  if (c.is(0.1) && other !== path)
    made.push({ ...batchLine(c, engine, other), why: "two paths", planted: "a line of another path" });
  const bad = made.find((line) => line.why !== null);
  return { lines: made.map(({ text }) => text), why: bad?.why ?? null, planted: bad?.planted ?? made[0].planted };
}

function batchLine(c: Chance, engine: boolean, path: string): { text: string; why: string | null; planted: string } {
  const asked = make(c, engine, path);
  const line: Json = {
    custom_id: c.of(["1", "session:123", "a b"]),
    method: "POST",
    url: asked.path,
    body: asked.body,
  };
  let { planted } = asked;
  let why = verdict(asked.path, asked.body, engine);
  if (c.is(0.08)) {
    planted = "in a line, beside the body";
    const other = c.of(["custom_id", "method", "url", c.of(strangeKeys), c.of(routing), "Body", "URL"]);
    line[other] = c.of<any>([c.of(places), "word", 7, { a: "b" }]);
    why ??= lineVerdict(other, line[other]);
  }
  return { text: JSON.stringify(line), why, planted };
}

function lineVerdict(key: string, value: any): string | null {
  if (key === "custom_id") return typeof value === "string" && isPlace(value, true) ? "place: custom_id" : null;
  if (key === "method" || key === "url") return `no request: ${key}`;
  if (["body", "url"].includes(key.toLowerCase())) return `in other letters: ${key}`;
  if (routing.includes(key)) return `routes: ${key}`;
  return typeof value === "number" ? null : `unknown: ${key}`;
}
