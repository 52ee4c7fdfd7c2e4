//! The last day of each region, minute by minute, for the timeline of the page at `/ui/`. Takes a sample (status, load,
//! time to the first token) of each region every second; returns the rows of the timeline. Held by [`super::Picture`].
//!
//! A region takes 7 KiB of memory, and at most `MOST_REGIONS` regions are kept.

use std::collections::BTreeMap;

use bailiwick_rules::id::RegionId;
use bailiwick_rules::time::Timestamp;
use serde::Serialize;

/// How many minutes are kept: a day.
const MINUTES: usize = 1_440;
/// How many minutes one character of an overview stands for.
const COARSE: usize = 5;
/// The most regions that are kept.
const MOST_REGIONS: usize = 2_048;
/// No number was known in that minute.
const NONE: u16 = u16::MAX;

/// The state of a region in a minute. A higher one is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum State {
    /// There was no sample: the node didn't run, or didn't have the region.
    Nothing = b'.',
    /// The status was unknown.
    Unknown = b'u',
    /// It was up.
    Up = b'1',
    /// It was up, and full.
    Full = b'f',
    /// An operator forced it down.
    Forced = b'o',
    /// It was down.
    Down = b'x',
}

impl State {
    /// How bad it is.
    fn rank(self) -> usize {
        let order = [Self::Nothing, Self::Up, Self::Unknown, Self::Full, Self::Forced, Self::Down];
        order.iter().position(|status| *status == self).unwrap_or(0)
    }
}

/// A region at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    /// The region's state.
    pub(crate) state: State,
    /// Its load, in thousandths.
    pub(crate) load: Option<u16>,
    /// The median time to the first token, in milliseconds.
    pub(crate) first_token: Option<u16>,
}

#[derive(Debug)]
struct Row {
    states: Box<[State; MINUTES]>,
    loads: Box<[u16; MINUTES]>,
    first_tokens: Box<[u16; MINUTES]>,
    /// The last minute in which the region was seen.
    last_minute: i64,
}

impl Row {
    fn new() -> Self {
        Self {
            states: Box::new([State::Nothing; MINUTES]),
            loads: Box::new([NONE; MINUTES]),
            first_tokens: Box::new([NONE; MINUTES]),
            last_minute: 0,
        }
    }

    fn clear(&mut self, slot: usize) {
        (self.states[slot], self.loads[slot], self.first_tokens[slot]) = (State::Nothing, NONE, NONE);
    }

    /// A minute keeps the worst state and the highest numbers.
    fn add(&mut self, slot: usize, sample: Sample) {
        if sample.state.rank() >= self.states[slot].rank() {
            self.states[slot] = sample.state;
        }
        let higher = |slot: &mut u16, new: Option<u16>| {
            if let Some(new) = new.map(|new| new.min(NONE - 1)) {
                *slot = if *slot == NONE { new } else { new.max(*slot) };
            }
        };
        higher(&mut self.loads[slot], sample.load);
        higher(&mut self.first_tokens[slot], sample.first_token);
    }
}

/// The last day.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    /// The newest minute since 1970.
    newest: i64,
    rows: BTreeMap<RegionId, Row>,
}

/// The states of all regions.
#[derive(Debug, Serialize)]
pub(crate) struct Overview {
    /// When the first of the characters begins.
    from: Timestamp,
    /// How many seconds each of them stands for.
    seconds: usize,
    /// By region: `.` for nothing noted, `u` unknown, `1` up, `f` full, `o` forced down, `x` down.
    regions: BTreeMap<RegionId, String>,
}

/// The last day of one region.
#[derive(Debug, Serialize)]
pub(crate) struct OfRegion {
    from: Timestamp,
    seconds: usize,
    states: String,
    /// In thousandths.
    load: Vec<Option<u16>>,
    first_token_ms: Vec<Option<u16>>,
}

impl Timeline {
    /// Adds the samples of a moment.
    pub(crate) fn add(&mut self, samples: impl IntoIterator<Item = (RegionId, Sample)>, now: Timestamp) {
        let minute = now.0.div_euclid(60_000);
        let day = MINUTES as i64;
        // A clock that was set back adds to the newest minute.
        let minute = minute.max(self.newest);
        let passed = if self.newest == 0 { day } else { (minute - self.newest).min(day) };
        for later in minute - passed + 1..=minute {
            self.rows.values_mut().for_each(|row| row.clear(slot(later)));
        }
        self.newest = minute;
        self.rows.retain(|_, row| minute - row.last_minute < day);
        for (region, sample) in samples {
            if self.rows.len() >= MOST_REGIONS && !self.rows.contains_key(&region) {
                continue;
            }
            let row = self.rows.entry(region).or_insert_with(Row::new);
            row.last_minute = minute;
            row.add(slot(minute), sample);
        }
    }

    /// The minutes that are kept, the oldest first.
    fn minutes(&self) -> impl Iterator<Item = usize> + use<> {
        (self.newest - MINUTES as i64 + 1..=self.newest).map(slot)
    }

    fn from(&self) -> Timestamp {
        Timestamp((self.newest - MINUTES as i64 + 1) * 60_000)
    }

    /// The states of all regions, the worst of each five minutes.
    pub(crate) fn overview(&self) -> Overview {
        let minutes: Vec<usize> = self.minutes().collect();
        let coarse = |row: &Row| {
            let worst = |slots: &[usize]| slots.iter().map(|slot| row.states[*slot]).max_by_key(|state| state.rank());
            minutes.chunks(COARSE).map(|slots| worst(slots).map_or('.', |state| char::from(state as u8))).collect()
        };
        let regions = self.rows.iter().map(|(region, row)| (region.clone(), coarse(row))).collect();
        Overview { from: self.from(), seconds: COARSE * 60, regions }
    }

    /// All that is kept of a region.
    pub(crate) fn of(&self, region: &str) -> Option<OfRegion> {
        let row = self.rows.get(region)?;
        let numbers = |values: &[u16; MINUTES]| {
            self.minutes().map(|slot| Some(values[slot]).filter(|number| *number != NONE)).collect()
        };
        Some(OfRegion {
            from: self.from(),
            seconds: 60,
            states: self.minutes().map(|slot| char::from(row.states[slot] as u8)).collect(),
            load: numbers(&row.loads),
            first_token_ms: numbers(&row.first_tokens),
        })
    }
}

/// Where a minute is kept.
fn slot(minute: i64) -> usize {
    usize::try_from(minute.rem_euclid(MINUTES as i64)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_800_000_000_000;

    fn region(name: &str) -> RegionId {
        RegionId::parse(name).unwrap()
    }

    fn sample(state: State, load: u16) -> Sample {
        Sample { state, load: Some(load), first_token: None }
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp(NOON + minute * 60_000)
    }

    #[test]
    fn a_minute_keeps_the_worst_and_is_forgotten_after_a_day() {
        let mut timeline = Timeline::default();
        for state in [State::Up, State::Down, State::Up] {
            timeline.add([(region("fra"), sample(state, 300))], at(0));
        }
        timeline.add([(region("fra"), sample(State::Up, 900))], at(2));
        let of = timeline.of("fra").unwrap();
        assert_eq!((&of.states[1_437..], of.load[1_437..].to_vec()), ("x.1", vec![Some(300), None, Some(900)]));
        assert_eq!((of.from, of.states.len()), (at(2 - 1_439), MINUTES));
        let all = timeline.overview();
        let text = &all.regions[&region("fra")];
        assert_eq!((text.len(), &text[286..]), (288, ".x"));
        timeline.add([(region("fra"), sample(State::Up, 100))], at(1_440));
        let of = timeline.of("fra").unwrap();
        assert_eq!((of.states.contains('x'), &of.states[1_439..]), (false, "1"));
        timeline.add([(region("par"), sample(State::Up, 100))], at(1_440 + 1_440));
        assert!(timeline.of("fra").is_none(), "it wasn't seen for a day");
    }

    #[test]
    fn a_clock_that_is_set_back_or_far_ahead_does_no_harm() {
        let mut timeline = Timeline::default();
        timeline.add([(region("fra"), sample(State::Up, 1))], at(10));
        timeline.add([(region("fra"), sample(State::Down, 2))], at(3));
        assert!(timeline.of("fra").unwrap().states.ends_with(".x"));
        timeline.add([(region("fra"), sample(State::Up, u16::MAX))], at(1_000_000));
        let of = timeline.of("fra").unwrap();
        assert_eq!((of.states.trim_start_matches('.'), of.load[1_439]), ("1", Some(u16::MAX - 1)));
    }

    #[test]
    fn a_thousand_regions_take_less_than_8_mib_and_regions_are_bounded() {
        let row = std::mem::size_of::<State>() * MINUTES + 2 * std::mem::size_of::<u16>() * MINUTES;
        assert!(row * 1_000 < 8 << 20, "{row} bytes a region");
        let mut timeline = Timeline::default();
        let regions = (0..MOST_REGIONS + 10).map(|n| (region(&format!("r{n}")), sample(State::Up, 1)));
        timeline.add(regions, at(0));
        assert_eq!(timeline.overview().regions.len(), MOST_REGIONS);
    }
}
