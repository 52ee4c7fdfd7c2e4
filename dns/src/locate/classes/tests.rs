//! Classes of clients, compared with what `steer` decides for each address by itself.

use ipnet::IpNet;
use proptest::prelude::*;

use bailiwick_host::locate::carrier::carried;
use bailiwick_host::locate::client::client_at;
use bailiwick_host::locate::geoip::testing::{DatabaseBuilder, flat, geoip2, real_database};
use bailiwick_rules::steer::rank;

use super::*;

const COUNTRIES: [&str; 6] = ["DE", "FR", "GB", "US", "JP", "BR"];

/// Rules with every pattern that ranks differently, rules for unknown clients, and these `networks`.
fn table(networks: &[(IpNet, usize)]) -> Table {
    let networks = networks.iter().map(|(prefix, country)| {
        let place = if country % 2 == 0 { r#", "location": { "latitude": 40.7, "longitude": -74.0 }"# } else { "" };
        format!(r#"{{ "prefix": "{prefix}", "country": "{}"{place} }}"#, COUNTRIES[*country])
    });
    let networks: Vec<String> = networks.collect();
    let service = |host: &str, pattern: &str| {
        format!(
            r#""{host}": {{ "hosts": ["{host}.example"], "pattern": "{pattern}", "regions": ["fra", "lon", "nyc",
                "anywhere"],
                "residency": [ {{ "clients": ["eu"], "process_in": ["eu"] }}, {{ "clients": ["uk"],
                    "process_in": ["uk", "eu"] }},
                               {{ "clients": ["us", "unknown"], "process_in": [["us", "eu", "uk"]] }} ] }}"#
        )
    };
    let json = format!(
        r#"{{ "version": 1, "revision": 1,
            "jurisdictions": {{ "eu": {{ "include": ["EU"] }}, "uk": {{ "countries": ["GB"] }},
                "us": {{ "countries": ["US"] }} }},
            "regions": {{ "fra": {{ "countries": ["DE"] }}, "lon": {{ "countries": ["GB"] }},
                "nyc": {{ "countries": ["US"] }},
                          "anywhere": {{ "countries": ["*"], "standby": true }} }},
            "services": {{ {}, {}, {} }},
            "networks": [{}] }}"#,
        service("aa", "active-active"),
        service("ap", "active-passive"),
        service("rs", "regional-sharding"),
        networks.join(",")
    );
    Table::compile(json.as_bytes()).unwrap_or_else(|violations| panic!("{violations:?}\n{json}"))
}

fn classes(table: &Table, places: &Places) -> Vec<Classes> {
    let standings = Arc::new(Standings::new(table, places));
    Classes::of_services(table, &[ServiceIndex(0), ServiceIndex(1), ServiceIndex(2)], &standings)
}

/// The ranking that `steer` gives the client at an address, computed without any ranges.
fn brute_force(table: &Table, places: &Places, service: u32, address: IpAddr) -> RankingKey {
    let standing = stand(table, &client_at(table, places, address));
    key(&rank(table, ServiceIndex(service), &standing, PathClass::Inference))
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The prefix of that length around an address.
fn block(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length).unwrap().trunc()
}

/// An address inside a prefix, whose host bits are those of `pick`.
fn inside(prefix: IpNet, pick: u128) -> IpAddr {
    match prefix {
        IpNet::V4(prefix) => {
            let host = u32::MAX.checked_shr(u32::from(prefix.prefix_len())).unwrap_or(0);
            #[allow(clippy::cast_possible_truncation)]
            IpAddr::V4(Ipv4Addr::from_bits(prefix.network().to_bits() | pick as u32 & host))
        }
        IpNet::V6(prefix) => {
            let host = u128::MAX.checked_shr(u32::from(prefix.prefix_len())).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(prefix.network().to_bits() | pick & host))
        }
    }
}

/// Every form of an IPv6 address that carries this IPv4 address.
fn carriers_of(inner: Ipv4Addr) -> [IpAddr; 4] {
    let bits = u128::from(inner.to_bits());
    [
        0xffff << 32 | bits,
        0x0064_ff9b << 96 | bits,
        0x2001_0000 << 96 | 0x1234_5678_9abc_def0 << 32 | u128::from(!inner.to_bits()),
        0x2002 << 112 | bits << 80 | 7,
    ]
    .map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)))
}

/// Addresses in a few small blocks, in the carriers' blocks, and anywhere.
fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = prop_oneof![any::<u32>(), (0..1024_u32).prop_map(|low| 0xc000_0000 | low)];
    let v4 = v4.prop_map(Ipv4Addr::from_bits).boxed();
    let v6 = prop_oneof![any::<u128>(), (0..4096_u128).prop_map(|low| 0x2001_0db8 << 96 | low << 80)];
    prop_oneof![
        v4.clone().prop_map(IpAddr::V4),
        v6.prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
        (v4, 0..4_usize).prop_map(|(inner, form)| carriers_of(inner)[form]),
    ]
}

fn networks() -> impl Strategy<Value = Vec<(IpNet, usize)>> {
    let network = (address(), any::<u8>(), 0..COUNTRIES.len());
    proptest::collection::vec(network, 0..12).prop_map(|networks| {
        let mut networks: Vec<_> = networks
            .into_iter()
            .map(|(address, length, country)| (block(address, 1 + length % width(address)), country))
            .collect();
        networks.sort_by_key(|(prefix, _)| *prefix);
        networks.dedup_by_key(|(prefix, _)| *prefix);
        networks
    })
}

const CASES: u32 = 1500;

/// The class that ranges give is the one that `steer` gives without them. It is the same for every address inside the
/// scope. Every such address has the same scope, so that scopes partition the space.
#[test]
fn ranges_give_the_class_of_steer_and_each_scope_has_one_class() {
    let probes = proptest::collection::vec((address(), any::<u128>()), 1..12);
    let compared = std::cell::Cell::new(0_u64);
    proptest!(ProptestConfig::with_cases(CASES), |(recorded in networks(), named in networks(), probes in probes,
        both in any::<bool>())| {
        let mut made = DatabaseBuilder::new(6);
        for (prefix, country) in recorded.iter().filter(|(prefix, _)| carried(prefix.network()).is_none()) {
            let location = (country % 3 == 0).then_some((35.68, 139.69));
            let record = if both { flat(COUNTRIES[*country], location) } else { geoip2(COUNTRIES[*country], location) };
            made = made.add(*prefix, &record);
        }
        let places = Places::read(&made.bytes()).unwrap_or_else(|_| Places::none());
        let table = table(&named);
        let edges = recorded.iter().chain(&named).flat_map(|(prefix, _)| [prefix.network(), prefix.broadcast()]);
        let probes = probes.iter().copied().chain(edges.map(|edge| (edge, u128::MAX)));
        for (service, classes) in (0..).zip(classes(&table, &places)) {
            let of = |class: ClassId| key(&classes.rankings()[class.get()]);
            for (address, pick) in probes.clone() {
                let (class, scope) = classes.class(address, u8::MAX);
                prop_assert_eq!(of(class), brute_force(&table, &places, service, address), "{}", address);
                let scope_of = block(address, scope);
                for other in [inside(scope_of, 0), inside(scope_of, pick), inside(scope_of, u128::MAX)] {
                    prop_assert_eq!(classes.class(other, u8::MAX), (class, scope), "{} and {}", address, other);
                    compared.set(compared.get() + 1);
                    prop_assert_eq!(of(class), brute_force(&table, &places, service, other), "{} in /{}", other, scope);
                }
            }
        }
    });
    eprintln!("classes and scopes of random databases and networks: {CASES} cases, {} addresses", compared.get());
}

fn places() -> Places {
    let made = DatabaseBuilder::new(6)
        .add("192.0.2.0/24".parse().unwrap(), &flat("DE", None))
        .add("198.51.100.0/25".parse().unwrap(), &flat("GB", None))
        .add("2001:db8::/32".parse().unwrap(), &flat("US", None));
    Places::read(&made.bytes()).unwrap()
}

fn first_region(table: &Table, classes: &Classes, class: ClassId) -> String {
    let ranking = &classes.rankings()[class.get()];
    table.region(ranking.order[0].fenced.region).id.to_string()
}

#[test]
fn a_carried_ipv4_address_counts_if_24_bits_of_it_are_known() {
    let (table, places) = (table(&[]), places());
    let classes = classes(&table, &places).remove(1);
    let unknown = classes.class("203.0.113.1".parse().unwrap(), u8::MAX).0;
    for (carrier, at) in carriers_of("192.0.2.77".parse().unwrap()).into_iter().zip([96, 96, 96, 16]) {
        let (class, scope) = classes.class(carrier, at + 24);
        assert_eq!((first_region(&table, &classes, class), scope), ("fra".to_owned(), at + 24), "{carrier}");
        assert_ne!(class, unknown);
        let (class, scope) = classes.class(carrier, at + 23);
        assert_eq!(class, unknown, "{carrier}");
        assert!(scope >= at + 24, "{carrier}: an address with more known bits may have another class");
    }
}

#[test]
fn networks_may_name_the_ipv6_address_that_carries_another() {
    let table = table(&[("64:ff9b::/96".parse().unwrap(), 3), ("192.0.2.0/28".parse().unwrap(), 2)]);
    let places = places();
    let classes = classes(&table, &places).remove(0);
    let at = |address: &str| {
        let (class, scope) = classes.class(address.parse().unwrap(), u8::MAX);
        (first_region(&table, &classes, class), scope)
    };
    assert_eq!(at("64:ff9b::c000:201"), ("nyc".to_owned(), 96), "the network is named as in the rules");
    assert_eq!(at("::ffff:192.0.2.1"), ("lon".to_owned(), 96 + 28), "the IPv4 network counts inside");
    assert_eq!(at("2002:c000:0240::1"), ("fra".to_owned(), 16 + 26));
    assert_eq!(at("192.0.2.15"), ("lon".to_owned(), 28));
    assert_eq!(at("192.0.2.16"), ("fra".to_owned(), 28));
    assert_eq!(at("192.0.2.200"), ("fra".to_owned(), 25));
}

#[test]
fn without_a_database_only_networks_place_clients() {
    let table = table(&[("192.0.2.0/24".parse().unwrap(), 0)]);
    let classes = classes(&table, &Places::none()).remove(0);
    assert_eq!(classes.range_counts().0, 3);
    let (known, scope) = classes.class("192.0.2.1".parse().unwrap(), u8::MAX);
    let (unknown, _) = classes.class("192.0.3.1".parse().unwrap(), u8::MAX);
    assert_eq!(scope, 24);
    assert_ne!(known, unknown);
}

#[test]
fn the_real_database_compiles_fast_into_few_ranges() {
    let Some(path) = real_database() else { return };
    let places = Places::read(&std::fs::read(path).unwrap()).unwrap();
    let table = table(&[("198.51.100.0/24".parse().unwrap(), 0)]);
    let begun = std::time::Instant::now();
    let classes = classes(&table, &places);
    let took = begun.elapsed();
    for (service, classes) in (0..).zip(&classes) {
        let counts = classes.range_counts();
        eprintln!("service {service}: {} classes, {counts:?} ranges", classes.rankings().len());
    }
    eprintln!("three services compiled in {took:?}");
    let mut checked = 0;
    for number in (0_u32..20_000).map(|n| n.wrapping_mul(2_654_435_769)) {
        let v4 = IpAddr::from(number.to_be_bytes());
        let v6 = IpAddr::from((0x2_u128 << 124 | u128::from(number) << 92 | 1).to_be_bytes());
        for address in [v4, v6] {
            for (service, classes) in (0..).zip(&classes) {
                let (class, scope) = classes.class(address, u8::MAX);
                for other in [address, inside(block(address, scope), 0), inside(block(address, scope), u128::MAX)] {
                    assert_eq!(key(&classes.rankings()[class.get()]), brute_force(&table, &places, service, other));
                    checked += 1;
                }
            }
        }
    }
    eprintln!("{checked} addresses have the class that steering gives them");
}
