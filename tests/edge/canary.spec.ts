// Canaries in prompts, keys and error texts of endpoints. None may occur in a log, an error, a header or in KV.
import { request } from "node:http";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Faulty, canary as upstreams } from "./faulty.js";
import { Edge, type Json, keyDigest, region, rules, serve, stopAll, until } from "./harness.js";
import { workerd } from "./workerd.js";

const PROMPT = "PROMPT-CANARY",
  KEY = "sk-KEY-CANARY",
  SECRET = "SECRET-CANARY",
  NOBODY = "sk-STRANGER-CANARY";
const FAULTS = [
  "well",
  "500",
  "400",
  "401",
  "429",
  "error-event",
  "wrong-type",
  "empty",
  "mid-frame-reset",
  "garbage",
  "packed",
  "redirect",
  "late-error",
  "late-reset",
  "late-fin",
];

let faulty: Faulty, document: Json, edge: { url: string; log(): string };

beforeAll(async () => {
  faulty = await Faulty.start();
  const networks = [{ prefix: "198.51.100.0/24", country: "DE" }];
  document = rules(1, {}, {}, { networks, tenants: { acme: { key_sha256: [keyDigest(KEY)], services: FAULTS } } });
  document.services = {};
  for (const fault of FAULTS) {
    const regions = region("DE", `eu-${fault}`, [`${faulty.url}/${fault}`, `${faulty.url}/${fault}/again`], {
      secret: "EU_KEY",
    });
    Object.assign(document.regions, regions);
    document.services[fault] = rules(1, regions, { hosts: [`${fault}.example`] }).services.chat;
  }
  const node = await serve((_, response) => response.end(JSON.stringify(document)));
  edge = await workerd({ RULES_URL: `${node}/v1/rules`, EU_KEY: SECRET });
});
afterAll(stopAll);

const messages = [{ role: "user", content: PROMPT }];

/** Sends a request. Returns everything that comes back, including headers. */
async function send(
  host: string,
  body: string,
  headers: [string, string][] = [],
  path = "/v1/chat/completions",
): Promise<string> {
  const text = await new Promise<string>((resolve, reject) => {
    const ask = request(
      edge.url,
      { method: "POST", path, agent: false, headers: { host, ...Object.fromEntries(headers) } },
      (response) => {
        let text = `${response.statusCode} ${response.rawHeaders.join(" ")} `;
        response
          .on("data", (chunk) => (text += chunk))
          .on("error", reject)
          .on("end", () => resolve(text));
      },
    );
    ask.on("error", reject).end(body);
  });
  expect(text).toMatch(/^[2-5]\d\d /);
  return text;
}

const known: [string, string][] = [
  ["authorization", `Bearer ${KEY}`],
  ["cf-connecting-ip", "198.51.100.7"],
];

test.each(FAULTS)("an endpoint that answers with %s", async (fault) => {
  for (const stream of [false, true]) {
    // Twice, because the isolate answers differently when it knows that the endpoint fails.
    for (let i = 0; i < 2; i += 1) {
      const text = await send(
        `${fault}.example`,
        JSON.stringify({ model: "m", messages, stream, user: PROMPT, metadata: { PROMPT } }),
        known,
      );
      for (const word of [PROMPT, KEY, SECRET, upstreams]) expect(text).not.toContain(word);
    }
  }
});

test.each<[string, string, [string, string][], string?]>([
  ["nobody's key", "{}", [["authorization", `Bearer ${NOBODY}`]]],
  [
    "two keys",
    "{}",
    [
      ["authorization", `Bearer ${NOBODY}`],
      ["api-key", KEY],
    ],
  ],
  ["a key in the query", "{}", [], `/v1/chat/completions?api-key=${NOBODY}`],
  ["a key in the path", "{}", known, `/v1/${NOBODY}/completions`],
  ["broken JSON", `{"model":"m","messages":[{"content":"${PROMPT}`, known],
  [
    "a remote URL",
    JSON.stringify({ model: "m", messages: [{ content: [{ image_url: { url: `https://${PROMPT}/` } }] }] }),
    known,
  ],
  [
    "a session",
    JSON.stringify({ model: "m", messages }),
    [...known, ["x-session-id", PROMPT], ["idempotency-key", PROMPT]],
  ],
  ["a body too large", JSON.stringify({ model: "m", messages: PROMPT.repeat(700_000) }), known],
  [
    "many odd headers",
    "{}",
    [...known, ...Array.from({ length: 50 }, (_, i): [string, string] => [`x-${PROMPT}-${i}`, PROMPT.repeat(5)])],
  ],
])("%s", async (_, body, headers, path) => {
  const text = await send("well.example", body, headers, path);
  for (const word of [PROMPT, KEY, SECRET, NOBODY]) expect(text).not.toContain(word);
});

test("the log has no canary, but names the failures", async () => {
  expect(
    faulty.asked.some(({ body }) => body.includes(PROMPT)),
    "the prompts reached the endpoint",
  ).toBe(true);
  expect(faulty.asked.every(({ headers }) => headers.authorization === `Bearer ${SECRET}`)).toBe(true);
  await until(
    async () => edge.log(),
    (log) => log.includes('"event":"answer"'),
  );
  for (const word of ["CANARY", "198.51.100.7", "chat/completions"]) expect(edge.log()).not.toContain(word);
});

test("KV has no canary, because the Worker writes nothing to KV", async () => {
  const regions = region("DE", "eu", [`${faulty.url}/500`, faulty.url]);
  const own = await Edge.start(rules(1, regions));
  for (let i = 0; i < 3; i += 1)
    await (await own.chat("DE", { messages }, { headers: { authorization: `Bearer ${KEY}` } })).arrayBuffer();
  const kv = await own.miniflare.getKVNamespace("RULES");
  const { keys } = await kv.list();
  expect(keys.map(({ name }: { name: string }) => name)).toEqual(["rules"]);
  expect(await kv.get("rules")).toBe(JSON.stringify(rules(1, regions)));
});
