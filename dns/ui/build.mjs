// Bundles the page. Takes the folder to write into; writes its files as they are and compressed, a list of them for the
// program, and the licences of what is in them. Called by scripts/build-ui. Equal sources give equal bytes.
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { build } from "esbuild";
import { LETTERS } from "./numbers.js";

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "../..");
const out = process.argv[2];
if (out === undefined) throw new Error("usage: node dns/ui/build.mjs FOLDER");

/** What the map draws apart without a number. Who is there is placed under these letters. */
const UNNUMBERED = { Kosovo: "XK", Somaliland: "SO", "N. Cyprus": "CY" };
/** As deny.toml allows for crates. */
const ALLOWED = ["MIT", "ISC", "Apache-2.0"];
const read = (path) => readFileSync(join(root, path), "utf8");
const digest = (bytes) => createHash("sha256").update(bytes).digest("hex").slice(0, 10);

/** The map: shapes of countries under their letters, and the middle of each country, as the rules have it. */
function world() {
  const map = JSON.parse(read("node_modules/world-atlas/countries-110m.json"));
  delete map.objects.land;
  for (const shape of map.objects.countries.geometries) {
    const letters = LETTERS[shape.id] ?? UNNUMBERED[shape.properties.name];
    delete shape.properties;
    delete shape.id;
    if (letters !== undefined) shape.id = letters;
  }
  const centroids = read("shared/src/geo/centroids.rs").matchAll(/\("([A-Z]{2})", (-?[\d.]+), (-?[\d.]+)\)/g);
  const points = Object.fromEntries([...centroids].map(([, code, lat, lon]) => [code, [Number(lat), Number(lon)]]));
  if (Object.keys(points).length < 249) throw new Error("shared/src/geo/centroids.rs has another form");
  return JSON.stringify({ map, points });
}

/** Every package that has something in the bundle, with its licence. */
function notices(inputs) {
  const packages = new Set(["world-atlas"]);
  for (const input of inputs) {
    const name = input.match(/node_modules\/((?:@[^/]+\/)?[^/]+)\//)?.[1];
    if (name !== undefined) packages.add(name);
  }
  const texts = [...packages].sort().map((name) => {
    const { license, version } = JSON.parse(read(`node_modules/${name}/package.json`));
    if (!ALLOWED.includes(license)) throw new Error(`${name} has the licence ${license}; allowed: ${ALLOWED}`);
    const file = readdirSync(join(root, "node_modules", name)).find((one) => /^licen[cs]e/i.test(one));
    const text = file === undefined ? `Licence: ${license}` : read(`node_modules/${name}/${file}`).trim();
    return `${name} ${version} (${license})\n\n${text}\n`;
  });
  return `What of others is in this page. Made with Natural Earth (public domain).\n\n${texts.join(`\n${"-".repeat(80)}\n\n`)}`;
}

const files = [];
/** Adds a file; its name gets a digest, unless it is the page itself. */
function add(name, kind, text) {
  const bytes = Buffer.from(text);
  const named = name === "index.html" ? name : name.replace(".", `-${digest(bytes)}.`);
  files.push({ name: named, kind, bytes });
  return named;
}

const map = add("world.json", "application/json", world());
const bundle = async (entry, more) => {
  const options = {
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    target: ["es2023"],
    legalComments: "none",
  };
  return build({
    ...options,
    entryPoints: [join(here, entry)],
    outdir: "/",
    metafile: true,
    absWorkingDir: root,
    ...more,
  });
};
const script = await bundle("main.js", { define: { WORLD: JSON.stringify(`/ui/${map}`) } });
const style = await bundle("page.css");
const licences = add(
  "notices.txt",
  "text/plain; charset=utf-8",
  notices([...Object.keys(script.metafile.inputs), ...Object.keys(style.metafile.inputs)]),
);
const scripted = script.outputFiles[0].text.replaceAll('"NOTICES"', JSON.stringify(`/ui/${licences}`));
if (!scripted.includes(licences)) throw new Error("the page doesn't link its licences");
const linked = read("dns/ui/index.html")
  .replace("ICON", add("icon.svg", "image/svg+xml", read("dns/ui/icon.svg")))
  .replace("SCRIPT", add("page.js", "text/javascript; charset=utf-8", scripted))
  .replace("STYLE", add("page.css", "text/css; charset=utf-8", style.outputFiles[0].text));
add("index.html", "text/html; charset=utf-8", linked);
files.sort((one, other) => (one.name < other.name ? -1 : 1));

rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
const brotli = (bytes) =>
  brotliCompressSync(bytes, {
    params: {
      [constants.BROTLI_PARAM_QUALITY]: 11,
      [constants.BROTLI_PARAM_LGWIN]: 24,
      [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
    },
  });
let list = "//! The files of the page. Written by `scripts/build-ui`; change `dns/ui` instead.\n\nuse super::File;\n\n";
list += `/// All of them, by name.\npub(super) const FILES: [File; ${files.length}] = [\n`;
let sum = 0;
for (const { name, kind, bytes } of files) {
  const small = brotli(bytes);
  writeFileSync(join(out, name), bytes);
  writeFileSync(join(out, `${name}.br`), small);
  writeFileSync(join(out, `${name}.gz`), gzipSync(bytes, { level: 9 }));
  const of = (field, end) => `        ${field}: include_bytes!("${name}${end}"),\n`;
  list += `    File {\n        name: "${name}",\n        kind: "${kind}",\n${of("plain", "")}${of("brotli", ".br")}${of("gzip", ".gz")}    },\n`;
  if (!name.startsWith("notices")) sum += small.length;
  console.log(
    `${name.padEnd(28)} ${String(bytes.length).padStart(7)} bytes, ${String(small.length).padStart(6)} by Brotli`,
  );
}
writeFileSync(join(out, "files.rs"), `${list}];\n`);
console.log(`on the wire: ${sum} bytes`);
