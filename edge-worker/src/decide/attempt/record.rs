//! The record of what was done for a request. `run` fills it. The `x-bailiwick-*` headers, the metrics and the log are
//! made only from this record. An answer is committed when its first bytes are sent to the client; then no other
//! endpoint can be tried.

use core::fmt;

use bailiwick_rules::id::{EndpointId, RegionId};
use bailiwick_rules::rollout::Arm;

use crate::decide::plan::Skipped;
use crate::decide::usage::Usage;

/// What was done for a request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Record {
    /// Every endpoint that the request was sent to, in order. Each of them may have the request's body.
    pub(crate) attempts: Vec<Attempt>,
    /// Every endpoint that was skipped.
    pub(crate) skipped: Vec<Skipped>,
    /// Why there was no further attempt after a failure.
    pub(crate) stopped: Option<Stop>,
    /// How a committed body ended.
    pub(crate) end: Option<End>,
    /// The usage that the answer reports.
    pub(crate) usage: Usage,
    /// The pieces of content of a stream.
    pub(crate) contents: Contents,
}

/// The pieces of content that a stream has brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Contents {
    /// How many events carried content.
    pub(crate) count: u32,
    /// When the first such event arrived, in milliseconds.
    pub(crate) first_ms: i64,
    /// When the last such event arrived, in milliseconds.
    pub(crate) last_ms: i64,
}

impl Contents {
    /// Records that a piece has arrived.
    pub(crate) fn note(&mut self, now_ms: i64) {
        if self.count == 0 {
            self.first_ms = now_ms;
        }
        self.count = self.count.saturating_add(1);
        self.last_ms = now_ms;
    }

    /// The mean time between two pieces, in microseconds; `None` if there are fewer than two.
    #[must_use]
    pub(crate) fn between_us(&self) -> Option<u64> {
        let gaps = u64::from(self.count).checked_sub(1).filter(|gaps| *gaps > 0)?;
        let span_ms = u64::try_from(self.last_ms.saturating_sub(self.first_ms)).unwrap_or(0);
        Some(span_ms.saturating_mul(1_000) / gaps)
    }
}

/// One attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Attempt {
    /// The endpoint's position in the plan.
    pub(crate) target: usize,
    /// The endpoint's region.
    pub(crate) region: RegionId,
    /// The endpoint.
    pub(crate) endpoint: EndpointId,
    /// The arm of a rollout that the endpoint serves.
    pub(crate) arm: Option<Arm>,
    /// When the request was sent, in milliseconds.
    pub(crate) started_ms: i64,
    /// How the attempt ended; `None` while it lasts.
    pub(crate) outcome: Option<Outcome>,
    /// How long the attempt took, in milliseconds.
    pub(crate) ms: u64,
}

/// How an attempt ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Outcome {
    /// The client gets the bytes of this attempt.
    Committed,
    /// A time limit was exceeded.
    Timeout,
    /// There was no connection, or the connection broke.
    Network,
    /// The endpoint answered with this status. Another endpoint may do better.
    Status(u16),
    /// The endpoint lacks the model.
    NoModel,
    /// The endpoint lacks the path.
    NoPath,
    /// The endpoint's account has used up its quota.
    NoQuota,
    /// An answer with a 2xx status that holds an error.
    ErrorEvent,
    /// An answer with a 2xx status of the wrong type, or that isn't JSON.
    WrongType,
    /// An answer with a 2xx status without content.
    Empty,
    /// The endpoint refused the client's request.
    Refused(u16),
    /// The client closed the connection before the attempt ended.
    ClientGone,
}

impl Outcome {
    /// The label for metrics. Of a status only the class is shown, because endpoints could send any status.
    #[must_use]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Status(429) => "http_429",
            Self::Status(300..=399) => "http_3xx",
            Self::Status(400..=499) => "http_4xx",
            Self::Status(500..=599) => "http_5xx",
            Self::Status(_) => "http_other",
            Self::Committed => "committed",
            Self::Timeout => "timeout",
            Self::Network => "network",
            Self::NoModel => "no_model",
            Self::NoPath => "no_path",
            Self::NoQuota => "no_quota",
            Self::ErrorEvent => "error_event",
            Self::WrongType => "wrong_type",
            Self::Empty => "empty",
            Self::Refused(_) => "refused",
            Self::ClientGone => "client_gone",
        }
    }

    /// Whether the failure may concern this path only. Failures of a gateway, a connection, a limit or a credential
    /// concern all paths.
    pub(super) fn is_of_path(self) -> bool {
        match self {
            Self::Status(status) => !matches!(status, 401 | 403 | 408 | 429 | 502..=504 | 520..=599),
            Self::ErrorEvent | Self::WrongType | Self::Empty | Self::NoPath => true,
            _ => false,
        }
    }

    /// Whether the failure may be brief, so that the same endpoint may succeed soon. Time-outs and errors about our
    /// credential don't count as brief.
    pub(super) fn is_brief(self) -> bool {
        matches!(self, Self::Status(500 | 502 | 503 | 520..=523 | 525..=529))
    }

    /// Whether the outcome counts as a fault of the endpoint. An endpoint that is at its limit or lacks the model is
    /// healthy.
    pub(super) fn is_fault(self) -> bool {
        match self {
            Self::Timeout | Self::Network | Self::ErrorEvent | Self::WrongType | Self::Empty => true,
            Self::Status(status) => status != 429,
            Self::Committed | Self::NoModel | Self::NoPath | Self::NoQuota | Self::Refused(_) | Self::ClientGone => {
                false
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Committed => f.write_str("committed"),
            Self::Timeout => f.write_str("timeout"),
            Self::Network => f.write_str("network"),
            Self::Status(status) => write!(f, "http_{status}"),
            Self::NoModel => f.write_str("no_model"),
            Self::NoPath => f.write_str("no_path"),
            Self::NoQuota => f.write_str("no_quota"),
            Self::ErrorEvent => f.write_str("error_event"),
            Self::WrongType => f.write_str("wrong_type"),
            Self::Empty => f.write_str("empty"),
            Self::Refused(status) => write!(f, "refused_{status}"),
            Self::ClientGone => f.write_str("client_gone"),
        }
    }
}

/// Why there was no further attempt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Stop {
    /// The request makes state, and a second attempt could make it twice.
    Stateful,
    /// The limit on the number of attempts is reached.
    Sends,
    /// Less than a second of the total time limit is left.
    Time,
    /// No endpoint is left.
    Targets,
    /// The isolate's retry budget is empty.
    Budget,
}

impl Stop {
    /// The word for logs.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Stateful => "stateful",
            Self::Sends => "sends",
            Self::Time => "time",
            Self::Targets => "targets",
            Self::Budget => "budget",
        }
    }
}

/// How a committed body ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum End {
    /// The body was complete.
    Whole,
    /// The runtime passed on the rest of a stream. The stream ended cleanly, but it wasn't checked for completeness.
    Piped,
    /// The endpoint broke off the body, or ended a stream without its last event.
    Interrupted,
    /// The endpoint reported an error.
    ErrorEvent,
    /// The endpoint sent nothing for too long.
    Idle,
    /// The client closed the connection.
    ClientGone,
}

impl End {
    /// The word for logs and metrics.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Piped => "piped",
            Self::Interrupted => "interrupted",
            Self::ErrorEvent => "error_event",
            Self::Idle => "idle",
            Self::ClientGone => "client_gone",
        }
    }
}

impl Record {
    /// The value of `x-bailiwick-attempts`: `fra-1;outcome=timeout;ms=15000, fra-2;outcome=committed`.
    #[must_use]
    pub(crate) fn header(&self) -> String {
        let entry = |attempt: &Attempt| match attempt.outcome {
            None => format!("{};outcome=pending", attempt.endpoint),
            Some(Outcome::Committed) => format!("{};outcome=committed", attempt.endpoint),
            Some(outcome) => format!("{};outcome={outcome};ms={}", attempt.endpoint, attempt.ms),
        };
        self.attempts.iter().map(entry).collect::<Vec<_>>().join(", ")
    }

    /// The attempt whose bytes the client gets.
    #[must_use]
    pub(crate) fn committed(&self) -> Option<&Attempt> {
        self.attempts.iter().find(|attempt| attempt.outcome == Some(Outcome::Committed))
    }
}
