//! The owner's loop. Takes one event at a time, changes the state, and publishes a new snapshot if the event
//! changed anything.
//!
//! Versions of sources are taken one by one, in the order they come. Each is compiled together with the other sources,
//! off this task. It then waits for the first results of its new monitors, and is swapped in. Meanwhile probes and
//! overrides go on.

mod faults;
mod overrides;
mod resign;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bailiwick_rules::health::Forced;
use bailiwick_rules::id::Overridden;
use bailiwick_rules::table::{Revision, Succession};
use bailiwick_rules::time::{Millis, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep, sleep_until};

pub(crate) use faults::faults_of;
use faults::without_misfits;
use overrides::heard;

use super::monitors::{Assignment, Monitors};
use super::{Change, Faults, Handle, Offer, Source, Status};
use crate::state::keeper::{Attempt, Keeper};
use crate::state::observed::Observed;
use crate::state::probe::{ProbeResult, Prober, Probing};
use crate::state::snapshot::{Misfit, Snapshot, World, ZoneSource};
use crate::state::store::{Kind, Store};
use crate::system::clock::Clock;
use crate::system::tasks::{Backoff, Panicked, Pulse, Tasks, unwinding};
use crate::zone::ZoneError;

/// How many changes and results may wait for the owner.
const WAITING_ROOM: usize = 1024;
/// How long a first result is awaited beyond its timeout, before the monitor counts as unknown.
const GRACE: Duration = Duration::from_secs(2);
/// When it is first looked whether a world that went out of service is still in use, then after twice as long and so
/// on: a thread that answers holds it for about as long.
const LOOK: Duration = Duration::from_millis(100);
/// The owner looks at the time at least this often, since the system's clock may be set.
const LONGEST_SLEEP: Millis = Millis(60_000);
/// The owner makes a turn at least this often, so that others see that it lives.
const BEAT: Duration = Duration::from_secs(2);
/// An owner that made no turn for so long is taken for stalled.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the owner begins with.
#[derive(Debug)]
pub(crate) struct Beginning {
    /// Rules, zones and geography.
    pub(crate) world: World,
    /// How they were come by.
    pub(crate) status: Status,
    /// Where to keep things.
    pub(crate) store: Option<Store>,
    /// Overrides that were kept.
    pub(crate) overrides: BTreeMap<Overridden, Forced>,
    /// What was wrong with the files.
    pub(crate) faults: BTreeMap<Source, Faults>,
    /// Zones that don't fit the rules or keys in service, and why.
    pub(crate) misfits: Faults,
    /// Versions that don't fit the others, for when one of those changes.
    pub(crate) set_aside: Vec<Offer>,
}

/// Starts the owner and waits for the first round of probes.
pub(crate) async fn spawn<P: Prober>(beginning: Beginning, prober: P, clock: Clock) -> Handle {
    let (changes, to_take) = mpsc::channel(WAITING_ROOM);
    let (results, to_record) = mpsc::channel(WAITING_ROOM);
    let (ready, is_ready) = oneshot::channel();
    let world = Arc::new(beginning.world);
    let mut monitors = Monitors::new(Probing::new(prober, results));
    let assignment = monitors.assign(&world.rules().table);
    let snapshot = Snapshot::new(
        Arc::clone(&world),
        monitors.health(&world.rules().table, &assignment, &beginning.overrides, clock.now()),
        clock.now(),
        None,
    );
    let live = Arc::new(ArcSwap::from_pointee(snapshot));
    let (status, watched) = watch::channel(Arc::new(beginning.status.clone()));
    let tasks = Arc::new(Tasks::default());
    let (attempts, to_note) = mpsc::unbounded_channel();
    let keeper = beginning.store.and_then(|store| {
        let started = Keeper::start(store, attempts);
        started
            .map_err(|error| tracing::error!(%error, "nothing is kept in state_dir: the system gives no thread"))
            .ok()
    });
    let kept = keeper.as_ref().map(Keeper::way);
    let owner = Owner {
        live: Arc::clone(&live),
        told: status,
        status: beginning.status,
        clock: clock.clone(),
        pulse: tasks.beating("owner", true, PATIENCE),
        keeper,
        not_kept: BTreeMap::new(),
        overrides: beginning.overrides,
        monitors,
        current: Arranged { world: Arc::clone(&world), assignment: Assignment::default() },
        waiting: None,
        queue: VecDeque::new(),
        job: None,
        renew_again: Timestamp(i64::MIN),
        set_aside: beginning.set_aside,
        faults: beginning.faults,
        misfits: BTreeMap::from([(Source::Zones, beginning.misfits)]),
        kept_zones: Arc::default(),
        ready: Some(ready),
    };
    let inbox = Inbox { changes: to_take, results: to_record, attempts: to_note };
    tokio::spawn(owner.run(Arranged { world, assignment }, inbox));
    // An owner that ended is noticed by whoever next asks something of it.
    let _ = is_ready.await;
    Handle { live, status: watched, changes, clock, tasks, observed: Observed::default(), kept }
}

/// A world with the monitors it calls for.
#[derive(Debug)]
struct Arranged {
    world: Arc<World>,
    assignment: Assignment,
}

/// A world that was accepted and awaits first results.
#[derive(Debug)]
struct Waiting {
    arranged: Arranged,
    /// When it is swapped in all the same.
    deadline: Instant,
}

/// A world that is being made.
struct Job {
    work: Work,
    compiled: JoinHandle<Result<Made, Vec<ZoneError>>>,
}

/// A world, and the zones of which it has not the version that was offered.
struct Made {
    world: World,
    misfits: Vec<Misfit>,
}

impl From<World> for Made {
    fn from(world: World) -> Self {
        Self { world, misfits: Vec::new() }
    }
}

/// Whether the owner goes on after a turn.
enum Turn {
    Goes,
    IsLast,
}

/// Why a world is being made.
enum Work {
    /// A version is compiled with the others.
    Version(Offer),
    /// Signatures grow old, or the time has come for a key.
    Renewal,
}

/// What comes to the owner.
struct Inbox {
    changes: mpsc::Receiver<Change>,
    results: mpsc::Receiver<ProbeResult>,
    attempts: mpsc::UnboundedReceiver<Attempt>,
}

struct Owner<P> {
    live: Arc<ArcSwap<Snapshot>>,
    told: watch::Sender<Arc<Status>>,
    status: Status,
    clock: Clock,
    pulse: Pulse,
    /// Writes to the state directory, if there is one.
    keeper: Option<Keeper>,
    /// What couldn't be written there yet, and why.
    not_kept: BTreeMap<Kind, String>,
    overrides: BTreeMap<Overridden, Forced>,
    monitors: Monitors<P>,
    current: Arranged,
    waiting: Option<Waiting>,
    queue: VecDeque<Offer>,
    job: Option<Job>,
    /// When signatures may be renewed again.
    renew_again: Timestamp,
    /// Versions that were refused with the others as they were; tried again when one of those changes.
    set_aside: Vec<Offer>,
    /// What is wrong with the files of each source.
    faults: BTreeMap<Source, Faults>,
    /// What is wrong with the version of each source that was last compiled with the others.
    misfits: BTreeMap<Source, Faults>,
    /// The zones last handed in to be kept.
    kept_zones: Arc<[ZoneSource]>,
    /// Told after the first swap.
    ready: Option<oneshot::Sender<()>>,
}

impl<P: Prober> Owner<P> {
    /// Goes on until nobody is left to ask. A turn that panics is the last of nothing: what it was about is lost, the
    /// next one follows.
    async fn run(mut self, first: Arranged, mut inbox: Inbox) {
        Source::ALL.into_iter().for_each(|source| self.sum_up(source));
        self.await_first_results(first);
        let mut backoff = Backoff::default();
        loop {
            match unwinding(self.turn(&mut inbox)).await {
                Ok(Turn::Goes) => {
                    backoff.reset();
                    self.pulse.beat();
                }
                Ok(Turn::IsLast) => return,
                Err(Panicked) => {
                    self.pulse.panicked();
                    self.status.panics += 1;
                    self.tell();
                    let pause = backoff.next();
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
            change = inbox.changes.recv() => match change {
                Some(change) => self.take(change),
                // Nobody is left to ask.
                None => return Turn::IsLast,
            },
            Some(attempt) = inbox.attempts.recv() => self.note(attempt),
            (work, made) = finished(&mut self.job) => self.made(work, made),
            () = deadline(self.waiting.as_ref().map(|waiting| waiting.deadline)) => {}
            () = sleep(wake.to_std()) => self.tick(),
            () = sleep(BEAT) => {}
        }
        Turn::Goes
    }

    fn record(&mut self, result: ProbeResult) {
        let passed = result.outcome.is_ok();
        self.status.probes_passed += u64::from(passed);
        self.status.probes_failed += u64::from(!passed);
        let places = (&self.current.world.rules().table, &self.current.assignment);
        self.monitors.record(result, self.clock.now(), places);
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Offer(offer) => {
                let source = offer.source();
                // Only the latest version of a source is worth anything.
                self.set_aside.retain(|other| other.source() != source);
                self.queue.retain(|other| other.source() != source);
                self.queue.push_back(offer);
                self.compile_next();
            }
            Change::Faults(source, faults) => self.note_faults(source, faults),
            Change::SetOverride { of, forced, reply } => match self.set_override(of, forced) {
                Ok(()) => self.keep_overrides(Some(reply)),
                Err(error) => _ = reply.send(Err(error)), // whoever asked may have gone
            },
            Change::DeleteOverride { of, reply } => match self.delete_override(&of) {
                Ok(()) => self.keep_overrides(Some(reply)),
                Err(error) => _ = reply.send(Err(error)),
            },
            #[cfg(test)]
            Change::Panic => panic!("for the test"),
        }
    }

    /// The world that the next version is compiled with: the one last accepted.
    fn accepted(&self) -> &Arc<World> {
        self.waiting.as_ref().map_or(&self.current.world, |waiting| &waiting.arranged.world)
    }

    /// Begins to compile the next version that is offered, unless one is being compiled.
    fn compile_next(&mut self) {
        while self.job.is_none() {
            let Some(offer) = self.queue.pop_front() else { return };
            if let Offer::Zones(zones) = &offer
                && *zones == *self.accepted().zone_sources()
            {
                self.fits(Source::Zones);
                continue;
            }
            if let Offer::Keys(keys) = &offer
                && **keys == **self.accepted().keys()
            {
                self.fits(Source::Keys);
                continue;
            }
            if let Offer::Rules(rules) = &offer {
                let (old, new) = (self.accepted().rules().table.revision(), rules.table.revision());
                match old.succession(&new) {
                    Succession::Newer => {}
                    Succession::Same => {
                        self.fits(Source::Rules);
                        continue;
                    }
                    Succession::Older => {
                        let why = older(&old, &new);
                        tracing::warn!(
                            json.event = "rules_ignored",
                            json.revision = new.number,
                            json.reason = why,
                            "{why}"
                        );
                        self.status.rules.ignored += 1;
                        self.misfits.insert(Source::Rules, BTreeMap::from([(String::new(), vec![why])]));
                        self.sum_up(Source::Rules);
                        continue;
                    }
                    Succession::Conflict => {
                        let why = BTreeMap::from([(String::new(), vec![conflicting(&old, &new)])]);
                        self.refuse(Source::Rules, why);
                        continue;
                    }
                }
            }
            let base = Arc::clone(self.accepted());
            let (version, now) = (offer.clone(), self.clock.now());
            let compiled = tokio::task::spawn_blocking(move || {
                let (mut rules, mut zones) = (Arc::clone(base.rules()), Arc::clone(base.zone_sources()));
                let (mut keys, mut places) = (Arc::clone(base.keys()), Arc::clone(base.places()));
                match &version {
                    Offer::Rules(new) => rules = Arc::clone(new),
                    Offer::Zones(new) => zones = Arc::clone(new),
                    Offer::Keys(new) => keys = Arc::clone(new),
                    Offer::Places(new) => places = Arc::clone(new),
                }
                match World::build(rules, zones, keys, places, now, Some(&base)) {
                    Ok(world) => Ok(world.into()),
                    Err(errors) => without_misfits(&base, &version, now).ok_or(errors),
                }
            });
            self.job = Some(Job { work: Work::Version(offer), compiled });
        }
    }

    /// A world was made: it is accepted, or what it was made for fails.
    fn made(&mut self, work: Work, made: Result<Made, Vec<String>>) {
        match work {
            Work::Version(offer) => self.compiled(offer, made),
            Work::Renewal => self.renewed(made),
        }
        self.compile_next();
    }

    /// A version was compiled with the others: it is accepted, or set aside. Of zones, some may be accepted and others
    /// not.
    fn compiled(&mut self, offer: Offer, compiled: Result<Made, Vec<String>>) {
        let source = offer.source();
        match compiled {
            Ok(Made { world, misfits }) => {
                let status = self.status.of_mut(source);
                status.accepted += 1;
                status.accepted_at = Some(self.clock.now());
                let revision = world.rules().table.revision().number;
                tracing::info!(json.event = "source_accepted", json.source = %source, revision, "new {source} \
                    accepted");
                let assignment = self.monitors.assign(&world.rules().table);
                self.await_first_results(Arranged { world: Arc::new(world), assignment });
                // What didn't fit the others may fit them now.
                let again = self.set_aside.drain(..).filter(|other| other.source() != source);
                self.queue.extend(again.collect::<Vec<_>>());
                match misfits.is_empty() {
                    true => self.fits(source),
                    false => self.set_aside(offer, faults_of(&misfits)),
                }
            }
            Err(errors) => self.set_aside(offer, BTreeMap::from([(String::new(), errors)])),
        }
    }

    /// Lets an accepted world wait for the first results of its monitors. One that waited before it never comes into
    /// service.
    fn await_first_results(&mut self, arranged: Arranged) {
        self.monitors.keep_only([&self.current.assignment, &arranged.assignment]);
        let timeout = self.monitors.unheard(&arranged.assignment).unwrap_or(Millis(0));
        self.status.awaited_revision = Some(arranged.world.rules().table.revision().number);
        self.waiting = Some(Waiting { arranged, deadline: Instant::now() + timeout.to_std() + GRACE });
        self.tell();
    }

    /// Swaps in the world that waits, once all its monitors have been heard or that took too long.
    fn swap_if_due(&mut self) {
        let due = |waiting: &mut Waiting| {
            self.monitors.unheard(&waiting.arranged.assignment).is_none() || Instant::now() >= waiting.deadline
        };
        let Some(waiting) = self.waiting.take_if(due) else { return };
        let rules = Arc::clone(waiting.arranged.world.rules());
        let are_kept = self.ready.is_none() && Arc::ptr_eq(&rules, self.current.world.rules());
        let old = std::mem::replace(&mut self.current, waiting.arranged).world;
        self.monitors.keep_only([&self.current.assignment]);
        self.status.awaited_revision = None;
        let told = std::mem::replace(&mut self.status.warnings, warnings_of(&self.current.world, self.clock.now()));
        for warning in self.status.warnings.iter().filter(|warning| !told.contains(warning)) {
            tracing::warn!(json.event = "warning", json.reason = warning, "{warning}");
        }
        self.publish();
        if !Arc::ptr_eq(&old, &self.current.world) {
            tokio::spawn(let_go(old));
        }
        let revision = self.current.world.rules().table.revision();
        let generation = self.live.load().generation();
        tracing::info!(json.event = "rules_in_service", revision = revision.number, generation, "in service");
        let outcome = match are_kept {
            true => None,
            false => self.keep(Kind::Rules, move |store| store.keep_rules(&rules.bytes)),
        };
        self.keep_zones();
        if let Some(ready) = self.ready.take() {
            tokio::spawn(async move {
                // A start tells that it is ready once what it began with is kept, if that can be done.
                heard(outcome).await;
                let _ = ready.send(()); // whoever started this may have given up
            });
        }
    }

    /// Makes the snapshot anew and swaps it in.
    fn publish(&mut self) {
        let (now, before) = (self.clock.now(), self.live.load_full());
        let table = &self.current.world.rules().table;
        let health = self.monitors.health(table, &self.current.assignment, &self.overrides, now);
        self.live.store(Arc::new(Snapshot::new(Arc::clone(&self.current.world), health, now, Some(&before))));
        self.tell();
    }

    fn tell(&self) {
        self.told.send_replace(Arc::new(self.status.clone()));
    }

    /// Time has passed: overrides end, TTLs before an end shrink, silent monitors go stale.
    fn tick(&mut self) {
        let (now, before) = (self.clock.now(), self.overrides.len());
        self.overrides.retain(|of, forced| {
            let lasts = forced.until > now;
            if !lasts {
                let (region, endpoint) = (&of.region, of.endpoint_name());
                tracing::info!(json.event = "override_ended", %region, endpoint, json.reason = forced.reason,
                    "override ended");
            }
            lasts
        });
        self.publish();
        if self.overrides.len() != before {
            self.keep_overrides(None);
        }
    }

    /// How long until time alone changes something.
    fn next_wake(&self) -> Millis {
        let (now, snapshot) = (self.clock.now(), self.live.load());
        let end = self.overrides.values().map(|forced| forced.until).min();
        let times = snapshot.next_change(now).into_iter().chain(end).chain(self.monitors.next_stale(now));
        let next = times.chain(self.next_renewal(now)).min();
        next.map_or(LONGEST_SLEEP, |next| next.since(now).max(Millis(1)).min(LONGEST_SLEEP))
    }
}

/// Keeps a world until nobody else does: whoever drops the last of a large one is at it for long, and that shouldn't be
/// a thread that answers.
async fn let_go(world: Arc<World>) {
    let mut pause = LOOK;
    while Arc::strong_count(&world) > 1 {
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_SLEEP.to_std());
    }
    // Nobody needs to know when it is done.
    drop(tokio::task::spawn_blocking(move || drop(world)));
}

/// The world being made, when it is; never, while there is none.
async fn finished(job: &mut Option<Job>) -> (Work, Result<Made, Vec<String>>) {
    let Some(running) = job else { return std::future::pending().await };
    let compiled = (&mut running.compiled).await;
    let errors = match compiled {
        Ok(Ok(made)) => Ok(made),
        Ok(Err(errors)) => Err(errors.iter().map(ToString::to_string).collect()),
        Err(panic) => Err(vec![format!("compiling failed by a fault of this program ({panic}); please report it")]),
    };
    match job.take() {
        Some(done) => (done.work, errors),
        None => std::future::pending().await,
    }
}

async fn deadline(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What is served but probably not meant.
pub(crate) fn warnings_of(world: &World, now: Timestamp) -> Arc<[String]> {
    let of_rules = world.rules().table.warnings(now);
    of_rules.iter().map(ToString::to_string).chain(world.warnings().iter().cloned()).collect()
}

/// Why a document with a lower revision isn't taken.
pub(crate) fn older(old: &Revision, new: &Revision) -> String {
    format!(
        "/revision: revision {} is older than revision {}, which is in service; it is ignored. To roll back, publish \
         the old content under a higher number",
        new.number, old.number
    )
}

/// Why a document with an equal revision isn't taken.
pub(crate) fn conflicting(old: &Revision, new: &Revision) -> String {
    format!(
        "/revision: another document with revision {} is in service: {old}, this one is {new}; publish this one under \
         a higher number",
        new.number
    )
}
