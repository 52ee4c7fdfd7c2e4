//! Tests of the fields of replicas: defaults, every kind of answer, and mistakes with their places.

use super::*;
use crate::table::Table;

/// A document with one replica, one region that holds it, and one service that needs it.
fn document(replica: &str, held: &str, needs: &str) -> Result<Table, Vec<String>> {
    let json = format!(
        r#"{{ "version": 1, "revision": 1, "replicas": {{ "kb": {{ {replica} }} }},
            "regions": {{ "r": {{ "countries": ["DE"], "replicas": {{ "kb": {{ {held} }} }} }} }},
            "services": {{ "s": {{ "hosts": ["s.example"], "pattern": "active-active", "regions": ["r"],
                "residency": [{{ "clients": ["*"], "process_in": ["*"] }}], "needs": {{ {needs} }} }} }} }}"#
    );
    Table::compile(json.as_bytes()).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

const MAX: &str = r#""max_lag": "60s""#;
const URL: &str = r#""url": "https://kb.example/replica""#;
const NEEDS: &str = r#""/chat/completions": ["kb"]"#;

fn source(replica: &str, held: &str) -> ReplicaSource {
    let table = document(replica, held, NEEDS).unwrap_or_else(|errors| panic!("{errors:?}"));
    table.regions()[0].replicas[0].source.as_deref().cloned().expect("a source")
}

#[test]
fn a_replica_is_read_with_its_defaults() {
    let table = document(MAX, &format!(r#"{URL}, "as": "timestamp", "read": "/applied_at""#), NEEDS).unwrap();
    let kb = &table.replicas()[0];
    assert_eq!((kb.limits.max, kb.limits.resume), (Some(Lag::Time(Millis(60_000))), Some(Lag::Time(Millis(30_000)))));
    assert_eq!((kb.limits.down, kb.limits.up, kb.limits.withholds_unknown, kb.keep_freshest), (3, 3, true, false));
    let held = &table.regions()[0].replicas[0];
    let source = held.source.as_deref().unwrap();
    assert_eq!((source.interval, source.timeout, held.is_leader), (Millis(5_000), Millis(3_000), false));
    assert_eq!(source.reads.as_str(), "timestamp");
    let often = format!(r#"{URL}, "as": "timestamp", "read": "/t", "interval": "1s""#);
    assert_eq!(self::source(MAX, &often).timeout, Millis(1_000), "a timeout is never longer than the interval");
}

#[test]
fn every_kind_of_answer_is_read() {
    for (replica, held, kind) in [
        (MAX, r#""as": "seconds", "read": "/lag", "leader": "/leader", "version": "/model""#, "seconds"),
        (MAX, r#""as": "timestamp", "read": "", "now": "/now""#, "timestamp"),
        (MAX, r#""as": "prometheus", "series": { "name": "lag" }"#, "prometheus"),
        (r#""max_lag": 100"#, r#""as": "bytes", "read": "/a~1b/0""#, "bytes"),
        (r#""max_lag": 0"#, r#""as": "count", "read": "/rows""#, "count"),
        (r#""max_lag": 9"#, r#""as": "prometheus", "unit": "count", "series": { "name": "lag" }"#, "prometheus"),
        (r#""max_lag": 9"#, r#""as": "qdrant", "collection": "docs""#, "qdrant"),
        (r#""max_lag": 9"#, r#""as": "patroni", "member": "db 1""#, "patroni"),
        (r#""max_lag": 9"#, r#""as": "elasticsearch-ccr", "index": "docs-follower""#, "elasticsearch-ccr"),
        (r#""max_lag": 9"#, r#""as": "weaviate""#, "weaviate"),
        (r#""max_lag": 9"#, r#""as": "weaviate", "collection": "Docs""#, "weaviate"),
        (r#""group": "version""#, r#""as": "version", "read": "/model""#, "version"),
    ] {
        assert_eq!(source(replica, &format!("{URL}, {held}")).reads.as_str(), kind, "{held}");
    }
    let table = document(MAX, r#""leader": true"#, NEEDS).unwrap();
    assert!(table.regions()[0].replicas[0].is_leader && table.regions()[0].replicas[0].source.is_none());
}

#[test]
fn what_a_path_needs_is_the_longest_that_matches_whole_segments() {
    let held = r#""leader": true"#;
    let needs = r#""/": ["kb"], "/chat": [], "/chat/completions": ["kb"]"#;
    let table = document(MAX, held, needs).unwrap();
    let service = &table.services()[0];
    let needs = |path: &str| !service.needs_of(path).is_empty();
    assert_eq!(
        ["/chat/completions", "/chat/x", "/chat", "/chats", "/models"].map(needs),
        [true, false, false, true, true]
    );
    assert!(service.needs_everywhere().is_empty(), "/chat needs nothing");
    for (needs, everywhere) in [(r#""/": ["kb"]"#, true), (NEEDS, false), (r#""/": ["kb"], "/files": ["kb"]"#, true)] {
        let table = document(MAX, held, needs).unwrap();
        assert_eq!(!table.services()[0].needs_everywhere().is_empty(), everywhere, "{needs}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn mistakes_are_reported_at_their_place() {
    let held = format!(r#"{URL}, "as": "timestamp", "read": "/t""#);
    let kb = "/replicas/kb";
    let copy = "/regions/r/replicas/kb";
    for (replica, held, needs, said) in [
        ("", &*held, NEEDS, format!("{kb}: says neither how far a copy may be behind nor which versions")),
        (r#""max_lag": "60s", "resume": "61s""#, &*held, NEEDS, format!("{kb}: has a \"resume\" of \"61s\", above")),
        (
            r#""max_lag": "60s", "resume": 3"#,
            &*held,
            NEEDS,
            format!("{kb}: has a \"max_lag\" and a \"resume\" of diff"),
        ),
        (r#""max_lag": true"#, &*held, NEEDS, format!("{kb}/max_lag: is a boolean; write a duration")),
        (r#""max_lag": "60s", "unknown": "x""#, &*held, NEEDS, format!("{kb}/unknown: is \"x\"; write one of")),
        (r#""max_lag": "60s", "version": "a""#, &*held, NEEDS, format!("{kb}/version: counts only with \"group\"")),
        (
            r#""group": "version", "keep_freshest": true"#,
            r#""leader": true"#,
            NEEDS,
            format!("{kb}: keeps the freshest"),
        ),
        (
            r#""max_lga": "60s", "group": "version""#,
            r#""leader": true"#,
            NEEDS,
            format!("{kb}/max_lga: is not a known"),
        ),
        (MAX, r#""as": "seconds", "read": "/l""#, NEEDS, format!("{copy}/url: is missing")),
        (
            MAX,
            r#""url": "https://kb.example", "as": "second""#,
            NEEDS,
            format!("{copy}/as: is \"second\"; write one of"),
        ),
        (MAX, r#""leader": true, "as": "seconds""#, NEEDS, format!("{copy}: says how it is read, but not where")),
        (
            MAX,
            r#""url": "https://kb.example", "as": "seconds", "read": "lag""#,
            NEEDS,
            format!("{copy}/read: is \"lag\", which is no JSON pointer"),
        ),
        (
            MAX,
            r#""url": "https://kb.example", "as": "seconds", "read": "/a~2""#,
            NEEDS,
            format!("{copy}/read: is \"/a~2\""),
        ),
        (MAX, r#""url": "https://kb.example", "as": "seconds""#, NEEDS, format!("{copy}/read: is missing")),
        (
            MAX,
            r#""url": "https://kb.example", "as": "seconds", "read": "/l", "now": "/n""#,
            NEEDS,
            format!("{copy}/now: belongs to \"as\": \"timestamp\" only"),
        ),
        (MAX, r#""url": "https://kb.example", "as": "prometheus""#, NEEDS, format!("{copy}/series: is missing")),
        (
            r#""max_lag": 9"#,
            r#""url": "https://kb.example", "as": "qdrant""#,
            NEEDS,
            format!("{copy}/collection: is missing"),
        ),
        (
            r#""max_lag": 9"#,
            r#""url": "https://kb.example", "as": "qdrant", "collection": "a/b""#,
            NEEDS,
            format!("{copy}/collection: is \"a/b\""),
        ),
        (
            r#""max_lag": 9"#,
            r#""url": "https://kb.example", "as": "patroni""#,
            NEEDS,
            format!("{copy}/member: is missing"),
        ),
        (
            r#""max_lag": 9"#,
            r#""url": "https://kb.example", "as": "elasticsearch-ccr""#,
            NEEDS,
            format!("{copy}/index: is missing"),
        ),
        (
            r#""max_lag": 9"#,
            r#""url": "https://kb.example?a=b", "as": "weaviate""#,
            NEEDS,
            format!("{copy}/url: holds a query"),
        ),
        (
            r#""max_lag": 9"#,
            r#""url": "https://kb.example", "as": "weaviate", "leader": "/l""#,
            NEEDS,
            format!("{copy}: names a \"leader\" by a pointer"),
        ),
        (r#""max_lag": 9"#, &*held, NEEDS, format!("{copy}/as: reads a time")),
        (
            MAX,
            r#""url": "https://kb.example", "as": "version", "read": "/v""#,
            NEEDS,
            format!("{copy}/as: reads no lag"),
        ),
        (
            r#""group": "version""#,
            r#""url": "https://kb.example", "as": "seconds", "read": "/v", "version": "/m""#,
            NEEDS,
            format!("{copy}/as: reads a lag"),
        ),
        (r#""max_lag": "60s", "group": "version""#, &*held, NEEDS, format!("{copy}: reads no version")),
        (r#""group": "version""#, r#""leader": true"#, NEEDS, format!("{copy}: tells no version, by which kb is")),
        (
            MAX,
            r#""url": "https://kb.example", "as": "seconds", "read": "/l", "interval": "5s", "timeout": "30s""#,
            NEEDS,
            format!("{copy}: has a \"timeout\" of \"30s\", above its \"interval\" of \"5s\"; lower"),
        ),
        (
            MAX,
            r#""url": "https://kb.example", "as": "seconds", "read": "/l", "timeout": "5001ms""#,
            NEEDS,
            format!("{copy}: has a \"timeout\" of"),
        ),
        (
            MAX,
            r#""url": "https://kb.example", "as": "seconds", "read": "/l", "interval": 5, "timeout": "9s""#,
            NEEDS,
            format!("{copy}/interval: "),
        ),
        (MAX, &*held, r#""/v1/chat": ["kb"]"#, "/services/s/needs/~1v1~1chat: begins with /v1".to_owned()),
        (MAX, &*held, r#""chat": ["kb"]"#, "/services/s/needs/chat: is no path".to_owned()),
        (
            MAX,
            &*held,
            r#""/chat": ["kbs"]"#,
            "/services/s/needs/~1chat/0: names the replica \"kbs\", which isn't declared".to_owned(),
        ),
        (MAX, &*held, r#""/chat": ["kb", "kb"]"#, "/services/s/needs/~1chat/1: stands twice".to_owned()),
        (MAX, &*held, "", "/services/s/needs: names no path".to_owned()),
    ] {
        let errors = document(replica, held, needs).err().unwrap_or_default();
        assert!(errors.len() == 1 && errors[0].starts_with(&said), "{replica} {held} {needs}: {errors:?}");
    }
}

#[test]
fn a_region_that_serves_what_needs_a_replica_has_to_say_how_fresh_its_copy_is() {
    let json = r#"{ "version": 1, "revision": 1, "replicas": { "kb": { "max_lag": "60s" } },
        "regions": { "r": { "countries": ["DE"], "replicas": { "kn": { "leader": true } } } },
        "services": { "s": { "hosts": ["s.example"], "pattern": "active-active", "regions": ["r"],
            "residency": [{ "clients": ["*"], "process_in": ["*"] }], "needs": { "/": ["kb"] } } } }"#;
    let errors = Table::compile(json.as_bytes()).unwrap_err();
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(
        errors[0].starts_with("/regions/r/replicas/kn: is no replica of the document's \"replicas\"; did you mean")
    );
    let right = json.replace("\"kn\"", "\"kb\"");
    assert!(Table::compile(right.as_bytes()).is_ok());
    let without = json.replace(r#""kn": { "leader": true }"#, "");
    let errors = Table::compile(without.as_bytes()).unwrap_err();
    assert!(errors[0].to_string().starts_with("/services/s/needs/~1: needs kb, of which the region r says nothing"));
    let many: Vec<String> = (0..65).map(|n| format!(r#""kb{n}": {{ "max_lag": "60s" }}"#)).collect();
    let many =
        json.replace(r#""kb": { "max_lag": "60s" }"#, &many.join(", ")).replace(r#""kn": { "leader": true }"#, "");
    let errors = Table::compile(many.replace(r#"["kb"]"#, "[]").as_bytes()).unwrap_err();
    assert!(errors[0].to_string().starts_with("/replicas/kb0: is one of 65 replicas"), "{errors:?}");
}
