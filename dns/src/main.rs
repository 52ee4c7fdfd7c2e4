//! The `bailiwick` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    bailiwick_dns::program::cli::run()
}
