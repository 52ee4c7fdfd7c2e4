//! Groups all addresses whose clients two rules documents can't distinguish. Takes both tables and the places of a
//! GeoIP database, returns every [`Group`] with its number of addresses. Called before the documents are compared.
//!
//! Addresses are in the same group if they have the same place in the database, and the same prefix of the documents'
//! `networks` contains them. An IPv6 address that carries an IPv4 address isn't counted, because the client is located
//! and counted by its IPv4 address.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bailiwick_host::locate::geoip::Places;
use bailiwick_host::locate::ranges::{Bits, Builder, Ranges};
use bailiwick_rules::fleet::impact::Group;
use bailiwick_rules::steer::Client;
use bailiwick_rules::table::{NetworkPlace, Table};
use ipnet::IpNet;

use crate::locate::classes::{carriers, edges};

/// The number of bits of an IPv6 address after its /48.
const BELOW_48: u32 = 80;

/// What the `networks` of both documents say of an address.
#[derive(Clone, Copy)]
struct NetworkEntries {
    old: Option<NetworkPlace>,
    new: Option<NetworkPlace>,
    /// The longest prefix in either document that contains the address.
    prefix: IpNet,
    /// The first address with these entries.
    address: IpAddr,
}

/// The value of addresses that are in `networks` of neither document.
const UNNAMED: u32 = u32::MAX;
/// The value of IPv6 addresses that carry IPv4 addresses.
const CARRIER: u32 = u32::MAX - 1;

/// Collects groups. The key of a group is the index of its place and the index of its entry in `named`.
struct Population<'a> {
    tables: [&'a Table; 2],
    prefixes: BTreeSet<IpNet>,
    places: &'a Places,
    named: Vec<NetworkEntries>,
    /// The index in `named` of each prefix.
    by_prefix: HashMap<IpNet, u32>,
    /// The key of each group.
    keys: Vec<(u32, u32)>,
    /// The number of each key's group.
    known: HashMap<(u32, u32), u32>,
}

/// The groups of all clients. The first group has the clients whose place isn't known.
#[must_use]
pub(crate) fn population(old: &Table, new: &Table, places: &Places) -> Vec<Group> {
    let prefixes = old.network_prefixes().chain(new.network_prefixes()).collect();
    let mut population = Population {
        tables: [old, new],
        prefixes,
        places,
        named: Vec::new(),
        by_prefix: HashMap::new(),
        keys: vec![(0, UNNAMED)],
        known: HashMap::from([((0, UNNAMED), 0)]),
    };
    let named = population.named_v4();
    let v4 = places.v4().overlay(&named, |place, named| population.group(place, named));
    let named = population.named_v6();
    let v6 = places.v6().overlay(&named, |place, named| population.group(place, named));
    let mut groups: Vec<Group> = population.keys.iter().map(|key| population.client(*key)).collect();
    for (group, addresses) in v4.sizes() {
        groups[group as usize].ipv4 += addresses;
    }
    let mut v6_addresses = vec![0_u128; groups.len()];
    for (group, addresses) in v6.sizes() {
        v6_addresses[group as usize] = v6_addresses[group as usize].saturating_add(addresses);
    }
    for ((group, addresses), key) in groups.iter_mut().zip(v6_addresses).zip(&population.keys) {
        group.ipv6 = u64::try_from(addresses >> BELOW_48).unwrap_or(u64::MAX);
        if key.1 == CARRIER || group.client.country.is_none() && group.network.is_none() {
            (group.ipv4, group.ipv6) = (0, 0);
        }
    }
    groups
}

impl Population<'_> {
    /// The group of each range of IPv4 addresses: the network of the rules that holds it, or none.
    fn named_v4(&mut self) -> Ranges<u32> {
        let prefixes = self.prefixes.iter().filter_map(|prefix| match prefix {
            IpNet::V4(prefix) => Some((prefix.network().to_bits(), prefix.prefix_len())),
            IpNet::V6(_) => None,
        });
        let mut built = Builder::new(UNNAMED);
        for start in edges(prefixes) {
            built.begin(start, self.named(IpAddr::V4(Ipv4Addr::from_bits(start))).unwrap_or(UNNAMED));
        }
        built.finish()
    }

    /// The group of each range of IPv6 addresses: named by the rules, a carrier of IPv4 addresses, or neither.
    fn named_v6(&mut self) -> Ranges<u128> {
        let prefixes = self.prefixes.iter().filter_map(|prefix| match prefix {
            IpNet::V6(prefix) => Some((prefix.network().to_bits(), prefix.prefix_len())),
            IpNet::V4(_) => None,
        });
        let is_carrier = |address: u128| {
            carriers().any(|(first, length): (u128, u8)| (first..=first.last(length)).contains(&address))
        };
        let mut built = Builder::new(UNNAMED);
        for start in edges(prefixes.chain(carriers())) {
            let address = Ipv6Addr::from_bits(start);
            // A v4-mapped address is looked up and counted as its IPv4 address.
            let named = if address.to_ipv4_mapped().is_some() { None } else { self.named(IpAddr::V6(address)) };
            let other = if is_carrier(start) { CARRIER } else { UNNAMED };
            built.begin(start, named.unwrap_or(other));
        }
        built.finish()
    }

    /// The index in `named` of an address; `None` if the address is in `networks` of neither document.
    fn named(&mut self, address: IpAddr) -> Option<u32> {
        let [old, new] = self.tables.map(|table| table.network_of(address));
        if old.is_none() && new.is_none() {
            return None;
        }
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let mut around = (0..=longest).rev().filter_map(|length| Some(IpNet::new(address, length).ok()?.trunc()));
        let prefix = around.find(|prefix| self.prefixes.contains(prefix))?;
        let named = NetworkEntries { old, new, prefix, address };
        // All addresses with the same longest prefix have the same entries in both documents.
        let next = u32::try_from(self.named.len()).ok()?;
        Some(*self.by_prefix.entry(prefix).or_insert_with(|| {
            self.named.push(named);
            next
        }))
    }

    /// The number of the group with this key.
    fn group(&mut self, place: u32, named: u32) -> u32 {
        // The place in the database doesn't matter if both documents have an entry, or if the address carries an IPv4
        // address.
        let is_named_twice =
            self.named.get(named as usize).is_some_and(|named| named.old.is_some() && named.new.is_some());
        let key = (if is_named_twice || named == CARRIER { 0 } else { place }, named);
        let next = u32::try_from(self.keys.len()).unwrap_or(0);
        *self.known.entry(key).or_insert_with(|| {
            self.keys.push(key);
            next
        })
    }

    /// A group without addresses.
    fn client(&self, (place, named): (u32, u32)) -> Group {
        let place = self.places.all().get(place as usize).copied().unwrap_or_default();
        let named = self.named.get(named as usize);
        let address = named.map(|named| named.address);
        let client = Client { tenant: None, address, country: place.country, location: place.location };
        Group { client, network: named.map(|named| named.prefix), ipv4: 0, ipv6: 0 }
    }
}

#[cfg(test)]
mod tests {
    use bailiwick_host::locate::client::client_at;
    use bailiwick_host::locate::geoip::testing::{DatabaseBuilder, flat};

    use super::*;

    fn table(networks: &str) -> Table {
        let rules = format!(r#"{{"version": 1, "revision": 1, "networks": [{networks}]}}"#);
        Table::compile(rules.as_bytes()).unwrap()
    }

    #[test]
    fn addresses_that_both_documents_take_alike_are_one_group_and_each_is_counted_once() {
        let places = DatabaseBuilder::new(6)
            .add("10.0.0.0/8".parse().unwrap(), &flat("DE", None))
            .add("11.0.0.0/8".parse().unwrap(), &flat("FR", None))
            .add("2001:db8::/32".parse().unwrap(), &flat("DE", None))
            .add("2001:db9::/47".parse().unwrap(), &flat("FR", None));
        let places = Places::read(&places.bytes()).unwrap();
        let old = table(r#"{"prefix": "10.1.0.0/16", "country": "US"}, {"prefix": "192.0.2.0/24", "country": "US"}"#);
        let new = table(
            r#"{"prefix": "10.1.0.0/17", "country": "US"}, {"prefix": "2001:db8:1::/48", "country": "GB"},
               {"prefix": "2002:a00::/24", "country": "GB"}"#,
        );
        let groups = population(&old, &new, &places);
        let mut rows: Vec<_> = groups
            .iter()
            .map(|one| {
                let country = one.client.country.map_or("-".to_owned(), |country| country.to_string());
                (country, one.network.map_or("-".to_owned(), |network| network.to_string()), one.ipv4, one.ipv6)
            })
            .collect();
        rows.sort();
        let row = |country: &str, network: &str, ipv4, ipv6| (country.to_owned(), network.to_owned(), ipv4, ipv6);
        assert_eq!(
            rows,
            [
                row("-", "-", 0, 0),
                row("-", "-", 0, 0),                 // addresses that carry IPv4 addresses
                row("-", "10.1.0.0/17", 1 << 15, 0), // named by both
                row("-", "192.0.2.0/24", 256, 0),
                row("-", "2002:a00::/24", 0, 1 << 24),
                row("DE", "-", (1 << 24) - (1 << 16), (1 << 16) - 1),
                row("DE", "10.1.0.0/16", 1 << 15, 0), // named by the old document alone
                row("DE", "2001:db8:1::/48", 0, 1),
                row("FR", "-", 1 << 24, 2),
            ]
        );
        // The client of each group has the standing that its addresses have.
        let at = |address: &str| {
            let address: IpAddr = address.parse().unwrap();
            let stand = |table: &Table| bailiwick_rules::steer::stand(table, &client_at(table, &places, address));
            (stand(&old), stand(&new))
        };
        for address in ["10.1.128.1", "10.1.0.1", "10.9.0.1", "192.0.2.1", "2001:db8:1::1", "9.0.0.1"] {
            let of = |group: &Group| {
                let stand = |table: &Table| bailiwick_rules::steer::stand(table, &group.client);
                (stand(&old), stand(&new))
            };
            assert!(groups.iter().any(|group| of(group) == at(address)), "{address}");
        }
    }
}
