//! Writes lines of log to standard error. Called by `runtime`.

use std::io::Write;

/// Writes a line about something normal.
pub(crate) fn info(line: &str) {
    write(line);
}

/// Writes a line about something that needs attention.
pub(crate) fn warn(line: &str) {
    write(line);
}

/// Writes a line about a fault of this program.
pub(crate) fn error(line: &str) {
    write(line);
}

/// Writes a line in one call. If nobody reads it, it is lost.
fn write(line: &str) {
    let _ = std::io::stderr().lock().write_all([line, "\n"].concat().as_bytes());
}
