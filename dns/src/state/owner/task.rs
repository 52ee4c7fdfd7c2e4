//! The owner's loop. Takes one event at a time, changes the state, and publishes a new snapshot if the event
//! changed anything.
//!
//! The owner takes the versions of sources one by one, in the order in which they arrive. Each version is compiled
//! together with the other sources on another thread; the result is a [`World`]. The new world waits until its new
//! monitors have first results, and then replaces the one in service. Probes and overrides continue meanwhile.

mod compile;
mod drills;
mod faults;
mod overrides;
mod resign;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bailiwick_rules::drill::kept::KeptDrill;
use bailiwick_rules::fleet::{Agreed, Overrides};
use bailiwick_rules::health::Forced;
use bailiwick_rules::id::Overridden;
use bailiwick_rules::report::OverrideRecord;
use bailiwick_rules::table::Revision;
use bailiwick_rules::time::{Millis, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep, sleep_until};

use bailiwick_host::system::clock::Clock;
use bailiwick_host::system::tasks::{Backoff, Panicked, Pulse, Tasks, catching_panics};
use compile::finished;
pub(crate) use faults::faults_of;

use super::monitors::{Assignment, Monitors};
use super::planner::Planner;
use super::voting::{self, Voting};
use super::{Change, Faults, FileKind, Handle, Offer, Status};
use crate::state::fleet_status::FleetStatus;
use crate::state::keeper::{Attempt, Keeper};
use crate::state::leases::Leases;
use crate::state::observed::Observed;
use crate::state::probe::{LoadResult, NodeContext, ProbeResult, Prober, Probing, ReleaseResult, ReplicaResult};
use crate::state::snapshot::{Health, RejectedZone, Snapshot, World, ZoneSource};
use crate::state::store::{Kind, Store};
use crate::zone::ZoneError;

/// How many changes and results may wait for the owner.
const CHANNEL_CAPACITY: usize = 1024;
/// A new world waits for the first result of a probe for the probe's timeout and this long in addition. After that the
/// monitor counts as unknown.
const GRACE: Duration = Duration::from_secs(2);
/// The first pause before checking whether a replaced world is still in use. Each further pause is twice as long. A
/// thread that answers queries holds a world for about this time.
const FIRST_RELEASE_CHECK: Duration = Duration::from_millis(100);
/// For how long readings of loads and replicas are gathered before they are published together.
const TOGETHER: Millis = Millis(1_000);
/// The owner reads the clock at least this often, because the system's clock may be set.
const LONGEST_SLEEP: Millis = Millis(60_000);
/// The owner's loop takes a turn at least this often, so that the health of tasks shows that it runs.
const MAX_TURN: Duration = Duration::from_secs(2);
/// An owner that made no turn for this long counts as stalled.
const STALLED_AFTER: Duration = Duration::from_secs(20);

/// The state that the owner starts with.
#[derive(Debug)]
pub(crate) struct InitialState {
    /// The node's name.
    pub(crate) node: String,
    /// Rules, zones, keys and GeoIP data.
    pub(crate) world: World,
    /// The status of the sources of the world.
    pub(crate) status: Status,
    /// The state directory, if one is configured.
    pub(crate) store: Option<Store>,
    /// Overrides read from the state directory.
    pub(crate) overrides: BTreeMap<Overridden, Forced>,
    /// The overrides of all nodes of the fleet, as the state directory kept them.
    pub(crate) fleet_overrides: Vec<OverrideRecord>,
    /// What the voters (nodes that vote on health) agreed on before the restart.
    pub(crate) agreed: Agreed,
    /// What is wrong with the files.
    pub(crate) faults: BTreeMap<FileKind, Faults>,
    /// Zones that don't fit the rules or keys in service, and why.
    pub(crate) rejected: Faults,
    /// Versions that don't fit the other sources. They are tried again when another source changes.
    pub(crate) set_aside: Vec<Offer>,
}

/// Starts the keeper, the thread that writes to the state directory.
fn start_keeper(store: Store, attempts: mpsc::UnboundedSender<Attempt>) -> Option<Keeper> {
    let failed = |error: &std::io::Error| {
        tracing::error!(%error, "nothing is kept in state_dir: the system gives no thread");
    };
    Keeper::start(store, attempts).inspect_err(failed).ok()
}

/// Starts the owner and waits for the first round of probes.
pub(crate) async fn spawn<P: Prober>(initial: InitialState, prober: P, clock: Clock) -> Handle {
    let (changes, to_take) = mpsc::channel(CHANNEL_CAPACITY);
    let (results, to_record) = mpsc::channel(CHANNEL_CAPACITY);
    let (loads, to_read) = mpsc::channel(CHANNEL_CAPACITY);
    let (replicas, to_compare) = mpsc::channel(CHANNEL_CAPACITY);
    let (releases, to_tell_apart) = mpsc::channel(CHANNEL_CAPACITY);
    let (ready, is_ready) = oneshot::channel();
    let observed = Observed::default();
    let world = Arc::new(initial.world);
    let node: Arc<str> = initial.node.into();
    let node_context = NodeContext { clock: clock.clone(), node: Arc::clone(&node), observed: observed.clone() };
    let mut monitors = Monitors::new(Probing::new(prober, results, loads, replicas, releases, node_context));
    let assignment = monitors.assign(&world.rules().table);
    let all_overrides = Overrides::restored(initial.fleet_overrides, initial.overrides, &node);
    let overrides = all_overrides.in_force(clock.now());
    let mut voting = Voting::new(Arc::clone(&node), initial.agreed);
    let health = see_all((&mut monitors, &mut voting), &world, &assignment, &overrides, clock.now());
    let snapshot = Snapshot::new(Arc::clone(&world), health, clock.now(), None);
    let live = Arc::new(ArcSwap::from_pointee(snapshot));
    let (status, watched) = watch::channel(Arc::new(initial.status.clone()));
    let tasks = Arc::new(Tasks::default());
    let (attempts, to_note) = mpsc::unbounded_channel();
    let keeper = initial.store.and_then(|store| start_keeper(store, attempts));
    let handle = keeper.as_ref().map(Keeper::handle);
    let owner = Owner {
        live: Arc::clone(&live),
        status_out: status,
        status: initial.status,
        clock: clock.clone(),
        pulse: tasks.beating("owner", true, STALLED_AFTER),
        keeper,
        not_kept: BTreeMap::new(),
        node,
        overrides,
        all_overrides,
        drill: KeptDrill::default(),
        monitors,
        voting,
        current: Arranged { world: Arc::clone(&world), assignment: Assignment::default() },
        waiting: None,
        queue: VecDeque::new(),
        job: None,
        renew_again: Timestamp(i64::MIN),
        loads_due: None,
        planner: Planner::new(observed.clone()),
        set_aside: initial.set_aside,
        faults: initial.faults,
        rejected: BTreeMap::from([(FileKind::Zones, initial.rejected)]),
        kept_zones: Arc::default(),
        ready: Some(ready),
    };
    let (replicas, releases) = (to_compare, to_tell_apart);
    let inbox = Inbox { changes: to_take, results: to_record, loads: to_read, replicas, releases, attempts: to_note };
    tokio::spawn(owner.run(Arranged { world, assignment }, inbox));
    // If the owner ended already, the next request to it fails.
    let _ = is_ready.await;
    let (leases, fleet) = (Leases::default(), FleetStatus::default());
    Handle { live, status: watched, changes, clock, tasks, observed, leases, fleet, keeper: handle }
}

/// A world with the monitors that its rules name.
#[derive(Debug)]
struct Arranged {
    world: Arc<World>,
    assignment: Assignment,
}

/// A world that was accepted and waits for the first results of its monitors.
#[derive(Debug)]
struct Waiting {
    arranged: Arranged,
    /// When the world is put in service even if results are missing.
    deadline: Instant,
}

/// A world that is being built.
struct Job {
    work: Work,
    compiled: JoinHandle<Result<BuiltWorld, Vec<ZoneError>>>,
}

/// A world that was built, and the zones whose new version was rejected. The world has the old version of those zones.
struct BuiltWorld {
    world: World,
    rejected: Vec<RejectedZone>,
}

impl From<World> for BuiltWorld {
    fn from(world: World) -> Self {
        Self { world, rejected: Vec::new() }
    }
}

/// Whether the owner continues after a turn.
enum Turn {
    Continue,
    Stop,
}

/// Why a world is being built.
enum Work {
    /// A new version of a source is compiled with the other sources.
    Version(Offer),
    /// Signatures grow old, or a key takes effect.
    Renewal,
}

/// What the owner receives.
struct Inbox {
    changes: mpsc::Receiver<Change>,
    results: mpsc::Receiver<ProbeResult>,
    loads: mpsc::Receiver<LoadResult>,
    replicas: mpsc::Receiver<ReplicaResult>,
    releases: mpsc::Receiver<ReleaseResult>,
    attempts: mpsc::UnboundedReceiver<Attempt>,
}

/// All mutable state of the server.
struct Owner<P> {
    live: Arc<ArcSwap<Snapshot>>,
    status_out: watch::Sender<Arc<Status>>,
    status: Status,
    clock: Clock,
    pulse: Pulse,
    /// Writes to the state directory, if there is one.
    keeper: Option<Keeper>,
    /// What couldn't be written to the state directory yet, and why.
    not_kept: BTreeMap<Kind, String>,
    /// This node's name.
    node: Arc<str>,
    /// The overrides in force that came by the API of any node.
    overrides: BTreeMap<Overridden, Forced>,
    /// All known overrides: those of this node, those of other nodes, and those that were ended before their time.
    all_overrides: Overrides,
    /// The drill of the fleet.
    drill: KeptDrill,
    monitors: Monitors<P>,
    voting: Voting,
    current: Arranged,
    waiting: Option<Waiting>,
    queue: VecDeque<Offer>,
    job: Option<Job>,
    /// When signatures may be renewed again.
    renew_again: Timestamp,
    /// When the readings of loads and replicas that aren't published yet will be published. `None` if there are none.
    loads_due: Option<Timestamp>,
    planner: Planner,
    /// Versions that didn't fit the other sources. They are tried again when another source changes.
    set_aside: Vec<Offer>,
    /// What is wrong with the files of each source.
    faults: BTreeMap<FileKind, Faults>,
    /// What is wrong with the last compiled version of each source.
    rejected: BTreeMap<FileKind, Faults>,
    /// The zones last given to the keeper.
    kept_zones: Arc<[ZoneSource]>,
    /// Notified after the first swap.
    ready: Option<oneshot::Sender<()>>,
}

impl<P: Prober> Owner<P> {
    /// Runs until every [`Handle`] is gone. If a turn panics, its event is lost, and the next turn follows.
    async fn run(mut self, first: Arranged, mut inbox: Inbox) {
        FileKind::ALL.into_iter().for_each(|source| self.sum_up(source));
        self.await_first_results(first);
        let mut backoff = Backoff::default();
        loop {
            match catching_panics(self.turn(&mut inbox)).await {
                Ok(Turn::Continue) => {
                    backoff.reset();
                    self.pulse.beat();
                }
                Ok(Turn::Stop) => return,
                Err(Panicked) => {
                    self.pulse.panicked();
                    self.status.panics += 1;
                    self.publish_status();
                    let pause = backoff.next_pause();
                    tracing::error!("the owner of health and reloads goes on in {} ms", pause.as_millis());
                    sleep(pause).await;
                }
            }
        }
    }

    /// Takes one event.
    async fn turn(&mut self, inbox: &mut Inbox) -> Turn {
        self.swap_if_due();
        self.renew_if_due();
        let wake = self.next_wake();
        tokio::select! {
            Some(result) = inbox.results.recv() => {
                self.record(result);
                while let Ok(result) = inbox.results.try_recv() {
                    self.record(result);
                }
                self.publish();
            }
            Some(result) = inbox.loads.recv() => {
                let mut is_news = self.record_load(result);
                while let Ok(result) = inbox.loads.try_recv() {
                    is_news |= self.record_load(result);
                }
                if is_news {
                    self.publish();
                }
            }
            Some(result) = inbox.replicas.recv() => {
                let mut is_news = self.record_replica(result);
                while let Ok(result) = inbox.replicas.try_recv() {
                    is_news |= self.record_replica(result);
                }
                if is_news {
                    self.publish();
                }
            }
            Some(result) = inbox.releases.recv() => {
                if self.record_release(result) {
                    self.publish();
                }
            }
            change = inbox.changes.recv() => match change {
                Some(change) => self.take(change),
                // Every handle is gone.
                None => return Turn::Stop,
            },
            Some(attempt) = inbox.attempts.recv() => self.note(attempt),
            (work, built) = finished(&mut self.job) => self.take_built(work, built),
            () = deadline(self.waiting.as_ref().map(|waiting| waiting.deadline)) => {}
            () = sleep(wake.to_std()) => self.tick(),
            () = sleep(MAX_TURN) => {}
        }
        Turn::Continue
    }

    /// Takes a probe's result.
    fn record(&mut self, result: ProbeResult) {
        let places = (&self.current.world.rules().table, &self.current.assignment);
        let passed = self.monitors.record(result, self.clock.now(), places);
        self.status.probes_passed += u64::from(passed == Some(true));
        self.status.probes_failed += u64::from(passed == Some(false));
    }

    /// Records a reading of a load. Returns whether it has to be published at once. Many readings arrive each second,
    /// so the others are published together after [`TOGETHER`].
    fn record_load(&mut self, result: LoadResult) -> bool {
        let now = self.clock.now();
        self.loads_due.get_or_insert(now.after(TOGETHER));
        let places = (&self.current.world.rules().table, &self.current.assignment);
        self.monitors.record_load(result, now, places)
    }

    /// Records a reading of a replica. Returns whether it has to be published at once. As with loads, mere changes of
    /// the lag are published together.
    fn record_replica(&mut self, result: ReplicaResult) -> bool {
        let now = self.clock.now();
        self.loads_due.get_or_insert(now.after(TOGETHER));
        let places = (&self.current.world.rules().table, &self.current.assignment);
        self.monitors.record_replica(result, now, places)
    }

    /// Records what an endpoint says that it runs. Returns whether it has to be published.
    fn record_release(&mut self, result: ReleaseResult) -> bool {
        let places = (&self.current.world.rules().table, &self.current.assignment);
        self.monitors.record_release(result, self.clock.now(), places)
    }

    /// Takes a change.
    fn take(&mut self, change: Change) {
        match change {
            Change::Offer(offer) => {
                let source = offer.source();
                // Only the latest version of a source is needed.
                self.set_aside.retain(|other| other.source() != source);
                self.queue.retain(|other| other.source() != source);
                self.queue.push_back(offer);
                self.compile_next();
            }
            Change::Faults(source, faults) => self.note_faults(source, faults),
            Change::SetOverride { of, forced, insists, reply } => match self.set_override(of, forced, insists) {
                Ok(()) => self.keep_overrides(Some(reply)),
                Err(error) => _ = reply.send(Err(error)), // the requester may have gone
            },
            Change::DeleteOverride { of, reply } => match self.delete_override(&of) {
                Ok(()) => self.keep_overrides(Some(reply)),
                Err(error) => _ = reply.send(Err(error)),
            },
            // The requester may have gone.
            Change::Drill { wanted, reply } => _ = reply.send(self.ask_drill(&wanted)),
            Change::EndDrill { name, run, why, reply } => {
                _ = reply.send(self.end_drill((&name, run.as_ref()), &why));
            }
            Change::PeerReport(report) => self.hear(report),
            #[cfg(test)]
            Change::Panic => panic!("for the test"),
        }
    }

    /// The last accepted world. The next version is compiled with it.
    fn accepted(&self) -> &Arc<World> {
        self.waiting.as_ref().map_or(&self.current.world, |waiting| &waiting.arranged.world)
    }

    /// Makes a new snapshot and swaps it in.
    fn publish(&mut self) {
        self.loads_due = None;
        let (now, before) = (self.clock.now(), self.live.load_full());
        let see = (&mut self.monitors, &mut self.voting);
        let mut health = see_all(see, &self.current.world, &self.current.assignment, &self.overrides, now);
        health.hold_back(&self.current.world.rules().table, &self.all_overrides.held_back(now));
        self.see_drill(&mut health, now);
        health.shares = self.planner.shares(&self.current.world, &health, now);
        health.planned = self.planner.numbers();
        if self.is_in_fleet() {
            health.override_records = self.all_overrides.records();
        }
        self.live.store(Arc::new(Snapshot::new(Arc::clone(&self.current.world), health, now, Some(&before))));
        self.publish_status();
        if let Some(agreed) = self.voting.changed_agreement() {
            let _ = self.keep(Kind::Agreed, move |store| store.keep_agreed(&agreed)); // the keeper reports failures
        }
    }

    /// Publishes the status.
    fn publish_status(&self) {
        self.status_out.send_replace(Arc::new(self.status.clone()));
    }

    /// Applies changes that come with time alone: overrides end, TTLs shrink before such an end, and monitors without
    /// results go stale.
    fn tick(&mut self) {
        let over = self.all_overrides.run_out(self.clock.now());
        for (of, forced) in &over {
            let (region, endpoint) = (&of.region, of.endpoint_name());
            tracing::info!(json.event = "override_ended", %region, endpoint, json.reason = forced.reason,
                "override ended");
        }
        self.overrides = self.all_overrides.in_force(self.clock.now());
        self.publish();
        if !over.is_empty() {
            self.keep_overrides(None);
        }
    }

    /// How long until time alone changes something.
    fn next_wake(&self) -> Millis {
        let (now, snapshot) = (self.clock.now(), self.live.load());
        let end = self.overrides.values().map(|forced| forced.until).min();
        let voted = self.current.world.rules().table.fleet().map(|_| now.after(voting::TURN));
        let times = snapshot
            .next_change(now)
            .into_iter()
            .chain(end)
            .chain(self.all_overrides.next_release())
            .chain(self.drill.running(now).map(|record| record.until))
            .chain(self.monitors.next_stale(now));
        let next =
            times.chain(self.next_renewal(now)).chain(self.loads_due).chain(self.planner.due()).chain(voted).min();
        next.map_or(LONGEST_SLEEP, |next| next.since(now).max(Millis(1)).min(LONGEST_SLEEP))
    }
}

/// Health of all regions by this node's probes. If the rules name voters, what the voters agree on replaces it.
fn see_all<P: Prober>(
    (monitors, voting): (&mut Monitors<P>, &mut Voting),
    world: &World,
    assignment: &Assignment,
    overrides: &BTreeMap<Overridden, Forced>,
    now: Timestamp,
) -> Health {
    let table = &world.rules().table;
    let mut health = monitors.health(table, assignment, overrides, now);
    voting.fold(table, &mut health, monitors.is_blind(), now);
    health.since = monitors.note_statuses(table, &health.regions, now);
    health
}

/// Waits until `at`. Never returns if `at` is `None`.
async fn deadline(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Warnings about content that is served but probably not meant.
pub(crate) fn warnings_of(world: &World, now: Timestamp) -> Arc<[String]> {
    let of_rules = world.rules().table.warnings(now);
    of_rules.iter().map(ToString::to_string).chain(world.warnings().iter().cloned()).collect()
}

/// The message for a document that isn't accepted because its revision is lower.
pub(crate) fn older(old: &Revision, new: &Revision) -> String {
    format!(
        "/revision: revision {} is older than revision {}, which is in service; it is ignored. To roll back, publish \
         the old content under a higher number",
        new.number, old.number
    )
}

/// The message for another document that isn't accepted because its revision is equal.
pub(crate) fn conflicting(old: &Revision, new: &Revision) -> String {
    format!(
        "/revision: another document with revision {} is in service: {old}, this one is {new}; publish this one under \
         a higher number",
        new.number
    )
}
