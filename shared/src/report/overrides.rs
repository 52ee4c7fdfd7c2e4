//! Overrides as the nodes of a fleet report them to each other. Each record carries what tells it apart from other
//! overrides of the same region or endpoint: its origin and number.

use serde::{Deserialize, Serialize};

use crate::health::Status;
use crate::id::{EndpointId, Overridden, RegionId};
use crate::time::Timestamp;

/// An override that an operator made, or made and ended, by the API of some node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverrideRecord {
    /// The region.
    pub region: RegionId,
    /// The endpoint; absent if the override is of the region as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointId>,
    /// The node where the override was made.
    pub origin: String,
    /// A number that grows with every override of the same region or endpoint that is made at that node.
    pub number: u64,
    /// `up` or `down`.
    pub status: Status,
    /// When the override expires.
    pub until: Timestamp,
    /// Why it is there.
    pub reason: String,
    /// Whether the operator insists on it, although the guards of services would keep the region offered.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub insists: bool,
    /// Whether an operator ended it before it expired.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub ended: bool,
}

impl OverrideRecord {
    /// The region or endpoint whose status the override forces.
    #[must_use]
    pub fn of(&self) -> Overridden {
        Overridden { region: self.region.clone(), endpoint: self.endpoint.clone() }
    }
}
