//! Chance, as the system gives it. For pauses and phases: without any random bytes all do the same at once, which does
//! little harm. Keys and secrets are made elsewhere, and fail then.

/// Random bits; none are set if the system gives none.
pub(crate) fn bits() -> u64 {
    let mut bytes = [0; 8];
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// A number from 0 to 1.
pub(crate) fn part() -> f64 {
    // As many bits as such a number holds.
    (bits() >> 11) as f64 / (1_u64 << 53) as f64
}
