//! Decides the status of monitors and regions. A monitor is a health check as the rules state it; a probe is one run of
//! it. Takes results of probes, returns a monitor's status by the anti-flap rules of gdnsd. Takes statuses of monitors,
//! returns a region's status.

mod lag;
mod release;
#[cfg(test)]
mod tests;

pub use lag::{Freshness, Lag, LagLimits, LagMachine, LagReading, ReplicaHealth, ReplicaSet, version_of_most};
pub use release::{Aspect, AspectValue, ReleaseHealth};

use crate::time::{Millis, Timestamp};

/// The status of a monitor, or of a region by its monitors. `Unknown` counts as up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The probed thing serves.
    Up,
    /// The probed thing doesn't serve.
    Down,
    /// There was no result yet, or there is no monitor.
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

/// How many results it takes to change a status. Each is at least 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Thresholds {
    /// Successes in a row that change the status from down to up.
    pub up: u32,
    /// Successes in a row, while up, after which earlier failures no longer count.
    pub ok: u32,
    /// Failures, not necessarily in a row, that change the status from up to down.
    pub down: u32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { up: 3, ok: 5, down: 3 }
    }
}

/// The status of one monitor. It changes only after enough results ([`Thresholds`]), so that it doesn't flap.
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
    /// Failures counted while the status is up; while it is unknown, only doubtful ones.
    failures: u32,
    /// Successes in a row, up to the last result.
    successes: u32,
}

impl AntiFlap {
    /// A machine that has no result yet.
    #[must_use]
    pub fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, status: Status::Unknown, failures: 0, successes: 0 }
    }

    /// The present status.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// Takes the result of one probe. The first result sets the status at once.
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

    /// Takes a failure for which the node that probes may be to blame. As a first result it doesn't set the status at
    /// once: that takes as many such failures as for a monitor that is up.
    pub fn record_doubtful_failure(&mut self) {
        if self.status != Status::Unknown {
            return self.record(false);
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.thresholds.down {
            self.become_(Status::Down);
        }
    }

    /// The least number of further results that would make the status `wanted`: 0 if it is `wanted` already.
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
pub struct MonitorState {
    /// The machine that turns results into a status.
    pub machine: AntiFlap,
    /// The time between two probes.
    pub interval: Millis,
    /// When the last result came in; `None` before the first.
    pub last_result: Option<Timestamp>,
}

impl MonitorState {
    /// Whether the last result is more than three intervals old. The status stays as it was.
    #[must_use]
    pub fn is_stale(&self, now: Timestamp) -> bool {
        self.last_result.is_some_and(|last| now.since(last).0 > 3 * self.interval.0)
    }

    /// The least time until the status could be `wanted`.
    #[must_use]
    pub fn time_to(&self, wanted: Status) -> Millis {
        Millis(u64::from(self.machine.missing(wanted)) * self.interval.0)
    }

    /// What the monitor says at the time `now`.
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

/// What a monitor says at one moment, as far as a region's health depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// The monitor's status.
    pub status: Status,
    /// The least time until the status could be down.
    pub to_down: Millis,
    /// The least time until the status could be up.
    pub to_up: Millis,
    /// Whether the last result is more than three intervals old.
    pub stale: bool,
}

impl Reading {
    /// The reading of two monitors of which one has to be up: down only if both are down.
    #[must_use]
    pub fn either(self, other: Self) -> Self {
        let (to_down, to_up) = (self.to_down.max(other.to_down), self.to_up.min(other.to_up));
        Self { to_down, to_up, ..self.with(other, Status::Up) }
    }

    /// The reading of two monitors that both have to be up: down if one is down.
    #[must_use]
    pub fn both(self, other: Self) -> Self {
        let (to_down, to_up) = (self.to_down.min(other.to_down), self.to_up.max(other.to_up));
        Self { to_down, to_up, ..self.with(other, Status::Down) }
    }

    /// The common status of two readings: `decisive` if one of them is, otherwise unknown if one of them is, otherwise
    /// the status that both have.
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
    /// The family's name in JSON and metrics.
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

/// The health of all regions, with the probed status of the regions in `down` set to down.
#[must_use]
pub fn supposing_down(regions: &[RegionHealth], down: &[usize]) -> Vec<RegionHealth> {
    let mut regions = regions.to_vec();
    for &region in down {
        regions.resize_with(regions.len().max(region + 1), Default::default);
        regions[region].probed = Status::Down;
    }
    regions
}

/// The health of one region, by its own monitor and those of its endpoints.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RegionHealth {
    /// The status by probes.
    pub probed: Status,
    /// A forced status that came by the API or from other nodes. It takes precedence over one in the rules document.
    pub forced: Option<Forced>,
    /// Whether a monitor of the region or of an endpoint had no result for three intervals.
    pub stale: bool,
    /// The least time until probes could call the region down; `None` if no monitor can.
    pub time_to_down: Option<Millis>,
    /// The least time until probes could call the region up; `None` if no monitor can.
    pub time_to_up: Option<Millis>,
    /// Each endpoint's status, in the region's order. The list may be shorter; the other endpoints are unknown.
    pub endpoints: Vec<Status>,
    /// Each endpoint's forced status, in the region's order. The list may be shorter. A forced status takes precedence
    /// over one in the rules document.
    pub forced_endpoints: Vec<Option<Forced>>,
    /// The region's copies of replicas (knowledge such as a search index), in the region's order.
    pub replicas: Vec<ReplicaHealth>,
    /// What the region's endpoints run, as far as the rules name releases and it is known; in the order of releases,
    /// then endpoints.
    pub releases: Vec<ReleaseHealth>,
}

/// A status that an operator forces, and its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forced {
    /// `Up` or `Down`.
    pub status: Status,
    /// The time from which probes decide again.
    pub until: Timestamp,
    /// Why the operator forced it, for other people.
    pub reason: String,
}

impl RegionHealth {
    /// The health of a region by its monitors. It is down if its own monitor is down, or if all its endpoints have
    /// monitors and all are down. Otherwise it is up if any of the monitors is up, and unknown if none is.
    #[must_use]
    pub fn of(region: Option<&MonitorState>, endpoints: &[Option<&MonitorState>], now: Timestamp) -> Self {
        let reading = |monitor: &MonitorState| monitor.reading(now);
        let endpoints: Vec<Option<Reading>> = endpoints.iter().map(|monitor| monitor.map(reading)).collect();
        Self::with_forced(region.map(reading), &endpoints, &[])
    }

    /// [`RegionHealth::of`], with endpoints whose statuses are forced, by position. A forced endpoint counts with its
    /// forced status.
    #[must_use]
    pub fn with_forced(region: Option<Reading>, endpoints: &[Option<Reading>], forced: &[Option<Status>]) -> Self {
        let forced_at = |position: usize| forced.get(position).copied().flatten();
        let free = endpoints.iter().enumerate().filter(|(position, _)| forced_at(*position).is_none());
        let free: Vec<Option<Reading>> = free.map(|(_, monitor)| *monitor).collect();
        let monitored: Vec<Reading> = free.iter().copied().flatten().collect();
        let forced_up = forced.contains(&Some(Status::Up));
        // Endpoints decide together only if each of them has a monitor or is forced.
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
