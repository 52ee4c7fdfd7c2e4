//! The attempt machine. An attempt is one try to get a request answered by one endpoint. The commit is the moment from
//! which an answer is passed to the client; after it no other endpoint is tried. Takes an [`Event`] of a request's
//! attempts, returns the [`Action`]s to do next. Driven by `runtime/proxy.rs`, and by tests. An endpoint at rest gets
//! no requests for a while, because requests to it failed.
//!
//! The driver first calls [`step`] with [`Event::Start`]. It then does the actions in order, and reports each event
//! with the number of its attempt. After `Send` it reports `Headers` or `FetchError`. After `Headers` it reads the
//! body, whatever the status, and reports `Chunk`s, and then `Eof` or `BodyError`. It reads until it gets `Abort`,
//! `Finish`, `CutStream`, `EmitTail` or `Reply`. At most one timer runs; a new `SetTimer` replaces the old one.

mod budget;
mod record;
mod refusal;
mod run;
#[cfg(test)]
mod tests;
mod words;

pub(crate) use budget::Budget;
pub(crate) use record::{Attempt, End, Outcome, Record, Stop};
pub(crate) use run::{Run, step};

use bailiwick_rules::id::{EndpointId, RegionId};
use bailiwick_rules::rules::Limits;

use crate::decide::envelope::Failure;
use crate::decide::plan::Plan;
use crate::decide::route::Expect;
use crate::decide::sse::single::AnswerKind;

/// The number of an attempt, from 1.
pub(crate) type AttemptNumber = u8;

/// Something that happened to the request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// The run begins. Reported once.
    Start,
    /// An endpoint's status line and headers.
    Headers {
        /// The attempt.
        attempt: AttemptNumber,
        /// The status.
        status: u16,
        /// `Content-Type`.
        content_type: Option<String>,
        /// Whether the body is compressed in a way that the runtime can't decompress, although the request asked for no
        /// compression.
        packed: bool,
        /// How long the endpoint asks to be left alone: [`crate::decide::cooldown::retry_after_ms`].
        retry_after_ms: Option<u64>,
    },
    /// The fetch failed without an answer: name resolution, connection or TLS.
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
    /// The body ended, and is complete.
    Eof {
        /// The attempt.
        attempt: AttemptNumber,
    },
    /// The body broke off.
    BodyError {
        /// The attempt.
        attempt: AttemptNumber,
    },
    /// The timer of the last `SetTimer` fired. If the deadline has moved since, the machine sets the timer again.
    Timer {
        /// The attempt.
        attempt: AttemptNumber,
    },
    /// The client closed the connection.
    ClientGone,
}

/// Something that the driver has to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// Send the request to `plan.targets()[target]` ([`Run::target`]).
    Send {
        /// The attempt.
        attempt: AttemptNumber,
        /// The position in the plan.
        target: usize,
    },
    /// Set the timer: report `Timer` after this time.
    SetTimer {
        /// The attempt.
        attempt: AttemptNumber,
        /// Milliseconds from now.
        after_ms: u64,
    },
    /// Cancel the timer.
    CancelTimer {
        /// The attempt.
        attempt: AttemptNumber,
    },
    /// Abort the attempt's fetch, which closes its connection.
    Abort {
        /// The attempt.
        attempt: AttemptNumber,
    },
    /// Begin the client's response with this attempt's status, its filtered headers, and these first bytes of the body.
    Commit {
        /// The attempt.
        attempt: AttemptNumber,
        /// The status.
        status: u16,
        /// The bytes that were held until now.
        body: Vec<u8>,
        /// Whether the body consists of events that the machine made from a JSON answer.
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
    /// Break off the client's body, so that the client sees that the body is incomplete.
    CutStream,
    /// End the client's body, which is complete. Ignore all further bytes of the endpoint.
    Finish,
    /// Let the endpoint rest, so that later requests avoid it for a while:
    /// [`crate::decide::cooldown::CoolDowns::rest`]. This may also follow a commit, if the body broke off.
    CoolDown {
        /// The endpoint's region.
        region: RegionId,
        /// The endpoint.
        endpoint: EndpointId,
        /// The client's name of the model; `None` for all models.
        model: Option<String>,
        /// Whether the endpoint rests only for requests to this path.
        this_path: bool,
        /// How long the endpoint asked to rest, in milliseconds; `None` if backoff decides.
        retry_after_ms: Option<u64>,
        /// Whether the failure counts as a fault in the endpoint's [`breaker`](crate::decide::breaker).
        fault: bool,
    },
    /// Answer the client with this failure. Nothing was committed.
    Reply {
        /// The failure.
        failure: Failure,
    },
}

/// The input of a run.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    /// The endpoints that may be asked, in order.
    pub(crate) plan: Plan,
    /// The client's name of the model, for cool-downs.
    pub(crate) model: Option<String>,
    /// The form that the answer should have.
    pub(crate) expect: Expect,
    /// The kind of the JSON answer. If the client asked for events and the endpoint sends JSON, the machine makes
    /// events from an answer of this kind. `None` if no events can be made.
    pub(crate) answer_kind: Option<AnswerKind>,
    /// The least number of choices that the request asks for. A stream with fewer choices is incomplete.
    pub(crate) choices: usize,
    /// Whether the request is about state: objects that an endpoint stores. Such a request gets one attempt, because a
    /// second attempt could create an object twice.
    pub(crate) stateful: bool,
    /// Whether the request only reads. Such a request may be repeated at the same endpoint, even if it is stateful.
    pub(crate) reads_only: bool,
    /// The service's limits.
    pub(crate) limits: Limits,
}
