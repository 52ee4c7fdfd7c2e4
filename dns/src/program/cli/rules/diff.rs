//! `bailiwick rules diff`: takes a new rules document and the one in service, returns what changes for clients, as
//! text, Markdown or JSON. Progress goes to a terminal if it takes long.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bailiwick_rules::fleet::gates::{Accepted, Gates, Shut, shut};
use bailiwick_rules::fleet::impact::{Impact, Queries};
use bailiwick_rules::fleet::traffic::TrafficReport;
use bailiwick_rules::rules::Ratio;
use bailiwick_rules::time::Timestamp;
use clap::Args;
use serde::Serialize;

use crate::locate::geoip::{Places, Registered};
use crate::program::cli::check::read_rules;
use crate::program::cli::node::{Node, NodeArgs, Power};
use crate::program::config::Config;
use crate::program::impact::impact;
use crate::program::report::Report;
use crate::state::load::{compile_rules, read_geoip, read_text};
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
    /// Weigh clients by the queries of this file, an answer of /v1/traffic. Against `head`, the node is asked for it.
    #[arg(long, value_name = "FILE")]
    traffic: Option<PathBuf>,
    #[command(flatten)]
    gates: GateArgs,
    /// Print everything as JSON.
    #[arg(long)]
    json: bool,
    /// Print Markdown, for a review.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

/// What a change may come to.
#[derive(Debug, Args)]
struct GateArgs {
    /// Which part of a service's clients may go to another region: `20%`.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    max_moved: Option<Ratio>,
    /// Which part of a service's clients may lose their region: `1%`.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    max_denied: Option<Ratio>,
    /// How many regions a fence has to keep that gets smaller.
    #[arg(long, value_name = "COUNT")]
    min_regions: Option<u32>,
    /// Accept that so many move, whatever --max-moved says.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    accept_moved: Option<Ratio>,
    /// Accept that so many lose their region, whatever --max-denied says.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    accept_denied: Option<Ratio>,
    /// Accept that a fence keeps so few regions, whatever --min-regions says.
    #[arg(long, value_name = "COUNT")]
    accept_regions: Option<u32>,
}

fn percent(text: &str) -> Result<Ratio, String> {
    Ratio::parse_percent(text).ok_or_else(|| "write whole per cent from 1% to 100%".to_owned())
}

impl GateArgs {
    /// The gates that stay shut.
    fn shut(&self, impact: &Impact) -> Vec<Shut> {
        let Self { max_moved, max_denied, min_regions, .. } = *self;
        let accepted = Accepted {
            moved: self.accept_moved,
            denied: self.accept_denied,
            regions: self.accept_regions,
            is_approved: false,
        };
        shut(impact, &Gates { max_moved, max_denied, min_regions }, &accepted)
    }
}

/// What is printed by `--json`.
#[derive(Serialize)]
struct Written<'a> {
    /// Whether clients may be processed where they might not be before.
    widens: bool,
    /// Whether a fence gets smaller.
    tightens: bool,
    /// The gates that stay shut.
    shut: &'a [Shut],
    #[serde(flatten)]
    impact: &'a Impact,
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
    let mut warnings = Vec::new();
    let queries = match queries(args) {
        Ok(queries) => queries,
        Err(errors) if args.traffic.is_some() => return Report::failed(errors),
        Err(errors) => {
            warnings.extend(errors.iter().map(|error| format!("no queries weigh: {error}")));
            None
        }
    };
    let mut progress = Progress::new();
    let mut tell = |done, all| progress.tell(done, all);
    let impact = impact(&old.table, &new.table, &places, queries.as_ref(), now, &mut tell);
    progress.finish();
    if places.all().len() == 1 {
        let warning = "no GeoIP database is named, so only networks of the rules are compared; name one by --geoip";
        warnings.push(warning.to_owned());
    }
    let shut = args.gates.shut(&impact);
    match written(args, &impact, &shut) {
        Ok(output) => Report { output, warnings, is_unwell: !shut.is_empty(), ..Report::default() },
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

/// The queries of the last week, if a file has them, or a node is asked anyway. None if none were counted.
fn queries(args: &DiffArgs) -> Result<Option<Queries>, Vec<String>> {
    let (text, place) = match &args.traffic {
        Some(file) => (read_text(file).map_err(|error| vec![format!("{}: {error}", file.display())])?, file.display()),
        None if args.against == Path::new("head") => {
            (Node::find(&args.node, Power::Read)?.read("/v1/traffic")?, Path::new("/v1/traffic").display())
        }
        None => return Ok(None),
    };
    let report: TrafficReport =
        serde_json::from_str(&text).map_err(|error| vec![format!("{place}: is no answer of /v1/traffic: {error}")])?;
    Ok(Some(report.queries()).filter(|queries| !queries.is_empty()))
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

fn written(args: &DiffArgs, impact: &Impact, shut: &[Shut]) -> Result<String, String> {
    let gates = |bullet: &str| shut.iter().map(|one| format!("{bullet}Gate shut: {one}\n")).collect::<String>();
    match (args.json, args.markdown) {
        (true, _) => {
            let written = Written { widens: impact.is_widened(), tightens: impact.is_tightened(), shut, impact };
            let json = serde_json::to_string_pretty(&written).map(|json| json + "\n");
            json.map_err(|error| format!("the comparison can't be written as JSON: {error}"))
        }
        (false, true) => Ok(impact.to_markdown() + &gates("- ")),
        (false, false) => Ok(impact.to_text() + &gates("")),
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
