//! A new process takes the place of one that serves, and no query is lost.

use std::process::Command;
use std::sync::atomic::Ordering;

use bailiwick_tests::dns::question;
use bailiwick_tests::load::Load;
use bailiwick_tests::net::free_port;
use bailiwick_tests::node::{Setup, TOKEN, bailiwick, binary};
use bailiwick_tests::process::run;
use bailiwick_tests::wait;
use hickory_proto::op::ResponseCode;
use serde_json::{Value, json};

use crate::fixture::{World, ZONE};

#[test]
fn takeovers_under_load_lose_no_query() {
    let world = World::start();
    let mut node = Setup::new(&world.rules(1), ZONE).start();
    let (dns, api) = (node.dns, node.api);
    let load = Load::start(dns, "chat.ai.example.com", 2);
    for number in 1..=3 {
        wait::until_true("queries are asked", || load.counts.asked() > 1000 * number);
        node.take_over();
        assert_eq!((node.dns, node.api), (dns, api), "the same sockets");
    }
    let asked = load.counts.asked();
    wait::until_true("queries are asked of the last one", || load.counts.asked() > asked + 1000);
    let counts = load.stop();
    assert!(counts.tcp.load(Ordering::Relaxed) > 0);
    assert_eq!(counts.lost.load(Ordering::Relaxed), 0, "{counts:?}");
    assert!(node.get("/healthz").starts_with("ok\n"), "{}", node.get("/healthz"));
    assert!(!node.log().contains("another process seems to use this state_dir"), "{}", node.log());
}

#[test]
fn a_new_process_that_can_not_begin_leaves_the_old_one_serving() {
    let world = World::start();
    let mut node = Setup::new(&world.rules(1), ZONE).start();
    let config = node.setup.path("bailiwick.toml");
    let good = std::fs::read_to_string(&config).unwrap();
    node.setup.write("bailiwick.toml", &good.replace("rules.json", "missing.json"));
    std::fs::remove_file(node.setup.path("state/rules.last-good.json")).unwrap();
    let failed = bailiwick(["serve", "--takeover", "--config", &config.display().to_string()]);
    assert_eq!(failed.status.code(), Some(1), "{}", String::from_utf8_lossy(&failed.stderr));
    assert_eq!(question("www.ai.example.com", "A").ask(node.dns).rcode(), ResponseCode::NoError);
    let set = json!({ "region": "eu-paris", "status": "down", "until": "2099-01-01T00:00:00Z", "reason": "drill" });
    wait::until_true("the old one takes changes again", || {
        node.call("POST", "/v1/overrides", Some(TOKEN), Some(&set)).0 < 300
    });
    node.setup.write("bailiwick.toml", &good);
    node.take_over();
    assert!(node.get("/v1/overrides").contains("eu-paris"), "overrides survive the takeover");
}

#[test]
fn encrypted_transports_go_over_too() {
    let world = World::start();
    let mut node = Setup::new(&world.rules(1), ZONE).encrypted(&["dot", "doq", "doh"]).start();
    let before = (node.dot, node.doq, node.doh);
    node.take_over();
    assert_eq!((node.dot, node.doq, node.doh), before);
    let at = node.dot.unwrap();
    let reported = run("kdig", ["+tls", "-p", &at.port().to_string(), "@127.0.0.1", "www.ai.example.com"]);
    assert!(String::from_utf8_lossy(&reported.stdout).contains("NOERROR"), "{reported:?}");
    let at = node.doq.unwrap();
    let reported = run("kdig", ["+quic", "-p", &at.port().to_string(), "@127.0.0.1", "www.ai.example.com"]);
    assert!(String::from_utf8_lossy(&reported.stdout).contains("NOERROR"), "{reported:?}");
}

#[test]
fn sigusr2_starts_the_new_process_and_sighup_reads_the_configuration() {
    let world = World::start();
    let mut node = Setup::new(&world.rules(1), ZONE).start();
    let good = std::fs::read_to_string(node.setup.path("bailiwick.toml")).unwrap();
    node.setup.write("bailiwick.toml", &format!("threads = 1\n{good}[identity]\nnsid = \"new\"\n"));
    node.process.signal("HUP");
    node.tells("threads has changed");
    node.tells("are in service as it says");
    let old = node.process.id();
    node.process.signal("USR2");
    let new = wait::until("another process serves", || {
        let reported: Value =
            serde_json::from_str(&std::fs::read_to_string(node.setup.path("ready.json")).ok()?).ok()?;
        reported["pid"].as_u64().filter(|pid| *pid != u64::from(old))
    });
    assert!(node.process.wait().success());
    assert_eq!(question("www.ai.example.com", "A").ask(node.dns).rcode(), ResponseCode::NoError);
    run("kill", ["-s", "TERM", &new.to_string()]);
    wait::until_true("it has ended", || !node.setup.path("ready.json").exists());
}

/// Binds what systemd would, as the files 3 and 4, and becomes the program.
const ACTIVATE: &str = "
import os, socket, sys
udp, tcp = (socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM))
[one.bind(('127.0.0.1', int(sys.argv[1]))) for one in (udp, tcp)]
tcp.listen()
copies = [os.dup(one.fileno()) for one in (udp, tcp)]
[os.dup2(copy, number) for copy, number in zip(copies, (3, 4))]
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2', LISTEN_FDNAMES='dns:dns')
os.execv(sys.argv[2], sys.argv[2:])";

#[test]
fn sockets_that_the_service_manager_passes_are_used() {
    let world = World::start();
    let port = free_port().port();
    let setup = Setup::new(&world.rules(1), ZONE);
    let config = std::fs::read_to_string(setup.path("bailiwick.toml")).unwrap();
    setup.write("bailiwick.toml", &config.replacen("127.0.0.1:0", &format!("127.0.0.1:{port}"), 1));
    let mut command = Command::new("python3");
    command.args(["-c", ACTIVATE, &port.to_string()]).arg(binary());
    // Bound already, the address can't be bound again: the sockets are those that were passed.
    let node = setup.start_by(command);
    assert_eq!(node.dns.port(), port);
    let question = question("www.ai.example.com", "A");
    for reply in [question.ask(node.dns), question.ask_by_tcp(node.dns)] {
        assert_eq!(reply.rcode(), ResponseCode::NoError);
    }
}
