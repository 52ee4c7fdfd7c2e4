//! The log of the server. Takes a filter and a format; from then on, log lines are written to standard error through a
//! queue. Called by `serve`.

pub(super) mod format;
pub(super) mod queue;

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::time::Duration;

use bailiwick_host::system::clock::Clock;
use tracing_subscriber::EnvFilter;

use crate::program::logs::queue::{Lines, LogQueue};
use format::{JsonLines, TextFields};

/// hickory logs every answer with the client's address at INFO, and malformed packets at WARN. Packets must not be able
/// to fill a log, and the metrics count them anyway. So the targets of hickory are off unless the filter names one.
const QUIET: [&str; 3] = ["hickory_server=off", "hickory_proto=off", "hickory_net=off"];

/// How long the program waits at its end for lines that aren't written yet.
const LAST_LINES: Duration = Duration::from_secs(1);

/// How logs are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The running log.
pub(super) struct Logs(Arc<LogQueue>);

impl Logs {
    /// Waits until all lines are written, for at most [`LAST_LINES`].
    pub(super) fn finish(&self) {
        self.0.finish(LAST_LINES);
    }
}

/// Starts to log the events that `filter` selects, and panics. Without `filter`, the variable `RUST_LOG` selects them,
/// and without that, the level `info`.
pub(super) fn begin(filter: Option<&str>, format: LogFormat) -> Result<Logs, String> {
    let filter = filter.map(str::to_owned).or_else(|| std::env::var("RUST_LOG").ok()).filter(|text| !text.is_empty());
    let filter = self::filter(filter.as_deref().unwrap_or("info"))?;
    let failed = |error: &dyn std::fmt::Display| format!("logs can't be written: {error}");
    // The queue writes to a copy, without the lock of `stderr()`. Otherwise other writers would wait while a reader
    // stalls.
    let sink = std::io::stderr().as_fd().try_clone_to_owned().map(File::from).map_err(|error| failed(&error))?;
    let queue = LogQueue::start(sink, format, Clock::system()).map_err(|error| failed(&error))?;
    // The queue counts lines that can't be written. A message about them would go to standard error, and fail too.
    let log = tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false);
    let log = log.with_writer(Lines(Arc::clone(&queue)));
    let begun = match format {
        LogFormat::Json => log.event_format(JsonLines).try_init(),
        LogFormat::Text => {
            let colour =
                std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            log.fmt_fields(TextFields).with_ansi(colour).with_target(false).try_init()
        }
    };
    begun.map_err(|error| failed(&error))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(Logs(queue))
}

/// Logs a panic, in place of the hook that would write to standard error and may wait there for ever.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or_default();
    let name = thread.name().unwrap_or_default();
    tracing::error!(thread = name, place, message, "a fault of this program (a panic); please report it");
}

/// Reads a filter, and adds what is [`QUIET`] unless the filter names it.
fn filter(text: &str) -> Result<EnvFilter, String> {
    let quiet = QUIET.iter().filter(|_| !text.contains("hickory"));
    let whole = quiet.fold(text.to_owned(), |all, directive| format!("{all},{directive}"));
    EnvFilter::try_new(&whole).map_err(|error| {
        format!("--log: \"{text}\" is no filter ({error}); write a level such as debug, or bailiwick_dns=debug,info")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hickory_is_quiet_unless_named() {
        assert!(filter("debug").unwrap().to_string().contains("hickory_server=off"));
        assert!(!filter("info,hickory_server=debug").unwrap().to_string().contains("off"));
        assert!(filter("bailiwick_dns=loud").unwrap_err().starts_with("--log: \"bailiwick_dns=loud\" is no filter"));
    }
}
