//! Decides whether a reading (what an endpoint said of the model that it runs) is believed. Takes the readings of an
//! endpoint one after the other, returns when to read again. The DNS node holds a [`Confirmed`] for each endpoint.
//!
//! A single odd answer withholds no region: a changed release is believed only when two readings in a row show it.

use super::reading::Reading;

/// The believed reading of an endpoint, and a different reading that was seen only once so far.
#[derive(Clone, Debug, Default)]
pub struct Confirmed {
    believed: Option<Reading>,
    unconfirmed: Option<Reading>,
}

/// When to read again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// After an interval.
    Usual,
    /// Soon, because this reading differs from the one that is believed.
    Soon,
}

impl Confirmed {
    /// Takes a reading. The first reading is believed at once. `tolerance` is how far two canaries may be apart, in
    /// nats.
    pub fn take(&mut self, reading: Reading, tolerance: f64) -> Next {
        let is_like = |other: &Option<Reading>| other.as_ref().is_some_and(|known| known.is_like(&reading, tolerance));
        if self.believed.is_none() || is_like(&self.believed) || is_like(&self.unconfirmed) {
            *self = Self { believed: Some(reading), unconfirmed: None };
            return Next::Usual;
        }
        self.unconfirmed = Some(reading);
        Next::Soon
    }

    /// The reading that is believed.
    #[must_use]
    pub fn believed(&self) -> Option<&Reading> {
        self.believed.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_release_is_believed_when_it_was_read_twice_in_a_row() {
        let of = |root: &str| Reading { root: Some(root.into()), ..Reading::default() };
        let mut confirmed = Confirmed::default();
        let mut take = |root| {
            let next = confirmed.take(of(root), 0.1);
            (next, confirmed.believed().and_then(|one| one.root.as_deref().map(str::to_owned)).unwrap_or_default())
        };
        assert_eq!(take("a"), (Next::Usual, "a".to_owned()));
        assert_eq!(take("b"), (Next::Soon, "a".to_owned()));
        assert_eq!(take("a"), (Next::Usual, "a".to_owned()), "it was one odd answer");
        assert_eq!(take("b"), (Next::Soon, "a".to_owned()), "the two readings of b weren't in a row");
        assert_eq!(take("c"), (Next::Soon, "a".to_owned()));
        assert_eq!(take("c"), (Next::Usual, "c".to_owned()));
    }
}
