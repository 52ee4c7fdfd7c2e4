//! What one voter says of health. Takes a report as it arrived, returns a [`Ballot`] with positions for names, or
//! nothing if the node doesn't vote. Made by whoever receives reports, counted by [`super::verdict`].

use crate::health::{AddressFamily, RegionHealth, Status};
use crate::report::{FRESH_INTERVALS, HealthReport, HeldBy, RegionReport};
use crate::table::{RegionReplica, Table};
use crate::time::{Millis, Timestamp};

/// The longest interval that is believed: the longest that a monitor may have.
const LONGEST_INTERVAL: u64 = 3_600_000;

/// What one voter says, and when it was heard. Nothing of it is compared with another node's clock: its age is counted
/// from its arrival, by the clock of whoever received it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ballot {
    /// The voter's position in the rules.
    pub(super) voter: usize,
    /// When it arrived, by the receiver's clock.
    pub(super) at: Timestamp,
    /// By region index.
    regions: Vec<Option<Cast>>,
}

/// What a node sees itself.
#[derive(Clone, Copy, Debug)]
pub struct OwnSight<'a> {
    /// By region index.
    pub regions: &'a [RegionHealth],
    /// The same by family of addresses, IPv4 and IPv6, where monitors tell them apart.
    pub families: [Option<&'a [RegionHealth]>; 2],
    /// How old the oldest result is that each region's status is made of, and the interval of its slowest monitor.
    pub ages: &'a [(Millis, Millis)],
    /// Whether the node is blind.
    pub is_blind: bool,
}

/// What a voter says of one region.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cast {
    /// How old it was when it was sent, by the sender's clock alone.
    age: Millis,
    interval: Millis,
    pub(super) region: Status,
    /// By family of addresses: IPv4, IPv6.
    pub(super) families: [Status; 2],
    /// By position.
    pub(super) endpoints: Vec<Status>,
    /// By position of the region's copies.
    pub(super) replicas: Vec<Status>,
    /// What the voter took for agreed, so that one who has just begun knows it.
    pub(super) agreed: Status,
}

impl Ballot {
    /// Reads the report of a voter; `None` if the node isn't one. Regions and endpoints that aren't in the rules are
    /// passed over.
    #[must_use]
    pub fn read(table: &Table, report: &HealthReport, at: Timestamp) -> Option<Self> {
        let voter = table.fleet()?.voter_named(&report.node)?;
        let cast = |region: &crate::table::Region| {
            let said = report.regions.get(region.id.as_str())?;
            let agreed = report.fleet.get(region.id.as_str()).filter(|agreed| agreed.held_by != HeldBy::Override);
            let endpoints = region.endpoints.iter().map(|(id, _)| {
                said.endpoints.get(id.as_str()).map_or(Status::Unknown, crate::report::EndpointReport::by_probes)
            });
            let cast = Cast {
                age: Millis(said.age_ms),
                interval: Millis(said.interval_ms.min(LONGEST_INTERVAL)),
                region: said.probed,
                families: [AddressFamily::Ipv4, AddressFamily::Ipv6].map(|family| of_family(said, family)),
                endpoints: endpoints.collect(),
                replicas: region.replicas.iter().map(|copy| of_copy(table, copy, said)).collect(),
                agreed: agreed.map_or(Status::Unknown, |agreed| agreed.verdict),
            };
            Some(if report.blind { cast.blinded() } else { cast })
        };
        Some(Self { voter, at, regions: table.regions().iter().map(cast).collect() })
    }

    /// The ballot of the node itself, as its report would be read by others at this moment.
    #[must_use]
    pub fn own(table: &Table, voter: usize, sight: &OwnSight<'_>, now: Timestamp) -> Self {
        let cast = |(index, region): (usize, &crate::table::Region)| {
            let of = |health: Option<&[RegionHealth]>| health.and_then(|all| all.get(index)).map(|one| one.probed);
            let health = sight.regions.get(index)?;
            let endpoint = |at: usize| health.endpoints.get(at).copied().unwrap_or_default();
            let (age, interval) = sight.ages.get(index).copied().unwrap_or_default();
            let cast = Cast {
                age,
                interval: Millis(interval.0.min(LONGEST_INTERVAL)),
                region: health.probed,
                families: sight.families.map(|family| of(family).unwrap_or(health.probed)),
                endpoints: (0..region.endpoints.len()).map(endpoint).collect(),
                replicas: health.replicas.iter().map(|copy| copy.status).collect(),
                agreed: Status::Unknown,
            };
            Some(if sight.is_blind { cast.blinded() } else { cast })
        };
        Self { voter, at: now, regions: table.regions().iter().enumerate().map(cast).collect() }
    }

    /// What it says of a region, if that is fresh.
    pub(super) fn of(&self, region: usize, now: Timestamp) -> Option<&Cast> {
        let cast = self.regions.get(region)?.as_ref()?;
        // A report from the future has an unknown age: the clock was set back.
        let age = cast.age.0.saturating_add(now.since(self.at).0);
        (self.at <= now && age <= FRESH_INTERVALS * cast.interval.0).then_some(cast)
    }

    /// Whether anything of it is fresh.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        (0..self.regions.len()).any(|region| self.of(region, now).is_some())
    }
}

impl Cast {
    /// The same of a voter that sees nothing.
    fn blinded(mut self) -> Self {
        self.region = Status::Unknown;
        self.families = [Status::Unknown; 2];
        self.endpoints.fill(Status::Unknown);
        self.replicas.fill(Status::Unknown);
        self
    }
}

/// What is said of a region's copy, if that counted when it was sent. Nobody has to read a leader.
fn of_copy(table: &Table, copy: &RegionReplica, said: &RegionReport) -> Status {
    if copy.is_leader {
        return Status::Up;
    }
    let of_copy = said.replicas.get(table.replica(copy.replica).id.as_str());
    let counts = |one: &&crate::report::ReplicaReport| one.counts(said, Timestamp(0), Timestamp(0));
    of_copy.filter(counts).map(|one| one.status).unwrap_or_default()
}

/// What is said of one family of a region's addresses: of the region, where monitors don't tell the families apart.
fn of_family(said: &RegionReport, family: AddressFamily) -> Status {
    said.families.get(&family).copied().unwrap_or(said.probed)
}

/// One ballot for each voter: the newest, by voter. Of two that arrived together the same is kept in whatever order
/// they are given.
#[must_use]
pub(super) fn newest<'b>(voters: usize, ballots: &'b [Ballot], now: Timestamp) -> Vec<Option<&'b Ballot>> {
    let mut kept: Vec<Option<&'b Ballot>> = vec![None; voters];
    for ballot in ballots.iter().filter(|ballot| ballot.at <= now) {
        if let Some(slot) = kept.get_mut(ballot.voter)
            && slot.is_none_or(|before| (before.at, before) < (ballot.at, ballot))
        {
            *slot = Some(ballot);
        }
    }
    kept
}
