//! Which sink gets the events of which clients. Takes the sinks, rules and tenants of a document; returns for each
//! fence the sink that lies in it. Used by `check`, `warn` and `build`.
//!
//! A sink lies in a fence if it lies in *every* tier of its `process_in`: whichever tier a request is processed in, its
//! event stays inside. A sink lies in a tier if one jurisdiction of the tier holds all its countries, as for a region.
//! So of nested tiers (`["de", "eu"]`) the innermost counts, and no sink lies in tiers that have nothing in common
//! (`["uk", "eu"]`). As one tier (`[["uk", "eu"]]`), either's sink does.

use std::collections::HashMap;

use super::territories::Territories;
use super::{BUILD, ServiceIndex, SinkIndex, Table, TenantIndex};
use crate::geo::CountrySet;
use crate::id::SinkId;
use crate::rules::{self, Rules, Tier};
use crate::turns::Turns;

/// A sink of a document.
#[derive(Clone, PartialEq, Debug)]
pub struct Sink {
    /// Its name.
    pub id: SinkId,
    /// Where it stands, and how it is reached.
    pub rule: rules::Sink,
}

/// The sinks of a document, and whose events they get.
#[derive(Debug)]
pub(super) struct Logs {
    sinks: Vec<Sink>,
    /// The sink of each residency rule of each service.
    of_rules: Vec<Vec<Option<SinkIndex>>>,
    /// The sink of each tenant that has a fence of its own.
    of_tenants: Vec<Option<SinkIndex>>,
}

impl Logs {
    /// Compiles the sinks of a document without violations. `None` if it has none.
    pub(super) async fn new(rules: &Rules, territories: &Territories, turns: &mut Turns<'_>) -> Option<Box<Self>> {
        if rules.logs.is_empty() {
            return None;
        }
        let mut known = Sinks::new(rules, territories);
        let mut of_rules = Vec::with_capacity(rules.services.len());
        for service in rules.services.values() {
            let mut of_service = Vec::with_capacity(service.residency.len());
            for rule in &service.residency {
                of_service.push(known.of(&rule.process_in, rule.logs.as_ref(), turns).await);
            }
            of_rules.push(of_service);
        }
        let mut of_tenants = Vec::with_capacity(rules.tenants.len());
        for tenant in rules.tenants.values() {
            of_tenants.push(match &tenant.process_in {
                Some(process_in) => known.of(process_in, tenant.logs.as_ref(), turns).await,
                None => None,
            });
        }
        let sinks = rules.logs.iter().map(|(id, rule)| Sink { id: id.clone(), rule: rule.clone() }).collect();
        Some(Box::new(Self { of_rules, of_tenants, sinks }))
    }
}

/// The sinks of a document with their countries, to find those that lie in a fence.
pub(super) struct Sinks<'r> {
    /// Each sink, in the order of the document's names.
    pub(super) all: Vec<(&'r SinkId, CountrySet)>,
    territories: &'r Territories,
    /// The sinks that lie in the fences that were looked at. Thousands of tenants share a few fences.
    known: HashMap<&'r [Tier], Vec<&'r SinkId>>,
}

impl<'r> Sinks<'r> {
    pub(super) fn new(rules: &'r Rules, territories: &'r Territories) -> Self {
        let all = rules.logs.iter().map(|(id, sink)| (id, territories.countries(&sink.countries)));
        Self { all: all.collect(), territories, known: HashMap::new() }
    }

    /// The sinks that lie in every tier, by name. None if these clients are denied.
    pub(super) async fn inside(&mut self, process_in: &'r [Tier], turns: &mut Turns<'_>) -> &[&'r SinkId] {
        turns.spend(BUILD).await;
        if !self.known.contains_key(process_in) {
            let mut inside = Vec::new();
            for (id, countries) in self.all.iter().filter(|_| !process_in.is_empty()) {
                turns.spend(work(process_in)).await;
                if self.outside(countries, process_in).is_none() {
                    inside.push(*id);
                }
            }
            self.known.insert(process_in, inside);
        }
        &self.known[process_in]
    }

    /// The first tier in which countries don't lie; `None` if they lie in every tier.
    pub(super) fn outside(&self, countries: &CountrySet, process_in: &[Tier]) -> Option<usize> {
        process_in.iter().position(|tier| !self.lie_in(countries, tier))
    }

    /// Whether countries lie in a tier.
    pub(super) fn lie_in(&self, countries: &CountrySet, tier: &Tier) -> bool {
        match tier {
            Tier::Anywhere => true,
            Tier::In(names) => names.iter().any(|name| countries.is_subset(&self.territories.of(name))),
        }
    }

    /// The sink of a fence: the one that is named, or else the only one inside.
    async fn of(&mut self, process_in: &'r [Tier], named: Option<&SinkId>, turns: &mut Turns<'_>) -> Option<SinkIndex> {
        let inside = self.inside(process_in, turns).await;
        let sink = match named {
            Some(named) => inside.iter().find(|id| **id == named),
            None => inside.first(),
        }?;
        let sink = *sink;
        self.all.binary_search_by_key(&sink, |(id, _)| *id).ok().map(SinkIndex::new)
    }
}

/// The work of finding whether a sink lies in a fence: each jurisdiction is looked up by its name.
pub(super) fn work(process_in: &[Tier]) -> usize {
    let names = |tier: &Tier| if let Tier::In(names) = tier { names.len() } else { 1 };
    BUILD * (1 + process_in.iter().map(names).sum::<usize>())
}

impl Table {
    /// The sinks of events, sorted by name.
    #[must_use]
    pub fn sinks(&self) -> &[Sink] {
        self.logs.as_ref().map_or(&[], |logs| &logs.sinks)
    }

    /// The sink at an index.
    ///
    /// # Panics
    /// If the table has no such index, as it comes from another table.
    #[must_use]
    pub fn sink(&self, index: SinkIndex) -> &Sink {
        &self.sinks()[index.get()]
    }

    /// The sink of the clients of a residency rule.
    pub(crate) fn sink_of_rule(&self, service: ServiceIndex, rule: usize) -> Option<SinkIndex> {
        *self.logs.as_ref()?.of_rules.get(service.get())?.get(rule)?
    }

    /// The sink of a tenant that has a fence of its own.
    pub(crate) fn sink_of_tenant(&self, tenant: TenantIndex) -> Option<SinkIndex> {
        *self.logs.as_ref()?.of_tenants.get(tenant.get())?
    }
}

#[cfg(test)]
mod tests;
