//! Prompts and answers of services that keep them. Takes the bytes of the client's body and of the answer, keeps the
//! beginning of each. Called by `proxy` while the request is served.
//!
//! What is kept is told only where the client's receipt says so ([`Content::note_receipt`]).

use core::cell::Cell;

use crate::decide::inflight::Reservation;

/// The most that is kept of a prompt, and of an answer, in bytes.
pub(crate) const LONGEST: usize = 256 << 10;
/// The most that is kept of all requests of this isolate, in bytes. The rest of what an isolate may hold is for serving
/// requests.
const MOST_OF_ALL: u64 = 16 << 20;

thread_local! {
    /// How many bytes are kept now.
    static KEPT: Cell<u64> = const { Cell::new(0) };
}

/// What is kept of one request.
#[derive(Debug, Default)]
pub(crate) struct Content {
    prompt: Option<Vec<u8>>,
    answer: Vec<u8>,
    /// Whether a part of the answer was left out. Nothing after it is kept, so that the answer has no hole.
    is_answer_cut: bool,
    is_truncated: bool,
    has_receipt: bool,
    /// The memory of both.
    memory: Memory,
}

impl Content {
    /// Keeps the client's body, once.
    pub(crate) fn keep_prompt(&mut self, body: &[u8]) {
        if self.prompt.is_some() {
            return;
        }
        let kept = body.get(..LONGEST.min(body.len())).unwrap_or_default();
        let kept = if self.memory.grow(kept.len()) { kept } else { &[] };
        self.is_truncated |= kept.len() < body.len();
        self.prompt = Some(kept.to_vec());
    }

    /// Keeps more of the answer.
    pub(crate) fn keep_answer(&mut self, bytes: &[u8]) {
        if self.is_answer_cut {
            return;
        }
        let kept = bytes.get(..(LONGEST - self.answer.len()).min(bytes.len())).unwrap_or_default();
        let kept = if self.make_room(kept.len()) { kept } else { &[] };
        self.answer.extend_from_slice(kept);
        self.is_answer_cut = kept.len() < bytes.len();
        self.is_truncated |= self.is_answer_cut;
    }

    /// Notes that the client gets a receipt, which says that prompt and answer are kept.
    pub(crate) fn note_receipt(&mut self) {
        self.has_receipt = true;
    }

    /// Whether the client gets a receipt. Without one nothing is told.
    #[must_use]
    pub(crate) fn has_receipt(&self) -> bool {
        self.has_receipt
    }

    /// The prompt as text; `None` if the request had no body that is kept.
    #[must_use]
    pub(crate) fn prompt(&self) -> Option<String> {
        self.prompt.as_deref().map(text)
    }

    /// The answer as text; `None` if nothing of it was kept.
    #[must_use]
    pub(crate) fn answer(&self) -> Option<String> {
        (!self.answer.is_empty()).then(|| text(&self.answer))
    }

    /// Whether something was left out.
    #[must_use]
    pub(crate) fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    /// Makes room for more of the answer. False if memory is short.
    fn make_room(&mut self, more: usize) -> bool {
        let (needed, before) = (self.answer.len() + more, self.answer.capacity());
        if needed <= before {
            return true;
        }
        // As a `Vec` grows by itself, but counted before it is allocated.
        let after = needed.max(2 * before).min(LONGEST);
        let has_room = self.memory.grow(after - before);
        if has_room {
            self.answer.reserve_exact(after - self.answer.len());
        }
        has_room
    }
}

/// Memory for what is kept, of the isolate's and of the part that content may take.
#[derive(Debug, Default)]
struct Memory {
    bytes: u64,
    reservation: Reservation,
}

impl Memory {
    /// Takes more. False if there is none left.
    fn grow(&mut self, bytes: usize) -> bool {
        let more = bytes as u64;
        let has_room = KEPT.get() + more <= MOST_OF_ALL && self.reservation.grow(more).is_ok();
        if has_room {
            KEPT.set(KEPT.get() + more);
            self.bytes += more;
        }
        has_room
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        KEPT.set(KEPT.get().saturating_sub(self.bytes));
    }
}

/// Whether an answer of this type is kept: JSON, or events.
#[must_use]
pub(crate) fn is_kept_type(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(essence.as_str(), "application/json" | "text/event-stream") || essence.ends_with("+json")
}

/// Bytes as text. A character that was cut at the end is left out.
fn text(bytes: &[u8]) -> String {
    let whole = match core::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => bytes.get(..error.valid_up_to()).unwrap_or_default(),
        _ => bytes,
    };
    String::from_utf8_lossy(whole).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::inflight;

    #[test]
    fn the_beginning_of_both_is_kept_within_bounds() {
        let mut content = Content::default();
        content.keep_prompt("{\"a\":\"é\"}".as_bytes());
        content.keep_prompt(b"a second attempt has the same body");
        content.keep_answer(b"data: x\n\n");
        content.keep_answer(b"data: [DONE]\n\n");
        assert_eq!(content.prompt().as_deref(), Some("{\"a\":\"é\"}"));
        assert_eq!(content.answer().as_deref(), Some("data: x\n\ndata: [DONE]\n\n"));
        assert!(!content.is_truncated());
        for _ in 0..100 {
            content.keep_answer("é".repeat(5_001).as_bytes());
        }
        let kept = content.answer().unwrap().len();
        assert!(content.is_truncated() && (LONGEST - 3..=LONGEST).contains(&kept), "{kept}");
        assert!(inflight::held() >= LONGEST as u64);
        drop(content);
        assert_eq!((inflight::held(), KEPT.get()), (0, 0));
    }

    #[test]
    fn an_answer_that_misses_a_part_ends_there() {
        let mut content = Content::default();
        content.keep_answer(b"first ");
        let mut others = Memory::default();
        assert!(others.grow(usize::try_from(MOST_OF_ALL - KEPT.get()).unwrap()));
        content.keep_answer(&[b'x'; 5_000]);
        drop(others);
        content.keep_answer(b"last");
        assert_eq!((content.answer().as_deref(), content.is_truncated()), (Some("first "), true), "no hole");
    }

    #[test]
    fn contents_leave_most_of_the_memory_to_requests() {
        let answer = vec![b'x'; LONGEST];
        let all: Vec<Content> = (0..300)
            .map(|_| {
                let mut content = Content::default();
                content.keep_prompt(&answer);
                answer.chunks(999).for_each(|chunk| content.keep_answer(chunk));
                content
            })
            .collect();
        assert!(all[0].prompt().is_some_and(|prompt| prompt.len() == LONGEST) && !all[0].is_truncated());
        assert!(all[299].is_truncated() && all[299].answer().is_none());
        assert!(inflight::held() <= MOST_OF_ALL, "{}", inflight::held());
        assert!(Reservation::default().grow(inflight::MAX - MOST_OF_ALL - (8 << 20)).is_ok(), "requests have room");
        drop(all);
        assert_eq!((inflight::held(), KEPT.get()), (0, 0));
    }

    #[test]
    fn only_json_and_events_are_kept() {
        for (kind, is_kept) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/event-stream;charset=utf-8", true),
            ("application/problem+json", true),
            ("audio/mpeg", false),
            ("application/octet-stream", false),
            ("application/jsonl", false),
            ("", false),
        ] {
            assert_eq!(is_kept_type(kind), is_kept, "{kind}");
        }
    }

    #[test]
    fn nothing_is_kept_where_memory_is_short() {
        let piece = |_| {
            let mut piece = Reservation::default();
            piece.grow(1 << 17).is_ok().then_some(piece)
        };
        let all: Vec<Reservation> = (0..).map_while(piece).collect();
        let mut content = Content::default();
        content.keep_prompt(&[b'x'; 1 << 17]);
        assert_eq!((content.prompt().as_deref(), content.is_truncated()), (Some(""), true));
        drop(all);
    }
}
