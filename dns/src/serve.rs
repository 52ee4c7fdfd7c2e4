//! `bailiwick serve`.

use std::process::ExitCode;
use std::time::SystemTime;

use bailiwick_rules::time::Timestamp;

pub(crate) fn run(_: &crate::cli::ServeArgs) -> ExitCode {
    ExitCode::FAILURE
}

/// The time by the system's clock.
#[must_use]
pub fn system_time() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
