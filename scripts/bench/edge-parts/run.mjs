// Runs the benchmark: starts everything, measures in turns, prints the table. Called by scripts/bench/edge, which
// explains it.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer, request as httpRequest } from "node:http";
import { createRequire } from "node:module";
import { availableParallelism, cpus, loadavg, tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import { chart } from "./chart.mjs";
import { spread, written } from "./common.mjs";
import { enlarged, measureReloads, reloadTable } from "./reload.mjs";
import { EVENTS, measureStreams, table } from "./streams.mjs";

const parts = fileURLToPath(new URL(".", import.meta.url));
const root = resolve(parts, "../../..");
const { values: options } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    secs: { type: "string", default: "3" },
    pace: { type: "string", default: "0" },
    streams: { type: "string" },
    reloads: { type: "boolean", default: false },
    steps: { type: "boolean", default: false },
    observe: { type: "boolean", default: false },
    also: { type: "string", multiple: true, default: [] },
    only: { type: "string" },
    portkey: { type: "string" },
    litellm: { type: "string" },
  },
});
const [rounds, seconds, pace] = [options.rounds, options.secs, options.pace].map((text) => {
  if (!(Number(text) >= 0)) throw new Error(`${text} is no number; see scripts/bench/edge --help`);
  return Number(text);
});

/** How many paced streams are open at once, for each panel. Undefined if requests are measured instead. */
const crowds = options.streams?.split(",").map(Number);
if (crowds?.some((n) => !Number.isInteger(n) || n < 1))
  throw new Error(`--streams wants numbers such as 50,200; not ${options.streams}`);
if (crowds && pace === 0) throw new Error("--streams measures paced streams; say the pace, such as --pace 100");

const KEY = "sk-benchmark";
const HOST = "chat.bench.example",
  PLAIN = "plain.bench.example",
  PIPED = "piped.bench.example";
const PATH = "/v1/chat/completions";
const prompt = "All the world's a stage, and all the men and women merely players. ".repeat(28);
const body = (more) => JSON.stringify({ model: "chat-large", messages: [{ role: "user", content: prompt }], ...more });
const kinds = { unary: body({}), streamed: body({ stream: true }) };

/** @typedef {import("node:net").AddressInfo} AddressInfo */
/** @typedef {import("./common.mjs").Spread} Spread */
/**
 * A gateway that is measured. After its start also: its process, how long each start took in milliseconds, and by kind
 * of answer why it fails.
 * @typedef {{
 *   name: string, title: string, headers: Record<string, string>, worker?: string, bindings?: Record<string, string>,
 *   environment?: Record<string, string>, command?: (port: number) => string[], other?: boolean, port?: number,
 *   child?: import("node:child_process").ChildProcess, starts?: number[],
 *   broken?: Record<string, string>,
 * }} Gateway
 */
/**
 * A row of the table: either `broken`, or the rest.
 * @typedef {{
 *   kind: string, connections: number, gateway: string, name: string, broken?: string, requests_per_second?: Spread,
 *   p50_us?: Spread, p99_us?: Spread, first_event_us?: Spread, cpu_us_per_request?: Spread, cpu_over_pass?: Spread,
 *   errors?: number,
 * }} Row
 */

// --- Processes
// --------------------------------------------------------------------------------------------------------

const dir = mkdtempSync(join(tmpdir(), "bailiwick-bench-"));
const children = [];
const pinned = availableParallelism() > 1 && spawnSync("taskset", ["-V"]).status === 0;

/** Starts a process on one core: core 0 is for the gateway, core 1 for all other processes. */
function start(core, command, stdio, env = process.env) {
  const [file, ...args] = pinned ? ["taskset", "-c", String(core), ...command] : command;
  const child = spawn(file, args, { stdio, cwd: dir, env });
  child.on("error", (error) => stop(error));
  children.push(child);
  return child;
}

function stop(error) {
  for (const child of children) child.kill("SIGKILL");
  rmSync(dir, { recursive: true, force: true });
  if (error) console.error(error.message ?? error);
  process.exit(error ? 1 : 0);
}
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => stop("interrupted"));
process.on("uncaughtException", stop);

const TICKS = Number(spawnSync("getconf", ["CLK_TCK"]).stdout) || 100;

/** The CPU time of all threads of a process in microseconds, with nanoseconds if the kernel provides them. */
function cpu(pid) {
  try {
    const threads = readdirSync(`/proc/${pid}/task`);
    return (
      threads.reduce(
        (sum, thread) => sum + Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8").split(" ")[0]),
        0,
      ) / 1000
    );
  } catch {
    return ticks(pid);
  }
}

/** User and system time of a process in microseconds, in steps of some milliseconds. */
function ticks(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /s, "")
    .split(" ");
  return fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0) * (1e6 / TICKS);
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = /** @type {AddressInfo} */ (server.address());
  await new Promise((done) => server.close(done));
  return port;
}

const ask = (gateway, kind) =>
  new Promise((done, reject) => {
    const headers = { ...gateway.headers, "content-type": "application/json" };
    const sent = httpRequest(
      {
        port: gateway.port,
        host: "127.0.0.1",
        method: "POST",
        path: PATH,
        headers,
        agent: false,
        timeout: 5000 + EVENTS * pace,
      },
      (reply) => {
        let text = "";
        reply
          .setEncoding("utf8")
          .on("data", (more) => (text += more))
          .on("error", reject)
          .on("end", () => done({ status: reply.statusCode, text }));
      },
    );
    sent
      .on("error", reject)
      .on("timeout", () => sent.destroy(new Error("no answer in time")))
      .end(kinds[kind]);
  });

// --- The gateways
// --------------------------------------------------------------------------------------------------

/** A setting of wrangler.toml as a list of texts. So this Worker runs with the settings of a deployment. */
function setting(name) {
  const value = readFileSync(`${root}/wrangler.toml`, "utf8").match(
    new RegExp(`^${name} = (\\[[^\\]]*\\]|".*")$`, "m"),
  )?.[1];
  if (!value) throw new Error(`wrangler.toml has no ${name}`);
  return [...value.replace(/^\s*#.*$/gm, "").matchAll(/"([^"]*)"/g)].map((match) => match[1]);
}

const workerd = createRequire(`${root}/package.json`).resolve("workerd/bin/workerd");

/** Writes a workerd configuration for a Worker: a JavaScript module, or a directory with a build of this Worker. */
function workerdConfig(name, path, port, bindings) {
  const place = join(dir, name);
  mkdirSync(place);
  const isBuild = statSync(path).isDirectory();
  for (const file of isBuild ? ["index.js", "index_bg.wasm"] : [basename(path)])
    cpSync(join(isBuild ? path : resolve(path, ".."), file), join(place, file));
  const quote = (/** @type {string} */ text) => JSON.stringify(text);
  const modules = isBuild
    ? `(name = "index.js", esModule = embed "index.js"), (name = "index_bg.wasm", wasm = embed "index_bg.wasm")`
    : `(name = "index.js", esModule = embed ${quote(basename(path))})`;
  writeFileSync(
    join(place, "config.capnp"),
    `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .main), (name = "internet", network = (allow = ["public", "private"]))],
  sockets = [(name = "http", address = "127.0.0.1:${port}", http = (cfBlobHeader = "cf-blob"), service = "main")],
);
const main :Workerd.Worker = (
  modules = [${modules}],
  compatibilityDate = ${quote(setting("compatibility_date")[0])},
  compatibilityFlags = [${setting("compatibility_flags").map(quote).join(", ")}],
  bindings = [${Object.entries(bindings)
    .map(([key, text]) => `(name = ${quote(key)}, text = ${quote(text)})`)
    .join(", ")}],
);
`,
  );
  return [workerd, "serve", join(place, "config.capnp")];
}

const endpoint = start(
  1,
  [process.execPath, join(parts, "endpoint.mjs"), ...(pace ? ["--pace", String(pace)] : [])],
  ["pipe", "pipe", "inherit"],
);
const [endpointPort] = await once(createInterface({ input: endpoint.stdout }), "line").then(([line]) => [Number(line)]);

// The rules: a tenant with a key, and a model that is renamed. So each request is looked up, steered and spliced.
/**
 * A service without other names for models.
 * @param {string} host
 */
const plain = (host) => ({
  hosts: [host],
  pattern: "active-active",
  regions: ["eu-paris"],
  residency: [{ clients: ["eu"], process_in: ["eu"] }],
});
const rules = {
  version: 1,
  revision: 1,
  jurisdictions: { eu: { include: ["EU"] }, us: { countries: ["US"] } },
  regions: {
    "eu-frankfurt": {
      countries: ["DE"],
      location: { latitude: 50.11, longitude: 8.68 },
      endpoints: {
        "fra-1": {
          url: `http://127.0.0.1:${endpointPort}/v1`,
          secret: "FRA_KEY",
          models: { "chat-large": "llama-3.3-70b-fp8" },
        },
      },
    },
    // The models of this region have the clients' own names, so nothing in an answer is replaced.
    "eu-paris": {
      countries: ["FR"],
      location: { latitude: 48.86, longitude: 2.35 },
      endpoints: { "par-1": { url: `http://127.0.0.1:${endpointPort}/v1`, secret: "FRA_KEY" } },
    },
    "us-virginia": {
      countries: ["US"],
      location: { latitude: 38.9, longitude: -77.45 },
      endpoints: { "iad-1": { url: "https://iad1.gpu.example.net/v1", models: { "chat-large": "llama-3.3-70b-fp8" } } },
    },
  },
  services: {
    chat: {
      hosts: [HOST],
      pattern: "active-active",
      regions: ["eu-frankfurt", "us-virginia"],
      residency: [
        { clients: ["eu"], process_in: ["eu"] },
        { clients: ["*"], process_in: ["us"] },
      ],
    },
    plain: plain(PLAIN),
    // Older builds of the Worker don't know the field `streams`. So this service exists only if streams are measured.
    ...(crowds ? { piped: { ...plain(PIPED), streams: "pipe" } } : {}),
  },
  tenants: {
    acme: {
      key_sha256: [createHash("sha256").update(KEY).digest("hex")],
      residency: "eu",
      services: crowds ? ["chat", "plain", "piped"] : ["chat", "plain"],
    },
  },
};
/** The documents by revision, from 1. They are made in advance, because that takes longer than the measurements. */
const documents = options.reloads
  ? Array.from({ length: 1 + rounds * (1 + Number(options.observe) + options.also.length) }, (_, i) =>
      enlarged(rules, 1 + i),
    )
  : [JSON.stringify(rules)];
let revision = 1;
/** How many batches of observations have arrived. */
let batches = 0;
const node = createServer((request, response) => {
  if (request.method === "POST") {
    batches += 1;
    request.resume().on("end", () => response.end('{"added":1,"dropped":0,"missed":0}'));
    return;
  }
  const etag = `"${revision}"`;
  if (request.headers["if-none-match"] === etag) response.writeHead(304).end();
  else response.setHeader("etag", etag).end(documents[revision - 1]);
}).listen(0, "127.0.0.1");
await once(node, "listening");

const ours = {
  RULES_URL: `http://127.0.0.1:${/** @type {AddressInfo} */ (node.address()).port}/v1/rules`,
  FRA_KEY: "endpoint-key",
  ...(options.reloads ? { RULES_REFRESH_SECONDS: "1" } : {}),
};
/** The variables with which a Worker posts its observations, at the default interval. */
const observing = {
  OBSERVATIONS_URLS: ours.RULES_URL.replace("rules", "observations"),
  HEALTH_TOKEN: "worker-token",
};
const client = {
  host: HOST,
  authorization: `Bearer ${KEY}`,
  accept: "application/json",
  "user-agent": "bench",
  "cf-blob": JSON.stringify({ country: "DE" }),
};
const build = `${root}/edge-worker/build`;

/** The steps that steps.js adds to pass.js, one after the other. */
const STEPS = ["headers", "answer", "abort", "gone", "timer", "place"];
/** @type {Gateway[]} */
const steps = options.steps
  ? STEPS.map((name, i) => ({
      name,
      title: `+ ${name}`,
      worker: join(parts, "steps.js"),
      headers: client,
      bindings: { STEP: String(i + 1) },
    }))
  : [];
if (options.steps)
  steps.push({ name: "no_wasm", title: "this Worker without its Wasm", worker: bundleNoWasm(), headers: client });

/** This Worker's own JavaScript around no_wasm.js, as one module. */
function bundleNoWasm() {
  const module = join(dir, "no_wasm.js");
  const options = [
    "--bundle",
    "--format=esm",
    "--minify",
    `--alias:shim=${join(parts, "no_wasm.js")}`,
    `--outfile=${module}`,
    "--log-level=warning",
  ];
  const made = spawnSync(`${root}/node_modules/.bin/esbuild`, [`${root}/edge-worker/src/entry.js`, ...options], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  if (made.status !== 0) stop("no_wasm.js wasn't bundled");
  return module;
}

/** nginx as a reverse proxy without buffering, in one process: the lower limit for passing streams on. */
const nginx = { name: "nginx", title: "nginx", headers: client, command: nginxCommand };
function nginxCommand(port) {
  const place = join(dir, `nginx-${port}`);
  mkdirSync(place);
  writeFileSync(
    join(place, "nginx.conf"),
    `daemon off; master_process off; pid ${place}/pid; error_log ${place}/error.log;
worker_rlimit_nofile 65536; events { worker_connections 32768; }
http {
  access_log off; client_body_temp_path ${place}/body; proxy_temp_path ${place}/proxy;
  fastcgi_temp_path ${place}/f; uwsgi_temp_path ${place}/u; scgi_temp_path ${place}/s;
  upstream endpoint { server 127.0.0.1:${endpointPort}; keepalive 4096; }
  server {
    listen 127.0.0.1:${port}; keepalive_requests 1000000;
    location / {
      proxy_pass http://endpoint; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }
  }
}
`,
  );
  return ["/usr/sbin/nginx", "-p", place, "-c", join(place, "nginx.conf"), "-e", `${place}/error.log`];
}

/** This edge as a program of its own, with one thread. It is told where a client is as nginx tells workerd. */
const nativeEdge = {
  name: "native",
  title: "bailiwick-edge",
  headers: { ...client, "bailiwick-cf": client["cf-blob"] },
  environment: ours,
  command: (port) => [
    `${root}/target/release/bailiwick-edge`,
    ...["serve", "--listen", `127.0.0.1:${port}`, "--threads", "1", "--trust", "127.0.0.0/8"],
  ],
};

/** LiteLLM's proxy with one worker. It renames the model, as this edge does, and asks nobody else. */
const litellm = {
  name: "litellm",
  title: "litellm on python",
  headers: client,
  environment: {
    HF_HUB_OFFLINE: "1",
    LITELLM_LOCAL_MODEL_COST_MAP: "True",
    LITELLM_LOG: "ERROR",
    LITELLM_TELEMETRY: "False",
  },
  command: (port) => {
    const file = join(dir, "litellm.yaml");
    const params = {
      model: "openai/llama-3.3-70b-fp8",
      api_base: `http://127.0.0.1:${endpointPort}/v1`,
      api_key: "endpoint-key",
    };
    const model_list = [{ model_name: "chat-large", litellm_params: params }];
    writeFileSync(file, JSON.stringify({ model_list, general_settings: { master_key: KEY } }));
    const words = ["--config", file, "--host", "127.0.0.1", "--port", String(port), "--num_workers", "1"];
    return [`${options.litellm}/bin/litellm`, ...words];
  },
};

/** @type {Gateway[]} */
const all = [
  { name: "direct", title: "direct", headers: client, port: endpointPort, child: endpoint },
  { name: "pass", title: "pass.js on workerd", worker: join(parts, "pass.js"), headers: client },
  nginx,
  nativeEdge,
  ...steps,
  { name: "bailiwick", title: "this Worker on workerd", worker: build, headers: client },
  ...(options.observe
    ? [
        {
          name: "observed",
          title: "this Worker, with OBSERVATIONS_URLS",
          worker: build,
          headers: client,
          bindings: observing,
          other: true,
        },
      ]
    : []),
  ...options.also.map((path) => ({
    name: basename(path).replace(/\.js$/, ""),
    title: path,
    worker: resolve(path),
    headers: client,
    other: true,
  })),
  ...(crowds
    ? [{ name: "plain", title: "this Worker, names unchanged", worker: build, headers: { ...client, host: PLAIN } }]
    : []),
  ...(crowds
    ? [{ name: "pipe", title: "this Worker, streams: pipe", worker: build, headers: { ...client, host: PIPED } }]
    : []),
  {
    name: "portkey",
    title: "portkey on node",
    headers: {
      ...client,
      "x-portkey-provider": "openai",
      "x-portkey-custom-host": `http://127.0.0.1:${endpointPort}/v1`,
    },
  },
  litellm,
];
const names = options.only?.split(",");
const unknown = names?.find((name) => !all.some((gateway) => gateway.name === name));
if (unknown !== undefined) stop(`--only: there is no ${unknown}; there are ${all.map(({ name }) => name).join(", ")}`);
// Streams aren't measured directly, nor through others, which pass them on in another way.
const unpaced = ["direct", "portkey", "litellm"];
const gateways = all.filter(({ name }) => (names ? names.includes(name) : !crowds || !unpaced.includes(name)));

/** Starts a gateway and waits for its first answer. */
async function launch(gateway) {
  if (gateway.name === "direct") return;
  gateway.port = await freePort();
  const bindings = {
    ENDPOINT: `http://127.0.0.1:${endpointPort}`,
    ...gateway.bindings,
    ...(gateway.worker && statSync(gateway.worker).isDirectory() ? ours : {}),
  };
  const command = gateway.command
    ? gateway.command(gateway.port)
    : gateway.worker
      ? workerdConfig(`${gateway.name}-${gateway.port}`, gateway.worker, gateway.port, bindings)
      : [
          process.execPath,
          `${options.portkey}/node_modules/@portkey-ai/gateway/build/start-server.js`,
          `--port=${gateway.port}`,
          "--headless",
        ];
  const began = performance.now();
  const env = { ...process.env, ...gateway.environment };
  gateway.child = start(0, command, ["ignore", "ignore", process.env.DEBUG ? "inherit" : "ignore"], env);
  for (;;) {
    try {
      await ask(gateway, "unary");
      break;
    } catch (error) {
      if (gateway.child.exitCode !== null || performance.now() - began > 60_000)
        stop(`${gateway.title} did not start: ${/** @type {Error} */ (error).message}`);
      await new Promise((done) => setTimeout(done, 1));
    }
  }
  (gateway.starts ??= []).push(performance.now() - began);
}

async function end(gateway) {
  if (gateway.name === "direct") return;
  const gone = once(gateway.child, "exit");
  gateway.child.kill("SIGKILL");
  await gone;
}

/**
 * How many seconds each gateway gets to warm up, for each kind of answer. Its code is compiled while it runs, on its
 * one core.
 */
const WARM = 10;

// --- Measuring
// --------------------------------------------------------------------------------------------------------

const generator = start(
  1,
  [process.execPath, join(parts, crowds ? "paced.mjs" : "load.mjs")],
  ["pipe", "pipe", "inherit"],
);
const results = createInterface({ input: generator.stdout })[Symbol.asyncIterator]();

async function measure(gateway, kind, connections, seconds) {
  const before = cpu(gateway.child.pid);
  generator.stdin.write(
    `${JSON.stringify({
      port: gateway.port,
      path: PATH,
      headers: gateway.headers,
      body: kinds[kind],
      connections,
      seconds,
    })}\n`,
  );
  const result = JSON.parse((await results.next()).value);
  return { ...result, cpu: (cpu(gateway.child.pid) - before) / Math.max(result.requests, 1) };
}

const began = new Date();
const load = loadavg()[0];
const machine = () => ({
  cpu: cpus()[0].model.trim(),
  cores: cpus().length,
  pinned,
  load_before: load,
  load_after: loadavg()[0],
  node: process.version,
});
const out = `${root}/target/bench`;

if (crowds) {
  const order = (gateway, job) =>
    generator.stdin.write(
      `${JSON.stringify({ port: gateway.port, path: PATH, headers: gateway.headers, body: kinds.streamed, ...job })}\n`,
    );
  for (const gateway of gateways) {
    await launch(gateway);
    const { status, text } = await ask(gateway, "streamed");
    if (status !== 200 || !text.trimEnd().endsWith("data: [DONE]"))
      stop(`${gateway.title}: status ${status}: ${text.slice(0, 400)}`);
  }
  const rows = await measureStreams({
    gateways,
    crowds,
    rounds,
    seconds,
    warm: rounds > 1 ? WARM : 1,
    pace,
    cpu,
    ask: order,
    answers: results,
  });
  console.log(
    `${rounds} rounds of ${seconds} s, medians (least–most); an event each ${pace} ms, ${EVENTS} of a stream\n`,
  );
  console.log(table(rows));
  const reported = rows.map(({ streams, gateway, samples }) => ({ streams, gateway: gateway.title, samples }));
  mkdirSync(out, { recursive: true });
  writeFileSync(
    `${out}/edge-streams.json`,
    `${JSON.stringify({ began, rounds, seconds, pace, machine: machine(), rows: reported }, null, 2)}\n`,
  );
  console.log("\ntarget/bench/edge-streams.json holds it too");
  stop();
}

if (options.reloads) {
  const rows = [];
  for (const gateway of gateways.filter(({ name, other }) => name === "bailiwick" || other)) {
    await launch(gateway);
    await measure(gateway, "unary", 8, rounds > 1 ? WARM : 1);
    const offer = () => ++revision;
    const job = { port: gateway.port, path: PATH, headers: { ...gateway.headers, "content-type": "application/json" } };
    rows.push({ gateway, samples: await measureReloads({ gateway, job, bodies: kinds, rounds, seconds, offer }) });
    await end(gateway);
  }
  const bytes = (documents[0].length / 1e6).toFixed(1);
  console.log(`${rounds} new documents of ${bytes} MB, a window of ${seconds} s each, medians (least–most)\n`);
  console.log(reloadTable(rows));
  stop();
}

for (const gateway of gateways) {
  // LiteLLM's start takes some ten seconds.
  const starts = gateway.name === "litellm" ? 1 : Math.max(rounds, 1);
  for (let n = 0; n < starts && gateway.name !== "direct"; n++) {
    if (n > 0) await end(gateway);
    await launch(gateway);
  }
  gateway.broken = {};
  for (const kind of Object.keys(kinds)) {
    const { status, text } = await ask(gateway, kind);
    const whole = text.includes("word49") && (kind === "unary" || text.trimEnd().endsWith("data: [DONE]"));
    if (status !== 200 || !whole) gateway.broken[kind] = `status ${status}: ${text.slice(0, 200)}`;
  }
  for (const kind of Object.keys(kinds))
    if (!gateway.broken[kind]) await measure(gateway, kind, 8, rounds > 2 ? WARM : Math.min(4 * seconds, WARM));
}
const cells = [];
for (const kind of Object.keys(kinds))
  for (const connections of [1, 8])
    for (const gateway of gateways) cells.push({ kind, connections, gateway, samples: [] });
for (let round = 0; round < rounds; round++) {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[Kround ${round + 1} of ${rounds}`);
  // The order is reversed in every second round, so that no gateway always runs after the same other gateway.
  for (const { kind, connections, gateway, samples } of round % 2 ? cells.toReversed() : cells) {
    if (!gateway.broken[kind]) samples.push(await measure(gateway, kind, connections, seconds));
  }
}
if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");

// --- Reporting
// ----------------------------------------------------------------------------------------------------------

/** The cell of another gateway with the same kind of answer and number of connections. */
const twin = (cell, name) =>
  cells.find((one) => one.gateway.name === name && one.kind === cell.kind && one.connections === cell.connections);

/** The ratios of CPU time per request of two gateways, round by round. So a drift of the machine cancels out. */
const ratios = (cell, other) => cell.samples.map((sample, round) => sample.cpu / other.samples[round].cpu);

function overPass(cell) {
  const pass = twin(cell, "pass");
  return pass && cell.gateway.name !== "direct" ? spread(ratios(cell, pass)) : undefined;
}

/** The ratio of this Worker's CPU time to that of another build: the median with its confidence interval of 95 %. */
function overOther(cell) {
  const sorted = ratios(twin(cell, "bailiwick"), cell).sort((a, b) => a - b);
  // The ranks of the confidence interval of the median, by the binomial distribution.
  const reach = 0.98 * Math.sqrt(sorted.length);
  const rank = (n) => sorted[Math.max(0, Math.min(sorted.length - 1, Math.round(n)))];
  return { ...spread(sorted), min: rank(sorted.length / 2 - reach - 1), max: rank(sorted.length / 2 + reach) };
}

const rows = cells.map(
  /** @returns {Row} */ (cell) => {
    const { kind, connections, gateway, samples } = cell;
    const row = { kind, connections, gateway: gateway.title, name: gateway.name };
    if (samples.length === 0) return { ...row, broken: gateway.broken[kind] ?? "not measured" };
    const of = (field) => spread(samples.map((sample) => sample[field]));
    return {
      ...row,
      requests_per_second: of("perSecond"),
      p50_us: of("p50"),
      p99_us: of("p99"),
      first_event_us: kind === "streamed" ? of("first50") : undefined,
      cpu_us_per_request: of("cpu"),
      cpu_over_pass: overPass(cell),
      errors: samples.reduce((sum, sample) => sum + sample.errors, 0),
    };
  },
);

console.log(
  `${rounds} rounds of ${seconds} s, medians (least–most); ${Buffer.byteLength(kinds.unary)} bytes asked, 51 events` +
    `${pace ? `, ${pace} ms apart` : ""}; times in µs\n`,
);
console.log(
  "| answer | connections | through | requests/s | p50 | p99 | first event | CPU per request | × pass.js | errors |\n" +
    "|---|---|---|---|---|---|---|---|---|---|",
);
for (const row of rows) {
  const start = `| ${row.kind} | ${row.connections} | ${row.gateway} |`;
  if (row.broken)
    console.log(`${start} fails: ${row.broken.replace(/\s+/g, " ").replaceAll("|", "\\|")} | | | | | | |`);
  else
    console.log(
      `${start} ${written(row.requests_per_second)} | ${written(row.p50_us)} | ${written(row.p99_us)} ` +
        `| ${written(row.first_event_us)} ` +
        `| ${written(row.cpu_us_per_request)} | ${written(row.cpu_over_pass, 2)} | ${row.errors} |`,
    );
}
const others = cells.filter(
  (cell) => cell.gateway.other && cell.samples.length > 0 && twin(cell, "bailiwick")?.samples.length > 0,
);
if (others.length > 0) console.log("\nThis Worker's CPU over that of the other, median (95 % sure):");
for (const cell of others)
  console.log(`${cell.gateway.title}: ${cell.kind}, ${cell.connections}: ${written(overOther(cell), 3)}`);
if (options.observe) {
  if (batches === 0) stop("no batch of observations came, so nothing was compared");
  console.log(`${batches} batches of observations came`);
}
const wasm = readFileSync(`${build}/index_bg.wasm`);
const size = { wasm: wasm.length, wasm_gzipped: gzipSync(wasm, { level: 9 }).length };
const starts = gateways
  .filter(({ starts }) => starts)
  .map(({ title, starts }) => ({ gateway: title, ms: spread(/** @type {number[]} */ (starts)) }));
console.log(
  "\nFrom the start of the process to its first answer, in ms: " +
    starts.map(({ gateway, ms }) => `${gateway} ${written(ms)}`).join("; "),
);
console.log(
  `The Worker's Wasm: ${Math.round(size.wasm / 1000)} kB, ${Math.round(size.wasm_gzipped / 1000)} kB gzipped`,
);
console.log(
  `${cpus()[0].model.trim()}, ${cpus().length} cores, ` +
    `${pinned ? "gateways on core 0, the rest on core 1" : "not pinned"}; ` +
    `load ${load.toFixed(1)} before, ${loadavg()[0].toFixed(1)} after`,
);

mkdirSync(out, { recursive: true });
writeFileSync(
  `${out}/edge.json`,
  `${JSON.stringify({ began, rounds, seconds, pace, machine: machine(), size, starts, rows }, null, 2)}\n`,
);
writeFileSync(`${out}/edge.svg`, chart(rows));
console.log("target/bench/edge.json and edge.svg hold it too");
stop();
