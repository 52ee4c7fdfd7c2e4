//! The compiled rule book: JSON bytes in; a [`Table`] that [`crate::steer`] can follow, or every violation, out.

mod check;
mod hosts;
mod networks;
mod quotas;
mod revision;
mod warn;

use core::net::IpAddr;
use core::pin::Pin;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ipnet::IpNet;
use subtle::ConstantTimeEq;

use hosts::Hosts;
pub use networks::NetworkPlace;
use networks::Networks;
pub use quotas::{Quota, TenantLimits, Tiers};
pub use revision::{Revision, Succession};

use crate::geo::{self, Coordinates, CountryCode, CountrySet};
use crate::id::{EndpointId, JurisdictionId, Overridden, RegionId, ServiceId, TenantId};
use crate::json::{Node, Reader, Violation};
use crate::rules::{
    self, Allowance, Answers, ClientMatch, Endpoint, Hub, KeyDigest, Limits, Monitor, Override, Pattern, Place,
    Receipts, Rules, Tier, TtlBounds, WhenAllDown,
};
use crate::time::{Millis, Timestamp};
use crate::turns::{self, Turns};

/// The work of building a part of the table from a part of the rules, in units of [`Turns`].
const BUILD: usize = 16;

macro_rules! index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub u32);

        impl $name {
            /// The position as an array index.
            #[must_use]
            pub fn get(self) -> usize {
                self.0 as usize
            }

            // A document of four thousand million names doesn't fit in memory.
            #[allow(clippy::cast_possible_truncation)]
            pub(crate) fn new(position: usize) -> Self {
                Self(position as u32)
            }
        }
    };
}

index!(
    /// A region's position in its table. It means nothing in another table.
    RegionIndex
);
index!(
    /// A service's position in its table.
    ServiceIndex
);
index!(
    /// A tenant's position in its table.
    TenantIndex
);
index!(
    /// A quota's position in its table.
    QuotaIndex
);
index!(
    /// A service tier's position in its table.
    TierIndex
);
index!(
    /// A jurisdiction's position in its table.
    JurisdictionIndex
);

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
}

impl Region {
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
        self.pattern == other.pattern && self.when_all_down == other.when_all_down && self.residency == other.residency
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
    /// Reads, checks and compiles a rules document.
    ///
    /// # Errors
    /// Every violation in the document, not only the first.
    ///
    /// ```
    /// use bailiwick_rules::table::Table;
    /// let violations = Table::compile(br#"{"version": 2, "regoins": {}}"#).unwrap_err();
    /// let places: Vec<_> = violations.iter().map(|violation| violation.pointer.as_str()).collect();
    /// assert_eq!(places, ["/version", "/revision", "/regoins"]);
    /// ```
    pub fn compile(bytes: &[u8]) -> Result<Self, Vec<Violation>> {
        Self::compile_at_once(bytes, warn::warnings)
    }

    /// [`Table::compile`] without [`Table::warnings`], for a program that shows them to nobody: the Worker then carries
    /// none of their code.
    ///
    /// # Errors
    /// Every violation in the document, not only the first.
    pub fn compile_quietly(bytes: &[u8]) -> Result<Self, Vec<Violation>> {
        Self::compile_at_once(bytes, |_, _, _, _, _| Vec::new())
    }

    /// [`Table::compile_quietly`] in turns, for a program that serves others between two of them. `sha256` is that of
    /// the bytes, by [`Revision::digest_in_turns`].
    ///
    /// Two things are read in one turn, however large they are: a text that isn't JSON, up to its mistake, and a single
    /// member of `tenants`, `services` and the like.
    ///
    /// # Errors
    /// Every violation in the document, not only the first.
    pub fn compile_in_turns<'a, 'p: 'a>(bytes: &'a [u8], sha256: [u8; 32], turns: &'a mut Turns<'p>) -> Compiling<'a> {
        Self::compile_by(bytes, sha256, |_, _, _, _, _| Vec::new(), turns)
    }

    fn compile_at_once(bytes: &[u8], warnings: Warnings) -> Result<Self, Vec<Violation>> {
        let turns = &mut Turns::unbroken();
        turns::at_once(async {
            let sha256 = Revision::digest_in_turns(bytes, turns).await;
            Self::compile_by(bytes, sha256, warnings, turns).await
        })
    }

    fn compile_by<'a, 'p: 'a>(
        bytes: &'a [u8],
        sha256: [u8; 32],
        warnings: Warnings,
        turns: &'a mut Turns<'p>,
    ) -> Compiling<'a> {
        Box::pin(async move {
            let node = Node::parse_in_turns(bytes, turns).await.map_err(|violation| vec![violation])?;
            let mut violations = Vec::new();
            let rules = rules::read::rules(&mut Reader::new(&mut violations), &node, turns).await;
            node.free(turns).await;
            let Some(rules) = rules else { return Err(violations) };
            check::services(&rules, &mut violations);
            check::cors(&rules, &mut violations);
            check::shedding(&rules, &mut violations);
            check::quotas(&rules, &mut violations);
            check::tenants(&rules, &mut violations, turns).await;
            if !violations.is_empty() {
                return Err(violations);
            }
            let revision = Revision { number: rules.revision, sha256 };
            Ok(Self::build(rules, revision, warnings, turns).await)
        })
    }

    async fn build(mut rules: Rules, revision: Revision, warnings: Warnings, turns: &mut Turns<'_>) -> Self {
        let territories = Territories::new(&rules);
        let named_by_regions = warn::named_by_regions(&rules);
        let regions: Vec<Region> = core::mem::take(&mut rules.regions)
            .into_iter()
            .map(|(id, region)| build_region(id, region, &territories))
            .collect();
        let hosts = Hosts::new(rules.services.values().map(|service| service.hosts.as_slice()));
        let warnings = warnings(&rules, &regions, &named_by_regions, &territories, &hosts);
        let region = |id: &RegionId| position(&regions, |region| region.id == *id).map(RegionIndex::new);

        let mut services = Vec::with_capacity(rules.services.len());
        for (id, service) in rules.services {
            turns.spend(BUILD * service.regions.len() * (1 + service.residency.len())).await;
            let members: Vec<RegionIndex> = service.regions.iter().filter_map(region).collect();
            services.push(build_service(id, service, members, &regions, &territories));
        }
        let quotas = quotas::build(core::mem::take(&mut rules.quotas), &rules.tenants);
        let tiers = Tiers::new(core::mem::take(&mut rules.tiers));
        let (tenants, keys) = build_tenants(rules.tenants, &mut services, &tiers, &regions, &territories, turns).await;

        let mut overrides = vec![None; regions.len()];
        let mut endpoint_overrides = Vec::new();
        for (place, forced) in rules.overrides.into_iter().enumerate() {
            let Some(index) = region(&forced.region) else { continue };
            match &forced.endpoint {
                None => overrides[index.get()] = Some((place, forced)),
                Some(endpoint) => {
                    let at = position(&regions[index.get()].endpoints, |(id, _)| id == endpoint);
                    endpoint_overrides.extend(at.map(|at| (index, at, place, forced)));
                }
            }
        }
        Self {
            revision,
            networks: Networks::new(&rules.networks, turns).await,
            stale_for: rules.rules.stale_for,
            jurisdictions: territories.0,
            descriptions: rules.jurisdictions.into_values().map(|one| one.description).collect(),
            regions,
            services,
            tenants,
            quotas,
            tiers,
            keys,
            hosts,
            overrides,
            endpoint_overrides,
            warnings,
        }
    }

    /// Frees its memory in turns.
    pub async fn free(self, turns: &mut Turns<'_>) {
        for tenant in self.tenants {
            turns.spend(BUILD).await;
            drop(tenant);
        }
        for service in self.services {
            turns.spend(BUILD * (1 + service.residency.len())).await;
            drop(service);
        }
        for region in self.regions {
            turns.spend(BUILD * (1 + region.endpoints.len())).await;
            drop(region);
        }
    }

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

    /// The quota of that name.
    #[must_use]
    pub fn quota_named(&self, name: &str) -> Option<QuotaIndex> {
        position(&self.quotas, |quota| quota.id.as_str() == name).map(QuotaIndex::new)
    }

    /// All service tiers.
    #[must_use]
    pub fn tiers(&self) -> &Tiers {
        &self.tiers
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
        self.jurisdictions == other.jurisdictions
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

fn position<T>(items: &[T], matches: impl Fn(&T) -> bool) -> Option<usize> {
    items.iter().position(matches)
}

fn build_region(id: RegionId, region: rules::Region, territories: &Territories) -> Region {
    let set_of = |place: &Place| match place {
        Place::Anywhere => CountrySet::EVERYWHERE,
        Place::Country(country) => CountrySet::from_iter([*country]),
        Place::Jurisdiction(name) => territories.of(name),
    };
    let mut countries = CountrySet::default();
    for place in &region.countries {
        countries.extend(&set_of(place));
    }
    let first = region.countries.first().and_then(|place| set_of(place).iter().next());
    let load = build_load(&region);
    Region {
        id,
        countries,
        location: region.location.or_else(|| geo::centroid(first?)),
        standby: region.standby,
        answers: region.answers,
        endpoints: region.endpoints.into_iter().collect(),
        monitor: region.monitor,
        load,
    }
}

/// The load of a region that says anything of it, with the capacities of its endpoints added up.
fn build_load(region: &rules::Region) -> Option<Box<rules::RegionLoad>> {
    let of_endpoints = region.endpoints.values().filter_map(|one| one.capacity).reduce(u32::saturating_add);
    let said = region.load.or(of_endpoints.map(|_| rules::RegionLoad::default()))?;
    Some(Box::new(rules::RegionLoad { capacity: said.capacity.or(of_endpoints), ..said }))
}

/// The table of a document while it is compiled. It is boxed so that the compiler's code stands once in the Worker,
/// however many places ask for it.
pub type Compiling<'a> = Pin<Box<dyn Future<Output = Result<Table, Vec<Violation>>> + 'a>>;

/// Makes the warnings of a document whose regions are compiled: [`warn::warnings`], or none.
type Warnings = fn(&Rules, &[Region], &BTreeSet<JurisdictionId>, &Territories, &Hosts) -> Vec<Violation>;

/// Every jurisdiction with its countries, by index.
struct Territories(Vec<(JurisdictionId, CountrySet)>);

impl Territories {
    fn new(rules: &Rules) -> Self {
        Self(rules.jurisdictions.iter().map(|(id, one)| (id.clone(), one.territory())).collect())
    }

    fn index(&self, name: &JurisdictionId) -> Option<JurisdictionIndex> {
        position(&self.0, |(id, _)| id == name).map(JurisdictionIndex::new)
    }

    /// The countries of a jurisdiction; none for a name that isn't declared.
    fn of(&self, name: &JurisdictionId) -> CountrySet {
        self.index(name).map(|index| self.0[index.get()].1).unwrap_or_default()
    }

    /// Those of `members` that lie in a tier: each by the first that holds it, and the jurisdiction by which it does.
    fn fence(&self, process_in: &[Tier], members: &[RegionIndex], regions: &[Region]) -> Vec<Fenced> {
        let lies_in = |region: RegionIndex, set: &JurisdictionIndex| {
            regions[region.get()].countries.is_subset(&self.0[set.get()].1)
        };
        let fenced = |&region: &RegionIndex| {
            process_in.iter().enumerate().find_map(|(tier, process_in)| match process_in {
                Tier::Anywhere => Some(Fenced { region, tier, jurisdiction: None }),
                Tier::In(names) => {
                    let found = names.iter().filter_map(|name| self.index(name)).find(|set| lies_in(region, set))?;
                    Some(Fenced { region, tier, jurisdiction: Some(found) })
                }
            })
        };
        members.iter().filter_map(fenced).collect()
    }
}

fn build_service(
    id: ServiceId,
    service: rules::Service,
    members: Vec<RegionIndex>,
    regions: &[Region],
    territories: &Territories,
) -> Service {
    let residency = service.residency.iter().map(|rule| build_rule(rule, &members, regions, territories)).collect();
    let has_endpoints = members.iter().any(|region| !regions[region.get()].endpoints.is_empty());
    let by_default = if has_endpoints { rules::ShedAt::Edge } else { rules::ShedAt::Dns };
    Service {
        id,
        hosts: service.hosts,
        pattern: service.pattern,
        regions: members,
        residency,
        when_all_down: service.when_all_down,
        ttl: service.ttl,
        denied_answers: service.denied_answers,
        hub: service.hub,
        limits: service.limits,
        allow: service.allow,
        receipts: service.receipts,
        cors: service.cors,
        keepalive: service.keepalive,
        streams: service.streams,
        shedding: Shedding {
            moves: service.shed == rules::Shed::Spill && service.pattern != Pattern::RegionalSharding,
            at: service.shed_at.unwrap_or(by_default),
            slew: service.slew,
        },
        requires_key: false,
    }
}

fn build_rule(
    rule: &rules::ResidencyRule,
    members: &[RegionIndex],
    regions: &[Region],
    territories: &Territories,
) -> ResidencyRule {
    let takes = |client: &ClientMatch| rule.clients.contains(client);
    let named = |client: &ClientMatch| match client {
        ClientMatch::Jurisdiction(name) => territories.index(name),
        ClientMatch::Known | ClientMatch::Unknown => None,
    };
    ResidencyRule {
        known: takes(&ClientMatch::Known),
        unknown: takes(&ClientMatch::Unknown),
        jurisdictions: rule.clients.iter().filter_map(named).collect(),
        fence: territories.fence(&rule.process_in, members, regions),
    }
}

/// Compiles the tenants, and notes of each service whether one names it.
async fn build_tenants(
    tenants: BTreeMap<TenantId, rules::Tenant>,
    services: &mut [Service],
    tiers: &Tiers,
    regions: &[Region],
    territories: &Territories,
    turns: &mut Turns<'_>,
) -> (Vec<Tenant>, Vec<(KeyDigest, TenantIndex)>) {
    let (mut built, mut keys) = (Vec::with_capacity(tenants.len()), Vec::new());
    // Many customers say the same, so their fences are shared.
    let mut known: HashMap<(ServiceIndex, Vec<Tier>), Arc<[Fenced]>> = HashMap::new();
    for (id, tenant) in tenants {
        turns.spend(BUILD * (1 + tenant.services.len())).await;
        let index = TenantIndex::new(built.len());
        keys.extend(tenant.key_sha256.iter().map(|digest| (*digest, index)));
        let named = |id: &ServiceId| position(services, |service| service.id == *id).map(ServiceIndex::new);
        let allowed: Vec<ServiceIndex> = tenant.services.iter().filter_map(named).collect();
        for service in &allowed {
            services[service.get()].requires_key = true;
        }
        let mut fence = |service: &ServiceIndex, process_in: &[Tier]| {
            let fence = || territories.fence(process_in, &services[service.get()].regions, regions).into();
            Arc::clone(known.entry((*service, process_in.to_vec())).or_insert_with(fence))
        };
        let fences =
            tenant.process_in.map(|process_in| allowed.iter().map(|service| fence(service, &process_in)).collect());
        let residency = tenant.residency.iter().filter_map(|name| territories.index(name)).collect();
        let limits = TenantLimits::new(&tenant.limits, tiers);
        built.push(Tenant { id, residency, services: allowed, limits, fences });
    }
    (built, keys)
}

#[cfg(test)]
mod tests;
