//! Compares and hashes names without regard to ASCII case, eight octets at a time. Takes names and labels in wire
//! format. Called for each query by `name`, the zones' index and the memo.
//!
//! Length octets are at most 63, so they are never taken for letters.

/// Whether two runs of octets are the same, apart from the case of ASCII letters.
#[inline]
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let (Some(last_a), Some(last_b)) = (a.last_chunk::<8>(), b.last_chunk::<8>()) else {
        return lower_case(short(a)) == lower_case(short(b));
    };
    let ((words_a, _), (words_b, _)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let differ = |a: &[u8; 8], b: &[u8; 8]| lower_case(u64::from_le_bytes(*a)) != lower_case(u64::from_le_bytes(*b));
    // The last eight octets may overlap the word before. Comparing some twice costs nothing.
    !differ(last_a, last_b) && !words_a.iter().zip(words_b).any(|(a, b)| differ(a, b))
}

/// A hash of octets. Octets that [`same`] takes as equal have the same hash. Other octets may have it too, so the
/// caller has to compare what it finds by the hash.
#[inline]
pub(crate) fn hash(octets: &[u8], seed: u64) -> u64 {
    const STIR: u64 = 0x9e37_79b9_7f4a_7c15;
    /// The bits that tell lower from upper case; the hash ignores them. Other octets that differ only in such a bit
    /// then have the same hash, and are distinguished by comparing.
    const FOLD: u64 = 0x2020_2020_2020_2020;
    let mut hash = seed ^ octets.len() as u64;
    let mut stir = |word: u64| {
        hash = (hash.rotate_left(23) ^ (word | FOLD)).wrapping_mul(STIR);
        hash ^= hash >> 29;
    };
    match octets.last_chunk::<8>() {
        Some(last) => {
            let (words, rest) = octets.as_chunks::<8>();
            words.iter().for_each(|word| stir(u64::from_le_bytes(*word)));
            if !rest.is_empty() {
                stir(u64::from_le_bytes(*last));
            }
        }
        None => stir(short(octets)),
    }
    hash
}

/// Packs fewer than eight octets into a word. Each octet is in it at least once.
#[inline]
fn short(octets: &[u8]) -> u64 {
    match (octets.first_chunk::<4>(), octets.last_chunk::<4>(), octets) {
        (Some(first), Some(last), _) => {
            u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32
        }
        (_, _, [first, .., last]) => u64::from(u32::from_le_bytes([*first, octets[octets.len() / 2], *last, 0])),
        (_, _, [only]) => u64::from(*only),
        (_, _, []) => 0,
    }
}

/// Eight octets in lower case, all at once: bit 5 is set in those from `A` to `Z`.
#[inline]
fn lower_case(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    let low = word & !HIGH;
    let from_a = low + (0x80 - b'A' as u64) * ONES;
    let beyond_z = low + (0x7f - b'Z' as u64) * ONES;
    let upper = from_a & !beyond_z & !word & HIGH;
    word | upper >> 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_octet_is_lowered_as_ascii_is_in_every_place() {
        for octet in 0..=u8::MAX {
            for at in 0..8 {
                let mut word = *b"aZ@[`{A\xc1";
                word[at] = octet;
                assert_eq!(
                    lower_case(u64::from_le_bytes(word)),
                    u64::from_le_bytes(word.map(|one| one.to_ascii_lowercase()))
                );
            }
        }
    }

    #[test]
    fn one_octet_more_less_or_other_makes_another_of_every_length() {
        for length in 0..=40 {
            let lower: Vec<u8> = (0..length).map(|at| b'a' + at % 26).collect();
            let upper = lower.to_ascii_uppercase();
            assert!(same(&lower, &upper) && hash(&lower, 1) == hash(&upper, 1), "{length} octets");
            assert_ne!(hash(&lower, 1), hash(&lower, 2));
            let longer = [&lower[..], b"a"].concat();
            assert!(!same(&lower, &longer) && hash(&lower, 1) != hash(&longer, 1), "{length} octets");
            for at in 0..lower.len() {
                // Bit 5 also distinguishes `@` from a back quote, which aren't letters.
                for other in [b'-', b'@', lower[at] | 0x80] {
                    let mut changed = lower.clone();
                    changed[at] = other;
                    assert!(!same(&lower, &changed) && hash(&lower, 1) != hash(&changed, 1), "octet {at} of {length}");
                    assert!(!same(&changed, &[&changed[..at], b"`", &changed[at + 1..]].concat()));
                }
            }
        }
    }
}
