//! Limits the bytes of bodies that an isolate holds at once. Takes the size of a body; returns a [`Reservation`], or
//! refuses the body. Called by `incoming`, `uploads` and all other code that holds bodies. An isolate is one instance
//! of the Worker; the platform runs several, which share no memory.
//!
//! An isolate has 128 MB for all of its requests. If the isolate uses more, all of its requests end. Allocated bytes
//! are counted, not received bytes. The Wasm's memory is limited to 96 MiB (build.rs), so that it leaves the rest to
//! the runtime.

use core::cell::Cell;

use crate::decide::envelope::Failure;

/// The most bytes of bodies that are held at once.
pub(crate) const MAX: u64 = 72 << 20;
/// The most of these bytes that large bodies may take, all together, so that there is room for requests of a usual
/// size.
pub(crate) const MAX_OF_LARGE: u64 = 64 << 20;
/// A body is large if it has more bytes than this.
pub(crate) const LARGE: u64 = 1 << 20;

thread_local! {
    static HELD: Cell<u64> = const { Cell::new(0) };
}

/// How many bytes are held now.
#[must_use]
pub(crate) fn held() -> u64 {
    HELD.get()
}

/// Bytes that are reserved until this value is dropped.
#[derive(Debug, Default)]
pub(crate) struct Reservation(u64);

impl Reservation {
    /// Reserves more bytes.
    ///
    /// # Errors
    /// 503 if the bytes don't fit.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), Failure> {
        self.resize(self.0.saturating_add(bytes))
    }

    /// Changes the number of reserved bytes.
    ///
    /// # Errors
    /// 503 if the new number of bytes doesn't fit. Then the reservation stays as it was.
    pub(crate) fn resize(&mut self, bytes: u64) -> Result<(), Failure> {
        let held = HELD.get().saturating_sub(self.0).saturating_add(bytes);
        let most = if bytes > LARGE { MAX_OF_LARGE } else { MAX };
        if bytes > self.0 && held > most {
            return Err(Failure::Busy);
        }
        HELD.set(held);
        self.0 = bytes;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        HELD.set(HELD.get().saturating_sub(self.0));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_given_back() {
        let (mut a, mut b, mut c) = (Reservation::default(), Reservation::default(), Reservation::default());
        assert_eq!(a.grow(MAX_OF_LARGE - 1), Ok(()));
        assert_eq!((a.grow(1), a.grow(1)), (Ok(()), Err(Failure::Busy)));
        assert_eq!(b.grow(LARGE + 1), Err(Failure::Busy), "a second large body doesn't fit");
        assert_eq!(b.grow(LARGE), Ok(()), "a body of usual size fits");
        assert_eq!(c.resize(LARGE), Ok(()));
        assert_eq!((c.resize(1), c.0), (Ok(()), 1));
        drop(a);
        assert_eq!(b.grow(MAX_OF_LARGE - LARGE - 1), Ok(()));
        drop((b, c));
        assert_eq!(HELD.get(), 0);
    }

    #[test]
    fn whatever_sizes_come_together_the_held_bytes_stay_below_the_limit() {
        let step = (0..6usize, any::<bool>(), prop_oneof![0..(2 * LARGE), 0..(2 * MAX)]);
        TestRunner::new(ProptestConfig::with_cases(500))
            .run(&proptest::collection::vec(step, 0..60), |steps| {
                let mut reservations: Vec<Reservation> = (0..6).map(|_| Reservation::default()).collect();
                for (which, ends, bytes) in steps {
                    if ends {
                        reservations[which] = Reservation::default();
                    } else {
                        let before = reservations[which].0;
                        let went = reservations[which].resize(bytes);
                        prop_assert_eq!(reservations[which].0, if went.is_ok() { bytes } else { before });
                    }
                    let held: u64 = reservations.iter().map(|reservation| reservation.0).sum();
                    let large: u64 =
                        reservations.iter().map(|reservation| reservation.0).filter(|bytes| *bytes > LARGE).sum();
                    prop_assert!(held == HELD.get() && held <= MAX && large <= MAX_OF_LARGE);
                }
                drop(reservations);
                prop_assert_eq!(HELD.get(), 0);
                Ok(())
            })
            .unwrap();
    }
}
