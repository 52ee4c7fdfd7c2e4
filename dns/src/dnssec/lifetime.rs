//! The lifetime of signatures. Takes an RRSIG and the time, returns when the RRSIG is due for renewal and until when it
//! may be served. Called when signing and when serving.
//!
//! Times are seconds since 1970 in 32 bits and are compared as serial numbers (RFC 4034 §3.1.5): a time less than 68
//! years ahead counts as later.

/// The inception of a signature is this many seconds before it is made, because clocks of validators may be slow.
const BACKDATE: u32 = 3_600;
/// A signature is renewed this many seconds before its expiration, or earlier if its TTL requires that.
const LEFT: u32 = 3 * DAY;
/// How long renewals may fail, beyond the TTL, before signatures are too old to be served.
const MARGIN: u32 = DAY;
/// How long a signature lasts before it is renewed.
const SERVED: u32 = 4 * DAY;
/// Each signature is renewed earlier by a random time up to this one, so that signatures that were made together aren't
/// renewed together.
const JITTER: u32 = DAY / 2;
/// The seconds of a day.
const DAY: u32 = 86_400;

/// The longest TTL that is signed, because a signature has to be valid longer than its records are cached.
pub(crate) const LONGEST_TTL: u32 = 30 * DAY;

/// The time for which a signature is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// The inception.
    pub(crate) inception: u32,
    /// The expiration.
    pub(crate) expiration: u32,
}

impl Window {
    /// The window of a signature that is made now over an RRset of this TTL: seven days, or longer for a TTL above two
    /// days.
    pub(crate) fn new(now: u32, ttl: u32) -> Self {
        Self { inception: now.wrapping_sub(BACKDATE), expiration: now.wrapping_add(SERVED + left(ttl)) }
    }
}

/// How many seconds before its expiration a signature has to be renewed.
fn left(ttl: u32) -> u32 {
    LEFT.max(ttl.min(LONGEST_TTL) + MARGIN)
}

/// Whether `a` is before `b`.
pub(crate) fn is_before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

/// The fields of an RRSIG (RFC 4034 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rrsig<'a> {
    /// The number of the algorithm.
    pub(crate) algorithm: u8,
    /// The TTL of the RRset as it was signed.
    pub(crate) original_ttl: u32,
    /// The time for which the signature is valid.
    pub(crate) window: Window,
    /// The tag of the key.
    pub(crate) tag: u16,
    /// The octets of the signature, and of the signer's name before it.
    rest: &'a [u8],
}

impl<'a> Rrsig<'a> {
    /// Reads the RDATA of an RRSIG; `None` if it is too short.
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

    /// The first second at which the signature is no longer served. So records that are cached with it expire before
    /// the signature does.
    pub(crate) fn until(&self) -> u32 {
        self.window.expiration.wrapping_sub(self.original_ttl)
    }

    /// When the signature is due to be renewed. The random part comes from the signature's own octets.
    pub(crate) fn due(&self) -> u32 {
        let chance = self.rest.last_chunk::<4>().map_or(0, |octets| u32::from_be_bytes(*octets));
        self.window.expiration.wrapping_sub(left(self.original_ttl) + chance % JITTER)
    }

    /// Whether the signature needs no renewal at `now` nor before `horizon`, the time of the next check. A signature
    /// from the future isn't fresh, because it was made with a wrong clock.
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
