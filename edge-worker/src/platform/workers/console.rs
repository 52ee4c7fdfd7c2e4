//! Writes lines to the runtime's console. Called by `runtime`.

use worker::{console_error, console_log, console_warn};

/// Writes a line about something normal.
pub(crate) fn info(line: &str) {
    console_log!("{line}");
}

/// Writes a line about something that needs attention.
pub(crate) fn warn(line: &str) {
    console_warn!("{line}");
}

/// Writes a line about a fault of this program.
pub(crate) fn error(line: &str) {
    console_error!("{line}");
}
