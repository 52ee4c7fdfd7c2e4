// Fifty tenants at once, each in its own jurisdiction, while the rules change. Each request sees one revision from
// start to end, and nothing of another tenant.
import { afterAll, expect, test } from "vitest";
import { Faulty } from "./faulty.js";
import { Edge, type Json, keyDigest, read, stopAll } from "./harness.js";

afterAll(stopAll);

const COUNTRIES = (
  "AT BE BG HR CY CZ DK EE FI FR DE GR HU IE IT LV LT LU MT NL PL PT RO SK SI ES SE " +
  "GB US CA JP AU NZ BR IN CH NO IS MX AR CL CO ZA KE EG MA TR IL KR SG"
).split(" ");
const REVISIONS = 6;

/**
 * Rules in which every tenant has a jurisdiction, a region, an endpoint and a secret. Each revision changes the
 * endpoints' paths.
 */
function document(revision: number, url: string): Json {
  const each = <T>(make: (name: string, country: string) => T): Json =>
    Object.fromEntries(
      COUNTRIES.map((country) => [`t-${country.toLowerCase()}`, make(`t-${country.toLowerCase()}`, country)]),
    );
  return {
    version: 1,
    revision,
    jurisdictions: each((_, country) => ({ countries: [country] })),
    regions: each((name, country) => ({
      countries: [country],
      endpoints: { [`${name}-1`]: { url: `${url}/echo/${revision}/${name}/v1`, secret: `KEY_${country}` } },
    })),
    services: {
      chat: {
        hosts: ["chat.example"],
        pattern: "active-active",
        regions: Object.keys(each(() => 0)),
        residency: Object.keys(each(() => 0)).map((name) => ({ clients: [name], process_in: [name] })),
      },
    },
    tenants: each((name) => ({ key_sha256: [keyDigest(`sk-${name}`)], residency: name, services: ["chat"] })),
  };
}

test("fifty tenants interleaved during rules refreshes never see each other", async () => {
  const faulty = await Faulty.start();
  const secrets = Object.fromEntries(COUNTRIES.map((country) => [`KEY_${country}`, `secret-${country}`]));
  const edge = await Edge.start(document(1, faulty.url), secrets);
  const revisions = new Set<string>();
  let asked = 0;

  async function ask(country: string, round: number): Promise<void> {
    const name = `t-${country.toLowerCase()}`;
    const marker = `${name}/${round}/${Math.random()}`;
    // The country of the client doesn't matter, because the tenant's declared residency counts.
    const reply = await edge.chat(
      "US",
      { messages: [{ role: "user", content: marker }], user: marker },
      { headers: { authorization: `Bearer sk-${name}` } },
    );
    const revision = reply.headers.get("x-bailiwick-revision")!;
    const { status, region, endpoint, json } = await read(reply);
    expect({ status, region, endpoint }).toEqual({ status: 200, region: name, endpoint: `${name}-1` });
    const echo = JSON.parse(json.choices[0].message.content);
    expect(echo.path, "the endpoint doesn't belong to the revision that steered the request").toBe(
      `/echo/${revision}/${name}/v1/chat/completions`,
    );
    expect(echo.credential).toBe(`Bearer secret-${country}`);
    expect(JSON.parse(echo.body).messages[0].content).toBe(marker);
    revisions.add(revision);
    asked += 1;
  }

  expect(COUNTRIES).toHaveLength(50);
  for (let round = 0; round < REVISIONS; round += 1) {
    const crowd = COUNTRIES.map((country) => ask(country, round));
    await edge.put(document(round + 2, faulty.url));
    await Promise.all(crowd);
  }
  expect(asked).toBe(50 * REVISIONS);
  expect(revisions.size, "the rules didn't change during the requests").toBeGreaterThan(2);
});
