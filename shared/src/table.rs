//! The compiled rule book: JSON bytes in; a [`Table`] that [`crate::steer`] can follow, or every violation, out.

mod build;
mod bundles;
mod check;
mod fleet;
mod hosts;
mod index;
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
    JurisdictionIndex, QuotaIndex, RegionIndex, ReleaseIndex, ReplicaIndex, ServiceIndex, TenantIndex, TierIndex,
};
use needs::Needs;
pub use needs::{RegionReplica, Replica};
pub use networks::NetworkPlace;
use networks::Networks;
pub use quotas::{Quota, TenantLimits, Tiers};
pub use releases::Release;
pub(crate) use releases::call;
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

/// The work of building a part of the table from a part of the rules, in units of [`Turns`](crate::turns::Turns).
const BUILD: usize = 16;

/// A rules document that was read, found free of violations, and compiled.
#[derive(Debug)]
pub struct Table {
    revision: Revision,
    jurisdictions: Vec<(JurisdictionId, CountrySet)>,
    /// What each jurisdiction means, by index.
    descriptions: Vec<Option<String>>,
    regions: Vec<Region>,
    services: Vec<Service>,
    tenants: Vec<Tenant>,
    quotas: Vec<Quota>,
    tiers: Tiers,
    rollouts: Vec<Rollout>,
    replicas: Vec<Replica>,
    bundles: BTreeMap<BundleId, rules::Bundle>,
    releases: Vec<Release>,
    /// Boxed, as most documents have none.
    fleet: Option<Box<Fleet>>,
    keys: Vec<(KeyDigest, TenantIndex)>,
    hosts: Hosts,
    networks: Networks,
    stale_for: Millis,
    /// By region, with the place in the document.
    overrides: Vec<Option<(usize, Override)>>,
    /// Those of single endpoints, few: region, position of the endpoint, place in the document.
    endpoint_overrides: Vec<(RegionIndex, usize, usize, Override)>,
    warnings: Vec<Violation>,
}

/// A region, compiled.
#[derive(Debug)]
pub struct Region {
    /// Its name.
    pub id: RegionId,
    /// All countries it may process in.
    pub countries: CountrySet,
    /// Where it stands; `None` for one that processes anywhere and says no place.
    pub location: Option<Coordinates>,
    /// Whether it sorts after every other.
    pub standby: bool,
    /// What DNS answers for it.
    pub answers: Option<Answers>,
    /// Its endpoints, by name.
    pub endpoints: Vec<(EndpointId, Endpoint)>,
    /// Its own health check.
    pub monitor: Option<Monitor>,
    /// How full it may get, and what it carries; `None`: the document says nothing of its load.
    pub load: Option<Box<rules::RegionLoad>>,
    /// Its copies of replicas, by name.
    pub replicas: Vec<RegionReplica>,
}

impl Region {
    /// How many requests it serves at once with all its endpoints, if the rules say it.
    #[must_use]
    pub fn capacity(&self) -> Option<u32> {
        self.load.as_ref()?.capacity
    }

    /// Its own health check and those of its endpoints, each with its place in the rules.
    pub fn monitors(&self) -> impl Iterator<Item = (String, &Monitor)> {
        let of_endpoints = self.endpoints.iter().filter_map(|(id, endpoint)| {
            Some((format!("/regions/{}/endpoints/{id}/monitor", self.id), endpoint.monitor.as_ref()?))
        });
        let own = self.monitor.iter().map(|monitor| (format!("/regions/{}/monitor", self.id), monitor));
        own.chain(of_endpoints)
    }

    /// Where the loads of its endpoints are read, each with its place in the rules.
    pub fn load_sources(&self) -> impl Iterator<Item = (String, &rules::LoadSource)> {
        self.endpoints.iter().filter_map(|(id, endpoint)| {
            Some((format!("/regions/{}/endpoints/{id}/load", self.id), endpoint.load.as_deref()?))
        })
    }
}

/// A service, compiled.
#[derive(Debug)]
pub struct Service {
    /// Its name.
    pub id: ServiceId,
    /// The host names it is steered under.
    pub hosts: Vec<rules::SteeredHost>,
    /// How regions inside the fence are ordered.
    pub pattern: Pattern,
    /// Its regions in the order written.
    pub regions: Vec<RegionIndex>,
    /// Its residency rules.
    pub residency: Vec<ResidencyRule>,
    /// What happens when all of the fence is withheld.
    pub when_all_down: WhenAllDown,
    /// Bounds of DNS TTLs.
    pub ttl: TtlBounds,
    /// What DNS answers when steering offers nothing.
    pub denied_answers: Option<Answers>,
    /// The hub of `hub-and-spoke`.
    pub hub: Option<Hub>,
    /// Limits at the edge.
    pub limits: Limits,
    /// What a fenced service refuses unless listed.
    pub allow: Vec<Allowance>,
    /// Whether the edge's answers carry a signed receipt.
    pub receipts: Receipts,
    /// Which web pages may ask.
    pub cors: Option<rules::Cors>,
    /// After which silence the edge begins a stream with comments.
    pub keepalive: Option<Millis>,
    /// How the edge passes streams on.
    pub streams: rules::Streams,
    /// How its clients may be moved because of load.
    pub shedding: Shedding,
    /// By what the edge orders regions of one tier.
    pub order: rules::Order,
    /// How much of each of its fences health may take away at once.
    pub guard: Option<rules::Guard>,
    /// The replicas that its requests need; `None`: none. Boxed, as most documents have none.
    needs: Option<Box<Needs>>,
    /// Whether any tenant names it: then only known keys may use it.
    pub requires_key: bool,
}

impl Service {
    /// Whether `path` (without `/v1`) belongs to the hub: one of its prefixes matches whole segments.
    #[must_use]
    pub fn is_hub_path(&self, path: &str) -> bool {
        let Some(hub) = &self.hub else { return false };
        let within = |prefix: &String| {
            path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        hub.paths.iter().any(within)
    }

    /// Whether inference of any client is ranked for this service as for `other` of the same table.
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

    /// The replicas that every request needs, whatever its path: DNS goes by these.
    #[must_use]
    pub fn needs_everywhere(&self) -> ReplicaSet {
        self.needs.as_ref().map_or(ReplicaSet::EMPTY, |needs| needs.everywhere)
    }
}

/// How clients of a service may be moved because of load, compiled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shedding {
    /// Whether they may be moved at all.
    pub moves: bool,
    /// Which half moves them.
    pub at: rules::ShedAt,
    /// How fast.
    pub slew: rules::Slew,
}

/// A residency rule, compiled: whom it takes, and the fence it gives them.
#[derive(PartialEq, Eq, Debug)]
pub struct ResidencyRule {
    /// Takes any client that can be placed.
    pub known: bool,
    /// Takes clients nobody can place.
    pub unknown: bool,
    /// Takes clients of these.
    pub jurisdictions: Vec<JurisdictionIndex>,
    /// The fence, in the order the service writes its regions.
    pub fence: Vec<Fenced>,
}

/// A region inside a fence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fenced {
    /// The region.
    pub region: RegionIndex,
    /// The first tier of `process_in` in which it lies, from 0.
    pub tier: usize,
    /// The jurisdiction of that tier in which it lies; `None` for the tier `*`.
    pub jurisdiction: Option<JurisdictionIndex>,
}

/// A tenant, compiled.
#[derive(Debug)]
pub struct Tenant {
    /// Its name.
    pub id: TenantId,
    /// Its declared residency; empty: by geography.
    pub residency: Vec<JurisdictionIndex>,
    /// The services it may use.
    pub services: Vec<ServiceIndex>,
    /// How much it may use, and how important it is; `None`: the document says nothing of it.
    pub limits: Option<Box<TenantLimits>>,
    /// Its own fence by service, in the order of `services`; `None`: the services' rules give it one.
    fences: Option<Vec<Arc<[Fenced]>>>,
}

impl Tenant {
    /// Whether its own `process_in` is its fence, whatever the services' rules say.
    #[must_use]
    pub fn has_fence(&self) -> bool {
        self.fences.is_some()
    }

    /// Its own fence for a service, in the order the service writes its regions; `None`: the service's rules give it
    /// one. Empty for a service it may not use.
    #[must_use]
    pub fn fence(&self, service: ServiceIndex) -> Option<&[Fenced]> {
        let fences = self.fences.as_ref()?;
        let position = self.services.iter().position(|one| *one == service);
        Some(position.and_then(|position| fences.get(position)).map_or(&[][..], |fence| fence))
    }
}

impl Table {
    /// Which document this is.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How long the edge may serve by this document after a source last confirmed it.
    #[must_use]
    pub fn stale_for(&self) -> Millis {
        self.stale_for
    }

    /// All regions, by name.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// All services, by name.
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// All tenants, by name.
    #[must_use]
    pub fn tenants(&self) -> &[Tenant] {
        &self.tenants
    }

    /// All quotas, by name.
    #[must_use]
    pub fn quotas(&self) -> &[Quota] {
        &self.quotas
    }

    /// All replicas of knowledge, by name.
    #[must_use]
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// Who votes on health; `None`: nobody, so that each node goes by its own probes.
    #[must_use]
    pub fn fleet(&self) -> Option<&Fleet> {
        self.fleet.as_deref()
    }

    /// The quota of that name.
    #[must_use]
    pub fn quota_named(&self, name: &str) -> Option<QuotaIndex> {
        position(&self.quotas, |quota| quota.id.as_str() == name).map(QuotaIndex::new)
    }

    /// Whether regions of a service are ordered by the first token, for some tenant or for all.
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

    /// The service tier of a tenant, and its name.
    #[must_use]
    pub fn tier_of(&self, tenant: &Tenant) -> Option<(&TierId, &rules::ServiceTier)> {
        self.tiers.get(tenant.limits.as_ref()?.tier?)
    }

    /// One replica.
    ///
    /// # Panics
    /// If the index is another table's.
    #[must_use]
    pub fn replica(&self, index: ReplicaIndex) -> &Replica {
        &self.replicas[index.get()]
    }

    /// One region.
    ///
    /// # Panics
    /// If the index is another table's.
    #[must_use]
    pub fn region(&self, index: RegionIndex) -> &Region {
        &self.regions[index.get()]
    }

    /// One service.
    ///
    /// # Panics
    /// If the index is another table's.
    #[must_use]
    pub fn service(&self, index: ServiceIndex) -> &Service {
        &self.services[index.get()]
    }

    /// One tenant.
    ///
    /// # Panics
    /// If the index is another table's.
    #[must_use]
    pub fn tenant(&self, index: TenantIndex) -> &Tenant {
        &self.tenants[index.get()]
    }

    /// A jurisdiction's name.
    ///
    /// # Panics
    /// If the index is another table's.
    #[must_use]
    pub fn jurisdiction(&self, index: JurisdictionIndex) -> &JurisdictionId {
        &self.jurisdictions[index.get()].0
    }

    /// Every jurisdiction by name, with its countries and what the document says it means.
    pub fn jurisdictions(&self) -> impl Iterator<Item = (&JurisdictionId, &CountrySet, Option<&str>)> {
        let descriptions = self.descriptions.iter().map(Option::as_deref);
        self.jurisdictions.iter().zip(descriptions).map(|((name, set), description)| (name, set, description))
    }

    /// Whether inference of any client is ranked for every service as by `other`, so that what was computed of that one
    /// holds for this one: most edits are of other things.
    #[must_use]
    pub fn ranks_like(&self, other: &Self) -> bool {
        let places = |table: &Self| {
            table.regions.iter().map(|one| (one.id.clone(), one.location, one.standby)).collect::<Vec<_>>()
        };
        let replicas = |table: &Self| table.replicas.iter().map(|one| one.id.clone()).collect::<Vec<_>>();
        self.jurisdictions == other.jurisdictions
            && replicas(self) == replicas(other)
            && self.networks == other.networks
            && places(self) == places(other)
            && self.services.len() == other.services.len()
            && self.services.iter().zip(&other.services).all(|(one, other)| one.ranks_like(other))
    }

    /// Every jurisdiction that holds `country`.
    #[must_use]
    pub fn jurisdictions_of(&self, country: CountryCode) -> Vec<JurisdictionIndex> {
        let holds = |(_, (_, set)): &(usize, &(JurisdictionId, CountrySet))| set.contains(country);
        self.jurisdictions.iter().enumerate().filter(holds).map(|(i, _)| JurisdictionIndex::new(i)).collect()
    }

    /// The region of that name.
    #[must_use]
    pub fn region_named(&self, name: &str) -> Option<RegionIndex> {
        position(&self.regions, |region| region.id.as_str() == name).map(RegionIndex::new)
    }

    /// The service of that name.
    #[must_use]
    pub fn service_named(&self, name: &str) -> Option<ServiceIndex> {
        position(&self.services, |service| service.id.as_str() == name).map(ServiceIndex::new)
    }

    /// The tenant of that name.
    #[must_use]
    pub fn tenant_named(&self, name: &str) -> Option<TenantIndex> {
        position(&self.tenants, |tenant| tenant.id.as_str() == name).map(TenantIndex::new)
    }

    /// The service steered under a host name: any case, no final dot, no port. Where no host is this very name,
    /// wildcards stand for it as in DNS (RFC 4592).
    #[must_use]
    pub fn service_of_host(&self, host: &str) -> Option<ServiceIndex> {
        self.hosts.service_of(host)
    }

    /// The tenant whose key has this digest. Takes the same time whichever matches, or none.
    #[must_use]
    pub fn tenant_of_key(&self, digest: &KeyDigest) -> Option<TenantIndex> {
        let mut found = None;
        for (known, tenant) in &self.keys {
            if bool::from(known.0.ct_eq(&digest.0)) {
                found = Some(*tenant);
            }
        }
        found
    }

    /// What `networks` says of an address: the longest prefix. A v4-mapped address is looked up as IPv4.
    #[must_use]
    pub fn network_of(&self, address: IpAddr) -> Option<NetworkPlace> {
        self.networks.longest_match(address)
    }

    /// All prefixes of `networks`, in no particular order.
    pub fn network_prefixes(&self) -> impl Iterator<Item = IpNet> {
        self.networks.prefixes()
    }

    /// Where what an override is of stands: its region, and its endpoint's position there; `None` where there is no
    /// such.
    #[must_use]
    pub fn place_of(&self, of: &Overridden) -> Option<(RegionIndex, Option<usize>)> {
        let region = self.region_named(of.region.as_str())?;
        let Some(endpoint) = &of.endpoint else { return Some((region, None)) };
        let at = position(&self.region(region).endpoints, |(id, _)| id == endpoint)?;
        Some((region, Some(at)))
    }

    /// The document's override of a region, expired or not.
    #[must_use]
    pub fn override_of(&self, region: RegionIndex) -> Option<&Override> {
        self.overrides.get(region.get())?.as_ref().map(|(_, forced)| forced)
    }

    /// The document's overrides of single endpoints, expired or not: region, position of the endpoint, override.
    pub fn endpoint_overrides(&self) -> impl ExactSizeIterator<Item = (RegionIndex, usize, &Override)> {
        self.endpoint_overrides.iter().map(|(region, position, _, forced)| (*region, *position, forced))
    }

    /// What is allowed but probably not meant.
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
