//! `bailiwick drill report`: takes the record of a drill, returns it as JSON or as a page that one would show an
//! auditor. With receipts of the edge, each is verified and counted. With a key, the report is signed.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use bailiwick_host::system::files::{Mode, replace};
use bailiwick_rules::drill::record::{Outcome, Phase, Record};
use bailiwick_rules::time::{Millis, Timestamp};
use clap::Args;
use serde_json::{Value, json};

use super::figures::{Receipts, in_seconds, is_under_way};
use super::node::{DrillNode, DrillNodeArgs};
use super::page::page;
use super::{read, record_file};
use crate::program::cli::node::Access;
use crate::program::cli::receipt::keys;
use crate::program::cli::seal::{seal, signer};
use crate::program::receipt::{Demands, Verified, VerifyError, verify};
use crate::program::report::Report;
use crate::state::load::read_text;

/// Options of `bailiwick drill report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// The drill's name in the rules.
    name: String,
    #[command(flatten)]
    node: DrillNodeArgs,
    /// The record that `bailiwick drill run` wrote; else drill-NAME.json in this directory, else the node's newest.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Write a page into this file, instead of JSON to standard output.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Sign the report with this private key: the text of the Worker's secret RECEIPT_KEY. Standard output gets the
    /// signed report; a page carries it.
    #[arg(long, value_name = "FILE")]
    sign_key: Option<PathBuf>,
    /// Receipts of the edge, one a line. Those of the drill's time are verified and counted.
    #[arg(long, value_name = "FILE", requires = "jwks")]
    receipts: Option<PathBuf>,
    /// The public keys of the receipts: the gateway's /.well-known/bailiwick/jwks.json.
    #[arg(long, value_name = "FILE", requires = "receipts")]
    jwks: Option<PathBuf>,
}

/// Writes the report of a drill.
pub(super) fn report(args: &ReportArgs, now: Timestamp) -> Result<Report, Vec<String>> {
    let signer = args.sign_key.as_deref().map(signer).transpose().map_err(|told| vec![told])?;
    let record = record(args)?;
    let receipts = match (&args.receipts, &args.jwks) {
        (Some(file), Some(jwks)) => Some(receipts(file, jwks, &record, now)?),
        _ => None,
    };
    let json = as_json(&record, receipts, now);
    let unsigned = || vec!["the report can't be signed".to_owned()];
    let is_unwell = all_outside(&record, receipts) > 0;
    let Some(file) = &args.html else {
        let text = match &signer {
            Some(signer) => seal(signer, &json).ok_or_else(unsigned)?,
            None => format!("{json:#}"),
        };
        return Ok(Report { is_unwell, ..Report::fine(text + "\n") });
    };
    let page = page(&record, receipts, now);
    let page = match &signer {
        Some(signer) => page.sealed(signer, json).ok_or_else(unsigned)?,
        None => page.plain(),
    };
    replace(file, page.as_bytes(), Mode::Public)
        .map_err(|error| vec![format!("{}: can't be written ({error})", file.display())])?;
    let mut text = summary(&record, now);
    if let Some(Receipts { checked, outside, unproved, repeated, invalid, other_time, other_fence }) = receipts {
        let _ = writeln!(text, "  receipts   {outside} of {checked} outside the fence");
        let _ = writeln!(
            text,
            "             {unproved} prove nothing, {invalid} invalid, {other_time} of another time, {other_fence} of \
             fences without the region, {repeated} twice"
        );
    }
    let _ = writeln!(text, "  in all     {} outside the fence", all_outside(&record, receipts));
    Ok(Report { is_unwell, ..Report::fine(text) })
}

/// The record: of the file, else the newest of the node.
fn record(args: &ReportArgs) -> Result<Record, Vec<String>> {
    let file = record_file(args.record.as_ref(), &args.name);
    if let Some(record) = read(&file)? {
        return match record.drill.as_str() == args.name {
            true => Ok(record),
            false => {
                Err(vec![format!("{}: is of the drill {}; name another with --record", file.display(), record.drill)])
            }
        };
    }
    DrillNode::find(&args.node, Access::Read)?.record(&args.name)
}

/// Verifies receipts, and counts those of the drill's time.
fn receipts(file: &Path, jwks: &Path, record: &Record, now: Timestamp) -> Result<Receipts, Vec<String>> {
    let keys = keys(jwks, &mut std::io::empty()).map_err(|told| vec![told])?;
    let text = read_text(file).map_err(|error| vec![format!("{}: can't be read ({error})", file.display())])?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(tally(lines.map(|line| verify(line, &keys, &Demands::default(), now)), record))
}

/// Counts receipts by what they prove. One that was given twice counts once.
fn tally(verified: impl Iterator<Item = Result<Verified, VerifyError>>, record: &Record) -> Receipts {
    // A receipt is signed to the second.
    let during = Timestamp(record.since.0.div_euclid(1_000) * 1_000)..=record.until.after(Millis(1_000));
    let (mut found, mut seen) = (Receipts::default(), BTreeSet::new());
    for one in verified {
        let mut has_region = true;
        let (at, jti, is_outside, is_proved) = match one {
            Ok(Verified { claims, .. }) => {
                has_region = claims.fence_more > 0 || claims.fence.iter().any(|name| *name == record.region.as_str());
                let is_within = claims.attempts.iter().all(|attempt| claims.fence.contains(&attempt.region));
                (Timestamp(claims.iat.saturating_mul(1_000)), claims.jti, false, is_within)
            }
            Err(VerifyError::OutsideFence { at, jti, .. }) => (at, jti, true, true),
            Err(_) => {
                found.invalid += 1;
                continue;
            }
        };
        match (during.contains(&at), seen.insert(jti), is_proved) {
            (_, false, _) => found.repeated += 1,
            (false, true, _) => found.other_time += 1,
            (true, true, false) => found.unproved += 1,
            (true, true, true) if !has_region => found.other_fence += 1,
            (true, true, true) => {
                (found.checked, found.outside) = (found.checked + 1, found.outside + u64::from(is_outside));
            }
        }
    }
    found
}

/// How many answers, requests and receipts lie outside of their fence.
fn all_outside(record: &Record, receipts: Option<Receipts>) -> u64 {
    record.checked.outside() + receipts.map_or(0, |receipts| receipts.outside)
}

/// The report: the record, what receipts prove, and when it was made.
fn as_json(record: &Record, receipts: Option<Receipts>, now: Timestamp) -> Value {
    let mut report = json!(record);
    report["at"] = json!(now);
    report["receipts"] = json!(receipts);
    report["outside"] = json!(all_outside(record, receipts));
    report
}

/// What came of a drill until `now`, in a few lines.
pub(super) fn summary(record: &Record, now: Timestamp) -> String {
    let Record { drill, region, outcome, moved, late, checked, .. } = record;
    let mut text = format!("{drill} of {region}: {}\n", outcome.as_str());
    for why in &record.why {
        let _ = writeln!(text, "  because    {why}");
    }
    if record.began.is_none() {
        return text;
    }
    let seconds = |ms: Option<u64>| ms.map_or("never seen".to_owned(), |ms| format!("{:.0} s", in_seconds(ms)));
    let _ = writeln!(text, "  95 % moved DNS {}, edge {}", seconds(moved.dns_ms), seconds(moved.edge_ms));
    if late.ms > 0 {
        let after = in_seconds(late.after_ms);
        let _ =
            writeln!(text, "  later      {} answers of DNS and {} requests after {after:.0} s", late.dns, late.edge);
    }
    for (name, phase) in [("before", &record.before), ("during", &record.during), ("after", &record.after)] {
        let _ = writeln!(text, "  {name:<10} {}", phase_words(phase));
    }
    let _ = writeln!(
        text,
        "  outside    {} of {} answers of DNS, {} of {} requests",
        checked.dns_outside, checked.dns, checked.edge_outside, checked.edge
    );
    if *outcome == Outcome::Unfinished {
        text += if is_under_way(record, now) {
            "  it is under way\n"
        } else {
            "  whoever ran it is gone: it ended by itself\n"
        };
    }
    text
}

fn phase_words(phase: &Phase) -> String {
    let first_token = match phase.first_token_ms {
        Some((median, p95)) => format!(", first token {median} ms (95 %: {p95} ms)"),
        None => String::new(),
    };
    let Phase { requests, failed, refused, .. } = phase;
    format!("{requests} requests, {failed} failed, {refused} refused{first_token}")
}

#[cfg(test)]
mod tests {
    use super::super::page::tests::record;
    use super::*;

    /// A receipt of the drill's time with a good signature.
    fn receipt(jti: &str, attempt: &str, fence_more: usize, late: i64) -> Result<Verified, VerifyError> {
        receipt_of(jti, ("fra", attempt), fence_more, late)
    }

    fn receipt_of(
        jti: &str,
        (fence, attempt): (&str, &str),
        fence_more: usize,
        late: i64,
    ) -> Result<Verified, VerifyError> {
        let claims = json!({ "jti": jti, "iat": record().since.0 / 1_000 + late, "service": "chat", "revision": 1,
            "rules_sha256": "", "client": { "jurisdictions": ["eu"], "source": "tenant" }, "fence": [fence],
            "fence_more": fence_more, "status": 200,
            "attempts": [{ "region": attempt, "endpoint": "e", "outcome": "committed", "ms": 1 }] });
        Ok(Verified {
            kid: "k".to_owned(),
            claims: serde_json::from_value(claims.clone()).expect("claims"),
            json: claims,
        })
    }

    fn outside(jti: &str, late: i64) -> Result<Verified, VerifyError> {
        let at = record().since.after(Millis(u64::try_from(late).unwrap_or(0) * 1_000));
        Err(VerifyError::OutsideFence { region: "iad".to_owned(), at, jti: jti.to_owned() })
    }

    #[test]
    fn each_receipt_of_the_time_counts_once_and_only_for_what_it_proves() {
        let given = [
            receipt("1", "fra", 0, 0),
            receipt("1", "fra", 0, 0),
            receipt("2", "iad", 3, 0),
            receipt("3", "fra", 3, 0),
            receipt("4", "fra", 0, 3_600),
            receipt_of("7", ("par", "par"), 0, 0),
            outside("5", 0),
            outside("6", 3_600),
            outside("5", 0),
            Err(VerifyError::OtherTenant("acme".to_owned())),
        ];
        let found = tally(given.into_iter(), &record());
        let expected =
            Receipts { checked: 3, outside: 1, unproved: 1, repeated: 2, invalid: 1, other_time: 2, other_fence: 1 };
        assert_eq!(found, expected);
        assert_eq!(as_json(&record(), Some(found), Timestamp(0))["outside"], 1);
    }
}
