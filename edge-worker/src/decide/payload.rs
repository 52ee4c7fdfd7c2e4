//! The body of a request to one endpoint, in pieces. Most pieces are borrowed from the client's body, which the edge
//! holds in memory: an isolate has no room for a second copy of a large body. `rewrite` makes the payload; `proxy` and
//! `held` send it.

use std::borrow::Cow;

/// A body of more bytes than this is written to an endpoint a chunk at a time. A shorter body is copied into one buffer
/// and sent at once.
pub(crate) const LARGEST_COPIED: usize = 64 << 10;

/// The pieces of a body, in order.
#[derive(Default, Debug)]
pub(crate) struct Payload<'a>(Vec<Cow<'a, [u8]>>);

impl<'a> Payload<'a> {
    /// Appends a piece.
    pub(crate) fn push(&mut self, piece: impl Into<Cow<'a, [u8]>>) {
        self.0.push(piece.into());
    }

    /// The number of bytes of the body.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.pieces().map(<[u8]>::len).sum()
    }

    /// The pieces of the body.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// The bytes of the body, in chunks of at most `most` bytes.
    pub(crate) fn chunks(&self, most: usize) -> impl Iterator<Item = &[u8]> {
        self.pieces().flat_map(move |piece| piece.chunks(most))
    }

    /// All bytes of the body, copied into one buffer.
    #[must_use]
    pub(crate) fn concat(&self) -> Vec<u8> {
        self.0.concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_it_is_taken_it_is_the_same() {
        let held = [7; 10];
        let mut payload = Payload::default();
        payload.push(vec![1, 2]);
        payload.push(&held[..]);
        payload.push(Vec::new());
        assert_eq!((payload.len(), Payload::default().len()), (12, 0));
        for most in 1..13 {
            let chunks: Vec<&[u8]> = payload.chunks(most).collect();
            assert!(chunks.iter().all(|chunk| (1..=most).contains(&chunk.len())));
            assert_eq!(chunks.concat(), payload.concat());
        }
    }
}
