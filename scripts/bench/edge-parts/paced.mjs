// The load generator of paced streams. Keeps a number of streams open at once: when a stream has ended, the next
// begins. Reads jobs as lines of JSON from standard input. {"port", "path", "headers": {}, "body", "streams", "spread",
// "seconds"} The streams begin at different times within `spread` seconds, so that their events don't come at the same
// moments. When all streams are under way, writes the line {"warm": true} to standard output, and after `seconds` the
// result: {"events", "streams", "errors", "first50", "first99", "gap99"} Times are in microseconds: to a stream's first
// event, and between two events of a stream. Only events within `seconds` count.
import { connect } from "node:net";
import { createInterface } from "node:readline";
import { quantile, requestOf } from "./common.mjs";

/** Every event of endpoint.mjs begins with this. */
const EVENT = Buffer.from("data: ");
const LAST_CHUNK = Buffer.from("0\r\n\r\n");

/** Counts how often `needle` is in `bytes`. If a packet ends within the needle, that one isn't counted. */
function count(bytes, needle) {
  let n = 0;
  for (let at = bytes.indexOf(needle); at >= 0; at = bytes.indexOf(needle, at + needle.length)) n++;
  return n;
}

/** Runs one connection with one stream after the other, until `window.over`. */
function client(job, window, sockets) {
  const request = requestOf(job);
  const socket = connect(job.port, "127.0.0.1");
  let began = 0,
    last = 0,
    answered = false;
  const send = () => {
    [last, answered] = [0, false];
    began = performance.now();
    socket.write(request);
  };
  socket.setNoDelay(true);
  socket.on("connect", send);
  socket.on("data", (data) => {
    const now = performance.now();
    if (!answered) {
      answered = true;
      if (!data.toString("latin1", 0, 12).endsWith(" 200") && window.open) window.errors++;
    }
    const events = count(data, EVENT);
    if (window.open) window.events += events;
    if (events > 0) {
      if (window.open) (last === 0 ? window.firsts : window.gaps).push(1000 * (now - (last || began)));
      last = now;
    }
    if (data.subarray(-LAST_CHUNK.length).equals(LAST_CHUNK)) {
      if (window.open) window.streams++;
      if (!window.over) send();
    }
  });
  socket.on("error", () => {});
  socket.on("close", () => {
    if (!window.over) window.errors++;
  });
  sockets.push(socket);
}

const pass = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

async function run(job) {
  const window = { open: false, over: false, events: 0, streams: 0, errors: 0, firsts: [], gaps: [] };
  const sockets = [];
  for (let n = 0; n < job.streams; n++) {
    setTimeout(() => client(job, window, sockets), (1000 * job.spread * n) / job.streams);
  }
  await pass(job.spread + 0.5);
  window.open = true;
  console.log(JSON.stringify({ warm: true }));
  await pass(job.seconds);
  window.open = false;
  const { events, streams, errors, firsts, gaps } = window;
  console.log(
    JSON.stringify({
      events,
      streams,
      errors,
      first50: quantile(firsts, 0.5),
      first99: quantile(firsts, 0.99),
      gap99: quantile(gaps, 0.99),
    }),
  );
  window.over = true;
  for (const socket of sockets) socket.destroy();
}

for await (const line of createInterface({ input: process.stdin })) await run(JSON.parse(line));
