//! Facts about this isolate (one instance of the Worker, in one sandbox): its name for DNS nodes, and the size of its
//! memory. The name is a random number that is drawn once, so it identifies no person. Called by `leases`, `observe`
//! and `explain`.

use std::cell::Cell;

use crate::platform::isolate;

pub(crate) use crate::platform::isolate::memory_bytes;

thread_local! {
    static NUMBER: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The name of this isolate: 16 hexadecimal digits.
pub(crate) fn name() -> String {
    let number = NUMBER.get().unwrap_or_else(isolate::random);
    NUMBER.set(Some(number));
    format!("{number:016x}")
}
