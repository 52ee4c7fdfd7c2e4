//! The one task that owns all mutable state. Takes changes of rules, zones, keys, GeoIP data, health, overrides and
//! time over a channel, and publishes snapshots by an atomic swap. Started by `startup`; everything else holds a
//! [`Handle`].

mod monitors;
mod planner;
mod task;
#[cfg(test)]
mod tests;
mod voting;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::cache::Cache;
use arc_swap::{ArcSwap, Guard};
use bailiwick_host::locate::geoip::Places;
use bailiwick_host::system::clock::Clock;
use bailiwick_host::system::tasks::Tasks;
use bailiwick_rules::drill::kept::{Refusal, Run, Wanted};
use bailiwick_rules::health::Forced;
use bailiwick_rules::id::Overridden;
use bailiwick_rules::report::{DrillRecord, HealthReport};
use bailiwick_rules::time::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use crate::dnssec::key_set::ZoneKeys;
use crate::state::fleet_status::FleetStatus;
use crate::state::keeper::{KeeperHandle, Write};
use crate::state::leases::Leases;
use crate::state::observed::Observed;
use crate::state::snapshot::{Rules, Snapshot, ZoneSource};
use crate::state::store::Kind;

pub(crate) use task::{InitialState, conflicting, faults_of, older, spawn, warnings_of};

/// The access to the owner for the rest of the program. It reads the current snapshot without waiting, and sends
/// changes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    live: Arc<ArcSwap<Snapshot>>,
    status: watch::Receiver<Arc<Status>>,
    changes: mpsc::Sender<Change>,
    clock: Clock,
    tasks: Arc<Tasks>,
    observed: Observed,
    leases: Leases,
    fleet: FleetStatus,
    /// Writes to the state directory, if there is one.
    keeper: Option<KeeperHandle>,
}

/// A message to the owner.
#[derive(Debug)]
pub(crate) enum Change {
    /// A new version of a source.
    Offer(Offer),
    /// Everything that is wrong with the files of a source now.
    Faults(FileKind, Faults),
    /// Force the status of a region or an endpoint.
    SetOverride { of: Overridden, forced: Forced, insists: bool, reply: Reply },
    /// End an override.
    DeleteOverride { of: Overridden, reply: Reply },
    /// Begin a drill, or go on with one. Whoever asks has looked whether it may begin.
    Drill { wanted: Wanted, reply: oneshot::Sender<Result<DrillRecord, Refusal>> },
    /// End the drill of this name, for this reason: this run of it, or else the one that is under way.
    EndDrill { name: String, run: Option<Run>, why: String, reply: oneshot::Sender<Option<DrillRecord>> },
    /// A health report of another node.
    PeerReport(Box<HealthReport>),
    /// Makes the owner panic. Tests use it to check that the owner continues.
    #[cfg(test)]
    Panic,
}

/// The errors in the files of a source, by the name of the zone. For rules, keys and GeoIP, that name is empty.
pub(crate) type Faults = BTreeMap<String, Vec<String>>;

/// A new version of a source. It is compiled by itself, but not yet together with the other sources.
#[derive(Debug, Clone)]
pub(crate) enum Offer {
    /// Rules.
    Rules(Arc<Rules>),
    /// All zones.
    Zones(Arc<[ZoneSource]>),
    /// The keys of all signed zones.
    Keys(Arc<[ZoneKeys]>),
    /// The GeoIP data.
    Places(Arc<Places>),
}

/// A kind of file from which the owner gets versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FileKind {
    /// The rules document.
    Rules,
    /// The zone files.
    Zones,
    /// The keys of signed zones.
    Keys,
    /// The GeoIP database.
    Geoip,
}

impl FileKind {
    /// All sources.
    pub(crate) const ALL: [Self; 4] = [Self::Rules, Self::Zones, Self::Keys, Self::Geoip];
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Rules => "rules",
            Self::Zones => "zones",
            Self::Keys => "keys",
            Self::Geoip => "GeoIP database",
        })
    }
}

impl Offer {
    /// The source of this version.
    #[must_use]
    pub(crate) fn source(&self) -> FileKind {
        match self {
            Self::Rules(_) => FileKind::Rules,
            Self::Zones(_) => FileKind::Zones,
            Self::Keys(_) => FileKind::Keys,
            Self::Places(_) => FileKind::Geoip,
        }
    }
}

type Reply = oneshot::Sender<Result<Durability, OverrideError>>;

/// What became of each source's versions, and what is wrong now. `/v1/rules` and the metrics show it beside the
/// snapshot.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    /// The rules document.
    pub rules: SourceStatus,
    /// The zone files.
    pub zones: SourceStatus,
    /// The keys of signed zones.
    pub keys: SourceStatus,
    /// The GeoIP database.
    pub geoip: SourceStatus,
    /// Probes that succeeded, since the start.
    pub probes_passed: u64,
    /// Probes that failed, since the start.
    pub probes_failed: u64,
    /// How many times signatures were renewed, since the start.
    pub renewals: u64,
    /// The last failure to renew signatures; `None` after a renewal succeeded. An alarm.
    pub not_renewed: Option<Failure>,
    /// The errors of each zone whose files can't be served, by the zone's name. The last good version of such a zone is
    /// served, if there is one.
    pub zones_failing: BTreeMap<String, Vec<String>>,
    /// The last failure to write to the state directory; `None` once everything is written.
    pub not_persisted: Option<Failure>,
    /// The revision of rules that were accepted, but wait for the first results of new monitors.
    pub awaited_revision: Option<u64>,
    /// The last rules document that was refused or ignored.
    pub refused_rules: Option<RefusedRules>,
    /// How many times the owner panicked and continued. The change that it was handling then may be lost.
    pub panics: u64,
    /// Warnings about content that is served but probably not meant.
    pub warnings: Arc<[String]>,
}

/// What became of one source's versions.
#[derive(Debug, Clone, Default)]
pub(crate) struct SourceStatus {
    /// Versions accepted, including the first.
    pub accepted: u64,
    /// Versions refused.
    pub refused: u64,
    /// Versions ignored because their revision is older.
    pub ignored: u64,
    /// When the version in service was accepted.
    pub accepted_at: Option<Timestamp>,
    /// Why the version last offered isn't in service; `None` if it is. An alarm.
    pub last_error: Option<Failure>,
}

/// A rules document that the owner didn't accept, and why.
#[derive(Debug, Clone)]
pub(crate) struct RefusedRules {
    /// The document. Compare the pointer, because another document may have the same content. The pointer is weak, so
    /// that it doesn't keep the document in memory.
    pub document: Weak<Rules>,
    /// Every error, with its place and how to mend it.
    pub errors: Vec<String>,
}

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The time of the failure.
    pub at: Timestamp,
    /// Every error, with its place and how to mend it.
    pub errors: Vec<String>,
}

impl Status {
    /// The status of one source.
    #[must_use]
    pub(crate) fn of(&self, source: FileKind) -> &SourceStatus {
        match source {
            FileKind::Rules => &self.rules,
            FileKind::Zones => &self.zones,
            FileKind::Keys => &self.keys,
            FileKind::Geoip => &self.geoip,
        }
    }

    /// [`Status::of`], to change it.
    fn of_mut(&mut self, source: FileKind) -> &mut SourceStatus {
        match source {
            FileKind::Rules => &mut self.rules,
            FileKind::Zones => &mut self.zones,
            FileKind::Keys => &mut self.keys,
            FileKind::Geoip => &mut self.geoip,
        }
    }
}

/// Where an override is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Durability {
    /// In the state directory: a restart keeps it.
    Persisted,
    /// In memory only, for this reason.
    UntilRestart(String),
}

/// Why an override was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OverrideError {
    /// No such region or endpoint.
    #[error("{0} is no region or endpoint of the rules; use one of their names")]
    Unknown(Overridden),
    /// The status to force is `unknown`.
    #[error("status must be \"up\" or \"down\"")]
    NoStatus,
    /// Its end has passed already.
    #[error("until ({0}) lies in the past; name a time to come")]
    Ended(Timestamp),
    /// Fences would be left with fewer regions than their guards keep.
    #[error("{}", .0.join("; "))]
    LeavesTooFew(Vec<String>),
    /// Nothing to delete.
    #[error("{0} has no override that came by the API; one that stands in the rules document is ended there")]
    NotForced(Overridden),
    /// The server is shutting down, or a panic lost the request.
    #[error("the server is shutting down or failed at it; look whether the override is there, else ask again")]
    Stopped,
}

impl Handle {
    /// The current snapshot, for as long as one query takes. Don't hold it across an `await`: use
    /// [`Handle::snapshot_owned`].
    #[must_use]
    pub(crate) fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.live.load()
    }

    /// The current snapshot, to keep.
    #[must_use]
    pub(crate) fn snapshot_owned(&self) -> Arc<Snapshot> {
        self.live.load_full()
    }

    /// A cache of the current snapshot, for a thread that asks again and again. Each call only checks whether there is
    /// a newer one.
    pub(crate) fn snapshots(&self) -> Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>> {
        Cache::new(Arc::clone(&self.live))
    }

    /// The status of all sources.
    #[must_use]
    pub(crate) fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status.borrow())
    }

    /// The long-lived tasks of this process, the owner among them.
    #[must_use]
    pub(crate) fn tasks(&self) -> &Arc<Tasks> {
        &self.tasks
    }

    /// The parts of quotas that edge Workers may spend (leases).
    pub(crate) fn leases(&self) -> &Leases {
        &self.leases
    }

    /// What this node knows of the other nodes of its fleet.
    pub(crate) fn fleet(&self) -> &FleetStatus {
        &self.fleet
    }

    /// A receiver that gets every change of the status from now on.
    pub(crate) fn follow_status(&self) -> watch::Receiver<Arc<Status>> {
        self.status.clone()
    }

    /// The load that edge Workers observed and reported.
    pub(crate) fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Waits until everything is written to the state directory, for at most `limit`.
    pub(crate) fn finish_keeping(&self, limit: Duration) {
        if let Some(keeper) = &self.keeper {
            keeper.finish(limit);
        }
    }

    /// Stops writing to the state directory, because another process takes it over.
    pub(crate) fn stop_keeping(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.close();
        }
    }

    /// The time, by the owner's clock.
    #[must_use]
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The owner's clock.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Waits until `wanted` returns true. Calls it after every change of the snapshot or the status. `false` if the
    /// owner ends first.
    #[cfg(test)]
    pub(crate) async fn wait_until(&self, mut wanted: impl FnMut(&Snapshot, &Status) -> bool) -> bool {
        let mut status = self.status.clone();
        status.wait_for(|status| wanted(&self.live.load(), status)).await.is_ok()
    }

    /// Offers a new version of a source. The owner accepts, refuses or ignores it; the status tells which.
    pub(crate) async fn offer(&self, offer: Offer) {
        // The owner ends only with the program.
        let _ = self.changes.send(Change::Offer(offer)).await;
    }

    /// `Handle::offer` from a thread that may wait; `false` if the owner is gone.
    pub(crate) fn offer_from_thread(&self, offer: Offer) -> bool {
        self.changes.blocking_send(Change::Offer(offer)).is_ok()
    }

    /// Reports everything that is wrong with the files of a source. The last good version stays in service. `false` if
    /// the owner is gone.
    pub(crate) fn report_faults_from_thread(&self, source: FileKind, faults: Faults) -> bool {
        self.changes.blocking_send(Change::Faults(source, faults)).is_ok()
    }

    /// Gives the owner a health report of another node that arrived just now.
    pub(crate) async fn hear(&self, report: Box<HealthReport>) {
        // The owner ends only with the program.
        let _ = self.changes.send(Change::PeerReport(report)).await;
    }

    /// Hands `write` to the keeper, which calls it with the state directory. Does nothing if no state directory is
    /// configured.
    pub(crate) fn keep(&self, kind: Kind, write: Write) {
        if let Some(keeper) = &self.keeper {
            keeper.keep(kind, write);
        }
    }

    /// Forces the status of a region or an endpoint. Queries see it when this returns.
    ///
    /// # Errors
    /// When the region or endpoint isn't in the rules, the status is unknown, the end has passed, or a guard (the
    /// number of regions that a fence must keep) forbids it.
    pub(crate) async fn set_override(&self, of: Overridden, forced: Forced) -> Result<Durability, OverrideError> {
        self.ask(|reply| Change::SetOverride { of, forced, insists: false, reply }).await
    }

    /// Like [`Handle::set_override`], but ignores guards.
    ///
    /// # Errors
    /// When the region or endpoint isn't in the rules, the status is unknown, or the end has passed.
    pub(crate) async fn insist_on_override(&self, of: Overridden, forced: Forced) -> Result<Durability, OverrideError> {
        self.ask(|reply| Change::SetOverride { of, forced, insists: true, reply }).await
    }

    /// Ends an override that came by the API. Queries see it when this returns.
    ///
    /// # Errors
    /// When the region or endpoint has no such override.
    pub(crate) async fn delete_override(&self, of: Overridden) -> Result<Durability, OverrideError> {
        self.ask(|reply| Change::DeleteOverride { of, reply }).await
    }

    /// Begins a drill, or goes on with one. Queries see it when this returns. Whoever asks has looked whether it may
    /// begin.
    ///
    /// # Errors
    /// Why it doesn't; `None` if the server is shutting down.
    pub(crate) async fn drill(&self, wanted: Wanted) -> Result<DrillRecord, Option<Refusal>> {
        let (reply, answer) = oneshot::channel();
        self.changes.send(Change::Drill { wanted, reply }).await.map_err(|_| None)?;
        answer.await.map_err(|_| None)?.map_err(Some)
    }

    /// Ends the drill of this name: the given run of it, whether or not this node knows of it, or else the one that is
    /// under way. Queries see it when this returns. `None` if there is none.
    pub(crate) async fn end_drill(&self, name: &str, run: Option<Run>, why: &str) -> Option<DrillRecord> {
        let (reply, answer) = oneshot::channel();
        let change = Change::EndDrill { name: name.to_owned(), run, why: why.to_owned(), reply };
        self.changes.send(change).await.ok()?;
        answer.await.ok()?
    }

    /// Sends a change and waits for the owner's reply.
    async fn ask(&self, change: impl FnOnce(Reply) -> Change) -> Result<Durability, OverrideError> {
        let (reply, answer) = oneshot::channel();
        self.changes.send(change(reply)).await.map_err(|_| OverrideError::Stopped)?;
        answer.await.map_err(|_| OverrideError::Stopped)?
    }
}
