// Shows how much CPU time the Wasm takes, one step after steps.js. scripts/bench/edge bundles this file in place of the
// shim around the Wasm, with this Worker's own exchange.js. So the runtime gets the same calls as from this Worker, and
// texts and bytes are copied into a memory and out of it. But nothing is read, decided or spliced. The additional time
// of this Worker is the time of its Wasm.

import { CHUNK, EOF, HEADERS, LAST_CHUNK, REQUEST_BODY } from "../../../edge-worker/src/platform/workers/notice.js";

const memory = new Uint8Array(1 << 17);
const encoder = new TextEncoder();
const decoder = new TextDecoder();
const SENT = encoder.encode(
  "accept\napplication/json\ncontent-type\napplication/json\n" +
    "accept-encoding\nidentity\nauthorization\nBearer endpoint-key\n",
);
const ANSWERED = encoder.encode(
  [
    "content-type\n",
    "\nx-bailiwick-region\neu-frankfurt\nx-bailiwick-jurisdiction\neu\nx-bailiwick-endpoint\nfra-1\n" +
      "cache-control\nno-store\nx-bailiwick-request-id\n0b5a4d2e-8f0c-4c0e-9b57-6f6f3c1d2a10\n" +
      "x-bailiwick-revision\n1\nx-bailiwick-attempts\nfra-1;outcome=committed\nserver-timing\n" +
      "steer;dur=0, upstream;dur=1\n",
  ].join("application/json"),
);
const tasks = [];
let url;

globalThis.__worker_init_state = { criticalError: false, instanceId: 0 };

export default class NoWasm {
  begin(number, exchange, request, env, ctx, asked) {
    url ??= `${env.ENDPOINT}/v1/chat/completions`;
    tasks[number] = { exchange, ended: false };
    memory.set(asked);
    exchange.readBody(request);
  }

  notify(number, what, attempt, bytes) {
    const task = tasks[number];
    const { exchange } = task;
    if (bytes !== undefined) memory.set(bytes);
    const held = memory.subarray(0, bytes?.length ?? 0);
    if (what === REQUEST_BODY) exchange.send(1, `POST\n${url}\n${decoder.decode(SENT)}`, held);
    else if (what === HEADERS) {
      task.streamed = decoder.decode(held).includes("text/event-stream");
      if (task.streamed) exchange.begin(200, decoder.decode(ANSWERED));
      exchange.read();
    } else if (what === LAST_CHUNK && !task.streamed) {
      exchange.respond(200, decoder.decode(ANSWERED), undefined, decoder.decode(held));
      exchange.end();
    } else if (what === CHUNK || what === LAST_CHUNK) {
      task.ended = what === LAST_CHUNK;
      exchange.write(held);
      if (task.ended) {
        exchange.close();
        exchange.end();
      }
    } else if (what === EOF) {
      exchange.close();
      exchange.end();
    }
  }

  run() {}
}
