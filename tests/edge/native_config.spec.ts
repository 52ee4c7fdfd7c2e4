// The native gateway's command line and edge.toml: what is read, what counts, and what is said of a mistake.
import { execFileSync, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ask } from "./asking.js";
import { type Files, Gateway, TOP, certificate, folder, run } from "./gateway.js";
import { onStop, stopAll, until } from "./harness.js";
import { Endpoint } from "./held.js";
import { country, mmdb } from "./mmdb.js";
import { isNative } from "./native.js";

afterAll(stopAll);

const database = mmdb({ "192.0.2.0/24": country("DE") });

describe.skipIf(!isNative)("the native gateway's configuration", () => {
  let endpoint: Endpoint, good: Files, pair: { cert: string; key: string };
  beforeAll(async () => {
    endpoint = await Endpoint.start();
    pair = certificate("one");
    good = { "rules.json": endpoint.local(), "edge.pem": pair.cert, "edge.key": pair.key, "places.mmdb": database };
  });

  const whole =
    `${TOP}geoip = "places.mmdb"\ntls = { cert = "edge.pem", key = "edge.key" }\n` + `[secrets]\nFRA_KEY = "fra.key"\n`;

  test("check says what it has read, and ends with 0", () => {
    const at = folder({ ...good, "edge.toml": whole, "fra.key": "secret-of-frankfurt\n" });
    for (const options of [["check", "--config", join(at, "edge.toml")], ["check"]]) {
      const { code, out, err } = run(options, at);
      expect([code, err]).toEqual([0, ""]);
      expect(out).toMatch(/rules\.json: revision 1\n/);
      expect(out).toMatch(/certificate_expiry: 20\d\d-\d\d-\d\dT/);
      expect(out).toMatch(/geoip_built: 1970-/);
      expect(out).toMatch(/\nok\n$/);
      expect(out).not.toContain("secret-of-frankfurt");
    }
  });

  test("check warns of a certificate that has expired, which can be served", () => {
    const at = folder({ ...good, "edge.toml": `${TOP}tls = { cert = "old.pem", key = "old.key" }\n` });
    const dates = ["-not_before", "20200101000000Z", "-not_after", "20210101000000Z"];
    const made = spawnSync(
      "openssl",
      // prettier-ignore
      ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=old",
        ...dates, "-keyout", "old.key", "-out", "old.pem"],
      { cwd: at },
    );
    // An older OpenSSL can't choose the dates.
    if (made.status !== 0) return;
    const { code, out } = run(["check"], at);
    expect([code, out]).toEqual([0, expect.stringMatching(/old\.pem: expired at 2021-01-01.*renew it/)]);
  });

  /** Its name, edge.toml, other contents of files, and what is said. */
  const mistakes: [string, string, Files, RegExp][] = [
    ["an unknown key", `${TOP}geiop = "x"\n`, {}, /edge\.toml: .*line 4.*unknown field `geiop`.*`geoip`/s],
    ["an unknown key of a section", `${TOP}[limits]\nstream = 1\n`, {}, /line 5.*unknown field `stream`.*`streams`/s],
    ["a wrong type", 'threads = "two"\n', {}, /edge\.toml: .*line 1.*threads = "two".*expected u16/s],
    ["no TOML", "listen =\n", {}, /edge\.toml: .*line 1/s],
    [
      "no address",
      'listen = "443"\n',
      {},
      /line 1.*"443" is no address with a port; write it like "192\.0\.2\.1:443"/s,
    ],
    ["a number for a duration", "[limits]\ndrain = 30\n", {}, /line 2.*drain = 30.*string/s],
    ["a wrong network", '[proxy]\ntrust = ["10.0.0.0/33"]\n', {}, /line 2.*10\.0\.0\.0\/33/s],
    ["a missing file of rules", TOP, { "rules.json": "" }, /rules\.json.*mend/s],
    ["wrong rules", TOP, { "rules.json": '{"version":1,"revision":1,"regoins":{}}' }, /rules\.json: .*regoins/s],
    [
      "a certificate that is none",
      whole,
      { "edge.pem": "nonsense" },
      /edge\.pem: holds no certificate; write the chain/,
    ],
    [
      "a broken certificate",
      whole,
      { "edge.pem": "-----BEGIN CERTIFICATE-----\n%\n" },
      /edge\.pem: can't be read.*mend/,
    ],
    ["a key that is none", whole, { "edge.key": "nonsense" }, /edge\.key: can't be read as a private key.*mend/],
    ["a database that is none", whole, { "places.mmdb": "nonsense" }, /places\.mmdb: /],
    ["an empty secret", whole, { "fra.key": " \n" }, /fra\.key: is empty; write the secret FRA_KEY there/],
    ["a secret that is no text", whole, { "fra.key": Buffer.from([0xff, 0xfe]) }, /fra\.key: .*FRA_KEY.*mend/],
  ];

  test.each(mistakes)("%s is told by check with its place and remedy, with 1", (_, config, files, told) => {
    const at = folder({ ...good, "fra.key": "secret", "edge.toml": config, ...files });
    const { code, out, err } = run(["check"], at);
    expect(err).toMatch(told);
    expect(err).toMatch(/^error: /);
    expect([code, out]).toEqual([1, ""]);
    expect(err).not.toContain("panicked");
  });

  test("a key of another certificate, and every missing file, are told at once", () => {
    const other = certificate("other");
    const mixed = run(["check"], folder({ ...good, "edge.toml": whole, "fra.key": "x", "edge.key": other.key }));
    expect([mixed.code, mixed.err]).toEqual([1, expect.stringMatching(/edge\.pem: .*edge\.key.*belong together/)]);
    const missing = run(["check"], folder({ "edge.toml": whole }));
    expect(missing.code).toBe(1);
    for (const name of ["edge.pem", "edge.key", "places.mmdb", "fra.key", "rules.json"])
      expect(missing.err).toMatch(new RegExp(`error: .*/?${name.replace(".", "\\.")}: .*mend`));
    const none = run(["check", "--config", "nowhere.toml"], folder());
    expect([none.code, none.err]).toEqual([1, expect.stringMatching(/nowhere\.toml: can't be read.*--config/)]);
  });

  test.each(mistakes.filter(([name]) => !name.includes("rules")))(
    "%s keeps serve from starting, with 1",
    (_, config, files, told) => {
      const at = folder({ ...good, "fra.key": "secret", "edge.toml": config, ...files });
      const { code, err } = run(["serve", "--config", "edge.toml", "--listen", "127.0.0.1:0"], at);
      expect([code, err]).toEqual([1, expect.stringMatching(told)]);
      expect(err).not.toContain('"serving"');
    },
  );

  test("an address in use, and a state_dir that is taken or can't be written, keep it from starting", async () => {
    const taken = createServer().listen(0, "127.0.0.1");
    await once(taken, "listening");
    onStop(() => taken.close());
    const { port } = taken.address() as AddressInfo;
    const serve = (config: string) => run(["serve", "--config", "edge.toml"], folder({ ...good, "edge.toml": config }));
    const inUse = serve(`listen = ["127.0.0.1:0", "127.0.0.1:${port}"]\n`);
    expect([inUse.code, inUse.err]).toEqual([1, expect.stringMatching(new RegExp(`error: .*127.0.0.1:${port}.*use`))]);
    const metrics = serve(`${TOP}metrics = { listen = "127.0.0.1:${port}" }\n`);
    expect([metrics.code, metrics.err]).toEqual([1, expect.stringMatching(`127.0.0.1:${port}`)]);

    const first = await Gateway.start({ config: `${TOP}state_dir = "state"\n`, files: good });
    expect(existsSync(join(first.folder, "state", "takeover.sock"))).toBe(true);
    const second = run(["serve", "--config", "edge.toml"], first.folder);
    expect([second.code, second.err]).toEqual([1, expect.stringMatching(/state: another process has it.*--takeover/)]);
    expect((await ask(first.address)).region).toBe("eu-frankfurt");
    const unwritable = serve(`${TOP}state_dir = "/proc/nowhere"\n`);
    expect([unwritable.code, unwritable.err]).toEqual([1, expect.stringMatching("/proc/nowhere: .*can't be written")]);
    const without = run(["serve", "--listen", "127.0.0.1:0", "--takeover"]);
    expect([without.code, without.err]).toEqual([1, expect.stringMatching(/--takeover.*state_dir: set it/)]);
  });

  test("options count more than the file", async () => {
    const other = endpoint.local({ networks: [] });
    const config = 'listen = "127.0.0.1:1"\nthreads = 3\nrules = "rules.json"\n[proxy]\ntrust = ["192.0.2.0/24"]\n';
    const gateway = await Gateway.start({
      config,
      files: { ...good, "other.json": other },
      options: ["--listen", "127.0.0.1:0", "--listen", "127.0.0.2:0", "--threads", "2", "--trust", "127.0.0.1/32"],
    });
    const { addresses, threads } = await gateway.serving();
    expect([addresses.length, threads]).toEqual([2, 2]);
    for (const address of addresses)
      expect((await ask(address, { from: "127.0.0.9" })).region, address).toBe("eu-frankfurt");
    const american = { "bailiwick-cf": '{"country":"US"}', "cf-connecting-ip": "192.0.2.1" };
    expect((await ask(gateway.address, { headers: american })).region).toBe("us-virginia");

    const options = ["--listen", "127.0.0.1:0", "--rules", join(gateway.folder, "other.json")];
    const second = await Gateway.start({ at: gateway.folder, options });
    expect((await second.serving()).threads).toBe(3);
    const denied = await until(
      async () => ask(second.address),
      ({ code }) => code === "residency_denied",
    );
    expect(denied.status).toBe(451);
  });

  test("help, completions and the manual page are whole, and a wrong command line ends with 2", () => {
    const help = run(["--help"]);
    expect(help.code).toBe(0);
    for (const command of ["serve", "check", "completions", "man"]) {
      expect(help.out).toMatch(new RegExp(`\\n  ${command} `));
      const own = run([command, "--help"]);
      expect([own.code, own.out.includes("Usage:"), own.err]).toEqual([0, true, ""]);
    }
    for (const shell of ["bash", "zsh", "fish"]) {
      const { code, out } = run(["completions", shell]);
      expect([code, out.includes("bailiwick-edge"), out.includes("takeover")], shell).toEqual([0, true, true]);
    }
    execFileSync("bash", ["-n"], { input: run(["completions", "bash"]).out });
    const wrong = [[], ["sevre"], ["serve", "--listen", "443"], ["serve", "--threads", "0"], ["completions", "tcl"]];
    for (const options of wrong) {
      const { code, err } = run(options);
      expect([code, /Usage|usage|help/.test(err)], options.join(" ")).toEqual([2, true]);
    }
    expect(run(["--version"])).toMatchObject({ code: 0, out: expect.stringMatching(/^bailiwick-edge \d/) });
  });

  test("the manual page names every command and option", () => {
    const pages: [string[], string[]][] = [
      [["man"], ["NAME", "serve", "check", "completions"]],
      [
        ["man", "serve"],
        ["--config", "--takeover", "SIGUSR2", "edge.toml", "--trust", "--rules"],
      ],
      [["man", "check"], ["--config"]],
    ];
    for (const [options, words] of pages) {
      const page = run(options);
      expect([page.code, page.err]).toEqual([0, ""]);
      const shown = spawnSync("groff", ["-man", "-Tutf8", "-ww", "-P-cbou"], { input: page.out, encoding: "utf8" });
      if (!shown.error) expect([shown.status, shown.stderr]).toEqual([0, ""]);
      const text = shown.error ? page.out : shown.stdout;
      for (const word of words) expect(text.replace(/\\-/g, "-"), word).toContain(word);
    }
    expect(run(["man", "sevre"])).toMatchObject({
      code: 1,
      err: expect.stringContaining('there is no command "sevre"'),
    });
  });
});
