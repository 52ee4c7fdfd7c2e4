//! Random numbers from the system, for pauses and phases. If the system gives none, all nodes and tasks act at the same
//! times, which does little harm. Keys and secrets are made elsewhere, with code that fails then.

/// 64 random bits; all zero if the system gives none.
#[must_use]
pub fn bits() -> u64 {
    let mut bytes = [0; 8];
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// A random number from 0 to just below 1.
#[must_use]
pub fn part() -> f64 {
    // An `f64` holds 53 bits exactly.
    (bits() >> 11) as f64 / (1_u64 << 53) as f64
}
