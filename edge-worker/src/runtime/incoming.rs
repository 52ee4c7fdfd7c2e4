//! Request bodies as they arrive: pieces enter, held bytes leave, or are read and forgotten; `serve` and `uploads` read by it.

use bailiwick_rules::rules::Limits;
use bailiwick_rules::time::{Millis, Timestamp};
use futures_util::future::LocalBoxFuture;

use crate::decide::buffer_pool::PooledBuffer;
use crate::decide::envelope::Failure;
use crate::decide::inflight::Reservation;
use crate::decide::payload::LARGEST_COPIED;
use crate::runtime::clock;
use crate::runtime::exchange::{Exchange, Pieces};
use crate::runtime::request::ClientRequest;

/// How much of a refused body is read before its refusal is sent, in bytes.
const MOST_DRAINED: usize = 64 << 20;
/// An announced body of at most so many bytes is taken in one turn: the runtime holds it to its length.
const AT_ONCE: u64 = LARGEST_COPIED as u64;
/// A room is made twice as large up to so many bytes. Rooms of more that come and go would leave holes that no large one fits.
const MOST_DOUBLED: usize = 1 << 20;
/// How long a client may pause in a body that is refused anyway.
const SILENCE: Millis = Millis(1_000);
/// How long such a body is read at all: its client waits for the refusal.
const LONGEST: Millis = Millis(10_000);

/// Reads a body up to the service's limit: what is announced too large isn't held at all.
pub(crate) async fn read_body(
    asked: &ClientRequest,
    exchange: &mut Exchange,
    limits: &Limits,
    hold: &mut Reservation,
) -> Result<PooledBuffer, Failure> {
    let limit = limits.body_bytes;
    let announced = asked.header("content-length").and_then(|text| text.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(Failure::BodyTooLarge { limit });
    }
    if let Some(length) = announced.filter(|length| *length <= AT_ONCE) {
        // Once here, and once with the runtime when it is sent.
        hold.grow(2 * length)?;
        return exchange.body(asked.raw(), limits.idle).await.map(PooledBuffer::from);
    }
    match asked.pieces() {
        Some(pieces) => read_pieces(pieces, limits, announced.unwrap_or(limit), hold).await,
        None => Ok(PooledBuffer::default()),
    }
}

/// Reads a body of at most `largest` bytes piece by piece.
#[inline(never)]
fn read_pieces<'a>(
    mut pieces: Pieces,
    limits: &'a Limits,
    largest: u64,
    hold: &'a mut Reservation,
) -> LocalBoxFuture<'a, Result<PooledBuffer, Failure>> {
    Box::pin(async move {
        let limit = limits.body_bytes;
        let mut bytes = PooledBuffer::default();
        let patience = Deadlines::of(limits);
        while let Some(piece) = pieces.next(patience.left()).await? {
            let length = bytes.len() + piece.len();
            let fits = length as u64 <= limit;
            let held =
                if fits { make_room(&mut bytes, length, largest, hold) } else { Err(Failure::BodyTooLarge { limit }) };
            if let Err(failure) = held {
                drop(bytes);
                *hold = Reservation::default();
                drain(&mut pieces).await;
                return Err(failure);
            }
            bytes.extend(&piece);
        }
        if bytes.len() > LARGEST_COPIED && !PooledBuffer::suits(bytes.capacity(), bytes.len()) {
            // It came to much less than it might have.
            let capacity = PooledBuffer::size(bytes.len());
            // Where there is none, it stays where it is.
            let _ = resized(&mut bytes, capacity, hold);
        }
        Ok(bytes)
    })
}

/// Makes room for `length` bytes in all, and holds what that takes.
fn make_room(bytes: &mut PooledBuffer, length: usize, largest: u64, hold: &mut Reservation) -> Result<(), Failure> {
    if length <= bytes.capacity() {
        return Ok(());
    }
    let largest = usize::try_from(largest).unwrap_or(length);
    let wanted = capacity_for(length, largest);
    // Where there is no room for all that may come, one for what has come may do: most bodies end long before.
    let enough = [wanted, wanted.min(length.saturating_mul(2)), length];
    let made = enough.into_iter().any(|capacity| resized(bytes, PooledBuffer::size(capacity), hold).is_ok());
    if made { Ok(()) } else { Err(Failure::Busy) }
}

/// Moves what has come to a room of `capacity`, and holds what that takes; else all is as it was.
fn resized(bytes: &mut PooledBuffer, capacity: usize, hold: &mut Reservation) -> Result<(), Failure> {
    let before = bytes.capacity() as u64;
    hold.resize(capacity as u64)?;
    match moved(bytes, capacity) {
        Ok(room) => *bytes = room,
        Err(failure) => {
            hold.resize(before)?;
            return Err(failure);
        }
    }
    // One that was kept may be larger than what was asked for.
    hold.resize(bytes.capacity() as u64)
}

/// The same bytes in a room of another size.
fn moved(bytes: &PooledBuffer, capacity: usize) -> Result<PooledBuffer, Failure> {
    let mut room = PooledBuffer::of(capacity)?;
    room.extend(bytes);
    Ok(room)
}

/// How much room a body gets that has come to `length` bytes, and may come to `largest`. It is doubled while it is
/// short, so that nobody holds more by announcing it; then it is made once for all, as both rooms exist while one is
/// copied to the other.
fn capacity_for(length: usize, largest: usize) -> usize {
    let doubled = length.next_power_of_two().max(2 * LARGEST_COPIED);
    let room = if doubled > MOST_DOUBLED { largest } else { doubled };
    // Once here, and once with the runtime when a short one is sent.
    room.min(largest.max(2 * LARGEST_COPIED)).max(length)
}

/// Reads on and forgets, up to [`MOST_DRAINED`] or [`LONGEST`]. An answer sent before would be lost: workerd resets a connection on which much is
/// still to come, and its client sees no reason, and tries again. One that has
/// fallen silent is no longer sending, and is not waited for.
pub(crate) async fn drain(pieces: &mut Pieces) {
    let mut read = 0;
    let patience = Deadlines { idle: SILENCE, until: clock::now().after(LONGEST) };
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
pub(crate) struct Deadlines {
    idle: Millis,
    until: Timestamp,
}

impl Deadlines {
    /// From now on.
    pub(crate) fn of(limits: &Limits) -> Self {
        Self { idle: limits.idle, until: clock::now().after(limits.total) }
    }

    /// What is left of it for the next piece.
    pub(crate) fn left(&self) -> Millis {
        self.idle.min(self.until.since(clock::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_doubled_while_it_is_short_and_then_made_once() {
        assert_eq!(capacity_for(1, 1 << 20), 128 << 10);
        assert_eq!(capacity_for(300 << 10, 1 << 20), 512 << 10);
        assert_eq!(capacity_for((8 << 20) + 1, 25 << 20), 25 << 20);
        // What was announced may be less than what comes: the runtime would have told, and it is no reason to panic.
        assert_eq!(capacity_for(10 << 20, 1), 10 << 20);
        for (length, largest) in [(1, 1), (70_000, 70_000), (9 << 20, 64 << 20), (5 << 20, 6 << 20)] {
            let room = capacity_for(length, largest);
            assert!(room >= length && room <= largest.max(128 << 10), "{length} of {largest}: {room}");
        }
    }

    #[test]
    fn what_is_held_is_what_is_allocated() {
        let (mut bytes, mut hold) = (PooledBuffer::default(), Reservation::default());
        for _ in 0..90 {
            let length = bytes.len() + 100_000;
            make_room(&mut bytes, length, 9_000_000, &mut hold).unwrap();
            bytes.extend(&[0; 100_000]);
            assert_eq!(format!("{hold:?}"), format!("Reservation({})", bytes.capacity()));
        }
        assert_eq!((bytes.len(), bytes.capacity()), (9_000_000, 10 << 20));
        let mut second = Reservation::default();
        second.resize(54 << 20).unwrap();
        assert_eq!(make_room(&mut bytes, (10 << 20) + 1, 64 << 20, &mut hold), Err(Failure::Busy));
        assert_eq!((bytes.len(), format!("{hold:?}")), (9_000_000, format!("Reservation({})", bytes.capacity())));
    }

    #[test]
    fn where_all_that_may_come_finds_no_room_what_has_come_does() {
        let length = (5 << 20) + 1;
        for (others, most) in [(0, 64), (40, 12), (57, 6)] {
            let (mut bytes, mut hold, mut second) =
                (PooledBuffer::default(), Reservation::default(), Reservation::default());
            second.resize(others << 20).unwrap();
            make_room(&mut bytes, length, 64 << 20, &mut hold).unwrap();
            let room = bytes.capacity();
            assert!(room >= length && room <= most << 20 && room > most << 19, "{room} beside {others} MiB");
        }
    }
}
