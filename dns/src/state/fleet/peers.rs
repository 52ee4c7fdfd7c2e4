//! Asks the peers for rules and health, again and again. Takes the settings, sends what they bring to the owner.
//! Started by [`super::start`], and asked once by [`super::begin`].
//!
//! Each peer has a task of its own, so that one that hangs delays no other.

use std::sync::Arc;
use std::time::Duration;

use bailiwick_rules::fleet::follow::{
    self, DocumentStep, HeadStep, Kept, LARGEST_DOCUMENT, Own, Refusal, Trust, document,
};
use bailiwick_rules::fleet::head::{Head, HeadError};
use bailiwick_rules::report::HealthReport;
use bailiwick_rules::table::Table;
use bailiwick_rules::time::Millis;
use futures_util::future::join_all;

use super::client::{Answer, Client, Offered};
use super::{Settings, record};
use crate::state::owner::{Handle, Offer};
use crate::state::snapshot::Rules;
use crate::system::tasks::supervise;

/// The largest health report that is read, in bytes.
const LARGEST_REPORT: usize = 4 << 20;
/// How often a node without a document asks all peers before it gives up.
const ATTEMPTS: u32 = 10;
/// The pause between two such rounds.
const PAUSE: Duration = Duration::from_secs(1);

/// Starts a task for each peer.
pub(super) fn start(settings: &Arc<Settings>, client: &Arc<Client>, handle: &Handle) {
    for place in 0..settings.peers.len() {
        let peer = Peer { place, settings: Arc::clone(settings), client: Arc::clone(client), handle: handle.clone() };
        let pulse = handle.tasks().waiting(format!("peer {}", place + 1));
        // It ends with the program.
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

/// What a peer offered last.
#[derive(Default)]
struct Seen {
    /// The tag of the document that was looked at. It isn't fetched again.
    document: Option<String>,
    /// The tag of a document whose head was refused, and why.
    head: Option<(Option<String>, HeadError)>,
}

/// What came of an offered document.
enum Outcome {
    /// It is none of this node's business.
    Kept(Kept),
    /// It is in service, and may be brought to more nodes than this one knew.
    Note(Box<Head>),
    /// It is to be served.
    Take(Box<Table>, Vec<u8>, Option<Box<Head>>),
    /// It is refused.
    Refused(Refusal),
}

impl Peer {
    async fn run(self) -> crate::system::tasks::Ended {
        let mut seen = Seen::default();
        loop {
            let asked = self.ask(&mut seen).await;
            let now = self.handle.now();
            let before = self.handle.fleet().with(|known| {
                let before = known.peers.get(self.place).and_then(|peer| peer.trouble.clone());
                known.asked(self.place, asked.clone().err(), now);
                before
            });
            self.tell(before.as_deref(), asked.err().as_deref());
            tokio::time::sleep(jittered(self.settings.poll)).await;
        }
    }

    /// Logs what has changed.
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

    /// Asks for everything once.
    async fn ask(&self, seen: &mut Seen) -> Result<(), String> {
        if self.settings.follows() {
            self.ask_for_rules(seen).await?;
        }
        let bytes = self.client.json(self.url(), "/v1/health", LARGEST_REPORT).await?;
        let report = serde_json::from_slice::<HealthReport>(&bytes);
        let report = report.map_err(|error| format!("/v1/health is no health report: {error}"))?;
        self.handle.fleet().with(|known| {
            if let Some(peer) = known.peers.get_mut(self.place) {
                peer.node = Some(report.node.chars().filter(|c| !c.is_control()).take(100).collect());
                peer.revision = Some(report.revision);
            }
        });
        self.handle.hear(Box::new(report)).await;
        Ok(())
    }

    async fn ask_for_rules(&self, seen: &mut Seen) -> Result<(), String> {
        let own = self.handle.snapshot().table().revision();
        let tags: Vec<String> = [own.entity_tag()].into_iter().chain(seen.document.clone()).collect();
        let known = self.handle.fleet().with(|known| known.head.clone());
        let has = Own { revision: Some(own), head: known.as_ref() };
        let (tag, outcome) = match self.client.rules(self.url(), self.settings.stage, &tags).await? {
            Answer::Nothing => return Ok(()),
            Answer::Same(head) => (Some(own.entity_tag()), of_same(has, head.as_deref(), &self.settings)),
            Answer::Other(offered) => {
                (offered.tag.clone().filter(|tag| is_tag(tag)), weigh(has, offered, &self.settings).await?)
            }
        };
        if !matches!(outcome, Outcome::Refused(Refusal::Head(_))) {
            seen.head = None;
        }
        match outcome {
            // Its turn may come while the document stays the same.
            Outcome::Kept(Kept::Later(_)) => {}
            Outcome::Note(head) => _ = record::note(&self.handle, &head),
            Outcome::Kept(_) => seen.document = tag,
            Outcome::Take(table, bytes, head) => {
                let (revision, now) = (table.revision().number, self.handle.now());
                self.handle.fleet().with(|known| known.offer(revision, head.map(|head| *head), now));
                self.handle.offer(Offer::Rules(Arc::new(Rules { table: *table, bytes: bytes.into() }))).await;
                // If it doesn't fit this node's zones, it stays the owner's to try again.
                seen.document = tag;
            }
            // It is told once. The document may get a good head meanwhile, so it is asked for again.
            Outcome::Refused(Refusal::Head(error)) if seen.head.as_ref() == Some(&(tag.clone(), error.clone())) => {}
            Outcome::Refused(refusal) => {
                let (url, now) = (self.url(), self.handle.now());
                self.handle.fleet().with(|known| known.refuse(url, &refusal, now));
                tracing::error!(
                    json.event = "fleet_refused", peer = url, json.reason = %refusal,
                    "{url}: refused, the last good stays in service: {refusal}"
                );
                match refusal {
                    Refusal::Head(error) => seen.head = Some((tag, error)),
                    _ => seen.document = tag,
                }
            }
        }
        Ok(())
    }
}

/// Decides about the head of a document that this node knows. Only that of the document in service may say more.
fn of_same(own: Own<'_>, head: Option<&[u8]>, settings: &Settings) -> Outcome {
    match follow::head(own, head, settings.stage, settings.trust()) {
        HeadStep::Note(head) => Outcome::Note(head),
        HeadStep::Refuse(Refusal::Head(error)) => Outcome::Refused(Refusal::Head(error)),
        HeadStep::Keep(_) | HeadStep::Fetch(_) | HeadStep::Refuse(_) => Outcome::Kept(Kept::Same),
    }
}

/// Decides about a document that a peer offers. Its body is read only if its head is good.
async fn weigh(own: Own<'_>, offered: Offered, settings: &Settings) -> Result<Outcome, String> {
    let trust: Trust<'_> = settings.trust();
    let head = match (&offered.head, trust.publishers) {
        (None, []) => None,
        (None, _) => return Ok(Outcome::Refused(Refusal::Head(HeadError::Unsigned))),
        (Some(bytes), _) => match follow::head(own, Some(bytes), settings.stage, trust) {
            HeadStep::Fetch(head) => Some(head),
            HeadStep::Note(head) => return Ok(Outcome::Note(head)),
            HeadStep::Keep(kept) => return Ok(Outcome::Kept(kept)),
            HeadStep::Refuse(refusal) => return Ok(Outcome::Refused(refusal)),
        },
    };
    let bytes = offered.bytes(LARGEST_DOCUMENT).await?;
    // A large document takes a while, which no other task should wait for.
    let own = own.revision;
    let decided = tokio::task::spawn_blocking(move || match document(own, head.as_deref(), &bytes) {
        DocumentStep::Take(table) => Outcome::Take(table, bytes, head),
        DocumentStep::Keep(kept) => Outcome::Kept(kept),
        DocumentStep::Refuse(refusal) => Outcome::Refused(refusal),
    });
    decided.await.map_err(|error| format!("a fault of this program ({error}); please report it"))
}

/// A document, its revision, and its head if a peer has one.
pub(super) type First = (u64, Vec<u8>, Option<Head>);

/// The highest valid document of all peers that answer, or the seed if none is higher.
pub(super) async fn first(settings: &Settings, client: &Client, mut seed: Option<First>) -> Result<First, Vec<String>> {
    let seeded = seed.as_ref().map(|(revision, ..)| *revision);
    let mut troubles = Vec::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let asked = join_all(settings.peers.iter().map(|peer| first_of(peer, settings, client))).await;
        let revisions: Vec<Option<u64>> =
            asked.iter().map(|asked| asked.as_ref().ok().map(|(revision, ..)| *revision)).collect();
        let chosen = match follow::first(seeded, &revisions) {
            follow::First::Peer(place) => asked.into_iter().nth(place),
            follow::First::Store => seed.take().map(Ok),
            follow::First::Nobody => {
                let failed = settings.peers.iter().zip(asked).filter_map(|(peer, asked)| Some((peer, asked.err()?)));
                troubles = failed.map(|(peer, why)| format!("{peer}: {why}")).collect();
                None
            }
        };
        if let Some(Ok(first)) = chosen {
            return Ok(first);
        }
    }
    troubles.push(
        "this node has no rules yet, and no peer gave any; start a peer that has them, or name a first document with \
         rules = \"rules.json\""
            .to_owned(),
    );
    Err(troubles)
}

/// The document of one peer.
async fn first_of(peer: &str, settings: &Settings, client: &Client) -> Result<First, String> {
    let offered = match client.rules(peer, settings.stage, &[]).await? {
        Answer::Other(offered) => offered,
        Answer::Nothing => return Err("its rules aren't for this node's stage yet".to_owned()),
        Answer::Same(_) => return Err("it says that nothing has changed, though nothing was named".to_owned()),
    };
    match weigh(Own::default(), offered, settings).await? {
        Outcome::Take(table, bytes, head) => Ok((table.revision().number, bytes, head.map(|head| *head))),
        Outcome::Refused(refusal) => Err(refusal.to_string()),
        Outcome::Kept(_) | Outcome::Note(_) => Err("its rules aren't for this node's stage yet".to_owned()),
    }
}

/// Whether this is an entity tag that may be sent back.
fn is_tag(tag: &str) -> bool {
    let inner = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    tag.len() <= 200 && inner.is_some_and(|inner| !inner.contains('"'))
}

/// The pause, up to a fifth shorter or longer, so that nodes don't ask at the same moments.
fn jittered(poll: Millis) -> Duration {
    let mut random = [0; 4];
    // Without random bytes all ask alike, which does no harm.
    let _ = getrandom::fill(&mut random);
    let part = f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX);
    poll.to_std().mul_f64(0.8 + 0.4 * part)
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
