// Asks the node. Takes paths, returns JSON, or events as they come. The token is held in this module's memory and sent
// in a header: it stands in no URL and in no storage.

/** How long the node may take for an answer, in milliseconds. It gives its peers seven seconds. */
const PATIENCE = 10_000;
/** After so many milliseconds without a byte, a stream is dead: the node sends one every 15 seconds. */
const SILENCE = 40_000;

let token = "";

/** Takes a token; returns what is wrong with it, or null. A header can't carry everything that can be typed. */
export const setToken = (typed) => {
  const trimmed = typed.trim();
  if (trimmed === "") return "Type a token.";
  if (!/^[\x21-\x7e]+$/.test(trimmed)) {
    return "This is no token: it has a space or a letter beyond ASCII. Copy it from its file again.";
  }
  token = trimmed;
  return null;
};

/** Whether a token is sent. */
export const hasToken = () => token !== "";

/** Why a request wasn't served. */
export class Problem extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const headersWith = (headers = {}) => (token === "" ? headers : { ...headers, authorization: `Bearer ${token}` });

/** What went wrong on the way to the node or back. */
const broken = (error) =>
  error.name === "TimeoutError"
    ? new Problem(0, `the node gave no answer within ${PATIENCE / 1000} seconds`)
    : new Problem(0, "the node can't be reached");

async function ask(path, headers, signal) {
  const options = { headers: headersWith(headers), cache: "no-store", credentials: "omit", redirect: "error", signal };
  const response = await fetch(path, options);
  if (response.ok) return response;
  const text = await response.text().catch(() => "");
  let message = `the node answers with ${response.status}`;
  try {
    message = String(JSON.parse(text).error.message);
  } catch {
    // Something between us and the node answered.
  }
  throw new Problem(response.status, message);
}

/** The JSON at a path. */
export async function get(path, left) {
  const late = AbortSignal.timeout(PATIENCE);
  try {
    const response = await ask(path, {}, left ? AbortSignal.any([left, late]) : late);
    return await response.json();
  } catch (error) {
    throw error instanceof Problem || left?.aborted ? error : broken(error);
  }
}

/** The path of a question. */
export const query = (path, values) => {
  const pairs = Object.entries(values).filter(([, value]) => value !== "" && value != null);
  return `${path}?${new URLSearchParams(pairs)}`;
};

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Resolves once the page is shown. */
const shown = () =>
  new Promise((done) => {
    const look = () => {
      if (document.hidden) return;
      document.removeEventListener("visibilitychange", look);
      done();
    };
    document.addEventListener("visibilitychange", look);
    look();
  });

/** Reads one stream until it ends, is silent for too long, or the page is hidden. `take` gets each event. */
async function readStream(last, take, isLive) {
  const end = new AbortController();
  // A browser opens six connections to a host over HTTP/1.1: hidden pages would stop the one that is looked at.
  const hide = () => document.hidden && end.abort();
  document.addEventListener("visibilitychange", hide);
  let watchdog = 0;
  const heard = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => end.abort(), SILENCE);
  };
  heard();
  try {
    const headers = last === "" ? {} : { "last-event-id": last };
    const response = await ask("/v1/events?last=500", headers, end.signal);
    isLive(true);
    for await (const event of parse(response.body, heard)) take(event);
  } catch {
    // Whether the node is gone or has too many viewers: the page asks for the picture all the same.
  } finally {
    clearTimeout(watchdog);
    document.removeEventListener("visibilitychange", hide);
    end.abort();
    isLive(false);
  }
}

/** Follows the node's events for good, while the page is shown and `may` says so. `on` gets each event, `isLive` whether they
 * arrive. */
export async function follow(on, isLive, may) {
  let last = "";
  const take = (event) => {
    if (event.id) last = event.id;
    on(event.event, JSON.parse(event.data));
  };
  for (;;) {
    await shown();
    if (may()) await readStream(last, take, isLive);
    if (!document.hidden) await pause(3000 + Math.random() * 2000);
  }
}

/** The events of a stream, as https://html.spec.whatwg.org/multipage/server-sent-events.html says. `heard` is called
 * for whatever comes. */
export async function* parse(body, heard = () => {}) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heard();
    rest += value;
    const pieces = rest.split("\n\n");
    rest = pieces.pop();
    for (const piece of pieces) {
      const event = { event: "message", data: "" };
      for (const line of piece.split("\n")) {
        const colon = line.indexOf(":");
        if (colon > 0) event[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
      }
      if (event.data !== "") yield event;
    }
  }
}
