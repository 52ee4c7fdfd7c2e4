// The Worker's entry: what scripts/build-edge bundles into build/index.js, around the shim that worker-build makes.
//
// The shim exports a class behind a Proxy, so that the runtime makes an object and asks it for every handler there could be, by
// a trap each, with every request. A plain object is looked through once.
import Shim from "shim";

const { fetch } = Shim.prototype;
const state = globalThis.__worker_init_state;

export default {
  fetch(request, env, ctx) {
    // After a panic the shim makes a new instance of the Wasm before the next request; making one of its class has it do so.
    if (state.criticalError) new Shim(ctx, env);
    return fetch.call({ env, ctx }, request);
  },
};
