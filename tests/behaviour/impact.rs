//! `bailiwick rules diff`, compared with real servers: what it says changes is what clients are answered before and
//! after, place by place.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use bailiwick_rules::testing::Random;
use bailiwick_tests::dns::{Reply, question};
use bailiwick_tests::geo::{BRITISH, GERMAN, NOWHERE, database};
use bailiwick_tests::node::{Node, Setup, TOKEN, bailiwick};
use hickory_proto::op::ResponseCode;
use maxminddb::{PathElement, Reader};
use serde_json::{Value, json};

use crate::fixture::ZONE;

/// How many random clients ask.
const CLIENTS: usize = 10_000;
/// A network that both documents name, and one that only the new one does.
const NAMED: [(&str, u32); 2] = [("198.51.100.0/25", 0xc633_6400), ("81.128.0.0/16", 0x5180_0000)];
const REGIONS: [(&str, &str, u8); 5] =
    [("de", "DE", 10), ("fr", "FR", 20), ("gb", "GB", 30), ("us", "US", 40), ("jp", "JP", 50)];
/// How many queries are under way at once.
const WINDOW: usize = 50;
/// The region that is lost in the second half.
const LOST: &str = "fr";

fn rules(revision: u64) -> Value {
    let region = |(name, country, number): (&str, &str, u8)| {
        (name.to_owned(), json!({ "countries": [country], "answers": { "A": [format!("192.0.2.{number}")] } }))
    };
    let regions: serde_json::Map<_, _> = REGIONS.into_iter().map(region).collect();
    let service = |host: &str, pattern: &str| {
        json!({ "hosts": [format!("{host}.ai.example.com")], "pattern": pattern, "when_all_down": "fail",
            "regions": ["de", "fr", "gb", "us", "jp"],
            "residency": [{ "clients": ["eu"], "process_in": ["eu"] },
                          { "clients": ["uk"], "process_in": ["uk", "eu"] },
                          { "clients": ["us"], "process_in": ["us"] }, { "clients": ["*"], "process_in": ["*"] }] })
    };
    json!({ "version": 1, "revision": revision,
        "jurisdictions": { "eu": { "include": ["EU"] }, "uk": { "countries": ["GB"] }, "us": { "countries": ["US"] } },
        "regions": regions,
        "services": { "near": service("near", "active-active"), "first": service("first", "active-passive"),
                      "home": service("home", "regional-sharding") },
        "networks": [{ "prefix": NAMED[0].0, "country": "DE" }] })
}

/// The same with changes of every kind.
fn changed() -> Value {
    let mut rules = rules(2);
    rules["jurisdictions"]["eu"]["countries"] = json!(["CH"]);
    rules["services"]["near"]["regions"] = json!(["fr", "gb", "us"]);
    rules["services"]["first"]["regions"] = json!(["jp", "fr", "de", "gb", "us"]);
    rules["services"]["first"]["residency"][1]["process_in"] = json!([["uk", "eu"], ["us"]]);
    rules["services"]["home"]["residency"].as_array_mut().unwrap().pop();
    rules["networks"].as_array_mut().unwrap().push(json!({ "prefix": NAMED[1].0, "country": "FR" }));
    rules
}

/// A client with what the comparison calls it.
struct Client {
    address: IpAddr,
    country: Option<String>,
    network: Option<&'static str>,
}

fn clients() -> Vec<Client> {
    let reader = Reader::open_readfile(database()).expect("the database");
    let random = &mut Random::new(16);
    #[allow(clippy::cast_possible_truncation)] // random bits
    let address = |n: usize| -> (IpAddr, Option<&'static str>) {
        let bits = random.bits();
        match n % 10 {
            0 => {
                let (prefix, first) = NAMED[n / 10 % 2];
                let inside = if first == NAMED[0].1 { bits as u32 & 0x7f } else { bits as u32 & 0xffff };
                (Ipv4Addr::from_bits(first | inside).into(), Some(prefix))
            }
            1 | 2 => {
                let block: u128 = if bits & 1 == 0 { 0x2a00 } else { 0x2600 };
                (Ipv6Addr::from_bits(block << 112 | u128::from(bits >> 20) << 68 | 1).into(), None)
            }
            _ => {
                let bits = bits as u32;
                let named =
                    NAMED.iter().zip([25, 16]).find(|((_, first), length)| (bits ^ first) >> (32 - length) == 0);
                (Ipv4Addr::from_bits(bits).into(), named.map(|((prefix, _), _)| *prefix))
            }
        }
    };
    let placed = |(address, network): (IpAddr, Option<&'static str>)| {
        let found = reader.lookup(address).expect("a lookup");
        let country = found.decode_path(&[PathElement::Key("country_code")]).expect("a code");
        let country = if network == Some(NAMED[0].0) { Some("DE".to_owned()) } else { country };
        Client { address, country, network }
    };
    (0..CLIENTS).map(address).map(placed).collect()
}

/// The regions whose addresses a server answers, client by client, each asked for one service.
fn asked(node: &Node, questions: &[(&'static str, IpAddr)]) -> Vec<Option<String>> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(node.dns).expect("a route");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let mut answers = Vec::new();
    for window in questions.chunks(WINDOW) {
        for (id, (service, client)) in (0_u16..).zip(window) {
            let whole = if client.is_ipv4() { 32 } else { 128 };
            let mut wire = question(&format!("{service}.ai.example.com"), "A").from_prefix(*client, whole).to_wire();
            wire[..2].copy_from_slice(&id.to_be_bytes());
            socket.send(&wire).expect("sent");
        }
        let mut found = vec![None; window.len()];
        for _ in window {
            let mut buffer = [0; 2048];
            let length = socket.recv(&mut buffer).expect("an answer");
            let id = usize::from(u16::from_be_bytes([buffer[0], buffer[1]]));
            found[id] = Some(region_of(&Reply::read(&buffer[..length])));
        }
        answers.extend(found.into_iter().map(|answer| answer.expect("an answer for each")));
    }
    answers
}

fn region_of(reply: &Reply) -> Option<String> {
    let data = reply.data();
    let region = REGIONS.iter().find(|(_, _, number)| data == [format!("192.0.2.{number}")]);
    assert!(region.is_some() || reply.rcode() == ResponseCode::ServFail, "{reply:?}");
    region.map(|(name, ..)| (*name).to_owned())
}

/// Where the comparison says that a client goes from and to, if that differs.
type Told = BTreeMap<(String, Option<String>, Option<String>), (Option<String>, Option<String>)>;

/// What is said of every client: with all regions up, or beyond that with this region down.
fn told(impact: &Value, down: Option<&str>) -> Told {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut told = Told::new();
    for service in impact["services"].as_array().unwrap() {
        let name = service["service"].as_str().unwrap();
        let key = if down.is_some() { "moves_when_down" } else { "moves" };
        for way in service[key].as_array().unwrap() {
            if down.is_some() && text(&way["down"]).as_deref() != down {
                continue;
            }
            for one in way["clients"].as_array().unwrap() {
                let client = (name.to_owned(), text(&one["country"]), text(&one["network"]));
                let before = told.insert(client, (text(&way["from"]), text(&way["to"])));
                assert_eq!(before, None, "a client goes one way: {one}");
            }
        }
    }
    told
}

#[test]
fn what_is_said_to_change_is_what_clients_are_answered_before_and_after() {
    let (before, after) = (Setup::new(&rules(1), ZONE).start(), Setup::new(&changed(), ZONE).start());
    after.setup.write("old.json", &rules(1).to_string());
    let path = |name: &str| after.setup.path(name).display().to_string();
    let (new, old, config) = (path("rules.json"), path("old.json"), path("bailiwick.toml"));
    let output = bailiwick(["rules", "diff", &new, "--against", &old, "--config", &config, "--json"]);
    assert!(output.status.success(), "{output:?}");
    let impact: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let (all_up, one_down) = (told(&impact, None), told(&impact, Some(LOST)));
    assert!(all_up.len() > 100 && one_down.len() > 20, "{} and {}", all_up.len(), one_down.len());

    let clients = clients();
    let services = ["near", "first", "home"];
    let compare = |down: Option<&str>| {
        let mut differ = 0;
        let of = |(client, service): (&Client, &'static str)| (service, client.address);
        let questions: Vec<_> = clients.iter().zip(services.into_iter().cycle()).map(of).collect();
        let answers = asked(&before, &questions).into_iter().zip(asked(&after, &questions));
        for ((client, (service, _)), answers) in clients.iter().zip(&questions).zip(answers) {
            let answers = [answers.0, answers.1];
            let key = ((*service).to_owned(), client.country.clone(), client.network.map(str::to_owned));
            let special = if down.is_some() { one_down.get(&key) } else { None };
            let usual =
                all_up.get(&key).filter(|(from, to)| down.is_none() || ![from, to].contains(&&down.map(str::to_owned)));
            let is_told = special.or(usual).is_some_and(|(from, to)| (from, to) == (&answers[0], &answers[1]));
            differ += usize::from(answers[0] != answers[1]);
            assert_eq!(
                is_told,
                answers[0] != answers[1],
                "{service}, {} {key:?}, {down:?}: {answers:?}",
                client.address
            );
        }
        differ
    };
    let differ = compare(None);
    let override_ = json!({ "region": LOST, "status": "down", "until": "2099-01-01T00:00:00Z", "reason": "drill" });
    for node in [&before, &after] {
        let (status, body) = node.call("POST", "/v1/overrides", Some(TOKEN), Some(&override_));
        assert_eq!(status, 200, "{body}");
    }
    let when_down = compare(Some(LOST));
    println!("impact: {CLIENTS} clients, {differ} of them differ, {when_down} without {LOST}");
    assert!(differ > 500 && when_down > 500, "{differ}, {when_down}");

    weights_are_parts_of_the_address_space(&impact, &clients);
}

/// The parts of IPv4 addresses are about those of random clients.
fn weights_are_parts_of_the_address_space(impact: &Value, clients: &[Client]) {
    let random = || clients.iter().skip(3).filter(|one| one.address.is_ipv4() && one.network.is_none());
    let placed = random().filter(|one| one.country.is_some()).count();
    for service in impact["services"].as_array().unwrap() {
        let names: Vec<&str> = service["moves"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|way| way["clients"].as_array().unwrap())
            .filter(|one| one["network"].is_null())
            .filter_map(|one| one["country"].as_str())
            .collect();
        let seen = random().filter(|one| one.country.as_deref().is_some_and(|code| names.contains(&code))).count();
        let sum = |key: &str| service[key]["ipv4"].as_f64().unwrap();
        let told = (sum("moved") + sum("denied") + sum("admitted")) / sum("total");
        let seen = seen as f64 / placed as f64;
        assert!((told - seen).abs() < 0.03, "{}: {told} of addresses, {seen} of clients", service["service"]);
    }
}

#[test]
fn the_node_is_asked_for_the_document_in_service_and_wrong_use_is_told() {
    let node = Setup::new(&rules(1), ZONE).start();
    node.setup.write("new.json", &changed().to_string());
    let path = |name: &str| node.setup.path(name).display().to_string();
    let api = format!("http://{}", node.api);
    let (new, old, config) = (path("new.json"), path("rules.json"), path("bailiwick.toml"));
    let diff = |more: &[&str]| {
        let words = ["rules", "diff", &new, "--config", &config, "--api", &api];
        bailiwick(words.into_iter().chain(more.iter().copied()))
    };
    let output = diff(&[]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text.starts_with("rules 1 → 2\n\nWIDER FENCES: "), "{text}");
    for wanted in ["near: ", "de → fr", "no region left if ", "publish it with --tighten", "Converges within "] {
        assert!(text.contains(wanted), "{wanted} is not in\n{text}");
    }
    let markdown = String::from_utf8_lossy(&diff(&["--markdown"]).stdout).into_owned();
    assert!(markdown.contains("| service | clients | from | to | queries | IPv4 | IPv6 /48s |"), "{markdown}");
    let nothing = diff(&["--against", &new]);
    assert!(String::from_utf8_lossy(&nothing.stdout).contains("Nobody goes elsewhere"), "{nothing:?}");

    let gated = |more: &[&str]| diff(&[&["--against", &old, "--max-moved", "5%", "--min-regions", "2"], more].concat());
    let shut = gated(&[]);
    let text = String::from_utf8_lossy(&shut.stdout).into_owned();
    assert_eq!(shut.status.code(), Some(1), "{text}");
    assert!(text.contains("Gate shut: near: ") && text.contains("or type --accept-moved "), "{text}");
    let shut = gated(&["--accept-moved", "100%", "--accept-regions", "1"]);
    let text = String::from_utf8_lossy(&shut.stdout).into_owned();
    assert!(text.contains("home: a fence gets smaller and keeps 0 regions"), "an emptied one counts, too: {text}");
    let open = gated(&["--accept-moved", "100%", "--accept-regions", "0"]);
    assert_eq!(open.status.code(), Some(0), "{open:?}");
    let json: Value = serde_json::from_slice(&gated(&["--json"]).stdout).expect("JSON");
    assert_eq!((&json["widens"], &json["shut"][0]["gate"]), (&true.into(), &"max_moved".into()), "{json:#}");

    assert_eq!(diff(&["--json", "--markdown"]).status.code(), Some(2));
    assert_eq!(bailiwick(["rules", "diff", "-", "--against", "-"]).status.code(), Some(2));
    let absent = diff(&["--against", "/nowhere.json"]);
    assert_eq!(absent.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&absent.stderr).contains("/nowhere.json: can't be read"), "{absent:?}");
}

#[test]
fn queries_are_counted_by_country_region_and_source_and_weigh_what_changes() {
    let node = Setup::new(&rules(1), ZONE).start();
    node.setup.write("new.json", &changed().to_string());
    let ask = |client: &str, times: usize| {
        (0..times).for_each(|_| _ = question("near.ai.example.com", "A").from(client).ask(node.dns));
    };
    ask(GERMAN, 60); // all but the first from the memo
    ask(BRITISH, 30);
    ask(NOWHERE, 5);
    (0..3).for_each(|_| _ = question("near.ai.example.com", "A").ask(node.dns));
    (0..2).for_each(|_| _ = question("near.ai.example.com", "A").from(GERMAN).ask_by_tcp(node.dns));
    let _ = question("home.ai.example.com", "A").from(GERMAN).ask(node.dns);
    let told =
        |query: &str| -> Value { serde_json::from_str(&node.get(&format!("/v1/traffic{query}"))).expect("JSON") };
    let rows = |told: &Value| -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let row = |one: &Value| {
            let [service, country, region, source] =
                ["service", "country", "region", "source"].map(|key| text(&one[key]));
            format!("{service} {country} {region} {source} {}", one["queries"])
        };
        let mut rows: Vec<String> = told["counts"].as_array().expect("counts").iter().map(row).collect();
        rows.sort();
        rows
    };
    let near = ["near - - ecs 5", "near - - resolver 3", "near DE de ecs 62", "near GB gb ecs 30"];
    assert_eq!(rows(&told("?service=near&since=1h")), near);
    assert_eq!(rows(&told("")), [&["home DE de ecs 1"][..], &near].concat());
    let apart = told("?buckets=true");
    assert!(apart["counts"][0]["seconds"] == 300 && apart["counts"][0]["from"].is_string(), "{apart}");
    for (wrong, message) in
        [("?since=1y", "no duration"), ("?service=nera", "did you mean"), ("?when=now", "since=24h")]
    {
        let (status, body) = node.call("GET", &format!("/v1/traffic{wrong}"), None, None);
        assert!(status == 400 && body.contains(message), "{wrong}: {status} {body}");
    }

    let path = |name: &str| node.setup.path(name).display().to_string();
    let (new, config, api) = (path("new.json"), path("bailiwick.toml"), format!("http://{}", node.api));
    let output = bailiwick(["rules", "diff", &new, "--config", &config, "--api", &api]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("62.0 % of queries (IPv4 ") && text.contains("de → fr"), "{text}");
    assert!(!text.contains("No queries were counted"), "{text}");
}
