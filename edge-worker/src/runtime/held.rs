//! Sends a large body, which the edge holds in memory, to one endpoint. Takes the body, and writes it to a pipe chunk
//! by chunk as the endpoint reads. Called by `proxy`, which polls the write beside its other work.
//!
//! The Workers runtime copies the bytes that it gets. A large body is therefore passed in chunks, so that memory holds
//! the body only once, however many endpoints are tried.

use core::task::Context;
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;

use crate::decide::envelope::Failure;
use crate::decide::inflight::Reservation;
use crate::decide::plan::Target;
use crate::decide::rewrite::Content;
use crate::platform::{BodyStream, PipeWriter, pipe};

/// How many bytes are copied at a time.
const CHUNK: usize = 128 << 10;

/// A body that is being written.
#[derive(Default)]
pub(crate) struct Writing(Option<LocalBoxFuture<'static, ()>>);

impl Writing {
    /// Begins to write the body to an endpoint. Also returns the stream to use as the body of the fetch. `length` is
    /// the number of bytes that the stream announces.
    pub(crate) fn begin(
        content: &Rc<Content>,
        reservation: Option<&Rc<Reservation>>,
        target: &Target,
        length: usize,
    ) -> Result<(Self, BodyStream), Failure> {
        let (stream, writer) = pipe(Some(length)).ok_or(Failure::Internal)?;
        // The reservation lasts as long as the body is read, even if an answer comes earlier.
        let (content, reservation) = (Rc::clone(content), reservation.cloned());
        let writing = write(content, reservation, target.clone(), writer);
        Ok((Self(Some(Box::pin(writing))), stream))
    }

    /// Whether the body is still being written.
    pub(crate) fn is_under_way(&self) -> bool {
        self.0.is_some()
    }

    /// Continues to write, as far as the endpoint reads.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) {
        if self.0.as_mut().is_some_and(|writing| writing.as_mut().poll(context).is_ready()) {
            self.0 = None;
        }
    }
}

/// Writes the request's body for an endpoint, chunk by chunk.
async fn write(content: Rc<Content>, _hold: Option<Rc<Reservation>>, target: Target, writer: PipeWriter) {
    let payload = content.for_target(&target);
    for chunk in payload.chunks(CHUNK) {
        if !writer.write(chunk).await {
            return; // the endpoint has stopped reading: its answer says why
        }
    }
    writer.close().await;
}
