//! Renews signatures before they grow old, and applies keys at their time. Takes the time, and starts to build a world
//! (rules, zones, keys and GeoIP data compiled together) with new signatures. Called by the owner's loop. A failed
//! renewal raises an alarm and is tried again. Until then the answer path refuses signatures that are too old.

use std::sync::Arc;

use bailiwick_rules::time::{Millis, Timestamp};

use super::{Arranged, BuiltWorld, Job, Owner, Work};
use crate::state::owner::Failure;
use crate::state::probe::Prober;

/// The shortest time from one renewal to the next.
const PAUSE_AFTER_SUCCESS: Millis = Millis(1_000);
/// The time from a failed renewal to the next attempt.
const PAUSE_AFTER_FAILURE: Millis = Millis(60_000);

impl<P: Prober> Owner<P> {
    /// Begins to renew signatures if that is due. Does nothing while a world is being built, because that world gets
    /// new signatures anyway.
    pub(super) fn renew_if_due(&mut self) {
        let now = self.clock.now();
        if self.job.is_some() || self.next_renewal(now).is_none_or(|due| due > now) {
            return;
        }
        let base = Arc::clone(self.accepted());
        let compiled = tokio::task::spawn_blocking(move || base.renewed(now).map(Into::into));
        self.job = Some(Job { work: Work::Renewal, compiled });
    }

    /// When signing is next due; `None` while a world is being built, or if nothing is signed.
    pub(super) fn next_renewal(&self, now: Timestamp) -> Option<Timestamp> {
        let due = self.accepted().renewal_due(now).filter(|_| self.job.is_none())?;
        // A longer pause means that the clock was set back. Signatures made before that aren't valid yet, so signing
        // can't wait.
        let pause = Some(self.renew_again).filter(|again| again.since(now) <= PAUSE_AFTER_FAILURE);
        Some(pause.map_or(due, |again| due.max(again)))
    }

    /// Takes the result of a renewal.
    pub(super) fn take_renewed(&mut self, built: Result<BuiltWorld, Vec<String>>) {
        let now = self.clock.now();
        self.renew_again = now.after(if built.is_ok() { PAUSE_AFTER_SUCCESS } else { PAUSE_AFTER_FAILURE });
        match built {
            Ok(BuiltWorld { world, .. }) => {
                self.status.renewals += 1;
                self.status.not_renewed = None;
                tracing::info!("signatures renewed");
                let assignment = self.monitors.assign(&world.rules().table);
                self.await_first_results(Arranged { world: Arc::new(world), assignment });
            }
            Err(errors) => {
                let until = self.accepted().signed_until(now).map(|(_, until)| until).min();
                let until = until.map_or_else(String::new, |until| until.to_string());
                for error in &errors {
                    tracing::error!(until, "signatures can't be renewed; from `until` on they are refused: {error}");
                }
                self.status.not_renewed = Some(Failure { at: now, errors });
                self.publish_status();
            }
        }
    }
}
