//! Warns of clients whose events are lost although the document has sinks. Called by [`super::warnings`].

use super::super::logs::Sinks;
use super::Warner;
use crate::turns::{Turns, at_once};

impl Warner<'_> {
    /// Warns of residency rules, and of tenants with a fence of their own, of which no sink lies in every tier.
    pub(super) fn sinks(&mut self) {
        let rules = self.rules;
        if rules.logs.is_empty() {
            return;
        }
        let mut fences = Vec::new();
        for (id, service) in &rules.services {
            let all = service.residency.iter().enumerate().filter(|(_, rule)| rule.logs.is_none());
            fences.extend(
                all.map(|(index, rule)| (format!("/services/{id}/residency/{index}"), rule.process_in.as_slice())),
            );
        }
        for (id, tenant) in rules.tenants.iter().filter(|(_, tenant)| tenant.logs.is_none()) {
            fences.extend(tenant.process_in.as_deref().map(|process_in| (format!("/tenants/{id}"), process_in)));
        }
        let (mut sinks, mut turns) = (Sinks::new(rules, self.territories), Turns::unbroken());
        for (place, process_in) in fences.into_iter().filter(|(_, process_in)| !process_in.is_empty()) {
            if at_once(sinks.inside(process_in, &mut turns)).is_empty() {
                self.warn(
                    format!("{place}/process_in"),
                    "has no sink in every tier, so events of these clients are counted and dropped; add one that lies \
                     there to \"logs\", or ignore this if none shall be kept",
                );
            }
        }
    }
}
