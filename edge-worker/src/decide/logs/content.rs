//! Prompts and answers of services that keep them. Takes the bytes of the client's body and of the answer, keeps the
//! beginning of each. Called by `proxy` while the request is served.

use crate::decide::inflight::Reservation;

/// The most that is kept of a prompt, and of an answer, in bytes.
pub(crate) const LONGEST: usize = 256 << 10;

/// What is kept of one request.
#[derive(Debug, Default)]
pub(crate) struct Content {
    prompt: Option<Vec<u8>>,
    answer: Vec<u8>,
    is_truncated: bool,
    /// The memory of both.
    reservation: Reservation,
}

impl Content {
    /// Keeps the client's body, once.
    pub(crate) fn keep_prompt(&mut self, body: &[u8]) {
        if self.prompt.is_none() {
            let kept = self.room_for(body, 0);
            self.prompt = Some(kept.to_vec());
        }
    }

    /// Keeps more of the answer.
    pub(crate) fn keep_answer(&mut self, bytes: &[u8]) {
        let kept = self.room_for(bytes, self.answer.len());
        self.answer.extend_from_slice(kept);
    }

    /// The prompt as text; `None` if the request had no body that is kept.
    #[must_use]
    pub(crate) fn prompt(&self) -> Option<String> {
        self.prompt.as_deref().map(text)
    }

    /// The answer as text.
    #[must_use]
    pub(crate) fn answer(&self) -> String {
        text(&self.answer)
    }

    /// Whether something was left out.
    #[must_use]
    pub(crate) fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    /// The part of these bytes that is kept, if so many are kept already.
    fn room_for<'b>(&mut self, bytes: &'b [u8], before: usize) -> &'b [u8] {
        let kept = bytes.get(..LONGEST.saturating_sub(before).min(bytes.len())).unwrap_or_default();
        let kept = if self.reservation.grow(kept.len() as u64).is_ok() { kept } else { &[] };
        self.is_truncated |= kept.len() < bytes.len();
        kept
    }
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
        assert_eq!((content.answer(), content.is_truncated()), ("data: x\n\ndata: [DONE]\n\n".to_owned(), false));
        for _ in 0..100 {
            content.keep_answer("é".repeat(5_001).as_bytes());
        }
        assert!(content.is_truncated() && content.answer().len() <= LONGEST);
        assert!(inflight::held() >= LONGEST as u64);
        drop(content);
        assert_eq!(inflight::held(), 0);
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
