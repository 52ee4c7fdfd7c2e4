//! Reads variables and secrets of the Worker. Takes a name, returns the value. Values are read where they are used, and
//! are never logged.

use std::cell::RefCell;
use std::collections::HashMap;

use worker::Env;

/// For at most this many names of secrets, it is remembered whether they have a value.
const MAX_NAMES: usize = 4_096;

/// A variable or secret, if it exists and is a text.
pub(crate) fn text(env: &Env, name: &str) -> Option<String> {
    worker::js_sys::Reflect::get(env, &name.into()).ok()?.as_string()
}

/// Whether a secret exists and isn't empty. An isolate's variables never change, so each is read once.
pub(crate) fn has(env: &Env, name: &str) -> bool {
    thread_local! {
        static THERE: RefCell<HashMap<Box<str>, bool>> = RefCell::default();
    }
    if let Some(there) = THERE.with_borrow(|names| names.get(name).copied()) {
        return there;
    }
    let there = text(env, name).is_some_and(|value| !value.is_empty());
    THERE.with_borrow_mut(|names| {
        // Each change of the rules may name new secrets, so the map could grow without limit.
        if names.len() >= MAX_NAMES {
            names.clear();
        }
        names.insert(name.into(), there);
    });
    there
}
