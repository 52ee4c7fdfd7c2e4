//! Decides the status of monitors and regions. Takes results of probes, returns a monitor's status by gdnsd's anti-flap
//! machine; takes statuses of monitors, returns a region's.

use crate::time::{Millis, Timestamp};

/// What a monitor, or a region by its monitors, is believed to be. `Unknown` counts as up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It serves.
    Up,
    /// It doesn't.
    Down,
    /// No probe has said yet, or none exists.
    #[default]
    Unknown,
}

impl core::fmt::Display for Status {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown => "unknown",
        })
    }
}

/// How many results it takes to change a status; all at least 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Thresholds {
    /// Successes in a row that bring DOWN to UP.
    pub up: u32,
    /// Successes in a row that forget the failures counted while UP.
    pub ok: u32,
    /// Failures, not necessarily in a row, that bring UP to DOWN.
    pub down: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { up: 3, ok: 5, down: 3 }
    }
}

/// The anti-flap machine of one monitor.
///
/// ```
/// use bailiwick_rules::health::{AntiFlap, Status, Thresholds};
/// let mut machine = AntiFlap::new(Thresholds { up: 2, ok: 2, down: 3 });
/// machine.record(true);
/// assert_eq!((machine.status(), machine.missing(Status::Down)), (Status::Up, 3));
/// machine.record(false);
/// machine.record(true); // one success doesn't forget a failure
/// machine.record(false);
/// assert_eq!((machine.status(), machine.missing(Status::Down)), (Status::Up, 1));
/// machine.record(false);
/// assert_eq!((machine.status(), machine.missing(Status::Up)), (Status::Down, 2));
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AntiFlap {
    thresholds: Thresholds,
    status: Status,
    /// Failures counted while up.
    failures: u32,
    /// Successes in a row.
    successes: u32,
}

impl AntiFlap {
    /// A machine without a result yet.
    #[must_use]
    pub fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, status: Status::Unknown, failures: 0, successes: 0 }
    }

    /// What is believed now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// Takes one probe's result. The first sets the status directly.
    pub fn record(&mut self, success: bool) {
        match self.status {
            Status::Unknown => self.become_(if success { Status::Up } else { Status::Down }),
            Status::Up if success => {
                self.successes = self.successes.saturating_add(1);
                if self.successes >= self.thresholds.ok {
                    self.failures = 0;
                }
            }
            Status::Up => {
                self.successes = 0;
                self.failures += 1;
                if self.failures >= self.thresholds.down {
                    self.become_(Status::Down);
                }
            }
            Status::Down if success => {
                self.successes += 1;
                if self.successes >= self.thresholds.up {
                    self.become_(Status::Up);
                }
            }
            Status::Down => self.successes = 0,
        }
    }

    /// The least number of further results that would make the status `wanted`: 0 if it is that already.
    #[must_use]
    pub fn missing(&self, wanted: Status) -> u32 {
        match (self.status, wanted) {
            (Status::Unknown, _) => 1,
            (Status::Up, Status::Down) => self.thresholds.down.saturating_sub(self.failures).max(1),
            (Status::Down, Status::Up) => self.thresholds.up.saturating_sub(self.successes).max(1),
            _ => 0,
        }
    }

    fn become_(&mut self, status: Status) {
        self.status = status;
        self.failures = 0;
        self.successes = 0;
    }
}

/// One monitor as it stands: its machine, its pace, and when it last heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Monitored {
    /// The machine.
    pub machine: AntiFlap,
    /// Time between probes.
    pub interval: Millis,
    /// When the last result came in; `None` before the first.
    pub heard: Option<Timestamp>,
}

impl Monitored {
    /// Whether there was no result for three intervals. The last status stands all the same.
    #[must_use]
    pub fn is_stale(&self, now: Timestamp) -> bool {
        self.heard.is_some_and(|heard| now.since(heard).0 > 3 * self.interval.0)
    }

    /// The least time until the status could be `wanted`.
    #[must_use]
    pub fn time_to(&self, wanted: Status) -> Millis {
        Millis(u64::from(self.machine.missing(wanted)) * self.interval.0)
    }

    /// What it says as of `now`.
    #[must_use]
    pub fn reading(&self, now: Timestamp) -> Reading {
        Reading {
            status: self.machine.status(),
            to_down: self.time_to(Status::Down),
            to_up: self.time_to(Status::Up),
            stale: self.is_stale(now),
        }
    }
}

/// What a monitor says at one moment, as far as the health of a region is made of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// Its status.
    pub status: Status,
    /// The least time until it could say down.
    pub to_down: Millis,
    /// The least time until it could say up.
    pub to_up: Millis,
    /// Whether it was silent for three intervals.
    pub stale: bool,
}

impl Reading {
    /// Two of them, of which one has to be up: down when both are.
    #[must_use]
    pub fn either(self, other: Self) -> Self {
        let (to_down, to_up) = (self.to_down.max(other.to_down), self.to_up.min(other.to_up));
        Self { to_down, to_up, ..self.with(other, Status::Up) }
    }

    /// Two of them, which both have to be up: down when one is.
    #[must_use]
    pub fn both(self, other: Self) -> Self {
        let (to_down, to_up) = (self.to_down.min(other.to_down), self.to_up.max(other.to_up));
        Self { to_down, to_up, ..self.with(other, Status::Down) }
    }

    /// Two of them: of this status if one is, unknown if one is of those that are left, else what both are.
    fn with(self, other: Self, decisive: Status) -> Self {
        let either = |status| [self.status, other.status].contains(&status).then_some(status);
        let status = either(decisive).or_else(|| either(Status::Unknown)).unwrap_or(self.status);
        Self { status, stale: self.stale || other.stale, ..self }
    }
}

/// The family of an address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressFamily {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl AddressFamily {
    /// The word for it in JSON and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}

impl core::fmt::Display for AddressFamily {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

/// The health of all regions, of which some are supposed to be down, whatever their probes say.
#[must_use]
pub fn supposing_down(regions: &[RegionHealth], down: &[usize]) -> Vec<RegionHealth> {
    let mut regions = regions.to_vec();
    for &region in down {
        regions.resize_with(regions.len().max(region + 1), Default::default);
        regions[region].probed = Status::Down;
    }
    regions
}

/// The health of one region, made of its own monitor and its endpoints'.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RegionHealth {
    /// What the probes say.
    pub probed: Status,
    /// A forced status that came by the API or from other nodes; it beats the rules document's.
    pub forced: Option<Forced>,
    /// Whether any deciding monitor has been silent for three intervals.
    pub stale: bool,
    /// The least time until probes could call the region down; `None` where nothing could.
    pub time_to_down: Option<Millis>,
    /// The least time until probes could call it up.
    pub time_to_up: Option<Millis>,
    /// Each endpoint's status, in the region's order; may be shorter, the rest being unknown.
    pub endpoints: Vec<Status>,
    /// Each endpoint's forced status, in the region's order; may be shorter. It beats the rules document's.
    pub forced_endpoints: Vec<Option<Forced>>,
}

/// An operator's word, with its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forced {
    /// `Up` or `Down`.
    pub status: Status,
    /// When probes decide again.
    pub until: Timestamp,
    /// Why, for whoever wonders at three in the morning.
    pub reason: String,
}

impl RegionHealth {
    /// A region is down when its monitor is, or when all its endpoints have monitors and all are down; up when
    /// something says so; else unknown.
    #[must_use]
    pub fn of(region: Option<&Monitored>, endpoints: &[Option<&Monitored>], now: Timestamp) -> Self {
        let reading = |monitor: &Monitored| monitor.reading(now);
        let endpoints: Vec<Option<Reading>> = endpoints.iter().map(|monitor| monitor.map(reading)).collect();
        Self::with_forced(region.map(reading), &endpoints, &[])
    }

    /// [`RegionHealth::of`] where some endpoints' statuses are forced, by position: each counts as what it is forced to
    /// be.
    #[must_use]
    pub fn with_forced(region: Option<Reading>, endpoints: &[Option<Reading>], forced: &[Option<Status>]) -> Self {
        let forced_at = |position: usize| forced.get(position).copied().flatten();
        let free = endpoints.iter().enumerate().filter(|(position, _)| forced_at(*position).is_none());
        let free: Vec<Option<Reading>> = free.map(|(_, monitor)| *monitor).collect();
        let monitored: Vec<Reading> = free.iter().copied().flatten().collect();
        let forced_up = forced.contains(&Some(Status::Up));
        // Endpoints decide together only if every one of them is watched, or forced.
        let deciding = if monitored.len() == free.len() && !forced_up { &monitored[..] } else { &[] };
        let all_down = !endpoints.is_empty()
            && !forced_up
            && free.iter().all(|monitor| monitor.is_some_and(|monitor| monitor.status == Status::Down));
        let any_up = region.iter().chain(&monitored).any(|m| m.status == Status::Up) || forced_up;

        let probed = if all_down || region.is_some_and(|m| m.status == Status::Down) {
            Status::Down
        } else if any_up {
            Status::Up
        } else {
            Status::Unknown
        };
        let endpoints_to_down = deciding.iter().map(|m| m.to_down).max();
        let endpoints_to_up = deciding.iter().map(|m| m.to_up).min();
        Self {
            probed,
            forced: None,
            stale: region.iter().chain(&monitored).any(|m| m.stale),
            time_to_down: region.map(|m| m.to_down).into_iter().chain(endpoints_to_down).min(),
            time_to_up: region.map(|m| m.to_up).into_iter().chain(endpoints_to_up).max(),
            endpoints: endpoints.iter().map(|m| m.map_or(Status::Unknown, |m| m.status)).collect(),
            forced_endpoints: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn after(results: &[bool]) -> AntiFlap {
        let mut machine = AntiFlap::new(Thresholds { up: 3, ok: 5, down: 3 });
        for &result in results {
            machine.record(result);
        }
        machine
    }

    fn monitored(results: &[bool]) -> Monitored {
        Monitored { machine: after(results), interval: Millis(1000), heard: Some(NOW) }
    }

    const UP: &[bool] = &[true];
    const DOWN: &[bool] = &[false];

    #[test]
    fn the_first_result_decides() {
        assert_eq!(after(&[]).status(), Status::Unknown);
        assert_eq!(after(UP).status(), Status::Up);
        assert_eq!(after(DOWN).status(), Status::Down);
    }

    #[test]
    fn down_needs_successes_in_a_row() {
        assert_eq!(after(&[false, true, true, false, true, true]).status(), Status::Down);
        assert_eq!(after(&[false, true, true, false, true, true, true]).status(), Status::Up);
    }

    #[test]
    fn up_counts_failures_that_are_not_in_a_row_until_enough_successes() {
        assert_eq!(after(&[true, false, true, true, true, true, false, false]).status(), Status::Down);
        assert_eq!(after(&[true, false, true, true, true, true, true, false, false]).status(), Status::Up);
    }

    #[test]
    fn a_region_is_down_by_its_monitor_or_by_all_its_endpoints() {
        let (up, down, unheard) = (monitored(UP), monitored(DOWN), monitored(&[]));
        let probed = |region: Option<&Monitored>, endpoints: &[Option<&Monitored>]| {
            RegionHealth::of(region, endpoints, NOW).probed
        };
        assert_eq!(probed(None, &[]), Status::Unknown);
        assert_eq!(probed(Some(&down), &[Some(&up)]), Status::Down);
        assert_eq!(probed(None, &[Some(&down), Some(&down)]), Status::Down);
        assert_eq!(probed(Some(&up), &[Some(&down), Some(&down)]), Status::Down);
        assert_eq!(probed(None, &[Some(&down), Some(&up)]), Status::Up);
        assert_eq!(probed(None, &[Some(&down), None]), Status::Unknown, "an endpoint without a monitor may serve");
        assert_eq!(probed(None, &[Some(&down), Some(&unheard)]), Status::Unknown);
        assert_eq!(probed(Some(&up), &[Some(&down), None]), Status::Up);
    }

    #[test]
    fn an_endpoint_that_is_forced_counts_as_what_it_is_forced_to_be() {
        let (up, down) = (monitored(UP), monitored(DOWN));
        let of = |endpoints: &[Option<&Monitored>], forced: &[Option<Status>]| {
            let read = |monitor: &Option<&Monitored>| monitor.map(|monitor| monitor.reading(NOW));
            RegionHealth::with_forced(None, &endpoints.iter().map(read).collect::<Vec<_>>(), forced)
        };
        let (force_up, force_down) = (Some(Status::Up), Some(Status::Down));
        assert_eq!(of(&[Some(&down), Some(&up)], &[None, force_down]).probed, Status::Down);
        assert_eq!(of(&[Some(&down), None], &[None, force_down]).probed, Status::Down);
        assert_eq!(of(&[None, None], &[force_down]).probed, Status::Unknown, "the other one may serve");
        assert_eq!(of(&[None, None], &[force_down, force_down]).probed, Status::Down);
        assert_eq!(of(&[Some(&down), Some(&down)], &[force_up]).probed, Status::Up);
        assert_eq!(of(&[Some(&down)], &[force_up]).time_to_up, None, "probes of others have no say");
        assert_eq!(of(&[Some(&up), Some(&up)], &[force_down]).endpoints, [Status::Up, Status::Up], "what probes say");
        assert_eq!(of(&[Some(&up), Some(&up)], &[force_down]).time_to_down, Some(Millis(3000)));
    }

    #[test]
    fn times_to_change_follow_the_deciding_monitors() {
        let (up, down) = (monitored(UP), monitored(DOWN));
        let two_up = RegionHealth::of(None, &[Some(&up), Some(&monitored(&[true, false]))], NOW);
        assert_eq!(two_up.time_to_down, Some(Millis(3000)), "the last endpoint to go decides");
        let monitored_too = RegionHealth::of(Some(&monitored(&[true, false, false])), &[Some(&up)], NOW);
        assert_eq!(monitored_too.time_to_down, Some(Millis(1000)), "the monitor alone can bring it down");
        let both_down = RegionHealth::of(None, &[Some(&down), Some(&monitored(&[false, true, true]))], NOW);
        assert_eq!(both_down.time_to_up, Some(Millis(1000)), "one endpoint is enough");
        assert_eq!(RegionHealth::of(None, &[Some(&up), None], NOW).time_to_down, None);
    }

    #[test]
    fn two_readings_make_one_that_needs_either_or_both() {
        let (up, down, unheard) =
            (monitored(UP).reading(NOW), monitored(DOWN).reading(NOW), monitored(&[]).reading(NOW));
        assert_eq!(up.either(down).status, Status::Up);
        assert_eq!(down.either(down).status, Status::Down);
        assert_eq!(down.either(unheard).status, Status::Unknown, "the other one may serve");
        assert_eq!(up.both(down).status, Status::Down);
        assert_eq!(up.both(unheard).status, Status::Unknown);
        assert_eq!(up.both(up).status, Status::Up);
        let falling = monitored(&[true, false, false]).reading(NOW);
        assert_eq!(up.either(falling).to_down, Millis(3000), "the last to go decides");
        assert_eq!(up.both(falling).to_down, Millis(1000), "the first to go decides");
        let rising = monitored(&[false, true, true]).reading(NOW);
        assert_eq!(down.either(rising).to_up, Millis(1000));
        assert_eq!(down.both(rising).to_up, Millis(3000));
        let stale = monitored(UP).reading(NOW.after(Millis(3001)));
        assert!(up.either(stale).stale && stale.both(up).stale && !up.either(up).stale);
    }

    #[test]
    fn silence_for_three_intervals_is_stale() {
        let monitor = monitored(UP);
        assert!(!monitor.is_stale(NOW.after(Millis(3000))));
        assert!(monitor.is_stale(NOW.after(Millis(3001))));
        assert!(!monitored(&[]).is_stale(NOW) && monitor.machine.status() == Status::Up);
    }

    proptest! {
        /// `missing` is exact: that many fitting results change the status, one fewer don't.
        #[test]
        fn missing_is_exact(
            (up, ok, down) in (1..6u32, 1..6u32, 1..6u32),
            results in proptest::collection::vec(any::<bool>(), 1..40),
        ) {
            let mut machine = AntiFlap::new(Thresholds { up, ok, down });
            for result in results {
                machine.record(result);
            }
            let wanted = if machine.status() == Status::Up { Status::Down } else { Status::Up };
            let missing = machine.missing(wanted);
            prop_assert!(missing >= 1);
            prop_assert_eq!(machine.missing(machine.status()), 0);
            for left in (1..=missing).rev() {
                prop_assert_eq!(machine.missing(wanted), left);
                prop_assert_ne!(machine.status(), wanted);
                machine.record(wanted == Status::Up);
            }
            prop_assert_eq!(machine.status(), wanted);
        }
    }
}
