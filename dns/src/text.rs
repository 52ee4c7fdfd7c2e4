//! Reads and makes text for people: suggestions for mistyped names, causes of errors, spans and times, and places in
//! JSON documents. Pure.

pub(crate) mod cause;
pub(crate) mod json_place;
pub(crate) mod nearest;
pub(crate) mod span;
