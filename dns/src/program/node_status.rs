//! The status of a node at one moment. `/v1/status` fills a [`NodeStatus`] and sends it as JSON. `bailiwick status`
//! reads that JSON and prints it for a person.

mod sheet;

use std::collections::BTreeMap;
use std::fmt::Write;

use bailiwick_rules::health::{AddressFamily, Status};
use bailiwick_rules::report::{HeldBy, VerdictReport};
use bailiwick_rules::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::text::span::words;
pub(crate) use sheet::{Row, Sheet};

/// The status of a node. Programs of other versions may know more or fewer fields.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NodeStatus {
    /// The node's name.
    pub node: String,
    /// The program's version.
    pub version: String,
    /// The node's clock.
    pub now: Timestamp,
    /// When the process began.
    pub begun: Timestamp,
    /// The revision of the rules in service.
    pub revision: u64,
    /// SHA-256 of that document's bytes, in hex.
    pub rules_sha256: String,
    /// The fences (which regions may process which clients), and the regions offered now.
    pub fences: Vec<FenceNow>,
    /// Every region.
    pub regions: Vec<RegionNow>,
    /// The endpoints whose load is read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub loads: Vec<LoadNow>,
    /// The copies of replicas that are read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<ReplicaNow>,
    /// Overrides in force.
    pub overrides: Vec<OverrideNow>,
    /// The sources: rules, zones, keys and the GeoIP database.
    pub sources: Vec<SourceNow>,
    /// The keys of signed zones.
    pub keys: Vec<KeyNow>,
    /// Files of certificates and tokens.
    pub files: Vec<FilesNow>,
    /// What is wrong with this node: tasks in trouble, zones that aren't served, what can't be kept or renewed.
    pub troubles: Vec<String>,
    /// Warnings about what is served but was probably not intended.
    pub warnings: Vec<String>,
}

/// The fence of some clients, and what remains of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct FenceNow {
    /// The service.
    pub service: String,
    /// The tenant, if the service has tenants.
    pub tenant: Option<String>,
    /// Which clients have this fence, in the words of `bailiwick explain --all`.
    pub clients: String,
    /// Which part of the rules gives the fence.
    pub by: String,
    /// The regions of the fence.
    pub fence: String,
    /// The regions offered now.
    pub offered: String,
}

/// A region or one of its endpoints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RegionNow {
    /// The region.
    pub region: String,
    /// The endpoint. `None` stands for the region as a whole.
    pub endpoint: Option<String>,
    /// The status that counts, overrides included.
    pub status: Status,
    /// The status by probes.
    pub probed: Status,
    /// The status by probes for IPv4 and IPv6, if a monitor probes them separately.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub families: BTreeMap<AddressFamily, Status>,
    /// What the voters agree on, for a region. `None` if the rules name no voters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<VerdictReport>,
    /// Since when the status holds, at most since the process began. `None` if no monitor watches the region or
    /// endpoint.
    pub since: Option<Timestamp>,
    /// Whether an override forces the status: its own, or for a region the overrides of all its endpoints.
    pub forced: bool,
    /// The reason of the status, in a few words.
    pub why: String,
    /// When a probe failed last.
    pub failed_at: Option<Timestamp>,
    /// Why that probe failed.
    pub failure: Option<String>,
}

/// The load of an endpoint whose metrics are read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LoadNow {
    /// The region.
    pub region: String,
    /// The endpoint.
    pub endpoint: String,
    /// The endpoint's load in per cent, or `unknown`.
    pub load: String,
    /// The numbers from which the load was computed.
    pub of: String,
    /// When the load was last read.
    pub read_at: Option<Timestamp>,
    /// Why the last reading failed, if it did.
    pub failure: Option<String>,
}

/// A region's copy of a replica of knowledge.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ReplicaNow {
    /// The region.
    pub region: String,
    /// The replica.
    pub replica: String,
    /// What this node's readings say: `fresh`, `leader`, `lagging`, `unknown`, or `new` before the first reading.
    pub freshness: String,
    /// Whether the region is withheld from what needs the replica.
    pub withheld: bool,
    /// How far the copy was behind its leader when it was last read.
    pub lag: Option<String>,
    /// The version of the copy.
    pub version: Option<String>,
    /// When the copy was last read successfully.
    pub read_at: Option<Timestamp>,
    /// Why the last reading failed, if it did.
    pub failure: Option<String>,
}

/// An override in force.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct OverrideNow {
    /// The region or endpoint, as `REGION` or `REGION/ENDPOINT`.
    pub of: String,
    /// The status that the override forces.
    pub status: Status,
    /// When the override ends.
    pub until: Timestamp,
    /// Why the operator set it.
    pub reason: String,
    /// Where the override comes from: `api` or `rules`.
    pub source: String,
}

/// A source of what the node serves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SourceNow {
    /// `rules`, `zones`, `keys` or `geoip`.
    pub source: String,
    /// What is in service, in a few words.
    pub what: String,
    /// When the version in service was accepted.
    pub accepted_at: Option<Timestamp>,
    /// When the last offered version was refused, if it was. Then an older version is in service.
    pub refused_at: Option<Timestamp>,
    /// Why that version was refused.
    pub errors: Vec<String>,
}

/// A key of a signed zone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct KeyNow {
    /// The zone.
    pub zone: String,
    /// The key's tag.
    pub tag: u16,
    /// The number of the key's algorithm.
    pub algorithm: u8,
    /// `published`, `active` or `retired`.
    pub state: String,
    /// Until when the zone's signatures may be served if they aren't renewed.
    pub signed_until: Option<Timestamp>,
}

/// Files that are read again when they change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct FilesNow {
    /// The names of the files, separated by commas.
    pub files: String,
    /// When the certificate in the files expires.
    pub expires: Option<Timestamp>,
    /// Whether the last version of the files was refused.
    pub failing: bool,
}

impl NodeStatus {
    /// The whole status as text for a person. Lines end with `\n`. `paint` gives a text the colour of a status.
    #[must_use]
    pub(crate) fn to_text(&self, paint: &dyn Fn(Status, &str) -> String) -> String {
        let mut text = format!(
            "node {}, bailiwick {}, up for {}\nrules revision {} ({})\n",
            self.node,
            self.version,
            words(self.now.since(self.begun)),
            self.revision,
            self.rules_sha256.get(..12).unwrap_or_default()
        );
        for trouble in &self.troubles {
            let _ = writeln!(text, "{}", paint(Status::Down, &format!("trouble: {trouble}")));
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "warning: {warning}");
        }
        for sheet in self.sheets() {
            // These three say by their heads alone that there is nothing.
            if !sheet.rows.is_empty() || ["fences", "regions", "sources"].contains(&sheet.name) {
                text.push('\n');
                sheet.to_text(&mut text, paint);
            }
            if sheet.name == "sources" {
                self.refusals().iter().for_each(|line| text.push_str(&(paint(Status::Down, line) + "\n")));
            }
        }
        self.files(&mut text, paint);
        text
    }

    /// What it says, table by table. `bailiwick status` prints them below each other, `bailiwick top` one at a time.
    #[must_use]
    pub(crate) fn sheets(&self) -> [Sheet; 7] {
        [self.fences(), self.regions(), self.loads(), self.replicas(), self.overrides(), self.sources(), self.keys()]
    }

    /// The table of fences.
    fn fences(&self) -> Sheet {
        let rows = self.fences.iter().map(|row| {
            let tenant = row.tenant.clone().unwrap_or("-".to_owned());
            let now = if row.offered == row.fence { "the same".to_owned() } else { row.offered.clone() };
            let cells = [row.service.clone(), tenant, row.clients.clone(), row.by.clone(), row.fence.clone(), now];
            Row::plain(cells)
        });
        Sheet::new("fences", ["service", "tenant", "clients", "by", "fence", "now"], rows)
    }

    /// The table of regions and endpoints.
    fn regions(&self) -> Sheet {
        let rows = self.regions.iter().map(|region| {
            let name = region.endpoint.as_ref().map_or(region.region.clone(), |endpoint| format!("  {endpoint}"));
            let since = region.since.map_or("-".to_owned(), |since| words(self.now.since(since)));
            let failed = match (&region.failure, region.failed_at) {
                (Some(failure), Some(at)) => format!("{}: {failure}", self.ago(at)),
                _ => "-".to_owned(),
            };
            Row {
                status: region.status,
                ..Row::plain([name, region.status.to_string(), since, region.why.clone(), failed])
            }
        });
        Sheet::new("regions", ["region", "status", "for", "why", "last failed probe"], rows)
    }

    /// The table of loads.
    fn loads(&self) -> Sheet {
        let rows = self.loads.iter().map(|load| {
            let last = load.failure.clone().unwrap_or("succeeded".to_owned());
            let name = format!("{}/{}", load.region, load.endpoint);
            Row::plain([name, load.load.clone(), load.of.clone(), self.ago_or_dash(load.read_at), last])
        });
        Sheet::new("load", ["endpoint", "load", "of", "read", "last reading"], rows)
    }

    /// The table of replicas.
    fn replicas(&self) -> Sheet {
        let rows = self.replicas.iter().map(|replica| {
            let last = replica.failure.clone().unwrap_or("succeeded".to_owned());
            let or_dash = |text: &Option<String>| text.clone().unwrap_or("-".to_owned());
            let withheld = if replica.withheld { "yes" } else { "no" }.to_owned();
            let (name, read) = (format!("{}/{}", replica.region, replica.replica), self.ago_or_dash(replica.read_at));
            let (lag, version) = (or_dash(&replica.lag), or_dash(&replica.version));
            Row::plain([name, replica.freshness.clone(), lag, version, withheld, read, last])
        });
        Sheet::new("replicas", ["replica", "is", "lag", "version", "withheld", "read", "last reading"], rows)
    }

    fn overrides(&self) -> Sheet {
        overrides_sheet(&self.overrides, self.now)
    }

    fn sources(&self) -> Sheet {
        let rows = self.sources.iter().map(|source| {
            Row::plain([source.source.clone(), source.what.clone(), self.ago_or_dash(source.accepted_at)])
        });
        Sheet::new("sources", ["source", "in service", "taken"], rows)
    }

    /// The table of the keys of signed zones.
    fn keys(&self) -> Sheet {
        let rows = self.keys.iter().map(|key| {
            let until = key.signed_until.map_or("-".to_owned(), |until| words(until.since(self.now)));
            let (tag, algorithm) = (key.tag.to_string(), key.algorithm.to_string());
            Row::plain([key.zone.clone(), tag, algorithm, key.state.clone(), until])
        });
        Sheet::new("keys", ["zone", "key", "algorithm", "state", "signed for another"], rows)
    }

    fn ago(&self, at: Timestamp) -> String {
        format!("{} ago", words(self.now.since(at)))
    }

    fn ago_or_dash(&self, at: Option<Timestamp>) -> String {
        at.map_or("-".to_owned(), |at| self.ago(at))
    }

    /// What was refused of sources, in a line each.
    fn refusals(&self) -> Vec<String> {
        let of_source = |source_now: &SourceNow| {
            let at = source_now.refused_at.map(|at| self.ago(at)).unwrap_or_default();
            let source = source_now.source.clone();
            source_now.errors.iter().map(move |error| format!("{source} refused {at}: {error}")).collect::<Vec<_>>()
        };
        self.sources.iter().flat_map(of_source).collect()
    }

    /// What is wrong with the node itself, in a line each.
    #[must_use]
    pub(crate) fn alarms(&self) -> Vec<String> {
        let troubles = self.troubles.iter().map(|trouble| format!("trouble: {trouble}"));
        troubles.chain(self.refusals()).collect()
    }

    /// Adds the certificate and token files to the text.
    fn files(&self, text: &mut String, paint: &dyn Fn(Status, &str) -> String) {
        if !self.files.is_empty() {
            text.push('\n');
        }
        for row in &self.files {
            let expires = match row.expires {
                None => String::new(),
                Some(at) if at <= self.now => format!(": expired at {at}"),
                Some(at) => format!(": expires in {}, at {at}", words(at.since(self.now))),
            };
            let failing = if row.failing { "; the version last offered was refused, see the log" } else { "" };
            let line = format!("file {}{expires}{failing}", row.files);
            let is_bad = row.failing || row.expires.is_some_and(|at| at <= self.now);
            let _ = writeln!(text, "{}", if is_bad { paint(Status::Down, &line) } else { line });
        }
    }

    /// Whether nothing needs the operator's attention. Otherwise `bailiwick status` ends with exit code 1. A status
    /// that an operator forces isn't a problem.
    #[must_use]
    pub(crate) fn is_well(&self) -> bool {
        let is_down = |region: &RegionNow| {
            let is_half_down = region.families.values().any(|status| *status == Status::Down);
            let by_fleet = |agreed: VerdictReport| agreed.verdict == Status::Down || agreed.held_by == HeldBy::Guard;
            (region.probed == Status::Down || is_half_down || region.fleet.is_some_and(by_fleet)) && !region.forced
        };
        self.troubles.is_empty()
            && !self.regions.iter().any(is_down)
            && self.sources.iter().all(|source| source.errors.is_empty())
            && self.files.iter().all(|files| !files.failing && files.expires.is_none_or(|at| at > self.now))
    }
}

/// Overrides as a table.
#[must_use]
pub(crate) fn overrides_text(overrides: &[OverrideNow], now: Timestamp) -> String {
    let mut text = String::new();
    overrides_sheet(overrides, now).to_text(&mut text, &|_, word| word.to_owned());
    text
}

/// The table of overrides.
fn overrides_sheet(overrides: &[OverrideNow], now: Timestamp) -> Sheet {
    let rows = overrides.iter().map(|forced| {
        let left = words(forced.until.since(now));
        let (status, until) = (forced.status.to_string(), forced.until.to_string());
        Row::plain([forced.of.clone(), status, left, until, forced.source.clone(), forced.reason.clone()])
    });
    Sheet::new("overrides", ["override of", "forced", "for another", "until", "by", "reason"], rows)
}

#[cfg(test)]
mod tests {
    use bailiwick_rules::time::Millis;

    use super::*;

    #[test]
    fn a_status_reads_well_and_statuses_are_painted_without_moving_columns() {
        let region = |status, why: &str| RegionNow {
            region: "eu-frankfurt".into(),
            status,
            probed: Status::Up,
            since: Some(Timestamp(0)),
            why: why.into(),
            failed_at: Some(Timestamp(60_000)),
            failure: Some("connection refused".into()),
            ..RegionNow::default()
        };
        let endpoint = RegionNow { endpoint: Some("fra-1".into()), since: None, ..region(Status::Up, "not watched") };
        let status = NodeStatus {
            node: "ns1".into(),
            version: "1.2.3".into(),
            now: Timestamp(7_260_000),
            rules_sha256: "0123456789abcdef".into(),
            regions: vec![region(Status::Down, "forced: new driver"), endpoint],
            ..NodeStatus::default()
        };
        let plain = status.to_text(&|_, word| word.to_owned());
        assert!(
            plain.starts_with("node ns1, bailiwick 1.2.3, up for 2h1m\nrules revision 0 (0123456789ab)\n"),
            "{plain}"
        );
        assert!(
            plain.contains("eu-frankfurt  down    2h1m  forced: new driver  2h ago: connection refused\n"),
            "{plain}"
        );
        assert!(plain.contains("  fra-1       up      -     not watched"), "{plain}");
        let painted = status.to_text(&|status, word| format!("<{status}>{word}</>"));
        assert!(painted.contains("eu-frankfurt <down> down </>   2h1m"), "{painted}");
        assert_eq!(painted.replace("<down>", "").replace("<up>", "").replace("</>", ""), plain);
        assert!(status.is_well(), "a forced status isn't a problem");
    }

    #[test]
    fn what_needs_a_look_is_not_well() {
        let source = SourceNow { errors: vec!["/revision: is missing".into()], ..SourceNow::default() };
        let files = FilesNow { expires: Some(Timestamp(5)), ..FilesNow::default() };
        let down = RegionNow { probed: Status::Down, ..RegionNow::default() };
        let well = NodeStatus { now: Timestamp(4), files: vec![files.clone()], ..NodeStatus::default() };
        assert!(well.is_well());
        assert!(!NodeStatus { now: Timestamp(5), ..well.clone() }.is_well(), "the certificate has expired");
        assert!(!NodeStatus { sources: vec![source], ..well.clone() }.is_well());
        let drained = RegionNow { forced: true, ..down.clone() };
        assert!(NodeStatus { regions: vec![drained], ..well.clone() }.is_well(), "an operator wants it");
        let families = BTreeMap::from([(AddressFamily::Ipv4, Status::Up), (AddressFamily::Ipv6, Status::Down)]);
        let half = RegionNow { probed: Status::Up, families, ..RegionNow::default() };
        assert!(!NodeStatus { regions: vec![half], ..well.clone() }.is_well(), "one address family is down");
        assert!(!NodeStatus { regions: vec![down], ..well.clone() }.is_well());
        assert!(!NodeStatus { troubles: vec!["owner: is down".into()], ..well }.is_well());
    }

    #[test]
    fn overrides_tell_how_long_they_last() {
        let one = OverrideNow {
            of: "fra/fra-1".into(),
            until: Timestamp(5_400_000),
            source: "api".into(),
            ..OverrideNow::default()
        };
        let text = overrides_text(&[one], Timestamp(0).after(Millis(0)));
        assert!(text.contains("fra/fra-1    unknown  1h30m        1970-01-01T01:30:00Z  api"), "{text}");
    }
}
