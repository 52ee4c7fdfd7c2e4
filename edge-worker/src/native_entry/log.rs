//! Lines of log of what both halves need of their machine, such as files that were read again: a JSON object on each
//! line, beside those of the edge. Called by `native_entry`.

use tracing_subscriber::EnvFilter;

/// Begins to write them to standard error. `RUST_LOG` selects them; by default, from `info` on.
pub(super) fn begin() {
    let filter = EnvFilter::builder().with_default_directive(tracing::Level::INFO.into()).from_env_lossy();
    let lines = tracing_subscriber::fmt().json().flatten_event(true).with_target(false).with_env_filter(filter);
    // Another log may have begun, as in tests.
    let _ = lines.with_writer(std::io::stderr).try_init();
}
