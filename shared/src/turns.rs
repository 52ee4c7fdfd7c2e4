//! Cuts long work into turns, so that a program with one thread can do other work between two turns. Takes the work as
//! a future, and a way to pause it. Called by [`crate::json`], [`crate::rules`] and [`crate::table`],
//! which read and compile large documents in turns.
//!
//! The clock of a Worker stands still while the Worker computes. So a turn ends after an amount of work, not after a
//! time.

use core::future::Future;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};

/// The work of one turn, in units. A unit is about the work of reading one byte of a document. A turn takes about 0.2
/// ms as Wasm on a server's core. A request that arrives meanwhile needs several turns of the runtime, and waits for a
/// turn of the work each time.
const TURN: usize = 8 << 10;

/// Makes a future that is ready when the work may go on.
pub type Pause = dyn Fn() -> Pin<Box<dyn Future<Output = ()>>>;

/// Counts the work of the present turn, and pauses after it.
pub struct Turns<'p> {
    pause: Option<&'p Pause>,
    left: usize,
}

impl<'p> Turns<'p> {
    /// Work that pauses after every turn.
    #[must_use]
    pub fn new(pause: &'p Pause) -> Self {
        Self { pause: Some(pause), left: TURN }
    }

    /// Work that never pauses: see [`at_once`].
    #[must_use]
    pub fn unbroken() -> Self {
        Self { pause: None, left: TURN }
    }

    /// Must be called before a piece of work of this many units. Pauses if the present turn has no room for it.
    pub(crate) async fn spend(&mut self, units: usize) {
        if let Some(left) = self.left.checked_sub(units) {
            self.left = left;
            return;
        }
        self.left = TURN.saturating_sub(units);
        if let Some(pause) = self.pause {
            pause().await;
        }
    }
}

/// The result of work that never pauses, such as with [`Turns::unbroken`].
///
/// # Panics
/// If the work pauses after all.
pub fn at_once<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("work that never pauses has paused"),
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_turn_ends_when_its_work_is_done() {
        let pauses = Rc::new(Cell::new(0));
        let counted = Rc::clone(&pauses);
        let pause = move || {
            counted.set(counted.get() + 1);
            Box::pin(core::future::ready(())) as Pin<Box<dyn Future<Output = ()>>>
        };
        let mut turns = Turns::new(&pause);
        let mut after = |units| {
            at_once(turns.spend(units));
            pauses.get()
        };
        assert_eq!([after(TURN / 2), after(TURN / 2), after(1)], [0, 0, 1]);
        assert_eq!(after(3 * TURN), 2, "a large piece has a turn of its own");
        assert_eq!([after(0), after(1)], [2, 3], "the large piece leaves nothing of its turn");
    }

    #[test]
    fn unbroken_work_never_pauses() {
        at_once(async {
            let mut turns = Turns::unbroken();
            for _ in 0..100 {
                turns.spend(TURN).await;
            }
        });
    }
}
