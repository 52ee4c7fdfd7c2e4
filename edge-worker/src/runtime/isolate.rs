//! Facts about this isolate (one instance of the Worker, in one sandbox): its name for DNS nodes, and the size of its
//! memory. The name is a random number that is drawn once, so it identifies no person. Called by `leases`, `observe`
//! and `explain`.

use std::cell::Cell;

use worker::js_sys::Math;

thread_local! {
    static NUMBER: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The name of this isolate: 16 hexadecimal digits.
pub(crate) fn name() -> String {
    let number = NUMBER.get().unwrap_or_else(|| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2^32")]
        let half = || (Math::random() * 4_294_967_296.0) as u64;
        half() << 32 | half()
    });
    NUMBER.set(Some(number));
    format!("{number:016x}")
}

/// The size of this isolate's Wasm memory in bytes. The memory grows and never shrinks.
pub(crate) fn memory_bytes() -> u64 {
    /// The size of a page of Wasm memory, in bytes.
    const PAGE: u64 = 65_536;
    #[cfg(target_arch = "wasm32")]
    let pages = core::arch::wasm32::memory_size::<0>();
    #[cfg(not(target_arch = "wasm32"))]
    let pages = 0_usize;
    pages as u64 * PAGE
}
