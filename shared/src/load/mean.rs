//! Takes the loads of a region's endpoints, returns the load of the region. Called by the DNS node for its reports and
//! before it makes a plan.

use super::{Amount, requests};
use crate::rules::Ratio;

/// An endpoint that isn't down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndpointLoad {
    /// How many requests the endpoint serves at once, if the rules say so.
    pub capacity: Option<u32>,
    /// The endpoint's load by a fresh reading; `None` if there is no fresh reading.
    pub load: Option<Ratio>,
}

/// The load of a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MeanLoad {
    /// The mean load of the endpoints with a fresh reading, weighted by capacity; `None` if there is no such endpoint.
    pub load: Option<Ratio>,
    /// How many endpoints the mean includes.
    pub read: u32,
    /// How many endpoints have no fresh reading.
    pub missing: u32,
}

impl MeanLoad {
    /// The mean over a region's endpoints. Endpoints without a fresh reading are left out: they count neither as idle
    /// nor as full. If no endpoint has a capacity, all have the same weight. If some have a capacity, endpoints without
    /// one have weight 0.
    ///
    /// ```
    /// use bailiwick_rules::load::{EndpointLoad, MeanLoad};
    /// use bailiwick_rules::rules::Ratio;
    /// let endpoint = |capacity, load| EndpointLoad { capacity: Some(capacity), load };
    /// let (busy, idle) = (endpoint(30, Some(Ratio(800_000))), endpoint(10, Some(Ratio(400_000))));
    /// let mean = MeanLoad::of(&[busy, idle, endpoint(60, None)]);
    /// assert_eq!((mean.load, mean.read, mean.missing), (Some(Ratio(700_000)), 2, 1));
    /// ```
    #[must_use]
    pub fn of(endpoints: &[EndpointLoad]) -> Self {
        let has_capacity = endpoints.iter().any(|endpoint| endpoint.capacity.is_some());
        let weight = |endpoint: &EndpointLoad| u64::from(endpoint.capacity.unwrap_or(u32::from(!has_capacity)));
        let loads_and_weights = || endpoints.iter().filter_map(|endpoint| Some((endpoint.load?, weight(endpoint))));
        let known = || loads_and_weights().filter(|(_, weight)| *weight > 0);
        let whole: u128 = known().map(|(_, weight)| u128::from(weight)).sum();
        let sum: u128 = known().map(|(load, weight)| u128::from(load.0) * u128::from(weight)).sum();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            load: sum.checked_div(whole).and_then(|mean| u32::try_from(mean).ok()).map(Ratio),
            read: count(known().count()),
            missing: count(endpoints.iter().filter(|endpoint| endpoint.load.is_none()).count()),
        }
    }
}

/// The total capacity of endpoints that aren't down; `None` if no endpoint has a capacity.
#[must_use]
pub fn capacity_of(endpoints: &[EndpointLoad]) -> Option<Amount> {
    endpoints.iter().filter_map(|endpoint| endpoint.capacity).map(requests).reduce(Amount::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(capacity: Option<u32>, load: Option<u32>) -> EndpointLoad {
        EndpointLoad { capacity, load: load.map(Ratio) }
    }

    #[test]
    fn endpoints_without_a_reading_are_neither_idle_nor_full() {
        let known = endpoint(Some(10), Some(500_000));
        let mean = MeanLoad::of(&[known, endpoint(Some(1_000), None)]);
        assert_eq!(mean, MeanLoad { load: Some(Ratio(500_000)), read: 1, missing: 1 });
        assert_eq!(MeanLoad::of(&[endpoint(None, None)]), MeanLoad { load: None, read: 0, missing: 1 });
        assert_eq!(MeanLoad::of(&[]), MeanLoad::default());
    }

    #[test]
    fn endpoints_without_capacity_have_equal_weights_or_none_beside_endpoints_with_capacity() {
        let equal = MeanLoad::of(&[endpoint(None, Some(200_000)), endpoint(None, Some(600_000))]);
        assert_eq!(equal.load, Some(Ratio(400_000)));
        let beside = MeanLoad::of(&[endpoint(None, Some(200_000)), endpoint(Some(5), Some(600_000))]);
        assert_eq!((beside.load, beside.read), (Some(Ratio(600_000)), 1));
        assert_eq!(MeanLoad::of(&[endpoint(Some(u32::MAX), Some(u32::MAX)); 3]).load, Some(Ratio(u32::MAX)));
    }

    #[test]
    fn capacities_are_added_up() {
        assert_eq!(capacity_of(&[endpoint(Some(3), None), endpoint(None, None), endpoint(Some(4), None)]), Some(7_000));
        assert_eq!(capacity_of(&[endpoint(None, Some(1))]), None);
    }
}
