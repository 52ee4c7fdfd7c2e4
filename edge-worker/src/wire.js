// One request's line to its endpoints and back to its client, on the runtime's side of the Worker: wire.rs holds the other end.
//
// Each call between Wasm and JavaScript, and each object made on the way, costs about as much as the runtime needs to pass a
// chunk on by itself. So what belongs together crosses together: headers as one text, an event as one call of `ring`.

// What rings. The same numbers stand in wire.rs.
const HEADERS = 0, REFUSED = 1, CHUNK = 2, END = 3, BROKEN = 4, TIMER = 5, GONE = 6, TAKEN = 7, LOST = 8;

/** An answer announced to be no longer than this is read at once. */
const WHOLE = 1 << 16;
/** How much of a body is taken from the endpoint before it is asked for. */
const AHEAD = 1 << 14;

const ignore = () => {};

/** Names and values in turn, a line each: neither can hold a line's end. */
export function lines(headers) {
  let text = "";
  for (const [name, value] of headers) text += `${name}\n${value}\n`;
  return text;
}

function pairs(text) {
  const list = [];
  const parts = text.split("\n");
  for (let i = 0; i + 1 < parts.length; i += 2) list.push([parts[i], parts[i + 1]]);
  return list;
}

export class Line {
  /** `ring(what, attempt, text, bytes)` is told what happens; `signal` when the client goes away. */
  constructor(ring, signal) {
    this.ring = ring;
    this.signal = signal;
    this.flight = undefined;
    this.timer = undefined;
    this.writer = undefined;
    if (signal.aborted) ring(GONE, 0);
    else signal.onabort = () => ring(GONE, 0);
  }

  /** Sends a request. HEADERS with the status and the headers, or REFUSED, follows. */
  send(attempt, method, url, headers, body) {
    const abort = new AbortController();
    const flight = (this.flight = { attempt, abort, response: undefined, reader: undefined, ended: false });
    // A redirect could lead out of the fence: it is seen as a failed attempt.
    const init = { method, headers: pairs(headers), body: body?.slice(), redirect: "manual", signal: abort.signal };
    try {
      fetch(url, init).then(
        (response) => {
          flight.response = response;
          if (this.flight === flight) this.ring(HEADERS, attempt, `${response.status}\n${lines(response.headers)}`);
        },
        () => this.flight === flight && this.ring(REFUSED, attempt),
      );
    } catch {
      this.ring(REFUSED, attempt);
    }
  }

  /** Asks for more of the body: CHUNK, END or BROKEN follows, END perhaps at once. */
  read() {
    const flight = this.flight;
    if (flight === undefined) return;
    const { response, attempt } = flight;
    if (flight.ended || response.body === null) return this.ring(END, attempt);
    const broken = () => this.flight === flight && this.ring(BROKEN, attempt);
    if (flight.reader === undefined) {
      const { headers } = response;
      const length = headers.get("content-length");
      if (length !== null && Number(length) <= WHOLE && !headers.has("content-encoding")) {
        response.arrayBuffer().then((buffer) => {
          flight.ended = true;
          if (this.flight === flight) this.ring(CHUNK, attempt, undefined, new Uint8Array(buffer));
        }, broken);
        return;
      }
      open(flight);
    }
    runAhead(flight);
    flight.reader.read(new Uint8Array(flight.buffer)).then(({ done, value }) => {
      flight.ended = done;
      if (this.flight !== flight) return;
      if (done) return this.ring(END, attempt);
      flight.taken += value.byteLength;
      this.ring(CHUNK, attempt, undefined, value);
      flight.buffer = value.buffer;
    }, broken);
  }

  /** Breaks the request in flight off: its connection goes. */
  abort() {
    const flight = this.flight;
    this.flight = undefined;
    if (flight !== undefined && !flight.ended) flight.abort.abort();
  }

  /**
   * Lets an answer that said its last word end by itself, so that its connection can be used again. It has as long as the
   * client's answer takes to be sent: then the runtime ends whatever belongs to the request.
   */
  leave() {
    const flight = this.flight;
    this.flight = undefined;
    if (flight !== undefined && !flight.ended) flight.reader?.read(new Uint8Array(flight.buffer)).catch(ignore);
  }

  /** TIMER follows after so many milliseconds, in place of one that was to follow. */
  arm(milliseconds) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ring(TIMER, 0), milliseconds);
  }

  /**
   * Begins the client's body and gives its readable end: of so many bytes, if that is known. The length matters when an answer
   * breaks off. workerd ends a chunked body as if it were whole, whatever happens to the stream behind it; one of a known length
   * it cuts, and the client sees it. Streams of events say by an event how they ended.
   */
  open(length) {
    const { readable, writable } = length === undefined ? new IdentityTransformStream() : new FixedLengthStream(length);
    this.writer = writable.getWriter();
    return readable;
  }

  /** Writes to the client: TAKEN follows when it took all of it, LOST if it won't. */
  write(bytes) {
    this.writer.write(bytes.slice()).then(
      () => this.ring(TAKEN, 0),
      () => this.ring(LOST, 0),
    );
  }

  /** Ends the client's body: it is whole. */
  close() {
    this.writer.close().catch(ignore);
  }

  /** Breaks the client's body off. */
  cut() {
    this.writer.abort("the answer broke off").catch(ignore);
  }

  /** Nobody listens any longer. */
  hangUp() {
    this.signal.onabort = null;
    clearTimeout(this.timer);
    this.abort();
  }
}

/**
 * Makes a body readable by as many bytes as there are. A plain read gives one chunk of the transfer encoding, which for events
 * is one event, though dozens may have come with one packet, and each read costs a turn through the runtime. The branches of a
 * tee share one buffer: a read of one branch gives all that was taken off the connection for the other. So the other asks for
 * much at once and throws it away: what it drives is the reading, inside the runtime, event by event, without a turn for each.
 */
function open(flight) {
  const [body, ahead] = flight.response.body.tee();
  flight.reader = body.getReader({ mode: "byob" });
  flight.buffer = new ArrayBuffer(AHEAD);
  flight.taken = 0;
  flight.ahead = ahead.getReader({ mode: "byob" });
  flight.thrown = 0;
  flight.spare = new ArrayBuffer(AHEAD);
}

/** Has the other branch read on, unless it is at it, or ahead: what is held is never more than `AHEAD`. */
function runAhead(flight) {
  if (flight.spare === undefined || flight.taken < flight.thrown) return;
  const spare = new Uint8Array(flight.spare);
  flight.spare = undefined;
  flight.ahead.readAtLeast(AHEAD, spare).then(({ done, value }) => {
    if (done || value.byteLength < AHEAD) return;
    flight.thrown += AHEAD;
    flight.spare = value.buffer;
  }, ignore);
}
