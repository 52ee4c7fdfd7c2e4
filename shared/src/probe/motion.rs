//! Decides whether an engine makes tokens. Takes the readings of its metrics one after the other, returns whether
//! tokens were made since a probe began. Held by the DNS node for each load source; called by the owner of health.

use crate::load::EngineReading;
use crate::time::{Millis, Timestamp};

/// The state that is kept of an engine's readings.
#[derive(Clone, Copy, Debug, Default)]
pub struct EngineWatch {
    last: Option<(Timestamp, EngineReading)>,
    /// The time of the last reading that could be compared with the reading before it.
    compared_at: Option<Timestamp>,
    /// The time of the last reading that showed progress compared with the reading before it.
    advanced_at: Option<Timestamp>,
}

/// Whether an engine made tokens in a period.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Motion {
    /// The engine made tokens.
    Advancing,
    /// The engine made no tokens.
    Still {
        /// Whether requests wait at the engine or are being served.
        has_work: bool,
    },
    /// The metrics don't report progress, or there are too few or only old readings.
    Unknown,
}

impl EngineWatch {
    /// Takes a reading. A reading that isn't later than the last one is ignored.
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
    /// If no reading was taken since the probe began, the two newest readings count while they are fresh, but only if
    /// they show progress. That an engine makes no tokens is concluded only from readings during the probe.
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

/// Whether tokens were made between two readings: the counter rose, or the KV cache filled up. `None` if the readings
/// can't be compared.
fn moved(before: &EngineReading, after: &EngineReading) -> Option<bool> {
    let counted = before.progress.zip(after.progress).map(|(before, after)| match after.cmp(&before) {
        core::cmp::Ordering::Greater => true,
        core::cmp::Ordering::Equal => false,
        // The engine was restarted, so the counter began at 0 again.
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

    /// The motion since a probe began.
    fn motion(watch: &EngineWatch, begun: i64, now: i64) -> Motion {
        watch.since(Timestamp(begun), Timestamp(now), PATIENCE)
    }

    #[test]
    fn only_a_rising_counter_shows_that_tokens_are_made() {
        let at = |progress| reading(Some(progress), 3_000, None);
        let moving = watch(&[(0, at(10)), (2_000, at(11)), (4_000, at(11))]);
        assert_eq!(motion(&moving, 1_000, 5_000), Motion::Advancing, "one rise during the probe is enough");
        assert_eq!(motion(&moving, 3_000, 5_000), Motion::Still { has_work: true });
        let idle = watch(&[(0, reading(Some(1), 0, None)), (2_000, reading(Some(1), 0, None))]);
        assert_eq!(motion(&idle, 1_000, 2_500), Motion::Still { has_work: false });
    }

    #[test]
    fn a_cache_that_fills_up_shows_that_tokens_are_made_even_if_the_counter_does_not_rise() {
        let at = |kv| reading(Some(7), 1_000, Some(kv));
        assert_eq!(motion(&watch(&[(0, at(100)), (2_000, at(101))]), 1_000, 3_000), Motion::Advancing);
        assert_eq!(motion(&watch(&[(0, at(100)), (2_000, at(100))]), 1_000, 3_000), Motion::Still { has_work: true });
        let cache_alone = |kv| reading(None, 0, Some(kv));
        assert_eq!(motion(&watch(&[(0, cache_alone(1)), (2_000, cache_alone(2))]), 1_000, 3_000), Motion::Advancing);
    }

    #[test]
    fn old_or_missing_readings_give_no_answer() {
        let at = |progress| reading(Some(progress), 1_000, None);
        assert_eq!(motion(&watch(&[]), 0, 1), Motion::Unknown);
        assert_eq!(motion(&watch(&[(1_000, at(1))]), 0, 2_000), Motion::Unknown, "one reading can't be compared");
        let none = reading(None, 1_000, None);
        assert_eq!(motion(&watch(&[(0, none), (2_000, none)]), 1_000, 3_000), Motion::Unknown);
        assert_eq!(motion(&watch(&[(0, at(1)), (2_000, at(2)), (4_000, none)]), 1_000, 5_000), Motion::Unknown);
        let stood = watch(&[(0, at(1)), (2_000, at(1))]);
        assert_eq!(motion(&stood, 3_000, 8_000), Motion::Unknown, "nothing was read since the probe began");
        let moved = watch(&[(0, at(1)), (2_000, at(2))]);
        assert_eq!(motion(&moved, 3_000, 8_000), Motion::Advancing, "the two newest readings show progress");
        assert_eq!(motion(&moved, 3_000, 10_001), Motion::Unknown, "the newest readings are stale");
        assert_eq!(
            motion(&watch(&[(2_000, at(5)), (1_000, at(9))]), 0, 3_000),
            Motion::Unknown,
            "the second reading is older"
        );
    }

    #[test]
    fn a_restarted_engine_advances_as_soon_as_its_counter_is_above_0() {
        let at = |progress| reading(Some(progress), 1_000, None);
        assert_eq!(motion(&watch(&[(0, at(900)), (2_000, at(3))]), 1_000, 3_000), Motion::Advancing);
        assert_eq!(motion(&watch(&[(0, at(900)), (2_000, at(0))]), 1_000, 3_000), Motion::Still { has_work: true });
    }
}
