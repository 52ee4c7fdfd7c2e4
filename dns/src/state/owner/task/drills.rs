//! Drills: a share of a region's clients is sent elsewhere for a while, to rehearse its loss. Takes requests of the API
//! and reports of other nodes from the owner's loop, and puts the share into the snapshot.

use bailiwick_rules::drill::kept::{Refusal, Wanted, failed_elsewhere};
use bailiwick_rules::health::Status;
use bailiwick_rules::report::{DrillRecord, Drilled};
use bailiwick_rules::steer::{Conditions, Local, effective_status};
use bailiwick_rules::time::Timestamp;

use super::Owner;
use crate::state::probe::Prober;
use crate::state::snapshot::Health;

impl<P: Prober> Owner<P> {
    /// Begins a drill, or goes on with one.
    pub(super) fn ask_drill(&mut self, wanted: &Wanted) -> Result<DrillRecord, Refusal> {
        let now = self.clock.now();
        let table = &self.current.world.rules().table;
        let before = self.drill.running(now).map(|record| record.share);
        let record = self.drill.ask(table, wanted, &self.node, now)?.clone();
        if before != Some(record.share) {
            self.log_drill("this node");
        }
        self.publish();
        Ok(record)
    }

    /// Ends the drill that is under way, if it has this name. Returns it.
    pub(super) fn end_drill(&mut self, name: Option<&str>, why: &str) -> Option<DrillRecord> {
        let now = self.clock.now();
        let record = self.drill.running(now)?;
        if name.is_some_and(|name| name != record.name.as_str()) {
            return None;
        }
        let record = self.drill.end(why, now)?;
        self.log_drill("this node");
        self.publish();
        Some(record)
    }

    /// Puts the drill into the health of a moment. A failure of another region ends it at once.
    pub(super) fn see_drill(&mut self, health: &mut Health, now: Timestamp) {
        let table = &self.current.world.rules().table;
        let was_known = self.drill.record().is_some();
        self.drill.follow(table, now);
        if !was_known {
            return;
        }
        let local = Local::default();
        let conditions = Conditions { health: &health.regions, local: &local, now };
        let region = self.drill.running(now).and_then(|record| table.region_named(record.region.as_str()));
        let is_down = |region| effective_status(table, region, &conditions) == Status::Down;
        if let Some(why) = region.and_then(|region| failed_elsewhere(table, region, is_down)) {
            self.drill.end(&why, now);
            self.log_drill("this node");
        }
        let table = &self.current.world.rules().table;
        health.drill = self.drill.record().cloned();
        health.drilled = health.drill.as_ref().and_then(|record| Drilled::of(table, record, now));
    }

    /// Logs what became of the drill.
    pub(super) fn log_drill(&self, by: &str) {
        let Some(DrillRecord { name, region, share, until, ended, .. }) = self.drill.record() else { return };
        match ended {
            None => tracing::warn!(
                json.event = "drill", drill = %name, %region, json.share = share, %until, by,
                "drill {name}: {share} % of the clients of {region} are sent elsewhere"
            ),
            Some(reason) => tracing::warn!(
                json.event = "drill_ended", drill = %name, %region, json.reason = reason, by,
                "drill {name} of {region} ended: {reason}"
            ),
        }
    }
}
