//! Warnings of drills that stand in each other's way. Takes what [`Warner`] holds, adds warnings. Called by
//! [`super::warnings`].

use super::Warner;
use crate::rules::Drill;
use crate::time::{Millis, Timestamp};

/// How long `bailiwick drill run` watches before the first and after the last step, by default, in milliseconds.
const WATCHED: u64 = 120_000;

impl Warner<'_> {
    /// Warns of a weekly drill whose time comes while another one lasts. Only one drill runs at a time, and one that
    /// can't begin waits for the next week.
    pub(super) fn drills(&mut self) {
        let mut warnings = Vec::new();
        for (id, drill) in &self.rules.drills {
            let Some(weekly) = drill.weekly else { continue };
            let mut others = self.rules.drills.iter().filter(|(other, _)| *other != id);
            // Of two at the same time, the second one is told.
            let is_in_the_way = |(other, rule): &(_, &Drill)| is_under_way(rule, drill, *other < id);
            if let Some((other, rule)) = others.find(is_in_the_way) {
                let (its, lasts) = (rule.weekly.unwrap_or(weekly), lasts(rule));
                let message = format!(
                    "is {weekly}, when {other} of {its} may be under way (it takes {lasts}): only one drill runs at a \
                     time, and one that can't begin waits a week; choose another time"
                );
                warnings.push((format!("/drills/{id}/weekly"), message));
            }
        }
        for (place, message) in warnings {
            self.warn(place, message);
        }
    }
}

/// Whether one drill may be under way at the weekly time of another one.
fn is_under_way(drill: &Drill, at: &Drill, counts_same_time: bool) -> bool {
    let (Some(begins), Some(at)) = (drill.weekly, at.weekly) else { return false };
    // Any two weeks are alike.
    let begins = begins.next(Timestamp(0));
    let gap = at.next(begins).since(begins);
    gap < lasts(drill) && (gap > Millis(0) || counts_same_time)
}

/// How long a drill takes, from the first look to the last.
fn lasts(drill: &Drill) -> Millis {
    Millis(drill.span().0.saturating_add(WATCHED))
}
