//! OTLP/HTTP with JSON: writes what is told as an `ExportMetricsServiceRequest`, and reads the receiver's answer.
//! Called by the node, which sends the one and gets the other.
//!
//! See the *OpenTelemetry Protocol Specification*, "JSON Protobuf Encoding": 64-bit integers are strings, and values of
//! enumerations are integers. Sums are of one interval each (delta temporality). A cumulative sum would tell the
//! difference of two intervals, and would have to begin anew with whichever node sends next.

use serde_json::{Value, json};

use super::{DIMENSIONS, Group, Label, OTHER, Told};
use crate::observe::{BUCKETS, EXPONENTS, Window};
use crate::time::Timestamp;

/// `AGGREGATION_TEMPORALITY_DELTA`.
const DELTA: u8 = 1;

/// The times of a group, by bucket.
type Times = fn(&Group) -> Option<&[u64; BUCKETS]>;

/// The histograms: name, description, and where the times stand.
const HISTOGRAMS: [(&str, &str, Times); 3] = [
    ("bailiwick.request.duration", "From the arrival of a request to the end of its answer", |group| {
        group.total.as_ref()
    }),
    ("bailiwick.first_token.duration", "From sending a request to the first content of its stream", |group| {
        group.first_token.as_ref()
    }),
    ("bailiwick.between_tokens.duration", "For each stream: the mean time between two pieces of content", |group| {
        group.between_tokens.as_ref()
    }),
];

/// The body of a request that tells `told` of an interval.
#[must_use]
pub fn request(window: &Window, told: &Told, version: &str) -> Value {
    let span = json!({ "startTimeUnixNano": nanos(window.begin()), "timeUnixNano": nanos(window.end()) });
    let point = |group: &Group, more: Option<(&str, &Label)>, value: Value| {
        let names = DIMENSIONS.into_iter().zip(&group.labels).chain(more);
        let mut point = span.clone();
        point["attributes"] = names.filter_map(|(name, label)| attribute(name, label)).collect();
        for (key, value) in value.as_object().into_iter().flatten() {
            point[key] = value.clone();
        }
        point
    };
    let by_outcome = |group: &Group| -> Vec<Value> {
        let told = group.outcomes.iter();
        told.map(|(word, count)| point(group, Some(("outcome", word)), json!({ "asInt": count.to_string() }))).collect()
    };
    let sum = |name: &str, unit: &str, text: &str, points: Vec<Value>| {
        let data = json!({ "dataPoints": points, "aggregationTemporality": DELTA, "isMonotonic": true });
        json!({ "name": name, "unit": unit, "description": text, "sum": data })
    };
    let requests = told.groups.iter().flat_map(by_outcome).collect();
    let text = "Requests that Workers answered, by how they ended";
    let mut metrics = vec![sum("bailiwick.requests", "{request}", text, requests)];
    for (name, text, times) in HISTOGRAMS {
        let points = told.groups.iter().filter_map(|group| Some(point(group, None, histogram(times(group)?))));
        let data = json!({ "dataPoints": points.collect::<Value>(), "aggregationTemporality": DELTA });
        metrics.push(json!({ "name": name, "unit": "s", "description": text, "histogram": data }));
    }
    metrics.retain(|metric| {
        let data = metric.get("sum").or_else(|| metric.get("histogram"));
        data.and_then(|data| data["dataPoints"].as_array()).is_some_and(|points| !points.is_empty())
    });
    let named = |name: &str, value: &str| attribute(name, &Label::Named(value.to_owned()));
    let resource: Value = [named("service.name", "bailiwick"), named("service.version", version)].into_iter().collect();
    json!({ "resourceMetrics": [{
        "resource": { "attributes": resource },
        "scopeMetrics": [{ "scope": { "name": "bailiwick.aggregate", "version": version }, "metrics": metrics }],
    }] })
}

/// Without a sum: the sum of times minus those of the told buckets would tell the times of few.
fn histogram(times: &[u64; BUCKETS]) -> Value {
    let bounds: Vec<f64> = EXPONENTS.map(|exponent| libm::exp2(f64::from(exponent))).collect();
    let counts: Vec<String> = times.iter().map(ToString::to_string).collect();
    json!({ "count": crate::observe::sum(times).to_string(), "bucketCounts": counts, "explicitBounds": bounds })
}

fn attribute(name: &str, label: &Label) -> Option<Value> {
    let value = match label {
        Label::Absent => return None,
        Label::Named(value) => value,
        Label::Other => OTHER,
    };
    Some(json!({ "key": name, "value": { "stringValue": value } }))
}

/// Nanoseconds since 1970, as OTLP writes them.
#[must_use]
pub fn nanos(at: Timestamp) -> String {
    (i128::from(at.0.max(0)) * 1_000_000).to_string()
}

/// What a receiver didn't take of a request that it took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rejected(pub u64);

/// Reads the answer of a receiver that took a request. `field` has the count: `rejectedDataPoints` of metrics,
/// `rejectedLogRecords` of logs. Whatever isn't such an answer says nothing of what was rejected.
#[must_use]
pub fn rejected(answer: &[u8], field: &str) -> Option<Rejected> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let rejected = answer.get("partialSuccess")?.get(field)?;
    let count = rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok())?;
    (count > 0).then_some(Rejected(count))
}
