//! Reads the rate limit headers of a provider. Takes a function that looks a header up, and the time; returns a
//! [`Reading`]. Called by the edge for every answer of an endpoint.
//!
//! Headers may hold any bytes. Values that can't be parsed are ignored, and nothing here panics.
//!
//! These headers are read: `retry-after` (seconds or a date, RFC 9110 §10.2.3), `retry-after-ms` and
//! `x-ms-retry-after-ms`, `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` of OpenAI and compatible APIs, and
//! `anthropic-ratelimit-{requests,tokens,input-tokens,output-tokens}-{limit,remaining,reset}`.

use crate::time::{Millis, Timestamp};

/// The longest wait that is obeyed: an hour. If a provider asks for a longer wait, it is tried again after an hour.
pub const LONGEST_WAIT: Millis = Millis(3_600_000);

/// A reset of at least this many seconds is a Unix time; as a span it would be over thirty years.
const SECONDS_SINCE_1970: u64 = 1_000_000_000;

/// The limit of one dimension: requests or tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Dimension {
    /// How many units may be used in a span that the headers don't name.
    pub limit: Option<u64>,
    /// How many of these units are left.
    pub remaining: Option<u64>,
    /// The time until all units are available again.
    pub reset: Option<Millis>,
}

/// The rate limit headers of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reading {
    /// How long the provider asks to wait.
    pub retry_after: Option<Millis>,
    /// The limit of requests.
    pub requests: Option<Dimension>,
    /// The limit of tokens. If there are several kinds of tokens, the kind with the least remaining.
    pub tokens: Option<Dimension>,
}

impl Reading {
    /// Reads the headers that `get` finds by their names in lower case.
    ///
    /// ```
    /// use bailiwick_rules::quota::Reading;
    /// use bailiwick_rules::time::{Millis, Timestamp};
    ///
    /// let headers = [("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "6m0s"),
    ///                ("x-ratelimit-limit-tokens", "100000"), ("x-ratelimit-reset-requests", "120ms")];
    /// let get = |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    /// assert_eq!(Reading::of(get, Timestamp(0)).wait(), Some(Millis(360_000)));
    /// ```
    #[must_use]
    pub fn of<'h>(get: impl Fn(&str) -> Option<&'h str>, now: Timestamp) -> Self {
        let read = |limit: &str, remaining: &str, reset: &str| dimension(get(limit), get(remaining), get(reset), now);
        let anthropic = |kind: &str| {
            let name = |what: &str| format!("anthropic-ratelimit-{kind}-{what}");
            read(&name("limit"), &name("remaining"), &name("reset"))
        };
        let openai = |limit, remaining, reset| read(limit, remaining, reset);
        let requests =
            openai("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests");
        let tokens = openai("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens");
        let kinds = || ["tokens", "input-tokens", "output-tokens"].into_iter().filter_map(anthropic);
        Self {
            retry_after: retry_after(&get, now),
            requests: requests.or_else(|| anthropic("requests")),
            tokens: tokens.or_else(|| kinds().min_by_key(|kind| kind.remaining.unwrap_or(u64::MAX))),
        }
    }

    /// How long to wait after a refusal: the time that the provider asks for; else the reset of the dimension with
    /// nothing remaining; if no dimension reports that, the longest reset.
    #[must_use]
    pub fn wait(&self) -> Option<Millis> {
        let longest_reset = |is_meant: fn(&Dimension) -> bool| {
            let dimensions = [self.requests, self.tokens].into_iter().flatten();
            dimensions.filter(is_meant).filter_map(|dimension| dimension.reset).max()
        };
        let exhausted = || longest_reset(|dimension| dimension.remaining == Some(0));
        let unclear = || {
            let is_exhausted =
                |dimension: &Option<Dimension>| dimension.is_some_and(|dimension| dimension.remaining == Some(0));
            let is_clear = is_exhausted(&self.requests) || is_exhausted(&self.tokens);
            if is_clear { None } else { longest_reset(|_| true) }
        };
        self.retry_after.or_else(exhausted).or_else(unclear).map(|wait| wait.min(LONGEST_WAIT))
    }
}

/// Reads one dimension. Gateways write `-1` for unknown values. A remaining number of 0 without a limit means unknown
/// too.
fn dimension(limit: Option<&str>, remaining: Option<&str>, reset: Option<&str>, now: Timestamp) -> Option<Dimension> {
    let limit = limit.and_then(whole).filter(|limit| *limit > 0);
    let remaining = remaining.and_then(whole).filter(|remaining| *remaining > 0 || limit.is_some());
    let reset = reset.and_then(|text| reset_in(text, now));
    let is_reading = remaining.is_some() || limit.is_some() || reset.is_some_and(|reset| reset > Millis(0));
    is_reading.then_some(Dimension { limit, remaining, reset })
}

/// Reads the wait that the provider asks for.
fn retry_after<'h>(get: &impl Fn(&str) -> Option<&'h str>, now: Timestamp) -> Option<Millis> {
    let millis = |name: &str| get(name).and_then(|text| decimal(text.trim(), 1)).map(Millis);
    let plain = || {
        let text = get("retry-after")?.trim();
        let date = || Timestamp::parse_http_date(text).map(|date| date.since(now));
        decimal(text, 1_000).map(Millis).or_else(date)
    };
    let wait = millis("retry-after-ms").or_else(|| millis("x-ms-retry-after-ms")).or_else(plain);
    wait.map(|wait| wait.min(LONGEST_WAIT))
}

/// Reads a reset: a span, a number of seconds, a Unix time, or a time of RFC 3339.
fn reset_in(text: &str, now: Timestamp) -> Option<Millis> {
    let text = text.trim();
    let span = match whole(text).filter(|seconds| *seconds >= SECONDS_SINCE_1970) {
        Some(seconds) => Some(instant(seconds)?.since(now)),
        None => read_span(text),
    };
    span.or_else(|| Timestamp::parse(text).map(|at| at.since(now))).map(|span| span.min(LONGEST_WAIT))
}

/// A Unix time in seconds.
fn instant(seconds: u64) -> Option<Timestamp> {
    i64::try_from(seconds).ok()?.checked_mul(1_000).map(Timestamp)
}

/// Reads a span as Go writes durations (`6m0s`, `1.5s`, `120ms`, `1h2m`), or a number of seconds. Fractions of a
/// millisecond are rounded up.
///
/// ```
/// use bailiwick_rules::quota::read_span;
/// use bailiwick_rules::time::Millis;
/// assert_eq!(read_span("6m0s"), Some(Millis(360_000)));
/// assert_eq!(read_span("1.5"), Some(Millis(1_500)));
/// assert_eq!(read_span("120us"), Some(Millis(1)));
/// assert_eq!(read_span("-1s"), None);
/// ```
#[must_use]
pub fn read_span(text: &str) -> Option<Millis> {
    if let Some(plain) = decimal(text, 1_000) {
        return Some(Millis(plain));
    }
    let (mut total, mut rest) = (0u64, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, left) = after.split_at(letters);
        let span = match unit {
            // Rounded up, because a wait shorter than a millisecond is still a wait.
            "ns" => decimal(number, 1)?.div_ceil(1_000_000),
            "us" | "µs" | "μs" => decimal(number, 1)?.div_ceil(1_000),
            "ms" => decimal(number, 1)?,
            "s" => decimal(number, 1_000)?,
            "m" => decimal(number, 60_000)?,
            "h" => decimal(number, 3_600_000)?,
            "d" => decimal(number, 86_400_000)?,
            _ => return None,
        };
        total = total.saturating_add(span);
        rest = left;
    }
    (!text.is_empty()).then_some(Millis(total))
}

/// Writes a span as Go writes durations, and as OpenAI does in its headers: `120ms`, `1.5s`, `6m0s`, `1h0m0s`.
///
/// ```
/// use bailiwick_rules::quota::write_span;
/// use bailiwick_rules::time::Millis;
/// assert_eq!([0, 120, 1_500, 360_000].map(|ms| write_span(Millis(ms))), ["0s", "120ms", "1.5s", "6m0s"]);
/// ```
#[must_use]
pub fn write_span(span: Millis) -> String {
    let (seconds, rest) = (span.0 / 1_000, span.0 % 1_000);
    if seconds == 0 && rest > 0 {
        return format!("{rest}ms");
    }
    let fraction = format!(".{rest:03}");
    let fraction = if rest == 0 { "" } else { fraction.trim_end_matches('0') };
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}{fraction}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}{fraction}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

/// Reads a whole number that isn't negative. A number that is too large becomes the largest one.
fn whole(text: &str) -> Option<u64> {
    decimal(text.trim(), 1)
}

/// Reads a decimal number that isn't negative, multiplies it by a scale, and rounds up.
fn decimal(text: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let number =
        |text: &str| text.bytes().fold(0u64, |sum, byte| sum.saturating_mul(10).saturating_add(u64::from(byte - b'0')));
    // Nine digits of the fraction are exact. If further digits aren't all 0, the ninth digit is rounded up.
    let (near, far) = fraction.split_at(fraction.len().min(9));
    let unit = near.bytes().fold(1u64, |unit, _| unit * 10);
    let parts = number(near) + u64::from(far.bytes().any(|byte| byte != b'0'));
    let fraction = u128::from(parts) * u128::from(scale);
    let fraction = u64::try_from(fraction.div_ceil(u128::from(unit))).unwrap_or(u64::MAX);
    Some(number(whole).saturating_mul(scale).saturating_add(fraction))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;

    /// 2026-12-01T06:00:00Z
    const NOW: Timestamp = Timestamp(1_796_104_800_000);

    fn read(headers: &[(&str, &str)]) -> Reading {
        Reading::of(|name| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value), NOW)
    }

    fn wait(headers: &[(&str, &str)]) -> Option<u64> {
        read(headers).wait().map(|wait| wait.0)
    }

    #[test]
    fn all_forms_of_retry_after_are_read() {
        assert_eq!(wait(&[("retry-after", "7")]), Some(7_000));
        assert_eq!(wait(&[("retry-after", " 1.2 ")]), Some(1_200));
        assert_eq!(wait(&[("retry-after", "Tue, 01 Dec 2026 06:01:30 GMT")]), Some(90_000));
        assert_eq!(wait(&[("retry-after", "Tue, 01 Dec 2026 05:00:00 GMT")]), Some(0), "a date in the past is no wait");
        assert_eq!(wait(&[("retry-after", "7"), ("retry-after-ms", "6543")]), Some(6_543));
        assert_eq!(wait(&[("retry-after", "7"), ("x-ms-retry-after-ms", "6544")]), Some(6_544));
        assert_eq!(wait(&[("retry-after", "99999999999999999999999")]), Some(LONGEST_WAIT.0));
        for nonsense in ["", "-1", "soon", "NaN", "inf", "1e9", "0x10", "5 s", "..", "١"] {
            assert_eq!(wait(&[("retry-after", nonsense)]), None, "{nonsense:?}");
        }
    }

    #[test]
    fn the_wait_is_the_reset_of_the_exhausted_dimension_or_else_the_longest_reset() {
        let limits = [("x-ratelimit-limit-requests", "60"), ("x-ratelimit-limit-tokens", "1000")];
        let resets = [("x-ratelimit-reset-requests", "120ms"), ("x-ratelimit-reset-tokens", "6m0s")];
        let with = |left: &[(&'static str, &'static str)]| wait(&[&limits[..], &resets, left].concat());
        let (no_requests, no_tokens) = (("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-remaining-tokens", "0"));
        assert_eq!(with(&[no_requests, ("x-ratelimit-remaining-tokens", "9")]), Some(120));
        assert_eq!(with(&[no_tokens, ("x-ratelimit-remaining-requests", "9")]), Some(360_000));
        assert_eq!(with(&[no_requests, no_tokens]), Some(360_000));
        assert_eq!(with(&[]), Some(360_000), "without remaining numbers the longest reset counts");
        assert_eq!(wait(&[("x-ratelimit-reset-requests", "59.70")]), Some(59_700));
        assert_eq!(wait(&[("x-ratelimit-reset-requests", "1796104830")]), Some(30_000), "seconds since 1970");
    }

    #[test]
    fn the_times_in_headers_of_anthropic_are_read() {
        let reading = read(&[
            ("anthropic-ratelimit-requests-limit", "50"),
            ("anthropic-ratelimit-requests-remaining", "49"),
            ("anthropic-ratelimit-requests-reset", "2026-12-01T06:00:01Z"),
            ("anthropic-ratelimit-input-tokens-limit", "50000"),
            ("anthropic-ratelimit-input-tokens-remaining", "0"),
            ("anthropic-ratelimit-input-tokens-reset", "2026-12-01T06:00:12Z"),
            ("anthropic-ratelimit-output-tokens-limit", "10000"),
            ("anthropic-ratelimit-output-tokens-remaining", "10000"),
        ]);
        assert_eq!(reading.requests.unwrap().remaining, Some(49));
        assert_eq!(reading.tokens.unwrap().remaining, Some(0));
        assert_eq!(reading.wait(), Some(Millis(12_000)));
    }

    #[test]
    fn unknown_numbers_are_ignored() {
        let unknown = [
            ("x-ratelimit-limit-requests", "-1"),
            ("x-ratelimit-remaining-requests", "-1"),
            ("x-ratelimit-reset-requests", "0"),
        ];
        assert_eq!(read(&unknown), Reading::default());
        assert_eq!(read(&[("x-ratelimit-remaining-tokens", "0")]), Reading::default(), "0 without a limit");
        let zero = [("x-ratelimit-limit-tokens", "0"), ("x-ratelimit-remaining-tokens", "0")];
        assert_eq!(read(&zero), Reading::default(), "0 remaining of a limit of 0");
        let some = read(&[("x-ratelimit-limit-tokens", "9"), ("x-ratelimit-remaining-tokens", "0")]);
        assert_eq!(some.tokens.unwrap().remaining, Some(0));
    }

    #[test]
    fn spans_are_exact() {
        let spans = [("1h2m3s", 3_723_000), ("1.0005s", 1_001), ("0.0000000001s", 1), ("20ms", 20), ("1d", 86_400_000)];
        for (text, expected) in spans {
            assert_eq!(read_span(text), Some(Millis(expected)), "{text}");
        }
        for bad in ["", "s", "1x", "1s2", "-1s", "1s-1s", "1 s", "1.2.3s", "٣s"] {
            assert_eq!(read_span(bad), None, "{bad}");
        }
        assert_eq!(read_span("99999999999999999999d99999999999999999999h"), Some(Millis(u64::MAX)));
    }

    #[test]
    fn spans_are_read_as_they_are_written() {
        for ms in [0, 1, 120, 999, 1_000, 1_010, 59_999, 60_000, 360_000, 3_599_999, 3_600_000, 90_061_007] {
            assert_eq!(read_span(&write_span(Millis(ms))), Some(Millis(ms)), "{ms}");
        }
    }

    #[test]
    fn random_headers_never_panic_nor_give_a_wait_of_more_than_an_hour() {
        let values = prop_oneof![
            "[0-9.:+-]{0,40}(ns|us|µs|ms|s|m|h|d)?",
            "([0-9]{1,25}(\\.[0-9]{0,25})?(ms|s|m|h)){0,4}",
            "(Mon|Tue), [0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,6} [0-9:]{0,10} GMT",
            "[0-9]{4,6}-[0-9]{2}-[0-9]{2}T[0-9:.]{0,12}(Z|[+-][0-9:]{0,6})",
            ".{0,40}",
        ];
        TestRunner::new(ProptestConfig::with_cases(5_000))
            .run(&(any::<i64>(), values.clone(), values), |(now, one, other)| {
                let get =
                    |name: &str| if name.len().is_multiple_of(2) { Some(one.as_str()) } else { Some(other.as_str()) };
                let reading = Reading::of(get, Timestamp(now));
                prop_assert!(reading.wait().is_none_or(|wait| wait <= LONGEST_WAIT));
                let resets = [reading.requests, reading.tokens].into_iter().flatten().filter_map(|one| one.reset);
                prop_assert!(resets.max().is_none_or(|reset| reset <= LONGEST_WAIT));
                Ok(())
            })
            .unwrap();
    }
}
