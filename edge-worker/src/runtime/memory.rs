//! What one isolate remembers about endpoints. Takes how each attempt ended; returns which endpoints are at rest, that
//! is, get no requests for a while after failures. Called by `serve`, its `prepare`, `proxy`, `explain`
//! and `leases`. An isolate is one instance of the Worker; the platform runs several, which share no memory.
//!
//! The memory holds plain values, which are never borrowed across an await. Its size is bounded. It ends with the
//! isolate.

use std::cell::RefCell;

use bailiwick_rules::steer::Local;
use bailiwick_rules::table::Table;
use bailiwick_rules::time::Timestamp;

use crate::decide::attempt::{Action, Budget};
use crate::decide::breaker::{Breakers, Verdict};
use crate::decide::cooldown::{CoolDowns, Key, Path};
use crate::decide::plan::Target;
use crate::decide::quota::Quotas;
use crate::decide::sender::Sender;
use crate::runtime::clock;

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::new(Memory::new(clock::now()));
}

/// What an isolate remembers. A trial is an endpoint of the new arm of a rollout (its new side): its failures don't
/// count against the old arm.
#[derive(Debug)]
pub(crate) struct Memory {
    cool_downs: CoolDowns,
    breakers: Breakers,
    pub(crate) budget: Budget,
    pub(crate) quotas: Quotas,
}

/// Reads or changes the memory of this isolate.
pub(crate) fn with<T>(f: impl FnOnce(&mut Memory) -> T) -> T {
    MEMORY.with_borrow_mut(f)
}

impl Memory {
    fn new(now: Timestamp) -> Self {
        Self {
            cool_downs: CoolDowns::default(),
            breakers: Breakers::default(),
            budget: Budget::new(now.0),
            quotas: Quotas::default(),
        }
    }

    /// The conditions of this isolate for steering a request of `sender`. Without a sender, only the conditions that
    /// hold for all clients.
    pub(crate) fn local(&self, table: &Table, path: Option<Path>, sender: Option<Sender>, now: Timestamp) -> Local {
        let mut local = self.cool_downs.local(table, path, sender, now);
        local.cooling.extend(self.breakers.resting(table, sender, now));
        local
    }

    /// Whether an endpoint is at rest, so that it should be avoided while there are other endpoints.
    pub(crate) fn is_resting(&self, target: &Target, attribution: &Attribution<'_>, now: Timestamp) -> bool {
        // Usually no endpoint is at rest. Then no key is made.
        !self.cool_downs.is_empty() && self.cool_downs.is_resting(&attribution.key(target), attribution.sender, now)
            || self.breakers.is_open(target.region_id(), target.id(), attribution.sender, now)
    }

    /// Notes that a request is sent to an endpoint.
    pub(crate) fn note_sent(&mut self, target: &Target, sender: Sender, now: Timestamp) {
        if !target.is_trial() {
            self.breakers.note_sent(target.region_id(), target.id(), sender, now);
        }
    }

    /// Notes how an attempt at an endpoint ended.
    pub(crate) fn note(&mut self, target: &Target, attribution: &Attribution<'_>, verdict: Verdict, now: Timestamp) {
        if !target.is_trial() {
            self.breakers.note(target.region_id(), target.id(), attribution.sender, verdict, now);
        }
        if verdict == Verdict::Answered && !self.cool_downs.is_empty() {
            self.cool_downs.note_recovery(&attribution.key(target), attribution.sender);
        }
    }

    /// Performs [`Action::CoolDown`] for the endpoint `target`, and ignores any other action.
    pub(crate) fn cool_down(
        &mut self,
        action: &Action,
        target: Option<&Target>,
        attribution: &Attribution<'_>,
        now: Timestamp,
    ) {
        if let Action::CoolDown { region, endpoint, model, this_path, retry_after_ms, fault } = action {
            let (region, endpoint, sender) = (region.clone(), endpoint.clone(), attribution.sender);
            let verdict = if *fault { Verdict::Fault } else { Verdict::Answered };
            let is_trial = target.is_some_and(Target::is_trial);
            if !is_trial {
                self.breakers.note(&region, &endpoint, sender, verdict, now);
            }
            let model = if is_trial { Some(of_trial(attribution.model)) } else { model.clone() };
            let key = Key { region, endpoint, model, path: this_path.then_some(attribution.path) };
            self.cool_downs.rest(key, sender, *retry_after_ms, now);
        }
    }
}

/// The sender, the model and the path to which the failures of a request are attributed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attribution<'a> {
    /// Who sent the request.
    pub(crate) sender: Sender,
    /// The client's name of the model.
    pub(crate) model: Option<&'a str>,
    /// The path of the model API, as a pattern.
    pub(crate) path: Path,
}

impl Attribution<'_> {
    /// What rests if the request fails at this endpoint.
    fn key(&self, target: &Target) -> Key {
        Key {
            region: target.region_id().clone(),
            endpoint: target.id().clone(),
            model: if target.is_trial() { Some(of_trial(self.model)) } else { self.model.map(str::to_owned) },
            path: Some(self.path),
        }
    }
}

/// The name under which a model rests for the new arm of a rollout (its new side) only. The rules have no model of this
/// name, so the old arm never rests under it. A request without a model gets such a name too, because the absence of a
/// name stands for all models.
fn of_trial(model: Option<&str>) -> String {
    format!("{}\0new", model.unwrap_or_default())
}
