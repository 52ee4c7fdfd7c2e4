//! `bailiwick rules`: takes rules documents, and compares them.

mod diff;

use std::io::Read;

use bailiwick_rules::time::Timestamp;
use clap::Subcommand;

use crate::program::report::Report;

/// What to do with rules documents.
#[derive(Debug, Subcommand)]
pub(crate) enum RulesCommand {
    /// Tell what a new rules document changes for clients, before it serves.
    ///
    /// It steers the clients of every place of the GeoIP database, and of every tenant and network of the rules, by
    /// both documents: with all regions up, and with each region down. It tells who goes to another region, whose fence
    /// gets wider or smaller, and who has no region left if one fails. Clients are weighed by IPv4 addresses, by
    /// IPv6 /48s, and by the queries that the node counted.
    ///
    /// A fence that gets wider is said first: from then on clients may be processed where they might not be before. One
    /// that gets smaller is said too: then all nodes should take the document at once.
    ///
    /// Without --against it asks the node's API for the document in service.
    ///
    /// Gates say what a change may come to: --max-moved, --max-denied, --min-regions. One that stays shut names the
    /// number to type, such as --accept-moved 34%. The exit code is 0 if all gates are open, whatever differs, 1 if one
    /// is shut or the documents can't be compared.
    #[command(after_help = "Examples:
  bailiwick rules diff rules.json                      with what this node serves by
  bailiwick rules diff new.json --against old.json --geoip country.mmdb
  git show main:rules.json | bailiwick rules diff rules.json --against - --markdown
  bailiwick rules diff rules.json --max-moved 20% --max-denied 1%
  bailiwick rules diff rules.json --json | jq '.services[] | {service, moved, denied}'")]
    Diff(diff::DiffArgs),
}

/// Runs it.
pub(super) fn run(command: &RulesCommand, stdin: &mut dyn Read, now: Timestamp) -> Report {
    match command {
        RulesCommand::Diff(args) => diff::run(args, stdin, now),
    }
}
