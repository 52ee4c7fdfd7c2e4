//! Cuts requests into groups of which none is too small. Takes entries with their names, returns them with the names by
//! which they may be told. Called by [`super::tell`].

use std::collections::BTreeMap;

use super::Label;

/// What has the same names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry<T> {
    /// The names; entries are told apart by the first one first.
    pub(super) path: Vec<Label>,
    /// How many requests it is of.
    pub(super) weight: u64,
    /// What is told of them.
    pub(super) what: T,
}

/// The outcome that is added to `other` last. Streams end well, so the number of streams would tell that of requests
/// that ended well, and with it which part of `other` they are.
const LAST: &str = "ok";

/// What decides which entries are told.
pub(super) struct Folding<'a> {
    /// The fewest requests of an entry.
    pub(super) min: u64,
    /// What was told by name of the interval that was told last: everybody knows that already.
    pub(super) before: &'a BTreeMap<Vec<Label>, u64>,
}

impl Folding<'_> {
    /// Folds entries, which together have at least `min` requests, from the name at the place `at` on: each entry of
    /// the result has at least `min`.
    ///
    /// Which group is added to `other` must not depend on this interval's numbers: if it were always the smallest one,
    /// it would be known to be no larger than those that are told. So it is the one that was the smallest before.
    pub(super) fn fold<T>(
        &self,
        entries: Vec<Entry<T>>,
        at: usize,
        add: &impl Fn(&mut T, T),
        told: &mut Vec<Entry<T>>,
    ) {
        let mut by_name: BTreeMap<Label, Vec<Entry<T>>> = BTreeMap::new();
        for entry in entries.into_iter().filter(|entry| entry.weight > 0) {
            let name = entry.path.get(at).cloned().unwrap_or(Label::Absent);
            by_name.entry(name).or_default().push(entry);
        }
        let is_small = |(name, entries): &(Label, Vec<Entry<T>>)| *name == Label::Other || weight(entries) < self.min;
        let (small, mut kept): (Vec<_>, Vec<_>) = by_name.into_iter().partition(is_small);
        // The one that is added first stands at the end.
        kept.sort_by_cached_key(|(name, entries)| core::cmp::Reverse(self.rank(name, entries, at)));
        // Groups that are all as large as small ones can be would be known by their sum.
        let most = u64::try_from(small.len()).unwrap_or(u64::MAX).saturating_mul(self.min - 1);
        let mut other: Vec<Entry<T>> = small.into_iter().flat_map(|(_, entries)| entries).collect();
        if !other.is_empty() && weight(&other) >= most {
            other.extend(kept.pop().into_iter().flat_map(|(_, entries)| entries));
        }
        while (1..self.min).contains(&weight(&other)) {
            let Some((_, more)) = kept.pop() else { break };
            other.extend(more);
        }
        if let Some(mut sum) = merged(other, add) {
            sum.path.iter_mut().skip(at).for_each(|name| *name = Label::Other);
            told.push(sum);
        }
        for (_, entries) in kept {
            let is_last = entries.iter().all(|entry| entry.path.len() <= at + 1);
            if is_last { told.extend(merged(entries, add)) } else { self.fold(entries, at + 1, add, told) }
        }
    }

    /// The order in which groups are added to `other`.
    fn rank<T>(&self, name: &Label, entries: &[Entry<T>], at: usize) -> (bool, u64, Label) {
        let path = entries.first().and_then(|entry| entry.path.get(..=at));
        let before = path.and_then(|path| self.before.get(path)).copied().unwrap_or(0);
        (*name == Label::Named(LAST.to_owned()), before, name.clone())
    }
}

fn weight<T>(entries: &[Entry<T>]) -> u64 {
    entries.iter().fold(0, |sum, entry| sum.saturating_add(entry.weight))
}

fn merged<T>(entries: Vec<Entry<T>>, add: &impl Fn(&mut T, T)) -> Option<Entry<T>> {
    let mut entries = entries.into_iter();
    let mut sum = entries.next()?;
    for more in entries {
        sum.weight = sum.weight.saturating_add(more.weight);
        add(&mut sum.what, more.what);
    }
    Some(sum)
}
