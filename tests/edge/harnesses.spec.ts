// Harnesses of evaluations that others made, lm-eval and promptfoo, run once for each region through the edge. They
// need a base URL, a model and headers. scripts/setup installs them; without them these tests are skipped.
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Edge, type Json, keyDigest, onStop, root, rules, serve, stopAll } from "./harness.js";
import { program } from "./program.js";

const cache = process.env.BAILIWICK_CACHE ?? `${process.env.XDG_CACHE_HOME ?? `${homedir()}/.cache`}/bailiwick`;
const lmEval = `${cache}/lm-eval/bin/lm_eval`;
const promptfoo = `${cache}/promptfoo/node_modules/promptfoo/dist/src/entrypoint.js`;
const missing = (tool: string, step: string) => {
  if (existsSync(tool)) return false;
  console.warn(`skipped: no ${tool}; run scripts/setup ${step}`);
  return true;
};

const KEY = "sk-acme-0123456789";
const OPERATOR = "operators-token-0123456789";
/** Paris can't add up to more than 30. */
const REGIONS = ["eu-frankfurt", "eu-paris"];
const SUMS = [...Array(20).keys()].map((i) => ({ question: `What is ${i} + ${i + 3}?`, answer: String(2 * i + 3) }));
const rightAt = (region: string) => SUMS.filter(({ answer }) => region !== "eu-paris" || Number(answer) <= 30).length;

const asked: Record<string, number> = {};
let folder: string, base: string;

/** A stand-in model that adds up two numbers. */
const adder = (region: string) =>
  serve(async (request, response) => {
    let text = "";
    for await (const chunk of request) text += chunk;
    const { model, messages } = JSON.parse(text);
    const content = messages.at(-1).content;
    const question: string = typeof content === "string" ? content : content[0].text;
    const sum = question
      .match(/\d+/g)!
      .slice(-2)
      .map(Number)
      .reduce((one, other) => one + other);
    asked[region] += 1;
    const message = { role: "assistant", content: String(region === "eu-paris" ? Math.min(sum, 30) : sum) };
    response.setHeader("content-type", "application/json");
    response.end(
      JSON.stringify({
        id: "chatcmpl-1",
        object: "chat.completion",
        created: 1,
        model,
        choices: [{ index: 0, message, finish_reason: "stop" }],
        usage: { prompt_tokens: 9, completion_tokens: 1, total_tokens: 10 },
      }),
    );
  });

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "harnesses-"));
  onStop(() => rmSync(folder, { recursive: true }));
  const [fra, par] = await Promise.all(REGIONS.map(adder));
  const endpoint = (url: string) => ({ url: `${url}/v1`, models: { large: "bf16" } });
  const regions = {
    "eu-frankfurt": { countries: ["DE"], endpoints: { fra: endpoint(fra) } },
    "eu-paris": { countries: ["FR"], endpoints: { par: endpoint(par) } },
    "us-virginia": { countries: ["US"], endpoints: { iad: endpoint("https://iad.example") } },
  };
  const tenants = { acme: { key_sha256: [keyDigest(KEY)], residency: "eu", services: ["chat"] } };
  const edge = await Edge.start(rules(1, regions, {}, { tenants }), { EXPLAIN_TOKEN: OPERATOR }, {
    cf: { country: "DE" },
  } as never);
  base = `http://localhost:${(await edge.miniflare.ready).port}/v1`;
});
beforeEach(() => REGIONS.forEach((region) => (asked[region] = 0)));
afterAll(stopAll);

/** Runs a program, and returns what it printed, also if it fails. */
async function run(program: string, args: string[], env: Json): Promise<string> {
  const options = { cwd: folder, env: { ...process.env, ...env }, timeout: 110_000 };
  try {
    const { stdout, stderr } = await promisify(execFile)(program, args, options);
    return stdout + stderr;
  } catch (error) {
    const { stdout, stderr } = error as Json;
    return `${stdout}${stderr}${error}`;
  }
}

/** The program of this project. */
const bailiwick = program("bailiwick");

const headers = (region: string) => ({ "x-bailiwick-pin": region, "x-bailiwick-operator": OPERATOR });

describe.skipIf(missing(lmEval, "lm-eval"))("lm-eval", () => {
  const task = `task: sums
dataset_path: json
dataset_kwargs: { data_files: { test: questions.jsonl } }
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: { until: [], temperature: 0, max_gen_toks: 16 }
metric_list: [{ metric: exact_match, aggregation: mean, higher_is_better: true }]
metadata: { version: 1 }
`;

  async function evaluate(region: string): Promise<{ printed: string; score?: number }> {
    writeFileSync(join(folder, "questions.jsonl"), SUMS.map((sum) => JSON.stringify(sum)).join("\n"));
    writeFileSync(join(folder, "sums.yaml"), task);
    const endpoint = { model: "large", base_url: `${base}/chat/completions`, tokenizer_backend: null, max_retries: 1 };
    const header = { authorization: `Bearer ${KEY}`, ...headers(region) };
    const args = ["run", "--model", "local-chat-completions", "--model_args", JSON.stringify({ ...endpoint, header })];
    const task_args = ["--tasks", "sums", "--include_path", folder, "--apply_chat_template"];
    const out = join(folder, region);
    const env = { HF_HUB_OFFLINE: "1", HF_HOME: join(folder, "hf"), OPENAI_API_KEY: "unused" };
    const printed = await run(lmEval, [...args, ...task_args, "--output_path", out, "--log_samples"], env);
    const results = existsSync(out) ? readdirSync(join(out, "large")).filter((name) => name.startsWith("results")) : [];
    const read = (name: string) => JSON.parse(readFileSync(join(out, "large", name), "utf8"));
    return { printed, score: results.length > 0 ? read(results[0]).results.sums["exact_match,none"] : undefined };
  }

  test("scores each region by itself", { timeout: 240_000 }, async () => {
    for (const region of REGIONS) {
      const { printed, score } = await evaluate(region);
      expect(score, printed).toBeCloseTo(rightAt(region) / SUMS.length);
      console.log(`lm-eval at ${region}:\n${printed.slice(printed.indexOf("|Tasks"))}`);
    }
    expect(asked).toEqual(Object.fromEntries(REGIONS.map((region) => [region, SUMS.length])));

    const samples = (region: string) => {
      const folder_ = join(folder, region, "large");
      return join(
        folder_,
        readdirSync(folder_).find((name) => name.startsWith("samples"))!,
      );
    };
    const [fra, par] = REGIONS.map(samples);
    const compare = (a: string, b: string) => run(bailiwick, ["eval", "compare", a, b, "--margin", "0.2"], {});
    const same = await compare(fra, fra);
    expect(same).toContain("equivalent");
    expect(same).toContain("20 cases, 0 differ");
    const worse = await compare(fra, par);
    expect(worse).toContain(`right in both ${rightAt("eu-paris")}, in A alone ${20 - rightAt("eu-paris")}`);
    expect(worse).toContain("worse");
    console.log(`A against A:\n${same}\nFrankfurt against Paris:\n${worse}`);
  });

  test("fails where the fence doesn't reach", { timeout: 120_000 }, async () => {
    const { printed, score } = await evaluate("us-virginia");
    expect(score).toBeUndefined();
    expect(printed).toContain("residency_denied");
    expect(asked).toEqual({ "eu-frankfurt": 0, "eu-paris": 0 });
  });
});

describe.skipIf(missing(promptfoo, "promptfoo"))("promptfoo", () => {
  test("compares all regions in one run", { timeout: 120_000 }, async () => {
    const provider = (region: string) => ({
      id: "openai:chat:large",
      label: region,
      config: { apiBaseUrl: base, apiKey: KEY, headers: headers(region), temperature: 0, max_tokens: 16 },
    });
    const config = {
      prompts: ["{{question}}"],
      providers: [...REGIONS, "us-virginia"].map(provider),
      tests: SUMS.map(({ question, answer }) => ({ vars: { question }, assert: [{ type: "equals", value: answer }] })),
    };
    writeFileSync(join(folder, "promptfoo.json"), JSON.stringify(config));
    const quiet = { PROMPTFOO_DISABLE_TELEMETRY: "1", PROMPTFOO_DISABLE_UPDATE: "1", PROMPTFOO_DISABLE_SHARING: "1" };
    const env = { ...quiet, PROMPTFOO_CONFIG_DIR: join(folder, "promptfoo"), PROMPTFOO_MAX_CONCURRENCY: "4" };
    const node = join(root, "node_modules/.bin/node");
    const args = [promptfoo, "eval", "-c", "promptfoo.json", "-o", "promptfoo-out.json", "--no-cache", "--no-table"];
    const printed = await run(node, args, env);
    const { results } = JSON.parse(readFileSync(join(folder, "promptfoo-out.json"), "utf8")).results;
    const of = (region: string) => results.filter((one: Json) => one.provider.label === region);
    for (const region of REGIONS) {
      const right = of(region).filter((one: Json) => one.success);
      expect([right.length, of(region).length], printed).toEqual([rightAt(region), SUMS.length]);
    }
    for (const outside of of("us-virginia")) expect(JSON.stringify(outside)).toContain("residency_denied");
    expect(asked).toEqual(Object.fromEntries(REGIONS.map((region) => [region, SUMS.length])));
  });
});

describe("bailiwick eval run", () => {
  test("asks the same of each region, and nothing outside the fence", { timeout: 120_000 }, async () => {
    const cases = SUMS.map(({ question, answer }, i) => ({
      id: `sum-${i}`,
      prompt: question,
      expect: { exact: answer },
    }));
    writeFileSync(join(folder, "suite.jsonl"), cases.map((one) => JSON.stringify(one)).join("\n"));
    writeFileSync(join(folder, "key"), KEY, { mode: 0o600 });
    writeFileSync(join(folder, "operator"), OPERATOR, { mode: 0o600 });
    const tokens = ["--key-file", "key", "--operator-token-file", "operator"];
    const ask = (regions: string[], out: string) => {
      const where = ["--base", base, "--model", "large", "--region", regions.join(","), "--out", out];
      return run(bailiwick, ["eval", "run", "--suite", "suite.jsonl", "--service", "chat", ...where, ...tokens], {});
    };
    const printed = await ask(REGIONS, "by-region");
    expect(asked, printed).toEqual(Object.fromEntries(REGIONS.map((region) => [region, SUMS.length])));
    const results = (region: string) => join(folder, "by-region", `${region}.jsonl`);
    const [fra, par] = REGIONS.map(results);
    const compared = await run(bailiwick, ["eval", "compare", fra, par, "--margin", "0.2"], {});
    expect(compared).toContain(`in A alone ${20 - rightAt("eu-paris")}`);
    for (const file of [fra, par, join(folder, "by-region", "report.html")]) {
      const text = readFileSync(file, "utf8");
      for (const secret of [KEY, OPERATOR]) expect(text).not.toContain(secret);
    }
    expect(await ask(["us-virginia"], "outside")).toContain("451");
  });
});
