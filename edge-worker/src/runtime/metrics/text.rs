//! Writes counters and gauges as text: in the Prometheus format (0.0.4), or in OpenMetrics 1.0.0 if the client accepts
//! that format. Called by `explain`.

use core::fmt::Write as _;
use std::collections::BTreeMap;

use bailiwick_rules::table::Table;

use super::{COUNTS, Counts, CountsByWord, follow};
use crate::decide::logs::Signal;
use crate::decide::quota::QuotaState;

/// The names of the metrics of fetches and posts, by [`super::FeedKind`].
const FETCHES: [&str; 4] = ["rules_looks", "health_looks", "lease_asks", "observation_posts"];

/// The format of the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// `text/plain; version=0.0.4`.
    Prometheus,
    /// `application/openmetrics-text`: the `TYPE` line of a counter names it without `_total`, and a last line marks
    /// the end.
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header asks for.
    pub(crate) fn of(accept: &str) -> Self {
        if accept.to_ascii_lowercase().contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// The `Content-Type`.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The gauges of this moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauges {
    /// The current revision of the rules.
    pub(crate) revision: Option<u64>,
    /// How long ago a source confirmed these rules, in milliseconds.
    pub(crate) rules_age_ms: Option<u64>,
    /// The age of each host's last health report, in milliseconds.
    pub(crate) health_age_ms: Vec<(String, u64)>,
    /// The number of requests under way.
    pub(crate) in_flight: usize,
    /// The bytes of bodies that are held.
    pub(crate) held_bytes: u64,
    /// The bytes of the Wasm memory, which never shrinks.
    pub(crate) memory_bytes: u64,
    /// Region and name of each endpoint that is at rest for one model or for all models.
    pub(crate) resting: Vec<(String, String)>,
    /// The state of each quota that the isolate has used.
    pub(crate) quotas: Vec<QuotaState>,
    /// When this isolate began, in milliseconds since the epoch.
    pub(crate) began_ms: i64,
}

/// Writes all metrics as text. `table` says which names are still in the rules.
pub(crate) fn write(format: Format, gauges: &Gauges, table: Option<&Table>) -> String {
    COUNTS.with_borrow_mut(|counts| {
        if let Some(table) = table {
            follow(counts, table);
        }
        let mut out = Exposition { format, text: String::with_capacity(4 << 10) };
        out.counters(counts);
        out.gauges(gauges);
        if format == Format::OpenMetrics {
            out.text.push_str("# EOF\n");
        }
        out.text
    })
}

struct Exposition {
    format: Format,
    text: String,
}

impl Exposition {
    /// Writes the counters.
    fn counters(&mut self, counts: &Counts) {
        self.counter("requests", "Requests, by service and what became of them.");
        for (service, words) in &counts.requests {
            self.words("requests", &[("service", service.as_str())], "code", words);
        }
        self.counter("attempts", "Requests sent to endpoints, by what became of them.");
        for (region, endpoints) in &counts.attempts {
            for (endpoint, words) in endpoints {
                self.words(
                    "attempts",
                    &[("region", region.as_str()), ("endpoint", endpoint.as_str())],
                    "outcome",
                    words,
                );
            }
        }
        self.counter("retries", "Requests sent to a further endpoint.");
        self.sample("retries_total", &[], counts.retries);
        for (feed, sources) in FETCHES.into_iter().zip(&counts.fetches) {
            if matches!(feed, "lease_asks" | "observation_posts") && sources.is_empty() {
                continue;
            }
            self.counter(feed, "Looks at a source, by what came of them.");
            for (source, words) in sources {
                self.words(feed, &[("source", source.as_str())], "outcome", words);
            }
        }
        self.sinks("sink_records", "Events and spans for sinks, by what came of them.", "outcome", &counts.sinks);
        self.sinks("sink_failures", "Posts that a sink didn't take.", "reason", &counts.sink_failures);
        self.counter("events", "Whatever else is counted.");
        self.words("events", &[], "event", &counts.events);
    }

    /// Counts by sink, for logs and for traces. Nothing if there are none.
    fn sinks(&mut self, name: &str, help: &str, by: &str, counts: &[BTreeMap<String, CountsByWord>; 2]) {
        if counts.iter().all(BTreeMap::is_empty) {
            return;
        }
        self.counter(name, help);
        for (signal, sinks) in [Signal::Logs, Signal::Traces].into_iter().zip(counts) {
            for (sink, words) in sinks {
                self.words(name, &[("sink", sink.as_str()), ("signal", signal.as_str())], by, words);
            }
        }
    }

    /// Writes the gauges, which may rise and fall.
    fn gauges(&mut self, gauges: &Gauges) {
        if let Some(revision) = gauges.revision {
            self.gauge("rules_revision", "The revision of the rules in service.");
            self.sample("rules_revision", &[], revision);
        }
        if let Some(age) = gauges.rules_age_ms {
            self.gauge("rules_age_seconds", "How long ago a source confirmed the rules in service.");
            self.sample("rules_age_seconds", &[], Seconds(age));
        }
        self.gauge("health_report_age_seconds", "How old a node's last health report is.");
        for (source, age) in &gauges.health_age_ms {
            self.sample("health_report_age_seconds", &[("source", source.as_str())], Seconds(*age));
        }
        self.gauge("requests_in_flight", "Requests under way.");
        self.sample("requests_in_flight", &[], gauges.in_flight);
        self.gauge("held_bytes", "Bytes of bodies that are held in memory.");
        self.sample("held_bytes", &[], gauges.held_bytes);
        self.gauge("memory_bytes", "Bytes of the Wasm memory, which never shrinks.");
        self.sample("memory_bytes", &[], gauges.memory_bytes);
        self.gauge("endpoint_resting", "1 for each endpoint that rests, for one model or all.");
        for (region, endpoint) in &gauges.resting {
            self.sample("endpoint_resting", &[("region", region.as_str()), ("endpoint", endpoint.as_str())], 1);
        }
        if !gauges.quotas.is_empty() {
            self.gauge("quota_left", "What this isolate may send at once of each quota, in requests and tokens.");
            for standing in &gauges.quotas {
                for (unit, left) in [("requests", standing.requests), ("tokens", standing.tokens)] {
                    if let Some(left) = left {
                        self.sample("quota_left", &[("quota", standing.quota.as_str()), ("unit", unit)], left);
                    }
                }
            }
            self.gauge("quota_closed_seconds", "For how much longer the provider wants no requests.");
            for standing in &gauges.quotas {
                let labels = [("quota", standing.quota.as_str())];
                self.sample("quota_closed_seconds", &labels, Seconds(standing.closed.0));
            }
        }
        self.gauge("start_time_seconds", "When this isolate began, in seconds since 1970.");
        self.sample("start_time_seconds", &[], Seconds(u64::try_from(gauges.began_ms).unwrap_or(0)));
    }

    fn counter(&mut self, name: &str, help: &str) {
        let total = if self.format == Format::OpenMetrics { "" } else { "_total" };
        self.family(&format!("{name}{total}"), "counter", help);
    }

    fn gauge(&mut self, name: &str, help: &str) {
        self.family(name, "gauge", help);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP bailiwick_edge_{name} {help}\n# TYPE bailiwick_edge_{name} {kind}");
    }

    fn words(&mut self, name: &str, labels: &[(&str, &str)], by: &str, words: &CountsByWord) {
        for (word, count) in words {
            let labels: Vec<(&str, &str)> = labels.iter().copied().chain([(by, *word)]).collect();
            self.sample(&format!("{name}_total"), &labels, count);
        }
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl core::fmt::Display) {
        let _ = write!(self.text, "bailiwick_edge_{name}");
        for (position, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{label}=\"{}\"", if position == 0 { '{' } else { ',' }, escaped(text));
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

/// Milliseconds that are written as seconds.
struct Seconds(u64);

impl core::fmt::Display for Seconds {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::{FeedKind, fetch, request};
    use super::*;

    #[test]
    fn the_text_follows_both_formats() {
        request("chat", "ok");
        request("chat", "ok");
        request("", "unknown_host");
        fetch(FeedKind::Rules, "ns1.example:8443", "timeout");
        let gauges = Gauges { revision: Some(7), rules_age_ms: Some(1_050), held_bytes: 9, ..Gauges::default() };
        let text = write(Format::Prometheus, &gauges, None);
        for line in [
            "# TYPE bailiwick_edge_requests_total counter",
            "bailiwick_edge_requests_total{service=\"chat\",code=\"ok\"} 2",
            "bailiwick_edge_requests_total{service=\"\",code=\"unknown_host\"} 1",
            "bailiwick_edge_retries_total 0",
            "bailiwick_edge_rules_looks_total{source=\"ns1.example:8443\",outcome=\"timeout\"} 1",
            "# TYPE bailiwick_edge_rules_age_seconds gauge",
            "bailiwick_edge_rules_age_seconds 1.050",
            "bailiwick_edge_held_bytes 9",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
        assert!(!text.contains("EOF"));
        let open = write(Format::of("application/openmetrics-text;version=1.0.0,*/*"), &gauges, None);
        assert!(open.ends_with("\n# EOF\n") && open.contains("# TYPE bailiwick_edge_requests counter\n"), "{open}");
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
