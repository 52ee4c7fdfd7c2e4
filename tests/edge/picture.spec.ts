// The page at /ui/ of the real DNS server, in a real browser: what its first screen answers, what is never run or sent,
// and whom it leaves out. BAILIWICK_SHOTS=FOLDER keeps screenshots for people to look at.
import { spawnSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { mkdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { type AddressInfo, connect, createServer as createTcpServer } from "node:net";
import { join } from "node:path";
import { type Browser, type Page, chromium } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Json, onStop, root, stopAll, until } from "./harness.js";
import { DnsNode, WORKER_TOKEN } from "./node.js";

const AXE = readFileSync(`${root}node_modules/axe-core/axe.min.js`, "utf8");
const SHOTS = process.env.BAILIWICK_SHOTS;
const SCRIPT = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>";
const COUNTRIES = "DE GB US FR NL IE ES IT SE PL FI AT BE DK PT CZ RO HU GR BG JP SG AU IN BR CA MX ZA AE KR".split(
  " ",
);
const tomorrow = new Date(Date.now() + 86_400_000).toISOString();

let browser: Browser, three: DnsNode, sixty: DnsNode, empty: DnsNode, open: number, metrics: number;

/** Rules of a service in these regions. */
function rules(revision: number, regions: Json, more: Json = {}): Json {
  const names = Object.keys(regions);
  const residency = [
    { clients: ["eu"], process_in: ["eu"] },
    { clients: ["*", "unknown"], process_in: ["*"] },
  ];
  const hosts = ["chat.ai.example.com"];
  const chat = { hosts, pattern: "active-active", regions: names, residency };
  const services = names.length > 0 ? { services: { chat } } : {};
  return { version: 1, revision, jurisdictions: { eu: { include: ["EU"] } }, regions, ...services, ...more };
}

/** A region that is watched at this port of this machine. */
function watched(country: string, place: number, port: number, more: Json = {}): Json {
  const address = `127.0.0.1:${port}`;
  const monitor = { type: "tcp", address, interval: "1s", timeout: "500ms", up_thresh: 1, down_thresh: 1 };
  return { countries: [country], answers: { A: [`192.0.2.${place + 1}`] }, monitor, ...more };
}

const calm = (): Json => ({
  "eu-frankfurt": watched("DE", 0, open, { load: { capacity: 100, demand: 60 } }),
  "eu-paris": watched("FR", 1, open, { load: { capacity: 100, demand: 40 } }),
  "us-virginia": watched("US", 2, open),
});

/** Sixty regions of which a third is down and some are full. */
function onFire(): Json {
  const port = (place: number) => (place % 3 === 1 ? 1 : open);
  const endpoint = {
    url: "http://127.0.0.1:9/v1",
    capacity: 10,
    load: { type: "vllm", url: `http://127.0.0.1:${metrics}/` },
  };
  const more = (place: number) => (place % 5 === 0 ? { load: { demand: 8 }, endpoints: { gpu: endpoint } } : {});
  const regions = Array.from({ length: 60 }, (_, place) => {
    const country = COUNTRIES[place % COUNTRIES.length]!;
    return [`${country.toLowerCase()}-site-${place}`, watched(country, place, port(place), more(place))];
  });
  return Object.fromEntries(regions);
}

beforeAll(async () => {
  browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
  onStop(() => browser.close());
  const alive = createTcpServer((socket) => socket.end()).listen(0, "127.0.0.1");
  onStop(() => alive.close());
  const engine = createServer((_, reply) => {
    reply.end("vllm:num_requests_waiting 40\nvllm:num_requests_running 10\nvllm:kv_cache_usage_perc 0.9\n");
  }).listen(0, "127.0.0.1");
  onStop(() => engine.close());
  await until(
    async () => alive.listening && engine.listening,
    (both) => both,
  );
  open = (alive.address() as AddressInfo).port;
  metrics = (engine.address() as AddressInfo).port;
  const forced = { region: "de-site-0", status: "down", until: tomorrow, reason: SCRIPT };
  [three, sixty, empty] = await Promise.all([
    DnsNode.start(rules(1, calm())),
    DnsNode.start(rules(1, onFire(), { overrides: [forced] }), `[fleet]\npeers = ["http://127.0.0.1:1"]\n`),
    DnsNode.start(rules(1, {})),
  ]);
  for (const subnet of ["85.214.132.0/24", "8.8.8.0/24", "5.39.0.0/24"]) {
    const { host, port } = three.dns;
    spawnSync("dig", [`@${host}`, "-p", port, "+short", `+subnet=${subnet}`, "chat.ai.example.com", "A"]);
  }
}, 120_000);
afterAll(stopAll);

interface Look {
  width?: number;
  height?: number;
  dark?: boolean;
  path?: string;
}

/** A page, and what went wrong on it. */
async function see(node: { url: string }, { width = 1600, height = 1000, dark = false, path = "" }: Look = {}) {
  const options = { viewport: { width, height }, colorScheme: dark ? ("dark" as const) : ("light" as const) };
  const context = await browser.newContext({ ...options, permissions: ["clipboard-read", "clipboard-write"] });
  onStop(() => context.close());
  const page = await context.newPage();
  const wrong: string[] = [];
  page.on("console", (message) => message.type() === "error" && wrong.push(message.text()));
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("request", (request) => request.url().startsWith(node.url) || wrong.push(`asks ${request.url()}`));
  await page.addInitScript("addEventListener('securitypolicyviolation', (e) => console.error(e.violatedDirective))");
  await page.goto(`${node.url}/ui/${path}`);
  return { page, wrong };
}

const tile = (page: Page, label: string | RegExp) =>
  page.locator(".tile").filter({ has: page.locator(".label", { hasText: label }) });
const number = (page: Page, label: string | RegExp) => tile(page, label).locator(".number").innerText();

async function shoot(page: Page, name: string) {
  if (SHOTS === undefined) return;
  mkdirSync(SHOTS, { recursive: true });
  await page.screenshot({ path: join(SHOTS, `${name}.png`) });
}

test("the first screen says what is outside, down, where Germans go, and what changed", async () => {
  const { page, wrong } = await see(three);
  await page.locator(".world path.hue-0").first().waitFor();
  await page.locator("td .verdict.up").nth(2).waitFor();
  expect([await number(page, "fence violations"), await number(page, "regions down")]).toEqual(["0", "0"]);
  expect(await tile(page, "fence violations").innerText()).toMatch(
    /251 decisions of revision 1 .* compared with the document/s,
  );
  expect(await page.locator(".finder .answer").innerText()).toBe("● eu-frankfurt");
  expect(await page.locator(".flow.ecs").count()).toBeGreaterThan(1);
  await shoot(page, "3-light-1600");

  // An operator drains Frankfurt: the page follows without being loaded again.
  const forced = { region: "eu-frankfurt", status: "down", until: tomorrow, reason: "drill" };
  three.publish(rules(2, calm(), { overrides: [forced] }));
  await page.locator(".events", { hasText: "is forced down until" }).waitFor();
  await page.locator(".finder .answer", { hasText: "eu-paris" }).waitFor();
  await tile(page, "region down").waitFor();
  const events = await page.locator(".events").innerText();
  expect(events).toContain("revision 2 is in service, after 1");
  expect(events).toMatch(/eu-frankfurt\s+is down, was up/);
  expect(await tile(page, "region down").innerText()).toMatch(/^1\s+region down\s+eu-frankfurt: forced: drill/);
  expect(await number(page, "fence violations")).toBe("0");
  await shoot(page, "3-drained-1600");

  // Who asks for Americans is told, too.
  await page.locator("#of").selectOption("US");
  expect(await page.locator(".finder .answer").innerText()).toBe("● us-virginia");
  expect(wrong).toEqual([]);
});

test("axe finds nothing on any page, in light and dark, at 400 and 1600 pixels", async () => {
  const pages = ["", "#/timeline/de-site-0", "#/ask", "#/rules", "#/rollouts", "#/drills", "#/capacity", "#/nodes"];
  let checked = 0;
  for (const dark of [false, true]) {
    for (const width of [400, 1600]) {
      const { page, wrong } = await see(sixty, { dark, width });
      await page.locator("tr.down").first().waitFor();
      for (const path of pages) {
        await page.goto(`${sixty.url}/ui/${path}`);
        await page.locator("main section").first().waitFor();
        if (path === "#/ask") {
          await page.getByRole("button", { name: "Ask every node" }).click();
          await page.locator(".answer").waitFor();
        }
        if (path.startsWith("#/timeline")) await page.locator(".u-over").waitFor();
        await page.evaluate(AXE);
        const found = (await page.evaluate("axe.run({ resultTypes: ['violations'] })")) as Json;
        const told = found.violations.map(
          (one: Json) => `${one.id}: ${one.nodes.map((node: Json) => node.html).slice(0, 3)}`,
        );
        expect(told, `${path} ${dark} ${width}`).toEqual([]);
        checked += found.passes.length;
        await shoot(page, `60-${path.replaceAll(/[^a-z]+/g, "-")}-${dark ? "dark" : "light"}-${width}`);
        const wide = (await page.evaluate("document.documentElement.scrollWidth")) as number;
        expect(wide, `${path} is wider than the screen`).toBeLessThanOrEqual(width);
      }
      // The peer can't be reached, and nothing else goes wrong.
      expect(wrong).toEqual([]);
    }
  }
  expect(checked).toBeGreaterThan(28 * 10);
}, 180_000);

test("sixty regions on fire: who is down, who says so, and nothing hostile runs", async () => {
  const { page, wrong } = await see(sixty);
  await tile(page, "regions down").waitFor();
  await until(
    async () => Number(await number(page, "regions down")),
    (down) => down === 21,
  );
  const down = await tile(page, "regions down").innerText();
  expect(down).toMatch(/-site-\d+: probes fail: .*refused/);
  expect(await tile(page, "held by hand").innerText()).toContain(`de-site-0 down`);
  expect(await tile(page, "held by hand").innerText()).toContain(SCRIPT.slice(0, 40));
  await until(
    async () => Number(await number(page, "full")),
    (full) => full === 7,
  );
  expect(await tile(page, "full").innerText()).toContain("mark 90 %");
  expect(await tile(page, "node unheard").innerText()).toContain("http://127.0.0.1:1");
  expect(
    await page.evaluate("[window.hacked ?? null, document.querySelectorAll('#page script, #page img').length]"),
  ).toEqual([null, 0]);
  const first = await page.locator("tbody tr").first().innerText();
  expect(first).toMatch(/down/);
  await shoot(page, "60-fire-light-1600");
  expect(wrong).toEqual([]);
});

test("names of any kind stay text of their own direction, and a megabyte is cut", async () => {
  const hostile = [SCRIPT, "\u202edlrow eht\u2066", "A".repeat(1 << 20), "='cmd'!A1"];
  const context = await browser.newContext();
  onStop(() => context.close());
  const page = await context.newPage();
  await page.route("**/v1/picture", async (route) => {
    const picture = await (await route.fetch()).json();
    picture.regions.slice(0, 4).forEach((region: Json, place: number) => {
      Object.assign(region, { region: hostile[place], why: hostile[place], status: "down", failure: hostile[place] });
    });
    picture.node = hostile[0];
    picture.skew = [
      {
        model: hostile[2],
        region: hostile[1],
        endpoint: "e",
        state: "differs",
        is_skewed: true,
        differs: [hostile[0]],
      },
    ];
    picture.troubles = hostile;
    await route.fulfill({ json: picture });
  });
  await page.goto(`${sixty.url}/ui/`);
  await page.locator("tr.down").nth(3).waitFor();
  expect(
    await page.evaluate("[window.hacked ?? null, document.querySelectorAll('#page script, #page img').length]"),
  ).toEqual([null, 0]);
  const texts = (await page.evaluate("document.body.innerText.length")) as number;
  expect(texts).toBeLessThan(60_000);
  expect(await page.locator("td bdi", { hasText: "<script>" }).count()).toBeGreaterThan(0);
  // Outside of <bdi>, nothing changes the direction of what follows.
  const loose = await page.evaluate(`(() => {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) {
      const node = walker.currentNode;
      const turns = /[\\u202a-\\u202e\\u2066-\\u2069]/.test(node.data);
      if (turns && !node.parentElement.closest("bdi, option, svg text")) found.push(node.data);
    }
    return found;
  })()`);
  expect(loose).toEqual([]);
});

test("everything is reached by keyboard, and a column sorts by it", async () => {
  const { page } = await see(three);
  await page.locator("td .verdict").first().waitFor();
  await page.keyboard.press("Tab");
  expect(await page.evaluate("document.activeElement.className")).toBe("skip");
  const reached = new Set<string>();
  for (let step = 0; step < 80; step += 1) {
    await page.keyboard.press("Tab");
    const name = (await page.evaluate(
      "(({ id, innerText, ariaLabel }) => (id || innerText || ariaLabel || '').trim())(document.activeElement)",
    )) as string;
    if (reached.size > 5 && name === "bailiwick") break;
    reached.add(name);
  }
  for (const wanted of ["Now", "Timeline", "Ask", "Rules", "Rollouts", "Nodes", "of", "Region", "CSV", "eu-paris"]) {
    expect(
      [...reached].some((name) => name === wanted || name.startsWith(wanted)),
      wanted,
    ).toBe(true);
  }
  const head = page.locator("section[aria-label=Regions] th").first();
  await head.locator("button").focus();
  await page.keyboard.press("Enter");
  expect(await head.getAttribute("aria-sort")).toBe("ascending");
  await page.keyboard.press("Enter");
  expect(await head.getAttribute("aria-sort")).toBe("descending");
  expect(await page.locator("section[aria-label=Regions] tbody tr").first().innerText()).toMatch(/^us-virginia/);
  await page.locator("nav a", { hasText: "Timeline" }).press("Enter");
  await page.locator(".rows a", { hasText: "eu-paris" }).press("Enter");
  await page.locator("section[aria-label='load and first token of eu-paris']").waitFor();
});

test("a table is copied as CSV that no spreadsheet runs, and as JSON", async () => {
  const { page } = await see(three);
  await page.locator("td .verdict").first().waitFor();
  await page.getByRole("button", { name: "copy Regions as CSV" }).click();
  await page.getByRole("status").filter({ hasText: "copied as CSV" }).waitFor();
  const csv = (await page.evaluate("navigator.clipboard.readText()")) as string;
  expect(csv.split("\r\n")[0]).toMatch(/^region,verdict,held_by,/);
  expect(csv).toContain("\r\nus-virginia,");
  await page.getByRole("button", { name: "copy Who goes where as JSON" }).click();
  await page.getByRole("status").filter({ hasText: "copied as JSON" }).waitFor();
  const json = JSON.parse((await page.evaluate("navigator.clipboard.readText()")) as string);
  expect(json.find((row: Json) => row.countries.includes("US")).to).toBe("us-virginia");
});

test("a row that moves to another part of a long table stands in one of them", async () => {
  const doomed = createTcpServer((socket) => socket.end()).listen(0, "127.0.0.1");
  onStop(() => doomed.close());
  await until(
    async () => doomed.listening,
    (listens) => listens,
  );
  const { port } = doomed.address() as AddressInfo;
  const regions = Array.from({ length: 120 }, (_, place) => {
    const country = COUNTRIES[place % COUNTRIES.length]!;
    return [`site-${1000 + place}`, watched(country, place, place < 110 ? open : port)];
  });
  const node = await DnsNode.start(rules(1, Object.fromEntries(regions)));
  const { page } = await see(node, { height: 600 });
  const names = () => page.locator("section[aria-label=Regions] tbody td:first-child").allInnerTexts();
  const before = await until(names, (all) => all.length === 120);
  expect(before.at(-1)).toContain("site-1119");
  // The last ten become the first ten, and move all others down. Most parts of the table aren't near what is seen.
  doomed.close();
  await until(
    async () => (await names())[9],
    (tenth) => /site-11[12]/.test(tenth ?? ""),
  );
  expect(new Set(await names()).size).toBe(120);
});

test("the page weighs at most 100 kB on the wire", async () => {
  const context = await browser.newContext();
  onStop(() => context.close());
  const page = await context.newPage();
  const sizes: Promise<number>[] = [];
  page.on("requestfinished", (request) => {
    if (!request.url().includes("/ui/")) return;
    sizes.push(request.sizes().then((size) => size.responseBodySize + size.responseHeadersSize));
  });
  await page.goto(`${three.url}/ui/`);
  await page.locator(".world path.hue-0").first().waitFor();
  const all = await Promise.all(sizes);
  const sum = all.reduce((bytes, one) => bytes + one, 0);
  console.log(`on the wire, with headers: ${sum} bytes in ${all.length} answers`);
  expect([all.length >= 4, sum > 50_000, sum <= 100_000]).toEqual([true, true, true]);
});

test("with nothing configured it says so", async () => {
  const { page, wrong } = await see(empty);
  await page.getByRole("heading", { name: "Nothing is steered yet" }).waitFor();
  expect(await number(page, "fence violations")).toBe("–");
  await shoot(page, "empty-light-1600");
  expect(wrong).toEqual([]);
});

test("where reading needs a token, it is typed in and stands in no URL and no storage", async () => {
  const far = await DnsNode.start(rules(1, calm()), "", "0.0.0.0:0");
  const url = far.url.replace("0.0.0.0", "127.0.0.1");
  const { page, wrong } = await see({ url });
  await page.getByRole("heading", { name: "This node wants a token" }).waitFor();
  await shoot(page, "token-light-1600");
  expect(await page.getByRole("alert").count()).toBe(0);
  for (const [typed, said] of [
    ["f".repeat(64), /refuses this token/],
    ["f".repeat(63), /refuses this token/],
    // A header can't carry these, so the node isn't asked.
    [`${"f".repeat(63)}ж`, /beyond ASCII/],
    [" ", /Type a token/],
  ] as const) {
    await page.evaluate("document.querySelector('[role=alert]')?.setAttribute('data-old', '')");
    await page.getByLabel("Token").fill(typed);
    await page.keyboard.press("Enter");
    // Another element each time, so that a screen reader says it again.
    await page.locator("[role=alert]:not([data-old])").waitFor();
    expect(await page.getByRole("alert").innerText()).toMatch(said);
    expect(await page.evaluate("document.activeElement.name")).toBe("token");
  }
  await page.evaluate(AXE);
  expect(((await page.evaluate("axe.run({ resultTypes: ['violations'] })")) as Json).violations).toEqual([]);
  await shoot(page, "token-wrong-1600");
  const asked: string[] = [];
  page.on("request", (request) => asked.push(request.url()));
  await page.getByLabel("Token").fill(WORKER_TOKEN);
  await page.getByRole("button", { name: "Look" }).click();
  await page.locator("td .verdict").first().waitFor();
  await page.locator(".live").waitFor();
  expect(asked.some((one) => one.includes("/v1/events"))).toBe(true);
  expect(asked.filter((one) => one.includes(WORKER_TOKEN))).toEqual([]);
  const kept = "JSON.stringify([location.href, document.cookie, { ...localStorage }, { ...sessionStorage }])";
  expect(await page.evaluate(kept)).toBe(JSON.stringify([`${url}/ui/`, "", {}, {}]));
  expect(await page.evaluate("document.documentElement.outerHTML")).not.toContain(WORKER_TOKEN);
  // Answers without a token, and those with a wrong one, are all that went wrong.
  expect(wrong.filter((one) => !one.includes("401"))).toEqual([]);
});

test("a node that hangs is shown as silent, and what it told as no longer good", async () => {
  const node = await DnsNode.start(rules(1, calm()));
  const { page } = await see(node);
  await page.locator(".live").waitFor();
  await page.locator(".tile.good").waitFor();
  const ended = page.waitForEvent("requestfailed", {
    predicate: (request) => request.url().includes("/v1/events"),
    timeout: 60_000,
  });
  node.signal("SIGSTOP");
  const alert = page.getByRole("alert").filter({ hasText: "has been silent since" });
  await alert.waitFor({ timeout: 40_000 });
  expect(await alert.innerText()).toContain("gave no answer within 10 seconds");
  expect(await page.locator(".who .late").innerText()).toMatch(/^silent for \d+ s$/);
  expect(await page.locator(".tile.good").count()).toBe(0);
  await shoot(page, "silent-light-1600");
  // Its stream is open and gives nothing.
  await ended;
  node.signal("SIGCONT");
  await page.locator(".live").waitFor({ timeout: 40_000 });
  await page.locator(".tile.good").waitFor();
  expect(await alert.count()).toBe(0);
}, 180_000);

/** Makes the page believe that its tab is hidden, or shown again. */
const hide = (page: Page, hidden: boolean) =>
  page.evaluate(`Object.defineProperty(document, "hidden", { configurable: true, value: ${hidden} });
    document.dispatchEvent(new Event("visibilitychange"));`);

test("a hidden page ends its stream and asks nothing, and goes on where it was", async () => {
  const { page } = await see(sixty, { path: "#/nodes" });
  await page.locator(".live").waitFor();
  await page.locator("section[aria-label=Nodes]").waitFor();
  const asked: string[] = [];
  page.on("request", (request) => asked.push(new URL(request.url()).pathname));
  await page.clock.install();
  const ended = page.waitForEvent("requestfailed", (request) => request.url().includes("/v1/events"));
  await hide(page, true);
  await ended;
  asked.length = 0;
  await page.clock.runFor(120_000);
  expect(asked).toEqual([]);
  const resumed = page.waitForRequest((request) => request.url().includes("/v1/events"));
  await hide(page, false);
  expect((await resumed).headers()["last-event-id"]).toMatch(/^\d+-\d+$/);
  await page.locator(".live").waitFor();
  await until(
    async () => ["/v1/picture", "/v1/fleet/nodes"].filter((path) => !asked.includes(path)),
    (missing) => missing.length === 0,
  );
});

test("whoever asks twice is answered twice, and told when", async () => {
  const { page, wrong } = await see(three, { path: "#/ask" });
  const asked: string[] = [];
  page.on("request", (request) => request.url().includes("/v1/explain/nodes") && asked.push(request.url()));
  for (const times of [1, 2]) {
    await page.getByRole("button", { name: "Ask every node" }).click();
    await until(
      async () => asked.length,
      (number) => number === times,
    );
    await page.locator(".asked", { hasText: /^Answered at \d\d:\d\d:\d\d UTC\.$/ }).waitFor();
    await page.locator(".answer").waitFor();
  }
  expect(asked[0]).toBe(asked[1]);
  await shoot(page, "ask-light-1600");
  expect(wrong).toEqual([]);
});

test("what is old or left out is said", async () => {
  const { page, wrong } = await see(sixty);
  let [decided, revived] = [20_000, false];
  await page.route("**/v1/picture*", async (route) => {
    const picture = await (await route.fetch()).json();
    const now = Date.parse(picture.now);
    const german = picture.going[0].groups.find((one: Json) => one.countries.split(" ").includes("DE"));
    const region = picture.regions.find((one: Json) => one.region === german.to);
    Object.assign(region, { status: "down", forced: false });
    german.is_revived = revived;
    picture.going_at = new Date(now - decided).toISOString();
    Object.assign(picture, { services: ["chat", "one", "two", "three"], going_left_out: 3 });
    const flow = { service: "chat", country: "DE", region: german.to, source: "ecs", queries: 6000 };
    const missing = [{ peer: "http://127.0.0.1:1", why: "it is stopped" }];
    picture.fleet_traffic = { at: picture.now, flows: [flow], left_out: 7, missing };
    await route.fulfill({ json: picture });
  });
  await page.reload();
  const answer = page.locator(".finder .answer", { hasText: "is down" });
  await answer.waitFor();
  await page.locator(".aged", { hasText: /^As decided \d+ s ago\.$/ }).waitFor();
  expect(await answer.innerText()).not.toContain("nothing else is left");
  expect(await page.locator(".mapped").innerText()).toContain("leave out 3 services");
  await page.locator(".finder", { hasText: "3 more services" }).waitFor();
  await page.locator(".legend", { hasText: "without 7 smaller flows" }).waitFor();
  expect(await page.locator(".legend").innerText()).toContain("without the queries of 1 node");
  await page.locator(".finder", { hasText: "10 queries a second" }).waitFor();
  await shoot(page, "left-out-light-1600");
  [decided, revived] = [1000, true];
  await page
    .locator(".finder .answer", { hasText: "is down, and offered all the same: nothing else is left" })
    .waitFor();
  expect(await page.locator(".aged").count()).toBe(0);
  await page.goto(`${sixty.url}/ui/#/ask`);
  expect(await page.locator("form select").first().locator("option").allInnerTexts()).toEqual([
    "chat",
    "one",
    "two",
    "three",
  ]);
  expect(wrong).toEqual([]);
});

/** A query for A of chat.ai.example.com with this id (RFC 1035 §4.1). */
function dnsQuery(id: number): Buffer {
  const name = ["chat", "ai", "example", "com", ""].map((label) => Buffer.from([label.length, ...Buffer.from(label)]));
  const head = Buffer.from([id >> 8, id & 255, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
  return Buffer.concat([head, ...name, Buffer.from([0, 1, 0, 1])]);
}

test("a hundred viewers who read nothing cost no query its answer", async () => {
  const node = await DnsNode.start(rules(1, calm()));
  const { hostname, port } = new URL(node.url);
  let seen = 0;
  const viewers = Array.from({ length: 100 }, () => {
    const viewer = connect(Number(port), hostname);
    viewer.on("error", () => {});
    viewer.once("data", () => {
      seen += 1;
      viewer.pause();
    });
    viewer.write("GET /v1/events HTTP/1.1\r\nhost: node\r\n\r\n");
    return viewer;
  });
  onStop(() => viewers.forEach((viewer) => viewer.destroy()));
  await until(
    async () => seen,
    (all) => all === 100,
  );
  expect((await fetch(`${node.url}/v1/events`)).status).toBe(503);
  const answered = new Set<number>();
  const socket = createSocket("udp4").on("message", (reply) => answered.add(reply.readUInt16BE(0)));
  onStop(() => socket.close());
  // A few at a time, so that no buffer of the system is full; each flip of health is an event for every viewer.
  for (let first = 0; first < 2000; first += 20) {
    if (first % 400 === 0) node.publish(rules(2 + first / 400, calm()));
    for (let id = first; id < first + 20; id += 1) socket.send(dnsQuery(id), Number(node.dns.port), node.dns.host);
    await until(
      async () => answered.size,
      (size) => size === first + 20,
    );
  }
  // All of them were there all the time, and read nothing of what the system's buffers hold for them. What happens when
  // those are full is tested with the node's own queues.
  expect(viewers.filter((viewer) => viewer.destroyed || viewer.bytesRead === 0)).toEqual([]);
  expect((await fetch(`${node.url}/v1/events`)).status).toBe(503);
});
