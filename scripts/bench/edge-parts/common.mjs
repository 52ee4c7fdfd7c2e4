// Functions that several parts of the benchmark use: the bytes of a request, and statistics of measurements.

/** The bytes of a job's request. `job` has `port`, `path`, `headers` and `body`. */
export function requestOf(job) {
  const names = { host: `127.0.0.1:${job.port}`, "content-type": "application/json", ...job.headers };
  const lines = Object.entries(names)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join("");
  const length = Buffer.byteLength(job.body);
  return Buffer.from(`POST ${job.path} HTTP/1.1\r\n${lines}content-length: ${length}\r\n\r\n${job.body}`);
}

/** The value below which the share `part` of a list lies; 0 for an empty list. Sorts the list in place. */
export function quantile(list, part) {
  list.sort((a, b) => a - b);
  return list[Math.min(list.length - 1, Math.floor(list.length * part))] ?? 0;
}

/**
 * The median of a list, with its least and its greatest value.
 * @typedef {{ median: number, min: number, max: number }} Spread
 * @param {number[]} list
 * @returns {Spread}
 */
export function spread(list) {
  const sorted = [...list].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, min: sorted[0], max: sorted[sorted.length - 1] };
}

/** @type {(spread: Spread | undefined, digits?: number) => string} */
export function written(spread, digits = 0) {
  if (spread === undefined) return "";
  const [median, min, max] = [spread.median, spread.min, spread.max].map((value) => value.toFixed(digits));
  return `${median} (${min}–${max})`;
}
