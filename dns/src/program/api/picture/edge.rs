//! How many requests per second Workers serve, by clients and region. Takes the sums of what Workers counted, from time
//! to time; returns the rates of the last minute. Called by [`super::look`].

use std::collections::{BTreeMap, VecDeque};

use bailiwick_rules::observe::Sums;
use bailiwick_rules::time::{Millis, Timestamp};

use crate::program::picture::EdgeFlow;

/// How far apart the sums are that are kept.
const STEP: Millis = Millis(10_000);
/// How many are kept: the rates are those of a minute.
const KEPT: usize = 7;

/// Requests by clients and region, since the process began.
pub(super) type Totals = BTreeMap<(String, String), u64>;

/// The sums of the last minute.
#[derive(Debug, Default)]
pub(super) struct EdgeRates(VecDeque<(Timestamp, Totals)>);

/// The present sums.
pub(super) fn totals(sums: &Sums) -> Totals {
    let mut totals = Totals::new();
    for (key, counts) in sums.totals() {
        let Some(region) = &key.region else { continue };
        let requests: u64 = counts.requests.values().sum();
        *totals.entry((key.clients.clone(), region.to_string())).or_default() += requests;
    }
    totals
}

impl EdgeRates {
    /// The rates up to now.
    pub(super) fn rates(&mut self, totals: Totals, now: Timestamp) -> Vec<EdgeFlow> {
        let flows = self.0.front().map_or_else(Vec::new, |(since, before)| {
            let seconds = now.since(*since).0 as f64 / 1_000.0;
            let flow = |((clients, region), count): (&(String, String), &u64)| {
                let new = count.saturating_sub(before.get(&(clients.clone(), region.clone())).copied().unwrap_or(0));
                let per_second = new as f64 / seconds.max(1.0);
                (new > 0).then(|| EdgeFlow { clients: clients.clone(), region: region.clone(), per_second })
            };
            totals.iter().filter_map(flow).collect()
        });
        if self.0.back().is_none_or(|(last, _)| now.since(*last) >= STEP) {
            self.0.push_back((now, totals));
            if self.0.len() > KEPT {
                self.0.pop_front();
            }
        }
        flows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_last_minute() {
        let mut rates = EdgeRates::default();
        let totals = |count| Totals::from([(("eu".to_owned(), "fra".to_owned()), count)]);
        assert!(rates.rates(totals(1_000), Timestamp(0)).is_empty(), "nothing to compare with");
        let flows = rates.rates(totals(1_100), Timestamp(10_000));
        assert_eq!((flows[0].region.as_str(), flows[0].per_second), ("fra", 10.0));
        for second in 2..20 {
            rates.rates(totals(1_100), Timestamp(second * 10_000));
        }
        assert!(rates.rates(totals(1_100), Timestamp(200_000)).is_empty(), "a minute ago nothing was served");
    }
}
