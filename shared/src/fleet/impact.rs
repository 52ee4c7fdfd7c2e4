//! What a new rules document changes for clients. A fence is the regions of a service that may process a client. Takes
//! two tables (compiled documents) and groups of clients whom both documents treat alike; returns who goes to another
//! region, whose fence gets wider or smaller, and who has no region left. Called by `bailiwick rules diff`, and before
//! a document is published.
//!
//! [`Comparison`] steers every group by both documents, with all regions up and with each region down. That only
//! computes what would happen; it moves no clients. Moves because of load aren't counted, as they change every few
//! seconds.

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
    /// The new revision.
    pub to: u64,
    /// Whether queries were counted. If not, clients are weighed by addresses alone.
    pub has_queries: bool,
    /// What changes, service by service. Services without a change are left out.
    pub services: Vec<ServiceImpact>,
    /// How many services were compared; the fences of tenants count as well.
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
    /// The service's name: the new one, or the old one of a service that is gone.
    pub service: ServiceId,
    /// The service that had these hosts before, if it had another name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<ServiceId>,
    /// The hosts that this is about; empty: all hosts of the service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// The tenants that this is about; empty: clients without a tenant, which all clients are to DNS.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<TenantId>,
    /// Whether both documents have the service.
    pub presence: Presence,
    /// All clients with a known place, and all queries.
    pub total: Weight,
    /// Clients that go to another region.
    pub moved: Weight,
    /// Clients that had a region and have none now.
    pub denied: Weight,
    /// Clients that had no region and have one now.
    pub admitted: Weight,
    /// Clients that may be processed in a country where they might not be before.
    pub leave_fence: Weight,
    /// Which clients go from where to where, the heaviest first.
    pub moves: Vec<Move>,
    /// Which other clients go elsewhere than before while one region is down, beyond `moves`.
    pub moves_when_down: Vec<MoveWhenDown>,
    /// Clients whose fence gets wider.
    pub wider: Vec<FenceChange>,
    /// Clients whose fence gets smaller.
    pub tighter: Vec<FenceChange>,
    /// Clients who have no region left if one fails, and would have had one before.
    pub alone: Vec<SingleRegionClients>,
    /// The fewest regions of any fence that got smaller: 0 if one was emptied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fewest_regions: Option<usize>,
    /// How long resolvers may keep the old answer, in seconds.
    pub ttl: u32,
}

/// Which of the two documents have a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// Both have it.
    Both,
    /// Only the new one has it.
    New,
    /// Only the old one has it.
    Gone,
}

/// Clients that go from one region to another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Move {
    /// Their region by the old document; `None`: no region.
    pub from: Option<RegionId>,
    /// Their region by the new document; `None`: no region.
    pub to: Option<RegionId>,
    /// The clients.
    #[serde(flatten)]
    pub who: AffectedClients,
}

/// Clients that go elsewhere than before when a region is down.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MoveWhenDown {
    /// The region that is down.
    pub down: RegionId,
    /// Their regions by the old and by the new document.
    #[serde(flatten)]
    pub moves: Move,
}

/// Clients whose fence differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FenceChange {
    /// The regions that enter the fence, or leave it.
    pub regions: Vec<RegionId>,
    /// The countries where they may be processed from now on, or no longer.
    pub countries: Vec<CountryCode>,
    /// Whether they may be processed in any country from now on, or no longer.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub anywhere: bool,
    /// The clients.
    #[serde(flatten)]
    pub who: AffectedClients,
}

/// Clients that only one region can serve.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SingleRegionClients {
    /// The only region that can serve them.
    pub region: RegionId,
    /// The clients.
    #[serde(flatten)]
    pub who: AffectedClients,
}

/// Clients, listed with the heaviest first, and their weight.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AffectedClients {
    /// By country, or by network.
    pub clients: Vec<Clients>,
    /// The sum over all of them.
    pub weight: Weight,
}

/// Clients of one country, or of one network of the rules.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Clients {
    /// Their country by the document in service; `None`: unknown.
    pub country: Option<CountryCode>,
    /// The network in the rules' `networks` that they are in.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    pub network: Option<IpNet>,
    /// How many clients these are.
    pub weight: Weight,
}

fn as_text<S: serde::Serializer>(network: &Option<IpNet>, serializer: S) -> Result<S::Ok, S::Error> {
    network.map(|network| network.to_string()).serialize(serializer)
}

impl Impact {
    /// Whether some clients' fences get smaller. Such a document has to go to all nodes at once.
    #[must_use]
    pub fn is_tightened(&self) -> bool {
        self.services.iter().any(|service| !service.tighter.is_empty())
    }

    /// Whether some clients may be processed in a country where they might not be before.
    #[must_use]
    pub fn is_widened(&self) -> bool {
        self.services.iter().any(|service| !service.wider.is_empty())
    }

    /// Within how many seconds all resolvers have the new answers; `None` if none change.
    #[must_use]
    pub fn converges_within(&self) -> Option<u32> {
        let changes = |service: &&ServiceImpact| !service.moves.is_empty();
        self.services.iter().filter(changes).map(|service| service.ttl).max()
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
