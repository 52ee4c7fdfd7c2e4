//! `bailiwick drill`: rehearses the loss of a region, by the API of a node.

mod abort;
mod figures;
mod node;
mod page;
mod plan;
mod report;
mod run;
mod scheduled;
mod verify;

use std::path::PathBuf;

use bailiwick_host::system::files::{Mode, replace};
use bailiwick_rules::drill::record::Record;
use bailiwick_rules::time::Timestamp;
use clap::Subcommand;

use super::verify::{VerifyArgs, verify};
use crate::program::report::Report;
use crate::state::load::read_file;

/// What to do with a drill.
#[derive(Debug, Subcommand)]
pub(crate) enum DrillCommand {
    /// Tell what a drill would do, when it begins by itself, and whether it could begin now.
    ///
    /// It tells the load of every fence and region without the drilled one. The exit code is 1 if the drill couldn't
    /// begin now. Nothing is changed.
    #[command(after_help = "Examples:
  bailiwick drill plan                    all drills of the rules
  bailiwick drill plan lon
  bailiwick drill plan lon --json | jq .drills.lon.preflight")]
    Plan(plan::PlanArgs),
    /// Run a drill: look first, send clients elsewhere step by step, watch, and bring them back.
    ///
    /// It begins only if the other regions carry the load and nothing else is under way. It is broken off when a limit
    /// is exceeded, data is missing, a region fails or somebody aborts it: then all clients come back at once. If this
    /// process dies, the drill ends by itself after four looks: 20 seconds, or two minutes with --every 30s.
    /// The exit code is 0 if it took its whole time, else 1.
    #[command(after_help = "Examples:
  bailiwick drill run lon --dry-run       tell the load that is to be expected
  bailiwick drill run lon
  bailiwick drill run --scheduled         run the drills of the rules at their weekly times (UTC)")]
    Run(run::RunArgs),
    /// Break a drill off. All clients come back at once.
    #[command(after_help = "Example:
  bailiwick drill abort lon --reason 'phones ring'")]
    Abort(abort::AbortArgs),
    /// Write the report of the last run, as JSON or as a page.
    ///
    /// The record of a run is read from its file, or else from the node. The exit code is 1 if anything lay outside the
    /// fence.
    #[command(after_help = "Examples:
  bailiwick drill report lon --html lon.html
  bailiwick drill report lon --html lon.html --sign-key receipt.key
  bailiwick drill report lon --receipts receipts.txt --jwks jwks.json")]
    Report(report::ReportArgs),
    /// Verify a signed report by its public keys, and tell what it says.
    ///
    /// Of a page, all of it is verified: what was signed holds the digest of the rest. Exit codes: 0 if it is to be
    /// believed and says that nothing lay outside the fence; 1 if not, or if it can't be read; 2 for wrong usage.
    #[command(after_help = "Examples:
  curl -s https://chat.ai.example.com/.well-known/bailiwick/jwks.json > jwks.json
  bailiwick drill verify lon.html --jwks jwks.json")]
    Verify(VerifyArgs),
}

/// Runs any of them.
pub(super) fn run(command: &DrillCommand, now: Timestamp) -> Report {
    let done = match command {
        DrillCommand::Plan(args) => plan::plan(args),
        DrillCommand::Run(args) if args.scheduled => scheduled::run(args),
        DrillCommand::Run(args) => run::run(args),
        DrillCommand::Abort(args) => abort::abort(args),
        DrillCommand::Report(args) => report::report(args, now),
        DrillCommand::Verify(args) => verify(args, "drill", verify::told),
    };
    done.unwrap_or_else(Report::failed)
}

/// Where the record of a drill is kept, if no file is named.
fn record_file(named: Option<&PathBuf>, drill: &str) -> PathBuf {
    named.cloned().unwrap_or_else(|| PathBuf::from(format!("drill-{drill}.json")))
}

/// Writes a record.
///
/// # Errors
/// That it can't be written.
fn write(file: &std::path::Path, record: &Record) -> Result<(), Vec<String>> {
    let text = serde_json::to_vec(record).map_err(|error| vec![format!("the record can't be written: {error}")])?;
    replace(file, &text, Mode::Public).map_err(|error| vec![format!("{}: can't be written ({error})", file.display())])
}

/// Reads a record; `None` if there is no file.
///
/// # Errors
/// That it can't be read.
fn read(file: &std::path::Path) -> Result<Option<Record>, Vec<String>> {
    let name = file.display();
    match read_file(file) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| vec![format!("{name}: is no record of a drill ({error}); name another with --record")]),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(vec![format!("{name}: can't be read ({error})")]),
    }
}
