// What exchange.js can report to the Wasm: the numbers that cross. `Notice` in notice.rs has the same names and
// numbers, and a test compares them.

/** Of the endpoint's answer and of the request as a whole. */
export const HEADERS = 0, FETCH_ERROR = 1, CHUNK = 2, EOF = 3, BODY_ERROR = 4, TIMER = 5, CLIENT_GONE = 6;
/** Of a write to the client. */
export const WRITTEN = 7, WRITE_FAILED = 8;
/** Of the client's body: all of it, or why it didn't come. */
export const REQUEST_BODY = 9, REQUEST_FAILED = 10;
/** The rest of the endpoint's body: a chunk and its end. */
export const LAST_CHUNK = 11;
/** Of the client's body, read in pieces. */
export const REQUEST_CHUNK = 12, REQUEST_EOF = 13, REQUEST_TIMEOUT = 14;
/** Of a document fetched beside the answer in flight. */
export const DOCUMENT = 15;
