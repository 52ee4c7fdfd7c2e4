//! Tests of the memo: kept answers are compared byte for byte with newly made answers, in random worlds.

use std::sync::{Arc, Mutex};

use bailiwick_host::locate::geoip::Places;
use bailiwick_host::locate::geoip::testing::{DatabaseBuilder, flat};
use bailiwick_rules::testing::{Random, conditions, document};
use bailiwick_rules::time::Timestamp;
use hickory_proto::op::Message;
use serde_json::json;

use super::*;
use crate::dnssec::key::{Algorithm, SigningKey};
use crate::dnssec::key_set::ZoneKeys;
use crate::protocol::rdata::rtype;
use crate::response::answer::Rcode;
use crate::response::answer::Responses;
use crate::response::wire::Settings;
use crate::state::load::compile_rules;
use crate::state::snapshot::scopes::random_shares;
use crate::state::snapshot::{Health, World, ZoneSource};
use crate::testing::{NOW, opt, query};
use crate::zone::file;

/// How many random worlds, and how many datagrams are sent in each.
const WORLDS: u64 = 120;
const DATAGRAMS: usize = 2_000;
const COUNTRIES: [&str; 5] = ["DE", "FR", "GB", "US", "JP"];
const ECS: u16 = 8;

/// The zones of a world. `{host}` is replaced by a steered name. The SOA of the first zone names hosts inside the zone,
/// one of which doesn't exist.
const ZONES: [(&str, &str); 3] = [
    (
        "example",
        "@ SOA NS1.Gone hostmaster 1 2 3 4 60\n@ NS ns1\n@ NS ns.other.test.\nns1 A 192.0.2.53\nwww A 192.0.2.1\n\
         www AAAA 2001:db8::1\n\
         MiXed.Case TXT \"a\" \"b\"\nalias CNAME WWW\nlonger.chain CNAME alias\naway CNAME www.elsewhere.net.\n\
         lost CNAME not.there\n\
         steered CNAME {host}\n*.wild A 192.0.2.7\nfrom.wild2 CNAME x.wild\nx.deep.below A 192.0.2.8\nsub NS ns.sub\n\
         ns.sub A 192.0.2.9\n\
         moved DNAME www.deep.below\nthrough CNAME a.moved\nmx MX 10 www\nmx MX 20 ns1\n",
    ),
    (
        "child.example",
        "@ SOA ns.child.example. host.other.test. 1 2 3 4 30\n@ NS www.example.\nwww A 192.0.2.77\n\
         up CNAME www.example.\n",
    ),
    ("test", "@ SOA ns.outside.net. h.outside.net. 1 2 3 4 90\n@ NS ns.outside.net.\na.b.c TXT x\n"),
];

/// The zones of one world, with TXT RRsets of random sizes: either the first zone or all zones.
fn sources(random: &mut Random, host: &str) -> Arc<[ZoneSource]> {
    let count = if random.chance(30) { 1 } else { ZONES.len() };
    let source = |(origin, text): &(&str, &str)| {
        let origin: crate::protocol::name::Name = origin.parse().unwrap();
        let mut text = format!("$TTL {}\n{}", 60 + random.below(5) * 60, text.replace("{host}", &format!("{host}.")));
        for (name, strings) in [("mid", 1 + random.below(4)), ("big", 5 + random.below(3))] {
            for number in 0..strings {
                text += &format!("{name} TXT \"{number}{}\"\n", "x".repeat(90 + random.below(140)));
            }
        }
        let records = file::parse(text.as_bytes(), "z", &origin, &mut |_| Err("no files".into())).unwrap();
        ZoneSource { origin, records }
    };
    ZONES[..count].iter().map(source).collect()
}

/// Keys for some of the zones: the keys of the world before, or new keys.
fn keys(random: &mut Random, before: Option<&World>) -> Arc<[ZoneKeys]> {
    if let Some(before) = before.filter(|_| random.chance(70)) {
        return Arc::clone(before.keys());
    }
    let key = || SigningKey::generate(Algorithm::Ed25519).unwrap();
    let signed = ["example", "test"].into_iter().filter(|_| random.chance(50));
    signed.map(|origin| ZoneKeys::of_one(origin.parse().unwrap(), key())).collect()
}

fn world(random: &mut Random, before: Option<&World>) -> Arc<World> {
    let mut rules = document(random);
    for (number, region) in (1..).zip(rules["regions"].as_object_mut().unwrap().values_mut()) {
        region["answers"] = json!({ "A": [format!("192.0.2.{number}")], "TXT": [format!("region {number}")] });
    }
    let host = rules["services"].as_object().unwrap().values().next().unwrap()["hosts"][0].as_str().unwrap().to_owned();
    // A wildcard beside the service's own host.
    let service = rules["services"].as_object_mut().unwrap().values_mut().next().unwrap();
    service["hosts"].as_array_mut().unwrap().extend([json!("*.any.example"), json!("deep.below.any.example")]);
    let rules = compile_rules(rules.to_string().into_bytes(), "rules.json").unwrap();
    let made = (0..12).fold(DatabaseBuilder::new(6), |made, block| {
        made.add(format!("198.51.{block}.0/24").parse().unwrap(), &flat(random.pick::<&str>(&COUNTRIES), None))
    });
    let made = made.add("2001:db8::/33".parse().unwrap(), &flat(random.pick::<&str>(&COUNTRIES), None));
    let places = Arc::new(Places::read(&made.bytes()).unwrap());
    let sources = sources(random, &host);
    // The keys use a random generator of their own, so that the rest of the world doesn't depend on them.
    let keys = keys(&mut Random::new(rules.bytes.len() as u64), before);
    Arc::new(World::build(rules, sources, keys, places, Timestamp(i64::from(NOW) * 1000), before).unwrap())
}

fn snapshot(random: &mut Random, world: Arc<World>, before: Option<&Snapshot>) -> Snapshot {
    let (regions, _, now) = conditions(random, &world.rules().table);
    let shares = random_shares(&mut Random::new(random.bits()), &world);
    Snapshot::new(world, Health { regions, shares, ..Health::default() }, now, before)
}

/// The names that are queried.
fn names(snapshot: &Snapshot) -> Vec<String> {
    let hosts = snapshot
        .table()
        .services()
        .iter()
        .flat_map(|service| service.hosts.iter().map(|host| host.as_str().to_owned()));
    let of_zones = [
        "@",
        "www",
        "ns1",
        "mixed.case",
        "case",
        "alias",
        "longer.chain",
        "chain",
        "away",
        "lost",
        "steered",
        "x.wild",
        "y.x.wild",
        "wild",
        "from.wild2",
        "x.deep.below",
        "deep.below",
        "sub",
        "x.sub",
        "moved",
        "a.moved",
        "through",
        "mx",
        "mid",
        "big",
        "nothing",
        "x.nothing",
        "ns1.gone",
        "gone",
        "x.gone",
        "x.ns1.gone",
        "hostmaster",
        "x.hostmaster",
        "a.b.c",
        "b.c",
        "up",
        "not.there",
        "x.any",
        "y.x.any",
        "any",
        "*.any",
        "below.any",
        "x.below.any",
        "deep.below.any",
    ];
    let of_zones = of_zones.iter().flat_map(|name| {
        ["example", "child.example", "test", "elsewhere.net"].map(|zone| format!("{name}.{zone}").replace("@.", ""))
    });
    hosts.chain(of_zones).collect()
}

/// A datagram that asks for one of these names, in some way.
fn datagram(random: &mut Random, names: &[String]) -> Vec<u8> {
    let missing = format!(
        "{:x}.{}",
        random.bits() >> (40 + random.below(20)),
        random.pick(&["example", "child.example", "test", "www.example"])
    );
    let name = if random.chance(20) { &missing } else { random.pick(names) };
    let types = [
        rtype::A,
        rtype::A,
        rtype::A,
        rtype::TXT,
        rtype::AAAA,
        rtype::SOA,
        rtype::NS,
        rtype::CNAME,
        rtype::MX,
        rtype::DS,
        65,
        97,
        rtype::ANY,
        rtype::AXFR,
        0,
        9999,
    ];
    let usual = if random.chance(80) { 5 } else { types.len() };
    let qtype = *random.pick(&types[..usual]);
    let mut packet = match random.below(10) {
        0..3 => query(name, qtype, &[]),
        3..9 => {
            let mut options: Vec<(u16, Vec<u8>)> = Vec::new();
            if random.chance(60) {
                options.push((ECS, subnet(random)));
            }
            if random.chance(6) {
                let more =
                    [(ECS, subnet(random)), (10, vec![7; 8]), (3, vec![]), (65_001, vec![1]), (ECS, vec![0, 1, 24])];
                options.push(random.pick(&more).clone());
            }
            let options: Vec<(u16, &[u8])> = options.iter().map(|(code, data)| (*code, &data[..])).collect();
            let mut record = opt(*random.pick(&[1232, 1232, 4096, 512, 0, 600, 300]), &options);
            record[7] = if random.chance(30) { *random.pick(&[0x80, 0xc0, 0x40]) } else { 0 };
            record[6] = u8::from(random.chance(2));
            query(name, qtype, &[&record])
        }
        _ => query(name, qtype, &[&opt(1232, &[])[..], &opt(1232, &[])][..random.below(3)]),
    };
    disturb(random, &mut packet, name.len());
    packet
}

/// Gives a query a random id, random flags and a random case of its name. Damages some queries.
fn disturb(random: &mut Random, packet: &mut Vec<u8>, name: usize) {
    let id = random.bits().to_be_bytes();
    packet[..2].copy_from_slice(&id[..2]);
    packet[2] = *random.pick(&[0, 1, 1, 1]);
    packet[3] = *random.pick(&[0, 0, 0x10, 0x20, 0x30, 0x4f]);
    if random.chance(40) {
        let end = packet.len().min(12 + name);
        packet[12..end].iter_mut().for_each(|octet| {
            if octet.is_ascii_alphabetic() && random.chance(50) {
                *octet ^= 0x20;
            }
        });
    }
    match random.below(60) {
        0 => packet.truncate(random.below(packet.len() + 1)),
        1 => packet.push(0),
        2 => {
            let at = random.below(packet.len());
            packet[at] ^= 1 << random.below(8);
        }
        _ => {}
    }
}

/// A client subnet with the address family 0, which hickory can't decode.
const NO_FAMILY: [u8; 8] = [0, 8, 0, 4, 0, 0, 0, 0];

fn subnet(random: &mut Random) -> Vec<u8> {
    let source = u8::try_from(random.below(34)).unwrap();
    if random.chance(5) {
        return vec![0, 0, u8::from(random.chance(20)), 0];
    }
    if random.chance(70) {
        let address = [198, 51, u8::try_from(random.below(14)).unwrap(), random.bits().to_le_bytes()[0]];
        let kept = u32::from_be_bytes(address) & u32::MAX.checked_shl(32 - u32::from(source.min(32))).unwrap_or(0);
        return [&[0, 1, source, 0], &kept.to_be_bytes()[..usize::from(source.min(32)).div_ceil(8)]].concat();
    }
    let source = source * 3;
    let address = 0x2001_0db8_u128 << 96 | u128::from(random.bits()) << 32;
    let kept = address & u128::MAX.checked_shl(128 - u32::from(source)).unwrap_or(0);
    [&[0, 2, source, 0], &kept.to_be_bytes()[..usize::from(source).div_ceil(8)]].concat()
}

/// A limiter with random verdicts. Two limiters with the same seed give the same verdicts in the same order.
struct Scripted(Mutex<Random>, usize);

impl Scripted {
    fn verdict(&self) -> Verdict {
        let mut random = self.0.lock().unwrap();
        match random.chance(self.1) {
            false => Verdict::Answer,
            true => *random.pick(&[Verdict::Slip, Verdict::Drop]),
        }
    }
}

impl Limiter for Scripted {
    fn admit(&self, _: IpAddr) -> Verdict {
        self.verdict()
    }

    fn judge(&self, _: IpAddr, _: Class) -> Verdict {
        self.verdict()
    }
}

/// Checks that the memo changes no answer, with random rules, zones, databases and health, which change while datagrams
/// arrive.
#[test]
fn a_kept_answer_is_byte_for_byte_the_one_that_is_made() {
    let (mut sent, mut hits, mut denied, mut signed) = (0, 0, 0_u64, 0_u64);
    for seed in 0..WORLDS {
        let random = &mut Random::new(seed);
        let responses = if seed % 2 == 0 { Responses::Minimal } else { Responses::Full };
        let settings = Settings { responses, ..Settings::anonymous() };
        let strict = if random.chance(25) { 20 } else { 0 };
        let limiters = [7, 7].map(|script| Scripted(Mutex::new(Random::new(seed + script)), strict));
        let first = world(random, None);
        let mut now = snapshot(random, first, None);
        let mut known = names(&now);
        let (mut memo, mut kept, mut made) = (Memo::new(), Vec::new(), b"left over".to_vec());
        let mut left = DATAGRAMS;
        while left > 0 {
            match random.below(100) {
                0 => {
                    let next = world(random, Some(now.world()));
                    now = snapshot(random, next, Some(&now));
                    known = names(&now);
                }
                1..4 => now = snapshot(random, Arc::clone(now.world()), Some(&now)),
                _ => {}
            }
            let most = if random.chance(20) { SIZE } else { 3 };
            let count = (1 + random.below(most)).min(left);
            left -= count;
            let packets: Vec<Vec<u8>> = (0..count).map(|_| datagram(random, &known)).collect();
            let from = |_| if random.chance(50) { [198, 51, 3, 4].into() } else { crate::testing::CLIENT };
            let senders: Vec<IpAddr> = packets.iter().map(from).collect();
            let context = |limiter| Context { settings: &settings, limiter: Some(limiter), now: NOW };
            kept.resize(kept.len().max(count), b"left over".to_vec());
            let batch = packets.iter().zip(&senders).zip(&mut kept);
            let batch = batch.map(|((packet, from), response)| Datagram { packet, from: *from, response });
            let mut results = Vec::new();
            memo.respond(&context(&limiters[0]), &now, &mut batch.collect::<Vec<_>>(), |result| results.push(result));
            assert_eq!(results.len(), count);
            for (((packet, from), kept), by_memo) in packets.iter().zip(senders).zip(&kept).zip(results) {
                let in_full = answer_uncached(&context(&limiters[1]), &now, packet, from, &mut made);
                assert_eq!(*kept, made, "seed {seed}: {packet:02x?}");
                assert_eq!(by_memo, in_full, "seed {seed}: {packet:02x?}");
                if let Outcome::Answered { rcode, .. } = in_full {
                    assert!(
                        Message::from_vec(kept).is_ok()
                            || packet.len() < 20
                            || kept.windows(8).any(|octets| octets == NO_FAMILY),
                        "another decoder reads it: {kept:02x?}"
                    );
                    denied += u64::from(rcode == Rcode::NXDOMAIN);
                    signed += u64::from(kept.windows(4).any(|octets| octets == [0, 46, 0, 1]));
                }
                sent += 1;
            }
        }
        hits += memo.hits();
    }
    assert!(signed > 1_000, "{signed} signed answers");
    assert!(hits > sent / 4, "the comparison means little if nothing was kept: {hits} hits");
    println!(
        "memo: {WORLDS} random worlds, {sent} datagrams, {hits} answered by what was kept, {denied} name errors, \
         {signed} signed: all equal to the full path"
    );
}

/// A snapshot of a random world in which the answer at the first steered host is kept. Not every random world is like
/// that.
fn plain() -> Snapshot {
    let worlds = (5..25).map(|seed| {
        let random = &mut Random::new(seed);
        let world = world(random, None);
        snapshot(random, world, None)
    });
    let keeps = |snapshot: &Snapshot| {
        let host = snapshot.table().services()[0].hosts[0].as_str().to_owned();
        let packet = query(&host, rtype::A, &[&opt(1232, &[(ECS, &[0, 1, 24, 0, 198, 51, 3])])]);
        let (mut memo, mut out) = (Memo::new(), Vec::new());
        ask(&mut memo, snapshot, &packet, &mut out);
        ask(&mut memo, snapshot, &packet, &mut out);
        memo.hits() > 0
    };
    worlds.into_iter().find(keeps).unwrap()
}

fn ask(memo: &mut Memo, snapshot: &Snapshot, packet: &[u8], out: &mut Vec<u8>) {
    let settings = Settings::anonymous();
    ask_in(&Context { settings: &settings, limiter: None, now: NOW }, memo, snapshot, packet, out);
}

fn ask_in(context: &Context<'_>, memo: &mut Memo, snapshot: &Snapshot, packet: &[u8], response: &mut Vec<u8>) {
    memo.respond(context, snapshot, &mut [Datagram { packet, from: crate::testing::CLIENT, response }], drop);
}

#[test]
fn a_hit_allocates_nothing_and_neither_does_an_unknown_name() {
    let snapshot = plain();
    let host = snapshot.table().services()[0].hosts[0].as_str().to_owned();
    let (mut memo, mut out) = (Memo::new(), Vec::with_capacity(2048));
    let edns = opt(1232, &[(ECS, &[0, 1, 24, 0, 198, 51, 3])]);
    let packets = [
        query(&host, rtype::A, &[&edns]),
        query("www.example", rtype::A, &[]),
        query("nothing.example", rtype::A, &[&edns]),
    ];
    for packet in &packets {
        ask(&mut memo, &snapshot, packet, &mut out);
        let hits = memo.hits();
        let settings = Settings::anonymous();
        let context = Context { settings: &settings, limiter: None, now: NOW };
        let info = allocation_counter::measure(|| {
            for _ in 0..100 {
                ask_in(&context, &mut memo, &snapshot, packet, &mut out);
            }
        });
        assert_eq!((memo.hits() - hits, info.count_total), (100, 0));
    }
    // Answers without the memo allocate nothing either: static, steered and missing names, and a name that wasn't
    // queried before.
    let settings = Settings::anonymous();
    let context = Context { settings: &settings, limiter: None, now: NOW };
    for packet in packets.iter().chain([&query("never.before.example", rtype::A, &[])]) {
        let info = allocation_counter::measure(|| {
            _ = answer_uncached(&context, &snapshot, packet, crate::testing::CLIENT, &mut out);
        });
        assert_eq!(info.count_total, 0);
    }
}

/// Damages the kept answer to a query.
type Spoil = fn(&mut Memo, &[u8]);

#[test]
fn a_kept_answer_that_is_wrong_is_found_mended_and_counted() {
    let spoil_entry: Spoil = |memo, packet| {
        let query = query::read(packet).unwrap();
        memo.table.put(&Key::new(&query), query.name, |mut wire| {
            *wire.bytes_mut().last_mut().unwrap() ^= 1;
            Entry { wire, ..Entry::empty() }
        });
    };
    let spoil_pattern: Spoil = |memo, _| memo.patterns.iter_mut().for_each(Pattern::spoil);
    for (name, spoil) in
        [("alias.example", spoil_entry), ("www.example", spoil_pattern), ("nothing.example", spoil_pattern)]
    {
        let snapshot = plain();
        let (mut memo, mut out, mut right) = (Memo::new(), Vec::new(), Vec::new());
        let packet = query(name, rtype::A, &[]);
        ask(&mut memo, &snapshot, &packet, &mut out);
        ask(&mut memo, &snapshot, &packet, &mut right);
        assert_eq!((memo.hits(), &out), (1, &right), "{name}");
        spoil(&mut memo, &packet);
        ask(&mut memo, &snapshot, &packet, &mut out);
        assert_ne!(out, right, "{name}: nobody looked");
        memo.since_comparison = COMPARE_EVERY - 1;
        ask(&mut memo, &snapshot, &packet, &mut out);
        assert_eq!((&out, memo.mismatches()), (&right, 1), "{name}");
        ask(&mut memo, &snapshot, &packet, &mut out);
        assert_eq!((&out, memo.mismatches()), (&right, 1), "{name}: what was kept is gone");
    }
}

#[test]
fn a_flood_of_names_types_and_clients_takes_no_more_room() {
    let snapshot = plain();
    let (mut memo, mut out) = (Memo::new(), Vec::with_capacity(2048));
    let known = query("alias.example", rtype::A, &[]);
    ask(&mut memo, &snapshot, &known, &mut out);
    let random = &mut Random::new(1);
    for _ in 0..20_000 {
        ask(&mut memo, &snapshot, &query(&format!("x{:x}.example", random.bits()), rtype::A, &[]), &mut out);
    }
    let hits = memo.hits();
    ask(&mut memo, &snapshot, &known, &mut out);
    assert_eq!(memo.hits(), hits + 1, "an answer from before the flood is still kept");
    assert_eq!(memo.table.kept(), 1, "names that don't exist aren't kept");
}

/// A random world with two signed zones.
fn signed() -> Snapshot {
    let random = &mut Random::new(5);
    let world = (0..).map(|_| world(random, None)).find(|world| world.keys().len() == 2).unwrap();
    snapshot(random, world, None)
}

#[test]
fn signed_answers_are_kept_but_for_those_signed_at_once_and_never_longer_than_they_may_be_served() {
    let snapshot = signed();
    let (mut memo, mut out) = (Memo::new(), Vec::new());
    let settings = Settings::anonymous();
    let mut dnssec_ok = opt(1232, &[]);
    dnssec_ok[7] = 0x80;
    let mut hits_at = |name: &str, qtype, now, out: &mut Vec<u8>| {
        let context = Context { settings: &settings, limiter: None, now };
        let before = memo.hits();
        for _ in 0..3 {
            ask_in(&context, &mut memo, &snapshot, &query(name, qtype, &[&dnssec_ok]), out);
        }
        memo.hits() - before
    };
    let is_signed = |out: &[u8]| out.windows(4).any(|octets| octets == [0, 46, 0, 1]);
    assert_eq!(hits_at("www.example", rtype::A, NOW, &mut out), 2);
    assert!(is_signed(&out));
    let chains = [("alias.example", 2), ("from.wild2.example", 0), ("lost.example", 0)];
    for (name, hits) in [("www.example", 2), ("nothing.example", 0), ("x.wild.example", 0)].into_iter().chain(chains) {
        assert_eq!(hits_at(name, rtype::TXT, NOW, &mut out), hits, "{name}");
        assert!(is_signed(&out), "{name}");
    }
    let until = snapshot.signed_until().unwrap();
    assert_eq!(hits_at("www.example", rtype::A, until - 1, &mut out), 3);
    assert_eq!(hits_at("www.example", rtype::A, until, &mut out), 0);
    let far = NOW + 8 * 86_400;
    assert_eq!(hits_at("www.example", rtype::A, far, &mut out), 0);
    assert_eq!((out[3] & 15, is_signed(&out)), (2, false), "SERVFAIL");
    assert_eq!(hits_at("www.example", rtype::A, NOW, &mut out), 3, "the SERVFAIL wasn't kept");
}

#[test]
fn responses_with_names_of_very_many_labels_are_those_of_the_full_path() {
    // The encoder remembers a limited number of labels as targets of pointers, and the labels of the question come
    // first.
    let (short, long) = ("example".to_owned(), format!("{}example", "a.".repeat(52)));
    let far = format!("{}z.y", "b.".repeat(58));
    for (apex, far) in [(&long, "elsewhere.test"), (&short, &far)] {
        let mut zone = format!(
            "$TTL 60\n@ SOA ns.{far}. host.z.y. 1 2 3 4 60\n@ NS ns.{far}.\n@ NS other.z.y.\n@ NS ns1\n\
             ns1 A 192.0.2.1\n"
        );
        (0..16).for_each(|labels| zone += &format!("{}known A 192.0.2.{labels}\n", "x.".repeat(labels)));
        let origin: crate::protocol::name::Name = apex.parse().unwrap();
        let records = file::parse(zone.as_bytes(), "z", &origin, &mut |_| Err("no files".into())).unwrap();
        let before = plain();
        let (rules, places) = (Arc::clone(before.world().rules()), Arc::clone(before.world().places()));
        let sources = [ZoneSource { origin, records }].into();
        let world = World::build(rules, sources, [].into(), places, before.at(), None).unwrap();
        let snapshot = Snapshot::new(Arc::new(world), before.health().clone(), before.at(), None);
        let settings = Settings::anonymous();
        let context = Context { settings: &settings, limiter: None, now: NOW };
        let (mut memo, mut kept, mut made) = (Memo::new(), Vec::new(), Vec::new());
        for (labels, name) in
            [1, 9, 12, 1, 14, 0, 15].into_iter().flat_map(|labels| [(labels, "known"), (labels, "not")])
        {
            let name = format!("{}{name}.{apex}", "x.".repeat(labels));
            let packet = query(&name, rtype::A, &[&opt(1232, &[])]);
            ask_in(&context, &mut memo, &snapshot, &packet, &mut kept);
            answer_uncached(&context, &snapshot, &packet, crate::testing::CLIENT, &mut made);
            assert_eq!(kept, made, "{name}");
        }
    }
}
