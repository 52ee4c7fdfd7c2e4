//! Writes the metrics of loads. Takes the last readings of endpoints' loads, writes OpenMetrics. Called by [`super`].

use std::fmt;

use bailiwick_rules::rules::Ratio;
use prometheus_client::encoding::DescriptorEncoder;

use super::{counter, gauge, sample};
use crate::state::owner::Handle;

/// A ratio as the value of a metric, where 1 is the whole.
pub(super) fn number(ratio: Ratio) -> f64 {
    f64::from(ratio.0) / f64::from(Ratio::ONE.0)
}

/// Writes the loads of endpoints and regions. Writes nothing if the rules name no source of loads. A load that isn't
/// known has no sample, because any number would be wrong.
pub(super) fn encode(handle: &Handle, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let (snapshot, now) = (handle.snapshot_owned(), handle.now());
    let reports = snapshot.load_reports(now);
    if reports.is_empty() {
        return Ok(());
    }
    let endpoints = || {
        reports.iter().flat_map(|(region, report)| {
            report
                .endpoints
                .iter()
                .map(move |(endpoint, load)| ([("region", region.as_str()), ("endpoint", endpoint.as_str())], load))
        })
    };
    let help = "The load of an endpoint by its engine's metrics; 1 is full. Absent while no fresh reading is there";
    let mut metric = gauge(encoder, "endpoint_load_ratio", help)?;
    for (labels, reported) in endpoints() {
        if let Some(load) = reported.load {
            metric.encode_family(&labels)?.encode_gauge(&number(load))?;
        }
    }
    let mut metric = gauge(encoder, "endpoint_load_age_seconds", "How long ago an endpoint's load was last read")?;
    for (labels, reported) in endpoints() {
        if let Some(age) = reported.age_ms {
            #[allow(clippy::cast_precision_loss)] // no age is that long
            metric.encode_family(&labels)?.encode_gauge(&(age as f64 / 1_000.0))?;
        }
    }
    let help = "The load of a region: the mean of its endpoints that aren't down, weighted by capacity";
    let mut metric = gauge(encoder, "region_load_ratio", help)?;
    for (region, report) in &reports {
        if let Some(load) = report.load {
            metric.encode_family(&[("region", region.as_str())])?.encode_gauge(&number(load))?;
        }
    }
    let help = "Endpoints of a region that aren't down and whose load isn't known";
    let mut metric = gauge(encoder, "region_load_missing", help)?;
    for (region, report) in &reports {
        metric.encode_family(&[("region", region.as_str())])?.encode_gauge(&u64::from(report.missing))?;
    }
    let help = "Readings of an endpoint's load since it is read from there, by result";
    let mut metric = counter(encoder, "load_readings", help)?;
    for view in &snapshot.health().loads {
        let region = snapshot.table().region(view.region);
        let Some((endpoint, _)) = region.endpoints.get(view.endpoint) else { continue };
        for (result, count) in [("read", view.readings.passed), ("failed", view.readings.failed)] {
            let labels = [("region", region.id.as_str()), ("endpoint", endpoint.as_str()), ("result", result)];
            sample(&mut metric, &labels, count)?;
        }
    }
    Ok(())
}
