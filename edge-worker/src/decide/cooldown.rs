//! The cool-downs (rests) of endpoints in one isolate. Takes failures; returns the endpoints that
//! [`steer`](bailiwick_rules::steer::steer()) withholds as `cooling`. Called by `memory`. An isolate is one instance of
//! the Worker; the platform runs several, which share no memory.
//!
//! After a failure an endpoint rests for the [`Sender`] whose request failed: the next requests of this sender go to
//! other endpoints, and requests of other senders don't change. An endpoint rests for all senders if requests of
//! several senders failed there and no request was served in between. So an unusual prompt, a missing path or a spent
//! quota of one tenant never moves requests of another tenant, and a dead endpoint gets no more requests after failures
//! of two senders.
//!
//! The length of a rest doubles with every failure in a row. A rest concerns an endpoint and a model. If the path may
//! be at fault, the rest concerns only this path. [`crate::decide::breaker`] watches the endpoint as a whole.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use bailiwick_rules::id::{EndpointId, RegionId};
use bailiwick_rules::steer::{Cooling, Local};
use bailiwick_rules::table::Table;
use bailiwick_rules::time::{Millis, Timestamp};

use crate::decide::headers::Headers;
use crate::decide::sender::Sender;

/// The first rest in milliseconds, if the endpoint asks for none.
const SHORTEST_MS: u64 = 1_000;
/// The longest rest in milliseconds, even if the endpoint asks for a longer one.
const LONGEST_MS: u64 = 60_000;
/// If requests of several senders fail within this time, in milliseconds, and no request is served in between, the
/// endpoint rests for all senders.
const TOGETHER_MS: u64 = 60_000;
/// An endpoint rests for all senders after failures of this many senders.
const SEVERAL: usize = 2;
/// The most pairs of endpoint and model that are remembered. If an endpoint takes any model, clients can name any
/// number of models.
const MAX: usize = 1_024;
/// The most senders that are remembered for each pair.
const MAX_SOURCES: usize = 16;

/// The segments of a path of the model API, with `*` for an id.
pub(crate) type Path = &'static [&'static str];

/// All endpoints at rest. The keys are names, so that the rests survive a change of the rules.
#[derive(Clone, Debug, Default)]
pub(crate) struct CoolDowns {
    rests: HashMap<Key, Rests>,
}

/// The part of an endpoint that rests.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    /// The endpoint's region.
    pub(crate) region: RegionId,
    /// The endpoint.
    pub(crate) endpoint: EndpointId,
    /// The client's name of the model; `None` for all models.
    pub(crate) model: Option<String>,
    /// The path; `None` for all paths.
    pub(crate) path: Option<Path>,
}

/// The rests of one part of an endpoint.
#[derive(Clone, Debug, Default)]
struct Rests {
    /// The rest for each sender whose requests failed.
    by_sender: Vec<(Sender, Rest)>,
    /// The rest for all senders.
    all: Option<Rest>,
}

/// One rest.
#[derive(Clone, Copy, Debug)]
struct Rest {
    /// The end of the rest.
    until: Timestamp,
    /// The time of the last failure.
    failed: Timestamp,
    /// Failures since the endpoint last served this sender.
    failures: u32,
    /// Whether a request of any sender was served since the last failure.
    served: bool,
}

impl Rest {
    fn new(now: Timestamp) -> Self {
        Self { until: now, failed: now, failures: 0, served: false }
    }

    fn lasts(&self, now: Timestamp) -> bool {
        self.until.lasts(now, Millis(LONGEST_MS))
    }

    /// Begins or prolongs the rest after a failure.
    fn fail(&mut self, retry_after_ms: Option<u64>, now: Timestamp) {
        let backoff = SHORTEST_MS << self.failures.min(6);
        let until = now.after(Millis(retry_after_ms.unwrap_or(backoff).min(LONGEST_MS)));
        // Requests that failed together may ask for different rests.
        let until = if self.lasts(now) { self.until.max(until) } else { until };
        *self = Self { until, failed: now, failures: self.failures.saturating_add(1), served: false };
    }

    /// Whether the failure counts towards a rest for all senders.
    fn counts(&self, now: Timestamp) -> bool {
        !self.served && self.failed.after(Millis(TOGETHER_MS)).lasts(now, Millis(TOGETHER_MS))
    }
}

impl Rests {
    /// The rest for a sender.
    fn of(&self, sender: Sender) -> Option<&Rest> {
        self.by_sender.iter().find(|(failed, _)| *failed == sender).map(|(_, rest)| rest)
    }

    /// Records a failure of a sender's request.
    fn fail(&mut self, sender: Sender, retry_after_ms: Option<u64>, now: Timestamp) {
        match self.by_sender.iter_mut().find(|(failed, _)| *failed == sender) {
            Some((_, rest)) => rest.fail(retry_after_ms, now),
            None => {
                if self.by_sender.len() >= MAX_SOURCES {
                    let first = (0..self.by_sender.len()).min_by_key(|&at| self.by_sender[at].1.until);
                    first.map(|at| self.by_sender.swap_remove(at));
                }
                let mut rest = Rest::new(now);
                rest.fail(retry_after_ms, now);
                self.by_sender.push((sender, rest));
            }
        }
        if self.by_sender.iter().filter(|(_, rest)| rest.counts(now)).count() >= SEVERAL {
            self.all.get_or_insert(Rest::new(now)).fail(retry_after_ms, now);
        }
    }

    /// The end of the rest for a sender; without a sender, of the rest for all senders. `None` if there is no rest.
    fn until(&self, sender: Option<Sender>, now: Timestamp) -> Option<Timestamp> {
        let of_sender = sender.and_then(|sender| self.of(sender));
        of_sender.into_iter().chain(&self.all).filter(|rest| rest.lasts(now)).map(|rest| rest.until).max()
    }

    fn lasts(&self, now: Timestamp) -> bool {
        self.by_sender.iter().map(|(_, rest)| rest).chain(&self.all).any(|rest| rest.lasts(now))
    }
}

impl CoolDowns {
    /// Lets an endpoint rest for the time that it asked for, or else for the time that backoff decides, but for at most
    /// 60 s. Called for `Action::CoolDown`.
    pub(crate) fn rest(&mut self, key: Key, sender: Sender, retry_after_ms: Option<u64>, now: Timestamp) {
        if self.rests.len() >= MAX && !self.rests.contains_key(&key) {
            self.make_room(sender, now);
        }
        self.rests.entry(key).or_default().fail(sender, retry_after_ms, now);
    }

    /// Notes that the endpoint served a request of a sender. The sender's own failures there are forgotten, and a rest
    /// for all senders ends. Rests for other single senders stay, because their requests may differ. Called at
    /// `Action::Commit`.
    pub(crate) fn note_recovery(&mut self, key: &Key, sender: Sender) {
        if self.rests.is_empty() {
            return;
        }
        for key in key.covering() {
            let Some(rests) = self.rests.get_mut(&key) else { continue };
            rests.all = None;
            rests.by_sender.retain(|(failed, _)| *failed != sender);
            rests.by_sender.iter_mut().for_each(|(_, rest)| rest.served = true);
            if rests.by_sender.is_empty() {
                self.rests.remove(&key);
            }
        }
    }

    /// Whether nothing rests.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.rests.is_empty()
    }

    /// Whether the endpoint rests for a sender, for `Run::skip_resting`.
    #[must_use]
    pub(crate) fn is_resting(&self, key: &Key, sender: Sender, now: Timestamp) -> bool {
        let rests = |key: Key| self.rests.get(&key).is_some_and(|rests| rests.until(Some(sender), now).is_some());
        !self.rests.is_empty() && key.covering().into_iter().any(rests)
    }

    /// The rests, as steering needs them for a request of `sender` to `path`; without a sender, the rests for all
    /// senders.
    #[must_use]
    pub(crate) fn local(&self, table: &Table, path: Option<Path>, sender: Option<Sender>, now: Timestamp) -> Local {
        let cooling = |(key, rests): (&Key, &Rests)| {
            if key.path.is_some() && key.path != path {
                return None;
            }
            let until = rests.until(sender, now)?;
            Some(Cooling {
                region: table.region_named(key.region.as_str())?,
                endpoint: key.endpoint.clone(),
                model: key.model.clone(),
                until,
            })
        };
        Local { cooling: self.rests.iter().filter_map(cooling).collect() }
    }

    /// Removes the entries whose rests have ended. If none has ended, removes one entry: the one that ends first among
    /// those of this sender alone, else among those of other senders. Entries with a rest for all senders are removed
    /// last. So a sender that names ever new models pushes out its own rests.
    fn make_room(&mut self, sender: Sender, now: Timestamp) {
        self.rests.retain(|_, rests| rests.lasts(now));
        if self.rests.len() < MAX {
            return;
        }
        let order = |rests: &Rests| {
            let own = rests.by_sender.iter().all(|(failed, _)| *failed == sender);
            let until = rests.by_sender.iter().map(|(_, rest)| rest).chain(&rests.all).map(|rest| rest.until).max();
            (rests.all.is_some(), !own, until)
        };
        let first = self.rests.iter().min_by_key(|(_, rests)| order(rests)).map(|(key, _)| key.clone());
        first.and_then(|key| self.rests.remove(&key));
    }
}

impl Key {
    /// All keys whose rest also concerns this key: the keys for all models, for all paths, for both, and this key
    /// itself.
    fn covering(&self) -> Vec<Self> {
        let mut keys = vec![Self { model: None, path: None, ..self.clone() }];
        if self.model.is_some() {
            keys.push(Self { path: None, ..self.clone() });
        }
        if self.path.is_some() {
            keys.push(Self { model: None, ..self.clone() });
        }
        if self.model.is_some() && self.path.is_some() {
            keys.push(self.clone());
        }
        keys
    }
}

/// How long an endpoint asks to be left alone, in milliseconds, by its response headers: `retry-after-ms`, else
/// `retry-after` (seconds or an HTTP date, RFC 9110 §10.2.3), else the longest reset among the `x-ratelimit-*` limits
/// that have nothing left.
#[must_use]
pub(crate) fn retry_after_ms(headers: &Headers, now: Timestamp) -> Option<u64> {
    let millis = || headers.get("retry-after-ms").and_then(seconds).map(|value| value / 1000.0);
    let plain = || {
        let text = headers.get("retry-after")?;
        let date = || Timestamp::parse_http_date(text.trim()).map(|date| millis_to_seconds(date.since(now).0));
        seconds(text).or_else(date)
    };
    let resets = || {
        let reset = |kind: &str| {
            let reset = headers.get(&format!("x-ratelimit-reset-{kind}"))?;
            // An answer states both limits. A limit that has something left isn't the limit that was reached.
            let left = headers.get(&format!("x-ratelimit-remaining-{kind}")).and_then(seconds);
            left.is_none_or(|left| left <= 0.0).then(|| span(reset.trim()))?
        };
        ["requests", "tokens"].into_iter().filter_map(reset).max_by(f64::total_cmp)
    };
    millis().or_else(plain).or_else(resets).map(to_millis)
}

/// Reads a time span such as `5` (seconds), `1.2s`, `6m0s` or `20ms`. Returns milliseconds, at most a day.
pub(crate) fn millis(text: &str) -> Option<u64> {
    span(text).map(to_millis)
}

/// Converts seconds to milliseconds, at most a day, which keeps the conversion exact.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 86,400,000")]
fn to_millis(seconds: f64) -> u64 {
    (seconds.clamp(0.0, 86_400.0) * 1000.0) as u64
}

#[expect(clippy::cast_precision_loss, reason = "dates lie within 2^53 milliseconds")]
fn millis_to_seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

/// Reads a plain decimal number that isn't negative.
fn seconds(text: &str) -> Option<f64> {
    let text = text.trim();
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| plain)
}

/// Reads a time span, as OpenAI writes it in its resets: `6m0s`, `1s`, `20ms`, `1h2m`, or plain seconds. Returns
/// seconds.
fn span(text: &str) -> Option<f64> {
    if let Some(plain) = seconds(text) {
        return Some(plain);
    }
    let (mut total, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, left) = after.split_at(letters);
        let scale = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total += seconds(number)? * scale;
        rest = left;
    }
    (!text.is_empty()).then_some(total)
}
