//! What the voters agree on. Takes the ballots of the voters that are heard, what was agreed on before, and the time;
//! returns a verdict for each region and endpoint. DNS nodes and the edge call it with the same reports, so that they
//! don't disagree.
//!
//! A verdict changes by a strict majority of the configured sites alone. While the sites are too few or of two minds,
//! the last one stands; after `hold` without enough sites a node goes by what it sees itself, with care.

use super::agreed::{Agreed, Held};
use super::ballot::{Ballot, Cast, newest};
use super::guard::Standing;
use super::votes::{Count, count};
use crate::health::Status;
use crate::report::{HeldBy, VerdictReport, Votes};
use crate::table::{Fleet, RegionIndex, ServiceIndex, Table};
use crate::time::{Millis, Timestamp};

/// What is agreed of one region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The status, overrides left aside.
    pub status: Status,
    /// The same of each family of its addresses: IPv4, IPv6.
    pub families: [Status; 2],
    /// The same of each endpoint, by position.
    pub endpoints: Vec<Status>,
    /// The same of each copy of a replica, by position in the region: `Down` is withheld from what needs it.
    pub replicas: Vec<Status>,
    /// How the sites vote on the region.
    pub votes: Votes,
    /// Who holds the status, overrides left aside.
    pub held_by: HeldBy,
    /// The services whose guards have the region offered although the voters call it down.
    pub guarded_by: Vec<ServiceIndex>,
}

impl Verdict {
    /// As it is reported: an override comes before it.
    #[must_use]
    pub fn report(&self, forced: Option<Status>) -> VerdictReport {
        let (verdict, held_by) = forced.map_or((self.status, self.held_by), |forced| (forced, HeldBy::Override));
        VerdictReport { verdict, votes: self.votes, held_by }
    }
}

/// What is to be judged: ballots, and whose clock and probes are one's own.
pub struct Hearing<'a> {
    /// The rules.
    pub table: &'a Table,
    /// The ballots, in any order. Of several of one voter the newest counts.
    pub ballots: &'a [Ballot],
    /// The voter that is oneself; `None` for the edge and for nodes that don't vote.
    pub own: Option<usize>,
    /// What an operator forces a region to be.
    pub forced: &'a dyn Fn(RegionIndex) -> Option<Status>,
    /// The time, by one's own clock.
    pub now: Timestamp,
}

/// The verdicts of all regions, by region index; none where no voters are declared. `agreed` is what was agreed on
/// before, and what is agreed on afterwards.
#[must_use]
pub fn verdicts(hearing: &Hearing<'_>, agreed: &mut Agreed) -> Vec<Verdict> {
    let Some(fleet) = hearing.table.fleet() else { return Vec::new() };
    agreed.carry_over(hearing.table);
    let newest = newest(fleet.voters.len(), hearing.ballots, hearing.now);
    let judge = Judge { hearing, fleet };
    let mut verdicts = Vec::with_capacity(hearing.table.regions().len());
    let mut casts: Vec<Option<&Cast>> = Vec::with_capacity(newest.len());
    let mut wanted = Vec::new();
    for (index, region) in (0..).map(RegionIndex).zip(agreed.regions.iter_mut()) {
        casts.clear();
        casts.extend(newest.iter().map(|ballot| ballot.and_then(|one| one.of(index.get(), hearing.now))));
        let (mut status, count, held_by) =
            judge.judge(index, &casts, (&mut region.whole, fleet.min_hold), &|cast| cast.region);
        if status == Status::Unknown {
            status = judge.told(index, &casts);
        }
        wanted.push(status);
        verdicts.push(Verdict { votes: count.votes, held_by, ..Verdict::default() });
    }
    judge.apply(agreed, &wanted, &mut verdicts);
    for (index, verdict) in (0..).map(RegionIndex).zip(verdicts.iter_mut()) {
        let Some(region) = agreed.regions.get_mut(index.get()) else { continue };
        casts.clear();
        casts.extend(newest.iter().map(|ballot| ballot.and_then(|one| one.of(index.get(), hearing.now))));
        // What the guard has offered is offered whole.
        let is_guarded = !verdict.guarded_by.is_empty();
        let of_part = |held: &mut Held, said: &dyn Fn(&Cast) -> Status| {
            let (status, ..) = judge.judge(index, &casts, (held, fleet.min_hold), said);
            if !(is_guarded && status == Status::Down) {
                held.set(status, hearing.now);
            }
            held.status
        };
        let of_families = [0, 1].map(|family| of_part(&mut region.families[family], &|cast| cast.families[family]));
        verdict.families = match verdict.status {
            Status::Down => [Status::Down; 2],
            _ => of_families,
        };
        let said = |at: usize| move |cast: &Cast| cast.endpoints.get(at).copied().unwrap_or_default();
        let endpoints = region.endpoints.iter_mut().enumerate();
        verdict.endpoints = endpoints.map(|(at, held)| of_part(held, &said(at))).collect();
        // A guard keeps regions that may serve. It never makes stale knowledge fresh.
        let said = |at: usize| move |cast: &Cast| cast.replicas.get(at).copied().unwrap_or_default();
        let copies = &hearing.table.region(index).replicas;
        let of_copy = |(at, held): (usize, &mut Held)| {
            // Whoever reads a copy waits for `up_thresh` readings already, so it doesn't rest once more.
            let (by_votes, ..) = judge.judge(index, &casts, (held, Millis(0)), &said(at));
            let is_leader = copies.get(at).is_some_and(|copy| copy.is_leader);
            held.set(if is_leader { Status::Up } else { by_votes }, hearing.now);
            held.status
        };
        verdict.replicas = region.replicas.iter_mut().enumerate().map(of_copy).collect();
    }
    verdicts
}

/// Judges one thing after the other.
struct Judge<'a> {
    hearing: &'a Hearing<'a>,
    fleet: &'a Fleet,
}

impl Judge<'_> {
    /// What one thing's status is to be, guards left aside, and who says so. What was called down stays down for
    /// `min_hold`.
    fn judge(
        &self,
        region: RegionIndex,
        casts: &[Option<&Cast>],
        (held, min_hold): (&mut Held, Millis),
        said: &dyn Fn(&Cast) -> Status,
    ) -> (Status, Count, HeldBy) {
        let now = self.hearing.now;
        let of_voter = |voter: usize| casts.get(voter).copied().flatten().map(said);
        let count = count(self.fleet, region, of_voter);
        held.note_quorum(count.is_quorum, now);
        let by_majority = count.majority.map(|status| (status, HeldBy::Quorum));
        let alone = || {
            let is_over = held.alone_since.is_some_and(|since| now.since(since) >= self.fleet.hold);
            is_over.then(|| self.alone(of_voter)).flatten()
        };
        let unheld = || alone().map(|status| (status, HeldBy::None));
        let (status, held_by) = by_majority.or_else(unheld).unwrap_or((held.status, HeldBy::None));
        let rests = held.status == Status::Down && status == Status::Up && now.since(held.since) < min_hold;
        if rests { (Status::Down, count, HeldBy::None) } else { (status, count, held_by) }
    }

    /// What most sites took for agreed of a region: who has just begun, and hears no majority, goes on from there.
    fn told(&self, region: RegionIndex, casts: &[Option<&Cast>]) -> Status {
        let agreed = |voter: usize| casts.get(voter).copied().flatten().map(|cast| cast.agreed);
        count(self.fleet, region, agreed).majority.unwrap_or_default()
    }

    /// What a node makes of what it sees itself, when the sites have been too few for long: up by its own probes, down
    /// only if every voter that it hears says so too. One site alone of three or more never takes anything down: what
    /// it doesn't reach, others may. The edge, which probes nothing, takes each that it hears for its own.
    fn alone(&self, said: impl Fn(usize) -> Option<Status>) -> Option<Status> {
        let voters = || self.fleet.voters.iter().enumerate();
        let known = || voters().filter_map(|(at, voter)| Some((voter.site, said(at)?)));
        let all = |status: Status| known().all(|(_, one)| one == status || one == Status::Unknown);
        let of_own = match self.hearing.own {
            Some(own) => said(own)?,
            None if known().any(|(_, status)| status == Status::Up) => Status::Up,
            None => Status::Down,
        };
        let mut sites = known().filter(|(_, status)| *status == Status::Down).map(|(site, _)| site);
        let first = sites.next();
        let is_several = first.is_some_and(|first| sites.any(|site| site != first));
        match of_own {
            Status::Up => Some(Status::Up),
            Status::Down if first.is_some() && all(Status::Down) && (is_several || self.fleet.sites.len() < 3) => {
                Some(Status::Down)
            }
            Status::Down | Status::Unknown => None,
        }
    }

    /// Sets the statuses of all regions, as far as no guard is against it. Of several that are to go down those are
    /// first that were called down first, then by name.
    fn apply(&self, agreed: &mut Agreed, wanted: &[Status], verdicts: &mut [Verdict]) {
        let now = self.hearing.now;
        let mut falling = Vec::new();
        for (index, (region, status)) in (0..).map(RegionIndex).zip(agreed.regions.iter_mut().zip(wanted)) {
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
                let whole = agreed.regions.get(region.get()).map(|one| one.whole);
                let down = whole.filter(|whole| whole.status == Status::Down);
                Standing { down_since: down.map(|whole| whole.since), forced: (self.hearing.forced)(region) }
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
