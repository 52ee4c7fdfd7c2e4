//! Finds endpoints that run something else than they should. Takes a fence (the regions that may process a client) and
//! the health of its regions; returns the endpoints that differ, and the endpoints and regions that are withheld for
//! it, which means that no request is sent there. Called by [`super::decide`], by the edge for each region's endpoints,
//! and by reports.
//!
//! A release says which model, engine and settings should run under a name of a model. Skew means that an endpoint runs
//! something else. Each property that is compared is an [`Aspect`]. A release may pin an aspect, that is, name the
//! value that every endpoint must have. Where nothing is pinned, the majority of the fence's regions is right.

use super::{Conditions, forced_endpoint};
use crate::health::{Aspect, AspectValue, ReleaseHealth, Status};
use crate::table::{RegionIndex, ReleaseIndex, Table};

/// An endpoint that runs something else than it should.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DifferingEndpoint {
    /// Its region.
    pub region: RegionIndex,
    /// Its position in the region.
    pub endpoint: usize,
    /// The aspects that differ from the pin, or from most regions of the fence.
    pub aspects: Vec<Aspect>,
    /// The aspects of which no version has a majority, so that nobody knows which version is right. Nothing is withheld
    /// because of these.
    pub undecided: Vec<Aspect>,
}

impl DifferingEndpoint {
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
pub fn differing_endpoints(
    table: &Table,
    fence: &[RegionIndex],
    release: ReleaseIndex,
    conditions: &Conditions<'_>,
) -> Vec<DifferingEndpoint> {
    let endpoints_of = |region: RegionIndex| compared_endpoints(table, region, release, conditions);
    let votes = Aspect::ALL.map(|aspect| {
        let votes_of_regions = fence.iter().filter_map(|region| vote_of_region(endpoints_of(*region), aspect));
        majority(votes_of_regions)
    });
    let mut differing = Vec::new();
    for &region in fence {
        for endpoint in endpoints_of(region) {
            let (mut aspects, mut undecided) = (Vec::new(), Vec::new());
            for (aspect, vote) in Aspect::ALL.into_iter().zip(votes) {
                match (endpoint.value(aspect), vote.winner) {
                    (AspectValue::DiffersFromPin, _) => aspects.push(aspect),
                    (AspectValue::Version(version), Some(winner)) if version != winner => aspects.push(aspect),
                    (AspectValue::Version(_), None) if vote.is_split => undecided.push(aspect),
                    _ => {}
                }
            }
            if !aspects.is_empty() || !undecided.is_empty() {
                differing.push(DifferingEndpoint { region, endpoint: endpoint.endpoint, aspects, undecided });
            }
        }
    }
    differing
}

/// The endpoints of a region whose release is compared: those of which something is known, but for those that run
/// something else on purpose, because of a rollout.
fn compared_endpoints<'a>(
    table: &'a Table,
    region: RegionIndex,
    release: ReleaseIndex,
    conditions: &Conditions<'a>,
) -> impl Iterator<Item = &'a ReleaseHealth> {
    let of_region = conditions.health.get(region.get()).map_or(&[][..], |health| &health.releases);
    of_region.iter().filter(move |endpoint| {
        endpoint.release == release.get() && !table.is_on_trial(region, endpoint.endpoint, release)
    })
}

/// The version of an aspect that most endpoints of a region run; `None` if no version has a majority. An endpoint that
/// differs from a pin of the release is known to be wrong, so it has no vote.
fn vote_of_region<'a>(endpoints: impl Iterator<Item = &'a ReleaseHealth>, aspect: Aspect) -> Option<u32> {
    let voters = endpoints.filter(|endpoint| !endpoint.values.contains(&AspectValue::DiffersFromPin));
    let versions = voters.filter_map(|endpoint| match endpoint.value(aspect) {
        AspectValue::Version(version) => Some(version),
        _ => None,
    });
    majority(versions).winner
}

/// The result of a vote on the version that is right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Vote {
    /// The version with more than half of the votes.
    winner: Option<u32>,
    /// Whether there are votes for several versions and none of them wins.
    is_split: bool,
}

/// Counts votes. Each item of `versions` is one vote for that version.
fn majority(versions: impl Iterator<Item = u32>) -> Vote {
    let mut counts: Vec<(u32, usize)> = Vec::new();
    for version in versions {
        match counts.iter_mut().find(|(counted, _)| *counted == version) {
            Some((_, count)) => *count += 1,
            None => counts.push((version, 1)),
        }
    }
    let total: usize = counts.iter().map(|(_, count)| *count).sum();
    let winner = counts.iter().find(|(_, count)| 2 * count > total).map(|(version, _)| *version);
    Vote { winner, is_split: winner.is_none() && counts.len() > 1 }
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
                let endpoints = withheld_endpoints(table, fence, table.release_of(model)?, conditions);
                let is_withheld = |region: &RegionIndex| is_left_without(table, *region, model, &endpoints, conditions);
                let regions = fence.iter().copied().filter(is_withheld).collect();
                Self { endpoints, regions }
            }
            None => Self { endpoints: Vec::new(), regions: regions_withheld_for_every_model(table, fence, conditions) },
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
fn withheld_endpoints(
    table: &Table,
    fence: &[RegionIndex],
    release: ReleaseIndex,
    conditions: &Conditions<'_>,
) -> Vec<(RegionIndex, usize)> {
    if !table.releases().get(release.get()).is_some_and(crate::table::Release::withholds) {
        return Vec::new();
    }
    let differing = differing_endpoints(table, fence, release, conditions).into_iter();
    differing.filter(DifferingEndpoint::is_certain).map(|endpoint| (endpoint.region, endpoint.endpoint)).collect()
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
    if !withheld.iter().any(|(region_of_endpoint, _)| *region_of_endpoint == region) {
        return false;
    }
    let health = conditions.health.get(region.get());
    let is_down = |position: usize| match forced_endpoint(table, region, position, conditions) {
        Some(forced) => forced.status == Status::Down,
        None => health.and_then(|health| health.endpoints.get(position)) == Some(&Status::Down),
    };
    let endpoints = table.region(region).endpoints.iter().enumerate();
    let with_model = endpoints.filter(|(_, (_, endpoint))| crate::table::endpoint_model(endpoint, model).is_some());
    let mut in_service = with_model.filter(|(position, _)| !is_down(*position)).peekable();
    in_service.peek().is_some() && in_service.all(|(position, _)| withheld.contains(&(region, position)))
}

/// The regions that are withheld for every model of their endpoints. A region with an endpoint that takes any model is
/// never among them, as not all of its models are known.
fn regions_withheld_for_every_model(
    table: &Table,
    fence: &[RegionIndex],
    conditions: &Conditions<'_>,
) -> Vec<RegionIndex> {
    let mut by_release: Vec<Option<Vec<(RegionIndex, usize)>>> = vec![None; table.releases().len()];
    let mut is_withheld = |region: RegionIndex| {
        let Some(models) = models_of_region(table, region) else { return false };
        let mut is_withheld_for = |model: &str| {
            let Some(release) = table.release_of(model) else { return false };
            let Some(slot) = by_release.get_mut(release.get()) else { return false };
            let endpoints = slot.get_or_insert_with(|| withheld_endpoints(table, fence, release, conditions));
            is_left_without(table, region, model, endpoints, conditions)
        };
        !models.is_empty() && models.into_iter().all(&mut is_withheld_for)
    };
    fence.iter().copied().filter(|region| is_withheld(*region)).collect()
}

/// The clients' names of all models that the endpoints of a region have; `None` if an endpoint takes any model.
fn models_of_region(table: &Table, region: RegionIndex) -> Option<Vec<&str>> {
    let mut models = Vec::new();
    for (_, endpoint) in &table.region(region).endpoints {
        models.extend(endpoint.models.as_ref()?.keys().map(String::as_str));
    }
    models.sort_unstable();
    models.dedup();
    Some(models)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_half_decide_and_else_nobody() {
        for (versions, winner, is_split) in [
            (&[][..], None, false),
            (&[7][..], Some(7), false),
            (&[7, 8][..], None, true),
            (&[7, 7, 8][..], Some(7), false),
            (&[7, 7, 8, 8][..], None, true),
            (&[7, 7, 8, 9][..], None, true),
            (&[7, 7, 8, 9, 10][..], None, true),
            (&[8, 7, 7, 9, 7][..], Some(7), false),
        ] {
            assert_eq!(majority(versions.iter().copied()), Vote { winner, is_split }, "{versions:?}");
        }
    }
}
