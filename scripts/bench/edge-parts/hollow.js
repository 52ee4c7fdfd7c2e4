// Where the time goes, one step beyond ladder.js: what scripts/bench/edge bundles in place of the shim around the Wasm, under this
// Worker's own exchange.js. So everything is asked of the runtime as this Worker asks it, and texts and bytes are copied into a memory and out
// of it, but nothing is read, decided or spliced: what this Worker costs more is its Wasm's.

// The numbers of exchange.js.
const HEADERS = 0, CHUNK = 2, END = 3, TAKEN = 7, BODY = 9, WHOLE = 11;

const memory = new Uint8Array(1 << 17);
const encoder = new TextEncoder();
const decoder = new TextDecoder();
const SENT = encoder.encode("accept\napplication/json\ncontent-type\napplication/json\naccept-encoding\nidentity\nauthorization\nBearer endpoint-key\n");
const ANSWERED = encoder.encode(
  ["content-type\n", "\nx-bailiwick-region\neu-frankfurt\nx-bailiwick-jurisdiction\neu\nx-bailiwick-endpoint\nfra-1\ncache-control\nno-store\nx-bailiwick-request-id\n0b5a4d2e-8f0c-4c0e-9b57-6f6f3c1d2a10\nx-bailiwick-revision\n1\nx-bailiwick-attempts\nfra-1;outcome=committed\nserver-timing\nsteer;dur=0, upstream;dur=1\n"].join("application/json"),
);
const tasks = [];
let url;

globalThis.__worker_init_state = { criticalError: false, instanceId: 0 };

export default class Hollow {
  begin(number, line, request, env, ctx, asked) {
    url ??= `${env.ENDPOINT}/v1/chat/completions`;
    tasks[number] = { line, ended: false };
    memory.set(asked);
    line.take(request);
  }

  ring(number, what, attempt, bytes) {
    const task = tasks[number];
    const { line } = task;
    if (bytes !== undefined) memory.set(bytes);
    const held = memory.subarray(0, bytes?.length ?? 0);
    if (what === BODY) line.send(1, `POST\n${url}\n${decoder.decode(SENT)}`, held);
    else if (what === HEADERS) {
      task.streamed = decoder.decode(held).includes("text/event-stream");
      if (task.streamed) line.begin(200, decoder.decode(ANSWERED));
      line.read();
    } else if (what === WHOLE && !task.streamed) {
      line.respond(200, decoder.decode(ANSWERED), undefined, decoder.decode(held));
      line.over();
    } else if (what === CHUNK || what === WHOLE) {
      task.ended = what === WHOLE;
      line.write(held);
    } else if (what === TAKEN && !task.ended) line.read();
    else if (what === TAKEN || what === END) {
      line.close();
      line.over();
    }
  }

  run() {}
}
