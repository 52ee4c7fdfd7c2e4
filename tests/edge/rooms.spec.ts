// Buffers of large bodies in one isolate. A body passes if it fits into memory together with the bodies that are held
// now; the sizes of earlier bodies don't matter.
import { request as httpRequest } from "node:http";
import { afterAll, beforeAll, expect, test } from "vitest";
import { region, rules, serve, stopAll, until } from "./harness.js";
import { workerd } from "./workerd.js";

/** How many bodies each test sends. A long run tests more: ROOMS_BODIES=480 ROOMS_SEED=7. */
const BODIES = Number(process.env.ROOMS_BODIES ?? 48);
const SEED = Number(process.env.ROOMS_SEED ?? 1);
/** The most bytes of bodies under way at once, which is what the documentation promises to hold. */
const HELD = 32 << 20;
const MAX = 31e6;

let url: string, log: () => string;

beforeAll(async () => {
  const endpoint = await serve(async (request, response) => {
    for await (const _ of request);
    response.setHeader("content-type", "application/json");
    const choices = [{ index: 0, finish_reason: "stop", message: { role: "assistant", content: "hi" } }];
    response.end(JSON.stringify({ id: "x", object: "chat.completion", model: "m", text: "hi", choices }));
  });
  const residency = [{ clients: ["*", "unknown"], process_in: ["*"] }];
  const book = rules(1, region("DE", "fra", [endpoint]), { residency, hosts: ["127.0.0.1"] });
  const feed = await serve((_, response) => response.end(JSON.stringify(book)));
  ({ url, log } = await workerd({ RULES_URL: `${feed}/v1/rules` }));
  await until(
    async () => (await fetch(`${url}/.well-known/bailiwick/healthz`)).status,
    (status) => status === 200,
  );
});
afterAll(stopAll);

interface Body {
  path: string;
  type: string;
  bytes: Buffer;
  announced: boolean;
}

function post({ path, type, bytes, announced }: Body): Promise<number> {
  const headers = { "content-type": type, ...(announced ? { "content-length": bytes.length } : {}) };
  return new Promise((resolve, reject) => {
    const sent = httpRequest(`${url}${path}`, { method: "POST", agent: false, headers }, async (response) => {
      for await (const _ of response);
      resolve(response.statusCode!);
    });
    sent.on("error", reject);
    for (let at = 0; at < bytes.length; at += 1 << 16) sent.write(bytes.subarray(at, at + (1 << 16)));
    sent.end();
  });
}

/** Random numbers from 0 to 1, which depend only on the seed (mulberry32). */
function numbers(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function form(length: number, announced: boolean): Body {
  const part = (name: string) => `--B\r\nContent-Disposition: form-data; name="${name}"`;
  const head = `${part("model")}\r\n\r\nm\r\n${part("file")}; filename="a.mp3"\r\n\r\n`;
  const bytes = Buffer.concat([Buffer.from(head), Buffer.alloc(length, "0123456789"), Buffer.from("\r\n--B--\r\n")]);
  return { path: "/v1/audio/transcriptions", type: "multipart/form-data; boundary=B", bytes, announced };
}

function image(length: number, announced: boolean): Body {
  const picture = { type: "image_url", image_url: { url: `data:image/png;base64,${"QUJD".repeat(length / 4)}` } };
  const bytes = Buffer.from(JSON.stringify({ model: "m", messages: [{ role: "user", content: [picture] }] }));
  return { path: "/v1/chat/completions", type: "application/json", bytes, announced };
}

/** A random size from 10 kB to 31 MB. Each power of two is equally likely. */
function size(random: () => number): number {
  return Math.floor(1e4 * (MAX / 1e4) ** random());
}

test("bodies of all sizes pass one after the other, with and without content-length", async () => {
  const random = numbers(SEED);
  const refused: string[] = [];
  for (let asked = 0; asked < BODIES; asked++) {
    const make = random() < 0.5 ? form : image;
    const body = make(size(random), random() < 0.5);
    const status = await post(body);
    if (status !== 200) refused.push(`${status} for body ${asked} of ${body.bytes.length}`);
  }
  expect(refused).toEqual([]);
});

// Each client begins as soon as its body fits beside the others'.
test("concurrent bodies of all sizes pass", async () => {
  const random = numbers(SEED);
  const refused: string[] = [];
  const waiting: (() => void)[] = [];
  let held = 0,
    asked = 0,
    done = 0;
  const large = async () => {
    while (asked < BODIES) {
      asked++;
      const body = (random() < 0.5 ? form : image)(size(random), true);
      const { length } = body.bytes;
      while (held + length > HELD) await new Promise<void>((resolve) => waiting.push(resolve));
      held += length;
      const status = await post(body);
      if (status !== 200) refused.push(`${status} for ${length} beside ${held - length}`);
      held -= length;
      done++;
      waiting.splice(0).forEach((go) => go());
    }
  };
  const small = async () => {
    while (done < BODIES) {
      const status = await post(image(random() * 60_000, true));
      if (status !== 200) refused.push(`${status} for a small one`);
    }
  };
  await Promise.all([large(), large(), large(), large(), small()]);
  expect(refused).toEqual([]);
  expect(log()).not.toContain("panic");
});
