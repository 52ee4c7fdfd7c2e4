// Asks the node. Takes paths, returns JSON, or events as they come. The token is held in this module's memory and sent
// in a header: it stands in no URL and in no storage.

let token = "";

export const setToken = (typed) => {
  token = typed.trim();
};

/** Why a request wasn't served. */
export class Problem extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const headersWith = (headers = {}) => (token === "" ? headers : { ...headers, authorization: `Bearer ${token}` });

async function ask(path, headers, signal) {
  const options = { headers: headersWith(headers), cache: "no-store", credentials: "omit", redirect: "error", signal };
  const response = await fetch(path, options).catch((error) => {
    if (signal?.aborted) throw error;
    throw new Problem(0, "the node can't be reached");
  });
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
export const get = async (path, signal) => (await ask(path, {}, signal)).json();

/** The path of a question. */
export const query = (path, values) => {
  const pairs = Object.entries(values).filter(([, value]) => value !== "" && value != null);
  return `${path}?${new URLSearchParams(pairs)}`;
};

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Follows the node's events for good. `on` gets each event, and `isLive` whether events arrive. */
export async function follow(on, isLive) {
  let last = "";
  for (;;) {
    try {
      const response = await ask("/v1/events?last=500", last === "" ? {} : { "last-event-id": last });
      isLive(true);
      for await (const event of parse(response.body)) {
        if (event.id) last = event.id;
        on(event.event, JSON.parse(event.data));
      }
    } catch {
      // Whether the node is gone or has too many viewers: the page asks for the picture all the same.
    }
    isLive(false);
    await pause(3000 + Math.random() * 2000);
  }
}

/** The events of a stream, as https://html.spec.whatwg.org/multipage/server-sent-events.html says. */
export async function* parse(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
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
