//! What the voters of a fleet agree on. A voter is a node whose report counts as a vote on health; voters that may fail
//! together form a site. Holds the JSON that a node reports as `fleet`, beside what the node itself sees.

use serde::{Deserialize, Serialize};

use crate::health::Status;

/// The status of a region that the fleet agrees on, and what decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictReport {
    /// The status that counts.
    pub verdict: Status,
    /// How the sites vote.
    pub votes: Votes,
    /// What decides the verdict.
    pub held_by: HeldBy,
}

/// How the sites of a fleet vote on a region. Each site has one vote: that of most of its voters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Votes {
    /// How many sites say up.
    pub up: u32,
    /// How many sites say down.
    pub down: u32,
    /// How many sites reported but say neither: they have no probe, are blind (their own network is down), or disagree
    /// within.
    pub unknown: u32,
    /// How many sites haven't reported.
    pub silent: u32,
}

/// What decides the verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeldBy {
    /// Most sites say so at present.
    Quorum,
    /// Most sites say down, but the guard of a service, which limits how many regions health may take away at once,
    /// keeps the region offered.
    Guard,
    /// An operator's override.
    Override,
    /// Nothing at present: the last agreed verdict stands. Too few sites vote, the sites disagree, or `min_hold` isn't
    /// over.
    #[default]
    None,
}

impl HeldBy {
    /// The word for it in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::Guard => "guard",
            Self::Override => "override",
            Self::None => "none",
        }
    }
}
