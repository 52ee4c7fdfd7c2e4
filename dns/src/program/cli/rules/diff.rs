//! `bailiwick rules diff`: takes a new rules document and the one in service, returns what changes for clients, as
//! text, Markdown or JSON. Progress goes to a terminal if it takes long.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bailiwick_rules::fleet::impact::Impact;
use bailiwick_rules::time::Timestamp;
use clap::Args;

use crate::locate::geoip::{Places, Registered};
use crate::program::cli::check::read_rules;
use crate::program::cli::node::{Node, NodeArgs, Power};
use crate::program::config::Config;
use crate::program::impact::impact;
use crate::program::report::Report;
use crate::state::load::{compile_rules, read_geoip};
use crate::state::snapshot::Rules;

/// After how long progress is told.
const PATIENCE: Duration = Duration::from_secs(1);

/// Options of `bailiwick rules diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The new rules document; `-` reads standard input.
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// What to compare it with: a file, `-` for standard input, or `head`, the document that the node serves by.
    #[arg(long, value_name = "FILE|head", default_value = "head")]
    against: PathBuf,
    #[command(flatten)]
    node: NodeArgs,
    /// Find clients in this GeoIP database instead of the configuration's.
    #[arg(long, value_name = "FILE")]
    geoip: Option<PathBuf>,
    /// Print everything as JSON.
    #[arg(long)]
    json: bool,
    /// Print Markdown, for a review.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

/// Runs it.
pub(super) fn run(args: &DiffArgs, stdin: &mut dyn Read, now: Timestamp) -> Report {
    if args.new == Path::new("-") && args.against == Path::new("-") {
        return Report::misuse("NEW and --against are both \"-\", but there is one standard input; name a file");
    }
    let new = read_rules(&args.new, stdin).map_err(said);
    let old = against(args, stdin);
    let places = places(args);
    let (new, old, places) = match (new, old, places) {
        (Ok(new), Ok(old), Ok(places)) => (new, old, places),
        (new, old, places) => {
            return Report::failed([new.err(), old.err(), places.err()].into_iter().flatten().flatten());
        }
    };
    let mut progress = Progress::new();
    let impact = impact(&old.table, &new.table, &places, None, now, &mut |done, all| progress.tell(done, all));
    progress.finish();
    let mut warnings = Vec::new();
    if places.all().len() == 1 {
        warnings.push("no GeoIP database is named, so only networks of the rules are compared; name one by --geoip");
    }
    match written(args, &impact) {
        Ok(output) => {
            Report { output, warnings: warnings.into_iter().map(str::to_owned).collect(), ..Report::default() }
        }
        Err(error) => Report::error(error),
    }
}

fn said<E: ToString>(faults: impl IntoIterator<Item = E>) -> Vec<String> {
    faults.into_iter().map(|fault| fault.to_string()).collect()
}

/// The document to compare with.
fn against(args: &DiffArgs, stdin: &mut dyn Read) -> Result<Arc<Rules>, Vec<String>> {
    if args.against != Path::new("head") {
        return read_rules(&args.against, stdin).map_err(said);
    }
    let text = Node::find(&args.node, Power::Read)?.read("/v1/rules")?;
    compile_rules(text.into_bytes(), "the node's rules").map_err(said)
}

/// The GeoIP database that the options name, or the configuration.
fn places(args: &DiffArgs) -> Result<Arc<Places>, Vec<String>> {
    let (file, registered) = match &args.geoip {
        Some(file) => (Some(file.clone()), Registered::default()),
        None => {
            let config = Config::read(&args.node.config).map_err(said)?;
            (config.geoip, config.registered)
        }
    };
    read_geoip(file.as_deref(), registered).map_err(said)
}

fn written(args: &DiffArgs, impact: &Impact) -> Result<String, String> {
    match (args.json, args.markdown) {
        (true, _) => match serde_json::to_string_pretty(impact) {
            Ok(json) => Ok(json + "\n"),
            Err(error) => Err(format!("the comparison can't be written as JSON: {error}")),
        },
        (false, true) => Ok(impact.to_markdown()),
        (false, false) => Ok(impact.to_text()),
    }
}

/// Tells how far it is, on one line of a terminal.
struct Progress {
    begun: Instant,
    is_terminal: bool,
    is_told: bool,
}

impl Progress {
    fn new() -> Self {
        Self { begun: Instant::now(), is_terminal: std::io::stderr().is_terminal(), is_told: false }
    }

    fn tell(&mut self, done: usize, all: usize) {
        if self.is_terminal && self.begun.elapsed() >= PATIENCE {
            self.is_told = true;
            let _ = write!(std::io::stderr(), "\r{done} of {all} services compared\x1b[K");
        }
    }

    /// Takes the line away.
    fn finish(&self) {
        if self.is_told {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
