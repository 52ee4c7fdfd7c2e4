//! Limits how many bytes of bundles are in memory because they are being sent. Takes the size of a content before it is
//! read; returns a [`SendPermit`], or `None` if too much is being sent already. The content carries its permit until
//! the last byte is sent. Called by [`super::bundles`].
//!
//! A content is in memory while it is sent, and a slow reader keeps it there. Small contents, such as prompts, don't
//! count.

use std::sync::Arc;

use axum::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How much may be sent at the same time, in KiB: the largest bundle four times.
const MOST: u32 = 4 * (64 << 10) + 1_024;
/// A content of at most this many bytes always gets a permit.
const SMALL: u64 = 1 << 20;

/// What may be sent at once.
#[derive(Debug)]
pub(crate) struct Sending(Arc<Semaphore>);

/// Permission to read a content and send it.
#[derive(Debug)]
pub(super) struct SendPermit {
    _held: Option<OwnedSemaphorePermit>,
}

/// A content with its permit.
struct SentContent {
    content: Vec<u8>,
    _permit: SendPermit,
}

impl AsRef<[u8]> for SentContent {
    fn as_ref(&self) -> &[u8] {
        &self.content
    }
}

impl Default for Sending {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST as usize)))
    }
}

impl Sending {
    /// A permit for a content of this many bytes. `None` if too much is being sent.
    pub(super) fn permit(&self, bytes: u64) -> Option<SendPermit> {
        if bytes <= SMALL {
            return Some(SendPermit { _held: None });
        }
        let share = u32::try_from(bytes.div_ceil(1_024)).unwrap_or(MOST).min(MOST);
        let permits = Arc::clone(&self.0).try_acquire_many_owned(share).ok()?;
        Some(SendPermit { _held: Some(permits) })
    }
}

impl SendPermit {
    /// The content as a body. The permit ends when all of it was sent, or when the client has gone.
    pub(super) fn carry(self, content: Vec<u8>) -> Bytes {
        Bytes::from_owner(SentContent { content, _permit: self })
    }
}

#[cfg(test)]
mod tests {
    use bailiwick_rules::bundle::MOST_BYTES;

    use super::*;

    #[test]
    fn large_contents_wait_for_others_to_be_sent_and_small_ones_do_not() {
        let sending = Sending::default();
        let mut bodies: Vec<Bytes> =
            (0..4).map(|_| sending.permit(MOST_BYTES).expect("a permit").carry(vec![7; 3])).collect();
        assert!(sending.permit(MOST_BYTES).is_none() && sending.permit(SMALL * 2).is_none());
        assert!((0..10_000).all(|_| sending.permit(SMALL).is_some()));
        // As long as a part of one is to be sent, it counts.
        let rest = bodies.pop().expect("a body").slice(1..);
        assert_eq!(rest, [7, 7][..]);
        assert!(sending.permit(MOST_BYTES).is_none());
        drop(rest);
        let permit = sending.permit(MOST_BYTES);
        assert!(permit.is_some() && sending.permit(MOST_BYTES).is_none());
        drop((permit, bodies));
        assert!(sending.permit(u64::MAX).is_some(), "alone, anything may be sent");
    }
}
