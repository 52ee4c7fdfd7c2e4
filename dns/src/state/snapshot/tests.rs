//! Tests of which records a snapshot gives to which client, with which TTL and scope.

use std::net::IpAddr;

use bailiwick_host::locate::geoip::Places;
use bailiwick_host::locate::geoip::testing::{DatabaseBuilder, flat};
use bailiwick_rules::health::{AntiFlap, Reading, Status, Thresholds};

use super::*;
use crate::protocol::rdata::rtype;
use crate::response::answer::Ecs;
use crate::state::load::compile_rules;
use crate::zone::file;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

const RULES: &str = r#"{
    "version": 1, "revision": 7,
    "jurisdictions": { "eu": { "include": ["EU"] }, "us": { "countries": ["US"] } },
    "regions": {
        "fra": { "countries": ["DE"], "answers": { "A": ["192.0.2.10", "192.0.2.11"], "TXT": ["fra"] },
                 "monitor": { "type": "tcp", "address": "127.0.0.1:1", "interval": "5s" } },
        "par": { "countries": ["FR"], "answers": { "A": ["192.0.2.20"], "TXT": ["par"] } },
        "nyc": { "countries": ["US"], "answers": { "A": ["192.0.2.30"], "TXT": ["nyc"] } }
    },
    "services": {
        "chat": { "hosts": ["chat.ai.example.com", "elsewhere.example.org"], "pattern": "active-active",
            "regions": ["fra", "par", "nyc"],
                  "residency": [ { "clients": ["eu"], "process_in": ["eu"] }, { "clients": ["us"],
                      "process_in": ["us"] } ],
                  "when_all_down": "fail" },
        "open": { "hosts": ["open.ai.example.com"], "pattern": "active-active", "regions": ["nyc"],
                  "residency": [ { "clients": ["us"], "process_in": ["us"] } ],
                  "denied_answers": { "A": ["192.0.2.99"], "TXT": ["denied"] }, "ttl": { "min": 7, "max": 33 } }
    }
}"#;

const CHAT: ServiceIndex = ServiceIndex(0);
const OPEN: ServiceIndex = ServiceIndex(1);

fn sources(zone: &str) -> Arc<[ZoneSource]> {
    let origin: crate::protocol::name::Name = "ai.example.com".parse().unwrap();
    let text = format!("$TTL 1h\n@ SOA ns.example.net. h.example.net. 1 2 3 4 60\n@ NS ns.example.net.\n{zone}");
    let records = file::parse(text.as_bytes(), "ai.zone", &origin, &mut |_| Err("no files".into())).unwrap();
    [ZoneSource { origin, records }].into()
}

fn places() -> Arc<Places> {
    let made = DatabaseBuilder::new(6)
        .add("198.51.100.0/24".parse().unwrap(), &flat("DE", None))
        .add("203.0.113.0/24".parse().unwrap(), &flat("US", None))
        .add("2001:db8::/32".parse().unwrap(), &flat("FR", None));
    Arc::new(Places::read(&made.bytes()).unwrap())
}

fn world(rules: &str) -> Arc<World> {
    let rules = compile_rules(rules.as_bytes().to_vec(), "rules.json").unwrap();
    Arc::new(World::build(rules, sources(""), Arc::default(), places(), NOW, None).unwrap())
}

fn up(down_thresh: u32) -> MonitorState {
    let mut machine = AntiFlap::new(Thresholds { up: 3, ok: 5, down: down_thresh });
    machine.record(true);
    MonitorState { machine, interval: Millis(5000), last_result: Some(NOW) }
}

/// Health in which Frankfurt has this monitor, and the other regions have none.
fn health(fra: &MonitorState) -> Health {
    let unwatched = || RegionHealth::of(None, &[], NOW);
    let regions = vec![RegionHealth::of(Some(fra), &[], NOW), unwatched(), unwatched()];
    let monitors = vec![MonitorView {
        region: RegionIndex(0),
        endpoint: None,
        family: None,
        monitored: fra.clone(),
        failure: None,
        since: NOW,
        probes: crate::state::snapshot::Probes::default(),
        last_failure: None,
        model: None,
    }];
    // Regions are in the order of their names: fra, nyc, par.
    Health { regions, monitors, ..Health::default() }
}

fn from(address: &str) -> Asking {
    Asking { transport: address.parse().unwrap(), ecs: None }
}

fn subnet(address: &str, source: u8) -> Asking {
    let resolver: IpAddr = "203.0.113.53".parse().unwrap();
    Asking { transport: resolver, ecs: Some(Ecs { address: address.parse().unwrap(), source }) }
}

fn a(snapshot: &Snapshot, service: ServiceIndex, client: Asking) -> (Vec<IpAddr>, u32, u8) {
    match snapshot.resolve(service, rtype::A, &client) {
        SteeredAnswer::Records { ttl, rdatas, scope, .. } => {
            let address = |rdata: &[u8]| IpAddr::from(<[u8; 4]>::try_from(rdata).unwrap());
            (rdatas.iter().map(address).collect(), ttl, scope)
        }
        SteeredAnswer::Nothing { scope, ede } => panic!("nothing for /{scope}, EDE {ede}"),
    }
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_client_gets_its_nearest_region_s_records_with_the_scope_for_which_they_hold() {
    let snapshot = Snapshot::new(world(RULES), health(&up(3)), NOW, None);
    let fra = addresses(&["192.0.2.10", "192.0.2.11"]);
    assert_eq!(a(&snapshot, CHAT, subnet("198.51.100.0", 24)), (fra.clone(), 15, 24));
    assert_eq!(a(&snapshot, CHAT, subnet("2001:db8:77::", 48)), (addresses(&["192.0.2.20"]), 60, 32));
    assert_eq!(a(&snapshot, CHAT, subnet("203.0.113.128", 25)).0, addresses(&["192.0.2.30"]));
    let SteeredAnswer::Records { rdatas, .. } = snapshot.resolve(CHAT, rtype::TXT, &from("198.51.100.1")) else {
        panic!()
    };
    assert_eq!(rdatas.iter().collect::<Vec<_>>(), [b"\x03fra"]);
}

#[test]
fn rfc8914_an_empty_fence_is_prohibited_and_a_withheld_one_not_ready() {
    let world = world(RULES);
    let snapshot = Snapshot::new(Arc::clone(&world), health(&up(3)), NOW, None);
    let nothing = |snapshot: &Snapshot, client| match snapshot.resolve(CHAT, rtype::A, &client) {
        SteeredAnswer::Nothing { scope, ede } => (scope, ede),
        SteeredAnswer::Records { .. } => panic!("records"),
    };
    let (scope, ede) = nothing(&snapshot, subnet("198.51.0.0", 16));
    assert_eq!(ede, 18, "the client's place is unknown, and no rule accepts such clients");
    assert!(scope > 16, "part of the /16 is known");

    let mut all_down = health(&up(3));
    let forced = Forced { status: Status::Down, until: NOW.after(Millis(30_000)), reason: "drill".into() };
    all_down.regions[1].forced = Some(forced);
    let snapshot = Snapshot::new(world, all_down, NOW, Some(&snapshot));
    assert_eq!(nothing(&snapshot, subnet("203.0.113.0", 24)), (24, 14));
}

/// The last byte of each record of one type that a client gets, and the TTL.
fn last(snapshot: &Snapshot, rtype: u16) -> (Vec<u8>, u32) {
    let SteeredAnswer::Records { ttl, rdatas, .. } = snapshot.resolve(CHAT, rtype, &from("198.51.100.1")) else {
        panic!("nothing")
    };
    (rdatas.iter().filter_map(|rdata| rdata.last().copied()).collect(), ttl)
}

#[test]
fn a_drill_moves_clients_within_their_fence_and_nobody_while_no_region_of_it_is_up() {
    let world = world(&RULES.replace(r#""when_all_down": "fail""#, r#""when_all_down": "serve-fence""#));
    let drilled = bailiwick_rules::report::Drilled {
        region: world.rules().table.region_named("fra").unwrap(),
        share: bailiwick_rules::rules::Ratio::ONE,
    };
    let answer = |down: &[usize]| {
        let mut health = Health { drilled: Some(drilled), ..health(&up(3)) };
        down.iter().for_each(|region| health.regions[*region].probed = Status::Down);
        last(&Snapshot::new(Arc::clone(&world), health, NOW, None), rtype::A).0
    };
    // Regions are in the order of their names: fra, nyc, par.
    assert_eq!((answer(&[]), answer(&[0])), (vec![20], vec![20]));
    assert_eq!(answer(&[2]), [10, 11], "nobody else is left");
    assert_eq!(answer(&[0, 2]), [10, 11], "all of the fence are offered, the nearest first");
}

#[test]
fn a_family_that_is_dead_is_answered_by_another_region_and_the_other_one_stays() {
    let rules = RULES
        .replace(
            r#""A": ["192.0.2.10", "192.0.2.11"]"#,
            r#""A": ["192.0.2.10"], "AAAA": ["2001:db8::10"], "HTTPS": ["1 ."]"#,
        )
        .replace(r#""A": ["192.0.2.20"]"#, r#""A": ["192.0.2.20"], "AAAA": ["2001:db8::20"], "HTTPS": ["1 ."]"#)
        .replace(r#""A": ["192.0.2.30"]"#, r#""A": ["192.0.2.30"], "AAAA": ["2001:db8::30"], "HTTPS": ["1 ."]"#)
        .replace(r#"{ "A": ["192.0.2.99"]"#, r#"{ "A": ["192.0.2.99"], "AAAA": ["2001:db8::99"], "HTTPS": ["1 ."]"#);
    let world = world(&rules);
    let mut dead = up(1);
    dead.machine.record(false);
    let (alive, dead) = (up(3), dead);
    // Regions are in the order of their names: fra, nyc, par.
    let of = |ipv4: [&MonitorState; 3], ipv6: [&MonitorState; 3]| {
        let join = |join: fn(Reading, Reading) -> Reading| {
            let read = |number: usize| join(ipv4[number].reading(NOW), ipv6[number].reading(NOW));
            (0..3).map(|number| RegionHealth::with_forced(Some(read(number)), &[], &[])).collect::<Vec<_>>()
        };
        let by_family = ByFamily { ipv4: join(|four, _| four), ipv6: join(|_, six| six), whole: join(Reading::both) };
        Health { regions: join(Reading::either), by_family: Some(Arc::new(by_family)), ..Health::default() }
    };
    let both = of([&alive; 3], [&alive; 3]);
    let whole = Snapshot::new(Arc::clone(&world), both, NOW, None);
    for rtype in [rtype::A, rtype::AAAA] {
        assert_eq!(last(&whole, rtype), (vec![if rtype == rtype::A { 10 } else { 0x10 }], 15));
    }
    let half = of([&alive; 3], [&dead, &alive, &alive]);
    let snapshot = Snapshot::new(Arc::clone(&world), half, NOW, Some(&whole));
    assert_eq!(last(&snapshot, rtype::A), (vec![10], 15), "the live records stay");
    assert_eq!(last(&snapshot, rtype::AAAA), (vec![0x20], 15), "until the family of the nearer region is back");
    assert_eq!(last(&snapshot, rtype::HTTPS).0, [0x20], "no hint has a dead address");
    assert_eq!(last(&snapshot, rtype::TXT).0, b"a", "the region is up");
    assert_ne!(snapshot.service_generation(CHAT), whole.service_generation(CHAT));
    assert_eq!(snapshot.service_generation(OPEN), whole.service_generation(OPEN), "the service didn't change");

    // If no region has the family up, the usual records are answered, although `when_all_down` is `fail`.
    let none = of([&alive; 3], [&dead; 3]);
    let snapshot = Snapshot::new(Arc::clone(&world), none, NOW, Some(&snapshot));
    assert_eq!(last(&snapshot, rtype::AAAA).0, [0x10]);
    assert_eq!(last(&snapshot, rtype::HTTPS).0, [0x10]);
    let other = of([&dead, &alive, &dead], [&alive, &dead, &alive]);
    let snapshot = Snapshot::new(Arc::clone(&world), other, NOW, Some(&snapshot));
    assert_eq!(last(&snapshot, rtype::A).0, [10], "no region of the fence has IPv4");
    assert_eq!(last(&snapshot, rtype::AAAA).0, [0x10]);
    let neither = of([&dead, &alive, &alive], [&dead, &alive, &alive]);
    let snapshot = Snapshot::new(world, neither, NOW, Some(&snapshot));
    assert_eq!((last(&snapshot, rtype::A).0, last(&snapshot, rtype::AAAA).0), (vec![20], vec![0x20]));
}

#[test]
fn denied_answers_are_served_where_nothing_is_offered() {
    let snapshot = Snapshot::new(world(RULES), health(&up(3)), NOW, None);
    assert_eq!(a(&snapshot, OPEN, subnet("198.51.100.0", 24)).0, addresses(&["192.0.2.99"]));
    assert_eq!(
        a(&snapshot, OPEN, subnet("198.51.100.0", 24)).1,
        33,
        "the longest TTL, because only new rules change the answer"
    );
}

#[test]
fn denied_answers_have_the_longest_ttl_though_a_region_is_about_to_return() {
    let rules = RULES.replace(
        r#""when_all_down": "fail" }"#,
        r#""when_all_down": "fail", "denied_answers": { "A": ["192.0.2.98"], "TXT": ["denied"] } }"#,
    );
    let mut down = up(1);
    down.machine.record(false);
    let mut all_down = health(&down);
    all_down.regions[2] =
        RegionHealth { probed: Status::Down, time_to_up: Some(Millis(7000)), ..RegionHealth::default() };
    let snapshot = Snapshot::new(world(&rules), all_down, NOW, None);
    assert_eq!(a(&snapshot, CHAT, from("198.51.100.1")), (addresses(&["192.0.2.98"]), 60, 0));
}

#[test]
fn services_that_rank_alike_share_their_classes() {
    let twin = r#""twin": { "hosts": ["twin.ai.example.com"], "pattern": "active-active", "regions": ["nyc"],
                  "residency": [ { "clients": ["us"], "process_in": ["us"] } ] },
        "open": {"#;
    let world = world(&RULES.replace(r#""open": {"#, twin));
    let classes = |service| world.classes_of(ServiceIndex(service)).unwrap();
    assert!(std::ptr::eq(classes(1), classes(2)) && !std::ptr::eq(classes(0), classes(1)));
}

#[test]
fn a_snapshot_keeps_what_a_change_of_health_left_alone() {
    let world = world(RULES);
    let first = Snapshot::new(Arc::clone(&world), health(&up(3)), NOW, None);
    let later = NOW.after(Millis(5000));
    let same = Snapshot::new(Arc::clone(&world), health(&up(3)), later, Some(&first));
    assert_eq!(same.service_generation(CHAT), first.service_generation(CHAT));

    let mut failing = up(3);
    failing.machine.record(false);
    let failing = Snapshot::new(Arc::clone(&world), health(&failing), later, Some(&same));
    assert_eq!(a(&failing, CHAT, from("198.51.100.1")).1, 10, "two more failures would bring the region down");
    assert_ne!(failing.service_generation(CHAT), same.service_generation(CHAT));
    assert_eq!(failing.service_generation(OPEN), same.service_generation(OPEN));
    assert_eq!(failing.generation(), first.generation(), "rules, zones and geography are the same");
}

#[test]
fn ttls_count_down_to_the_end_of_an_override() {
    let world = world(RULES);
    let mut forced = health(&up(3));
    let until = NOW.after(Millis(90_000));
    forced.regions[0].forced = Some(Forced { status: Status::Down, until, reason: "drill".into() });
    let at = |now, before: Option<&Snapshot>| Snapshot::new(Arc::clone(&world), forced.clone(), now, before);
    let early = at(NOW, None);
    assert_eq!(a(&early, CHAT, from("198.51.100.1")), (addresses(&["192.0.2.20"]), 60, 0));
    assert_eq!(early.next_change(NOW), Some(NOW.after(Millis(30_000))), "when the TTL begins to shrink");
    let late = at(NOW.after(Millis(70_000)), Some(&early));
    assert_eq!(a(&late, CHAT, from("198.51.100.1")).1, 20);
    assert_eq!(late.next_change(NOW.after(Millis(70_000))), Some(NOW.after(Millis(71_000))));
    let after = at(until, Some(&late));
    assert_eq!(a(&after, CHAT, from("198.51.100.1")).0.len(), 2, "Frankfurt again");
    assert_eq!(after.next_change(until), None);
}

#[test]
fn hosts_below_a_cut_are_refused_and_hosts_elsewhere_warned_of() {
    let rules = compile_rules(RULES.as_bytes().to_vec(), "rules.json").unwrap();
    let refused =
        World::build(Arc::clone(&rules), sources("chat NS ns.example.net.\n"), Arc::default(), places(), NOW, None)
            .unwrap_err();
    assert_eq!(refused.len(), 1);
    assert!(refused[0].to_string().contains("chat.ai.example.com"), "{}", refused[0]);

    let world = World::build(rules, sources(""), Arc::default(), places(), NOW, None).unwrap();
    let [warning] = world.warnings() else { panic!("{:?}", world.warnings()) };
    assert!(warning.starts_with("/services/chat/hosts: elsewhere.example.org"), "{warning}");
    assert!(
        world
            .zones()
            .find("chat.ai.example.com".parse::<crate::protocol::name::Name>().unwrap().as_ref(), rtype::A)
            .is_some()
    );
}

#[test]
fn the_health_report_tells_what_counts_beside_what_was_probed() {
    let mut health = health(&up(3));
    let forced = Forced { status: Status::Down, until: NOW.after(Millis(60_000)), reason: "drill".into() };
    health.regions[0].forced = Some(forced.clone());
    health.overrides.insert(Overridden::parse("fra").unwrap(), forced);
    let snapshot = Snapshot::new(world(RULES), health, NOW, None);
    let report = snapshot.health_report("ns1", NOW.after(Millis(1500)));
    assert_eq!((report.node.as_str(), report.revision, report.rules_sha256.len()), ("ns1", 7, 64));
    let fra = &report.regions["fra"];
    assert_eq!((fra.status, fra.probed, fra.stale), (Status::Down, Status::Up, false));
    assert_eq!((fra.age_ms, fra.interval_ms), (1500, 5000));
    assert_eq!(fra.forced.as_ref().map(|forced| forced.reason.as_str()), Some("drill"));
    assert_eq!(report.regions["par"].status, Status::Unknown);
    let later = snapshot.health_report("ns1", NOW.after(Millis(60_000)));
    let fra = &later.regions["fra"];
    assert!(fra.stale && fra.forced.is_none() && fra.status == Status::Up, "{fra:?}");
}

#[test]
fn rfc7871_7_1_2_source_0_and_no_option_are_located_by_transport() {
    let snapshot = Snapshot::new(world(RULES), health(&up(3)), NOW, None);
    let nyc = addresses(&["192.0.2.30"]);
    assert_eq!(a(&snapshot, CHAT, subnet("0.0.0.0", 0)), (nyc.clone(), 60, 0));
    assert_eq!(a(&snapshot, CHAT, from("203.0.113.9")), (nyc, 60, 0));
}

#[test]
fn what_rules_say_of_geography_is_compiled_again_only_if_it_changed() {
    let before = world(RULES);
    let next = |from: &str, to: &str| {
        assert!(RULES.contains(from));
        let rules = compile_rules(RULES.replace(from, to).into_bytes(), "rules.json").unwrap();
        World::build(rules, sources(""), Arc::default(), Arc::clone(before.places()), NOW, Some(&before)).unwrap()
    };
    let shares = |next: &World| std::ptr::eq(next.classes_of(CHAT).unwrap(), before.classes_of(CHAT).unwrap());
    assert!(shares(&next(r#""max": 33"#, r#""max": 34"#)));
    assert!(shares(&next("192.0.2.30", "192.0.2.31")));
    assert!(!shares(&next(r#""countries": ["FR"]"#, r#""countries": ["IT"]"#)), "another centre of the region");
    assert!(!shares(&next(r#""countries": ["US"] }"#, r#""countries": ["US", "CA"] }"#)), "another jurisdiction");
    assert!(!shares(&next(r#""when_all_down": "fail""#, r#""when_all_down": "serve-fence""#)), "another ranking");
    let networks = r#""networks": [{ "prefix": "192.0.2.0/24", "country": "DE" }], "services": {"#;
    assert!(!shares(&next(r#""services": {"#, networks)), "another network");
}

#[test]
fn an_alias_that_a_wildcard_of_its_own_service_stands_for_is_warned_of() {
    let rules = RULES.replace("\"A\": [\"192.0.2.99\"], \"TXT\": [\"denied\"]", "\"CNAME\": [\"x.pool.example.org\"]");
    let rules = rules.replace(", \"elsewhere.example.org\"", "").replace("open.ai.example.com", "*.ai.example.com");
    let answers = r#""answers": { "A": ["192.0.2.30"], "TXT": ["nyc"] }"#;
    let rules = rules.replace(answers, r#""answers": { "CNAME": ["pool.ai.example.com"] }"#);
    let rules = rules.replace(r#"["fra", "par", "nyc"]"#, r#"["fra", "par"]"#);
    let rules = compile_rules(rules.into_bytes(), "rules.json").unwrap();
    let build =
        |zone: &str| World::build(Arc::clone(&rules), sources(zone), Arc::default(), places(), NOW, None).unwrap();
    let world = build("");
    let [warning] = world.warnings() else { panic!("{:?}", world.warnings()) };
    assert!(
        warning.starts_with("/services/open/hosts: *.ai.example.com. stands for pool.ai.example.com. too"),
        "{warning}"
    );
    assert!(build("pool A 192.0.2.1\n").warnings().is_empty(), "the zone has the name");
}

#[test]
fn records_that_another_zone_of_the_node_hides_are_told() {
    let rules = compile_rules(RULES.replace(", \"elsewhere.example.org\"", "").into_bytes(), "rules.json").unwrap();
    let reported = |delegation: &str| {
        let below = crate::protocol::name::Name::parse(b"sub.ai.example.com.", None).unwrap();
        let text = "$TTL 1h\n@ SOA ns.test. h.test. 1 2 3 4 60\n@ NS ns.sub.ai.example.com.\nns A 192.0.2.1\n";
        let records =
            crate::zone::file::parse(text.as_bytes(), "sub.zone", &below, &mut |_| Err("no files".into())).unwrap();
        let all: Vec<_> =
            sources(delegation).iter().cloned().chain([super::ZoneSource { origin: below, records }]).collect();
        let world = World::build(Arc::clone(&rules), all.into(), Arc::default(), places(), NOW, None).unwrap();
        world.warnings().to_vec()
    };
    let delegated = "sub NS ns.sub\nns.sub A 192.0.2.1\n";
    assert_eq!(reported(delegated), [""; 0], "the records that delegate the zone belong there");
    let hidden = reported(&format!("{delegated}sub MX 10 mail\nwww.sub A 192.0.2.2\n"));
    let [one] = &hidden[..] else { panic!("{hidden:?}") };
    assert!(one.contains("sub.ai.example.com. and 1 more records of ai.example.com. are never served"), "{one}");
    let apart = reported("");
    assert!(apart.len() == 1 && apart[0].contains("isn't delegated by ai.example.com."), "{apart:?}");
}

/// The edge finds the service of a host in the rules, DNS finds it in the zone. For the hosts of the rules both must
/// agree.
#[test]
fn dns_and_edge_agree_whose_a_host_is() {
    use bailiwick_rules::rules::SteeredHost;
    use bailiwick_rules::testing::Random;
    let mut random = Random::new(4_592);
    let labels = ["a", "b", "*", "C"];
    let name = |random: &mut Random| {
        let count = random.below(4);
        let labels: Vec<&str> = (0..count).map(|_| *random.pick(&labels)).collect();
        labels.into_iter().chain(["ai.example.com"]).collect::<Vec<_>>().join(".")
    };
    let (mut steered, mut by_wildcard) = (0, 0);
    for _ in 0..300 {
        let mut hosts: Vec<String> = (0..6).map(|_| name(&mut random)).collect();
        hosts.retain(|host| SteeredHost::parse(host).is_some());
        hosts.iter_mut().for_each(|host| *host = host.to_lowercase());
        hosts.sort();
        hosts.dedup();
        let (some, others) = hosts.split_at(hosts.len() / 2);
        if some.is_empty() {
            continue;
        }
        let rules = RULES.replace(r#"["chat.ai.example.com", "elsewhere.example.org"]"#, &format!("{some:?}"));
        let rules = rules.replace(r#"["open.ai.example.com"]"#, &format!("{others:?}"));
        let world = world(&rules);
        let table = &world.rules().table;
        for _ in 0..40 {
            let host = name(&mut random);
            let asked: crate::protocol::name::Name = host.parse().unwrap();
            let zone = world.zones().find(asked.as_ref(), rtype::A).unwrap();
            let (node, made) = match zone.locate(asked.as_ref()) {
                crate::zone::LookupResult::Exact(node) => (Some(node), false),
                crate::zone::LookupResult::Wildcard(node) => (Some(node), true),
                _ => (None, false),
            };
            let by_dns = node.and_then(|node| zone.steered(node)).map(|owner| owner.service);
            assert_eq!(table.service_of_host(&host), by_dns, "{host} of {some:?} and {others:?}");
            steered += u32::from(by_dns.is_some());
            by_wildcard += u32::from(by_dns.is_some() && made);
        }
    }
    assert!(steered > 1_000 && by_wildcard > 500, "{steered} steered, {by_wildcard} by a wildcard");
}
