//! The compiled rules document. Takes JSON bytes, returns a [`Table`] that [`crate::steer`] can follow, or every
//! violation. Called by all code that loads rules.
//!
//! A client's fence is the set of regions of a service that may process the client. The regions of a fence that rank
//! alike form a tier. "Compiled" means that names are replaced by indexes, and countries are looked up.

mod build;
mod bundles;
mod check;
#[cfg(any(test, feature = "drills"))]
mod drills;
mod fleet;
mod hosts;
mod index;
mod logs;
mod needs;
mod networks;
mod quotas;
mod releases;
mod revision;
mod rollouts;
mod territories;
mod warn;

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use subtle::ConstantTimeEq;

pub use build::Compiling;
pub use bundles::NewVersion;
pub use fleet::{Fleet, Voter};
use hosts::Hosts;
pub use index::{
    JurisdictionIndex, QuotaIndex, RegionIndex, ReleaseIndex, ReplicaIndex, ServiceIndex, SinkIndex, TenantIndex,
    TierIndex,
};
use logs::Logs;
pub use logs::Sink;
use needs::Needs;
pub use needs::{RegionReplica, Replica};
pub use networks::NetworkPlace;
use networks::Networks;
pub use quotas::{Quota, TenantLimits, Tiers};
pub use releases::Release;
pub(crate) use releases::endpoint_model;
pub use revision::{Revision, Succession};
pub use rollouts::Rollout;
use territories::{Territories, position};

use crate::geo::{Coordinates, CountryCode, CountrySet};
use crate::health::ReplicaSet;
use crate::id::{BundleId, EndpointId, JurisdictionId, Overridden, RegionId, ServiceId, TenantId, TierId};
use crate::json::Violation;
use crate::rules::{
    self, Allowance, Answers, Endpoint, Hub, KeyDigest, Limits, Monitor, Override, Pattern, Receipts, TtlBounds,
    WhenAllDown,
};
use crate::time::{Millis, Timestamp};

/// What it costs to build one part of the table, in units of [`Turns`](crate::turns::Turns).
const BUILD: usize = 16;

/// A rules document that was read, found free of violations, and compiled.
#[derive(Debug)]
pub struct Table {
    revision: Revision,
    jurisdictions: Vec<(JurisdictionId, CountrySet)>,
    /// The description that the document gives of each jurisdiction, by index.
    descriptions: Vec<Option<String>>,
    regions: Vec<Region>,
    services: Vec<Service>,
    tenants: Vec<Tenant>,
    quotas: Vec<Quota>,
    tiers: Tiers,
    rollouts: Vec<Rollout>,
    #[cfg(any(test, feature = "drills"))]
    drills: Vec<(crate::id::DrillId, rules::Drill)>,
    replicas: Vec<Replica>,
    bundles: BTreeMap<BundleId, rules::Bundle>,
    releases: Vec<Release>,
    /// The voters on health. Boxed, as most documents have none.
    fleet: Option<Box<Fleet>>,
    /// The sinks of events. Boxed, as most documents have none.
    logs: Option<Box<Logs>>,
    /// What may be told across borders. Boxed likewise.
    aggregate: Option<Box<rules::Aggregate>>,
    keys: Vec<(KeyDigest, TenantIndex)>,
    hosts: Hosts,
    networks: Networks,
    stale_for: Millis,
    /// The override of each region, by region index, with its position in the document's list.
    overrides: Vec<Option<(usize, Override)>>,
    /// The overrides of single endpoints, which are few: region, position of the endpoint, position in the document's
    /// list, override.
    endpoint_overrides: Vec<(RegionIndex, usize, usize, Override)>,
    warnings: Vec<Violation>,
}

/// A region, compiled.
#[derive(Debug)]
pub struct Region {
    /// The region's name.
    pub id: RegionId,
    /// All countries that the region may process in.
    pub countries: CountrySet,
    /// The region's location; `None` if the region may process anywhere and the document gives no location.
    pub location: Option<Coordinates>,
    /// Whether the region comes after every other in the order of a fence.
    pub standby: bool,
    /// The records that DNS answers for the region.
    pub answers: Option<Answers>,
    /// The region's endpoints, by name.
    pub endpoints: Vec<(EndpointId, Endpoint)>,
    /// The health check of the region as a whole.
    pub monitor: Option<Monitor>,
    /// How full the region may get, and its capacity; `None` if the document says nothing of its load.
    pub load: Option<Box<rules::RegionLoad>>,
    /// The region's copies of replicas of knowledge, by name.
    pub replicas: Vec<RegionReplica>,
}

impl Region {
    /// How many requests the region serves at once with all its endpoints, if the rules say it.
    #[must_use]
    pub fn capacity(&self) -> Option<u32> {
        self.load.as_ref()?.capacity
    }

    /// The health checks of the region and of its endpoints, each with its JSON pointer in the rules.
    pub fn monitors(&self) -> impl Iterator<Item = (String, &Monitor)> {
        let of_endpoints = self.endpoints.iter().filter_map(|(id, endpoint)| {
            Some((format!("/regions/{}/endpoints/{id}/monitor", self.id), endpoint.monitor.as_ref()?))
        });
        let own = self.monitor.iter().map(|monitor| (format!("/regions/{}/monitor", self.id), monitor));
        own.chain(of_endpoints)
    }

    /// The sources of the loads of its endpoints, each with its JSON pointer in the rules.
    pub fn load_sources(&self) -> impl Iterator<Item = (String, &rules::LoadSource)> {
        self.endpoints.iter().filter_map(|(id, endpoint)| {
            Some((format!("/regions/{}/endpoints/{id}/load", self.id), endpoint.load.as_deref()?))
        })
    }
}

/// A service, compiled.
#[derive(Debug)]
pub struct Service {
    /// The service's name.
    pub id: ServiceId,
    /// The host names that are steered to this service.
    pub hosts: Vec<rules::SteeredHost>,
    /// How the regions of a fence are ordered. A fence is the regions that may process a client.
    pub pattern: Pattern,
    /// Its regions, in the order of the document.
    pub regions: Vec<RegionIndex>,
    /// The service's residency rules.
    pub residency: Vec<ResidencyRule>,
    /// What happens when every region of a client's fence is withheld.
    pub when_all_down: WhenAllDown,
    /// The bounds of DNS TTLs.
    pub ttl: TtlBounds,
    /// The records that DNS answers when steering offers no region.
    pub denied_answers: Option<Answers>,
    /// The hub of `hub-and-spoke`.
    pub hub: Option<Hub>,
    /// The limits at the edge.
    pub limits: Limits,
    /// Requests that could leave the fence, which the edge allows although it refuses them by default.
    pub allow: Vec<Allowance>,
    /// Whether the edge's answers carry a signed receipt.
    pub receipts: Receipts,
    /// The web pages of other origins that may send requests to the service.
    pub cors: Option<rules::Cors>,
    /// After how long without an answer the edge begins a stream with comments.
    pub keepalive: Option<Millis>,
    /// How the edge passes streams on.
    pub streams: rules::Streams,
    /// How its clients may be moved because of load.
    pub shedding: Shedding,
    /// The property by which the edge orders regions of one tier.
    pub order: rules::Order,
    /// Its guard: how much of each of its fences health may take away at once.
    pub guard: Option<rules::Guard>,
    /// The replicas of knowledge that its requests need; `None` if they need none. Boxed, as most documents have none.
    needs: Option<Box<Needs>>,
    /// Whether prompts and answers of the service go to its sinks too.
    pub log_content: bool,
    /// Whether any tenant names the service. Then only clients with a known key may use it.
    pub requires_key: bool,
}

impl Service {
    /// Whether `path` (without `/v1`) belongs to the hub: it begins with the segments of one of the hub's paths.
    #[must_use]
    pub fn is_hub_path(&self, path: &str) -> bool {
        let Some(hub) = &self.hub else { return false };
        let within = |prefix: &String| {
            path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        hub.paths.iter().any(within)
    }

    /// Whether this service ranks regions for inference like `other`, for every client. Both services belong to the
    /// same table, or to two tables whose regions and jurisdictions are equal.
    #[must_use]
    pub fn ranks_like(&self, other: &Self) -> bool {
        self.pattern == other.pattern
            && self.when_all_down == other.when_all_down
            && self.residency == other.residency
            && self.needs_everywhere() == other.needs_everywhere()
    }

    /// The replicas that a request of `path` (without `/v1`) needs.
    #[must_use]
    pub fn needs_of(&self, path: &str) -> ReplicaSet {
        self.needs.as_ref().map_or(ReplicaSet::EMPTY, |needs| needs.of(path))
    }

    /// The replicas that every request needs, whatever its path. DNS uses these, as it doesn't know the path.
    #[must_use]
    pub fn needs_everywhere(&self) -> ReplicaSet {
        self.needs.as_ref().map_or(ReplicaSet::EMPTY, |needs| needs.everywhere)
    }
}

/// How clients of a service may be moved because of load, compiled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shedding {
    /// Whether clients may be moved at all.
    pub moves: bool,
    /// Whether DNS or the edge moves them.
    pub at: rules::ShedAt,
    /// How fast they may be moved.
    pub slew: rules::Slew,
}

/// A residency rule, compiled: the clients that it matches, and the fence that it gives them.
#[derive(PartialEq, Eq, Debug)]
pub struct ResidencyRule {
    /// Whether the rule matches any client whose jurisdictions are known.
    pub known: bool,
    /// Whether the rule matches clients whose jurisdictions aren't known.
    pub unknown: bool,
    /// The rule matches clients of these jurisdictions.
    pub jurisdictions: Vec<JurisdictionIndex>,
    /// The fence: the regions that may process these clients, in the order of the service's `regions`.
    pub fence: Vec<Fenced>,
}

/// A region inside a fence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fenced {
    /// The region.
    pub region: RegionIndex,
    /// The first tier of `process_in` in which the region lies, counted from 0.
    pub tier: usize,
    /// The jurisdiction of that tier in which the region lies; `None` for the tier `*`.
    pub jurisdiction: Option<JurisdictionIndex>,
}

/// A tenant, compiled.
#[derive(Debug)]
pub struct Tenant {
    /// The tenant's name.
    pub id: TenantId,
    /// The jurisdictions that the tenant declares for its clients; empty if geography decides.
    pub residency: Vec<JurisdictionIndex>,
    /// The services that the tenant may use.
    pub services: Vec<ServiceIndex>,
    /// How much the tenant may use, and how important it is; `None` if the document says nothing of it.
    pub limits: Option<Box<TenantLimits>>,
    /// The tenant's own fence for each service, in the order of `services`; `None` if the services' residency rules
    /// decide.
    fences: Option<Vec<Arc<[Fenced]>>>,
}

impl Tenant {
    /// Whether the tenant's own `process_in` is its fence, whatever the services' rules say.
    #[must_use]
    pub fn has_fence(&self) -> bool {
        self.fences.is_some()
    }

    /// The tenant's own fence for a service, in the order of the service's `regions`; `None` if the service's residency
    /// rules decide. Empty for a service that the tenant may not use.
    #[must_use]
    pub fn fence(&self, service: ServiceIndex) -> Option<&[Fenced]> {
        let fences = self.fences.as_ref()?;
        let position = self.services.iter().position(|index| *index == service);
        Some(position.and_then(|position| fences.get(position)).map_or(&[][..], |fence| fence))
    }
}

impl Table {
    /// The document's revision and digest.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How long the edge may go on using this document after a source of rules last confirmed it.
    #[must_use]
    pub fn stale_for(&self) -> Millis {
        self.stale_for
    }

    /// All regions, sorted by name.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// All services, sorted by name.
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// All tenants, sorted by name.
    #[must_use]
    pub fn tenants(&self) -> &[Tenant] {
        &self.tenants
    }

    /// All quotas, sorted by name.
    #[must_use]
    pub fn quotas(&self) -> &[Quota] {
        &self.quotas
    }

    /// All replicas of knowledge, sorted by name.
    #[must_use]
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// The nodes that vote on health; `None` if there is no vote and each node uses its own probes.
    #[must_use]
    pub fn fleet(&self) -> Option<&Fleet> {
        self.fleet.as_deref()
    }

    /// What may be told across borders; `None` if nothing is.
    #[must_use]
    pub fn aggregate(&self) -> Option<&rules::Aggregate> {
        self.aggregate.as_deref()
    }

    /// The index of the quota of that name.
    #[must_use]
    pub fn quota_named(&self, name: &str) -> Option<QuotaIndex> {
        position(&self.quotas, |quota| quota.id.as_str() == name).map(QuotaIndex::new)
    }

    /// Whether regions of a service are ordered by the time to the first token, for some tenant or for all.
    #[must_use]
    pub fn orders_by_first_token(&self, service: ServiceIndex) -> bool {
        let is_wanted = |(_, tier): &(TierId, rules::ServiceTier)| tier.order == Some(rules::Order::FirstToken);
        self.service(service).order == rules::Order::FirstToken || self.tiers.all().iter().any(is_wanted)
    }

    /// All service tiers.
    #[must_use]
    pub fn tiers(&self) -> &Tiers {
        &self.tiers
    }

    /// The service tier of a tenant, with the tier's name.
    #[must_use]
    pub fn tier_of(&self, tenant: &Tenant) -> Option<(&TierId, &rules::ServiceTier)> {
        self.tiers.get(tenant.limits.as_ref()?.tier?)
    }

    /// The replica at an index.
    ///
    /// # Panics
    /// If the table has no such index, as it comes from another table.
    #[must_use]
    pub fn replica(&self, index: ReplicaIndex) -> &Replica {
        &self.replicas[index.get()]
    }

    /// The region at an index.
    ///
    /// # Panics
    /// If the table has no such index, as it comes from another table.
    #[must_use]
    pub fn region(&self, index: RegionIndex) -> &Region {
        &self.regions[index.get()]
    }

    /// The service at an index.
    ///
    /// # Panics
    /// If the table has no such index, as it comes from another table.
    #[must_use]
    pub fn service(&self, index: ServiceIndex) -> &Service {
        &self.services[index.get()]
    }

    /// The tenant at an index.
    ///
    /// # Panics
    /// If the table has no such index, as it comes from another table.
    #[must_use]
    pub fn tenant(&self, index: TenantIndex) -> &Tenant {
        &self.tenants[index.get()]
    }

    /// A jurisdiction's name.
    ///
    /// # Panics
    /// If the table has no such index, as it comes from another table.
    #[must_use]
    pub fn jurisdiction(&self, index: JurisdictionIndex) -> &JurisdictionId {
        &self.jurisdictions[index.get()].0
    }

    /// Every jurisdiction, sorted by name: its name, its countries and the description in the document.
    pub fn jurisdictions(&self) -> impl Iterator<Item = (&JurisdictionId, &CountrySet, Option<&str>)> {
        let descriptions = self.descriptions.iter().map(Option::as_deref);
        self.jurisdictions.iter().zip(descriptions).map(|((name, set), description)| (name, set, description))
    }

    /// Whether this table ranks regions for inference like `other`, for every service and client. Then what was
    /// computed from `other` holds for this table too. Most edits of a document don't change the ranking.
    #[must_use]
    pub fn ranks_like(&self, other: &Self) -> bool {
        let places = |table: &Self| {
            table.regions.iter().map(|region| (region.id.clone(), region.location, region.standby)).collect::<Vec<_>>()
        };
        let replicas = |table: &Self| table.replicas.iter().map(|replica| replica.id.clone()).collect::<Vec<_>>();
        self.jurisdictions == other.jurisdictions
            && replicas(self) == replicas(other)
            && self.networks == other.networks
            && places(self) == places(other)
            && self.services.len() == other.services.len()
            && self.services.iter().zip(&other.services).all(|(service, other)| service.ranks_like(other))
    }

    /// The jurisdictions that have this country.
    #[must_use]
    pub fn jurisdictions_of(&self, country: CountryCode) -> Vec<JurisdictionIndex> {
        let holds = |(_, (_, set)): &(usize, &(JurisdictionId, CountrySet))| set.contains(country);
        self.jurisdictions.iter().enumerate().filter(holds).map(|(i, _)| JurisdictionIndex::new(i)).collect()
    }

    /// The index of the region of that name.
    #[must_use]
    pub fn region_named(&self, name: &str) -> Option<RegionIndex> {
        position(&self.regions, |region| region.id.as_str() == name).map(RegionIndex::new)
    }

    /// The index of the service of that name.
    #[must_use]
    pub fn service_named(&self, name: &str) -> Option<ServiceIndex> {
        position(&self.services, |service| service.id.as_str() == name).map(ServiceIndex::new)
    }

    /// The index of the tenant of that name.
    #[must_use]
    pub fn tenant_named(&self, name: &str) -> Option<TenantIndex> {
        position(&self.tenants, |tenant| tenant.id.as_str() == name).map(TenantIndex::new)
    }

    /// The service of a host name: any case, no final dot, no port. If no service has this very name, wildcards match
    /// it as in DNS (RFC 4592).
    #[must_use]
    pub fn service_of_host(&self, host: &str) -> Option<ServiceIndex> {
        self.hosts.service_of(host)
    }

    /// The tenant whose key has this digest. Takes the same time whichever key matches, or if none does.
    #[must_use]
    pub fn tenant_of_key(&self, digest: &KeyDigest) -> Option<TenantIndex> {
        let mut tenant_of_key = None;
        for (known_digest, tenant) in &self.keys {
            if bool::from(known_digest.0.ct_eq(&digest.0)) {
                tenant_of_key = Some(*tenant);
            }
        }
        tenant_of_key
    }

    /// What `networks` of the rules says of an address; the longest matching prefix counts. A v4-mapped address is
    /// looked up as IPv4.
    #[must_use]
    pub fn network_of(&self, address: IpAddr) -> Option<NetworkPlace> {
        self.networks.longest_match(address)
    }

    /// All prefixes of `networks`, in no particular order.
    pub fn network_prefixes(&self) -> impl Iterator<Item = IpNet> {
        self.networks.prefixes()
    }

    /// The index of the region that an override is of, and the position of its endpoint in the region, if it is of an
    /// endpoint. `None` if the table doesn't have them.
    #[must_use]
    pub fn place_of(&self, of: &Overridden) -> Option<(RegionIndex, Option<usize>)> {
        let region = self.region_named(of.region.as_str())?;
        let Some(endpoint) = &of.endpoint else { return Some((region, None)) };
        let at = position(&self.region(region).endpoints, |(id, _)| id == endpoint)?;
        Some((region, Some(at)))
    }

    /// The document's override of a region, even if it has ended.
    #[must_use]
    pub fn override_of(&self, region: RegionIndex) -> Option<&Override> {
        self.overrides.get(region.get())?.as_ref().map(|(_, forced)| forced)
    }

    /// The document's overrides of single endpoints, even if they have ended: region, position of the endpoint,
    /// override.
    pub fn endpoint_overrides(&self) -> impl ExactSizeIterator<Item = (RegionIndex, usize, &Override)> {
        self.endpoint_overrides.iter().map(|(region, position, _, forced)| (*region, *position, forced))
    }

    /// Warnings: what is allowed but probably not meant.
    #[must_use]
    pub fn warnings(&self, now: Timestamp) -> Vec<Violation> {
        let of_regions = self.overrides.iter().flatten().map(|(place, forced)| (place, forced));
        let of_endpoints = self.endpoint_overrides.iter().map(|(_, _, place, forced)| (place, forced));
        let expired = of_regions.chain(of_endpoints).filter(|(_, forced)| forced.until <= now);
        let expired = expired.map(|(place, forced)| Violation {
            pointer: format!("/overrides/{place}"),
            message: format!("the override of {} ended at {}; remove it", forced.of(), forced.until),
        });
        self.warnings.iter().cloned().chain(expired).collect()
    }
}

#[cfg(test)]
mod tests;
