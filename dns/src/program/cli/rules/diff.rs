//! `bailiwick rules diff`: takes a new rules document and the one in service, returns what changes for clients, as
//! text, Markdown or JSON. A fence is the list of the regions that may process a client's data.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bailiwick_rules::fleet::gates::{Gates, Shut};
use bailiwick_rules::fleet::impact::{Impact, Queries};
use bailiwick_rules::fleet::traffic::TrafficReport;
use bailiwick_rules::rules::Ratio;
use bailiwick_rules::time::Timestamp;
use clap::Args;
use serde::Serialize;

use super::change::{AcceptArgs, Change, PlaceArgs, percent, texts};
use super::rules_store::RulesStore;
use crate::program::cli::check::read_rules;
use crate::program::cli::node::{Access, NodeArgs};
use crate::program::config::Config;
use crate::program::report::Report;
use crate::state::load::{compile_rules, read_text};
use crate::state::snapshot::Rules;

/// Options of `bailiwick rules diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The new rules document; `-` reads standard input.
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// What to compare it with: `head`, the document that the node serves by, a revision of its history, a file, or `-`
    /// for standard input.
    #[arg(long, value_name = "head|REV|FILE", default_value = "head")]
    against: String,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    places: PlaceArgs,
    /// Weigh clients by the queries of this file, an answer of /v1/traffic. Without it the node is asked for them,
    /// except against a file.
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
    #[command(flatten)]
    accept: AcceptArgs,
}

impl GateArgs {
    /// The gates. Each gate has the value of its option, or else the fleet's value.
    fn gates(&self, of_fleet: &Gates) -> Gates {
        Gates {
            max_moved: self.max_moved.or(of_fleet.max_moved),
            max_denied: self.max_denied.or(of_fleet.max_denied),
            min_regions: self.min_regions.or(of_fleet.min_regions),
        }
    }
}

/// What the new document is compared with.
enum Baseline {
    /// The document in service at the writer or in NATS, or this revision of its history.
    Published(RulesStore, Option<u64>),
    /// A file, or standard input.
    File(PathBuf),
}

/// Finds what the new document is compared with. The place of the published document is found only once: it is asked
/// for queries and gates too.
fn against(args: &DiffArgs) -> Result<Baseline, Vec<String>> {
    let published = |revision| Ok(Baseline::Published(RulesStore::find(&args.node, Access::Read)?, revision));
    match (args.against.as_str(), args.against.parse()) {
        ("head", _) => published(None),
        (_, Ok(revision)) => published(Some(revision)),
        (file, Err(_)) => Ok(Baseline::File(file.into())),
    }
}

/// The output with `--json`.
#[derive(Serialize)]
struct DiffOutput<'a> {
    /// Whether clients may be processed where they might not be before.
    widens: bool,
    /// Whether a fence gets smaller.
    tightens: bool,
    /// The gates that stay shut.
    shut: &'a [Shut],
    #[serde(flatten)]
    impact: &'a Impact,
}

/// Runs the command.
pub(super) fn run(args: &DiffArgs, stdin: &mut dyn Read, now: Timestamp) -> Report {
    if args.new == Path::new("-") && args.against == "-" {
        return Report::misuse("NEW and --against are both \"-\", but there is one standard input; name a file");
    }
    let new = read_rules(&args.new, stdin).map_err(texts);
    let old = against(args).and_then(|against| Ok((old(&against, stdin)?, against)));
    let places = args.places.places(&args.node);
    let (new, (old, against), places) = match (new, old, places) {
        (Ok(new), Ok(old), Ok(places)) => (new, old, places),
        (new, old, places) => {
            return Report::failed([new.err(), old.err(), places.err()].into_iter().flatten().flatten());
        }
    };
    let mut warnings = Vec::new();
    let queries = match queries(&against, args) {
        Ok(queries) => queries,
        Err(errors) if args.traffic.is_some() => return Report::failed(errors),
        Err(errors) => {
            warnings.extend(errors.iter().map(|error| format!("no queries weigh: {error}")));
            None
        }
    };
    let of_fleet = match gates_of_fleet(&against, args) {
        Ok(gates) => gates,
        Err(errors) => return Report::failed(errors),
    };
    let change = Change::find(&old.table, &new.table, &places, queries.as_ref(), now);
    if !change.is_known {
        let warning = "no GeoIP database is named, so only networks of the rules are compared; name one by --geoip";
        warnings.push(warning.to_owned());
    }
    let shut = change.shut(&args.gates.gates(&of_fleet), args.gates.accept, false);
    match format_output(args, &change.impact, &shut) {
        Ok(output) => Report { output, warnings, is_unwell: !shut.is_empty(), ..Report::default() },
        Err(error) => Report::error(error),
    }
}

/// The document to compare with.
fn old(against: &Baseline, stdin: &mut dyn Read) -> Result<Arc<Rules>, Vec<String>> {
    let bytes = match against {
        Baseline::File(file) => return read_rules(file, stdin).map_err(texts),
        Baseline::Published(store, None) => store.base()?.document.bytes,
        Baseline::Published(store, Some(revision)) => store.document(*revision)?.bytes,
    };
    compile_rules(bytes, "the node's rules").map_err(texts)
}

/// The counted queries of the last week: of the file that `--traffic` names, or of the node, unless the new document is
/// compared with a file. `None` if no queries were counted.
fn queries(against: &Baseline, args: &DiffArgs) -> Result<Option<Queries>, Vec<String>> {
    match (&args.traffic, against) {
        (None, Baseline::File(_)) => Ok(None),
        (None, Baseline::Published(store, _)) => store.queries(),
        (Some(file), _) => {
            let name = file.display();
            let text = read_text(file).map_err(|error| vec![format!("{name}: {error}")])?;
            let report: TrafficReport = serde_json::from_str(&text)
                .map_err(|error| vec![format!("{name}: is no answer of /v1/traffic: {error}")])?;
            Ok(Some(report.queries()).filter(|queries| !queries.is_empty()))
        }
    }
}

/// The gates of the fleet, as the node reports them. If the new document is compared with a file, no node is asked.
/// Then they are those of the configuration, if there is one.
fn gates_of_fleet(against: &Baseline, args: &DiffArgs) -> Result<Gates, Vec<String>> {
    match against {
        Baseline::File(_) if args.node.config.exists() => {
            Config::read(&args.node.config).map(|config| config.fleet.gates).map_err(texts)
        }
        Baseline::File(_) => Ok(Gates::default()),
        Baseline::Published(store, _) => store.limits().map(|limits| limits.gates()),
    }
}

/// The output: the impact and the gates that the change leaves shut.
fn format_output(args: &DiffArgs, impact: &Impact, shut: &[Shut]) -> Result<String, String> {
    let gates = |bullet: &str| shut.iter().map(|gate| format!("{bullet}Gate shut: {gate}\n")).collect::<String>();
    match (args.json, args.markdown) {
        (true, _) => {
            let written = DiffOutput { widens: impact.is_widened(), tightens: impact.is_tightened(), shut, impact };
            let json = serde_json::to_string_pretty(&written).map(|json| json + "\n");
            json.map_err(|error| format!("the comparison can't be written as JSON: {error}"))
        }
        (false, true) => Ok(impact.to_markdown() + &gates("- ")),
        (false, false) => Ok(impact.to_text() + &gates("")),
    }
}
