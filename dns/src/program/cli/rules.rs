//! `bailiwick rules`: takes rules documents, compares them, publishes them for a fleet of nodes, and shows what was
//! published.

pub(super) mod author;
mod change;
mod diff;
pub(super) mod document;
mod history;
mod proposal;
mod publish;
mod restore;
mod rollouts;
pub(super) mod rules_store;
pub(super) mod stage;
mod watch;

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
    /// Without --against it asks the node's API for the document in service. --against 7 compares with revision 7 of
    /// the node's history.
    ///
    /// Gates say what a change may come to. They are those of the node's [fleet.gates], or --max-moved, --max-denied
    /// and --min-regions. One that stays shut names the number to type, such as --accept-moved 34%. The exit code is 0
    /// if all gates are open, whatever differs, 1 if one is shut or the documents can't be compared.
    #[command(after_help = "Examples:
  bailiwick rules diff rules.json                      with what this node serves by
  bailiwick rules diff rules.json --against 7          with what served as revision 7
  bailiwick rules diff new.json --against old.json --geoip country.mmdb
  git show main:rules.json | bailiwick rules diff rules.json --against - --markdown
  bailiwick rules diff rules.json --max-moved 20% --max-denied 1%
  bailiwick rules diff rules.json --json | jq '.services[] | {service, moved, denied}'")]
    Diff(diff::DiffArgs),
    /// Publish a rules document for all nodes, on the node that is the writer, or in NATS.
    ///
    /// It gets the next revision, or its own if that is higher. It is refused if somebody else has published since.
    ///
    /// First it tells what changes for clients, as `rules diff` does, and obeys the [fleet.gates] of the writer. A gate
    /// that stays shut names the number to type, such as --accept-moved 34%. Clients are found in the GeoIP database of
    /// the configuration, or of --geoip.
    ///
    /// With --stage canary some nodes serve it first. A document that makes a fence smaller has to reach all nodes at
    /// once: --tighten says that you know.
    #[command(after_help = "Examples:
  bailiwick rules publish rules.json --reason 'more room in Paris'
  bailiwick rules publish rules.json --reason 'more room in Paris' --stage canary --accept-moved 34% --watch
  bailiwick rules publish rules.json --reason 'Malta only' --tighten
  bailiwick rules publish rules.json --reason 'new fence' --based-on 7 --key publisher.key

  bailiwick rules publish rules.json --reason 'more room in Paris' --config publisher.toml    in NATS")]
    Publish(publish::PublishArgs),
    /// Sign a proposal with a second key, so that it may be published whatever the gates say.
    ///
    /// `rules publish --propose` writes a document with its revision, its head and an account of its impact into a
    /// file. This tells what it changes and adds a signature to the file. `rules publish` of that file then publishes
    /// it, byte for byte. An approval counts if its key is one of the fleet's trusted_publishers, and not the
    /// publisher's own.
    #[command(after_help = "Example:
  bailiwick rules publish rules.json --reason 'new fence' --key ann.key --propose proposal.json
  bailiwick rules approve proposal.json --key bob.key
  bailiwick rules publish proposal.json --key ann.key")]
    Approve(proposal::ApproveArgs),
    /// Bring the revision in service to the nodes of the next stage, without a look at how it fares.
    ///
    /// The document stays the same; its head is signed anew.
    #[command(after_help = "Examples:
  bailiwick rules promote --key publisher.key
  bailiwick rules promote --stage rest --key publisher.key")]
    Promote(stage::PromoteArgs),
    /// Give up a revision that isn't for all nodes yet.
    ///
    /// The newest content that was for all nodes is published for them under a new revision, so that those who have the
    /// one given up go back.
    #[command(after_help = "Example:
  bailiwick rules abort --reason 'canaries answer Malta with nothing' --key publisher.key")]
    Abort(stage::AbortArgs),
    /// Bring the revision in service to stage after stage, and give it up if nodes don't fare as predicted.
    ///
    /// It asks the writer for what every node says of itself. The next stage begins when every live node of a stage has
    /// served the revision for so long ([fleet.stages] bake), and nothing is wrong: the share of SERVFAIL, of answers
    /// without a region, and of each region against what was predicted. It prints what it waits for. The exit code is 0
    /// when all nodes serve the revision, 1 if it was given up or somebody published another.
    ///
    /// It may be killed and started again at any time, also on another machine: it goes on where it was.
    #[command(after_help = "Examples:
  bailiwick rules watch --key publisher.key
  bailiwick rules publish rules.json --reason 'more room' --stage canary --key publisher.key --watch")]
    Watch(watch::WatchArgs),
    /// List what was published: revision, when, by whom, why.
    History(history::HistoryArgs),
    /// Print the document of a revision, byte for byte.
    Show(history::ShowArgs),
    /// Publish the content of an earlier revision under a new one.
    #[command(after_help = "Example:
  bailiwick rules rollback 7 --reason 'revision 8 sent Malta nowhere'")]
    Rollback(publish::RollbackArgs),
    /// Write every revision of the history into a folder, for a backup.
    Archive(history::ArchiveArgs),
    /// Put rules into NATS where the bucket is new, empty, deleted or older than the fleet.
    ///
    /// Heads are put back as they were signed, and revisions keep their numbers, so that nodes go on. What is newer in
    /// NATS stays.
    #[command(after_help = "Examples:
  bailiwick rules restore --from rules.json --config publisher.toml       the first rules of a fleet
  bailiwick rules restore --from backup --config publisher.toml           what `bailiwick rules archive` wrote
  bailiwick rules restore --api https://ns1.example.com:8053 --token-file peers.token --config publisher.toml")]
    Restore(restore::RestoreArgs),
}

/// Runs any of the commands.
pub(super) fn run(command: &RulesCommand, stdin: &mut dyn Read, now: Timestamp) -> Report {
    let done = match command {
        RulesCommand::Diff(args) => return diff::run(args, stdin, now),
        RulesCommand::Publish(args) => publish::publish(args, now),
        RulesCommand::Approve(args) => proposal::approve(args, now),
        RulesCommand::Promote(args) => stage::promote(args),
        RulesCommand::Abort(args) => stage::abort(args, now),
        RulesCommand::Watch(args) => watch::run(args),
        RulesCommand::History(args) => history::list(args),
        RulesCommand::Show(args) => history::show(args),
        RulesCommand::Rollback(args) => publish::rollback(args, now),
        RulesCommand::Archive(args) => history::archive(args),
        RulesCommand::Restore(args) => restore::restore(args, now),
    };
    done.unwrap_or_else(Report::failed)
}
