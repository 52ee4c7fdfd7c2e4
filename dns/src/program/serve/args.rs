//! The options of `bailiwick serve`. The command line parses them, and `serve` takes them.

use std::path::PathBuf;

use clap::Args;

use crate::program::logs::LogFormat;

/// Options of `bailiwick serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "bailiwick.toml")]
    pub(crate) config: PathBuf,
    /// What to log, such as `info`, `debug` or `bailiwick_dns=debug`; by default what RUST_LOG says, else `info`.
    #[arg(long, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// How to log: `text` for people, `json` for programs.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) log_format: LogFormat,
    /// Write the addresses to this file as JSON once they answer: {"dns": ["127.0.0.1:5300"], "api": "127.0.0.1:8053"}.
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
    /// Take the place of the process that serves with the same `state_dir`: its sockets are taken over, it ends once
    /// this one answers, and no query is lost. If this one can't start, the other goes on. If there is none, this one
    /// starts as usual.
    #[arg(long)]
    pub(crate) takeover: bool,
}
