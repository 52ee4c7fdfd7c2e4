//! The JavaScript side of one request's exchange: exchange.js. It tells `runtime` what happens by numbers of notice.js.
//! Called by `runtime`.

use core::future::Future;
use core::panic::AssertUnwindSafe;

use worker::js_sys;
use worker::js_sys::futures::future_to_promise;
use worker::wasm_bindgen::prelude::wasm_bindgen;
use worker::wasm_bindgen::{self, JsCast, JsValue};
use worker::web_sys;

use super::client_body::ClientBody;
use super::pipe::BodyStream;

#[wasm_bindgen]
extern "C" {
    /// The `Exchange` object of exchange.js.
    #[derive(Clone)]
    pub(crate) type RawExchange;
    #[wasm_bindgen(method, js_name = send)]
    fn send_js(this: &RawExchange, attempt: u8, head: &str, body: Option<&[u8]>, stream: Option<JsValue>);
    /// Asks for more of the answer's body. With `on_demand`, nothing is read ahead.
    #[wasm_bindgen(method)]
    pub(crate) fn read(this: &RawExchange, on_demand: bool);
    /// Lets the runtime pass the rest of the answer to the client.
    #[wasm_bindgen(method)]
    pub(crate) fn pipe(this: &RawExchange);
    /// Fetches a small document while an answer is in flight.
    #[wasm_bindgen(method, js_name = fetchDocument)]
    pub(crate) fn fetch_document(this: &RawExchange, head: &str);
    /// Aborts the request in flight.
    #[wasm_bindgen(method)]
    pub(crate) fn abort(this: &RawExchange);
    /// Stops listening to an answer whose content is complete.
    #[wasm_bindgen(method)]
    pub(crate) fn leave(this: &RawExchange);
    /// Sets the timer, in place of a timer that was set before.
    #[wasm_bindgen(method, js_name = setTimer)]
    pub(crate) fn set_timer(this: &RawExchange, milliseconds: f64);
    /// Answers the client with a complete response.
    #[wasm_bindgen(method)]
    pub(crate) fn respond(this: &RawExchange, status: u16, headers: &str, bytes: Option<&[u8]>, text: Option<&str>);
    #[wasm_bindgen(method, catch, js_name = begin)]
    fn begin_js(this: &RawExchange, status: u16, headers: &str, length: Option<f64>) -> Result<(), JsValue>;
    #[wasm_bindgen(method, catch, js_name = readBody)]
    fn read_body_js(this: &RawExchange, request: &web_sys::Request) -> Result<(), JsValue>;
    /// Writes to the client. Returns whether the client keeps up.
    #[wasm_bindgen(method)]
    pub(crate) fn write(this: &RawExchange, bytes: &[u8]) -> bool;
    /// Returns whether the client has taken everything.
    #[wasm_bindgen(method)]
    pub(crate) fn flush(this: &RawExchange) -> bool;
    /// Ends the client's body, which is complete.
    #[wasm_bindgen(method)]
    pub(crate) fn close(this: &RawExchange);
    /// Breaks off the client's body, which is incomplete.
    #[wasm_bindgen(method)]
    pub(crate) fn cut(this: &RawExchange);
    #[wasm_bindgen(method, js_name = pull)]
    fn pull_js(this: &RawExchange, request: &web_sys::Request, milliseconds: f64);
    /// Continues the task in a later microtask.
    #[wasm_bindgen(method)]
    pub(crate) fn wake(this: &RawExchange);
    #[wasm_bindgen(method, js_name = keep)]
    fn keep_js(this: &RawExchange, promise: &js_sys::Promise) -> bool;
    /// Ends the task, and aborts the fetch in flight.
    #[wasm_bindgen(method)]
    pub(crate) fn end(this: &RawExchange);
    /// Ends the task of a request that the runtime has already ended. No object of that request may be used.
    #[wasm_bindgen(method)]
    pub(crate) fn abandon(this: &RawExchange);
}

impl RawExchange {
    /// The exchange that exchange.js gave with a request.
    pub(crate) fn of(exchange: JsValue) -> Self {
        exchange.unchecked_into()
    }

    /// Sends a request to an endpoint. The body is `stream`, else `body`.
    pub(crate) fn send(&self, attempt: u8, head: &str, body: Option<&[u8]>, stream: Option<BodyStream>) {
        self.send_js(attempt, head, body, stream.map(|BodyStream(value)| value));
    }

    /// Answers the client with a response whose body is written later. False if the runtime rejects the status or a
    /// header.
    pub(crate) fn begin(&self, status: u16, headers: &str, length: Option<u32>) -> bool {
        self.begin_js(status, headers, length.map(f64::from)).is_ok()
    }

    /// Reads the whole body of the client's request. False if it can't be read.
    pub(crate) fn read_body(&self, body: &ClientBody) -> bool {
        self.read_body_js(&body.0).is_ok()
    }

    /// Reads a piece of the request's body within a time limit.
    pub(crate) fn pull(&self, body: &ClientBody, milliseconds: u32) {
        self.pull_js(&body.0, f64::from(milliseconds));
    }

    /// Lets work go on after the request has ended. False if the runtime has ended the request: then nothing is done.
    pub(crate) fn keep(&self, work: impl Future<Output = ()> + 'static) -> bool {
        let promise = future_to_promise(AssertUnwindSafe(async move {
            work.await;
            Ok(JsValue::UNDEFINED)
        }));
        self.keep_js(&promise)
    }
}
