//! Writes the metrics of what Workers (the edge) observed. Takes the sums of the batches of counts that Workers posted,
//! writes families of `/metrics`. Called by [`super`]. If no batch has arrived, it writes nothing.

use std::fmt;

use bailiwick_rules::observe::{ByWord, Counts, Histogram, Key, Sums};
use bailiwick_rules::time::Timestamp;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::{counter, gauge, sample};

/// The upper bounds of histograms, as powers of 2 in seconds: 2 ms to 17 minutes. Each bound is a bound of the counted
/// histogram too, so no count has to be interpolated.
const EXPONENTS: core::ops::RangeInclusive<i16> = -9..=10;

type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Writes all families.
pub(super) fn write(encoder: &mut DescriptorEncoder<'_>, sums: &Sums, now: Timestamp) -> fmt::Result {
    if sums.taken() == 0 && sums.refused().next().is_none() {
        return Ok(());
    }
    batches(encoder, sums, now)?;
    in_flight(encoder, sums, now)?;
    words(encoder, sums, "observed_requests", "Requests that Workers answered, by how they ended", "code", |counts| {
        &counts.requests
    })?;
    let help = "Requests that Workers sent to endpoints, by what became of them";
    words(encoder, sums, "observed_attempts", help, "outcome", |counts| &counts.attempts)?;
    let help = "Answers of models, by why the model stopped";
    words(encoder, sums, "observed_finish", help, "reason", |counts| &counts.finish)?;
    let mut tokens = counter(encoder, "observed_tokens", "Tokens, as endpoints told them")?;
    for (key, counts) in sums.totals() {
        for (direction, count) in [("in", counts.tokens_in), ("out", counts.tokens_out)] {
            if count > 0 {
                sample(&mut tokens, &with(labels(key), "direction", direction), count)?;
            }
        }
    }
    for (name, help, of) in HISTOGRAMS {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (key, counts) in sums.totals() {
            histogram(&mut metric, &labels(key), of(counts))?;
        }
    }
    Ok(())
}

/// A family of histograms: its name, its help text, and the field of [`Counts`] that has it.
pub(in crate::program::metrics) type Family = (&'static str, &'static str, fn(&Counts) -> &Histogram);

/// The families of histograms.
pub(in crate::program::metrics) const HISTOGRAMS: [Family; 3] = [
    ("observed_first_token_seconds", "From sending a request to the first content of its stream", |counts| {
        &counts.first_token
    }),
    ("observed_between_tokens_seconds", "For each stream: the mean time between two pieces of content", |counts| {
        &counts.between_tokens
    }),
    ("observed_request_seconds", "From the arrival of a request to the end of its answer", |counts| &counts.total),
];

/// The numbers of batches that Workers posted.
fn batches(encoder: &mut DescriptorEncoder<'_>, sums: &Sums, now: Timestamp) -> fmt::Result {
    let mut batches = counter(encoder, "observation_batches", "Batches that Workers posted, by what became of them")?;
    sample(&mut batches, &[("result", "added")], sums.taken())?;
    for (why, count) in sums.refused() {
        sample(&mut batches, &[("result", why)], count)?;
    }
    let mut missed =
        counter(encoder, "observation_batches_missed", "Batches that didn't arrive, by the gaps in their numbers")?;
    sample(&mut missed, &[], sums.missed())?;
    let help = "Entries of batches that weren't counted: the rules lack their names, or there are too many";
    let mut dropped = counter(encoder, "observations_dropped", help)?;
    sample(&mut dropped, &[], sums.dropped())?;
    let isolates = u64::try_from(sums.isolates(now)).unwrap_or(u64::MAX);
    gauge(encoder, "observing_isolates", "Isolates of Workers that posted within 15 s")?.encode_gauge(&isolates)
}

/// The requests in flight at each endpoint.
fn in_flight(encoder: &mut DescriptorEncoder<'_>, sums: &Sums, now: Timestamp) -> fmt::Result {
    let mut metric = gauge(encoder, "observed_in_flight", "Requests at an endpoint, as isolates told within 15 s")?;
    for ((region, endpoint), count) in sums.in_flight(now) {
        let labels = [("region", region.as_str()), ("endpoint", endpoint.as_str())];
        metric.encode_family(&labels)?.encode_gauge(&count)?;
    }
    Ok(())
}

/// A counter of words that Workers reported, such as outcomes. `of` chooses the counts of one kind of word.
fn words(
    encoder: &mut DescriptorEncoder<'_>,
    sums: &Sums,
    name: &str,
    help: &str,
    label: &'static str,
    of: impl Fn(&Counts) -> &ByWord,
) -> fmt::Result {
    let mut metric = counter(encoder, name, help)?;
    for (key, counts) in sums.totals() {
        for (word, count) in of(counts) {
            sample(&mut metric, &with(labels(key), label, word), *count)?;
        }
    }
    Ok(())
}

/// A histogram with classic buckets.
fn histogram(metric: &mut MetricEncoder<'_>, labels: &Labels<'_>, times: &Histogram) -> fmt::Result {
    if times.is_empty() {
        return Ok(());
    }
    let mut below = 0;
    let bounds = EXPONENTS.map(|exponent| (f64::from(exponent).exp2(), times.up_to(exponent)));
    let within = |(bound, upto): (f64, u64)| (bound, upto - core::mem::replace(&mut below, upto));
    let buckets: Vec<(f64, u64)> = bounds.chain([(f64::INFINITY, times.len())]).map(within).collect();
    let labels = labels.as_slice();
    let mut family = metric.encode_family(&labels)?;
    family.encode_histogram::<NoLabelSet>(seconds(times), times.len(), &buckets, None)
}

/// The sum of all times, in seconds.
#[expect(clippy::cast_precision_loss, reason = "a sum of seconds may be rounded")]
pub(in crate::program::metrics) fn seconds(times: &Histogram) -> f64 {
    times.sum_us() as f64 / 1e6
}

/// The labels of a key. For Prometheus, an empty label is the same as an absent one.
pub(in crate::program::metrics) fn labels(key: &Key) -> Labels<'_> {
    let mut labels = vec![
        ("service", key.service.as_str()),
        ("clients", key.clients.as_str()),
        ("region", key.region.as_ref().map_or("", |region| region.as_str())),
        ("endpoint", key.endpoint.as_ref().map_or("", |endpoint| endpoint.as_str())),
        ("model", key.model.as_deref().unwrap_or("")),
    ];
    labels.extend(key.tier.as_deref().map(|tier| ("tier", tier)));
    labels.extend(key.arm.as_deref().map(|arm| ("arm", arm)));
    labels
}

fn with<'a>(mut labels: Labels<'a>, name: &'static str, value: &'a str) -> Labels<'a> {
    labels.push((name, value));
    labels
}
