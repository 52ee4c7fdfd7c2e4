//! Transitions that several states of the attempt machine share. Each takes the current [`Step`], changes the run's
//! state and record, and appends actions. Called by `run`, the parent module.

use bailiwick_rules::quota::Refusal;
use bailiwick_rules::rules::Limits;

use super::{State, Step};
use crate::decide::attempt::{Action, Attempt, End, Expect, Outcome, Stop};
use crate::decide::envelope::{Failure, Limited};
use crate::decide::plan::{Skip, Skipped};

/// Another attempt begins only if at least this much of the total limit is left, in milliseconds.
const LEAST_LEFT_MS: i64 = 1_000;
/// The most times that one request is sent, whatever the service's limits say.
const MAX_SENDS: usize = 3;
/// The longest pause before the only endpoint is asked again, in milliseconds. If the endpoint asks for a longer pause,
/// the client gets an error with that pause, and has to wait itself.
const LONGEST_PAUSE_MS: u64 = 2_000;

impl Step<'_> {
    /// Sends to the next endpoint, or ends the run.
    pub(super) fn next(&mut self) {
        self.next_or(None, 0);
    }

    /// Sends to the next endpoint. If there is none, asks the target `again` once more after a pause. Otherwise ends
    /// the run.
    fn next_or(&mut self, again: Option<usize>, pause_ms: u64) {
        let sends = self.run.record.attempts.len();
        let most = usize::from(self.run.limits().sends).clamp(1, MAX_SENDS);
        let other = self.choose(sends);
        // Another endpoint is asked at once.
        let pause_ms = if other.is_none() { pause_ms } else { 0 };
        let may_repeat = |target: &usize| !self.run.repeated && self.run.withheld[*target].is_none();
        let target = other.or(again.filter(may_repeat));
        let is_harmless = !self.run.task.stateful || other.is_none() && self.run.task.reads_only;
        let stop = match target {
            None => Some(Stop::Targets),
            Some(_) if sends == 0 => None,
            Some(_) if !is_harmless => Some(Stop::Stateful),
            Some(_) if sends >= most => Some(Stop::Sends),
            Some(_) if self.run.total_ms.saturating_sub(later(self.now, pause_ms)) < LEAST_LEFT_MS => Some(Stop::Time),
            Some(_) if !self.budget.take(self.now) => Some(Stop::Budget),
            Some(_) => None,
        };
        match (target, stop) {
            (Some(target), None) => {
                self.run.repeated |= other.is_none();
                if pause_ms > 0 {
                    self.run.state = State::Pause { target };
                    self.arm(pause_ms);
                } else {
                    self.send(target);
                }
            }
            (_, stop) => {
                self.run.record.stopped = stop;
                self.run.state = State::Done;
                let failure = self.exhausted();
                self.out.push(Action::Reply { failure });
            }
        }
    }

    /// Chooses the first endpoint that wasn't tried, isn't at rest, and has a quota that allows the request. If all
    /// such endpoints are at rest, the first attempt takes the first endpoint at rest.
    fn choose(&mut self, sends: usize) -> Option<usize> {
        let run = &mut *self.run;
        let is_open = |target: &usize| !run.tried[*target] && run.withheld[*target].is_none();
        let open: Vec<usize> = (0..run.tried.len()).filter(is_open).collect();
        let rested = open.iter().copied().find(|&target| !run.resting[target]);
        let chosen = rested.or(if sends == 0 { open.first().copied() } else { None });
        let passed = |target: usize, why: Skip| {
            let target = &run.task.plan.targets()[target];
            Skipped { region: target.region_id().clone(), endpoint: target.id().clone(), why }
        };
        for target in open.into_iter().take_while(|&target| Some(target) != chosen) {
            run.tried[target] = true;
            run.record.skipped.push(passed(target, Skip::Cooling));
        }
        // An endpoint that is skipped because of its quota isn't marked as tried: the quota may allow a later attempt.
        for target in 0..chosen.unwrap_or(run.tried.len()) {
            let skipped = (!run.tried[target]).then(|| passed(target, Skip::Quota));
            if let Some(skipped) = skipped.filter(|skipped| !run.record.skipped.contains(skipped)) {
                run.record.skipped.push(skipped);
            }
        }
        chosen
    }

    /// The failure for the endpoints whose quotas don't allow the request now, with the shortest wait among them;
    /// `None` if there are no such endpoints.
    fn quota_exhausted(&self) -> Option<Failure> {
        let untried = self.run.withheld.iter().flatten();
        let waits = untried.clone().filter_map(|refusal| match refusal {
            Refusal::Wait(wait) => Some(wait.0),
            Refusal::TooLarge => None,
        });
        let too_large = || untried.clone().next().map(|_| Failure::Limited(Limited::TooLarge));
        waits.min().map(|wait_ms| Failure::Limited(Limited::Quota { wait_ms })).or_else(too_large)
    }

    pub(super) fn send(&mut self, target: usize) {
        self.run.tried[target] = true;
        let chosen = &self.run.task.plan.targets()[target];
        let attempt = Attempt {
            target,
            region: chosen.region_id().clone(),
            endpoint: chosen.id().clone(),
            arm: chosen.arm(),
            started_ms: self.now,
            outcome: None,
            ms: 0,
        };
        self.run.record.attempts.push(attempt);
        self.run.state = State::AwaitHeaders;
        self.out.push(Action::Send { attempt: self.run.current(), target });
        self.arm(self.headers_limit().min(self.left()));
    }

    /// How long an endpoint may take to send its headers, in milliseconds.
    fn headers_limit(&self) -> u64 {
        let limits = self.run.limits();
        let limit = if self.run.task.expect == Expect::Stream { limits.headers_streamed } else { limits.headers_unary };
        limit.0
    }

    /// Extends the deadline of a stream that has sent bytes but no content yet. The endpoint is alive, so it gets more
    /// time than a silent endpoint.
    #[inline(never)]
    pub(super) fn extend_deadline(&mut self) {
        let (now, total_ms, headers) = (self.now, self.run.total_ms, self.headers_limit());
        let Limits { first_token, idle, .. } = *self.run.limits();
        // An answer that wasn't requested as a stream has a longer limit for its headers.
        let is_asked = self.run.task.expect == Expect::Stream;
        let first_token = if is_asked { first_token.0 } else { first_token.0.max(headers) };
        let sent_ms = self.run.record.attempts.last().map_or(now, |attempt| attempt.started_ms);
        let State::Inspect { until_ms, .. } = &mut self.run.state else { return };
        let until_ms = *until_ms.get_or_insert(later(now, first_token));
        let silent_ms = later(now, idle.0).max(later(sent_ms, headers));
        let deadline_ms = until_ms.min(silent_ms).min(total_ms);
        if deadline_ms < self.run.deadline_ms {
            self.arm(u64::try_from(deadline_ms.saturating_sub(now)).unwrap_or(0));
        } else {
            self.run.deadline_ms = deadline_ms;
        }
    }

    /// The fetch failed without an answer: no connection was made, a reused connection was already closed, or the
    /// endpoint closed the connection. The runtime doesn't say which of these happened. If there is no other endpoint,
    /// the same endpoint is asked once more.
    pub(super) fn unanswered(&mut self) {
        let again = self.run.record.attempts.last().map(|attempt| attempt.target);
        self.failed(Outcome::Network, false, None);
        self.next_or(again, 0);
    }

    /// An attempt failed before the commit. If the failure may be brief and this is the only attempt so far, the same
    /// endpoint may be asked once more: at once, or after the short rest that it asked for.
    pub(super) fn fail(&mut self, outcome: Outcome, abort: bool, retry_after_ms: Option<u64>) {
        let pause_ms = retry_after_ms.unwrap_or(0);
        let again = match &self.run.record.attempts[..] {
            [only] if outcome.is_brief() && pause_ms <= LONGEST_PAUSE_MS => Some(only.target),
            _ => None,
        };
        self.failed(outcome, abort, retry_after_ms);
        self.next_or(again, pause_ms);
    }

    fn failed(&mut self, outcome: Outcome, abort: bool, retry_after_ms: Option<u64>) {
        self.disarm();
        if abort {
            self.out.push(Action::Abort { attempt: self.run.current() });
        }
        self.outcome(outcome);
        // These outcomes concern the endpoint's machine or our credential there, so they hold for every model.
        let whole = matches!(outcome, Outcome::Network | Outcome::Status(300..=399 | 401 | 403));
        self.cool_down(whole, retry_after_ms, outcome.is_fault());
    }

    fn cool_down(&mut self, every_model: bool, retry_after_ms: Option<u64>, fault: bool) {
        if let Some(attempt) = self.run.record.attempts.last() {
            self.out.push(Action::CoolDown {
                region: attempt.region.clone(),
                endpoint: attempt.endpoint.clone(),
                model: self.run.task.model.clone().filter(|_| !every_model),
                this_path: attempt.outcome.is_some_and(Outcome::is_of_path),
                retry_after_ms,
                fault,
            });
        }
    }

    /// The failure to answer with when no attempt is left. An outcome "lacks the model" or "lacks the path" counts only
    /// if all endpoints that were asked have such an outcome.
    fn exhausted(&self) -> Failure {
        let outcomes = || self.run.record.attempts.iter().filter_map(|attempt| attempt.outcome);
        let lacks = |outcome: &Outcome| matches!(outcome, Outcome::NoModel | Outcome::NoPath);
        let all = |fits: fn(Outcome) -> bool| outcomes().filter(|outcome| !lacks(outcome)).all(fits);
        let exhausted = self.quota_exhausted();
        let opens =
            if let Some(Failure::Limited(Limited::Quota { wait_ms })) = exhausted { Some(wait_ms) } else { None };
        let shortest = self.run.shortest_retry_after_ms.into_iter().chain(opens).min();
        let retry_after = shortest.map(|ms| u32::try_from(ms.div_ceil(1_000)).unwrap_or(u32::MAX));
        if outcomes().next().is_none() {
            return exhausted.unwrap_or(Failure::RegionUnavailable);
        }
        let refused = |outcome: &Outcome| matches!(outcome, Outcome::Refused(_)) || lacks(outcome);
        if let Some(failure) =
            self.run.decrypt_failure.as_deref().filter(|_| outcomes().all(|outcome| refused(&outcome)))
        {
            // An endpoint at rest soon returns, so the client should try again. An endpoint that is down may stay down,
            // so the client has to continue without the encrypted reasoning.
            let rests = self.run.record.skipped.iter().any(|skipped| skipped.why == Skip::Cooling);
            return if rests { Failure::EncryptedElsewhere } else { failure.clone() };
        }
        if outcomes().all(|outcome| lacks(&outcome)) {
            return match &self.run.task.model {
                Some(model) if outcomes().any(|outcome| outcome == Outcome::NoModel) => {
                    Failure::ModelNotFound { model: model.clone() }
                }
                _ => Failure::PathNotServed,
            };
        }
        if all(|outcome| outcome == Outcome::Status(429)) {
            let none_is_open = self.run.withheld.iter().all(Option::is_some);
            return exhausted.filter(|_| none_is_open).unwrap_or(Failure::RateLimited { retry_after });
        }
        if all(|outcome| outcome == Outcome::NoQuota) {
            return Failure::OutOfQuota;
        }
        if all(|outcome| matches!(outcome, Outcome::Timeout | Outcome::Status(408 | 504))) {
            return Failure::UpstreamTimeout;
        }
        // Only the operator can mend a rejected credential or a redirect.
        let needs_operator = |outcome| matches!(outcome, Outcome::NoQuota | Outcome::Status(300..=399 | 401 | 403));
        Failure::EndpointsFailed { retry_after, needs_operator: all(needs_operator) }
    }

    pub(super) fn commit(&mut self, status: u16, body: Vec<u8>, as_events: bool) {
        self.outcome(Outcome::Committed);
        self.out.push(Action::Commit { attempt: self.run.current(), status, body, as_events });
    }

    pub(super) fn emit(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.out.push(Action::Emit { bytes });
        }
    }

    pub(super) fn finish(&mut self) {
        self.finish_with(End::Whole);
    }

    pub(super) fn finish_with(&mut self, end: End) {
        self.disarm();
        self.run.record.end = Some(end);
        self.run.state = State::Done;
        self.out.push(Action::Finish);
    }

    /// Ends a committed body that can't be completed. A stream gets an error event, unless part of an event was already
    /// sent. Any other body is broken off.
    pub(super) fn interrupt(&mut self, end: End, failure: &Failure, abort: bool) {
        self.disarm();
        if abort {
            self.out.push(Action::Abort { attempt: self.run.current() });
        }
        self.run.record.end = Some(end);
        // A process that dies breaks off all its streams. Each of these streams counts as a fault, although a committed
        // stream can't be retried.
        self.cool_down(false, None, true);
        let state = core::mem::replace(&mut self.run.state, State::Done);
        self.out.push(match state {
            State::Stream { framer, .. } if !framer.is_torn() => Action::EmitTail { bytes: failure.event() },
            // Part of an event may have been passed on. The empty line ends that event, so that the error is an event
            // of its own.
            State::Piped => Action::EmitTail { bytes: [b"\n\n", failure.event().as_slice()].concat() },
            _ => Action::CutStream,
        });
    }

    pub(super) fn outcome(&mut self, outcome: Outcome) {
        let now = self.now;
        if let Some(attempt) = self.run.record.attempts.last_mut()
            && attempt.outcome.is_none()
        {
            attempt.outcome = Some(outcome);
            attempt.ms = u64::try_from(now.saturating_sub(attempt.started_ms)).unwrap_or(0);
        }
    }

    pub(super) fn arm(&mut self, after_ms: u64) {
        self.run.deadline_ms = later(self.now, after_ms);
        self.run.armed = true;
        self.out.push(Action::Arm { attempt: self.run.current(), after_ms });
    }

    pub(super) fn disarm(&mut self) {
        if core::mem::take(&mut self.run.armed) {
            self.out.push(Action::Disarm { attempt: self.run.current() });
        }
    }

    /// The time left of the total limit, in milliseconds.
    pub(super) fn left(&self) -> u64 {
        u64::try_from(self.run.total_ms.saturating_sub(self.now)).unwrap_or(0)
    }
}

pub(super) fn later(now_ms: i64, span_ms: u64) -> i64 {
    now_ms.saturating_add(i64::try_from(span_ms).unwrap_or(i64::MAX))
}
