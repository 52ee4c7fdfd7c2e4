//! Reads how far a region's copy of knowledge, such as a search index, is behind its leader (the lag). Takes a source
//! of the rules and the answers to the requests for it, returns a [`ReplicaReading`] or why there is none. Called by
//! the DNS node's probes.
//!
//! Answers come from other programs and may hold any bytes. Their length is bounded, and an impossible number is a
//! failure, never a lag.

mod json;
mod stores;
#[cfg(test)]
mod tests;

use core::fmt;
use std::sync::Arc;

use url::Url;

use crate::health::{Lag, LagReading};
use crate::load::{MAX_PAGE, Page};
use crate::rules::{LagUnit, NoUrl, ReplicaReads, ReplicaSource, RequestTarget, Series, Style};
use crate::time::{Millis, Timestamp};

/// The most bytes of a JSON answer that are read.
const MAX_JSON: usize = 1 << 20;
/// How far a copy may seem to be ahead of its leader, because two clocks don't quite agree. Such a copy counts as not
/// behind.
const AHEAD: Millis = Millis(1_000);
/// The longest text of an answer that a message quotes, in characters.
const LONGEST_QUOTE: usize = 64;

/// What was read about a copy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReplicaReading {
    /// How far the copy is behind; `None` for a leader, and if the rules have only the version read.
    pub lag: Option<Lag>,
    /// Whether the answer says that this copy is the leader, the original.
    pub is_leader: bool,
    /// The version of the copy, if the rules have it read.
    pub version: Option<Arc<str>>,
}

impl ReplicaReading {
    /// The reading as the state machine of [`crate::health`] takes it. A copy that the rules call the leader isn't
    /// withheld for its lag, whatever its answer says.
    #[must_use]
    pub fn judged(&self, is_leader: bool) -> LagReading {
        if self.is_leader || is_leader { LagReading::Leader } else { LagReading::Behind(self.lag) }
    }
}

/// Why there is no reading.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadFailure {
    /// The copy claims to be ahead of its leader or of the clock. Either a clock or the answer is wrong. The node
    /// raises an alarm.
    Ahead(String),
    /// The answer doesn't hold what was asked for, or holds something impossible.
    Wrong(String),
}

impl fmt::Display for ReadFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ahead(text) | Self::Wrong(text) => f.write_str(text),
        }
    }
}

/// A [`ReadFailure::Wrong`] with this text.
fn wrong<T>(text: impl Into<String>) -> Result<T, ReadFailure> {
    Err(ReadFailure::Wrong(text.into()))
}

/// The URLs to request for one reading, in order: one URL, or several for a store that answers in parts.
///
/// # Errors
/// If a name can't stand in a URL.
pub fn requests(source: &ReplicaSource) -> Result<Vec<Url>, &'static str> {
    let base = &source.http.url;
    let below = |segments: &[&str], pairs: &[(&str, &str)]| {
        let pairs: Vec<(String, String)> = pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let path = RequestTarget { style: Style::OpenAi, api_version: None, deployment: None, segments };
        path.url(base, &pairs).map_err(|error| match error {
            NoUrl::Segment | NoUrl::Base => "a name of the rules can't stand in a URL; write it without . and %",
        })
    };
    Ok(match &source.reads {
        ReplicaReads::Json(_) | ReplicaReads::Prometheus { .. } => vec![base.as_url().clone()],
        ReplicaReads::Qdrant { collection } => {
            vec![below(&["collections", collection, "cluster"], &[])?, below(&["collections", collection], &[])?]
        }
        ReplicaReads::Patroni { .. } => vec![below(&["cluster"], &[])?],
        ReplicaReads::Elasticsearch { index } => vec![below(&[index, "_ccr", "stats"], &[])?],
        ReplicaReads::Weaviate { collection } => {
            let mut segments = vec!["v1", "nodes"];
            segments.extend(collection.as_deref());
            vec![below(&segments, &[("output", "verbose")])?]
        }
    })
}

/// The most bytes that are read of one answer.
#[must_use]
pub fn longest_answer(source: &ReplicaSource) -> usize {
    if matches!(source.reads, ReplicaReads::Prometheus { .. }) { MAX_PAGE } else { MAX_JSON }
}

/// Reads the answers to [`requests`], which are in the same order. `now` is the time by the node's clock.
///
/// ```
/// use bailiwick_rules::health::Lag;
/// use bailiwick_rules::replica::read;
/// use bailiwick_rules::table::Table;
/// use bailiwick_rules::time::{Millis, Timestamp};
///
/// let table = Table::compile(br#"{ "version": 1, "revision": 1, "replicas": { "kb": { "max_lag": "60s" } },
///     "regions": { "fra": { "countries": ["DE"], "replicas": { "kb": { "url": "https://kb.example/replica",
///         "as": "timestamp", "read": "/applied_at", "now": "/now" } } } } }"#).unwrap();
/// let source = table.regions()[0].replicas[0].source.as_deref().unwrap();
/// let answer = br#"{ "applied_at": "2026-12-01T06:00:00Z", "now": "2026-12-01T06:00:07Z" }"#;
/// let reading = read(source, &[&answer[..]], Timestamp(0)).unwrap();
/// assert_eq!(reading.lag, Some(Lag::Time(Millis(7_000))));
/// ```
///
/// # Errors
/// Why the answers give no reading.
pub fn read(source: &ReplicaSource, answers: &[&[u8]], now: Timestamp) -> Result<ReplicaReading, ReadFailure> {
    let [first, rest @ ..] = answers else { return wrong("there is no answer") };
    match &source.reads {
        ReplicaReads::Json(reads) => json::read(reads, &json::parsed(first)?, now),
        ReplicaReads::Prometheus { series, unit } => page(series, *unit, first, now),
        ReplicaReads::Qdrant { .. } => match rest {
            [collection] => stores::qdrant(&json::parsed(first)?, &json::parsed(collection)?),
            _ => wrong("one of two answers is missing"),
        },
        ReplicaReads::Patroni { member } => stores::patroni(&json::parsed(first)?, member),
        ReplicaReads::Elasticsearch { index } => stores::elasticsearch(&json::parsed(first)?, index),
        ReplicaReads::Weaviate { collection } => stores::weaviate(&json::parsed(first)?, collection.as_deref()),
    }
}

/// The lag by a series of a metrics page. If several samples match the series, the one that is furthest behind counts.
fn page(series: &Series, unit: LagUnit, bytes: &[u8], now: Timestamp) -> Result<ReplicaReading, ReadFailure> {
    let mut page = Page::new(vec![series.name.clone()]);
    let failed = |error: crate::load::PageError| ReadFailure::Wrong(error.to_string());
    page.push(bytes).map_err(failed)?;
    let samples = page.finish(false).map_err(failed)?;
    let is_of_series =
        |sample: &&crate::load::Sample| series.labels.iter().all(|(name, value)| sample.label(name) == Some(value));
    let mut furthest = None;
    for sample in samples.iter().filter(is_of_series) {
        furthest = furthest.max(Some(lag(sample.value, unit, now)?));
    }
    match furthest {
        Some(lag) => Ok(ReplicaReading { lag: Some(lag), ..ReplicaReading::default() }),
        None => wrong(format!("the page has no series {}; look at \"series\" and \"url\"", quoted(&series.name))),
    }
}

/// The lag that a number in this unit means.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a cast of floats saturates
fn lag(number: f64, unit: LagUnit, now: Timestamp) -> Result<Lag, ReadFailure> {
    if !number.is_finite() {
        return wrong("the lag is no finite number");
    }
    match unit {
        LagUnit::Timestamp => behind(json::instant(number)?, now),
        LagUnit::Seconds => {
            let ms = libm::round(number * 1_000.0);
            if ms < 0.0 && -ms > AHEAD.0 as f64 {
                return Err(ahead(&format!("{} s", short(number))));
            }
            Ok(Lag::Time(Millis(ms.max(0.0) as u64)))
        }
        LagUnit::Bytes | LagUnit::Count if number < 0.0 => Err(ahead(&short(number))),
        LagUnit::Bytes | LagUnit::Count => Ok(Lag::Amount(libm::ceil(number) as u64)),
    }
}

/// The lag of a copy that has applied all changes up to `applied`, at the time `now`.
fn behind(applied: Timestamp, now: Timestamp) -> Result<Lag, ReadFailure> {
    let early = applied.since(now);
    if early > AHEAD {
        return Err(ahead(&format!("-{early}")));
    }
    Ok(Lag::Time(now.since(applied)))
}

/// The failure for a copy that says it is ahead of its leader.
fn ahead(lag: &str) -> ReadFailure {
    ReadFailure::Ahead(format!(
        "the lag is negative ({lag}): the copy says it is ahead of what it is compared with; set the clocks, or look \
         at what it answers"
    ))
}

/// A number in its shortest form: plain, or with an exponent if it is very small or large.
fn short(number: f64) -> String {
    let is_plain = (1e-3..1e15).contains(&number.abs());
    if is_plain { number.to_string() } else { format!("{number:e}") }
}

/// A text of an answer in quotes, cut to a safe length and without control characters, for a message.
fn quoted(text: &str) -> String {
    let plain: String = text.chars().filter(|c| !c.is_control()).take(LONGEST_QUOTE).collect();
    format!("{plain:?}")
}
