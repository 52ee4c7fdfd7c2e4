//! Endpoints at rest in one isolate: failures in, what [`steer`](bailiwick_rules::steer::steer()) withholds as `cooling` out.
//!
//! A rest doubles with every failure in a row. It is by endpoint and model; [`crate::breaker`] watches the endpoint as a whole.

use std::collections::HashMap;

use bailiwick_rules::id::{EndpointId, RegionId};
use bailiwick_rules::steer::{Cooling, Local};
use bailiwick_rules::table::Table;
use bailiwick_rules::time::{Millis, Timestamp};

/// The first rest without a wish of the endpoint's own.
const SHORTEST_MS: u64 = 1_000;
/// The longest rest, whatever an endpoint wishes.
const LONGEST_MS: u64 = 60_000;
/// How many endpoints times models are remembered; clients can name any model where a map is open.
const MOST: usize = 1_024;

/// All endpoints at rest, by name: they outlive a change of rules.
#[derive(Clone, Debug, Default)]
pub struct CoolDowns {
    rests: HashMap<Key, Rest>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Key {
    region: RegionId,
    endpoint: EndpointId,
    model: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Rest {
    until: Timestamp,
    /// Failures since it last served.
    failures: u32,
}

impl Rest {
    fn lasts(&self, now: Timestamp) -> bool {
        self.until.lasts(now, Millis(LONGEST_MS))
    }
}

impl CoolDowns {
    /// Lets an endpoint rest, as long as it asked or by backoff; at most 60 s. What `Action::CoolDown` calls.
    pub fn rest(
        &mut self,
        region: &RegionId,
        endpoint: &EndpointId,
        model: Option<&str>,
        asked_ms: Option<u64>,
        now: Timestamp,
    ) {
        let key = key(region, endpoint, model);
        if self.rests.len() >= MOST && !self.rests.contains_key(&key) {
            self.make_room(now);
        }
        let rest = self.rests.entry(key).or_insert(Rest { until: now, failures: 0 });
        let backoff = SHORTEST_MS << rest.failures.min(6);
        rest.failures = rest.failures.saturating_add(1);
        let until = now.after(Millis(asked_ms.unwrap_or(backoff).min(LONGEST_MS)));
        // Requests that failed together may ask for different rests.
        rest.until = if rest.lasts(now) { rest.until.max(until) } else { until };
    }

    /// Forgets an endpoint's failures: it served. To be called at `Action::Commit`.
    pub fn recovered(&mut self, region: &RegionId, endpoint: &EndpointId, model: Option<&str>) {
        if self.rests.is_empty() {
            return;
        }
        self.rests.remove(&key(region, endpoint, None));
        if model.is_some() {
            self.rests.remove(&key(region, endpoint, model));
        }
    }

    /// Whether the endpoint rests, for `Run::pass_over`.
    #[must_use]
    pub fn is_resting(&self, region: &RegionId, endpoint: &EndpointId, model: Option<&str>, now: Timestamp) -> bool {
        if self.rests.is_empty() {
            return false;
        }
        let rests = |model| self.rests.get(&key(region, endpoint, model)).is_some_and(|rest| rest.lasts(now));
        rests(None) || model.is_some() && rests(model)
    }

    /// What steering has to know of it.
    #[must_use]
    pub fn local(&self, table: &Table, now: Timestamp) -> Local {
        let cooling = |(key, rest): (&Key, &Rest)| {
            Some(Cooling {
                region: table.region_named(key.region.as_str()).filter(|_| rest.lasts(now))?,
                endpoint: key.endpoint.clone(),
                model: key.model.clone(),
                until: rest.until,
            })
        };
        Local { cooling: self.rests.iter().filter_map(cooling).collect() }
    }

    /// Drops what ended; if nothing did, what ends first.
    fn make_room(&mut self, now: Timestamp) {
        self.rests.retain(|_, rest| rest.lasts(now));
        if self.rests.len() >= MOST {
            let first = self.rests.iter().min_by_key(|(_, rest)| rest.until).map(|(key, _)| key.clone());
            first.and_then(|key| self.rests.remove(&key));
        }
    }
}

fn key(region: &RegionId, endpoint: &EndpointId, model: Option<&str>) -> Key {
    Key { region: region.clone(), endpoint: endpoint.clone(), model: model.map(str::to_owned) }
}

/// How long an endpoint asks to be left alone, in milliseconds, from its response headers (`header(name)`, names in lower
/// case): `retry-after-ms`, else `retry-after` (seconds or an HTTP date, RFC 9110 §10.2.3), else the longest reset among
/// `x-ratelimit-*` limits with nothing remaining.
#[must_use]
pub fn asked_rest(header: impl Fn(&str) -> Option<String>, now: Timestamp) -> Option<u64> {
    let millis = || header("retry-after-ms").and_then(|text| seconds(&text)).map(|value| value / 1000.0);
    let plain = || {
        let text = header("retry-after")?;
        let date = || http_date(text.trim()).map(|date| millis_to_seconds(date.since(now).0));
        seconds(&text).or_else(date)
    };
    let resets = || {
        let reset = |kind: &str| {
            let reset = header(&format!("x-ratelimit-reset-{kind}"))?;
            // Both limits are told with every answer: the one with something left isn't what was hit.
            let left = header(&format!("x-ratelimit-remaining-{kind}")).and_then(|text| seconds(&text));
            left.is_none_or(|left| left <= 0.0).then(|| span(reset.trim()))?
        };
        ["requests", "tokens"].into_iter().filter_map(reset).max_by(f64::total_cmp)
    };
    let asked = millis().or_else(plain).or_else(resets)?;
    // A day is as good as for ever, and keeps the conversion exact.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 86,400,000")]
    Some((asked.clamp(0.0, 86_400.0) * 1000.0) as u64)
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

/// The preferred form of RFC 9110 §5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<Timestamp> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_, date) = text.split_once(", ")?;
    let mut parts = date.split(' ');
    let (day, month, year, time) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    (parts.next() == Some("GMT")).then(|| Timestamp::parse(&format!("{year}-{month:02}-{day}T{time}Z")))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{NOW, RULES};

    fn names() -> (RegionId, EndpointId) {
        (RegionId::parse("fra").unwrap(), EndpointId::parse("fra-1").unwrap())
    }

    #[test]
    fn a_rest_doubles_up_to_a_minute_and_serving_ends_it() {
        let (region, endpoint) = names();
        let mut rests = CoolDowns::default();
        let mut now = NOW;
        for expected in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            rests.rest(&region, &endpoint, Some("m"), None, now);
            now = Timestamp(now.0 + expected);
            assert!(rests.is_resting(&region, &endpoint, Some("m"), Timestamp(now.0 - 1)));
            assert!(!rests.is_resting(&region, &endpoint, Some("m"), now));
        }
        assert!(!rests.is_resting(&region, &endpoint, Some("other"), NOW));
        rests.rest(&region, &endpoint, Some("m"), Some(5_000), now);
        let before = Timestamp(now.0 - 3_600_000);
        assert!(!rests.is_resting(&region, &endpoint, Some("m"), before), "the clock was set back");
        rests.rest(&region, &endpoint, Some("m"), Some(5_000), before);
        assert!(rests.is_resting(&region, &endpoint, Some("m"), before));
        assert!(!rests.is_resting(&region, &endpoint, Some("m"), Timestamp(before.0 + 5_000)));
        rests.rest(&region, &endpoint, Some("m"), None, now);
        rests.recovered(&region, &endpoint, Some("m"));
        assert!(!rests.is_resting(&region, &endpoint, Some("m"), now));
    }

    #[test]
    fn a_wish_is_honoured_up_to_a_minute_and_reaches_steering() {
        let (region, endpoint) = names();
        let table = Table::compile(RULES.as_bytes()).unwrap();
        let mut rests = CoolDowns::default();
        rests.rest(&region, &endpoint, None, Some(3_600_000), NOW);
        rests.rest(&RegionId::parse("gone").unwrap(), &endpoint, None, None, NOW);
        let local = rests.local(&table, NOW);
        assert_eq!(local.cooling.len(), 1, "a region the rules no longer know is left out");
        assert_eq!(local.cooling[0].until, Timestamp(NOW.0 + 60_000));
        assert!(rests.is_resting(&region, &endpoint, Some("any"), NOW));
        assert!(rests.local(&table, Timestamp(NOW.0 + 60_000)).cooling.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (region, endpoint) = names();
        let mut rests = CoolDowns::default();
        for model in 0..5_000 {
            rests.rest(&region, &endpoint, Some(&model.to_string()), None, NOW);
        }
        assert!(rests.rests.len() <= MOST);
    }

    #[test]
    fn headers_that_ask_for_a_rest() {
        let now = Timestamp::parse("1994-11-06T08:49:07Z").unwrap();
        let asked = |headers: &[(&str, &str)]| {
            let get = |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            asked_rest(get, now)
        };
        assert_eq!(asked(&[("retry-after", "7")]), Some(7_000));
        assert_eq!(asked(&[("retry-after", "7"), ("retry-after-ms", "120")]), Some(120));
        assert_eq!(asked(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")]), Some(30_000));
        assert_eq!(asked(&[("retry-after", "Sun, 06 Nov 1994 08:49:00 GMT")]), Some(0));
        for bad in ["-1", "soon", "", "NaN", "inf", "1e9", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(asked(&[("retry-after", bad)]), None, "{bad}");
        }
        let tokens = ("x-ratelimit-reset-tokens", "6m0.5s");
        assert_eq!(asked(&[("x-ratelimit-remaining-tokens", "0"), tokens]), Some(360_500));
        assert_eq!(asked(&[("x-ratelimit-remaining-tokens", "10"), tokens]), None);
        assert_eq!(asked(&[tokens, ("x-ratelimit-reset-requests", "59ms")]), Some(360_500), "the longer of two");
        assert_eq!(asked(&[tokens, ("retry-after", "2")]), Some(2_000), "what is meant for it goes first");
    }
}
