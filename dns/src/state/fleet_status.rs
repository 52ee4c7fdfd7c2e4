//! What this node knows of its fleet: which peers answered, which rules documents were refused, and how long this node
//! hasn't had the newest rules. Takes what the transports (HTTP and NATS) saw, returns it to the API and the metrics.
//! Held by every [`Handle`](crate::state::owner::Handle).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bailiwick_rules::fleet::follow::Refusal;
use bailiwick_rules::fleet::head::Head;
use bailiwick_rules::report::HealthReport;
use bailiwick_rules::table::Revision;
use bailiwick_rules::time::{Millis, Timestamp};
use serde::{Deserialize, Serialize};

/// How many heads of documents that were offered and aren't in service yet are remembered.
const MOST_OFFERED: usize = 8;

/// Access to what is known of the fleet. It is in memory only.
#[derive(Debug, Clone, Default)]
pub(crate) struct FleetStatus(Arc<Mutex<FleetView>>);

/// What is known of the fleet.
#[derive(Debug, Default)]
pub(crate) struct FleetView {
    /// The peers in the order of the configuration.
    pub(crate) peers: Vec<Peer>,
    /// The store (NATS) that rules come from, if one is configured.
    pub(crate) store: Option<Store>,
    /// How many offers were refused, by [`Refusal::label`].
    pub(crate) refused: BTreeMap<&'static str, u64>,
    /// The last refusal: its time, and a text of who offered the rules and why they were refused.
    pub(crate) last_refusal: Option<(Timestamp, String)>,
    /// The head of the document in service, if one is known. A head is the publisher's signed statement of who
    /// published a document and why.
    pub(crate) head: Option<Head>,
    /// The highest revision that was taken from other nodes and isn't in service yet, and since when one is awaited.
    pub(crate) awaited: Option<(u64, Timestamp)>,
    /// Since when no peer answers, or the store can't be used; `None` if one does.
    pub(crate) alone_since: Option<Timestamp>,
    /// Heads of documents that were offered to the owner.
    offered: Vec<Head>,
}

/// What is known of one peer, as `/v1/fleet` tells it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// The peer's URL, which holds no secret, or the NATS subject of its reports.
    pub(crate) url: String,
    /// The peer's name, from its health report.
    pub(crate) node: Option<String>,
    /// The peer's state, from its health report.
    #[serde(flatten)]
    pub(crate) report: PeerReport,
    /// When it answered last.
    pub(crate) answered_at: Option<Timestamp>,
    /// Why its last answer couldn't be used; `None` if it could.
    pub(crate) trouble: Option<String>,
}

/// What a peer's health report says, apart from health.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PeerReport {
    /// The revision of the rules that the peer serves.
    pub(crate) revision: Option<u64>,
    /// For each zone that the peer signs, a digest of the zone's keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) keys_sha256: BTreeMap<String, String>,
    /// When the peer's GeoIP database was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) geoip_built: Option<Timestamp>,
    /// By how many milliseconds the peer's clock is ahead of this node's clock. The time that the report travelled
    /// isn't subtracted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) clock_ahead_ms: Option<i64>,
}

/// The most zones of a peer whose keys are noted.
const MOST_ZONES: usize = 1_000;

impl PeerReport {
    /// What a report says that was sent at `now`, by this node's clock.
    pub(crate) fn of(report: &HealthReport, now: Timestamp) -> Self {
        Self {
            revision: Some(report.revision),
            keys_sha256: report.keys_sha256.clone().into_iter().take(MOST_ZONES).collect(),
            geoip_built: report.about.and_then(|about| about.geoip_built),
            clock_ahead_ms: report.about.map(|about| about.now.0.saturating_sub(now.0)),
        }
    }
}

/// What is known of the store that rules come from, as `/v1/fleet` tells it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Store {
    /// The addresses of its servers.
    pub(crate) servers: String,
    /// When the store was last read without trouble.
    pub(crate) read_at: Option<Timestamp>,
    /// Why this node may not have the newest rules of the store; `None` if it has them.
    pub(crate) trouble: Option<String>,
}

impl FleetStatus {
    /// Reads or changes what is known. `look` shouldn't take long, because other callers wait for it.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut FleetView) -> T) -> T {
        // A poisoned lock still holds what was seen.
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl FleetView {
    /// Counts a refused offer of rules, and notes it as the last refusal.
    pub(crate) fn refuse(&mut self, from: &str, refusal: &Refusal, now: Timestamp) {
        *self.refused.entry(refusal.label()).or_default() += 1;
        self.last_refusal = Some((now, format!("{from}: {refusal}")));
    }

    /// Notes the outcome of a request to a peer; `trouble` is `None` if the peer answered.
    pub(crate) fn note_asked(&mut self, place: usize, trouble: Option<String>, now: Timestamp) {
        if let Some(peer) = self.peers.get_mut(place) {
            if trouble.is_none() {
                peer.answered_at = Some(now);
            }
            peer.trouble = trouble;
        }
        let is_alone = !self.peers.is_empty() && self.peers.iter().all(|peer| peer.trouble.is_some());
        self.alone_since = is_alone.then(|| self.alone_since.unwrap_or(now));
    }

    /// Notes the outcome of reading the store; `trouble` is `None` if that succeeded. Returns the previous trouble.
    pub(crate) fn stored(&mut self, trouble: Option<String>, now: Timestamp) -> Option<String> {
        let store = self.store.get_or_insert_default();
        if trouble.is_none() {
            store.read_at = Some(now);
            // An earlier refusal is no longer of interest. `refused` still counts it.
            self.last_refusal = None;
        }
        self.alone_since = trouble.is_some().then(|| self.alone_since.unwrap_or(now));
        std::mem::replace(&mut store.trouble, trouble)
    }

    /// Notes a report that another node sent over the store. At most `most` nodes are noted.
    pub(crate) fn note_report(&mut self, node: &str, report: &PeerReport, now: Timestamp, most: usize) {
        let (report, answered_at) = (report.clone(), Some(now));
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.node.as_deref() == Some(node)) {
            (peer.report, peer.answered_at, peer.trouble) = (report, answered_at, None);
        } else if self.peers.len() < most {
            let (url, node) = (format!("bw.health.{node}"), Some(node.to_owned()));
            self.peers.push(Peer { url, node, report, answered_at, trouble: None });
            self.peers.sort_by(|peer, other| peer.node.cmp(&other.node));
        }
    }

    /// Whether reports of this node arrive over the store.
    pub(crate) fn hears(&self, node: &str) -> bool {
        self.peers.iter().any(|peer| peer.node.as_deref() == Some(node) && peer.trouble.is_none())
    }

    /// Notes which nodes haven't reported over the store for longer than `patience`.
    pub(crate) fn miss(&mut self, now: Timestamp, patience: Millis) {
        for peer in &mut self.peers {
            if peer.answered_at.is_none_or(|at| now.since(at) > patience) {
                peer.trouble = Some(format!("no report for more than {} s", patience.0 / 1_000));
            }
        }
    }

    /// Notes a document that was offered to the owner, and its head if it has one.
    pub(crate) fn offer(&mut self, revision: u64, head: Option<Head>, now: Timestamp) {
        if self.awaited.is_none_or(|(awaited, _)| awaited < revision) {
            self.awaited = Some((revision, self.awaited.map_or(now, |(_, since)| since)));
        }
        if let Some(head) = head {
            self.offered.retain(|other| other.sha256 != head.sha256);
            self.offered.push(head);
            if self.offered.len() > MOST_OFFERED {
                self.offered.remove(0);
            }
        }
    }

    /// The head of this document, whether the document is in service or only offered.
    pub(crate) fn head_of(&self, revision: Revision) -> Option<&Head> {
        self.head.iter().chain(&self.offered).find(|head| head.names() == Some(revision))
    }

    /// Notes that the owner refused a document.
    pub(crate) fn withdraw(&mut self, revision: u64) {
        self.awaited = self.awaited.filter(|(awaited, _)| *awaited != revision);
        self.offered.retain(|head| head.revision != revision);
    }

    /// Notes which document is in service now, and finds its head.
    pub(crate) fn serves(&mut self, revision: u64, sha256: &str) {
        self.awaited = self.awaited.filter(|(awaited, _)| *awaited > revision);
        let is_head = |head: &Head| head.revision == revision && head.sha256 == sha256;
        if !self.head.as_ref().is_some_and(is_head) {
            self.head = self.offered.iter().find(|head| is_head(head)).cloned();
        }
        // An earlier refusal is no longer of interest. `refused` still counts it.
        self.last_refusal = None;
        self.offered.retain(|head| head.revision > revision);
    }

    /// Keeps a head of the document in service, unless a head with the same or a later stage (the nodes that get a
    /// revision next) is known. Returns whether the head was kept.
    pub(crate) fn note(&mut self, served: Revision, head: &Head) -> bool {
        let known = self.head.as_ref().filter(|known| known.names() == Some(served));
        let is_new = head.names() == Some(served) && known.is_none_or(|known| known.stage < head.stage);
        if is_new {
            self.head = Some(head.clone());
        }
        is_new
    }

    /// Whether the last request to any peer was answered, or, with a store, whether the last reading of the store gave
    /// rules that aren't older than those in service.
    pub(crate) fn is_connected(&self) -> bool {
        if let Some(store) = &self.store {
            return store.trouble.is_none() && store.read_at.is_some();
        }
        self.alone_since.is_none() && self.peers.iter().any(|peer| peer.answered_at.is_some())
    }

    /// For how long this node may not have served the newest document.
    pub(crate) fn lag(&self, now: Timestamp) -> Millis {
        let since = [self.alone_since, self.awaited.map(|(_, since)| since)];
        since.into_iter().flatten().map(|since| now.since(since)).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(peers: usize) -> FleetView {
        FleetView { peers: vec![Peer::default(); peers], ..FleetView::default() }
    }

    fn at(revision: u64) -> PeerReport {
        PeerReport { revision: Some(revision), ..PeerReport::default() }
    }

    #[test]
    fn a_node_is_connected_while_any_peer_answers_and_lags_from_the_moment_none_does() {
        let mut known = known(2);
        assert!(!known.is_connected(), "nobody was asked yet");
        known.note_asked(0, Some("refused".into()), Timestamp(1_000));
        known.note_asked(1, None, Timestamp(2_000));
        assert!(known.is_connected() && known.lag(Timestamp(9_000)) == Millis(0));
        known.note_asked(1, Some("hangs".into()), Timestamp(3_000));
        known.note_asked(0, Some("refused".into()), Timestamp(4_000));
        assert!(!known.is_connected());
        assert_eq!(known.lag(Timestamp(9_000)), Millis(6_000));
        known.note_asked(0, None, Timestamp(10_000));
        assert!(known.is_connected() && known.lag(Timestamp(11_000)) == Millis(0));
    }

    #[test]
    fn a_node_with_a_store_is_connected_by_it_alone() {
        let mut known = FleetView { store: Some(Store::default()), ..FleetView::default() };
        known.note_report("ns2", &at(7), Timestamp(0), 2);
        known.note_report("ns1", &at(7), Timestamp(1_000), 2);
        known.note_report("ns3", &at(7), Timestamp(1_000), 2);
        assert!(!known.is_connected(), "the store wasn't read yet");
        assert!(known.hears("ns1") && !known.hears("ns3"), "the third is one too many");
        assert_eq!(known.stored(None, Timestamp(1_000)), None);
        assert!(known.is_connected());
        known.miss(Timestamp(6_000), Millis(5_000));
        assert!(known.hears("ns1") && !known.hears("ns2") && known.is_connected());
        known.stored(Some("dead".into()), Timestamp(2_000));
        assert_eq!(known.stored(Some("dead".into()), Timestamp(3_000)).as_deref(), Some("dead"));
        assert!(!known.is_connected() && known.lag(Timestamp(9_000)) == Millis(7_000));
        known.note_report("ns2", &at(8), Timestamp(9_000), 2);
        assert!(known.hears("ns2") && !known.is_connected());
    }

    #[test]
    fn what_was_taken_lags_until_it_is_in_service() {
        let mut known = known(1);
        known.note_asked(0, None, Timestamp(0));
        known.offer(7, None, Timestamp(1_000));
        known.offer(8, None, Timestamp(2_000));
        known.serves(7, "a");
        assert_eq!(known.lag(Timestamp(5_000)), Millis(4_000), "8 isn't in service");
        known.serves(8, "b");
        assert_eq!(known.lag(Timestamp(5_000)), Millis(0));
    }
}
