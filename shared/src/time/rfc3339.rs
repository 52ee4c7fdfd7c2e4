//! Reads and writes instants of RFC 3339. Takes a text, returns milliseconds since 1970, and the other way round.
//! Called by [`super::Timestamp`].
//!
//! It reads what ISO 8601 allows besides: the basic form, times without seconds, and annotations of RFC 9557, which are
//! skipped. A library of dates would do it too, but with code that makes the Worker larger.

use core::fmt;

/// The instants that are read and written, in seconds: a day and two hours within the years -9999 to 9999, so that the
/// date has such a year at every offset.
const RANGE: core::ops::RangeInclusive<i64> = -377_705_023_201..=253_402_207_200;
/// Seconds of a day.
const DAY: i64 = 86_400;
/// Days of 400 years, after which the calendar repeats.
const ERA: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const TO_EPOCH: i64 = 719_468;

/// Reads an instant, in milliseconds since 1970.
pub(super) fn parse(text: &str) -> Option<i64> {
    let mut rest = Rest(text.as_bytes());
    let days = rest.date()?;
    if !rest.skip(b"Tt ") {
        return None;
    }
    let (time, nanos) = rest.time()?;
    let offset = if rest.skip(b"Zz") { 0 } else { rest.offset()? };
    rest.annotations()?;
    let seconds = days * DAY + time - offset;
    if !rest.0.is_empty() || !RANGE.contains(&seconds) {
        return None;
    }
    // Parts of milliseconds are dropped, towards 1970.
    let towards_zero = seconds < 0 && nanos % 1_000_000 != 0;
    Some(seconds * 1_000 + nanos / 1_000_000 + i64::from(towards_zero))
}

/// Writes an instant with the offset `Z`. `None` for one that isn't in [`RANGE`].
pub(super) fn format(ms: i64, f: &mut fmt::Formatter<'_>) -> Option<fmt::Result> {
    let (seconds, ms) = (ms.div_euclid(1_000), ms.rem_euclid(1_000));
    if !RANGE.contains(&(if seconds < 0 && ms > 0 { seconds + 1 } else { seconds })) {
        return None;
    }
    let (year, month, day) = date_of(seconds.div_euclid(DAY));
    let time = seconds.rem_euclid(DAY);
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    let written = (|| {
        if year < 0 {
            write!(f, "-{:06}", -year)?;
        } else {
            write!(f, "{year:04}")?;
        }
        write!(f, "-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        match ms {
            0 => {}
            ms if ms % 100 == 0 => write!(f, ".{}", ms / 100)?,
            ms if ms % 10 == 0 => write!(f, ".{:02}", ms / 10)?,
            ms => write!(f, ".{ms:03}")?,
        }
        f.write_str("Z")
    })();
    Some(written)
}

/// Days from 1970-01-01 to a date. Years begin in March, so that the leap day is the last of its year.
fn days_to(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * ERA + of_era * 365 + of_era / 4 - of_era / 100 + of_year - TO_EPOCH
}

/// The date so many days from 1970-01-01: year, month, day.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + TO_EPOCH;
    let (era, of_era) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / (ERA - 1)) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12 + 1;
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// The days of a month.
fn days_of(year: i64, month: i64) -> i64 {
    let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    days_to(next.0, next.1, 1) - days_to(year, month, 1)
}

/// What is left of a text.
struct Rest<'t>(&'t [u8]);

impl Rest<'_> {
    /// Skips one of these characters, if it comes next.
    fn skip(&mut self, any: &[u8]) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if any.contains(first) => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn starts_with_digit(&self) -> bool {
        self.0.first().is_some_and(u8::is_ascii_digit)
    }

    /// Reads a number of so many digits.
    fn digits(&mut self, count: usize) -> Option<i64> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        digits.iter().try_fold(0, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0')))
    }

    /// Reads two digits that make a number of a range.
    fn two(&mut self, range: core::ops::RangeInclusive<i64>) -> Option<i64> {
        self.digits(2).filter(|number| range.contains(number))
    }

    /// Reads a date, as days from 1970-01-01.
    fn date(&mut self) -> Option<i64> {
        let year = match self.0.first()? {
            b'+' | b'-' => {
                let is_negative = self.0.first() == Some(&b'-');
                self.0 = self.0.get(1..)?;
                let year = self.digits(6).filter(|year| *year <= 9_999 && !(is_negative && *year == 0))?;
                if is_negative { -year } else { year }
            }
            _ => self.digits(4)?,
        };
        let is_extended = self.skip(b"-");
        let month = self.two(1..=12)?;
        if is_extended != self.skip(b"-") {
            return None;
        }
        let day = self.two(1..=days_of(year, month))?;
        Some(days_to(year, month, day))
    }

    /// Reads a time of the day, as seconds and nanoseconds.
    fn time(&mut self) -> Option<(i64, i64)> {
        let hour = self.two(0..=23)?;
        let is_extended = self.skip(b":");
        if !is_extended && !self.starts_with_digit() {
            return Some((hour * 3_600, 0));
        }
        let minute = self.two(0..=59)?;
        let has_second = if is_extended { self.skip(b":") } else { self.starts_with_digit() };
        if !has_second {
            return Some((hour * 3_600 + minute * 60, 0));
        }
        // A leap second counts as the second before it.
        let second = self.two(0..=60)?.min(59);
        let nanos = if self.skip(b".,") { self.fraction()? } else { 0 };
        Some((hour * 3_600 + minute * 60 + second, nanos))
    }

    /// Reads the digits of a fraction of a second, as nanoseconds.
    fn fraction(&mut self) -> Option<i64> {
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let scale = u32::try_from(count).ok().filter(|count| (1..=9).contains(count))?;
        Some(self.digits(count)? * 10_i64.pow(9 - scale))
    }

    /// Reads an offset from UTC, in seconds.
    fn offset(&mut self) -> Option<i64> {
        let is_negative = self.0.first() == Some(&b'-');
        if !self.skip(b"+-") {
            return None;
        }
        let mut seconds = self.two(0..=25)? * 3_600;
        let is_extended = self.skip(b":");
        if is_extended || self.starts_with_digit() {
            seconds += self.two(0..=59)? * 60;
            if if is_extended { self.skip(b":") } else { self.starts_with_digit() } {
                seconds += self.two(0..=59)?;
                if self.skip(b".,") && self.fraction()? >= 500_000_000 {
                    seconds += 1;
                }
            }
        }
        Some(if is_negative { -seconds } else { seconds })
    }

    /// Skips annotations such as `[Europe/Berlin]` (RFC 9557).
    fn annotations(&mut self) -> Option<()> {
        while self.skip(b"[") {
            let end = self.0.iter().position(|byte| *byte == b']').filter(|end| *end > 0)?;
            self.0 = self.0.get(end + 1..)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests;
