//! What may be told across borders of what Workers observed. Takes the counts of one interval, returns numbers of which
//! each is of at least `min_count` requests, and writes them as OTLP. Called by the node, which sends them.
//!
//! **What nobody can find out.** Requests are cut into groups, of which each has none or at least `min_count`
//! (`fold`); whatever is told of an interval is a sum over whole groups. So no sum or difference of numbers gives a
//! smaller group. A group that would be too small is added to `other`; if `other` is still too small, another group is
//! added too, or a total minus the groups that are told would give it.
//!
//! Each group is told in several ways: by how requests ended, and by their times. Each way cuts the group into parts
//! of its own, of which each has none or at least `min_count`, with what doesn't take part as one of them (`split`).
//! Then what two ways have in common can't be computed either: it is known only if one of the parts is the whole group.
//! Attempts aren't told, as their number minus that of requests is how often few requests were sent elsewhere. Tokens
//! aren't told either: nobody counts the answers that say how many they have, so a sum could be of one answer.
//!
//! An interval has no request of another one, and sums over several intervals aren't told. Otherwise the difference of
//! two sums would be a small number again.

mod claim;
mod fold;
mod otlp;
mod split;

use std::collections::BTreeMap;

use crate::id::RegionId;
use crate::observe::{BUCKETS, Cell, CellKey, OUTCOMES, Window, sum};
use fold::{Entry, Folding};
use split::{Part, split};

pub use claim::Claim;
pub use otlp::{Rejected, nanos, rejected, request};

/// The most groups that are told of one interval. If there are more, a larger `min_count` makes fewer.
const MAX_GROUPS: usize = 1_000;
/// The label of what has too few requests.
pub const OTHER: &str = crate::observe::OTHER;

/// One name of a group.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Label {
    /// A name of the rules, or a fixed word.
    Named(String),
    /// Requests without such a name: they were sent to no region, or name no model.
    Absent,
    /// Several of them, as some have too few requests.
    Other,
}

impl Label {
    fn new(name: Option<&str>) -> Self {
        match name {
            None => Self::Absent,
            Some(OTHER) => Self::Other,
            Some(name) => Self::Named(name.to_owned()),
        }
    }
}

/// The dimensions of a group, the one that is folded last first.
pub const DIMENSIONS: [&str; 4] = ["service", "region", "clients", "model"];

/// What is told of one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Its names, by [`DIMENSIONS`].
    pub labels: Vec<Label>,
    /// Its requests by how they ended.
    pub outcomes: Vec<(Label, u64)>,
    /// The times of its requests, by bucket.
    pub total: Option<[u64; BUCKETS]>,
    /// The times to the first content.
    pub first_token: Option<[u64; BUCKETS]>,
    /// The times between two pieces of content.
    pub between_tokens: Option<[u64; BUCKETS]>,
}

/// What is told of an interval.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Told {
    /// The groups.
    pub groups: Vec<Group>,
    /// How many requests were told by some of their names only.
    pub folded: u64,
    /// How many requests aren't told, as there are fewer than `min_count` in all.
    pub withheld: u64,
}

impl Told {
    /// How many requests each name has that is told, with all names before it.
    fn by_name(&self) -> BTreeMap<Vec<Label>, u64> {
        let mut sums = BTreeMap::new();
        for group in &self.groups {
            for (outcome, count) in &group.outcomes {
                let path: Vec<Label> = group.labels.iter().chain([outcome]).cloned().collect();
                for len in 1..=path.len() {
                    let name = path.get(..len).unwrap_or_default();
                    if name.last() != Some(&Label::Other) {
                        let sum: &mut u64 = sums.entry(name.to_vec()).or_default();
                        *sum = sum.saturating_add(*count);
                    }
                }
            }
        }
        sums
    }
}

/// Decides what is told of an interval, after what this node told of the last one that it told.
#[must_use]
pub fn tell(window: &Window, min_count: u32, before: &Told) -> Told {
    let count = window.count();
    let before = before.by_name();
    let mut folding = Folding { min: u64::from(min_count.max(1)), before: &before };
    if count < folding.min {
        return Told { withheld: count, ..Told::default() };
    }
    let mut entries = groups(window, &folding);
    while entries.len() > MAX_GROUPS {
        folding.min = folding.min.saturating_mul(2);
        entries = groups(window, &folding);
    }
    let is_folded = |entry: &&Entry<Cell>| entry.path.contains(&Label::Other);
    let folded = entries.iter().filter(is_folded).map(|entry| entry.weight).sum();
    Told { groups: entries.into_iter().map(|entry| group(entry, &folding)).collect(), folded, withheld: 0 }
}

fn groups(window: &Window, folding: &Folding<'_>) -> Vec<Entry<Cell>> {
    let entry = |(key, cell): (&CellKey, &Cell)| {
        let path = vec![
            Label::new(Some(key.service.as_str())),
            Label::new(key.region.as_ref().map(RegionId::as_str)),
            Label::new(Some(&key.clients)),
            Label::new(key.model.as_deref()),
        ];
        Entry { path, weight: cell.count(), what: cell.clone() }
    };
    let mut told = Vec::new();
    folding.fold(window.cells.iter().map(entry).collect(), 0, &|sum: &mut Cell, more| sum.add(&more), &mut told);
    told
}

fn group(entry: Entry<Cell>, folding: &Folding<'_>) -> Group {
    let (Entry { path: labels, weight: count, what: cell }, min) = (entry, folding.min);
    let of_outcome = |(word, weight): (&&str, &u64)| {
        let path = labels.iter().cloned().chain([Label::new(Some(word))]).collect();
        Entry { path, weight: *weight, what: () }
    };
    let mut outcomes = Vec::new();
    let by_outcome = OUTCOMES.iter().zip(&cell.requests).map(of_outcome).collect();
    folding.fold(by_outcome, labels.len(), &|(), ()| (), &mut outcomes);
    let all = Part { of: &[count], min };
    let streamed = sum(&cell.first_token);
    Group {
        outcomes: outcomes.into_iter().filter_map(|entry| Some((entry.path.last()?.clone(), entry.weight))).collect(),
        labels,
        total: split(&cell.total, &all),
        first_token: split(&cell.first_token, &all),
        between_tokens: split(&cell.between_tokens, &Part { of: &[count, streamed], min }),
    }
}

#[cfg(test)]
mod tests;
