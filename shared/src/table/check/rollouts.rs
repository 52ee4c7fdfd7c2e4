//! Checks what rollouts say of services, regions and endpoints. Takes the rules, adds violations. Called by
//! [`super::super::Table::compile`].

use crate::bundle::Version;
use crate::id::{BundleId, RegionId, RolloutId};
use crate::json::Violation;
use crate::rules::{Change, Endpoint, Pair, Rollout, Rules, Service};

/// All violations about rollouts. None for a document without them.
pub(in super::super) fn rollouts(rules: &Rules, violations: &mut Vec<Violation>) {
    // Parts that couldn't be read are reported already. The rest of them may wrongly look like mistakes.
    let is_unread = |place: &str| violations.iter().any(|violation| violation.pointer.starts_with(place));
    if rules.rollouts.is_empty() || is_unread("/regions") || is_unread("/services") || is_unread("/bundles") {
        return;
    }
    let mut mistakes = Vec::new();
    for (id, rollout) in rules.rollouts.iter().filter(|(id, _)| !is_unread(&format!("/rollouts/{id}"))) {
        let Some(service) = rules.services.get(&rollout.service) else { continue };
        mistakes.extend(outside(id, rollout, service));
        match &rollout.change {
            Change::Model { model, from, .. } => {
                let lacking = |region: &&RegionId| !has_model(rules, region, model, from);
                mistakes.extend(rollout.regions.iter().find(lacking).map(|region| {
                    let calls = calls(rules, region, model);
                    violation(
                        format!("/rollouts/{id}/from"),
                        format!(
                            "is {from:?}, but no endpoint of {region} calls {model:?} so{calls}; write the name that \
                             its \"models\" have, or remove the rollout if they have the new one"
                        ),
                    )
                }));
            }
            Change::Endpoints(pairs) => {
                let lacking = rollout.regions.iter().find(|region| !pairs.contains_key(*region));
                mistakes.extend(lacking.map(|region| {
                    violation(format!("/rollouts/{id}/endpoints"), format!("lacks {region}, one of its \"regions\""))
                }));
                let other = pairs.keys().find(|region| !rollout.regions.contains(region));
                mistakes.extend(other.map(|region| {
                    let message = format!("is of {region}, which isn't one of its \"regions\"; add it there");
                    violation(format!("/rollouts/{id}/endpoints/{region}"), message)
                }));
                mistakes.extend(pairs.iter().filter_map(|(region, pair)| differing(rules, id, region, pair)));
            }
            Change::Bundle { bundle, to } => mistakes.extend(pinned(rules, id, rollout, (bundle, *to))),
        }
    }
    violations.extend(mistakes);
}

fn violation(pointer: String, message: String) -> Violation {
    Violation { pointer, message }
}

/// The violation of a rollout with a region that isn't one of its service.
fn outside(id: &RolloutId, rollout: &Rollout, service: &Service) -> Option<Violation> {
    let mut regions = rollout.regions.iter().enumerate();
    let (index, region) = regions.find(|(_, region)| !service.regions.contains(region))?;
    let message = format!(
        "names {region}, which isn't one of the regions of {}; take it out here, or add it there",
        rollout.service
    );
    Some(violation(format!("/rollouts/{id}/regions/{index}"), message))
}

/// A region that has the new version of a bundle already.
fn pinned(rules: &Rules, id: &RolloutId, rollout: &Rollout, (bundle, to): (&BundleId, Version)) -> Option<Violation> {
    let pins = rules.bundles.get(bundle)?;
    let region = rollout.regions.iter().find(|region| pins.version_of(Some(region)) == to)?;
    let message = format!(
        "is the version of {bundle} that \"bundles\" pin for {region} already; write the new one, or remove the \
         rollout if its regions have it"
    );
    Some(violation(format!("/rollouts/{id}/to"), message))
}

fn endpoints<'r>(rules: &'r Rules, region: &RegionId) -> impl Iterator<Item = &'r Endpoint> {
    rules.regions.get(region).into_iter().flat_map(|region| region.endpoints.values())
}

/// The endpoint's own name for a model. An endpoint without a map of models uses the client's name.
fn endpoint_model<'a>(endpoint: &'a Endpoint, model: &'a str) -> Option<&'a str> {
    endpoint.models.as_ref().map_or(Some(model), |models| models.get(model).map(String::as_str))
}

fn has_model(rules: &Rules, region: &RegionId, model: &str, name: &str) -> bool {
    endpoints(rules, region).any(|endpoint| endpoint_model(endpoint, model) == Some(name))
}

/// The names that the endpoints of a region have for a model, as the end of a sentence.
fn calls(rules: &Rules, region: &RegionId, model: &str) -> String {
    let mut names: Vec<&str> =
        endpoints(rules, region).filter_map(|endpoint| endpoint_model(endpoint, model)).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() { format!(": none has {model:?}") } else { format!(": they say {names:?}") }
}

/// The violation of a pair whose new endpoint lacks a model of the old one. The new arm couldn't serve that model.
fn differing(rules: &Rules, id: &RolloutId, region: &RegionId, pair: &Pair) -> Option<Violation> {
    let endpoints = &rules.regions.get(region)?.endpoints;
    let (old, new) = (endpoints.get(&pair.from)?, endpoints.get(&pair.to)?.models.as_ref()?);
    let pointer = format!("/rollouts/{id}/endpoints/{region}/to");
    let Some(models) = &old.models else {
        let message = format!("is {}, which lists its models, and {} takes any; list the same", pair.to, pair.from);
        return Some(violation(pointer, message));
    };
    let lacking = models.keys().find(|model| !new.contains_key(*model))?;
    let message = format!("is {}, which lacks the model {lacking:?} of {}; add it there", pair.to, pair.from);
    Some(violation(pointer, message))
}
