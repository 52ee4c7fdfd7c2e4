//! `bailiwick rollout report`: takes the record of a rollout, returns what was possible at each look, as JSON or as a
//! page with a picture for each step and check. Asks nobody but for the rules.

use std::fmt::Write;
use std::path::PathBuf;

use bailiwick_rules::rollout::machine::checks;
use bailiwick_rules::rollout::record::{Record, StepRecord};
use bailiwick_rules::rollout::{Check, Margin};
use bailiwick_rules::rules::Rollout;
use bailiwick_rules::simulation::escape;
use clap::Args;
use serde_json::{Value, json};

use super::RolloutArgs;
use super::desk::Desk;
use super::look::{LookArgs, read};
use crate::program::report::Report;
use crate::system::files::{Mode, replace};

/// The size of a picture, in pixels.
const SIZE: (f64, f64) = (640.0, 120.0);

/// Options of `bailiwick rollout report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    rollout: RolloutArgs,
    #[command(flatten)]
    look: LookArgs,
    /// Write a page into this file, instead of JSON to standard output.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Writes the report of a rollout.
pub(super) fn report(args: &ReportArgs) -> Result<Report, Vec<String>> {
    let RolloutArgs { name, node, .. } = &args.rollout;
    let current = Desk::find(node)?.current()?;
    let rule = &current.rollout(name)?.rule;
    let record = read(&args.look.record(name))?;
    let Some(file) = &args.html else { return Ok(Report::fine(format!("{:#}\n", as_json(name, rule, &record)))) };
    let page = page(name, rule, &record);
    replace(file, page.as_bytes(), Mode::Public)
        .map_err(|error| vec![format!("{}: can't be written ({error})", file.display())])?;
    Ok(Report::fine(format!("{} has {} steps\n", file.display(), record.steps.len())))
}

fn limit(check: Check) -> f64 {
    match check.margin {
        Margin::Difference(most) | Margin::Ratio(most) => most,
    }
}

fn as_json(name: &str, rule: &Rollout, record: &Record) -> Value {
    let checks = checks(rule);
    let steps = record.steps.iter().map(|step| {
        let looks = step.looks.iter().map(|look| {
            let possible = checks.iter().zip(&look.possible);
            let possible: serde_json::Map<String, Value> =
                possible.map(|(check, range)| (check.measure.as_str().to_owned(), json!(range))).collect();
            json!({ "at": look.at, "attempts": { "old": look.attempts[0], "new": look.attempts[1] },
                    "possible": possible })
        });
        json!({ "region": step.region, "share": step.share, "since": step.since, "outcome": step.outcome,
                "old": step.old.counts, "new": step.new.counts, "looks": looks.collect::<Vec<_>>() })
    });
    let limits: serde_json::Map<String, Value> =
        checks.iter().map(|check| (check.measure.as_str().to_owned(), json!(limit(*check)))).collect();
    let ended = rule.progress.as_ref().and_then(|progress| progress.ended.as_ref());
    json!({ "rollout": name, "service": rule.service, "ended": ended, "limits": limits,
            "steps": steps.collect::<Vec<_>>() })
}

fn page(name: &str, rule: &Rollout, record: &Record) -> String {
    let checks = checks(rule);
    let title = format!("Rollout {}", escape(name));
    let style = "body{font:15px system-ui;max-width:720px;margin:2em auto;color:#222} \
                 svg{background:#f6f6f6;display:block} figure{margin:1em 0} h2{margin-top:2em}";
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\n<style>{style}</style>\n\
         <h1>{title}</h1>\n"
    );
    let ended = rule.progress.as_ref().and_then(|progress| progress.ended.as_deref());
    let _ = writeln!(
        page,
        "<p>Service {}. {}. Bands are the differences (new arm less old arm) or ratios (new arm to old arm) that \
         aren't refuted, at a level that holds for all looks together; the dashed line is what is allowed.</p>",
        escape(rule.service.as_str()),
        escape(ended.unwrap_or("Under way"))
    );
    for step in &record.steps {
        let (region, share) = (escape(step.region.as_str()), step.share);
        let _ = writeln!(page, "<h2>{region}, {share} %, since {}</h2>", step.since);
        let _ = writeln!(page, "<p>{}</p>", escape(&step.outcome));
        for (position, check) in checks.iter().enumerate() {
            page += &figure(step, position, *check);
        }
    }
    page + "</html>\n"
}

/// The picture of one check in one step.
fn figure(step: &StepRecord, position: usize, check: Check) -> String {
    let ranges: Vec<(f64, f64)> = step
        .looks
        .iter()
        .filter_map(|look| look.possible.get(position).copied().flatten())
        .map(|range| (range.low, range.high.unwrap_or(f64::MAX)))
        .collect();
    let (limit, none) = (limit(check), if check.measure.is_time() { 1.0 } else { 0.0 });
    // Four times the margin to either side of "no difference". Wider bands are cut off.
    let reach = 4.0 * (limit - none).abs();
    let y = |value: f64| {
        let part = ((value - none) / reach).clamp(-1.0, 1.0);
        (1.0 - part) * SIZE.1 / 2.0
    };
    let last = f64::from(u32::try_from(ranges.len().saturating_sub(1)).unwrap_or(u32::MAX)).max(1.0);
    let at = |nth: usize| f64::from(u32::try_from(nth).unwrap_or(u32::MAX)) / last * SIZE.0;
    let upper = ranges.iter().enumerate().map(|(nth, (_, high))| format!("{:.1},{:.1}", at(nth), y(*high)));
    let lower = ranges.iter().enumerate().rev().map(|(nth, (low, _))| format!("{:.1},{:.1}", at(nth), y(*low)));
    let band = upper.chain(lower).collect::<Vec<_>>().join(" ");
    let line = |value: f64, more: &str| {
        format!("<line x1=\"0\" x2=\"{}\" y1=\"{1:.1}\" y2=\"{1:.1}\" {more}/>", SIZE.0, y(value))
    };
    format!(
        "<figure><figcaption>{}</figcaption><svg width=\"{2}\" height=\"{3}\"><polygon points=\"{1}\" \
         fill=\"#7aa6d8\"/>{4}{5}</svg></figure>\n",
        check.measure.as_str(),
        band,
        SIZE.0,
        SIZE.1,
        line(none, "stroke=\"#888\""),
        line(limit, "stroke=\"#c33\" stroke-dasharray=\"6 4\"")
    )
}
