//! Warnings of voters (nodes that vote on health) that can't reach a majority, and of guards (limits on how much of a
//! fence health may take away) without effect. Takes what [`Warner`] holds, adds warnings. Called by
//! [`super::warnings`]. A fence is the list of the regions that may process a client's data.

use std::collections::BTreeSet;

use super::Warner;
use crate::id::{RegionId, ServiceId, SiteId};
use crate::rules::{Fleet, Guard, Service, Tier};

impl Warner<'_> {
    /// Warns of voters that can't reach a majority of sites.
    pub(super) fn voters(&mut self) {
        let Some(fleet) = &self.rules.fleet else { return };
        let sites: BTreeSet<&SiteId> = fleet.voters.values().map(|voter| &voter.site).collect();
        if sites.len() == 2 {
            let message = "are of two sites: a status changes only while both are heard and agree; add a voter at a \
                third";
            self.warn("/fleet/voters".to_owned(), message);
        }
        for region in self.regions {
            if !can_judge(fleet, &region.id, sites.len()) {
                let message = format!(
                    "stand in {0} at half of the sites or more, and their votes can't call {0} down; add voters \
                     elsewhere",
                    region.id
                );
                self.warn("/fleet/voters".to_owned(), message);
            }
        }
    }

    /// Warns of a guard without voters, which has no effect, and of a guard that keeps more regions than a fence has.
    pub(super) fn guard(&mut self, id: &ServiceId, service: &Service) {
        let Some(Guard { keep, .. }) = service.guard else { return };
        let place = format!("/services/{id}/guard");
        if self.rules.fleet.is_none() {
            let message = "holds nothing, as no voters are declared; add \"fleet\": {\"voters\": …}, or leave it out";
            self.warn(place, message);
            return;
        }
        let size = |process_in: &[Tier]| {
            self.members(service).filter(|region| process_in.iter().any(|tier| self.lies_in(region, tier))).count()
        };
        let of_rules = service.residency.iter().enumerate();
        let of_rules = of_rules.map(|(index, rule)| (format!("rule {index}"), size(&rule.process_in)));
        let tenants = self.rules.tenants.iter().filter(|(_, tenant)| tenant.services.contains(id));
        let of_tenants = tenants
            .filter_map(|(name, tenant)| Some((format!("the tenant {name}"), size(tenant.process_in.as_deref()?))));
        // A fence without regions offers nothing anyway, and has a warning of its own.
        let is_small = |(_, size): &(String, usize)| *size > 0 && *size < keep as usize;
        let Some((whose, size)) = of_rules.chain(of_tenants).find(is_small) else { return };
        let message = format!(
            "is {keep}, but the fence of {whose} has {size} in all, so each of its regions is held for the whole \
             \"window\"; lower it, or add regions"
        );
        self.warn(format!("{place}/keep"), message);
    }
}

/// Whether the voters outside a region can decide the votes of a strict majority of the sites.
fn can_judge(fleet: &Fleet, region: &RegionId, sites: usize) -> bool {
    let all: BTreeSet<&SiteId> = fleet.voters.values().map(|voter| &voter.site).collect();
    let count = |site: &SiteId, outside: bool| {
        let of_site = fleet.voters.values().filter(|voter| voter.site == *site);
        of_site.filter(|voter| !outside || voter.region.as_ref() != Some(region)).count()
    };
    let deciding = all.iter().filter(|site| count(site, true) * 2 > count(site, false));
    deciding.count() * 2 > sites
}
