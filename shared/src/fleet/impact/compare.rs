//! Steers every group of clients by two documents. Takes tables (compiled documents), groups and counted queries,
//! returns a [`ServiceImpact`] for each pair of services. Called by the code that makes an [`Impact`]; services may be
//! compared on several threads.
//!
//! Groups for which both documents give the same ranking of regions form a class, and only classes are decided. If one
//! region is down, the answer differs from that with all regions up only if the region that is down was the chosen one.
//! So a class is decided with all regions up, and with each region down that either document chooses.

use std::collections::{BTreeMap, HashMap};

use super::bundles::bundles;
use super::fence::{Difference, Fence};
use super::subjects::{Subject, subjects};
use super::weights::{Division, Gathered, Group, Queries, Weight};
use super::{FenceChange, Impact, Move, MoveWhenDown, Presence, ServiceImpact, SingleRegionClients};
use crate::geo::CountryCode;
use crate::health::{RegionHealth, supposing_down};
use crate::id::RegionId;
use crate::steer::{Client, Conditions, Local, PathClass, Ranking, Standing, decide, rank, stand};
use crate::table::{RegionIndex, ServiceIndex, Table, TenantIndex};
use crate::time::Timestamp;

/// A document, and how its regions map to the numbers that stand for regions in both documents.
struct Side<'a> {
    table: &'a Table,
    /// By region index: the region's number among the names of both documents.
    numbers: Vec<usize>,
    /// By number: the region's index, if it is in this document.
    indexes: Vec<Option<RegionIndex>>,
    /// Where the clients of each group stand, that is, their jurisdictions and country. For clients without a tenant.
    standings: Vec<Standing>,
}

/// Two documents, and everything by which they are compared.
pub struct Comparison<'a> {
    old: Side<'a>,
    new: Side<'a>,
    /// The names of all regions, by number.
    names: Vec<&'a RegionId>,
    groups: &'a [Group],
    queries: Option<&'a Queries>,
    division: Division,
    subjects: Vec<Subject>,
    now: Timestamp,
}

/// The answer of a document to a class of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ChosenRegion {
    /// The chosen region, by number; `None`: no region.
    region: Option<usize>,
    /// Whether the region is chosen only because all regions are down.
    is_revived: bool,
}

/// What changes for one class of clients.
#[derive(Debug, Default)]
struct Outcome {
    from: Option<usize>,
    to: Option<usize>,
    /// A region that is down, and the regions that the old and the new document choose then.
    when_down: Vec<(usize, Option<usize>, Option<usize>)>,
    wider: Option<Difference>,
    tighter: Option<Difference>,
    /// The region without which the clients would have no region.
    alone: Option<usize>,
    /// How many regions the new fence has.
    regions: usize,
}

/// What tells rankings of one service apart: the order of regions with their tiers, and the only region that may serve.
type Key = (Vec<(RegionIndex, usize)>, Option<Option<RegionIndex>>);

impl<'a> Side<'a> {
    fn new(table: &'a Table, names: &[&RegionId], groups: &[Group]) -> Self {
        let number = |id: &RegionId| names.binary_search(&id).unwrap_or_default();
        Self {
            table,
            numbers: table.regions().iter().map(|region| number(&region.id)).collect(),
            indexes: names.iter().map(|name| table.region_named(name.as_str())).collect(),
            standings: groups.iter().map(|group| stand(table, &group.client)).collect(),
        }
    }

    /// The ranking of regions for the clients of a group; `None` if the document doesn't have the service.
    fn ranking(
        &self,
        at: usize,
        client: Client,
        service: Option<ServiceIndex>,
        tenant: Option<TenantIndex>,
    ) -> Option<Ranking> {
        let service = service?;
        let standing = match tenant {
            None => return Some(rank(self.table, service, &self.standings[at], PathClass::Inference)),
            Some(tenant) => stand(self.table, &Client { tenant: Some(tenant), ..client }),
        };
        Some(rank(self.table, service, &standing, PathClass::Inference))
    }

    /// What the document answers if the region `down` is down; `None`: all regions are up.
    fn chosen(&self, ranking: Option<&Ranking>, down: Option<usize>, now: Timestamp) -> ChosenRegion {
        let Some(ranking) = ranking else { return ChosenRegion::default() };
        let down = down.and_then(|number| self.indexes[number]);
        let health: Vec<RegionHealth> = down.map(|down| supposing_down(&[], &[down.get()])).unwrap_or_default();
        let local = Local::default();
        let steering = decide(self.table, ranking, None, &Conditions { health: &health, local: &local, now });
        let region = steering.ordered.first().map(|first| self.numbers[first.fenced.region.get()]);
        ChosenRegion { region, is_revived: steering.revived }
    }

    /// The region without which a class has no region left; `None` if there is another, or if it has none at all.
    fn alone(&self, ranking: Option<&Ranking>, chosen: ChosenRegion, now: Timestamp) -> Option<usize> {
        let region = chosen.region?;
        let left = self.chosen(ranking, Some(region), now);
        (left.region.is_none() || left.is_revived).then_some(region)
    }

    fn fence(&self, ranking: Option<&Ranking>) -> Fence {
        let regions = ranking.iter().flat_map(|ranking| ranking.order.iter().map(|ranked| ranked.fenced.region));
        Fence::new(self.table, &self.numbers, regions)
    }
}

impl<'a> Comparison<'a> {
    /// Compares a document in service with a new one. `groups` are all clients. `queries` were counted under the
    /// document in service. Overrides in the documents count as of `now`.
    #[must_use]
    pub fn new(
        old: &'a Table,
        new: &'a Table,
        groups: &'a [Group],
        queries: Option<&'a Queries>,
        now: Timestamp,
    ) -> Self {
        let mut names: Vec<&RegionId> = old.regions().iter().chain(new.regions()).map(|region| &region.id).collect();
        names.sort_unstable();
        names.dedup();
        let (before, after) = (Side::new(old, &names, groups), Side::new(new, &names, groups));
        let countries = before.standings.iter().map(|standing| standing.country).collect();
        let division = Division::new(groups, countries);
        let subjects = subjects(old, new);
        Self { old: before, new: after, names, groups, queries, division, subjects, now }
    }

    /// How many pairs of services there are to compare.
    #[must_use]
    pub fn len(&self) -> usize {
        self.subjects.len()
    }

    /// Whether there is nothing to compare.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }

    /// Compares the pair of services at this position.
    ///
    /// # Panics
    /// If there is no such pair.
    #[must_use]
    pub fn service(&self, at: usize) -> ServiceImpact {
        let subject = &self.subjects[at];
        let (before, after) = subject.services;
        let tenant = subject.tenant.unwrap_or_default();
        let counted =
            before.filter(|_| subject.tenant.is_none()).map(|service| self.old.table.service(service).id.as_str());
        let counted = self.queries.zip(counted).and_then(|(queries, service)| queries.get(service));
        let mut findings = Findings::default();
        let mut classes: HashMap<(Option<Key>, Option<Key>), usize> = HashMap::new();
        let mut outcomes: Vec<Outcome> = Vec::new();
        for (at, group) in self.groups.iter().enumerate() {
            let rankings = [
                self.old.ranking(at, group.client, before, tenant.0),
                self.new.ranking(at, group.client, after, tenant.1),
            ];
            let keys = (rankings[0].as_ref().map(key), rankings[1].as_ref().map(key));
            let class = *classes.entry(keys).or_insert_with(|| {
                outcomes.push(self.outcome(rankings[0].as_ref(), rankings[1].as_ref()));
                outcomes.len() - 1
            });
            let weight = self.division.weight(at, group, counted);
            findings.add(&outcomes[class], (self.division.country(at), group), weight);
        }
        let all: u64 = counted.map_or(0, |counted| counted.values().sum());
        findings.total.queries = findings.total.queries.max(all);
        self.reported(subject, findings)
    }

    /// Puts the results of all pairs of services together.
    #[must_use]
    pub fn finish(&self, mut services: Vec<ServiceImpact>) -> Impact {
        services.retain(ServiceImpact::is_changed);
        services.sort_by(|a, b| {
            (&a.tenants, &a.service, &a.was, &a.hosts).cmp(&(&b.tenants, &b.service, &b.was, &b.hosts))
        });
        let answers = |side: &Side<'_>, number: usize| {
            side.indexes[number].map(|region| side.table.region(region).answers.clone())
        };
        let differs = |number: &usize| match (answers(&self.old, *number), answers(&self.new, *number)) {
            (Some(before), Some(after)) => before != after,
            _ => false,
        };
        let other_answers = (0..self.names.len()).filter(differs).map(|number| self.names[number].clone());
        Impact {
            from: self.old.table.revision().number,
            to: self.new.table.revision().number,
            has_queries: self.queries.is_some(),
            services,
            compared: self.len(),
            other_answers: other_answers.collect(),
            bundles: bundles(self.old.table, self.new.table),
        }
    }

    /// What changes for the clients of one class.
    fn outcome(&self, before: Option<&Ranking>, after: Option<&Ranking>) -> Outcome {
        let (old, new) = (self.old.chosen(before, None, self.now), self.new.chosen(after, None, self.now));
        let mut down: Vec<usize> = old.region.into_iter().chain(new.region).collect();
        down.dedup();
        let without = |down: usize| {
            let from = self.old.chosen(before, Some(down), self.now).region;
            (down, from, self.new.chosen(after, Some(down), self.now).region)
        };
        let is_other = |(_, from, to): &(usize, _, _)| from != to && (*from, *to) != (old.region, new.region);
        let (fence, new_fence) = (self.old.fence(before), self.new.fence(after));
        let is_both = before.is_some() && after.is_some();
        let was_alone = self.old.alone(before, old, self.now).is_some();
        Outcome {
            from: old.region,
            to: new.region,
            when_down: down.into_iter().map(without).filter(is_other).collect(),
            wider: new_fence.wider_than(&fence).filter(|_| is_both),
            tighter: new_fence.smaller_than(&fence).filter(|_| is_both),
            alone: self.new.alone(after, new, self.now).filter(|_| !was_alone),
            regions: new_fence.len(),
        }
    }

    /// The findings about a service, with names in place of numbers.
    fn reported(&self, subject: &Subject, findings: Findings) -> ServiceImpact {
        let (before, after) = subject.services;
        let presence = match (before, after) {
            (Some(_), Some(_)) => Presence::Both,
            (None, _) => Presence::New,
            (_, None) => Presence::Gone,
        };
        let old = before.map(|index| self.old.table.service(index));
        let new = after.map(|index| self.new.table.service(index));
        let id = |service: &crate::table::Service| service.id.clone();
        let service = new.or(old).map(id).expect("one of both is there");
        let was = old.map(id).filter(|old| *old != service);
        let name = |number: usize| self.names[number].clone();
        let moved = |((from, to), who): (_, Gathered)| Move { from, to, who: who.finish() };
        let fence = |(difference, who): (Difference, Gathered)| FenceChange {
            regions: difference.regions.into_iter().map(name).collect(),
            countries: difference.countries,
            anywhere: difference.anywhere,
            who: who.finish(),
        };
        let by_name = |(from, to): (Option<usize>, Option<usize>)| (from.map(name), to.map(name));
        let mut impact = ServiceImpact {
            service,
            was,
            hosts: subject.hosts.clone(),
            tenants: subject.tenants.clone(),
            presence,
            total: findings.total,
            moved: findings.moved,
            denied: findings.denied,
            admitted: findings.admitted,
            leave_fence: findings.leave_fence,
            moves: findings.moves.into_iter().map(|(way, who)| moved((by_name(way), who))).collect(),
            moves_when_down: Vec::new(),
            wider: findings.wider.into_iter().map(fence).collect(),
            tighter: findings.tighter.into_iter().map(fence).collect(),
            alone: Vec::new(),
            fewest_regions: findings.fewest_regions,
            ttl: old.or(new).map_or(0, |service| service.ttl.max),
        };
        let when_down = findings.when_down.into_iter();
        impact.moves_when_down = when_down
            .map(|((down, from, to), who)| (down, moved((by_name((from, to)), who))))
            .map(|(down, moves)| MoveWhenDown { down: name(down), moves })
            .collect();
        impact.alone = findings
            .alone
            .into_iter()
            .map(|(region, who)| SingleRegionClients { region: name(region), who: who.finish() })
            .collect();
        impact.moves.sort_by_key(|moved| core::cmp::Reverse((moved.who.weight.queries, moved.who.weight.ipv4)));
        impact
    }
}

/// What was found for the clients of a service.
#[derive(Default)]
struct Findings {
    total: Weight,
    moved: Weight,
    denied: Weight,
    admitted: Weight,
    leave_fence: Weight,
    moves: BTreeMap<(Option<usize>, Option<usize>), Gathered>,
    when_down: BTreeMap<(usize, Option<usize>, Option<usize>), Gathered>,
    wider: BTreeMap<Difference, Gathered>,
    tighter: BTreeMap<Difference, Gathered>,
    alone: BTreeMap<usize, Gathered>,
    fewest_regions: Option<usize>,
}

impl Findings {
    /// Counts what a change means for one group of clients.
    fn add(&mut self, outcome: &Outcome, (country, group): (Option<CountryCode>, &Group), weight: Weight) {
        self.total += weight;
        let counted = match (outcome.from, outcome.to) {
            (from, to) if from == to => None,
            (Some(_), Some(_)) => Some(&mut self.moved),
            (Some(_), None) => Some(&mut self.denied),
            (None, _) => Some(&mut self.admitted),
        };
        if let Some(counted) = counted {
            *counted += weight;
            self.moves.entry((outcome.from, outcome.to)).or_default().add(country, group.network, weight);
        }
        for way in &outcome.when_down {
            self.when_down.entry(*way).or_default().add(country, group.network, weight);
        }
        if let Some(wider) = &outcome.wider {
            self.leave_fence += weight;
            self.wider.entry(wider.clone()).or_default().add(country, group.network, weight);
        }
        if let Some(tighter) = &outcome.tighter {
            self.tighter.entry(tighter.clone()).or_default().add(country, group.network, weight);
            self.fewest_regions = self.fewest_regions.into_iter().chain([outcome.regions]).min();
        }
        if let Some(alone) = outcome.alone {
            self.alone.entry(alone).or_default().add(country, group.network, weight);
        }
    }
}

fn key(ranking: &Ranking) -> Key {
    (ranking.order.iter().map(|ranked| (ranked.fenced.region, ranked.fenced.tier)).collect(), ranking.only)
}
