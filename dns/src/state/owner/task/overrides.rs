//! Overrides: statuses of regions and endpoints that operators force until a time. Takes requests of the API and
//! reports of other nodes from the owner's loop, has the overrides written to the state directory, and replies with the
//! outcome. A guard limits how many regions of a service may be taken out of service at the same time.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use bailiwick_rules::fleet::guard::{GuardedFence, guarded_fences, left_short};
use bailiwick_rules::health::{Forced, Status};
use bailiwick_rules::id::Overridden;
use bailiwick_rules::report::HealthReport;
use bailiwick_rules::steer::{Conditions, Local, effective_status};
use bailiwick_rules::table::RegionIndex;
use bailiwick_rules::time::Timestamp;

use super::Owner;
use crate::state::keeper::Attempt;
use crate::state::owner::{Durability, Failure, OverrideError, Reply};
use crate::state::probe::Prober;
use crate::state::store::{Kind, Store};

/// How long a request for an override waits for the state directory.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// Receives the outcome of the first attempt to write; `None` if this node has no state directory.
type Outcome = Option<Receiver<Result<(), String>>>;

impl<P: Prober> Owner<P> {
    /// Forces a status until a time. `insists` ignores guards.
    pub(super) fn set_override(&mut self, of: Overridden, forced: Forced, insists: bool) -> Result<(), OverrideError> {
        if self.current.world.rules().table.place_of(&of).is_none() {
            return Err(OverrideError::Unknown(of));
        }
        if forced.status == Status::Unknown {
            return Err(OverrideError::NoStatus);
        }
        if forced.until <= self.clock.now() {
            return Err(OverrideError::Ended(forced.until));
        }
        if forced.status == Status::Down && !insists {
            let left_short = self.left_short(&of);
            if !left_short.is_empty() {
                return Err(OverrideError::LeavesTooFew(left_short));
            }
        }
        let (region, endpoint) = (&of.region, of.endpoint_name());
        let Forced { status, until, reason } = &forced;
        tracing::warn!(
            json.event = "override_set", json.status = %status, %region, endpoint, %until, reason, "override set: \
                {status}"
        );
        let now = self.clock.now();
        self.all_overrides.set(of, &self.node, (forced, insists), now);
        self.overrides = self.all_overrides.in_force(now);
        self.publish();
        Ok(())
    }

    /// Ends an override.
    pub(super) fn delete_override(&mut self, of: &Overridden) -> Result<(), OverrideError> {
        if !self.all_overrides.end(of) {
            return Err(OverrideError::NotForced(of.clone()));
        }
        let (region, endpoint) = (&of.region, of.endpoint_name());
        tracing::warn!(json.event = "override_deleted", %region, endpoint, "override deleted");
        self.overrides = self.all_overrides.in_force(self.clock.now());
        self.publish();
        Ok(())
    }

    /// Takes the report of another node: its vote, and the overrides that it knows.
    pub(super) fn hear(&mut self, report: Box<HealthReport>) {
        let now = self.clock.now();
        let table = &self.current.world.rules().table;
        let are_merged = self.all_overrides.merge(table, &report.overrides, now);
        let is_drilled = self.hear_drills(&report, now);
        let table = &self.current.world.rules().table;
        let is_news = self.voting.hear(report, table, now) || is_drilled;
        if are_merged {
            let before = std::mem::replace(&mut self.overrides, self.all_overrides.in_force(now));
            self.log_merged(&before, now);
        }
        if are_merged || is_news {
            self.publish();
        }
        if are_merged {
            self.keep_overrides(None);
        }
    }

    /// Logs the changes that overrides of other nodes made.
    fn log_merged(&self, before: &BTreeMap<Overridden, Forced>, now: Timestamp) {
        for (of, forced) in self.overrides.iter().filter(|(of, forced)| before.get(of) != Some(forced)) {
            let (region, endpoint) = (&of.region, of.endpoint_name());
            let Forced { status, until, reason } = forced;
            tracing::warn!(
                json.event = "override_set", json.status = %status, %region, endpoint, %until, reason,
                "override of another node: {status}"
            );
        }
        let held_back = self.all_overrides.held_back(now);
        for of in held_back.keys() {
            tracing::warn!(
                json.event = "override_held", region = %of.region,
                "{of} stays offered for now: operators took away more regions at the same time than a guard leaves; \
                 end one of the overrides, or make it again with --force"
            );
        }
        let is_gone = |of: &&Overridden| !self.overrides.contains_key(of) && !held_back.contains_key(of);
        for of in before.keys().filter(is_gone) {
            let (region, endpoint) = (&of.region, of.endpoint_name());
            tracing::warn!(json.event = "override_deleted", %region, endpoint, "override deleted at another node");
        }
    }

    /// Whether this node has to report its overrides to other nodes.
    pub(super) fn is_in_fleet(&self) -> bool {
        self.voting.has_heard() || self.current.world.rules().table.fleet().is_some()
    }

    /// One message for each fence (the regions that may process a client) that would have fewer regions than its guard
    /// keeps, if this region were down.
    fn left_short(&self, of: &Overridden) -> Vec<String> {
        let table = &self.current.world.rules().table;
        let Some((region, None)) = table.place_of(of).filter(|_| table.fleet().is_some()) else { return Vec::new() };
        let (snapshot, local) = (self.live.load(), Local::default());
        let conditions = Conditions { health: &snapshot.health().regions, local: &local, now: self.clock.now() };
        let is_left = |region: RegionIndex| effective_status(table, region, &conditions) != Status::Down;
        let fences = guarded_fences(table);
        let sentence = |(fence, left): (&GuardedFence, usize)| {
            format!(
                "{of} can't be taken away: it would leave {left} of {} regions to {}, and the guard keeps {}; give \
                 another one back first, or insist (\"force\": true, --force)",
                fence.regions.len(),
                fence.whose,
                fence.guard.keep
            )
        };
        left_short(&fences, region, is_left).into_iter().map(sentence).collect()
    }

    /// Has the current overrides written. Another task replies with the outcome, so the owner doesn't wait for a disk.
    pub(super) fn keep_overrides(&mut self, reply: Option<Reply>) {
        let overrides = self.overrides.clone();
        let (records, is_in_fleet) = (self.all_overrides.records(), self.is_in_fleet());
        let outcome = self.keep(Kind::Overrides, move |store| {
            store.keep_overrides(&overrides)?;
            // A file from a time with a fleet is kept up to date even before this node gets a report again. Otherwise a
            // restart would bring back its old content.
            if is_in_fleet || store.has_fleet_overrides() { store.keep_fleet_overrides(&records) } else { Ok(()) }
        });
        let Some(reply) = reply else { return };
        if outcome.is_none() {
            let _ = reply.send(Ok(Durability::UntilRestart("no state_dir is configured".to_owned())));
            return;
        }
        tokio::spawn(async move {
            let _ = reply.send(Ok(written_to(outcome).await)); // the requester may have gone
        });
    }

    /// Hands `write` to the keeper, which calls it with the state directory. A change that can't be written takes
    /// effect nevertheless, because an operator may drain a region while the disk is full.
    pub(super) fn keep(
        &mut self,
        kind: Kind,
        write: impl Fn(&Store) -> std::io::Result<()> + Send + 'static,
    ) -> Outcome {
        Some(self.keeper.as_ref()?.keep(kind, Box::new(write)))
    }

    /// Notes the outcome of an attempt to write.
    pub(super) fn note(&mut self, attempt: Attempt) {
        let Attempt { kind, outcome } = attempt;
        match outcome {
            Ok(()) => _ = self.not_kept.remove(&kind),
            Err(error) => {
                // The same error is logged once, however often the write is tried.
                if self.not_kept.get(&kind) != Some(&error) {
                    tracing::error!("{}", unwritable(&error));
                }
                self.not_kept.insert(kind, error);
            }
        }
        let errors: Vec<String> = self.not_kept.values().map(|error| unwritable(error)).collect();
        self.status.not_persisted = (!errors.is_empty()).then(|| Failure { at: self.clock.now(), errors });
        self.publish_status();
    }
}

/// The message for an error of writing.
fn unwritable(error: &str) -> String {
    format!("can't write to state_dir ({error}); mend its mode or make room. It is tried again")
}

/// Waits for the outcome of a write, for at most [`WRITE_TIMEOUT`]. Returns where the content is kept now.
pub(super) async fn written_to(outcome: Outcome) -> Durability {
    let Some(outcome) = outcome else { return Durability::UntilRestart("no state_dir is configured".to_owned()) };
    let waited = tokio::task::spawn_blocking(move || outcome.recv_timeout(WRITE_TIMEOUT)).await;
    match waited {
        Ok(Ok(Ok(()))) => Durability::Persisted,
        Ok(Ok(Err(error))) => Durability::UntilRestart(unwritable(&error)),
        Ok(Err(RecvTimeoutError::Timeout)) => {
            Durability::UntilRestart("state_dir takes long to be written to; it is kept once that is done".to_owned())
        }
        Ok(Err(RecvTimeoutError::Disconnected)) => {
            Durability::UntilRestart("a later change came before it was written, and is kept with it".to_owned())
        }
        Err(_) => Durability::UntilRestart("the server is shutting down".to_owned()),
    }
}
