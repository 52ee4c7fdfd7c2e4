//! The states of the attempt machine. Takes a [`Run`] and an [`Event`], changes the run's state, and returns the
//! [`Action`]s to do. `proxy` calls [`step`] for each event.

mod fail;
mod stream;
mod transitions;
mod unary;

use bailiwick_rules::quota::Refusal;
use bailiwick_rules::rules::Limits;

use super::refusal::{self, Nesting};
use super::{Action, AttemptNumber, Budget, End, Event, Expect, Outcome, Record, Task};
use crate::decide::envelope::Failure;
use crate::decide::plan::Target;
use crate::decide::sse::Framer;
use fail::unexplained;
use transitions::later;
use unary::{UnaryForm, form_of};

/// The most bytes that are read of an error's body. Also the most bytes that are held of a success if memory is short.
const MAX_HELD: usize = 64 << 10;
/// The longest time to read an error's body, in milliseconds.
const ERROR_BODY_MS: u64 = 2_000;

/// The attempts of one request, and their state.
#[derive(Debug)]
pub(crate) struct Run {
    task: Task,
    record: Record,
    state: State,
    /// For each target (endpoint of the plan): whether it won't be chosen again, because the request was sent there, or
    /// because it was skipped while it was at rest (after failures, requests avoid it for a while).
    is_tried: Vec<bool>,
    /// For each target: whether the target is at rest now.
    is_resting: Vec<bool>,
    /// For each target: the reason why its quota doesn't allow the request now; `None` if the quota allows the request.
    quota_refusals: Vec<Option<Refusal>>,
    /// The current deadline. When more of an answer arrives, the deadline is extended, but the driver's timer isn't
    /// set again.
    deadline_ms: i64,
    /// Whether the driver has a timer for the current attempt.
    has_timer: bool,
    /// When the total limit of the request ends.
    total_ms: i64,
    /// The shortest wait that any endpoint asked for.
    shortest_retry_after_ms: Option<u64>,
    /// The failure to answer with if no endpoint can decrypt the request's encrypted reasoning.
    decrypt_failure: Option<Box<Failure>>,
    /// Whether an endpoint was already asked a second time.
    repeated: bool,
    /// Whether the client gets the length of the current answer. Then the client notices if the answer breaks off.
    has_length: bool,
    /// Whether memory is short, so that at most [`MAX_HELD`] bytes may be held.
    is_memory_short: bool,
}

/// The state of a run. All states but `Ready` and `Done` belong to the latest attempt.
#[derive(Debug)]
enum State {
    /// Waits for the event `Start`.
    Ready,
    /// Waits until the only endpoint is asked again, because that endpoint asked for a short pause.
    Pause {
        target: usize,
    },
    /// Waits for the headers of the answer.
    AwaitHeaders,
    /// Reads the body of an error.
    Refusal {
        status: u16,
        retry_after_ms: Option<u64>,
        held: Vec<u8>,
    },
    /// Reads a stream that has no content yet.
    Inspect {
        status: u16,
        framer: Framer,
        held: Vec<u8>,
        /// The deadline for the first content. It is set when the first bytes arrive.
        until_ms: Option<i64>,
    },
    /// Holds a unary answer (an answer that isn't a stream) that isn't complete yet.
    Hold {
        status: u16,
        form: UnaryForm,
        held: Vec<u8>,
        /// The deadline for holding the answer, however steadily bytes arrive.
        until_ms: i64,
    },
    /// Passes on a committed stream.
    Stream {
        framer: Framer,
        /// Whether the stream has announced its end. Then the stream is complete if the connection ends cleanly.
        may_end: bool,
    },
    /// The runtime passes on the rest of a committed stream. The machine sees none of its bytes, so no time limit
    /// applies.
    Piped,
    /// Passes on a committed unary answer. Follows the nesting if the answer is JSON.
    Unary {
        nesting: Option<Nesting>,
    },
    Done,
}

impl Run {
    /// Makes a run that hasn't begun.
    #[must_use]
    pub(crate) fn new(task: Task) -> Self {
        let targets = task.plan.targets().len();
        let record = Record { skipped: task.plan.skipped().to_vec(), ..Record::default() };
        Self {
            task,
            record,
            state: State::Ready,
            is_tried: vec![false; targets],
            is_resting: vec![false; targets],
            quota_refusals: vec![None; targets],
            deadline_ms: 0,
            has_timer: false,
            total_ms: 0,
            shortest_retry_after_ms: None,
            decrypt_failure: None,
            repeated: false,
            has_length: false,
            is_memory_short: false,
        }
    }

    /// An endpoint of the plan.
    #[must_use]
    pub(crate) fn target(&self, target: usize) -> Option<&Target> {
        self.task.plan.targets().get(target)
    }

    /// The record of what the run has done until now.
    #[must_use]
    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// The endpoint whose answer was committed.
    #[must_use]
    pub(crate) fn served_by(&self) -> Option<&Target> {
        self.target(self.record.committed()?.target)
    }

    /// Whether the run has ended. A run that has ended ignores every event.
    #[must_use]
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Whether the current deadline has passed.
    #[must_use]
    pub(crate) fn is_overdue(&self, now_ms: i64) -> bool {
        self.has_timer && now_ms >= self.deadline_ms
    }

    /// Notes which endpoints are at rest now, so that a retry skips them. Call this before [`step`]. `resting` looks an
    /// endpoint up in the isolate's cool-downs.
    pub(crate) fn skip_resting(&mut self, resting: impl Fn(&Target) -> bool) {
        for (rests, target) in self.is_resting.iter_mut().zip(self.task.plan.targets()) {
            *rests = resting(target);
        }
    }

    /// Notes which endpoints have a quota that doesn't allow the request now. Such an endpoint isn't asked, even if
    /// there is no other endpoint. Call this before [`step`].
    pub(crate) fn withhold(&mut self, mut refusal: impl FnMut(&Target) -> Option<Refusal>) {
        for (known_refusal, target) in self.quota_refusals.iter_mut().zip(self.task.plan.targets()) {
            *known_refusal = refusal(target);
        }
    }

    /// Whether memory must be reserved before `bytes` more bytes of an answer are held.
    #[must_use]
    pub(crate) fn needs_room(&self, bytes: usize) -> bool {
        matches!(&self.state, State::Hold { held, .. } if held.len() + bytes > MAX_HELD)
    }

    /// Notes that memory is short. The held part of an answer is then passed on with the next bytes, although the
    /// answer is incomplete. Call this before [`step`].
    pub(crate) fn note_memory_short(&mut self) {
        self.is_memory_short = true;
    }

    /// Whether a committed stream is under way.
    #[must_use]
    pub(crate) fn is_streaming(&self) -> bool {
        matches!(self.state, State::Stream { .. })
    }

    /// Hands the rest of a committed stream over to the runtime. Returns the bytes that were read but not passed on,
    /// which are the beginning of an event. `None` if no committed stream is under way.
    pub(crate) fn pipe(&mut self) -> Option<Vec<u8>> {
        let State::Stream { framer, .. } = &mut self.state else { return None };
        let rest = framer.take_pending();
        self.state = State::Piped;
        self.has_timer = false;
        Some(rest)
    }

    /// Notes whether the client will get the length of the answer whose headers come next. Call this before [`step`].
    pub(crate) fn note_length(&mut self, has_length: bool) {
        self.has_length = has_length;
    }

    fn limits(&self) -> &Limits {
        &self.task.limits
    }

    fn current(&self) -> AttemptNumber {
        u8::try_from(self.record.attempts.len()).unwrap_or(u8::MAX)
    }
}

/// Takes one event, and returns what the driver has to do, in order. `now_ms` must never decrease.
pub(crate) fn step(run: &mut Run, budget: &mut Budget, now_ms: i64, event: Event) -> Vec<Action> {
    let mut turn = Step { run, budget, now: now_ms, out: Vec::new() };
    turn.take(event);
    turn.out
}

/// One call of [`step`].
struct Step<'a> {
    run: &'a mut Run,
    budget: &'a mut Budget,
    now: i64,
    out: Vec<Action>,
}

impl Step<'_> {
    /// Handles an event. Events of an earlier attempt are ignored.
    fn take(&mut self, event: Event) {
        let attempt = match &event {
            Event::Start => return self.start(),
            Event::ClientGone => return self.on_client_gone(),
            Event::Headers { attempt, .. }
            | Event::FetchError { attempt }
            | Event::Chunk { attempt, .. }
            | Event::Eof { attempt }
            | Event::BodyError { attempt }
            | Event::Timer { attempt } => *attempt,
        };
        let live = !matches!(self.run.state, State::Ready | State::Done);
        if !live || attempt != self.run.current() {
            return;
        }
        match event {
            Event::Headers { status, packed: true, .. } if (200..=299).contains(&status) => {
                if matches!(self.run.state, State::AwaitHeaders) {
                    self.fail(Outcome::WrongType, true, None);
                }
            }
            Event::Headers { status, content_type, retry_after_ms, .. } => {
                self.headers(status, content_type.as_deref(), retry_after_ms);
            }
            Event::Chunk { bytes, .. } => self.on_chunk(bytes),
            Event::Eof { .. } => self.on_eof(),
            Event::FetchError { .. } | Event::BodyError { .. } => self.on_body_error(),
            Event::Timer { .. } => self.on_timer(),
            Event::Start | Event::ClientGone => {}
        }
    }

    fn start(&mut self) {
        if matches!(self.run.state, State::Ready) {
            self.run.total_ms = later(self.now, self.run.limits().total.0);
            self.budget.earn(self.now);
            self.next();
        }
    }

    /// The headers of the answer have arrived: decides how its body is read, or fails the attempt.
    fn headers(&mut self, status: u16, content_type: Option<&str>, retry_after_ms: Option<u64>) {
        if !matches!(self.run.state, State::AwaitHeaders) {
            return;
        }
        if !(200..=299).contains(&status) {
            match refusal::by_status(status) {
                Some(fault) => self.fail_by(fault, status, true, retry_after_ms),
                None => {
                    self.run.state = State::Refusal { status, retry_after_ms, held: Vec::new() };
                    self.set_timer(ERROR_BODY_MS.min(self.left()));
                }
            }
            return;
        }
        let kind = content_type.map(|text| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        let is_stream = kind.as_deref() == Some("text/event-stream");
        let is_json = kind.as_deref().is_some_and(|kind| kind == "application/json" || kind.ends_with("+json"));
        match self.run.task.expect {
            // Until the first bytes of the body arrive, the deadline for headers stays.
            Expect::Stream | Expect::Any if is_stream => {
                self.run.state = State::Inspect { status, framer: Framer::default(), held: Vec::new(), until_ms: None };
            }
            Expect::Json if is_json || kind.is_none() => self.hold(status, UnaryForm::Json),
            // The client asked for events, so events are made from the JSON.
            Expect::Stream if is_json && let Some(answer_kind) = self.run.task.answer_kind => {
                self.hold(status, UnaryForm::Events(answer_kind));
            }
            // HTML may be a login page. Only stored files may have any type.
            Expect::Any if kind.as_deref() == Some("text/html") && !self.run.task.stateful => {
                self.fail(Outcome::WrongType, true, None);
            }
            Expect::Any if is_json => self.hold(status, UnaryForm::Json),
            Expect::Any => self.hold(status, kind.as_deref().map_or(UnaryForm::Untyped, form_of)),
            Expect::File => self.hold(status, UnaryForm::Other),
            Expect::Stream | Expect::Json => self.fail(Outcome::WrongType, true, None),
        }
    }

    /// A part of the body has arrived.
    fn on_chunk(&mut self, bytes: Vec<u8>) {
        let idle = self.run.limits().idle.0;
        match &mut self.run.state {
            State::Refusal { held, .. } => {
                held.extend(bytes.into_iter().take(MAX_HELD.saturating_sub(held.len())));
                if held.len() >= MAX_HELD {
                    self.refused(true);
                }
            }
            State::Inspect { framer, .. } if !bytes.is_empty() => {
                let framed = framer.push(bytes);
                self.on_events(framed, false);
                self.extend_deadline();
            }
            State::Stream { framer, .. } => {
                let framed = framer.push(bytes);
                // Bytes that don't complete an event aren't passed on, so they count as silence.
                if !framed.bytes.is_empty() {
                    self.run.deadline_ms = later(self.now, idle);
                }
                self.on_events(framed, true);
            }
            State::Hold { form, held, until_ms, .. } => {
                self.run.deadline_ms = later(self.now, idle).min(*until_ms);
                let before = held.len();
                held.extend_from_slice(&bytes);
                let form = *form;
                self.check_held_size(form, before);
            }
            State::Unary { nesting } => {
                if let Some(nesting) = nesting {
                    nesting.follow(&bytes);
                }
                self.run.deadline_ms = later(self.now, idle);
                self.emit(bytes);
            }
            State::Ready
            | State::Pause { .. }
            | State::AwaitHeaders
            | State::Inspect { .. }
            | State::Piped
            | State::Done => {}
        }
    }

    /// The body of the answer has ended cleanly.
    fn on_eof(&mut self) {
        match &mut self.run.state {
            State::Refusal { .. } => self.refused(false),
            State::AwaitHeaders => self.fail_unanswered(),
            State::Inspect { .. } | State::Stream { .. } => self.on_stream_end(),
            State::Hold { .. } => self.judge_complete(),
            State::Unary { nesting } if nesting.as_ref().is_none_or(Nesting::is_whole) => self.finish(),
            State::Unary { .. } => self.interrupt(End::Interrupted, &unexplained(), false),
            State::Piped => self.finish_with(End::Piped),
            State::Ready | State::Pause { .. } | State::Done => {}
        }
    }

    /// The connection has failed before the answer was complete.
    fn on_body_error(&mut self) {
        match &self.run.state {
            State::Refusal { .. } => self.refused(false),
            State::Stream { .. } | State::Piped | State::Unary { .. } => {
                self.interrupt(End::Interrupted, &unexplained(), false);
            }
            State::AwaitHeaders => self.fail_unanswered(),
            State::Inspect { .. } | State::Hold { .. } => self.fail(Outcome::Network, false, None),
            State::Ready | State::Pause { .. } | State::Done => {}
        }
    }

    /// The timer has fired: sets it again if the deadline has moved, and otherwise fails or ends what took too long.
    fn on_timer(&mut self) {
        if !self.run.has_timer {
            return;
        }
        self.run.has_timer = false;
        if self.now < self.run.deadline_ms {
            // The deadline has moved since the timer was set, because bytes arrived.
            let left = self.run.deadline_ms.saturating_sub(self.now);
            return self.set_timer(u64::try_from(left).unwrap_or(0));
        }
        match &self.run.state {
            &State::Pause { target } if self.run.quota_refusals[target].is_none() => self.send(target),
            State::Pause { .. } => self.next(),
            State::Refusal { .. } => self.refused(true),
            // The answer is long and slow, so the held part is committed, and the rest is passed on as it arrives.
            State::Hold { form, held, until_ms, .. }
                if self.now >= *until_ms && held.len() >= MAX_HELD && !matches!(form, UnaryForm::Events(_)) =>
            {
                self.pass_held();
            }
            State::Stream { .. } | State::Unary { .. } => self.interrupt(End::Idle, &unexplained(), true),
            State::AwaitHeaders | State::Inspect { .. } | State::Hold { .. } => {
                self.fail(Outcome::Timeout, true, None);
            }
            State::Ready | State::Piped | State::Done => {}
        }
    }

    /// The client has closed its connection, so everything is stopped.
    fn on_client_gone(&mut self) {
        match self.run.state {
            State::Done => return,
            State::Ready => {}
            State::Pause { .. } => self.cancel_timer(),
            _ => {
                self.cancel_timer();
                self.out.push(Action::Abort { attempt: self.run.current() });
            }
        }
        if matches!(self.run.state, State::Stream { .. } | State::Piped | State::Unary { .. }) {
            self.run.record.end = Some(End::ClientGone);
        } else {
            self.outcome(Outcome::ClientGone);
        }
        self.run.state = State::Done;
    }
}
