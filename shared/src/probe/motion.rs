//! Whether an engine makes tokens. Takes the readings of its metrics one after the other, returns whether it moved
//! since a probe began. Held by the DNS node for each source of loads; called by the owner of health.

use crate::load::EngineReading;
use crate::time::{Millis, Timestamp};

/// What is remembered of an engine's readings.
#[derive(Clone, Copy, Debug, Default)]
pub struct EngineWatch {
    last: Option<(Timestamp, EngineReading)>,
    /// When two readings were last compared that both say how far the engine is.
    compared_at: Option<Timestamp>,
    /// When a reading last showed more than the one before.
    advanced_at: Option<Timestamp>,
}

/// Whether an engine made tokens in the time that is asked about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Motion {
    /// It did.
    Advancing,
    /// It didn't.
    Still {
        /// Whether requests wait there or are being served.
        has_work: bool,
    },
    /// Its metrics don't tell, or too few were read, or none lately.
    Unknown,
}

impl EngineWatch {
    /// Takes a reading. One that isn't later than the last is left out.
    pub fn take(&mut self, at: Timestamp, reading: EngineReading) {
        let Some((before_at, before)) = self.last.replace((at, reading)) else { return };
        if at <= before_at {
            self.last = Some((before_at, before));
            return;
        }
        let Some(moved) = moved(&before, &reading) else { return };
        self.compared_at = Some(at);
        if moved {
            self.advanced_at = Some(at);
        }
    }

    /// Whether the engine made tokens since a probe began, as of `now`. `patience` is how long a reading is fresh.
    ///
    /// Metrics that are read less often than a token is awaited may not have been read since. Then the newest two count
    /// for as long as they are fresh, if they show motion: that an engine stands still is said only of the time of the
    /// probe.
    #[must_use]
    pub fn since(&self, begun: Timestamp, now: Timestamp, patience: Millis) -> Motion {
        let Some((last_at, last)) = self.last else { return Motion::Unknown };
        if now.since(last_at) > patience || self.compared_at != Some(last_at) {
            return Motion::Unknown;
        }
        match self.advanced_at {
            Some(at) if at > begun || at == last_at => Motion::Advancing,
            _ if last_at > begun => {
                Motion::Still { has_work: last.in_flight().or(last.waiting).is_some_and(|amount| amount > 0) }
            }
            _ => Motion::Unknown,
        }
    }
}

/// Whether the second reading shows that tokens were made since the first: a counter rose, or the cache filled up.
/// `None` if they can't be compared.
fn moved(before: &EngineReading, after: &EngineReading) -> Option<bool> {
    let counted = before.progress.zip(after.progress).map(|(before, after)| match after.cmp(&before) {
        core::cmp::Ordering::Greater => true,
        core::cmp::Ordering::Equal => false,
        // The engine was started again, and counts from 0.
        core::cmp::Ordering::Less => after > 0,
    });
    let filled = before.kv.zip(after.kv).map(|(before, after)| after > before);
    match (counted, filled) {
        (None, None) => None,
        (counted, filled) => Some(counted == Some(true) || filled == Some(true)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Ratio;

    const PATIENCE: Millis = Millis(8_000);

    fn reading(progress: Option<u64>, waiting: u64, kv: Option<u32>) -> EngineReading {
        EngineReading { progress, waiting: Some(waiting), kv: kv.map(Ratio), engines: 1, ..Default::default() }
    }

    fn watch(readings: &[(i64, EngineReading)]) -> EngineWatch {
        let mut watch = EngineWatch::default();
        for (at, reading) in readings {
            watch.take(Timestamp(*at), *reading);
        }
        watch
    }

    fn asked(watch: &EngineWatch, begun: i64, now: i64) -> Motion {
        watch.since(Timestamp(begun), Timestamp(now), PATIENCE)
    }

    #[test]
    fn a_counter_that_rises_is_motion_and_one_that_stands_is_not() {
        let at = |progress| reading(Some(progress), 3_000, None);
        let moving = watch(&[(0, at(10)), (2_000, at(11)), (4_000, at(11))]);
        assert_eq!(asked(&moving, 1_000, 5_000), Motion::Advancing, "once within the probe is enough");
        assert_eq!(asked(&moving, 3_000, 5_000), Motion::Still { has_work: true });
        let idle = watch(&[(0, reading(Some(1), 0, None)), (2_000, reading(Some(1), 0, None))]);
        assert_eq!(asked(&idle, 1_000, 2_500), Motion::Still { has_work: false });
    }

    #[test]
    fn a_cache_that_fills_up_is_motion_where_counters_rise_late() {
        let at = |kv| reading(Some(7), 1_000, Some(kv));
        assert_eq!(asked(&watch(&[(0, at(100)), (2_000, at(101))]), 1_000, 3_000), Motion::Advancing);
        assert_eq!(asked(&watch(&[(0, at(100)), (2_000, at(100))]), 1_000, 3_000), Motion::Still { has_work: true });
        let cache_alone = |kv| reading(None, 0, Some(kv));
        assert_eq!(asked(&watch(&[(0, cache_alone(1)), (2_000, cache_alone(2))]), 1_000, 3_000), Motion::Advancing);
    }

    #[test]
    fn what_is_old_or_missing_says_nothing() {
        let at = |progress| reading(Some(progress), 1_000, None);
        assert_eq!(asked(&watch(&[]), 0, 1), Motion::Unknown);
        assert_eq!(asked(&watch(&[(1_000, at(1))]), 0, 2_000), Motion::Unknown, "one reading is no comparison");
        let none = reading(None, 1_000, None);
        assert_eq!(asked(&watch(&[(0, none), (2_000, none)]), 1_000, 3_000), Motion::Unknown);
        assert_eq!(asked(&watch(&[(0, at(1)), (2_000, at(2)), (4_000, none)]), 1_000, 5_000), Motion::Unknown);
        let stood = watch(&[(0, at(1)), (2_000, at(1))]);
        assert_eq!(asked(&stood, 3_000, 8_000), Motion::Unknown, "nothing was read since the probe began");
        let moved = watch(&[(0, at(1)), (2_000, at(2))]);
        assert_eq!(asked(&moved, 3_000, 8_000), Motion::Advancing, "by the newest two");
        assert_eq!(asked(&moved, 3_000, 10_001), Motion::Unknown, "the newest are stale");
        assert_eq!(asked(&watch(&[(2_000, at(5)), (1_000, at(9))]), 0, 3_000), Motion::Unknown, "out of order");
    }

    #[test]
    fn an_engine_that_was_started_again_moves_once_it_makes_tokens() {
        let at = |progress| reading(Some(progress), 1_000, None);
        assert_eq!(asked(&watch(&[(0, at(900)), (2_000, at(3))]), 1_000, 3_000), Motion::Advancing);
        assert_eq!(asked(&watch(&[(0, at(900)), (2_000, at(0))]), 1_000, 3_000), Motion::Still { has_work: true });
    }
}
