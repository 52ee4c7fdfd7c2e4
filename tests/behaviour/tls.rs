//! DNS over TLS, QUIC and HTTPS by kdig; certificates that change while the server runs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use bailiwick_tests::dns::question;
use bailiwick_tests::node::{Node, Setup};
use bailiwick_tests::process::run;
use bailiwick_tests::wait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::fixture::{World, ZONE};

fn setup() -> Setup {
    Setup::new(&World::start().rules(1), ZONE).encrypted(&["dot", "doq", "doh"])
}

/// What kdig prints.
fn kdig(server: Option<SocketAddr>, arguments: &[&str]) -> String {
    let port = server.expect("an address").port().to_string();
    let output = run("kdig", [&["@127.0.0.1", "-p", &port, "+timeout=10", "+retry=0"], arguments].concat());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The SHA-256 digest of the public key that the server shows (what `+tls-pin` pins), by a TLS client that trusts
/// anybody.
fn shown(server: SocketAddr) -> String {
    let reported = kdig(Some(server), &["-d", "+tls", "www.ai.example.com"]);
    let pin = reported.lines().find_map(|line| line.split_once("SHA-256 PIN: ")).map(|(_, pin)| pin.to_owned());
    pin.unwrap_or_else(|| panic!("no certificate in {reported}"))
}

fn pin(node: &Node) -> String {
    shown(node.dot.expect("an address"))
}

#[test]
fn rfc_7858_by_tls_the_answers_are_those_of_udp() {
    let node = setup().start();
    let reported = kdig(node.dot, &["+tls", "+short", "www.ai.example.com", "A"]);
    assert_eq!(reported.trim(), "192.0.2.80");
    let both = kdig(node.dot, &["+tls", "+keepopen", "+short", "www.ai.example.com", "A", "big.ai.example.com", "TXT"]);
    assert_eq!(both.lines().count(), 8, "{both}");
}

#[test]
fn rfc_9250_by_quic_the_answers_are_those_of_udp() {
    let node = setup().start();
    let reported = kdig(node.doq, &["+quic", "+short", "www.ai.example.com", "A"]);
    assert_eq!(reported.trim(), "192.0.2.80");
    let reported = kdig(node.doq, &["+quic", "nothing.ai.example.com", "A"]);
    assert!(reported.contains("NXDOMAIN") && reported.contains("SOA"), "{reported}");
}

#[test]
fn rfc_8484_by_https_post_and_get_are_answered() {
    let node = setup().start();
    for method in ["+https", "+https-get"] {
        let reported = kdig(node.doh, &["+https", method, "+short", "www.ai.example.com", "A"]);
        assert_eq!(reported.trim(), "192.0.2.80", "{method}");
    }
}

#[test]
fn rfc_8467_encrypted_answers_are_padded_to_whole_blocks_if_the_query_was() {
    let node = setup().start();
    for (server, by) in [(node.dot, "+tls"), (node.doh, "+https"), (node.doq, "+quic")] {
        let reported = kdig(server, &[by, "+padding=128", "www.ai.example.com", "A"]);
        let size = reported
            .lines()
            .find_map(|line| line.strip_prefix(";; Received ")?.split(' ').next()?.parse::<usize>().ok());
        assert_eq!(size.map(|size| size % 468), Some(0), "{by}: {reported}");
    }
}

#[test]
fn rfc_8484_http_is_as_it_should_be() {
    let node = setup().start();
    let port = node.doh.expect("an address").port();
    let url = |query: &str| format!("https://127.0.0.1:{port}/dns-query{query}");
    let curl = |arguments: &[&str]| {
        let output = run("curl", [&["--insecure", "--silent", "--include", "--max-time", "10"], arguments].concat());
        String::from_utf8_lossy(&output.stdout).to_ascii_lowercase()
    };
    // www.ai.example.com A, by id 0 as HTTP caches like it (RFC 8484 §4.1).
    let query = "?dns=AAABAAABAAAAAAAAA3d3dwJhaQdleGFtcGxlA2NvbQAAAQAB";
    let got = curl(&[&url(query)]);
    assert!(got.contains(" 200") && got.contains("content-type: application/dns-message"), "{got}");
    assert!(got.contains("cache-control: max-age=300"), "{got}");
    let steered = "?dns=AAABAAABAAAAAAAABGNoYXQCYWkHZXhhbXBsZQNjb20AAAEAAQ";
    assert!(
        curl(&[&url(steered)]).contains("cache-control: private, max-age="),
        "an answer for one client is not for a shared cache"
    );
    assert!(curl(&["--http1.1", &url(query)]).starts_with("http/1.1 200"));
    for (status, arguments) in [
        ("400", vec![url("")]),
        ("400", vec![url("?dns=@@@")]),
        ("400", vec![url("?dns=AAAB")]),
        ("415", vec!["--data".into(), "x".into(), url("")]),
        ("405", vec!["--request".into(), "DELETE".into(), url("")]),
        ("404", vec![format!("https://127.0.0.1:{port}/other")]),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let reported = curl(&arguments);
        assert!(reported.lines().next().is_some_and(|line| line.contains(status)), "{arguments:?}: {reported}");
    }
}

#[test]
fn rfc_8484_6_a_post_holds_the_longest_query_and_a_get_what_fits_into_its_path() {
    let node = setup().start();
    let url = format!("https://127.0.0.1:{}/dns-query", node.doh.expect("an address").port());
    // www.ai.example.com A, filled up with zeros behind the question.
    let query = URL_SAFE_NO_PAD.decode("AAABAAABAAAAAAAAA3d3dwJhaQdleGFtcGxlA2NvbQAAAQAB").expect("base64");
    let of_length = |length: usize| {
        let mut message = query.clone();
        message.resize(length, 0);
        message
    };
    let status = |arguments: &[&str]| {
        let fixed =
            ["--insecure", "--silent", "--max-time", "10", "--output", "/dev/null", "--write-out", "%{http_code}"];
        String::from_utf8_lossy(&run("curl", [&fixed, arguments].concat()).stdout).into_owned()
    };
    for (protocol, length, expected) in [
        ("--http1.1", 49_139, "200"),
        ("--http1.1", 49_140, "414"),
        ("--http2", 12_000, "200"),
        ("--http2", 12_288, "431"),
    ] {
        let got = status(&[protocol, &format!("{url}?dns={}", URL_SAFE_NO_PAD.encode(of_length(length)))]);
        assert_eq!(got, expected, "GET of {length} octets, {protocol}");
    }
    for (length, expected) in [(65_535, "200"), (65_536, "413")] {
        let file = node.setup.path("message");
        std::fs::write(&file, of_length(length)).expect("a file");
        let body = format!("@{}", file.display());
        for protocol in ["--http1.1", "--http2"] {
            let got = status(&[protocol, "-H", "content-type: application/dns-message", "--data-binary", &body, &url]);
            assert_eq!(got, expected, "POST of {length} octets, {protocol}");
        }
    }
}

#[test]
fn rfc_9113_5_requests_that_share_a_connection_at_once_are_all_answered() {
    let node = setup().start();
    let port = node.doh.expect("an address").port();
    let url = format!("https://127.0.0.1:{port}/dns-query?dns=AAABAAABAAAAAAAAA3d3dwJhaQdleGFtcGxlA2NvbQAAAQAB");
    let reported = "%{http_code} %{num_connects} %{size_download}\n";
    let mut arguments = vec!["--insecure", "--silent", "--parallel", "--parallel-max", "50", "--write-out", reported];
    for _ in 0..200 {
        arguments.extend(["--output", "/dev/null", &url]);
    }
    let output = run("curl", arguments);
    let reported = String::from_utf8_lossy(&output.stdout).into_owned();
    let answered: Vec<Vec<u32>> =
        reported.lines().map(|line| line.split(' ').filter_map(|part| part.parse().ok()).collect()).collect();
    assert_eq!(answered.len(), 200, "{reported}");
    let [_, _, size] = answered[0][..] else { panic!("{reported}") };
    assert!(size > 12 && answered.iter().all(|one| (one[0], one[2]) == (200, size)), "{reported}");
    assert_eq!(answered.iter().map(|one| one[1]).sum::<u32>(), 1, "connections: {reported}");
}

#[test]
fn certificates_are_replaced_without_a_restart_and_bad_ones_are_told() {
    let node = setup().start();
    let first = pin(&node);
    node.setup.write("tls.pem", "this is no certificate");
    node.tells("the version before it stays in service");
    assert_eq!(pin(&node), first, "the old certificate stays in service");
    let failing = |of: &str| {
        let metrics = node.get("/metrics");
        metrics.lines().any(|line| line.starts_with("bailiwick_files_failing{") && line.ends_with(of))
    };
    assert!(failing("tls.key\"} 1"), "{}", node.get("/metrics"));
    node.setup.write_certificate();
    wait::until_true("the new one is shown", || pin(&node) != first);
    assert!(failing("tls.key\"} 0") && !failing("1"), "{}", node.get("/metrics"));
    let second = pin(&node);
    node.setup.write_certificate();
    node.process.signal("HUP");
    wait::until_true("the third is shown", || pin(&node) != second);
    assert_eq!(kdig(node.doh, &["+https", "+short", "www.ai.example.com", "A"]).trim(), "192.0.2.80");
    assert_eq!(kdig(node.doq, &["+quic", "+short", "www.ai.example.com", "A"]).trim(), "192.0.2.80");
}

#[test]
fn whoever_speaks_no_tls_harms_nobody() {
    let node = setup().start();
    for server in [node.dot, node.doh].map(|server| server.expect("an address")) {
        let _silent = TcpStream::connect(server).unwrap();
        let mut plain = TcpStream::connect(server).unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut rest = Vec::new();
        let _ = plain.read_to_end(&mut rest); // an alert, and the end
    }
    assert_eq!(kdig(node.dot, &["+tls", "+short", "www.ai.example.com", "A"]).trim(), "192.0.2.80");
    assert_eq!(question("www.ai.example.com", "A").ask(node.dns).data(), ["192.0.2.80"]);
}

#[test]
fn a_missing_certificate_ends_the_start_with_its_name() {
    let setup = setup();
    std::fs::remove_file(setup.path("tls.key")).unwrap();
    let output = setup.start_in_vain();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("tls.key: can't be read as a private key"));
}
