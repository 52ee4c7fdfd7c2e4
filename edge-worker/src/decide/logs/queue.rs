//! What wasn't sent to sinks yet. Takes records, returns batches to post; takes the result of each post. Called by
//! `runtime::logs`.
//!
//! The queue is bounded in bytes, and in time by the number of tries. A record that doesn't fit isn't kept, so a sink
//! that is slow or gone costs memory once and no request anything. A batch belongs to one sink, and is never given to
//! another.

use std::collections::VecDeque;

use bailiwick_rules::table::Sink;
use bailiwick_rules::time::{Millis, Timestamp};

/// The most bytes that wait, of all sinks together.
pub(crate) const MOST: usize = 4 << 20;
/// The most bytes of one batch, but for a single record that is longer. Collectors take some megabytes at once.
const MOST_OF_BATCH: usize = 1 << 20;
/// How often a batch is posted before it is given up.
const TRIES: u8 = 3;
/// The rest after a first failure. It is doubled with each failure that follows.
const REST: Millis = Millis(1_000);
/// The longest rest.
const LONGEST_REST: Millis = Millis(30_000);

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

    /// The body of the post. `isolate` is the name of this isolate.
    #[must_use]
    pub(crate) fn body(&self, isolate: &str) -> String {
        let (resources, scopes, records) = match self.signal {
            Signal::Logs => ("resourceLogs", "scopeLogs", "logRecords"),
            Signal::Traces => ("resourceSpans", "scopeSpans", "spans"),
        };
        [
            "{\"",
            resources,
            "\":[{\"resource\":{\"attributes\":[",
            "{\"key\":\"service.name\",\"value\":{\"stringValue\":\"bailiwick-edge\"}},",
            "{\"key\":\"service.instance.id\",\"value\":{\"stringValue\":\"",
            isolate,
            "\"}}]},\"",
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
    /// How many posts in a row have failed.
    failures: u32,
    /// Until when nothing is posted.
    rest_until: Timestamp,
}

/// What waits for all sinks.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    sinks: Vec<Waiting>,
    /// How many bytes wait.
    bytes: usize,
    /// The records that were taken, and of which nothing has been heard.
    under_way: u64,
}

impl Queue {
    /// Adds a record for a sink. False if there is no room for it.
    pub(crate) fn push(&mut self, sink: &Sink, signal: Signal, record: &str) -> bool {
        let bytes = record.len() + 1;
        if self.bytes + bytes > MOST {
            return false;
        }
        self.bytes += bytes;
        let batches = &mut self.waiting(sink, signal).batches;
        match batches.back_mut() {
            Some(last) if last.tries == 0 && last.records.len() + bytes <= MOST_OF_BATCH => {
                last.records.extend([",", record]);
                last.count += 1;
            }
            _ => {
                batches.push_back(Batch { sink: sink.clone(), signal, records: record.to_owned(), count: 1, tries: 0 });
            }
        }
        true
    }

    /// Takes the first batch of each sink that doesn't rest.
    pub(crate) fn take(&mut self, now: Timestamp) -> Vec<Batch> {
        let is_due = |waiting: &&mut Waiting| !waiting.rest_until.lasts(now, LONGEST_REST);
        let due: Vec<Batch> =
            self.sinks.iter_mut().filter(is_due).filter_map(|waiting| waiting.batches.pop_front()).collect();
        for batch in &due {
            self.bytes = self.bytes.saturating_sub(batch.size());
            self.under_way += batch.count;
        }
        due
    }

    /// Notes what became of a batch.
    pub(crate) fn settle(&mut self, mut batch: Batch, settled: Settled, now: Timestamp) -> Noted {
        let (count, size) = (batch.count, batch.size());
        self.under_way = self.under_way.saturating_sub(count);
        batch.tries = batch.tries.saturating_add(1);
        let is_kept = settled == Settled::Later && batch.tries < TRIES && self.bytes + size <= MOST;
        let waiting = self.waiting(&batch.sink, batch.signal);
        let was_failing = waiting.failures > 0;
        if settled == Settled::Taken {
            (waiting.failures, waiting.rest_until) = (0, Timestamp(0));
            return Noted { lost: 0, is_news: was_failing };
        }
        let rest = REST.0 << waiting.failures.min(10);
        waiting.rest_until = now.after(Millis(rest.min(LONGEST_REST.0)));
        waiting.failures = waiting.failures.saturating_add(1);
        if is_kept {
            waiting.batches.push_front(batch);
            self.bytes += size;
        }
        Noted { lost: if is_kept { 0 } else { count }, is_news: !was_failing }
    }

    /// Forgets sinks that the rules no longer have, and what waits for them. Returns how many records that were.
    pub(crate) fn follow(&mut self, sinks: &[Sink]) -> u64 {
        let mut dropped = 0;
        let bytes = &mut self.bytes;
        self.sinks.retain(|waiting| {
            let is_known = sinks.contains(&waiting.sink);
            if !is_known {
                dropped += waiting.batches.iter().map(|batch| batch.count).sum::<u64>();
                *bytes = bytes.saturating_sub(waiting.batches.iter().map(Batch::size).sum());
            }
            is_known
        });
        dropped
    }

    /// Gives up the batches of which nothing was heard, as the runtime has ended their post. Returns how many records
    /// they had.
    pub(crate) fn give_up(&mut self) -> u64 {
        core::mem::take(&mut self.under_way)
    }

    /// Whether nothing waits.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.sinks.iter().all(|waiting| waiting.batches.is_empty())
    }

    fn waiting(&mut self, sink: &Sink, signal: Signal) -> &mut Waiting {
        let is_it = |waiting: &Waiting| waiting.signal == signal && waiting.sink == *sink;
        let position = self.sinks.iter().position(is_it).unwrap_or_else(|| {
            self.sinks.push(Waiting {
                sink: sink.clone(),
                signal,
                batches: VecDeque::new(),
                failures: 0,
                rest_until: Timestamp(0),
            });
            self.sinks.len() - 1
        });
        &mut self.sinks[position]
    }
}

#[cfg(test)]
mod tests;
