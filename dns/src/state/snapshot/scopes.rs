//! Tests of RFC 7871 §7.2.1 by brute force. Takes random rules, health, databases and `networks`, and compares whole
//! responses with what `steer` decides for single addresses without any ranges. Checks that each returned scope has one
//! answer. A fence is the list of the regions that may process a client's data.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bailiwick_host::locate::carrier::carried;
use bailiwick_host::locate::geoip::Places;
use bailiwick_host::locate::geoip::testing::{DatabaseBuilder, flat, geoip2};
use bailiwick_rules::load::{BucketShares, Home, Point};
use bailiwick_rules::report::SharesReport;
use bailiwick_rules::steer::{PathClass, decide, rank, stand};
use bailiwick_rules::table::{RegionIndex, ServiceIndex as RulesService, Table};
use bailiwick_rules::testing::{Random, conditions, document};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RData;
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use ipnet::IpNet;
use serde_json::json;

use super::*;
use crate::locate::classes::Classes;
use crate::response::wire::{Context, Settings, Transport, respond};
use crate::state::load::compile_rules;
use crate::testing;
use crate::zone::file;

/// How many random worlds are tested.
const WORLDS: u64 = 750;
/// How many random addresses are asked for in each world. The edges of its prefixes are asked for too.
const PROBES: usize = 12;
const COUNTRIES: [&str; 8] = ["DE", "FR", "AT", "GB", "US", "CH", "JP", "BR"];
const A: u16 = 1;
const ECS: u16 = 8;

fn number(random: &mut Random) -> u128 {
    u128::from(random.bits()) << 64 | u128::from(random.bits())
}

/// A random address: in a small range where many prefixes lie, in a block of IPv6 that carries IPv4, or anywhere.
fn address(random: &mut Random) -> IpAddr {
    #[allow(clippy::cast_possible_truncation)] // random bits
    let v4 = match random.below(3) {
        0 => random.bits() as u32,
        1 => 0xc633_6400 | random.bits() as u32 & 0x3ff,
        _ => 0x5b00_0000 | random.bits() as u32 & 0xfff,
    };
    let (inner, any) = (u128::from(v4), number(random));
    let v6 = match random.below(6) {
        0 => 0x0064_ff9b << 96 | inner,
        1 => 0x2002 << 112 | inner << 80 | any & 0xffff,
        2 => 0x2001_0000 << 96 | (any & 0xffff_ffff) << 32 | u128::from(!v4),
        3 => any,
        _ => 0x2001_0db8 << 96 | (any & 0xff) << 72,
    };
    if random.chance(50) { Ipv4Addr::from_bits(v4).into() } else { Ipv6Addr::from_bits(v6).into() }
}

fn block(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length).expect("a length").trunc()
}

/// The first, the last and a random address of a prefix.
fn inside(prefix: IpNet, random: &mut Random) -> [IpAddr; 3] {
    let any = number(random);
    let some = match (prefix.network(), prefix.hostmask()) {
        #[allow(clippy::cast_possible_truncation)] // random bits
        (IpAddr::V4(first), IpAddr::V4(mask)) => {
            Ipv4Addr::from_bits(first.to_bits() | any as u32 & mask.to_bits()).into()
        }
        (IpAddr::V6(first), IpAddr::V6(mask)) => Ipv6Addr::from_bits(first.to_bits() | any & mask.to_bits()).into(),
        (first, _) => first,
    };
    [prefix.network(), prefix.broadcast(), some]
}

/// Random prefixes of both families, each once. None has the length 0.
fn prefixes(random: &mut Random) -> Vec<IpNet> {
    let mut prefixes: Vec<IpNet> = (0..random.below(12))
        .map(|_| {
            let address = address(random);
            let width = if address.is_ipv4() { 32 } else { 128 };
            block(address, u8::try_from(1 + random.below(width)).expect("at most 128"))
        })
        .collect();
    prefixes.sort();
    prefixes.dedup();
    prefixes
}

struct TestWorld {
    snapshot: Snapshot,
    /// Prefixes whose first and last address are tested.
    edges: Vec<IpNet>,
    /// Which clients are moved because of load.
    shares: Option<Arc<BucketShares>>,
}

/// Random shares that move clients of random classes to regions of their fence; often `None`.
pub(crate) fn random_shares(random: &mut Random, world: &World) -> Option<Shares> {
    let services = (0..).map(RulesService).zip(world.rules().table.services()).map(|(index, _)| index);
    let mut dns = BucketShares::default();
    let is_any = random.chance(60);
    for service in services.filter(|_| is_any) {
        let rankings = world.classes_of(service).map_or(&[][..], Classes::rankings);
        for ranking in rankings {
            let order = ranking.regions();
            if order.is_empty() || random.chance(30) {
                continue;
            }
            let stays = random.below(100);
            let mut region = |_| if random.chance(stays) { None } else { Some(*random.pick(&order)) };
            dns.insert(service, &order, std::array::from_fn(&mut region));
        }
    }
    let report = SharesReport { at: Timestamp(0), interval_ms: 5_000, services: BTreeMap::new() };
    (dns != BucketShares::default()).then(|| Shares { report: Arc::new(report), dns: Arc::new(dns) })
}

impl TestWorld {
    fn new(random: &mut Random) -> Self {
        let mut rules = document(random);
        for (number, region) in (1..).zip(rules["regions"].as_object_mut().expect("regions").values_mut()) {
            region["answers"] = json!({ "A": [format!("192.0.2.{number}")] });
        }
        let named = prefixes(random);
        for prefix in &named {
            let network = json!({ "prefix": prefix.to_string(), "country": random.pick(&COUNTRIES) });
            let networks = rules["networks"].as_array_mut().expect("networks");
            if networks.iter().all(|other| other["prefix"] != network["prefix"]) {
                networks.push(network);
            }
        }
        let rules = compile_rules(rules.to_string().into_bytes(), "rules.json").expect("sound rules");
        let mut builder = DatabaseBuilder::new(6);
        let recorded = prefixes(random);
        for prefix in recorded.iter().filter(|prefix| carried(prefix.network()).is_none()) {
            let location = random.chance(30).then_some((35.68, 139.69));
            let record = if random.chance(50) { flat } else { geoip2 };
            builder = builder.add(*prefix, &record(random.pick::<&str>(&COUNTRIES), location));
        }
        let places = Places::read(&builder.bytes()).unwrap_or_else(|_| Places::none());
        let origin: crate::protocol::name::Name = "example".parse().expect("a name");
        let zone = b"$TTL 60\n@ SOA ns.x. h.x. 1 2 3 4 60\n@ NS ns.x.\n";
        let records = file::parse(zone, "z", &origin, &mut |_| Err("no files".into())).expect("a zone");
        let (health, _, now) = conditions(random, &rules.table);
        let world =
            World::build(rules, [ZoneSource { origin, records }].into(), Arc::default(), Arc::new(places), now, None)
                .expect("a world");
        let shares = random_shares(&mut Random::new(random.bits()), &world);
        let health = Health { regions: health, shares: shares.clone(), ..Health::default() };
        let snapshot = Snapshot::new(Arc::new(world), health, now, None);
        Self { snapshot, edges: [named, recorded].concat(), shares: shares.map(|shares| shares.dns) }
    }

    fn table(&self) -> &Table {
        self.snapshot.table()
    }

    /// The address in a whole response to a query for this subnet, the scope, and the TTL.
    fn reported(&self, service: usize, address: IpAddr, source: u8) -> (Option<Ipv4Addr>, u8, Option<u32>) {
        let host = self.table().services()[service].hosts[0].as_str();
        let octets: Vec<u8> = match block(address, source).network() {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let family = if address.is_ipv4() { 1 } else { 2 };
        let subnet = [&[0, family, source, 0], &octets[..usize::from(source).div_ceil(8)]].concat();
        let packet = testing::query(host, A, &[&testing::opt(1232, &[(ECS, &subnet)])]);
        let settings = Settings::anonymous();
        let context = Context { settings: &settings, limiter: None, now: 0 };
        let mut out = Vec::new();
        let _ = respond(
            &context,
            self.snapshot.zones(),
            &self.snapshot,
            &packet,
            testing::CLIENT,
            Transport::Udp,
            &mut out,
        );
        let message = Message::from_vec(&out).expect("a response");
        let scope = match message.edns.as_ref().and_then(|edns| edns.option(EdnsCode::Subnet)) {
            Some(EdnsOption::Subnet(echo)) => {
                assert_eq!((echo.source_prefix(), echo.addr()), (source, block(address, source).network()), "echoed");
                echo.scope_prefix()
            }
            _ => panic!("no subnet in {message}"),
        };
        let answer = match (message.metadata.response_code, &message.answers[..]) {
            (ResponseCode::ServFail, []) => None,
            (ResponseCode::NoError, [record]) => match record.data {
                RData::A(address) => Some(address.0),
                ref other => panic!("{other}"),
            },
            _ => panic!("{message}"),
        };
        (answer, scope, message.answers.first().map(|record| record.ttl))
    }

    /// Whether the answered address belongs to a region of the fence of the client at `address`.
    fn is_inside(&self, service: usize, address: IpAddr, answer: Ipv4Addr) -> bool {
        let client = self.snapshot.client_at(address);
        let service = RulesService(u32::try_from(service).expect("few"));
        let fence = rank(self.table(), service, &stand(self.table(), &client), PathClass::Inference).regions();
        let answered = |region: &RegionIndex| {
            self.table().region(*region).answers.as_ref().is_some_and(|answers| answers.a.contains(&answer))
        };
        fence.iter().any(answered)
    }

    /// The answer that `steer` decides for this single address, and whether clients of its class are moved.
    fn expected(&self, service: usize, address: IpAddr) -> (Option<Ipv4Addr>, bool) {
        let client = self.snapshot.client_at(address);
        let service = RulesService(u32::try_from(service).expect("few"));
        let ranking = rank(self.table(), service, &stand(self.table(), &client), PathClass::Inference);
        let local = Local::default();
        let steering = decide(self.table(), &ranking, None, &self.snapshot.conditions(&local, self.snapshot.at()));
        let Some(first) = steering.ordered.first() else { return (None, false) };
        let order = ranking.regions();
        let buckets = self.shares.as_ref().and_then(|shares| shares.of(service, &order));
        let offered = |to: &RegionIndex| steering.ordered.iter().any(|ranked| ranked.fenced.region == *to);
        let moved = buckets.and_then(|buckets| buckets[self.bucket(address, order[0])]).filter(offered);
        let region = moved.filter(|_| !steering.revived).unwrap_or(first.fenced.region);
        (Some(self.table().region(region).answers.as_ref().expect("every region has some").a[0]), buckets.is_some())
    }

    /// The IPv4 address that an IPv6 address carries, unless `networks` names the IPv6 address.
    fn carried(&self, address: IpAddr) -> Option<Ipv4Addr> {
        carried(address).filter(|_| address.to_canonical().is_ipv4() || self.table().network_of(address).is_none())
    }

    /// The bucket of the network that an address is in.
    fn bucket(&self, address: IpAddr, home: RegionIndex) -> usize {
        let v4 = |address: Ipv4Addr| (u64::from(address.to_bits() >> 8), 24);
        let (prefix, length) = match (address, self.carried(address)) {
            (IpAddr::V4(address), _) | (_, Some(address)) => v4(address),
            (IpAddr::V6(address), None) => (u64::try_from(address.to_bits() >> 80).expect("48 bits"), 48),
        };
        let home = Home::named(self.table().region(home).id.as_str());
        Point::of_network(prefix, length, home).bucket() as usize
    }
}

#[test]
fn rfc7871_7_2_1_whoever_is_inside_a_scope_gets_the_same_answer() {
    let (mut compared, mut shed, mut answered) = (0_u64, 0_u64, 0_u64);
    for seed in 0..WORLDS {
        let random = &mut Random::new(seed);
        let world = TestWorld::new(random);
        let mut probes: Vec<IpAddr> = (0..PROBES).map(|_| address(random)).collect();
        probes.extend(world.edges.iter().flat_map(|prefix| [prefix.network(), prefix.broadcast()]));
        for service in 0..world.table().services().len() {
            for &probe in &probes {
                let whole = if probe.is_ipv4() { 32 } else { 128 };
                // For IPv6 the whole address is sent, because a shorter prefix may hide part of an IPv4 address inside
                // it, and the answer to a longer prefix may then differ.
                let source = if probe.is_ipv4() { u8::try_from(1 + random.below(32)).expect("small") } else { whole };
                let (answer, scope, ttl) = world.reported(service, probe, source);
                let network = block(probe, source).network();
                let (expected, may_move) = world.expected(service, network);
                assert_eq!(answer, expected, "seed {seed}, {network}/{source}");
                if may_move {
                    shed += 1;
                    // A 6to4 address carries the first 24 bits of an IPv4 address in its first 40.
                    let least = if network.is_ipv4() { 24 } else { world.carried(network).map_or(48, |_| 40) };
                    assert!(scope >= least, "seed {seed}, {network}/{source}: {scope}");
                    assert_eq!(ttl, Some(world.table().services()[service].ttl.min), "seed {seed}, {network}/{source}");
                }
                let promised = block(network, scope);
                for other in inside(promised, random) {
                    compared += 1;
                    assert_eq!(world.expected(service, other).0, answer, "seed {seed}, {other} in {promised}");
                    let (theirs, their_scope, _) = world.reported(service, other, whole);
                    if let Some(theirs) = theirs {
                        answered += 1;
                        assert!(world.is_inside(service, other, theirs), "seed {seed}, {other}: outside its fence");
                    }
                    assert_eq!(
                        (theirs, their_scope),
                        (answer, scope),
                        "seed {seed}, {other} in {promised}: no partition"
                    );
                }
            }
        }
    }
    println!("scopes: {WORLDS} random worlds, {compared} responses compared with steering by brute force");
    println!("scopes: {shed} of them of classes of which clients are moved");
    println!("fence: {answered} answers with health, overrides and load in play, 0 outside");
    assert!(compared > 100_000 && shed > 3_000 && answered > 30_000, "{compared}, {shed}, {answered}");
}
