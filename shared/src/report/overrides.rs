//! Overrides as nodes tell each other, with what keeps them apart.

use serde::{Deserialize, Serialize};

use crate::health::Status;
use crate::id::{EndpointId, Overridden, RegionId};
use crate::time::Timestamp;

/// An override that an operator made by the API of some node, or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverrideRecord {
    /// The region.
    pub region: RegionId,
    /// The endpoint; absent: the region as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointId>,
    /// The node where it was made.
    pub origin: String,
    /// Grows with every override of the same thing that is made there.
    pub number: u64,
    /// `up` or `down`.
    pub status: Status,
    /// When it ends by itself.
    pub until: Timestamp,
    /// Why it is there.
    pub reason: String,
    /// Whether it was made against the guards of services.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub insists: bool,
    /// Whether an operator ended it before.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub ended: bool,
}

impl OverrideRecord {
    /// The region or endpoint whose status it forces.
    #[must_use]
    pub fn of(&self) -> Overridden {
        Overridden { region: self.region.clone(), endpoint: self.endpoint.clone() }
    }
}
