// One request's exchange with its endpoints and its client, on the JavaScript side. entry.js calls `serve` with a
// request and gets the response. exchange.rs calls the methods of `Exchange`, which report to Wasm through `notify`.
//
// A call between Wasm and JavaScript costs about as much as the runtime needs to pass on a chunk. An object that is
// made for the call costs as much again. So there are few calls: all headers are one text, and each event is one call
// of `notify`, which also continues the request's task (task.rs).
import Shim from "shim";
import {
  BODY_ERROR,
  CHUNK,
  CLIENT_GONE,
  DOCUMENT,
  EOF,
  FETCH_ERROR,
  HEADERS,
  LAST_CHUNK,
  REQUEST_BODY,
  REQUEST_CHUNK,
  REQUEST_EOF,
  REQUEST_FAILED,
  REQUEST_TIMEOUT,
  TIMER,
  WRITE_FAILED,
  WRITTEN,
} from "./notice.js";

const { begin, notify, run } = Shim.prototype;
/** The state of the Wasm instance that the shim keeps: whether a panic broke it, and its number. */
const wasm = globalThis.__worker_init_state;

/**
 * The longest time between two events of an exchange while its task lasts, in milliseconds. At each event, `enter`
 * checks whether the Wasm instance was replaced.
 */
const MAX_SILENCE = 5_000;

/** An answer whose `Content-Length` is at most this is read in one call. In bytes. */
const MAX_READ_AT_ONCE = 1 << 16;
/** How much of an answer is read from the endpoint before Wasm asks for it. In bytes. */
const MAX_READ_AHEAD = 1 << 16;
/** How much of an answer may wait for a slow client before reading from the endpoint stops. In bytes. */
const MAX_UNWRITTEN = 1 << 16;
/** The size of the buffer for one read, at first and at most. In bytes. Most events are far shorter. */
const MIN_BUFFER = 1 << 12,
  MAX_BUFFER = 1 << 15;
/** The limits of `fetchDocument`: its time in milliseconds, and the size of the document in bytes. */
const DOCUMENT_TIMEOUT = 5_000,
  MAX_DOCUMENT_BYTES = 1 << 16;
/** Two chunks belong to one burst if less than this time is between them. In milliseconds. */
const BURST_GAP = 2;

const ignore = () => {};
const done = Promise.resolve();

const encoder = new TextEncoder();
/** The buffer for texts that are passed to Wasm. Wasm copies the texts. */
let textBuffer = new Uint8Array(1 << 14);

/** Encodes a text in UTF-8. The next call overwrites the result. */
function bytesOf(text) {
  // A UTF-16 code unit takes at most three bytes in UTF-8.
  if (3 * text.length > textBuffer.length) textBuffer = new Uint8Array(6 * text.length);
  return textBuffer.subarray(0, encoder.encodeInto(text, textBuffer).written);
}

/** Makes an object of headers from `parts`, which alternates names and values from index `first`. */
function record(parts, first) {
  // An object without a prototype is slower to make, and slower for the runtime to read.
  const headers = {};
  for (let i = first; i + 1 < parts.length; i += 2) {
    const before = headers[parts[i]];
    headers[parts[i]] = typeof before === "string" ? `${before}, ${parts[i + 1]}` : parts[i + 1];
  }
  return headers;
}

/** A value of the runtime as one line of text. Empty if the value is missing or isn't a single line. */
const line = (value) =>
  typeof value === "number" ? String(value) : typeof value === "string" && !value.includes("\n") ? value : "";

/**
 * Describes a request as text, with one item on each line: a new id, method, URL, country, latitude, longitude, then
 * the name and the value of each header. No item can contain a line break.
 */
function describe(request) {
  const { method, url, cf } = request;
  const place = `${line(cf?.country)}\n${line(cf?.latitude)}\n${line(cf?.longitude)}`;
  let text = `${crypto.randomUUID()}\n${method}\n${url}\n${place}\n`;
  request.headers.forEach((value, name) => {
    text += `${name}\n${value}\n`;
  });
  return text;
}

/** Answers a request. Called by entry.js. */
export function serve(request, env, ctx) {
  // After a panic, the constructor of the shim makes a new Wasm instance.
  if (wasm.criticalError) new Shim(ctx, env);
  const text = describe(request);
  return new Promise((answer) => {
    const exchange = new Exchange(text.slice(0, text.indexOf("\n")), answer, ctx);
    const { signal } = request;
    signal.onabort = () => exchange.notify(CLIENT_GONE, 0);
    exchange.enter(begin, exchange, request, env, ctx, bytesOf(text));
    if (signal.aborted) exchange.notify(CLIENT_GONE, 0);
  });
}

/** The error body when the Wasm is broken and can't write one itself. */
const BROKEN_BODY = JSON.stringify({
  error: {
    message: "This gateway made a mistake. Nothing more is known here; tell its operator the request id.",
    type: "server_error",
    param: null,
    code: "internal_error",
  },
});

function broken(id) {
  const headers = {
    "content-type": "application/json",
    "cache-control": "no-store",
    "x-request-id": id,
    "x-bailiwick-request-id": id,
  };
  return new Response(BROKEN_BODY, { status: 500, headers });
}

/** Numbers of tasks that have ended. New tasks reuse these numbers, because each number is a slot in Wasm. */
const free = [];
/** How many numbers were given out. */
let numbers = 0;

class Exchange {
  /** `answer` is called with the client's response. `context` is the runtime's context of the request. */
  constructor(id, answer, context) {
    /** The task's number; `undefined` when the task has ended. */
    this.number = free.pop() ?? numbers++;
    this.instance = wasm.instanceId;
    this.id = id;
    this.answer = answer;
    this.context = context;
    this.flight = undefined;
    this.timer = undefined;
    /** The body of the client's response, its writer, and whether a pipe of the runtime writes it instead. */
    this.body = undefined;
    this.writer = undefined;
    this.piped = false;
    /** Whether the Wasm broke. */
    this.failed = false;
    /** How many writes to the client are pending, how many bytes they have, and whether Wasm waits for them. */
    this.writes = 0;
    this.unwritten = 0;
    this.blocked = false;
    /** The buffer of a write. It is reused when no write is under way. */
    this.writeBuffer = undefined;
    /** The callbacks of all writes. */
    this.onWritten = undefined;
    this.onWriteFailed = undefined;
    /** Whether the client's response is an event stream. */
    this.events = false;
    /** For reading the request's body in pieces: the reader, whether a read is pending, and the timer of a read. */
    this.reader = undefined;
    this.pulling = false;
    this.pullTimer = undefined;
    this.setTimer(MAX_SILENCE);
  }

  /** Calls into Wasm on behalf of this request's task. */
  enter(call, a, b, c, d, e) {
    if (this.number === undefined) return;
    // After a panic the instance may be in any state, and a new instance doesn't know this request.
    if (wasm.criticalError || this.instance !== wasm.instanceId) return this.fail();
    try {
      call(this.number, a, b, c, d, e);
    } catch {
      wasm.criticalError = true;
      this.fail();
    }
  }

  /** Reports an event to Wasm, which then continues the task. */
  notify(what, attempt, bytes) {
    this.enter(notify, what, attempt, bytes);
  }

  /** Continues the task in a later microtask. */
  wake() {
    done.then(() => this.enter(run));
  }

  /** Ends the task. Its timer isn't cleared: the runtime drops it with the request, which is cheaper. */
  end() {
    this.abort();
    this.abandon();
  }

  /** Ends the task of a request that the runtime has already ended. No object of that request may be used. */
  abandon() {
    if (this.number !== undefined) free.push(this.number);
    this.number = undefined;
  }

  /** Lets work go on after the request has ended, until `promise` settles. False if it has ended already. */
  keep(promise) {
    try {
      this.context.waitUntil(promise);
      return true;
    } catch {
      return false;
    }
  }

  /** Ends the exchange because the Wasm is broken. */
  fail() {
    this.end();
    this.answer(broken(this.id));
    this.failed = true;
    // If a pipe writes the client's body, `pipe` breaks it off soon, because the endpoint's answer was aborted.
    // Otherwise only whole events were written so far, so an error event can follow.
    if (this.writer !== undefined && !this.piped) this.breakOff();
  }

  /** Ends an event stream with `before` and an error event. Breaks off any other body. */
  breakOff(before = "") {
    if (!this.events) return this.cut();
    /** @type {WritableStreamDefaultWriter} */ (this.writer)
      .write(encoder.encode(`${before}data: ${BROKEN_BODY}\n\n`))
      .catch(ignore);
    this.close();
  }

  /** Reads the whole body of the client's request. Reports REQUEST_BODY, or REQUEST_FAILED if the read fails. */
  readBody(request) {
    request.arrayBuffer().then(
      (body) => this.notify(REQUEST_BODY, 0, new Uint8Array(body)),
      () => this.notify(REQUEST_FAILED, 0),
    );
  }

  /**
   * Reads a piece of the request's body. Reports REQUEST_CHUNK, REQUEST_EOF or REQUEST_FAILED, or REQUEST_TIMEOUT if
   * none of these happens within `milliseconds`.
   */
  pull(request, milliseconds) {
    clearTimeout(/** @type {number} */ (this.pullTimer));
    this.pullTimer = setTimeout(() => this.notify(REQUEST_TIMEOUT, 0), milliseconds);
    if (this.pulling) return;
    const settle = (what, bytes) => {
      this.pulling = false;
      clearTimeout(/** @type {number} */ (this.pullTimer));
      this.notify(what, 0, bytes);
    };
    this.pulling = true;
    try {
      this.reader ??= request.body.getReader();
      this.reader.read().then(
        ({ done, value }) => (done ? settle(REQUEST_EOF) : settle(REQUEST_CHUNK, value)),
        () => settle(REQUEST_FAILED),
      );
    } catch {
      settle(REQUEST_FAILED);
    }
  }

  /**
   * Sends a request to an endpoint. `head` holds the method, the URL, and the names and values of headers, each on its
   * own line. Reports HEADERS with the status and the headers, or FETCH_ERROR.
   */
  send(attempt, head, body, stream) {
    const parts = head.split("\n");
    const abort = new AbortController();
    const flight = (this.flight = new Flight(attempt, abort));
    // A redirect could lead out of the fence, so it isn't followed. It counts as a failed attempt.
    const init = {
      method: parts[0],
      headers: record(parts, 2),
      body: stream ?? body?.slice(),
      redirect: "manual",
      signal: abort.signal,
    };
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
   * Fetches a small document while an answer is in flight, which isn't read meanwhile. Reports DOCUMENT with the
   * document's bytes. Reports an empty document if the endpoint has none, or `undefined` if the fetch failed.
   */
  fetchDocument(head) {
    const parts = head.split("\n");
    const get = async () => {
      const init = { headers: record(parts, 2), redirect: "manual", signal: AbortSignal.timeout(DOCUMENT_TIMEOUT) };
      const response = await fetch(parts[1], init);
      const bytes = new Uint8Array(await response.arrayBuffer());
      if ([404, 405, 501].includes(response.status)) return new Uint8Array(0);
      return response.status === 200 && bytes.length <= MAX_DOCUMENT_BYTES ? bytes : undefined;
    };
    get().then(
      (bytes) => this.notify(DOCUMENT, 0, bytes),
      () => this.notify(DOCUMENT, 0),
    );
  }

  /**
   * Asks for more of the answer's body. Reports CHUNK, LAST_CHUNK, EOF or BODY_ERROR, perhaps before it returns. If
   * `onDemand`, nothing is read ahead, so that `pipe` can pass on the rest.
   */
  read(onDemand) {
    const flight = this.flight;
    if (flight === undefined) return;
    flight.wanted = true;
    flight.onDemand = onDemand;
    if (flight.reader === undefined && flight.ending === undefined) this.open(flight);
    else this.report(flight, flight.size > 0 && Date.now() - flight.lastArrival < BURST_GAP);
    this.fill(flight);
  }

  /** Starts to read an answer's body: in one call if the body is short, otherwise in pieces. */
  open(flight) {
    const { length, compressed, audio, response } = flight;
    if (length === 0 || response.body === null) return this.ended(flight, EOF);
    if (compressed || audio || !(length <= MAX_READ_AT_ONCE)) {
      flight.readBuffer = new Uint8Array(MIN_BUFFER);
      flight.onRead = ({ done, value }) => {
        flight.filling = false;
        if (done) return this.ended(flight, EOF);
        // A burst lasts until its timer fires. Until then the clock isn't read.
        const burst = flight.burstTimer !== undefined || (flight.continuesBurst() && !flight.onDemand);
        if (this.flight !== flight) return;
        if (burst || flight.size > 0 || !this.mayReport(flight)) {
          flight.keep(value);
          if (this.mayReport(flight)) this.report(flight, burst);
        } else {
          // Wasm copies the chunk at once, so the chunk's buffer is free for the next read.
          flight.reuse(value);
          flight.wanted = this.flows(flight);
          this.notify(CHUNK, flight.attempt, value);
        }
        this.fill(flight);
      };
      flight.onReadFailed = () => this.ended(flight, BODY_ERROR);
      // All reads use one buffer. Otherwise the runtime would allocate a buffer for each chunk, and garbage collection
      // is the main cost of a stream.
      flight.reader = response.body.getReader({ mode: "byob" });
      return;
    }
    response.arrayBuffer().then(
      (body) => {
        flight.ending = EOF;
        if (this.flight === flight) this.notify(LAST_CHUNK, flight.attempt, new Uint8Array(body));
      },
      () => this.ended(flight, BODY_ERROR),
    );
  }

  /**
   * Reads ahead, up to a limit, even if Wasm hasn't asked. Also reads the rest of an answer that Wasm has left, so that
   * the answer's connection can be reused. Each read returns one chunk of the transfer encoding. In an event stream a
   * chunk is one event, although one packet may have brought dozens.
   */
  fill(flight) {
    if (flight.onDemand && !flight.wanted && this.flight === flight) return;
    if (flight.filling || flight.reader === undefined || flight.ending !== undefined || flight.isFull()) return;
    flight.filling = true;
    flight.reader.read(flight.readBuffer).then(flight.onRead, flight.onReadFailed);
  }

  /** Notes that the body of an answer has ended, and reports it if Wasm wants it. */
  ended(flight, ending) {
    flight.ending = ending;
    if (this.flight === flight && this.mayReport(flight)) this.report(flight, false);
  }

  /** Whether Wasm gets every chunk without asking for it: the client's body has begun and won't be piped. */
  flows(flight) {
    return this.writer !== undefined && !flight.onDemand;
  }

  /** Whether more of the answer may be reported to Wasm: Wasm wants more, and doesn't wait for a slow client. */
  mayReport(flight) {
    return flight.wanted && !this.blocked;
  }

  /**
   * Reports the bytes that were read. Before the client's body has begun, Wasm asks for each report by calling `read`.
   * Within a burst, the report waits for a timer of 0 ms, which fires when the runtime has no more chunks ready. So a
   * burst becomes one report to Wasm and one write to the client. No chunk waits for a chunk that hasn't arrived.
   */
  report(flight, burst) {
    if (flight.size === 0) {
      if (flight.ending === undefined) return;
      flight.wanted = false;
      this.notify(flight.ending, flight.attempt);
    } else if (burst && flight.ending === undefined && !flight.isFull()) {
      flight.burstTimer ??= setTimeout(() => {
        flight.burstTimer = undefined;
        flight.lastArrival = Date.now();
        if (this.flight === flight && this.mayReport(flight)) this.report(flight, false);
      }, 0);
    } else {
      flight.wanted = this.flows(flight);
      this.notify(flight.ending === EOF ? LAST_CHUNK : CHUNK, flight.attempt, flight.take());
      // If Wasm gets chunks without asking, it doesn't ask for the end either. So a break is reported here.
      if (flight.ending === BODY_ERROR && this.flight === flight && this.mayReport(flight)) this.report(flight, false);
    }
  }

  /** Aborts the request in flight. The runtime closes its connection. */
  abort() {
    const flight = this.flight;
    this.flight = undefined;
    if (flight !== undefined && flight.ending === undefined) flight.abort.abort();
  }

  /**
   * Stops listening to an answer whose content is complete. The answer isn't aborted, so its connection can be reused.
   * The pending read may go on until the client has its answer. Then the runtime ends all work of the request.
   */
  leave() {
    this.flight = undefined;
  }

  /** Sets the timer: reports TIMER after `milliseconds`. Replaces a timer that was set before. */
  setTimer(milliseconds) {
    if (this.timer !== undefined) clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.timer = undefined;
      this.notify(TIMER, 0);
      if (this.number !== undefined && this.timer === undefined) this.setTimer(MAX_SILENCE);
    }, milliseconds);
  }

  /** Answers the client with a complete response. Its body is `text` or `bytes`, or none. */
  respond(status, headers, bytes, text) {
    try {
      this.answer(new Response(text ?? bytes?.slice() ?? null, { status, headers: record(headers.split("\n"), 0) }));
    } catch {
      // The runtime rejects the status or a header.
      this.answer(broken(this.id));
    }
  }

  /**
   * Answers the client with a response whose body is written later. `length` is the body's size in bytes, if known. The
   * length matters if an answer breaks off: workerd cuts a body of known length, and the client notices. But workerd
   * ends a chunked body as if it were complete. In an event stream, an event says how the stream ended.
   */
  begin(status, headers, length) {
    const { readable, writable } = length === undefined ? new IdentityTransformStream() : new FixedLengthStream(length);
    this.answer(new Response(readable, { status, headers: record(headers.split("\n"), 0) }));
    this.body = writable;
    this.writer = writable.getWriter();
    this.onWritten = () => {
      if (--this.writes === 0) this.drained();
    };
    this.onWriteFailed = () => this.notify(WRITE_FAILED, 0);
    this.events = headers.includes("text/event-stream");
  }

  /**
   * Writes to the client. Returns whether the client keeps up. If it doesn't, WRITTEN is reported when the client has
   * taken everything, and until then no more of the answer is reported. Reports WRITE_FAILED if the write fails.
   */
  write(bytes) {
    const size = bytes.byteLength;
    let copy;
    if (this.writes === 0 && size <= MIN_BUFFER) {
      this.writeBuffer ??= new Uint8Array(MIN_BUFFER);
      copy = this.writeBuffer.subarray(0, size);
      copy.set(bytes);
    } else {
      copy = bytes.slice();
    }
    this.writes++;
    this.unwritten += size;
    /** @type {WritableStreamDefaultWriter} */ (this.writer).write(copy).then(this.onWritten, this.onWriteFailed);
    this.blocked = this.unwritten > MAX_UNWRITTEN;
    return !this.blocked;
  }

  /** Returns whether the client has taken everything. If it hasn't, WRITTEN or WRITE_FAILED is reported later. */
  flush() {
    this.blocked = this.writes > 0;
    return !this.blocked;
  }

  /** Called when the client has taken everything. */
  drained() {
    this.unwritten = 0;
    if (!this.blocked) return;
    this.blocked = false;
    this.notify(WRITTEN, 0);
    const { flight } = this;
    if (flight === undefined || !this.mayReport(flight)) return;
    if (flight.size > 0 || flight.ending !== undefined) this.report(flight, false);
    if (flight.reader !== undefined) this.fill(flight);
  }

  /**
   * Lets the runtime pass the rest of the answer to the client. No read of the answer and no write to the client may be
   * under way. Reports EOF, BODY_ERROR or WRITE_FAILED when the pipe has ended.
   */
  pipe() {
    const { flight } = this;
    if (flight === undefined) return;
    const finish = (ending) => {
      this.piped = false;
      flight.ending = ending;
      this.writer = /** @type {WritableStream} */ (this.body).getWriter();
      // The pipe may have written part of an event. The empty line ends it.
      if (this.failed) return this.breakOff("\n\n");
      this.notify(this.writer.desiredSize === null ? WRITE_FAILED : ending, flight.attempt);
    };
    flight.reader.releaseLock();
    /** @type {WritableStreamDefaultWriter} */ (this.writer).releaseLock();
    this.piped = true;
    flight.response.body.pipeTo(this.body, { preventClose: true, preventAbort: true }).then(
      () => finish(EOF),
      () => finish(BODY_ERROR),
    );
  }

  /** Ends the client's body, which is complete. */
  close() {
    /** @type {WritableStreamDefaultWriter} */ (this.writer).close().catch(ignore);
  }

  /** Breaks off the client's body, which is incomplete. */
  cut() {
    /** @type {WritableStreamDefaultWriter} */ (this.writer).abort("the answer broke off").catch(ignore);
  }
}

/** One attempt: its fetch, and the bytes of its answer that were read but not yet reported. */
class Flight {
  constructor(attempt, abort) {
    this.attempt = attempt;
    this.abort = abort;
    this.response = undefined;
    /** From the headers: the length of the body, whether the body is compressed, and whether it is audio. */
    this.length = undefined;
    this.compressed = false;
    this.audio = false;
    this.reader = undefined;
    /** The callbacks of all reads. */
    this.onRead = undefined;
    this.onReadFailed = undefined;
    /** The buffer for the next read, the buffer of bytes that weren't reported yet, and the number of these bytes. */
    this.readBuffer = undefined;
    this.held = /** @type {Uint8Array} */ (/** @type {unknown} */ (undefined));
    this.size = 0;
    /** When the last chunk arrived, in milliseconds since the epoch. */
    this.lastArrival = 0;
    /** Whether a read is under way, and whether Wasm wants the next chunk. */
    this.filling = false;
    this.wanted = false;
    /** Whether bytes are read only when Wasm asks for them. */
    this.onDemand = false;
    /** Set while a burst is collected. When it fires, the burst is reported. */
    this.burstTimer = undefined;
    /** How the body ended: EOF or BODY_ERROR. */
    this.ending = undefined;
  }

  /** The answer's headers as text: each name and each value on a line of its own. */
  headers() {
    let text = "";
    this.response.headers.forEach((value, name) => {
      text += `${name}\n${value}\n`;
      if (name === "content-length") this.length = Number(value);
      else if (name === "content-encoding") this.compressed = true;
      else if (name === "content-type") this.audio = value.startsWith("audio/");
    });
    return text;
  }

  /** Whether another read could exceed the limit. */
  isFull() {
    // A buffer that a read is filling is detached, and its length reads as 0.
    return this.size + Math.max(/** @type {Uint8Array} */ (this.readBuffer).byteLength, MIN_BUFFER) > MAX_READ_AHEAD;
  }

  /** Appends a chunk to the held bytes. */
  keep(chunk) {
    const size = this.size + chunk.byteLength;
    if (!(size <= this.held?.byteLength)) {
      const larger = new Uint8Array(Math.max(2 * MIN_BUFFER, 2 * size));
      if (this.size > 0) larger.set(this.held.subarray(0, this.size));
      this.held = larger;
    }
    this.held.set(chunk, this.size);
    this.size = size;
    this.reuse(chunk);
  }

  /** Takes back the buffer of a chunk for the next read. */
  reuse(chunk) {
    // A full buffer suggests that the body arrives in larger pieces, so the next buffer is twice as large.
    const { buffer } = chunk;
    const more = chunk.byteLength === buffer.byteLength && buffer.byteLength < MAX_BUFFER;
    this.readBuffer = new Uint8Array(more ? new ArrayBuffer(2 * buffer.byteLength) : buffer);
  }

  /** Whether a chunk that has just arrived belongs to a burst. Records the time of the chunk. */
  continuesBurst() {
    const now = Date.now();
    const continues = now - this.lastArrival < BURST_GAP;
    this.lastArrival = now;
    return continues;
  }

  /** Takes the held bytes. The caller copies them before the next chunk is appended. */
  take() {
    const kept = this.held.subarray(0, this.size);
    this.size = 0;
    return kept;
  }
}
