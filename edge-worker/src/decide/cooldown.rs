//! Which endpoints rest in one isolate. Takes failures; returns what [`steer`](bailiwick_rules::steer::steer())
//! withholds as `cooling`. Called by `memory`.
//!
//! After a failure an endpoint rests for the [`Source`] whose request failed. The next requests of that source go
//! elsewhere, and those of others don't change. An endpoint rests for everybody once requests of several sources failed
//! there and nobody was served in between. So one tenant's odd prompt, missing path or spent quota never moves another
//! tenant's requests. And a dead endpoint gets no more requests after its second source at the latest.
//!
//! A rest doubles with every failure in a row. It holds for an endpoint and a model, and for one path if only the path
//! may be at fault. [`crate::decide::breaker`] watches the endpoint as a whole.

use std::collections::HashMap;

use bailiwick_rules::id::{EndpointId, RegionId};
use bailiwick_rules::steer::{Cooling, Local};
use bailiwick_rules::table::Table;
use bailiwick_rules::time::{Millis, Timestamp};

use crate::decide::headers::Headers;
use crate::decide::source::Source;

/// The first rest in milliseconds, if the endpoint asks for none.
const SHORTEST_MS: u64 = 1_000;
/// The longest rest in milliseconds, whatever the endpoint asks for.
const LONGEST_MS: u64 = 60_000;
/// If several sources fail within this time, in milliseconds, and nobody is served in between, the endpoint rests for
/// everybody.
const TOGETHER_MS: u64 = 60_000;
/// How many sources must fail for that.
const SEVERAL: usize = 2;
/// The most pairs of endpoint and model that are remembered. Where an endpoint takes any model, clients can name any
/// number of them.
const MAX: usize = 1_024;
/// The most sources that are remembered for each pair.
const MAX_SOURCES: usize = 16;

/// The segments of a path of the model API, with `*` for an id.
pub(crate) type Path = &'static [&'static str];

/// All endpoints at rest, by name, so that they survive a change of the rules.
#[derive(Clone, Debug, Default)]
pub(crate) struct CoolDowns {
    rests: HashMap<Key, Rests>,
}

/// The part of an endpoint that rests.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    /// Its region.
    pub(crate) region: RegionId,
    /// The endpoint.
    pub(crate) endpoint: EndpointId,
    /// The client's name of the model; `None` for all models.
    pub(crate) model: Option<String>,
    /// The path; `None` for all paths.
    pub(crate) path: Option<Path>,
}

/// For whom it rests.
#[derive(Clone, Debug, Default)]
struct Rests {
    /// The rest of each source whose requests failed there.
    by: Vec<(Source, Rest)>,
    /// The rest for everybody.
    all: Option<Rest>,
}

#[derive(Clone, Copy, Debug)]
struct Rest {
    until: Timestamp,
    failed: Timestamp,
    /// Failures since the endpoint last served this source.
    failures: u32,
    /// Whether anybody was served since the last failure.
    served: bool,
}

impl Rest {
    fn new(now: Timestamp) -> Self {
        Self { until: now, failed: now, failures: 0, served: false }
    }

    fn lasts(&self, now: Timestamp) -> bool {
        self.until.lasts(now, Millis(LONGEST_MS))
    }

    fn fail(&mut self, retry_after_ms: Option<u64>, now: Timestamp) {
        let backoff = SHORTEST_MS << self.failures.min(6);
        let until = now.after(Millis(retry_after_ms.unwrap_or(backoff).min(LONGEST_MS)));
        // Requests that failed together may ask for different rests.
        let until = if self.lasts(now) { self.until.max(until) } else { until };
        *self = Self { until, failed: now, failures: self.failures.saturating_add(1), served: false };
    }

    /// Whether the failure counts towards a rest for everybody.
    fn counts(&self, now: Timestamp) -> bool {
        !self.served && self.failed.after(Millis(TOGETHER_MS)).lasts(now, Millis(TOGETHER_MS))
    }
}

impl Rests {
    fn of(&self, source: Source) -> Option<&Rest> {
        self.by.iter().find(|(by, _)| *by == source).map(|(_, rest)| rest)
    }

    fn fail(&mut self, source: Source, retry_after_ms: Option<u64>, now: Timestamp) {
        match self.by.iter_mut().find(|(by, _)| *by == source) {
            Some((_, rest)) => rest.fail(retry_after_ms, now),
            None => {
                if self.by.len() >= MAX_SOURCES {
                    let first = (0..self.by.len()).min_by_key(|&at| self.by[at].1.until);
                    first.map(|at| self.by.swap_remove(at));
                }
                let mut rest = Rest::new(now);
                rest.fail(retry_after_ms, now);
                self.by.push((source, rest));
            }
        }
        if self.by.iter().filter(|(_, rest)| rest.counts(now)).count() >= SEVERAL {
            self.all.get_or_insert(Rest::new(now)).fail(retry_after_ms, now);
        }
    }

    /// Until when it rests for a source, if it does. Without a source, until when it rests for everybody.
    fn until(&self, source: Option<Source>, now: Timestamp) -> Option<Timestamp> {
        let own = source.and_then(|source| self.of(source));
        own.into_iter().chain(&self.all).filter(|rest| rest.lasts(now)).map(|rest| rest.until).max()
    }

    fn lasts(&self, now: Timestamp) -> bool {
        self.by.iter().map(|(_, rest)| rest).chain(&self.all).any(|rest| rest.lasts(now))
    }
}

impl CoolDowns {
    /// Lets an endpoint rest as long as it asked, or as backoff decides, but at most 60 s. Called for
    /// `Action::CoolDown`.
    pub(crate) fn rest(&mut self, key: Key, source: Source, retry_after_ms: Option<u64>, now: Timestamp) {
        if self.rests.len() >= MAX && !self.rests.contains_key(&key) {
            self.make_room(source, now);
        }
        self.rests.entry(key).or_default().fail(source, retry_after_ms, now);
    }

    /// Notes that a source was served. Its own failures there are forgotten, and rests for everybody end. Rests of
    /// other sources stay, because their requests may differ. Called at `Action::Commit`.
    pub(crate) fn recovered(&mut self, key: &Key, source: Source) {
        if self.rests.is_empty() {
            return;
        }
        for key in key.covering() {
            let Some(rests) = self.rests.get_mut(&key) else { continue };
            rests.all = None;
            rests.by.retain(|(by, _)| *by != source);
            rests.by.iter_mut().for_each(|(_, rest)| rest.served = true);
            if rests.by.is_empty() {
                self.rests.remove(&key);
            }
        }
    }

    /// Whether nothing rests.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.rests.is_empty()
    }

    /// Whether the endpoint rests for a source, for `Run::pass_over`.
    #[must_use]
    pub(crate) fn is_resting(&self, key: &Key, source: Source, now: Timestamp) -> bool {
        let rests = |key: Key| self.rests.get(&key).is_some_and(|rests| rests.until(Some(source), now).is_some());
        !self.rests.is_empty() && key.covering().into_iter().any(rests)
    }

    /// The rests, as steering needs them for a request to `path` by `source`; without a source, those for everybody.
    #[must_use]
    pub(crate) fn local(&self, table: &Table, path: Option<Path>, source: Option<Source>, now: Timestamp) -> Local {
        let cooling = |(key, rests): (&Key, &Rests)| {
            if key.path.is_some() && key.path != path {
                return None;
            }
            let until = rests.until(source, now)?;
            Some(Cooling {
                region: table.region_named(key.region.as_str())?,
                endpoint: key.endpoint.clone(),
                model: key.model.clone(),
                until,
            })
        };
        Local { cooling: self.rests.iter().filter_map(cooling).collect() }
    }

    /// Removes rests that have ended. If there are none, removes one of the source at hand, else the one that ends
    /// first. Rests for everybody are removed last, and a source that names ever new models removes its own.
    fn make_room(&mut self, source: Source, now: Timestamp) {
        self.rests.retain(|_, rests| rests.lasts(now));
        if self.rests.len() < MAX {
            return;
        }
        let order = |rests: &Rests| {
            let own = rests.by.iter().all(|(by, _)| *by == source);
            let until = rests.by.iter().map(|(_, rest)| rest).chain(&rests.all).map(|rest| rest.until).max();
            (rests.all.is_some(), !own, until)
        };
        let first = self.rests.iter().min_by_key(|(_, rests)| order(rests)).map(|(key, _)| key.clone());
        first.and_then(|key| self.rests.remove(&key));
    }
}

impl Key {
    /// All keys whose rest also concerns this one: all models, all paths, both, and itself.
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
            // An answer tells both limits. The one that has something left isn't the one that was reached.
            let left = headers.get(&format!("x-ratelimit-remaining-{kind}")).and_then(seconds);
            left.is_none_or(|left| left <= 0.0).then(|| span(reset.trim()))?
        };
        ["requests", "tokens"].into_iter().filter_map(reset).max_by(f64::total_cmp)
    };
    millis().or_else(plain).or_else(resets).map(to_millis)
}

/// `5`, `1.2s`, `6m0s`, `20ms` in milliseconds, at most a day.
pub(crate) fn millis(text: &str) -> Option<u64> {
    span(text).map(to_millis)
}

/// At most a day, which keeps the conversion exact.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 86,400,000")]
fn to_millis(seconds: f64) -> u64 {
    (seconds.clamp(0.0, 86_400.0) * 1000.0) as u64
}

#[expect(clippy::cast_precision_loss, reason = "dates lie within 2^53 milliseconds")]
fn millis_to_seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

/// A plain decimal number that isn't negative.
fn seconds(text: &str) -> Option<f64> {
    let text = text.trim();
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|_| plain)
}

/// `6m0s`, `1s`, `20ms`, `1h2m`, or plain seconds: how OpenAI writes its resets.
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::decide::plan::tests::{NOW, RULES};

    const CHAT: Path = &["chat", "completions"];
    const RESPONSES: Path = &["responses"];
    const ACME: Source = Source(1);
    const EMCA: Source = Source(2);

    fn key(model: Option<&str>, path: Option<Path>) -> Key {
        let (region, endpoint) = (RegionId::parse("fra").unwrap(), EndpointId::parse("fra-1").unwrap());
        Key { region, endpoint, model: model.map(str::to_owned), path }
    }

    #[test]
    fn a_rest_doubles_up_to_a_minute_and_serving_ends_it() {
        let mut rests = CoolDowns::default();
        let m = || key(Some("m"), None);
        let is = |rests: &CoolDowns, now| rests.is_resting(&m(), ACME, now);
        let mut now = NOW;
        for expected in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            rests.rest(m(), ACME, None, now);
            now = Timestamp(now.0 + expected);
            assert!(is(&rests, Timestamp(now.0 - 1)) && !is(&rests, now));
        }
        assert!(!rests.is_resting(&key(Some("other"), None), ACME, NOW));
        rests.rest(m(), ACME, Some(5_000), now);
        let before = Timestamp(now.0 - 3_600_000);
        assert!(!is(&rests, before), "the clock was set back");
        rests.rest(m(), ACME, Some(5_000), before);
        assert!(is(&rests, before) && !is(&rests, Timestamp(before.0 + 5_000)));
        rests.rest(m(), ACME, None, now);
        rests.recovered(&key(Some("m"), Some(CHAT)), ACME);
        assert!(!is(&rests, now) && rests.rests.is_empty());
    }

    #[test]
    fn one_source_rests_for_itself_and_several_for_everybody() {
        let mut rests = CoolDowns::default();
        let target = key(Some("m"), Some(CHAT));
        let others = Source(3);
        let is = |rests: &CoolDowns, source, after: i64| rests.is_resting(&target, source, Timestamp(NOW.0 + after));
        for failure in 0..50 {
            rests.rest(key(Some("m"), None), EMCA, None, Timestamp(NOW.0 + failure));
        }
        assert!(is(&rests, EMCA, 59_000) && !is(&rests, ACME, 50));
        rests.recovered(&target, ACME);
        rests.rest(key(Some("m"), None), ACME, None, Timestamp(NOW.0 + 100));
        assert!(is(&rests, ACME, 100) && !is(&rests, others, 100), "somebody was served between the two");
        rests.rest(key(Some("m"), None), EMCA, None, Timestamp(NOW.0 + 200));
        assert!(is(&rests, others, 200), "two of them failed and nobody was served since");
        rests.recovered(&target, others);
        assert!(
            !is(&rests, others, 201) && is(&rests, EMCA, 201),
            "one who was served says nothing of another's prompt"
        );
        rests.recovered(&target, ACME);
        rests.rest(key(Some("m"), None), ACME, None, NOW);
        rests.recovered(&target, EMCA);
        rests.rest(key(Some("m"), None), EMCA, None, Timestamp(NOW.0 + 60_000));
        assert!(!is(&rests, others, 60_000), "a failure of a minute ago is over");
    }

    #[test]
    fn a_path_rests_alone() {
        let mut rests = CoolDowns::default();
        rests.rest(key(Some("m"), Some(RESPONSES)), ACME, None, NOW);
        rests.rest(key(Some("m"), Some(RESPONSES)), EMCA, None, NOW);
        assert!(rests.is_resting(&key(Some("m"), Some(RESPONSES)), Source(3), NOW));
        assert!(!rests.is_resting(&key(Some("m"), Some(CHAT)), ACME, NOW));
        assert!(!rests.is_resting(&key(Some("n"), Some(RESPONSES)), ACME, NOW));
        let table = Table::compile(RULES.as_bytes()).unwrap();
        let cooling = |path, source| rests.local(&table, path, source, NOW).cooling.len();
        assert_eq!([cooling(Some(RESPONSES), None), cooling(Some(CHAT), Some(ACME)), cooling(None, None)], [1, 0, 0]);
    }

    #[test]
    fn a_wish_is_honoured_up_to_a_minute_and_reaches_steering() {
        let table = Table::compile(RULES.as_bytes()).unwrap();
        let mut rests = CoolDowns::default();
        rests.rest(key(None, None), ACME, Some(3_600_000), NOW);
        rests.rest(Key { region: RegionId::parse("gone").unwrap(), ..key(None, None) }, ACME, None, NOW);
        let local = rests.local(&table, None, Some(ACME), NOW);
        assert_eq!(local.cooling.len(), 1, "a region the rules no longer know is left out");
        assert_eq!(local.cooling[0].until, Timestamp(NOW.0 + 60_000));
        assert!(rests.is_resting(&key(Some("any"), Some(CHAT)), ACME, NOW));
        assert!(rests.local(&table, None, Some(EMCA), NOW).cooling.is_empty());
        assert!(rests.local(&table, None, Some(ACME), Timestamp(NOW.0 + 60_000)).cooling.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_a_flood_pushes_out_its_own() {
        let mut rests = CoolDowns::default();
        rests.rest(key(Some("theirs"), None), EMCA, None, NOW);
        for source in [EMCA, Source(3)] {
            rests.rest(key(Some("all"), None), source, None, NOW);
        }
        for model in 0..5_000 {
            rests.rest(key(Some(&model.to_string()), None), ACME, Some(60_000), NOW);
        }
        assert!(rests.rests.len() <= MAX);
        assert!(rests.is_resting(&key(Some("all"), None), ACME, NOW));
        assert!(rests.is_resting(&key(Some("theirs"), None), EMCA, NOW));
        for source in 0..1_000 {
            rests.rest(key(Some("all"), None), Source(source), None, NOW);
        }
        assert!(rests.rests.values().all(|rests| rests.by.len() <= MAX_SOURCES));
    }

    /// Whatever one source meets, for as long as the others are served or ask nothing, it changes nothing for them.
    #[test]
    fn a_noisy_source_changes_nothing_for_others() {
        let event = (any::<bool>(), 0..3usize, any::<bool>(), proptest::option::of(0..90_000u64), 0..3_000i64);
        let (cases, own) = (Cell::new(0u32), Cell::new(0u32));
        TestRunner::new(ProptestConfig::with_cases(2_000))
            .run(&proptest::collection::vec(event, 1..60), |events| {
                cases.set(cases.get() + 1);
                let (mut rests, mut now) = (CoolDowns::default(), NOW);
                for (fails, model, by_path, rest, after) in events {
                    now = Timestamp(now.0 + after);
                    let key = key(Some(["a", "b", "c"][model]), by_path.then_some(CHAT));
                    if fails {
                        rests.rest(key.clone(), EMCA, rest, now);
                    } else {
                        rests.recovered(&key, ACME);
                    }
                    prop_assert!(!rests.is_resting(&key, ACME, now) && !rests.is_resting(&key, Source(9), now));
                    own.set(own.get() + u32::from(rests.is_resting(&key, EMCA, now)));
                }
                Ok(())
            })
            .unwrap();
        println!("noisy sources: {}, rests of their own: {}", cases.get(), own.get());
        assert!(own.get() > 1_000);
    }

    #[test]
    fn headers_that_ask_for_a_rest() {
        let now = Timestamp::parse("1994-11-06T08:49:07Z").unwrap();
        let rest_of = |headers: &[(&str, &str)]| retry_after_ms(&headers.iter().copied().collect(), now);
        assert_eq!(rest_of(&[("retry-after", "7")]), Some(7_000));
        assert_eq!(rest_of(&[("retry-after", "7"), ("retry-after-ms", "120")]), Some(120));
        assert_eq!(rest_of(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")]), Some(30_000));
        assert_eq!(rest_of(&[("retry-after", "Sun, 06 Nov 1994 08:49:00 GMT")]), Some(0));
        for bad in ["-1", "soon", "", "NaN", "inf", "1e9", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(rest_of(&[("retry-after", bad)]), None, "{bad}");
        }
        let tokens = ("x-ratelimit-reset-tokens", "6m0.5s");
        assert_eq!(rest_of(&[("x-ratelimit-remaining-tokens", "0"), tokens]), Some(360_500));
        assert_eq!(rest_of(&[("x-ratelimit-remaining-tokens", "10"), tokens]), None);
        assert_eq!(rest_of(&[tokens, ("x-ratelimit-reset-requests", "59ms")]), Some(360_500), "the longer of two");
        assert_eq!(rest_of(&[tokens, ("retry-after", "2")]), Some(2_000), "what is meant for it goes first");
    }
}
