//! The attempt machine: what happened to a request's attempts in, what to do next out. The Worker drives it, tests do too.
//!
//! A driver calls [`step`] with [`Event::Start`], then does the actions in order and reports what happens, each event with the
//! number of the attempt it belongs to. After `Send` it reports `Headers` or `FetchError`; after `Headers` it reads the body
//! (whatever the status) and reports `Chunk`s and `Eof` or `BodyError`, until it is told `Abort`, `Finish`, `CutStream`,
//! `EmitTail` or `Reply`. At most one timer is armed; a new `Arm` replaces the old one.

mod budget;
mod record;
mod refusal;
mod run;
#[cfg(test)]
mod tests;
mod words;

pub use budget::Budget;
pub use record::{Attempt, End, Outcome, Record, Stop};
pub use run::{Run, step};

use bailiwick_rules::id::{EndpointId, RegionId};
use bailiwick_rules::rules::Limits;

use crate::decide::envelope::Failure;
use crate::decide::plan::Plan;
use crate::decide::route::Expect;
use crate::decide::sse::single::AnswerKind;

/// The number of an attempt, from 1.
pub type AttemptNumber = u8;

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The request may begin. Once.
    Start,
    /// An endpoint's status line and headers.
    Headers {
        /// The attempt.
        attempt: AttemptNumber,
        /// The status.
        status: u16,
        /// `Content-Type`.
        content_type: Option<String>,
        /// Whether the body is in a `Content-Encoding` that nobody unpacks on the way, though none was asked for.
        packed: bool,
        /// What the endpoint says of when to come back: [`crate::decide::cooldown::asked_rest`].
        retry_after_ms: Option<u64>,
    },
    /// No answer at all: name, connection, TLS.
    FetchError {
        /// The attempt.
        attempt: AttemptNumber,
    },
    /// Bytes of the body.
    Chunk {
        /// The attempt.
        attempt: AttemptNumber,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The body's clean end.
    Eof {
        /// The attempt.
        attempt: AttemptNumber,
    },
    /// The body broke off.
    BodyError {
        /// The attempt.
        attempt: AttemptNumber,
    },
    /// The timer of the last `Arm` ran out. Too early is fine: the machine arms it again.
    Timer {
        /// The attempt.
        attempt: AttemptNumber,
    },
    /// The client went away.
    ClientGone,
}

/// What to do, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Send the request to `plan.targets()[target]` ([`Run::target`]).
    Send {
        /// The attempt.
        attempt: AttemptNumber,
        /// The position in the plan.
        target: usize,
    },
    /// Report `Timer` after this long.
    Arm {
        /// The attempt.
        attempt: AttemptNumber,
        /// Milliseconds from now.
        after_ms: u64,
    },
    /// Forget the timer.
    Disarm {
        /// The attempt.
        attempt: AttemptNumber,
    },
    /// Abort the attempt's fetch: its connection has to go.
    Abort {
        /// The attempt.
        attempt: AttemptNumber,
    },
    /// Begin the client's response with this attempt's status and (filtered) headers, and these first bytes of the body.
    Commit {
        /// The attempt.
        attempt: AttemptNumber,
        /// The status.
        status: u16,
        /// What was held so far.
        body: Vec<u8>,
        /// Whether it is events that were made of an answer in JSON.
        as_events: bool,
    },
    /// More bytes of the committed body.
    Emit {
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The last bytes of a stream that failed: one error event, no `[DONE]`. Then the body ends.
    EmitTail {
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Break the client's body off, so that nobody takes it for whole.
    CutStream,
    /// The client's body is whole: end it, and drop what the endpoint may still send.
    Finish,
    /// Let the endpoint rest: [`crate::decide::cooldown::CoolDowns::rest`]. After a commit too, when the body broke off.
    CoolDown {
        /// Its region.
        region: RegionId,
        /// Its name.
        endpoint: EndpointId,
        /// The model by the client's name; `None`: all of them.
        model: Option<String>,
        /// Whether it rests for requests to this path only.
        this_path: bool,
        /// How long it asked for itself; `None`: by backoff.
        asked_ms: Option<u64>,
        /// Whether it counts for the endpoint's [`breaker`](crate::decide::breaker).
        fault: bool,
    },
    /// Answer with this failure; nothing was committed.
    Reply {
        /// The failure.
        failure: Failure,
    },
}

/// What a run is told at its start.
#[derive(Clone, Debug)]
pub struct Task {
    /// Where it may go.
    pub plan: Plan,
    /// The model by the client's name, for cool-downs.
    pub model: Option<String>,
    /// What a good answer looks like.
    pub expect: Expect,
    /// What an answer in JSON is, where events are expected; `None` where none are made of it.
    pub answer_kind: Option<AnswerKind>,
    /// How many choices were asked for, as far as that is known: a stream that has fewer isn't whole.
    pub choices: usize,
    /// One attempt only: state would be made twice.
    pub stateful: bool,
    /// Nothing is made or changed: what wasn't answered may be asked again, stateful or not.
    pub reads_only: bool,
    /// The service's limits.
    pub limits: Limits,
}
