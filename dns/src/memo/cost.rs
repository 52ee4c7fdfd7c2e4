//! Measures what an answer costs without the kernel's part. Run it by hand, in release, to see the effect of a change:
//! `cargo test --release -p bailiwick-dns --lib memo::cost -- --ignored --nocapture`

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;

use bailiwick_host::locate::geoip::Places;
use bailiwick_host::system::batch::SIZE;
use bailiwick_rules::load::BucketShares;
use bailiwick_rules::report::SharesReport;
use bailiwick_rules::testing::Random;
use bailiwick_rules::time::Timestamp;
use smallvec::SmallVec;

use super::Memo;
use crate::response::respond::Datagram;
use crate::response::wire::{Context, Settings};
use crate::state::load::compile_rules;
use crate::state::snapshot::{Health, Shares, Snapshot, World, ZoneSource};
use crate::testing::{opt, query};
use crate::zone::{ServiceIndex, file};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const ROUNDS: usize = 1_000_000;
const DATABASE: &str = "../node_modules/@ip-location-db/geo-whois-asn-country-mmdb/geo-whois-asn-country.mmdb";

fn snapshot(names: usize) -> Snapshot {
    let places = std::fs::read(DATABASE).ok().map_or_else(Places::none, |bytes| Places::read(&bytes).unwrap());
    let regions = [
        ("af", "ZA"),
        ("as", "JP"),
        ("eu", "DE"),
        ("na", "US"),
        ("oc", "AU"),
        ("sa", "BR"),
        ("gb", "GB"),
        ("fr", "FR"),
    ];
    let mut rules = serde_json::json!({ "version": 1, "revision": 1, "regions": {}, "services": { "geo": {
        "hosts": ["geo.bench.test"], "pattern": "active-active", "regions": regions.map(|(id, _)| id),
        "residency": [ { "clients": ["*"], "process_in": ["*"] }, { "clients": ["unknown"],
            "process_in": ["*"] } ] } } });
    for (number, (id, country)) in regions.iter().enumerate() {
        rules["regions"][id] =
            serde_json::json!({ "countries": [country], "answers": { "A": [format!("198.51.100.{number}")] } });
    }
    let rules = compile_rules(rules.to_string().into_bytes(), "rules.json").unwrap();
    let mut zone = "$TTL 3600\n@ SOA ns1 hostmaster 1 7200 1800 1209600 300\n@ NS ns1\n@ NS ns2\nns1 A 192.0.2.53\n\
                    ns2 A 192.0.2.54\n"
        .to_owned();
    for number in 0..names {
        writeln!(zone, "{} A 10.0.0.1", label(number)).unwrap();
    }
    let origin: crate::protocol::name::Name = "bench.test".parse().unwrap();
    let records = file::parse(zone.as_bytes(), "z", &origin, &mut |_| Err("no files".into())).unwrap();
    let world = World::build(
        rules,
        [ZoneSource { origin, records }].into(),
        Arc::default(),
        Arc::new(places),
        bailiwick_rules::time::Timestamp(0),
        None,
    );
    let world = world.unwrap();
    let health = Health {
        regions: vec![bailiwick_rules::health::RegionHealth::of(None, &[], NOW); regions.len()],
        ..Health::default()
    };
    Snapshot::new(Arc::new(world), health, NOW, None)
}

/// The same snapshot, but half of the clients of each class are moved because of load.
fn shedding(snapshot: &Snapshot) -> Snapshot {
    let (service, world) = (ServiceIndex(0), snapshot.world());
    let mut dns = BucketShares::default();
    for ranking in world.classes_of(service).unwrap().rankings() {
        let order = ranking.regions();
        dns.insert(service, &order, std::array::from_fn(|bucket| order.get(1 + bucket / 8).copied()));
    }
    let report = SharesReport { at: NOW, interval_ms: 5_000, services: std::collections::BTreeMap::new() };
    let shares = Some(Shares { report: Arc::new(report), dns: Arc::new(dns) });
    Snapshot::new(Arc::clone(world), Health { shares, ..snapshot.health().clone() }, NOW, None)
}

fn label(number: usize) -> String {
    let mut random = Random::new(number as u64 + 7);
    format!("{:08x}", random.bits() >> 32)
}

fn measure<'p>(what: &str, snapshot: &Snapshot, packets: &'p [Vec<u8>]) {
    let settings = Settings::anonymous();
    let context = Context { settings: &settings, limiter: None, now: 0 };
    let (mut memo, mut responses) = (Memo::new(), [(); SIZE].map(|()| Vec::with_capacity(2048)));
    let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut best = [f64::MAX; 3];
    for _ in 0..5 {
        for (how, best) in best.iter_mut().enumerate() {
            let begun = Instant::now();
            let mut left = packets.iter().cycle().take(ROUNDS);
            for _ in 0..ROUNDS / SIZE {
                let datagram = |(response, packet): (_, &'p Vec<u8>)| Datagram { packet, from, response };
                let mut batch = SmallVec::<[_; SIZE]>::new();
                batch.extend(responses.iter_mut().zip(left.by_ref()).map(datagram));
                match how {
                    0 => memo.respond(&context, snapshot, &mut batch, |outcome| _ = std::hint::black_box(outcome)),
                    1 => batch.chunks_mut(1).for_each(|datagram| memo.respond(&context, snapshot, datagram, drop)),
                    _ => batch.iter_mut().for_each(|datagram| {
                        _ = super::answer_uncached(&context, snapshot, datagram.packet, from, datagram.response);
                    }),
                }
                std::hint::black_box(&batch);
            }
            *best = best.min(begun.elapsed().as_nanos() as f64 / ROUNDS as f64);
        }
    }
    println!(
        "{what}: {:.0} ns, one by one {:.0} ns, in full {:.0} ns, {} octets",
        best[0],
        best[1],
        best[2],
        responses[0].len()
    );
}

/// A snapshot with a hundred services that have different rules, ten thousand `networks`, and a GeoIP database with
/// coordinates. The database is made from the country database: each of its networks gets random coordinates.
fn crowded() -> Snapshot {
    let mut random = Random::new(3);
    let countries = ["ZA", "JP", "DE", "US", "AU", "BR", "GB", "FR", "IN", "CA"];
    let mut rules = serde_json::json!({ "version": 1, "revision": 1, "jurisdictions": {}, "regions": {},
        "services": {}, "networks": [] });
    for (number, country) in countries.iter().enumerate() {
        rules["jurisdictions"][country.to_ascii_lowercase()] = serde_json::json!({ "countries": [country] });
        rules["regions"][country.to_ascii_lowercase()] =
            serde_json::json!({ "countries": [country], "answers": { "A": [format!("198.51.100.{number}")] } });
    }
    let names: Vec<String> = countries.iter().map(|country| country.to_ascii_lowercase()).collect();
    for number in 0..100 {
        let some = random.some(&names, 3);
        rules["services"][format!("s{number}")] = serde_json::json!({ "hosts": [format!("geo{number}.bench.test")],
            "pattern": "active-active", "regions": names,
            "residency": [ { "clients": some, "process_in": some }, { "clients": ["*"], "process_in": ["*"] },
                { "clients": ["unknown"], "process_in": ["*"] } ] });
    }
    let networks = (0..10_000).map(|number| {
        serde_json::json!({ "prefix": format!("{}.{}.{}.0/24", 11 + number / 2500, number / 10 % 250,
            number % 10 * 25), "country": random.pick(&countries) })
    });
    rules["networks"] = networks.collect();
    let rules = compile_rules(rules.to_string().into_bytes(), "rules.json").unwrap();
    let zone = "$TTL 60\n@ SOA ns1 hostmaster 1 2 3 4 60\n@ NS ns1\nns1 A 192.0.2.53\n";
    let origin: crate::protocol::name::Name = "bench.test".parse().unwrap();
    let records = file::parse(zone.as_bytes(), "z", &origin, &mut |_| Err("no files".into())).unwrap();
    let health = Health {
        regions: vec![bailiwick_rules::health::RegionHealth::of(None, &[], NOW); countries.len()],
        ..Health::default()
    };
    let database = maxminddb::Reader::open_readfile(DATABASE).unwrap();
    let mut builder = bailiwick_host::locate::geoip::testing::DatabaseBuilder::new(6);
    for network in database.networks(maxminddb::WithinOptions::default()).unwrap() {
        let network = network.unwrap();
        let place = random.bits().to_le_bytes();
        // The coordinates are those of about 65,000 different places.
        let coordinates = (f64::from(place[0]) / 255.0 * 140.0 - 70.0, f64::from(place[1]) / 255.0 * 340.0 - 170.0);
        builder = builder.add(
            network.network().unwrap().to_string().parse().unwrap(),
            &bailiwick_host::locate::geoip::testing::flat(random.pick::<&str>(&countries), Some(coordinates)),
        );
    }
    let bytes = builder.bytes();
    let begun = Instant::now();
    let places = Places::read(&bytes).unwrap();
    println!("crowded: database of {} octets read in {:.1} s", bytes.len(), begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let sources = [ZoneSource { origin, records }].into();
    let now = bailiwick_rules::time::Timestamp(0);
    let world = World::build(rules, sources, Arc::default(), Arc::new(places), now, None).unwrap();
    println!("crowded: compiled in {:.1} s", begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let snapshot = Snapshot::new(Arc::new(world), health, NOW, None);
    println!("crowded: decided in {:.3} s", begun.elapsed().as_secs_f64());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("crowded: {}", status.lines().find(|line| line.starts_with("VmRSS")).unwrap());
    snapshot
}

#[test]
#[ignore = "a measurement, to be run in release"]
fn cost() {
    let mut random = Random::new(1);
    for names in [10_000, 1_000_000] {
        let snapshot = snapshot(names);
        let edns = opt(1232, &[]);
        let known: Vec<_> =
            (0..65_536).map(|_| query(&format!("{}.bench.test", label(random.below(names))), 1, &[&edns])).collect();
        measure(&format!("static, {names} names"), &snapshot, &known);
        let unknown: Vec<_> =
            (0..65_536).map(|_| query(&format!("x{:011x}.bench.test", random.bits() >> 20), 1, &[&edns])).collect();
        measure("unknown names", &snapshot, &unknown);
        if names > 10_000 {
            continue;
        }
        let steered: Vec<_> = (0..10_000)
            .map(|_| {
                let address = random.bits().to_be_bytes();
                query(
                    "geo.bench.test",
                    1,
                    &[&opt(1232, &[(8, &[0, 1, 24, 0, 1 + address[0] % 222, address[1], address[2]])])],
                )
            })
            .collect();
        measure("steered", &snapshot, &steered);
        measure("steered, while clients are moved", &shedding(&snapshot), &steered);
        let classes = snapshot.world().classes_of(ServiceIndex(0)).unwrap();
        let v4: Vec<IpAddr> = (0..1 << 20)
            .map(|_| Ipv4Addr::from(*random.bits().to_be_bytes().first_chunk::<4>().unwrap()).into())
            .collect();
        let v6: Vec<IpAddr> = (0..1 << 20)
            .map(|_| {
                let prefix = *random.pick(&[0x2001_0000_u128, 0x2400_0000, 0x2600_0000, 0x2800_0000, 0x2a00_0000]);
                Ipv6Addr::from_bits(prefix << 96 | (u128::from(random.bits()) << 60) & (u128::MAX >> 8)).into()
            })
            .collect();
        for (what, addresses) in [("IPv4", v4), ("IPv6", v6)] {
            let begun = Instant::now();
            let sum: u64 = addresses.iter().map(|address| u64::from(classes.class(*address, 255).1)).sum();
            println!("location, {what}: {:.0} ns ({sum})", begun.elapsed().as_nanos() as f64 / addresses.len() as f64);
        }
    }
}

#[test]
#[ignore = "a measurement, to be run in release"]
fn cost_where_it_is_crowded() {
    let snapshot = crowded();
    let mut random = Random::new(1);
    for services in [1, 100] {
        let steered: Vec<_> = (0..10_000)
            .map(|_| {
                let address = random.bits().to_be_bytes();
                let subnet = [0, 1, 24, 0, 1 + address[0] % 222, address[1], address[2]];
                query(&format!("geo{}.bench.test", random.below(services)), 1, &[&opt(1232, &[(8, &subnet)])])
            })
            .collect();
        measure(&format!("steered, {services} services asked for"), &snapshot, &steered);
    }
}
