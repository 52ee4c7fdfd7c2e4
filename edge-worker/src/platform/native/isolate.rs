//! Random numbers, and the size of the memory. Called by `runtime`.

use ring::rand::{SecureRandom, SystemRandom};

/// A random number.
pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without random numbers, the numbers of isolates would be equal. They only tell their counts apart.
    let _ = SystemRandom::new().fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

/// The memory of the whole process in bytes, as far as it lies in RAM.
pub(crate) fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|text| text.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1_024)
}
