//! `bailiwick releases`: asks a node what each region really runs under the names of models, and returns that as a
//! table or JSON.

use bailiwick_rules::overview::columns;
use bailiwick_rules::report::{ReleaseReport, ReleaseState, ReleasesReport, RunningReport};
use bailiwick_rules::time::Millis;
use reqwest::Method;

use super::node::{Access, Node};
use super::status::StatusArgs;
use crate::program::report::Report;
use crate::text::span::words;

/// Shows what each region runs. The exit code is 1 if an endpoint runs something else than it should, or than other
/// regions of its fence run.
pub(super) fn run(args: &StatusArgs) -> Report {
    show(args).unwrap_or_else(Report::failed)
}

/// Asks a node which release of each model its endpoints run.
fn show(args: &StatusArgs) -> Result<Report, Vec<String>> {
    let answer = Node::find(&args.node, Access::Read)?.ask(Method::GET, "/v1/releases", None)?;
    let json = args.json.then(|| format!("{answer:#}\n"));
    let report: ReleasesReport = serde_json::from_value(answer).map_err(|error| {
        vec![format!("what the node says of releases can't be understood ({error}); is it of another version?")]
    })?;
    let mut endpoints = report.releases.values().flat_map(|release| &release.endpoints);
    let is_unwell = endpoints.any(|endpoint| endpoint.state.is_skewed());
    Ok(Report { output: json.unwrap_or_else(|| text(&report)), is_unwell, ..Report::default() })
}

/// One table for each release.
fn text(report: &ReleasesReport) -> String {
    if report.releases.is_empty() {
        return "the rules name no release\n".to_owned();
    }
    let tables: Vec<String> = report.releases.iter().map(|(model, release)| table(model, release)).collect();
    tables.join("\n")
}

/// What the endpoints of a model run, as a table with the pinned release on top.
fn table(model: &str, release: &ReleaseState) -> String {
    let heads = ["region", "runs", "model", "root", "max_model_len", "fingerprint", "canary", "read"];
    let mut lines = vec![heads.map(str::to_owned)];
    if !release.pins.is_empty() {
        let pin = |name: &str| release.pins.get(name).cloned().unwrap_or("-".to_owned());
        let canary = if release.pins.contains_key("canary") { "pinned" } else { "-" }.to_owned();
        let pinned = ["(pinned)".to_owned(), "-".to_owned(), pin("model"), pin("root"), pin("max_model_len")];
        let [region, runs, model, root, length] = pinned;
        lines.push([region, runs, model, root, length, pin("fingerprint"), canary, "-".to_owned()]);
    }
    lines.extend(release.endpoints.iter().map(line));
    let mut text = format!("{model}, skew: {}\n", release.skew);
    columns(&lines, &mut text);
    let failures = release.endpoints.iter().filter_map(|run| Some((run, run.said.as_ref()?.failure.as_ref()?)));
    for (run, failure) in failures {
        text.push_str(&format!("{}/{}: {failure}\n", run.region, run.endpoint));
    }
    text
}

/// The row of an endpoint.
fn line(run: &RunningReport) -> [String; 8] {
    let nothing = ReleaseReport::default();
    let report = run.said.as_ref().unwrap_or(&nothing);
    let or_dash = |text: Option<&String>| text.cloned().unwrap_or("-".to_owned());
    let runs = match run.differs[..] {
        [] => run.state.as_str().to_owned(),
        _ => format!("{}: {}", run.state.as_str(), run.differs.join(", ")),
    };
    let canary = match (&report.canary, run.canary_apart) {
        (None, _) => "-".to_owned(),
        (Some(_), None) => "alone".to_owned(),
        (Some(_), Some(apart)) => format!("{apart:.3} nats"),
    };
    let read = match (&run.said, report.age_ms) {
        (None, _) => "not asked".to_owned(),
        (Some(_), None) => "not yet".to_owned(),
        (Some(_), Some(age)) => format!("{} ago", words(Millis(age))),
    };
    [
        format!("{}/{}", run.region, run.endpoint),
        runs,
        or_dash(report.model.as_ref()),
        or_dash(report.root.as_ref()),
        report.max_model_len.map_or("-".to_owned(), |length| length.to_string()),
        or_dash(report.fingerprint.as_ref()),
        canary,
        read,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_tells_what_each_region_runs_and_what_differs() {
        let said = json!({ "model": "llama", "max_model_len": 8192, "fingerprint": "b4567-5dab1a2c", "canary": "AQ",
            "age_ms": 120_000, "interval_ms": 3_600_000 });
        let report = json!({ "node": "ns1", "at": "2026-12-01T06:00:00Z", "revision": 1, "releases": { "chat": {
            "skew": "withhold", "pins": { "fingerprint": "b4567-*" }, "endpoints": [
            { "region": "fra", "endpoint": "fra-1", "state": "same", "canary_apart": 0.01, "said": said },
            { "region": "lon", "endpoint": "lon-1", "state": "skew", "differs": ["canary"], "canary_apart": 0.9,
              "said": said },
            { "region": "par", "endpoint": "par-1", "state": "unknown", "said": { "age_ms": null, "interval_ms": 1,
              "failure": "answered 500, expected a completion" } } ] } } });
        let report: ReleasesReport = serde_json::from_value(report).unwrap();
        let expected = "\
chat, skew: withhold
region     runs          model  root  max_model_len  fingerprint     canary      read
(pinned)   -             -      -     -              b4567-*         -           -
fra/fra-1  same          llama  -     8192           b4567-5dab1a2c  0.010 nats  2m ago
lon/lon-1  skew: canary  llama  -     8192           b4567-5dab1a2c  0.900 nats  2m ago
par/par-1  unknown       -      -     -              -               -           not yet
par/par-1: answered 500, expected a completion
";
        assert_eq!(text(&report), expected);
        assert!(text(&ReleasesReport { releases: Default::default(), ..report }).contains("no release"));
    }
}
