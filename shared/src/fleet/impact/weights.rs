//! How many clients a group stands for. Takes groups with their addresses, and counted queries; returns each group's
//! weight for a service. Called by `compare`.

use core::cmp::Reverse;
use core::ops::AddAssign;
use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{AffectedClients, Clients};
use crate::geo::CountryCode;
use crate::steer::Client;

/// Clients whom both documents treat alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// One of them, as an example. It has an address only if it is in one of the documents' `networks`.
    pub client: Client,
    /// The network in the rules' `networks` that they are in.
    pub network: Option<IpNet>,
    /// How many IPv4 addresses they have; 0 for clients whose place is unknown.
    pub ipv4: u64,
    /// How many IPv6 /48s they have; 0 for clients whose place is unknown.
    pub ipv6: u64,
}

/// How many clients there are, counted in three ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weight {
    /// Queries that were counted.
    pub queries: u64,
    /// IPv4 addresses.
    pub ipv4: u64,
    /// IPv6 /48s.
    pub ipv6: u64,
}

impl AddAssign for Weight {
    fn add_assign(&mut self, other: Self) {
        self.queries = self.queries.saturating_add(other.queries);
        self.ipv4 = self.ipv4.saturating_add(other.ipv4);
        self.ipv6 = self.ipv6.saturating_add(other.ipv6);
    }
}

/// Counted queries, by service and by country; `None`: clients whose country is unknown.
pub type Queries = BTreeMap<String, BTreeMap<Option<CountryCode>, u64>>;

/// Divides the queries of a country among its groups, in proportion to their IPv4 addresses.
pub(super) struct Division {
    /// The country of each group.
    countries: Vec<Option<CountryCode>>,
    /// By country: the IPv4 addresses of its groups, and how many groups it has.
    sums: BTreeMap<Option<CountryCode>, (u64, u64)>,
}

impl Division {
    /// `countries` are the groups' countries by the document in service.
    pub(super) fn new(groups: &[Group], countries: Vec<Option<CountryCode>>) -> Self {
        let mut sums: BTreeMap<_, (u64, u64)> = BTreeMap::new();
        for (group, country) in groups.iter().zip(&countries) {
            let sum = sums.entry(*country).or_default();
            *sum = (sum.0.saturating_add(group.ipv4), sum.1 + 1);
        }
        Self { countries, sums }
    }

    /// The country of the group at this position.
    pub(super) fn country(&self, at: usize) -> Option<CountryCode> {
        self.countries.get(at).copied().flatten()
    }

    /// The weight of a group for one service. `queries` are that service's counted queries by country.
    pub(super) fn weight(
        &self,
        at: usize,
        group: &Group,
        queries: Option<&BTreeMap<Option<CountryCode>, u64>>,
    ) -> Weight {
        let country = self.country(at);
        let counted = queries.and_then(|queries| queries.get(&country)).copied().unwrap_or(0);
        let (ipv4, groups) = self.sums.get(&country).copied().unwrap_or_default();
        let queries = match ipv4 {
            0 => counted / groups.max(1),
            _ => {
                // Rounded to the nearest, so that a small network of a large country doesn't lose its few queries.
                let part = u128::from(counted) * u128::from(group.ipv4) + u128::from(ipv4) / 2;
                u64::try_from(part / u128::from(ipv4)).unwrap_or(u64::MAX)
            }
        };
        Weight { queries, ipv4: group.ipv4, ipv6: group.ipv6 }
    }
}

/// Collects clients by country and network.
#[derive(Default)]
pub(super) struct Gathered(BTreeMap<(Option<CountryCode>, Option<IpNet>), Weight>);

impl Gathered {
    /// Adds clients.
    pub(super) fn add(&mut self, country: Option<CountryCode>, network: Option<IpNet>, weight: Weight) {
        *self.0.entry((country, network)).or_default() += weight;
    }

    /// All that were added, the heaviest first.
    pub(super) fn finish(self) -> AffectedClients {
        let mut weight = Weight::default();
        let clients_of = |((country, network), weight_of_place)| {
            weight += weight_of_place;
            Clients { country, network, weight: weight_of_place }
        };
        let mut clients: Vec<Clients> = self.0.into_iter().map(clients_of).collect();
        clients.sort_by_key(|group| Reverse((group.weight.queries, group.weight.ipv4, group.weight.ipv6)));
        AffectedClients { clients, weight }
    }
}
