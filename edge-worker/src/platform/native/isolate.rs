//! Random numbers, and the size of the memory. Called by `runtime`.

use core::cell::RefCell;

use ring::rand::{SecureRandom, SystemRandom};

/// How many random bytes are fetched at once: 64 numbers.
const STOCKED: usize = 512;

thread_local! {
    /// Random bytes for the next numbers, and how many of them were used.
    static STOCK: RefCell<([u8; STOCKED], usize)> = const { RefCell::new(([0; STOCKED], STOCKED)) };
}

/// A random number. Bytes are fetched from the system for many numbers at once.
pub(crate) fn random() -> u64 {
    STOCK.with_borrow_mut(|(stock, used)| {
        if *used == STOCKED {
            // Without random numbers, the numbers of isolates would be equal. They only tell their counts apart.
            let _ = SystemRandom::new().fill(stock);
            *used = 0;
        }
        let bytes = stock[*used..].first_chunk().copied().unwrap_or_default();
        *used += size_of::<u64>();
        u64::from_ne_bytes(bytes)
    })
}

/// The memory of the whole process in bytes, as far as it lies in RAM.
pub(crate) fn memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|text| text.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1_024)
}
