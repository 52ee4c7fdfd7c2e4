// Random cases. A case has rules of its own (a service, regions, endpoints, tenants), behaviours of its endpoints, and
// one to three requests. A seed and a number make it. Its names begin with its own name, so cases share nothing in an
// isolate but what is the isolate's: its budget of retries.
import { keyDigest, residency } from "../harness.js";
import type { Json } from "../harness.js";
import { type Behaviour, draw, isSlow } from "./behaviours.js";
import { Draw } from "./draw.js";
import { steps } from "./requests.js";
import type { Client } from "./senders.js";
import type { Sent } from "./wire.js";

export interface Case {
  name: string;
  seed: number;
  number: number;
  /** What it adds to a document, by the document's keys. */
  rules: Json;
  /** The behaviours of each endpoint. */
  endpoints: Record<string, Behaviour[]>;
  /** Its requests, in order. `@ID@` stands for the id in the answer before. */
  steps: Sent[];
}

/** How many cases share a document. */
export const PER_DOCUMENT = 250;

/** What documents have for events: by their number, sinks of events, of events with prompts, of spans too, or none. */
const SINKS = ["events", "spans", "content", "none"] as const;
const sinksOf = (number: number) => SINKS[Math.floor(number / PER_DOCUMENT) % SINKS.length];

/** Residency of services that keep prompts: a sink lies in each tier of every client. */
const kept = [
  { clients: ["eu", "uk", "unknown"], process_in: ["eu"] },
  { clients: ["us"], process_in: ["us"] },
];

/** The places of regions: their country, and the name of the place. */
const PLACES = [
  ["DE", "eu-a"],
  ["FR", "eu-b"],
  ["GB", "uk"],
  ["US", "us"],
  ["JP", "jp"],
] as const;

/** Makes a case. `run` tells apart the runs of one case in an isolate. */
export function make(seed: number, number: number, run = 0): Case {
  const d = Draw.of(seed, number);
  const name = `c${number}r${run}`;
  const endpoints: Case["endpoints"] = {};
  const engine = d.weighted([
    [8, undefined],
    [1, "vllm"],
    [1, "sglang"],
  ]);
  const regions: Json = {};
  const places = d.is(0.5) ? PLACES.slice(0, 2) : PLACES.filter(() => d.is(0.6));
  const hasModels = d.is(0.3);
  for (const [country, place] of places.length > 0 ? places : PLACES.slice(0, 1)) {
    const all: Json = {};
    for (let priority = 0; priority < d.between(1, 2); priority++) {
      const endpoint = `e${Object.keys(endpoints).length}`;
      endpoints[endpoint] = d.list(3, () => draw(d));
      all[`${name}-${endpoint}`] = {
        ...described(d, `http://127.0.0.1:PORT/${name}/${endpoint}`, hasModels),
        priority,
      };
      if (engine) all[`${name}-${endpoint}`].engine = engine;
    }
    regions[`${name}-${place}`] = { countries: [country], endpoints: all };
  }
  const tenants = d.is(0.45) ? { [`${name}-t`]: tenant(d, name) } : {};
  // The edge speaks itself before the first endpoint is given up.
  const speaks = d.is(0.01);
  if (speaks) endpoints.e0.unshift({ kind: "silent", seed: d.below(2 ** 30) });
  const slow = speaks || Object.values(endpoints).flat().some(isSlow);
  const client: Client = {
    name,
    number,
    place: d.is(0.85)
      ? d.of<Json>(Object.values(regions)).countries[0]
      : d.of(["DE", "GB", "US", "JP", "XX", undefined]),
    hasTenant: Object.keys(tenants).length > 0,
    engine: engine !== undefined,
  };
  const service = serviceOf(d, name, Object.keys(regions), speaks ? "1400ms" : slow ? "400ms" : undefined);
  if (speaks) service.keepalive = "1s";
  if (sinksOf(number) === "content" && d.is(0.3))
    Object.assign(service, { log_content: true, receipts: "required", streams: "inspect", residency: kept });
  if (service.streams === "pipe") for (const behaviour of Object.values(endpoints).flat()) behaviour.pauses = true;
  const made = steps(d, client, slow ? 1 : d.of([1, 1, 1, 2, 3]));
  const overrides = d.is(0.05) ? [override(d, regions)] : [];
  return {
    name,
    seed,
    number,
    rules: { services: { [name]: service }, regions, tenants, overrides },
    endpoints,
    steps: made,
  };
}

function described(d: Draw, url: string, hasModels: boolean): Json {
  const models = { m: d.of(["m", "llama", "org/llama"]), n: "other" };
  const secret = d.weighted([
    [8, {}],
    [2, { secret: "FRA_KEY" }],
    [1, { secret: "NOT_SET" }],
  ]);
  const rank = d.is(0.1) ? { priority_as: d.of(["vllm", "openai", "llm-d"]) } : {};
  if (d.is(0.06)) return { url, style: "azure", api_version: "2024-10-21", models, secret: "FRA_KEY" };
  return { url: `${url}/v1`, ...(hasModels && d.is(0.8) ? { models } : {}), ...secret, ...rank };
}

const ALLOWANCES = ["remote_urls", "hosted_tools", "background", "store", "batch", "unknown_fields", "engine_inputs"];

function serviceOf(d: Draw, name: string, regions: string[], limit: string | undefined): Json {
  const unknown = d.is(0.2) ? [{ clients: ["unknown"], process_in: ["eu"] }] : [];
  const anybody = d.is(0.2) ? [{ clients: ["*"], process_in: d.of([["*"], [["eu", "uk"], "us"]]) }] : [];
  const pattern = d.weighted([
    [6, { pattern: "active-active" }],
    [2, { pattern: "active-passive" }],
    [1, { pattern: "regional-sharding" }],
    [1, { pattern: "hub-and-spoke", hub: { region: regions[0], paths: ["/files", "/fine_tuning"] } }],
  ]);
  const limits: Json = limit ? { headers_streamed: limit, first_token: limit, headers_unary: limit, idle: limit } : {};
  if (d.is(0.1)) limits.sends = d.between(1, 3);
  if (d.is(0.1)) limits.body_bytes = d.of([100, 2_000]);
  const origins = d.of([["https://app.example.com"], ["http://localhost:3000", "https://app.example.com"]]);
  return {
    hosts: [`${name}.example`, ...(d.is(0.1) ? [`*.${name}.example`] : [])],
    ...pattern,
    regions,
    residency: [...residency, ...unknown, ...anybody],
    allow: ALLOWANCES.filter(() => d.is(0.3)),
    limits,
    streams: d.of(["inspect", "inspect", "pipe"]),
    receipts: d.of(["off", "optional", "required"]),
    ...(d.is(0.2) ? { cors: { origins } } : {}),
    ...(d.is(0.1) ? { when_all_down: "fail" } : {}),
  };
}

function tenant(d: Draw, name: string): Json {
  return {
    key_sha256: [keyDigest(`sk-${name}`)],
    services: [name],
    ...d.weighted<Json>([
      [12, {}],
      [2, { residency: d.of(["eu", "uk", "us"]) }],
      [1, { process_in: d.of([["eu"], [["eu", "uk"]], ["us"]]) }],
    ]),
    ...(d.is(0.1) ? { budget: { per: "30d", requests: d.between(1, 3), tokens: 3_000 } } : {}),
    ...(d.is(0.1) ? { concurrency: 100 } : {}),
    ...(d.is(0.3) ? { tier: d.of(["gold", "bronze"]) } : {}),
  };
}

function override(d: Draw, regions: Json): Json {
  const region = d.of(Object.keys(regions));
  const endpoint = d.is(0.5) ? { endpoint: d.of(Object.keys(regions[region].endpoints)) } : {};
  return { region, ...endpoint, status: "down", reason: "a drill", until: "2099-01-01T00:00:00Z" };
}

/** A document with the rules of all these cases. */
export function document(cases: Case[], revision: number): string {
  const filler = { countries: ["DE"], endpoints: { filler: { url: "http://127.0.0.1:PORT/filler/e0/v1" } } };
  const sinks = sinksOf(cases[0].number);
  const sink = (place: string) => ({
    countries: [place],
    otlp: `http://127.0.0.1:PORT/sink/${place}/logs`,
    ...(sinks === "spans" ? { traces: `http://127.0.0.1:PORT/sink/${place}/traces` } : {}),
    ...(sinks === "content" ? { content: true } : {}),
  });
  const all: Json = {
    version: 1,
    revision,
    jurisdictions: { eu: { include: ["EU"] }, uk: { countries: ["GB"] }, us: { countries: ["US"] } },
    networks: [{ prefix: "198.51.100.0/24", country: "GB" }],
    regions: { filler },
    services: {
      filler: { hosts: ["filler.example"], pattern: "active-active", regions: ["filler"], residency },
    },
    tenants: {},
    overrides: [],
    tiers: { gold: { rank: 0 }, bronze: { rank: 9 } },
    ...(sinks === "none" ? {} : { logs: { eu: sink("eu"), us: sink("us") } }),
  };
  for (const { rules } of structuredClone(cases)) {
    // Several sinks lie in `*`.
    for (const rule of all.logs ? Object.values<Json>(rules.services)[0].residency : [])
      if (rule.process_in.includes("*")) rule.logs = "eu";
    for (const key of ["regions", "services", "tenants"]) Object.assign(all[key], rules[key]);
    all.overrides.push(...rules.overrides);
  }
  return JSON.stringify(all);
}
