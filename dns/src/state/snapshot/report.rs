//! Takes a snapshot and the time, returns the report of `/v1/health` and its parts. Called by the API and the metrics.

use std::collections::BTreeMap;

use bailiwick_rules::health::{AddressFamily, RegionHealth, Status, supposing_down};
use bailiwick_rules::id::RegionId;
use bailiwick_rules::report::{
    About, DEFAULT_INTERVAL, EndpointReport, HealthReport, OverrideReport, ProbeReport, RegionReport, SharesReport,
};
use bailiwick_rules::steer::first_token::Medians;
use bailiwick_rules::steer::{Ask, Conditions, InForce, Local, effective_status, forced, forced_endpoint, steer};
use bailiwick_rules::table::RegionIndex;
use bailiwick_rules::time::{Millis, Timestamp};

use super::{MonitorView, Snapshot};

impl Snapshot {
    /// The report of `/v1/health`. For regions it has the health by this node's own probes, so that the votes of others
    /// don't echo. Beside that it has what the voters agree on.
    #[must_use]
    pub(crate) fn health_report(&self, node: &str, now: Timestamp) -> HealthReport {
        let table = self.table();
        let regions = (0..).map(RegionIndex).zip(table.regions());
        HealthReport {
            node: node.to_owned(),
            revision: table.revision().number,
            rules_sha256: table.revision().sha256_hex(),
            keys_sha256: self.keys_sha256(),
            blind: self.health.fleet.as_ref().is_some_and(|fleet| fleet.is_blind),
            regions: regions.map(|(index, region)| (region.id.clone(), self.region_report(index, now))).collect(),
            fleet: self.fleet_report(now),
            overrides: self.health.override_records.clone(),
            loads: self.load_reports(now),
            shares: self.health.shares.as_ref().map(|shares| SharesReport::clone(&shares.report)),
            drill: self.health.drill.clone(),
            ended_drills: self.health.ended_drills.clone(),
            first_token_ms: Medians::new(),
            about: None,
        }
    }

    /// A digest of the keys of each zone that this node signs, by the name of the zone.
    pub(crate) fn keys_sha256(&self) -> BTreeMap<String, String> {
        self.world.key_sets().map(|key_set| (key_set.zone_name(), key_set.digest().to_owned())).collect()
    }

    /// Facts about this node for the other nodes of its fleet.
    pub(crate) fn about(&self, now: Timestamp) -> About {
        About { now, geoip_built: self.world.places().built() }
    }

    /// What the health report says about a region: the results of probes and the status with overrides.
    fn region_report(&self, index: RegionIndex, now: Timestamp) -> RegionReport {
        let (table, local) = (self.table(), Local::default());
        let own = self.health.own_regions();
        let conditions = Conditions { health: own, local: &local, now };
        let health = own.get(index.get());
        let monitors = || self.health.monitors.iter().filter(|monitor| monitor.region == index);
        // The report's age is the age of the oldest result behind the region's status. Its interval is the longest of
        // the monitors' intervals.
        let age = monitors().filter_map(|monitor| monitor.monitored.last_result).map(|last| now.since(last)).max();
        let interval = monitors().map(|monitor| monitor.monitored.interval).max().unwrap_or(DEFAULT_INTERVAL);
        let endpoints = table.region(index).endpoints.iter().enumerate();
        RegionReport {
            status: effective_status(table, index, &conditions),
            probed: health.map_or(Status::Unknown, |health| health.probed),
            stale: monitors().any(|monitor| monitor.monitored.is_stale(now)),
            forced: forced(table, index, &conditions).map(override_report),
            age_ms: age.unwrap_or(Millis(0)).0,
            interval_ms: interval.0,
            families: self.families(index, None),
            probe: self.probe_report(index, None),
            endpoints: endpoints
                .map(|(position, (id, _))| (id.clone(), self.endpoint_report(index, position, &conditions)))
                .collect(),
            replicas: self.replica_reports(index, now),
        }
    }

    /// What the health report says about an endpoint.
    fn endpoint_report(&self, region: RegionIndex, position: usize, conditions: &Conditions<'_>) -> EndpointReport {
        let health = self.health.own_regions().get(region.get());
        let probed = health.and_then(|health| health.endpoints.get(position).copied()).unwrap_or_default();
        let (families, probe) = (self.families(region, Some(position)), self.probe_report(region, Some(position)));
        let releases = self.release_reports(region, position, conditions.now);
        match forced_endpoint(self.table(), region, position, conditions) {
            None => EndpointReport { status: probed, probed: None, forced: None, families, probe, releases },
            Some(forced) => {
                let (status, forced) = (forced.status, Some(override_report(forced)));
                EndpointReport { status, probed: Some(probed), forced, families, probe, releases }
            }
        }
    }

    /// What the probes of a model say, if the monitor of the region (`endpoint` is `None`) or of the endpoint asks a
    /// model.
    fn probe_report(&self, region: RegionIndex, endpoint: Option<usize>) -> Option<ProbeReport> {
        let is_it = |monitor: &&MonitorView| (monitor.region, monitor.endpoint) == (region, endpoint);
        let monitor = self.health.monitors.iter().find(is_it)?;
        let model = monitor.model.as_ref()?;
        let (verdict, says, since) = match model.verdict {
            Some((verdict, since)) => (verdict.as_str(), verdict.meaning(), Some(since)),
            None => ("none", "no probe has ended yet", None),
        };
        Some(ProbeReport {
            verdict: verdict.to_owned(),
            says: says.to_owned(),
            since,
            failure: monitor.failure.as_deref().map(str::to_owned),
            raised: model.raised.map(|limit| limit.to_string()),
            unpaid_until: model.unpaid_until,
        })
    }

    /// The probed status of each family of addresses, of a region or of one of its endpoints. Empty if no monitor there
    /// distinguishes the families.
    fn families(&self, region: RegionIndex, endpoint: Option<usize>) -> BTreeMap<AddressFamily, Status> {
        let Some(by_family) = self.health.own_by_family() else { return BTreeMap::new() };
        let is_half = |monitor: &MonitorView| {
            monitor.family.is_some() && monitor.region == region && (endpoint.is_none() || monitor.endpoint == endpoint)
        };
        if !self.health.monitors.iter().any(is_half) {
            return BTreeMap::new();
        }
        let status = |of: &[RegionHealth]| {
            let health = of.get(region.get())?;
            let of_endpoint = |position: usize| health.endpoints.get(position).copied();
            endpoint.map_or(Some(health.probed), of_endpoint)
        };
        let both = [(AddressFamily::Ipv4, &by_family.ipv4), (AddressFamily::Ipv6, &by_family.ipv6)];
        both.into_iter().map(|(family, of)| (family, status(of).unwrap_or_default())).collect()
    }

    /// The regions whose A and AAAA records a client gets. Empty if both are the first region of the order. They may
    /// differ if one family of a region's addresses is down. The regions `down` are assumed to be down.
    #[must_use]
    pub(crate) fn by_type(&self, ask: &Ask<'_>, down: &[usize], now: Timestamp) -> BTreeMap<&'static str, RegionId> {
        let Some(by_family) = &self.health.by_family else { return BTreeMap::new() };
        let (table, local) = (self.table(), Local::default());
        let first = |health: &[RegionHealth]| {
            let health = supposing_down(health, down);
            let steering = steer(table, ask, &Conditions { health: &health, local: &local, now });
            let offered = steering.ordered.first().map(|first| first.fenced.region);
            (offered, offered.is_some() && !steering.revived)
        };
        let (usual, _) = first(&self.health.regions);
        let offered_by = |health: &[RegionHealth]| match first(health) {
            (offered, true) => offered,
            (_, false) => usual,
        };
        let (a, aaaa) = (offered_by(&by_family.ipv4), offered_by(&by_family.ipv6));
        if a == usual && aaaa == usual {
            return BTreeMap::new();
        }
        let named = |region: Option<RegionIndex>| region.map(|region| table.region(region).id.clone());
        [("A", named(a)), ("AAAA", named(aaaa))].into_iter().filter_map(|(kind, name)| Some((kind, name?))).collect()
    }
}

fn override_report(InForce { status, until, reason }: InForce<'_>) -> OverrideReport {
    OverrideReport { status, until, reason: reason.to_owned() }
}
