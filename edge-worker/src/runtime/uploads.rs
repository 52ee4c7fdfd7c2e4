//! Sends an upload: a file or a part of a file that is stored at an endpoint. Takes a client's body, returns a body for
//! one fetch. [`Upload`] checks each chunk. Called by `serve` and `proxy`.
//!
//! A small upload is sent as a whole, with its length. A larger upload is written to a pipe of the platform while the
//! endpoint reads. Each write waits for the endpoint, so at most one chunk is held. If a check fails while the upload
//! is sent, or if the client stops sending, `proxy` aborts the fetch. [`OutboundUpload::failure`] then returns the
//! error for the client.

use core::task::{Context, Poll};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bailiwick_rules::rules::{Allowance, Limits};
use bailiwick_rules::time::Millis;
use futures_util::future::LocalBoxFuture;

use crate::decide::batch::BatchInput;
use crate::decide::envelope::Failure;
use crate::decide::inflight::Reservation;
use crate::decide::multipart::upload::{Upload, UploadKind};
use crate::decide::rewrite::form_type;
use crate::platform::{BodyStream, PipeWriter, pipe};
use crate::runtime::exchange::Pieces;
use crate::runtime::incoming::{Deadlines, drain};
use crate::runtime::request::ClientRequest;

/// How many bytes are read before anything is sent. Most uploads are complete by then, so most invalid uploads never
/// reach an endpoint.
const HELD_AT_FIRST: usize = 256 << 10;

/// An upload that may be sent once.
pub(crate) struct OutboundUpload {
    content_type: String,
    first: Vec<u8>,
    rest: RefCell<Option<(Upload, Pieces)>>,
    /// The future that sends the rest, once it has begun.
    pump: RefCell<Option<LocalBoxFuture<'static, ()>>>,
    /// How long the client may pause.
    idle: Millis,
    refusal: Rc<UploadRefusal>,
}

/// Whether an upload was refused, and why.
#[derive(Default)]
struct UploadRefusal {
    /// The error for the client, if the client was at fault.
    failure: RefCell<Option<Failure>>,
    /// Whether the upload waits for the client, and not for the endpoint.
    is_clients_turn: Cell<bool>,
    /// Whether the upload was refused. Then its fetch must be aborted.
    is_reached: Cell<bool>,
}

/// The boundary of the multipart body that is sent. Nobody can guess the boundary: the request's id in it is random,
/// and the client gets the id only with the answer.
pub(crate) fn boundary(request: &ClientRequest) -> String {
    format!("bailiwick-{}", request.id)
}

impl OutboundUpload {
    /// Reads the beginning of an upload. `lines` checks the lines of a batch.
    #[inline(never)]
    pub(crate) fn begin<'a>(
        request: &'a ClientRequest,
        load: UploadKind,
        lines: Option<BatchInput>,
        allow: &'a [Allowance],
        limits: &'a Limits,
        reservation: &'a mut Reservation,
    ) -> LocalBoxFuture<'a, Result<Self, Failure>> {
        Box::pin(async move {
            let boundary = boundary(request);
            let sent_type = form_type(&boundary);
            let upload = Upload::new(load, request.header("content-type").unwrap_or_default(), boundary, allow)?;
            let mut upload = upload.with_lines(lines);
            let mut pieces = request.pieces().ok_or(Failure::MissingBody)?;
            let mut first = Vec::new();
            let patience = Deadlines::of(limits);
            let mut ended = false;
            while !ended && first.len() < HELD_AT_FIRST {
                let more = match pieces.next(patience.left()).await {
                    Ok(Some(chunk)) => reservation.grow(chunk.len() as u64).and_then(|()| upload.push(&chunk)),
                    Ok(None) => {
                        ended = true;
                        upload.finish()
                    }
                    Err(failure) => Err(failure),
                };
                match more {
                    Ok(more) => first.extend(more),
                    // A client that sends too slowly here would also be too slow for draining.
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
                refusal: Rc::default(),
            })
        })
    }

    /// The `Content-Type` to send.
    pub(crate) fn content_type(&self) -> &str {
        &self.content_type
    }

    /// The body for a fetch. If the upload is streamed, only the first call returns the whole upload.
    pub(crate) fn body(&self) -> Option<BodyStream> {
        let Some((upload, pieces)) = self.rest.take() else {
            return Some(BodyStream::whole(&self.first));
        };
        let (stream, writer) = pipe(None)?;
        let refusal = Rc::clone(&self.refusal);
        *self.pump.borrow_mut() = Some(Box::pin(pump(upload, pieces, self.idle, self.first.clone(), writer, refusal)));
        Some(stream)
    }

    /// Why the upload broke off, if the client was at fault.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.refusal.failure.borrow().clone()
    }

    /// Called when a time limit is exceeded. Returns whether the client is to blame, because the upload waits for the
    /// client. If so, the failure becomes [`Failure::SlowBody`].
    pub(crate) fn blame_client(&self) -> bool {
        let blamed = self.refusal.is_clients_turn.get();
        if blamed {
            self.refusal.failure.borrow_mut().get_or_insert(Failure::SlowBody);
        }
        blamed
    }

    /// Continues the upload. Ready if the upload was refused.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut pump = self.pump.borrow_mut();
        if pump.as_mut().is_some_and(|pump| pump.as_mut().poll(context).is_ready()) {
            *pump = None;
        }
        if self.refusal.is_reached.get() { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Sends `first` and then the rest of an upload to `writer`. Stores the reason in `refusal` if a check fails or the
/// client stops sending.
async fn pump(
    mut upload: Upload,
    mut pieces: Pieces,
    idle: Millis,
    first: Vec<u8>,
    writer: PipeWriter,
    refusal: Rc<UploadRefusal>,
) {
    let mut next = Ok(first);
    let mut ended = false;
    loop {
        match next {
            Ok(bytes) => {
                if !bytes.is_empty() && !writer.write(&bytes).await {
                    return; // the endpoint has stopped reading: its answer says why
                }
            }
            Err(failure) => {
                if failure != Failure::SlowBody {
                    drain(&mut pieces).await;
                }
                // `proxy` then aborts the fetch. The pipe isn't aborted: workerd would end the body as if it were
                // complete.
                refusal.failure.replace(Some(failure));
                refusal.is_reached.set(true);
                return;
            }
        }
        if ended {
            return writer.close().await;
        }
        refusal.is_clients_turn.set(true);
        next = match pieces.next(idle).await {
            Ok(Some(chunk)) => upload.push(&chunk),
            Ok(None) => {
                ended = true;
                upload.finish()
            }
            Err(failure) => Err(failure),
        };
        refusal.is_clients_turn.set(false);
    }
}
