//! What a node says of itself at one moment. `/v1/status` fills a [`NodeStatus`] and sends it as JSON. `bailiwick
//! status` reads that JSON and prints it for a person.

use std::collections::BTreeMap;
use std::fmt::Write;

use bailiwick_rules::health::{AddressFamily, Status};
use bailiwick_rules::overview::columns;
use bailiwick_rules::report::{HeldBy, VerdictReport};
use bailiwick_rules::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::text::span::words;

/// What a node says of itself. Programs of other versions may know more or fewer fields.
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
    /// Who goes where.
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
    /// Where rules, zones, keys and geography come from.
    pub sources: Vec<SourceNow>,
    /// The keys of signed zones.
    pub keys: Vec<KeyNow>,
    /// Files of certificates and tokens.
    pub files: Vec<FilesNow>,
    /// What is wrong with this node: tasks in trouble, zones that aren't served, what can't be kept or renewed.
    pub troubles: Vec<String>,
    /// What is served but probably not meant.
    pub warnings: Vec<String>,
}

/// The fence of some clients, and what remains of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct FenceNow {
    /// The service.
    pub service: String,
    /// The tenant, where the service has some.
    pub tenant: Option<String>,
    /// Which clients, in the words of `bailiwick explain --all`.
    pub clients: String,
    /// What gives the fence.
    pub by: String,
    /// The fence.
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
    /// The endpoint; `None`: the region as a whole.
    pub endpoint: Option<String>,
    /// What counts.
    pub status: Status,
    /// What its probes say.
    pub probed: Status,
    /// What they say of each family of addresses, where a monitor tells them apart.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub families: BTreeMap<AddressFamily, Status>,
    /// What the voters agree on, of a region; `None` where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<VerdictReport>,
    /// Since when, at most since the process began; `None` where nothing watches it.
    pub since: Option<Timestamp>,
    /// Whether an override makes it so: its own, or those of all endpoints of a region.
    pub forced: bool,
    /// Why, in a few words.
    pub why: String,
    /// When a probe of it failed last.
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
    /// Its load in per cent, or `unknown`.
    pub load: String,
    /// What it is made of.
    pub of: String,
    /// When it was last read.
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
    /// `fresh`, `leader`, `lagging`, `unknown`, or `new` before the first reading, as this node reads it.
    pub freshness: String,
    /// Whether the region is withheld from what needs the replica.
    pub withheld: bool,
    /// How far it was behind when it was last read.
    pub lag: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// When it was last read well.
    pub read_at: Option<Timestamp>,
    /// Why the last reading failed, if it did.
    pub failure: Option<String>,
}

/// An override in force.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct OverrideNow {
    /// `REGION` or `REGION/ENDPOINT`.
    pub of: String,
    /// What it is forced to be.
    pub status: Status,
    /// When it ends.
    pub until: Timestamp,
    /// Why it is there.
    pub reason: String,
    /// `api` or `rules`.
    pub source: String,
}

/// A source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SourceNow {
    /// `rules`, `zones`, `keys` or `geoip`.
    pub source: String,
    /// What is in service, in a few words.
    pub what: String,
    /// When that was accepted.
    pub accepted_at: Option<Timestamp>,
    /// When the version last offered was refused, while an older one is in service.
    pub refused_at: Option<Timestamp>,
    /// Why it was refused.
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
    /// Its algorithm's number.
    pub algorithm: u8,
    /// `published`, `active` or `retired`.
    pub state: String,
    /// Until when the zone's signatures may be served unless they are renewed.
    pub signed_until: Option<Timestamp>,
}

/// Files that are read again when they change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct FilesNow {
    /// Their names, with commas between.
    pub files: String,
    /// When the certificate in them expires.
    pub expires: Option<Timestamp>,
    /// Whether the version last offered was refused.
    pub failing: bool,
}

impl NodeStatus {
    /// Everything for a person; lines end with `\n`. `paint` gives a status its colour.
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
        for one in &self.fences {
            let tenant = one.tenant.clone().unwrap_or("-".to_owned());
            let now = if one.offered == one.fence { "the same".to_owned() } else { one.offered.clone() };
            lines.push([one.service.clone(), tenant, one.clients.clone(), one.by.clone(), one.fence.clone(), now]);
        }
        columns(&lines, text);
    }

    fn regions(&self, text: &mut String, paint: &dyn Fn(Status, &str) -> String) {
        text.push('\n');
        let mut lines = vec![["region", "status", "for", "why", "last failed probe"].map(str::to_owned)];
        for one in &self.regions {
            let name = one.endpoint.as_ref().map_or(one.region.clone(), |endpoint| format!("  {endpoint}"));
            let since = one.since.map_or("-".to_owned(), |since| words(self.now.since(since)));
            let failed = match (&one.failure, one.failed_at) {
                (Some(failure), Some(at)) => format!("{} ago: {failure}", words(self.now.since(at))),
                _ => "-".to_owned(),
            };
            lines.push([name, one.status.to_string(), since, one.why.clone(), failed]);
        }
        let mut table = String::new();
        columns(&lines, &mut table);
        // Painted once they are as wide as they are to be: colours have no width.
        for (line, one) in table.lines().zip(std::iter::once(None).chain(self.regions.iter().map(Some))) {
            let word = one.map(|one| (one.status, format!(" {} ", one.status)));
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
        for one in &self.loads {
            let read = one.read_at.map_or("-".to_owned(), |at| format!("{} ago", words(self.now.since(at))));
            let last = one.failure.clone().unwrap_or("succeeded".to_owned());
            let name = format!("{}/{}", one.region, one.endpoint);
            lines.push([name, one.load.clone(), one.of.clone(), read, last]);
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
        for one in &self.replicas {
            let read = one.read_at.map_or("-".to_owned(), |at| format!("{} ago", words(self.now.since(at))));
            let last = one.failure.clone().unwrap_or("succeeded".to_owned());
            let or_dash = |text: &Option<String>| text.clone().unwrap_or("-".to_owned());
            let withheld = if one.withheld { "yes" } else { "no" }.to_owned();
            let name = format!("{}/{}", one.region, one.replica);
            lines.push([name, one.freshness.clone(), or_dash(&one.lag), or_dash(&one.version), withheld, read, last]);
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
        for one in &self.sources {
            let taken = one.accepted_at.map_or("-".to_owned(), |at| format!("{} ago", words(self.now.since(at))));
            lines.push([one.source.clone(), one.what.clone(), taken]);
        }
        columns(&lines, text);
        for one in &self.sources {
            let at = one.refused_at.map(|at| format!("{} ago", words(self.now.since(at)))).unwrap_or_default();
            for error in &one.errors {
                let _ = writeln!(text, "{}", paint(Status::Down, &format!("{} refused {at}: {error}", one.source)));
            }
        }
    }

    fn keys_and_files(&self, text: &mut String, paint: &dyn Fn(Status, &str) -> String) {
        if !self.keys.is_empty() {
            text.push('\n');
            let mut lines = vec![["zone", "key", "algorithm", "state", "signed for another"].map(str::to_owned)];
            for one in &self.keys {
                let until = one.signed_until.map_or("-".to_owned(), |until| words(until.since(self.now)));
                let (tag, algorithm) = (one.tag.to_string(), one.algorithm.to_string());
                lines.push([one.zone.clone(), tag, algorithm, one.state.clone(), until]);
            }
            columns(&lines, text);
        }
        if !self.files.is_empty() {
            text.push('\n');
        }
        for one in &self.files {
            let expires = match one.expires {
                None => String::new(),
                Some(at) if at <= self.now => format!(": expired at {at}"),
                Some(at) => format!(": expires in {}, at {at}", words(at.since(self.now))),
            };
            let failing = if one.failing { "; the version last offered was refused, see the log" } else { "" };
            let line = format!("file {}{expires}{failing}", one.files);
            let is_bad = one.failing || one.expires.is_some_and(|at| at <= self.now);
            let _ = writeln!(text, "{}", if is_bad { paint(Status::Down, &line) } else { line });
        }
    }

    /// Whether something needs a look: `bailiwick status` ends with 1 then. What operators force isn't wrong.
    #[must_use]
    pub(crate) fn is_well(&self) -> bool {
        let is_down = |one: &RegionNow| {
            let is_half_down = one.families.values().any(|status| *status == Status::Down);
            let by_fleet = |agreed: VerdictReport| agreed.verdict == Status::Down || agreed.held_by == HeldBy::Guard;
            (one.probed == Status::Down || is_half_down || one.fleet.is_some_and(by_fleet)) && !one.forced
        };
        self.troubles.is_empty()
            && !self.regions.iter().any(is_down)
            && self.sources.iter().all(|one| one.errors.is_empty())
            && self.files.iter().all(|one| !one.failing && one.expires.is_none_or(|at| at > self.now))
    }
}

/// Overrides as a table.
#[must_use]
pub(crate) fn overrides_text(overrides: &[OverrideNow], now: Timestamp) -> String {
    let mut lines = vec![["override of", "forced", "for another", "until", "by", "reason"].map(str::to_owned)];
    for one in overrides {
        let left = words(one.until.since(now));
        let (status, until) = (one.status.to_string(), one.until.to_string());
        lines.push([one.of.clone(), status, left, until, one.source.clone(), one.reason.clone()]);
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
