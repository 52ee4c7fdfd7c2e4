// The load generator: a closed loop of keep-alive connections. Each connection sends its next request when the last is
// answered completely. Reads jobs as lines of JSON from standard input, writes results as lines to standard output.
//   {"port", "path", "headers": {}, "body", "connections", "seconds"} → {"requests", "errors", "p50", "p99", "first50"}
// Times are in microseconds; `first50` is the median time to the first byte of the body.
import { connect } from "node:net";
import { createInterface } from "node:readline";
import { quantile, requestOf } from "./common.mjs";

const DONE = "data: [DONE]\n\n";
const LAST_CHUNK = "\r\n0\r\n\r\n";

/**
 * Runs one connection until the time `until`.
 * @returns {Promise<void>}
 */
function client(job, until, sample) {
  const streamed = job.body.includes('"stream":true');
  const request = requestOf(job);
  return new Promise((resolve) => {
    let began = 0,
      first = 0,
      head = "",
      size = -1,
      got = 0,
      tail = "";
    const socket = connect(job.port, "127.0.0.1");
    const send = () => {
      if (performance.now() >= until) return socket.destroy();
      [first, head, size, got, tail] = [0, "", -1, 0, ""];
      began = performance.now();
      socket.write(request);
    };
    const whole = (good) => {
      const now = performance.now();
      sample(good, now - began, first - began);
      send();
    };
    socket.setNoDelay(true);
    socket.on("connect", send);
    socket.on("data", (data) => {
      if (size < 0) {
        head += data.toString("latin1");
        const end = head.indexOf("\r\n\r\n");
        if (end < 0) return;
        size = Number(/\r\ncontent-length: *(\d+)/i.exec(head.slice(0, end))?.[1] ?? Infinity);
        tail = head.slice(end + 4);
        got = tail.length;
      } else {
        got += data.length;
        tail = (tail + data.toString("latin1", Math.max(0, data.length - 64))).slice(-64);
      }
      if (first === 0 && got > 0) first = performance.now();
      const good = head.startsWith("HTTP/1.1 200");
      if (size !== Infinity) {
        if (got >= size) whole(good && tail.endsWith(streamed ? DONE : "}"));
      } else if (tail.endsWith(LAST_CHUNK)) {
        // The last event of the stream comes before the last chunk.
        whole(good && (streamed ? tail.includes(DONE) : tail.includes("}")));
      }
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      // A gateway that hangs up on a request has failed it.
      if (performance.now() < until) sample(false, 0, 0);
      resolve();
    });
    setTimeout(() => socket.destroy(), until - performance.now() + 2000).unref();
  });
}

async function run(job) {
  const until = performance.now() + job.seconds * 1000;
  const times = [],
    firsts = [];
  let errors = 0;
  const sample = (good, time, first) => {
    if (!good) return void errors++;
    times.push(time * 1000);
    firsts.push(first * 1000);
  };
  const began = performance.now();
  await Promise.all(Array.from({ length: job.connections }, () => client(job, until, sample)));
  const took = (performance.now() - began) / 1000;
  return {
    requests: times.length,
    errors,
    perSecond: times.length / took,
    p50: quantile(times, 0.5),
    p99: quantile(times, 0.99),
    first50: quantile(firsts, 0.5),
  };
}

for await (const line of createInterface({ input: process.stdin }))
  console.log(JSON.stringify(await run(JSON.parse(line))));
