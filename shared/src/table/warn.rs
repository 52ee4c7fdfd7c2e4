//! Finds what is allowed but probably not meant. Takes a document without violations, returns warnings, each with its
//! JSON pointer and how to mend it. Called by `build`. A fence is the list of the regions that may process a client's
//! data.

#[cfg(any(test, feature = "drills"))]
mod drills;
mod fleet;
mod logs;
mod names;
mod probes;
mod releases;
mod replicas;
mod rollouts;

use std::collections::BTreeSet;

use super::hosts::Hosts;
use super::{Region, Territories};
use crate::geo::{self, CountryCode, CountrySet};
use crate::id::{JurisdictionId, RegionId, ServiceId};
use crate::json::Violation;
use crate::rules::{ClientMatch, Endpoint, Order, Pattern, Place, ResidencyRule, Rules, Service, Style, Tenant, Tier};

/// The most names that a warning lists. It counts the rest.
const MAX_NAMED: usize = 8;

/// All warnings of a document whose regions are compiled already.
pub(super) fn warnings(
    rules: &Rules,
    regions: &[Region],
    named_by_regions: &BTreeSet<JurisdictionId>,
    territories: &Territories,
    hosts: &Hosts,
) -> Vec<Violation> {
    let mut warner = Warner { rules, regions, territories, hosts, warnings: Vec::new() };
    let closed = closed_services(rules);
    for (id, service) in &rules.services {
        for (index, rule) in service.residency.iter().enumerate() {
            warner.rule(id, service, index, rule);
        }
        if !(closed.contains(id) && warner.members(service).all(|region| region.answers.is_none())) {
            warner.left_over(id, service);
        }
        warner.without_endpoints(id, service);
        warner.order(id, service);
        warner.guard(id, service);
        warner.needs(id, service);
    }
    for (name, tenant) in &rules.tenants {
        let place = format!("/tenants/{name}");
        match &tenant.process_in {
            Some(process_in) => warner.fence_of_tenant(&place, tenant, process_in),
            None => warner.residency_of_tenant(&place, tenant),
        }
    }
    warner.jurisdictions(named_by_regions);
    warner.regions();
    warner.shared_engines();
    warner.steered_names();
    warner.unseen_families();
    warner.model_probes();
    warner.voters();
    warner.rollouts();
    #[cfg(any(test, feature = "drills"))]
    warner.drills();
    warner.replicas();
    warner.releases();
    warner.sinks();
    warner.alias_loops();
    warner.warnings
}

/// The jurisdictions that regions name. Called before the regions are compiled, as compiled regions have only
/// countries.
pub(super) fn named_by_regions(rules: &Rules) -> BTreeSet<JurisdictionId> {
    let places = rules.regions.values().flat_map(|region| &region.countries);
    places.filter_map(|place| if let Place::Jurisdiction(name) = place { Some(name.clone()) } else { None }).collect()
}

/// The services of which every tenant declares its residency or fence, so that the edge never needs a client's country.
fn closed_services(rules: &Rules) -> BTreeSet<&ServiceId> {
    let (mut closed, mut open) = (BTreeSet::new(), BTreeSet::new());
    for tenant in rules.tenants.values() {
        let says = !tenant.residency.is_empty() || tenant.process_in.is_some();
        if says { &mut closed } else { &mut open }.extend(&tenant.services);
    }
    closed.difference(&open).copied().collect()
}

struct Warner<'r> {
    rules: &'r Rules,
    regions: &'r [Region],
    territories: &'r Territories,
    hosts: &'r Hosts,
    warnings: Vec<Violation>,
}

impl Warner<'_> {
    fn warn(&mut self, pointer: String, message: impl Into<String>) {
        self.warnings.push(Violation { pointer, message: message.into() });
    }

    fn members<'s>(&self, service: &'s Service) -> impl Iterator<Item = &Region> + use<'_, 's> {
        let regions = self.regions;
        service.regions.iter().filter_map(move |name| regions.iter().find(|region| region.id == *name))
    }

    /// Whether a region lies in a tier.
    fn lies_in(&self, region: &Region, tier: &Tier) -> bool {
        match tier {
            Tier::Anywhere => true,
            Tier::In(names) => names.iter().any(|name| region.countries.is_subset(&self.territories.of(name))),
        }
    }

    /// Warns of a tier that holds no region of the service, and of a rule all of whose tiers hold none: both are
    /// probably mistakes. A rule with an empty list denies its clients on purpose.
    fn rule(&mut self, id: &ServiceId, service: &Service, index: usize, rule: &ResidencyRule) {
        let place = format!("/services/{id}/residency/{index}/process_in");
        let members: Vec<&Region> = self.members(service).collect();
        let first_tier = |region: &&Region| rule.process_in.iter().position(|tier| self.lies_in(region, tier));
        let tiers_with_region: BTreeSet<usize> = members.iter().filter_map(first_tier).collect();
        let outside: Vec<(&Region, &JurisdictionId, CountrySet)> = members
            .iter()
            .filter(|client| first_tier(client).is_none())
            .filter_map(|client| self.nearly(client, &rule.process_in))
            .collect();
        let mut reported: Vec<(String, String)> = outside
            .iter()
            .map(|(region, name, lacking)| {
                let lacking = listed(&lacking.iter().collect::<Vec<_>>());
                let message = format!(
                    "leaves out {}, which lies in {name} but for {lacking}; add these to the jurisdiction, or take \
                     them from the region",
                    region.id
                );
                (place.clone(), message)
            })
            .collect();
        if tiers_with_region.is_empty() && !rule.process_in.is_empty() {
            let message =
                "holds no region of the service: these clients are always denied; list a region that lies there";
            reported.insert(0, (place, message.to_owned()));
        } else {
            for (tier, process_in) in rule.process_in.iter().enumerate() {
                if matches!(process_in, Tier::In(_)) && !tiers_with_region.contains(&tier) {
                    let message =
                        "adds no region of the service; a region lies in a jurisdiction only if all its countries do";
                    reported.push((format!("{place}/{tier}"), message.to_owned()));
                }
            }
        }
        for (place, message) in reported {
            self.warn(place, message);
        }
    }

    /// A jurisdiction of these tiers in which a region nearly lies. What it lacks are only territories that belong to
    /// one of its states but have codes of their own. This happens with a provider's "EU" region if somebody listed
    /// only the members.
    fn nearly<'a>(
        &self,
        region: &'a Region,
        process_in: &'a [Tier],
    ) -> Option<(&'a Region, &'a JurisdictionId, CountrySet)> {
        let names = process_in.iter().flat_map(|tier| if let Tier::In(names) = tier { &names[..] } else { &[] });
        names
            .filter_map(|name| {
                let covered = self.territories.of(name);
                let lacking: CountrySet = region.countries.iter().filter(|code| !covered.contains(*code)).collect();
                let of_a_state_within = |code: CountryCode| {
                    let state = geo::territory(code).and_then(|territory| CountryCode::parse(territory.of?));
                    state.is_some_and(|state| covered.contains(state))
                };
                (!lacking.is_empty() && lacking.iter().all(of_a_state_within)).then_some((region, name, lacking))
            })
            .next()
    }

    /// Warns of clients that no rule matches.
    fn left_over(&mut self, id: &ServiceId, service: &Service) {
        let place = format!("/services/{id}/residency");
        let takes = |client: &ClientMatch| service.residency.iter().any(|rule| rule.clients.contains(client));
        if !takes(&ClientMatch::Unknown) {
            self.warn(
                place.clone(),
                "has no rule for \"unknown\": clients whose country isn't known are denied; add {\"clients\": \
                 [\"unknown\"], \"process_in\": […]} (an empty list denies them without this warning)",
            );
        }
        if takes(&ClientMatch::Known) {
            return;
        }
        let clients = service.residency.iter().flat_map(|rule| &rule.clients);
        let mut covered = CountrySet::default();
        for client in clients {
            if let ClientMatch::Jurisdiction(name) = client {
                covered.extend(&self.territories.of(name));
            }
        }
        let left: Vec<CountryCode> = geo::countries().filter(|code| !covered.contains(*code)).collect();
        if !left.is_empty() {
            self.warn(
                place,
                format!(
                    "takes no clients of {} countries ({}): they are denied; add {{\"clients\": [\"*\"], \
                     \"process_in\": […]}} (an empty list denies them without this warning)",
                    left.len(),
                    listed(&left)
                ),
            );
        }
    }

    /// Warns of a region without endpoints in a service whose other regions have some: the edge can send nothing there.
    fn without_endpoints(&mut self, id: &ServiceId, service: &Service) {
        if !self.members(service).any(|region| !region.endpoints.is_empty()) {
            return;
        }
        let bare =
            |name: &RegionId| self.regions.iter().any(|region| region.id == *name && region.endpoints.is_empty());
        let bare: Vec<_> = service.regions.iter().enumerate().filter(|(_, name)| bare(name)).collect();
        for (index, name) in bare {
            let message = format!(
                "names {name}, which has no endpoints, where others have: the edge can send nothing there; add \
                 \"endpoints\" to the region, or leave it out"
            );
            self.warn(format!("/services/{id}/regions/{index}"), message);
        }
    }

    /// Warns of an order by the first token that has no effect. Only the edge orders so, and only if the pattern
    /// doesn't give an order of its own.
    fn order(&mut self, id: &ServiceId, service: &Service) {
        if service.order == Order::Distance {
            return;
        }
        let place = format!("/services/{id}/order");
        if self.members(service).all(|region| region.endpoints.is_empty()) {
            let message = "is \"first-token\" for a service without endpoints, which DNS alone steers, by distance; \
                           leave it out, or add \"endpoints\" to its regions";
            self.warn(place, message);
        } else if matches!(service.pattern, Pattern::ActivePassive | Pattern::RegionalSharding) {
            let message = "is \"first-token\", but the pattern says already which region comes first; leave it out, or \
                           choose \"pattern\": \"active-active\"";
            self.warn(place, message);
        }
    }

    /// Warns of a fence that denies the tenant, and of a tier that adds nothing to it.
    fn fence_of_tenant(&mut self, place: &str, tenant: &Tenant, process_in: &[Tier]) {
        let place = format!("{place}/process_in");
        let services = tenant.services.iter().filter_map(|id| Some((id, self.rules.services.get(id)?)));
        let mut reported = Vec::new();
        let mut filled_tiers = BTreeSet::new();
        for (id, service) in services {
            let first_tier = |region: &Region| process_in.iter().position(|tier| self.lies_in(region, tier));
            let tiers: BTreeSet<usize> = self.members(service).filter_map(first_tier).collect();
            if tiers.is_empty() {
                let message = format!(
                    "holds no region of the service {id}: this tenant is always denied there; add a region that lies \
                     there, or leave the service out of its \"services\""
                );
                reported.push((place.clone(), message));
            }
            filled_tiers.extend(tiers);
        }
        for (tier, _) in process_in.iter().enumerate().filter(|(_, tier)| matches!(tier, Tier::In(_))) {
            if !filled_tiers.contains(&tier) && !filled_tiers.is_empty() {
                let message =
                    "adds no region of its services; a region lies in a jurisdiction only if all its countries do";
                reported.push((format!("{place}/{tier}"), message.to_owned()));
            }
        }
        for (place, message) in reported {
            self.warn(place, message);
        }
    }

    /// Warns of a tenant whose declared residency no rule matches: all its requests are denied.
    fn residency_of_tenant(&mut self, place: &str, tenant: &Tenant) {
        if tenant.residency.is_empty() {
            return;
        }
        for id in &tenant.services {
            let Some(service) = self.rules.services.get(id) else { continue };
            let takes = |client: &ClientMatch| match client {
                ClientMatch::Known => true,
                ClientMatch::Jurisdiction(name) => tenant.residency.contains(name),
                ClientMatch::Unknown => false,
            };
            if !service.residency.iter().any(|rule| rule.clients.iter().any(takes)) {
                self.warn(
                    format!("{place}/residency"),
                    format!(
                        "is named by no rule of the service {id}: this tenant is always denied there; name it in a \
                         rule's \"clients\", or say \"process_in\" here"
                    ),
                );
            }
        }
    }

    /// Warns of jurisdictions that decide nothing, and of lists that seem to lack members of the EU.
    fn jurisdictions(&mut self, by_regions: &BTreeSet<JurisdictionId>) {
        let mut used: BTreeSet<&JurisdictionId> = by_regions.iter().collect();
        for rule in self.rules.services.values().flat_map(|service| &service.residency) {
            used.extend(
                rule.clients
                    .iter()
                    .filter_map(|client| if let ClientMatch::Jurisdiction(name) = client { Some(name) } else { None }),
            );
            used.extend(names(&rule.process_in));
        }
        for tenant in self.rules.tenants.values() {
            used.extend(tenant.residency.iter().chain(names(tenant.process_in.as_deref().unwrap_or_default())));
        }
        let members = geo::eu_members();
        let eu = geo::built_in_set("EU").unwrap_or_default();
        for (name, jurisdiction) in &self.rules.jurisdictions {
            if !used.contains(name) {
                let message = "is named by no rule, tenant or region, so it decides nothing; name it, or remove it";
                self.warnings
                    .push(Violation { pointer: format!("/jurisdictions/{name}"), message: message.to_owned() });
            }
            let listed_by_hand: CountrySet = jurisdiction.countries.iter().copied().collect();
            let lacking: Vec<CountryCode> = eu.iter().filter(|code| !listed_by_hand.contains(*code)).collect();
            if jurisdiction.include.is_empty() && members.is_subset(&listed_by_hand) && !lacking.is_empty() {
                let lacking = listed(&lacking);
                self.warnings.push(Violation {
                    pointer: format!("/jurisdictions/{name}/countries"),
                    message: format!(
                        "lists all members of the EU, but not {lacking}, where EU law applies too; write \
                         \"include\": [\"EU\"] (and \"exclude\" for those left out on purpose)"
                    ),
                });
            }
        }
    }

    /// Warns of an engine that several tenants share without a list of models. It serves an adapter to whoever knows
    /// the adapter's name, and the name doesn't say whose adapter it is.
    fn shared_engines(&mut self) {
        let mut reported = Vec::new();
        for region in self.regions {
            let services = &self.rules.services;
            let serves = |id: &ServiceId| services.get(id).is_some_and(|service| service.regions.contains(&region.id));
            let tenants = self.rules.tenants.values().filter(|tenant| tenant.services.iter().any(serves)).count();
            let is_open = |endpoint: &Endpoint| endpoint.engine.is_some() && endpoint.models.is_none();
            for (id, _) in region.endpoints.iter().filter(|(_, endpoint)| tenants > 1 && is_open(endpoint)) {
                let message = format!(
                    "has no \"models\", and {tenants} tenants share this engine: each may use any model and LoRA \
                     adapter \
                     there by its name, whoever it was made for; list under \"models\" what they may use, and give a \
                     tenant's own adapters an endpoint of its own"
                );
                reported.push((format!("/regions/{}/endpoints/{id}", region.id), message));
            }
        }
        for (place, message) in reported {
            self.warn(place, message);
        }
    }

    /// Warns of regions that no service uses, and of endpoints with unusual URLs or with a secret of the Worker's own.
    fn regions(&mut self) {
        let served: BTreeSet<&RegionId> = self.rules.services.values().flat_map(|service| &service.regions).collect();
        for region in self.regions {
            if !served.contains(&region.id) {
                let message = "belongs to no service, so nothing is ever sent there; list it in a service's \
                    \"regions\", or \
                               remove it";
                self.warn(format!("/regions/{}", region.id), message);
            }
            for (id, endpoint) in &region.endpoints {
                let versioned = |part: &str| {
                    part.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
                };
                if endpoint.style == Style::OpenAi && !endpoint.url.as_url().path().split('/').any(versioned) {
                    self.warn(
                        format!("/regions/{}/endpoints/{id}/url", region.id),
                        "has no /v1 in its path: requests go to …/chat/completions below it, where most engines serve \
                         …/v1/chat/completions; add /v1 if this one does",
                    );
                }
                if let Some(secret) = endpoint.secret.as_ref().filter(|name| name.is_of_worker()) {
                    let message = format!(
                        "names {secret}, a secret of the Worker's own, which this endpoint gets then; give the \
                         endpoint's key another name, and change the Worker's"
                    );
                    self.warn(format!("/regions/{}/endpoints/{id}/secret", region.id), message);
                }
            }
        }
    }
}

/// The jurisdictions that tiers name.
fn names(process_in: &[Tier]) -> impl Iterator<Item = &JurisdictionId> {
    process_in.iter().flat_map(|tier| if let Tier::In(names) = tier { &names[..] } else { &[] })
}

/// A list of codes for a message, such as `AX, GF and 5 more`.
fn listed(codes: &[CountryCode]) -> String {
    let mut text = codes.iter().take(MAX_NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if codes.len() > MAX_NAMED {
        text += &format!(" and {} more", codes.len() - MAX_NAMED);
    }
    text
}

#[cfg(test)]
mod tests;
