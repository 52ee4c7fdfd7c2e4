//! Compact denial of existence (RFC 9824): a name and the types it has enter, the data of the one NSEC that denies the rest leaves; the answer
//! path calls it per query and has it signed.
//!
//! Every NSEC here matches the very name that was asked for and ends right behind it, so that it denies nothing else: no other name can be
//! learnt from it, and a resolver that synthesises from it (RFC 8198) synthesises what this server would have said.

use crate::name::{MAX_LABEL, MAX_NAME, NameRef};
use crate::rdata::rtype;

/// Where the NSEC of a name ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Right behind the name, before whatever could lie below it (RFC 9824 §3.1).
    Below,
    /// Right behind the name's first label, after all that lies below it: a delegation's, whose names below belong to another zone (RFC 9824
    /// §3.4).
    Beside,
}

/// The data of the NSEC of `owner` with these types. RRSIG and NSEC are added, as every NSEC is there and signed.
pub(crate) fn nsec(owner: NameRef<'_>, next: Next, types: impl IntoIterator<Item = u16>) -> Box<[u8]> {
    let mut rdata = match next {
        Next::Below => below(owner).unwrap_or_else(|| beside(owner)),
        Next::Beside => beside(owner),
    };
    append_bitmap(&mut rdata, types.into_iter().chain([rtype::RRSIG, rtype::NSEC]));
    rdata.into()
}

/// The first name below `owner` in canonical order: a label of one zero octet before it. `None` where that is longer than a name may be, and so
/// nothing lies below.
fn below(owner: NameRef<'_>) -> Option<Vec<u8>> {
    let wire = owner.as_wire();
    // In lower case: a signature covers this name as it is written (RFC 6840 §5.1), and should hold however the question was.
    (wire.len() + 2 <= MAX_NAME).then(|| [1, 0].iter().chain(wire).map(u8::to_ascii_lowercase).collect())
}

/// A name behind `owner` and all below it, with as little between as can be: the first label with a zero octet behind it or, where there is no
/// room, counted up by one in its last octet. The root has nothing beside it and begins anew.
fn beside(owner: NameRef<'_>) -> Vec<u8> {
    let wire: Vec<u8> = owner.as_wire().iter().map(u8::to_ascii_lowercase).collect();
    let Some(parent) = owner.parent() else { return wire };
    let (label, rest) = wire[1..].split_at(wire.len() - 1 - parent.as_wire().len());
    let mut label = label.to_vec();
    if label.len() < MAX_LABEL && wire.len() < MAX_NAME {
        label.push(0);
    } else {
        // Octets that can't be counted up are left off (RFC 4471 §3.1.2).
        while label.last() == Some(&u8::MAX) {
            label.pop();
        }
        match label.last_mut() {
            // Upper-case letters sort as lower-case ones.
            Some(last @ b'@') => *last = b'[',
            Some(last) => *last += 1,
            None => return beside(parent),
        }
    }
    let length = u8::try_from(label.len()).unwrap_or(u8::MAX);
    [&[length], label.as_slice(), rest].concat()
}

/// Appends the type bit maps (RFC 4034 §4.1.2): a window of 256 types after the other, each without the octets of zeros at its end.
fn append_bitmap(rdata: &mut Vec<u8>, types: impl IntoIterator<Item = u16>) {
    let mut types: Vec<u16> = types.into_iter().collect();
    types.sort_unstable();
    for window in types.chunk_by(|a, b| a >> 8 == b >> 8) {
        let mut bits = [0_u8; 32];
        let mut length = 0;
        for rtype in window {
            let [_, low] = rtype.to_be_bytes();
            bits[usize::from(low / 8)] |= 0x80 >> (low % 8);
            length = low / 8 + 1;
        }
        let [number, _] = window[0].to_be_bytes();
        rdata.extend_from_slice(&[number, length]);
        rdata.extend_from_slice(&bits[..usize::from(length)]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::name::Name;
    use crate::testing::name;

    fn next(owner: &str, next: Next) -> String {
        let rdata = nsec(name(owner).as_ref(), next, []);
        NameRef::from_wire(&rdata).unwrap().to_string()
    }

    #[test]
    fn rfc4034_4_3_the_bitmap_of_the_example() {
        let rdata = nsec(name("alfa.example.com").as_ref(), Next::Below, [1, 15, 1234]);
        let owner = b"\x01\x00\x04alfa\x07example\x03com\x00";
        let window = b"\x00\x06\x40\x01\x00\x00\x00\x03";
        let later = [&b"\x04\x1b"[..], &[0; 26], &[0x20]].concat();
        assert_eq!(*rdata, *[&owner[..], window, &later].concat());
    }

    #[test]
    fn rfc9824_3_1_and_3_4_where_an_nsec_ends() {
        assert_eq!(next("A.Example", Next::Below), "\\000.a.example.");
        assert_eq!(next("Sub.Example", Next::Beside), "sub\\000.example.");
        assert_eq!(next(".", Next::Below), "\\000.");
        let (long, at) = ("a".repeat(63), format!("{}\\@", "a".repeat(62)));
        assert_eq!(next(&format!("{long}.example"), Next::Beside), format!("{}b.example.", "a".repeat(62)));
        assert_eq!(next(&format!("{at}.example"), Next::Beside), format!("{}[.example.", "a".repeat(62)));
        let full = "\\255".repeat(63);
        assert_eq!(next(&format!("{full}.example"), Next::Beside), "example\\000.");
        let longest = format!("{long}.{long}.{long}.{}", "c".repeat(61));
        assert_eq!(next(&longest, Next::Below), format!("{}b.{long}.{long}.{}.", "a".repeat(62), "c".repeat(61)));
    }

    #[test]
    fn what_is_denied_is_the_name_alone() {
        let label = || prop::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(255), Just(b'@')], 1..5);
        let any_name = || {
            prop::collection::vec(label(), 1..5).prop_map(|labels| {
                let mut wire: Vec<u8> = labels
                    .iter()
                    .flat_map(|label| [&[u8::try_from(label.len()).unwrap()][..], label].concat())
                    .collect();
                wire.push(0);
                NameRef::from_wire(&wire).unwrap().to_name()
            })
        };
        proptest!(ProptestConfig::with_cases(2_000), |(owner in any_name(), other in any_name())| {
            let end = |next| NameRef::from_wire(&nsec(owner.as_ref(), next, [])).unwrap().to_name();
            let denied = |end: &Name| owner < other && other < *end;
            prop_assert!(owner < end(Next::Below) && !denied(&end(Next::Below)));
            let below = other.as_ref().is_within(owner.as_ref());
            prop_assert!(owner < end(Next::Beside) && (!denied(&end(Next::Beside)) || below));
        });
    }
}
