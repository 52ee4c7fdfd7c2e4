// What exchange.js can report to the Wasm. Each report is passed as a number. `Notice` in notice.rs has the same names
// and numbers, and a test compares them.

/** Reports about the endpoint's answer, and about the request as a whole. */
export const HEADERS = 0;
export const FETCH_ERROR = 1;
export const CHUNK = 2;
export const EOF = 3;
export const BODY_ERROR = 4;
export const TIMER = 5;
export const CLIENT_GONE = 6;
/** Reports about a write to the client. */
export const WRITTEN = 7;
export const WRITE_FAILED = 8;
/** Reports about the client's body, read at once: the whole body, or that it couldn't be read. */
export const REQUEST_BODY = 9;
export const REQUEST_FAILED = 10;
/** Reports the last chunk of the endpoint's body together with the body's end. */
export const LAST_CHUNK = 11;
/** Reports about the client's body, read in pieces. */
export const REQUEST_CHUNK = 12;
export const REQUEST_EOF = 13;
export const REQUEST_TIMEOUT = 14;
/** Reports the result of fetching a small document while an answer is in flight. */
export const DOCUMENT = 15;
