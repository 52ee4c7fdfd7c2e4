//! Drills: a share of a region's clients is sent elsewhere for a while, to rehearse its loss. Takes requests of the API
//! and reports of other nodes from the owner's loop, and puts the share into the snapshot.

use bailiwick_rules::drill::kept::{Refusal, Run, Wanted, failed_elsewhere};
use bailiwick_rules::health::Status;
use bailiwick_rules::report::{DrillRecord, Drilled, HealthReport};
use bailiwick_rules::steer::{Conditions, Local, effective_status};
use bailiwick_rules::time::Timestamp;

use super::Owner;
use crate::state::probe::Prober;
use crate::state::snapshot::Health;

impl<P: Prober> Owner<P> {
    /// Begins a drill, or renews the one under way.
    pub(super) fn ask_drill(&mut self, wanted: &Wanted) -> Result<DrillRecord, Refusal> {
        let now = self.clock.now();
        let table = &self.current.world.rules().table;
        let before = self.drill.running(now).map(|record| record.share);
        let record = self.drill.ask(table, wanted, &self.node, now)?;
        if before != Some(record.share) {
            log_drill(&record, "this node");
        }
        self.publish();
        Ok(record)
    }

    /// Ends the drill of this name: the given run of it, or else the one that is under way. Returns it.
    pub(super) fn end_drill(&mut self, (name, run): (&str, Option<&Run>), why: &str) -> Option<DrillRecord> {
        let now = self.clock.now();
        let table = &self.current.world.rules().table;
        let record = match run {
            Some(run) => self.drill.end_run(table, (name, run), why, now)?,
            None => {
                self.drill.running(now).filter(|record| record.name.as_str() == name)?;
                self.drill.end(why, now)?
            }
        };
        log_drill(&record, "this node");
        self.publish();
        Some(record)
    }

    /// Takes the drills that another node knows. Returns whether anything changed.
    pub(super) fn hear_drills(&mut self, report: &HealthReport, now: Timestamp) -> bool {
        let table = &self.current.world.rules().table;
        let noted = |record: &DrillRecord| (record.began, record.origin.clone(), record.share, record.ended.clone());
        let before = self.drill.record(now).map(noted);
        let mut is_changed = false;
        // Ends first: a run that has ended stands in nobody's way.
        for record in report.ended_drills.iter().chain(&report.drill) {
            is_changed |= self.drill.merge(table, record, now);
        }
        // A renewal, every few seconds, isn't logged.
        if let Some(record) = self.drill.record(now)
            && Some(noted(record)) != before
        {
            log_drill(record, "another node");
        }
        is_changed
    }

    /// Puts the drill into the health of a moment. A failure of another region ends it at once.
    pub(super) fn see_drill(&mut self, health: &mut Health, now: Timestamp) {
        let table = &self.current.world.rules().table;
        // Without a drill, the health tells none. This is asked before `follow`, which may forget one: then the health
        // has to lose it, too.
        let was_known = self.drill.record(now).is_some();
        self.drill.follow(table, now);
        if !was_known {
            return;
        }
        let local = Local::default();
        let conditions = Conditions { health: &health.regions, local: &local, now };
        let region = self.drill.running(now).and_then(|record| table.region_named(record.region.as_str()));
        let is_down = |region| effective_status(table, region, &conditions) == Status::Down;
        if let Some(why) = region.and_then(|region| failed_elsewhere(table, region, is_down))
            && let Some(record) = self.drill.end(&why, now)
        {
            log_drill(&record, "this node");
        }
        let table = &self.current.world.rules().table;
        health.drill = self.drill.record(now).cloned();
        health.ended_drills = self.drill.other_ends(now).cloned().collect();
        health.drilled = health.drill.as_ref().and_then(|record| Drilled::of(table, record, now));
    }
}

/// Logs what became of a drill.
fn log_drill(record: &DrillRecord, by: &str) {
    let DrillRecord { name, region, share, until, ended, .. } = record;
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
