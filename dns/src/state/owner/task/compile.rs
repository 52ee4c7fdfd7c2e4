//! Takes an offered version of a source and puts it in service: compiles versions one by one, waits for the first
//! results of new monitors, and swaps the new world (rules, zones, keys and GeoIP data compiled together) in. Called by
//! the turns of the owner's loop.

use std::collections::BTreeMap;
use std::sync::Arc;

use bailiwick_rules::table::Succession;
use bailiwick_rules::time::Millis;
use tokio::time::{Instant, sleep};

use super::faults::without_rejected;
use super::overrides::written_to;
use super::{Arranged, BuiltWorld, FIRST_RELEASE_CHECK, GRACE, Job, LONGEST_SLEEP, Owner, Waiting, Work};
use super::{conflicting, faults_of, older, warnings_of};
use crate::state::owner::{FileKind, Offer};
use crate::state::probe::Prober;
use crate::state::snapshot::{Rules, World};
use crate::state::store::Kind;

impl<P: Prober> Owner<P> {
    /// Begins to compile the next offered version, unless one is being compiled.
    pub(super) fn compile_next(&mut self) {
        while self.job.is_none() {
            let Some(offer) = self.queue.pop_front() else { return };
            if let Offer::Zones(zones) = &offer
                && *zones == *self.accepted().zone_sources()
            {
                self.fits(FileKind::Zones);
                continue;
            }
            if let Offer::Keys(keys) = &offer
                && **keys == **self.accepted().keys()
            {
                self.fits(FileKind::Keys);
                continue;
            }
            if let Offer::Rules(rules) = &offer
                && !self.is_newer(rules)
            {
                continue;
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
                    Err(errors) => without_rejected(&base, &version, now).ok_or(errors),
                }
            });
            self.job = Some(Job { work: Work::Version(offer), compiled });
        }
    }

    /// Whether these rules are newer than the accepted rules. If not, notes why.
    fn is_newer(&mut self, rules: &Arc<Rules>) -> bool {
        let (old, new) = (self.accepted().rules().table.revision(), rules.table.revision());
        match old.succession(&new) {
            Succession::Newer => return true,
            Succession::Same => self.fits(FileKind::Rules),
            Succession::Older => {
                let why = older(&old, &new);
                tracing::warn!(json.event = "rules_ignored", json.revision = new.number, json.reason = why, "{why}");
                self.status.rules.ignored += 1;
                self.answer(rules, [why.clone()].into());
                self.rejected.insert(FileKind::Rules, BTreeMap::from([(String::new(), vec![why])]));
                self.sum_up(FileKind::Rules);
            }
            Succession::Conflict => {
                let why = conflicting(&old, &new);
                self.answer(rules, [why.clone()].into());
                self.refuse(FileKind::Rules, BTreeMap::from([(String::new(), vec![why])]));
            }
        }
        false
    }

    /// Takes the result of a build, and begins the next build.
    pub(super) fn take_built(&mut self, work: Work, built: Result<BuiltWorld, Vec<String>>) {
        match work {
            Work::Version(offer) => self.take_compiled(offer, built),
            Work::Renewal => self.take_renewed(built),
        }
        self.compile_next();
    }

    /// Accepts a compiled version, or sets it aside. Some zones may be accepted while others are set aside.
    fn take_compiled(&mut self, offer: Offer, compiled: Result<BuiltWorld, Vec<String>>) {
        let source = offer.source();
        match compiled {
            Ok(BuiltWorld { world, rejected }) => {
                let status = self.status.of_mut(source);
                status.accepted += 1;
                status.accepted_at = Some(self.clock.now());
                let revision = world.rules().table.revision().number;
                tracing::info!(json.event = "source_accepted", json.source = %source, revision, "new {source} \
                    accepted");
                let assignment = self.monitors.assign(&world.rules().table);
                self.await_first_results(Arranged { world: Arc::new(world), assignment });
                // Versions that didn't fit the other sources before may fit them now.
                let again = self.set_aside.drain(..).filter(|other| other.source() != source);
                self.queue.extend(again.collect::<Vec<_>>());
                match rejected.is_empty() {
                    true => self.fits(source),
                    false => self.set_aside(offer, faults_of(&rejected)),
                }
            }
            Err(errors) => self.set_aside(offer, BTreeMap::from([(String::new(), errors)])),
        }
    }

    /// Lets an accepted world wait for the first results of its monitors. If another world is still waiting, the new
    /// one replaces it, and the other never comes into service.
    pub(super) fn await_first_results(&mut self, arranged: Arranged) {
        self.monitors.keep_only([&self.current.assignment, &arranged.assignment]);
        let timeout = self.monitors.first_result_timeout(&arranged.assignment).unwrap_or(Millis(0));
        self.status.awaited_revision = Some(arranged.world.rules().table.revision().number);
        self.waiting = Some(Waiting { arranged, deadline: Instant::now() + timeout.to_std() + GRACE });
        self.publish_status();
    }

    /// Swaps in the waiting world, if all its monitors have a result or the deadline has passed.
    pub(super) fn swap_if_due(&mut self) {
        let due = |waiting: &mut Waiting| {
            self.monitors.first_result_timeout(&waiting.arranged.assignment).is_none()
                || Instant::now() >= waiting.deadline
        };
        let Some(waiting) = self.waiting.take_if(due) else { return };
        let rules = Arc::clone(waiting.arranged.world.rules());
        let are_kept = self.ready.is_none() && Arc::ptr_eq(&rules, self.current.world.rules());
        let old = std::mem::replace(&mut self.current, waiting.arranged).world;
        self.monitors.keep_only([&self.current.assignment]);
        self.status.awaited_revision = None;
        let before = std::mem::replace(&mut self.status.warnings, warnings_of(&self.current.world, self.clock.now()));
        for warning in self.status.warnings.iter().filter(|warning| !before.contains(warning)) {
            tracing::warn!(json.event = "warning", json.reason = warning, "{warning}");
        }
        self.publish();
        if !Arc::ptr_eq(&old, &self.current.world) {
            tokio::spawn(release(old));
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
                // The start is complete only after its state was written, if that is possible.
                written_to(outcome).await;
                let _ = ready.send(()); // the caller of `spawn` may have given up
            });
        }
    }
}

/// Keeps a replaced world until no other task uses it, then drops it. Dropping a large world takes long, so no thread
/// that answers queries should be the last to hold it.
async fn release(world: Arc<World>) {
    let mut pause = FIRST_RELEASE_CHECK;
    while Arc::strong_count(&world) > 1 {
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_SLEEP.to_std());
    }
    // Nothing waits for the end of the drop.
    drop(tokio::task::spawn_blocking(move || drop(world)));
}

/// Waits until the current build ends, and returns its result. Never returns if nothing is being built.
pub(super) async fn finished(job: &mut Option<Job>) -> (Work, Result<BuiltWorld, Vec<String>>) {
    let Some(running) = job else { return std::future::pending().await };
    let compiled = (&mut running.compiled).await;
    let errors = match compiled {
        Ok(Ok(built)) => Ok(built),
        Ok(Err(errors)) => Err(errors.iter().map(ToString::to_string).collect()),
        Err(panic) => Err(vec![format!("compiling failed by a fault of this program ({panic}); please report it")]),
    };
    match job.take() {
        Some(done) => (done.work, errors),
        None => std::future::pending().await,
    }
}
