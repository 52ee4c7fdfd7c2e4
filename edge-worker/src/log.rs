//! Log lines: one JSON object of fixed fields each, handed to the runtime's console. The fields stand in docs/edge-operations.md.
//!
//! Nothing of a client's or an endpoint's own goes into one: no body, key, URL, address, and no text of an error.

use serde_json::Value;
use worker::{console_log, console_warn};

/// What is as it should be.
pub(crate) fn info(line: &Value) {
    console_log!("{line}");
}

/// What somebody should look at.
pub(crate) fn warn(line: &Value) {
    console_warn!("{line}");
}
