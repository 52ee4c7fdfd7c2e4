//! Bodies that are written while an endpoint reads them. Makes a pipe: what is written to one end is the body of a
//! request at the other. Called by `runtime`.

use core::pin::Pin;
use core::task::{Context, Poll};
use std::io;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use super::http::{OutgoingBody, whole};

/// The body of a request to an endpoint.
pub(crate) struct BodyStream(pub(super) OutgoingBody);

impl BodyStream {
    /// A body that is complete.
    pub(crate) fn whole(bytes: &[u8]) -> Self {
        Self(whole(Bytes::copy_from_slice(bytes)))
    }
}

/// What goes through a pipe.
enum Piece {
    Chunk(Bytes),
    End,
}

/// The end of a pipe that is written to.
pub(crate) struct PipeWriter(mpsc::Sender<Piece>);

impl PipeWriter {
    /// Writes a chunk, and waits until there is room for the next one. False if the endpoint has stopped reading.
    pub(crate) async fn write(&self, chunk: &[u8]) -> bool {
        self.0.send(Piece::Chunk(Bytes::copy_from_slice(chunk))).await.is_ok()
    }

    /// Ends the body, which is complete. A writer that is dropped instead breaks the body off.
    pub(crate) async fn close(self) {
        let _ = self.0.send(Piece::End).await;
    }
}

/// Makes a pipe, and returns its two ends. `length` is the number of bytes, if known.
pub(crate) fn pipe(length: Option<usize>) -> Option<(BodyStream, PipeWriter)> {
    let (writer, pieces) = mpsc::channel(1);
    let reader = Reader { pieces, length, is_ended: false };
    Some((BodyStream(reader.boxed_unsync()), PipeWriter(writer)))
}

/// The end of a pipe that is read.
struct Reader {
    pieces: mpsc::Receiver<Piece>,
    length: Option<usize>,
    is_ended: bool,
}

impl Body for Reader {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.is_ended {
            return Poll::Ready(None);
        }
        let piece = core::task::ready!(self.pieces.poll_recv(context));
        Poll::Ready(match piece {
            Some(Piece::Chunk(bytes)) => Some(Ok(Frame::data(bytes))),
            Some(Piece::End) => {
                self.is_ended = true;
                None
            }
            None => Some(Err(io::Error::other("the body broke off"))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, |length| SizeHint::with_exact(length as u64))
    }
}
