//! What a node tells of rollouts at `/v1/rollouts`: what was counted of both arms since each step began, and what
//! stands in the way of going on. Written by the node, read by `bailiwick rollout`.

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
    /// When the node's process began, which counts from nothing.
    pub begun: Timestamp,
    /// The revision of the rules.
    pub revision: u64,
    /// By name.
    pub rollouts: BTreeMap<RolloutId, RolloutReport>,
}

/// One rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutReport {
    /// Why it should neither begin nor go on now: overrides, shedding, too little room if a region fails.
    pub obstacles: Vec<String>,
    /// What was counted in each region that has begun, since the step under way began.
    pub regions: BTreeMap<RegionId, StepSums>,
}
