//! The monitors that run. Takes the monitors of the rules and the results of their probes, returns health by region.
//! The owner holds the only instance. It also runs the tasks that read loads ([`loads`]), the lag of replicas
//! ([`replicas`]) and the models that endpoints run ([`releases`]).

mod loads;
mod models;
mod releases;
mod replicas;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bailiwick_rules::fleet::blind::BlindnessDetector;
use bailiwick_rules::fleet::pace::interval;
use bailiwick_rules::health::{AddressFamily, AntiFlap, Forced, MonitorState, Reading, RegionHealth, Status};
use bailiwick_rules::id::{EndpointId, Overridden, RegionId};
use bailiwick_rules::probe::{Effect, Verdict};
use bailiwick_rules::rules::{Monitor, Probe};
use bailiwick_rules::steer::{Conditions, Local, effective_status, endpoint_in_force};
use bailiwick_rules::table::{Region, RegionIndex, Table};
use bailiwick_rules::time::{Millis, Timestamp};

use crate::state::probe::{
    LoadResult, MonitorId, Outcome, Places, ProbeResult, Prober, Probing, ReleaseResult, ReplicaResult, Running,
    Targets,
};
use crate::state::snapshot::{ByFamily, Health, MonitorView, Probes};
use loads::{LoadedEndpoint, Loads};
use models::{Meaning, ModelState};
use releases::{Releases, WatchedEndpoint};
use replicas::{Copy, Replicas};

/// All monitors that run. Equal monitors of several endpoints run once.
#[derive(Debug)]
pub(super) struct Monitors<P> {
    probing: Probing<P>,
    entries: BTreeMap<MonitorId, Entry>,
    next: u64,
    loads: Loads,
    replicas: Replicas,
    releases: Releases,
    /// Whether the node's own network connection seems to be down, because most probes fail at once.
    blindness: BlindnessDetector<MonitorId>,
    /// The effective status of each region, and since when it has it.
    since: BTreeMap<RegionId, (Status, Timestamp)>,
}

/// One running monitor.
#[derive(Debug)]
struct Entry {
    monitor: Monitor,
    /// Which addresses the probes try.
    targets: Targets,
    monitored: MonitorState,
    failure: Option<Arc<str>>,
    /// When the monitor's status last changed; `None` before the first result.
    since: Option<Timestamp>,
    probes: Probes,
    last_failure: Option<(Timestamp, Arc<str>)>,
    /// Further state, if the monitor asks a model.
    model: Option<Box<ModelState>>,
    /// The probes run until this is dropped.
    _running: Running,
}

/// The running monitors for one `monitor` field of the rules: none if the field is absent, two if it tests both
/// families of addresses.
type MonitorIds = Vec<MonitorId>;

/// Which running monitors watch which regions and endpoints of one table, that is, of compiled rules.
#[derive(Debug, Default, Clone)]
pub(super) struct Assignment {
    /// By region index: the monitors of the region itself, and the monitors of each of its endpoints.
    regions: Vec<(MonitorIds, Vec<MonitorIds>)>,
    /// The endpoints whose load is read.
    loads: Vec<LoadedEndpoint>,
    /// The copies of replicas.
    copies: Vec<Copy>,
    /// The endpoints that are asked what they run.
    watched_endpoints: Vec<WatchedEndpoint>,
}

impl Assignment {
    /// The ids of all monitors.
    fn ids(&self) -> impl Iterator<Item = MonitorId> {
        self.regions.iter().flat_map(|(own, endpoints)| own.iter().chain(endpoints.iter().flatten()).copied())
    }

    /// The position of the first region that a monitor watches, directly or through an endpoint.
    fn region_of(&self, monitor: MonitorId) -> Option<usize> {
        let is_watched = |(own, endpoints): &(MonitorIds, Vec<MonitorIds>)| {
            own.contains(&monitor) || endpoints.iter().any(|ids| ids.contains(&monitor))
        };
        self.regions.iter().position(is_watched)
    }

    /// The names of the first region that a monitor watches and, if the monitor belongs to an endpoint, of that
    /// endpoint.
    fn watched_by<'t>(&self, table: &'t Table, monitor: MonitorId) -> (Option<&'t str>, Option<&'t str>) {
        for ((own, endpoints), region) in self.regions.iter().zip(table.regions()) {
            let name = Some(region.id.as_str());
            if own.contains(&monitor) {
                return (name, None);
            }
            let at = endpoints.iter().position(|ids| ids.contains(&monitor));
            if let Some((id, _)) = at.and_then(|at| region.endpoints.get(at)) {
                return (name, Some(id.as_str()));
            }
        }
        (None, None)
    }
}

impl Entry {
    /// The effect of a round of probes on the status.
    fn meaning(&mut self, outcome: Outcome, loads: &Loads, begun: Timestamp, now: Timestamp) -> Meaning {
        if let Some(model) = &mut self.model {
            let sources = model.sources.clone();
            return model.take(&outcome, || loads.motion(&sources, begun, now), now);
        }
        let failure = if let Outcome::Failed(failure) = outcome { Some(Arc::from(failure.message)) } else { None };
        let effect = if failure.is_some() { Effect::Failure } else { Effect::Success };
        Meaning { effect, verdict: None, failure }
    }

    /// Counts a round, which is one probe, or the decision to send none. Returns whether the round succeeded; `None` if
    /// it tells neither success nor failure.
    fn count(&mut self, meaning: &Meaning, now: Timestamp) -> Option<bool> {
        if meaning.effect == Effect::None && meaning.verdict.is_none() {
            return None; // no probe was sent, so the last failure still stands
        }
        self.failure.clone_from(&meaning.failure);
        match (meaning.effect, &meaning.failure) {
            (Effect::Success, _) => {
                self.probes.passed += 1;
                Some(true)
            }
            (Effect::None, _) => None,
            (Effect::Doubt | Effect::Failure, failure) => {
                self.probes.failed += 1;
                self.last_failure = failure.clone().map(|failure| (now, failure));
                Some(false)
            }
        }
    }

    /// Whether the last verdict is that the engine is full, and that verdict isn't stale.
    fn is_busy(&self, now: Timestamp) -> bool {
        let verdict = self.model.as_ref().and_then(|model| model.verdict());
        verdict == Some(Verdict::Busy) && !self.monitored.is_stale(now)
    }
}

impl<P: Prober> Monitors<P> {
    /// No monitors yet. `probing` starts them.
    pub(super) fn new(probing: Probing<P>) -> Self {
        let (loads, replicas, releases) = (Loads::default(), Replicas::default(), Releases::default());
        let (entries, blindness, since) = (BTreeMap::new(), BlindnessDetector::default(), BTreeMap::new());
        Self { probing, entries, next: 0, loads, replicas, releases, blindness, since }
    }

    /// Starts every monitor of `table` that doesn't run yet. A running monitor with equal content keeps its state.
    pub(super) fn assign(&mut self, table: &Table) -> Assignment {
        let mut assign = |monitor: &Option<Monitor>| {
            let Some(monitor) = monitor else { return MonitorIds::new() };
            let monitor = &Monitor { interval: interval(monitor.interval, table.fleet()), ..monitor.clone() };
            Targets::of(monitor.family.unwrap_or_default())
                .iter()
                .map(|targets| self.running(monitor, *targets, table.fleet().is_some()))
                .collect()
        };
        let regions = table.regions().iter().map(|region| {
            let own = assign(&region.monitor);
            (own, region.endpoints.iter().map(|(_, endpoint)| assign(&endpoint.monitor)).collect())
        });
        let regions: Vec<(MonitorIds, Vec<MonitorIds>)> = regions.collect();
        let payer = |region: RegionIndex, endpoint: usize| {
            let id = *regions.get(region.get())?.1.get(endpoint)?.first()?;
            Some((id, self.entries.get(&id)?.model.as_ref()?.places.tokens()))
        };
        let watched_endpoints = self.releases.assign(table, &self.probing, payer);
        let (loads, copies) = (self.loads.assign(table, &self.probing), self.replicas.assign(table, &self.probing));
        let assignment = Assignment { regions, loads, copies, watched_endpoints };
        for (id, entry) in &mut self.entries {
            if let Some(model) = &mut entry.model {
                let (places, sources) = models::watched(table, &assignment, *id);
                // A monitor that these rules don't have stays as it was until it is stopped.
                if !places.is_empty() {
                    model.name = models::name_of(assignment.watched_by(table, *id));
                    model.places.set(places);
                    model.sources = sources;
                }
            }
        }
        assignment
    }

    /// The running monitor with this content. Starts it if there is none. If the rules name voters, several nodes probe
    /// the same target. Then `is_spread` is true, and their probes are spread over time.
    fn running(&mut self, monitor: &Monitor, targets: Targets, is_spread: bool) -> MonitorId {
        let is_it = |entry: &Entry| entry.targets == targets && entry.monitor == *monitor;
        if let Some((id, _)) = self.entries.iter().find(|(_, entry)| is_it(entry)) {
            return *id;
        }
        let id = MonitorId(self.next);
        self.next += 1;
        let model = monitor.probe.model().map(|_| Box::<ModelState>::default());
        let places = model.as_ref().map_or_else(Places::default, |model| model.places.clone());
        let entry = Entry {
            monitored: MonitorState {
                machine: AntiFlap::new(monitor.thresholds),
                interval: monitor.interval,
                last_result: None,
            },
            failure: None,
            since: None,
            probes: Probes::default(),
            last_failure: None,
            model,
            _running: self.probing.start(id, monitor.clone(), targets, &places, is_spread),
            monitor: monitor.clone(),
            targets,
        };
        self.entries.insert(id, entry);
        id
    }

    /// Stops every monitor and source that none of these assignments has.
    pub(super) fn keep_only<'a>(&mut self, assignments: impl IntoIterator<Item = &'a Assignment> + Clone) {
        self.loads.keep_only(assignments.clone().into_iter().flat_map(|assignment| &assignment.loads));
        self.replicas.keep_only(assignments.clone().into_iter().flat_map(|assignment| &assignment.copies));
        self.releases.keep_only(assignments.clone().into_iter().flat_map(|assignment| &assignment.watched_endpoints));
        let ids: BTreeSet<MonitorId> = assignments.into_iter().flat_map(Assignment::ids).collect();
        self.entries.retain(|id, _| ids.contains(id));
        self.blindness.keep_only(|id| ids.contains(id));
    }

    /// The longest timeout among monitors and copies without a first result; `None` when all have one.
    pub(super) fn first_result_timeout(&self, assignment: &Assignment) -> Option<Millis> {
        let assigned = assignment.ids().filter_map(|id| self.entries.get(&id));
        let timeouts =
            assigned.filter(|entry| entry.monitored.last_result.is_none()).map(|entry| entry.monitor.timeout);
        timeouts.chain(self.replicas.first_result_timeout(&assignment.copies)).max()
    }

    /// Takes a probe's result, unless its monitor has been stopped meanwhile. Returns whether the probe succeeded;
    /// `None` if it counts as neither success nor failure. `places` are the rules in service and what their monitors
    /// watch, for the log.
    pub(super) fn record(
        &mut self,
        result: ProbeResult,
        now: Timestamp,
        places: (&Table, &Assignment),
    ) -> Option<bool> {
        let Some(entry) = self.entries.get_mut(&result.monitor) else {
            return Some(matches!(result.outcome, Outcome::Passed(_)));
        };
        let before = entry.monitored.machine.status();
        let verdict = entry.model.as_ref().and_then(|model| model.verdict());
        let meaning = entry.meaning(result.outcome, &self.loads, result.begun, now);
        let machine = &mut entry.monitored.machine;
        match meaning.effect {
            Effect::Success => machine.record(true),
            Effect::Failure => machine.record(false),
            Effect::Doubt => machine.record_doubtful_failure(),
            Effect::None => {}
        }
        entry.monitored.last_result = Some(now);
        if let Some(region) = places.1.region_of(result.monitor)
            && meaning.effect != Effect::None
        {
            let success = meaning.effect == Effect::Success;
            self.blindness.record(result.monitor, region, entry.monitored.interval, success, now);
        }
        let passed = entry.count(&meaning, now);
        if let Some(after) = meaning.verdict.filter(|after| verdict != Some(*after)) {
            let name = entry.model.as_ref().map(|model| model.name.as_str()).unwrap_or_default();
            models::log_change(name, (verdict, after), entry.failure.as_deref());
        }
        let after = entry.monitored.machine.status();
        if before != after || entry.since.is_none() {
            entry.since = Some(now);
        }
        let (target, failure) = (target(&entry.monitor, entry.targets), entry.failure.as_deref());
        let (region, endpoint) =
            if before == after { (None, None) } else { places.1.watched_by(places.0, result.monitor) };
        if before != after && after == Status::Down {
            tracing::warn!(
                json.event = "monitor_changed", json.region = region, json.endpoint = endpoint, json.status = %after,
                json.before = %before, json.reason = failure, monitor = target, failure,
                "monitor went from {before} to down"
            );
        } else if before != after {
            tracing::info!(
                json.event = "monitor_changed", json.region = region, json.endpoint = endpoint, json.status = %after,
                json.before = %before, monitor = target,
                "monitor went from {before} to {after}"
            );
        } else if let Some(failure) = failure {
            tracing::debug!(monitor = target, failure, "probe failed; the monitor stays {after}");
        }
        passed
    }

    /// Takes a reading of a load. Returns whether this is the first reading of its source, or whether the source began
    /// or ceased to fail.
    pub(super) fn record_load(&mut self, result: LoadResult, now: Timestamp, places: (&Table, &Assignment)) -> bool {
        self.loads.record(result, now, (places.0, &places.1.loads))
    }

    /// Takes a reading of a replica. Returns whether anything but the lag changed.
    pub(super) fn record_replica(
        &mut self,
        result: ReplicaResult,
        now: Timestamp,
        places: (&Table, &Assignment),
    ) -> bool {
        self.replicas.record(result, now, self.blindness.is_blind(), (places.0, &places.1.copies))
    }

    /// Takes what an endpoint says that it runs. Returns whether a reading came, or whether the source began or ceased
    /// to fail.
    pub(super) fn record_release(
        &mut self,
        result: ReleaseResult,
        now: Timestamp,
        places: (&Table, &Assignment),
    ) -> bool {
        self.releases.record(result, now, (places.0, &places.1.watched_endpoints))
    }

    /// Health at `now`, as this node's probes see it. The caller fills in [`Health::since`] by
    /// [`Monitors::note_statuses`].
    pub(super) fn health(
        &self,
        table: &Table,
        assignment: &Assignment,
        overrides: &BTreeMap<Overridden, Forced>,
        now: Timestamp,
    ) -> Health {
        let (mut regions, mut monitors) = (Vec::new(), Vec::new());
        let mut by_family = self.has_families(assignment).then(ByFamily::default);
        let releases = self.releases.health(table, &assignment.watched_endpoints, now);
        let assigned = assignment.regions.iter().zip(table.regions());
        for (index, ((own, endpoints), region)) in (0..).map(RegionIndex).zip(assigned) {
            let in_force = |endpoint: Option<&EndpointId>| {
                let subject = Overridden { region: region.id.clone(), endpoint: endpoint.cloned() };
                overrides.get(&subject).filter(|forced| forced.until > now).cloned()
            };
            let is_any = |of: &Overridden| of.region == region.id && of.endpoint.is_some();
            let names = || region.endpoints.iter().map(|(id, _)| id);
            let forced_endpoints: Vec<Option<Forced>> = match overrides.keys().any(is_any) {
                true => names().map(|id| in_force(Some(id))).collect(),
                false => Vec::new(),
            };
            let statuses = statuses(table, index, &forced_endpoints, now);
            let copies = self.replicas.health(table, index, &assignment.copies);
            let health_by = |read: &dyn Fn(&MonitorIds) -> Option<Reading>| {
                let of_endpoints: Vec<Option<Reading>> = endpoints.iter().map(read).collect();
                let mut health = RegionHealth::with_forced(read(own), &of_endpoints, &statuses);
                health.forced = in_force(None);
                health.forced_endpoints.clone_from(&forced_endpoints);
                health.replicas.clone_from(&copies);
                health.releases = releases.get(index.get()).cloned().unwrap_or_default();
                health
            };
            regions.push(health_by(&|ids| self.read(ids, Reading::either, now)));
            if let Some(by_family) = &mut by_family {
                by_family.ipv4.push(health_by(&|ids| self.read_family(ids, AddressFamily::Ipv4, now)));
                by_family.ipv6.push(health_by(&|ids| self.read_family(ids, AddressFamily::Ipv6, now)));
                by_family.whole.push(health_by(&|ids| match published(region) {
                    Some(family) => self.read_family(ids, family, now),
                    None => self.read(ids, Reading::both, now),
                }));
            }
            let watched = endpoints.iter().enumerate().map(|(position, ids)| (Some(position), ids));
            for (endpoint, ids) in std::iter::once((None, own)).chain(watched) {
                monitors.extend(ids.iter().filter_map(|id| self.view(*id, index, endpoint, now)));
            }
        }
        let loads = self.loads.views(table, &assignment.loads, |region, endpoint| {
            let of_endpoint = assignment.regions.get(region.get()).and_then(|(_, endpoints)| endpoints.get(endpoint));
            let entries = of_endpoint.into_iter().flatten().filter_map(|id| self.entries.get(id));
            entries.into_iter().any(|entry| entry.is_busy(now))
        });
        let overrides = overrides.clone();
        Health {
            regions,
            by_family: by_family.map(Arc::new),
            monitors,
            loads,
            replicas: self.replicas.views(table, &assignment.copies),
            releases: self.releases.views(&assignment.watched_endpoints),
            overrides,
            ..Health::default()
        }
    }

    /// Whether the node's own network connection seems to be down, because most probes fail at once.
    pub(super) fn is_blind(&self) -> bool {
        self.blindness.is_blind()
    }

    /// Whether any of these monitors distinguishes the families of addresses.
    fn has_families(&self, assignment: &Assignment) -> bool {
        assignment.ids().any(|id| self.entries.get(&id).is_some_and(|entry| entry.targets.tested_family().is_some()))
    }

    /// The reading (status and times) of these monitors. If there is a monitor for each family of addresses, `join`
    /// combines their readings.
    fn read(&self, ids: &MonitorIds, join: fn(Reading, Reading) -> Reading, now: Timestamp) -> Option<Reading> {
        let entries = ids.iter().filter_map(|id| self.entries.get(id));
        entries.map(|entry| entry.monitored.reading(now)).reduce(join)
    }

    /// The reading of these monitors for one family. A monitor that doesn't distinguish families reports the same for
    /// both.
    fn read_family(&self, ids: &MonitorIds, family: AddressFamily, now: Timestamp) -> Option<Reading> {
        let entries = ids.iter().filter_map(|id| self.entries.get(id));
        let mut of_family = entries.filter(|entry| entry.targets.tested_family().is_none_or(|half| half == family));
        of_family.next().map(|entry| entry.monitored.reading(now))
    }

    /// One monitor, as the API and the metrics show it.
    fn view(&self, id: MonitorId, region: RegionIndex, endpoint: Option<usize>, now: Timestamp) -> Option<MonitorView> {
        let entry = self.entries.get(&id)?;
        Some(MonitorView {
            region,
            endpoint,
            family: entry.targets.tested_family(),
            monitored: entry.monitored.clone(),
            failure: entry.failure.clone(),
            since: entry.since.unwrap_or(now),
            probes: entry.probes,
            last_failure: entry.last_failure.clone(),
            model: entry.model.as_ref().map(|model| model.view()),
        })
    }

    /// Notes the effective status of each region. Returns the time since when each region has it, by region index.
    pub(super) fn note_statuses(&mut self, table: &Table, health: &[RegionHealth], now: Timestamp) -> Vec<Timestamp> {
        let conditions = Conditions { health, local: &Local::default(), now };
        let before = std::mem::take(&mut self.since);
        let mut since = Vec::with_capacity(table.regions().len());
        for (index, region) in (0..).map(RegionIndex).zip(table.regions()) {
            let status = effective_status(table, index, &conditions);
            let same_status = before.get(&region.id).filter(|(was, _)| *was == status);
            let at = same_status.map_or(now, |(_, at)| *at);
            self.since.insert(region.id.clone(), (status, at));
            since.push(at);
        }
        since
    }

    /// When the next monitor goes stale, if no result comes before that.
    pub(super) fn next_stale(&self, now: Timestamp) -> Option<Timestamp> {
        let stale_at = |entry: &Entry| {
            let fresh = entry.monitored.last_result.filter(|_| !entry.monitored.is_stale(now))?;
            Some(fresh.after(Millis(3 * entry.monitored.interval.0 + 1)))
        };
        self.entries.values().filter_map(stale_at).min()
    }
}

/// The status that each endpoint of a region is forced to, by position.
fn statuses(table: &Table, region: RegionIndex, by_api: &[Option<Forced>], now: Timestamp) -> Vec<Option<Status>> {
    let by_api = |position: usize| by_api.get(position).and_then(Option::as_ref);
    let forced = |position| endpoint_in_force(table, region, position, by_api(position), now);
    let endpoints = 0..table.region(region).endpoints.len();
    endpoints.map(|position| forced(position).map(|forced| forced.status)).collect()
}

/// The family of the addresses that a region publishes, if it publishes only one.
pub(super) fn published(region: &Region) -> Option<AddressFamily> {
    let answers = region.answers.as_ref()?;
    match (answers.a.is_empty(), answers.aaaa.is_empty()) {
        (false, true) => Some(AddressFamily::Ipv4),
        (true, false) => Some(AddressFamily::Ipv6),
        _ => None,
    }
}

/// The target of a monitor's probes, for logs.
fn target(monitor: &Monitor, targets: Targets) -> String {
    let target = match &monitor.probe {
        Probe::Tcp { address } => address.clone(),
        Probe::Http(probe) => probe.url.to_string(),
        Probe::OpenAi(probe) => probe.http.url.to_string(),
    };
    match targets {
        Targets::Any => target,
        Targets::AnyOf(family) | Targets::AllOf(family) => format!("{target} by {family}"),
    }
}
