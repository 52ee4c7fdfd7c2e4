//! What is logged and how: a filter and a format enter, standard error is written to from then on.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;

/// hickory tells of every answer with its client's address at INFO and of malformed packets at WARN. Our own counters do that, and a packet
/// must not be able to fill a log: its targets are off unless the filter names one. The file watcher talks of its own upkeep at INFO.
const QUIET: [&str; 4] = ["hickory_server=off", "hickory_proto=off", "hickory_net=off", "notify=warn"];

/// Starts to log what `filter` (else RUST_LOG, else `info`) names.
pub(super) fn begin(filter: Option<&str>, format: LogFormat) -> Result<(), String> {
    let filter = filter.map(str::to_owned).or_else(|| std::env::var("RUST_LOG").ok()).filter(|text| !text.is_empty());
    let filter = self::filter(filter.as_deref().unwrap_or("info"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let begun = match format {
        LogFormat::Json => log.json().flatten_event(true).try_init(),
        LogFormat::Text => {
            let colour =
                std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            log.with_ansi(colour).with_target(false).try_init()
        }
    };
    begun.map_err(|error| format!("logs can't be written: {error}"))
}

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
