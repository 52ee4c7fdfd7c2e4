//! SSE comments for a client that waits for the first content of a stream. Takes the time; returns when a comment is
//! due. Called by `proxy`, for services with `keepalive`.

use bailiwick_rules::time::Millis;
use serde_json::json;

use crate::decide::envelope::Failure;
use crate::decide::plan::Target;
use crate::decide::sse::single::AnswerKind;

/// The comment that a waiting client gets.
pub(crate) const COMMENT: &[u8] = b": keep-alive\n\n";

/// When the next comment is due. Times are in milliseconds of the machine's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct KeepAlive {
    every: Millis,
    due_ms: i64,
}

impl KeepAlive {
    /// The first comment is due one interval from now.
    pub(crate) fn new(every: Millis, now_ms: i64) -> Self {
        Self { every, due_ms: now_ms.saturating_add_unsigned(every.0) }
    }

    /// The time until the next comment, in milliseconds.
    pub(crate) fn left(&self, now_ms: i64) -> u64 {
        u64::try_from(self.due_ms.saturating_sub(now_ms)).unwrap_or(0)
    }

    /// Whether a comment is due. If so, the next comment is due one interval from now.
    pub(crate) fn beat(&mut self, now_ms: i64) -> bool {
        let is_due = now_ms >= self.due_ms;
        if is_due {
            *self = Self::new(self.every, now_ms);
        }
        is_due
    }
}

/// A comment that names the endpoint and the region of the answer, because the headers were sent before these were
/// known.
pub(crate) fn served(target: &Target) -> Vec<u8> {
    format!(": bailiwick endpoint={} region={}\n\n", target.id(), target.region_id()).into_bytes()
}

/// A failure as the last event of a stream without content, in the form of the path's API.
pub(crate) fn failed(failure: &Failure, answer_kind: Option<AnswerKind>) -> Vec<u8> {
    if answer_kind != Some(AnswerKind::Response) {
        return failure.event();
    }
    let data = json!({
        "type": "error", "code": failure.code(), "message": failure.message(), "param": failure.param(),
        "sequence_number": 0,
    });
    format!("event: error\ndata: {data}\n\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_due_each_interval_of_silence() {
        let mut beat = KeepAlive::new(Millis(1_000), 500);
        assert_eq!((beat.beat(1_499), beat.left(1_499)), (false, 1));
        assert!(beat.beat(1_600));
        assert_eq!((beat.beat(1_600), beat.left(1_600)), (false, 1_000));
        assert_eq!(beat.left(9_000), 0, "overdue");
    }

    #[test]
    fn a_failure_is_one_event_of_the_paths_api() {
        let chat = String::from_utf8(failed(&Failure::UpstreamTimeout, Some(AnswerKind::Chat))).unwrap();
        assert!(chat.starts_with("data: {\"error\":{") && chat.ends_with("}\n\n"), "{chat}");
        let response = String::from_utf8(failed(&Failure::UpstreamTimeout, Some(AnswerKind::Response))).unwrap();
        let data: serde_json::Value =
            serde_json::from_str(response.strip_prefix("event: error\ndata: ").unwrap().trim()).unwrap();
        assert_eq!((&data["type"], &data["code"]), (&json!("error"), &json!("upstream_timeout")));
    }
}
