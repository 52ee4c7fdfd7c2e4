//! What a node knows of its fleet. `/v1/fleet` sends a [`FleetReport`] as JSON; `bailiwick fleet status` reads this
//! JSON and prints it as text.

mod compared;
mod limits;
mod serving;

use std::collections::BTreeMap;
use std::fmt::Write;

use bailiwick_rules::fleet::head::{Head, Stage};
use bailiwick_rules::fleet::traffic::Missing;
use bailiwick_rules::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::state::fleet_status::{Peer, Store};
pub(crate) use compared::clock;
pub(crate) use limits::Limits;
pub(crate) use serving::Serving;

/// What a node knows of its fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FleetReport {
    /// The node's name.
    pub(crate) node: String,
    /// The time by the node's clock.
    pub(crate) now: Timestamp,
    /// Where the node's rules come from: `files`, `peers` or `nats`.
    pub(crate) mode: String,
    /// The part of the fleet that the node belongs to.
    pub(crate) stage: Stage,
    /// Whether rules may be published on this node.
    pub(crate) writer: bool,
    /// The revision of the rules that the node serves.
    pub(crate) revision: u64,
    /// SHA-256 of that rules document, in hex.
    pub(crate) sha256: String,
    /// Whether any peer answers, or NATS gives rules that are no older than those served.
    pub(crate) connected: bool,
    /// For how long the node hasn't known that it serves the newest rules document.
    pub(crate) lag_seconds: u64,
    /// A revision that the node took and that isn't in service yet.
    pub(crate) awaited_revision: Option<u64>,
    /// Who published the document in service, and why.
    pub(crate) head: Option<HeadReport>,
    /// How many offered documents were refused, by reason.
    pub(crate) refused: BTreeMap<String, u64>,
    /// The last refusal.
    pub(crate) last_refusal: Option<RefusalNow>,
    /// The store that rules come from, in mode `nats`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) nats: Option<Store>,
    /// For each zone that the node signs, a digest of the zone's keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) keys_sha256: BTreeMap<String, String>,
    /// When the node's GeoIP database was built; `None` without a database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) geoip_built: Option<Timestamp>,
    /// The other nodes.
    pub(crate) peers: Vec<Peer>,
    /// The node's answers before and under this revision; `None` for a moment after the revision came into service.
    #[serde(default)]
    pub(crate) serving: Option<Serving>,
    /// The limits for a change that is published on this node.
    #[serde(default)]
    pub(crate) limits: Limits,
}

/// The reports of a node and of its peers, as `/v1/fleet/nodes` sends them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NodesReport {
    /// The node that was asked.
    pub(crate) asked: FleetReport,
    /// Its peers that answered, by URL.
    pub(crate) peers: BTreeMap<String, FleetReport>,
    /// Its peers that didn't answer.
    pub(crate) missing: Vec<Missing>,
}

/// Who published a document, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct HeadReport {
    /// The revision.
    pub(crate) revision: u64,
    /// Who published the document.
    pub(crate) author: String,
    /// Why it was published.
    pub(crate) reason: String,
    /// When it was published, by the publisher's clock.
    pub(crate) created_at: Timestamp,
    /// The revision that it replaced.
    pub(crate) based_on: Option<u64>,
    /// Which nodes serve it: those of this stage, and of the stages before.
    pub(crate) stage: Stage,
    /// Who else approved it.
    #[serde(default)]
    pub(crate) approved_by: Vec<String>,
    /// What it changes for clients, in one line.
    #[serde(default)]
    pub(crate) impact: Option<String>,
    /// The key that signed it.
    pub(crate) key: Option<String>,
}

impl From<&Head> for HeadReport {
    fn from(head: &Head) -> Self {
        Self {
            revision: head.revision,
            author: head.author.clone(),
            reason: head.reason.clone(),
            created_at: head.created_at,
            based_on: head.based_on,
            stage: head.stage,
            approved_by: head.approvals.iter().map(|approval| approval.author.clone()).collect(),
            impact: head.impact.clone(),
            key: head.signature.as_ref().map(|signature| signature.key.clone()),
        }
    }
}

/// The refusal of an offered document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RefusalNow {
    /// When the document was refused.
    pub(crate) at: Timestamp,
    /// Who offered it, and why it was refused.
    pub(crate) why: String,
}

impl FleetReport {
    /// What an operator should look at, each in a sentence.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        for peer in &self.peers {
            let name = peer.name();
            if let Some(trouble) = &peer.trouble {
                troubles.push(format!("{name} is missing: {trouble}"));
                continue;
            }
            if let Some(revision) = peer.report.revision.filter(|revision| *revision < self.revision) {
                troubles.push(format!("{name} serves revision {revision}, this node {}", self.revision));
            }
            troubles.extend(self.differences(peer));
        }
        if let Some(trouble) = self.nats.as_ref().and_then(|nats| nats.trouble.as_ref()) {
            troubles.push(format!("{}: NATS is of no use, so it serves the last good rules: {trouble}", self.node));
        } else if !self.peers.is_empty() && !self.connected && self.nats.is_none() {
            troubles.push(format!("{}: no peer answers; it serves the last good rules", self.node));
        }
        if let Some(revision) = self.awaited_revision {
            troubles.push(format!(
                "{}: revision {revision} was taken and isn't in service yet; /v1/rules/status says why",
                self.node
            ));
        }
        if let Some(refusal) = &self.last_refusal {
            troubles.push(format!("{}: refused at {}: {}", self.node, refusal.at, refusal.why));
        }
        troubles
    }

    /// The text of `bailiwick fleet status`.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!(
            "{}  mode {}, stage {}{}\nrevision {}  sha256 {}, lag {} s\n",
            self.node,
            self.mode,
            self.stage,
            if self.writer { ", writer" } else { "" },
            self.revision,
            self.sha256.get(..12).unwrap_or_default(),
            self.lag_seconds
        );
        if let Some(head) = &self.head {
            let _ = writeln!(text, "published by {} at {}: {}", head.author, head.created_at, head.reason);
        }
        text += &self.own_geoip_and_keys();
        if let Some(nats) = &self.nats {
            let read = nats.read_at.map_or_else(|| "not read yet".to_owned(), |at| format!("last read at {at}"));
            let _ = writeln!(text, "NATS at {}, {read}", nats.servers);
        }
        let width = self.peers.iter().map(|peer| peer.name().chars().count()).max().unwrap_or_default();
        for peer in &self.peers {
            let revision = peer.report.revision.map_or_else(|| "unknown".to_owned(), |revision| revision.to_string());
            let state = match (&peer.trouble, peer.answered_at) {
                (Some(_), _) => "missing",
                (None, Some(_)) => "answers",
                (None, None) => "not asked yet",
            };
            let _ = writeln!(
                text,
                "  {:width$}  revision {revision}, {state}{}",
                peer.name(),
                compared::details(&peer.report)
            );
        }
        for trouble in self.troubles() {
            let _ = writeln!(text, "! {trouble}");
        }
        text
    }
}

impl Peer {
    /// The peer's name, or its URL until the name is known.
    fn name(&self) -> &str {
        self.node.as_deref().unwrap_or(&self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::fleet_status::PeerReport;

    fn at(revision: u64) -> PeerReport {
        PeerReport { revision: Some(revision), ..PeerReport::default() }
    }

    fn peer(node: &str, revision: u64, trouble: Option<&str>) -> Peer {
        Peer {
            url: format!("https://{node}:8053"),
            node: Some(node.to_owned()),
            report: at(revision),
            answered_at: Some(Timestamp(0)),
            trouble: trouble.map(str::to_owned),
        }
    }

    fn report(peers: Vec<Peer>) -> FleetReport {
        FleetReport {
            node: "ns1".into(),
            now: Timestamp(0),
            mode: "peers".into(),
            stage: Stage::Rest,
            writer: true,
            revision: 8,
            sha256: "ab".repeat(32),
            connected: true,
            lag_seconds: 0,
            awaited_revision: None,
            head: None,
            refused: BTreeMap::new(),
            last_refusal: None,
            nats: None,
            keys_sha256: BTreeMap::new(),
            geoip_built: None,
            peers,
            serving: None,
            limits: Limits::default(),
        }
    }

    #[test]
    fn problems_are_described_in_sentences() {
        let mut report = report(vec![peer("ns2", 8, None), peer("ns3", 8, None)]);
        assert!(report.troubles().is_empty());
        let store = Store { servers: "tls://nats1:4222".into(), read_at: None, trouble: Some("no majority".into()) };
        report.nats = Some(store);
        assert_eq!(report.troubles(), ["ns1: NATS is of no use, so it serves the last good rules: no majority"]);
        assert!(report.to_text().contains("NATS at tls://nats1:4222, not read yet\n"));
        report.nats = None;
        report.peers = vec![peer("ns2", 7, None), peer("ns3", 8, Some("connection refused"))];
        let troubles = report.troubles();
        assert_eq!(troubles[0], "ns2 serves revision 7, this node 8");
        assert_eq!(troubles[1], "ns3 is missing: connection refused");
        let text = report.to_text();
        assert!(text.starts_with("ns1  mode peers, stage rest, writer\nrevision 8  sha256 abababababab"), "{text}");
        assert!(text.contains("  ns3  revision 8, missing\n! ns2 serves"), "{text}");
    }

    #[test]
    fn what_nodes_should_have_alike_is_compared() {
        let mut report = report(vec![peer("ns2", 8, None)]);
        let keys = |digest: &str| BTreeMap::from([("ai.example.com.".to_owned(), digest.to_owned())]);
        (report.keys_sha256, report.geoip_built) = (keys("ab"), Some(Timestamp(86_400_000)));
        assert!(report.troubles().is_empty(), "what a peer doesn't tell isn't compared");
        let same = PeerReport {
            keys_sha256: keys("ab"),
            geoip_built: report.geoip_built,
            clock_ahead_ms: Some(9_000),
            ..at(8)
        };
        report.peers[0].report = same;
        assert!(report.troubles().is_empty());
        let other = PeerReport {
            keys_sha256: keys("cd"),
            geoip_built: Some(Timestamp(0)),
            clock_ahead_ms: Some(-61_000),
            ..at(8)
        };
        report.peers[0].report = other;
        assert_eq!(
            report.troubles(),
            [
                "ns2 signs ai.example.com. with other keys than this node; give both the same directory of keys",
                "ns2 has a GeoIP database of 1970-01-01, this node one of 1970-01-02; they may place clients \
                 differently",
                "the clock of ns2 is about 61 s behind this one"
            ]
        );
        let text = report.to_text();
        assert!(text.contains("GeoIP database of 1970-01-02\nkeys of ai.example.com.  ab\n"), "{text}");
        assert!(text.contains("  ns2  revision 8, answers, GeoIP of 1970-01-01, clock -61.0 s\n"), "{text}");
    }
}
