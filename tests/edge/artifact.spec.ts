// The built module itself: it is small enough, and the oldest runtime we support starts it.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { Miniflare } from "miniflare";
import { expect, test } from "vitest";

const root = fileURLToPath(new URL("../../", import.meta.url));
const build = `${root}edge-worker/build`;

const wrangler = readFileSync(`${root}wrangler.toml`, "utf8");

/** The strings behind `name = ` in wrangler.toml: one, or a list of them. */
function setting(name: string): string[] {
  const value = wrangler.match(new RegExp(`^${name} = (\\[[^\\]]*\\]|".*")$`, "m"))?.[1];
  if (!value) throw new Error(`wrangler.toml has no ${name}`);
  return [...value.replace(/^\s*#.*$/gm, "").matchAll(/"([^"]*)"/g)].map((match) => match[1]);
}

test("the Wasm is under 1 MB gzipped", () => {
  expect(gzipSync(readFileSync(`${build}/index_bg.wasm`), { level: 9 }).length).toBeLessThan(1_000_000);
});

test("workerd starts it with the date and flags of wrangler.toml", async () => {
  const worker = new Miniflare({
    modules: true,
    rootPath: build,
    scriptPath: "index.js",
    modulesRules: [
      { type: "ESModule", include: ["**/*.js"] },
      { type: "CompiledWasm", include: ["**/*.wasm"] },
    ],
    compatibilityDate: setting("compatibility_date")[0],
    compatibilityFlags: setting("compatibility_flags"),
    kvNamespaces: ["RULES"],
  });
  try {
    const reply = await worker.dispatchFetch("http://unknown.example/", { cf: { country: "DE" } as never });
    // Any answer of ours will do; a Worker that does not start, or throws, is a 500 of the runtime's.
    expect(reply.status).toBeLessThan(500);
    await reply.arrayBuffer();
  } finally {
    await worker.dispose();
  }
});
