//! What the picture needs beside the snapshot: events, the last day of each region, and what was checked of fences.
//! Takes what the API sees every second, returns it to `/v1/picture`, `/v1/timeline` and `/v1/events`. Held by the API.
//!
//! All of it is bounded, and no query waits for any of it.

pub(crate) mod events;
pub(crate) mod seen;
pub(crate) mod timeline;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bailiwick_rules::audit::Audit;
use bailiwick_rules::id::RegionId;
use bailiwick_rules::time::Timestamp;
use serde::Serialize;
use tokio::sync::{Semaphore, watch};

use events::{Change, Events};
use seen::Seen;
use timeline::{Sample, Timeline};

/// How many viewers may follow events at once.
const MOST_VIEWERS: usize = 100;

/// What was checked of fences.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    /// When.
    pub(crate) at: Timestamp,
    /// The revision of the rules.
    pub(crate) revision: u64,
    /// How long it took, in milliseconds.
    pub(crate) took_ms: u64,
    /// What was found.
    pub(crate) audit: Audit,
    /// What was found in the answers that were given; `None` until enough time has passed under this revision.
    pub(crate) given: Option<Given>,
    /// The load of fences without one of their regions.
    pub(crate) margins: Vec<Margin>,
}

impl Checked {
    /// How many answers that were given led outside.
    pub(crate) fn outside(&self) -> u64 {
        self.given.as_ref().map_or(0, |given| given.outside)
    }
}

/// Answers that DNS gave under the rules in service.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Given {
    /// Since when.
    pub(crate) since: Timestamp,
    /// How many named a region.
    pub(crate) queries: u64,
    /// How many of them named one outside of the fence of the client's country.
    pub(crate) outside: u64,
    /// How many more weren't compared, because a thread of packets had no counter left for their country.
    pub(crate) left_out: u64,
}

/// Where clients of every service go, at one moment.
#[derive(Debug, Clone)]
pub(crate) struct AllGoing {
    /// When.
    pub(crate) at: Timestamp,
    /// By service.
    pub(crate) services: Vec<Going>,
    /// How many more services there are.
    pub(crate) left_out: usize,
}

/// Where clients of a service go.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Going {
    /// The service.
    pub(crate) service: String,
    /// Countries whose clients go to the same region.
    pub(crate) groups: Vec<Group>,
}

/// Countries whose clients go to the same region.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Group {
    /// The region; null if there is none for them.
    pub(crate) to: Option<String>,
    /// Whether a fence has regions and none is offered.
    pub(crate) is_withheld: bool,
    /// Whether the region is offered only because nothing else is left.
    pub(crate) is_revived: bool,
    /// The countries, with spaces between; `unknown` is for clients that nobody can place.
    pub(crate) countries: String,
}

/// The load that a fence would have without one of its regions.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Margin {
    /// The fence.
    pub(crate) fence: Vec<String>,
    /// The region that is lost.
    pub(crate) lost: String,
    /// The load of the others; 1 is full.
    pub(crate) load: f64,
    /// How demand was learnt: `measured`, or `rules`.
    pub(crate) by: &'static str,
}

/// Requests that Workers served, by clients and region.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct EdgeFlow {
    /// The jurisdictions of the clients.
    pub(crate) clients: String,
    /// The region.
    pub(crate) region: String,
    /// How many a second.
    pub(crate) per_second: f64,
}

/// What is kept for the picture.
#[derive(Debug)]
pub(crate) struct Picture {
    kept: Mutex<Kept>,
    newest: watch::Sender<u64>,
    /// Held by those who follow events.
    pub(crate) viewers: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Kept {
    seen: Option<Seen>,
    events: Events,
    timeline: Timeline,
    checked: Option<Checked>,
    going: Option<AllGoing>,
    edge: Vec<EdgeFlow>,
    is_closed: bool,
}

impl Default for Picture {
    fn default() -> Self {
        Self { kept: Mutex::default(), newest: watch::Sender::new(0), viewers: Arc::new(Semaphore::new(MOST_VIEWERS)) }
    }
}

impl Picture {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A poisoned lock still holds what was seen.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is seen now. `why` says why a region has its status.
    pub(crate) fn note(&self, seen: Seen, now: Timestamp, why: impl FnMut(&str) -> String) {
        let before = self.kept().seen.take();
        let seen = seen.following(before.as_ref());
        // The first look has nothing to compare with.
        let changes = before.map_or_else(Vec::new, |before| seen.changes(&before, why));
        self.kept().seen = Some(seen);
        self.add(changes, now);
    }

    /// Adds changes to the events.
    fn add(&self, changes: Vec<Change>, now: Timestamp) {
        let is_news = !changes.is_empty();
        let mut kept = self.kept();
        kept.events.add(changes, now);
        let newest = kept.events.newest();
        drop(kept);
        if is_news {
            self.newest.send_replace(newest);
        }
    }

    /// Notes the samples of a moment.
    pub(crate) fn sample(&self, samples: impl IntoIterator<Item = (RegionId, Sample)>, now: Timestamp) {
        self.kept().timeline.add(samples, now);
    }

    /// Notes what was checked of fences.
    pub(crate) fn check(&self, checked: Checked) {
        self.kept().checked = Some(checked);
    }

    /// What was checked of fences last; `None` before the first time.
    pub(crate) fn checked(&self) -> Option<Checked> {
        self.kept().checked.clone()
    }

    /// Notes where clients go.
    pub(crate) fn go(&self, going: AllGoing) {
        self.kept().going = Some(going);
    }

    /// Where clients go; `None` before it was first looked at.
    pub(crate) fn going(&self) -> Option<AllGoing> {
        self.kept().going.clone()
    }

    /// Notes what Workers serve.
    pub(crate) fn note_edge(&self, edge: Vec<EdgeFlow>) {
        self.kept().edge = edge;
    }

    /// What Workers serve.
    pub(crate) fn edge(&self) -> Vec<EdgeFlow> {
        self.kept().edge.clone()
    }

    /// Looks at the events.
    pub(crate) fn events<T>(&self, look: impl FnOnce(&Events) -> T) -> T {
        look(&self.kept().events)
    }

    /// Looks at the last day.
    pub(crate) fn timeline<T>(&self, look: impl FnOnce(&Timeline) -> T) -> T {
        look(&self.kept().timeline)
    }

    /// Gives the number of the newest event, from now on.
    pub(crate) fn follow(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Lets nobody follow any longer.
    pub(crate) fn close(&self) {
        self.kept().is_closed = true;
        self.newest.send_modify(|_| {});
    }

    /// Whether nobody may follow any longer.
    pub(crate) fn is_closed(&self) -> bool {
        self.kept().is_closed
    }
}
