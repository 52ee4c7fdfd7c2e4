//! What was counted of the two arms of each rollout since its step began. Takes the counts that Workers judged by;
//! returns them by region. Held by [`super::Sums`]; told by the node's API, and judged by `bailiwick rollout`.
//!
//! Counts begin anew with each step. What was counted before, by other rules, or while caches were cold, isn't added.

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
    /// The revision of the rules with which this node first saw it. Workers that follow an earlier one have other
    /// shares.
    pub revision: u64,
    /// The old arm.
    pub old: ArmSum,
    /// The new arm.
    pub new: ArmSum,
}

/// One arm.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ArmSum {
    /// Its counts.
    pub counts: Counts,
    /// When something was last counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<Timestamp>,
}

/// When and by which rules a batch was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    /// The begin of what it covers.
    from: Timestamp,
    /// The revision of the rules.
    revision: u64,
}

impl Made {
    pub(super) fn of(batch: &Batch) -> Self {
        let span = i64::try_from(batch.span_ms).unwrap_or(i64::MAX);
        Self { from: Timestamp(batch.at.0.saturating_sub(span)), revision: batch.revision }
    }
}

impl ArmSums {
    /// Follows the rules: what isn't of a step under way is dropped.
    pub(super) fn follow(&mut self, table: &Table) {
        let mut before = core::mem::take(&mut self.regions);
        for rollout in table.rollouts() {
            let Some(progress) = &rollout.rule.progress else { continue };
            for (region, _) in rollout.regions.iter().filter(|(_, share)| share.is_some()) {
                let place = (rollout.id.clone(), table.region(*region).id.clone());
                let kept = before.remove(&place).filter(|step| step.since == progress.since);
                let step = kept.unwrap_or_else(|| StepSums {
                    since: progress.since,
                    revision: table.revision().number,
                    old: ArmSum::default(),
                    new: ArmSum::default(),
                });
                self.regions.insert(place, step);
            }
        }
    }

    /// Adds what one Worker counted of an arm. False if the rules don't have its names.
    pub(super) fn add(&mut self, entry: &ArmCounts, made: Made, table: &Table, now: Timestamp) -> bool {
        let service = table.service_named(entry.service.as_str());
        let rollout = service.and_then(|service| table.rollout_of(service));
        let (Some(rollout), Some(arm)) = (rollout, Arm::parse(&entry.arm)) else { return false };
        let place = (rollout.id.clone(), entry.region.clone());
        let Some(step) = self.regions.get_mut(&place) else { return false };
        let counted_from = step.since.after(rollout.rule.warm_up);
        if made.from < counted_from || made.revision < step.revision {
            // Known, and on purpose not counted.
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
