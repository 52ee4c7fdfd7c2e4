//! `bailiwick simulate`: takes a scenario of some hours; returns how its regions are loaded and how many requests are
//! refused, as a table, JSON or a picture. Needs no running server.

use std::io::Read;
use std::path::{Path, PathBuf};

use bailiwick_rules::simulation::{Outcome, Scenario, Way, read_scenario, simulate, svg};
use bailiwick_rules::table::Table;
use bailiwick_rules::time::Millis;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::check::read_rules;
use crate::program::report::Report;

/// Options of `bailiwick simulate`.
#[derive(Debug, Args)]
pub(crate) struct SimulateArgs {
    /// The scenario; `-` reads standard input.
    #[arg(value_name = "SCENARIO")]
    scenario: PathBuf,
    /// Follow this rules document instead of the "rules" in the scenario.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Steer in this way alone; by default in all, one after the other.
    #[arg(long, value_enum)]
    by: Option<By>,
    /// Write a picture of the loads to this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print the outcomes as JSON.
    #[arg(long)]
    json: bool,
}

/// By what clients are steered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    /// To the nearest region, whatever its state.
    Nearest,
    /// To the nearest that is up.
    Health,
    /// By the plan.
    Load,
}

impl From<By> for Way {
    fn from(by: By) -> Self {
        match by {
            By::Nearest => Self::Nearest,
            By::Health => Self::Health,
            By::Load => Self::Load,
        }
    }
}

/// The outcome of one way of steering, as printed by `--json`.
#[derive(Serialize)]
struct OutcomeReport {
    by: &'static str,
    /// The highest load that was offered to a region while it was up. 1 means full.
    peak: f64,
    peak_region: Option<String>,
    /// When the peak was, in seconds from the beginning.
    peak_at: u64,
    /// The part of all requests, from 0 to 1, that no region served.
    refused: f64,
    /// The part of the requests, from 0 to 1, that no region served in the worst step.
    worst_step: f64,
    collapses: u32,
    /// How many times a client went to another region than before.
    moves: f64,
    turns: u32,
}

/// Runs the command.
pub(crate) fn run(args: &SimulateArgs, stdin: &mut dyn Read) -> Report {
    match simulated(args, stdin) {
        Ok(report) => report,
        Err(errors) => Report::failed(errors),
    }
}

fn simulated(args: &SimulateArgs, stdin: &mut dyn Read) -> Result<Report, Vec<String>> {
    let name =
        if args.scenario == Path::new("-") { "standard input".to_owned() } else { args.scenario.display().to_string() };
    let bytes = read(&args.scenario, stdin).map_err(|error| vec![format!("{name}: can't be read: {error}")])?;
    let table = table(args, &bytes, &name, stdin)?;
    let scenario = read_scenario(&table, &bytes)
        .map_err(|mistakes| mistakes.iter().map(|mistake| format!("{name}: {mistake}")).collect::<Vec<_>>())?;
    let ways = args.by.map_or(Way::ALL.to_vec(), |by| vec![by.into()]);
    let outcomes: Vec<Outcome> = ways.into_iter().map(|way| simulate(&table, &scenario, way)).collect();
    if let Some(file) = &args.svg {
        let written = std::fs::write(file, svg(&table, &scenario, &outcomes));
        written.map_err(|error| vec![format!("{}: can't be written: {error}", file.display())])?;
    }
    let reports: Vec<OutcomeReport> = outcomes.iter().map(|outcome| outcome_report(&table, outcome)).collect();
    if args.json {
        let json = serde_json::to_string_pretty(&reports).map(|json| json + "\n");
        return json.map(Report::fine).map_err(|error| vec![format!("the outcomes can't be written as JSON: {error}")]);
    }
    Ok(Report::fine(text(&scenario, &reports)))
}

fn read(file: &Path, stdin: &mut dyn Read) -> std::io::Result<Vec<u8>> {
    if file != Path::new("-") {
        return std::fs::read(file);
    }
    let mut bytes = Vec::new();
    stdin.read_to_end(&mut bytes).map(|_| bytes)
}

/// The rules that the command line names, or those within the scenario.
fn table(args: &SimulateArgs, scenario: &[u8], name: &str, stdin: &mut dyn Read) -> Result<Table, Vec<String>> {
    let reported = |faults: Vec<String>| faults;
    if let Some(file) = &args.rules {
        let rules =
            read_rules(file, stdin).map_err(|faults| reported(faults.iter().map(ToString::to_string).collect()))?;
        let compiled = Table::compile(&rules.bytes);
        return compiled.map_err(|violations| violations.iter().map(ToString::to_string).collect());
    }
    let whole: serde_json::Value =
        serde_json::from_slice(scenario).map_err(|error| vec![format!("{name}: is not JSON: {error}")])?;
    let Some(rules) = whole.get("rules") else {
        return Err(vec![format!("{name}: /rules: is missing; add a rules document, or name one by --rules FILE")]);
    };
    Table::compile(rules.to_string().as_bytes()).map_err(|violations| {
        violations
            .iter()
            .map(|violation| format!("{name}: /rules{}: {}", violation.pointer, violation.message))
            .collect()
    })
}

fn outcome_report(table: &Table, outcome: &Outcome) -> OutcomeReport {
    let (peak, region, at) = outcome.peak;
    OutcomeReport {
        by: outcome.way.as_str(),
        peak,
        peak_region: region.map(|region| table.region(region).id.to_string()),
        peak_at: at.0 / 1_000,
        refused: outcome.refused,
        worst_step: outcome.worst_step,
        collapses: outcome.collapses,
        moves: outcome.moves.round(),
        turns: outcome.turns,
    }
}

fn text(scenario: &Scenario, reports: &[OutcomeReport]) -> String {
    let mut out = String::new();
    if !scenario.title.is_empty() {
        out += &format!("{}\n\n", scenario.title);
    }
    out += &format!(
        "{:<8}  {:>8}  {:>10}  {:>9}  {:>9}  {:>12}  {:>5}  peak of\n",
        "by", "refused", "worst step", "peak load", "collapses", "client moves", "turns"
    );
    for report in reports {
        let region = report.peak_region.as_deref().unwrap_or("–");
        let (hour, minute) = (report.peak_at / 3_600, report.peak_at / 60 % 60);
        out += &format!(
            "{:<8}  {:>6.2} %  {:>8.1} %  {:>7.0} %  {:>9}  {:>12.0}  {:>5}  {region} at {hour}:{minute:02}\n",
            report.by,
            report.refused * 100.0,
            report.worst_step * 100.0,
            report.peak * 100.0,
            report.collapses,
            report.moves,
            report.turns
        );
    }
    out + &format!("\n{} in steps of {}; {} clients.\n", Millis(scenario.length.0), scenario.step, scenario.clients)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCENARIO: &str = include_str!("../../../../docs/scenarios/nearest-dies-at-peak.json");

    fn args() -> SimulateArgs {
        SimulateArgs { scenario: "-".into(), rules: None, by: None, svg: None, json: true }
    }

    fn ask(args: &SimulateArgs, scenario: &str) -> Report {
        run(args, &mut scenario.as_bytes())
    }

    #[test]
    fn the_nearest_dies_and_only_the_plan_keeps_the_others_alive() {
        let reported = ask(&args(), SCENARIO);
        let reported: serde_json::Value =
            serde_json::from_str(&reported.output).unwrap_or_else(|_| panic!("{reported:?}"));
        let of = |by: usize, key: &str| reported[by][key].as_f64().unwrap();
        assert_eq!(reported.as_array().unwrap().len(), 3);
        assert!(of(1, "collapses") > 0.0, "by health alone the next region topples: {reported:#}");
        assert_eq!(of(2, "collapses"), 0.0, "{reported:#}");
        assert!(of(2, "refused") < of(1, "refused") / 4.0, "{reported:#}");
        assert!(of(2, "refused") < of(0, "refused"), "{reported:#}");
    }

    #[test]
    fn a_picture_is_written_and_one_way_can_be_chosen() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("out.svg");
        let one = SimulateArgs { by: Some(By::Load), svg: Some(file.clone()), json: false, ..args() };
        let reported = ask(&one, SCENARIO);
        assert!(reported.output.contains("\nload ") && !reported.output.contains("\nhealth "), "{reported:?}");
        let picture = std::fs::read_to_string(&file).unwrap();
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
        let nowhere = SimulateArgs { svg: Some("/nowhere/out.svg".into()), ..args() };
        assert!(ask(&nowhere, SCENARIO).errors[0].starts_with("/nowhere/out.svg: can't be written"));
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        assert!(ask(&args(), "{}").errors[0].contains("standard input: /rules: is missing"));
        assert!(ask(&args(), "{").errors[0].contains("standard input: is not JSON"));
        let reported = ask(&args(), r#"{"rules": {"version": 1, "revision": 1, "servcies": {}}}"#);
        assert!(reported.errors[0].starts_with("standard input: /rules/servcies: is not a known key"), "{reported:?}");
        let reported = ask(&args(), &SCENARIO.replace("\"eu-frankfurt\", \"at\"", "\"eu-frankfrut\", \"at\""));
        assert!(
            reported.errors[0].contains("/events/0/region: ") && reported.errors[0].contains("eu-frankfurt"),
            "{reported:?}"
        );
        let gone = SimulateArgs { scenario: "/nowhere.json".into(), ..args() };
        assert!(ask(&gone, "").errors[0].starts_with("/nowhere.json: can't be read"));
    }
}
