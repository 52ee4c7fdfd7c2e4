//! A pool of buffers for large bodies. Takes a size, returns a buffer of at least that size. `incoming` takes a buffer
//! and fills it. The buffer returns to the pool when its owner drops it.
//!
//! The pool prevents fragmentation. A large buffer that is freed leaves a hole in memory. A small allocation in that
//! hole makes the hole too small for the next large body, and in the end no hole is large enough for a large body. So
//! large buffers are kept and used again. All large buffers together, in use or kept, take at most [`MAX_OF_LARGE`].

use core::cell::{Cell, RefCell};
use core::ops::Deref;

use crate::decide::envelope::Failure;
use crate::decide::inflight::{LARGE, MAX_OF_LARGE};

/// The size of a large buffer is a multiple of this fraction (an eighth) of the next power of two, so that one buffer
/// fits bodies of similar sizes.
const STEPS: usize = 8;

thread_local! {
    /// Large buffers that aren't in use.
    static UNUSED: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    /// The capacity of all large buffers in use, in bytes.
    static IN_USE: Cell<usize> = const { Cell::new(0) };
}

/// A body's bytes. A large buffer returns to the pool on drop.
#[derive(Debug, Default)]
pub(crate) struct PooledBuffer(Vec<u8>);

impl PooledBuffer {
    /// Returns an empty buffer with a capacity of at least `bytes`.
    ///
    /// # Errors
    /// 503 when there is no memory for it now.
    pub(crate) fn of(bytes: usize) -> Result<Self, Failure> {
        let mut room = if is_large(bytes) { take_unused(bytes) } else { Vec::new() };
        if room.capacity() < bytes && room.try_reserve_exact(bytes).is_err() {
            // Freeing the unused buffers may make enough room.
            UNUSED.with_borrow_mut(Vec::clear);
            // Memory may be free again later, so only this request fails.
            room.try_reserve_exact(bytes).map_err(|_| Failure::Busy)?;
        }
        Ok(Self::from(room))
    }

    /// The capacity in bytes that a buffer for `bytes` gets. The capacity of a large buffer is rounded up.
    pub(crate) fn size(bytes: usize) -> usize {
        if is_large(bytes) { bytes.next_multiple_of(bytes.next_power_of_two() / STEPS) } else { bytes }
    }

    /// Whether a buffer of this capacity has room for `bytes`, and isn't much larger than needed.
    pub(crate) fn suits(capacity: usize, bytes: usize) -> bool {
        (bytes..=Self::size(bytes).saturating_add(bytes / 2)).contains(&capacity)
    }

    /// How many bytes the buffer can hold.
    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Appends bytes. The caller has made sure that the capacity suffices.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

impl From<Vec<u8>> for PooledBuffer {
    fn from(bytes: Vec<u8>) -> Self {
        if is_large(bytes.capacity()) {
            IN_USE.set(IN_USE.get() + bytes.capacity());
        }
        Self(bytes)
    }
}

impl Clone for PooledBuffer {
    fn clone(&self) -> Self {
        Self::from(self.0.clone())
    }
}

impl Deref for PooledBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        let capacity = self.0.capacity();
        if !is_large(capacity) {
            return;
        }
        IN_USE.set(IN_USE.get().saturating_sub(capacity));
        let mut room = core::mem::take(&mut self.0);
        room.clear();
        UNUSED.with_borrow_mut(|unused| {
            unused.push(room);
            shrink(unused, 0);
        });
    }
}

/// Whether a buffer of this size is kept in the pool.
fn is_large(bytes: usize) -> bool {
    bytes as u64 > LARGE
}

/// Takes the smallest kept buffer that suits `bytes`. If no kept buffer suits them, frees kept buffers until `bytes`
/// more fit within the limit, and returns a `Vec` without capacity.
fn take_unused(bytes: usize) -> Vec<u8> {
    UNUSED.with_borrow_mut(|unused| {
        let suits = |at: &usize| PooledBuffer::suits(unused[*at].capacity(), bytes);
        let smallest = (0..unused.len()).filter(suits).min_by_key(|&at| unused[at].capacity());
        if let Some(at) = smallest {
            return unused.swap_remove(at);
        }
        shrink(unused, bytes);
        Vec::new()
    })
}

/// Frees kept buffers, the smallest first, until `bytes` more fit within [`MAX_OF_LARGE`].
fn shrink(unused: &mut Vec<Vec<u8>>, bytes: usize) {
    let most = usize::try_from(MAX_OF_LARGE).unwrap_or(usize::MAX).saturating_sub(bytes).saturating_sub(IN_USE.get());
    unused.sort_by_key(|room| core::cmp::Reverse(room.capacity()));
    while unused.iter().map(Vec::capacity).sum::<usize>() > most {
        unused.pop();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;

    fn unused_bytes() -> usize {
        UNUSED.with_borrow(|unused| unused.iter().map(Vec::capacity).sum())
    }

    #[test]
    fn a_large_room_is_used_again() {
        let size = PooledBuffer::size(20_000_000);
        let first = PooledBuffer::of(size).unwrap();
        let place = first.0.as_ptr();
        drop(first);
        assert_eq!(unused_bytes(), size);
        let mut second = PooledBuffer::of(PooledBuffer::size(15_000_000)).unwrap();
        assert_eq!((second.0.as_ptr(), second.len(), unused_bytes()), (place, 0, 0));
        second.extend(b"x");
        let small = PooledBuffer::of(1_000).unwrap();
        drop((second, small));
        assert_eq!((unused_bytes(), IN_USE.get()), (size, 0), "small buffers aren't kept");
    }

    #[test]
    fn what_is_kept_and_used_stays_below_the_most_whatever_comes() {
        let most = usize::try_from(MAX_OF_LARGE).unwrap();
        let step = (0..4usize, any::<bool>(), 1..(40usize << 20));
        TestRunner::new(ProptestConfig::with_cases(200))
            .run(&proptest::collection::vec(step, 0..40), |steps| {
                let mut rooms: Vec<Option<PooledBuffer>> = (0..4).map(|_| None).collect();
                for (which, ends, bytes) in steps {
                    rooms[which] = None;
                    let size = PooledBuffer::size(bytes);
                    // A `Reservation` allows a new buffer only if all buffers in use stay within the limit.
                    let held: usize = rooms.iter().flatten().map(PooledBuffer::capacity).sum();
                    if !ends && held + size <= most {
                        let room = PooledBuffer::of(size).unwrap();
                        prop_assert!(room.is_empty() && room.capacity() >= bytes);
                        rooms[which] = Some(room);
                    }
                    prop_assert!(unused_bytes() + IN_USE.get() <= most, "{} and {}", unused_bytes(), IN_USE.get());
                }
                drop(rooms);
                prop_assert_eq!(IN_USE.get(), 0);
                Ok(())
            })
            .unwrap();
    }
}
