//! `bailiwick rollout status`: takes a rollout's name, returns the share of each region, the verdicts of its checks,
//! and what it waits for, as text or JSON. It changes nothing.

use std::fmt::Write;

use bailiwick_rules::rollout::Verdict;
use bailiwick_rules::rollout::evals::Finding;
use bailiwick_rules::rollout::machine::{Decision, place};
use bailiwick_rules::table::Rollout;
use bailiwick_rules::time::Timestamp;
use clap::Args;
use serde_json::{Value, json};

use super::look::{LookArgs, look, read};
use super::progress_store::ProgressStore;
use super::{RolloutArgs, words_for};
use crate::program::report::Report;

/// Options of `bailiwick rollout status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    rollout: RolloutArgs,
    #[command(flatten)]
    look: LookArgs,
    /// Print it as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn status(args: &StatusArgs, now: Timestamp) -> Result<Report, Vec<String>> {
    let RolloutArgs { name, node, .. } = &args.rollout;
    let current = ProgressStore::find(node)?.current()?;
    let rollout = current.rollout(name)?;
    let report = args.look.report(node, rollout)?;
    let mut record = read(&args.look.record(name))?;
    let decision = look(rollout, report.as_ref(), (&mut record, None), now);
    let text = if args.json { format!("{:#}\n", as_json(rollout, &decision)) } else { as_text(rollout, &decision) };
    Ok(Report::fine(text))
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "fail",
        Verdict::Inconclusive(_) => "inconclusive",
    }
}

/// The state of a rollout and the decision about it, as text.
fn as_text(rollout: &Rollout, decision: &Decision) -> String {
    let rule = &rollout.rule;
    let mut text = format!("{}, a rollout of {}\n", rollout.id, rule.service);
    let progress = rule.progress.as_ref();
    for region in &rule.regions {
        let share = progress.and_then(|progress| progress.shares.get(region));
        let share = share.map_or_else(|| "-".to_owned(), |share| format!("{share} %"));
        let since = progress.filter(|_| place(rule).is_some_and(|here| here.region == region));
        let since = since.map(|progress| format!("  since {}", progress.since)).unwrap_or_default();
        let _ = writeln!(text, "  {region:<24} {share:>5}{since}");
    }
    for result in decision.judgement.iter().flat_map(|judgement| &judgement.checks) {
        let (name, [old, new]) = (result.check.measure.as_str(), result.samples);
        let _ =
            writeln!(text, "  {name:<24} {:<12}  {new} samples of the new arm, {old} of the old", word(result.verdict));
    }
    if let Some(eval) = &decision.eval {
        let (suite, finding) = (rule.eval.as_ref().map_or("", |check| &check.suite), eval.found.as_ref());
        let scores = finding.map(|finding| {
            let Finding { cases, means: [old, new], .. } = finding;
            format!("{new:.4} in the new arm, {old:.4} in the old, {cases} cases")
        });
        let scores = scores.unwrap_or_else(|| "no results yet".to_owned());
        let _ = writeln!(text, "  {:<24} {:<12}  {scores}", format!("eval {suite}"), word(eval.verdict));
    }
    let _ = writeln!(text, "{}", words_for(&decision.action));
    text
}

/// The state of a rollout and the decision about it, as JSON.
fn as_json(rollout: &Rollout, decision: &Decision) -> Value {
    let checks: Vec<Value> = decision
        .judgement
        .iter()
        .flat_map(|judgement| &judgement.checks)
        .map(|result| {
            json!({ "check": result.check.measure.as_str(), "verdict": word(result.verdict),
                    "samples": { "old": result.samples[0], "new": result.samples[1] },
                    "p_within": result.p_within, "p_beyond": result.p_beyond })
        })
        .collect();
    let eval = decision.eval.as_ref().map(|eval| {
        json!({ "suite": rollout.rule.eval.as_ref().map(|check| &check.suite), "verdict": word(eval.verdict),
                "why": eval.why, "found": eval.found })
    });
    let progress = rollout.rule.progress.as_ref();
    let shares = progress.map(|progress| &progress.shares);
    let mut report = json!({
        "rollout": rollout.id, "service": rollout.rule.service,
        "shares": shares, "since": progress.map(|progress| progress.since.to_string()),
        "paused": progress.and_then(|progress| progress.paused.as_ref()),
        "ended": progress.and_then(|progress| progress.ended.as_ref()),
        "checks": checks, "action": words_for(&decision.action),
    });
    if let Some(eval) = eval {
        report["eval"] = eval;
    }
    report
}
