// Content that a model host would act on though it wasn't judged as a request: a batch from a file that was uploaded
// for another purpose, and a playlist instead of media.
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Edge, type Json, type Recorded, read, region, rules, serve, stopAll } from "./harness.js";

const STATE_KEY = "0123456789abcdef".repeat(4);
let edge: Edge;
let sent: Pick<Recorded, "method" | "path">[];
/** The file objects of the endpoint, by id. */
const files = new Map<string, { status: number; object: Json }>();

beforeAll(async () => {
  const url = await serve((request, response) => {
    request.resume().on("end", () => {
      sent.push({ method: request.method!, path: request.url! });
      const id = request.url!.match(/^\/v1\/files\/(.+)$/)?.[1];
      const file =
        id === undefined ? undefined : (files.get(id) ?? { status: 404, object: { error: { message: "gone" } } });
      const made = request.url === "/v1/files" ? { id: "file-1", object: "file" } : { id: "batch_1", object: "batch" };
      response
        .writeHead(file?.status ?? 200, { "content-type": "application/json" })
        .end(JSON.stringify(file?.object ?? made));
    });
  });
  const document = rules(1, region("DE", "fra", [url]), { allow: ["batch", "unknown_fields"] });
  edge = await Edge.start(document, { STATE_KEY });
});
beforeEach(() => {
  sent = [];
  files.clear();
});
afterAll(stopAll);

const encoded = async (form: FormData) => {
  const whole = new Response(form);
  return {
    body: Buffer.from(await whole.arrayBuffer()),
    headers: { "content-type": whole.headers.get("content-type")! },
  };
};
const posted = async (path: string, fields: Record<string, string>, file: string, name = "a") => {
  const form = new FormData();
  for (const [field, value] of Object.entries(fields)) form.set(field, value);
  form.set("file", new Blob([file]), name);
  return read(await edge.ask({ path, ...(await encoded(form)) }));
};
const uploaded = async (purpose: string) =>
  (await posted("/v1/files", { purpose }, '{"custom_id":"a"}\n')).json.id as string;
const batch = async (input_file_id: unknown, more: Json = {}) =>
  read(
    await edge.ask({
      path: "/v1/batches",
      json: { input_file_id, endpoint: "/v1/chat/completions", completion_window: "24h", ...more },
    }),
  );
const made = () => sent.filter(({ method, path }) => method === "POST" && path === "/v1/batches").length;

test("a batch may be made from a file that was uploaded for batches", async () => {
  const id = await uploaded("batch");
  files.set("file-1", { status: 200, object: { id: "file-1", purpose: "batch" } });
  expect(await batch(id)).toMatchObject({ status: 200, json: { object: "batch" } });
  expect(made()).toBe(1);
});

test("a batch can't be made from any other file, because its lines weren't judged", async () => {
  const id = await uploaded("user_data");
  for (const purpose of ["user_data", "fine-tune", "assistants", "batch_output", "Batch", "batch "]) {
    files.set("file-1", { status: 200, object: { id: "file-1", purpose } });
    expect(await batch(id), String(purpose)).toMatchObject({
      status: 400,
      code: "invalid_field",
      json: { error: { param: "input_file_id" } },
    });
  }
  files.set("file-1", { status: 200, object: { id: "file-1", purpose: "batch" } });
  for (const [input, more] of [
    [[id, id], {}],
    [id, { other_file_id: id }],
  ] as [unknown, Json][]) {
    expect(await batch(input, more)).toMatchObject({ status: 400, code: "invalid_field" });
  }
  expect(made()).toBe(0);
});

test("if the endpoint reports no purpose of a file, a batch is made; if it fails, no batch is made", async () => {
  const id = await uploaded("batch");
  expect(await batch(id)).toMatchObject({ status: 200 });
  files.set("file-1", { status: 200, object: { id: "file-1" } });
  expect(await batch(id)).toMatchObject({ status: 200 });
  expect(made()).toBe(2);
  for (const status of [429, 500]) {
    files.set("file-1", { status, object: { purpose: "batch" } });
    expect(await batch(id)).toMatchObject({ status: 503, code: "region_unavailable" });
  }
  expect(made()).toBe(2);
});

const playlists: [string, string][] = [
  ["HLS", "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10.0,\nhttp://169.254.169.254/x\n#EXT-X-ENDLIST\n"],
  ["a concat script", "ffconcat version 1.0\nfile /etc/passwd\n"],
  ["DASH", '<?xml version="1.0"?><!-- x --><MPD><BaseURL>http://a.example/</BaseURL></MPD>'],
  ["a session description", "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nc=IN IP4 192.0.2.1\r\nm=audio 5004 RTP/AVP 0\r\n"],
];

test.each(playlists)("%s is refused as media, because a decoder would open its links", async (_, list) => {
  const refused = { status: 400, code: "remote_url_not_allowed" };
  const base64 = Buffer.from(list).toString("base64");
  for (const part of [
    { type: "input_audio", input_audio: { data: base64, format: "wav" } },
    { type: "video_url", video_url: { url: `data:video/mp4;base64,${base64}` } },
    { type: "audio_url", audio_url: { url: `data:audio/wav,${encodeURIComponent(list)}` } },
  ]) {
    expect(
      await read(await edge.chat("DE", { messages: [{ role: "user", content: [part] }] })),
      part.type,
    ).toMatchObject(refused);
  }
  expect(await posted("/v1/audio/transcriptions", { model: "m" }, list, "a.wav")).toMatchObject({
    ...refused,
    json: { error: { param: "file" } },
  });
  expect(sent).toEqual([]);
});
