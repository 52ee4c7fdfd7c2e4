//! Recognises heartbeats: events that only say that the server is alive. Takes the name and the data of an event whose
//! data isn't JSON; returns whether it is a heartbeat. Called by `classify`.
//!
//! Proxies write heartbeats in their own ways: `data: ping`, `data: [HEARTBEAT]`, or `event: keep-alive` with the time
//! as data. An error in plain words (`upstream connect error`) isn't a heartbeat, and neither is broken JSON.

/// The longest data of a heartbeat, in bytes.
const LONGEST: usize = 64;
/// The words that a heartbeat may begin with, in lower case.
const WORDS: &[&str] = &[
    "ping",
    "pong",
    "heartbeat",
    "keepalive",
    "keep",
    "alive",
    "processing",
    "waiting",
    "queued",
    "thinking",
    "working",
    "openrouter",
    "noop",
];
/// Words that mean a failure, whatever else the event says.
const FAILURES: &[&str] = &["error", "fail", "exception", "timeout", "timed", "refused", "denied", "abort", "crash"];

/// Whether an event with this name (`""` for none) and this data only says that its sender is alive. The data isn't
/// JSON.
pub(super) fn is_heartbeat(name: &str, data: &str) -> bool {
    if data.len() > LONGEST {
        return false;
    }
    let data = data.to_ascii_lowercase();
    if FAILURES.iter().any(|failure| data.contains(failure)) || data.contains('{') {
        return false;
    }
    begins(&name.to_ascii_lowercase())
        || begins(&data)
        || data.chars().all(|c| c.is_whitespace() || ".:…-_*~".contains(c))
}

/// Whether the first word is one of [`WORDS`], perhaps in brackets or joined by hyphens.
fn begins(text: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphanumeric();
    let text = text.trim_start_matches(|c| !is_letter(c));
    let first = text.split(|c| !is_letter(c)).next().unwrap_or_default();
    WORDS.contains(&first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_heartbeats_are_recognised() {
        for data in [
            "ping",
            "PING",
            "[heartbeat]",
            "keep-alive",
            "keep_alive",
            "keepalive 3",
            "OPENROUTER PROCESSING",
            "processing...",
            "ping - 2026-11-28T04:00:00Z",
            ".",
            "…",
            ":",
        ] {
            assert!(is_heartbeat("", data), "{data}");
        }
        for name in ["ping", "heartbeat", "keep-alive", "Keepalive"] {
            assert!(is_heartbeat(name, "2026-11-28 04:00:00"), "{name}");
        }
    }

    #[test]
    fn failures_and_broken_json_are_not_heartbeats() {
        for data in [
            "not json",
            "upstream connect error",
            "Internal Server Error",
            "ping timeout",
            "processing failed",
            "{\"choices\":[",
            "ping {",
            "pingpong",
            "[",
            "\"",
            "no healthy upstream",
        ] {
            assert!(!is_heartbeat("", data), "{data}");
        }
        assert!(
            !is_heartbeat("ping", "{\"error\":")
                && !is_heartbeat("ping", &"x".repeat(65))
                && !is_heartbeat("message", "hello")
        );
    }
}
