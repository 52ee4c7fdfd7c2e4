//! What one isolate remembers about endpoints. Takes how each attempt ended; returns which endpoints are at rest, that
//! is, get no requests for a while after failures. Called by `serve`, its `prepare`, and `proxy`.
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
use crate::decide::source::Source;
use crate::runtime::clock;

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::new(Memory::new(clock::now()));
}

/// What an isolate remembers.
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

    /// The conditions of this isolate for steering a request of `source`. Without a source, only the conditions that
    /// hold for all clients.
    pub(crate) fn local(&self, table: &Table, path: Option<Path>, source: Option<Source>, now: Timestamp) -> Local {
        let mut local = self.cool_downs.local(table, path, source, now);
        local.cooling.extend(self.breakers.resting(table, source, now));
        local
    }

    /// Whether an endpoint is at rest, so that it should be avoided while there are other endpoints.
    pub(crate) fn is_resting(&self, target: &Target, attribution: &Attribution<'_>, now: Timestamp) -> bool {
        // Usually no endpoint is at rest. Then no key is made.
        !self.cool_downs.is_empty() && self.cool_downs.is_resting(&attribution.key(target), attribution.source, now)
            || self.breakers.is_open(target.region_id(), target.id(), attribution.source, now)
    }

    /// Notes that a request is sent to an endpoint.
    pub(crate) fn sent(&mut self, target: &Target, source: Source, now: Timestamp) {
        if !target.is_trial() {
            self.breakers.sent(target.region_id(), target.id(), source, now);
        }
    }

    /// Notes how an attempt at an endpoint ended.
    pub(crate) fn note(&mut self, target: &Target, attribution: &Attribution<'_>, verdict: Verdict, now: Timestamp) {
        if !target.is_trial() {
            self.breakers.note(target.region_id(), target.id(), attribution.source, verdict, now);
        }
        if verdict == Verdict::Answered && !self.cool_downs.is_empty() {
            self.cool_downs.recovered(&attribution.key(target), attribution.source);
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
            let (region, endpoint, source) = (region.clone(), endpoint.clone(), attribution.source);
            let verdict = if *fault { Verdict::Fault } else { Verdict::Answered };
            let is_trial = target.is_some_and(Target::is_trial);
            if !is_trial {
                self.breakers.note(&region, &endpoint, source, verdict, now);
            }
            let model = if is_trial { Some(of_trial(attribution.model)) } else { model.clone() };
            let key = Key { region, endpoint, model, path: this_path.then_some(attribution.path) };
            self.cool_downs.rest(key, source, *retry_after_ms, now);
        }
    }
}

/// The sender, the model and the path to which the failures of a request are attributed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attribution<'a> {
    /// Who sent the request.
    pub(crate) source: Source,
    /// The client's name of the model.
    pub(crate) model: Option<&'a str>,
    /// The path of the model API, as a pattern.
    pub(crate) path: Path,
}

impl Attribution<'_> {
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
