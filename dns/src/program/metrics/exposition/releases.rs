//! Writes the metrics of releases. A release says what should run under a name of a model. Takes what endpoints really
//! run, writes OpenMetrics. Called by [`super`].

use std::fmt;

use bailiwick_rules::report::RunningReport;
use prometheus_client::encoding::DescriptorEncoder;

use super::{counter, gauge, sample};
use crate::state::owner::Handle;
use crate::state::snapshot::ReleaseView;

/// The longest value of a label that comes from an endpoint, in bytes. Longer values are cut.
const LONGEST_LABEL: usize = 128;

/// Writes what endpoints run. Writes nothing if the rules name no release. Each endpoint has one sample for each
/// release, so the number of samples doesn't grow when a label changes.
pub(super) fn encode(handle: &Handle, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let (snapshot, now) = (handle.snapshot_owned(), handle.now());
    let table = snapshot.table();
    if table.releases().is_empty() {
        return Ok(());
    }
    let running = snapshot.running(now);
    let all: Vec<(&str, &RunningReport)> =
        running.iter().flat_map(|(model, release)| release.endpoints.iter().map(|run| (model.as_str(), run))).collect();
    let labels = |model, run: &RunningReport| {
        [("region", run.region.to_string()), ("endpoint", run.endpoint.to_string()), ("release", bounded(model))]
    };
    let mut metric = gauge(encoder, "release_info", "What an endpoint runs, by what it says of itself")?;
    for (model, run) in &all {
        let Some(report) = run.said.as_ref().filter(|report| report.age_ms.is_some()) else { continue };
        let text = |text: &Option<String>| bounded(text.as_deref().unwrap_or_default());
        let length = report.max_model_len.map(|length| length.to_string()).unwrap_or_default();
        let [region, endpoint, release] = labels(model, run);
        let info = [
            region,
            endpoint,
            release,
            ("model", text(&report.model)),
            ("root", text(&report.root)),
            ("fingerprint", text(&report.fingerprint)),
            ("max_model_len", length),
        ];
        metric.encode_family(&info)?.encode_gauge(&1_u64)?;
    }
    let help = "Whether an endpoint runs something else than the release says, or than other regions of a fence run";
    let mut metric = gauge(encoder, "release_skew", help)?;
    for (model, run) in &all {
        metric.encode_family(&labels(model, run))?.encode_gauge(&u64::from(run.state.is_skewed()))?;
    }
    let help = "Whether something of what an endpoint runs is known that can be compared";
    let mut metric = gauge(encoder, "release_known", help)?;
    for (model, run) in &all {
        let is_known = run.state != bailiwick_rules::report::Running::Unknown;
        metric.encode_family(&labels(model, run))?.encode_gauge(&u64::from(is_known))?;
    }
    let help = "How far an endpoint's canary is from the pinned one, or at most from another endpoint's, in nats";
    let mut metric = gauge(encoder, "release_canary_nats", help)?;
    for (model, run) in &all {
        if let Some(apart) = run.canary_apart {
            metric.encode_family(&labels(model, run))?.encode_gauge(&apart)?;
        }
    }
    let help = "Rounds of questions about what an endpoint runs, by result";
    let mut metric = counter(encoder, "release_readings", help)?;
    for view in &snapshot.health().releases {
        let Some([region, endpoint, release]) = names(table, view) else { continue };
        for (result, count) in [("read", view.readings.passed), ("failed", view.readings.failed)] {
            let labels = [("region", region), ("endpoint", endpoint), ("release", release), ("result", result)];
            sample(&mut metric, &labels, count)?;
        }
    }
    Ok(())
}

fn names<'t>(table: &'t bailiwick_rules::table::Table, view: &ReleaseView) -> Option<[&'t str; 3]> {
    let region = table.region(view.region);
    let (endpoint, _) = region.endpoints.get(view.endpoint)?;
    Some([region.id.as_str(), endpoint.as_str(), table.releases().get(view.release.get())?.model.as_str()])
}

/// A text that comes from an endpoint as a label, cut to [`LONGEST_LABEL`].
fn bounded(text: &str) -> String {
    let end = (0..=LONGEST_LABEL.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}
