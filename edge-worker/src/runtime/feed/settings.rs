//! The settings of the feeds: the rules and the health reports, which are fetched again and again. Takes the Worker's
//! variables; returns [`Settings`]. Called by `feed` once per isolate (an instance of the Worker).

use bailiwick_rules::observe::INTERVAL_MS;
use bailiwick_rules::time::Millis;

use crate::decide::staged::for_all;

/// The most sources of a kind. Further sources are ignored. The runtime lets only six fetches of an isolate wait for an
/// answer at once.
const MAX_SOURCES: usize = 8;
/// The least value of `RULES_MAX_AGE`. With less, every request would wait for a fetch.
const LEAST_MAX_AGE: Millis = Millis(1_000);
/// The default of `RULES_MAX_AGE`. If `RULES_REFRESH_SECONDS` is long, the default is twice that time instead.
const MAX_AGE: Millis = Millis(15_000);

/// The longest time for which counts are gathered before they are posted. The runtime ends background work 30 s after
/// its request.
const LONGEST_GATHERING: Millis = Millis(15_000);

/// The settings. They don't change while an isolate lives.
#[derive(Debug, PartialEq, Eq, Default)]
pub(crate) struct Settings {
    /// The URLs of rules, in the order written.
    pub(crate) rules: Vec<FeedSource>,
    /// Whether the KV namespace `RULES` is bound.
    pub(crate) has_kv: bool,
    /// The time between two fetches of rules.
    pub(crate) rules_every: Millis,
    /// How long after a fetch requests may go on without waiting for the next fetch.
    pub(crate) rules_max_age: Millis,
    /// The nodes that are asked for their health reports.
    pub(crate) health: Vec<FeedSource>,
    /// The nodes that divide quotas among isolates, in the order in which they are asked.
    pub(crate) leases: Vec<FeedSource>,
    /// The time between two fetches of health.
    pub(crate) health_every: Millis,
    /// The nodes that get observations: counts of how requests went.
    pub(crate) observations: Vec<FeedSource>,
    /// How long counts are gathered for one batch.
    pub(crate) observations_every: Millis,
    /// Whether every request is logged: `LOG=all`.
    pub(crate) log_all: bool,
    /// Variables that can't be read. Their defaults are used.
    pub(crate) unreadable: Vec<&'static str>,
}

/// One source of a feed, or one node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FeedSource {
    /// The URL of the source.
    pub(crate) url: String,
    /// The name of the source in logs and metrics: host and port. The rest of the URL may be secret.
    pub(crate) host: String,
}

impl Settings {
    /// Reads the variables.
    pub(crate) fn of(variable: impl Fn(&str) -> Option<String>, has_kv: bool) -> Self {
        let mut unreadable = Vec::new();
        let variable = |name: &str| variable(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let mut span = |name: &'static str| {
            let read = span_of(&variable(name)?);
            if read.is_none() {
                unreadable.push(name);
            }
            read
        };
        let by_url = variable("RULES_URL").is_some() || variable("RULES_URLS").is_some();
        let every = span("RULES_REFRESH_SECONDS").unwrap_or(Millis(if by_url { 5_000 } else { 30_000 }));
        let max_age = span("RULES_MAX_AGE").unwrap_or(MAX_AGE.max(Millis(every.0.saturating_mul(2))));
        let max_age = max_age.max(LEAST_MAX_AGE);
        let health_every = span("HEALTH_REFRESH_SECONDS").unwrap_or(Millis(5_000));
        let observations_every = span("OBSERVATIONS_SECONDS").unwrap_or(Millis(INTERVAL_MS));
        let log = variable("LOG");
        if log.as_deref().is_some_and(|log| !["all", "failures"].contains(&log)) {
            unreadable.push("LOG");
        }
        let lists = [variable("RULES_URL"), variable("RULES_URLS")];
        Self {
            rules: rules(&lists.into_iter().flatten().collect::<Vec<_>>().join(",")),
            has_kv,
            // At most half of the maximum age: with a steady flow of requests, the next fetch ends before a request has
            // to wait.
            rules_every: every.min(Millis(max_age.0 / 2)),
            rules_max_age: max_age,
            health: sources(&variable("HEALTH_URLS").unwrap_or_default()),
            leases: sources(&variable("LEASES_URLS").unwrap_or_default()),
            health_every,
            observations_every: observations_every.min(LONGEST_GATHERING),
            observations: sources(&variable("OBSERVATIONS_URLS").unwrap_or_default()),
            log_all: log.as_deref() == Some("all"),
            unreadable,
        }
    }

    /// Whether there are sources besides the built-in document.
    pub(crate) fn has_rules(&self) -> bool {
        !self.rules.is_empty() || self.has_kv
    }

    /// The name of the source at a position, for logs and metrics. KV comes after the last URL.
    pub(crate) fn rules_source(&self, position: usize) -> &str {
        self.rules.get(position).map_or("kv", |source| &source.host)
    }
}

/// Reads a number of seconds (`5`, `0.5`), or a duration as in the rules (`500ms`, `2m`).
fn span_of(text: &str) -> Option<Millis> {
    let seconds = || text.parse::<f64>().ok().filter(|seconds| (0.0..=1e9).contains(seconds));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 10^12")]
    Millis::parse(text).or_else(|| seconds().map(|seconds| Millis((seconds * 1000.0) as u64)))
}

/// The sources of rules in a comma-separated list. DNS nodes among them are asked for rules that are for all nodes.
fn rules(list: &str) -> Vec<FeedSource> {
    let mut sources = sources(list);
    sources.iter_mut().for_each(|source| source.url = for_all(&source.url));
    sources
}

/// The sources in a comma-separated list, without repetition and at most [`MAX_SOURCES`].
fn sources(list: &str) -> Vec<FeedSource> {
    let mut sources: Vec<FeedSource> = Vec::new();
    for url in list.split(',').map(str::trim).filter(|url| !url.is_empty()) {
        if sources.len() < MAX_SOURCES && sources.iter().all(|known| known.url != url) {
            sources.push(FeedSource { url: url.to_owned(), host: host_of(url) });
        }
    }
    sources
}

/// The host and port of a URL, or `unreadable`.
fn host_of(url: &str) -> String {
    let parsed = url::Url::parse(url).ok();
    let host = parsed.as_ref().and_then(|url| Some((url.host_str()?, url.port())));
    match host {
        Some((host, Some(port))) => format!("{host}:{port}"),
        Some((host, None)) => host.to_owned(),
        None => "unreadable".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let value = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned());
        Settings::of(value, false)
    }

    #[test]
    fn urls_of_both_variables_form_one_list_without_repetition() {
        let read = settings(&[
            ("RULES_URL", "https://ns1.example:8443/v1/rules"),
            (
                "RULES_URLS",
                " https://user:secret@ns2.example/v1/rules?token=x ,, https://ns1.example:8443/v1/rules,ns3",
            ),
        ]);
        let hosts: Vec<&str> = read.rules.iter().map(|source| source.host.as_str()).collect();
        assert_eq!(hosts, ["ns1.example:8443", "ns2.example", "unreadable"], "no credential, no query");
        assert_eq!(read.rules[0].url, "https://ns1.example:8443/v1/rules?stage=rest");
        assert_eq!((read.rules_source(1), read.rules_source(3)), ("ns2.example", "kv"));
        assert!(read.has_rules() && !settings(&[("RULES_URLS", " , ")]).has_rules());
    }

    #[test]
    fn spans_are_seconds_or_durations_and_mistakes_are_reported() {
        let spans = |variables: &[(&str, &str)]| {
            let read = settings(variables);
            (read.rules_every.0, read.rules_max_age.0, read.unreadable)
        };
        let url = ("RULES_URL", "https://ns1.example/v1/rules");
        assert_eq!(spans(&[url]), (5_000, 15_000, vec![]));
        assert_eq!(spans(&[]), (30_000, 60_000, vec![]), "KV");
        assert_eq!(spans(&[url, ("RULES_MAX_AGE", "30s")]), (5_000, 30_000, vec![]));
        assert_eq!(
            spans(&[url, ("RULES_MAX_AGE", "4")]),
            (2_000, 4_000, vec![]),
            "no request waits while requests arrive steadily"
        );
        assert_eq!(spans(&[url, ("RULES_MAX_AGE", "0"), ("RULES_REFRESH_SECONDS", "0")]), (0, 1_000, vec![]));
        assert_eq!(spans(&[url, ("RULES_REFRESH_SECONDS", "60")]), (60_000, 120_000, vec![]));
        for bad in ["-1", "soon", "NaN", "inf", "1e300"] {
            assert_eq!(spans(&[url, ("RULES_MAX_AGE", bad)]), (5_000, 15_000, vec!["RULES_MAX_AGE"]), "{bad}");
        }
    }
}
