//! What a new rules document changes for clients. Takes two tables and the groups of clients that are alike to both,
//! returns who goes to another region, whose fence gets wider or smaller, and who has no region left. Called by
//! `bailiwick rules diff`, and before a document is published.
//!
//! [`Comparison`] steers every group by both documents, with all regions up and with each region down. DNS moves nobody
//! by this: it says what would happen. Moves because of load don't count, as they change every few seconds.

mod bundles;
mod compare;
mod fence;
mod subjects;
#[cfg(test)]
mod tests;
mod text;
mod weights;

use ipnet::IpNet;
use serde::Serialize;

pub use bundles::BundleImpact;
pub use compare::Comparison;
pub use weights::{Group, Queries, Weight};

use crate::geo::CountryCode;
use crate::id::{RegionId, ServiceId, TenantId};

/// What a new document changes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Impact {
    /// The revision in service.
    pub from: u64,
    /// The new one.
    pub to: u64,
    /// Whether queries were counted; where not, addresses alone weigh.
    pub has_queries: bool,
    /// What changes, service by service. One of which nothing changes isn't here.
    pub services: Vec<ServiceImpact>,
    /// How many services were compared, tenants' fences included.
    pub compared: usize,
    /// Regions in both documents whose DNS answers differ.
    pub other_answers: Vec<RegionId>,
    /// Bundles whose version differs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bundles: Vec<BundleImpact>,
}

/// What changes for the clients of one service, or for some of its tenants.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceImpact {
    /// Its name: the new one, or the old one of a service that is gone.
    pub service: ServiceId,
    /// The service that had its hosts before, if that was another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<ServiceId>,
    /// The hosts that this is about, where it isn't the whole service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// The tenants that this is about; none: clients without a tenant, as DNS sees all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<TenantId>,
    /// Whether both documents have it.
    pub presence: Presence,
    /// All clients that somebody can place, and all queries.
    pub total: Weight,
    /// Those that go to another region.
    pub moved: Weight,
    /// Those that had a region and have none.
    pub denied: Weight,
    /// Those that had none and have one.
    pub admitted: Weight,
    /// Those that may be processed in a country where they might not be.
    pub leave_fence: Weight,
    /// Who goes from where to where, the heaviest first.
    pub moves: Vec<Move>,
    /// What differs when one region is down, beyond `moves`.
    pub moves_when_down: Vec<MoveWhenDown>,
    /// Whose fence gets wider.
    pub wider: Vec<FenceChange>,
    /// Whose fence gets smaller.
    pub tighter: Vec<FenceChange>,
    /// Who has no region left if one fails, and had one before.
    pub alone: Vec<Alone>,
    /// The fewest regions of any fence that got smaller: 0 if one was emptied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fewest_regions: Option<usize>,
    /// How long resolvers may keep the old answer, in seconds.
    pub ttl: u32,
}

/// Whether both documents have a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// Both do.
    Both,
    /// Only the new one.
    New,
    /// Only the old one.
    Gone,
}

/// Clients that go from one region to another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Move {
    /// Where they go now; `None`: nowhere.
    pub from: Option<RegionId>,
    /// Where they will go; `None`: nowhere.
    pub to: Option<RegionId>,
    /// Who they are.
    #[serde(flatten)]
    pub who: Who,
}

/// Clients that go elsewhere than before when a region is down.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MoveWhenDown {
    /// The region that is down.
    pub down: RegionId,
    /// Where they go, and will go.
    #[serde(flatten)]
    pub moves: Move,
}

/// Clients whose fence differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FenceChange {
    /// The regions that come into the fence, or leave it.
    pub regions: Vec<RegionId>,
    /// The countries where they may be processed from now on, or no longer.
    pub countries: Vec<CountryCode>,
    /// Whether that is anywhere.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub anywhere: bool,
    /// Who they are.
    #[serde(flatten)]
    pub who: Who,
}

/// Clients that one region alone can serve.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alone {
    /// The region.
    pub region: RegionId,
    /// Who they are.
    #[serde(flatten)]
    pub who: Who,
}

/// Clients with their weight, the heaviest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Who {
    /// By country, or by network.
    pub clients: Vec<Clients>,
    /// All of them.
    pub weight: Weight,
}

/// Clients of one country, or of one network of the rules.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Clients {
    /// Their country by the document in service; `None`: nobody can place them.
    pub country: Option<CountryCode>,
    /// The network of the rules' `networks` that they are in.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    pub network: Option<IpNet>,
    /// How many they are.
    pub weight: Weight,
}

fn as_text<S: serde::Serializer>(network: &Option<IpNet>, serializer: S) -> Result<S::Ok, S::Error> {
    network.map(|network| network.to_string()).serialize(serializer)
}

impl Impact {
    /// Whether some clients' fences get smaller: then all nodes have to take the document at once.
    #[must_use]
    pub fn is_tightened(&self) -> bool {
        self.services.iter().any(|one| !one.tighter.is_empty())
    }

    /// Whether some clients may be processed in a country where they might not be.
    #[must_use]
    pub fn is_widened(&self) -> bool {
        self.services.iter().any(|one| !one.wider.is_empty())
    }

    /// Within how many seconds all resolvers have the new answers, if any change.
    #[must_use]
    pub fn converges_within(&self) -> Option<u32> {
        let changes = |one: &&ServiceImpact| !one.moves.is_empty();
        self.services.iter().filter(changes).map(|one| one.ttl).max()
    }
}

impl ServiceImpact {
    /// Whether anything changes.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.presence != Presence::Both
            || self.was.is_some()
            || !(self.moves.is_empty() && self.moves_when_down.is_empty())
            || !(self.wider.is_empty() && self.tighter.is_empty() && self.alone.is_empty())
    }
}
