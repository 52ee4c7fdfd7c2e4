// Forms. A file is streamed to one endpoint, and every other field is judged. Other forms are held, judged and written
// again.
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { type Ask, Edge, StandIn, read, region, rules, stopAll } from "./harness.js";

const STATE_KEY = "k".repeat(32);
let fra: StandIn, par: StandIn, edge: Edge;

beforeAll(async () => {
  [fra, par] = await Promise.all(["eu-frankfurt", "eu-paris"].map((name) => StandIn.start(name)));
  const regions = {
    ...region("DE", "eu-frankfurt", [fra.url], { models: { whisper: "faster-whisper" } }),
    ...region("FR", "eu-paris", [par.url], { models: { whisper: "whisper-1" } }),
  };
  edge = await Edge.start(rules(1, regions, { limits: { body_bytes: 100_000 } }), { STATE_KEY });
});
beforeEach(() => Promise.all([fra, par].map((standIn) => standIn.reset())));
afterAll(stopAll);

type Part = [name: string, value: string | Uint8Array, filename?: string];

/** A form that is written by hand, so that its fields can have any order and any mistakes. */
function form(parts: Part[], path = "/v1/files", { boundary = "----form", end = true } = {}): Ask {
  const pieces = parts.flatMap(([name, value, filename]) => {
    const more = filename ? `; filename="${filename}"\r\nContent-Type: application/x-thing` : "";
    return [`--${boundary}\r\nContent-Disposition: form-data; name="${name}"${more}\r\n\r\n`, value, "\r\n"];
  });
  const body = Buffer.concat([...pieces, end ? `--${boundary}--\r\n` : ""].map((piece) => Buffer.from(piece)));
  return { path, method: "POST", body, headers: { "content-type": `multipart/form-data; boundary=${boundary}` } };
}

const send = async (...args: Parameters<typeof form>) => read(await edge.ask(form(...args)));
const purpose: Part = ["purpose", "user_data"];
const large = Buffer.alloc(3_000_000, "0123456789abcdef\r\n");

test.each([
  ["behind its purpose", [purpose, ["file", large, "a.bin"]]],
  ["before its purpose", [["file", large, "a.bin"], purpose]],
] as [string, Part[]][])("a file larger than any limit streams, %s", async (_, parts) => {
  const { status, json, region } = await send(parts);
  expect({ status, json, region }).toMatchObject({
    status: 200,
    json: { bytes: large.length, filename: "a.bin" },
    region: "eu-frankfurt",
  });
  const content = await edge.ask({ path: `/v1/files/${json.id}/content` });
  expect(content.headers.get("content-type")).toBe("application/x-thing");
  expect(Buffer.from(await content.arrayBuffer()).equals(large)).toBe(true);
  expect(await par.requests()).toEqual([]);
});

test("batch input is 400 unless allowed, also when its purpose comes after the file", async () => {
  for (const parts of [
    [
      ["file", "{}", "a"],
      ["purpose", "batch"],
    ],
    [
      ["purpose", "batch"],
      ["file", large, "a"],
    ],
  ] as Part[][]) {
    expect(await send(parts)).toMatchObject({ status: 400, code: "batch_not_allowed" });
  }
  expect(await fra.requests()).toEqual([]);
  // The file was already being sent to an endpoint of the fence, but the endpoint never gets all of it.
  expect(
    await send([
      ["file", large, "a"],
      ["purpose", "batch"],
    ]),
  ).toMatchObject({ status: 400, code: "batch_not_allowed" });
  expect(await fra.requests()).toEqual([]);
  // The failure doesn't count against the endpoint, which serves the next request.
  expect((await send([["file", "x", "a"], purpose])).status).toBe(200);
});

test("a part of an upload of any size streams; the purpose of the upload is judged at its beginning", async () => {
  const begin = { filename: "a", bytes: large.length, mime_type: "application/octet-stream", purpose: "user_data" };
  const upload = await read(await edge.ask({ path: "/v1/uploads", json: begin }));
  const part = await send([["data", large, "blob"]], `/v1/uploads/${upload.json.id}/parts`);
  expect({ status: part.status, region: part.region }).toEqual({ status: 200, region: "eu-frankfurt" });
  const done = await read(
    await edge.ask({ path: `/v1/uploads/${upload.json.id}/complete`, json: { part_ids: [part.json.id] } }),
  );
  expect(done.json.file.bytes).toBe(large.length);
  await fra.reset();
  expect(await read(await edge.ask({ path: "/v1/uploads", json: { ...begin, purpose: "batch" } }))).toMatchObject({
    status: 400,
    code: "batch_not_allowed",
  });
  expect(
    await send(
      [
        ["data", "x", "blob"],
        ["purpose", "batch"],
      ],
      `/v1/uploads/${upload.json.id}/parts`,
    ),
  ).toMatchObject({ status: 400 });
  expect(await fra.requests()).toEqual([]);
});

test.each([
  ["no purpose", form([["file", "x", "a"]]), 400],
  ["no file", form([purpose]), 400],
  ["an upload that is for nothing", { path: "/v1/uploads", json: { filename: "a", bytes: 1 } }, 400],
  ["a purpose twice", form([purpose, ["file", "x", "a"], ["purpose", "batch"]]), 400],
  ["a purpose in other letters", form([purpose, ["file", "x", "a"], ["Purpose", "batch"]]), 400],
  [
    "a purpose as a file",
    form([
      ["purpose", "batch", "p"],
      ["file", "x", "a"],
    ]),
    400,
  ],
  ["two files", form([purpose, ["file", "x", "a"], ["file", "y", "b"]]), 400],
  ["a field without end", form([["expires_after[seconds]", "9".repeat(10_000)], purpose, ["file", "x", "a"]]), 413],
  ["no last boundary", form([purpose, ["file", "x", "a"]], "/v1/files", { end: false }), 400],
  ["no form", { path: "/v1/files", method: "POST", body: "{}", headers: { "content-type": "application/json" } }, 400],
  ["a form where JSON belongs", form([["model", "whisper"]], "/v1/chat/completions"), 400],
  ["JSON where a form belongs", { path: "/v1/audio/transcriptions", json: { model: "whisper" } }, 400],
  ["a transcription without a model", form([["file", "x", "a.wav"]], "/v1/audio/transcriptions"), 400],
  [
    "a transcription with two models",
    form(
      [
        ["model", "whisper"],
        ["model", "other"],
        ["file", "x", "a.wav"],
      ],
      "/v1/audio/transcriptions",
    ),
    400,
  ],
  [
    "a transcription over the limit",
    form(
      [
        ["model", "whisper"],
        ["file", large, "a.wav"],
      ],
      "/v1/audio/transcriptions",
    ),
    413,
  ],
  [
    "a model of no endpoint",
    form(
      [
        ["model", "other"],
        ["file", "x", "a.wav"],
      ],
      "/v1/audio/transcriptions",
    ),
    404,
  ],
  [
    "a remote image instead of a file",
    form(
      [
        ["model", "whisper"],
        ["image", "https://example.com/a.png"],
      ],
      "/v1/images/edits",
    ),
    400,
  ],
  [
    "a remote image",
    form(
      [
        ["model", "whisper"],
        ["image_url", "https://example.com/a.png"],
      ],
      "/v1/images/edits",
    ),
    400,
  ],
] as [string, Ask, number][])("%s", async (_, ask, status) => {
  const reply = await read(await edge.ask(ask));
  expect({ status: reply.status, text: reply.text }).toMatchObject({ status });
  expect(reply.json.error.message.length).toBeGreaterThan(20);
  expect([...(await fra.requests()), ...(await par.requests())]).toEqual([]);
});

test("a transcription has each endpoint's own name of the model, and is retried", async () => {
  const parts: Part[] = [
    ["file", "\0RIFF", "a.wav"],
    ["model", "whisper"],
    ["language", "de"],
  ];
  expect(await send(parts, "/v1/audio/transcriptions")).toMatchObject({
    status: 200,
    region: "eu-frankfurt",
    json: { bytes: 5, model: "whisper" },
  });
  expect((await fra.requests())[0].body).toContain("\r\n\r\nfaster-whisper\r\n");
  await fra.fail({ mode: "status", status: 500 });
  expect(await send(parts, "/v1/audio/transcriptions")).toMatchObject({ status: 200, region: "eu-paris" });
  expect((await par.requests())[0].body).toContain("\r\n\r\nwhisper-1\r\n");
});
