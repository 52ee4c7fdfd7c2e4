//! Warns of clients whose events are lost although the document has sinks. Called by [`super::warnings`].

use super::super::logs::Sinks;
use super::Warner;

impl Warner<'_> {
    /// Warns of residency rules of which no sink lies in every tier.
    pub(super) fn sinks(&mut self) {
        if self.rules.logs.is_empty() {
            return;
        }
        let sinks = Sinks::new(self.rules, self.territories);
        let mut places = Vec::new();
        for (id, service) in &self.rules.services {
            let without = service.residency.iter().enumerate().filter(|(_, rule)| {
                !rule.process_in.is_empty() && rule.logs.is_none() && sinks.inside(&rule.process_in).next().is_none()
            });
            places.extend(without.map(|(index, _)| format!("/services/{id}/residency/{index}/process_in")));
        }
        for place in places {
            self.warn(
                place,
                "has no sink in every tier, so events of these clients are counted and dropped; add one that lies \
                 there to \"logs\", or ignore this if none shall be kept",
            );
        }
    }
}
