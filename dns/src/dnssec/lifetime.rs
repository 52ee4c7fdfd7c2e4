//! How long signatures last. Takes an RRSIG and the time, returns when it is due for renewal and until when it may be
//! served. Called when signing and when serving.
//!
//! Times are seconds since 1970 in 32 bits and compare as serial numbers (RFC 4034 §3.1.5): what lies less than 68
//! years ahead is later.

/// A signature begins this long before it is made, for clocks that are slow.
const BACKDATE: u32 = 3_600;
/// A signature is renewed when this much is left of it, or more where its TTL asks for it.
const LEFT: u32 = 3 * DAY;
/// How long renewals may fail, beyond the TTL, before signatures are too old to be served.
const MARGIN: u32 = DAY;
/// How long a signature lasts before it is renewed.
const SERVED: u32 = 4 * DAY;
/// Signatures are renewed up to this much earlier, each by chance, so that those made together aren't renewed together.
const JITTER: u32 = DAY / 2;
const DAY: u32 = 86_400;

/// The longest TTL that is signed: a signature has to outlast what it was cached with.
pub(crate) const LONGEST_TTL: u32 = 30 * DAY;

/// From when to when a signature holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// Its inception.
    pub(crate) inception: u32,
    /// Its expiration.
    pub(crate) expiration: u32,
}

impl Window {
    /// The window of a signature that is made now over an RRset of this TTL: seven days, or longer for a TTL above two
    /// days.
    pub(crate) fn new(now: u32, ttl: u32) -> Self {
        Self { inception: now.wrapping_sub(BACKDATE), expiration: now.wrapping_add(SERVED + left(ttl)) }
    }
}

/// How much is left of a signature when it has to be renewed.
fn left(ttl: u32) -> u32 {
    LEFT.max(ttl.min(LONGEST_TTL) + MARGIN)
}

/// Whether `a` lies before `b`.
pub(crate) fn is_before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

/// What an RRSIG says of itself (RFC 4034 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rrsig<'a> {
    /// The number of the algorithm.
    pub(crate) algorithm: u8,
    /// The TTL of the RRset as it was signed.
    pub(crate) original_ttl: u32,
    /// From when to when it holds.
    pub(crate) window: Window,
    /// The tag of the key.
    pub(crate) tag: u16,
    /// The octets of the signature, and of the signer's name before it.
    rest: &'a [u8],
}

impl<'a> Rrsig<'a> {
    /// Reads the RDATA of an RRSIG; `None` for what is too short to be one.
    pub(crate) fn read(rdata: &'a [u8]) -> Option<Self> {
        let (head, rest) = rdata.split_first_chunk::<18>()?;
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        Some(Self {
            algorithm: head[2],
            original_ttl: word(4),
            window: Window { expiration: word(8), inception: word(12) },
            tag: u16::from_be_bytes([head[16], head[17]]),
            rest,
        })
    }

    /// The first second at which it is no longer served: whatever was cached with it until then outlives its TTL before
    /// the signature ends.
    pub(crate) fn until(&self) -> u32 {
        self.window.expiration.wrapping_sub(self.original_ttl)
    }

    /// When it is due to be renewed. The signature's own octets are the chance.
    pub(crate) fn due(&self) -> u32 {
        let chance = self.rest.last_chunk::<4>().map_or(0, |octets| u32::from_be_bytes(*octets));
        self.window.expiration.wrapping_sub(left(self.original_ttl) + chance % JITTER)
    }

    /// Whether it may still be kept at `now` by whoever won't look again before `horizon`. One from the future was made
    /// by a clock that was wrong.
    pub(crate) fn is_fresh(&self, now: u32, horizon: u32) -> bool {
        !is_before(now, self.window.inception) && is_before(horizon, self.due())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rrsig(window: Window, ttl: u32, chance: u32) -> Vec<u8> {
        let mut rdata = vec![0, 1, 13, 2];
        for word in [ttl, window.expiration, window.inception] {
            rdata.extend(word.to_be_bytes());
        }
        rdata.extend([0x12, 0x34, 0]);
        rdata.extend(chance.to_be_bytes());
        rdata
    }

    #[test]
    fn a_signature_lasts_seven_days_and_is_renewed_with_three_left() {
        let now = 1_800_000_000;
        let rdata = rrsig(Window::new(now, 300), 300, 0);
        let read = Rrsig::read(&rdata).unwrap();
        assert_eq!(read.window, Window { inception: now - 3600, expiration: now + 7 * DAY });
        assert_eq!((read.due(), read.until()), (now + 4 * DAY, now + 7 * DAY - 300));
        assert_eq!((read.algorithm, read.tag), (13, 0x1234));
        assert!(Rrsig::read(&rdata[..17]).is_none());
    }

    #[test]
    fn every_signature_is_renewed_a_day_before_it_is_refused() {
        proptest!(ProptestConfig::with_cases(2_000), |(now in any::<u32>(), ttl in 0..=LONGEST_TTL,
            chance in any::<u32>())| {
            let rdata = rrsig(Window::new(now, ttl), ttl, chance);
            let read = Rrsig::read(&rdata).unwrap();
            let from_now = |time: u32| time.wrapping_sub(now).cast_signed();
            prop_assert!(from_now(read.due()) >= i32::try_from(3 * DAY).unwrap());
            prop_assert!(read.until().wrapping_sub(read.due()) >= MARGIN);
            prop_assert!(read.is_fresh(now, now.wrapping_add(3600)));
            prop_assert!(!read.is_fresh(read.due(), read.due()));
            prop_assert!(!read.is_fresh(now.wrapping_sub(2 * 3600), now.wrapping_sub(2 * 3600)), "from the future");
        });
    }
}
