//! Takes an address, the rules and the GeoIP database, returns the client at the address. Both halves call it, so that
//! they find the same client at the same address.

use std::net::IpAddr;

use bailiwick_rules::steer::Client;
use bailiwick_rules::table::Table;

use crate::locate::carrier::carried;
use crate::locate::geoip::{Place, Places};

/// The client at an address, for `steer`. Its country and location are those in the GeoIP database for the address, or
/// for the IPv4 address that it carries. If a prefix of `networks` contains an IPv6 address, the address itself counts.
#[must_use]
pub fn client_at(table: &Table, places: &Places, address: IpAddr) -> Client {
    client_in(Some(table), places, address)
}

/// The same where there may be no rules yet.
#[must_use]
pub fn client_in(table: Option<&Table>, places: &Places, address: IpAddr) -> Client {
    let is_named = |table: &Table| table.network_of(address).is_some();
    let carried = carried(address).filter(|_| !table.is_some_and(is_named));
    let address = carried.map_or(address, IpAddr::V4).to_canonical();
    let Place { country, location } = places.at(address);
    Client { tenant: None, address: Some(address), country, location }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::locate::geoip::testing::{DatabaseBuilder, flat};

    #[test]
    fn a_client_is_located_by_the_ipv4_address_it_carries_unless_networks_name_its_own() {
        let places = DatabaseBuilder::new(6).add("192.0.2.0/24".parse().unwrap(), &flat("DE", None));
        let places = Places::read(&places.bytes()).unwrap();
        let rules = br#"{"version": 1, "revision": 1, "networks": [{"prefix": "64:ff9b::/96", "country": "US"}]}"#;
        let table = Table::compile(rules).unwrap();
        let at = |address: &str| {
            let client = client_at(&table, &places, address.parse().unwrap());
            (client.address.unwrap().to_string(), client.country.map(|country| country.to_string()))
        };
        let inner = ("192.0.2.1".to_owned(), Some("DE".to_owned()));
        let teredo = "2001:0:1234:5678:9abc:def0:3fff:fdfe"; // the bits of the IPv4 address are inverted
        for carrier in ["192.0.2.1", "::ffff:192.0.2.1", teredo, "2002:c000:201::7"] {
            assert_eq!(at(carrier), inner, "{carrier}");
        }
        assert_eq!(at("64:ff9b::c000:201"), ("64:ff9b::c000:201".to_owned(), None), "the rules know the place");
        assert_eq!(at("2001:db8::1"), ("2001:db8::1".to_owned(), None));
    }
}
