//! The name of this isolate for DNS nodes. Made at random once, and says nothing of anybody. Called by `leases` and
//! `observe`.

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
