//! Writes the metrics of replicas: knowledge of which regions hold copies. Takes the last readings of these copies,
//! writes OpenMetrics. Called by [`super`].

use std::fmt;

use bailiwick_rules::health::Lag;
use prometheus_client::encoding::DescriptorEncoder;

use super::{counter, gauge, sample};
use crate::state::owner::Handle;
use crate::state::snapshot::ReplicaView;

/// Writes how far copies are behind their leaders. Writes nothing if the rules name no replica. A lag that isn't known
/// has no sample.
pub(super) fn encode(handle: &Handle, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let (snapshot, now) = (handle.snapshot_owned(), handle.now());
    let views = &snapshot.health().replicas;
    if views.is_empty() {
        return Ok(());
    }
    let table = snapshot.table();
    let labels = |view: &ReplicaView| {
        [("region", table.region(view.region).id.as_str()), ("replica", table.replica(view.replica).id.as_str())]
    };
    let help = "How far a region's copy of a replica was behind when it was last read";
    let mut metric = gauge(encoder, "replica_lag_seconds", help)?;
    for view in views {
        if let Some(Lag::Time(time)) = view.lag() {
            #[allow(clippy::cast_precision_loss)] // no lag is that long
            metric.encode_family(&labels(view))?.encode_gauge(&(time.0 as f64 / 1_000.0))?;
        }
    }
    let help = "The same of replicas whose lag is measured in bytes, operations or objects";
    let mut metric = gauge(encoder, "replica_lag_amount", help)?;
    for view in views {
        if let Some(Lag::Amount(amount)) = view.lag() {
            metric.encode_family(&labels(view))?.encode_gauge(&amount)?;
        }
    }
    let mut metric = gauge(encoder, "replica_age_seconds", "How long ago a copy was last read well")?;
    for view in views {
        if let Some((at, _)) = view.reading {
            #[allow(clippy::cast_precision_loss)] // no age is that long
            metric.encode_family(&labels(view))?.encode_gauge(&(now.since(at).0 as f64 / 1_000.0))?;
        }
    }
    let help = "Whether a region is withheld from what needs the replica, because it lags or can't be read";
    let mut metric = gauge(encoder, "replica_withheld", help)?;
    for view in views {
        metric.encode_family(&labels(view))?.encode_gauge(&u64::from(snapshot.withholds(view)))?;
    }
    let help = "Whether a copy says that it is ahead of what it is compared with: a clock or the answer is wrong";
    let mut metric = gauge(encoder, "replica_ahead", help)?;
    for view in views {
        metric.encode_family(&labels(view))?.encode_gauge(&u64::from(view.is_ahead))?;
    }
    let help = "Readings of a copy since it is read from there, by result";
    let mut metric = counter(encoder, "replica_readings", help)?;
    for view in views {
        let [region, replica] = labels(view);
        for (result, count) in [("read", view.readings.passed), ("failed", view.readings.failed)] {
            sample(&mut metric, &[region, replica, ("result", result)], count)?;
        }
    }
    Ok(())
}
