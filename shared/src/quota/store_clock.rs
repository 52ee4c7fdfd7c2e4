//! The clock of a fleet's store, as one node knows it. Takes the times at which the store noted changes, returns the
//! earliest time that the store's clock can show now. Called by a node before it changes the [`Stamps`](super::Stamps)
//! of a pool.
//!
//! The node's clock only measures the time since a change was seen, so its offset from the store's doesn't matter.
//! An estimate that is too early is safe: fewer units have come back by then.

use crate::time::Timestamp;

/// The newest time of the store that a node knows.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreClock {
    /// A time that the store noted, and the node's time when it saw that change.
    last_change: Option<(Timestamp, Timestamp)>,
}

impl StoreClock {
    /// The earliest time that the store's clock can show; `None` if nothing was seen yet. `now` is the node's time.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> Option<Timestamp> {
        self.last_change.map(|(noted, seen_at)| noted.after(now.since(seen_at)))
    }

    /// The node sees a change that the store noted at this time. `now` and `after` are the node's times: the change was
    /// made after `after`, if the node knows such a time.
    ///
    /// ```
    /// use bailiwick_rules::{quota::StoreClock, time::Timestamp};
    ///
    /// let mut clock = StoreClock::default();
    /// clock.saw(Timestamp(30_000), None, Timestamp(1_000));
    /// assert_eq!(clock.at(Timestamp(1_500)), Some(Timestamp(30_500)));
    /// clock.saw(Timestamp(29_000), None, Timestamp(1_600));
    /// assert_eq!(clock.at(Timestamp(1_600)), Some(Timestamp(30_600)), "an old change tells nothing new");
    /// clock.saw(Timestamp(29_000), Some(Timestamp(1_500)), Timestamp(1_600));
    /// assert_eq!(clock.at(Timestamp(1_700)), Some(Timestamp(29_100)), "the store's clock was set back");
    /// ```
    pub fn saw(&mut self, noted: Timestamp, after: Option<Timestamp>, now: Timestamp) {
        let known = self.at(now);
        let is_later = known.is_none_or(|known| known < noted);
        // The change was made after `after`, so the store's clock can't show more than this.
        let latest = after.map(|after| noted.after(now.since(after)));
        let is_set_back = known.zip(latest).is_some_and(|(known, latest)| known > latest);
        if is_later || is_set_back {
            self.last_change = Some((noted, now));
        }
    }
}
