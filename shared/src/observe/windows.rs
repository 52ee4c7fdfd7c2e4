//! What was counted in each interval, for the aggregate. Takes the counts that [`super::Sums`] adds, by the time of
//! their batch; returns the intervals that are over. Without `aggregate` in the rules nothing is kept here.
//!
//! An interval begins at a multiple of its length since 1970. A batch belongs to the interval of its own time, or to
//! none if that is closed. So it is in the same interval at all nodes, each of which gets every batch. If some nodes
//! have closed its interval and others haven't, it is told by those others or not at all, never twice.
//!
//! A group that is told by name must be whole. So if there are too many cells, none is left out: all of an interval
//! lose one of their names.

mod cell;

use std::collections::BTreeMap;

use super::{Counts, Key};
use crate::time::{Millis, Timestamp};
use cell::NAMES;

pub use cell::{BUCKETS, Cell, CellKey, EXPONENTS, OUTCOMES, sum};

/// How long batches of an interval are awaited after its end. Workers post a batch when they make it.
pub const GRACE: Millis = Millis(10_000);
/// The most cells of all intervals that aren't taken yet. A cell has about 700 bytes.
pub const MAX_CELLS: usize = 8_192;
/// The most intervals that aren't taken yet: what a node that can't ask the others keeps.
const MAX_OPEN: usize = 16;

/// An interval that is over.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Window {
    /// Its number: intervals since 1970.
    pub number: i64,
    /// Its length.
    pub every: Millis,
    /// Whether this node gathered from its begin to its end, and missed no batch as far as it knows.
    pub is_whole: bool,
    /// What was counted.
    pub cells: BTreeMap<CellKey, Cell>,
    /// What no interval has, since the interval before was taken.
    pub lost: LostCounts,
    /// How many names, from the last one on, are [`OTHER`] in all cells.
    pub(crate) folded: usize,
}

/// Requests that no interval has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LostCounts {
    /// Those of a batch whose interval was closed when it came, or begins more than one interval later.
    pub late: u64,
    /// Those of intervals that were thrown away, as nobody took them, the clock jumped, or the rules changed `every`.
    pub uncounted: u64,
}

impl LostCounts {
    fn add(&mut self, other: Self) {
        self.late = self.late.saturating_add(other.late);
        self.uncounted = self.uncounted.saturating_add(other.uncounted);
    }
}

impl Window {
    /// When the interval begins.
    #[must_use]
    pub fn begin(&self) -> Timestamp {
        Timestamp(self.number.saturating_mul(millis(self.every)))
    }

    /// When the interval ends.
    #[must_use]
    pub fn end(&self) -> Timestamp {
        Timestamp(self.number.saturating_add(1).saturating_mul(millis(self.every)))
    }

    /// How many requests were counted in it.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.cells.values().fold(0, |sum, cell| sum.saturating_add(cell.count()))
    }

    /// Adds up the cells that are the same without one more name.
    fn fold(&mut self) {
        self.folded += 1;
        for (key, cell) in core::mem::take(&mut self.cells) {
            self.cells.entry(key.folded(self.folded)).or_default().add(&cell);
        }
    }
}

/// The intervals that aren't taken yet.
#[derive(Clone, Debug)]
pub(super) struct Windows {
    every: Millis,
    /// When gathering began.
    since: Timestamp,
    /// The number of the first interval that isn't closed.
    next: i64,
    open: BTreeMap<i64, Window>,
    cells: usize,
    /// What is lost since an interval was taken.
    lost: LostCounts,
}

impl Windows {
    pub(super) fn new(every: Millis, now: Timestamp) -> Self {
        let next = number(now, every);
        Self { every, since: now, next, open: BTreeMap::new(), cells: 0, lost: LostCounts::default() }
    }

    pub(super) fn every(&self) -> Millis {
        self.every
    }

    /// Throws away what is open, and gathers from the next interval on: part of this one may have been told already.
    pub(super) fn begin_anew(&mut self, every: Millis, now: Timestamp) {
        while self.drop_oldest() {}
        (self.every, self.since, self.next) = (every, now, number(now, every).saturating_add(1));
    }

    /// Begins anew if the clock was set back. Otherwise nothing would be gathered until it is as late as it was.
    fn follow_clock(&mut self, now: Timestamp) {
        let ahead = number(now, self.every).saturating_add(1);
        let newest = self.open.last_key_value().map_or(self.next, |(nth, _)| *nth);
        if self.next.max(newest) > ahead {
            self.begin_anew(self.every, now);
        }
    }

    /// Adds the counts of one key, of a batch that was made `at`.
    pub(super) fn add(&mut self, key: &Key, counts: &Counts, at: Timestamp, now: Timestamp) {
        if counts.requests.is_empty() {
            return;
        }
        self.follow_clock(now);
        let (nth, current) = (number(at, self.every), number(now, self.every));
        // A Worker's clock may be ahead of this one.
        if nth < self.next || nth > current.saturating_add(1) {
            let count = counts.requests.values().fold(0_u64, |sum, more| sum.saturating_add(*more));
            let is_late = nth < self.open_at(now) || nth > current;
            let (late, uncounted) = if is_late { (count, 0) } else { (0, count) };
            return self.lost.add(LostCounts { late, uncounted });
        }
        if !self.open.contains_key(&nth) && self.open.len() >= MAX_OPEN {
            self.drop_oldest();
        }
        let Key { service, clients, region, model, .. } = key.clone();
        let key = CellKey { service, region, clients, model };
        self.make_room(nth, &key);
        let window = self.window(nth);
        let (before, key) = (window.cells.len(), key.folded(window.folded));
        window.cells.entry(key).or_default().count_in(counts);
        let added = window.cells.len() - before;
        self.cells += added;
    }

    fn window(&mut self, nth: i64) -> &mut Window {
        let (every, is_whole) = (self.every, nth.saturating_mul(millis(self.every)) >= self.since.0);
        let fresh =
            || Window { number: nth, every, is_whole, cells: BTreeMap::new(), lost: LostCounts::default(), folded: 0 };
        self.open.entry(nth).or_insert_with(fresh)
    }

    /// Makes room for a cell of an interval: all cells of the interval that has the most lose a name.
    fn make_room(&mut self, nth: i64, key: &CellKey) {
        loop {
            let window = self.open.get(&nth);
            let has_cell = |window: &Window| window.cells.contains_key(&key.clone().folded(window.folded));
            if self.cells < MAX_CELLS || window.is_some_and(has_cell) {
                return;
            }
            let foldable = self.open.values_mut().filter(|window| window.folded < NAMES);
            let Some(most) = foldable.max_by_key(|window| window.cells.len()) else { return };
            let before = most.cells.len();
            most.fold();
            self.cells -= before - most.cells.len();
        }
    }

    /// Notes that batches of one isolate got lost between one that was made at `last` and one that was made `at`.
    pub(super) fn note_missed(&mut self, last: Timestamp, at: Timestamp) {
        let between = number(last.min(at), self.every)..=number(at, self.every);
        self.open.range_mut(between).for_each(|(_, window)| window.is_whole = false);
    }

    /// Drops the oldest interval, if there is one.
    fn drop_oldest(&mut self) -> bool {
        let Some((_, oldest)) = self.open.pop_first() else { return false };
        self.cells -= oldest.cells.len();
        self.next = self.next.max(oldest.number.saturating_add(1));
        self.lost.add(LostCounts { late: 0, uncounted: oldest.count() });
        true
    }

    /// The number of the oldest interval that isn't over for [`GRACE`].
    fn open_at(&self, now: Timestamp) -> i64 {
        number(Timestamp(now.0.saturating_sub(millis(GRACE))), self.every)
    }

    /// Takes the intervals that have been over for [`GRACE`], the oldest first.
    pub(super) fn take(&mut self, now: Timestamp) -> Vec<Window> {
        self.follow_clock(now);
        let open = self.open_at(now);
        self.next = self.next.max(open);
        let rest = self.open.split_off(&open);
        let mut over: Vec<Window> = core::mem::replace(&mut self.open, rest).into_values().collect();
        self.cells -= over.iter().map(|window| window.cells.len()).sum::<usize>();
        if let Some(first) = over.first_mut() {
            first.lost = core::mem::take(&mut self.lost);
        }
        over
    }
}

/// The number of the interval at a time.
fn number(at: Timestamp, every: Millis) -> i64 {
    at.0.div_euclid(millis(every).max(1))
}

fn millis(span: Millis) -> i64 {
    i64::try_from(span.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
