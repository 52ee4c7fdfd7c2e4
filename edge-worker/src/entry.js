// The Worker's entry. scripts/build-edge bundles it into build/index.js, around the shim that worker-build makes.
//
// The shim exports a class behind a Proxy. With every request the runtime would make an object of it, and ask it for
// every possible handler, with a trap for each. A plain object is inspected once.
import { serve } from "./platform/workers/exchange.js";

export default { fetch: serve };
