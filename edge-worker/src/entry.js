// The Worker's entry: what scripts/build-edge bundles into build/index.js, around the shim that worker-build makes.
//
// The shim exports a class behind a Proxy, so that the runtime makes an object and asks it for every handler there
// could be, by a trap each, with every request. A plain object is looked through once.
import { serve } from "./runtime/exchange.js";

export default { fetch: serve };
