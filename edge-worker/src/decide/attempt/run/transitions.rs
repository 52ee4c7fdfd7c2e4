//! Transitions that several states of the attempt machine share: the choice of the next endpoint, a failed attempt, the
//! commit, and the end of the answer. Each takes the current [`Step`] (one event of one request), changes the run's
//! state and record, and appends [`Action`]s for the driver. Called by `run`, the parent module.
//!
//! A run is all attempts of one request. A target is an endpoint of the request's plan, named by its position there.
//! An attempt is one request to one target. From the commit on, the answer is passed to the client, and no other target
//! is asked. An endpoint at rest has failed lately, so requests avoid it for a while.

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

    /// Sends to the next endpoint. If there is none, asks the target `again` once more after a pause. If that isn't
    /// allowed either, ends the run.
    fn next_or(&mut self, again: Option<usize>, pause_ms: u64) {
        let next = self.choose();
        // Another endpoint is asked at once.
        let pause_ms = if next.is_none() { pause_ms } else { 0 };
        let may_repeat = |target: &usize| !self.run.repeated && self.run.quota_refusals[*target].is_none();
        let target = next.or(again.filter(may_repeat));
        let stop = match target {
            None => Some(Stop::Targets),
            Some(_) => self.reason_to_stop(next.is_none(), pause_ms),
        };
        match (target, stop) {
            (Some(target), None) => {
                self.run.repeated |= next.is_none();
                if pause_ms > 0 {
                    self.run.state = State::Pause { target };
                    self.set_timer(pause_ms);
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

    /// Why no further attempt may begin, although there is an endpoint to ask; `None` if it may. `is_repeat` says
    /// whether it would ask the same endpoint again.
    fn reason_to_stop(&mut self, is_repeat: bool, pause_ms: u64) -> Option<Stop> {
        let sends = self.run.record.attempts.len();
        if sends == 0 {
            return None;
        }
        let most_sends = usize::from(self.run.limits().sends).clamp(1, MAX_SENDS);
        // A request that changes state at its endpoint may have been carried out, so it isn't sent twice.
        let is_harmless = !self.run.task.stateful || is_repeat && self.run.task.reads_only;
        if !is_harmless {
            return Some(Stop::Stateful);
        }
        if sends >= most_sends {
            return Some(Stop::Sends);
        }
        if self.run.total_ms.saturating_sub(later(self.now, pause_ms)) < LEAST_LEFT_MS {
            return Some(Stop::Time);
        }
        (!self.budget.take(self.now)).then_some(Stop::Budget)
    }

    /// Chooses the first endpoint that wasn't tried, isn't at rest, and has a quota that allows the request. If all
    /// such endpoints are at rest, the first attempt takes the first endpoint at rest. Records the endpoints that are
    /// skipped.
    fn choose(&mut self) -> Option<usize> {
        let is_first_attempt = self.run.record.attempts.is_empty();
        let run = &mut *self.run;
        let is_open = |target: &usize| !run.is_tried[*target] && run.quota_refusals[*target].is_none();
        let open: Vec<usize> = (0..run.is_tried.len()).filter(is_open).collect();
        let not_resting = open.iter().copied().find(|&target| !run.is_resting[target]);
        let chosen = not_resting.or(if is_first_attempt { open.first().copied() } else { None });
        let skipped = |target: usize, why: Skip| {
            let target = &run.task.plan.targets()[target];
            Skipped { region: target.region_id().clone(), endpoint: target.id().clone(), why }
        };
        for target in open.into_iter().take_while(|&target| Some(target) != chosen) {
            run.is_tried[target] = true;
            run.record.skipped.push(skipped(target, Skip::Cooling));
        }
        // An endpoint that is skipped because of its quota isn't marked as tried: the quota may allow a later attempt.
        for target in 0..chosen.unwrap_or(run.is_tried.len()) {
            let skipped = (!run.is_tried[target]).then(|| skipped(target, Skip::Quota));
            if let Some(skipped) = skipped.filter(|skipped| !run.record.skipped.contains(skipped)) {
                run.record.skipped.push(skipped);
            }
        }
        chosen
    }

    /// The failure for the endpoints whose quotas don't allow the request now, with the shortest wait among them;
    /// `None` if there are no such endpoints.
    fn quota_exhausted(&self) -> Option<Failure> {
        let refusals = || self.run.quota_refusals.iter().flatten();
        let waits = refusals().filter_map(|refusal| match refusal {
            Refusal::Wait(wait) => Some(wait.0),
            Refusal::TooLarge => None,
        });
        let too_large = || refusals().next().map(|_| Failure::Limited(Limited::TooLarge));
        waits.min().map(|wait_ms| Failure::Limited(Limited::Quota { wait_ms })).or_else(too_large)
    }

    /// Begins an attempt: sends the request to a target, and sets the timer for the headers of the answer.
    pub(super) fn send(&mut self, target: usize) {
        self.run.is_tried[target] = true;
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
        self.set_timer(self.headers_limit().min(self.left()));
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
        let is_stream_requested = self.run.task.expect == Expect::Stream;
        let first_token = if is_stream_requested { first_token.0 } else { first_token.0.max(headers) };
        let sent_ms = self.run.record.attempts.last().map_or(now, |attempt| attempt.started_ms);
        let State::Inspect { until_ms, .. } = &mut self.run.state else { return };
        let until_ms = *until_ms.get_or_insert(later(now, first_token));
        let silent_ms = later(now, idle.0).max(later(sent_ms, headers));
        let deadline_ms = until_ms.min(silent_ms).min(total_ms);
        if deadline_ms < self.run.deadline_ms {
            self.set_timer(u64::try_from(deadline_ms.saturating_sub(now)).unwrap_or(0));
        } else {
            self.run.deadline_ms = deadline_ms;
        }
    }

    /// The fetch failed without an answer: no connection was made, a reused connection was already closed, or the
    /// endpoint closed the connection. The runtime doesn't say which of these happened. If there is no other endpoint,
    /// the same endpoint is asked once more.
    pub(super) fn fail_unanswered(&mut self) {
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

    /// Ends the current attempt with a failure, and lets its endpoint rest. The caller decides what follows.
    fn failed(&mut self, outcome: Outcome, abort: bool, retry_after_ms: Option<u64>) {
        self.cancel_timer();
        if abort {
            self.out.push(Action::Abort { attempt: self.run.current() });
        }
        self.outcome(outcome);
        // These outcomes concern the endpoint's machine or our credential there, so they hold for every model.
        let every_model = matches!(outcome, Outcome::Network | Outcome::Status(300..=399 | 401 | 403));
        self.cool_down(every_model, retry_after_ms, outcome.is_fault());
    }

    /// Lets the endpoint of the current attempt rest, for every model or for the requested one. `fault` says whether
    /// the failure counts in the endpoint's circuit breaker, which closes the endpoint after several faults.
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

    /// The failure to answer with when no attempt is left.
    fn exhausted(&self) -> Failure {
        let outcomes: Vec<Outcome> = self.run.record.attempts.iter().filter_map(|attempt| attempt.outcome).collect();
        let quota_exhausted = self.quota_exhausted();
        let retry_after = self.shortest_retry_after(quota_exhausted.as_ref());
        if outcomes.is_empty() {
            return quota_exhausted.unwrap_or(Failure::RegionUnavailable);
        }
        if let Some(failure) = self.undecryptable(&outcomes) {
            return failure;
        }
        if outcomes.iter().all(|outcome| is_lacking(*outcome)) {
            return match &self.run.task.model {
                Some(model) if outcomes.contains(&Outcome::NoModel) => Failure::ModelNotFound { model: model.clone() },
                _ => Failure::PathNotServed,
            };
        }
        // An endpoint that lacks the model or the path says nothing about the request, if another endpoint has them.
        let all = |fits: fn(Outcome) -> bool| {
            outcomes.iter().filter(|outcome| !is_lacking(**outcome)).all(|outcome| fits(*outcome))
        };
        if all(|outcome| outcome == Outcome::Status(429)) {
            let no_quota_is_open = self.run.quota_refusals.iter().all(Option::is_some);
            return quota_exhausted.filter(|_| no_quota_is_open).unwrap_or(Failure::RateLimited { retry_after });
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

    /// The shortest time, in seconds, after which any endpoint may take the request again.
    fn shortest_retry_after(&self, quota_exhausted: Option<&Failure>) -> Option<u32> {
        let quota_opens_in = match quota_exhausted {
            Some(Failure::Limited(Limited::Quota { wait_ms })) => Some(*wait_ms),
            _ => None,
        };
        let shortest_ms = self.run.shortest_retry_after_ms.into_iter().chain(quota_opens_in).min();
        shortest_ms.map(|ms| u32::try_from(ms.div_ceil(1_000)).unwrap_or(u32::MAX))
    }

    /// The failure for a request with encrypted reasoning that no endpoint could decrypt; `None` if that isn't what
    /// stood in the way.
    fn undecryptable(&self, outcomes: &[Outcome]) -> Option<Failure> {
        let failure = self.run.decrypt_failure.as_deref()?;
        let is_refusal = |outcome: &Outcome| matches!(outcome, Outcome::Refused(_)) || is_lacking(*outcome);
        if !outcomes.iter().all(is_refusal) {
            return None;
        }
        // An endpoint at rest soon returns, so the client should try again. An endpoint that is down may stay down, so
        // the client has to continue without the encrypted reasoning.
        let any_rests = self.run.record.skipped.iter().any(|skipped| skipped.why == Skip::Cooling);
        Some(if any_rests { Failure::EncryptedElsewhere } else { failure.clone() })
    }

    /// Begins the client's response with these first bytes of the body. No other endpoint is asked from now on.
    pub(super) fn commit(&mut self, status: u16, body: Vec<u8>, as_events: bool) {
        self.outcome(Outcome::Committed);
        self.out.push(Action::Commit { attempt: self.run.current(), status, body, as_events });
    }

    /// Passes on more bytes of a committed body.
    pub(super) fn emit(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.out.push(Action::Emit { bytes });
        }
    }

    /// Ends a committed body that is complete.
    pub(super) fn finish(&mut self) {
        self.finish_with(End::Whole);
    }

    pub(super) fn finish_with(&mut self, end: End) {
        self.cancel_timer();
        self.run.record.end = Some(end);
        self.run.state = State::Done;
        self.out.push(Action::Finish);
    }

    /// Ends a committed body that can't be completed. A stream gets an error event, unless part of an event was already
    /// sent. Any other body is broken off.
    pub(super) fn interrupt(&mut self, end: End, failure: &Failure, abort: bool) {
        self.cancel_timer();
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

    /// Records the outcome of the current attempt, unless it has one.
    pub(super) fn outcome(&mut self, outcome: Outcome) {
        let now = self.now;
        if let Some(attempt) = self.run.record.attempts.last_mut()
            && attempt.outcome.is_none()
        {
            attempt.outcome = Some(outcome);
            attempt.ms = u64::try_from(now.saturating_sub(attempt.started_ms)).unwrap_or(0);
        }
    }

    /// Sets the deadline of the current state, and the driver's timer.
    pub(super) fn set_timer(&mut self, after_ms: u64) {
        self.run.deadline_ms = later(self.now, after_ms);
        self.run.has_timer = true;
        self.out.push(Action::SetTimer { attempt: self.run.current(), after_ms });
    }

    pub(super) fn cancel_timer(&mut self) {
        if core::mem::take(&mut self.run.has_timer) {
            self.out.push(Action::CancelTimer { attempt: self.run.current() });
        }
    }

    /// The time left of the total limit, in milliseconds.
    pub(super) fn left(&self) -> u64 {
        u64::try_from(self.run.total_ms.saturating_sub(self.now)).unwrap_or(0)
    }
}

/// Whether the endpoint doesn't have what the request asks for: the model or the path.
fn is_lacking(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::NoModel | Outcome::NoPath)
}

/// A time, in milliseconds, some milliseconds after another.
pub(super) fn later(now_ms: i64, span_ms: u64) -> i64 {
    now_ms.saturating_add(i64::try_from(span_ms).unwrap_or(i64::MAX))
}
