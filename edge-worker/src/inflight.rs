//! How many bytes of bodies an isolate holds at once: a request's bytes in, a [`Hold`] on them or a refusal out.
//!
//! An isolate has 128 MB for all of its requests, and ends with all of them when they are used up.

use core::cell::Cell;

use crate::envelope::Failure;

/// The most bytes of bodies held at once.
pub const MOST: u64 = 32 << 20;

thread_local! {
    static HELD: Cell<u64> = const { Cell::new(0) };
}

/// Bytes that are held, until it is dropped.
#[derive(Debug, Default)]
pub struct Hold(u64);

impl Hold {
    /// Holds more.
    ///
    /// # Errors
    /// 503 when they don't fit.
    pub fn grow(&mut self, bytes: u64) -> Result<(), Failure> {
        let held = HELD.get().saturating_add(bytes);
        if held > MOST {
            return Err(Failure::Busy);
        }
        HELD.set(held);
        self.0 = self.0.saturating_add(bytes);
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        HELD.set(HELD.get().saturating_sub(self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_given_back() {
        let (mut a, mut b) = (Hold::default(), Hold::default());
        assert_eq!(a.grow(MOST - 1), Ok(()));
        assert_eq!((b.grow(1), b.grow(1)), (Ok(()), Err(Failure::Busy)));
        drop(a);
        assert_eq!(b.grow(MOST - 1), Ok(()));
        drop(b);
        assert_eq!(HELD.get(), 0);
    }
}
