//! When a drill begins by itself. Takes the rule and the time, returns the next time or whether it is due. Called by
//! `bailiwick drill plan` and `bailiwick drill run --scheduled`. All times are UTC.

use super::preflight::Preflight;
use crate::rules::{DateRange, Drill};
use crate::time::{Millis, Timestamp};

/// A drill that couldn't begin at its time, because nobody was there to run it, may begin so much later.
const GRACE: Millis = Millis(5 * 60_000);
/// For how long after its time a drill waits for a node that doesn't know yet whether it may begin. It is shorter than
/// [`GRACE`] by more than the longest time between two looks, so that the node's refusal is recorded in the end.
const EARLY: Millis = Millis(4 * 60_000);
/// For how many weeks a next time is looked for. Ranges that block more than a year block for ever.
const WEEKS: usize = 54;
/// A week.
const WEEK: Millis = Millis(7 * 86_400_000);

/// A day.
const DAY: Millis = Millis(86_400_000);

/// The range of dates that forbids a drill at this time: one that has a day on which it would last.
#[must_use]
pub fn blocked_by(drill: &Drill, at: Timestamp) -> Option<&DateRange> {
    let end = at.after(drill.span());
    // A drill lasts for days at most, so few are looked at.
    let days = std::iter::successors(Some(at), |day| Some(day.after(DAY)).filter(|next| *next < end));
    let mut days = days.chain([end]);
    days.find_map(|day| drill.blocked.iter().find(|range| range.holds(day)))
}

/// The next time at which the drill begins by itself, from `now` on. `None` if it never does.
#[must_use]
pub fn next(drill: &Drill, now: Timestamp) -> Option<Timestamp> {
    let mut at = drill.weekly?.next(now);
    for _ in 0..WEEKS {
        if blocked_by(drill, at).is_none() {
            return Some(at);
        }
        at = drill.weekly?.next(at.after(Millis(1)));
    }
    None
}

/// The time at which the drill should have begun, if that is now or a few minutes ago. `last` is when it last did, or
/// was refused. A drill that was missed for longer waits for its next time.
#[must_use]
pub fn due(drill: &Drill, last: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
    let weekly = drill.weekly?;
    let since = Timestamp(now.0.saturating_sub(i64::try_from(GRACE.0).unwrap_or(i64::MAX)));
    let at = weekly.next(since);
    let is_new = last.is_none_or(|last| last < at);
    (at <= now && is_new && now.since(at) < WEEK && blocked_by(drill, at).is_none()).then_some(at)
}

/// Whether a drill that was due at this time waits, instead of being refused: only knowledge is missing, as at a node
/// that was just restarted.
#[must_use]
pub fn waits(due: Timestamp, looked: &Preflight, now: Timestamp) -> bool {
    looked.is_early && now.since(due) < EARLY
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;

    fn drill(more: &str) -> Drill {
        let rules = format!(
            r#"{{ "version": 1, "revision": 1, "jurisdictions": {{ "uk": {{ "countries": ["GB"] }} }},
            "regions": {{ "lon": {{ "countries": ["GB"] }} }},
            "services": {{ "chat": {{ "hosts": ["chat.example"], "pattern": "active-active", "regions": ["lon"],
                "residency": [{{ "clients": ["uk"], "process_in": ["uk"] }}] }} }},
            "drills": {{ "one": {{ "region": "lon" {more} }} }} }}"#
        );
        Table::compile(rules.as_bytes()).unwrap().drills()[0].1.clone()
    }

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn blocked_dates_are_passed_over_and_the_new_year_too() {
        let rule = drill(r#", "weekly": "Tue 10:00", "blocked": ["12-15/01-05"]"#);
        let next = |text: &str| super::next(&rule, at(text)).map(|at| at.to_string()).unwrap_or_default();
        assert_eq!(next("2026-12-01T10:00:00Z"), "2026-12-01T10:00:00Z");
        assert_eq!(next("2026-12-08T10:00:01Z"), "2027-01-12T10:00:00Z", "15, 22, 29 December and 5 January");
        assert_eq!(super::next(&drill(""), at("2026-12-01T10:00:00Z")), None);
        assert_eq!(
            super::next(&drill(r#", "weekly": "Tue 10:00", "blocked": ["01-01/12-31"]"#), at("2026-12-01T10:00:00Z")),
            None
        );
    }

    #[test]
    fn a_drill_that_would_last_into_a_blocked_date_is_blocked() {
        let rule = drill(r#", "weekly": "Mon 23:30", "for": "1h", "blocked": ["12-15/12-15"]"#);
        assert!(blocked_by(&rule, at("2026-12-14T23:30:00Z")).is_some());
        assert!(blocked_by(&rule, at("2026-12-14T20:00:00Z")).is_none());
        assert!(blocked_by(&rule, at("2026-12-16T00:00:00Z")).is_none());
        // Ten shares up and nine back: 30 hours.
        let ramp = r#", "ramp": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], "step": "1h", "for": "12h""#;
        let rule = drill(&format!(r#"{ramp}, "blocked": ["12-15/12-15"]"#));
        assert!(blocked_by(&rule, at("2026-12-14T23:00:00Z")).is_some(), "the day lies between begin and end");
        assert!(blocked_by(&rule, at("2026-12-13T12:00:00Z")).is_none(), "it ends at 18:00 on the day before");
    }

    #[test]
    fn a_drill_is_due_once_and_only_a_few_minutes_late() {
        let rule = drill(r#", "weekly": "Tue 10:00", "blocked": ["12-15/01-05"]"#);
        let due = |last: Option<&str>, now: &str| super::due(&rule, last.map(at), at(now)).map(|at| at.to_string());
        let ten = Some("2026-12-01T10:00:00Z".to_owned());
        assert_eq!(due(None, "2026-12-01T09:59:59Z"), None);
        assert_eq!(due(None, "2026-12-01T10:00:00Z"), ten);
        assert_eq!(due(Some("2026-11-24T10:00:03Z"), "2026-12-01T10:04:59Z"), ten);
        assert_eq!(due(None, "2026-12-01T10:05:01Z"), None, "it was missed");
        assert_eq!(due(Some("2026-12-01T10:00:00Z"), "2026-12-01T10:01:00Z"), None, "it ran already");
        assert_eq!(due(None, "2026-12-15T10:00:00Z"), None, "it is blocked");
    }
    #[test]
    fn a_drill_waits_for_what_its_node_does_not_know_yet_and_not_for_the_whole_slot() {
        let rule = drill(r#", "weekly": "Tue 10:00""#);
        let waits = |is_early, now: &str| {
            let due = due(&rule, None, at(now)).expect("it is due");
            super::waits(due, &Preflight { is_early, ..Preflight::default() }, at(now))
        };
        assert!(waits(true, "2026-12-01T10:00:00Z") && waits(true, "2026-12-01T10:03:59Z"));
        assert!(!waits(true, "2026-12-01T10:04:00Z"), "then it is refused, while it is due");
        assert!(due(&rule, None, at("2026-12-01T10:04:59Z")).is_some(), "by a look within the next minute");
        assert!(!waits(false, "2026-12-01T10:00:00Z"), "it begins, or is refused for what is known");
    }
}
