//! Health that programs report to each other. Holds the JSON that a DNS node reports at `/v1/health`. [`aggregate`]
//! takes the reports of several nodes, returns one status for each region. Written by the DNS node, read by the edge.

mod drill;
mod fleet;
mod loads;
mod overrides;
mod probe;
mod ratio;
mod releases;
mod replicas;
mod rollouts;
mod running;
mod shares;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::health::{AddressFamily, Forced, RegionHealth, Status};
use crate::id::{EndpointId, RegionId, ReplicaId};
use crate::steer::first_token::Medians;
use crate::table::{RegionIndex, Table};
use crate::time::{Millis, Timestamp};

pub use drill::{DrillRecord, Drilled, FURTHEST_END, LONGEST_HOLD};
pub use fleet::{HeldBy, VerdictReport, Votes};
pub use loads::{EndpointLoadReport, LoadReport};
pub use overrides::OverrideRecord;
pub use probe::ProbeReport;
pub use releases::ReleaseReport;
pub use replicas::ReplicaReport;
pub use rollouts::{RolloutReport, RolloutsReport};
pub use running::{ReleaseState, ReleasesReport, Running, RunningReport, running};
pub use shares::{ClassShares, MoveReport, Shares, SharesReport, Shed};

/// For how many intervals between probes a report stays fresh.
pub const FRESH_INTERVALS: u64 = 3;

/// The interval that is reported for a region without monitors. An override of such a region counts for three of these
/// intervals without a new report.
pub const DEFAULT_INTERVAL: Millis = Millis(10_000);

/// What one node reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HealthReport {
    /// The node's name.
    pub node: String,
    /// The revision of the rules that the node follows.
    pub revision: u64,
    /// SHA-256 of the bytes of those rules, in hex.
    pub rules_sha256: String,
    /// For each zone that the node signs, a digest of the public keys and of their stages and times. Nodes with
    /// different digests serve different keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keys_sha256: BTreeMap<String, String>,
    /// Whether the node's own network connection seems to be down, so that what the node sees doesn't count.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub blind: bool,
    /// What this node's own probes say about every region of the rules.
    pub regions: BTreeMap<RegionId, RegionReport>,
    /// What the voters (the nodes whose reports count as votes on health) agree on, for every region. Empty if the
    /// rules name no voters. `regions` has what this node itself sees.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fleet: BTreeMap<RegionId, VerdictReport>,
    /// The overrides that operators made or ended by the API of any node and that haven't expired. Nodes of a fleet
    /// pass them on to each other. `regions` says which of them are in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<OverrideRecord>,
    /// How full regions are; empty where the rules name no source of loads.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub loads: BTreeMap<RegionId, LoadReport>,
    /// Which parts of the clients are to be moved because of load; absent where the rules name no source of loads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<SharesReport>,
    /// The drill that is under way or ended lately: a share of a region's clients is sent elsewhere to rehearse its
    /// loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drill: Option<DrillRecord>,
    /// Other runs of drills that ended lately. Whoever still takes one of them for under way learns that it isn't.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended_drills: Vec<DrillRecord>,
    /// The median time to the first token that Workers observed, in milliseconds, by service and region. Empty where no
    /// service orders regions by that time.
    #[serde(default, skip_serializing_if = "Medians::is_empty")]
    pub first_token_ms: Medians,
    /// What else a node of a fleet reports to the others; absent outside of a fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<About>,
}

/// What a node of a fleet reports about itself, for people to compare. No decision depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The node's time when it sent the report.
    pub now: Timestamp,
    /// When the node's GeoIP database was built; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geoip_built: Option<Timestamp>,
}

/// What one node reports about a region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegionReport {
    /// The status that counts: that of the override if one is in force, else `probed`.
    pub status: Status,
    /// The status by probes.
    pub probed: Status,
    /// Whether a monitor had no result for three intervals.
    pub stale: bool,
    /// The override in force.
    #[serde(rename = "override")]
    pub forced: Option<OverrideReport>,
    /// The age in milliseconds of the oldest of its monitors' last results; 0 if there is none.
    pub age_ms: u64,
    /// The longest interval of its monitors, in milliseconds.
    pub interval_ms: u64,
    /// What the probes say of IPv4 and IPv6 addresses, where a monitor probes them apart. All other fields count such a
    /// monitor as up while either family is up.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub families: BTreeMap<AddressFamily, Status>,
    /// What the region's own monitor says, if it asks a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeReport>,
    /// Every endpoint.
    #[serde(default)]
    pub endpoints: BTreeMap<EndpointId, EndpointReport>,
    /// The region's copies of replicas that are read; empty where the rules name none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub replicas: BTreeMap<ReplicaId, ReplicaReport>,
}

/// An override in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OverrideReport {
    /// `up` or `down`.
    pub status: Status,
    /// When the override ends.
    pub until: Timestamp,
    /// Why the operator made it.
    pub reason: String,
}

/// What one node reports about an endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointReport {
    /// The status that counts: that of the override if one is in force, else what the endpoint's probes say.
    pub status: Status,
    /// What the endpoint's probes say; absent if no override is in force, as `status` says it then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probed: Option<Status>,
    /// The override in force.
    #[serde(default, rename = "override", skip_serializing_if = "Option::is_none")]
    pub forced: Option<OverrideReport>,
    /// What the endpoint's probes say of IPv4 and IPv6 addresses, where its monitor probes them apart.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub families: BTreeMap<AddressFamily, Status>,
    /// What the endpoint's monitor says, if it asks a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeReport>,
    /// What the endpoint runs, by the clients' name of the model; empty where the rules name no release of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub releases: BTreeMap<String, ReleaseReport>,
}

impl EndpointReport {
    /// What the endpoint's probes say, whether or not an override is in force.
    #[must_use]
    pub fn by_probes(&self) -> Status {
        self.probed.unwrap_or(self.status)
    }
}

/// A report and when it arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// When the report arrived.
    pub at: Timestamp,
    /// The report.
    pub report: HealthReport,
}

/// Health by region index, from the nodes' reports. A region or endpoint is down when a strict majority of the fresh
/// reports says so; a tie counts as up; without fresh reports the status is unknown. An override counts if any fresh
/// report has it, and down counts more than up.
#[must_use]
pub fn aggregate(table: &Table, reports: &[Received], now: Timestamp) -> Vec<RegionHealth> {
    let regions = (0..).zip(table.regions());
    let mut health: Vec<RegionHealth> =
        regions.map(|(index, _)| region_health(table, RegionIndex(index), reports, now)).collect();
    if !table.releases().is_empty() {
        let releases = crate::release::health(table, &releases::fresh_readings(table, reports, now));
        health.iter_mut().zip(releases).for_each(|(region, releases)| region.releases = releases);
    }
    health
}

/// The health of a region by the fresh reports of all nodes.
fn region_health(table: &Table, index: RegionIndex, reports: &[Received], now: Timestamp) -> RegionHealth {
    let region = table.region(index);
    let reported = || {
        let of_region =
            |received: &'_ Received| Some((received.at, received.report.regions.get(region.id.as_str())?.clone()));
        reports.iter().filter_map(of_region)
    };
    let within = |age: u64, reported: &RegionReport| age <= FRESH_INTERVALS.saturating_mul(reported.interval_ms);
    let fresh: Vec<RegionReport> = reported()
        .filter(|(at, reported)| within(reported.age_ms.saturating_add(now.since(*at).0), reported))
        .map(|(_, reported)| reported)
        .collect();
    // An override counts as long as its node sends reports, even if the last probe's result is old.
    let recent: Vec<RegionReport> =
        reported().filter(|(at, reported)| within(now.since(*at).0, reported)).map(|(_, reported)| reported).collect();
    let forced = binding(recent.iter().filter_map(|reported| reported.forced.as_ref()), now);
    let is_forced = recent.iter().any(|reported| reported.endpoints.values().any(|endpoint| endpoint.forced.is_some()));
    let forced_endpoint = |name: &EndpointId| {
        let of_endpoint = recent.iter().filter_map(|reported| reported.endpoints.get(name.as_str())?.forced.as_ref());
        binding(of_endpoint, now)
    };
    let endpoint = |name: &EndpointId| {
        let of_endpoint = fresh.iter().filter_map(|reported| reported.endpoints.get(name.as_str()));
        majority(of_endpoint.map(EndpointReport::by_probes))
    };
    let names = || region.endpoints.iter().map(|(name, _)| name);
    let copy = |copy: &crate::table::RegionReplica| {
        let id = &table.replica(copy.replica).id;
        let fresh: Vec<&ReplicaReport> = reports
            .iter()
            .filter_map(|received| {
                let of_region = received.report.regions.get(region.id.as_str())?;
                of_region.replicas.get(id.as_str()).filter(|replica| replica.counts(of_region, received.at, now))
            })
            .collect();
        replicas::combined(table, copy, &fresh, |statuses| majority(statuses))
    };
    RegionHealth {
        probed: majority(fresh.iter().map(|reported| reported.probed)),
        forced,
        stale: fresh.iter().any(|reported| reported.stale),
        time_to_down: None,
        time_to_up: None,
        endpoints: names().map(endpoint).collect(),
        forced_endpoints: if is_forced { names().map(forced_endpoint).collect() } else { Vec::new() },
        replicas: region.replicas.iter().map(copy).collect(),
        releases: Vec::new(),
    }
}

/// The override that counts, of those that nodes report: down before up, then the one that lasts longest.
fn binding<'a>(reported: impl Iterator<Item = &'a OverrideReport>, now: Timestamp) -> Option<Forced> {
    reported
        .filter(|forced| forced.until > now && forced.status != Status::Unknown)
        .min_by_key(|forced| (forced.status != Status::Down, core::cmp::Reverse(forced.until)))
        .map(|forced| Forced { status: forced.status, until: forced.until, reason: forced.reason.clone() })
}

/// The status that most nodes see. More than half have to say that something is down.
fn majority(statuses: impl Iterator<Item = Status>) -> Status {
    let (mut down, mut up, mut all) = (0, 0, 0);
    for status in statuses {
        all += 1;
        match status {
            Status::Down => down += 1,
            Status::Up => up += 1,
            Status::Unknown => {}
        }
    }
    match () {
        () if down * 2 > all => Status::Down,
        () if up > 0 || down > 0 => Status::Up,
        () => Status::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn table() -> Table {
        Table::compile(
            br#"{ "version": 1, "revision": 1,
            "regions": { "fra": { "countries": ["DE"],
                "endpoints": { "fra-1": { "url": "https://fra1.example/v1" } } } } }"#,
        )
        .unwrap()
    }

    /// A report that a node sent `ago` milliseconds ago.
    fn received(ago: i64, probed: &str, forced: Option<&str>) -> Received {
        let forced = forced.map(|status| {
            serde_json::json!({ "status": status, "until": NOW.after(Millis(60_000)).to_string(), "reason": "drill" })
        });
        let report = serde_json::json!({
            "node": "ns1", "revision": 1, "rules_sha256": "",
            "regions": { "fra": { "status": probed, "probed": probed, "stale": false, "override": forced,
                "age_ms": 1000,
                                  "interval_ms": 5000, "endpoints": { "fra-1": { "status": probed } } } },
        });
        Received { at: Timestamp(NOW.0 - ago), report: serde_json::from_value(report).unwrap() }
    }

    fn seen(reports: &[Received]) -> (Status, Status, Option<Status>) {
        let health = aggregate(&table(), reports, NOW).remove(0);
        (health.probed, health.endpoints[0], health.forced.map(|forced| forced.status))
    }

    #[test]
    fn a_strict_majority_brings_a_region_down_and_a_tie_does_not() {
        let (up, down) = (received(0, "up", None), received(0, "down", None));
        assert_eq!(seen(&[]), (Status::Unknown, Status::Unknown, None));
        assert_eq!(seen(core::slice::from_ref(&down)), (Status::Down, Status::Down, None));
        assert_eq!(seen(&[down.clone(), up.clone()]), (Status::Up, Status::Up, None));
        assert_eq!(seen(&[down.clone(), up, down]), (Status::Down, Status::Down, None));
    }

    #[test]
    fn digests_of_keys_are_told_by_those_who_sign_and_missed_from_no_one_else() {
        let mut report = received(0, "up", None).report;
        assert!(report.keys_sha256.is_empty());
        assert!(serde_json::to_value(&report).unwrap().get("keys_sha256").is_none());
        report.keys_sha256.insert("ai.example.com.".into(), "00".into());
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["keys_sha256"], serde_json::json!({ "ai.example.com.": "00" }));
        assert_eq!(serde_json::from_value::<HealthReport>(json).unwrap(), report);
    }

    #[test]
    fn a_report_older_than_three_intervals_says_nothing() {
        assert_eq!(
            seen(&[received(14_000, "down", None)]).0,
            Status::Down,
            "the probe's 1 s and the report's 14 s are 15 s together"
        );
        assert_eq!(seen(&[received(14_001, "down", None)]).0, Status::Unknown);
        assert_eq!(seen(&[received(14_001, "up", None), received(0, "down", None)]).0, Status::Down);
    }

    #[test]
    fn an_endpoints_override_binds_and_its_probes_count_beside_it() {
        let with = |status: &str, forced: Option<&str>| {
            let mut one = received(0, "up", None);
            let until = NOW.after(Millis(60_000)).to_string();
            let reported = match forced {
                None => serde_json::json!({ "status": status }),
                Some(word) => serde_json::json!({ "status": word, "probed": status,
                    "override": { "status": word, "until": until, "reason": "drill" } }),
            };
            let endpoint = one.report.regions.get_mut("fra").unwrap().endpoints.get_mut("fra-1").unwrap();
            *endpoint = serde_json::from_value(reported.clone()).unwrap();
            assert_eq!(serde_json::to_value(&endpoint).unwrap(), reported, "the report is written as it was read");
            one
        };
        let seen = |reports: &[Received], now| {
            let health = aggregate(&table(), reports, now).remove(0);
            let forced = health.forced_endpoints.first().cloned().flatten();
            (health.endpoints[0], forced.map(|forced| forced.status))
        };
        assert_eq!(seen(&[with("up", None)], NOW), (Status::Up, None));
        assert_eq!(seen(&[with("up", Some("down"))], NOW), (Status::Up, Some(Status::Down)));
        assert_eq!(
            seen(&[with("up", None), with("up", Some("up")), with("up", Some("down"))], NOW).1,
            Some(Status::Down)
        );
        assert_eq!(seen(&[with("up", Some("down"))], NOW.after(Millis(15_001))).1, None, "the node has gone silent");
        let kept = aggregate(&table(), &[with("up", None)], NOW).remove(0);
        assert!(kept.forced_endpoints.is_empty(), "an unused list takes no memory");
    }

    #[test]
    fn any_fresh_override_binds_and_down_beats_up() {
        assert_eq!(seen(&[received(0, "up", None), received(0, "up", Some("down"))]).2, Some(Status::Down));
        assert_eq!(seen(&[received(0, "up", Some("up")), received(0, "up", Some("down"))]).2, Some(Status::Down));
        assert_eq!(seen(&[received(15_001, "up", Some("down"))]).2, None, "the node has gone silent");
    }
}
