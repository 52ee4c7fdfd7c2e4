//! What the voters agree on about health. A voter is a node whose report counts as a vote; a site is what voters may
//! fail with together. Takes the newest ballot of each voter, what was agreed on before, and the time; returns a
//! verdict for each region and endpoint. DNS nodes and the edge call this with the same reports, so that they come to
//! the same verdict.
//!
//! A verdict changes only by a strict majority of the sites that the rules name. While too few sites know anything, or
//! they disagree, the last verdict stands. After `hold` without enough sites a node goes by its own probes, with care:
//! see `Judge::alone`. A guard may keep a region in service that the voters call down: it limits how many regions of a
//! service may go down at once.

use super::agreed::{Agreed, AgreedStatus};
use super::ballot::{Ballot, RegionVote, newest};
use super::guard::GuardedRegion;
use super::votes::{Count, count};
use crate::health::Status;
use crate::report::{HeldBy, VerdictReport, Votes};
use crate::table::{Fleet, RegionIndex, ServiceIndex, Table};
use crate::time::{Millis, Timestamp};

/// What is agreed on about one region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The region's status before overrides by operators.
    pub status: Status,
    /// The agreed status of each family of the region's addresses: IPv4, IPv6.
    pub families: [Status; 2],
    /// The agreed status of each endpoint, by position in the region.
    pub endpoints: Vec<Status>,
    /// The agreed status of each copy of a replica (knowledge such as a search index), by position in the region. A
    /// copy that is `Down` serves no request that needs it.
    pub replicas: Vec<Status>,
    /// How the sites vote on the region.
    pub votes: Votes,
    /// What decided the status, before overrides by operators.
    pub held_by: HeldBy,
    /// The services whose guards keep the region in service although the voters call it down.
    pub guarded_by: Vec<ServiceIndex>,
}

impl Verdict {
    /// The verdict as a node reports it. `forced` is an operator's override, which takes precedence.
    #[must_use]
    pub fn report(&self, forced: Option<Status>) -> VerdictReport {
        let (verdict, held_by) = forced.map_or((self.status, self.held_by), |forced| (forced, HeldBy::Override));
        VerdictReport { verdict, votes: self.votes, held_by }
    }
}

/// What is to be judged: ballots, the time, and which voter this node is.
pub struct VerdictInput<'a> {
    /// The rules.
    pub table: &'a Table,
    /// The ballots, in any order. If one voter has several, the newest counts.
    pub ballots: &'a [Ballot],
    /// The position of the voter that this node is; `None` for the edge and for nodes that don't vote.
    pub own: Option<usize>,
    /// What an operator forces a region to be.
    pub forced: &'a dyn Fn(RegionIndex) -> Option<Status>,
    /// The time, by this node's clock.
    pub now: Timestamp,
}

/// The verdicts of all regions, by region index; none where the rules name no voters. `agreed` holds what was agreed on
/// before; it is updated to what is agreed on now.
#[must_use]
pub fn verdicts(input: &VerdictInput<'_>, agreed: &mut Agreed) -> Vec<Verdict> {
    let Some(fleet) = input.table.fleet() else { return Vec::new() };
    agreed.carry_over(input.table);
    let newest = newest(fleet.voters.len(), input.ballots, input.now);
    let judge = Judge { input, fleet };
    let mut verdicts = Vec::with_capacity(input.table.regions().len());
    let mut votes_by_voter: Vec<Option<&RegionVote>> = Vec::with_capacity(newest.len());
    let mut statuses = Vec::new();
    for (index, region) in (0..).map(RegionIndex).zip(agreed.regions.iter_mut()) {
        votes_by_voter.clear();
        votes_by_voter
            .extend(newest.iter().map(|ballot| ballot.and_then(|ballot| ballot.fresh_vote(index.get(), input.now))));
        let (mut status, count, held_by) =
            judge.judge(index, &votes_by_voter, (&mut region.whole, fleet.min_hold), &|vote| vote.region);
        if status == Status::Unknown {
            status = judge.reported_status(index, &votes_by_voter);
        }
        statuses.push(status);
        verdicts.push(Verdict { votes: count.votes, held_by, ..Verdict::default() });
    }
    judge.apply(agreed, &statuses, &mut verdicts);
    for (index, verdict) in (0..).map(RegionIndex).zip(verdicts.iter_mut()) {
        let Some(region) = agreed.regions.get_mut(index.get()) else { continue };
        votes_by_voter.clear();
        votes_by_voter
            .extend(newest.iter().map(|ballot| ballot.and_then(|ballot| ballot.fresh_vote(index.get(), input.now))));
        // If a guard keeps the region in service, its endpoints and address families stay in service too.
        let is_guarded = !verdict.guarded_by.is_empty();
        let decide = |agreed_status: &mut AgreedStatus, status_in: &dyn Fn(&RegionVote) -> Status| {
            let (status, ..) = judge.judge(index, &votes_by_voter, (agreed_status, fleet.min_hold), status_in);
            if !(is_guarded && status == Status::Down) {
                agreed_status.set(status, input.now);
            }
            agreed_status.status
        };
        let of_families = [0, 1].map(|family| decide(&mut region.families[family], &|vote| vote.families[family]));
        verdict.families = match verdict.status {
            Status::Down => [Status::Down; 2],
            _ => of_families,
        };
        let status_at = |at: usize| move |vote: &RegionVote| vote.endpoints.get(at).copied().unwrap_or_default();
        let endpoints = region.endpoints.iter_mut().enumerate();
        verdict.endpoints = endpoints.map(|(at, agreed_status)| decide(agreed_status, &status_at(at))).collect();
        // A guard keeps regions in service. It doesn't apply to copies: stale knowledge stays stale.
        let status_at = |at: usize| move |vote: &RegionVote| vote.replicas.get(at).copied().unwrap_or_default();
        let copies = &input.table.region(index).replicas;
        let of_copy = |(at, agreed_status): (usize, &mut AgreedStatus)| {
            // A copy's reader waits for `up_thresh` good readings already, so `min_hold` doesn't apply here.
            let (by_votes, ..) = judge.judge(index, &votes_by_voter, (agreed_status, Millis(0)), &status_at(at));
            let is_leader = copies.get(at).is_some_and(|copy| copy.is_leader);
            agreed_status.set(if is_leader { Status::Up } else { by_votes }, input.now);
            agreed_status.status
        };
        verdict.replicas = region.replicas.iter_mut().enumerate().map(of_copy).collect();
    }
    verdicts
}

/// Judges regions, endpoints and copies, one after the other.
struct Judge<'a> {
    input: &'a VerdictInput<'a>,
    fleet: &'a Fleet,
}

impl Judge<'_> {
    /// Returns the status that one region, endpoint or copy is to get before guards, the votes, and what decided the
    /// status. `status_in` reads the status of this thing in a vote. Something that was called down stays down for at
    /// least `min_hold`.
    fn judge(
        &self,
        region: RegionIndex,
        votes_by_voter: &[Option<&RegionVote>],
        (agreed_status, min_hold): (&mut AgreedStatus, Millis),
        status_in: &dyn Fn(&RegionVote) -> Status,
    ) -> (Status, Count, HeldBy) {
        let now = self.input.now;
        let of_voter = |voter: usize| votes_by_voter.get(voter).copied().flatten().map(status_in);
        let count = count(self.fleet, region, of_voter);
        agreed_status.note_quorum(count.is_quorum, now);
        let by_majority = count.majority.map(|status| (status, HeldBy::Quorum));
        let alone = || {
            let is_over = agreed_status.alone_since.is_some_and(|since| now.since(since) >= self.fleet.hold);
            is_over.then(|| self.alone(of_voter)).flatten()
        };
        let by_own_probes = || alone().map(|status| (status, HeldBy::None));
        let (status, held_by) = by_majority.or_else(by_own_probes).unwrap_or((agreed_status.status, HeldBy::None));
        let is_too_early =
            agreed_status.status == Status::Down && status == Status::Up && now.since(agreed_status.since) < min_hold;
        if is_too_early { (Status::Down, count, HeldBy::None) } else { (status, count, held_by) }
    }

    /// What most sites report as agreed on about a region. A node that has just started and sees no majority of votes
    /// takes that over.
    fn reported_status(&self, region: RegionIndex, votes_by_voter: &[Option<&RegionVote>]) -> Status {
        let agreed = |voter: usize| votes_by_voter.get(voter).copied().flatten().map(|vote| vote.agreed);
        count(self.fleet, region, agreed).majority.unwrap_or_default()
    }

    /// What a node decides by itself when too few sites have known anything for long: up if its own probes say so; down
    /// only if its own probes and every voter that it hears say so. Where there are three sites or more, one site alone
    /// never takes anything down: others may reach what that site doesn't. The edge has no probes, so the votes that it
    /// hears stand in for its own.
    fn alone(&self, status_by: impl Fn(usize) -> Option<Status>) -> Option<Status> {
        let voters = || self.fleet.voters.iter().enumerate();
        let statuses = || voters().filter_map(|(at, voter)| Some((voter.site, status_by(at)?)));
        let all = |status: Status| statuses().all(|(_, vote)| vote == status || vote == Status::Unknown);
        let own_status = match self.input.own {
            Some(own) => status_by(own)?,
            None if statuses().any(|(_, status)| status == Status::Up) => Status::Up,
            None => Status::Down,
        };
        let mut sites = statuses().filter(|(_, status)| *status == Status::Down).map(|(site, _)| site);
        let first = sites.next();
        let is_several = first.is_some_and(|first| sites.any(|site| site != first));
        match own_status {
            Status::Up => Some(Status::Up),
            Status::Down if first.is_some() && all(Status::Down) && (is_several || self.fleet.sites.len() < 3) => {
                Some(Status::Down)
            }
            Status::Down | Status::Unknown => None,
        }
    }

    /// Sets the statuses of all regions, as far as guards allow. Regions that are to go down are handled in the order
    /// in which the voters called them down, then by name.
    fn apply(&self, agreed: &mut Agreed, statuses: &[Status], verdicts: &mut [Verdict]) {
        let now = self.input.now;
        let mut falling = Vec::new();
        for (index, (region, status)) in (0..).map(RegionIndex).zip(agreed.regions.iter_mut().zip(statuses)) {
            let falls = *status == Status::Down && region.whole.status != Status::Down;
            region.falling_since = match region.falling_since {
                _ if !falls => None,
                Some(since) => Some(since.min(now)),
                None => Some(now),
            };
            match region.falling_since {
                Some(since) => falling.push((since, index)),
                None => region.whole.set(*status, now),
            }
        }
        falling.sort_unstable();
        for (since, index) in falling {
            let standing = |region: RegionIndex| {
                let whole = agreed.regions.get(region.get()).map(|region| region.whole);
                let down = whole.filter(|whole| whole.status == Status::Down);
                GuardedRegion { down_since: down.map(|whole| whole.since), forced: (self.input.forced)(region) }
            };
            let against = agreed.fences.iter().filter(|fence| fence.is_against(index, since, standing, now));
            let mut services: Vec<ServiceIndex> = against.map(|fence| fence.service).collect();
            services.dedup();
            let Some(region) = agreed.regions.get_mut(index.get()) else { continue };
            if services.is_empty() {
                region.falling_since = None;
                region.whole.set(Status::Down, now);
            } else if let Some(verdict) = verdicts.get_mut(index.get()) {
                verdict.held_by = HeldBy::Guard;
                verdict.guarded_by = services;
            }
        }
        for (region, verdict) in agreed.regions.iter().zip(verdicts) {
            verdict.status = region.whole.status;
        }
    }
}

#[cfg(test)]
mod tests;
