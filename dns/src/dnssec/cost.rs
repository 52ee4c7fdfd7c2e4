//! Measures what signing costs: prints the time and memory for signing a large zone, and the time of an answer with and
//! without signatures. Run it in release: `cargo test --release -p bailiwick-dns dnssec::cost -- --ignored --nocapture`

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use bailiwick_host::locate::geoip::Places;
use bailiwick_rules::time::Timestamp;

use super::key::{Algorithm, SigningKey};
use super::key_set::ZoneKeys;
use crate::protocol::rdata::rtype::{A, AAAA};
use crate::response::wire::{Context, Settings, Transport, respond};
use crate::state::load::compile_rules;
use crate::state::snapshot::{Health, Snapshot, World, ZoneSource};
use crate::testing::signed::{DO, flagged};
use crate::zone::file;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const RULES: &str = r#"{ "version": 1, "revision": 1, "jurisdictions": {}, "regions": { "r": { "countries": ["DE"],
    "answers": { "A": ["192.0.2.1"] } } },
    "services": { "s": { "hosts": ["geo.bench.test"], "pattern": "active-active", "regions": ["r"],
                         "residency": [{ "clients": ["*"], "process_in": ["*"] }, { "clients": ["unknown"],
                             "process_in": ["*"] }] } } }"#;

/// The resident memory of this process, in MiB.
fn resident() -> f64 {
    let reported = std::fs::read_to_string("/proc/self/statm").unwrap();
    reported.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0 / f64::from(1 << 20)
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (before, begun) = (resident(), Instant::now());
    let made = work();
    println!("{what}: {:.2} s, {:+.1} MiB", begun.elapsed().as_secs_f64(), resident() - before);
    made
}

/// Prints the mean time of one answer in nanoseconds, the best of five rounds.
fn answered(what: &str, snapshot: &Snapshot, packets: &[Vec<u8>], rounds: usize) {
    let settings = Settings::anonymous();
    let (mut out, mut best, mut now) = (Vec::with_capacity(2048), f64::MAX, 1_800_000_000);
    for round in 0..5 {
        // Each round uses other packets, if there are enough.
        let begun = Instant::now();
        for (number, packet) in packets.iter().cycle().skip(round * rounds).take(rounds).enumerate() {
            // The time goes on after every 100 queries, so that the budget of signatures is never spent.
            now += u32::from(number % 100 == 0);
            let context = Context { settings: &settings, limiter: None, now };
            respond(&context, snapshot.zones(), snapshot, packet, LOCAL, Transport::Udp, &mut out);
            std::hint::black_box(&out);
        }
        best = best.min(begun.elapsed().as_nanos() as f64 / rounds as f64);
    }
    println!("  {what}: {best:.0} ns, {} octets, rcode {}, TC {}", out.len(), out[3] & 15, out[2] >> 1 & 1);
}

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[test]
#[ignore = "a measurement, to be run in release"]
fn cost() {
    for algorithm in [Algorithm::EcdsaP256Sha256, Algorithm::Ed25519] {
        let key = SigningKey::generate(algorithm).unwrap();
        let begun = Instant::now();
        (0..10_000_u32).for_each(|number| drop(key.sign(&number.to_be_bytes())));
        println!("{algorithm:?}: {:.1} µs a signature", begun.elapsed().as_secs_f64() * 100.0);
    }
    let mut text = "$TTL 300\n@ SOA ns1 hostmaster 1 7200 1800 1209600 300\n@ NS ns1\nns1 A 192.0.2.53\n".to_owned();
    (0..100_000).for_each(|number| writeln!(text, "h{number} A 10.0.0.1").unwrap());
    let origin: crate::protocol::name::Name = "bench.test".parse().unwrap();
    let records = file::parse(text.as_bytes(), "z", &origin, &mut |_| Err("no files".into())).unwrap();
    let sources: Arc<[ZoneSource]> = [ZoneSource { origin: origin.clone(), records }].into();
    let rules = compile_rules(RULES.as_bytes().to_vec(), "r").unwrap();
    let keys: Arc<[ZoneKeys]> =
        [ZoneKeys::of_one(origin, SigningKey::generate(Algorithm::EcdsaP256Sha256).unwrap())].into();
    let build = |keys: &Arc<[ZoneKeys]>, before: Option<&World>| {
        let places = Arc::new(Places::none());
        World::build(Arc::clone(&rules), Arc::clone(&sources), Arc::clone(keys), places, NOW, before).unwrap()
    };
    let unsigned = timed("100,000 names, unsigned", || build(&Arc::default(), None));
    let signed = timed("100,000 names, signed", || build(&keys, None));
    let again = timed("reloaded, nothing changed", || build(&keys, Some(&signed)));
    drop(again);
    let later = NOW.after(bailiwick_rules::time::Millis(8 * 86_400_000));
    drop(timed("all renewed", || signed.renewed(later).unwrap()));
    drop(timed("renewed, nothing due", || signed.renewed(NOW).unwrap()));

    let snapshot = |world: World| {
        let regions = vec![bailiwick_rules::health::RegionHealth::of(None, &[], NOW)];
        Snapshot::new(Arc::new(world), Health { regions, ..Health::default() }, NOW, None)
    };
    for (what, snapshot) in [("unsigned", snapshot(unsigned)), ("signed", snapshot(signed))] {
        println!("{what} zone");
        let known = |qtype, flags| -> Vec<Vec<u8>> {
            (0..10_000).map(|n| flagged(&format!("h{}.bench.test", n * 7), qtype, flags)).collect()
        };
        let unknown = |count: u32, flags| -> Vec<Vec<u8>> {
            (0..count).map(|n| flagged(&format!("x{n:07}.bench.test"), A, flags)).collect()
        };
        for (how, flags) in [("without DO", 0), ("with DO", DO)] {
            answered(&format!("static, {how}"), &snapshot, &known(A, flags), 300_000);
            answered(&format!("steered, {how}"), &snapshot, &[flagged("geo.bench.test", A, flags)], 300_000);
            answered(&format!("NODATA, {how}"), &snapshot, &known(AAAA, flags), 300_000);
            answered(&format!("NXDOMAIN asked for again, {how}"), &snapshot, &unknown(1_000, flags), 100_000);
            answered(&format!("NXDOMAIN never asked for, {how}"), &snapshot, &unknown(100_000, flags), 20_000);
        }
    }
}
