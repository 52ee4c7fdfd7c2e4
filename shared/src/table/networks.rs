//! Finds the place of a client's address. Takes address prefixes with their places and an address, returns the place of
//! the longest prefix that matches. Called by [`super::Table`].

use core::net::IpAddr;
use std::collections::HashMap;

use ipnet::IpNet;

use crate::geo::{self, Coordinates, CountryCode};
use crate::rules;
use crate::turns::Turns;

/// The place of an address prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NetworkPlace {
    /// Its country.
    pub country: CountryCode,
    /// Its coordinates; by default the middle of its country.
    pub location: Option<Coordinates>,
}

/// Address prefixes in a hash map. An address is looked up once for each length that occurs, longest first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Networks {
    places: HashMap<IpNet, NetworkPlace>,
    /// The prefix lengths that occur, longest first: those of IPv4, then those of IPv6.
    lengths: [Vec<u8>; 2],
}

impl Networks {
    /// Compiles the networks of the rules, so that the longest prefix is found first.
    pub(super) async fn new(networks: &[rules::Network], turns: &mut Turns<'_>) -> Self {
        let mut lengths = [Vec::new(), Vec::new()];
        for network in networks {
            lengths[usize::from(network.prefix.addr().is_ipv6())].push(network.prefix.prefix_len());
        }
        for lengths in &mut lengths {
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.dedup();
        }
        let place = |network: &rules::Network| NetworkPlace {
            country: network.country,
            location: network.location.or_else(|| geo::centroid(network.country)),
        };
        let mut places = HashMap::with_capacity(networks.len());
        for network in networks {
            turns.spend(super::BUILD).await;
            places.insert(network.prefix, place(network));
        }
        Self { places, lengths }
    }

    pub(super) fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        self.places.keys().copied()
    }

    /// The place of the longest prefix that holds an address.
    pub(super) fn longest_match(&self, address: IpAddr) -> Option<NetworkPlace> {
        let address = address.to_canonical();
        let lengths = &self.lengths[usize::from(address.is_ipv6())];
        lengths.iter().find_map(|&length| {
            let prefix = IpNet::new(address, length).ok()?.trunc();
            self.places.get(&prefix).copied()
        })
    }
}
