//! Whether the platform has a secret. Takes a name, returns whether it has a value. Values are read where they are
//! used, and are never logged.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::platform::Env;

/// For at most this many names of secrets, it is remembered whether they have a value.
const MAX_NAMES: usize = 4_096;

/// Whether a secret exists and isn't empty. An isolate's variables never change, so each is read once.
pub(crate) fn has(env: &Env, name: &str) -> bool {
    thread_local! {
        static THERE: RefCell<HashMap<Box<str>, bool>> = RefCell::default();
    }
    if let Some(there) = THERE.with_borrow(|names| names.get(name).copied()) {
        return there;
    }
    let there = env.text(name).is_some_and(|value| !value.is_empty());
    THERE.with_borrow_mut(|names| {
        // Each change of the rules may name new secrets, so the map could grow without limit.
        if names.len() >= MAX_NAMES {
            names.clear();
        }
        names.insert(name.into(), there);
    });
    there
}
