//! Sends the aggregate: what may cross borders of what Workers observed. Takes the intervals that are over from the
//! sums of this node, claims each where several nodes have the same, and gives what may be told to a task that posts
//! it. Started by `serve`.
//!
//! Nothing waits for this. What can't be sent is lost, and counted.

mod post;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bailiwick_host::system::tasks::{Ended, Tasks, supervise};
use bailiwick_rules::aggregate::{Told, request, tell};
use bailiwick_rules::observe::{GRACE, MAX_CELLS, Window};
use bailiwick_rules::rules::Aggregate;
use bailiwick_rules::time::Millis;
use tokio::sync::mpsc;

use crate::program::api::Api;
use crate::program::config::{Fleet, Mode};
use crate::program::metrics::{Lost, Window as Became};
use crate::state::fleet::Claims;
use crate::state::probe::Secrets;
use post::{Body, Poster};

/// How often intervals are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// How much longer a node waits with an interval that it has in part only, as another may have it whole.
const PART_WAITS: Millis = Millis(5_000);
/// The most intervals that wait for a claim, and the most cells of them all.
const MOST_WAITING: (usize, usize) = (16, MAX_CELLS);
/// The most requests that wait to be posted.
const QUEUE: usize = 8;

/// Which nodes of a fleet send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// This one alone.
    Always,
    /// Whichever claims an interval in the fleet's store.
    Claimed,
    /// Another one.
    Never,
}

impl Turn {
    /// Every node gets every batch of Workers. So without a store one node sends: the one that is configured to, the
    /// writer, or the only one.
    fn of(fleet: &Fleet) -> Self {
        match (fleet.sends_aggregate, fleet.mode) {
            (Some(false), _) => Self::Never,
            (_, Mode::Nats) => Self::Claimed,
            (Some(true), _) => Self::Always,
            (None, _) if fleet.writer || !fleet.is_used() => Self::Always,
            (None, _) => Self::Never,
        }
    }
}

/// What both tasks have.
#[derive(Clone)]
struct Sender {
    api: Arc<Api>,
    claims: Claims,
    turn: Turn,
}

/// Starts to send as soon as the rules have `aggregate`.
///
/// # Errors
/// When TLS can't be set up.
pub(crate) fn start(api: &Arc<Api>, secrets: &Secrets, claims: Claims) -> Result<(), Vec<String>> {
    let poster = Poster::new(Arc::clone(api), secrets.clone()).map_err(|error| vec![error])?;
    let sender = Sender { api: Arc::clone(api), claims, turn: Turn::of(&api.fleet) };
    let (handle, mut status) = (api.handle.clone(), api.handle.follow_status());
    tokio::spawn(async move {
        while handle.snapshot().table().aggregate().is_none() {
            if status.changed().await.is_err() {
                return;
            }
        }
        if let Some(warning) = warning(&sender.api.fleet) {
            tracing::warn!("{warning}");
        }
        run(sender, poster, handle.tasks());
    });
    Ok(())
}

/// Runs both tasks. They end with the program. Neither is vital: a node serves without them.
fn run(sender: Sender, poster: Poster, tasks: &Tasks) {
    let (bodies, queue) = mpsc::channel(QUEUE);
    let queue = Arc::new(tokio::sync::Mutex::new(queue));
    let patience = Duration::from_secs(120);
    let (pulse, beat) = (tasks.beating("aggregate", false, patience), tasks.beating("aggregate post", false, patience));
    let (of_gather, of_post) = (pulse.clone(), beat.clone());
    tokio::spawn(supervise(pulse, move || {
        let (sender, bodies, pulse) = (sender.clone(), bodies.clone(), of_gather.clone());
        async move { sender.gather(bodies, || pulse.beat()).await }
    }));
    tokio::spawn(supervise(beat, move || {
        let (poster, queue, beat) = (poster.clone(), Arc::clone(&queue), of_post.clone());
        async move { poster.run(&mut *queue.lock().await, || beat.beat()).await }
    }));
}

impl Sender {
    /// Takes intervals that are over, again and again.
    async fn gather(self, bodies: mpsc::Sender<Body>, beat: impl Fn()) -> Ended {
        let (mut waiting, mut before) = (VecDeque::new(), Told::default());
        loop {
            beat();
            tokio::time::sleep(LOOK).await;
            let (snapshot, now) = (self.api.handle.snapshot_owned(), self.api.handle.now());
            let over = self.api.handle.observed().with(|sums| sums.take_windows(snapshot.table(), now));
            let aggregated = &self.api.metrics.aggregated;
            let Some(rule) = snapshot.table().aggregate() else {
                waiting.drain(..).for_each(|window| self.lose(&window, Lost::Withdrawn));
                aggregated.forget_failure();
                continue;
            };
            if self.turn == Turn::Never {
                over.iter().for_each(|_| aggregated.window(Became::NotSender));
                continue;
            }
            waiting.extend(over);
            drop_oldest(&mut waiting).iter().for_each(|window| self.lose(window, Lost::Unclaimed));
            while let Some(window) = waiting.front() {
                let waits = if window.is_whole { GRACE } else { Millis(GRACE.0 + PART_WAITS.0) };
                if self.turn == Turn::Claimed && now < window.end().after(waits) {
                    break;
                }
                let is_ours = match self.turn {
                    Turn::Claimed => self.claims.claim(&self.api.node, window, now).await,
                    _ => Ok(true),
                };
                match (is_ours, waiting.pop_front()) {
                    (Ok(true), Some(window)) => {
                        let told = self.tell(rule, &window, &before, &bodies);
                        before = if told.groups.is_empty() { before } else { told };
                    }
                    (Ok(false), _) => {
                        aggregated.window(Became::OfAnotherNode);
                        aggregated.forget_failure();
                    }
                    (Err(why), window) => {
                        tracing::debug!(why, "an interval of the aggregate can't be claimed");
                        window.into_iter().for_each(|window| waiting.push_front(window));
                        break;
                    }
                    (Ok(true), None) => break,
                }
            }
        }
    }

    /// Gives what may be told of an interval to the task that posts. Returns it.
    fn tell(&self, rule: &Aggregate, window: &Window, before: &Told, bodies: &mpsc::Sender<Body>) -> Told {
        let (told, count) = (tell(window, rule.min_count, before), window.count());
        let aggregated = &self.api.metrics.aggregated;
        self.note_lost(window);
        let named = count.saturating_sub(told.folded).saturating_sub(told.withheld);
        if told.groups.is_empty() {
            aggregated.requests(0, 0, told.withheld);
            aggregated.window(Became::Withheld);
            return told;
        }
        let json = request(window, &told, env!("CARGO_PKG_VERSION")).to_string();
        let body = Body::new(rule, json.into(), count);
        // Before the other task can take it.
        aggregated.queued();
        match bodies.try_send(body) {
            Ok(()) => aggregated.requests(named, told.folded, told.withheld),
            Err(_) => {
                aggregated.unqueued();
                aggregated.lost(Lost::Full, count);
            }
        }
        told
    }

    /// Counts an interval as lost.
    fn lose(&self, window: &Window, why: Lost) {
        self.api.metrics.aggregated.lost(why, window.count());
        self.note_lost(window);
    }

    /// Counts what no interval has, since the one before was taken.
    fn note_lost(&self, window: &Window) {
        self.api.metrics.aggregated.lost(Lost::Late, window.lost.late);
        self.api.metrics.aggregated.lost(Lost::Uncounted, window.lost.uncounted);
    }
}

/// Drops the oldest of too many intervals. Returns them.
fn drop_oldest(waiting: &mut VecDeque<Window>) -> Vec<Window> {
    let (mut dropped, mut cells) = (Vec::new(), waiting.iter().map(|window| window.cells.len()).sum::<usize>());
    while waiting.len() > MOST_WAITING.0 || cells > MOST_WAITING.1 {
        let Some(oldest) = waiting.pop_front() else { break };
        cells -= oldest.cells.len();
        dropped.push(oldest);
    }
    dropped
}

/// A warning if another node may send the same intervals, as the configurations of both say so.
pub(crate) fn warning(fleet: &Fleet) -> Option<String> {
    let is_beside_writer = fleet.mode == Mode::Peers && !fleet.writer && fleet.sends_aggregate == Some(true);
    is_beside_writer.then(|| {
        "\"fleet.sends_aggregate\" is true, and this node isn't the writer: the writer sends the aggregate, too, \
         unless it has sends_aggregate = false"
            .to_owned()
    })
}

#[cfg(test)]
mod tests;
