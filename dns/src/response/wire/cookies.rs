//! DNS cookies (RFC 7873), in the interoperable form that all server programs understand (RFC 9018). Takes the option
//! of a request and the time, returns whether the server cookie is valid, and the option for the response. Called by
//! `wire`.

use std::net::IpAddr;

use siphasher::sip::SipHasher24;

/// The option code.
pub(super) const COOKIE: u16 = 10;
/// The length of a client cookie, in octets.
const CLIENT: usize = 8;
/// The lengths that a server cookie may have, in octets (RFC 7873 §4).
const SERVER: std::ops::RangeInclusive<usize> = 8..=32;
/// The length of a whole option as this server writes it, in octets.
const WHOLE: usize = CLIENT + 16;
/// The version octet and the three reserved octets (RFC 9018 §4.1).
const HEAD: [u8; 4] = [1, 0, 0, 0];
/// How long a cookie is valid, in seconds (RFC 9018 §4.3).
const OLDEST: i32 = 3600;
/// How far a cookie's time may be in the future, in seconds, because another node's clock may be ahead.
const AHEAD: i32 = 300;
/// Up to this age in seconds, a valid cookie is returned unchanged. An older one is replaced.
const FRESH: i32 = 1800;

/// A COOKIE option of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cookie<'a> {
    client: [u8; CLIENT],
    /// Empty, or 8 to 32 octets.
    server: &'a [u8],
}

impl<'a> Cookie<'a> {
    /// Reads the option's data; `None` for a length that must be answered with FORMERR (RFC 7873 §5.2.2).
    pub(super) fn read(data: &'a [u8]) -> Option<Self> {
        let (client, server) = data.split_first_chunk::<CLIENT>()?;
        (server.is_empty() || SERVER.contains(&server.len())).then_some(Self { client: *client, server })
    }

    /// Whether there is a server cookie, valid or not.
    pub(super) fn has_server(&self) -> bool {
        !self.server.is_empty()
    }
}

/// The verdict on a request's cookie, and the cookie for the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CookieCheck {
    /// Whether the server cookie is valid. Then the client has received a cookie at this address before.
    pub(super) proven: bool,
    /// The data of the response's option.
    pub(super) reply: [u8; WHOLE],
}

/// The secrets of server cookies, and whether a valid server cookie is required.
#[derive(Clone)]
pub struct Cookies {
    /// The first secret signs, all secrets verify. Never empty.
    secrets: Vec<[u8; 16]>,
    required: bool,
}

impl Cookies {
    /// Signs with the first secret, and accepts cookies that any of the secrets signed. Without secrets, uses a random
    /// one, so cookies are valid only for this process. With `required`, a datagram with a COOKIE option but without a
    /// valid server cookie gets BADCOOKIE.
    #[must_use]
    pub fn new(secrets: Vec<[u8; 16]>, required: bool) -> Self {
        let secrets = if secrets.is_empty() { vec![random()] } else { secrets };
        Self { secrets, required }
    }

    /// A random secret; server cookies aren't required.
    #[must_use]
    pub fn random() -> Self {
        Self::new(Vec::new(), false)
    }

    /// Whether a datagram with a COOKIE option needs a valid server cookie.
    pub(super) fn required(&self) -> bool {
        self.required
    }

    /// Judges a request's cookie, and makes the cookie for the response.
    pub(super) fn check(&self, cookie: &Cookie<'_>, from: IpAddr, now: u32) -> CookieCheck {
        let age = self.age(cookie, from, now);
        let mut reply = [0; WHOLE];
        reply[..CLIENT].copy_from_slice(&cookie.client);
        match age {
            Some(..=FRESH) => reply[CLIENT..].copy_from_slice(cookie.server),
            _ => {
                let [version, reserved @ ..] = HEAD;
                let [a, b, c] = reserved;
                let [t0, t1, t2, t3] = now.to_be_bytes();
                let head = [version, a, b, c, t0, t1, t2, t3];
                reply[CLIENT..16].copy_from_slice(&head);
                reply[16..].copy_from_slice(&hash(&self.secrets[0], &cookie.client, &head, from));
            }
        }
        CookieCheck { proven: age.is_some(), reply }
    }

    /// The age of the server cookie in seconds; `None` if it isn't valid or is missing.
    fn age(&self, cookie: &Cookie<'_>, from: IpAddr, now: u32) -> Option<i32> {
        // The reserved octets are hashed as they arrived (RFC 9018 §4.2). A cookie of another version isn't valid here.
        let (head, tail) = cookie.server.split_first_chunk::<8>()?;
        let [1, _, _, _, stamp @ ..] = *head else { return None };
        // The time may wrap, so it is compared by serial number arithmetic (RFC 9018 §4.3).
        let age = now.wrapping_sub(u32::from_be_bytes(stamp)).cast_signed();
        let in_time = (-AHEAD..=OLDEST).contains(&age);
        let good = |secret| same(&hash(secret, &cookie.client, head, from), tail);
        (in_time && self.secrets.iter().any(good)).then_some(age)
    }
}

impl std::fmt::Debug for Cookies {
    /// Shows only the number of secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cookies({} secrets)", self.secrets.len())
    }
}

/// SipHash-2-4 over client cookie, version, reserved octets, time stamp and address (RFC 9018 §4.4). The octets are
/// little-endian, as in the reference implementation.
fn hash(secret: &[u8; 16], client: &[u8; CLIENT], head: &[u8; 8], from: IpAddr) -> [u8; 8] {
    let mut input = [0; CLIENT + 8 + 16];
    input[..8].copy_from_slice(client);
    input[8..16].copy_from_slice(head);
    let length = match from.to_canonical() {
        IpAddr::V4(address) => {
            input[16..20].copy_from_slice(&address.octets());
            20
        }
        IpAddr::V6(address) => {
            input[16..].copy_from_slice(&address.octets());
            32
        }
    };
    SipHasher24::new_with_key(secret).hash(&input[..length]).to_le_bytes()
}

/// Compares two hashes. The time that this takes doesn't depend on where they differ.
fn same(ours: &[u8; 8], theirs: &[u8]) -> bool {
    ours.len() == theirs.len() && ours.iter().zip(theirs).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// A random secret. If the system gives no random bytes, the hash keys of `RandomState` are used, which are still
/// better than a constant. Even if somebody guesses cookies, that does no more harm than serving without cookies.
fn random() -> [u8; 16] {
    let mut secret = [0; 16];
    if getrandom::fill(&mut secret).is_err() {
        use std::hash::{BuildHasher, RandomState};
        let (high, low) = (RandomState::new().hash_one(1), RandomState::new().hash_one(2));
        secret = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
    }
    secret
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
    }

    fn secret(hex: &str) -> [u8; 16] {
        octets(hex).try_into().expect("16 octets")
    }

    fn check(cookies: &Cookies, option: &str, from: &str, now: u32) -> (bool, String) {
        let option = octets(option);
        let checked = cookies.check(&Cookie::read(&option).expect("a cookie"), from.parse().expect("address"), now);
        let reply = checked.reply.iter().map(|octet| format!("{octet:02x}")).collect();
        (checked.proven, reply)
    }

    /// RFC 9018 appendix A.
    #[test]
    fn rfc9018_a_examples() {
        let one = Cookies::new(vec![secret("e5e973e5a6b2a43f48e7dc849e37bfcf")], false);
        let first = "2464c4abcf10c957010000005cf79f111f8130c3eee29480";
        assert_eq!(check(&one, "2464c4abcf10c957", "198.51.100.100", 1_559_731_985), (false, first.to_owned()));
        let renewed = "2464c4abcf10c957010000005cf7a871d4a564a1442aca77";
        assert_eq!(check(&one, first, "198.51.100.100", 1_559_734_385), (true, renewed.to_owned()));
        let reserved = "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5";
        let answered = "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e";
        // The example's server accepts a cookie of nearly two hours. §4.3 recommends to accept none after one hour.
        assert!(check(&one, reserved, "203.0.113.203", 1_559_727_985 + 600).0);
        assert_eq!(check(&one, reserved, "203.0.113.203", 1_559_734_700), (false, answered.to_owned()));
        assert!(!check(&one, &reserved.replace("abcdef", "abcdee"), "203.0.113.203", 1_559_727_985).0);
        let both = Cookies::new(
            vec![secret("445536bcd2513298075a5d379663c962"), secret("dd3bdf9344b678b185a6f5cb60fca715")],
            false,
        );
        let old = "22681ab97d52c298010000005cf7c57926556bd0934c72f8";
        let new = "22681ab97d52c298010000005cf7c609a6bb79d16625507a";
        let from = "2001:db8:220:1:59de:d0f4:8769:82b8";
        assert!(check(&both, old, from, 1_559_741_961).0);
        assert_eq!(check(&both, "22681ab97d52c298", from, 1_559_741_961), (false, new.to_owned()));
    }

    #[test]
    fn rfc9018_4_3_a_cookie_is_valid_for_an_hour_also_when_the_time_wraps() {
        for issued in [1_559_731_985_u32, u32::MAX - 100] {
            let cookies = Cookies::random();
            let (_, cookie) = check(&cookies, "0102030405060708", "192.0.2.1", issued);
            for (later, proven) in [(0, true), (1800, true), (3600, true), (3601, false), (100_000, false)] {
                let (reported, reply) = check(&cookies, &cookie, "192.0.2.1", issued.wrapping_add(later));
                assert_eq!(reported, proven, "{later}");
                assert_eq!(reply == cookie, later <= 1800, "{later}");
            }
            assert!(check(&cookies, &cookie, "192.0.2.1", issued.wrapping_sub(300)).0);
            assert!(!check(&cookies, &cookie, "192.0.2.1", issued.wrapping_sub(301)).0);
            assert!(!check(&cookies, &cookie, "192.0.2.2", issued).0, "another address");
            assert!(!check(&Cookies::random(), &cookie, "192.0.2.1", issued).0, "another secret");
            assert!(check(&cookies, &cookie, "::ffff:192.0.2.1", issued).0);
        }
    }

    #[test]
    fn rfc7873_5_2_2_lengths_are_8_or_16_to_40() {
        for length in 0..64 {
            let fits = length == 8 || (16..=40).contains(&length);
            assert_eq!(Cookie::read(&vec![7; length]).is_some(), fits, "{length}");
        }
    }
}
