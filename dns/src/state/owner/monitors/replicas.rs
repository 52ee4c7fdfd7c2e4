//! The copies of replicas (knowledge that regions hold copies of) whose lag behind the leader is read. Takes the copies
//! of the rules and the results of readings, returns the state of each region's copies as this node sees it. A region
//! with a stale copy is withheld from requests that need the replica. Held by the monitors.

use std::collections::{BTreeMap, BTreeSet};

use bailiwick_rules::health::{Freshness, LagLimits, LagMachine, LagReading, ReplicaHealth, Status};
use bailiwick_rules::replica::{ReadFailure, ReplicaReading};
use bailiwick_rules::rules::ReplicaSource;
use bailiwick_rules::table::{RegionIndex, RegionReplica, Replica, Table};
use bailiwick_rules::time::{Millis, Timestamp};

use crate::state::probe::{CopyId, Prober, Probing, ReplicaResult, Running};
use crate::state::snapshot::{Probes, ReplicaView};

/// All copies that are read. Equal copies of several regions are read once.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    entries: BTreeMap<CopyId, Entry>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    source: ReplicaSource,
    limits: LagLimits,
    /// Whether the rules call this copy the leader.
    is_leader: bool,
    machine: LagMachine,
    /// The last good reading.
    reading: Option<(Timestamp, ReplicaReading)>,
    /// When the last result came in, good or not.
    last_result: Option<Timestamp>,
    /// Why the last reading failed.
    failure: Option<ReadFailure>,
    readings: Probes,
    /// The copy is read until this is dropped.
    _running: Running,
}

/// A region's copy: the region, the copy's position among the region's copies, and the id of its reader, if the rules
/// say how to read it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copy {
    region: RegionIndex,
    position: usize,
    id: Option<CopyId>,
}

impl Replicas {
    /// Starts to read every copy of `table` that isn't read yet.
    pub(super) fn assign<P: Prober>(&mut self, table: &Table, probing: &Probing<P>) -> Vec<Copy> {
        let mut copies = Vec::new();
        for (region, of_region) in (0..).map(RegionIndex).zip(table.regions()) {
            for (position, copy) in of_region.replicas.iter().enumerate() {
                let limits = table.replica(copy.replica).limits;
                let source = copy.source.as_deref();
                let id = source.map(|source| self.running((source, limits, copy.is_leader), probing));
                copies.push(Copy { region, position, id });
            }
        }
        copies
    }

    /// The id of the reader of a copy with this content. Starts to read the copy if it isn't read yet.
    fn running<P: Prober>(
        &mut self,
        (source, limits, is_leader): (&ReplicaSource, LagLimits, bool),
        probing: &Probing<P>,
    ) -> CopyId {
        let is_it = |entry: &Entry| entry.source == *source && entry.limits == limits && entry.is_leader == is_leader;
        if let Some((id, _)) = self.entries.iter().find(|(_, entry)| is_it(entry)) {
            return *id;
        }
        let id = CopyId(self.next);
        self.next += 1;
        let entry = Entry {
            source: source.clone(),
            limits,
            is_leader,
            machine: LagMachine::default(),
            reading: None,
            last_result: None,
            failure: None,
            readings: Probes::default(),
            _running: probing.start_reading_replica(id, source.clone()),
        };
        self.entries.insert(id, entry);
        id
    }

    /// Stops reading every copy that isn't among these.
    pub(super) fn keep_only<'a>(&mut self, copies: impl Iterator<Item = &'a Copy>) {
        let ids: BTreeSet<CopyId> = copies.filter_map(|copy| copy.id).collect();
        self.entries.retain(|id, _| ids.contains(id));
    }

    /// The longest timeout among copies without a first result; `None` when all have one.
    pub(super) fn first_result_timeout(&self, copies: &[Copy]) -> Option<Millis> {
        let entries = copies.iter().filter_map(|copy| self.entries.get(&copy.id?));
        entries.filter(|entry| entry.last_result.is_none()).map(|entry| entry.source.timeout).max()
    }

    /// Takes the result of a reading, unless its copy isn't read any more. If the node `is_blind` (its own network
    /// connection seems to be down), a failure says nothing about the copy. `places` has the names for the log. Returns
    /// whether anything but the lag changed.
    pub(super) fn record(
        &mut self,
        result: ReplicaResult,
        now: Timestamp,
        is_blind: bool,
        places: (&Table, &[Copy]),
    ) -> bool {
        let Some(entry) = self.entries.get_mut(&result.copy) else { return false };
        let (before, was_failing) = (entry.machine.freshness(), entry.failure.is_some());
        let version_before = entry.reading.as_ref().and_then(|(_, reading)| reading.version.clone());
        let is_first = entry.last_result.replace(now).is_none();
        match result.outcome {
            Ok(reading) => {
                entry.readings.passed += 1;
                entry.machine.record(reading.judged(entry.is_leader), &entry.limits);
                entry.reading = Some((now, reading));
                entry.failure = None;
            }
            Err(failure) => {
                entry.readings.failed += 1;
                if entry.is_leader {
                    entry.machine.record(LagReading::Leader, &entry.limits);
                } else if !is_blind {
                    entry.machine.record(LagReading::Failed, &entry.limits);
                }
                entry.failure = Some(failure);
            }
        }
        let version = entry.reading.as_ref().and_then(|(_, reading)| reading.version.clone());
        let after = entry.machine.freshness();
        let is_news =
            is_first || before != after || was_failing != entry.failure.is_some() || version != version_before;
        if let Some(copy) = places.1.iter().find(|copy| copy.id == Some(result.copy)).filter(|_| is_news) {
            log(places.0, *copy, entry, (before, after), was_failing);
        }
        is_news
    }

    /// The copies of one region as this node sees them, in the region's order.
    pub(super) fn health(&self, table: &Table, region: RegionIndex, copies: &[Copy]) -> Vec<ReplicaHealth> {
        let health = |(position, copy): (usize, &RegionReplica)| {
            let replica = table.replica(copy.replica);
            let assigned = copies.iter().find(|copy| (copy.region, copy.position) == (region, position));
            match assigned.and_then(|copy| self.entries.get(&copy.id?)) {
                Some(entry) => ReplicaHealth { replica: copy.replica.get(), ..entry.health(replica) },
                None => ReplicaHealth {
                    replica: copy.replica.get(),
                    status: Status::Up,
                    is_leader: copy.is_leader,
                    ..ReplicaHealth::default()
                },
            }
        };
        table.region(region).replicas.iter().enumerate().map(health).collect()
    }

    /// Every copy that is read, as reports and metrics show it.
    pub(super) fn views(&self, table: &Table, copies: &[Copy]) -> Vec<ReplicaView> {
        let view = |copy: &Copy| {
            let entry = self.entries.get(&copy.id?)?;
            let replica = table.region(copy.region).replicas.get(copy.position)?.replica;
            Some(ReplicaView {
                region: copy.region,
                position: copy.position,
                replica,
                status: entry.status(),
                freshness: entry.machine.freshness(),
                reading: entry.reading.clone(),
                failure: entry.failure.as_ref().map(|failure| failure.to_string().into()),
                is_ahead: matches!(entry.failure, Some(ReadFailure::Ahead(_))),
                last_result: entry.last_result,
                interval: entry.source.interval,
                readings: entry.readings,
            })
        };
        copies.iter().filter_map(view).collect()
    }
}

impl Entry {
    /// The status by the readings. A leader is up even if it can't be read.
    fn status(&self) -> Status {
        if self.is_leader { Status::Up } else { self.machine.status(&self.limits) }
    }

    /// The copy's state for decisions. The caller fills in the position of the replica.
    fn health(&self, replica: &Replica) -> ReplicaHealth {
        let status = self.status();
        let reading = self.reading.as_ref().map(|(_, reading)| reading);
        let time_to =
            |wanted| Some(Millis(u64::from(self.machine.missing(wanted, &self.limits)) * self.source.interval.0));
        ReplicaHealth {
            status,
            lag: reading.and_then(|reading| reading.lag).filter(|_| replica.keep_freshest && status == Status::Down),
            is_leader: self.is_leader || self.machine.freshness() == Freshness::Leader,
            version: reading.and_then(|reading| reading.version.clone()).filter(|_| replica.is_grouped),
            to_down: time_to(Status::Down).filter(|_| !self.is_leader && replica.limits.max.is_some()),
            to_up: time_to(Status::Up),
            ..ReplicaHealth::default()
        }
    }
}

/// Logs what has changed at a copy.
fn log(table: &Table, copy: Copy, entry: &Entry, (before, after): (Freshness, Freshness), was_failing: bool) {
    let of_region = table.region(copy.region);
    let Some(of_copy) = of_region.replicas.get(copy.position) else { return };
    let (region, replica) = (of_region.id.as_str(), table.replica(of_copy.replica).id.as_str());
    let lag = entry.reading.as_ref().and_then(|(_, reading)| reading.lag).map(|lag| lag.to_string());
    let failure = entry.failure.as_ref().map(ToString::to_string);
    if let Some(ReadFailure::Ahead(why)) = entry.failure.as_ref().filter(|_| !was_failing) {
        tracing::error!(
            json.event = "replica_ahead",
            json.region = region,
            json.replica = replica,
            json.reason = why,
            "{replica} in {region} can't be right: {why}"
        );
    }
    if before != after && matches!(after, Freshness::Lagging | Freshness::Unknown) {
        tracing::warn!(
            json.event = "replica_changed",
            json.region = region,
            json.replica = replica,
            json.status = after.as_str(),
            json.before = before.as_str(),
            json.lag = lag.as_deref(),
            json.reason = failure.as_deref(),
            lag,
            failure,
            "{replica} in {region} is {}",
            after.as_str()
        );
    } else if before != after {
        tracing::info!(
            json.event = "replica_changed",
            json.region = region,
            json.replica = replica,
            json.status = after.as_str(),
            json.before = before.as_str(),
            json.lag = lag.as_deref(),
            lag,
            "{replica} in {region} is {}",
            after.as_str()
        );
    } else if let Some(failure) = failure.filter(|_| !was_failing) {
        tracing::warn!(
            json.event = "replica_unread",
            json.region = region,
            json.replica = replica,
            json.reason = failure.as_str(),
            "{replica} in {region} can't be read: {failure}"
        );
    }
}
