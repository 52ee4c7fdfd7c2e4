//! Follows the rules in NATS, and exchanges health over it. Takes the settings, sends what comes to the owner. Started
//! by [`super::start`], and asked once by [`super::first`]. Only this module and those below it know NATS.
//!
//! Nothing is kept at the servers for a node: it subscribes to announcements, which carry the head. It also reads the
//! head when the connection is lost or there again, and every half minute. So nothing can be lost, or be left over,
//! when servers restart.

mod ask;
mod bucket;
mod bus;
mod claims;
mod health;
mod nkey;
mod objects;
mod pools;

use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use bailiwick_host::system::random;
use bailiwick_host::system::tasks::{Ended, supervise};
use bailiwick_rules::fleet::follow::{NoChange, OwnDocument};
use bailiwick_rules::fleet::head::{Head, sha256_hex};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::offer::{First, LastOffer, OfferDecision, Outcome, as_first, carry_out, decide};
use super::{Settings, turns};
use crate::state::fleet_status::Store;
use crate::state::owner::Handle;
use bucket::{NEWS, RULES};
use pools::Pools;

pub(crate) use ask::{Answers, Question};
pub(crate) use bucket::{HeadEntry, SwapOutcome, no_bucket};
pub(crate) use bus::Bus;
pub use bus::Nats;
pub(crate) use claims::Claims;
pub(crate) use nkey::NKey;
pub(in crate::state::fleet) use objects::Objects;
pub(crate) use objects::no_version;

/// How often the head is read without an announcement.
const POLL: Duration = Duration::from_secs(30);
/// The first pause after a head that couldn't be read.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Whether a node's name can be part of a subject and of a key.
pub(crate) fn is_name(node: &str) -> bool {
    let is_token = |token: &str| {
        !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    node.len() <= 200 && node.split('.').all(is_token)
}

/// Starts to follow. NATS may be dead: then it is tried again and again.
/// `objects` and `claims` get each connection.
pub(super) fn start(
    settings: &Arc<Settings>,
    nats: &Nats,
    (node, answers): (&str, Option<Answers>),
    (objects, claims): (&Objects, &Claims),
    handle: &Handle,
) {
    let follower = Follower {
        settings: Arc::clone(settings),
        nats: Arc::new(nats.clone()),
        node: node.into(),
        answers,
        handle: handle.clone(),
        pools: claims.pools(),
        objects: objects.clone(),
    };
    let store = Store { servers: nats.servers.join(", "), ..Store::default() };
    handle.fleet().with(|view| view.store = Some(store));
    let (pools, of_pools) = (follower.pools.clone(), handle.clone());
    let pulse = handle.tasks().waiting("pools");
    // Both end with the program.
    tokio::spawn(supervise(pulse, move || turns::run(pools.clone(), of_pools.clone())));
    let pulse = handle.tasks().waiting("NATS");
    tokio::spawn(supervise(pulse, move || follower.clone().run()));
}

/// The document in NATS, for a node that has none.
///
/// # Errors
/// Why there is none.
pub(super) async fn first(settings: &Settings, nats: &Nats, node: &str) -> Result<First, String> {
    let bus = Bus::connect(nats, node).await?;
    let head = match bus.head().await? {
        HeadEntry::Head(head, _) => head,
        HeadEntry::Absent(_) => return Err(no_head()),
        HeadEntry::NoBucket => return Err(no_bucket()),
    };
    let decision = decide_for_stage(&bus, OwnDocument::default(), &head, settings).await?;
    as_first(decision)
}

/// Decides about a head. If it isn't for this node's stage yet, decides about the newest head that is.
///
/// # Errors
/// Why the document can't be fetched.
async fn decide_for_stage(
    bus: &Bus,
    own: OwnDocument<'_>,
    head: &[u8],
    settings: &Settings,
) -> Result<OfferDecision, String> {
    let decision = decide(own, Some(head), settings, fetch(bus, head)).await?;
    let OfferDecision::Keep(NoChange::Later(_)) = decision else { return Ok(decision) };
    let heads = bus.heads().await?;
    match heads.iter().rev().find(|head| head.stage >= settings.stage).map(Head::to_bytes) {
        Some(earlier) => match decide(own, Some(&earlier), settings, fetch(bus, &earlier)).await? {
            // This node serves that document already, or a newer one. It waits for the later head.
            OfferDecision::Keep(_) => Ok(decision),
            earlier => Ok(earlier),
        },
        None => Ok(decision),
    }
}

/// Tries out what a node needs of NATS. Returns what is well, and what isn't with how to mend it.
pub(crate) async fn check_nats(settings: &Settings, nats: &Nats, node: &str) -> Vec<Result<String, String>> {
    let bus = match Bus::connect(nats, node).await {
        Ok(bus) => bus,
        Err(why) => return vec![Err(why)],
    };
    let mut findings = vec![Ok(format!("connected to {}", bus.server())), check_rules(&bus, settings).await];
    findings.extend(bus.copies().await);
    findings.push(bus.may_report(node).await.map(|()| "this user may report and answer as this node".to_owned()));
    findings
}

/// Whether there are rules that this node can take.
async fn check_rules(bus: &Bus, settings: &Settings) -> Result<String, String> {
    let head = match bus.head().await? {
        HeadEntry::Head(head, _) => head,
        HeadEntry::Absent(_) => return Err(no_head()),
        HeadEntry::NoBucket => return Err(no_bucket()),
    };
    match decide(OwnDocument::default(), Some(&head), settings, fetch(bus, &head)).await? {
        OfferDecision::Take(table, ..) => Ok(format!("revision {} is there, and good", table.revision().number)),
        OfferDecision::Keep(_) | OfferDecision::Note(_) => Ok("its rules aren't for this node's stage yet".to_owned()),
        OfferDecision::Refuse(refusal) => Err(refusal.to_string()),
    }
}

/// What follows NATS on this node.
#[derive(Clone)]
struct Follower {
    settings: Arc<Settings>,
    nats: Arc<Nats>,
    node: Arc<str>,
    /// What answers questions about this node.
    answers: Option<Answers>,
    handle: Handle,
    /// Where quotas are shared.
    pools: Pools,
    /// Where bundles are kept.
    objects: Objects,
}

impl Follower {
    async fn run(self) -> Ended {
        loop {
            let bus = self.connect().await;
            self.pools.connect(&bus);
            self.objects.connect(&bus);
            // From here on the connection mends itself, unless this node becomes another user.
            tokio::select! {
                () = bus.is_outdated() => tracing::info!("the key of this node has changed; connecting by it"),
                ended = self.follow_head(&bus) => return ended,
                ended = health::exchange(&bus, &self.node, &self.settings, &self.handle) => return ended,
                ended = health::keep(&bus, &self.node, &self.handle) => return ended,
                ended = ask::answer(&bus, &self.node, self.answers.as_ref()) => return ended,
            }
        }
    }

    /// Connects to NATS. Tries until there is a connection.
    async fn connect(&self) -> Bus {
        let mut failures = 0;
        loop {
            match Bus::connect(&self.nats, &self.node).await {
                Ok(bus) => return bus,
                Err(why) => {
                    self.note(Err(why));
                    tokio::time::sleep(after_failure(failures)).await;
                    failures += 1;
                }
            }
        }
    }

    /// Reads the head again and again: after an announcement, after a change of the connection, and after a pause.
    async fn follow_head(&self, bus: &Bus) -> Ended {
        let Ok(mut announcements) = bus.client.subscribe(NEWS).await else { return Ended::Failed };
        let (mut connection, mut last_offer, mut failures) = (bus.follow(), LastOffer::default(), 0);
        let mut announced = None;
        loop {
            let read = self.look(bus, &mut last_offer, announced.take()).await;
            failures = if read.is_err() { failures + 1 } else { 0 };
            let pause = if failures == 0 { jittered(POLL) } else { after_failure(failures - 1) };
            self.note(read);
            tokio::select! {
                () = sleep_until(Instant::now() + pause) => {}
                message = announcements.next() => match message {
                    // Of several that came at once the newest counts: nothing that is superseded comes into service.
                    Some(first) => {
                        let others = std::iter::from_fn(|| announcements.next().now_or_never().flatten());
                        let heads = std::iter::once(first).chain(others).filter_map(|message| announced_head(&message));
                        announced = heads.max_by_key(|(head, _, number)| (head.revision, *number));
                    }
                    None => return Ended::Failed,
                },
                () = until_changed(&mut connection) => {}
            }
        }
    }

    /// Looks at the head once, and takes the document that it names if it is newer. `announced` is a head that NATS
    /// announced, which saves a round trip. It may be one of several that came at the same time, so it counts only if
    /// it is newer.
    ///
    /// # Errors
    /// Why this node isn't known to serve the newest rules.
    async fn look(
        &self,
        bus: &Bus,
        last_offer: &mut LastOffer,
        announced: Option<(Head, Vec<u8>, u64)>,
    ) -> Result<(), String> {
        let own = self.handle.snapshot().table().revision();
        let (head, sequence) = match announced {
            Some((head, bytes, sequence)) if head.revision > own.number => (bytes, sequence),
            _ => match bus.head().await? {
                HeadEntry::Head(head, sequence) => (head, sequence),
                HeadEntry::Absent(_) => return Err(no_head()),
                HeadEntry::NoBucket => return Err(no_bucket()),
            },
        };
        let tag = Some(format!("{sequence}-{}", sha256_hex(&head)));
        let known = self.handle.fleet().with(|view| view.head.clone());
        let has = OwnDocument { revision: Some(own), head: known.as_ref() };
        if last_offer.waits_for.is_some() && last_offer.waits_for == tag {
            return Ok(());
        }
        let decision = decide_for_stage(bus, has, &head, &self.settings).await?;
        match carry_out(&self.handle, last_offer, "NATS", tag, decision).await {
            Outcome::Taken | Outcome::Kept(NoChange::Same | NoChange::Later(_)) => Ok(()),
            Outcome::Kept(NoChange::Absent) => Err(no_head()),
            Outcome::Kept(NoChange::Older(number)) => Err(format!(
                "its head is revision {number}, and this node serves {}: the bucket {RULES} is older than the fleet, \
                 as after a restored backup; `bailiwick rules restore` puts the newest rules back",
                own.number
            )),
            Outcome::Refused(refusal) => Err(refusal.to_string()),
        }
    }

    /// Notes whether NATS is of use, and logs if that has changed.
    fn note(&self, read: Result<(), String>) {
        let now = self.handle.now();
        let why = read.err();
        let before = self.handle.fleet().with(|view| view.stored(why.clone(), now));
        match (before, why) {
            (before, Some(why)) if before.as_ref() != Some(&why) => {
                tracing::warn!(json.event = "nats_lost", json.reason = why, "NATS: {why}");
            }
            (Some(_), None) => {
                tracing::info!(json.event = "nats_found", "NATS has this node's rules or newer ones again");
            }
            _ => {}
        }
    }
}

/// The head in an announcement, its bytes, and the number of its entry. `None`: the head has to be read from the store.
fn announced_head(message: &Message) -> Option<(Head, Vec<u8>, u64)> {
    let number = message.headers.as_ref()?.get("Nats-Sequence")?.as_str().parse().ok()?;
    Some((Head::parse(&message.payload).ok()?, message.payload.to_vec(), number))
}

/// The document that a head names.
async fn fetch(bus: &Bus, head: &[u8]) -> Result<Vec<u8>, String> {
    let head = Head::parse(head).map_err(|error| error.to_string())?;
    bus.document(&head.sha256).await
}

/// The message about a bucket without a head.
pub(crate) fn no_head() -> String {
    format!("the bucket {RULES} has no head; `bailiwick rules restore` puts the rules back")
}

/// Waits until a connection is lost, or is there again.
async fn until_changed(connection: &mut watch::Receiver<bus::ConnectionState>) {
    let state_of = |state: &bus::ConnectionState| (state.connections, state.is_connected);
    let before = state_of(&connection.borrow_and_update());
    if connection.wait_for(|state| state_of(state) != before).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The pause after a failure that follows this many other failures: from 1 s to 30 s, and at random up to half of that
/// shorter.
fn after_failure(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(5)).min(POLL).mul_f64(0.5 + 0.5 * random::part())
}

/// A pause, at random up to a fifth shorter, so that nodes don't ask at the same moments.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.8 + 0.2 * random::part())
}
