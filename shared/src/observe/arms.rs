//! The counts of both arms of each rollout since its step began. A rollout replaces something old by something new for
//! a share of the sessions, step by step; its arms are the sessions with the old and with the new thing. Takes the
//! counts that Workers post for rollouts ([`ArmCounts`]); returns their sums by region. A part of [`super::Sums`]. The
//! node's API returns the sums, and `bailiwick rollout` judges the rollout by them.
//!
//! Counts begin at zero with each step. Counts from before the step, by earlier rules, or from its warm-up, while
//! caches are cold, aren't added.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Counts;
use super::batch::{ArmCounts, Batch};
use crate::id::{RegionId, RolloutId};
use crate::rules::Arm;
use crate::table::Table;
use crate::time::Timestamp;

/// The arms of all rollouts since their steps began.
#[derive(Clone, Debug, Default)]
pub struct ArmSums {
    regions: BTreeMap<(RolloutId, RegionId), StepSums>,
}

/// The arms of a region since its step began.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StepSums {
    /// When the step began.
    pub since: Timestamp,
    /// The revision of the rules with which this node first saw the step. Workers that still have earlier rules have
    /// other shares, so their counts aren't added.
    pub revision: u64,
    /// The old arm.
    pub old: ArmSum,
    /// The new arm.
    pub new: ArmSum,
}

/// The sum of one arm.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ArmSum {
    /// The counts.
    pub counts: Counts,
    /// When something was last counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Timestamp>,
}

/// When and by which rules a batch was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchOrigin {
    /// The beginning of the span that the batch covers.
    from: Timestamp,
    /// The revision of the rules.
    revision: u64,
}

impl BatchOrigin {
    pub(super) fn of(batch: &Batch) -> Self {
        let span = i64::try_from(batch.span_ms).unwrap_or(i64::MAX);
        Self { from: Timestamp(batch.at.0.saturating_sub(span)), revision: batch.revision }
    }
}

impl ArmSums {
    /// Follows the rules: sums that don't belong to a step under way are dropped.
    pub(super) fn follow(&mut self, table: &Table) {
        let mut before = core::mem::take(&mut self.regions);
        for rollout in table.rollouts() {
            let Some(progress) = &rollout.rule.progress else { continue };
            for (region, _) in rollout.regions.iter().filter(|(_, share)| share.is_some()) {
                let place = (rollout.id.clone(), table.region(*region).id.clone());
                let same_step = before.remove(&place).filter(|step| step.since == progress.since);
                let step = same_step.unwrap_or_else(|| StepSums {
                    since: progress.since,
                    revision: table.revision().number,
                    old: ArmSum::default(),
                    new: ArmSum::default(),
                });
                self.regions.insert(place, step);
            }
        }
    }

    /// Adds the counts that one isolate posted for an arm. False if the rules don't have the names in it.
    pub(super) fn add(&mut self, entry: &ArmCounts, origin: BatchOrigin, table: &Table, now: Timestamp) -> bool {
        let service = table.service_named(entry.service.as_str());
        let rollout = service.and_then(|service| table.rollout_of(service));
        let (Some(rollout), Some(arm)) = (rollout, Arm::parse(&entry.arm)) else { return false };
        let place = (rollout.id.clone(), entry.region.clone());
        let Some(step) = self.regions.get_mut(&place) else { return false };
        let counted_from = step.since.after(rollout.rule.warm_up);
        if origin.from < counted_from || origin.revision < step.revision {
            // The names are known, but these counts must not be added.
            return true;
        }
        let sum = match arm {
            Arm::Old => &mut step.old,
            Arm::New => &mut step.new,
        };
        sum.counts.add(&entry.counts);
        if entry.counts.attempts.values().any(|count| *count > 0) {
            sum.newest = Some(now);
        }
        true
    }

    /// The arms of a region since its step began.
    #[must_use]
    pub fn of(&self, rollout: &RolloutId, region: &RegionId) -> Option<&StepSums> {
        self.regions.get(&(rollout.clone(), region.clone()))
    }
}

#[cfg(test)]
mod tests;
