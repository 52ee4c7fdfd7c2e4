//! Compact denial of existence (RFC 9824). Takes a name and its types, returns the RDATA of the NSEC that denies all
//! other types. Called for each query that needs a denial; the caller signs the NSEC.
//!
//! Each NSEC matches exactly the queried name and ends directly after it, so it denies nothing else and reveals no
//! other name. A resolver that synthesises answers from the NSEC (RFC 8198) gives the answers that this server would
//! give.

use crate::protocol::name::{MAX_LABEL, MAX_NAME, NameRef};
use crate::protocol::rdata::rtype;
use crate::protocol::type_bitmap;
use crate::zone::{NodeId, Zone};

/// The next domain name of a name's NSEC (RFC 4034 §4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The first name after the queried name, so that the NSEC covers no name below it (RFC 9824 §3.1).
    Below,
    /// The first name after all names below the queried name. For a delegation, because the names below it belong to
    /// another zone (RFC 9824 §3.4).
    Beside,
}

impl Next {
    /// The next domain name for the NSEC of an existing name.
    pub(crate) fn of(zone: &Zone, node: NodeId) -> Self {
        if zone.is_cut(node) { Self::Beside } else { Self::Below }
    }
}

/// The RDATA of the NSEC of `owner`, a name of the zone `origin`, with these types. The types RRSIG and NSEC are added,
/// because the name has a signed NSEC.
pub(crate) fn nsec(
    owner: NameRef<'_>,
    origin: NameRef<'_>,
    next: Next,
    types: impl IntoIterator<Item = u16>,
) -> Box<[u8]> {
    let mut rdata = match next {
        Next::Below => below(owner).unwrap_or_else(|| beside(owner, origin)),
        Next::Beside => beside(owner, origin),
    };
    type_bitmap::append(&mut rdata, types.into_iter().chain([rtype::RRSIG, rtype::NSEC]));
    rdata.into()
}

/// The first name below `owner` in canonical order: `owner` with a label of one zero octet before it. `None` if that is
/// too long for a name; then no name can be below `owner`.
fn below(owner: NameRef<'_>) -> Option<Vec<u8>> {
    let wire = owner.as_wire();
    // The name is in lower case. A signature covers it as it is written (RFC 6840 §5.1), and the same signature has to
    // be valid for all spellings of the queried name.
    (wire.len() + 2 <= MAX_NAME).then(|| [1, 0].iter().chain(wire).map(u8::to_ascii_lowercase).collect())
}

/// The first possible name of the zone after `owner` and all names below it: the first label with a zero octet
/// appended, or, if the label is full, with its last octet increased by one. If no name of the zone can follow, the
/// apex, because the last NSEC of a zone points there (RFC 4034 §4.1.1). A name outside of the zone would make the NSEC
/// bogus.
fn beside(owner: NameRef<'_>, origin: NameRef<'_>) -> Vec<u8> {
    let wire: Vec<u8> = owner.as_wire().iter().map(u8::to_ascii_lowercase).collect();
    let Some(parent) = owner.parent().filter(|_| owner != origin) else { return wire };
    let (label, rest) = wire[1..].split_at(wire.len() - 1 - parent.as_wire().len());
    let mut label = label.to_vec();
    if label.len() < MAX_LABEL && wire.len() < MAX_NAME {
        label.push(0);
    } else {
        // Octets that can't be increased are removed (RFC 4471 §3.1.2).
        while label.last() == Some(&u8::MAX) {
            label.pop();
        }
        match label.last_mut() {
            // Upper-case letters are skipped, because they sort as lower-case letters.
            Some(last @ b'@') => *last = b'[',
            Some(last) => *last += 1,
            None => return beside(parent, origin),
        }
    }
    let length = u8::try_from(label.len()).unwrap_or(u8::MAX);
    [&[length], label.as_slice(), rest].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::name::Name;
    use crate::testing::name;

    fn next_in(origin: &str, owner: &str, next: Next) -> String {
        let rdata = nsec(name(owner).as_ref(), name(origin).as_ref(), next, []);
        NameRef::from_wire(&rdata).unwrap().to_string()
    }

    fn next(owner: &str, next: Next) -> String {
        next_in(".", owner, next)
    }

    #[test]
    fn rfc4034_4_3_the_bitmap_of_the_example() {
        let rdata = nsec(name("alfa.example.com").as_ref(), name("example.com").as_ref(), Next::Below, [1, 15, 1234]);
        let owner = b"\x01\x00\x04alfa\x07example\x03com\x00";
        let window = b"\x00\x06\x40\x01\x00\x00\x00\x03";
        let later = [&b"\x04\x1b"[..], &[0; 26], &[0x20]].concat();
        assert_eq!(*rdata, *[&owner[..], window, &later].concat());
    }

    #[test]
    fn rfc9824_3_1_and_3_4_the_next_domain_name() {
        assert_eq!(next("A.Example", Next::Below), "\\000.a.example.");
        assert_eq!(next("Sub.Example", Next::Beside), "sub\\000.example.");
        assert_eq!(next(".", Next::Below), "\\000.");
        let (long, at) = ("a".repeat(63), format!("{}\\@", "a".repeat(62)));
        assert_eq!(next(&format!("{long}.example"), Next::Beside), format!("{}b.example.", "a".repeat(62)));
        assert_eq!(next(&format!("{at}.example"), Next::Beside), format!("{}[.example.", "a".repeat(62)));
        let longest = format!("{long}.{long}.{long}.{}", "c".repeat(61));
        assert_eq!(next(&longest, Next::Below), format!("{}b.{long}.{long}.{}.", "a".repeat(62), "c".repeat(61)));
    }

    #[test]
    fn rfc4034_4_1_1_the_apex_follows_the_last_name() {
        let full = "\\255".repeat(63);
        assert_eq!(next_in("example", &format!("{full}.example"), Next::Beside), "example.");
        assert_eq!(next_in("example", &format!("{full}.a.example"), Next::Beside), "a\\000.example.");
        assert_eq!(next_in("example", &format!("{full}.{full}.example"), Next::Beside), "example.");
        assert_eq!(
            next_in("example", &format!("{full}.{full}.{full}.{}.example", "\\255".repeat(53)), Next::Below),
            format!("{}\\000.example.", "\\255".repeat(53))
        );
        assert_eq!(next_in(".", &full, Next::Beside), ".");
        let long = "a".repeat(63);
        let apex = format!("{long}.{long}.{long}.{}", "c".repeat(60));
        assert_eq!(next_in(&apex, &apex, Next::Below), format!("{apex}."), "no name can be below the longest name");
    }

    /// Labels of every length, most with octets that are hard to count up.
    fn label() -> impl Strategy<Value = Vec<u8>> {
        let octet = || prop_oneof![any::<u8>(), Just(0), Just(255), Just(b'@'), Just(b'Z'), Just(b'a')];
        let full = prop_oneof![Just(255_u8), Just(b'@'), Just(0), Just(b'z')].prop_map(|octet| vec![octet; MAX_LABEL]);
        prop_oneof![
            4 => prop::collection::vec(octet(), 1..5),
            1 => prop::collection::vec(octet(), 60..=MAX_LABEL),
            1 => full.clone(),
            1 => (full, octet(), 0..MAX_LABEL).prop_map(|(mut label, octet, at)| { label[at] = octet; label }),
        ]
    }

    /// A name of the zone with these labels, as many as fit. If `stretched`, its first label is as long as possible.
    fn within(origin: &Name, labels: &[Vec<u8>], stretched: bool) -> Name {
        let mut wire = origin.as_wire().to_vec();
        for (at, label) in labels.iter().enumerate() {
            let room = MAX_NAME.saturating_sub(wire.len() + 1);
            let mut label = label.clone();
            if stretched && at + 1 == labels.len() {
                label.resize(MAX_LABEL, 255);
            }
            label.truncate(room);
            if !label.is_empty() {
                wire = [&[u8::try_from(label.len()).unwrap()], label.as_slice(), &wire].concat();
            }
        }
        NameRef::from_wire(&wire).unwrap().to_name()
    }

    /// Names close to another name in canonical order. If a name lies between a name and its successor, it is probably
    /// one of these.
    fn neighbours(origin: &Name, of: &Name) -> Vec<Name> {
        let Some(labels) = of.as_ref().strip_suffix(origin.as_ref()) else { return Vec::new() };
        let first = usize::from(labels.first().copied().unwrap_or(0));
        let Some((label, rest)) = labels.get(1..).and_then(|labels| labels.split_at_checked(first)) else {
            return Vec::new();
        };
        let mut variants = vec![[label, &[0]].concat(), [label, &[255]].concat()];
        let counted = label.iter().rposition(|octet| *octet < 255).map(|at| {
            let mut label = label[..=at].to_vec();
            label[at] += 1;
            label
        });
        variants.extend(counted);
        let beside = variants.iter().filter(|label| label.len() <= MAX_LABEL).filter_map(|label| {
            Name::join(&[&[u8::try_from(label.len()).unwrap()], label.as_slice(), rest].concat(), origin.as_ref())
        });
        let below = [&b"\x01\x00"[..], b"\x01\xff", b"\x02\x00\x00"].map(|below| Name::join(below, of.as_ref()));
        beside.chain(below.into_iter().flatten()).collect()
    }

    #[test]
    fn the_next_name_is_in_the_zone_and_behind_and_nothing_that_exists_lies_between() {
        let labels = || prop::collection::vec(label(), 0..6);
        proptest!(ProptestConfig::with_cases(1_000), |(apex in prop::collection::vec(label(), 0..4), owner in labels(),
            other in labels(), stretched in any::<bool>())| {
            let origin = within(&Name::root(), &apex, false);
            let (owner, other) = (within(&origin, &owner, stretched), within(&origin, &other, false));
            for next in [Next::Below, Next::Beside] {
                let rdata = nsec(owner.as_ref(), origin.as_ref(), next, []);
                let end = NameRef::from_wire(&rdata).unwrap().to_name();
                prop_assert!(end.as_ref().is_within(origin.as_ref()), "{} outside {}", end, origin);
                let begins_anew = end == origin;
                prop_assert!(begins_anew || owner < end);
                let near = neighbours(&origin, &owner);
                let nearer = neighbours(&origin, &end);
                for other in near.iter().chain(&nearer).chain([&other]) {
                    let denied = owner < *other && (begins_anew || *other < end);
                    let is_below = next == Next::Beside && other.as_ref().is_within(owner.as_ref());
                    prop_assert!(!denied || is_below, "{} lies between {} and {}", other, owner, end);
                }
            }
        });
    }
}
