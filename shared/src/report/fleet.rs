//! What the voters of a fleet agree on, as a node reports it beside what it sees itself.

use serde::{Deserialize, Serialize};

use crate::health::Status;

/// What is agreed of a region, and who holds it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictReport {
    /// The status that counts.
    pub verdict: Status,
    /// How the sites vote.
    pub votes: Votes,
    /// Who holds the verdict.
    pub held_by: HeldBy,
}

/// How the sites of a fleet vote on a region. A site votes as most of its voters do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Votes {
    /// How many say up.
    pub up: u32,
    /// How many say down.
    pub down: u32,
    /// How many are heard and say neither: no probe, blind, or of two minds.
    pub unknown: u32,
    /// How many aren't heard.
    pub silent: u32,
}

/// Who holds a verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeldBy {
    /// Most sites say so now.
    Quorum,
    /// Most sites say down, but the guard of a service has it offered.
    Guard,
    /// An operator.
    Override,
    /// Nobody: it is the last that was agreed on. The sites are too few or of two minds, or `min_hold` isn't over.
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
