// A stand-in for the other nodes of a fleet: one server with many addresses, each of which reports the health that the
// measured node reports. Called by run.mjs.
import { once } from "node:events";
import { createServer } from "node:http";

/** Starts it. `urls`: one for each node. */
export async function fleet(count) {
  /** @type {object | null} */
  let told = null;
  /** @type {NodeJS.Timeout | undefined} */
  let asked;
  const name = (host) => `ns-${host.replaceAll(/[.:]/g, "-")}`;
  const server = createServer((request, response) => {
    const report = request.url === "/v1/health" ? told : null;
    if (report === null) return response.writeHead(404).end();
    return response.end(JSON.stringify({ ...report, node: name(request.headers.host) }));
  });
  server.listen(0, "0.0.0.0");
  await once(server, "listening");
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  const host = (nth) => `127.0.${1 + Math.floor(nth / 250)}.${1 + (nth % 250)}`;
  return {
    urls: Array.from({ length: count }, (_, nth) => `http://${host(nth)}:${port}`),
    /** Reports what this node does, from now on. */
    follow(url) {
      const ask = async () => {
        const report = await (await fetch(`${url}/v1/health`)).json().catch(() => null);
        told = /** @type {object | null} */ (report) ?? told;
      };
      ask();
      asked = setInterval(ask, 5_000);
    },
    stop() {
      clearInterval(asked);
      server.closeAllConnections();
      server.close();
    },
  };
}
