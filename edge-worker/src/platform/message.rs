//! A small request, whose answer is read as a whole, and that answer. Made by `runtime::feed::ask`; the `fetch` of each
//! platform takes the one and returns the other.

use core::ops::RangeInclusive;

use bailiwick_rules::time::Millis;

/// What an answer may be.
pub(crate) struct Limits {
    /// How long it may take, with its body.
    pub(crate) timeout: Millis,
    /// The most bytes of its body.
    pub(crate) bytes: usize,
    /// The statuses that say that it is good. The body of any other isn't read.
    pub(crate) success: RangeInclusive<u16>,
}

/// A request.
pub(crate) struct Outgoing<'a> {
    pub(crate) url: &'a str,
    /// Names and values of headers.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// The body of a POST. Without one, the request is a GET.
    pub(crate) body: Option<&'a str>,
    pub(crate) limits: &'a Limits,
}

/// An answer.
pub(crate) struct Incoming {
    pub(crate) status: u16,
    /// The values of the headers that were wanted.
    pub(crate) headers: Vec<Option<String>>,
    /// The body, if the status is good.
    pub(crate) bytes: Vec<u8>,
}
