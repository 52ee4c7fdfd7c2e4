//! What wasn't sent to sinks yet. Takes records, returns batches to post; takes the result of each post. Called by
//! `runtime::outbox`.
//!
//! The queue is bounded in bytes, in the number of tries and in age. A record that doesn't fit isn't kept, so a sink
//! that is slow or gone costs memory once and no request anything. A batch belongs to one sink, and is never given to
//! another. Records under way count as memory until their post has ended.

use std::collections::VecDeque;

use bailiwick_rules::id::SinkId;
use bailiwick_rules::table::Sink;
use bailiwick_rules::time::{Millis, Timestamp};

/// The most bytes that wait or are under way, of all sinks together.
pub(crate) const MOST: usize = 4 << 20;
/// The most bytes of one batch, but for a single record that is longer. Collectors take some megabytes at once.
const MOST_OF_BATCH: usize = 1 << 20;
/// How often a batch is posted before it is given up.
const TRIES: u8 = 3;
/// The rest after a first failure. It is doubled with each failure that follows.
const REST: Millis = Millis(1_000);
/// The longest rest.
const LONGEST_REST: Millis = Millis(30_000);
/// How old a batch may become. A batch that is older is given up.
const MAX_AGE: Millis = Millis(300_000);

/// What is posted: events or spans.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signal {
    /// Log records.
    Logs = 0,
    /// Spans.
    Traces = 1,
}

impl Signal {
    /// The word for metrics.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Traces => "traces",
        }
    }
}

/// What became of a post.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Settled {
    /// The sink took the batch.
    Taken,
    /// The sink may take it later.
    Later,
    /// The sink will never take it.
    Refused,
}

/// What a settled batch means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Noted {
    /// How many records are lost.
    pub(crate) lost: u64,
    /// Whether the sink began to fail, or to take batches again.
    pub(crate) is_news: bool,
}

/// Records that were given up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Dropped {
    /// The name of their sink.
    pub(crate) sink: SinkId,
    /// What the records are.
    pub(crate) signal: Signal,
    /// How many records there are.
    pub(crate) count: u64,
}

/// Records for one post.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Batch {
    /// The sink, as the rules had it when the requests were served.
    pub(crate) sink: Sink,
    /// What the records are.
    pub(crate) signal: Signal,
    /// The records as JSON, separated by commas.
    records: String,
    count: u64,
    tries: u8,
    /// When its first record came.
    began: Timestamp,
    /// The number of its post.
    post: u64,
}

impl Batch {
    /// How many records it has.
    #[must_use]
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    fn size(&self) -> usize {
        self.records.len() + 1
    }

    /// The body of the post. It doesn't name the isolate: Loki would make an index label of `service.instance.id`, and
    /// a stream for each isolate.
    #[must_use]
    pub(crate) fn body(&self) -> String {
        let (resources, scopes, records) = match self.signal {
            Signal::Logs => ("resourceLogs", "scopeLogs", "logRecords"),
            Signal::Traces => ("resourceSpans", "scopeSpans", "spans"),
        };
        [
            "{\"",
            resources,
            "\":[{\"resource\":{\"attributes\":[",
            "{\"key\":\"service.name\",\"value\":{\"stringValue\":\"bailiwick-edge\"}}]},\"",
            scopes,
            "\":[{\"scope\":{\"name\":\"bailiwick\",\"version\":\"",
            env!("CARGO_PKG_VERSION"),
            "\"},\"",
            records,
            "\":[",
            &self.records,
            "]}]}]}",
        ]
        .concat()
    }
}

/// What waits for one sink.
#[derive(Debug)]
struct Waiting {
    sink: Sink,
    signal: Signal,
    batches: VecDeque<Batch>,
    /// The batch that is under way: the number of its post, its records and its bytes.
    under_way: Option<UnderWay>,
    /// How many posts in a row have failed.
    failures: u32,
    /// Until when nothing is posted.
    rest_until: Timestamp,
    /// Whether the rules no longer have this sink. It gets nothing more.
    is_gone: bool,
}

/// A batch of which nothing has been heard yet.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    post: u64,
    count: u64,
    bytes: usize,
}

impl Waiting {
    /// The bytes that it holds.
    fn bytes(&self) -> usize {
        let waiting: usize = self.batches.iter().map(Batch::size).sum();
        waiting + self.under_way.map_or(0, |one| one.bytes)
    }

    /// These records of it, as given up.
    fn dropped(&self, count: u64) -> Dropped {
        Dropped { sink: self.sink.id.clone(), signal: self.signal, count }
    }
}

/// What waits for all sinks.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    sinks: Vec<Waiting>,
    /// How many posts have begun.
    posts: u64,
}

impl Queue {
    /// Adds a record for a sink. False if there is no room for it.
    ///
    /// What waits for one sink may not exceed what is left free. So a sink that is gone takes half of all at most, and
    /// of `n` such sinks each takes one of `n + 1` parts: a sink that is well always finds a part free.
    pub(crate) fn push(&mut self, sink: &Sink, signal: Signal, record: &str, now: Timestamp) -> bool {
        let bytes = record.len() + 1;
        let free = MOST.saturating_sub(self.bytes());
        let waiting = self.waiting(sink, signal);
        if waiting.is_gone || waiting.bytes() + 2 * bytes > free {
            return false;
        }
        match waiting.batches.back_mut() {
            Some(last) if last.tries == 0 && last.records.len() + bytes <= MOST_OF_BATCH => {
                last.records.extend([",", record]);
                last.count += 1;
            }
            _ => {
                let (sink, records) = (sink.clone(), record.to_owned());
                waiting.batches.push_back(Batch { sink, signal, records, count: 1, tries: 0, began: now, post: 0 });
            }
        }
        true
    }

    /// Takes the first batch of each sink that doesn't rest and has none under way, at most so many.
    pub(crate) fn take(&mut self, now: Timestamp, most: usize) -> Vec<Batch> {
        let is_due =
            |waiting: &&mut Waiting| waiting.under_way.is_none() && !waiting.rest_until.lasts(now, LONGEST_REST);
        let mut due = Vec::new();
        for waiting in self.sinks.iter_mut().filter(is_due) {
            if due.len() == most {
                break;
            }
            let Some(mut batch) = waiting.batches.pop_front() else { continue };
            self.posts += 1;
            batch.post = self.posts;
            waiting.under_way = Some(UnderWay { post: batch.post, count: batch.count, bytes: batch.size() });
            due.push(batch);
        }
        // The sinks that had their turn are last the next time.
        self.sinks.sort_by_key(|waiting| waiting.under_way.map_or(0, |one| one.post));
        due
    }

    /// Notes what became of a batch. `None` if it was given up already, so that it isn't counted twice.
    pub(crate) fn settle(&mut self, mut batch: Batch, settled: Settled, now: Timestamp) -> Option<Noted> {
        let is_it = |waiting: &Waiting| waiting.under_way.is_some_and(|one| one.post == batch.post);
        let position = self.sinks.iter().position(is_it)?;
        let waiting = &mut self.sinks[position];
        waiting.under_way = None;
        batch.tries = batch.tries.saturating_add(1);
        let was_failing = waiting.failures > 0;
        let noted = if settled == Settled::Taken {
            (waiting.failures, waiting.rest_until) = (0, Timestamp(0));
            Noted { lost: 0, is_news: was_failing }
        } else {
            let rest = REST.0 << waiting.failures.min(10);
            waiting.rest_until = now.after(Millis(rest.min(LONGEST_REST.0)));
            waiting.failures = waiting.failures.saturating_add(1);
            let is_kept = settled == Settled::Later && batch.tries < TRIES && !waiting.is_gone;
            let lost = if is_kept { 0 } else { batch.count };
            if is_kept {
                waiting.batches.push_front(batch);
            }
            Noted { lost, is_news: !was_failing }
        };
        if waiting.is_gone {
            self.sinks.remove(position);
        }
        Some(noted)
    }

    /// Forgets sinks that the rules no longer have. Returns what waited for them. A post that is under way can't be
    /// called back, but isn't repeated.
    pub(crate) fn follow(&mut self, sinks: &[Sink]) -> Vec<Dropped> {
        let mut dropped = Vec::new();
        self.sinks.retain_mut(|waiting| {
            if sinks.contains(&waiting.sink) {
                waiting.is_gone = false;
                return true;
            }
            let count: u64 = waiting.batches.drain(..).map(|batch| batch.count).sum();
            dropped.push(waiting.dropped(count));
            waiting.is_gone = true;
            waiting.under_way.is_some()
        });
        dropped
    }

    /// Gives up the batches that have waited for too long.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Vec<Dropped> {
        let mut dropped = Vec::new();
        for waiting in &mut self.sinks {
            let mut count = 0;
            waiting.batches.retain(|batch| {
                let is_old = now.since(batch.began) > MAX_AGE;
                count += if is_old { batch.count } else { 0 };
                !is_old
            });
            dropped.push(waiting.dropped(count));
        }
        dropped
    }

    /// Gives up the batches of which nothing was heard, as the runtime has ended their posts.
    pub(crate) fn give_up(&mut self) -> Vec<Dropped> {
        let mut dropped = Vec::new();
        self.sinks.retain_mut(|waiting| {
            let count = waiting.under_way.take().map_or(0, |one| one.count);
            dropped.push(waiting.dropped(count));
            !waiting.is_gone
        });
        dropped
    }

    /// Whether nothing waits. A batch that is under way doesn't wait.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.sinks.iter().all(|waiting| waiting.batches.is_empty())
    }

    /// The bytes that wait or are under way.
    fn bytes(&self) -> usize {
        self.sinks.iter().map(Waiting::bytes).sum()
    }

    fn waiting(&mut self, sink: &Sink, signal: Signal) -> &mut Waiting {
        let is_it = |waiting: &Waiting| waiting.signal == signal && waiting.sink == *sink;
        let position = self.sinks.iter().position(is_it).unwrap_or_else(|| {
            self.sinks.push(Waiting {
                sink: sink.clone(),
                signal,
                batches: VecDeque::new(),
                under_way: None,
                failures: 0,
                rest_until: Timestamp(0),
                is_gone: false,
            });
            self.sinks.len() - 1
        });
        &mut self.sinks[position]
    }
}

#[cfg(test)]
mod tests;
