//! Releases in a decision. A release says which model, engine and settings should run under a name of a model; skew
//! means that an endpoint runs something else. Takes a fence and the health of its regions, returns which endpoints run
//! something else than the release pins, or than most regions of the fence run. Called by [`super::decide`], by the
//! edge for each region's endpoints, and by reports.

use super::{Conditions, forced_endpoint};
use crate::health::{Aspect, ReleaseHealth, Said, Status};
use crate::table::{RegionIndex, ReleaseIndex, Table};

/// An endpoint that runs something else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Differing {
    /// Its region.
    pub region: RegionIndex,
    /// Its position in the region.
    pub endpoint: usize,
    /// What differs from the pin, or from most regions of the fence.
    pub aspects: Vec<Aspect>,
    /// The aspects of which no version has a majority, so that nobody knows which version is right. Nothing is withheld
    /// because of these.
    pub undecided: Vec<Aspect>,
}

impl Differing {
    /// Whether the endpoint surely differs, so that it is withheld if the release says `withhold`.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        !self.aspects.is_empty()
    }
}

/// Every endpoint of a fence that runs something else than the release pins, or than most regions of the fence run.
///
/// On each aspect that isn't pinned, each region has one vote: what most of its endpoints run. It votes even if it is
/// down. An endpoint that runs something else on purpose, because of a rollout, neither votes nor differs. An aspect
/// that isn't known differs from nothing.
#[must_use]
pub fn differing(
    table: &Table,
    fence: &[RegionIndex],
    release: ReleaseIndex,
    conditions: &Conditions<'_>,
) -> Vec<Differing> {
    let known = |region: RegionIndex| {
        let of_region = conditions.health.get(region.get()).map_or(&[][..], |health| &health.releases);
        let is_counted = move |one: &&ReleaseHealth| {
            one.release == release.get() && !table.is_on_trial(region, one.endpoint, release)
        };
        of_region.iter().filter(is_counted)
    };
    let is_other = |one: &ReleaseHealth| one.said.contains(&Said::Other);
    let majorities = Aspect::ALL.map(|aspect| {
        let votes = fence.iter().filter_map(|region| {
            let versions = known(*region).filter(|one| !is_other(one)).filter_map(|one| version(one.of(aspect)));
            majority(versions).0
        });
        majority(votes)
    });
    let mut found = Vec::new();
    for &region in fence {
        for one in known(region) {
            let (mut aspects, mut undecided) = (Vec::new(), Vec::new());
            for (aspect, (most, is_split)) in Aspect::ALL.into_iter().zip(majorities) {
                match (one.of(aspect), most) {
                    (Said::Other, _) => aspects.push(aspect),
                    (Said::Version(version), Some(most)) if version != most => aspects.push(aspect),
                    (Said::Version(_), None) if is_split => undecided.push(aspect),
                    _ => {}
                }
            }
            if !aspects.is_empty() || !undecided.is_empty() {
                found.push(Differing { region, endpoint: one.endpoint, aspects, undecided });
            }
        }
    }
    found
}

fn version(said: Said) -> Option<u32> {
    if let Said::Version(version) = said { Some(version) } else { None }
}

/// The version that more than half have, and whether there is none although there are several versions.
fn majority(versions: impl Iterator<Item = u32>) -> (Option<u32>, bool) {
    let mut counts: Vec<(u32, usize)> = Vec::new();
    for version in versions {
        match counts.iter_mut().find(|(one, _)| *one == version) {
            Some((_, count)) => *count += 1,
            None => counts.push((version, 1)),
        }
    }
    let all: usize = counts.iter().map(|(_, count)| *count).sum();
    let most = counts.iter().find(|(_, count)| 2 * count > all).map(|(version, _)| *version);
    (most, most.is_none() && counts.len() > 1)
}

/// Which endpoints and regions of a fence are withheld because of what they run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Skew {
    /// The endpoints that run something else than the release of the requested model.
    endpoints: Vec<(RegionIndex, usize)>,
    /// The regions that are withheld.
    regions: Vec<RegionIndex>,
}

impl Skew {
    /// What is withheld from a request for a model; `None` if nothing is. DNS doesn't know the model (`model` is
    /// `None`): it withholds a region only if the region is withheld for every model that its endpoints have.
    #[must_use]
    pub fn of(table: &Table, fence: &[RegionIndex], model: Option<&str>, conditions: &Conditions<'_>) -> Option<Self> {
        if table.releases().is_empty() {
            return None;
        }
        let skew = match model {
            Some(model) => {
                let endpoints = withheld(table, fence, table.release_of(model)?, conditions);
                let is_withheld = |region: &RegionIndex| is_left_without(table, *region, model, &endpoints, conditions);
                let regions = fence.iter().copied().filter(is_withheld).collect();
                Self { endpoints, regions }
            }
            None => Self { endpoints: Vec::new(), regions: of_every_model(table, fence, conditions) },
        };
        (!skew.endpoints.is_empty() || !skew.regions.is_empty()).then_some(skew)
    }

    /// Whether a region is withheld.
    #[must_use]
    pub fn withholds(&self, region: RegionIndex) -> bool {
        self.regions.contains(&region)
    }

    /// Whether an endpoint runs something else. Other endpoints of its region are asked instead.
    #[must_use]
    pub fn has(&self, region: RegionIndex, endpoint: usize) -> bool {
        self.endpoints.contains(&(region, endpoint))
    }
}

/// The endpoints that are withheld because of a release; none if the release only warns.
fn withheld(
    table: &Table,
    fence: &[RegionIndex],
    release: ReleaseIndex,
    conditions: &Conditions<'_>,
) -> Vec<(RegionIndex, usize)> {
    if !table.releases().get(release.get()).is_some_and(crate::table::Release::withholds) {
        return Vec::new();
    }
    let found = differing(table, fence, release, conditions).into_iter().filter(Differing::is_certain);
    found.map(|one| (one.region, one.endpoint)).collect()
}

/// Whether every endpoint of a region that has the model and isn't down is in `withheld`. Not so for a region without
/// any such endpoint.
fn is_left_without(
    table: &Table,
    region: RegionIndex,
    model: &str,
    withheld: &[(RegionIndex, usize)],
    conditions: &Conditions<'_>,
) -> bool {
    if !withheld.iter().any(|(one, _)| *one == region) {
        return false;
    }
    let health = conditions.health.get(region.get());
    let is_down = |endpoint: usize| match forced_endpoint(table, region, endpoint, conditions) {
        Some(forced) => forced.status == Status::Down,
        None => health.and_then(|health| health.endpoints.get(endpoint)) == Some(&Status::Down),
    };
    let endpoints = table.region(region).endpoints.iter().enumerate();
    let able = endpoints.filter(|(_, (_, endpoint))| crate::table::call(endpoint, model).is_some());
    let mut left = able.filter(|(at, _)| !is_down(*at)).peekable();
    left.peek().is_some() && left.all(|(at, _)| withheld.contains(&(region, at)))
}

/// The regions that are withheld for every model of their endpoints. A region with an endpoint that takes any model is
/// never among them, as not all of its models are known.
fn of_every_model(table: &Table, fence: &[RegionIndex], conditions: &Conditions<'_>) -> Vec<RegionIndex> {
    let mut by_release: Vec<Option<Vec<(RegionIndex, usize)>>> = vec![None; table.releases().len()];
    let mut is_withheld = |region: RegionIndex| {
        let mut models = Vec::new();
        for (_, endpoint) in &table.region(region).endpoints {
            let Some(of_endpoint) = &endpoint.models else { return false };
            models.extend(of_endpoint.keys().map(String::as_str));
        }
        models.sort_unstable();
        models.dedup();
        let mut of_model = |model: &str| {
            let Some(release) = table.release_of(model) else { return false };
            let Some(slot) = by_release.get_mut(release.get()) else { return false };
            let endpoints = slot.get_or_insert_with(|| withheld(table, fence, release, conditions));
            is_left_without(table, region, model, endpoints, conditions)
        };
        !models.is_empty() && models.into_iter().all(&mut of_model)
    };
    fence.iter().copied().filter(|region| is_withheld(*region)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_half_decide_and_else_nobody() {
        for (versions, most, is_split) in [
            (&[][..], None, false),
            (&[7][..], Some(7), false),
            (&[7, 8][..], None, true),
            (&[7, 7, 8][..], Some(7), false),
            (&[7, 7, 8, 8][..], None, true),
            (&[7, 7, 8, 9][..], None, true),
            (&[7, 7, 8, 9, 10][..], None, true),
            (&[8, 7, 7, 9, 7][..], Some(7), false),
        ] {
            assert_eq!(majority(versions.iter().copied()), (most, is_split), "{versions:?}");
        }
    }
}
