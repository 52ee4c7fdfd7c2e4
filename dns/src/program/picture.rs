//! The data behind the picture, which is the page at `/ui/`: events, the last day of each region, and the results of
//! the last check of fences (the regions that may process a client). Once a second the API looks at the node's snapshot
//! and calls this module with what it finds; `/v1/picture`, `/v1/timeline` and `/v1/events` read it. Held by the API.
//!
//! Its memory is bounded, and no DNS query waits for any of it.

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
use seen::NodeView;
use timeline::{Sample, Timeline};

/// How many viewers may follow events at once.
const MOST_VIEWERS: usize = 100;

/// The result of a check of fences: whether any decision or answer led a client out of its fence.
#[derive(Debug, Clone)]
pub(crate) struct FenceCheck {
    /// When the check ended.
    pub(crate) at: Timestamp,
    /// The revision of the rules.
    pub(crate) revision: u64,
    /// How long the check took, in milliseconds.
    pub(crate) took_ms: u64,
    /// The decisions that lead out of a fence.
    pub(crate) audit: Audit,
    /// The check of the answers that DNS gave; `None` until enough time has passed under this revision.
    pub(crate) given: Option<AnswerCounts>,
    /// The load of fences without one of their regions.
    pub(crate) margins: Vec<Margin>,
}

impl FenceCheck {
    /// How many answers named a region outside of the client's fence.
    pub(crate) fn outside(&self) -> u64 {
        self.given.as_ref().map_or(0, |given| given.outside)
    }
}

/// The number of answers that DNS gave under the rules in service.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct AnswerCounts {
    /// The time since which answers are counted.
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
pub(crate) struct AllDestinations {
    /// When.
    pub(crate) at: Timestamp,
    /// By service.
    pub(crate) services: Vec<Destinations>,
    /// How many more services there are.
    pub(crate) left_out: usize,
}

/// Where clients of a service go.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Destinations {
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
    state: Mutex<PictureState>,
    newest: watch::Sender<u64>,
    /// Each viewer that follows events holds a permit.
    pub(crate) viewers: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct PictureState {
    last_view: Option<NodeView>,
    events: Events,
    timeline: Timeline,
    checked: Option<FenceCheck>,
    going: Option<AllDestinations>,
    edge: Vec<EdgeFlow>,
    is_closed: bool,
}

impl Default for Picture {
    fn default() -> Self {
        Self { state: Mutex::default(), newest: watch::Sender::new(0), viewers: Arc::new(Semaphore::new(MOST_VIEWERS)) }
    }
}

impl Picture {
    fn state(&self) -> MutexGuard<'_, PictureState> {
        // A poisoned lock still holds what was seen.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a new view of the node, and adds events for what has changed since the last one. `why` says why a region
    /// has its status.
    pub(crate) fn note(&self, view: NodeView, now: Timestamp, why: impl FnMut(&str) -> String) {
        let before = self.state().last_view.take();
        let view = view.following(before.as_ref());
        // The first look has nothing to compare with.
        let changes = before.map_or_else(Vec::new, |before| view.changes(&before, why));
        self.state().last_view = Some(view);
        self.add(changes, now);
    }

    /// Adds changes to the events.
    fn add(&self, changes: Vec<Change>, now: Timestamp) {
        let is_news = !changes.is_empty();
        let mut state = self.state();
        state.events.add(changes, now);
        let newest = state.events.newest();
        drop(state);
        if is_news {
            self.newest.send_replace(newest);
        }
    }

    /// Notes the samples of a moment.
    pub(crate) fn sample(&self, samples: impl IntoIterator<Item = (RegionId, Sample)>, now: Timestamp) {
        self.state().timeline.add(samples, now);
    }

    /// Notes what was checked of fences.
    pub(crate) fn check(&self, checked: FenceCheck) {
        self.state().checked = Some(checked);
    }

    /// What was checked of fences last; `None` before the first time.
    pub(crate) fn checked(&self) -> Option<FenceCheck> {
        self.state().checked.clone()
    }

    /// Notes where clients go.
    pub(crate) fn go(&self, going: AllDestinations) {
        self.state().going = Some(going);
    }

    /// Where clients go; `None` before it was first looked at.
    pub(crate) fn going(&self) -> Option<AllDestinations> {
        self.state().going.clone()
    }

    /// Notes what Workers serve.
    pub(crate) fn note_edge(&self, edge: Vec<EdgeFlow>) {
        self.state().edge = edge;
    }

    /// What Workers serve.
    pub(crate) fn edge(&self) -> Vec<EdgeFlow> {
        self.state().edge.clone()
    }

    /// Looks at the events.
    pub(crate) fn events<T>(&self, look: impl FnOnce(&Events) -> T) -> T {
        look(&self.state().events)
    }

    /// Looks at the last day.
    pub(crate) fn timeline<T>(&self, look: impl FnOnce(&Timeline) -> T) -> T {
        look(&self.state().timeline)
    }

    /// Gives the number of the newest event, from now on.
    pub(crate) fn follow(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Ends all streams of events, and refuses new ones.
    pub(crate) fn close(&self) {
        self.state().is_closed = true;
        self.newest.send_modify(|_| {});
    }

    /// Whether streams of events have been ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.state().is_closed
    }
}
