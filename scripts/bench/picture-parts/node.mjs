// The node that is measured: its rules, its process, and the changes that are made to it. Called by run.mjs.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const COUNTRIES =
  "DE GB US FR NL IE ES IT SE PL FI AT BE DK PT CZ RO HU GR BG JP SG AU IN BR CA MX ZA AE KR CL AR NZ NO CH".split(" ");
const TOKEN = "4".repeat(64);
const SERVICES = ["chat", "embed", "batch"];

/** Rules with so many regions, each watched at a port of this machine. */
function rules(count, port) {
  const name = (nth) => `${COUNTRIES[nth % COUNTRIES.length].toLowerCase()}-site-${nth}`;
  const monitor = { type: "tcp", address: `127.0.0.1:${port}`, interval: "30s", timeout: "2s" };
  const region = (nth) => ({
    countries: [COUNTRIES[nth % COUNTRIES.length]],
    location: { latitude: ((nth * 37) % 120) - 50, longitude: ((nth * 71) % 340) - 170 },
    answers: { A: [`10.${nth >> 16}.${(nth >> 8) & 255}.${nth & 255}`] },
    load: { capacity: 100, demand: nth % 97 },
    monitor,
  });
  const regions = Object.fromEntries(Array.from({ length: count }, (_, nth) => [name(nth), region(nth)]));
  const residency = [
    { clients: ["eu"], process_in: ["eu"] },
    { clients: ["*", "unknown"], process_in: ["*"] },
  ];
  const service = (nth) => ({
    hosts: [`${SERVICES[nth]}.ai.example.com`],
    pattern: "active-active",
    regions: Object.keys(regions).filter((_, place) => place % SERVICES.length === nth),
    residency,
  });
  const services = Object.fromEntries(SERVICES.map((one, nth) => [one, service(nth)]));
  return { version: 1, revision: 1, jurisdictions: { eu: { include: ["EU"] } }, regions, services };
}

/** Starts the program in a folder of its own. */
export async function startNode(binary, count, peers) {
  const alive = createServer((socket) => socket.end()).listen(0, "127.0.0.1");
  await once(alive, "listening");
  const folder = mkdtempSync(join(tmpdir(), "bailiwick-picture-"));
  const write = (name, text) => writeFileSync(join(folder, name), text, { mode: 0o600 });
  const document = rules(count, /** @type {import("node:net").AddressInfo} */ (alive.address()).port);
  write("rules.json", JSON.stringify(document));
  write("api.token", TOKEN);
  write(
    "ai.example.com.zone",
    "$ORIGIN ai.example.com.\n@ 300 SOA ns1 hm 1 3600 600 86400 60\n@ 300 NS ns1\nns1 300 A 192.0.2.53\n",
  );
  const database = resolve("node_modules/@ip-location-db/geo-whois-asn-country-mmdb/geo-whois-asn-country.mmdb");
  const fleet = peers.length > 0 ? `[fleet]\npoll = "30s"\npeers = ${JSON.stringify(peers)}\n` : "";
  write(
    "bailiwick.toml",
    `listen = ["127.0.0.1:0"]\nrules = "rules.json"\ngeoip = "${database}"\nnode = "ns1"\n` +
      `[zones]\n"ai.example.com" = "ai.example.com.zone"\n` +
      `[api]\nlisten = "127.0.0.1:0"\ntoken_file = "api.token"\n${fleet}`,
  );
  const ready = join(folder, "ready.json");
  const log = openSync(join(folder, "log"), "w");
  const server = spawn(resolve(binary), ["serve", "--config", join(folder, "bailiwick.toml"), "--ready-file", ready], {
    stdio: ["ignore", "ignore", log],
  });
  while (!existsSync(ready)) {
    if (server.exitCode !== null) throw new Error(readFileSync(join(folder, "log"), "utf8"));
    await new Promise((done) => setTimeout(done, 50));
  }
  const url = `http://${JSON.parse(readFileSync(ready, "utf8")).api}`;
  const names = Object.keys(document.regions);
  const headers = { authorization: `Bearer ${TOKEN}`, "content-type": "application/json" };
  let turn = 0;
  return {
    url,
    isOver: false,
    /** Resident bytes that are the process's own. */
    memory() {
      const line = readFileSync(`/proc/${server.pid}/status`, "utf8").match(/^RssAnon:\s+(\d+) kB$/m);
      return Number(line?.[1]) * 1024;
    },
    /** Forces a region down, or lets go of the last one, every so many milliseconds. */
    change(every) {
      return setInterval(() => {
        const region = names[((turn >> 1) * 7) % names.length];
        const until = new Date(Date.now() + 3_600_000).toISOString();
        const body = JSON.stringify({ region, status: "down", until, reason: `change ${turn}`, force: true });
        const path = turn % 2 === 0 ? "/v1/overrides" : `/v1/overrides/${region}`;
        const init = turn % 2 === 0 ? { method: "POST", body, headers } : { method: "DELETE", headers };
        turn += 1;
        fetch(`${url}${path}`, init).catch(() => {});
      }, every);
    },
    changes: async () => turn,
    async stop() {
      this.isOver = true;
      server.kill();
      await once(server, "exit");
      alive.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
