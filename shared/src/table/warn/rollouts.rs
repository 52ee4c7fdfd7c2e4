//! Warnings of rollouts that can't be judged. Takes what [`Warner`] holds, adds warnings. Called by
//! [`super::warnings`].

use super::Warner;
use crate::id::ServiceId;
use crate::rules::Tier;

impl Warner<'_> {
    /// Warns of a region of a rollout that is in no fence of its service: it gets no traffic by which the rollout could
    /// be judged.
    pub(super) fn rollouts(&mut self) {
        let mut warnings = Vec::new();
        for (id, rollout) in &self.rules.rollouts {
            let tiers: Vec<&Tier> = self.tiers_of(&rollout.service);
            for (index, name) in rollout.regions.iter().enumerate() {
                let region = self.regions.iter().find(|region| region.id == *name);
                if region.is_some_and(|region| !tiers.iter().any(|tier| self.lies_in(region, tier))) {
                    let message = format!(
                        "names {name}, which lies in no fence of {}, so nothing there could be judged and the rollout \
                         would be rolled back; take it out",
                        rollout.service
                    );
                    warnings.push((format!("/rollouts/{id}/regions/{index}"), message));
                }
            }
        }
        for (place, message) in warnings {
            self.warn(place, message);
        }
    }

    /// All tiers in which a client of a service may be processed.
    fn tiers_of(&self, service: &ServiceId) -> Vec<&Tier> {
        let rules = self.rules.services.get(service).into_iter().flat_map(|service| &service.residency);
        let of_rules = rules.flat_map(|rule| &rule.process_in);
        let tenants = self.rules.tenants.values().filter(|tenant| tenant.services.contains(service));
        let of_tenants = tenants.filter_map(|tenant| tenant.process_in.as_ref()).flatten();
        of_rules.chain(of_tenants).collect()
    }
}
