//! `bailiwick plan`: takes rules with capacities and demand; returns for every fence (the regions that may process some
//! clients) whether the other regions carry the demand if a region is lost. Needs no running server.

use std::io::Read;
use std::path::PathBuf;

use bailiwick_rules::load::{Amount, Classes, FenceLoss, losses, read_demand, settled};
use bailiwick_rules::rules::Ratio;
use bailiwick_rules::table::{RegionIndex, Table};
use clap::Args;
use serde::Serialize;

use super::check::read_rules;
use crate::program::config::Config;
use crate::program::report::Report;
use crate::state::load;
use crate::text::nearest::suggestion;

/// Options of `bailiwick plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The configuration that names the rules.
    #[arg(long, value_name = "FILE", default_value = "bailiwick.toml")]
    config: PathBuf,
    /// Plan by this rules document; `-` reads standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    rules: Option<PathBuf>,
    /// Lose this region; may be given more than once, each is lost alone.
    #[arg(long, value_name = "REGION")]
    lose: Vec<String>,
    /// Lose each region in turn. That is what is done unless --lose says another.
    #[arg(long, conflicts_with = "lose")]
    each: bool,
    /// Requests in flight at the peak, by service and country, instead of the `demand` that the rules state.
    #[arg(long, value_name = "FILE")]
    demand: Option<PathBuf>,
    /// The highest load, in per cent, at which a fence counts as carried.
    #[arg(long, value_name = "PERCENT", default_value = "100%", value_parser = percent)]
    max_load: Ratio,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

fn percent(text: &str) -> Result<Ratio, String> {
    Ratio::parse_percent(text).ok_or_else(|| "write whole per cent from 1% to 100%".to_owned())
}

/// The findings, as printed by `--json`.
#[derive(Serialize)]
struct Findings {
    /// Whether every fence carries every loss of a region.
    ok: bool,
    /// Where the demand comes from: `rules` or `file`.
    demand: &'static str,
    fences: Vec<Finding>,
}

/// One fence, whole or without a region.
#[derive(Serialize)]
struct Finding {
    fence: Vec<String>,
    lost: Option<String>,
    /// The requests in progress of all clients that may be served in this fence only.
    demand: f64,
    /// How many requests in progress the rest of the fence can carry. `None` (null in JSON) if a region's capacity
    /// isn't known.
    capacity: Option<f64>,
    /// Demand divided by capacity. 1 means full.
    load: Option<f64>,
    /// The part of the demand, from 0 to 1, that no region can carry.
    refused: f64,
    carried: Option<bool>,
    /// The remaining region of the fence with the highest load, after clients were moved because of load.
    fullest: Option<Fullest>,
}

#[derive(Serialize)]
struct Fullest {
    region: String,
    load: f64,
}

/// Runs the command.
pub(crate) fn run(args: &PlanArgs, stdin: &mut dyn Read) -> Report {
    let rules = match &args.rules {
        Some(rules) => read_rules(rules, stdin),
        None => match Config::read(&args.config) {
            Ok(config) => load::read_rules(config.rules_file()),
            Err(errors) => return Report::failed(errors),
        },
    };
    let table = match &rules {
        Ok(rules) => &rules.table,
        Err(faults) => return Report::failed(faults),
    };
    match (classes(args, table), lost(args, table)) {
        (Ok(classes), Ok(lost)) => report(args, table, &classes, &lost),
        (classes, lost) => Report::failed([classes.err(), lost.err()].into_iter().flatten().flatten()),
    }
}

/// The classes of clients with their demand: from a file, or as the rules state it.
fn classes(args: &PlanArgs, table: &Table) -> Result<Classes, Vec<String>> {
    let classes = match &args.demand {
        None => Classes::stated(table),
        Some(file) => {
            let name = file.display();
            let bytes = std::fs::read(file).map_err(|error| vec![format!("{name}: can't be read: {error}")])?;
            let mistakes =
                |mistakes: Vec<_>| mistakes.iter().map(|mistake| format!("{name}: {mistake}")).collect::<Vec<_>>();
            Classes::new(table, &read_demand(table, &bytes).map_err(mistakes)?)
        }
    };
    if classes.list().iter().all(|class| class.demand == 0) {
        return Err(vec![match args.demand {
            None => {
                "the rules state no demand; add \"load\": {\"capacity\": …, \"demand\": …} to regions, or give --demand"
                    .to_owned()
            }
            Some(_) => "--demand: nobody it counts may be served anywhere, or all counts are 0".to_owned(),
        }]);
    }
    Ok(classes)
}

/// The regions whose loss is examined: those of `--lose`, or all.
fn lost(args: &PlanArgs, table: &Table) -> Result<Vec<RegionIndex>, Vec<String>> {
    let names = || table.regions().iter().map(|region| region.id.as_str());
    if args.lose.is_empty() {
        return Ok(names().filter_map(|name| table.region_named(name)).collect());
    }
    let (mut regions, mut errors) = (Vec::new(), Vec::new());
    for name in &args.lose {
        match table.region_named(name) {
            Some(region) => regions.push(region),
            None => {
                errors.push(format!("lose: the rules have no region \"{name}\"; {}", suggestion(name, names())));
            }
        }
    }
    if errors.is_empty() { Ok(regions) } else { Err(errors) }
}

/// The output: what each fence can carry, with all regions and without each one.
fn report(args: &PlanArgs, table: &Table, classes: &Classes, lost: &[RegionIndex]) -> Report {
    let losses = losses(table, classes, lost);
    let mut after: Vec<(Option<RegionIndex>, Vec<Amount>)> = vec![(None, settled(table, classes, None))];
    after.extend(lost.iter().map(|region| (Some(*region), settled(table, classes, Some(*region)))));
    let finding = |loss: &FenceLoss| {
        let carried = after.iter().find(|(lost, _)| *lost == loss.lost).map_or(&[][..], |(_, carried)| carried);
        finding(table, loss, carried, args.max_load)
    };
    let fences: Vec<Finding> = losses.iter().map(finding).collect();
    let ok = fences.iter().all(|finding| finding.carried == Some(true));
    let demand = if args.demand.is_some() { "file" } else { "rules" };
    let output = match args.json {
        true => match serde_json::to_string_pretty(&Findings { ok, demand, fences }) {
            Ok(json) => json + "\n",
            Err(error) => return Report::error(format!("the plan can't be written as JSON: {error}")),
        },
        false => text(&fences, args),
    };
    Report { output, is_unwell: !ok, ..Report::default() }
}

/// What a fence can carry after a loss. `carried` is the load of each region then.
fn finding(table: &Table, loss: &FenceLoss, carried: &[Amount], max_load: Ratio) -> Finding {
    let name = |region: &RegionIndex| table.region(*region).id.to_string();
    let part = |ratio: Ratio| f64::from(ratio.0) / 1e6;
    let load_of = |region: &RegionIndex| {
        let capacity = table.region(*region).load.as_ref()?.capacity?;
        let used = carried.get(region.get())?;
        Some((Ratio::between(*used, u64::from(capacity) * 1_000), *region))
    };
    let rest = loss.fence.iter().filter(|region| Some(**region) != loss.lost);
    let fullest = rest.filter_map(load_of).max_by_key(|(load, region)| (*load, core::cmp::Reverse(*region)));
    Finding {
        fence: loss.fence.iter().map(name).collect(),
        lost: loss.lost.as_ref().map(name),
        demand: loss.demand as f64 / 1_000.0,
        capacity: loss.capacity.map(|capacity| capacity as f64 / 1_000.0),
        load: loss.load().map(part),
        refused: part(Ratio::between(loss.refused, loss.demand)),
        carried: loss.is_carried(max_load),
        fullest: fullest.map(|(load, region)| Fullest { region: name(&region), load: part(load) }),
    }
}

/// The most regions of a fence that a line names. The line says how many more there are.
const MAX_NAMED: usize = 6;

/// The findings as a table for each fence.
fn text(fences: &[Finding], args: &PlanArgs) -> String {
    let mut out = String::new();
    let mut last: Option<&[String]> = None;
    let width =
        fences.iter().filter_map(|finding| finding.lost.as_ref()).map(|lost| lost.chars().count()).max().unwrap_or(0);
    let width = width.max("nothing".len());
    for finding in fences {
        if last != Some(&finding.fence) {
            let more = finding.fence.len().saturating_sub(MAX_NAMED);
            let names = finding.fence.iter().take(MAX_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            out += &format!("{}fence of {names}{more}\n", if last.is_some() { "\n" } else { "" });
            out += &format!(
                "  {:<width$}  {:>8}  {:>8}  {:>8}  {:>8}  fullest after it\n",
                "lost", "demand", "capacity", "load", "refused"
            );
            last = Some(&finding.fence);
        }
        let lost = finding.lost.as_deref().unwrap_or("nothing");
        let capacity = finding.capacity.map_or("unknown".to_owned(), |capacity| format!("{capacity:.0}"));
        let load = finding.load.map_or("unknown".to_owned(), percentage);
        let refused = if finding.refused > 0.0 { percentage(finding.refused) } else { "–".to_owned() };
        let fullest = finding
            .fullest
            .as_ref()
            .map_or("–".to_owned(), |fullest| format!("{} {}", fullest.region, percentage(fullest.load)));
        let mark = match finding.carried {
            Some(true) => "",
            Some(false) => "  ← not carried",
            None => "  ← unknown: a capacity is missing",
        };
        out += &format!(
            "  {lost:<width$}  {:>8.0}  {capacity:>8}  {load:>8}  {refused:>8}  {fullest}{mark}\n",
            finding.demand
        );
    }
    let not_carried = fences.iter().filter(|finding| finding.carried != Some(true)).count();
    out += &match not_carried {
        0 => format!("\nEvery fence carries every loss at a load of {} or less.\n", args.max_load),
        count => format!("\n{count} of {} can't be carried, or nobody knows.\n", fences.len()),
    };
    if args.demand.is_none() {
        out += "Demand is each region's \"demand\", in equal parts from the countries nearest to it; --demand tells it \
            by country.\n";
    }
    out
}

/// A load or a part in per cent. Loads of more than twenty times the capacity aren't distinguished.
fn percentage(part: f64) -> String {
    if part > 20.0 { "> 2000 %".to_owned() } else { format!("{:.1} %", part * 100.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = r#"{"version": 1, "revision": 4,
        "jurisdictions": {"eu": {"include": ["EU"]}, "uk": {"countries": ["GB"]}},
        "regions": {"fra": {"countries": ["DE"], "load": {"capacity": 100, "demand": 80}},
                    "lon": {"countries": ["GB"], "load": {"capacity": 50, "demand": 20}},
                    "par": {"countries": ["FR"], "load": {"capacity": PARIS, "demand": 60}}},
        "services": {"chat": {"hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra", "lon", "par"],
            "residency": [{"clients": ["eu"], "process_in": ["eu"]},
                          {"clients": ["uk"], "process_in": ["uk", "eu"]}]}}}"#;

    fn args() -> PlanArgs {
        PlanArgs {
            config: PathBuf::new(),
            rules: Some("-".into()),
            lose: Vec::new(),
            each: false,
            demand: None,
            max_load: Ratio::ONE,
            json: false,
        }
    }

    fn ask(args: &PlanArgs, paris: u32) -> Report {
        run(args, &mut RULES.replace("PARIS", &paris.to_string()).as_bytes())
    }

    #[test]
    fn a_fence_that_cannot_lose_a_region_makes_the_exit_code_1() {
        let reported = ask(&args(), 100);
        assert_eq!((reported.code(), reported.errors.len()), (1, 0), "{reported:?}");
        let (_, of_two) =
            reported.output.split_once("fence of fra, par\n").unwrap_or_else(|| panic!("{}", reported.output));
        let line = of_two.lines().find(|line| line.trim_start().starts_with("fra ")).expect("a line");
        assert!(line.contains(" 140.0 % ") && line.contains("par 140.0 %"), "{line}");
        assert!(line.contains("28.5 %") || line.contains("28.6 %"), "{line}");
        assert!(line.ends_with("← not carried"), "{line}");
        let reported = ask(&PlanArgs { lose: vec!["lon".into()], ..args() }, 100);
        assert_eq!(reported.code(), 0, "{reported:?}");
        assert!(reported.output.contains("Every fence carries every loss"), "{}", reported.output);
    }

    #[test]
    fn a_lower_bound_is_failed_sooner() {
        let enough = PlanArgs { lose: vec!["fra".into()], ..args() };
        assert_eq!(ask(&enough, 200).code(), 0);
        assert_eq!(ask(&PlanArgs { max_load: Ratio(650_000), ..enough }, 200).code(), 1);
    }

    #[test]
    fn json_holds_the_same() {
        let reported = ask(&PlanArgs { json: true, ..args() }, 100);
        let json: serde_json::Value = serde_json::from_str(&reported.output).unwrap();
        let fences = json["fences"].as_array().unwrap();
        let lost: Vec<_> = fences.iter().filter(|one| one["carried"] == false).map(|one| &one["lost"]).collect();
        assert_eq!((json["ok"].as_bool(), lost.len()), (Some(false), 4), "{json:#}");
        let of_two =
            fences.iter().find(|one| one["lost"] == "fra" && one["fence"].as_array().unwrap().len() == 2).unwrap();
        assert_eq!(
            (&of_two["demand"], &of_two["capacity"], &of_two["load"]),
            (&140.0.into(), &100.0.into(), &1.4.into())
        );
        assert_eq!(of_two["fullest"]["region"], "par");
    }

    #[test]
    fn demand_comes_by_file_and_its_mistakes_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("peak.json");
        let by_file = PlanArgs { demand: Some(file.clone()), ..args() };
        std::fs::write(&file, r#"{"chat": {"DE": 40, "GB": 5}}"#).unwrap();
        let reported = ask(&by_file, 100);
        assert_eq!(reported.code(), 0, "{reported:?}");
        std::fs::write(&file, r#"{"chta": {"DE": 40}}"#).unwrap();
        assert!(ask(&by_file, 100).errors[0].contains("peak.json: /chta: is no service"));
        std::fs::write(&file, r#"{"chat": {"US": 40}}"#).unwrap();
        assert!(ask(&by_file, 100).errors[0].contains("may be served anywhere"), "no rule takes them");
        assert!(ask(&PlanArgs { demand: Some("/nowhere".into()), ..args() }, 1).errors[0].contains("can't be read"));
    }

    #[test]
    fn wrong_names_and_rules_without_demand_are_told() {
        let reported = ask(&PlanArgs { lose: vec!["fro".into()], ..args() }, 100);
        assert!(
            reported.errors[0].starts_with("lose: the rules have no region \"fro\"; did you mean \"fra\"?"),
            "{reported:?}"
        );
        let reported = run(&args(), &mut &br#"{"version": 1, "revision": 1}"#[..]);
        assert!(reported.errors[0].contains("state no demand"), "{reported:?}");
    }
}
