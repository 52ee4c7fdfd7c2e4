//! The status of a node at one moment. `/v1/status` fills a [`NodeStatus`] and sends it as JSON. `bailiwick status`
//! reads that JSON and prints it for a person.

use std::collections::BTreeMap;
use std::fmt::Write;

use bailiwick_rules::health::{AddressFamily, Status};
use bailiwick_rules::overview::columns;
use bailiwick_rules::report::{HeldBy, VerdictReport};
use bailiwick_rules::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::text::span::words;

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
        self.fences(&mut text);
        self.regions(&mut text, paint);
        self.loads(&mut text);
        self.replicas(&mut text);
        self.overrides(&mut text);
        self.sources(&mut text, paint);
        self.keys_and_files(&mut text, paint);
        text
    }

    fn fences(&self, text: &mut String) {
        text.push('\n');
        let mut lines = vec![["service", "tenant", "clients", "by", "fence", "now"].map(str::to_owned)];
        for fence in &self.fences {
            let tenant = fence.tenant.clone().unwrap_or("-".to_owned());
            let now = if fence.offered == fence.fence { "the same".to_owned() } else { fence.offered.clone() };
            let (service, clients, by) = (fence.service.clone(), fence.clients.clone(), fence.by.clone());
            lines.push([service, tenant, clients, by, fence.fence.clone(), now]);
        }
        columns(&lines, text);
    }

    fn regions(&self, text: &mut String, paint: &dyn Fn(Status, &str) -> String) {
        text.push('\n');
        let mut lines = vec![["region", "status", "for", "why", "last failed probe"].map(str::to_owned)];
        for row in &self.regions {
            let name = row.endpoint.as_ref().map_or(row.region.clone(), |endpoint| format!("  {endpoint}"));
            let since = row.since.map_or("-".to_owned(), |since| words(self.now.since(since)));
            let failed = match (&row.failure, row.failed_at) {
                (Some(failure), Some(at)) => format!("{} ago: {failure}", words(self.now.since(at))),
                _ => "-".to_owned(),
            };
            lines.push([name, row.status.to_string(), since, row.why.clone(), failed]);
        }
        let mut table = String::new();
        columns(&lines, &mut table);
        // Statuses are coloured after the columns were aligned, because the codes of colours have no width.
        for (line, row) in table.lines().zip(std::iter::once(None).chain(self.regions.iter().map(Some))) {
            let word = row.map(|row| (row.status, format!(" {} ", row.status)));
            let painted = word.map(|(status, word)| line.replacen(&word, &paint(status, &word), 1));
            let _ = writeln!(text, "{}", painted.as_deref().unwrap_or(line));
        }
    }

    fn loads(&self, text: &mut String) {
        if self.loads.is_empty() {
            return;
        }
        text.push('\n');
        let mut lines = vec![["endpoint", "load", "of", "read", "last reading"].map(str::to_owned)];
        for row in &self.loads {
            let read = row.read_at.map_or("-".to_owned(), |at| format!("{} ago", words(self.now.since(at))));
            let last = row.failure.clone().unwrap_or("succeeded".to_owned());
            let name = format!("{}/{}", row.region, row.endpoint);
            lines.push([name, row.load.clone(), row.of.clone(), read, last]);
        }
        columns(&lines, text);
    }

    fn replicas(&self, text: &mut String) {
        if self.replicas.is_empty() {
            return;
        }
        text.push('\n');
        let heads = ["replica", "is", "lag", "version", "withheld", "read", "last reading"];
        let mut lines = vec![heads.map(str::to_owned)];
        for row in &self.replicas {
            let read = row.read_at.map_or("-".to_owned(), |at| format!("{} ago", words(self.now.since(at))));
            let last = row.failure.clone().unwrap_or("succeeded".to_owned());
            let or_dash = |text: &Option<String>| text.clone().unwrap_or("-".to_owned());
            let withheld = if row.withheld { "yes" } else { "no" }.to_owned();
            let name = format!("{}/{}", row.region, row.replica);
            lines.push([name, row.freshness.clone(), or_dash(&row.lag), or_dash(&row.version), withheld, read, last]);
        }
        columns(&lines, text);
    }

    fn overrides(&self, text: &mut String) {
        if !self.overrides.is_empty() {
            text.push('\n');
            text.push_str(&overrides_text(&self.overrides, self.now));
        }
    }

    fn sources(&self, text: &mut String, paint: &dyn Fn(Status, &str) -> String) {
        text.push('\n');
        let mut lines = vec![["source", "in service", "taken"].map(str::to_owned)];
        for row in &self.sources {
            let taken = row.accepted_at.map_or("-".to_owned(), |at| format!("{} ago", words(self.now.since(at))));
            lines.push([row.source.clone(), row.what.clone(), taken]);
        }
        columns(&lines, text);
        for row in &self.sources {
            let at = row.refused_at.map(|at| format!("{} ago", words(self.now.since(at)))).unwrap_or_default();
            for error in &row.errors {
                let _ = writeln!(text, "{}", paint(Status::Down, &format!("{} refused {at}: {error}", row.source)));
            }
        }
    }

    fn keys_and_files(&self, text: &mut String, paint: &dyn Fn(Status, &str) -> String) {
        if !self.keys.is_empty() {
            text.push('\n');
            let mut lines = vec![["zone", "key", "algorithm", "state", "signed for another"].map(str::to_owned)];
            for key in &self.keys {
                let until = key.signed_until.map_or("-".to_owned(), |until| words(until.since(self.now)));
                let (tag, algorithm) = (key.tag.to_string(), key.algorithm.to_string());
                lines.push([key.zone.clone(), tag, algorithm, key.state.clone(), until]);
            }
            columns(&lines, text);
        }
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
    let mut lines = vec![["override of", "forced", "for another", "until", "by", "reason"].map(str::to_owned)];
    for row in overrides {
        let left = words(row.until.since(now));
        let (status, until) = (row.status.to_string(), row.until.to_string());
        lines.push([row.of.clone(), status, left, until, row.source.clone(), row.reason.clone()]);
    }
    let mut text = String::new();
    columns(&lines, &mut text);
    text
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
