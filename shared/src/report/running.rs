//! What a node reports at `/v1/releases`: what each region runs under each name of a model, and what differs. Takes the
//! rules, health and readings, returns the report. Called by the DNS node; read by `bailiwick releases`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ReleaseReport;
use crate::health::{Aspect, AspectValue};
use crate::id::{EndpointId, RegionId};
use crate::release::distance;
use crate::rules::{Canary, Glob};
use crate::steer::{Conditions, differing_endpoints};
use crate::table::{RegionIndex, ReleaseIndex, Table};
use crate::time::Timestamp;

/// All releases of the rules in service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReleasesReport {
    /// The node's name.
    pub node: String,
    /// The node's time.
    pub at: Timestamp,
    /// The revision of the rules.
    pub revision: u64,
    /// The releases, by the clients' name of the model.
    pub releases: BTreeMap<String, ReleaseState>,
}

/// One release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReleaseState {
    /// What happens to a region that runs something else: `warn` or `withhold`.
    pub skew: String,
    /// The values that the rules pin, by the name of the aspect.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pins: BTreeMap<String, String>,
    /// Every endpoint that has the model, sorted by region, then by name.
    pub endpoints: Vec<RunningReport>,
}

/// What an endpoint runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunningReport {
    /// The region.
    pub region: RegionId,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// How it compares with the release.
    pub state: Running,
    /// What differs from the pin, or from most regions of a fence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<String>,
    /// How far the endpoint's canary (the likeliest tokens of its answers to fixed prompts) is from the pinned one, in
    /// nats. If none is pinned: how far it is from that of the endpoint that differs most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_apart: Option<f64>,
    /// What the endpoint said; absent if no node asks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<ReleaseReport>,
}

/// How an endpoint compares with the release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Running {
    /// All that is known of the endpoint is as it should be.
    Same,
    /// The endpoint runs something else.
    Skew,
    /// Regions run different versions, and none of the versions has a majority.
    Undecided,
    /// Nothing is known that could be compared.
    Unknown,
    /// The endpoint runs something else on purpose, because of a rollout.
    Rollout,
}

impl Running {
    /// The word in JSON and tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Skew => "skew",
            Self::Undecided => "undecided",
            Self::Unknown => "unknown",
            Self::Rollout => "rollout",
        }
    }

    /// Whether endpoints of one fence run different things.
    #[must_use]
    pub fn is_skewed(self) -> bool {
        matches!(self, Self::Skew | Self::Undecided)
    }
}

/// The state of each release, by the name of its model. `said` returns what this node read of an endpoint.
#[must_use]
pub fn running(
    table: &Table,
    conditions: &Conditions<'_>,
    report_of: impl Fn(RegionIndex, usize, ReleaseIndex) -> Option<ReleaseReport>,
) -> BTreeMap<String, ReleaseState> {
    let fences = fences(table);
    let mut states = BTreeMap::new();
    for (position, release) in table.releases().iter().enumerate() {
        let index = ReleaseIndex::new(position);
        let mut endpoints = Vec::new();
        for (region, of_region) in table.regions().iter().enumerate() {
            let region = RegionIndex::new(region);
            for (endpoint, (id, _)) in of_region.endpoints.iter().enumerate() {
                if table.call_of(region, endpoint, index).is_none() {
                    continue;
                }
                let (state, aspects) = state(table, &fences, (region, endpoint, index), conditions);
                endpoints.push(RunningReport {
                    region: of_region.id.clone(),
                    endpoint: id.clone(),
                    state,
                    differs: aspects.into_iter().map(|aspect| aspect.as_str().to_owned()).collect(),
                    canary_apart: None,
                    said: report_of(region, endpoint, index),
                });
            }
        }
        measure(&mut endpoints, release.rule.canary.as_ref());
        let skew = if release.withholds() { "withhold" } else { "warn" };
        let state = ReleaseState { skew: skew.to_owned(), pins: pins(&release.rule), endpoints };
        states.insert(release.model.clone(), state);
    }
    states
}

/// Every fence of the rules (the regions that may process a client): those of the services' residency rules, and those
/// of tenants with a fence of their own.
fn fences(table: &Table) -> Vec<Vec<RegionIndex>> {
    let of_rules = table.services().iter().flat_map(|service| &service.residency).map(|rule| &rule.fence[..]);
    let of_tenants =
        table.tenants().iter().flat_map(|tenant| tenant.services.iter().filter_map(|service| tenant.fence(*service)));
    let mut fences: Vec<Vec<RegionIndex>> = of_rules
        .chain(of_tenants)
        .map(|fence| {
            let mut regions: Vec<RegionIndex> = fence.iter().map(|fenced| fenced.region).collect();
            regions.sort_unstable();
            regions
        })
        .collect();
    fences.sort_unstable();
    fences.dedup();
    fences
}

/// How an endpoint compares, and what differs, over all fences with its region. An endpoint in no fence is compared
/// only with the pins.
fn state(
    table: &Table,
    fences: &[Vec<RegionIndex>],
    (region, endpoint, release): (RegionIndex, usize, ReleaseIndex),
    conditions: &Conditions<'_>,
) -> (Running, Vec<Aspect>) {
    if table.is_on_trial(region, endpoint, release) {
        return (Running::Rollout, Vec::new());
    }
    let alone = vec![region];
    let fences = fences.iter().filter(|fence| fence.contains(&region)).chain([&alone]);
    let (mut aspects, mut undecided) = (Vec::new(), Vec::new());
    for fence in fences {
        let in_fence = differing_endpoints(table, fence, release, conditions).into_iter();
        for differing in in_fence.filter(|differing| (differing.region, differing.endpoint) == (region, endpoint)) {
            aspects.extend(differing.aspects);
            undecided.extend(differing.undecided);
        }
    }
    let is_skewed = !aspects.is_empty();
    let differs = if is_skewed { aspects } else { undecided };
    if !differs.is_empty() {
        let state = if is_skewed { Running::Skew } else { Running::Undecided };
        return (state, Aspect::ALL.into_iter().filter(|aspect| differs.contains(aspect)).collect());
    }
    let health = conditions.health.get(region.get()).map_or(&[][..], |health| &health.releases);
    let of_endpoint =
        health.iter().find(|of_endpoint| (of_endpoint.release, of_endpoint.endpoint) == (release.get(), endpoint));
    let is_known =
        of_endpoint.is_some_and(|of_endpoint| of_endpoint.values.iter().any(|value| *value != AspectValue::Unknown));
    (if is_known { Running::Same } else { Running::Unknown }, Vec::new())
}

/// Sets how far each canary is from the pinned one, or, if none is pinned, from the one that differs most.
fn measure(endpoints: &mut [RunningReport], pin: Option<&Canary>) {
    let canary = |report: &RunningReport| Canary::parse(report.said.as_ref()?.canary.as_deref()?);
    let canaries: Vec<Option<Canary>> = endpoints.iter().map(canary).collect();
    for (at, report) in endpoints.iter_mut().enumerate() {
        let Some(own) = canaries.get(at).and_then(Option::as_ref) else { continue };
        let others =
            || canaries.iter().enumerate().filter(|(other, _)| *other != at).filter_map(|(_, canary)| canary.as_ref());
        let apart = match pin {
            Some(pin) => distance(pin, own),
            None => others().filter_map(|other| distance(own, other)).max_by(f64::total_cmp),
        };
        report.canary_apart = apart.map(|nats| libm::round(nats * 10_000.0) / 10_000.0);
    }
}

/// What the rules pin of a release, by aspect.
fn pins(rule: &crate::rules::Release) -> BTreeMap<String, String> {
    let glob = |glob: &Option<Glob>| glob.as_ref().map(|glob| glob.as_str().to_owned());
    let pins = [
        (Aspect::Model, glob(&rule.model)),
        (Aspect::Root, glob(&rule.root)),
        (Aspect::MaxModelLen, rule.max_model_len.map(|length| length.to_string())),
        (Aspect::Fingerprint, glob(&rule.fingerprint)),
        (Aspect::Canary, rule.canary.as_ref().map(ToString::to_string)),
    ];
    pins.into_iter().filter_map(|(aspect, pin)| Some((aspect.as_str().to_owned(), pin?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{RegionHealth, ReleaseHealth};
    use crate::steer::Local;

    fn reported(values: [[AspectValue; 5]; 3]) -> Vec<(Running, String)> {
        let region = |name: &str, country: &str| {
            format!(
                r#""{name}": {{ "countries": ["{country}"], "endpoints": {{
                    "e": {{ "url": "https://{name}.example/v1" }} }} }}"#
            )
        };
        let json = format!(
            r#"{{ "version": 1, "revision": 1, "releases": {{ "chat": {{}} }},
                "jurisdictions": {{ "eu": {{ "include": ["EU"] }} }}, "regions": {{ {}, {}, {} }},
                "services": {{ "s": {{ "hosts": ["chat.example"], "pattern": "active-passive", "regions": ["a", "b",
                "c"], "residency": [{{ "clients": ["eu"], "process_in": ["eu"] }},
                {{ "clients": ["*", "unknown"], "process_in": ["*"] }}] }} }} }}"#,
            region("a", "DE"),
            region("b", "FR"),
            region("c", "US")
        );
        let table = Table::compile(json.as_bytes()).unwrap_or_else(|errors| panic!("{errors:?}"));
        let health: Vec<RegionHealth> = values
            .into_iter()
            .map(|values| RegionHealth {
                releases: vec![ReleaseHealth { release: 0, endpoint: 0, values }],
                ..RegionHealth::default()
            })
            .collect();
        let conditions = Conditions { health: &health, local: &Local::default(), now: Timestamp(0) };
        let states = running(&table, &conditions, |_, _, _| None);
        states["chat"].endpoints.iter().map(|report| (report.state, report.differs.join(" "))).collect()
    }

    #[test]
    fn an_endpoint_is_told_by_what_differs_in_any_fence() {
        let of = |fingerprint, canary| {
            [AspectValue::Unknown, AspectValue::Unknown, AspectValue::Unknown, fingerprint, canary]
        };
        let (v0, v1, none) = (AspectValue::Version(0), AspectValue::Version(1), AspectValue::Unknown);
        let own = |text: &str| text.to_owned();
        assert_eq!(
            reported([of(v0, v0), of(v1, v0), of(v0, none)]),
            [(Running::Undecided, own("fingerprint")), (Running::Skew, own("fingerprint")), (Running::Same, own(""))],
            "in the EU's fence the two regions differ, and neither has a majority"
        );
        assert_eq!(reported([[none; 5]; 3]), vec![(Running::Unknown, own("")); 3]);
        let pinned = reported([
            of(AspectValue::MatchesPin, none),
            of(AspectValue::DiffersFromPin, none),
            of(AspectValue::MatchesPin, none),
        ]);
        assert_eq!(pinned[1], (Running::Skew, own("fingerprint")));
        assert_eq!(pinned[0].0, Running::Same);
    }
}
