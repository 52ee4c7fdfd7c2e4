//! The counts of what has the same names. Takes counts of a batch, returns sums by outcome and by bucket of time. Held
//! by [`super::Window`].

use crate::id::{RegionId, ServiceId};
use crate::observe::{Counts, Histogram, OTHER};

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
    /// The jurisdictions of the clients, as in [`Key`](crate::observe::Key).
    pub clients: String,
    /// The model, as in [`Key`](crate::observe::Key).
    pub model: Option<String>,
}

impl CellKey {
    /// The key without so many of its names, from the last one on.
    pub(super) fn folded(mut self, names: usize) -> Self {
        if names >= 1 {
            self.model = Some(OTHER.to_owned());
        }
        if names >= 2 {
            OTHER.clone_into(&mut self.clients);
        }
        if names >= 3 {
            self.region = RegionId::parse(OTHER);
        }
        if let Some(other) = ServiceId::parse(OTHER).filter(|_| names >= NAMES) {
            self.service = other;
        }
        self
    }
}

/// How many names a cell has.
pub(super) const NAMES: usize = 4;

/// The counts of a cell.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cell {
    /// Requests, by how they ended.
    pub requests: [u64; OUTCOMES.len()],
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
        add(&mut self.total, &other.total);
        add(&mut self.first_token, &other.first_token);
        add(&mut self.between_tokens, &other.between_tokens);
    }

    pub(super) fn count_in(&mut self, counts: &Counts) {
        for (code, count) in &counts.requests {
            if let Some(sum) = self.requests.get_mut(outcome(code)) {
                *sum = sum.saturating_add(*count);
            }
        }
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
