//! Reads `aggregate`. Called by the reader of the document.

use super::http;
use super::value::{duration, secret_name};
use crate::json::{Node, Reader};
use crate::rules::Aggregate;
use crate::time::Millis;

/// The shortest and the longest interval. Intervals are whole parts of a day, so that each begins at the same time on
/// all nodes and on all days.
const DAY: Millis = Millis(24 * 3_600_000);
const SHORTEST: Millis = Millis(10_000);
/// The fewest requests that may be told. With fewer, a sum of two small numbers tells both too often.
const FEWEST: u64 = 5;

pub(super) fn aggregate(reader: &mut Reader<'_>, node: &Node) -> Option<Aggregate> {
    let mut fields = reader.object(node)?;
    let hint = "the receiver, such as \"https://metrics.example.net/v1/metrics\"";
    let otlp = fields.required("otlp", hint, http::base_url);
    let secret = fields.optional("secret", secret_name);
    let every = fields.optional("every", |reader, node| {
        let every = duration(reader, node, SHORTEST..=DAY)?;
        if DAY.0.is_multiple_of(every.0) {
            return Some(every);
        }
        reader.fail("is no whole part of a day; write one such as \"1m\", \"5m\" or \"1h\"")
    });
    let min_count = fields.optional("min_count", |reader, node| reader.integer(node, FEWEST..=1_000_000));
    fields.optional("tenants", |reader, node| match node {
        Node::Bool(false) => Some(()),
        _ => reader.fail("has to be false: Workers observe no tenants, so they can't be told apart"),
    });
    fields.finish();
    Some(Aggregate {
        otlp: otlp?,
        secret,
        every: every.unwrap_or_else(crate::rules::one_minute),
        min_count: min_count.and_then(|count| u32::try_from(count).ok()).unwrap_or_else(crate::rules::twenty),
        tenants: false,
    })
}
