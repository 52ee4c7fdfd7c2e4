//! Asks the peers (the APIs of other nodes) for rules and health at every interval. Takes the settings, sends the
//! answers to the owner. Started by [`super::start`]; [`super::first`] asks each peer once for its rules.
//!
//! Each peer has a task of its own, so that a peer that hangs delays no other.

use std::sync::Arc;
use std::time::Duration;

use bailiwick_host::system::random;
use bailiwick_host::system::tasks::supervise;
use bailiwick_rules::fleet::follow::{LARGEST_DOCUMENT, OwnDocument};
use bailiwick_rules::report::HealthReport;
use bailiwick_rules::time::{Millis, Timestamp};

use super::client::{Answer, Client};
use super::offer::{First, LastOffer, OfferDecision, as_first, carry_out, decide, of_same};
use super::{LARGEST_REPORT, Settings};
use crate::state::fleet_status::PeerReport;
use crate::state::owner::Handle;

/// Starts a task for each peer.
pub(super) fn start(settings: &Arc<Settings>, client: &Arc<Client>, handle: &Handle) {
    for place in 0..settings.peers.len() {
        let peer = Peer { place, settings: Arc::clone(settings), client: Arc::clone(client), handle: handle.clone() };
        let pulse = handle.tasks().waiting(format!("peer {}", place + 1));
        // The task ends with the program.
        tokio::spawn(supervise(pulse, move || peer.clone().run()));
    }
}

/// One peer, and what is needed to follow it.
#[derive(Clone)]
struct Peer {
    place: usize,
    settings: Arc<Settings>,
    client: Arc<Client>,
    handle: Handle,
}

impl Peer {
    async fn run(self) -> bailiwick_host::system::tasks::Ended {
        let mut last_offer = LastOffer::default();
        loop {
            let result = self.ask(&mut last_offer).await;
            let now = self.handle.now();
            let before = self.handle.fleet().with(|view| {
                let before = view.peers.get(self.place).and_then(|peer| peer.trouble.clone());
                view.note_asked(self.place, result.clone().err(), now);
                before
            });
            self.tell(before.as_deref(), result.err().as_deref());
            tokio::time::sleep(jittered(self.settings.poll)).await;
        }
    }

    /// Logs if the peer was lost or answers again.
    fn tell(&self, before: Option<&str>, now: Option<&str>) {
        let peer = self.url();
        match (before, now) {
            (None, Some(why)) => tracing::warn!(json.event = "peer_lost", peer, json.reason = why, "{peer}: {why}"),
            (Some(_), None) => tracing::info!(json.event = "peer_found", peer, "{peer} answers again"),
            _ => {}
        }
    }

    fn url(&self) -> &str {
        self.settings.peers.get(self.place).map_or("", String::as_str)
    }

    /// Asks the peer for rules, if this node follows others, and for health.
    async fn ask(&self, last_offer: &mut LastOffer) -> Result<(), String> {
        if self.settings.follows() {
            self.ask_for_rules(last_offer).await?;
        }
        let asked_at = self.handle.now();
        let bytes = self.client.json(self.url(), "/v1/health", LARGEST_REPORT).await?;
        // The peer read its clock about halfway between request and answer.
        let answered_at = Timestamp(asked_at.0.midpoint(self.handle.now().0));
        let report = serde_json::from_slice::<HealthReport>(&bytes);
        let report = report.map_err(|error| format!("/v1/health is no health report: {error}"))?;
        self.handle.fleet().with(|view| {
            if let Some(peer) = view.peers.get_mut(self.place) {
                peer.node = Some(report.node.chars().filter(|c| !c.is_control()).take(100).collect());
                peer.report = PeerReport::of(&report, answered_at);
            }
        });
        self.handle.hear(Box::new(report)).await;
        Ok(())
    }

    /// Asks a peer for its rules, and puts them in service if they are newer and good.
    async fn ask_for_rules(&self, last_offer: &mut LastOffer) -> Result<(), String> {
        let own = self.handle.snapshot().table().revision();
        let tags: Vec<String> = [own.entity_tag()].into_iter().chain(last_offer.document.clone()).collect();
        let known = self.handle.fleet().with(|view| view.head.clone());
        let has = OwnDocument { revision: Some(own), head: known.as_ref() };
        let (tag, decision) = match self.client.rules(self.url(), self.settings.stage, &tags).await? {
            Answer::Nothing => return Ok(()),
            Answer::Same(head) => match of_same(has, head.as_deref(), &self.settings) {
                // `last_offer.document` stays as it is, so that the last document isn't fetched again.
                OfferDecision::Keep(_) => return Ok(()),
                decision => (last_offer.document.clone(), decision),
            },
            Answer::Other(offered) => {
                let (tag, head) = (offered.tag.clone().filter(|tag| is_tag(tag)), offered.head.clone());
                if tag.is_some() && tag == last_offer.document {
                    return Ok(());
                }
                let fetch = offered.bytes(LARGEST_DOCUMENT);
                (tag, decide(has, head.as_deref(), &self.settings, fetch).await?)
            }
        };
        carry_out(&self.handle, last_offer, self.url(), tag, decision).await;
        Ok(())
    }
}

/// The document of one peer, for a node that has none.
///
/// # Errors
/// Why there is no document for this node.
pub(super) async fn first_of(peer: &str, settings: &Settings, client: &Client) -> Result<First, String> {
    let offered = match client.rules(peer, settings.stage, &[]).await? {
        Answer::Other(offered) => offered,
        Answer::Nothing => return Err("its rules aren't for this node's stage yet".to_owned()),
        Answer::Same(_) => return Err("it says that nothing has changed, though nothing was named".to_owned()),
    };
    let head = offered.head.clone();
    as_first(decide(OwnDocument::default(), head.as_deref(), settings, offered.bytes(LARGEST_DOCUMENT)).await?)
}

/// Whether this is an entity tag that may be sent back.
fn is_tag(tag: &str) -> bool {
    let inner = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    tag.len() <= 200 && inner.is_some_and(|inner| !inner.contains('"'))
}

/// The pause, up to a fifth shorter or longer, so that nodes don't ask at the same moments.
fn jittered(poll: Millis) -> Duration {
    poll.to_std().mul_f64(0.8 + 0.4 * random::part())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_entity_tags_are_sent_back() {
        assert!(is_tag("\"7-ab\"") && is_tag("\"\""));
        for odd in ["", "\"", "W/\"x\"", "\"a\", \"b\"", &format!("\"{}\"", "x".repeat(300))] {
            assert!(!is_tag(odd), "{odd}");
        }
    }

    #[test]
    fn pauses_differ_by_a_fifth_at_most() {
        let pauses: Vec<Duration> = (0..200).map(|_| jittered(Millis(1_000))).collect();
        assert!(pauses.iter().all(|pause| (800..=1200).contains(&pause.as_millis())));
        assert!(pauses.iter().min() < pauses.iter().max());
    }
}
