//! Instants and spans in milliseconds. The crate has no clock: every instant is an argument.

use core::fmt;

/// An instant, in milliseconds since 1970-01-01T00:00:00Z. In JSON it is an RFC 3339 string.
///
/// ```
/// use bailiwick_rules::time::Timestamp;
/// let instant = Timestamp::parse("2026-12-01T06:00:00Z").unwrap();
/// assert_eq!(instant, Timestamp(1_796_104_800_000));
/// assert_eq!(instant.to_string(), "2026-12-01T06:00:00Z");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Reads an instant of RFC 3339, with any offset.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|instant| Self(instant.as_millisecond()))
    }

    /// Reads the preferred form of an HTTP date (RFC 9110 §5.6.7).
    ///
    /// ```
    /// use bailiwick_rules::time::Timestamp;
    /// let instant = Timestamp::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT");
    /// assert_eq!(instant, Timestamp::parse("1994-11-06T08:49:37Z"));
    /// ```
    #[must_use]
    pub fn parse_http_date(text: &str) -> Option<Self> {
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let (_, date) = text.split_once(", ")?;
        let mut parts = date.split(' ');
        let (day, month, year, time) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let month = MONTHS.iter().position(|name| *name == month)? + 1;
        (parts.next() == Some("GMT")).then(|| Self::parse(&format!("{year}-{month:02}-{day}T{time}Z")))?
    }

    /// The instant `span` later.
    #[must_use]
    pub fn after(self, span: Millis) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.0).unwrap_or(i64::MAX)))
    }

    /// Whether a span still lasts at the time `now`, if it ends at this instant and was at most `longest` long. If the
    /// end lies further away than `longest`, the span began before the clock was set back, and counts as over.
    ///
    /// ```
    /// use bailiwick_rules::time::{Millis, Timestamp};
    ///
    /// let end = Timestamp(5_000);
    /// assert!(end.lasts(Timestamp(0), Millis(5_000)) && !end.lasts(end, Millis(5_000)));
    /// assert!(!end.lasts(Timestamp(-1), Millis(5_000)), "the end was set before the clock went back");
    /// ```
    #[must_use]
    pub fn lasts(self, now: Self, longest: Millis) -> bool {
        now < self && self <= now.after(longest)
    }

    /// The time since `earlier`; zero if `earlier` lies in the future.
    #[must_use]
    pub fn since(self, earlier: Self) -> Millis {
        Millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(instant) => instant.fmt(f),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not a time such as 2026-12-01T06:00:00Z")))
    }
}

/// A span in milliseconds. In JSON it is written `"500ms"`, `"5s"`, `"2m"`, `"1h"` or `"1d"`.
///
/// ```
/// use bailiwick_rules::time::Millis;
/// assert_eq!(Millis::parse("2m"), Some(Millis(120_000)));
/// assert_eq!(Millis::parse("1.5s"), None);
/// assert_eq!(Millis(90_000).to_string(), "90s");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// Reads digits and a unit: `ms`, `s`, `m`, `h` or `d`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at(digits);
        let factor = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 24 * 3_600_000,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(factor).map(Self)
    }

    /// This span as the standard library's type.
    #[must_use]
    pub fn to_std(self) -> core::time::Duration {
        core::time::Duration::from_millis(self.0)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ms if ms % 3_600_000 == 0 && ms > 0 => write!(f, "{}h", ms / 3_600_000),
            ms if ms % 60_000 == 0 && ms > 0 => write!(f, "{}m", ms / 60_000),
            ms if ms % 1_000 == 0 => write!(f, "{}s", ms / 1_000),
            ms => write!(f, "{ms}ms"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_round_trip() {
        for text in ["0s", "1ms", "500ms", "5s", "2m", "1h", "90s", "25h"] {
            assert_eq!(Millis::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Millis::parse("2d").unwrap().to_string(), "48h");
        for text in ["", "5", "s", "-1s", "+1s", "5 s", "5S", "99999999999999999999s", "9999999999999999h"] {
            assert_eq!(Millis::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn instants_need_a_date_a_time_and_an_offset() {
        assert_eq!(Timestamp::parse("2026-12-01T07:00:00+01:00"), Timestamp::parse("2026-12-01T06:00:00Z"));
        for text in ["", "2026-12-01", "2026-12-01T06:00:00", "2026-13-01T06:00:00Z", "tomorrow"] {
            assert_eq!(Timestamp::parse(text), None, "{text:?}");
        }
    }
}
