//! Reads a request's body. Takes pieces of the body as they arrive; returns the bytes. If the request is refused, reads
//! and discards the rest. Called by `serve` and `uploads`.

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

/// The most bytes of a refused body that are read before the refusal is sent.
const MAX_DRAINED: usize = 64 << 20;
/// A body whose `Content-Length` is at most this is read in one call, in bytes. The runtime enforces the length.
const AT_ONCE: u64 = LARGEST_COPIED as u64;
/// A buffer that is too small is doubled up to this size, in bytes. A larger buffer gets the final size at once. If it
/// were doubled again and again, the freed buffers would fragment the memory.
const MAX_DOUBLED: usize = 1 << 20;
/// How long a client may pause while a refused body is drained.
const SILENCE: Millis = Millis(1_000);
/// How long a refused body is drained at most. Meanwhile the client waits for the refusal.
const LONGEST: Millis = Millis(10_000);

/// Reads a body up to the service's limit. If the `Content-Length` exceeds the limit, nothing is read. `reservation`
/// is resized to the memory that the body needs.
pub(crate) async fn read_body(
    request: &ClientRequest,
    exchange: &mut Exchange,
    limits: &Limits,
    reservation: &mut Reservation,
) -> Result<PooledBuffer, Failure> {
    let limit = limits.body_bytes;
    let announced = request.header("content-length").and_then(|text| text.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(Failure::BodyTooLarge { limit });
    }
    if let Some(length) = announced.filter(|length| *length <= AT_ONCE) {
        // While the body is sent, memory holds it twice: here and in the runtime.
        reservation.grow(2 * length)?;
        return exchange.body(request.body(), limits.idle).await.map(PooledBuffer::from);
    }
    match request.pieces() {
        Some(pieces) => read_pieces(pieces, limits, announced.unwrap_or(limit), reservation).await,
        None => Ok(PooledBuffer::default()),
    }
}

/// Reads a body of at most `largest` bytes piece by piece.
#[inline(never)]
fn read_pieces<'a>(
    mut pieces: Pieces,
    limits: &'a Limits,
    largest: u64,
    reservation: &'a mut Reservation,
) -> LocalBoxFuture<'a, Result<PooledBuffer, Failure>> {
    Box::pin(async move {
        let limit = limits.body_bytes;
        let mut bytes = PooledBuffer::default();
        let patience = Deadlines::of(limits);
        while let Some(piece) = pieces.next(patience.left()).await? {
            let length = bytes.len() + piece.len();
            let fits = length as u64 <= limit;
            let held = if fits {
                make_room(&mut bytes, length, largest, reservation)
            } else {
                Err(Failure::BodyTooLarge { limit })
            };
            if let Err(failure) = held {
                drop(bytes);
                *reservation = Reservation::default();
                drain(&mut pieces).await;
                return Err(failure);
            }
            bytes.extend(&piece);
        }
        if bytes.len() > LARGEST_COPIED && !PooledBuffer::suits(bytes.capacity(), bytes.len()) {
            // The body is much smaller than its buffer, so it moves to a smaller one.
            let capacity = PooledBuffer::size(bytes.len());
            // If no smaller buffer can be allocated, the body stays where it is.
            let _ = resized(&mut bytes, capacity, reservation);
        }
        Ok(bytes)
    })
}

/// Makes the buffer large enough for `length` bytes in all, and reserves its memory.
fn make_room(
    bytes: &mut PooledBuffer,
    length: usize,
    largest: u64,
    reservation: &mut Reservation,
) -> Result<(), Failure> {
    if length <= bytes.capacity() {
        return Ok(());
    }
    let largest = usize::try_from(largest).unwrap_or(length);
    let wanted = capacity_for(length, largest);
    // If the wanted capacity isn't free, a smaller one may suffice: most bodies end long before their limit.
    let enough = [wanted, wanted.min(length.saturating_mul(2)), length];
    let has_room = enough.into_iter().any(|capacity| resized(bytes, PooledBuffer::size(capacity), reservation).is_ok());
    if has_room { Ok(()) } else { Err(Failure::Busy) }
}

/// Moves the bytes to a buffer of `capacity`, and reserves its memory. On failure nothing changes.
fn resized(bytes: &mut PooledBuffer, capacity: usize, reservation: &mut Reservation) -> Result<(), Failure> {
    let before = bytes.capacity() as u64;
    reservation.resize(capacity as u64)?;
    match moved(bytes, capacity) {
        Ok(room) => *bytes = room,
        Err(failure) => {
            reservation.resize(before)?;
            return Err(failure);
        }
    }
    // A buffer from the pool may be larger than was asked for.
    reservation.resize(bytes.capacity() as u64)
}

/// Copies the bytes to a buffer of another capacity.
fn moved(bytes: &PooledBuffer, capacity: usize) -> Result<PooledBuffer, Failure> {
    let mut room = PooledBuffer::of(capacity)?;
    room.extend(bytes);
    Ok(room)
}

/// The capacity for a body that has reached `length` bytes and may reach `largest`. A small buffer is doubled, so that
/// a client can't reserve memory only by announcing a large body. A larger buffer gets the capacity `largest` at once,
/// because the old and the new buffer exist together during a copy.
fn capacity_for(length: usize, largest: usize) -> usize {
    let doubled = length.next_power_of_two().max(2 * LARGEST_COPIED);
    let room = if doubled > MAX_DOUBLED { largest } else { doubled };
    // While a short body is sent, memory holds it twice: here and in the runtime.
    room.min(largest.max(2 * LARGEST_COPIED)).max(length)
}

/// Reads and discards the rest of a body, up to [`MAX_DRAINED`] or [`LONGEST`]. An answer that is sent earlier would
/// be lost: workerd resets the connection if much of the body hasn't arrived. Then the client would see no error
/// message, and would try again. Draining ends if the client pauses for [`SILENCE`], because it has stopped sending.
pub(crate) async fn drain(pieces: &mut Pieces) {
    let mut read = 0;
    let patience = Deadlines { idle: SILENCE, until: clock::now().after(LONGEST) };
    while let Ok(Some(piece)) = pieces.next(patience.left()).await {
        read += piece.len();
        if read > MAX_DRAINED {
            return;
        }
    }
}

/// How long a client may take to send its body: each piece within the idle limit, all pieces within the total limit.
/// Without the total limit, a body that arrives very slowly would hold its buffer for ever.
#[derive(Clone, Copy)]
pub(crate) struct Deadlines {
    idle: Millis,
    until: Timestamp,
}

impl Deadlines {
    /// Deadlines that begin now, from the service's limits.
    pub(crate) fn of(limits: &Limits) -> Self {
        Self { idle: limits.idle, until: clock::now().after(limits.total) }
    }

    /// How long the next piece may take.
    pub(crate) fn left(&self) -> Millis {
        self.idle.min(self.until.since(clock::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_buffer_is_doubled_and_a_large_one_is_allocated_once() {
        assert_eq!(capacity_for(1, 1 << 20), 128 << 10);
        assert_eq!(capacity_for(300 << 10, 1 << 20), 512 << 10);
        assert_eq!(capacity_for((8 << 20) + 1, 25 << 20), 25 << 20);
        // The runtime prevents bodies longer than announced. Such a body must not panic here either.
        assert_eq!(capacity_for(10 << 20, 1), 10 << 20);
        for (length, largest) in [(1, 1), (70_000, 70_000), (9 << 20, 64 << 20), (5 << 20, 6 << 20)] {
            let room = capacity_for(length, largest);
            assert!(room >= length && room <= largest.max(128 << 10), "{length} of {largest}: {room}");
        }
    }

    #[test]
    fn the_reservation_equals_the_allocated_buffer() {
        let (mut bytes, mut reservation) = (PooledBuffer::default(), Reservation::default());
        for _ in 0..90 {
            let length = bytes.len() + 100_000;
            make_room(&mut bytes, length, 9_000_000, &mut reservation).unwrap();
            bytes.extend(&[0; 100_000]);
            assert_eq!(format!("{reservation:?}"), format!("Reservation({})", bytes.capacity()));
        }
        assert_eq!((bytes.len(), bytes.capacity()), (9_000_000, 10 << 20));
        let mut second = Reservation::default();
        second.resize(54 << 20).unwrap();
        assert_eq!(make_room(&mut bytes, (10 << 20) + 1, 64 << 20, &mut reservation), Err(Failure::Busy));
        assert_eq!(
            (bytes.len(), format!("{reservation:?}")),
            (9_000_000, format!("Reservation({})", bytes.capacity()))
        );
    }

    #[test]
    fn if_memory_is_short_the_buffer_has_the_size_of_the_bytes_so_far() {
        let length = (5 << 20) + 1;
        for (others, most) in [(0, 64), (40, 12), (57, 6)] {
            let (mut bytes, mut reservation, mut second) =
                (PooledBuffer::default(), Reservation::default(), Reservation::default());
            second.resize(others << 20).unwrap();
            make_room(&mut bytes, length, 64 << 20, &mut reservation).unwrap();
            let room = bytes.capacity();
            assert!(room >= length && room <= most << 20 && room > most << 19, "{room} beside {others} MiB");
        }
    }
}
