// Names of files, in every way that clients write them. One plain name with its extension reaches the endpoint.
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { Edge, read, region, rules, serve, stopAll } from "./harness.js";

const bodies: Buffer[] = [];
let edge: Edge;

beforeAll(async () => {
  const url = await serve(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    bodies.push(Buffer.concat(chunks));
    response.setHeader("content-type", "application/json");
    response.end(
      JSON.stringify({ id: "file-1", object: "file", bytes: 4, filename: "x", purpose: "user_data", text: "hi" }),
    );
  });
  edge = await Edge.start(rules(1, region("DE", "fra", [url])), { STATE_KEY: "k".repeat(32) });
});
beforeEach(() => void bodies.splice(0));
afterAll(stopAll);

const AUDIO = Buffer.from([0xff, 0xfb, 0x90, 0x00]);

async function send(path: string, part: string, field: string, disposition: string | Buffer) {
  const body = Buffer.concat([
    Buffer.from("--B\r\nContent-Disposition: form-data; "),
    Buffer.from(disposition),
    Buffer.from("\r\nContent-Type: audio/mpeg\r\n\r\n"),
    AUDIO,
    Buffer.from("\r\n--B\r\nContent-Type: text/plain; charset=utf-8\r\n"),
    Buffer.from(`Content-Disposition: form-data; name=${field}\r\n\r\n`),
    Buffer.from(`${field === "model" ? "m" : "user_data"}\r\n--B--\r\n`),
  ]);
  const reply = await read(
    await edge.ask({ path, method: "POST", body, headers: { "content-type": 'multipart/form-data; boundary="B"' } }),
  );
  const [sent] = bodies.splice(0);
  const head =
    sent &&
    /Content-Disposition: form-data; name="(file|image|data)"; filename="([^"]*)"\r\n/.exec(sent.toString("utf8"));
  return { status: reply.status, text: reply.text, part: head?.[1], name: head?.[2], whole: sent?.includes(AUDIO) };
}

const PATHS: [path: string, part: string, field: string][] = [
  ["/v1/audio/transcriptions", "file", "model"],
  ["/v1/audio/translations", "file", "model"],
  ["/v1/images/edits", "image", "model"],
  ["/v1/images/variations", "image", "model"],
  ["/v1/files", "file", "purpose"],
];
const B64 = Buffer.from("Gespräch.mp3").toString("base64");

for (const [path, part, field] of PATHS) {
  test.each([
    [".NET's two", `name=${part}; filename="=?utf-8?B?${B64}?="; filename*=utf-8''Gespr%C3%A4ch.mp3`, "Gespräch.mp3"],
    ["filename* alone", `name="${part}"; filename*=utf-8''Gespr%C3%A4ch.mp3`, "Gespräch.mp3"],
    ["an encoded word", `name="${part}"; filename="=?utf-8?Q?Gespr=C3=A4ch.mp3?="`, "Gespräch.mp3"],
    ["UTF-8", `name="${part}"; filename="Gespräch.mp3"`, "Gespräch.mp3"],
    ["Latin-1", Buffer.from(`name="${part}"; filename="Gespräch.mp3"`, "latin1"), "Gespr_ch.mp3"],
    ["a percent sign", `name="${part}"; filename="100%.mp3"`, "100%.mp3"],
    ["a browser's quotation mark", `name="${part}"; filename="a%22b%0D%0A.mp3"`, "a_b__.mp3"],
    ["210 letters", `name="${part}"; filename="${"a".repeat(210)}.mp3"`, `${"a".repeat(210)}.mp3`],
    ["900 letters", `name="${part}"; filename="${"ä".repeat(900)}.mp3"`, `${"ä".repeat(118)}.mp3`],
    ["two names that differ", `name="${part}"; filename="a.wav"; filename*=utf-8''b.mp3`, "b.mp3"],
    ["an extended name nobody can read", `name="${part}"; filename="a.mp3"; filename*=utf-8''%ff.wav`, "a.mp3"],
    ["another field inside", `name="${part}"; filename*=utf-8''a%22%0D%0A%0D%0A--B%2F..%5C.mp3`, "a_____--B_.._.mp3"],
    ["marks that turn text", `name="${part}"; filename="a\u202e3pm.mp3"`, "a_3pm.mp3"],
    ["dots", `name="${part}"; filename=".."`, "file"],
  ] as [string, string | Buffer, string][])(`${path} takes %s`, async (_, disposition, name) => {
    expect(await send(path, part, field, disposition)).toMatchObject({ status: 200, part, name, whole: true });
  });
}

test.each([
  ["a name in pieces", "name=file; filename*0=a; filename*1=.mp3"],
  ["a name twice", 'name=file; filename="a.mp3"; filename="b.mp3"'],
  ["an extended name twice", "name=file; filename*=utf-8''a.mp3; filename*=utf-8''b.mp3"],
])("%s is refused", async (_, disposition) => {
  expect(await send("/v1/audio/transcriptions", "file", "model", disposition)).toMatchObject({
    status: 400,
    whole: undefined,
  });
});
