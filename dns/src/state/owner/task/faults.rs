//! Takes the errors in files, and the errors of versions that don't fit the other sources. A source is a kind of file:
//! rules, zones, keys, or the GeoIP database. Writes both kinds of errors to the log and the status. If some of the
//! offered zones don't fit, the others are put in service without them. Called by the owner's loop.

use std::collections::BTreeMap;
use std::sync::Arc;

use bailiwick_rules::time::Timestamp;

use super::{BuiltWorld, Owner};
use crate::state::owner::{Failure, Faults, FileKind, Offer, RefusedRules};
use crate::state::probe::Prober;
use crate::state::snapshot::{RejectedZone, Rules, World, ZoneSource};
use crate::state::store::Kind;

impl<P: Prober> Owner<P> {
    /// Notes everything that is wrong with a source's files. Logs the errors that are new.
    pub(super) fn note_faults(&mut self, source: FileKind, faults: Faults) {
        if matches!(source, FileKind::Rules | FileKind::Geoip) && !faults.is_empty() {
            // An older version that was set aside is no longer what the operator wants.
            self.set_aside.retain(|other| other.source() != source);
        }
        let before = self.faults.insert(source, faults.clone()).unwrap_or_default();
        let new: Faults = faults.into_iter().filter(|(part, errors)| before.get(part) != Some(errors)).collect();
        self.log_refused(source, &new);
        self.sum_up(source);
    }

    /// Notes that the version in service is the source's newest.
    pub(super) fn fits(&mut self, source: FileKind) {
        self.rejected.remove(&source);
        self.sum_up(source);
    }

    /// Notes that a version isn't accepted.
    pub(super) fn refuse(&mut self, source: FileKind, faults: Faults) {
        self.log_refused(source, &faults);
        self.rejected.insert(source, faults);
        self.sum_up(source);
    }

    /// Notes why this very document isn't accepted. The API call that offered the document reads that in the status.
    pub(super) fn answer(&mut self, rules: &Arc<Rules>, errors: Vec<String>) {
        self.status.refused_rules = Some(RefusedRules { document: Arc::downgrade(rules), errors });
    }

    /// Refuses a version, or a part of it. It is tried again when another source changes.
    pub(super) fn set_aside(&mut self, offer: Offer, faults: Faults) {
        let source = offer.source();
        if let Offer::Rules(rules) = &offer {
            self.answer(rules, faults.values().flatten().cloned().collect());
        }
        self.refuse(source, faults);
        if !self.queue.iter().any(|other| other.source() == source) {
            self.set_aside.push(offer);
        }
    }

    /// Logs the errors and counts the refused parts.
    fn log_refused(&mut self, source: FileKind, faults: &Faults) {
        for error in faults.values().flatten() {
            tracing::error!(
                json.event = "source_refused", json.source = %source, json.reason = error,
                "{source} refused, the last good stays in service: {error}"
            );
        }
        self.status.of_mut(source).refused += faults.len() as u64;
    }

    /// Updates a source's status from the errors in its files and the errors of its last compiled version.
    pub(super) fn sum_up(&mut self, source: FileKind) {
        let all = [self.faults.get(&source), self.rejected.get(&source)];
        let errors: Vec<String> = all.iter().flatten().flat_map(|faults| faults.values().flatten().cloned()).collect();
        if source == FileKind::Zones {
            let parts = all.iter().flatten().flat_map(|faults| faults.iter());
            let mut failing: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (zone, errors) in parts.filter(|(zone, _)| !zone.is_empty()) {
                failing.entry(zone.clone()).or_default().extend(errors.iter().cloned());
            }
            self.status.zones_failing = failing;
        }
        let (now, status) = (self.clock.now(), self.status.of_mut(source));
        let is_same = status.last_error.as_ref().is_some_and(|failure| failure.errors == errors);
        if errors.is_empty() {
            status.last_error = None;
        } else if !is_same {
            status.last_error = Some(Failure { at: now, errors });
        }
        self.publish_status();
    }

    /// Has the keeper write the zones that came into service since the last call.
    pub(super) fn keep_zones(&mut self) {
        let zones = Arc::clone(self.current.world.zone_sources());
        if self.keeper.is_none() || Arc::ptr_eq(&zones, &self.kept_zones) {
            return;
        }
        let is_kept = |zone: &ZoneSource| self.kept_zones.iter().any(|kept| kept.origin == zone.origin && kept == zone);
        let new: Vec<usize> = (0..zones.len())
            .filter(|&at| zones.get(at).is_some_and(|zone| !zone.is_missing() && !is_kept(zone)))
            .collect();
        for at in new {
            let Some(origin) = zones.get(at).map(|zone| zone.origin.clone()) else { continue };
            let zones = Arc::clone(&zones);
            self.keep(Kind::Zone(origin), move |store| zones.get(at).map_or(Ok(()), |zone| store.keep_zone(zone)));
        }
        self.kept_zones = zones;
    }
}

/// The errors of rejected zones, by the name of the zone.
pub(crate) fn faults_of(rejected: &[RejectedZone]) -> Faults {
    let mut faults = Faults::new();
    for (origin, errors) in rejected {
        faults.entry(origin.to_string()).or_default().extend(errors.iter().map(ToString::to_string));
    }
    faults
}

/// Builds the world with those offered zones that fit the rules and keys. The other zones keep the version in service.
/// `None` if something else is wrong, or if no new zone fits.
pub(super) fn without_rejected(base: &World, version: &Offer, now: Timestamp) -> Option<BuiltWorld> {
    let Offer::Zones(zones) = version else { return None };
    let rejected = World::rejected(base.rules(), zones, base.keys());
    let is_rejected = |zone: &ZoneSource| rejected.iter().any(|(origin, _)| *origin == zone.origin);
    let version_in_service = |zone: &ZoneSource| {
        let in_service = base.zone_sources().iter().find(|other| other.origin == zone.origin);
        in_service.cloned().unwrap_or_else(|| ZoneSource::missing(zone.origin.clone()))
    };
    let fitting: Arc<[ZoneSource]> =
        zones.iter().map(|zone| if is_rejected(zone) { version_in_service(zone) } else { zone.clone() }).collect();
    if rejected.is_empty() || *fitting == **base.zone_sources() {
        return None;
    }
    let (rules, keys, places) = (Arc::clone(base.rules()), Arc::clone(base.keys()), Arc::clone(base.places()));
    let world = World::build(rules, fitting, keys, places, now, Some(base)).ok()?;
    Some(BuiltWorld { world, rejected })
}
