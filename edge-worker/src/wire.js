// One request's line to its endpoints and back to its client, on the runtime's side of the Worker: wire.rs holds the other end.
//
// Each call between Wasm and JavaScript, and each object made on the way, costs about as much as the runtime needs to pass a
// chunk on by itself. So what belongs together crosses together: headers as one text, an event as one call of `ring`.

// What rings. The same numbers stand in wire.rs.
const HEADERS = 0, REFUSED = 1, CHUNK = 2, END = 3, BROKEN = 4, TIMER = 5, GONE = 6, TAKEN = 7, LOST = 8, BODY = 9, UNREAD = 10,
  WHOLE = 11;

/** An answer announced to be no longer than this is read at once. */
const AT_ONCE = 1 << 16;
/** How much of a body is taken from the endpoint before anybody asks for it. */
const AHEAD = 1 << 16;
/** How much one read takes at first and at most. Events are far shorter. */
const PIECE = 1 << 12, LARGEST_PIECE = 1 << 15;
/** A chunk that comes within so many milliseconds of the last is one of a burst. */
const BURST = 2;

const ignore = () => {};

/** Names and values in turn, a line each: neither can hold a line's end. */
function lines(headers) {
  let text = "";
  headers.forEach((value, name) => {
    text += `${name}\n${value}\n`;
  });
  return text;
}

const word = (value) => (typeof value === "number" ? String(value) : typeof value === "string" && !value.includes("\n") ? value : "");

/** An id for a request, and what it says of itself, a line each: method, URL, country, latitude, longitude; then its headers. */
export function asked(request) {
  const { method, url, cf } = request;
  return `${randomId()}\n${method}\n${url}\n${word(cf?.country)}\n${word(cf?.latitude)}\n${word(cf?.longitude)}\n${lines(request.headers)}`;
}

/** A random UUID by the runtime's generator. */
export const randomId = () => crypto.randomUUID();

/** A response with a body that is all there, or with none. */
export function respond(status, headers, body) {
  return new Response(body === undefined ? null : body.slice(), { status, headers: record(headers) });
}

/** Headers made of lines, as an object: one the runtime takes them from at once. */
function record(text) {
  // One without a prototype is slower to make, and to read for the runtime.
  const headers = {};
  const parts = text.split("\n");
  for (let i = 0; i + 1 < parts.length; i += 2) {
    const before = headers[parts[i]];
    headers[parts[i]] = typeof before === "string" ? `${before}, ${parts[i + 1]}` : parts[i + 1];
  }
  return headers;
}

export class Line {
  /** `ring(what, attempt, text, bytes)` is told what happens; the request's signal tells when its client goes away. */
  constructor(ring, request) {
    this.ring = ring;
    const { signal } = request;
    this.flight = undefined;
    this.timer = undefined;
    this.writer = undefined;
    if (signal.aborted) ring(GONE, 0);
    else signal.onabort = () => this.ring(GONE, 0);
  }

  /** Reads the client's body, all of it: BODY follows, or UNREAD if it doesn't come. */
  take(request) {
    request.arrayBuffer().then(
      (body) => this.ring(BODY, 0, undefined, new Uint8Array(body)),
      () => this.ring(UNREAD, 0),
    );
  }

  /** Sends a request. HEADERS with the status and the headers, or REFUSED, follows. */
  send(attempt, method, url, headers, body, stream) {
    const abort = new AbortController();
    const flight = (this.flight = new Flight(attempt, abort));
    // A redirect could lead out of the fence: it is seen as a failed attempt.
    const init = { method, headers: record(headers), body: stream ?? body?.slice(), redirect: "manual", signal: abort.signal };
    try {
      fetch(url, init).then(
        (response) => {
          flight.response = response;
          if (this.flight === flight) this.ring(HEADERS, attempt, `${response.status}\n${flight.headers()}`);
        },
        () => this.flight === flight && this.ring(REFUSED, attempt),
      );
    } catch {
      this.ring(REFUSED, attempt);
    }
  }

  /** Asks for more of the body: CHUNK, END or BROKEN follows, perhaps at once. */
  read() {
    const flight = this.flight;
    if (flight === undefined) return;
    flight.wanted = true;
    if (flight.reader === undefined && flight.over === undefined) this.open(flight);
    else this.settle(flight, flight.size > 0 && Date.now() - flight.last < BURST);
    this.fill(flight);
  }

  /** Begins with a body. */
  open(flight) {
    const { length, packed, response } = flight;
    if (length === 0 || response.body === null) return this.end(flight, END);
    if (packed || !(length <= AT_ONCE)) {
      flight.piece = new Uint8Array(PIECE);
      flight.held = new Uint8Array(2 * PIECE);
      flight.came = ({ done, value }) => {
        flight.filling = false;
        if (done) return this.end(flight, END);
        // The clock isn't asked again within a burst: it is one until its timer runs out.
        const burst = flight.soon !== undefined || flight.isSoon();
        flight.keep(value);
        if (this.flight !== flight) return;
        if (flight.wanted) this.settle(flight, burst);
        this.fill(flight);
      };
      flight.broke = () => this.end(flight, BROKEN);
      // Into a buffer of our own, again and again: else each chunk gets one, and rubbish is what a stream costs most by.
      flight.reader = response.body.getReader({ mode: "byob" });
      return;
    }
    response.arrayBuffer().then(
      (body) => {
        flight.over = END;
        if (this.flight === flight) this.ring(WHOLE, flight.attempt, undefined, new Uint8Array(body));
      },
      () => this.end(flight, BROKEN),
    );
  }

  /**
   * Reads on, whether anybody asked or not, up to a limit. The runtime gives one chunk of the transfer encoding at a time, which
   * for events is one event, though dozens may have come with one packet.
   */
  fill(flight) {
    if (flight.filling || flight.reader === undefined || flight.over !== undefined || flight.isFull()) return;
    flight.filling = true;
    flight.reader.read(flight.piece).then(flight.came, flight.broke);
  }

  end(flight, how) {
    flight.over = how;
    if (this.flight === flight && flight.wanted) this.settle(flight, false);
  }

  /**
   * Hands over what there is: at once, or, in a burst, when the runtime has nothing else at hand. That is when a timer of no time
   * runs out, so nobody waits for what hasn't come, and a burst makes one event here and one write to the client.
   */
  settle(flight, burst) {
    if (flight.size === 0) {
      if (flight.over === undefined) return;
      flight.wanted = false;
      this.ring(flight.over, flight.attempt);
    } else if (burst && flight.over === undefined && !flight.isFull()) {
      flight.soon ??= setTimeout(() => {
        flight.soon = undefined;
        flight.last = Date.now();
        if (this.flight === flight && flight.wanted) this.settle(flight, false);
      }, 0);
    } else {
      flight.wanted = false;
      this.ring(flight.over === END ? WHOLE : CHUNK, flight.attempt, undefined, flight.take());
    }
  }

  /** Breaks the request in flight off: its connection goes. */
  abort() {
    const flight = this.flight;
    this.flight = undefined;
    if (flight !== undefined && flight.over === undefined) flight.abort.abort();
  }

  /**
   * Lets an answer that said its last word end by itself, so that its connection can be used again. The read that is under way
   * has as long as the client's answer takes to be sent: then the runtime ends whatever belongs to the request.
   */
  leave() {
    this.flight = undefined;
  }

  /** TIMER follows after so many milliseconds, in place of one that was to follow. */
  arm(milliseconds) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ring(TIMER, 0), milliseconds);
  }

  /**
   * The client's response, and the beginning of its body: of so many bytes, if that is known. The length matters when an answer
   * breaks off. workerd ends a chunked body as if it were whole, whatever happens to the stream behind it; one of a known length
   * it cuts, and the client sees it. Streams of events say by an event how they ended.
   */
  begin(status, headers, length) {
    const { readable, writable } = length === undefined ? new IdentityTransformStream() : new FixedLengthStream(length);
    this.writer = writable.getWriter();
    return new Response(readable, { status, headers: record(headers) });
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
    this.ring = ignore;
    clearTimeout(this.timer);
    this.abort();
  }
}

/** One attempt: its request, and what of its answer was read and not yet handed over. */
class Flight {
  constructor(attempt, abort) {
    this.attempt = attempt;
    this.abort = abort;
    this.response = undefined;
    /** What its headers say: how long the body is, and whether the runtime unpacks it. */
    this.length = undefined;
    this.packed = false;
    this.reader = undefined;
    /** What a read calls: made once, not for every chunk. */
    this.came = undefined;
    this.broke = undefined;
    /** What a read is given to fill, and what was read, of so many bytes. */
    this.piece = undefined;
    this.held = undefined;
    this.size = 0;
    this.last = 0;
    this.filling = false;
    this.wanted = false;
    this.soon = undefined;
    /** How it ended: END or BROKEN. */
    this.over = undefined;
  }

  /** The answer's headers, as `lines`. */
  headers() {
    let text = "";
    this.response.headers.forEach((value, name) => {
      text += `${name}\n${value}\n`;
      if (name === "content-length") this.length = Number(value);
      else if (name === "content-encoding") this.packed = true;
    });
    return text;
  }

  /** Whether no further piece fits. */
  isFull() {
    // One that is being filled says nothing of its size.
    return this.size + Math.max(this.piece.byteLength, PIECE) > AHEAD;
  }

  /** Keeps a chunk. */
  keep(chunk) {
    const size = this.size + chunk.byteLength;
    if (size > this.held.byteLength) {
      const larger = new Uint8Array(Math.max(2 * this.held.byteLength, size));
      larger.set(this.held.subarray(0, this.size));
      this.held = larger;
    }
    this.held.set(chunk, this.size);
    this.size = size;
    // One that was filled to its end is of a body that comes in larger pieces.
    const { buffer } = chunk;
    const more = chunk.byteLength === buffer.byteLength && buffer.byteLength < LARGEST_PIECE;
    this.piece = new Uint8Array(more ? new ArrayBuffer(2 * buffer.byteLength) : buffer);
  }

  /** Whether a chunk that has just come did so soon after the last. */
  isSoon() {
    const now = Date.now();
    const soon = now - this.last < BURST;
    this.last = now;
    return soon;
  }

  /** What was kept, to be copied before anything else is. */
  take() {
    const kept = this.held.subarray(0, this.size);
    this.size = 0;
    return kept;
  }
}
