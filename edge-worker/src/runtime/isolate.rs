//! What this isolate is: its name for DNS nodes, and its memory. The name is made at random once, and says nothing of
//! anybody. Called by `leases`, `observe` and `explain`.

use std::cell::Cell;

use worker::js_sys::Math;

thread_local! {
    static NUMBER: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The name: 16 hexadecimal digits.
pub(crate) fn name() -> String {
    let number = NUMBER.get().unwrap_or_else(|| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2^32")]
        let half = || (Math::random() * 4_294_967_296.0) as u64;
        half() << 32 | half()
    });
    NUMBER.set(Some(number));
    format!("{number:016x}")
}

/// The bytes of its Wasm memory. It grows and never shrinks.
pub(crate) fn memory_bytes() -> u64 {
    /// Of Wasm.
    const PAGE: u64 = 65_536;
    #[cfg(target_arch = "wasm32")]
    let pages = core::arch::wasm32::memory_size::<0>();
    #[cfg(not(target_arch = "wasm32"))]
    let pages = 0_usize;
    pages as u64 * PAGE
}
