//! What one isolate remembers between requests: how endpoints did goes in, which of them rest comes out;
//! `serve` and `proxy` ask.
//!
//! Plain values, and none of them is borrowed across an await. All of it is bounded, and gone with the isolate.

use std::cell::RefCell;

use bailiwick_rules::steer::Local;
use bailiwick_rules::table::Table;
use bailiwick_rules::time::Timestamp;

use crate::decide::attempt::{Action, Budget};
use crate::decide::breaker::{Breakers, Verdict};
use crate::decide::cooldown::{CoolDowns, Key, Path};
use crate::decide::plan::Target;
use crate::decide::source::Source;
use crate::runtime::clock;

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::new(Memory::new(clock::now()));
}

/// What is remembered.
#[derive(Debug)]
pub(crate) struct Memory {
    cool_downs: CoolDowns,
    breakers: Breakers,
    pub(crate) budget: Budget,
}

/// Looks into the memory of this isolate, or changes it.
pub(crate) fn with<T>(look: impl FnOnce(&mut Memory) -> T) -> T {
    MEMORY.with_borrow_mut(look)
}

impl Memory {
    fn new(now: Timestamp) -> Self {
        Self { cool_downs: CoolDowns::default(), breakers: Breakers::default(), budget: Budget::new(now.0) }
    }

    /// What steering has to know for a request of `source`; without one, what holds for everybody.
    pub(crate) fn local(&self, table: &Table, path: Option<Path>, source: Option<Source>, now: Timestamp) -> Local {
        let mut local = self.cool_downs.local(table, path, source, now);
        local.cooling.extend(self.breakers.resting(table, source, now));
        local
    }

    /// Whether an endpoint is to be left alone, as long as there are others.
    pub(crate) fn is_resting(&self, target: &Target, whose: &Attribution<'_>, now: Timestamp) -> bool {
        // Most of the time nothing rests, and no key is made.
        !self.cool_downs.is_empty() && self.cool_downs.is_resting(&whose.key(target), whose.source, now)
            || self.breakers.is_open(target.region_id(), target.id(), whose.source, now)
    }

    /// A request goes to an endpoint.
    pub(crate) fn sent(&mut self, target: &Target, source: Source, now: Timestamp) {
        self.breakers.sent(target.region_id(), target.id(), source, now);
    }

    /// An endpoint was heard of, or given up.
    pub(crate) fn heard(&mut self, target: &Target, whose: &Attribution<'_>, verdict: Verdict, now: Timestamp) {
        self.breakers.heard(target.region_id(), target.id(), whose.source, verdict, now);
        if verdict == Verdict::Answered && !self.cool_downs.is_empty() {
            self.cool_downs.recovered(&whose.key(target), whose.source);
        }
    }

    /// Does what [`Action::CoolDown`] says; any other action is none of its business.
    pub(crate) fn cool_down(&mut self, action: &Action, whose: &Attribution<'_>, now: Timestamp) {
        if let Action::CoolDown { region, endpoint, model, this_path, asked_ms, fault } = action {
            let (region, endpoint, source) = (region.clone(), endpoint.clone(), whose.source);
            let verdict = if *fault { Verdict::Fault } else { Verdict::Answered };
            self.breakers.heard(&region, &endpoint, source, verdict, now);
            let key = Key { region, endpoint, model: model.clone(), path: this_path.then_some(whose.path) };
            self.cool_downs.rest(key, source, *asked_ms, now);
        }
    }
}

/// Whose request it is, and what it is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attribution<'a> {
    /// Who sent it.
    pub(crate) source: Source,
    /// The model, by the client's name.
    pub(crate) model: Option<&'a str>,
    /// The path.
    pub(crate) path: Path,
}

impl Attribution<'_> {
    fn key(&self, target: &Target) -> Key {
        Key {
            region: target.region_id().clone(),
            endpoint: target.id().clone(),
            model: self.model.map(str::to_owned),
            path: Some(self.path),
        }
    }
}
