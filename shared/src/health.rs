//! Decides the status of monitors and regions. Takes results of probes, returns a monitor's status by gdnsd's anti-flap
//! machine; takes statuses of monitors, returns a region's.

mod lag;
mod release;
#[cfg(test)]
mod tests;

pub use lag::{Freshness, Lag, LagLimits, LagMachine, LagReading, ReplicaHealth, ReplicaSet, version_of_most};
pub use release::{Aspect, ReleaseHealth, Said};

use crate::time::{Millis, Timestamp};

/// What a monitor, or a region by its monitors, is believed to be. `Unknown` counts as up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize, serde::Deserialize)]
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

    /// Takes a failure that may be the fault of whoever probes. As the first result it doesn't decide: it takes as many
    /// of them to bring down a monitor that never succeeded as one that is up.
    pub fn record_doubtful_failure(&mut self) {
        if self.status != Status::Unknown {
            return self.record(false);
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.thresholds.down {
            self.become_(Status::Down);
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

/// The state of one monitor: its machine, its interval, and when the last result came in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Monitored {
    /// The machine.
    pub machine: AntiFlap,
    /// Time between probes.
    pub interval: Millis,
    /// When the last result came in; `None` before the first.
    pub last_result: Option<Timestamp>,
}

impl Monitored {
    /// Whether there was no result for three intervals. The last status stands all the same.
    #[must_use]
    pub fn is_stale(&self, now: Timestamp) -> bool {
        self.last_result.is_some_and(|last| now.since(last).0 > 3 * self.interval.0)
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
    /// Its replicas of knowledge, as far as the rules name some, in the region's order.
    pub replicas: Vec<ReplicaHealth>,
    /// What its endpoints run, as far as the rules name releases and it is known, in the order of releases and
    /// endpoints.
    pub releases: Vec<ReleaseHealth>,
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
            replicas: Vec::new(),
            releases: Vec::new(),
        }
    }
}
