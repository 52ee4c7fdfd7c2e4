//! The state of a region. Takes what is known about a region now; returns how far that can be trusted, and the region's
//! natural load: the load that it would carry if no client were moved. Called by [`super::planning`].

use super::Amount;
use crate::rules::Ratio;
use crate::time::{Millis, Timestamp};

/// How long a natural load has to be lower before the shares of moved clients shrink. The delay may be up to twice this
/// time.
pub const HOLD: Millis = Millis(60_000);

/// The age, in intervals, at which a reading becomes stale. A reading that is one interval late isn't stale.
const FRESH: u64 = 2;
/// For how many intervals after a reading became stale the last shares are kept.
const HELD: u64 = 3;

/// The measured load of a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// The requests in flight: the region's load times its capacity.
    pub used: Amount,
    /// When the load was measured.
    pub at: Timestamp,
}

/// What is known about a region at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegionInput {
    /// Whether probes and overrides allow requests to the region.
    pub is_up: bool,
    /// The present capacity; `None` if the capacity isn't known.
    pub capacity: Option<Amount>,
    /// The newest reading.
    pub reading: Option<Reading>,
    /// Whether a drill sends clients away from the region. Then its readings are of the clients that are left.
    pub is_drilled: bool,
}

/// How far the state of a region can be trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Standing {
    /// The region is down: all of its clients are moved.
    Down,
    /// The region was down and is up again. Until it is warm, it gets this part of its clients.
    Warming(Ratio),
    /// The load and capacity are known.
    Known,
    /// The last reading is stale. The planned shares are kept.
    Held,
    /// The last reading is very old. The planned shares shrink step by step.
    Fading,
    /// The load or capacity was never known. No clients are moved from or to this region.
    #[default]
    Unknown,
}

/// The state of a region that a plan keeps for the next plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RegionState {
    /// How far the other fields can be trusted.
    pub standing: Standing,
    /// The capacity; 0 if it isn't known.
    pub capacity: Amount,
    /// The load that the region would carry if no client were moved. This is the highest value of the last [`HOLD`], or
    /// of up to twice that time, so that shares don't shrink at once.
    pub natural: Amount,
    /// How much the region may take from other regions, in total.
    pub room: Amount,
    /// The demand of the region's own clients when `natural` was measured.
    pub(super) counted: Amount,
    /// The time of the newest reading that was used.
    reading_at: Option<Timestamp>,
    /// When the region came up again after an outage; `None` as soon as it is warm.
    returned_at: Option<Timestamp>,
    /// The highest natural loads of the present window and of the window before. A window lasts [`HOLD`].
    peaks: (Amount, Amount),
    /// The number of the present window.
    window: i64,
}

/// The planned moves of a region that have taken effect.
#[derive(Clone, Copy, Default)]
pub(super) struct InEffect {
    /// The demand of the region's own clients that are served elsewhere.
    pub(super) moved_away: Amount,
    /// The demand of other regions' clients that are served here.
    pub(super) moved_in: Amount,
    /// The demand that the last plan moves here, whether it has arrived or not.
    pub(super) planned: Amount,
    /// The demand of the region's own clients.
    pub(super) counted: Amount,
}

/// The present time, the interval between readings, and how long a region is warmed up.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) now: Timestamp,
    pub(super) interval: Millis,
    pub(super) warmup: Millis,
}

impl RegionState {
    /// The state at this moment. The room is still that of the last state.
    pub(super) fn next(self, input: &RegionInput, effect: InEffect, times: Times) -> Self {
        let mut next = self;
        next.capacity = input.capacity.unwrap_or(0);
        let age = next.read(input, effect, times);
        next.returned_at = match (self.standing, self.returned_at) {
            (Standing::Down, _) if input.is_up => Some(times.now),
            (_, returned) => returned.filter(|_| input.is_up),
        };
        let warm = next.returned_at.map(|at| Ratio::between(times.now.since(at).0, times.warmup.0.max(1)));
        let warm = warm.filter(|warm| *warm < Ratio::ONE && times.warmup > Millis(0));
        if warm.is_none() {
            next.returned_at = None;
        }
        next.standing = match (input.is_up, warm, age) {
            (false, ..) => Standing::Down,
            (_, Some(warm), _) => Standing::Warming(warm),
            (_, _, Some(age)) if input.capacity.is_some() => match age.0 / times.interval.0.max(1) {
                intervals if intervals < FRESH => Standing::Known,
                intervals if intervals < FRESH + HELD => Standing::Held,
                _ => Standing::Fading,
            },
            (_, _, Some(_)) => Standing::Fading,
            (_, _, None) => Standing::Unknown,
        };
        next
    }

    /// Uses the reading if it is new. Returns the age of the newest used reading; `None` if there never was one.
    fn read(&mut self, input: &RegionInput, effect: InEffect, times: Times) -> Option<Millis> {
        // A reading from the future comes from a wrong clock, and would hide all later readings.
        let is_usable = |reading: &Reading| reading.at <= times.now.after(times.interval);
        let is_newer = |reading: &Reading| self.reading_at.is_none_or(|last| reading.at > last);
        if input.is_drilled && input.is_up && self.reading_at.is_some() {
            // The load from before the drill stands. Otherwise the region would look idle, and call its clients home.
            self.hold(self.natural, times.now);
            self.reading_at = Some(times.now);
            return Some(Millis(0));
        }
        if let Some(reading) = input.reading.filter(|reading| is_usable(reading) && is_newer(reading) && input.is_up) {
            self.reading_at = Some(reading.at);
            // The measured load includes the effect of earlier plans, which is taken out here. Otherwise a plan would
            // react to its own effect.
            let natural = reading.used.saturating_add(effect.moved_away).saturating_sub(effect.moved_in);
            self.hold(natural, times.now);
            self.counted = effect.counted;
        }
        self.reading_at.map(|at| times.now.since(at))
    }

    /// Keeps the highest natural load of this window and the last window. Windows begin at whole multiples of [`HOLD`],
    /// so that all nodes have the same windows.
    fn hold(&mut self, natural: Amount, now: Timestamp) {
        let window = now.0.div_euclid(i64::try_from(HOLD.0).unwrap_or(1).max(1));
        self.peaks = match window.saturating_sub(self.window) {
            0 => (self.peaks.0.max(natural), self.peaks.1),
            1 => (natural, self.peaks.0),
            _ => (natural, 0),
        };
        self.window = window;
        self.natural = self.peaks.0.max(self.peaks.1);
    }

    /// How much the region may take from other regions in total. `low` is the amount at its low mark. `planned` is what
    /// the last plan moves here. `fade` is which part of the capacity is taken back with each plan while the reading is
    /// very old.
    pub(super) fn room(&self, low: Amount, planned: Amount, fade: Ratio) -> Amount {
        let free = low.saturating_sub(self.natural);
        match self.standing {
            Standing::Known => free,
            Standing::Warming(warm) if self.reading_at.is_some() => warm.of(free),
            Standing::Held => planned,
            Standing::Fading => planned.saturating_sub(fade.of(self.capacity).max(1)),
            Standing::Warming(_) | Standing::Down | Standing::Unknown => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Millis = Millis(10_000);

    fn times(now: i64) -> Times {
        Times { now: Timestamp(now), interval: INTERVAL, warmup: Millis(60_000) }
    }

    fn up(used: Option<(Amount, i64)>) -> RegionInput {
        let reading = used.map(|(used, at)| Reading { used, at: Timestamp(at) });
        RegionInput { is_up: true, capacity: Some(1_000), reading, is_drilled: false }
    }

    #[test]
    fn a_region_without_new_readings_is_held_and_then_fades_but_never_counts_as_idle() {
        let seen = up(Some((100, 0)));
        let mut state = RegionState::default();
        let mut standings = Vec::new();
        for now in [0, 19_999, 20_000, 49_999, 50_000, 500_000] {
            state = state.next(&seen, InEffect::default(), times(now));
            standings.push((state.standing, state.room(700, 50, Ratio(50_000))));
        }
        let (known, held, fading) = (Standing::Known, Standing::Held, Standing::Fading);
        assert_eq!(standings, [(known, 600), (known, 600), (held, 50), (held, 50), (fading, 0), (fading, 0)]);
    }

    #[test]
    fn a_region_with_unknown_load_or_capacity_has_no_room() {
        let state = RegionState::default().next(&up(None), InEffect::default(), times(0));
        assert_eq!((state.standing, state.room(700, 0, Ratio(1))), (Standing::Unknown, 0));
        let no_capacity = RegionInput { capacity: None, ..up(Some((1, 0))) };
        let state = RegionState::default().next(&no_capacity, InEffect::default(), times(0));
        assert_eq!((state.standing, state.room(0, 0, Ratio(1))), (Standing::Fading, 0));
    }

    #[test]
    fn the_natural_load_excludes_moved_clients_and_is_held_at_its_peak() {
        let effect = InEffect { moved_away: 300, moved_in: 50, ..InEffect::default() };
        let mut state = RegionState::default().next(&up(Some((500, 0))), effect, times(0));
        assert_eq!(state.natural, 750);
        state = state.next(&up(Some((100, 10_000))), effect, times(10_000));
        assert_eq!(state.natural, 750, "a lower load counts only after HOLD");
        state = state.next(&up(Some((900, 15_000))), effect, times(15_000));
        assert_eq!(state.natural, 1_150, "a higher load counts at once");
        let held = i64::try_from(HOLD.0).unwrap();
        state = state.next(&up(Some((100, held))), effect, times(held));
        assert_eq!(state.natural, 1_150);
        state = state.next(&up(Some((100, 2 * held))), effect, times(2 * held));
        assert_eq!(state.natural, 350);
    }

    #[test]
    fn readings_from_the_future_and_old_readings_are_ignored() {
        let state = RegionState::default().next(&up(Some((5, 60_000))), InEffect::default(), times(0));
        assert_eq!(state.standing, Standing::Unknown);
        let state = state.next(&up(Some((5, 0))), InEffect::default(), times(0));
        let again = state.next(&up(Some((900, -1))), InEffect::default(), times(0));
        assert_eq!(again.natural, 5, "an older reading changes nothing");
    }

    #[test]
    fn a_region_that_is_up_again_is_warmed_up() {
        let seen = up(Some((0, 0)));
        let down = RegionInput { is_up: false, ..seen };
        let at =
            |state: RegionState, seen: &RegionInput, now| state.next(seen, InEffect::default(), times(now)).standing;
        let state = RegionState::default().next(&down, InEffect::default(), times(0));
        assert_eq!(state.standing, Standing::Down);
        let back = state.next(&seen, InEffect::default(), times(1_000));
        assert_eq!(back.standing, Standing::Warming(Ratio(0)));
        assert_eq!(at(back, &seen, 16_000), Standing::Warming(Ratio(250_000)));
        assert_eq!(at(back, &up(Some((0, 61_000))), 61_000), Standing::Known);
        assert_eq!(at(back, &down, 16_000), Standing::Down);
        assert_eq!(at(RegionState::default(), &seen, 0), Standing::Known, "a region that was never down is warm");
    }
}
