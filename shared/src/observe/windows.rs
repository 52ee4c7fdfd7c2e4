//! What was counted in each interval, for the aggregate. Takes the counts that [`super::Sums`] adds, by the time of
//! their batch; returns the intervals that are over. Without `aggregate` in the rules nothing is kept here.
//!
//! An interval begins at a multiple of its length since 1970, and a batch belongs to the interval of its own time. So
//! all nodes, each of which gets every batch, find the same counts in an interval.

use std::collections::BTreeMap;

use super::{Counts, Histogram, Key};
use crate::id::{RegionId, ServiceId};
use crate::time::{Millis, Timestamp};

/// How long batches of an interval are awaited after its end. Workers post a batch when they make it.
pub const GRACE: Millis = Millis(10_000);
/// The most cells of all intervals that aren't taken yet. A cell has about 700 bytes.
const MAX_CELLS: usize = 8_192;
/// The most intervals that aren't taken yet: what a node that can't ask the others keeps.
const MAX_OPEN: usize = 16;

/// The upper bounds of times, as powers of 2 in seconds: 2 ms to 17 minutes. Longer times come after the last.
pub const EXPONENTS: core::ops::RangeInclusive<i16> = -9..=10;
/// How many buckets times have.
pub const BUCKETS: usize = 21;

/// The names that the counts of a cell have in common. All are names of the rules.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CellKey {
    /// The service.
    pub service: ServiceId,
    /// The region that answered; absent if none did.
    pub region: Option<RegionId>,
    /// The jurisdictions of the clients, as in [`Key`].
    pub clients: String,
    /// The model, as in [`Key`].
    pub model: Option<String>,
}

/// The counts of a cell.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cell {
    /// Requests, by how they ended.
    pub requests: [u64; OUTCOMES.len()],
    /// Answers that the model ended.
    pub finished: u64,
    /// Tokens of prompts and of answers.
    pub tokens: [u64; 2],
    /// For each request: the time until the end of its answer.
    pub total: [u64; BUCKETS],
    /// For each streamed answer: the time until its first content.
    pub first_token: [u64; BUCKETS],
    /// For each streamed answer: the mean time between two pieces of its content.
    pub between_tokens: [u64; BUCKETS],
}

/// How requests end. The edge's many codes are told as these few words, since a word that few requests have tells much
/// of them; and whatever a sender writes, no other word is told.
pub const OUTCOMES: [&str; 8] =
    ["ok", "client_gone", "broken", "limited", "denied", "unavailable", "refused", "rejected"];

/// The position in [`OUTCOMES`] of one of the edge's codes.
fn outcome(code: &str) -> usize {
    match code {
        "ok" => 0,
        "client_gone" => 1,
        "interrupted" | "error_event" | "idle" | "upstream_interrupted" => 2,
        "rate_limit_exceeded"
        | "insufficient_quota"
        | "quota_exhausted"
        | "larger_than_quota"
        | "budget_exhausted"
        | "concurrency_exhausted"
        | "capacity_refused" => 3,
        "residency_denied" => 4,
        "region_unavailable"
        | "upstream_timeout"
        | "receipt_unavailable"
        | "not_ready"
        | "rules_too_old"
        | "busy"
        | "internal_error" => 5,
        "upstream_refused" => 6,
        _ => 7,
    }
}

impl Cell {
    /// How many requests the cell has.
    #[must_use]
    pub fn count(&self) -> u64 {
        sum(&self.requests)
    }

    /// Adds the counts of another cell.
    pub fn add(&mut self, other: &Self) {
        add(&mut self.requests, &other.requests);
        add(&mut self.tokens, &other.tokens);
        add(&mut self.total, &other.total);
        add(&mut self.first_token, &other.first_token);
        add(&mut self.between_tokens, &other.between_tokens);
        self.finished = self.finished.saturating_add(other.finished);
    }

    fn count_in(&mut self, counts: &Counts) {
        for (code, count) in &counts.requests {
            if let Some(sum) = self.requests.get_mut(outcome(code)) {
                *sum = sum.saturating_add(*count);
            }
        }
        self.finished = counts.finish.values().fold(self.finished, |sum, count| sum.saturating_add(*count));
        add(&mut self.tokens, &[counts.tokens_in, counts.tokens_out]);
        add(&mut self.total, &buckets(&counts.total));
        add(&mut self.first_token, &buckets(&counts.first_token));
        add(&mut self.between_tokens, &buckets(&counts.between_tokens));
    }
}

/// The sum of counts.
#[must_use]
pub fn sum(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
}

fn add<const N: usize>(sums: &mut [u64; N], more: &[u64; N]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum = sum.saturating_add(*more);
    }
}

/// The counts between the bounds of [`EXPONENTS`].
fn buckets(times: &Histogram) -> [u64; BUCKETS] {
    let mut below = 0;
    let bounds = EXPONENTS.map(|exponent| times.up_to(exponent)).chain([times.len()]);
    let mut counts = bounds.map(|upto| upto - core::mem::replace(&mut below, upto));
    core::array::from_fn(|_| counts.next().unwrap_or(0))
}

/// An interval that is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Window {
    /// Its number: intervals since 1970.
    pub number: i64,
    /// Its length.
    pub every: Millis,
    /// Whether this node gathered from its begin to its end.
    pub is_whole: bool,
    /// What was counted.
    pub cells: BTreeMap<CellKey, Cell>,
    /// Requests that weren't counted, as there were too many cells.
    pub uncounted: u64,
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
}

impl Windows {
    pub(super) fn new(every: Millis, now: Timestamp) -> Self {
        Self { every, since: now, next: number(now, every), open: BTreeMap::new(), cells: 0 }
    }

    pub(super) fn every(&self) -> Millis {
        self.every
    }

    /// Adds the counts of one key, of a batch that was made `at`.
    pub(super) fn add(&mut self, key: &Key, counts: &Counts, at: Timestamp, now: Timestamp) {
        if counts.requests.is_empty() {
            return;
        }
        let newest = number(now, self.every).max(self.next);
        let number = number(at, self.every).clamp(self.next, newest);
        let uncounted = if self.open.contains_key(&number) { 0 } else { self.make_room() };
        let (every, is_whole) = (self.every, number.saturating_mul(millis(self.every)) >= self.since.0);
        let fresh = || Window { number, every, is_whole, cells: BTreeMap::new(), uncounted };
        let window = self.open.entry(number).or_insert_with(fresh);
        let Key { service, clients, region, model, .. } = key.clone();
        let key = CellKey { service, region, clients, model };
        if !window.cells.contains_key(&key) {
            if self.cells >= MAX_CELLS {
                window.uncounted =
                    counts.requests.values().fold(window.uncounted, |sum, more| sum.saturating_add(*more));
                return;
            }
            self.cells += 1;
        }
        window.cells.entry(key).or_default().count_in(counts);
    }

    /// Drops the oldest interval if there are too many: nobody takes them, or the clock jumped. Returns how many
    /// requests are lost.
    fn make_room(&mut self) -> u64 {
        if self.open.len() < MAX_OPEN {
            return 0;
        }
        let Some((_, oldest)) = self.open.pop_first() else { return 0 };
        self.cells -= oldest.cells.len();
        oldest.count().saturating_add(oldest.uncounted)
    }

    /// Takes the intervals that have been over for [`GRACE`], the oldest first.
    pub(super) fn take(&mut self, now: Timestamp) -> Vec<Window> {
        // What comes later for one of these is counted in the next.
        let open = number(Timestamp(now.0.saturating_sub(millis(GRACE))), self.every);
        self.next = self.next.max(open);
        let rest = self.open.split_off(&open);
        let over = core::mem::replace(&mut self.open, rest);
        self.cells -= over.values().map(|window| window.cells.len()).sum::<usize>();
        over.into_values().collect()
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
