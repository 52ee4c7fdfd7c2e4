//! Compiles a rules document. Takes its bytes, returns the [`Table`] or every violation. Called by all code that loads
//! rules. The DNS server compiles at once. The Worker has a single thread, so it compiles in turns (pieces of limited
//! work) and serves requests between them.
//!
//! A fence is the list of the regions that may process a client's data. A territory is the set of countries that a
//! jurisdiction consists of.

use core::pin::Pin;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::fleet::Fleet;
use super::hosts::Hosts;
use super::logs::Logs;
use super::needs::{self, Needs, Replica};
use super::networks::Networks;
use super::quotas::{self, TenantLimits, Tiers};
use super::territories::{Territories, position};
use super::{
    BUILD, Fenced, Region, RegionIndex, ResidencyRule, Revision, Service, ServiceIndex, Shedding, Table, Tenant,
    TenantIndex, check, warn,
};
use super::{releases, rollouts};
use crate::geo;
use crate::id::{JurisdictionId, RegionId, ServiceId, TenantId};
use crate::json::{Node, Reader, Violation};
use crate::rules::{self, ClientMatch, KeyDigest, Override, Pattern, Rules, Tier};
use crate::turns::{self, Turns};

/// The future of a table that is being compiled. It is boxed so that the compiler's code stands only once in the
/// Worker, however many places call it.
pub type Compiling<'a> = Pin<Box<dyn Future<Output = Result<Table, Vec<Violation>>> + 'a>>;

/// A function that makes the warnings of a document whose regions are compiled: [`warn::warnings`], or one that returns
/// none.
type Warnings = fn(&Rules, &[Region], &BTreeSet<JurisdictionId>, &Territories, &Hosts) -> Vec<Violation>;

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

    /// As [`Table::compile`], but without [`Table::warnings`], for a program that shows them to nobody. The Worker uses
    /// it, so that it doesn't contain the code of the warnings.
    ///
    /// # Errors
    /// Every violation in the document, not only the first.
    pub fn compile_quietly(bytes: &[u8]) -> Result<Self, Vec<Violation>> {
        Self::compile_at_once(bytes, |_, _, _, _, _| Vec::new())
    }

    /// As [`Table::compile_quietly`], but in turns, for a program that serves requests between two turns. `sha256` is
    /// the digest of `bytes`, made by [`Revision::digest_in_turns`].
    ///
    /// Two things are read in a single turn, however large they are: a text that isn't JSON, up to its mistake, and a
    /// single member of `tenants`, `services` and the like.
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

    /// Reads the document, checks it, and builds the table from it.
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
            check::rollouts(&rules, &mut violations);
            #[cfg(any(test, feature = "drills"))]
            check::drills(&rules, &mut violations);
            check::replicas(&rules, &mut violations);
            check::releases(&rules, &mut violations);
            check::tenants(&rules, &mut violations, turns).await;
            check::logs(&rules, &mut violations, turns).await;
            if !violations.is_empty() {
                return Err(violations);
            }
            let revision = Revision { number: rules.revision, sha256 };
            Ok(Self::build(rules, revision, warnings, turns).await)
        })
    }

    /// Builds the table from rules without violations. Replaces names by indices into the table's lists.
    async fn build(mut rules: Rules, revision: Revision, warnings: Warnings, turns: &mut Turns<'_>) -> Self {
        let territories = Territories::new(&rules);
        let logs = Logs::new(&rules, &territories, turns).await;
        let named_by_regions = warn::named_by_regions(&rules);
        let replicas: Vec<Replica> = rules.replicas.clone().into_iter().map(Replica::new).collect();
        let regions: Vec<Region> = core::mem::take(&mut rules.regions)
            .into_iter()
            .map(|(id, region)| build_region(id, region, &territories, &replicas))
            .collect();
        let hosts = Hosts::new(rules.services.values().map(|service| service.hosts.as_slice()));
        let warnings = warnings(&rules, &regions, &named_by_regions, &territories, &hosts);
        let region = |id: &RegionId| position(&regions, |region| region.id == *id).map(RegionIndex::new);

        let fleet = rules.fleet.as_ref().map(|fleet| Box::new(Fleet::new(fleet, region)));
        let mut services = Vec::with_capacity(rules.services.len());
        for (id, service) in rules.services {
            turns.spend(BUILD * service.regions.len() * (1 + service.residency.len())).await;
            let members: Vec<RegionIndex> = service.regions.iter().filter_map(region).collect();
            services.push(build_service(id, service, members, &regions, &territories, &replicas));
        }
        let quotas = quotas::build(core::mem::take(&mut rules.quotas), &rules.tenants);
        let tiers = Tiers::new(core::mem::take(&mut rules.tiers));
        let service =
            |id: &ServiceId| position(&services, |service: &Service| service.id == *id).map(ServiceIndex::new);
        let rollouts = rollouts::build(core::mem::take(&mut rules.rollouts), &rules.bundles, service, region);
        let (tenants, keys) = build_tenants(rules.tenants, &mut services, &tiers, &regions, &territories, turns).await;

        let (overrides, endpoint_overrides) = build_overrides(rules.overrides, &regions);
        Self {
            revision,
            networks: Networks::new(&rules.networks, turns).await,
            stale_for: rules.rules.stale_for,
            jurisdictions: territories.0,
            descriptions: rules.jurisdictions.into_values().map(|jurisdiction| jurisdiction.description).collect(),
            regions,
            services,
            tenants,
            quotas,
            tiers,
            rollouts,
            #[cfg(any(test, feature = "drills"))]
            drills: rules.drills.into_iter().collect(),
            replicas,
            bundles: rules.bundles,
            releases: releases::build(rules.releases),
            fleet,
            logs,
            aggregate: rules.aggregate.map(Box::new),
            keys,
            hosts,
            overrides,
            endpoint_overrides,
            warnings,
        }
    }

    /// Frees the table's memory in turns.
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
}

/// Overrides of single endpoints.
type EndpointOverrides = Vec<(RegionIndex, usize, usize, Override)>;

/// The overrides of regions, each at its region's index, and those of single endpoints: the region, the endpoint's
/// position there, and the override's position in the document.
fn build_overrides(
    overrides: Vec<Override>,
    regions: &[Region],
) -> (Vec<Option<(usize, Override)>>, EndpointOverrides) {
    let (mut of_regions, mut of_endpoints) = (vec![None; regions.len()], Vec::new());
    for (number, rule) in overrides.into_iter().enumerate() {
        let Some(index) = position(regions, |region| region.id == rule.region) else { continue };
        match &rule.endpoint {
            None => of_regions[index] = Some((number, rule)),
            Some(endpoint) => {
                let at = position(&regions[index].endpoints, |(id, _)| id == endpoint);
                of_endpoints.extend(at.map(|at| (RegionIndex::new(index), at, number, rule)));
            }
        }
    }
    (of_regions, of_endpoints)
}

/// Compiles a region. A region without a location is placed at the centre of its first country.
fn build_region(id: RegionId, region: rules::Region, territories: &Territories, replicas: &[Replica]) -> Region {
    let first = region.countries.first().and_then(|place| territories.of_place(place).iter().next());
    let load = build_load(&region);
    Region {
        id,
        countries: territories.countries(&region.countries),
        location: region.location.or_else(|| geo::centroid(first?)),
        standby: region.standby,
        answers: region.answers,
        endpoints: region.endpoints.into_iter().collect(),
        monitor: region.monitor,
        load,
        replicas: needs::of_region(region.replicas, replicas),
    }
}

/// The load of a region, with the capacities of its endpoints added up; `None` if the document says nothing of it.
fn build_load(region: &rules::Region) -> Option<Box<rules::RegionLoad>> {
    let of_endpoints = region.endpoints.values().filter_map(|endpoint| endpoint.capacity).reduce(u32::saturating_add);
    let load = region.load.or(of_endpoints.map(|_| rules::RegionLoad::default()))?;
    Some(Box::new(rules::RegionLoad { capacity: load.capacity.or(of_endpoints), ..load }))
}

/// Compiles a service. `members` are the indices of its regions.
fn build_service(
    id: ServiceId,
    service: rules::Service,
    members: Vec<RegionIndex>,
    regions: &[Region],
    territories: &Territories,
    replicas: &[Replica],
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
        order: service.order,
        guard: service.guard,
        needs: Needs::new(&service.needs, replicas),
        log_content: service.log_content,
        requires_key: false,
    }
}

/// Compiles a rule that says where the data of some clients may be processed.
fn build_rule(
    rule: &rules::ResidencyRule,
    members: &[RegionIndex],
    regions: &[Region],
    territories: &Territories,
) -> ResidencyRule {
    let applies_to = |client: &ClientMatch| rule.clients.contains(client);
    let jurisdiction_of = |client: &ClientMatch| match client {
        ClientMatch::Jurisdiction(name) => territories.index(name),
        ClientMatch::Known | ClientMatch::Unknown => None,
    };
    ResidencyRule {
        known: applies_to(&ClientMatch::Known),
        unknown: applies_to(&ClientMatch::Unknown),
        jurisdictions: rule.clients.iter().filter_map(jurisdiction_of).collect(),
        fence: territories.fence(&rule.process_in, members, regions),
    }
}

/// Compiles the tenants and their keys. Sets `requires_key` of each service that a tenant names.
async fn build_tenants(
    tenants: BTreeMap<TenantId, rules::Tenant>,
    services: &mut [Service],
    tiers: &Tiers,
    regions: &[Region],
    territories: &Territories,
    turns: &mut Turns<'_>,
) -> (Vec<Tenant>, Vec<(KeyDigest, TenantIndex)>) {
    let (mut built, mut keys) = (Vec::with_capacity(tenants.len()), Vec::new());
    // Many tenants have the same `process_in`, so they share one fence.
    let mut by_process_in: HashMap<(ServiceIndex, Vec<Tier>), Arc<[Fenced]>> = HashMap::new();
    for (id, tenant) in tenants {
        turns.spend(BUILD * (1 + tenant.services.len())).await;
        let index = TenantIndex::new(built.len());
        keys.extend(tenant.key_sha256.iter().map(|digest| (*digest, index)));
        let index_of = |id: &ServiceId| position(services, |service| service.id == *id).map(ServiceIndex::new);
        let allowed: Vec<ServiceIndex> = tenant.services.iter().filter_map(index_of).collect();
        for service in &allowed {
            services[service.get()].requires_key = true;
        }
        let mut fence = |service: &ServiceIndex, process_in: &[Tier]| {
            let fence = || territories.fence(process_in, &services[service.get()].regions, regions).into();
            Arc::clone(by_process_in.entry((*service, process_in.to_vec())).or_insert_with(fence))
        };
        let fences =
            tenant.process_in.map(|process_in| allowed.iter().map(|service| fence(service, &process_in)).collect());
        let residency = tenant.residency.iter().filter_map(|name| territories.index(name)).collect();
        let limits = TenantLimits::new(&tenant.limits, tiers);
        built.push(Tenant { id, residency, services: allowed, limits, fences });
    }
    (built, keys)
}
