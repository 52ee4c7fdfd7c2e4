//! The command line. Takes the program's arguments, runs the command that they name, prints its text and returns its
//! exit code. `main` calls [`run`].
//!
//! Exit codes: 0 fine, 1 errors found, 2 wrong usage.

mod bundle;
mod check;
mod completions;
mod drain;
mod drill;
mod eval;
mod explain;
mod fleet;
mod hash_key;
mod init;
mod keys;
mod node;
mod plan;
mod receipt;
mod releases;
mod rollout;
mod rules;
mod seal;
mod shift;
mod simulate;
mod status;
mod top;
mod turn;
mod verify;

use std::process::ExitCode;

use bailiwick_host::system::clock::Clock;
use bailiwick_rules::rules::json_schema_text;
use clap::builder::Styles;
use clap::builder::styling::{AnsiColor, Effects};
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::program::report::Report;
use crate::program::serve::{self, ServeArgs};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().effects(Effects::BOLD))
    .usage(AnsiColor::Green.on_default().effects(Effects::BOLD))
    .literal(AnsiColor::Cyan.on_default().effects(Effects::BOLD))
    .placeholder(AnsiColor::Cyan.on_default());

/// Steers AI traffic by DNS: every client gets the nearest healthy region that residency allows.
///
/// One JSON document, the rules, says which regions there are, who may be processed where, and in which order.
/// `bailiwick` answers DNS by it; the Worker at the edge enforces the same document.
#[derive(Debug, Parser)]
#[command(name = "bailiwick", version, styles = STYLES, max_term_width = 100, after_help = "\
Start here:
  bailiwick init demo && cd demo      write a configuration, rules and a zone
  bailiwick check                     find every mistake in them
  bailiwick explain --service chat --country DE
  bailiwick serve                     answer on 127.0.0.1:5300

Exit codes: 0 fine, 1 errors found, 2 wrong usage.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a commented start: configuration, rules, a zone.
    ///
    /// What it writes passes `bailiwick check` and serves without root on 127.0.0.1:5300.
    #[command(after_help = "Examples:
  bailiwick init              into the current directory, DNS alone
  bailiwick init --shape cloudflare myzone
  bailiwick init /etc/bailiwick")]
    Init(init::InitArgs),
    /// Answer DNS until told to stop.
    ///
    /// Rules, zone files, their keys and the GeoIP database are read again when they change or on SIGHUP; a version
    /// with errors is told and the last good one stays in service. SIGHUP reads the configuration, too, and the log
    /// names what takes a new process. SIGUSR2 starts one from the program's file, which takes over without losing a
    /// query. SIGTERM and SIGINT answer what is in flight and end with exit code 0.
    #[command(after_help = "Examples:
  bailiwick serve
  bailiwick serve --config /etc/bailiwick/bailiwick.toml --log-format json
  bailiwick serve --log bailiwick_dns=debug
  bailiwick serve --takeover          in the place of the one that serves now")]
    Serve(ServeArgs),
    /// Find every mistake in the configuration, rules, zones, keys and GeoIP database.
    #[command(after_help = "Examples:
  bailiwick check                               bailiwick.toml and all it names
  bailiwick check --rules rules.json            a rules document alone
  jq '.revision += 1' rules.json | bailiwick check --rules -
  bailiwick check --json | jq -r '.errors[].place'")]
    Check(check::CheckArgs),
    /// Tell step by step where a client's request may be served, and why. No server needs to run.
    #[command(after_help = "Examples:
  bailiwick explain --service chat --client 203.0.113.7
  bailiwick explain --service chat --country DE --down eu-frankfurt
  bailiwick explain --tenant acme
  bailiwick explain --all
  bailiwick explain --service chat --country GB --model chat-large --path /v1/chat/completions --json")]
    Explain(explain::ExplainArgs),
    /// Tell for every fence whether the rest of it carries the load when a region is lost.
    ///
    /// It compares the requests that clients send at their peak with the capacities of the regions they may be served
    /// in. Both stand in the rules, as `load` of regions and `capacity` of endpoints. The exit code is 1 if a fence
    /// can't carry a loss, or if a capacity isn't known. No server needs to run.
    #[command(after_help = "Examples:
  bailiwick plan                                lose each region in turn
  bailiwick plan --lose eu-frankfurt --max-load 80%
  bailiwick plan --demand peak.json             {\"chat\": {\"DE\": 120, \"FR\": 80, \"unknown\": 3}}
  bailiwick plan --json | jq -r '.fences[] | select(.carried == false) | .lost'")]
    Plan(plan::PlanArgs),
    /// Play hours of a fleet's day in seconds: demand, capacities, regions that die.
    ///
    /// It steers the same clients three ways, by distance alone, by distance and health, and by load as `bailiwick
    /// plan` does, and compares what is refused, which loads are reached and how many clients are moved. No server
    /// needs to run.
    #[command(after_help = "Examples:
  bailiwick simulate docs/scenarios/nearest-dies-at-peak.json
  bailiwick simulate peak.json --rules rules.json --svg peak.svg
  bailiwick simulate peak.json --by load --json | jq '.[0].refused'")]
    Simulate(simulate::SimulateArgs),
    /// Compare rules documents, publish one for a fleet, and show, roll back or archive what was published.
    #[command(subcommand)]
    Rules(rules::RulesCommand),
    /// Replace a model, endpoints or prompts region by region, judged at every step, and roll back by itself.
    #[command(subcommand)]
    Rollout(rollout::RolloutCommand),
    /// Rehearse the loss of a region: send its clients elsewhere step by step, watch, and bring them back.
    #[command(subcommand)]
    Drill(drill::DrillCommand),
    /// Ask regions the cases of a suite, and tell whether they answer as well as each other.
    #[command(subcommand)]
    Eval(eval::EvalCommand),
    /// Tell how a running node fares: who goes where, regions, overrides, sources, keys, certificates.
    ///
    /// It asks the node's API. The exit code is 1 if something needs a look: a region, or one family of its addresses,
    /// is down by its probes, a source was refused, a certificate has expired, a task is in trouble. What is drained
    /// isn't.
    #[command(after_help = "Examples:
  bailiwick status
  bailiwick status --config /etc/bailiwick/bailiwick.toml
  bailiwick status --json | jq -r '.regions[] | select(.status == \"down\") | .region'
  bailiwick status --api https://ns2.example.com:8053 --token-file reader.token")]
    Status(status::StatusArgs),
    /// Show at a terminal how a running node fares, again and again.
    ///
    /// The head has the node, its revision, and what is wrong. Below it is one table at a time: regions, the worst
    /// first, fences, load, replicas, overrides, sources, keys, and the nodes of the fleet. The keys are told at the
    /// bottom. When the node gives no answer, the last one stays, and its age is told.
    #[command(after_help = "Examples:
  bailiwick top
  bailiwick top --api https://ns2.example.com:8053 --token-file reader.token --every 5s")]
    Top(top::TopArgs),
    /// Tell what each region really runs: model, weights, engine, and how near their answers are to each other.
    ///
    /// It asks the node's API. The exit code is 1 if regions of one fence run different things, or something else than
    /// the rules' "releases" say.
    #[command(after_help = "Examples:
  bailiwick releases
  bailiwick releases --json | jq -r '.releases[].endpoints[] | select(.state == \"skew\") | .region'
  bailiwick releases --json | jq -r '.releases[\"chat-large\"].endpoints[0].said.canary'")]
    Releases(status::StatusArgs),
    /// Take a region or an endpoint out of service for a while.
    ///
    /// DNS answers other regions, and the edge sends nothing there, not even if all others are down. It ends by itself,
    /// and a restart keeps it where the node has a state_dir. In a fleet it spreads to all nodes. Otherwise it is this
    /// node's own: tell each node, or put it into the rules' \"overrides\". The edge follows a drain that any node
    /// tells of.
    #[command(after_help = "Examples:
  bailiwick drain eu-frankfurt --for 2h --reason 'new switches'
  bailiwick drain eu-frankfurt/fra-1 --until 18:00Z --reason 'new driver'")]
    Drain(drain::DrainArgs),
    /// Put a region or an endpoint that was drained into service again.
    #[command(after_help = "Example:
  bailiwick undrain eu-frankfurt/fra-1")]
    Undrain(drain::UndrainArgs),
    /// Move the clients of a region away for a while, on all nodes of a fleet, or back.
    #[command(subcommand)]
    Shift(shift::ShiftCommand),
    /// Push, list, show and fetch bundles of files, such as prompts, that nodes serve by region.
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    /// List the overrides in force, of this node and of the rules.
    Overrides(status::StatusArgs),
    /// Turn an API key into the digest that stands in the rules.
    ///
    /// The key is read from standard input, or asked for on a terminal without being shown. It can't be given as an
    /// argument: arguments stay in the shell's history and are visible to every process of the machine.
    #[command(after_help = "Examples:
  bailiwick hash-key                  asks for the key
  bailiwick hash-key < key.txt
  bailiwick hash-key --generate       makes a new key and prints both")]
    HashKey(hash_key::HashKeyArgs),
    /// Make, list and roll the keys of signed zones, and print the DS for the parent.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Tell how the nodes of a fleet fare, and make keys for those who publish rules.
    #[command(subcommand)]
    Fleet(fleet::FleetCommand),
    /// Verify receipts of the edge, or make a key for it to sign them with.
    #[command(subcommand)]
    Receipt(receipt::ReceiptCommand),
    /// Print the JSON Schema of the rules, by which editors complete and check them.
    Schema,
    /// Print a completion script for a shell. In bash, zsh and fish it completes names of your rules too.
    #[command(after_help = "Example:
  bailiwick completions bash > /etc/bash_completion.d/bailiwick")]
    Completions {
        /// For which shell.
        shell: Shell,
    },
    /// Print names of the rules, for the scripts that complete them.
    #[command(hide = true)]
    Names(completions::NamesArgs),
    /// Print the manual page, of a command if one is named.
    #[command(after_help = "Example:
  bailiwick man serve | man -l -")]
    Man {
        /// The command.
        command: Option<String>,
    },
}

/// Runs the command that the program's arguments name.
#[must_use]
pub fn run() -> ExitCode {
    let reported = match Cli::parse().command {
        Command::Init(args) => init::run(&args),
        Command::Serve(args) => return serve::run(&args),
        Command::Check(args) => check::run(&args, &mut std::io::stdin()),
        Command::Explain(args) => explain::run(&args, &mut std::io::stdin(), Clock::system().now()),
        Command::Plan(args) => plan::run(&args, &mut std::io::stdin()),
        Command::Simulate(args) => simulate::run(&args, &mut std::io::stdin()),
        Command::Rules(command) => rules::run(&command, &mut std::io::stdin(), Clock::system().now()),
        Command::Drill(command) => drill::run(&command, Clock::system().now()),
        Command::Rollout(command) => rollout::run(&command, Clock::system().now()),
        Command::Bundle(command) => bundle::run(&command),
        Command::Eval(command) => eval::run(&command),
        Command::Status(args) => status::status(&args),
        Command::Top(args) => top::run(&args),
        Command::Releases(args) => releases::run(&args),
        Command::Drain(args) => drain::drain(&args, Clock::system().now()),
        Command::Undrain(args) => drain::undrain(&args),
        Command::Shift(command) => shift::run(&command, Clock::system().now()),
        Command::Overrides(args) => status::overrides(&args),
        Command::HashKey(args) => hash_key::run(&args),
        Command::Keys(command) => keys::run(&command, Clock::system().now()),
        Command::Fleet(command) => fleet::run(&command),
        Command::Receipt(command) => receipt::run(&command, &mut std::io::stdin(), Clock::system().now()),
        Command::Schema => Report::fine(json_schema_text()),
        Command::Completions { shell } => Report::fine(completions::script(shell, Cli::command())),
        Command::Names(args) => completions::names(&args),
        Command::Man { command } => manual(command.as_deref()),
    };
    reported.print()
}

/// The manual page of the program, or of one command.
fn manual(command: Option<&str>) -> Report {
    let mut program = Cli::command();
    program.build();
    let page = match command {
        None => clap_mangen::Man::new(program),
        Some(name) => match program.find_subcommand(name) {
            Some(subcommand) => clap_mangen::Man::new(subcommand.clone()),
            None => {
                let known: Vec<&str> = program.get_subcommands().map(clap::Command::get_name).collect();
                let suggestion = crate::text::nearest::suggestion(name, known.iter().copied());
                return Report::error(format!("there is no command \"{name}\"; {suggestion}"));
            }
        },
    };
    let mut text = Vec::new();
    match page.render(&mut text) {
        Ok(()) => Report::fine(String::from_utf8_lossy(&text)),
        Err(error) => Report::error(format!("the manual page can't be written: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_manual_page() {
        let names: Vec<String> = Cli::command().get_subcommands().map(|found| found.get_name().to_owned()).collect();
        for name in names {
            let page = manual(Some(&name));
            assert!(page.output.contains(&format!("bailiwick\\-{}", name.replace('-', "\\-"))), "{}", page.output);
        }
        assert!(manual(None).output.contains("bailiwick"));
        let wrong = manual(Some("serv"));
        assert!(wrong.errors[0].contains("did you mean \"serve\"?"));
    }

    #[test]
    fn keys_are_no_arguments() {
        assert!(Cli::try_parse_from(["bailiwick", "hash-key", "sk-secret"]).is_err());
    }
}
