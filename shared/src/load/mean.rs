//! Takes the loads of a region's endpoints, returns the region's. Called by the DNS node for its reports and before it
//! plans.

use super::{Amount, requests};
use crate::rules::Ratio;

/// One endpoint of a region that isn't down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndpointLoad {
    /// How many requests it serves at once, if the rules say it.
    pub capacity: Option<u32>,
    /// Its load by a reading that is fresh.
    pub load: Option<Ratio>,
}

/// The load of a region, made of its endpoints'.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MeanLoad {
    /// The mean, weighted by capacity, of those endpoints whose load is known; `None` if none is.
    pub load: Option<Ratio>,
    /// How many endpoints it was made of.
    pub read: u32,
    /// How many others have no fresh reading.
    pub missing: u32,
}

impl MeanLoad {
    /// The mean over a region's endpoints. Those whose load isn't known are left out, neither idle nor full. If no
    /// endpoint has a capacity, all weigh the same; beside others, one without it weighs nothing.
    ///
    /// ```
    /// use bailiwick_rules::load::{EndpointLoad, MeanLoad};
    /// use bailiwick_rules::rules::Ratio;
    /// let one = |capacity, load| EndpointLoad { capacity: Some(capacity), load };
    /// let mean = MeanLoad::of(&[one(30, Some(Ratio(800_000))), one(10, Some(Ratio(400_000))), one(60, None)]);
    /// assert_eq!((mean.load, mean.read, mean.missing), (Some(Ratio(700_000)), 2, 1));
    /// ```
    #[must_use]
    pub fn of(endpoints: &[EndpointLoad]) -> Self {
        let has_capacity = endpoints.iter().any(|one| one.capacity.is_some());
        let weight = |one: &EndpointLoad| u64::from(one.capacity.unwrap_or(u32::from(!has_capacity)));
        let known =
            || endpoints.iter().filter_map(|one| Some((one.load?, weight(one)))).filter(|(_, weight)| *weight > 0);
        let whole: u128 = known().map(|(_, weight)| u128::from(weight)).sum();
        let sum: u128 = known().map(|(load, weight)| u128::from(load.0) * u128::from(weight)).sum();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            load: sum.checked_div(whole).and_then(|mean| u32::try_from(mean).ok()).map(Ratio),
            read: count(known().count()),
            missing: count(endpoints.iter().filter(|one| one.load.is_none()).count()),
        }
    }
}

/// What endpoints that aren't down can serve together; `None` if no endpoint of theirs says it.
#[must_use]
pub fn capacity_of(endpoints: &[EndpointLoad]) -> Option<Amount> {
    endpoints.iter().filter_map(|one| one.capacity).map(requests).reduce(Amount::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(capacity: Option<u32>, load: Option<u32>) -> EndpointLoad {
        EndpointLoad { capacity, load: load.map(Ratio) }
    }

    #[test]
    fn endpoints_without_a_reading_are_neither_idle_nor_full() {
        let known = one(Some(10), Some(500_000));
        let mean = MeanLoad::of(&[known, one(Some(1_000), None)]);
        assert_eq!(mean, MeanLoad { load: Some(Ratio(500_000)), read: 1, missing: 1 });
        assert_eq!(MeanLoad::of(&[one(None, None)]), MeanLoad { load: None, read: 0, missing: 1 });
        assert_eq!(MeanLoad::of(&[]), MeanLoad::default());
    }

    #[test]
    fn without_capacities_all_weigh_the_same_and_beside_others_nothing() {
        let equal = MeanLoad::of(&[one(None, Some(200_000)), one(None, Some(600_000))]);
        assert_eq!(equal.load, Some(Ratio(400_000)));
        let beside = MeanLoad::of(&[one(None, Some(200_000)), one(Some(5), Some(600_000))]);
        assert_eq!((beside.load, beside.read), (Some(Ratio(600_000)), 1));
        assert_eq!(MeanLoad::of(&[one(Some(u32::MAX), Some(u32::MAX)); 3]).load, Some(Ratio(u32::MAX)));
    }

    #[test]
    fn capacities_are_added_up() {
        assert_eq!(capacity_of(&[one(Some(3), None), one(None, None), one(Some(4), None)]), Some(7_000));
        assert_eq!(capacity_of(&[one(None, Some(1))]), None);
    }
}
