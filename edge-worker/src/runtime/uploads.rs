//! An upload under way: a client's body enters, a body for one fetch leaves, each chunk checked by [`Upload`] on the way.
//!
//! A small upload is sent whole, with its length. A larger one is written into a pipe of the runtime's while the endpoint reads:
//! each write waits for it, so no more than a chunk is held. When a check fails on the way, or the client falls silent, `proxy` is told
//! to abort the fetch, and [`OutboundUpload::verdict`] says what to answer.

use core::task::{Context, Poll};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bailiwick_rules::rules::{Allowance, Limits};
use bailiwick_rules::time::Millis;
use futures_util::future::LocalBoxFuture;
use worker::js_sys;
use worker::js_sys::futures::JsFuture;
use worker::wasm_bindgen::JsCast;
use worker::wasm_bindgen::JsValue;
use worker::web_sys::{ReadableStream, TransformStream, WritableStreamDefaultWriter};

use crate::decide::batch::BatchInput;
use crate::decide::envelope::Failure;
use crate::decide::inflight::Reservation;
use crate::decide::multipart::upload::{Upload, UploadKind};
use crate::decide::rewrite::form_type;
use crate::runtime::exchange::Pieces;
use crate::runtime::incoming::{Deadlines, drain};
use crate::runtime::request::ClientRequest;

/// How much is read before anything is sent: most uploads are whole by then, and refused before an endpoint hears of them.
const HELD_AT_FIRST: usize = 256 << 10;

/// An upload that may be sent, once.
pub(crate) struct OutboundUpload {
    content_type: String,
    first: Vec<u8>,
    rest: RefCell<Option<(Upload, Pieces)>>,
    /// What carries the rest, once it is under way.
    pump: RefCell<Option<LocalBoxFuture<'static, ()>>>,
    /// How long the client may pause.
    idle: Millis,
    verdict: Rc<UploadRefusal>,
}

/// What is told of an upload that was refused on its way.
#[derive(Default)]
struct UploadRefusal {
    failure: RefCell<Option<Failure>>,
    /// Nothing is on its way to the endpoint: it waits for the client.
    is_clients_turn: Cell<bool>,
    /// The fetch is to be aborted now.
    is_reached: Cell<bool>,
}

/// A boundary that nobody can guess: the request's id is random, and its client learns it with the answer.
pub(crate) fn boundary(asked: &ClientRequest) -> String {
    format!("bailiwick-{}", asked.id)
}

impl OutboundUpload {
    /// Reads the beginning. `lines` judges those of a batch.
    #[inline(never)]
    pub(crate) fn begin<'a>(
        asked: &'a ClientRequest,
        load: UploadKind,
        lines: Option<BatchInput>,
        allow: &'a [Allowance],
        limits: &'a Limits,
        hold: &'a mut Reservation,
    ) -> LocalBoxFuture<'a, Result<Self, Failure>> {
        Box::pin(async move {
            let boundary = boundary(asked);
            let sent_type = form_type(&boundary);
            let upload = Upload::new(load, asked.header("content-type").unwrap_or_default(), boundary, allow)?;
            let mut upload = upload.with_lines(lines);
            let mut pieces = asked.pieces().ok_or(Failure::MissingBody)?;
            let mut first = Vec::new();
            let patience = Deadlines::of(limits);
            let mut ended = false;
            while !ended && first.len() < HELD_AT_FIRST {
                let more = match pieces.next(patience.left()).await {
                    Ok(Some(chunk)) => hold.grow(chunk.len() as u64).and_then(|()| upload.push(&chunk)),
                    Ok(None) => {
                        ended = true;
                        upload.finish()
                    }
                    Err(failure) => Err(failure),
                };
                match more {
                    Ok(more) => first.extend(more),
                    // Who was too slow for a limit would be for another one.
                    Err(Failure::SlowBody) => return Err(Failure::SlowBody),
                    Err(failure) => {
                        drain(&mut pieces).await;
                        return Err(failure);
                    }
                }
            }
            let rest = (!ended).then_some((upload, pieces));
            Ok(Self {
                content_type: sent_type,
                first,
                rest: RefCell::new(rest),
                pump: RefCell::default(),
                idle: limits.idle,
                verdict: Rc::default(),
            })
        })
    }

    /// Its `Content-Type`.
    pub(crate) fn content_type(&self) -> &str {
        &self.content_type
    }

    /// The body of a fetch. The first one gets all of it.
    pub(crate) fn body(&self) -> Option<JsValue> {
        let Some((upload, pieces)) = self.rest.take() else {
            return Some(js_sys::Uint8Array::from(self.first.as_slice()).into());
        };
        let (readable, writer) = pipe(None)?;
        let verdict = Rc::clone(&self.verdict);
        *self.pump.borrow_mut() = Some(Box::pin(pump(upload, pieces, self.idle, self.first.clone(), writer, verdict)));
        Some(readable.into())
    }

    /// Why it broke off, if it was for a fault of the client's.
    pub(crate) fn verdict(&self) -> Option<Failure> {
        self.verdict.failure.borrow().clone()
    }

    /// Whether a limit that runs out now is the client's, who has more to send: then that is why it broke off.
    pub(crate) fn blame_client(&self) -> bool {
        let blamed = self.verdict.is_clients_turn.get();
        if blamed {
            self.verdict.failure.borrow_mut().get_or_insert(Failure::SlowBody);
        }
        blamed
    }

    /// Carries it on, as far as it goes. Ready when it broke off for a fault of the client's.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut pump = self.pump.borrow_mut();
        if pump.as_mut().is_some_and(|pump| pump.as_mut().poll(context).is_ready()) {
            *pump = None;
        }
        if self.verdict.is_reached.get() { Poll::Ready(()) } else { Poll::Pending }
    }
}

async fn pump(
    mut upload: Upload,
    mut pieces: Pieces,
    idle: Millis,
    first: Vec<u8>,
    writer: WritableStreamDefaultWriter,
    verdict: Rc<UploadRefusal>,
) {
    let mut next = Ok(first);
    let mut ended = false;
    loop {
        match next {
            Ok(bytes) => {
                let chunk = js_sys::Uint8Array::from(bytes.as_slice());
                if !bytes.is_empty() && JsFuture::from(writer.write_with_chunk(&chunk)).await.is_err() {
                    return; // the endpoint has stopped reading: its answer says why
                }
            }
            Err(failure) => {
                if failure != Failure::SlowBody {
                    drain(&mut pieces).await;
                }
                // The fetch is aborted then. The pipe isn't: workerd would end the body as if it were whole.
                verdict.failure.replace(Some(failure));
                verdict.is_reached.set(true);
                return;
            }
        }
        if ended {
            let _ = JsFuture::from(writer.close()).await;
            return;
        }
        verdict.is_clients_turn.set(true);
        next = match pieces.next(idle).await {
            Ok(Some(chunk)) => upload.push(&chunk),
            Ok(None) => {
                ended = true;
                upload.finish()
            }
            Err(failure) => Err(failure),
        };
        verdict.is_clients_turn.set(false);
    }
}

/// The two ends of one of the runtime's own pipes; of one for so many bytes, if that is known.
pub(crate) fn pipe(length: Option<usize>) -> Option<(ReadableStream, WritableStreamDefaultWriter)> {
    let name = if length.is_some() { "FixedLengthStream" } else { "IdentityTransformStream" };
    let constructor = js_sys::Reflect::get(&js_sys::global(), &name.into()).ok()?;
    let arguments = js_sys::Array::new();
    if let Some(length) = length {
        arguments.push(&f64::from(u32::try_from(length).ok()?).into());
    }
    let pipe = js_sys::Reflect::construct(constructor.dyn_ref::<js_sys::Function>()?, &arguments).ok()?;
    let pipe: TransformStream = pipe.unchecked_into();
    Some((pipe.readable(), pipe.writable().get_writer().ok()?))
}
