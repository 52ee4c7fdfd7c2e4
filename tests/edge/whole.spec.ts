// DNS server and Worker with the same rules document. The real `bailiwick` answers dig, and the Worker on workerd
// answers HTTP. An endpoint dies and is up again, and the document changes. A stand-in outside the fence records
// connections; there must be none.
import { execFileSync } from "node:child_process";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Edge, type Json, StandIn, read, region, rules, stopAll, until } from "./harness.js";
import { DnsNode } from "./node.js";

const clients: Record<string, string> = { DE: "91.0.0.1", GB: "81.128.0.1", US: "12.0.0.1" };
const address: Record<string, string> = {
  "eu-frankfurt": "192.0.2.10",
  "eu-paris": "192.0.2.20",
  "us-virginia": "192.0.2.30",
};

let standIns: Record<string, StandIn>;
let node: DnsNode;
let edge: Edge;

/** The document at a revision; `change` edits it. */
function document(revision: number, change: (rules: Json) => void = () => {}): Json {
  const country: Json = { "eu-frankfurt": "DE", "eu-paris": "FR", "us-virginia": "US" };
  const regions: Json = {};
  for (const [name, standIn] of Object.entries(standIns)) {
    Object.assign(regions, region(country[name], name, [standIn.url]));
    regions[name].answers = { A: [address[name]] };
    // The region outside the fence has no monitor, so that each recorded connection comes from a steered request.
    if (name !== "us-virginia") {
      regions[name].monitor = {
        type: "http",
        url: `${standIn.url}/health`,
        interval: "200ms",
        timeout: "2s",
        up_thresh: 2,
        down_thresh: 2,
      };
    }
  }
  const residency = [
    { clients: ["eu", "uk"], process_in: ["eu"] },
    { clients: ["us"], process_in: ["us"] },
  ];
  const whole = rules(revision, regions, { hosts: ["chat.ai.example.com"], residency, ttl: { min: 1, max: 60 } });
  change(whole);
  return whole;
}

beforeAll(async () => {
  const names = ["eu-frankfurt", "eu-paris", "us-virginia"];
  const started = await Promise.all(names.map((name) => StandIn.start(name)));
  standIns = Object.fromEntries(names.map((name, i) => [name, started[i]]));

  node = await DnsNode.start(document(1));
  edge = await Edge.start(null, {
    RULES_URL: `${node.url}/v1/rules`,
    HEALTH_URLS: `${node.url}/v1/health`,
  });
});
afterAll(stopAll);

function dig(country: string): string {
  const args = [
    `@${node.dns.host}`,
    "-p",
    node.dns.port,
    "+short",
    `+subnet=${clients[country]}/24`,
    "chat.ai.example.com",
    "A",
  ];
  return execFileSync("dig", args, { encoding: "utf8" }).trim();
}

/** Where DNS and the Worker send a client: the address in the DNS answer, and the region that answers HTTP. */
async function seen(country: string): Promise<{ dns: string; edge: string | null; status: number }> {
  const reply = await read(await edge.chat(country, {}, { host: "chat.ai.example.com" }));
  return { dns: dig(country), edge: reply.region, status: reply.status };
}

const both = (name: string) => ({ dns: address[name], edge: name, status: 200 });
const moved = (country: string, name: string) =>
  until(
    () => seen(country),
    (value) => value.dns === address[name] && value.edge === name,
  );

test("an endpoint dies and comes back: both halves move inside the fence and back", async () => {
  for (const country of ["DE", "GB"]) expect((await seen(country)).status).toBe(200);
  expect(await seen("DE")).toEqual(both("eu-frankfurt"));

  const { frankfurt, paris } = { frankfurt: standIns["eu-frankfurt"], paris: standIns["eu-paris"] };
  await frankfurt.ill();
  await moved("DE", "eu-paris");

  // All regions of the fence die. Clients get errors and addresses of the fence, never Virginia.
  await paris.ill();
  await frankfurt.fail({ mode: "reset-headers", path: "/v1/" });
  await paris.fail({ mode: "reset-headers", path: "/v1/" });
  const dead = await until(
    () => seen("DE"),
    (value) => value.status === 503,
  );
  expect(dead.edge).toBeNull();
  expect([address["eu-frankfurt"], address["eu-paris"]]).toContain(dead.dns);

  await Promise.all([frankfurt.well(), paris.well()]);
  await moved("DE", "eu-frankfurt");
  expect(await standIns["us-virginia"].connections()).toBe(0);
});

test("one edit of the document changes both halves", async () => {
  node.publish(
    document(2, (whole) => {
      whole.services.chat.pattern = "active-passive";
      whole.services.chat.regions = ["eu-paris", "eu-frankfurt", "us-virginia"];
    }),
  );
  await moved("DE", "eu-paris");
  expect(await standIns["us-virginia"].connections()).toBe(0);

  // An invalid document changes neither half.
  node.publish("{");
  node.publish(document(3, (whole) => (whole.services.chat.regions = ["eu-pairs"])));
  for (let i = 0; i < 10; i++) expect(await seen("DE")).toEqual(both("eu-paris"));
});

test("an American client is served in America, which proves that the recorder works", async () => {
  expect(await seen("US")).toEqual(both("us-virginia"));
  expect(await standIns["us-virginia"].connections()).toBeGreaterThan(0);
});
