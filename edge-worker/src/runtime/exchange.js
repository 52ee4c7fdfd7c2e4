// One request's line to its endpoints and back to its client, on the runtime's side of the Worker: exchange.rs holds the other end.
//
// Each call between Wasm and JavaScript, and each object made on the way, costs about as much as the runtime needs to pass a
// chunk on by itself. So what belongs together crosses together: headers as one text, and an event as one call of `notify`, which
// also takes the request on from there (task.rs).
import Shim from "shim";
import {
  BODY_ERROR, CHUNK, CLIENT_GONE, EOF, FETCH_ERROR, HEADERS, LAST_CHUNK, LOOKED, REQUEST_BODY, REQUEST_CHUNK, REQUEST_EOF,
  REQUEST_FAILED, REQUEST_TIMEOUT, TIMER, WRITE_FAILED, WRITTEN,
} from "./notice.js";

const { begin, notify, run } = Shim.prototype;
/** What the shim knows of the Wasm: whether a panic broke it, and which instance it is. */
const wasm = globalThis.__worker_init_state;

/** How often a line rings at least while its task lasts, in milliseconds. By it a task hears that the Wasm is another's. */
const BEAT = 5_000;

/** An answer announced to be no longer than this is read at once. */
const AT_ONCE = 1 << 16;
/** How much of a body is taken from the endpoint before anybody asks for it. */
const AHEAD = 1 << 16;
/** How much one read takes at first and at most. Events are far shorter. */
const PIECE = 1 << 12, LARGEST_PIECE = 1 << 15;
/** How long a look takes at most, in milliseconds, and how much it sees. */
const LOOK = 5_000, LOOKED_AT = 1 << 16;
/** A chunk that comes within so many milliseconds of the last is one of a burst. */
const BURST = 2;

const ignore = () => {};
const done = Promise.resolve();

const encoder = new TextEncoder();
/** Where texts are written on their way into Wasm, which copies them. */
let written = new Uint8Array(1 << 14);

/** A text as bytes, until the next one. */
function bytesOf(text) {
  // A unit of a text is at most three bytes.
  if (3 * text.length > written.length) written = new Uint8Array(6 * text.length);
  return written.subarray(0, encoder.encodeInto(text, written).written);
}

/** Headers, names and values in turn from the first on, as an object: one the runtime takes them from at once. */
function record(parts, first) {
  // One without a prototype is slower to make, and to read for the runtime.
  const headers = {};
  for (let i = first; i + 1 < parts.length; i += 2) {
    const before = headers[parts[i]];
    headers[parts[i]] = typeof before === "string" ? `${before}, ${parts[i + 1]}` : parts[i + 1];
  }
  return headers;
}

const word = (value) => (typeof value === "number" ? String(value) : typeof value === "string" && !value.includes("\n") ? value : "");

/**
 * An id for a request, and what it says of itself, a line each: method, URL, country, latitude, longitude; then its headers, names
 * and values in turn: neither can hold a line's end.
 */
function asked(request) {
  const { method, url, cf } = request;
  let text = `${crypto.randomUUID()}\n${method}\n${url}\n${word(cf?.country)}\n${word(cf?.latitude)}\n${word(cf?.longitude)}\n`;
  request.headers.forEach((value, name) => {
    text += `${name}\n${value}\n`;
  });
  return text;
}

/** Answers a request. */
export function serve(request, env, ctx) {
  // After a panic the shim makes a new instance of the Wasm before the next request; making one of its class has it do so.
  if (wasm.criticalError) new Shim(ctx, env);
  const text = asked(request);
  return new Promise((answer) => {
    const exchange = new Exchange(text.slice(0, text.indexOf("\n")), answer);
    const { signal } = request;
    signal.onabort = () => exchange.notify(CLIENT_GONE, 0);
    exchange.enter(begin, exchange, request, env, ctx, bytesOf(text));
    if (signal.aborted) exchange.notify(CLIENT_GONE, 0);
  });
}

/** What is said when the Wasm broke, and nobody is left to ask for the words. */
const BROKEN_BODY = JSON.stringify({
  error: {
    message: "This gateway made a mistake. Nothing more is known here; tell its operator the request id.",
    type: "server_error",
    param: null,
    code: "internal_error",
  },
});

function broken(id) {
  const headers = { "content-type": "application/json", "cache-control": "no-store", "x-request-id": id, "x-bailiwick-request-id": id };
  return new Response(BROKEN_BODY, { status: 500, headers });
}

/** Numbers of tasks that have ended: their places in Wasm are used again. */
const free = [];
let numbers = 0;

class Exchange {
  /** `answer` takes the client's response. */
  constructor(id, answer) {
    /** The task's number, while it lasts. */
    this.number = free.pop() ?? numbers++;
    this.instance = wasm.instanceId;
    this.id = id;
    this.answer = answer;
    this.flight = undefined;
    this.timer = undefined;
    this.writer = undefined;
    /** Whether events are written to the client. */
    this.events = false;
    /** How the client's body is read in pieces, whether one is under way, and until when it may come. */
    this.reader = undefined;
    this.pulling = false;
    this.late = undefined;
    this.arm(BEAT);
  }

  /** Calls into Wasm on behalf of this request's task. */
  enter(call, a, b, c, d, e) {
    if (this.number === undefined) return;
    // One that a panic broke may be in any state, and the next one knows nothing of this request.
    if (wasm.criticalError || this.instance !== wasm.instanceId) return this.fail();
    try {
      call(this.number, a, b, c, d, e);
    } catch {
      wasm.criticalError = true;
      this.fail();
    }
  }

  /** Tells what happened, and takes the task on from there. */
  notify(what, attempt, bytes) {
    this.enter(notify, what, attempt, bytes);
  }

  /** Takes the task on when the runtime has done what it is at. */
  wake() {
    done.then(() => this.enter(run));
  }

  /** The task has ended. A timer that is set ends with the request: to clear it costs more. */
  end() {
    this.abort();
    this.abandon();
  }

  /** The task has ended, and so has the request for the runtime: nothing of it may be touched. */
  abandon() {
    if (this.number !== undefined) free.push(this.number);
    this.number = undefined;
  }

  /** The Wasm is broken, and the task with it. */
  fail() {
    this.end();
    this.answer(broken(this.id));
    if (this.writer === undefined) return;
    if (!this.events) return this.cut();
    // Whole events were written, and one more can be.
    this.writer.write(encoder.encode(`data: ${BROKEN_BODY}\n\n`)).catch(ignore);
    this.close();
  }

  /** Reads the client's body, all of it: REQUEST_BODY follows, or REQUEST_FAILED if it doesn't come. */
  readBody(request) {
    request.arrayBuffer().then(
      (body) => this.notify(REQUEST_BODY, 0, new Uint8Array(body)),
      () => this.notify(REQUEST_FAILED, 0),
    );
  }

  /** Reads a piece of the client's body: REQUEST_CHUNK, REQUEST_EOF or REQUEST_FAILED follows, or REQUEST_TIMEOUT after so many milliseconds. */
  pull(request, milliseconds) {
    clearTimeout(this.late);
    this.late = setTimeout(() => this.notify(REQUEST_TIMEOUT, 0), milliseconds);
    if (this.pulling) return;
    const come = (what, bytes) => {
      this.pulling = false;
      clearTimeout(this.late);
      this.notify(what, 0, bytes);
    };
    this.pulling = true;
    try {
      this.reader ??= request.body.getReader();
      this.reader.read().then(({ done, value }) => (done ? come(REQUEST_EOF) : come(REQUEST_CHUNK, value)), () => come(REQUEST_FAILED));
    } catch {
      come(REQUEST_FAILED);
    }
  }

  /**
   * Sends a request: `head` is the method, the URL and the headers, a line each. HEADERS with the status and the headers, or
   * FETCH_ERROR, follows.
   */
  send(attempt, head, body, stream) {
    const parts = head.split("\n");
    const abort = new AbortController();
    const flight = (this.flight = new Flight(attempt, abort));
    // A redirect could lead out of the fence: it is seen as a failed attempt.
    const init = { method: parts[0], headers: record(parts, 2), body: stream ?? body?.slice(), redirect: "manual", signal: abort.signal };
    try {
      fetch(parts[1], init).then(
        (response) => {
          flight.response = response;
          if (this.flight === flight) this.notify(HEADERS, attempt, bytesOf(`${response.status}\n${flight.headers()}`));
        },
        () => this.flight === flight && this.notify(FETCH_ERROR, attempt),
      );
    } catch {
      this.notify(FETCH_ERROR, attempt);
    }
  }

  /**
   * Fetches something small: LOOKED follows, with its bytes if it came, and with none where nothing is there. The answer in
   * flight goes on, and nobody reads it meanwhile.
   */
  look(head) {
    const parts = head.split("\n");
    const see = async () => {
      const init = { headers: record(parts, 2), redirect: "manual", signal: AbortSignal.timeout(LOOK) };
      const response = await fetch(parts[1], init);
      const bytes = new Uint8Array(await response.arrayBuffer());
      if ([404, 405, 501].includes(response.status)) return new Uint8Array(0);
      return response.status === 200 && bytes.length <= LOOKED_AT ? bytes : undefined;
    };
    see().then((bytes) => this.notify(LOOKED, 0, bytes), () => this.notify(LOOKED, 0));
  }

  /** Asks for more of the body: CHUNK, EOF or BODY_ERROR follows, perhaps at once. */
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
    const { length, packed, drips, response } = flight;
    if (length === 0 || response.body === null) return this.ended(flight, EOF);
    if (packed || drips || !(length <= AT_ONCE)) {
      flight.piece = new Uint8Array(PIECE);
      flight.held = new Uint8Array(2 * PIECE);
      flight.came = ({ done, value }) => {
        flight.filling = false;
        if (done) return this.ended(flight, EOF);
        // The clock isn't asked again within a burst: it is one until its timer runs out.
        const burst = flight.soon !== undefined || flight.isSoon();
        flight.keep(value);
        if (this.flight !== flight) return;
        if (flight.wanted) this.settle(flight, burst);
        this.fill(flight);
      };
      flight.broke = () => this.ended(flight, BODY_ERROR);
      // Into a buffer of our own, again and again: else each chunk gets one, and rubbish is what a stream costs most by.
      flight.reader = response.body.getReader({ mode: "byob" });
      return;
    }
    response.arrayBuffer().then(
      (body) => {
        flight.over = EOF;
        if (this.flight === flight) this.notify(LAST_CHUNK, flight.attempt, new Uint8Array(body));
      },
      () => this.ended(flight, BODY_ERROR),
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

  ended(flight, how) {
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
      this.notify(flight.over, flight.attempt);
    } else if (burst && flight.over === undefined && !flight.isFull()) {
      flight.soon ??= setTimeout(() => {
        flight.soon = undefined;
        flight.last = Date.now();
        if (this.flight === flight && flight.wanted) this.settle(flight, false);
      }, 0);
    } else {
      flight.wanted = false;
      this.notify(flight.over === EOF ? LAST_CHUNK : CHUNK, flight.attempt, flight.take());
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
    if (this.timer !== undefined) clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.timer = undefined;
      this.notify(TIMER, 0);
      if (this.number !== undefined && this.timer === undefined) this.arm(BEAT);
    }, milliseconds);
  }

  /** Answers the client: a response with a body that is all there, in bytes or as a text, or with none. */
  respond(status, headers, bytes, text) {
    try {
      this.answer(new Response(text ?? bytes?.slice() ?? null, { status, headers: record(headers.split("\n"), 0) }));
    } catch {
      // A status or a header that the runtime doesn't take.
      this.answer(broken(this.id));
    }
  }

  /**
   * Answers the client by the beginning of a body: of so many bytes, if that is known. The length matters when an answer
   * breaks off. workerd ends a chunked body as if it were whole, whatever happens to the stream behind it; one of a known length
   * it cuts, and the client sees it. Streams of events say by an event how they ended.
   */
  begin(status, headers, length) {
    const { readable, writable } = length === undefined ? new IdentityTransformStream() : new FixedLengthStream(length);
    this.answer(new Response(readable, { status, headers: record(headers.split("\n"), 0) }));
    this.writer = writable.getWriter();
    this.events = headers.includes("text/event-stream");
  }

  /** Writes to the client: WRITTEN follows when it took all of it, WRITE_FAILED if it won't. */
  write(bytes) {
    this.writer.write(bytes.slice()).then(
      () => this.notify(WRITTEN, 0),
      () => this.notify(WRITE_FAILED, 0),
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
}

/** One attempt: its request, and what of its answer was read and not yet handed over. */
class Flight {
  constructor(attempt, abort) {
    this.attempt = attempt;
    this.abort = abort;
    this.response = undefined;
    /** What its headers say: how long the body is, whether the runtime unpacks it, and whether it is heard while it comes. */
    this.length = undefined;
    this.packed = false;
    this.drips = false;
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
    /** How it ended: EOF or BODY_ERROR. */
    this.over = undefined;
  }

  /** The answer's headers, as `lines`. */
  headers() {
    let text = "";
    this.response.headers.forEach((value, name) => {
      text += `${name}\n${value}\n`;
      if (name === "content-length") this.length = Number(value);
      else if (name === "content-encoding") this.packed = true;
      else if (name === "content-type") this.drips = value.startsWith("audio/");
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
