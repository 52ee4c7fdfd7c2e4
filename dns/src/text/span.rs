//! Reads spans and times as people write them (`2h`, `1h30m`, `18:00Z`). Takes text, returns milliseconds and
//! timestamps; also turns a span back into text. Called by commands that take or print spans,
//! such as `bailiwick drain`, and by the status of a node.

use bailiwick_rules::time::{Millis, Timestamp};

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// The units, from long to short. A span uses each at most once, in this order.
const UNITS: [(&str, u64); 5] = [("w", 7 * DAY), ("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND)];
/// The longest span that is accepted. A longer one is probably a typing error.
const LONGEST: Millis = Millis(366 * DAY);

/// Reads a span: numbers with units, the longest unit first, such as `2h`, `90m`, `1d` or `1h30m`.
///
/// # Errors
/// A sentence that says how to write a span.
pub(crate) fn parse_span(text: &str) -> Result<Millis, String> {
    let wrong = || format!("{text:?} is no span of time; write it as 2h, 90m, 1d or 1h30m");
    let (mut rest, mut span, mut units) = (text, 0_u64, UNITS.iter());
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit_first) = rest.split_at(digits);
        let (unit, factor) = units.find(|(unit, _)| unit_first.starts_with(unit)).ok_or_else(wrong)?;
        let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor)).ok_or_else(wrong)?;
        span = span.checked_add(part).ok_or_else(wrong)?;
        rest = &unit_first[unit.len()..];
    }
    match span {
        0 => Err(wrong()),
        long if long > LONGEST.0 => Err(format!("{text:?} is more than a year; write a shorter span")),
        span => Ok(Millis(span)),
    }
}

/// Reads a time in the future: RFC 3339 with an offset, or a time of day in UTC. `18:00Z` means the next 18:00 UTC.
///
/// # Errors
/// A sentence that says how to write a time.
pub(crate) fn parse_moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let moment = match Timestamp::parse(text) {
        Some(moment) => moment,
        None => next_time_of_day(text, now).ok_or_else(|| match text.contains(':') && !text.contains('Z') {
            true => format!(
                "{text:?} doesn't say in which time zone; write 18:00Z for UTC, 2026-12-01T18:00:00+01:00, or --for 2h"
            ),
            false => format!("{text:?} is no time; write 18:00Z (UTC), 2026-12-01T18:00:00Z, or --for 2h"),
        })?,
    };
    match moment {
        past if past <= now => Err(format!("{text} lies in the past; it is {now}")),
        far if far > now.after(LONGEST) => Err(format!("{text} is more than a year away; write an earlier time")),
        moment => Ok(moment),
    }
}

/// The next time after `now` at which a clock in UTC shows `text`, written `HH:MMZ`.
fn next_time_of_day(text: &str, now: Timestamp) -> Option<Timestamp> {
    let (date, _) = now.to_string().split_once('T').map(|(date, time)| (date.to_owned(), time.to_owned()))?;
    let time = text.strip_suffix('Z').filter(|time| time.len() == 5)?;
    let today = Timestamp::parse(&format!("{date}T{time}:00Z"))?;
    Some(if today > now { today } else { today.after(Millis(DAY)) })
}

/// A span as people say it, by its two largest units: `3d4h`, `2h`, `40s`.
#[must_use]
pub(crate) fn words(span: Millis) -> String {
    let mut rest = span.0;
    let mut text = String::new();
    let first = UNITS.iter().position(|(_, unit)| rest >= *unit).unwrap_or(UNITS.len() - 1);
    for (name, unit) in UNITS.iter().skip(first).take(2) {
        let count = rest / unit;
        if count > 0 || text.is_empty() {
            text += &format!("{count}{name}");
        }
        rest %= unit;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, span) in [
            ("2h", 2 * HOUR),
            ("90m", 90 * MINUTE),
            ("1d", DAY),
            ("1h30m", 90 * MINUTE),
            ("1w2d", 9 * DAY),
            ("5s", 5000),
        ] {
            assert_eq!(parse_span(text), Ok(Millis(span)), "{text}");
        }
        for text in
            ["", "2", "h", "2 h", "-2h", "30m1h", "1h1h", "2hours", "0h", "99999999999999999999h", "2H", "1.5h", "é"]
        {
            assert!(parse_span(text).unwrap_err().contains("write it as 2h, 90m, 1d or 1h30m"), "{text:?}");
        }
        assert!(parse_span("1000d").unwrap_err().contains("more than a year"));
    }

    #[test]
    fn moments_need_a_time_zone_and_lie_ahead() {
        let now = Timestamp::parse("2026-12-01T17:30:00Z").unwrap();
        let at = |text: &str| Timestamp::parse(text).unwrap();
        assert_eq!(parse_moment("18:00Z", now), Ok(at("2026-12-01T18:00:00Z")));
        assert_eq!(parse_moment("17:30Z", now), Ok(at("2026-12-02T17:30:00Z")), "the next such time");
        assert_eq!(parse_moment("2026-12-01T19:00:00+01:00", now), Ok(at("2026-12-01T18:00:00Z")));
        assert!(parse_moment("18:00", now).unwrap_err().contains("which time zone"));
        assert!(parse_moment("2026-12-01T17:00:00Z", now).unwrap_err().contains("lies in the past"));
        assert!(parse_moment("2096-12-01T17:00:00Z", now).unwrap_err().contains("more than a year"));
        for text in ["", "tomorrow", "25:00Z", "1:00Z", "18:60Z"] {
            assert!(parse_moment(text, now).unwrap_err().contains("is no time"), "{text:?}");
        }
    }

    #[test]
    fn spans_are_told_by_their_two_largest_units() {
        for (span, text) in [
            (0, "0s"),
            (999, "0s"),
            (40_000, "40s"),
            (90_000, "1m30s"),
            (2 * HOUR, "2h"),
            (26 * HOUR, "1d2h"),
            (DAY + MINUTE, "1d"),
        ] {
            assert_eq!(words(Millis(span)), text);
        }
    }
}
