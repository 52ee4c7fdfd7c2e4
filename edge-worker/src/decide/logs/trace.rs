//! Trace contexts (W3C Trace Context). Takes the client's `traceparent`, returns the one for each endpoint and the ids
//! of spans. Called by `runtime::logs` and `event`, for requests whose sink takes spans.
//!
//! Ids are made from the request's random id by SHA-256, so no more randomness is needed and nobody can infer the
//! request's id from them.

use core::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// The flag of a trace whose spans are recorded.
const SAMPLED: u8 = 1;
/// The flags that are passed on: `SAMPLED`, and that the trace id is random.
const KNOWN: u8 = 3;

/// The trace of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Trace {
    /// Its id: 32 hexadecimal digits.
    id: String,
    /// The client's span: 16 hexadecimal digits; `None` if the trace begins here.
    parent: Option<String>,
    flags: u8,
}

impl Trace {
    /// Continues the client's trace. If there is none, or its header can't be read, begins one that is sampled.
    #[must_use]
    pub(crate) fn of(traceparent: Option<&str>, request_id: &str) -> Self {
        traceparent.and_then(read).unwrap_or_else(|| {
            let id = hex(&digest(request_id, 0)[..16]);
            Self { id, parent: None, flags: SAMPLED }
        })
    }

    /// The trace's id.
    #[must_use]
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The span of the client.
    #[must_use]
    pub(crate) fn parent(&self) -> Option<&str> {
        self.parent.as_deref()
    }

    /// The flags, as a span has them.
    #[must_use]
    pub(crate) fn flags(&self) -> u8 {
        self.flags
    }

    /// Whether spans are recorded.
    #[must_use]
    pub(crate) fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The header for an attempt, counted from 1.
    #[must_use]
    pub(crate) fn header(&self, request_id: &str, attempt: usize) -> String {
        format!("00-{}-{}-{:02x}", self.id, span_id(request_id, attempt), self.flags)
    }
}

/// The id of the span of an attempt, counted from 1, or of the request as a whole (0).
#[must_use]
pub(super) fn span_id(request_id: &str, attempt: usize) -> String {
    hex(&digest(request_id, 1 + attempt)[..8])
}

fn digest(request_id: &str, nth: usize) -> [u8; 32] {
    Sha256::digest(format!("trace\n{nth}\n{request_id}")).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads a `traceparent` of version 00, or of a later one, whose beginning is the same.
fn read(text: &str) -> Option<Trace> {
    let mut parts = text.trim().split('-');
    let version = lower_hex(parts.next()?, 2).filter(|version| *version != "ff")?;
    let id = lower_hex(parts.next()?, 32).filter(|id| is_set(id))?;
    let parent = lower_hex(parts.next()?, 16).filter(|parent| is_set(parent))?;
    let flags = u8::from_str_radix(lower_hex(parts.next()?, 2)?, 16).ok()?;
    if version == "00" && parts.next().is_some() {
        return None;
    }
    Some(Trace { id: id.to_owned(), parent: Some(parent.to_owned()), flags: flags & KNOWN })
}

fn lower_hex(text: &str, length: usize) -> Option<&str> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == length && text.bytes().all(is_digit)).then_some(text)
}

fn is_set(text: &str) -> bool {
    text.bytes().any(|byte| byte != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    #[test]
    fn a_trace_of_the_client_is_continued() {
        let of = |text: &str| Trace::of(Some(text), "r");
        let trace = of(&format!("00-{ID}-{PARENT}-01"));
        assert_eq!((trace.id(), trace.parent(), trace.is_sampled()), (ID, Some(PARENT), true));
        let header = trace.header("r", 1);
        assert!(header.starts_with(&format!("00-{ID}-")) && header.ends_with("-01"), "{header}");
        assert!(!header.contains(PARENT) && read(&header).is_some(), "{header}");
        assert!(!of(&format!("00-{ID}-{PARENT}-00")).is_sampled(), "the client's choice is kept");
        assert_eq!(of(&format!("00-{ID}-{PARENT}-ff")).flags(), 3, "unknown flags are dropped");
        assert_eq!(of(&format!("cc-{ID}-{PARENT}-01-what-comes")).id(), ID, "a later version (section 4.3)");
    }

    #[test]
    fn what_is_no_trace_context_passes_nothing_on() {
        let zeros = "0".repeat(32);
        for text in [
            "",
            "00",
            "secret words of a client",
            &format!("00-{ID}-{PARENT}"),
            &format!("00-{ID}-{PARENT}-1"),
            &format!("00-{ID}-{PARENT}-01-more"),
            &format!("ff-{ID}-{PARENT}-01"),
            &format!("00-{}-{PARENT}-01", ID.to_uppercase()),
            &format!("00-{zeros}-{PARENT}-01"),
            &format!("00-{ID}-{}-01", &zeros[..16]),
            &format!("00-{ID}-{PARENT}-0é"),
        ] {
            let trace = Trace::of(Some(text), "r");
            assert_eq!((trace.parent(), trace.is_sampled()), (None, true), "{text}");
            assert_eq!(trace, Trace::of(None, "r"), "{text}");
        }
    }

    #[test]
    fn ids_differ_by_request_and_attempt_and_hide_the_request() {
        let id = "0b1f0a0e-6f0e-4a6a-8d5a-0123456789ab";
        let ids: std::collections::BTreeSet<String> = (0..4).map(|nth| span_id(id, nth)).collect();
        assert_eq!(ids.len(), 4);
        let trace = Trace::of(None, id);
        assert_eq!((trace.id().len(), span_id(id, 0).len()), (32, 16));
        assert_ne!(trace.id(), Trace::of(None, "another").id());
        assert!(!trace.header(id, 1).contains("0b1f0a0e") && !trace.header(id, 1).contains("0123456789ab"));
    }
}
