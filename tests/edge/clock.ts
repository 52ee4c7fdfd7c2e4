// A clock that a test can move. A module around the built Worker adds to `Date.now`. Timers are the runtime's own.
import type { MiniflareOptions } from "miniflare";
import { type Json, Edge, build } from "./harness.js";

const FORWARD = "http://clock.test/";

const entry = `
import worker from "./index.js";
const real = Date.now;
let ahead = 0;
Date.now = () => real() + ahead;
export default {
  fetch(request, env, context) {
    if (!request.url.startsWith(${JSON.stringify(FORWARD)})) return worker.fetch(request, env, context);
    ahead += Number(new URL(request.url).searchParams.get("ms"));
    return new Response(String(ahead));
  },
};
`;

/** Starts the Worker in one isolate. `forward` moves its clock by this many milliseconds. */
export async function startWithClock(
  document: Json | null,
  bindings: Record<string, string> = {},
  options: Partial<MiniflareOptions> = {},
): Promise<{ edge: Edge; forward(ms: number): Promise<void> }> {
  const modules = [
    { type: "ESModule", path: `${build}/clock.mjs`, contents: entry },
    { type: "ESModule", path: `${build}/index.js` },
    { type: "CompiledWasm", path: `${build}/index_bg.wasm` },
  ];
  const more = {
    ...options,
    modules,
    modulesRoot: build,
    rootPath: undefined,
    scriptPath: undefined,
    modulesRules: undefined,
  };
  const edge = await Edge.start(document, bindings, more as Partial<MiniflareOptions>);
  const forward = async (ms: number) => {
    await (await edge.miniflare.dispatchFetch(`${FORWARD}?ms=${ms}`)).text();
  };
  return { edge, forward };
}
