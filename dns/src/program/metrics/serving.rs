//! Compares a node's answers before and since the current revision of the rules. Takes the counters since the process
//! began; returns the numbers by which the rollout of a revision is judged. Called every five minutes, when the rules
//! change, and for requests of `/v1/fleet`.
//!
//! This module reads the counters of the metrics, and counts nothing itself.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bailiwick_rules::fleet::stages::Answers;
use bailiwick_rules::table::Revision;
use bailiwick_rules::time::Millis;

use super::{Metrics, RCODES};
use crate::response::answer::Rcode;

/// The answers since a revision came into service are compared with the answers in this time before.
const BEFORE: Duration = Duration::from_secs(3_600);

/// The numbers of answers at some moments, and the revision in service.
#[derive(Debug, Default)]
pub(super) struct Serving {
    /// The number of answers since the process began, at several moments of the last hour, the oldest first.
    marks: VecDeque<(Instant, Answers)>,
    current: Option<Current>,
}

/// The revision in service.
#[derive(Debug)]
struct Current {
    revision: Revision,
    since: Instant,
    /// The answers in the hour before `since`.
    before: Answers,
    /// All answers from the start of the process to `since`.
    at_begin: Answers,
}

/// A node's answers before and under a revision.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AnswersByRevision {
    /// How long the node has served the revision.
    pub(crate) span: Millis,
    /// The answers in the hour before the node began to serve the revision.
    pub(crate) before: Answers,
    /// The answers under the revision.
    pub(crate) since: Answers,
}

impl Serving {
    /// Notes the number of answers at `now`.
    fn mark(&mut self, now: Instant, all: Answers) {
        // One mark older than an hour stays, so that the marks cover the whole hour.
        while self.marks.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= BEFORE) {
            self.marks.pop_front();
        }
        self.marks.push_back((now, all));
    }

    /// Notes that a revision came into service.
    fn begin(&mut self, revision: Revision, now: Instant, all: Answers) {
        let oldest = self.marks.iter().find(|(at, _)| now.duration_since(*at) <= BEFORE);
        let before = oldest.map_or_else(|| all.clone(), |(_, then)| less(&all, then));
        self.current = Some(Current { revision, since: now, before, at_begin: all });
    }
}

impl Metrics {
    /// Notes the number of answers until now.
    pub(crate) fn mark_answers(&self, now: Instant) {
        let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        serving.mark(now, self.all_answers());
    }

    /// Notes the revision in service, if it has changed.
    pub(crate) fn begin_revision(&self, revision: Revision, now: Instant) {
        let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        if serving.current.as_ref().is_none_or(|current| current.revision != revision) {
            serving.begin(revision, now, self.all_answers());
        }
    }

    /// This node's answers before and under the revision; `None` if another revision was noted last.
    pub(crate) fn served(&self, revision: Revision, now: Instant) -> Option<AnswersByRevision> {
        let serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        let current = serving.current.as_ref().filter(|current| current.revision == revision)?;
        let span = Millis(u64::try_from(now.duration_since(current.since).as_millis()).unwrap_or(u64::MAX));
        Some(AnswersByRevision {
            span,
            before: current.before.clone(),
            since: less(&self.all_answers(), &current.at_begin),
        })
    }

    /// All answers since this process began.
    fn all_answers(&self) -> Answers {
        let mut answers = Answers::default();
        for ((service, region, _), count) in self.all_steered() {
            let of_service = answers.steered.entry(service.to_string()).or_default();
            *of_service.entry(region.map(|region| region.to_string())).or_default() += count;
        }
        let threads = self.threads();
        let tables = self.answered.iter().chain(threads.iter().map(|thread| &thread.answered));
        for (rcode, by_type) in tables.flat_map(|table| table.iter().enumerate()) {
            let count: u64 = by_type.iter().map(|counter| counter.load(Ordering::Relaxed)).sum();
            answers.all += count;
            if RCODES.get(rcode).is_some_and(|(rcode, _)| *rcode == Rcode::SERVFAIL) {
                answers.servfail += count;
            }
        }
        answers
    }
}

/// The answers that were counted between `then` and `all`.
fn less(all: &Answers, then: &Answers) -> Answers {
    let mut since = Answers {
        all: all.all.saturating_sub(then.all),
        servfail: all.servfail.saturating_sub(then.servfail),
        ..Answers::default()
    };
    for (service, regions) in &all.steered {
        let earlier = then.steered.get(service);
        for (region, count) in regions {
            let earlier = earlier.and_then(|regions| regions.get(region)).copied().unwrap_or(0);
            if *count > earlier {
                *since.steered.entry(service.clone()).or_default().entry(region.clone()).or_default() +=
                    count - earlier;
            }
        }
    }
    since
}

#[cfg(test)]
mod tests {
    use bailiwick_rules::id::{RegionId, ServiceId};

    use super::super::{add, place};
    use super::*;
    use crate::response::answer::Origin;

    fn revision(number: u64) -> Revision {
        Revision { number, sha256: [7; 32] }
    }

    fn count(metrics: &Metrics, region: Option<&str>, times: u64) {
        let region = region.map(|name| RegionId::parse(name).unwrap());
        for _ in 0..times {
            metrics.count_steered(&ServiceId::parse("chat").unwrap(), region.as_ref(), Origin::default());
        }
    }

    #[test]
    fn answers_are_counted_since_a_revision_and_for_the_hour_before() {
        let (metrics, begin) = (Metrics::default(), Instant::now());
        let at = |minutes: u64| begin + Duration::from_secs(minutes * 60);
        let serves = |number: u64, at: Instant| {
            metrics.begin_revision(revision(number), at);
            metrics.served(revision(number), at).unwrap()
        };
        serves(7, at(0));
        count(&metrics, Some("fra"), 100);
        metrics.mark_answers(at(5));
        count(&metrics, Some("fra"), 10);
        metrics.mark_answers(at(60));
        count(&metrics, None, 3);
        let served = serves(8, at(90));
        let of = |answers: &Answers| {
            let regions = answers.steered.get("chat").into_iter().flatten();
            regions.map(|(region, count)| (region.clone(), *count)).collect::<Vec<_>>()
        };
        assert_eq!((served.span, of(&served.before), of(&served.since)), (Millis(0), vec![(None, 3)], vec![]));
        count(&metrics, Some("par"), 4);
        let (servfail, qtype) = place(Rcode::SERVFAIL, Some(1));
        add(&metrics.answered[1][servfail][qtype]);
        let served = serves(8, at(91));
        assert_eq!((served.span, of(&served.since)), (Millis(60_000), vec![(Some("par".to_owned()), 4)]));
        assert_eq!((served.since.all, served.since.servfail, served.before.all), (1, 1, 0));
        let served = serves(9, at(92));
        assert_eq!(of(&served.before), [(None, 3), (Some("par".to_owned()), 4)], "since the oldest mark of the hour");
    }
}
