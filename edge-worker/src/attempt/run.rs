//! The states of the attempt machine and what each event does to them.

mod moves;

use bailiwick_rules::rules::Limits;

use super::refusal::{self, Fault, Nesting, Success, Words};
use moves::later;

use super::{Action, AttemptNumber, Budget, End, Event, Expect, Outcome, Record, Task};
use crate::envelope::Failure;
use crate::json;
use crate::plan::Target;
use crate::sse::{Framed, Framer, Meaning, meaning};

/// How much of a success is held before it is believed, and how much of an error is read.
const MOST_HELD: usize = 64 << 10;
/// How long an error's body may take, in milliseconds.
const ERROR_BODY_MS: u64 = 2_000;

/// One request's attempts.
#[derive(Debug)]
pub struct Run {
    task: Task,
    record: Record,
    state: State,
    /// By target: whether it was sent the request or passed over.
    spent: Vec<bool>,
    resting: Vec<bool>,
    /// When the timer in hand really runs out. Progress moves it without touching the driver's timer.
    deadline_ms: i64,
    armed: bool,
    total_ms: i64,
    /// The least wait that an endpoint asked for with 429.
    retry_after_ms: Option<u64>,
}

/// Where a run stands. All but the first and last belong to the latest attempt.
#[derive(Debug)]
enum State {
    Ready,
    AwaitHeaders,
    /// Reading the body of an answer that is no success.
    Refusal {
        status: u16,
        held: Vec<u8>,
    },
    /// A stream that hasn't said anything yet.
    Inspect {
        status: u16,
        framer: Framer,
        held: Vec<u8>,
    },
    /// A unary answer that isn't whole yet.
    Hold {
        status: u16,
        json: bool,
        held: Vec<u8>,
        /// However steadily it drips, it is not waited for longer.
        until_ms: i64,
    },
    /// A committed stream.
    Stream {
        framer: Framer,
        /// Whether a clean end is one that the stream announced.
        may_end: bool,
    },
    /// A committed unary answer; its nesting if it is JSON.
    Unary {
        nesting: Option<Nesting>,
    },
    Done,
}

impl Run {
    /// A run that hasn't begun.
    #[must_use]
    pub fn new(task: Task) -> Self {
        let targets = task.plan.targets().len();
        let record = Record { skipped: task.plan.skipped().to_vec(), ..Record::default() };
        Self {
            task,
            record,
            state: State::Ready,
            spent: vec![false; targets],
            resting: vec![false; targets],
            deadline_ms: 0,
            armed: false,
            total_ms: 0,
            retry_after_ms: None,
        }
    }

    /// An endpoint of the plan.
    #[must_use]
    pub fn target(&self, target: usize) -> Option<&Target> {
        self.task.plan.targets().get(target)
    }

    /// What was done so far.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The endpoint whose bytes are returned, once committed.
    #[must_use]
    pub fn served_by(&self) -> Option<&Target> {
        self.target(self.record.committed()?.target)
    }

    /// Whether nothing more will happen: every event is ignored.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Whether the limit of the moment has run out.
    #[must_use]
    pub fn is_overdue(&self, now_ms: i64) -> bool {
        self.armed && now_ms >= self.deadline_ms
    }

    /// Endpoints that began to rest since the plan was made and weren't tried are passed over by a retry. To be called
    /// before [`step`]; `resting` looks at the isolate's cool-downs.
    pub fn pass_over(&mut self, resting: impl Fn(&Target) -> bool) {
        for (rests, target) in self.resting.iter_mut().zip(self.task.plan.targets()) {
            *rests = resting(target);
        }
    }

    fn limits(&self) -> &Limits {
        &self.task.limits
    }

    fn current(&self) -> AttemptNumber {
        u8::try_from(self.record.attempts.len()).unwrap_or(u8::MAX)
    }
}

/// Takes one event; gives what to do, in order. `now_ms` only ever grows.
pub fn step(run: &mut Run, budget: &mut Budget, now_ms: i64, event: Event) -> Vec<Action> {
    let mut turn = Turn { run, budget, now: now_ms, out: Vec::new() };
    turn.take(event);
    turn.out
}

/// One call of [`step`].
struct Turn<'a> {
    run: &'a mut Run,
    budget: &'a mut Budget,
    now: i64,
    out: Vec<Action>,
}

impl Turn<'_> {
    fn take(&mut self, event: Event) {
        let attempt = match &event {
            Event::Start => return self.start(),
            Event::ClientGone => return self.client_gone(),
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
            Event::Chunk { bytes, .. } => self.chunk(bytes),
            Event::Eof { .. } => self.eof(),
            Event::FetchError { .. } | Event::BodyError { .. } => self.broken(),
            Event::Timer { .. } => self.timer(),
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

    fn headers(&mut self, status: u16, content_type: Option<&str>, retry_after_ms: Option<u64>) {
        if !matches!(self.run.state, State::AwaitHeaders) {
            return;
        }
        if status == 429 {
            let least = self.run.retry_after_ms.into_iter().chain(retry_after_ms).min();
            self.run.retry_after_ms = least;
        }
        if !(200..=299).contains(&status) {
            match refusal::by_status(status) {
                Some(_) => self.fail(Outcome::Status(status), true, retry_after_ms),
                None => {
                    self.run.state = State::Refusal { status, held: Vec::new() };
                    self.arm(ERROR_BODY_MS.min(self.left()));
                }
            }
            return;
        }
        let kind = content_type.map(|text| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        let is_stream = kind.as_deref() == Some("text/event-stream");
        let is_json = kind.as_deref().is_some_and(|kind| kind == "application/json" || kind.ends_with("+json"));
        match self.run.task.expect {
            // The limit on headers goes on to the first content event.
            Expect::Stream | Expect::Any if is_stream => {
                self.run.state = State::Inspect { status, framer: Framer::default(), held: Vec::new() };
            }
            Expect::Json if is_json || kind.is_none() => self.hold(status, true),
            // A page to log in at, say. What a client stored may be of any type.
            Expect::Any if kind.as_deref() == Some("text/html") && !self.run.task.stateful => {
                self.fail(Outcome::WrongType, true, None);
            }
            Expect::Any => self.hold(status, is_json),
            Expect::File => self.hold(status, false),
            Expect::Stream | Expect::Json => self.fail(Outcome::WrongType, true, None),
        }
    }

    /// A body that comes in drips isn't waited for longer than its headers would have been.
    fn hold(&mut self, status: u16, json: bool) {
        let (idle, headers) = (self.run.limits().idle.0, self.run.limits().headers_unary.0);
        let sent_ms = self.run.record.attempts.last().map_or(self.now, |attempt| attempt.started_ms);
        let until_ms = later(sent_ms, headers).max(later(self.now, idle)).min(self.run.total_ms);
        self.run.state = State::Hold { status, json, held: Vec::new(), until_ms };
        self.arm(idle.min(self.left()));
    }

    fn chunk(&mut self, bytes: Vec<u8>) {
        let idle = self.run.limits().idle.0;
        match &mut self.run.state {
            State::Refusal { held, .. } => {
                held.extend(bytes.into_iter().take(MOST_HELD.saturating_sub(held.len())));
                if held.len() >= MOST_HELD {
                    self.refused(true);
                }
            }
            State::Inspect { framer, .. } => {
                let framed = framer.push(bytes);
                self.events(framed, false);
            }
            State::Stream { framer, .. } => {
                let framed = framer.push(bytes);
                // Bytes that never become an event are silence to the client.
                if !framed.bytes.is_empty() {
                    self.run.deadline_ms = later(self.now, idle);
                }
                self.events(framed, true);
            }
            State::Hold { status, json, held, until_ms } => {
                held.extend_from_slice(&bytes);
                self.run.deadline_ms = later(self.now, idle).min(*until_ms);
                if held.len() >= MOST_HELD {
                    if *json && !json::may_begin_json(held) {
                        return self.fail(Outcome::WrongType, true, None);
                    }
                    let nesting = json.then(|| {
                        let mut nesting = Nesting::default();
                        nesting.follow(held);
                        nesting
                    });
                    let (status, held) = (*status, core::mem::take(held));
                    self.run.state = State::Unary { nesting };
                    self.commit(status, held);
                    self.arm(idle);
                }
            }
            State::Unary { nesting } => {
                if let Some(nesting) = nesting {
                    nesting.follow(&bytes);
                }
                self.run.deadline_ms = later(self.now, idle);
                self.emit(bytes);
            }
            State::Ready | State::AwaitHeaders | State::Done => {}
        }
    }

    /// What became whole of a stream: nothing said yet, the first content, more, the end, or an error.
    fn events(&mut self, framed: Framed, was_committed: bool) {
        let Framed { mut bytes, events } = framed;
        let (mut committed, mut may_end, mut end, mut start) = (was_committed, false, None, 0);
        for (upto, meaning) in events {
            match (committed, meaning) {
                (_, Meaning::Nothing) => {}
                (_, Meaning::Content) => committed = true,
                (_, Meaning::Final) => (committed, may_end) = (true, true),
                (false, Meaning::Error | Meaning::Failed) => return self.fail(Outcome::ErrorEvent, true, None),
                (false, Meaning::Done) => return self.fail(Outcome::Empty, true, None),
                (true, Meaning::Error) => {
                    let Words { kind, code, param } = Words::read_event(&bytes[start..upto]);
                    bytes.truncate(start);
                    end = Some(Some(Failure::Interrupted { kind, code, param }));
                    break;
                }
                (_, Meaning::Completed) | (true, Meaning::Done | Meaning::Failed) => {
                    committed = true;
                    bytes.truncate(upto);
                    end = Some(None);
                    break;
                }
            }
            start = upto;
        }
        if let State::Inspect { status, framer, held } = &mut self.run.state {
            if held.is_empty() {
                *held = bytes;
            } else {
                held.append(&mut bytes);
            }
            if !committed && held.len() + framer.held() < MOST_HELD {
                return;
            }
            let (status, held, framer) = (*status, core::mem::take(held), core::mem::take(framer));
            self.run.state = State::Stream { framer, may_end };
            self.commit(status, held);
            if end.is_none() {
                self.arm(self.run.limits().idle.0);
            }
        } else {
            if let State::Stream { may_end: already, .. } = &mut self.run.state {
                *already |= may_end;
            }
            self.emit(bytes);
        }
        match end {
            None => {}
            Some(None) => self.finish(),
            Some(Some(failure)) => self.interrupt(End::ErrorEvent, &failure, true),
        }
    }

    fn eof(&mut self) {
        match &mut self.run.state {
            State::Refusal { .. } => self.refused(false),
            State::AwaitHeaders => self.fail(Outcome::Network, false, None),
            State::Inspect { .. } => self.fail(Outcome::Empty, false, None),
            State::Hold { status, json, held, .. } => {
                let (status, held, json) = (*status, core::mem::take(held), *json);
                // Only what changes state may succeed without a word; a stored file may be empty.
                let wordless = status == 204 && self.run.task.stateful || self.run.task.expect == Expect::File;
                let anything = self.run.task.expect != Expect::Json;
                let read = || core::str::from_utf8(&held).map_or(Success::Broken, refusal::success);
                let verdict = match json.then(read) {
                    _ if held.is_empty() => (!wordless).then_some(Outcome::Empty),
                    None | Some(Success::Object) => None,
                    Some(Success::Error) => Some(Outcome::ErrorEvent),
                    // A bare `null` or a sentence in quotation marks is JSON too, and nothing of the model API's.
                    Some(Success::Other) if anything => None,
                    Some(Success::Other | Success::Broken) => Some(Outcome::WrongType),
                };
                match verdict {
                    Some(outcome) => self.fail(outcome, false, None),
                    None => {
                        self.commit(status, held);
                        self.finish();
                    }
                }
            }
            State::Stream { may_end, framer } => {
                // Some servers leave out the empty line after their last event. It is told by its own words all the same.
                let held = framer.take_held();
                let last = !framer.is_torn() && matches!(meaning(&held), Meaning::Done | Meaning::Completed);
                if last {
                    self.emit(held);
                    self.finish();
                } else if *may_end && held.is_empty() {
                    self.finish();
                } else {
                    self.interrupt(End::Interrupted, &nameless(), false);
                }
            }
            State::Unary { nesting } if nesting.as_ref().is_none_or(Nesting::is_whole) => self.finish(),
            State::Unary { .. } => self.interrupt(End::Interrupted, &nameless(), false),
            State::Ready | State::Done => {}
        }
    }

    fn broken(&mut self) {
        match &self.run.state {
            State::Refusal { .. } => self.refused(false),
            State::Stream { .. } | State::Unary { .. } => self.interrupt(End::Interrupted, &nameless(), false),
            State::AwaitHeaders | State::Inspect { .. } | State::Hold { .. } => {
                self.fail(Outcome::Network, false, None);
            }
            State::Ready | State::Done => {}
        }
    }

    fn timer(&mut self) {
        if !self.run.armed {
            return;
        }
        self.run.armed = false;
        if self.now < self.run.deadline_ms {
            // The timer is older than the last progress.
            let left = self.run.deadline_ms.saturating_sub(self.now);
            return self.arm(u64::try_from(left).unwrap_or(0));
        }
        match &self.run.state {
            State::Refusal { .. } => self.refused(true),
            State::Stream { .. } | State::Unary { .. } => self.interrupt(End::Idle, &nameless(), true),
            State::AwaitHeaders | State::Inspect { .. } | State::Hold { .. } => {
                self.fail(Outcome::Timeout, true, None);
            }
            State::Ready | State::Done => {}
        }
    }

    fn client_gone(&mut self) {
        match self.run.state {
            State::Done => return,
            State::Ready => {}
            _ => {
                self.disarm();
                self.out.push(Action::Abort { attempt: self.run.current() });
            }
        }
        if matches!(self.run.state, State::Stream { .. } | State::Unary { .. }) {
            self.run.record.end = Some(End::ClientGone);
        } else {
            self.outcome(Outcome::ClientGone);
        }
        self.run.state = State::Done;
    }

    /// The error's body is read, as far as it will be.
    fn refused(&mut self, abort: bool) {
        let State::Refusal { status, held } = core::mem::replace(&mut self.run.state, State::Done) else { return };
        let words = Words::read(&held);
        match refusal::by_body(status, &words, self.run.task.stateful || self.run.task.model.is_none()) {
            Fault::Endpoint => self.fail(Outcome::Status(status), abort, None),
            Fault::Model => self.fail(Outcome::NoModel, abort, None),
            Fault::Client => {
                self.disarm();
                if abort {
                    self.out.push(Action::Abort { attempt: self.run.current() });
                }
                self.outcome(Outcome::Refused(status));
                let Words { kind, code, param } = words;
                self.out.push(Action::Reply { failure: Failure::Refused { status, kind, code, param } });
            }
        }
    }
}

/// An interruption the endpoint said nothing about.
fn nameless() -> Failure {
    Failure::Interrupted { kind: None, code: None, param: None }
}
