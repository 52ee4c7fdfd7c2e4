// PyPI's official client in its own process, against the edge over real sockets. scripts/setup installs it. Without
// Python these tests are skipped.
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Faulty } from "./faulty.js";
import { Edge, StandIn, keyDigest, root, rules, stopAll, until } from "./harness.js";

const cache = process.env.BAILIWICK_CACHE ?? `${process.env.XDG_CACHE_HOME ?? `${homedir()}/.cache`}/bailiwick`;
const python = `${cache}/python/bin/python`;
const missing = !existsSync(python);
if (missing) console.warn(`skipped: no ${python}; install python3 with venv, then scripts/setup python`);

let fra: StandIn, faulty: Faulty;
let steps: Record<string, { value?: unknown; error?: string; status?: number | null; code?: string | null }>;

describe.skipIf(missing)("PyPI's openai", () => {
  beforeAll(async () => {
    [fra, faulty] = await Promise.all([StandIn.start("eu-frankfurt", "--secret", "upstream"), Faulty.start()]);
    const secret = "EU_KEY";
    // Each failing model has its own failing endpoint, so that tests don't affect each other. Files go to the first
    // endpoint.
    const failing = (model: string, fault: string) => ({
      [`bad-${model}`]: { url: `${faulty.url}/${fault}/v1`, secret, models: { [model]: "x" }, priority: 1 },
    });
    const endpoints = {
      "fra-1": {
        url: `${fra.url}/v1`,
        secret,
        models: { "chat-large": "llama-3.3-70b-fp8", "chat-small": "llama-3.2-3b" },
      },
      ...failing("limited", "429"),
      ...failing("broken", "500"),
      ...failing("dies", "late-reset"),
      ...failing("endless", "late-flow"),
    };
    const tenants = { acme: { key_sha256: [keyDigest("sk-acme")], services: ["chat"] } };
    const document = rules(
      1,
      { "eu-frankfurt": { countries: ["DE"], endpoints } },
      { allow: ["store", "batch"] },
      { tenants },
    );
    const edge = await Edge.start(
      document,
      { EU_KEY: "upstream", STATE_KEY: "k".repeat(32) },
      { cf: { country: "DE" } },
    );
    const { port } = await edge.miniflare.ready;
    const script = `${root}tests/edge/openai_client.py`;
    const { stdout } = await promisify(execFile)(python, [script, `http://localhost:${port}/v1`, "sk-acme"], {
      timeout: 50_000,
    });
    steps = Object.fromEntries(
      stdout
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line))
        .map(({ step, ...rest }) => [step, rest]),
    );
    process.stdout.write(`\nPyPI's openai against the edge:\n${stdout}\n`);
  });
  afterAll(stopAll);

  test.each<[string, unknown]>([
    ["chat", ["eu-frankfurt", "Hello from eu-frankfurt"]],
    ["stream", "Hello from eu-frankfurt"],
    ["response", "Hello from eu-frankfurt"],
    ["embeddings", [0.25, -0.5, 0.125]],
    ["models", ["broken", "chat-large", "chat-small", "dies", "endless", "limited"]],
    ["abort", "Hello "],
    [
      "files",
      { sealed: true, found: [true, "a.bin", 102_400], content: true, listed: true, deleted: [true, true], left: [] },
    ],
    ["upload in parts", ["completed", true]],
    ["batch", [true, '{"answered":1}\n']],
    ["stored answers", true],
  ])("%s", (step, value) => expect(steps[step]).toEqual({ value }));

  test.each<[string, string, number | null, string]>([
    ["unknown model", "NotFoundError", 404, "model_not_found"],
    ["unknown file", "NotFoundError", 404, "not_found"],
    ["unknown key", "AuthenticationError", 401, "invalid_api_key"],
    ["bad field", "BadRequestError", 400, "invalid_field"],
    ["hosted tool", "BadRequestError", 400, "hosted_tool_not_allowed"],
    ["rate limit", "RateLimitError", 429, "rate_limit_exceeded"],
    ["all down", "InternalServerError", 503, "region_unavailable"],
    ["stream that dies", "APIError", null, "upstream_interrupted"],
  ])("%s gives its own class of error: %s", (step, error, status, code) =>
    expect(steps[step]).toEqual({ error, status, code }),
  );

  test("the client retries only errors that a retry may mend", () => {
    const calls = Object.fromEntries(["429", "500", "late-reset"].map((fault) => [fault, faulty.calls(`/${fault}/`)]));
    // The client tries three times. Each time the Worker asks the only endpoint twice.
    expect(calls).toEqual({ 429: 1, 500: 6, "late-reset": 1 });
  });

  test("an aborted stream is aborted at the endpoint", () =>
    until(
      async () => faulty.closed("late-flow"),
      (closed) => closed === 1,
    ));
});
