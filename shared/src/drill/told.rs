//! What a node tells of drills, and what it is asked for, as JSON. Written by the node at `/v1/drills`, read by
//! `bailiwick drill`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::counts::Counted;
use super::kept::Wanted;
use super::preflight::Preflight;
use crate::id::{DrillId, RegionId};
use crate::report::DrillRecord;
use crate::time::{Millis, Timestamp};

/// The drills of the rules in service: `GET /v1/drills`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrillsReport {
    /// The node.
    pub node: String,
    /// Its time.
    pub at: Timestamp,
    /// The revision of the rules.
    pub revision: u64,
    /// SHA-256 of the rules, in hex.
    pub rules_sha256: String,
    /// The drill that is under way, or that ended lately.
    pub last: Option<DrillRecord>,
    /// All drills.
    pub drills: BTreeMap<DrillId, DrillStatus>,
}

/// A drill of the rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrillStatus {
    /// The region that gets fewer clients.
    pub region: RegionId,
    /// When it begins by itself next; absent if it never does.
    pub next: Option<Timestamp>,
    /// How long it takes as a whole, in milliseconds.
    pub span_ms: u64,
    /// The longest TTL of its services, in seconds.
    pub longest_ttl: u32,
    /// Whether it could begin now.
    pub preflight: Preflight,
}

/// One look at a drill: `GET /v1/drills/NAME`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrillLook {
    /// The drill that is under way, or that ended lately, whichever it is.
    pub last: Option<DrillRecord>,
    /// What the node counted.
    pub counted: Counted,
}

/// What whoever runs a drill asks for: the body of `POST /v1/drills`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillAsk {
    /// The drill.
    pub name: DrillId,
    /// Which run; absent to begin one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<Timestamp>,
    /// The share of the region's clients that are sent elsewhere, in per cent.
    pub share: u8,
    /// For how long, in milliseconds, unless it is renewed: from one second to two minutes.
    pub hold_ms: u64,
}

impl From<DrillAsk> for Wanted {
    fn from(DrillAsk { name, began, share, hold_ms }: DrillAsk) -> Self {
        Self { name, began, share, hold: Millis(hold_ms) }
    }
}
