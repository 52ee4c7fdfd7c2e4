//! DNS over QUIC by a client of another make, aioquic: RFC 9250, many streams at once, and clients that break it.

use bailiwick_tests::dns::question;
use bailiwick_tests::geo::root;
use bailiwick_tests::node::Setup;
use bailiwick_tests::process::{pypi_python, text_of};
use serde_json::{Map, Value, json};

use crate::fixture::{World, ZONE};

/// What `quic_client.py` sees of its cases at a server with `lines` more in its configuration; nothing where aioquic
/// isn't installed.
fn seen(cases: &str, lines: &str) -> Option<Value> {
    let python = pypi_python()?;
    let node = Setup::new(&World::start().rules(1), ZONE).encrypted(&["doq"]).with(lines).start();
    let mut query = question("www.ai.example.com", "A").to_wire();
    query[..2].fill(0);
    let query: String = query.iter().map(|octet| format!("{octet:02x}")).collect();
    let port = node.doq.expect("an address").port().to_string();
    let script = root().join("tests/behaviour/quic_client.py").display().to_string();
    let reported = text_of(&python.display().to_string(), [script, port, query, cases.to_owned()]);
    let lines = reported.lines().map(|line| serde_json::from_str::<Map<_, _>>(line).expect("an object"));
    Some(Value::Object(lines.flatten().collect()))
}

#[test]
fn rfc_9250_every_stream_is_answered_however_many_there_are_and_whatever_others_do() {
    let Some(seen) = seen("answers", "") else { return };
    let expected = json!({
        "parallel": 250,
        "one_by_one": 350,
        "in_pieces": true,
        "cancelled": ["reset 3", true],
        "response_sent": ["reset 5", true],
        "stalled_handshakes": [1, true],
        "early_data": [true, 0],
        "padding": true,
    });
    assert_eq!(seen, expected);
}

#[test]
fn rfc_9250_4_3_3_what_breaks_the_protocol_ends_the_connection_with_its_code() {
    let Some(seen) = seen("errors", "") else { return };
    let expected = json!({
        "id": 2,
        "two_at_once": 2,
        "late_second": 2,
        "keepalive": 2,
        "ends_early": 2,
        "no_length": 2,
        "nothing": 2,
        "no_header": 2,
        "empty": 2,
        "too_much": 4, // DOQ_EXCESSIVE_LOAD
    });
    assert_eq!(seen, expected);
}

#[test]
fn rfc_9250_5_5_1_idle_connections_end_without_an_error_and_unfinished_streams_with_one() {
    let Some(seen) = seen("idle", "[tcp]\nidle = \"500ms\"\n") else { return };
    assert_eq!(seen, json!({ "idle": 0, "no_fin": 2 }));
}

#[test]
fn one_client_has_no_more_connections_by_quic_than_by_tcp() {
    let Some(seen) = seen("limit", "[tcp]\nper_client = 3\n") else { return };
    // CONNECTION_REFUSED (RFC 9000 §20.1).
    assert_eq!(seen, json!({ "limit": 2 }));
}
