//! Request bodies as they arrive: pieces enter, held bytes leave, or are read and forgotten; `serve` and `uploads` read by it.

use bailiwick_rules::rules::Limits;
use bailiwick_rules::time::{Millis, Timestamp};
use futures_util::future::LocalBoxFuture;

use crate::asked::Asked;
use crate::envelope::Failure;
use crate::feed;
use crate::inflight::Hold;
use crate::wire::{Pieces, Wire};

/// How much of a refused body is read before its refusal is sent, in bytes.
const MOST_DRAINED: usize = 64 << 20;
/// An announced body of at most so many bytes is taken in one turn: the runtime holds it to its length.
const AT_ONCE: u64 = 64 << 10;
/// How long a client may pause in a body that is refused anyway.
const SILENCE: Millis = Millis(1_000);
/// How long such a body is read at all: its client waits for the refusal.
const LONGEST: Millis = Millis(10_000);

/// Reads a body up to the service's limit: what is announced too large isn't held at all.
pub(crate) async fn read_body(
    asked: &Asked,
    wire: &mut Wire,
    limits: &Limits,
    hold: &mut Hold,
) -> Result<Vec<u8>, Failure> {
    let limit = limits.body_bytes;
    let announced = asked.header("content-length").and_then(|text| text.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(Failure::BodyTooLarge { limit });
    }
    if let Some(length) = announced.filter(|length| *length <= AT_ONCE) {
        hold.grow(length)?;
        return wire.body(asked.raw(), limits.idle).await;
    }
    match asked.pieces() {
        Some(pieces) => read_pieces(pieces, limits, hold).await,
        None => Ok(Vec::new()),
    }
}

/// Reads a body piece by piece.
#[inline(never)]
fn read_pieces<'a>(
    mut pieces: Pieces,
    limits: &'a Limits,
    hold: &'a mut Hold,
) -> LocalBoxFuture<'a, Result<Vec<u8>, Failure>> {
    Box::pin(async move {
        let limit = limits.body_bytes;
        let mut bytes = Vec::new();
        let patience = Patience::of(limits);
        while let Some(piece) = pieces.next(patience.left()).await? {
            let fits = (bytes.len() + piece.len()) as u64 <= limit;
            let held = if fits { hold.grow(piece.len() as u64) } else { Err(Failure::BodyTooLarge { limit }) };
            if let Err(failure) = held {
                drop(bytes);
                *hold = Hold::default();
                drain(&mut pieces).await;
                return Err(failure);
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    })
}

/// Reads on and forgets, up to [`MOST_DRAINED`] or [`LONGEST`]. An answer sent before would be lost: workerd resets a connection on which much is
/// still to come, and its client sees no reason, and tries again. One that has
/// fallen silent is no longer sending, and is not waited for.
pub(crate) async fn drain(pieces: &mut Pieces) {
    let mut read = 0;
    let patience = Patience { idle: SILENCE, until: feed::now().after(LONGEST) };
    while let Ok(Some(piece)) = pieces.next(patience.left()).await {
        read += piece.len();
        if read > MOST_DRAINED {
            return;
        }
    }
}

/// How long a client may take: for each piece the idle limit, for all of them the total. Else a body that comes in drips would hold
/// its room for ever.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    idle: Millis,
    until: Timestamp,
}

impl Patience {
    /// From now on.
    pub(crate) fn of(limits: &Limits) -> Self {
        Self { idle: limits.idle, until: feed::now().after(limits.total) }
    }

    /// What is left of it for the next piece.
    pub(crate) fn left(&self) -> Millis {
        self.idle.min(self.until.since(feed::now()))
    }
}
