//! Decides what is compared with what. Takes two tables (compiled documents), returns the pairs of services that have a
//! host or a name in common, and the tenants whose fence (the regions that may process them) may differ from that of
//! clients without a tenant. Called by `compare`.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::TenantId;
use crate::table::{Service, ServiceIndex, Table, TenantIndex};

/// A service of the old document and one of the new.
type Pair = (Option<ServiceIndex>, Option<ServiceIndex>);

/// Clients of a service that are compared as one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Subject {
    /// The service in the old and in the new document.
    pub(super) services: Pair,
    /// The hosts that this is about; empty: all hosts of the service.
    pub(super) hosts: Vec<String>,
    /// A tenant in the old and in the new document, taken as an example of all of `tenants`.
    pub(super) tenant: Option<(Option<TenantIndex>, Option<TenantIndex>)>,
    /// The tenants that have the same fences, by name.
    pub(super) tenants: Vec<TenantId>,
}

/// Everything that has to be compared.
pub(super) fn subjects(old: &Table, new: &Table) -> Vec<Subject> {
    let mut pairs: BTreeMap<Pair, Vec<String>> = BTreeMap::new();
    let services = |table: &Table| {
        let with_hosts = |(index, service): (ServiceIndex, &Service)| {
            service.hosts.iter().map(move |host| (host.as_str().to_owned(), index)).collect::<Vec<_>>()
        };
        (0..).map(ServiceIndex).zip(table.services()).flat_map(with_hosts).collect::<BTreeMap<String, ServiceIndex>>()
    };
    let (before, after) = (services(old), services(new));
    for host in before.keys().chain(after.keys().filter(|host| !before.contains_key(*host))) {
        let pair = (before.get(host).copied(), after.get(host).copied());
        pairs.entry(pair).or_default().push(host.clone());
    }
    // A service without hosts is served by the edge alone. It is paired by name.
    for (index, service) in (0..).map(ServiceIndex).zip(old.services()) {
        if let Some(same) = new.service_named(service.id.as_str()) {
            pairs.entry((Some(index), Some(same))).or_default();
        } else if service.hosts.is_empty() {
            pairs.entry((Some(index), None)).or_default();
        }
    }
    for (index, service) in (0..).map(ServiceIndex).zip(new.services()) {
        if service.hosts.is_empty() && old.service_named(service.id.as_str()).is_none() {
            pairs.entry((None, Some(index))).or_default();
        }
    }
    let mut subjects: Vec<Subject> = Vec::new();
    for (services, hosts) in pairs {
        let is_whole = |table: &Table, index: Option<ServiceIndex>| {
            index.is_none_or(|index| table.service(index).hosts.len() == hosts.len())
        };
        let is_same_name = match services {
            (Some(before), Some(after)) => old.service(before).id == new.service(after).id,
            _ => false,
        };
        let whole = is_same_name || is_whole(old, services.0) && is_whole(new, services.1);
        let hosts = if whole { Vec::new() } else { hosts };
        subjects.push(Subject { services, hosts, tenant: None, tenants: Vec::new() });
    }
    let pairs: Vec<Pair> = subjects.iter().map(|subject| subject.services).collect();
    subjects.extend(of_tenants(old, new, &pairs));
    subjects
}

/// What tells the fences of tenants apart: the declared residency by name, and the tenant's own fence by region and
/// tier.
type Fences = (Vec<String>, Option<Vec<(String, usize)>>);

/// The tenants that may use a service in either document and that declare a residency, have a fence of their own, or
/// may not use the service in the other document.
fn of_tenants(old: &Table, new: &Table, pairs: &[Pair]) -> Vec<Subject> {
    let names: BTreeSet<&TenantId> = old.tenants().iter().chain(new.tenants()).map(|tenant| &tenant.id).collect();
    let mut alike: BTreeMap<(Pair, [Option<Fences>; 2]), Subject> = BTreeMap::new();
    let both = pairs.iter().filter_map(|(before, after)| Some(((*before)?, (*after)?)));
    for ((before, after), name) in both.flat_map(|pair| names.iter().map(move |name| (pair, *name))) {
        let user = |table: &Table, service: ServiceIndex| {
            let tenant = table.tenant_named(name.as_str())?;
            table.tenant(tenant).services.contains(&service).then_some(tenant)
        };
        let tenant = (user(old, before), user(new, after));
        let is_placed = |table: &Table, tenant: Option<TenantIndex>| {
            let tenant = tenant.map(|tenant| table.tenant(tenant));
            tenant.is_none_or(|tenant| tenant.has_fence() || !tenant.residency.is_empty())
        };
        if tenant == (None, None) || !is_placed(old, tenant.0) && !is_placed(new, tenant.1) {
            continue;
        }
        let services = (tenant.0.map(|_| before), tenant.1.map(|_| after));
        let fences = [fences(old, tenant.0, before), fences(new, tenant.1, after)];
        let of_these = alike.entry((services, fences)).or_insert_with(|| Subject {
            services,
            hosts: Vec::new(),
            tenant: Some(tenant),
            tenants: Vec::new(),
        });
        of_these.tenants.push(name.clone());
    }
    alike.into_values().collect()
}

/// What decides a tenant's fence at a service: its jurisdictions, and its own list of regions if it has one.
fn fences(table: &Table, tenant: Option<TenantIndex>, service: ServiceIndex) -> Option<Fences> {
    let tenant = table.tenant(tenant?);
    let residency = tenant.residency.iter().map(|&jurisdiction| table.jurisdiction(jurisdiction).to_string()).collect();
    let own = tenant.fence(service).map(|fence| {
        fence.iter().map(|fenced| (table.region(fenced.region).id.to_string(), fenced.tier)).collect::<Vec<_>>()
    });
    Some((residency, own))
}
