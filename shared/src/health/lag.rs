//! How far replicas of knowledge are behind. A replica is knowledge, such as a search index, of which regions hold
//! copies; its leader is the original. Takes the readings of a replica's copy in one region, returns whether the copy
//! is fresh enough. The answer changes only after several readings, so that it doesn't flap. Called by the
//! monitors of a DNS node; steering uses the [`ReplicaHealth`] of a region.

use core::fmt;
use std::sync::Arc;

use super::Status;
use crate::time::Millis;

/// How far a copy is behind its leader: a time, or an amount that the copy lacks, such as bytes or operations.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lag {
    /// A time.
    Time(Millis),
    /// Bytes, or a count of operations.
    Amount(u64),
}

impl Lag {
    /// This lag in thousandths of `limit`, so that lags of different replicas can be compared.
    #[must_use]
    pub fn per_mille_of(self, limit: Self) -> u64 {
        let (lag, limit) = (self.number(), limit.number().max(1));
        u64::try_from(u128::from(lag) * 1_000 / u128::from(limit)).unwrap_or(u64::MAX)
    }

    /// The milliseconds, or the amount.
    #[must_use]
    pub fn number(self) -> u64 {
        match self {
            Self::Time(time) => time.0,
            Self::Amount(amount) => amount,
        }
    }

    /// A lag of the same kind with another number.
    #[must_use]
    pub fn with(self, number: u64) -> Self {
        match self {
            Self::Time(_) => Self::Time(Millis(number)),
            Self::Amount(_) => Self::Amount(number),
        }
    }
}

impl fmt::Display for Lag {
    /// Whole seconds such as `75s`, or an amount such as `4096`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => write!(f, "{}s", time.0.div_ceil(1_000)),
            Self::Amount(amount) => write!(f, "{amount}"),
        }
    }
}

/// A set of replicas, by their positions in the rules. A document names at most [`ReplicaSet::MOST`] replicas.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ReplicaSet(u64);

impl ReplicaSet {
    /// How many replicas a document may name.
    pub const MOST: usize = 64;
    /// No replica.
    pub const EMPTY: Self = Self(0);
    /// Every replica.
    pub const ALL: Self = Self(u64::MAX);

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the set holds the replica at a position.
    #[must_use]
    pub fn contains(self, position: usize) -> bool {
        position < Self::MOST && self.0 & 1 << position != 0
    }

    /// The same set with one more replica.
    #[must_use]
    pub fn with(self, position: usize) -> Self {
        if position < Self::MOST { Self(self.0 | 1 << position) } else { self }
    }

    /// The replicas that both sets hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// What is known about a region's copy of one replica.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReplicaHealth {
    /// The replica's position in the rules.
    pub replica: usize,
    /// `Down`: the copy lags, or its lag is unknown and the rules withhold the region then. A withheld region serves no
    /// requests that need the replica.
    pub status: Status,
    /// How far the copy is behind. Kept only for a copy that lags, and only for replicas whose rules keep the freshest
    /// region, so that decisions don't change with each reading.
    pub lag: Option<Lag>,
    /// Whether the copy is the leader.
    pub is_leader: bool,
    /// The copy's version, for replicas whose copies are grouped by version.
    pub version: Option<Arc<str>>,
    /// The least time until the status could be `Down`.
    pub to_down: Option<Millis>,
    /// The least time until the status could be `Up`.
    pub to_up: Option<Millis>,
}

/// By which limits the readings of a copy are judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LagLimits {
    /// The copy lags if it is further behind than this; `None` if only its version matters.
    pub max: Option<Lag>,
    /// A copy that lags is fresh again at or below this lag.
    pub resume: Option<Lag>,
    /// How many readings in a row above `max` make the copy lag. Also how many failed readings in a row make its lag
    /// unknown.
    pub down: u32,
    /// How many readings in a row at or below `resume` make the copy fresh again.
    pub up: u32,
    /// Whether a region is withheld while the lag of its copy is unknown.
    pub withholds_unknown: bool,
}

/// One reading of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LagReading {
    /// The copy is this far behind; `None`: only its version was read.
    Behind(Option<Lag>),
    /// The copy is the leader, which is never withheld.
    Leader,
    /// The copy couldn't be read, or its answer can't be true.
    Failed,
}

/// What the readings so far say about a copy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Freshness {
    /// Nothing was read yet.
    #[default]
    New,
    /// The copy isn't too far behind.
    Fresh,
    /// The copy is the leader.
    Leader,
    /// The copy is too far behind.
    Lagging,
    /// The copy can't be read any more.
    Unknown,
}

impl Freshness {
    /// The freshness as it stands in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Fresh => "fresh",
            Self::Leader => "leader",
            Self::Lagging => "lagging",
            Self::Unknown => "unknown",
        }
    }
}

/// Judges the readings of a region's copy of one replica. The first reading decides at once; after that, several in a
/// row are needed.
///
/// ```
/// use bailiwick_rules::health::{Freshness, Lag, LagLimits, LagMachine, LagReading};
/// let limits = LagLimits {
///     max: Some(Lag::Amount(60)), resume: Some(Lag::Amount(20)), down: 2, up: 2, withholds_unknown: true,
/// };
/// let mut machine = LagMachine::default();
/// let mut read = |lag| {
///     machine.record(LagReading::Behind(Some(Lag::Amount(lag))), &limits);
///     machine.freshness()
/// };
/// assert_eq!([read(5), read(61), read(62)], [Freshness::Fresh, Freshness::Fresh, Freshness::Lagging]);
/// assert_eq!([read(30), read(20), read(20)], [Freshness::Lagging, Freshness::Lagging, Freshness::Fresh]);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LagMachine {
    /// Whether the copy lags, by its readings; `None` before the first reading.
    lags: Option<bool>,
    is_leader: bool,
    is_unknown: bool,
    /// Readings in a row above [`LagLimits::max`].
    over: u32,
    /// Readings in a row at or below [`LagLimits::resume`].
    under: u32,
    /// Failed readings in a row.
    failed: u32,
    /// Readings in a row that aren't above [`LagLimits::max`].
    good: u32,
}

impl LagMachine {
    /// Takes a reading.
    pub fn record(&mut self, reading: LagReading, limits: &LagLimits) {
        match reading {
            LagReading::Failed => {
                (self.over, self.under, self.good) = (0, 0, 0);
                self.failed = self.failed.saturating_add(1);
                self.is_unknown |= self.failed >= limits.down;
            }
            LagReading::Leader => {
                *self = Self { lags: Some(false), is_leader: true, ..Self::default() };
            }
            LagReading::Behind(lag) => {
                self.is_leader = false;
                self.failed = 0;
                self.judge(lag, limits);
                // A copy that can be read again but is too far behind doesn't count as fresh.
                self.is_unknown &= self.good < limits.up;
            }
        }
    }

    /// Takes a reading. The copy lags after several readings over `max`, and no longer after several readings that are
    /// at most `resume`.
    fn judge(&mut self, lag: Option<Lag>, limits: &LagLimits) {
        let is_over = lag.zip(limits.max).is_some_and(|(lag, max)| lag > max);
        let is_under = !is_over && lag.zip(limits.resume).is_none_or(|(lag, resume)| lag <= resume);
        self.over = if is_over { self.over.saturating_add(1) } else { 0 };
        self.good = if is_over { 0 } else { self.good.saturating_add(1) };
        self.under = if is_under { self.under.saturating_add(1) } else { 0 };
        match self.lags {
            None => self.lags = Some(is_over),
            Some(false) if self.over >= limits.down => self.lags = Some(true),
            Some(true) if self.under >= limits.up => self.lags = Some(false),
            Some(_) => {}
        }
    }

    /// What the readings so far say.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        match self.lags {
            Some(true) => Freshness::Lagging,
            _ if self.is_unknown => Freshness::Unknown,
            Some(false) if self.is_leader => Freshness::Leader,
            Some(false) => Freshness::Fresh,
            None => Freshness::New,
        }
    }

    /// The copy's status. `Down`: the region is withheld from requests that need the replica.
    #[must_use]
    pub fn status(&self, limits: &LagLimits) -> Status {
        match self.freshness() {
            Freshness::Lagging => Status::Down,
            Freshness::Unknown if limits.withholds_unknown => Status::Down,
            Freshness::Fresh | Freshness::Leader => Status::Up,
            Freshness::Unknown | Freshness::New => Status::Unknown,
        }
    }

    /// The least number of further readings that would make the status `wanted`: 0 if it is `wanted` already.
    #[must_use]
    pub fn missing(&self, wanted: Status, limits: &LagLimits) -> u32 {
        let by_failures = || limits.down.saturating_sub(self.failed);
        let to_down = || match (limits.max, limits.withholds_unknown) {
            (Some(_), true) => limits.down.saturating_sub(self.over).min(by_failures()),
            (Some(_), false) => limits.down.saturating_sub(self.over),
            (None, _) => by_failures(),
        };
        match (self.status(limits), wanted) {
            (Status::Up | Status::Unknown, Status::Down) if self.lags.is_none() => 1,
            (Status::Up | Status::Unknown, Status::Down) => to_down().max(1),
            (Status::Down, Status::Up) => {
                let counted = if self.lags == Some(true) { self.under } else { self.good };
                limits.up.saturating_sub(counted).max(1)
            }
            (Status::Unknown, Status::Up) => 1,
            _ => 0,
        }
    }
}

/// The version that counts in a fence (the regions that may process a client): the one that most of its regions have.
/// Of several versions that equally many regions have, the leader's counts; otherwise the first by name. So two
/// versions are never mixed. Takes the version of each region, and whether the region has the leader.
#[must_use]
pub fn version_of_most<'v>(versions: impl Iterator<Item = (&'v str, bool)>) -> Option<&'v str> {
    let mut counts: Vec<(&str, usize, bool)> = Vec::new();
    for (version, is_leader) in versions {
        match counts.iter_mut().find(|(counted, ..)| *counted == version) {
            Some((_, count, leads)) => (*count, *leads) = (*count + 1, *leads || is_leader),
            None => counts.push((version, 1, is_leader)),
        }
    }
    let best = counts.into_iter().max_by_key(|(version, count, leads)| (*count, *leads, core::cmp::Reverse(*version)));
    best.map(|(version, ..)| version)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits(down: u32, up: u32, withholds_unknown: bool) -> LagLimits {
        LagLimits { max: Some(Lag::Amount(60)), resume: Some(Lag::Amount(20)), down, up, withholds_unknown }
    }

    fn behind(lag: u64) -> LagReading {
        LagReading::Behind(Some(Lag::Amount(lag)))
    }

    #[test]
    fn failures_in_a_row_make_it_unknown_and_the_rules_say_what_that_means() {
        for (withholds, expected) in [(true, Status::Down), (false, Status::Unknown)] {
            let limits = limits(3, 2, withholds);
            let mut machine = LagMachine::default();
            for reading in [behind(1), LagReading::Failed, LagReading::Failed, behind(1), LagReading::Failed] {
                machine.record(reading, &limits);
            }
            assert_eq!(machine.status(&limits), Status::Up, "never three in a row");
            machine.record(LagReading::Failed, &limits);
            machine.record(LagReading::Failed, &limits);
            assert_eq!((machine.freshness(), machine.status(&limits)), (Freshness::Unknown, expected));
            machine.record(behind(30), &limits);
            assert_eq!(machine.freshness(), Freshness::Unknown);
            machine.record(behind(30), &limits);
            assert_eq!(
                machine.freshness(),
                Freshness::Fresh,
                "the copy didn't lag before, so it needn't get below `resume`"
            );
        }
    }

    #[test]
    fn what_lagged_before_it_became_unreadable_lags_still() {
        let limits = limits(1, 1, false);
        let mut machine = LagMachine::default();
        for reading in [behind(99), LagReading::Failed, LagReading::Failed, behind(40)] {
            machine.record(reading, &limits);
            assert_eq!(machine.freshness(), Freshness::Lagging, "{reading:?}");
        }
        machine.record(behind(20), &limits);
        assert_eq!(machine.freshness(), Freshness::Fresh);
    }

    #[test]
    fn a_leader_is_never_withheld_and_a_follower_again_is_judged_anew() {
        let limits = limits(2, 2, true);
        let mut machine = LagMachine::default();
        machine.record(behind(99), &limits);
        machine.record(LagReading::Leader, &limits);
        assert_eq!(
            (machine.freshness(), machine.status(&limits)),
            (Freshness::Leader, Status::Up),
            "the copy was made the leader"
        );
        machine.record(behind(99), &limits);
        assert_eq!(machine.status(&limits), Status::Up, "one reading isn't enough");
        machine.record(behind(99), &limits);
        assert_eq!(machine.status(&limits), Status::Down);
    }

    #[test]
    fn the_version_of_most_counts_then_the_leaders_then_the_first_by_name() {
        let most = |versions: &[(&'static str, bool)]| version_of_most(versions.iter().copied());
        assert_eq!(most(&[]), None);
        assert_eq!(most(&[("b", false), ("a", false), ("b", false)]), Some("b"));
        assert_eq!(most(&[("b", true), ("a", false)]), Some("b"));
        assert_eq!(most(&[("b", false), ("a", false)]), Some("a"));
        assert_eq!(most(&[("a", false), ("b", true), ("a", false)]), Some("a"), "most beat the leader");
    }

    #[test]
    fn lags_are_written_for_headers_and_compared_across_kinds() {
        assert_eq!(Lag::Time(Millis(74_001)).to_string(), "75s");
        assert_eq!(Lag::Amount(4_096).to_string(), "4096");
        assert_eq!(Lag::Time(Millis(90_000)).per_mille_of(Lag::Time(Millis(60_000))), 1_500);
        assert_eq!(Lag::Amount(u64::MAX).per_mille_of(Lag::Amount(0)), u64::MAX);
    }

    #[test]
    fn sets_hold_what_was_put_in() {
        let set = ReplicaSet::EMPTY.with(0).with(63).with(64);
        assert!(set.contains(0) && set.contains(63) && !set.contains(64) && !set.contains(1));
        assert_eq!(set.and(ReplicaSet::EMPTY.with(63).with(2)), ReplicaSet::EMPTY.with(63));
        assert!(ReplicaSet::EMPTY.is_empty() && ReplicaSet::ALL.contains(63) && !ReplicaSet::ALL.contains(999));
    }

    fn reading() -> impl Strategy<Value = LagReading> {
        prop_oneof![
            6 => (0_u64..120).prop_map(behind),
            2 => Just(LagReading::Failed),
            1 => Just(LagReading::Leader),
            1 => any::<u64>().prop_map(behind),
        ]
    }

    #[test]
    fn no_order_of_readings_breaks_the_thresholds() {
        let cases = core::cell::Cell::new(0_u64);
        let strategy = (1_u32..5, 1_u32..5, any::<bool>(), prop::collection::vec(reading(), 1..60));
        proptest!(|((down, up, withholds, readings) in strategy)| {
            cases.set(cases.get() + 1);
            let limits = limits(down, up, withholds);
            let mut machine = LagMachine::default();
            for (at, reading) in readings.iter().enumerate() {
                let before = machine;
                machine.record(*reading, &limits);
                let (was, is) = (before.status(&limits), machine.status(&limits));
                let last = |count: u32| &readings[(at + 1).saturating_sub(count as usize)..=at];
                let is_over = |one: &LagReading| matches!(one, LagReading::Behind(Some(lag)) if *lag > Lag::Amount(60));
                let is_failure = |one: &LagReading| *one == LagReading::Failed;
                if was != Status::Down && is == Status::Down && at > 0 && before.lags.is_some() {
                    let enough = last(down).len() == down as usize;
                    prop_assert!(enough && (last(down).iter().all(is_over) || last(down).iter().all(is_failure)));
                }
                if was == Status::Down && is == Status::Up {
                    let is_good = |one: &LagReading| !is_over(one) && !is_failure(one);
                    let enough = *reading == LagReading::Leader || last(up).iter().all(is_good);
                    prop_assert!(enough, "{:?}", &readings[..=at]);
                }
                if *reading == LagReading::Leader {
                    prop_assert_eq!(is, Status::Up);
                }
                if was != is && before.lags.is_some() {
                    let is_promoted = *reading == LagReading::Leader;
                    prop_assert!(before.missing(is, &limits) <= 1 || is == Status::Unknown || is_promoted);
                }
            }
        });
        println!("{} random orders of readings", cases.get());
        assert!(cases.get() >= 256);
    }
}
