//! Warnings about host names in monitors, endpoints and answers: steered names, which may lead to any region; address
//! families that no monitor checks; aliases in a circle. Takes what [`Warner`] holds, adds warnings. Called by
//! [`super::warnings`].

use std::collections::{BTreeMap, BTreeSet};

use super::Warner;
use crate::id::ServiceId;
use crate::rules::{Monitor, Probe};

impl Warner<'_> {
    /// Warns of monitors, sources of loads and endpoints at a steered name. A request to a steered name reaches
    /// whichever region is chosen at the time: a monitor says nothing of its own region then, and the edge would send
    /// requests to itself.
    pub(super) fn steered_names(&mut self) {
        let (rules, hosts) = (self.rules, self.hosts);
        let steers = |name: &str| {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let service = hosts.service_of(&name)?;
            Some((name, rules.services.keys().nth(service.get())?))
        };
        let host_of = |monitor: &Monitor| match &monitor.probe {
            Probe::Tcp { address } => address.rsplit_once(':').map(|(host, _)| host.to_owned()),
            other => other.http()?.url.as_url().host_str().map(str::to_owned),
        };
        let field = |monitor: &Monitor| if matches!(monitor.probe, Probe::Tcp { .. }) { "address" } else { "url" };
        let mut reported = Vec::new();
        for region in self.regions {
            for (place, monitor) in region.monitors() {
                if let Some((name, service)) = host_of(monitor).and_then(|host| steers(&host)) {
                    let message = format!(
                        "asks {name}, which the service {service} steers: the probe reaches whichever region is \
                         chosen, not this one; \
                         name the region's own address or a name of its own"
                    );
                    reported.push((format!("{place}/{}", field(monitor)), message));
                }
            }
            for (place, source) in region.load_sources() {
                if let Some((name, service)) = source.http.url.as_url().host_str().and_then(steers) {
                    let message = format!(
                        "asks {name}, which the service {service} steers: the load is that of whichever region is \
                         chosen, not of this one; name the endpoint's own address or a name of its own"
                    );
                    reported.push((format!("{place}/url"), message));
                }
            }
            for (id, endpoint) in &region.endpoints {
                if let Some((name, service)) = endpoint.url.as_url().host_str().and_then(steers) {
                    let message = format!(
                        "goes to {name}, which the service {service} steers: the edge would send requests to itself, \
                         or to whichever \
                         region is chosen; name the endpoint's own address or a name of its own"
                    );
                    reported.push((format!("/regions/{}/endpoints/{id}/url", region.id), message));
                }
            }
        }
        for (place, message) in reported {
            self.warn(place, message);
        }
    }

    /// Warns of a monitor that probes a host name for a region that publishes both IPv4 and IPv6 addresses. The monitor
    /// is content while any address of the name answers, so it doesn't notice that one family is down.
    pub(super) fn unseen_families(&mut self) {
        let reported = self.regions.iter().filter_map(|region| {
            let publishes_both =
                region.answers.as_ref().is_some_and(|answers| !answers.a.is_empty() && !answers.aaaa.is_empty());
            let monitor = region.monitor.as_ref().filter(|monitor| publishes_both && monitor.family.is_none())?;
            let is_name = monitor.probe.address_family().is_none();
            is_name.then(|| format!("/regions/{}/monitor", region.id))
        });
        for place in reported.collect::<Vec<_>>() {
            self.warn(
                place,
                "is content while any address of its name answers, but the region publishes A and AAAA: while one \
                 family is \
                 dead its records are given out all the same; add \"family\": \"both\", or \"any\" if that is meant",
            );
        }
    }

    /// Warns of aliases that lead from service to service and back to the first.
    pub(super) fn alias_loops(&mut self) {
        let leads_to = |id: &ServiceId| -> BTreeSet<&ServiceId> {
            let Some(service) = self.rules.services.get(id) else { return BTreeSet::new() };
            let answers =
                self.members(service).filter_map(|region| region.answers.as_ref()).chain(&service.denied_answers);
            let owners = answers
                .flat_map(crate::table::check::aliases)
                .filter_map(|target| self.hosts.owner_of(target.as_str()));
            owners.filter_map(|owner| self.rules.services.keys().nth(owner.get())).collect()
        };
        let edges: BTreeMap<&ServiceId, BTreeSet<&ServiceId>> =
            self.rules.services.keys().map(|id| (id, leads_to(id))).collect();
        let mut reported = Vec::new();
        for (id, next) in &edges {
            let (mut reached, mut open) = (BTreeSet::new(), next.iter().copied().collect::<Vec<_>>());
            while let Some(id) = open.pop() {
                if reached.insert(id) {
                    open.extend(edges.get(id).into_iter().flatten().copied());
                }
            }
            if reached.contains(id) {
                let through: Vec<String> = reached.iter().filter(|name| *name != id).map(ToString::to_string).collect();
                let message = format!(
                    "are reached again by the aliases of this service's regions, through {}: whoever follows them goes \
                     in a circle; let \
                     one of these publish addresses",
                    through.join(", ")
                );
                reported.push((format!("/services/{id}/hosts"), message));
            }
        }
        for (place, message) in reported {
            self.warn(place, message);
        }
    }
}
