//! Cuts a group's times into parts of which none is too small. Takes counts by bucket, returns counts that may be told.
//! Called by [`super::tell`].

use crate::observe::{BUCKETS, sum};

/// What times are counted of.
pub(super) struct Part<'a> {
    /// Counts of which the times are a part each: of the group's requests, say. What is left of one must not be too
    /// small either.
    pub(super) of: &'a [u64],
    /// The fewest requests of a part.
    pub(super) min: u64,
}

/// Moves counts that are too small up into the next bucket, until that has enough; the last ones go to the bucket
/// before. `None` if the times can't be told at all.
pub(super) fn split(counts: &[u64; BUCKETS], part: &Part<'_>) -> Option<[u64; BUCKETS]> {
    let all = sum(counts);
    let is_apart = |of: &u64| of.checked_sub(all).is_some_and(|rest| rest == 0 || rest >= part.min);
    if all < part.min || !part.of.iter().all(is_apart) {
        return None;
    }
    let (mut told, mut moved, mut last) = ([0; BUCKETS], 0_u64, None);
    for (place, (count, told)) in counts.iter().zip(&mut told).enumerate() {
        moved = moved.saturating_add(*count);
        if moved >= part.min {
            *told = core::mem::take(&mut moved);
            last = Some(place);
        }
    }
    if let Some(last) = last.and_then(|place| told.get_mut(place)) {
        *last = last.saturating_add(moved);
    }
    Some(told)
}
