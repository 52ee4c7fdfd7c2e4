//! A hash of byte strings. It is the same in every isolate (running instance of the Worker) and in every version of the
//! Worker, so all of them choose the same endpoint for a key. Called by `plan::endpoint`, which ranks endpoints by it,
//! and by `sender`, which tells senders apart. Not cryptographic: don't use it where somebody may search for
//! collisions.

/// FNV-1a over the parts, with a byte 0xff after each part. Then the finaliser of SplitMix64 spreads the bits.
pub(crate) fn hash(parts: &[&[u8]]) -> u64 {
    let mut state: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        for byte in part.iter().chain(&[0xff]) {
            state = (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}
