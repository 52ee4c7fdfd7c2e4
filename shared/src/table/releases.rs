//! Releases, compiled. A release says what endpoints should run under a clients' name of a model. Takes the releases of
//! the rules, returns them sorted by name. Called by [`super::Table::build`]; used by steering, and by the DNS node,
//! which asks endpoints what they run.

use std::collections::BTreeMap;

use super::{RegionIndex, ReleaseIndex, Table};
use crate::rules::{self, Change, Endpoint, Skew};

/// A release, compiled.
#[derive(Clone, PartialEq, Debug)]
pub struct Release {
    /// The clients' name of the model.
    pub model: String,
    /// The release as the rules have it.
    pub rule: rules::Release,
}

impl Release {
    /// Whether a region that runs something else is withheld, instead of only reported.
    #[must_use]
    pub fn withholds(&self) -> bool {
        self.rule.skew == Skew::Withhold
    }
}

/// Compiles the releases of a document.
pub(super) fn build(releases: BTreeMap<String, rules::Release>) -> Vec<Release> {
    releases.into_iter().map(|(model, rule)| Release { model, rule }).collect()
}

/// The endpoint's own name for a client's model; `None` if the endpoint doesn't have the model. An endpoint without a
/// map of models uses the client's name.
#[must_use]
pub(crate) fn endpoint_model<'a>(endpoint: &'a Endpoint, model: &'a str) -> Option<&'a str> {
    endpoint.models.as_ref().map_or(Some(model), |models| models.get(model).map(String::as_str))
}

impl Table {
    /// All releases, sorted by the clients' name of the model.
    #[must_use]
    pub fn releases(&self) -> &[Release] {
        &self.releases
    }

    /// The release of a model, by the clients' name.
    #[must_use]
    pub fn release_of(&self, model: &str) -> Option<ReleaseIndex> {
        let position = self.releases.binary_search_by(|release| release.model.as_str().cmp(model));
        position.ok().map(ReleaseIndex::new)
    }

    /// The endpoint's own name for the model of a release; `None` if the endpoint doesn't have the model.
    #[must_use]
    pub fn call_of(&self, region: RegionIndex, endpoint: usize, release: ReleaseIndex) -> Option<&str> {
        let release = self.releases.get(release.get())?;
        endpoint_model(&self.region(region).endpoints.get(endpoint)?.1, &release.model)
    }

    /// Whether a rollout makes an endpoint run something else on purpose: either a rollout introduces the endpoint, or
    /// one that is under way replaces this model in the region.
    #[must_use]
    pub fn is_on_trial(&self, region: RegionIndex, endpoint: usize, release: ReleaseIndex) -> bool {
        let Some((id, _)) = self.region(region).endpoints.get(endpoint) else { return false };
        let Some(release) = self.releases.get(release.get()) else { return false };
        let is_replaced = self.rollouts().iter().any(|rollout| {
            let is_under_way = rollout.rule.progress.as_ref().is_some_and(|progress| progress.ended.is_none());
            let is_of_model = matches!(&rollout.rule.change, Change::Model { model, .. } if *model == release.model);
            is_under_way && is_of_model && rollout.regions.iter().any(|(member, _)| *member == region)
        });
        is_replaced || self.is_rolled_out(region, id)
    }
}
