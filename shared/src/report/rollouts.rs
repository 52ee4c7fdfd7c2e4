//! What a node reports about rollouts at `/v1/rollouts`. A rollout replaces something old by something new, region
//! after region; its old and new side are its arms. Holds what was counted of both arms since each step began, and the
//! obstacles to going on. Written by the node, read by `bailiwick rollout`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{RegionId, RolloutId};
use crate::observe::StepSums;
use crate::time::Timestamp;

/// All rollouts of the rules in service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutsReport {
    /// The node's name.
    pub node: String,
    /// The node's time.
    pub at: Timestamp,
    /// When the node's process began. Its counts began at zero then.
    pub begun: Timestamp,
    /// The revision of the rules.
    pub revision: u64,
    /// The rollouts, by name.
    pub rollouts: BTreeMap<RolloutId, RolloutReport>,
}

/// One rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutReport {
    /// Why the rollout should neither begin nor go on now: overrides, clients moved because of load, or too little room
    /// if a region fails.
    pub obstacles: Vec<String>,
    /// What was counted since the present step began, for each region in which the rollout has begun.
    pub regions: BTreeMap<RegionId, StepSums>,
}
