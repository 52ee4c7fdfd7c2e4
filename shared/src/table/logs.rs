//! Which sink gets the events of which clients. Takes the sinks, rules and tenants of a document; returns for each
//! fence the sink that lies in it. Used by `check`, `warn` and `build`.
//!
//! A sink lies in a fence if it lies in *every* tier of its `process_in`: whichever tier a request is processed in, its
//! event stays inside. A sink lies in a tier if one jurisdiction of the tier holds all its countries, as for a region.
//! So of nested tiers (`["de", "eu"]`) the innermost counts, and no sink lies in tiers that have nothing in common
//! (`["uk", "eu"]`). As one tier (`[["uk", "eu"]]`), either's sink does.

use super::territories::Territories;
use super::{ServiceIndex, SinkIndex, Table, TenantIndex};
use crate::geo::CountrySet;
use crate::id::SinkId;
use crate::rules::{self, Rules, Tier};

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
    pub(super) fn new(rules: &Rules, territories: &Territories) -> Option<Box<Self>> {
        if rules.logs.is_empty() {
            return None;
        }
        let known = Sinks::new(rules, territories);
        let of_rule = |rule: &rules::ResidencyRule| known.of(&rule.process_in, rule.logs.as_ref());
        let of_tenant = |tenant: &rules::Tenant| known.of(tenant.process_in.as_deref()?, tenant.logs.as_ref());
        Some(Box::new(Self {
            of_rules: rules.services.values().map(|one| one.residency.iter().map(of_rule).collect()).collect(),
            of_tenants: rules.tenants.values().map(of_tenant).collect(),
            sinks: rules.logs.iter().map(|(id, rule)| Sink { id: id.clone(), rule: rule.clone() }).collect(),
        }))
    }
}

/// The sinks of a document with their countries, to find those that lie in a fence.
pub(super) struct Sinks<'r> {
    /// Each sink, in the order of the document's names.
    pub(super) all: Vec<(&'r SinkId, CountrySet)>,
    territories: &'r Territories,
}

impl<'r> Sinks<'r> {
    pub(super) fn new(rules: &'r Rules, territories: &'r Territories) -> Self {
        let all = rules.logs.iter().map(|(id, sink)| (id, territories.countries(&sink.countries)));
        Self { all: all.collect(), territories }
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

    /// The sinks that lie in every tier. None if these clients are denied.
    pub(super) fn inside<'s>(&'s self, process_in: &'s [Tier]) -> impl Iterator<Item = &'r SinkId> + 's {
        let lies = move |(_, countries): &&(&SinkId, CountrySet)| {
            !process_in.is_empty() && self.outside(countries, process_in).is_none()
        };
        self.all.iter().filter(lies).map(|(id, _)| *id)
    }

    /// The sink of a fence: the one that is named, or else the only one inside.
    pub(super) fn of(&self, process_in: &[Tier], named: Option<&SinkId>) -> Option<SinkIndex> {
        let mut inside = self.inside(process_in);
        let sink = match named {
            Some(named) => inside.find(|id| *id == named),
            None => inside.next(),
        }?;
        self.all.iter().position(|(id, _)| *id == sink).map(SinkIndex::new)
    }
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
