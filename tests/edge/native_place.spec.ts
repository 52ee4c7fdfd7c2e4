// Where a client of the native gateway is, by its own GeoIP database and by `networks` of the rules; and that the DNS
// half decides alike.
import { existsSync, readFileSync } from "node:fs";
import { Agent } from "node:http";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ask } from "./asking.js";
import { Gateway, TOP, realDatabase } from "./gateway.js";
import { onStop, region, rules, stopAll, until } from "./harness.js";
import { Endpoint } from "./held.js";
import { country, mmdb, registered } from "./mmdb.js";
import { isNative } from "./native.js";
import { DnsNode } from "./node.js";

afterAll(stopAll);

const TRUST = '[proxy]\ntrust = ["127.0.0.0/8"]\n';
let endpoint: Endpoint;
beforeAll(async () => {
  endpoint = await Endpoint.start();
});

/** Asks as the client at an address, which a trusted proxy names. */
const from = (gateway: Gateway, address: string, agent?: Agent) =>
  ask(gateway.address, { headers: { "cf-connecting-ip": address }, agent });
const regionOf = async (gateway: Gateway, address: string) => {
  const { region, code, status } = await from(gateway, address);
  return region ?? `${status} ${code}`;
};
const DENIED = "451 residency_denied";

/** What a DNS node says of the client at an address. */
async function explain(node: DnsNode, address: string): Promise<{ ordered: { region: string }[] }> {
  const answer = await fetch(`${node.url}/v1/explain?service=chat&client=${address}`);
  return (await answer.json()) as { ordered: { region: string }[] };
}

describe.skipIf(!isNative)("a client's place on the native gateway", () => {
  const small = mmdb({
    "192.0.2.0/24": country("DE"),
    "198.51.100.0/24": country("US"),
    "203.0.113.0/24": registered("DE"),
    "2001:db8:1::/48": country("DE"),
    "2001:db8:2::/48": country("US"),
  });
  const start = (more: string, document: string) =>
    Gateway.start({ config: `${TOP}${more}`, files: { "rules.json": document, "places.mmdb": small } });

  test("the database's country decides the fence, and who is in none is denied", async () => {
    const gateway = await start(`geoip = "places.mmdb"\n${TRUST}`, endpoint.rules());
    const places = {
      "192.0.2.7": "eu-frankfurt",
      "198.51.100.7": "us-virginia",
      "2001:db8:1::7": "eu-frankfurt",
      "2001:db8:2::7": "us-virginia",
      "::ffff:198.51.100.7": "us-virginia",
      "2002:c633:6407::1": "us-virginia", // 6to4 of 198.51.100.7
      "64:ff9b::c000:207": "eu-frankfurt", // NAT64 of 192.0.2.7
      "203.0.113.7": DENIED,
      "2001:db8:3::7": DENIED,
      "127.0.0.1": DENIED,
      "not an address": DENIED,
      "192.0.2.7, 192.0.2.8": DENIED,
    };
    for (const [address, expected] of Object.entries(places))
      expect(await regionOf(gateway, address), address).toBe(expected);
    // The client's own connection counts where no proxy is believed.
    const direct = await ask(gateway.address, { from: "127.0.0.5" });
    expect(direct.code).toBe("residency_denied");
    expect(endpoint.seen.length).toBe(7);
  });

  test("the other end of the connection counts where no proxy is believed", async () => {
    const gateway = await Gateway.start({
      config: `${TOP}geoip = "places.mmdb"\n`,
      files: {
        "rules.json": endpoint.rules(),
        "places.mmdb": mmdb({ "127.0.1.0/24": country("DE"), "127.0.2.0/24": country("US") }),
      },
    });
    for (const [address, expected] of [
      ["127.0.1.9", "eu-frankfurt"],
      ["127.0.2.9", "us-virginia"],
      ["127.0.3.9", undefined],
    ]) {
      const headers = {
        "cf-connecting-ip": "127.0.1.1",
        "bailiwick-cf": '{"country":"DE"}',
        "x-forwarded-for": "127.0.1.1",
      };
      expect((await ask(gateway.address, { from: address, headers })).region, address).toBe(expected);
    }
  });

  test("an address that is only registered in a country is there with geoip_registered_country", async () => {
    const more = `geoip = "places.mmdb"\ngeoip_registered_country = true\n${TRUST}`;
    const gateway = await start(more, endpoint.rules());
    expect(await regionOf(gateway, "203.0.113.7")).toBe("eu-frankfurt");
    expect(await regionOf(gateway, "198.51.100.7")).toBe("us-virginia");
  });

  test("networks of the rules count before the database", async () => {
    const networks = [
      { prefix: "192.0.2.128/25", country: "US" },
      { prefix: "2001:db8:1:2::/64", country: "US" },
      { prefix: "64:ff9b::/96", country: "US" },
    ];
    const gateway = await start(`geoip = "places.mmdb"\n${TRUST}`, endpoint.rules({ networks }));
    const places = {
      "192.0.2.7": "eu-frankfurt",
      "192.0.2.200": "us-virginia",
      "::ffff:192.0.2.200": "us-virginia",
      "2001:db8:1::7": "eu-frankfurt",
      "2001:db8:1:2::7": "us-virginia",
      "64:ff9b::c000:207": "us-virginia",
    };
    for (const [address, expected] of Object.entries(places))
      expect(await regionOf(gateway, address), address).toBe(expected);
  });

  test("networks of the rules count without a database, as for DNS", async () => {
    const document = JSON.parse(endpoint.rules({ networks: [{ prefix: "192.0.2.0/24", country: "DE" }] }));
    const gateway = await start(TRUST, JSON.stringify(document));
    const node = await DnsNode.start(document);
    for (const address of ["192.0.2.7", "::ffff:192.0.2.7", "2002:c000:207::1", "64:ff9b::c000:207"]) {
      const { ordered } = await explain(node, address);
      expect(
        ordered.map((at) => at.region),
        address,
      ).toEqual(["eu-frankfurt"]);
      expect(await regionOf(gateway, address), address).toBe("eu-frankfurt");
    }
  });

  test("a database that is read again counts, and a bad one changes nothing", async () => {
    const gateway = await start(`geoip = "places.mmdb"\n${TRUST}`, endpoint.rules());
    expect(await regionOf(gateway, "192.0.2.7")).toBe("eu-frankfurt");
    gateway.renew("places.mmdb", mmdb({ "192.0.2.0/24": country("US") }));
    await until(
      () => regionOf(gateway, "192.0.2.7"),
      (at) => at === "us-virginia",
      5_000,
    );
    expect(await regionOf(gateway, "198.51.100.7")).toBe(DENIED);
    const before = gateway.lines.length;
    gateway.renew("places.mmdb", small.subarray(0, small.length - 100));
    await gateway.line(({ message }) => /places\.mmdb: .*the version before it stays in service/.test(message), before);
    expect(await regionOf(gateway, "192.0.2.7")).toBe("us-virginia");
  });

  test("an unknown client is served where a residency rule takes unknown", async () => {
    const residency = [
      { clients: ["eu"], process_in: ["eu"] },
      { clients: ["unknown"], process_in: ["us"] },
    ];
    const gateway = await start(`geoip = "places.mmdb"\n${TRUST}`, endpoint.rules({}, { residency }));
    expect(await regionOf(gateway, "203.0.113.7")).toBe("us-virginia");
    expect(await regionOf(gateway, "192.0.2.7")).toBe("eu-frankfurt");
    expect(await regionOf(gateway, "198.51.100.7"), "known, and in no rule").toBe(DENIED);
  });
});

describe.skipIf(!isNative || !existsSync(realDatabase))("the same client on both halves", () => {
  /** Numbers that are the same in every run. */
  function random(seed: number): () => number {
    let state = seed;
    return () => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return state / 2 ** 32;
    };
  }

  /** Addresses of every kind: IPv4 of all networks, IPv6 of all registries, and IPv6 that carries IPv4. */
  function addresses(count: number): string[] {
    const next = random(7);
    const below = (limit: number) => Math.floor(next() * limit);
    const group = () => below(65_536).toString(16);
    const v4 = () => `${1 + below(223)}.${below(256)}.${below(256)}.${below(256)}`;
    const carried = () => `${group()}:${group()}`;
    // prettier-ignore
    const registries = ["2001:200", "2001:4", "2001:7", "2400", "2404", "2600", "2601", "2607", "2620", "2800", "2803",
      "2a00", "2a01", "2a02", "2a03", "2a09", "2c0f"];
    const v6 = () => {
      const prefix = registries[below(registries.length)];
      return prefix.includes(":") ? `${prefix}${below(10)}::${group()}` : `${prefix}:${group()}:${group()}::${group()}`;
    };
    const kinds = [v4, v4, v6, v6, () => `::ffff:${v4()}`, () => `2002:${carried()}::1`, () => `64:ff9b::${carried()}`];
    return Array.from({ length: count }, (_, i) => kinds[i % kinds.length]());
  }

  test("gets the same region from DNS as from the gateway", { timeout: 60_000 }, async () => {
    const countries = { "eu-frankfurt": "DE", "uk-london": "GB", "us-virginia": "US", "ap-tokyo": "JP" };
    const regions = Object.entries(countries).map(([name, code]) => region(code, name, [endpoint.url]));
    const residency = [
      { clients: ["eu"], process_in: ["eu"] },
      { clients: ["uk"], process_in: ["uk", "eu"] },
      { clients: ["us"], process_in: ["us"] },
      { clients: ["asia"], process_in: ["asia", "us"] },
    ];
    const jurisdictions = {
      eu: { include: ["EU"] },
      uk: { countries: ["GB"] },
      us: { countries: ["US", "CA", "MX", "BR"] },
      asia: { countries: ["JP", "CN", "IN", "KR", "AU", "ID", "TW"] },
    };
    const networks = [
      { prefix: "2a00::/16", country: "JP" },
      { prefix: "60.0.0.0/8", country: "GB" },
    ];
    const document = rules(1, Object.assign({}, ...regions), { residency }, { jurisdictions, networks });
    const [gateway, node] = await Promise.all([
      Gateway.start({
        config: `${TOP}geoip = "${realDatabase}"\n${TRUST}`,
        files: { "rules.json": JSON.stringify(document) },
      }),
      DnsNode.start(document),
    ]);
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    onStop(() => agent.destroy());
    const counts: Record<string, number> = {};
    for (const address of addresses(420)) {
      const [explained, { region, code }] = await Promise.all([explain(node, address), from(gateway, address, agent)]);
      const expected = explained.ordered[0]?.region ?? "residency_denied";
      expect(region ?? code, address).toBe(expected);
      counts[expected] = (counts[expected] ?? 0) + 1;
    }
    console.log(`addresses compared: ${JSON.stringify(counts)}`);
    for (const name of [...Object.keys(countries), "residency_denied"]) expect(counts[name], name).toBeGreaterThan(5);
  });

  test("a database that is replaced counts within seconds", async () => {
    const setup = { config: `${TOP}geoip = "places.mmdb"\n${TRUST}`, files: { "rules.json": endpoint.rules() } };
    const gateway = await Gateway.start({
      ...setup,
      files: { ...setup.files, "places.mmdb": mmdb({ "192.0.2.0/24": country("DE") }) },
    });
    expect(await regionOf(gateway, "8.8.8.8")).toBe(DENIED);
    gateway.write("places.mmdb", readFileSync(realDatabase));
    await until(
      () => regionOf(gateway, "8.8.8.8"),
      (at) => at === "us-virginia",
      10_000,
    );
  });
});
