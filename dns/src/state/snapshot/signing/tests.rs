//! Tests of signatures of snapshots: what is signed again after a reload, a change of health or the passing of time,
//! and that no stale signature is served.

use std::net::IpAddr;

use bailiwick_host::locate::geoip::Places;
use bailiwick_rules::health::{Forced, RegionHealth, Status};
use bailiwick_rules::time::Millis;
use hickory_proto::op::{Message, ResponseCode};

use super::*;
use crate::dnssec::key::{Algorithm, SigningKey};
use crate::dnssec::key_set::ZoneKeys;
use crate::dnssec::policy::{Cds, Policy};
use crate::dnssec::sign::Signatures;
use crate::dnssec::state::State;
use crate::dnssec::timeline::{self, NewKey};
use crate::protocol::name::Name;
use crate::protocol::rdata::rtype;
use crate::protocol::rdata::rtype::{A, MX, TXT};
use crate::response::wire::{Context, Settings, Transport, respond};
use crate::state::load::compile_rules;
use crate::state::snapshot::{Health, Snapshot, ZoneSource};
use crate::testing::name;
use crate::testing::signed::{CO, DO, flagged, verify};
use crate::zone::file;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const HOUR: i64 = 3_600_000;

const RULES: &str = r#"{
    "version": 1, "revision": 7,
    "jurisdictions": { "eu": { "include": ["EU"] }, "us": { "countries": ["US"] } },
    "regions": {
        "fra": { "countries": ["DE"], "answers": { "A": ["192.0.2.10", "192.0.2.11"], "TXT": ["same"] } },
        "nyc": { "countries": ["US"], "answers": { "A": ["192.0.2.30"], "TXT": ["same"] } }
    },
    "services": {
        "chat": { "hosts": ["chat.example.com", "talk.example.com"], "pattern": "active-active", "regions": ["fra",
            "nyc"],
                  "residency": [ { "clients": ["eu"], "process_in": ["eu"] }, { "clients": ["us"],
                      "process_in": ["us"] } ],
                  "when_all_down": "fail", "denied_answers": { "A": ["192.0.2.99"], "TXT": ["denied"] },
                      "ttl": { "min": 7, "max": 33 } }
    },
    "networks": [{ "prefix": "198.51.100.0/24", "country": "DE" }, { "prefix": "203.0.113.0/24", "country": "US" }]
}"#;

const ZONE: &str = "www A 192.0.2.1\nwww MX 10 www\n*.wild TXT w\nlong 20d A 192.0.2.2\nsub NS ns.test.\n";

fn sources(text: &str) -> Arc<[ZoneSource]> {
    let origin: Name = name("example.com");
    let text = format!("$TTL 1h\n@ SOA ns.test. h.test. 1 2 3 4 60\n@ NS ns.test.\n{text}");
    let records = file::parse(text.as_bytes(), "example.zone", &origin, &mut |_| Err("no files".into())).unwrap();
    [ZoneSource { origin, records }].into()
}

fn keys() -> Arc<[ZoneKeys]> {
    let key = SigningKey::generate(Algorithm::EcdsaP256Sha256).unwrap();
    [ZoneKeys::of_one(name("example.com"), key)].into()
}

fn build(
    rules: &str,
    zone: &str,
    keys: &Arc<[ZoneKeys]>,
    now: Timestamp,
    before: Option<&World>,
) -> Result<World, Vec<ZoneError>> {
    let rules = compile_rules(rules.as_bytes().to_vec(), "rules.json").unwrap();
    World::build(rules, sources(zone), Arc::clone(keys), Arc::new(Places::none()), now, before)
}

fn world(keys: &Arc<[ZoneKeys]>) -> Arc<World> {
    Arc::new(build(RULES, ZONE, keys, NOW, None).unwrap())
}

/// Health with these regions down. They are in the order of their names: `fra`, `nyc`.
fn health(down: [bool; 2]) -> Health {
    let regions = down.map(|down| {
        let mut health = RegionHealth::of(None, &[], NOW);
        let until = NOW.after(Millis(u64::MAX / 4_000_000));
        health.forced = down.then(|| Forced { status: Status::Down, until, reason: "drill".into() });
        health
    });
    Health { regions: regions.into(), ..Health::default() }
}

fn ask(snapshot: &Snapshot, qname: &str, qtype: u16, flags: u8, client: &str, now: Timestamp) -> Message {
    let settings = Settings::anonymous();
    let context = Context { settings: &settings, limiter: None, now: seconds(now) };
    let (packet, client): (_, IpAddr) = (flagged(qname, qtype, flags), client.parse().unwrap());
    let mut out = Vec::new();
    respond(&context, snapshot.zones(), snapshot, &packet, client, Transport::Tcp, &mut out);
    Message::from_vec(&out).unwrap()
}

/// Every question of these tests, whose answers show each kind of signature.
const QUESTIONS: [(&str, u16); 10] = [
    ("www.example.com", A),
    ("www.example.com", TXT),
    ("long.example.com", A),
    ("chat.example.com", A),
    ("talk.example.com", TXT),
    ("chat.example.com", MX),
    ("x.wild.example.com", TXT),
    ("nope.example.com", A),
    ("example.com", rtype::DNSKEY),
    ("sub.example.com", rtype::DS),
];
const GERMAN: &str = "198.51.100.1";
const AMERICAN: &str = "203.0.113.1";
const NOBODY: &str = "192.0.2.1";

/// All signatures made beforehand, by owner and type.
fn signatures(world: &World) -> Vec<(String, Signatures)> {
    let zone = world.zones.of_origin(name("example.com").as_ref()).unwrap();
    let signed = zone.signed().unwrap();
    let of_sets = zone.own_sets().map(|own| {
        let what = format!("{} {}", zone.name_of(own.node), own.set.rtype);
        (what, signed.of_static(own.number).unwrap().clone())
    });
    let steered = zone.steered_owners().iter().enumerate().flat_map(|(number, owner)| {
        let regions = world.answers[owner.service.get()].iter().map(|(region, _)| Some(*region)).chain([None]);
        let both = regions.flat_map(|region| [(region, A), (region, TXT)]);
        both.filter_map(move |(region, rtype)| {
            let what = format!("{} {rtype} {region:?}", owner.name);
            Some((what, signed.of_steered(number, region, rtype)?.clone()))
        })
    });
    let keys = signed.apex_types().map(|rtype| (format!("apex {rtype}"), signed.apex_set(rtype).unwrap().1.clone()));
    let nsecs = zone
        .own_nodes()
        .map(|node| (format!("{} NSEC", zone.name_of(node)), signed.of_nsec(zone.number_of(node)).unwrap().clone()));
    of_sets.chain(nsecs).chain(steered).chain(keys).collect()
}

/// The signatures of `after` that `before` doesn't have, by owner and type.
fn signed_anew(before: &World, after: &World) -> Vec<String> {
    let old = signatures(before);
    let new = signatures(after).into_iter();
    new.filter(|(_, one)| !old.iter().any(|(_, other)| other == one)).map(|(what, _)| what).collect()
}

#[test]
fn health_and_clients_choose_among_signatures_and_none_is_made() {
    let keys = keys();
    let world = world(&keys);
    let key_set = world.key_sets().next().unwrap().clone();
    let mut before: Option<Snapshot> = None;
    for down in [[false, false], [true, false], [false, true], [true, true], [false, false]] {
        let snapshot = Snapshot::new(Arc::clone(&world), health(down), NOW, before.as_ref());
        for (client, region) in [(GERMAN, 0), (AMERICAN, 1), (NOBODY, 2)] {
            for (qname, qtype) in QUESTIONS {
                let message = ask(&snapshot, qname, qtype, DO, client, NOW);
                verify(&message, &key_set, seconds(NOW), &[]).unwrap_or_else(|error| panic!("{qname}: {error}"));
            }
            let reported = ask(&snapshot, "chat.example.com", A, DO, client, NOW).answers[0].data.to_string();
            let up = |region: usize| !down[region];
            let expected = match region {
                0 if up(0) => "192.0.2.10",
                1 if up(1) => "192.0.2.30",
                _ => "192.0.2.99",
            };
            assert_eq!(reported, expected, "{client} {down:?}");
        }
        assert_eq!(snapshot.generation(), 1, "health doesn't change the generation");
        before = Some(snapshot);
    }
    // Only two answers can't be signed beforehand: that of a wildcard and that of a missing name. Each was signed once.
    assert_eq!(world.online_signer().signed_count(), 2);
}

#[test]
fn regions_that_publish_the_same_share_a_signature() {
    let all = signatures(&world(&keys()));
    let of = |what: &str| &all.iter().find(|(one, _)| one == what).unwrap().1;
    assert_eq!(of("chat.example.com. 16 Some(RegionIndex(0))"), of("chat.example.com. 16 Some(RegionIndex(1))"));
    assert_ne!(of("chat.example.com. 1 Some(RegionIndex(0))"), of("chat.example.com. 1 Some(RegionIndex(1))"));
    assert_ne!(of("chat.example.com. 16 None"), of("chat.example.com. 16 Some(RegionIndex(1))"));
}

#[test]
fn a_reload_signs_only_what_changed() {
    let keys = keys();
    let first = world(&keys);
    let later = Timestamp(NOW.0 + HOUR);
    let reload = |rules: &str, zone: &str| build(rules, zone, &keys, later, Some(&first)).unwrap();
    assert_eq!(signed_anew(&first, &reload(RULES, ZONE)), [""; 0]);
    assert_eq!(
        signed_anew(&first, &reload(RULES, &format!("{ZONE}new A 192.0.2.5\n"))),
        ["new.example.com. 1", "new.example.com. NSEC"]
    );
    assert_eq!(signed_anew(&first, &reload(RULES, &ZONE.replace("10 www", "20 www"))), ["www.example.com. 15"]);
    assert_eq!(
        signed_anew(&first, &reload(RULES, &ZONE.replace("MX 10", "SRV 1 2 3"))),
        ["www.example.com. 33", "www.example.com. NSEC"],
        "another type is in the NSEC, too"
    );
    assert_eq!(
        signed_anew(&first, &reload(RULES, &ZONE.replace("www A", "www 2h A"))),
        ["www.example.com. 1"],
        "another TTL is another RRset to sign"
    );
    let rules = RULES.replace("192.0.2.30", "192.0.2.31").replace("\"fra\"", "\"zrh\"").replace(": 7", ": 8");
    assert_eq!(
        signed_anew(&first, &reload(&rules, ZONE)),
        ["chat.example.com. 1 Some(RegionIndex(0))", "talk.example.com. 1 Some(RegionIndex(0))"],
        "a region with another name and position still publishes its records"
    );
    // Another key signs everything, its own RRset included.
    let other = build(RULES, ZONE, &self::keys(), later, Some(&first)).unwrap();
    assert_eq!(signed_anew(&first, &other).len(), signatures(&other).len());
}

#[test]
fn time_passes_and_nothing_stale_is_ever_served() {
    let keys = keys();
    let mut world = world(&keys);
    let key_set = world.key_sets().next().unwrap().clone();
    let (mut renewals, mut renewed) = (0, 0);
    for hour in 0..60 * 24 {
        let now = Timestamp(NOW.0 + hour * HOUR);
        if world.renewal_due(now).is_some_and(|due| due <= now) {
            let new = Arc::new(world.renewed(now).unwrap());
            renewed += signed_anew(&world, &new).len();
            (world, renewals) = (new, renewals + 1);
        }
        assert!(world.renewal_due(now).is_some_and(|due| due > now), "a renewal leaves nothing due");
        assert!(world.signed_until(now).all(|(_, until)| until.0 - now.0 >= 24 * HOUR), "a day to spare");
        let snapshot = Snapshot::new(Arc::clone(&world), health([false; 2]), now, None);
        for (qname, qtype) in QUESTIONS {
            let message = ask(&snapshot, qname, qtype, DO, GERMAN, now);
            verify(&message, &key_set, seconds(now), &[]).unwrap_or_else(|error| panic!("{hour}: {qname}: {error}"));
        }
    }
    let all = signatures(&world).len();
    assert!((14..=17).contains(&(renewed / all)), "{renewed} of {all} in 60 days: each four days and less by chance");
    println!("60 days: {renewals} renewals, {renewed} signatures of {all} RRsets");
}

#[test]
fn a_clock_that_leaps_is_refused_and_then_signed_for() {
    let keys = keys();
    let world = world(&keys);
    let key_set = world.key_sets().next().unwrap().clone();
    for leap in [6 * 24 + 23, 8 * 24, 365 * 24, 40 * 365 * 24] {
        let now = Timestamp(NOW.0 + leap * HOUR);
        let snapshot = |world: &Arc<World>| Snapshot::new(Arc::clone(world), health([false; 2]), now, None);
        let stale = snapshot(&world);
        for flags in [DO, DO | CO] {
            for (qname, qtype) in QUESTIONS.into_iter().filter(|_| leap > 7 * 24) {
                let message = ask(&stale, qname, qtype, flags, GERMAN, now);
                let reported = (message.metadata.response_code, message.answers.len() + message.authorities.len());
                // In the answer of a wildcard, the signature that is made for the query is fresh, and the stale ones
                // are left out.
                match verify(&message, &key_set, seconds(now), &[]) {
                    Ok(1) => assert_eq!(qname, "x.wild.example.com"),
                    Ok(0) => assert_eq!(reported, (ResponseCode::ServFail, 0), "{qname}"),
                    other => assert!(qname == "long.example.com" && leap < 20 * 24, "{qname}: {other:?}"),
                }
            }
        }
        assert!(world.renewal_due(now).is_some_and(|due| due <= now));
        let fresh = snapshot(&Arc::new(world.renewed(now).unwrap()));
        for (qname, qtype) in QUESTIONS {
            let message = ask(&fresh, qname, qtype, DO, GERMAN, now);
            assert!(verify(&message, &key_set, seconds(now), &[]).is_ok_and(|verified| verified > 0), "{qname}");
        }
    }
    // If the clock is set back by more than the time between inception and signing, all signatures are from the future.
    let past = Timestamp(NOW.0 - 2 * HOUR);
    assert_eq!(world.renewal_due(past), Some(past));
    assert_eq!(signed_anew(&world, &world.renewed(past).unwrap()).len(), signatures(&world).len());
}

#[test]
fn records_that_signing_makes_and_endless_ttls_are_refused_with_their_lines() {
    let text = format!("{ZONE}a NSEC b A\n@ DNSKEY 257 3 13 AAAA\n@ CDS 0 0 0 00\nb 31d A 192.0.2.1\n");
    let errors = build(RULES, &text, &keys(), NOW, None).unwrap_err();
    let reported: Vec<String> = errors.iter().map(ToString::to_string).collect();
    for (line, word) in
        [(9, "the NSEC of a"), (10, "the DNSKEY of example.com."), (11, "the CDS of"), (12, "a TTL of 2678400 s")]
    {
        assert!(reported.iter().any(|one| one.starts_with(&format!("example.zone:{line}: {word}"))), "{reported:#?}");
    }
    assert_eq!(reported.len(), 4);
    assert!(
        build(RULES, &text, &Arc::default(), NOW, None).is_ok(),
        "in an unsigned zone these records are plain data"
    );
}

/// The keys of a rollover: the first key, and a second key that is published beside it a year later.
fn rolled(policy: Policy) -> (State, impl Fn(&State) -> Arc<[ZoneKeys]>) {
    let made: Vec<Arc<SigningKey>> =
        (0..2).map(|_| Arc::new(SigningKey::generate(Algorithm::Ed25519).unwrap())).collect();
    let new =
        |number: usize| NewKey { file: number.to_string(), tag: made[number].tag(), algorithm: Algorithm::Ed25519 };
    let long_ago = Timestamp(NOW.0 - 365 * 24 * HOUR);
    let state = timeline::first(name("example.com"), new(0), &policy, Millis(3_600_000), long_ago);
    let state = timeline::begin(&state, new(1), &policy, NOW).unwrap();
    let keys = move |state: &State| {
        let key_of = |key: &crate::dnssec::state::KeyState| Some(Arc::clone(&made[key.file.parse::<usize>().ok()?]));
        Arc::from([ZoneKeys::new(state, policy, key_of)])
    };
    (state, keys)
}

#[test]
fn rfc8078_4_cds_and_cdnskey_follow_the_configuration() {
    for (cds, expected) in [(Cds::Off, None), (Cds::Publish, Some((36, 36))), (Cds::Delete, Some((5, 5)))] {
        let (state, keys) = rolled(Policy { cds, ..Policy::default() });
        let world = Arc::new(build(RULES, ZONE, &keys(&state), NOW, None).unwrap());
        let key_set = world.key_sets().next().unwrap().clone();
        let snapshot = Snapshot::new(Arc::clone(&world), health([false; 2]), NOW, None);
        let zone = world.zones.of_origin(name("example.com").as_ref()).unwrap();
        let length = |rtype: u16| {
            let set = zone.key_set(zone.apex(), rtype)?;
            // Two keys are in the DNSKEY RRset. Both sign it, and both sign CDS and CDNSKEY.
            let (_, signatures) = zone.signed()?.apex_set(rtype)?;
            assert_eq!(signatures.rdatas().iter().count(), 2);
            Some(set.rdatas.as_ref().first()?.len())
        };
        assert_eq!(length(rtype::CDS).zip(length(rtype::CDNSKEY)), expected, "{cds:?}");
        let nodata = ask(&snapshot, "example.com", A, DO, GERMAN, NOW);
        verify(&nodata, &key_set, seconds(NOW), &[]).unwrap();
        let bitmap = nodata
            .authorities
            .iter()
            .map(|record| record.data.to_string())
            .find(|data| data.starts_with('\\'))
            .unwrap();
        assert_eq!(bitmap.contains("CDS CDNSKEY"), expected.is_some(), "{bitmap}");
    }
}

#[test]
fn what_is_served_of_the_keys_follows_their_states_through_a_rollover() {
    let policy = Policy::default();
    let (begun, keys) = rolled(policy);
    let mut world = Arc::new(build(RULES, ZONE, &keys(&begun), NOW, None).unwrap());
    let (mut state, mut seen) = (begun, Vec::new());
    for hour in 0..30 * 24 {
        let now = Timestamp(NOW.0 + hour * HOUR);
        if let Ok(next) = timeline::finish(&state, &policy, Millis(3_600_000), now) {
            state = next;
            world = Arc::new(build(RULES, ZONE, &keys(&state), now, Some(&world)).unwrap());
        }
        if world.renewal_due(now).is_some_and(|due| due <= now) {
            world = Arc::new(world.renewed(now).unwrap());
        }
        let (key_set, wanted) = (world.key_sets().next().unwrap().clone(), keys(&state)[0].key_set(now));
        assert!(key_set.signs_like(&wanted), "hour {hour}: {key_set:?} instead of {wanted:?}");
        let snapshot = Snapshot::new(Arc::clone(&world), health([false; 2]), now, None);
        for (qname, qtype) in QUESTIONS.into_iter().filter(|(_, qtype)| *qtype != rtype::DNSKEY) {
            let message = ask(&snapshot, qname, qtype, DO, GERMAN, now);
            verify(&message, &key_set, seconds(now), &[]).unwrap_or_else(|error| panic!("{hour}: {qname}: {error}"));
        }
        let shape = (key_set.dnskeys().count(), key_set.signers().next().unwrap().tag());
        if seen.last() != Some(&shape) {
            seen.push(shape);
        }
    }
    assert_eq!(
        seen.iter().map(|(count, _)| *count).collect::<Vec<_>>(),
        [2, 2, 1],
        "first two keys, then the other key signs, then one is left"
    );
    assert_ne!(seen[0].1, seen[1].1);
}

#[test]
fn a_zone_that_its_parent_does_not_delegate_causes_a_warning() {
    let keys = keys();
    let warnings = |origins: [&str; 2], keys: &Arc<[ZoneKeys]>| {
        let below = origins.map(|origin| {
            let (origin, text) = (name(origin), "$TTL 1h\n@ SOA ns.test. h.test. 1 2 3 4 60\n@ NS ns.test.\n");
            let records = file::parse(text.as_bytes(), "below.zone", &origin, &mut |_| Err("no files".into())).unwrap();
            ZoneSource { origin, records }
        });
        let sources: Vec<ZoneSource> = sources(ZONE).iter().cloned().chain(below).collect();
        let rules = compile_rules(RULES.as_bytes().to_vec(), "rules.json").unwrap();
        let (keys, places) = (Arc::clone(keys), Arc::new(Places::none()));
        World::build(rules, sources.into(), keys, places, NOW, None).unwrap().warnings().to_vec()
    };
    let fine = warnings(["sub.example.com", "example.org"], &keys);
    assert!(fine.is_empty(), "{fine:?}");
    let reported = warnings(["other.example.com", "a.sub.example.com"], &keys);
    assert!(
        reported.len() == 1 && reported[0].starts_with("the zone other.example.com. isn't delegated by example.com.")
    );
    let unsigned = warnings(["other.example.com", "example.org"], &Arc::default());
    assert!(unsigned.len() == 1 && unsigned[0].contains("other.example.com."), "{unsigned:?}");
}
