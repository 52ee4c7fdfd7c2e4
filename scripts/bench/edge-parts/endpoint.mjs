// The stand-in endpoint of the benchmark. It does as little as possible, so that the benchmark measures the gateways.
// Of a request it only finds the end, and whether a stream is wanted. It answers with bytes that were made at the
// start. With `--pace MS`, it waits for this time between events, as a model does. Without it, a whole stream is sent
// at once. Prints its port.
import { createServer } from "node:net";

const EVENTS = 50;
const words = Array.from({ length: EVENTS }, (_, i) => `word${i} `);
const pace = process.argv[2] === "--pace" ? Number(process.argv[3]) : 0;

const unary = JSON.stringify({
  id: "c1",
  object: "chat.completion",
  created: 1,
  model: "m",
  choices: [{ index: 0, message: { role: "assistant", content: words.join("") }, finish_reason: "stop" }],
  usage: { prompt_tokens: 1, completion_tokens: EVENTS, total_tokens: EVENTS + 1 },
});
const head = (...lines) => ["HTTP/1.1 200 OK", ...lines, "", ""].join("\r\n");
const whole = Buffer.from(
  head("content-type: application/json", `content-length: ${Buffer.byteLength(unary)}`) + unary,
);

const chunk = (text) => `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`;
/** @type {(delta: object, finish?: string | null) => string} */
const event = (delta, finish = null) =>
  chunk(
    `data: ${JSON.stringify({
      id: "c1",
      object: "chat.completion.chunk",
      created: 1,
      model: "m",
      choices: [{ index: 0, delta, finish_reason: finish }],
    })}\n\n`,
  );
const pieces = [
  head("content-type: text/event-stream", "transfer-encoding: chunked"),
  ...words.map((content) => event({ content })),
  event({}, "stop"),
  `${chunk("data: [DONE]\n\n")}0\r\n\r\n`,
].map((text) => Buffer.from(text));
const burst = Buffer.concat(pieces);
const start = Buffer.concat(pieces.slice(0, 2));

function stream(socket) {
  if (!pace) return void socket.write(burst);
  // The first event goes out at once, with the headers.
  socket.write(start);
  let next = 2;
  const timer = setInterval(() => {
    if (next < pieces.length && !socket.destroyed) socket.write(pieces[next++]);
    else clearInterval(timer);
  }, pace);
}

const server = createServer((socket) => {
  socket.setNoDelay(true);
  socket.on("error", () => {});
  let held = Buffer.alloc(0);
  socket.on("data", (data) => {
    held = held.length === 0 ? data : Buffer.concat([held, data]);
    for (;;) {
      const end = held.indexOf("\r\n\r\n");
      if (end < 0) return;
      const headers = held.toString("latin1", 0, end).toLowerCase();
      let body, rest;
      const announced = /\r\ncontent-length: *(\d+)/.exec(headers);
      if (announced || !headers.includes("\r\ntransfer-encoding:")) {
        const size = end + 4 + Number(announced?.[1] ?? 0);
        if (held.length < size) return;
        [body, rest] = [held.subarray(end + 4, size), held.subarray(size)];
      } else {
        // A client sends no request before the last is answered. So the body ends with the held bytes.
        if (held.toString("latin1", held.length - 5) !== "0\r\n\r\n") return;
        [body, rest] = [held.subarray(end + 4), Buffer.alloc(0)];
      }
      held = rest;
      if (/"stream": ?true/.test(body.toString("latin1"))) stream(socket);
      else socket.write(whole);
    }
  });
});
server.listen(0, "127.0.0.1", () => {
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  console.log(port);
});
process.stdin.on("end", () => process.exit()).resume();
