//! Random numbers, and the size of the memory. Called by `runtime`.

use worker::js_sys::Math;

/// A random number, which is no secret.
pub(crate) fn random() -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2^32")]
    let half = || (Math::random() * 4_294_967_296.0) as u64;
    half() << 32 | half()
}

/// The size of the Wasm memory in bytes. The memory grows and never shrinks.
pub(crate) fn memory_bytes() -> u64 {
    /// The size of a page of Wasm memory, in bytes.
    const PAGE: u64 = 65_536;
    #[cfg(target_arch = "wasm32")]
    let pages = core::arch::wasm32::memory_size::<0>();
    #[cfg(not(target_arch = "wasm32"))]
    let pages = 0_usize;
    pages as u64 * PAGE
}
