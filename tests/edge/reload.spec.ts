// New rules while requests are served: a large document is compiled in turns, so that other requests are answered in
// between, and a stream that began by the rules before goes on.
import { type ServerResponse, request as httpRequest } from "node:http";
import { text } from "node:stream/consumers";
import { afterAll, expect, test } from "vitest";
import { type Json, keyDigest, region, rules, serve, stopAll, until } from "./harness.js";
import { workerd } from "./workerd.js";

afterAll(stopAll);

const completion = JSON.stringify({
  id: "x",
  object: "chat.completion",
  model: "m",
  choices: [{ index: 0, finish_reason: "stop", message: { role: "assistant", content: "hi" } }],
});
const event = (content: string, finish_reason: string | null) =>
  `data: ${JSON.stringify({
    id: "x",
    object: "chat.completion.chunk",
    model: "m",
    choices: [{ index: 0, delta: { content }, finish_reason }],
  })}\n\n`;

/** A document with `many` tenants and networks. */
function large(revision: number, endpoint: string, many: number): Json {
  const tenants: Json = {};
  for (let i = 0; i < many; i++)
    tenants[`tenant-${i}`] = { key_sha256: [keyDigest(`key-${i}`)], residency: "eu", services: ["chat"] };
  const networks = Array.from({ length: many }, (_, i) => ({
    prefix: `10.${i >> 8}.${i & 255}.0/24`,
    country: "DE",
  }));
  return rules(revision, region("DE", "fra", [endpoint]), { hosts: ["127.0.0.1"] }, { tenants, networks });
}

/** A source of rules whose document can be replaced. `sent` counts how often the current document was sent. */
async function source(document: Json) {
  const node = {
    url: "",
    text: JSON.stringify(document),
    sent: 0,
    offer(next: Json) {
      [node.text, node.sent] = [JSON.stringify(next), 0];
    },
  };
  node.url = await serve((request, response) => {
    const etag = `"${keyDigest(node.text)}"`;
    if (request.headers["if-none-match"] === etag) return void response.writeHead(304, { etag }).end();
    response.writeHead(200, { etag }).end(node.text, () => node.sent++);
  });
  return node;
}

interface Reply {
  status: number;
  revision: string;
  /** The part of the body that has arrived so far, and the whole body. */
  soFar(): string;
  whole: Promise<string>;
}

function ask(url: string, key: string, host: string, more: Json = {}): Promise<Reply> {
  const body = JSON.stringify({ model: "m", messages: [{ role: "user", content: "hi" }], ...more });
  const headers = { host, authorization: `Bearer ${key}`, "content-type": "application/json" };
  return new Promise((resolve, reject) => {
    const sent = httpRequest(`${url}/v1/chat/completions`, { method: "POST", headers }, (response) => {
      let body = "";
      const whole = new Promise<string>((done, failed) => {
        response.on("data", (chunk) => (body += chunk)).on("end", () => done(body));
        response.on("error", failed);
      });
      const revision = String(response.headers["x-bailiwick-revision"]);
      resolve({ status: response.statusCode!, revision, soFar: () => body, whole });
    });
    sent.on("error", reject).end(body);
  });
}

test("a large document, valid or invalid, delays no request while it is compiled", async () => {
  const endpoint = await serve((request, response) => {
    request.resume().on("end", () => response.writeHead(200, { "content-type": "application/json" }).end(completion));
  });
  const node = await source(large(1, endpoint, 5_000));
  const { url, log } = await workerd({ RULES_URL: `${node.url}/v1/rules`, RULES_REFRESH_SECONDS: "1" });
  const once = async () => {
    const reply = await ask(url, "key-0", "127.0.0.1");
    await reply.whole;
    return reply;
  };
  await until(once, (reply) => reply.status === 200);

  /** How many requests are answered after the document was sent and before the log says the outcome. */
  const answeredMeanwhile = async (next: Json, outcome: string) => {
    const before = log().split(outcome).length;
    node.offer(next);
    for (let answered = 0; ;) {
      const reply = await once();
      expect(reply.status).toBe(200);
      answered += Number(node.sent > 0);
      if (log().split(outcome).length > before) return answered;
    }
  };
  // If the document were compiled without pauses, one or two requests would be answered.
  expect(await answeredMeanwhile(large(2, endpoint, 5_000), '"rules_taken"')).toBeGreaterThan(10);
  expect((await once()).revision).toMatch(/^2/);

  const bad = large(3, endpoint, 5_000);
  for (const tenant of Object.values(bad.tenants as Json)) tenant.residency = "nowhere";
  expect(await answeredMeanwhile(bad, '"rules_refused"')).toBeGreaterThan(10);
  expect((await once()).revision).toMatch(/^2/);
}, 60_000);

test("the memory of an isolate stays below twice that of its rules, however often they change", async () => {
  const endpoint = await serve((request, response) => {
    request.resume().on("end", () => response.writeHead(200, { "content-type": "application/json" }).end(completion));
  });
  const many = 20_000;
  const node = await source(large(1, endpoint, many));
  const bindings = { RULES_URL: `${node.url}/v1/rules`, RULES_REFRESH_SECONDS: "1", EXPLAIN_TOKEN: "operators-token" };
  const { url } = await workerd(bindings);
  const served = (revision: number) =>
    until(
      async () => {
        const reply = await ask(url, "key-0", "127.0.0.1");
        await reply.whole;
        return `${reply.status} ${reply.revision}`;
      },
      (reply) => reply.startsWith(`200 ${revision}-`) || reply === `200 ${revision}`,
    );
  const memory = async () => {
    const headers = { authorization: "Bearer operators-token" };
    const metrics = await (await fetch(`${url}/.well-known/bailiwick/metrics`, { headers })).text();
    return Number(/^bailiwick_edge_memory_bytes (\d+)$/m.exec(metrics)?.[1]);
  };
  await served(1);
  const first = await memory();
  const later: number[] = [];
  for (let revision = 2; revision <= 8; revision++) {
    node.offer(large(revision, endpoint, many));
    await served(revision);
    later.push(await memory());
  }
  const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  console.log(`Wasm memory with ${many} tenants: ${mib(first)} at first, then ${later.map(mib).join(", ")}`);
  expect(Math.max(...later)).toBeLessThan(2 * first);
}, 120_000);

test.each(["inspect", "pipe"])(
  "a stream in progress goes on when the rules change: %s",
  async (streams) => {
    let finish = () => {};
    const answer = (response: ServerResponse) =>
      response.writeHead(200, { "content-type": "application/json" }).end(completion);
    const endpoint = await serve(async (request, response) => {
      if (!(await text(request)).includes('"stream":true')) return answer(response);
      response.writeHead(200, { "content-type": "text/event-stream" }).write(event("begun", null));
      finish = () => response.end(`${event("ended", "stop")}data: [DONE]\n\n`);
    });
    const other = await serve((request, response) => request.resume().on("end", () => answer(response)));
    const service = { hosts: ["127.0.0.1"], streams, residency: [{ clients: ["*", "unknown"], process_in: ["*"] }] };
    const node = await source(rules(1, region("DE", "fra", [endpoint]), service));
    const { url } = await workerd({ RULES_URL: `${node.url}/v1/rules`, RULES_REFRESH_SECONDS: "1" });
    const stream = await until(
      () => ask(url, "", "127.0.0.1", { stream: true }),
      (reply) => reply.status === 200,
    );
    await until(
      async () => stream.soFar(),
      (text) => text.includes("begun"),
    );

    // The new rules don't have the stream's region.
    node.offer(rules(2, region("FR", "par", [other]), service));
    await until(
      async () => {
        const reply = await ask(url, "", "127.0.0.1");
        return [reply.status, reply.revision.slice(0, 1), await reply.whole].join();
      },
      (reply) => reply.startsWith("200,2,"),
    );
    finish();
    expect(await stream.whole).toMatch(/begun[^]*ended[^]*data: \[DONE\]\n\n$/);
  },
  30_000,
);
