//! Everything in a snapshot except health. Takes rules, zone sources, keys and places, checks them against each other,
//! returns a compiled [`World`]. Called by `state/owner` for each change, on another thread than those that answer
//! queries.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use bailiwick_host::locate::geoip::Places;
use bailiwick_rules::rules::SteeredHost;
use bailiwick_rules::table::{RegionIndex, Service, Table};
use bailiwick_rules::time::Timestamp;

use super::records::{RecordSets, name_of_host};
use crate::dnssec::key_set::ZoneKeys;
use crate::dnssec::online_signer::OnlineSigner;
use crate::dnssec::unsignable::unsignable;
use crate::locate::classes::{Classes, Standings};
use crate::protocol::name::{Name, NameRef};
use crate::protocol::rdata::{rtype, target};
use crate::zone::{LookupResult, Record, Records, ServiceIndex, SteeredOwner, Zone, ZoneError};
use crate::zones::{ServedZone, Zones};

/// A rules document with its compiled form.
#[derive(Debug)]
pub(crate) struct Rules {
    /// The compiled form.
    pub table: Table,
    /// The document, byte for byte.
    pub bytes: Arc<[u8]>,
}

/// The records of one zone, as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ZoneSource {
    /// The apex.
    pub origin: Name,
    /// The zone's records. Empty if the zone is configured, but no version of it could be read yet. Queries for names
    /// of such a zone get SERVFAIL.
    pub records: Records,
}

impl ZoneSource {
    /// A zone of which no version could be read yet.
    #[must_use]
    pub(crate) fn missing(origin: Name) -> Self {
        Self { origin, records: Records::default() }
    }

    /// Whether no version could be read yet.
    #[must_use]
    pub(crate) fn is_missing(&self) -> bool {
        self.records.is_empty()
    }
}

/// A zone that can't be served with the present rules and keys, and why.
pub(crate) type RejectedZone = (Name, Vec<ZoneError>);

/// Rules, zones, keys and geography, compiled together, with the zones' signatures. Cheap to copy.
#[derive(Debug, Clone)]
pub(crate) struct World {
    rules: Arc<Rules>,
    sources: Arc<[ZoneSource]>,
    pub(super) zones: Arc<Zones>,
    keys: Arc<[ZoneKeys]>,
    places: Arc<Places>,
    /// The classes of clients, by service; `None` for a service that DNS doesn't answer.
    classes: Arc<[Option<Arc<Classes>>]>,
    /// By service: the records of each region that publishes any. They are made for each service, because service
    /// bindings (HTTPS, SVCB) depend on the service's hosts.
    pub(super) answers: Arc<[Vec<(RegionIndex, RecordSets)>]>,
    /// The records of `denied_answers`, by service.
    pub(super) denied: Arc<[Option<RecordSets>]>,
    warnings: Arc<[String]>,
    /// The signer of answers that can't be signed beforehand. Every later world shares it.
    pub(super) online_signer: Arc<OnlineSigner>,
    /// When the zones were signed.
    pub(super) signed_at: Timestamp,
    /// The first second at which not all signatures may be served any more.
    pub(super) signed_until: Option<u32>,
}

impl World {
    /// Compiles rules, zones, keys and places together, and signs the zones that have keys. Parts of `before` that had
    /// the same inputs are used again.
    ///
    /// # Errors
    /// Every reason why these can't be served together.
    pub(crate) fn build(
        rules: Arc<Rules>,
        sources: Arc<[ZoneSource]>,
        keys: Arc<[ZoneKeys]>,
        places: Arc<Places>,
        now: Timestamp,
        before: Option<&Self>,
    ) -> Result<Self, Vec<ZoneError>> {
        let table = &rules.table;
        let answers: Vec<Vec<(RegionIndex, RecordSets)>> =
            table.services().iter().map(|service| published(table, service)).collect();
        let denied = table.services().iter();
        let denied = denied.map(|service| Some(RecordSets::new(service.denied_answers.as_ref()?, &service.hosts)));
        let denied: Vec<_> = denied.collect();

        let mut warnings: Vec<String> = Vec::new();
        let owners = steered_owners(table, &answers);
        let zones = compile_zones(&sources, &owners, &mut warnings);
        let zones =
            zones.map_err(|rejected| rejected.into_iter().flat_map(|(_, errors)| errors).collect::<Vec<_>>())?;
        warn_of_foreign_hosts(table, &owners, &sources, &mut warnings);
        warn_of_undelegated(&zones, &keys, &mut warnings);
        warn_of_loops(table, &zones, &answers, &denied, &mut warnings);
        warn_of_hidden(&sources, &mut warnings);

        let same_geography = |before: &&Self| {
            let answered = before.classes.iter().map(Option::is_some);
            Arc::ptr_eq(&before.places, &places)
                && (Arc::ptr_eq(&before.rules, &rules) || before.rules.table.ranks_like(table))
                && answered.eq(answers.iter().map(|published| !published.is_empty()))
        };
        let classes = match before.filter(same_geography) {
            Some(before) => Arc::clone(&before.classes),
            None => compile_classes(table, &answers, &places),
        };
        let (zones, answers, denied) = (Arc::new(zones), answers.into(), denied.into());
        let online_signer = before.map_or_else(Arc::default, |before| Arc::clone(&before.online_signer));
        let world = Self {
            rules,
            sources,
            zones,
            keys,
            places,
            classes,
            answers,
            denied,
            warnings: warnings.into(),
            online_signer,
            signed_at: now,
            signed_until: None,
        };
        world.signed(now, before)
    }

    /// The zones that can't be served with these rules and keys.
    #[must_use]
    pub(crate) fn rejected(rules: &Rules, sources: &[ZoneSource], keys: &[ZoneKeys]) -> Vec<RejectedZone> {
        let table = &rules.table;
        let answers: Vec<_> = table.services().iter().map(|service| published(table, service)).collect();
        let owners = steered_owners(table, &answers);
        let mut rejected = compile_zones(sources, &owners, &mut Vec::new()).err().unwrap_or_default();
        let signed = keys.iter().map(ZoneKeys::origin);
        let unsignable = signed.map(|origin| (origin.to_name(), unsignable_in(sources, origin)));
        rejected.extend(unsignable.filter(|(_, errors)| !errors.is_empty()));
        rejected
    }

    /// The rules.
    #[must_use]
    pub(crate) fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// The zones.
    #[must_use]
    pub(crate) fn zones(&self) -> &Zones {
        &self.zones
    }

    /// The zones as they were read.
    #[must_use]
    pub(crate) fn zone_sources(&self) -> &Arc<[ZoneSource]> {
        &self.sources
    }

    /// The keys of the zones that are signed.
    #[must_use]
    pub(crate) fn keys(&self) -> &Arc<[ZoneKeys]> {
        &self.keys
    }

    /// The GeoIP data.
    #[must_use]
    pub(crate) fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// Warnings about content that is served but probably not meant.
    #[must_use]
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The classes of a service's clients; `None` for a service that isn't in the rules or that DNS doesn't answer.
    #[must_use]
    pub(crate) fn classes_of(&self, service: ServiceIndex) -> Option<&Classes> {
        self.classes.get(service.get())?.as_deref()
    }

    pub(super) fn records_of_region(&self, service: ServiceIndex, region: RegionIndex) -> Option<&RecordSets> {
        let mut regions = self.answers.get(service.get())?.iter();
        regions.find(|(other, _)| *other == region).map(|(_, records)| records)
    }

    pub(super) fn denied_records(&self, service: ServiceIndex) -> Option<&RecordSets> {
        self.denied.get(service.get())?.as_ref()
    }
}

/// The records that each region of a service publishes at the service's hosts.
fn published(table: &Table, service: &Service) -> Vec<(RegionIndex, RecordSets)> {
    let regions = service.regions.iter();
    let answers = regions.filter_map(|&region| Some((region, table.region(region).answers.as_ref()?)));
    answers.map(|(region, answers)| (region, RecordSets::new(answers, &service.hosts))).collect()
}

/// The names that the rules steer, with the record types that their services publish.
fn steered_owners(table: &Table, answers: &[Vec<(RegionIndex, RecordSets)>]) -> Vec<SteeredOwner> {
    let mut owners = Vec::new();
    for ((number, service), published) in (0..).zip(table.services()).zip(answers) {
        // All regions of a service publish the same types, or none publishes any.
        let Some(types) = published.first().map(|(_, records)| records.types()) else { continue };
        let names = service.hosts.iter().filter_map(|host| name_of_host(host.as_str()));
        owners.extend(names.map(|name| SteeredOwner { name, service: ServiceIndex(number), types: types.clone() }));
    }
    owners
}

/// The errors that keep the zone of this origin from being signed.
pub(super) fn unsignable_in(sources: &[ZoneSource], origin: NameRef<'_>) -> Vec<ZoneError> {
    let sources = sources.iter().filter(|source| source.origin.as_ref() == origin);
    sources.flat_map(|source| unsignable(&source.records)).collect()
}

/// The zone that a name belongs to: of all zones above the name, the zone with the longest origin.
fn zone_of<'s>(name: &Name, sources: &'s [ZoneSource]) -> Option<&'s ZoneSource> {
    let holds = |source: &&ZoneSource| name.as_ref().is_within(source.origin.as_ref());
    sources.iter().filter(holds).max_by_key(|source| source.origin.as_wire().len())
}

/// Compiles all zones that have a version, with the names that the rules decide. An error lists the rejected zones.
fn compile_zones(
    sources: &[ZoneSource],
    owners: &[SteeredOwner],
    warnings: &mut Vec<String>,
) -> Result<Zones, Vec<RejectedZone>> {
    let (mut zones, mut rejected) = (Vec::new(), Vec::new());
    for source in sources.iter().filter(|source| !source.is_missing()) {
        let here =
            |owner: &&SteeredOwner| zone_of(&owner.name, sources).is_some_and(|zone| zone.origin == source.origin);
        let steered: Vec<SteeredOwner> = owners.iter().filter(here).cloned().collect();
        match Zone::compile(&source.origin, &source.records, &steered) {
            Ok(compiled) => {
                warnings.extend(compiled.warnings.iter().map(ToString::to_string));
                zones.push(Arc::new(ServedZone::unsigned(compiled.zone)));
            }
            Err(found) => rejected.push((source.origin.clone(), found)),
        }
    }
    let missing = sources.iter().filter(|source| source.is_missing()).map(|source| source.origin.clone());
    if rejected.is_empty() { Ok(Zones::new(zones).with_missing(missing)) } else { Err(rejected) }
}

/// Warns of hosts outside this node's zones. Another node may serve them, so that is no error.
fn warn_of_foreign_hosts(table: &Table, owners: &[SteeredOwner], sources: &[ZoneSource], warnings: &mut Vec<String>) {
    for owner in owners.iter().filter(|owner| zone_of(&owner.name, sources).is_none()) {
        let service = &table.services()[owner.service.get()].id;
        warnings.push(format!(
            "/services/{service}/hosts: {} lies in no zone of this node and isn't answered here; add its zone to the \
             configuration unless another node serves it",
            owner.name
        ));
    }
}

/// Warns of a zone that the zone above it on this node doesn't delegate. This node answers for the lower zone anyway.
/// But if the upper zone is signed, it proves that the lower one doesn't exist, and a validator believes that.
fn warn_of_undelegated(zones: &Zones, keys: &[ZoneKeys], warnings: &mut Vec<String>) {
    for zone in zones.iter() {
        let Some(parent) = zones.find(zone.origin(), rtype::DS) else { continue };
        let is_signed = keys.iter().any(|keys| keys.origin() == parent.origin());
        let is_delegated = matches!(parent.locate(zone.origin()), LookupResult::Cut { .. });
        if !is_delegated && parent.origin() != zone.origin() {
            let (zone, parent) = (zone.origin(), parent.origin());
            let why = match is_signed {
                true => "which is signed and so proves that it doesn't exist".to_owned(),
                false => format!("so a server that has {parent} alone says that it doesn't exist"),
            };
            warnings.push(format!(
                "the zone {zone} isn't delegated by {parent}, {why}; add the NS of {zone} to {parent}, and if it is \
                 signed its DS"
            ));
        }
    }
}

/// Warns of an alias whose target is only matched by a wildcard host of the same service, because such an alias leads
/// to itself. The rules alone can't tell, because the zone file may have the target's name.
fn warn_of_loops(
    table: &Table,
    zones: &Zones,
    answers: &[Vec<(RegionIndex, RecordSets)>],
    denied: &[Option<RecordSets>],
    warnings: &mut Vec<String>,
) {
    for (((number, service), published), denied) in (0..).zip(table.services()).zip(answers).zip(denied) {
        if !service.hosts.iter().any(SteeredHost::is_wildcard) {
            continue;
        }
        let own = |target: NameRef<'_>| {
            let zone = zones.find(target, rtype::CNAME)?;
            let LookupResult::Wildcard(node) = zone.locate(target) else { return None };
            zone.steered(node).filter(|owner| owner.service == ServiceIndex(number))
        };
        let sets = published.iter().map(|(_, records)| records).chain(denied);
        let targets: BTreeSet<NameRef<'_>> = sets.flat_map(RecordSets::aliases).collect();
        for target in targets {
            let Some(owner) = own(target) else { continue };
            let (service, host) = (&service.id, &owner.name);
            warnings.push(format!(
                "/services/{service}/hosts: {host} stands for {target} too, which is an alias's target of this \
                 service, so it leads to itself; add the name {target} to its zone"
            ));
        }
    }
}

/// Warns of records at or below the apex of another zone of this node. They are never served, because the other zone
/// answers there. The records that delegate the other zone, and the addresses of its name servers, are allowed.
fn warn_of_hidden(sources: &[ZoneSource], warnings: &mut Vec<String>) {
    for (parent, child) in sources.iter().flat_map(|parent| sources.iter().map(move |child| (parent, child))) {
        let is_below = parent.origin != child.origin && child.origin.as_ref().is_within(parent.origin.as_ref());
        let lies_between = |zone: &ZoneSource| {
            let is_other = zone.origin != parent.origin && zone.origin != child.origin;
            let (above, below) = (parent.origin.as_ref(), child.origin.as_ref());
            is_other && below.is_within(zone.origin.as_ref()) && zone.origin.as_ref().is_within(above)
        };
        let is_direct = || !sources.iter().any(lies_between);
        if !is_below || !is_direct() {
            continue;
        }
        let servers = servers_of(parent, child);
        let is_delegation = |record: &Record<'_>| match record.rtype {
            rtype::NS | rtype::DS => record.owner == child.origin.as_ref(),
            rtype::A | rtype::AAAA => servers.contains(&record.owner),
            _ => false,
        };
        let is_hidden = |record: &Record<'_>| record.owner.is_within(child.origin.as_ref()) && !is_delegation(record);
        let hidden: Vec<Record<'_>> = parent.records.iter().filter(is_hidden).collect();
        if let Some(first) = hidden.first() {
            warnings.push(format!(
                "{}: {} and {} more records of {} are never served: the zone {}, which this node has too, answers \
                 there; move them into that zone",
                first.place(),
                first.owner,
                hidden.len() - 1,
                parent.origin,
                child.origin
            ));
        }
    }
}

/// The name servers to which `parent` delegates `child`.
fn servers_of<'z>(parent: &'z ZoneSource, child: &ZoneSource) -> HashSet<NameRef<'z>> {
    let delegates = |record: &Record<'_>| record.rtype == rtype::NS && record.owner == child.origin.as_ref();
    parent.records.iter().filter(delegates).filter_map(|record| target(rtype::NS, record.rdata)).collect()
}

/// The classes of clients that each service with published answers ranks alike.
fn compile_classes(
    table: &Table,
    answers: &[Vec<(RegionIndex, RecordSets)>],
    places: &Places,
) -> Arc<[Option<Arc<Classes>>]> {
    let standings = Arc::new(Standings::new(table, places));
    // Many services rank regions alike. So classes are compiled once for the first of the services that rank alike, and
    // the others share them.
    let services = || (0..).map(ServiceIndex).zip(table.services());
    let first_like =
        |service: &Service| services().find(|(_, other)| other.ranks_like(service)).map(|(index, _)| index);
    let answered = services().zip(answers).map(|((_, service), published)| (!published.is_empty()).then_some(service));
    let firsts: Vec<Option<ServiceIndex>> = answered.map(|service| first_like(service?)).collect();
    let mut distinct: Vec<ServiceIndex> = firsts.iter().flatten().copied().collect();
    distinct.sort_unstable_by_key(|index| index.get());
    distinct.dedup();
    let classes: Vec<Arc<Classes>> =
        Classes::of_services(table, &distinct, &standings).into_iter().map(Arc::new).collect();
    let classes_of =
        |first: ServiceIndex| distinct.iter().position(|index| *index == first).map(|at| Arc::clone(&classes[at]));
    firsts.into_iter().map(|first| classes_of(first?)).collect()
}
