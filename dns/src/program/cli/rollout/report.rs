//! `bailiwick rollout report`: takes the record of a rollout (what was counted and decided at each look), returns a
//! report of it, as JSON or as an HTML page with a picture for each step and check. A picture shows which differences
//! between the old and the new arm were still possible at each look. Reads only the record and the rules. With a key,
//! the report is signed.

use std::path::PathBuf;

use bailiwick_host::system::files::{Mode, replace};
use bailiwick_rules::rollout::machine::checks;
use bailiwick_rules::rollout::record::Record;
use bailiwick_rules::rules::Rollout;
use bailiwick_rules::time::Timestamp;
use clap::Args;
use serde_json::{Value, json};

use super::RolloutArgs;
use super::look::{LookArgs, read};
use super::page::page;
use super::progress_store::ProgressStore;
use crate::program::cli::seal::{seal, signer};
use crate::program::report::Report;

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
    /// Sign the report with this private key: the text of the Worker's secret RECEIPT_KEY. Standard output gets the
    /// signed report; a page carries it.
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,
}

/// Writes the report of a rollout.
pub(super) fn report(args: &ReportArgs, now: Timestamp) -> Result<Report, Vec<String>> {
    let RolloutArgs { name, node, .. } = &args.rollout;
    let signer = args.sign_key.as_deref().map(signer).transpose().map_err(|problem| vec![problem])?;
    let current = ProgressStore::find(node)?.current()?;
    let rule = &current.rollout(name)?.rule;
    let record = read(&args.look.record(name))?;
    let json = as_json(name, (current.revision(), rule), &record, now);
    let unsigned = || vec!["the report can't be signed".to_owned()];
    let Some(file) = &args.html else {
        return match &signer {
            Some(signer) => Ok(Report::fine(seal(signer, &json).ok_or_else(unsigned)? + "\n")),
            None => Ok(Report::fine(format!("{json:#}\n"))),
        };
    };
    let page = page(name, rule, &record);
    let page = match &signer {
        Some(signer) => page.sealed(signer, json).ok_or_else(unsigned)?,
        None => page.plain(),
    };
    replace(file, page.as_bytes(), Mode::Public)
        .map_err(|error| vec![format!("{}: can't be written ({error})", file.display())])?;
    Ok(Report::fine(format!("{} has {} steps\n", file.display(), record.steps.len())))
}

/// The report. `revision` is the number and the SHA-256 of the rules.
fn as_json(name: &str, (revision, rule): ((u64, String), &Rollout), record: &Record, now: Timestamp) -> Value {
    let checks = checks(rule);
    let steps = record.steps.iter().map(|step| {
        let looks = step.looks.iter().map(|look| {
            json!({ "at": look.at, "attempts": { "old": look.attempts[0], "new": look.attempts[1] },
                    "possible": look.possible.by_measure(&checks) })
        });
        json!({ "region": step.region, "share": step.share, "since": step.since, "outcome": step.outcome,
                "old": step.old.counts, "new": step.new.counts, "looks": looks.collect::<Vec<_>>() })
    });
    let limits: serde_json::Map<String, Value> =
        checks.iter().map(|check| (check.measure.as_str().to_owned(), json!(check.limit()))).collect();
    let ended = rule.progress.as_ref().and_then(|progress| progress.ended.as_ref());
    let (revision, sha256) = revision;
    let mut report = json!({ "rollout": name, "service": rule.service, "ended": ended, "limits": limits,
                             "at": now, "revision": revision, "rules_sha256": sha256,
                             "steps": steps.collect::<Vec<_>>() });
    if let Some(check) = &rule.eval {
        let evals = record.evals.iter();
        let evals =
            evals.map(|evals| json!({ "region": evals.region, "since": evals.since, "results": evals.findings }));
        report["eval"] = json!({ "suite": check.suite, "margin": check.margin, "regions": evals.collect::<Vec<_>>() });
    }
    report
}

#[cfg(test)]
mod tests {
    use super::super::page::tests::{record, rule};
    use super::*;

    #[test]
    fn a_range_is_told_of_its_own_measure_when_a_check_is_added_before_it() {
        let rule = rule(&json!({ "error_rate": { "max_diff": 0.01 }, "finish_length": { "max_diff": 0.02 } }));
        let range = json!({ "low": 0.25, "high": 0.5 });
        let possible = |kept: Value| {
            let report = as_json("next", ((7, "0a".to_owned()), &rule), &record(&kept), Timestamp(0));
            report["steps"][0]["looks"][0]["possible"].clone()
        };
        assert_eq!(possible(json!({ "finish_length": range })), json!({ "finish_length": range }));
        // As earlier versions kept it: with the same checks, and with one less.
        assert_eq!(possible(json!([null, range])), json!({ "error_rate": null, "finish_length": range }));
        assert_eq!(possible(json!([range])), json!({}));
    }
}
