//! Health checks of what stands behind names: other names than the URL's, private authorities, and the two families of
//! addresses.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use bailiwick_tests::dns::question;
use bailiwick_tests::geo::GERMAN;
use bailiwick_tests::node::{Node, Setup, bailiwick, binary};
use bailiwick_tests::stand_in::StandIn;
use bailiwick_tests::tls_stand_in::{AskedFor, Authority, TlsStandIn};
use bailiwick_tests::wait;
use serde_json::{Value, json};

use crate::fixture::{World, ZONE};

const NAME: &str = "gpu.example.net";
/// A year in which certificates are valid.
const LATER: i32 = 2100;

/// A node whose first region is watched by this monitor.
fn setup(world: &World, mut monitor: Value) -> Setup {
    let mut rules = world.rules(1);
    let pace = json!({ "interval": "200ms", "timeout": "2s", "up_thresh": 1, "ok_thresh": 1, "down_thresh": 1 });
    for (key, value) in pace.as_object().expect("an object") {
        monitor[key] = value.clone();
    }
    rules["regions"]["eu-frankfurt"]["monitor"] = monitor;
    Setup::new(&rules, ZONE)
}

fn of_node(node: &Node, path: &str) -> Value {
    serde_json::from_str(&node.get(path)).expect("JSON")
}

/// What `/v1/status` says of the region.
fn reported(node: &Node) -> Value {
    let status = of_node(node, "/v1/status");
    let regions = status["regions"].as_array().expect("regions");
    regions.iter().find(|one| one["region"] == "eu-frankfurt").expect("the region").clone()
}

fn failure(node: &Node) -> String {
    reported(node)["failure"].as_str().unwrap_or_default().to_owned()
}

fn status(node: &Node) -> Value {
    of_node(node, "/v1/health")["regions"]["eu-frankfurt"]["status"].clone()
}

fn german(node: &Node, rtype: &str) -> Vec<String> {
    question("chat.ai.example.com", rtype).from(GERMAN).ask(node.dns).data()
}

#[test]
fn an_address_is_asked_for_a_name_by_a_private_authority() {
    let (world, authority) = (World::start(), Authority::new("ours"));
    let front = TlsStandIn::start(NAME, NAME, authority.issue(NAME, LATER));
    let setup = setup(&world, json!({ "type": "http", "url": front.url(), "host": NAME, "ca_file": "ca.pem" }));
    setup.write("ca.pem", &authority.pem);
    let node = setup.start();
    assert_eq!(german(&node, "A"), ["192.0.2.10"]);
    assert_eq!(status(&node), "up", "{}", node.log());
    let asked = AskedFor { sni: Some(NAME.into()), host: Some(NAME.into()) };
    assert!(!front.asked().is_empty() && front.asked().iter().all(|one| *one == asked), "{:?}", front.asked());
    assert!(reported(&node).get("families").is_none(), "families are not reported if they aren't distinguished");
}

#[test]
fn the_server_name_of_tls_may_be_another_than_host() {
    let (world, authority) = (World::start(), Authority::new("ours"));
    let front =
        TlsStandIn::start("front.example.net", "gpu.example.net:8443", authority.issue("front.example.net", LATER));
    let monitor = json!({ "type": "http", "url": front.url(), "host": "gpu.example.net:8443",
        "sni": "front.example.net",
                          "ca_file": "ca.pem" });
    let setup = setup(&world, monitor);
    setup.write("ca.pem", &authority.pem);
    let node = setup.start();
    assert_eq!(status(&node), "up", "{}", failure(&node));

    // Without `host` the URL's is asked for, whatever the server name.
    let front = TlsStandIn::start("front.example.net", "none", authority.issue("front.example.net", LATER));
    let monitor = json!({ "type": "http", "url": front.url(), "sni": "front.example.net", "ca_file": "ca.pem" });
    let setup = self::setup(&world, monitor);
    setup.write("ca.pem", &authority.pem);
    let node = setup.start();
    let host = Some(front.address().to_string());
    assert_eq!(front.asked()[0], AskedFor { sni: Some("front.example.net".into()), host });
    assert!(failure(&node).contains("answered 421, expected 200"), "{}", failure(&node));
}

#[test]
fn errors_of_certificates_are_told_with_their_remedy() {
    let (world, authority, other) = (World::start(), Authority::new("ours"), Authority::new("theirs"));
    let year = 2020;
    for (issued, said) in [
        (authority.issue(NAME, year), vec!["the certificate for gpu.example.net expired at 2020-12-31", "renew it"]),
        (authority.issue("wrong.example", LATER), vec!["is for wrong.example, not for gpu.example.net", "\"sni\""]),
        (other.issue(NAME, LATER), vec!["the certificate for gpu.example.net is issued by no authority in ca.pem"]),
    ] {
        let front = TlsStandIn::start(NAME, NAME, issued);
        let setup = setup(&world, json!({ "type": "http", "url": front.url(), "host": NAME, "ca_file": "ca.pem" }));
        setup.write("ca.pem", &authority.pem);
        let node = setup.start();
        assert_eq!(status(&node), "down");
        assert_eq!(german(&node, "A"), ["192.0.2.20"]);
        let failure = failure(&node);
        assert!(said.iter().all(|part| failure.contains(part)), "{failure}");
        assert!(front.asked().is_empty(), "nothing was asked of whom isn't trusted");
    }
    // The system's authorities don't count beside those of the file, nor the file's for other monitors.
    let front = TlsStandIn::start(NAME, NAME, authority.issue(NAME, LATER));
    let node = setup(&world, json!({ "type": "http", "url": front.url(), "host": NAME })).start();
    assert!(failure(&node).contains("issued by no authority that this system trusts"), "{}", failure(&node));
}

#[test]
fn authorities_are_read_again_and_the_last_good_ones_stay() {
    let (world, old, new) = (World::start(), Authority::new("old"), Authority::new("new"));
    let front = TlsStandIn::start(NAME, NAME, new.issue(NAME, LATER));
    let node = setup(&world, json!({ "type": "http", "url": front.url(), "host": NAME, "ca_file": "ca.pem" })).start();
    let path = node.setup.path("ca.pem").display().to_string();
    let missing = failure(&node);
    assert!(
        missing.contains(&path) && missing.contains("can't be read") && missing.contains("mend the path"),
        "{missing}"
    );
    node.setup.write("ca.pem", &old.pem);
    wait::until_true("the file was read", || failure(&node).contains("no authority in ca.pem"));
    assert_eq!(status(&node), "down");
    node.setup.write("ca.pem", &format!("{}{}", old.pem, new.pem));
    wait::until_true("the new authority is trusted", || status(&node) == "up");
    node.setup.write("ca.pem", "-----BEGIN CERTIFICATE-----\n");
    node.tells(&format!("{path}:1: begins a certificate that doesn't end"));
    let before = front.asked().len();
    wait::until_true("it is asked further on", || front.asked().len() > before + 1);
    assert_eq!(status(&node), "up", "the last good file stays");
}

#[test]
fn a_redirect_is_followed_nowhere_with_a_private_authority() {
    let (world, authority) = (World::start(), Authority::new("ours"));
    let elsewhere = TlsStandIn::start(NAME, NAME, authority.issue(NAME, LATER));
    let to = format!("https://{NAME}:{}/", elsewhere.address().port());
    let front = TlsStandIn::redirecting(NAME, authority.issue(NAME, LATER), to);
    let setup = setup(&world, json!({ "type": "http", "url": front.url(), "host": NAME, "ca_file": "ca.pem" }));
    setup.write("ca.pem", &authority.pem);
    let node = setup.start();
    assert_eq!(failure(&node), "answered 302, expected 200");
    assert!(elsewhere.asked().is_empty());
}

#[test]
fn check_finds_what_is_wrong_with_authorities() {
    let world = World::start();
    let monitor = json!({ "type": "http", "url": "https://192.0.2.10/health", "host": NAME, "ca_file": "ca.pem" });
    let setup = setup(&world, monitor);
    let config = setup.path("bailiwick.toml").display().to_string();
    let check = || {
        let output = bailiwick(["check", "--config", config.as_str()]);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let path = setup.path("ca.pem").display().to_string();
    let (is_fine, said) = check();
    assert!(!is_fine && said.contains(&format!("{path}: can't be read")), "{said}");
    assert!(said.contains("(named by /regions/eu-frankfurt/monitor/ca_file)"), "{said}");
    let pem = Authority::new("ours").pem;
    setup.write("ca.pem", &format!("{pem}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"));
    let (is_fine, said) = check();
    let line = pem.lines().count() + 1;
    assert!(!is_fine && said.contains(&format!("{path}:{line}: holds what is no certificate here")), "{said}");
    setup.write("ca.pem", &pem);
    let (is_fine, said) = check();
    assert!(is_fine, "{said}");
}

/// A port that is free by both families, with what listens there by IPv4.
fn dual_port() -> Option<(TcpListener, SocketAddr)> {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).ok()?;
    (0..100).find_map(|_| {
        let ipv4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        let ipv6 = SocketAddr::from((Ipv6Addr::LOCALHOST, ipv4.local_addr().ok()?.port()));
        TcpListener::bind(ipv6).ok()?;
        Some((ipv4, ipv6))
    })
}

/// How to run a program that finds `gpu.test` at 127.0.0.1 and ::1; `None` where the machine forbids it.
fn with_hosts(setup: &Setup) -> Option<Command> {
    setup.write("hosts", "127.0.0.1 localhost gpu.test\n::1 gpu.test\n");
    let hosts = setup.path("hosts");
    let command = |options: &[&str], program: &Path| {
        let mut command = Command::new("unshare");
        let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        command.args(options).args(["--mount", "sh", "-c", script]).arg(&hosts).arg(program);
        command
    };
    let finds_both = |options: &&&[&str]| {
        let mut getent = command(options, Path::new("getent"));
        let output = getent.args(["ahosts", "gpu.test"]).stdin(Stdio::null()).stderr(Stdio::null()).output();
        output.is_ok_and(|output| {
            let found = String::from_utf8_lossy(&output.stdout).into_owned();
            found.contains("127.0.0.1") && found.contains("::1")
        })
    };
    let ways: [&[&str]; 2] = [&[], &["--map-root-user"]];
    ways.iter().find(finds_both).map(|options| command(options, binary()))
}

#[test]
fn a_dead_family_is_not_handed_out_and_the_other_one_is() {
    let Some((ipv4, ipv6)) = dual_port() else {
        println!("skipped: this machine has no IPv6");
        return;
    };
    let world = World::start();
    let port = ipv6.port();
    let setup = setup(&world, json!({ "type": "tcp", "address": format!("gpu.test:{port}"), "family": "both" }));
    let Some(command) = with_hosts(&setup) else {
        println!("skipped: this machine lets nobody have hosts of one's own");
        return;
    };
    let node = setup.start_by(command);
    let both = || (german(&node, "A"), german(&node, "AAAA"));
    let (near, far) = (("192.0.2.10", "2001:db8::10"), ("192.0.2.20", "2001:db8::20"));
    let are = |a: &str, aaaa: &str| both() == (vec![a.to_owned()], vec![aaaa.to_owned()]);
    assert!(are(near.0, far.1), "{:?} {}", both(), node.log());
    let region = || of_node(&node, "/v1/health")["regions"]["eu-frankfurt"].clone();
    assert_eq!(region()["status"], "up", "the edge may use it by IPv4");
    assert_eq!(region()["families"], json!({ "ipv4": "up", "ipv6": "down" }));
    let explained = of_node(&node, &format!("/v1/explain?service=chat&client={GERMAN}"));
    assert_eq!(explained["by_type"], json!({ "A": "eu-frankfurt", "AAAA": "eu-paris" }), "{explained}");
    assert_eq!(reported(&node)["why"], "IPv4: probes succeed, IPv6: probes fail");
    assert!(failure(&node).starts_with(&format!("IPv6: [::1]:{port}: ")), "{}", failure(&node));
    let metrics = node.get("/metrics");
    let labels = "region=\"eu-frankfurt\",endpoint=\"\",family";
    for sample in [
        format!("bailiwick_monitor_family_status{{{labels}=\"ipv6\",status=\"down\"}} 1"),
        format!("bailiwick_monitor_family_status{{{labels}=\"ipv4\",status=\"up\"}} 1"),
        format!("bailiwick_monitor_probes_total{{{labels}=\"ipv4\",result=\"passed\"}} "),
        format!("bailiwick_monitor_since_seconds{{{labels}=\"ipv6\"}} "),
    ] {
        assert!(metrics.contains(&sample), "{sample} is not in\n{metrics}");
    }

    let listening = TcpListener::bind(ipv6).expect("the port is still free");
    wait::until_true("both families are handed out", || are(near.0, near.1));
    assert!(of_node(&node, &format!("/v1/explain?service=chat&client={GERMAN}")).get("by_type").is_none());
    drop(ipv4);
    wait::until_true("the other family is withheld", || are(far.0, near.1));
    assert_eq!(region()["status"], "up", "the edge may use it by IPv6");
    drop(listening);
    wait::until_true("both are withheld", || are(far.0, far.1));
    assert_eq!(region()["status"], "down");
}

#[test]
fn one_family_alone_may_be_watched() {
    let Some((ipv4, ipv6)) = dual_port() else {
        println!("skipped: this machine has no IPv6");
        return;
    };
    drop(ipv4);
    let world = World::start();
    let _listening = TcpListener::bind(ipv6).expect("the port is still free");
    for (family, expected) in [("any", "up"), ("ipv6", "up"), ("ipv4", "down")] {
        let address = format!("gpu.test:{}", ipv6.port());
        let setup = setup(&world, json!({ "type": "tcp", "address": address, "family": family }));
        let Some(command) = with_hosts(&setup) else {
            println!("skipped: this machine lets nobody have hosts of one's own");
            return;
        };
        let node = setup.start_by(command);
        assert_eq!(status(&node), expected, "{family}: {}", failure(&node));
    }
}

#[test]
fn http_goes_by_families_too() {
    let Some((ipv4, ipv6)) = dual_port() else {
        println!("skipped: this machine has no IPv6");
        return;
    };
    let (world, live) = (World::start(), StandIn::start());
    drop((ipv4, ipv6));
    // By IPv4 it answers; by IPv6 nobody listens at that port.
    let url = format!("http://gpu.test:{}/health", live.address().port());
    let setup = setup(&world, json!({ "type": "http", "url": url, "family": "both" }));
    let Some(command) = with_hosts(&setup) else {
        println!("skipped: this machine lets nobody have hosts of one's own");
        return;
    };
    let node = setup.start_by(command);
    assert_eq!((german(&node, "A"), german(&node, "AAAA")), (vec!["192.0.2.10".into()], vec!["2001:db8::20".into()]));
    live.fall_ill();
    wait::until_true("neither family is handed out", || german(&node, "A") == ["192.0.2.20"]);
    let why = failure(&node);
    assert!(why.contains("127.0.0.1:") || why.contains("[::1]:"), "{why}");
}
