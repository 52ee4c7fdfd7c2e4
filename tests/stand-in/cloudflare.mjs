// A stand-in for Cloudflare's front: runs the built Worker on workerd and tells it where each request comes from.
//
//   node tests/stand-in/cloudflare.mjs --dns-api http://127.0.0.1:8053 --host chat.ai.example.com [--port 0]
//
// The client is the address in the header `x-client`. Cloudflare would know its country; here the DNS node is asked,
// which has the GeoIP database. Rules and health come from that node too. The header `x-host` names another host. The
// operator's token of `explain` is `operator`. With --observe, what is counted is posted to the node. Ends when its
// standard input does.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { parseArgs } from "node:util";
import { fileURLToPath } from "node:url";
import { Miniflare } from "miniflare";

const { values } = parseArgs({
  options: {
    "dns-api": { type: "string" },
    host: { type: "string" },
    port: { type: "string", default: "0" },
    // The token to post observations with; without it none are posted.
    observe: { type: "string" },
  },
});
const api = values["dns-api"];
const root = fileURLToPath(new URL("../../", import.meta.url));
const wrangler = readFileSync(`${root}wrangler.toml`, "utf8");
const date = wrangler.match(/^compatibility_date = "(.*)"$/m)?.[1];
const flags = wrangler.match(/^compatibility_flags = \[([^\]]*)\]/m)?.[1].replace(/^\s*#.*$/gm, "");
if (!date || !flags) throw new Error("wrangler.toml lacks compatibility_date or compatibility_flags");

const miniflare = new Miniflare({
  modules: true,
  rootPath: `${root}edge-worker/build`,
  scriptPath: "index.js",
  modulesRules: [
    { type: "ESModule", include: ["**/*.js"] },
    { type: "CompiledWasm", include: ["**/*.wasm"] },
  ],
  compatibilityDate: date,
  compatibilityFlags: [...flags.matchAll(/"([^"]*)"/g)].map((match) => match[1]),
  kvNamespaces: ["RULES"],
  bindings: {
    RULES_URL: `${api}/v1/rules`,
    HEALTH_URLS: `${api}/v1/health`,
    // As often as anybody could wish, so that a demo need not wait.
    RULES_REFRESH_SECONDS: "0",
    HEALTH_REFRESH_SECONDS: "0",
    EXPLAIN_TOKEN: "operator",
    ...(values.observe && {
      OBSERVATIONS_URLS: `${api}/v1/observations`,
      OBSERVATIONS_SECONDS: "0.2",
      HEALTH_TOKEN: values.observe,
    }),
  },
});
await miniflare.ready;

/** @type {Map<string, string | undefined>} */
const countries = new Map();

/** @type {(client: string | undefined) => Promise<string | undefined>} */
async function countryOf(client) {
  if (!client) return undefined;
  if (countries.has(client)) return countries.get(client);
  const query = new URLSearchParams({ service: "chat", client });
  const { client: found } = /** @type {{ client?: { country?: string } }} */ (
    await (await fetch(`${api}/v1/explain?${query}`)).json()
  );
  countries.set(client, found?.country);
  return found?.country;
}

const server = createServer(async (request, response) => {
  try {
    const { "x-client": from, "x-host": host = values.host, ...headers } = request.headers;
    const client = from?.toString();
    for (const name of ["host", "connection", "content-length", "transfer-encoding", "expect"]) delete headers[name];
    if (client) headers["cf-connecting-ip"] = client;
    const body = ["GET", "HEAD"].includes(request.method ?? "") ? undefined : Buffer.concat(await request.toArray());
    const country = await countryOf(client);
    const reply = await miniflare.dispatchFetch(`http://${host}${request.url}`, {
      method: request.method,
      headers: /** @type {Record<string, string>} */ (headers),
      body,
      redirect: "manual",
      // XX is what Cloudflare writes for an address that it can't place. Without a place of its own a client would be
      // where the runtime takes itself to be.
      cf: /** @type {import("miniflare").RequestInit["cf"]} */ ({
        country: country ?? "XX",
        latitude: "",
        longitude: "",
      }),
    });
    response.writeHead(reply.status, Object.fromEntries(reply.headers));
    if (reply.body) await pipeline(Readable.fromWeb(reply.body), response);
    else response.end();
  } catch (error) {
    if (!response.headersSent) response.writeHead(502);
    response.end(`the stand-in front failed: ${/** @type {Error} */ (error).message}\n`);
  }
});
server.listen(Number(values.port), "127.0.0.1", () => {
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  console.log(JSON.stringify({ url: `http://127.0.0.1:${port}` }));
});
process.stdin.resume().on("close", async () => {
  server.closeAllConnections();
  server.close();
  await miniflare.dispose();
  process.exit();
});
