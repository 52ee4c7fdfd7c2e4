//! What one voter says of health. A voter is a node whose report counts as a vote. Takes a report as it arrived,
//! returns a [`Ballot`] in which positions stand for names, or nothing if the node doesn't vote. Made by the code that
//! receives reports, counted by [`super::verdict`].

use crate::health::{AddressFamily, RegionHealth, Status};
use crate::report::{FRESH_INTERVALS, HealthReport, HeldBy, RegionReport};
use crate::table::{RegionReplica, Table};
use crate::time::{Millis, Timestamp};

/// The longest interval between probes that a report may claim, in milliseconds: the longest that a monitor may have.
const LONGEST_INTERVAL: u64 = 3_600_000;

/// What one voter says, and when its report arrived. No other node's clock is read here: the report says how old its
/// results were when it was sent, and the receiver's clock counts the time since it arrived.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ballot {
    /// The voter's position in the rules.
    pub(super) voter: usize,
    /// When the report arrived, by the receiver's clock.
    pub(super) received: Timestamp,
    /// What the voter says of each region, by region index; `None`: nothing.
    regions: Vec<Option<RegionVote>>,
}

/// What a node's own probes say.
#[derive(Clone, Copy, Debug)]
pub struct OwnProbes<'a> {
    /// The health of each region, by region index.
    pub regions: &'a [RegionHealth],
    /// The same for each family of addresses, IPv4 and IPv6; `None` where no monitor probes that family by itself.
    pub families: [Option<&'a [RegionHealth]>; 2],
    /// By region index: the age of the oldest result that the region's status rests on, and the interval of its slowest
    /// monitor.
    pub ages: &'a [(Millis, Millis)],
    /// Whether the node is blind: its own line to the network seems to be down.
    pub is_blind: bool,
}

/// What a voter says of one region.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RegionVote {
    /// How old the results were when the report was sent, by the sender's clock.
    age: Millis,
    interval: Millis,
    pub(super) region: Status,
    /// By family of addresses: IPv4, IPv6.
    pub(super) families: [Status; 2],
    /// By position of the endpoint in the region.
    pub(super) endpoints: Vec<Status>,
    /// By position of the region's copy of a replica (knowledge such as a search index).
    pub(super) replicas: Vec<Status>,
    /// What the voter reports as agreed on, so that a node that has just started can take it over.
    pub(super) agreed: Status,
}

impl Ballot {
    /// Reads the report of a voter; `None` if the node isn't a voter. Regions and endpoints that the rules don't have
    /// are ignored.
    #[must_use]
    pub fn read(table: &Table, report: &HealthReport, received: Timestamp) -> Option<Self> {
        let voter = table.fleet()?.voter_named(&report.node)?;
        let vote = |region: &crate::table::Region| {
            let of_region = report.regions.get(region.id.as_str())?;
            let agreed = report.fleet.get(region.id.as_str()).filter(|agreed| agreed.held_by != HeldBy::Override);
            let endpoints = region.endpoints.iter().map(|(id, _)| {
                of_region.endpoints.get(id.as_str()).map_or(Status::Unknown, crate::report::EndpointReport::by_probes)
            });
            let vote = RegionVote {
                age: Millis(of_region.age_ms),
                interval: Millis(of_region.interval_ms.min(LONGEST_INTERVAL)),
                region: of_region.probed,
                families: [AddressFamily::Ipv4, AddressFamily::Ipv6].map(|family| of_family(of_region, family)),
                endpoints: endpoints.collect(),
                replicas: region.replicas.iter().map(|copy| of_copy(table, copy, of_region)).collect(),
                agreed: agreed.map_or(Status::Unknown, |agreed| agreed.verdict),
            };
            Some(if report.blind { vote.blinded() } else { vote })
        };
        Some(Self { voter, received, regions: table.regions().iter().map(vote).collect() })
    }

    /// The ballot of this node itself, equal to what other nodes would read from a report sent now, except for
    /// `agreed`, which is for other nodes to take over.
    #[must_use]
    pub fn own(table: &Table, voter: usize, probes: &OwnProbes<'_>, now: Timestamp) -> Self {
        let vote = |(index, region): (usize, &crate::table::Region)| {
            let probed =
                |health: Option<&[RegionHealth]>| health.and_then(|all| all.get(index)).map(|health| health.probed);
            let health = probes.regions.get(index)?;
            let endpoint = |at: usize| health.endpoints.get(at).copied().unwrap_or_default();
            let (age, interval) = probes.ages.get(index).copied().unwrap_or_default();
            let vote = RegionVote {
                age,
                interval: Millis(interval.0.min(LONGEST_INTERVAL)),
                region: health.probed,
                families: probes.families.map(|family| probed(family).unwrap_or(health.probed)),
                endpoints: (0..region.endpoints.len()).map(endpoint).collect(),
                replicas: health.replicas.iter().map(|copy| copy.status).collect(),
                agreed: Status::Unknown,
            };
            Some(if probes.is_blind { vote.blinded() } else { vote })
        };
        Self { voter, received: now, regions: table.regions().iter().enumerate().map(vote).collect() }
    }

    /// What the ballot says of a region, if that is fresh.
    pub(super) fn fresh_vote(&self, region: usize, now: Timestamp) -> Option<&RegionVote> {
        let vote = self.regions.get(region)?.as_ref()?;
        // A report from the future has an unknown age: the receiver's clock was set back.
        let age = vote.age.0.saturating_add(now.since(self.received).0);
        (self.received <= now && age <= FRESH_INTERVALS * vote.interval.0).then_some(vote)
    }

    /// Whether what the ballot says of at least one region is fresh.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        (0..self.regions.len()).any(|region| self.fresh_vote(region, now).is_some())
    }
}

impl RegionVote {
    /// What the same voter says if it is blind: `unknown` of everything that it probes. What was agreed on stays.
    fn blinded(mut self) -> Self {
        self.region = Status::Unknown;
        self.families = [Status::Unknown; 2];
        self.endpoints.fill(Status::Unknown);
        self.replicas.fill(Status::Unknown);
        self
    }
}

/// What the report says of a region's copy of a replica, if the reading counted when the report was sent. A leader is
/// always up: nodes needn't read its lag.
fn of_copy(table: &Table, copy: &RegionReplica, of_region: &RegionReport) -> Status {
    if copy.is_leader {
        return Status::Up;
    }
    let report_of_copy = of_region.replicas.get(table.replica(copy.replica).id.as_str());
    // Any two equal times: none has passed since the report was sent.
    let counted_then = |report: &&crate::report::ReplicaReport| report.counts(of_region, Timestamp(0), Timestamp(0));
    report_of_copy.filter(counted_then).map(|report| report.status).unwrap_or_default()
}

/// What the report says of one family of a region's addresses; what it says of the region, where it has nothing about
/// that family.
fn of_family(of_region: &RegionReport, family: AddressFamily) -> Status {
    of_region.families.get(&family).copied().unwrap_or(of_region.probed)
}

/// The newest ballot of each voter, by voter. If two of one voter arrived at the same time, the choice doesn't depend
/// on the order in which they are given.
#[must_use]
pub(super) fn newest<'b>(voters: usize, ballots: &'b [Ballot], now: Timestamp) -> Vec<Option<&'b Ballot>> {
    let mut kept: Vec<Option<&'b Ballot>> = vec![None; voters];
    for ballot in ballots.iter().filter(|ballot| ballot.received <= now) {
        if let Some(slot) = kept.get_mut(ballot.voter)
            && slot.is_none_or(|before| (before.received, before) < (ballot.received, ballot))
        {
            *slot = Some(ballot);
        }
    }
    kept
}
