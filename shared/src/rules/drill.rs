//! The fields of the rules that say how a region's loss is rehearsed. Read by [`super::read`]; [`crate::drill`] decides
//! by them. All times of day and dates are UTC.

use core::fmt;

use schemars::JsonSchema;

use super::Ratio;
use crate::id::RegionId;
use crate::time::{Millis, Timestamp};

/// The shares of a drill that names none, in per cent.
pub(super) const RAMP: [u8; 3] = [10, 50, 100];

/// A rehearsal of the loss of a region: its clients are sent to the other regions of their fence, a share after the
/// other, and come back the same way. Nobody is ever sent to a region outside of the fence.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Drill {
    /// The region that gets fewer clients.
    #[schemars(with = "String")]
    pub region: RegionId,
    /// When it begins by itself, in UTC: `Tue 10:00`. Absent: only when an operator runs it.
    #[schemars(default)]
    pub weekly: Option<Weekly>,
    /// How long the last share lasts, from 1s to 12h; 30m.
    #[schemars(rename = "for", default = "half_an_hour")]
    pub lasts: Millis,
    /// The shares of the region's clients that are sent elsewhere, in per cent, rising. On the way back they are taken
    /// in reverse.
    #[schemars(default = "ramp", length(min = 1), inner(range(min = 1, max = 100)))]
    pub ramp: Vec<u8>,
    /// How long each share but the last lasts, on the way there and back, from 1s to 1h; 5m.
    #[schemars(default = "super::schema::five_minutes")]
    pub step: Millis,
    /// Dates on which it doesn't begin by itself or by hand, as `MM-DD/MM-DD`, both days included, in UTC. A range may
    /// go over the new year: `12-15/01-05`.
    #[schemars(default)]
    pub blocked: Vec<DateRange>,
    /// From what on it is broken off.
    #[schemars(default)]
    pub abort: AbortLimits,
}

fn half_an_hour() -> Millis {
    Millis(30 * 60_000)
}

fn ramp() -> Vec<u8> {
    RAMP.to_vec()
}

impl Drill {
    /// How long it takes as a whole, if nothing breaks it off.
    #[must_use]
    pub fn span(&self) -> Millis {
        let steps = u64::try_from(self.ramp.len().saturating_sub(1)).unwrap_or(0);
        Millis(self.lasts.0.saturating_add(self.step.0.saturating_mul(2 * steps)))
    }
}

/// From what on a drill is broken off. Each is measured at the edge, of all requests to services that have the region,
/// over the last minute. Absent: it isn't looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct AbortLimits {
    /// The share of requests that failed, from 0 to 1.
    #[schemars(with = "Option<f64>", range(min = 0, max = 1))]
    pub error_rate: Option<Ratio>,
    /// The time to the first token that 95 % of streamed answers keep, from 1ms to 10m.
    pub first_token_p95: Option<Millis>,
    /// The share of requests that were refused because regions are full or residency leaves none, from 0 to 1.
    #[schemars(with = "Option<f64>", range(min = 0, max = 1))]
    pub refused: Option<Ratio>,
}

impl AbortLimits {
    /// Whether nothing is looked at.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A time of each week, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weekly {
    /// Days after Monday.
    day: u8,
    /// Minutes after midnight.
    minute: u16,
}

/// The days of a week.
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
/// Milliseconds of a minute.
const MINUTE: i64 = 60_000;
/// Milliseconds of a week.
const WEEK: i64 = 7 * 1_440 * MINUTE;
/// The first Monday after 1970-01-01, which was a Thursday.
const FIRST_MONDAY: i64 = 4 * 1_440 * MINUTE;

impl Weekly {
    /// Reads a day and a time of day.
    ///
    /// ```
    /// use bailiwick_rules::rules::Weekly;
    /// use bailiwick_rules::time::Timestamp;
    /// let weekly = Weekly::parse("Tue 10:00").unwrap();
    /// let wednesday = Timestamp::parse("2026-12-02T06:00:00Z").unwrap();
    /// assert_eq!(weekly.next(wednesday).to_string(), "2026-12-08T10:00:00Z");
    /// assert_eq!(Weekly::parse("Tue 24:00"), None);
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (day, time) = text.split_once(' ')?;
        let day = DAYS.iter().position(|name| *name == day)?;
        let (hour, minute) = time.split_once(':')?;
        let (hour, minute) = (two_digits(hour, 0, 23)?, two_digits(minute, 0, 59)?);
        Some(Self { day: u8::try_from(day).ok()?, minute: u16::from(hour) * 60 + u16::from(minute) })
    }

    /// The first such time that isn't before `at`.
    #[must_use]
    pub fn next(self, at: Timestamp) -> Timestamp {
        let offset = FIRST_MONDAY + (i64::from(self.day) * 1_440 + i64::from(self.minute)) * MINUTE;
        let since = at.0.saturating_sub(offset).rem_euclid(WEEK);
        Timestamp(if since == 0 { at.0 } else { at.0.saturating_add(WEEK - since) })
    }
}

impl fmt::Display for Weekly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = DAYS.get(usize::from(self.day)).unwrap_or(&"?");
        write!(f, "{day} {:02}:{:02}", self.minute / 60, self.minute % 60)
    }
}

/// A year that has every date.
const LEAP_YEAR: i16 = 2028;

/// A range of days of each year, both included, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateRange {
    /// Month and day.
    from: (u8, u8),
    /// Month and day.
    to: (u8, u8),
}

impl DateRange {
    /// Reads two dates.
    ///
    /// ```
    /// use bailiwick_rules::rules::DateRange;
    /// use bailiwick_rules::time::Timestamp;
    /// let holidays = DateRange::parse("12-15/01-05").unwrap();
    /// let holds = |text| holidays.holds(Timestamp::parse(text).unwrap());
    /// assert!(holds("2026-12-15T00:00:00Z") && holds("2027-01-05T23:59:59Z"));
    /// assert!(!holds("2026-12-14T23:59:59Z") && !holds("2027-01-06T00:00:00Z"));
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let date = |text: &str| {
            let (month, day) = text.split_once('-')?;
            let (month, day) = (two_digits(month, 1, 12)?, two_digits(day, 1, 31)?);
            // 29 February is a date of some years.
            let date = jiff::civil::Date::new(LEAP_YEAR, i8::try_from(month).ok()?, i8::try_from(day).ok()?);
            date.is_ok().then_some((month, day))
        };
        let (from, to) = text.split_once('/')?;
        Some(Self { from: date(from)?, to: date(to)? })
    }

    /// Whether an instant lies in it.
    #[must_use]
    pub fn holds(&self, at: Timestamp) -> bool {
        let Some(date) = date_of(at) else { return false };
        match self.from <= self.to {
            true => (self.from..=self.to).contains(&date),
            false => date >= self.from || date <= self.to,
        }
    }
}

impl fmt::Display for DateRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((month, day), (last_month, last_day)) = (self.from, self.to);
        write!(f, "{month:02}-{day:02}/{last_month:02}-{last_day:02}")
    }
}

/// Month and day of an instant, in UTC.
fn date_of(at: Timestamp) -> Option<(u8, u8)> {
    let at = jiff::Timestamp::from_millisecond(at.0).ok()?;
    let date = jiff::tz::TimeZone::UTC.to_datetime(at);
    Some((u8::try_from(date.month()).ok()?, u8::try_from(date.day()).ok()?))
}

/// Two digits that make a number of this range.
fn two_digits(text: &str, least: u8, most: u8) -> Option<u8> {
    let is_digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_digits && (least..=most).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn the_next_time_is_of_that_weekday_and_within_a_week() {
        let cases = 20_000;
        let mut random = Random::new(7);
        for _ in 0..cases {
            let day = u8::try_from(random.below(7)).unwrap();
            let weekly = Weekly { day, minute: u16::try_from(random.below(1_440)).unwrap() };
            assert_eq!(Weekly::parse(&weekly.to_string()), Some(weekly));
            let now = Timestamp(i64::try_from(random.below(4_000_000_000)).unwrap() * 1_000 - 1_000_000_000_000);
            let next = weekly.next(now);
            assert!(next >= now && next.0 - now.0 < WEEK, "{weekly} after {now}: {next}");
            // 1970-01-01 was a Thursday.
            let weekday = (next.0.div_euclid(86_400_000) + 3).rem_euclid(7);
            assert_eq!(weekday, i64::from(day), "{weekly} after {now}: {next}");
            let text = next.to_string();
            let date = date_of(next).map(|(month, day)| format!("{month:02}-{day:02}"));
            assert_eq!(date.as_deref(), text.get(text.len() - 15..text.len() - 10), "{text}");
            assert_eq!(weekly.next(next), next);
        }
        println!("the next time of a week: {cases} random cases");
    }

    #[test]
    fn a_range_may_go_over_the_new_year_or_be_one_day() {
        let year = DateRange::parse("12-15/01-05").unwrap();
        let spring = DateRange::parse("02-29/03-01").unwrap();
        let day = DateRange::parse("07-04/07-04").unwrap();
        for (range, instant, is_held) in [
            (year, "2026-12-31T12:00:00Z", true),
            (year, "2026-06-15T12:00:00Z", false),
            (year, "2027-01-05T23:59:59.999Z", true),
            (spring, "2028-02-29T00:00:00Z", true),
            (spring, "2027-02-28T23:59:59Z", false),
            (day, "2026-07-04T00:00:00Z", true),
            (day, "2026-07-05T00:00:00Z", false),
        ] {
            assert_eq!(range.holds(at(instant)), is_held, "{range} {instant}");
            assert_eq!(DateRange::parse(&range.to_string()), Some(range));
        }
        for bad in ["", "12-15", "13-01/01-01", "02-30/03-01", "1-5/1-6", "12-15/01-05/02-01", "12-15/+1-05"] {
            assert_eq!(DateRange::parse(bad), None, "{bad}");
        }
        for bad in ["", "Tue", "tue 10:00", "Tue 1:00", "Tue 10:60", "Tue  10:00", "Tue 10:00 ", "Tue +9:00"] {
            assert_eq!(Weekly::parse(bad), None, "{bad}");
        }
    }
}
