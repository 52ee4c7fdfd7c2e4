// The Worker on workerd without Miniflare, which would invent missing values. Here there is no request.cf at all.
import { once } from "node:events";
import { request } from "node:http";
import { connect } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { StandIn, keyDigest, read, region, residency, rules, serve, stopAll, until } from "./harness.js";
import { workerd } from "./workerd.js";

const IDLE = 300;
/**
 * How many events of a kilobyte a fast endpoint sends: more than all buffers between it and a client that doesn't read.
 */
const FLOOD = 30_000;
let url: string,
  fra: StandIn,
  flooded = 0;

/** The size of an answer that is too large for the Worker to hold as a whole. */
const large = JSON.stringify({
  object: "list",
  data: [{ object: "embedding", index: 0, embedding: Array.from({ length: 700_000 }, (_, i) => i / 7) }],
});

beforeAll(async () => {
  fra = await StandIn.start("eu-frankfurt");
  // The endpoint answers with the whole body, or with a part of the announced length.
  const giant = await serve((request, response) => {
    let asked = "";
    request.on("data", (chunk) => (asked += chunk));
    request.on("end", () => {
      const { model } = JSON.parse(asked);
      const chunked = model.startsWith("chunked");
      response.writeHead(200, {
        "content-type": "application/json",
        ...(!chunked && { "content-length": large.length }),
      });
      if (!model.endsWith("cut")) response.end(large);
      else response.write(large.slice(0, 10_000_000), () => setTimeout(() => response.destroy(), 20));
    });
  });
  const fast = await serve((request, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    const flow = () => {
      while (flooded < FLOOD) {
        flooded += 1;
        if (!response.write(event("x".repeat(1_000)))) return void response.once("drain", flow);
      }
      response.end("data: [DONE]\n\n");
    };
    request.resume().on("end", flow);
  });
  const regions = {
    ...region("DE", "eu-frankfurt", [fra.url]),
    ...region("FR", "eu-paris", [giant]),
    ...region("NL", "eu-flood", [fast]),
  };
  const document = rules(
    1,
    regions,
    { regions: ["eu-frankfurt"] },
    { networks: [{ prefix: "198.51.100.0/24", country: "DE" }] },
  );
  const anyone = [...residency, { clients: ["unknown"], process_in: ["eu"] }];
  document.services.anyone = { ...document.services.chat, hosts: ["anyone.example"], residency: anyone };
  document.services.giant = { ...document.services.anyone, hosts: ["giant.example"], regions: ["eu-paris"] };
  document.services.flood = {
    ...document.services.anyone,
    hosts: ["flood.example"],
    regions: ["eu-flood"],
    limits: { idle: `${IDLE}ms` },
  };
  const node = await serve((_, response) => response.end(JSON.stringify(document)));
  ({ url } = await workerd({ RULES_URL: `${node}/v1/rules` }));
});
afterAll(stopAll);

async function chat(host: string, headers: Record<string, string> = {}, path = "/v1/chat/completions", model = "m") {
  const reply = await new Promise<Response>((resolve, reject) => {
    const ask = request(url, { path, method: "POST", agent: false, headers: { host, ...headers } }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () =>
        resolve(
          new Response(Buffer.concat(chunks), { status: response.statusCode, headers: response.headers as never }),
        ),
      );
    });
    ask.on("error", reject);
    ask.end(JSON.stringify({ model, messages: [] }));
  });
  return read(reply as never);
}

test("a client without request.cf is unknown: denied, unless the service takes unknown clients", async () => {
  expect(await chat("chat.example")).toMatchObject({ status: 451, code: "residency_denied" });
  expect(await fra.requests()).toEqual([]);
  expect(await chat("anyone.example")).toMatchObject({ status: 200, region: "eu-frankfurt" });
});

test("networks place a client by the address that the front reports", async () => {
  expect(await chat("chat.example", { "cf-connecting-ip": "198.51.100.9" })).toMatchObject({
    status: 200,
    region: "eu-frankfurt",
  });
});

// This needs a raw socket: every other client, and Miniflare, normalises a URL before it is sent.
test.each([
  "/v1/%2e%2e/admin",
  "/v1/../admin",
  "/v1//chat/completions",
  "//evil.example/v1/chat/completions",
  "/v1\\admin",
  "/v1/./chat/completions",
  "/v1/x/../chat/completions",
  "/v1/chat%2fcompletions",
  "/v1/chat%5Ccompletions",
  "/v1/chat/%2e/completions/..",
  "/v1/%2e/chat/completions",
  "/v1\\chat/completions",
  "/v1/chat/completions/..%2f..%2fadmin",
])("a path written as %s reaches no endpoint", async (path) => {
  await fra.reset();
  const { status, code } = await chat("anyone.example", {}, path);
  expect([400, 404]).toContain(status);
  expect(code).toMatch(/^(invalid_path|unknown_path)$/);
  expect(await fra.requests()).toEqual([]);
});

test("a fragment is no part of a path", async () => {
  await fra.reset();
  expect(await chat("anyone.example", {}, "/v1/chat/completions#x")).toMatchObject({ status: 200 });
  expect((await fra.requests()).map(({ path }) => path)).toEqual(["/v1/chat/completions"]);
});

test.each(["announced", "chunked"])(
  "a unary answer too large to be held, its length %s, passes byte by byte",
  async (model) => {
    const { status, text } = await chat("giant.example", {}, undefined, model);
    expect([status, text.length, keyDigest(text)]).toEqual([200, large.length, keyDigest(large)]);
  },
);

const event = (content: string) => `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content } }] })}\n\n`;

test("a client slower than the endpoint's idle limit gets the whole answer", async () => {
  const { port } = new URL(url);
  const body = JSON.stringify({ model: "m", stream: true, messages: [] });
  const socket = connect(Number(port), "127.0.0.1").on("error", () => {});
  socket.write(
    `POST /v1/chat/completions HTTP/1.1\r\nhost: flood.example\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
  );
  await once(socket, "readable");
  // The client doesn't read. So the endpoint's writes stop, for far longer than the endpoint's idle limit.
  let [seen, since] = [flooded, Date.now()];
  await until(
    async () => {
      if (flooded !== seen) [seen, since] = [flooded, Date.now()];
      return Date.now() - since;
    },
    (still) => still > 4 * IDLE,
  );
  expect(flooded).toBeLessThan(FLOOD);
  let size = 0,
    tail = "";
  for await (const chunk of socket) {
    size += chunk.length;
    tail = (tail + chunk.toString("latin1")).slice(-100);
    if (tail.endsWith("\r\n0\r\n\r\n")) break;
  }
  expect(tail).toContain("data: [DONE]");
  expect(size).toBeGreaterThan(FLOOD * 1_000);
});

test.each([
  ["with a length", "cut"],
  ["chunked", "chunked-cut"],
])("an answer that is cut is broken off, not ended: %s", async (_, model) => {
  const outcome = await chat("giant.example", {}, undefined, model).then(
    ({ status }) => `whole, ${status}`,
    (error) => error.code,
  );
  expect(outcome).toBe("ECONNRESET");
});
