//! What one isolate remembers between requests: how endpoints did goes in, which of them rest comes out;
//! `serve` and `proxy` ask.
//!
//! Plain values, and none of them is borrowed across an await. All of it is bounded, and gone with the isolate.

use std::cell::RefCell;

use bailiwick_rules::steer::Local;
use bailiwick_rules::table::Table;
use bailiwick_rules::time::Timestamp;

use crate::attempt::{Action, Budget};
use crate::breaker::{Breakers, Verdict};
use crate::cooldown::CoolDowns;
use crate::feed;
use crate::plan::Target;

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::new(Memory::new(feed::now()));
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

    /// What steering has to know.
    pub(crate) fn local(&self, table: &Table, now: Timestamp) -> Local {
        let mut local = self.cool_downs.local(table, now);
        local.cooling.extend(self.breakers.resting(table, now));
        local
    }

    /// Whether an endpoint is to be left alone, as long as there are others.
    pub(crate) fn is_resting(&self, target: &Target, model: Option<&str>, now: Timestamp) -> bool {
        let (region, endpoint) = (target.region_id(), target.id());
        self.cool_downs.is_resting(region, endpoint, model, now) || self.breakers.is_open(region, endpoint, now)
    }

    /// A request goes to an endpoint.
    pub(crate) fn sent(&mut self, target: &Target, now: Timestamp) {
        self.breakers.sent(target.region_id(), target.id(), now);
    }

    /// An endpoint was heard of, or given up.
    pub(crate) fn heard(&mut self, target: &Target, model: Option<&str>, verdict: Verdict, now: Timestamp) {
        self.breakers.heard(target.region_id(), target.id(), verdict, now);
        if verdict == Verdict::Answered {
            self.cool_downs.recovered(target.region_id(), target.id(), model);
        }
    }

    /// Does what [`Action::CoolDown`] says; any other action is none of its business.
    pub(crate) fn cool_down(&mut self, action: &Action, now: Timestamp) {
        if let Action::CoolDown { region, endpoint, model, asked_ms, fault } = action {
            self.cool_downs.rest(region, endpoint, model.as_deref(), *asked_ms, now);
            let verdict = if *fault { Verdict::Fault } else { Verdict::Answered };
            self.breakers.heard(region, endpoint, verdict, now);
        }
    }
}
