//! Reads answers as the stores write them, answers with impossible values, and random bytes.

use core::cell::Cell;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::table::Table;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// A source of the rules with these fields, of a replica with this `max_lag`.
fn source(max_lag: &str, fields: &str) -> ReplicaSource {
    let json = format!(
        r#"{{ "version": 1, "revision": 1, "replicas": {{ "kb": {{ {max_lag} }} }}, "regions": {{ "r": {{
            "countries": ["DE"], "replicas": {{ "kb": {{ "url": "https://kb.example/base", {fields} }} }} }} }} }}"#
    );
    let table = Table::compile(json.as_bytes()).unwrap_or_else(|errors| panic!("{errors:?}"));
    table.regions()[0].replicas[0].source.as_deref().cloned().unwrap()
}

fn of_time(fields: &str) -> ReplicaSource {
    source(r#""max_lag": "60s""#, fields)
}

fn of_amount(fields: &str) -> ReplicaSource {
    source(r#""max_lag": 100"#, fields)
}

fn read_json(source: &ReplicaSource, answers: &[Value]) -> Result<ReplicaReading, String> {
    let answers: Vec<Vec<u8>> = answers.iter().map(|one| one.to_string().into_bytes()).collect();
    let answers: Vec<&[u8]> = answers.iter().map(Vec::as_slice).collect();
    read(source, &answers, NOW).map_err(|failure| match failure {
        ReadFailure::Ahead(text) => format!("AHEAD {text}"),
        ReadFailure::Wrong(text) => text,
    })
}

/// The lag in milliseconds or as an amount, or the message of the failure.
fn lag_of(source: &ReplicaSource, answers: &[Value]) -> Result<u64, String> {
    read_json(source, answers).map(|reading| reading.lag.expect("a lag").number())
}

#[test]
fn times_are_read_in_every_form_and_compared_with_the_answers_own_clock_if_it_has_one() {
    let by_node = of_time(r#""as": "timestamp", "read": "/t""#);
    for (time, ms) in [
        (json!("2027-01-15T07:59:53Z"), 7_000),
        (json!("2027-01-15T08:59:53.5+01:00"), 6_500),
        (json!("2027-01-15 07:59:53+00:00"), 7_000),
        (json!(1_799_999_993), 7_000),
        (json!("1799999993.25"), 6_750),
        (json!(1_799_999_993_000_u64), 7_000),
        (json!(1_799_999_993_000_000_u64), 7_000),
        (json!(1_799_999_993_000_000_000_u64), 7_000),
        (json!(1_800_000_000.9), 0),
    ] {
        assert_eq!(lag_of(&by_node, &[json!({ "t": time })]), Ok(ms), "{time}");
    }
    let pointers = r#""read": "/a/0/t", "now": "/now", "leader": "/role", "version": "/v""#;
    let by_answer = of_time(&format!(r#""as": "timestamp", {pointers}"#));
    let answer = |role: &str| json!({ "a": [{ "t": 1_700_000_000 }], "now": 1_700_000_002, "role": role, "v": 3 });
    let reading = read_json(&by_answer, &[answer("replica")]).unwrap();
    assert_eq!((reading.lag, reading.is_leader), (Some(Lag::Time(Millis(2_000))), false));
    assert_eq!(reading.version.as_deref(), Some("3"));
    let reading = read_json(&by_answer, &[answer("Primary")]).unwrap();
    assert_eq!((reading.lag, reading.is_leader, reading.judged(false)), (None, true, LagReading::Leader));
}

#[test]
fn numbers_that_cannot_be_true_are_failures_and_a_negative_lag_is_an_alarm() {
    let time = of_time(r#""as": "timestamp", "read": "/t""#);
    let seconds = of_time(r#""as": "seconds", "read": """#);
    let count = of_amount(r#""as": "count", "read": """#);
    for (source, answer, said) in [
        (&time, json!({ "t": "2027-01-15T08:00:02Z" }), "AHEAD the lag is negative (-2s)"),
        (&time, json!({ "t": null }), "the answer has null at \"/t\""),
        (&time, json!({}), "the answer has nothing at \"/t\""),
        (&time, json!({ "t": "yesterday" }), "what stands at \"/t\" is no time"),
        (&time, json!({ "t": 12 }), "the time lies before 2000"),
        (&time, json!({ "t": 1e300 }), "the time lies before 2000 or after 2100"),
        (&time, json!({ "t": -1e300 }), "the time lies before 2000"),
        (&time, json!({ "t": [] }), "what stands at \"/t\" is no time"),
        (&seconds, json!(-1.5), "AHEAD the lag is negative (-1.5 s)"),
        (&seconds, json!("NaN"), "what stands at \"\" is no number"),
        (&seconds, json!("inf"), "what stands at \"\" is no number"),
        (&seconds, json!(true), "what stands at \"\" is no number"),
        (&count, json!(-1), "AHEAD the lag is negative (-1)"),
    ] {
        let failure = lag_of(source, core::slice::from_ref(&answer)).unwrap_err();
        assert!(failure.starts_with(said), "{answer}: {failure}");
    }
    assert_eq!(lag_of(&seconds, &[json!(-0.9)]), Ok(0), "0.9 s ahead is within what clocks differ by");
    assert_eq!(lag_of(&seconds, &[json!(1e300)]), Ok(u64::MAX));
    assert_eq!(lag_of(&count, &[json!(0.2)]), Ok(1));
    let version = source(r#""group": "version""#, r#""as": "version", "read": "/v""#);
    for wrong in [json!({ "v": "" }), json!({ "v": "a\nb" }), json!({ "v": "x".repeat(257) }), json!({ "v": {} })] {
        assert!(read_json(&version, &[wrong]).is_err());
    }
    let reading = read_json(&version, &[json!({ "v": "e5-large" })]).unwrap();
    assert_eq!((reading.lag, reading.version.as_deref()), (None, Some("e5-large")));
}

#[test]
fn the_furthest_of_several_samples_of_a_page_counts() {
    let page = "# TYPE pg_replication_lag_seconds gauge\npg_replication_lag_seconds{db=\"a\"} 3.5\n\
                pg_replication_lag_seconds{db=\"b\"} 12\nother 99\n";
    let read_page = |fields: &str, page: &str| {
        let source = of_time(&format!(r#""as": "prometheus", {fields}"#));
        read(&source, &[page.as_bytes()], NOW).map(|reading| reading.lag.unwrap().number())
    };
    assert_eq!(read_page(r#""series": { "name": "pg_replication_lag_seconds" }"#, page), Ok(12_000));
    let labelled = r#""series": { "name": "pg_replication_lag_seconds", "labels": { "db": "a" } }"#;
    assert_eq!(read_page(labelled, page), Ok(3_500));
    let by_time = r#""unit": "timestamp", "series": { "name": "replay_timestamp_seconds" }"#;
    assert_eq!(read_page(by_time, "replay_timestamp_seconds 1799999990\n"), Ok(10_000));
    let failure = read_page(r#""series": { "name": "gone" }"#, page).unwrap_err().to_string();
    assert_eq!(failure, "the page has no series \"gone\"; look at \"series\" and \"url\"");
    for bad in ["replay_timestamp_seconds NaN\n", "replay_timestamp_seconds +Inf\n", "replay_timestamp_seconds"] {
        assert!(read_page(by_time, bad).is_err(), "{bad}");
    }
}

#[test]
fn qdrant_is_behind_by_its_update_queue_and_unreadable_while_a_shard_is_not_active() {
    let source = of_amount(r#""as": "qdrant", "collection": "docs""#);
    let urls: Vec<String> = requests(&source).unwrap().iter().map(ToString::to_string).collect();
    let base = "https://kb.example/base/collections/docs";
    assert_eq!(urls, [format!("{base}/cluster"), base.to_owned()]);
    let cluster = |state: &str| {
        json!({ "result": { "peer_id": 6_211_378_513_718_317_u64, "shard_count": 2,
            "local_shards": [{ "shard_id": 0, "points_count": 5120, "state": "Active" }],
            "remote_shards": [{ "shard_id": 1, "peer_id": 2_112_845_731_u64, "state": state }],
            "shard_transfers": [] }, "status": "ok", "time": 0.000_021 })
    };
    let collection = |status: &str, queue: Value| {
        json!({ "result": { "status": status, "optimizer_status": "ok", "indexed_vectors_count": 5000,
            "points_count": 5120, "segments_count": 8, "config": { "params": { "shard_number": 2 } },
            "payload_schema": {}, "update_queue": queue }, "status": "ok", "time": 0.000_3 })
    };
    let good = collection("green", json!({ "length": 17 }));
    assert_eq!(lag_of(&source, &[cluster("Active"), good.clone()]), Ok(17));
    for (answers, said) in [
        (vec![cluster("Partial"), good.clone()], "shard 1 isn't Active but \"Partial\""),
        (vec![cluster("Dead"), good.clone()], "shard 1 isn't Active but \"Dead\""),
        (vec![cluster("Active"), collection("red", json!({ "length": 0 }))], "the collection is red"),
        (vec![cluster("Active"), collection("green", Value::Null)], "the answer doesn't tell the length"),
        (vec![json!({ "status": { "error": "Not found" }, "time": 0.0 }), good], "the answer has no \"result\""),
        (vec![cluster("Active")], "one of two answers is missing"),
    ] {
        let failure = lag_of(&source, &answers).unwrap_err();
        assert!(failure.starts_with(said), "{failure}");
    }
}

#[test]
fn patroni_tells_the_lag_of_a_member_and_who_leads() {
    let of = |member: &str| of_amount(&format!(r#""as": "patroni", "member": "{member}""#));
    assert_eq!(requests(&of("p")).unwrap()[0].as_str(), "https://kb.example/base/cluster");
    let member = |name: &str, role: &str, state: &str, lag: Value| {
        json!({ "name": name, "role": role, "state": state, "api_url": "http://10.89.0.4:8008/patroni",
            "host": "10.89.0.4", "port": 5432, "timeline": 5, "lag": lag })
    };
    let mut first = member("p1", "leader", "running", json!(0));
    first.as_object_mut().unwrap().remove("lag");
    let mut newer = member("p5", "replica", "streaming", json!(9));
    newer["replay_lag"] = json!(33);
    let cluster = json!({ "scope": "demo", "members": [
        first, member("p2", "replica", "streaming", json!(4096)), member("p3", "replica", "stopped", json!("unknown")),
        member("p4", "replica", "running", json!("unknown")), newer,
        member("p6", "standby_leader", "streaming", json!(0)), member("p7", "replica", "running", json!(-1)) ] });
    let read = |name: &str| read_json(&of(name), core::slice::from_ref(&cluster));
    assert!(read("p1").unwrap().is_leader);
    assert_eq!(read("p2").unwrap().lag, Some(Lag::Amount(4_096)));
    assert_eq!(read("p5").unwrap().lag, Some(Lag::Amount(33)));
    for (name, said) in [
        ("p3", "the member is \"stopped\""),
        ("p4", "Patroni doesn't know how far"),
        ("p6", "the member leads a standby cluster"),
        ("p7", "AHEAD the lag is negative (-1)"),
        ("p8", "the cluster has no member \"p8\""),
    ] {
        assert!(read(name).unwrap_err().starts_with(said), "{name}");
    }
}

#[test]
fn elasticsearch_lacks_the_sum_over_shards_and_a_cut_link_is_a_failure() {
    let source = of_amount(r#""as": "elasticsearch-ccr", "index": "docs-follower""#);
    assert_eq!(requests(&source).unwrap()[0].as_str(), "https://kb.example/base/docs-follower/_ccr/stats");
    let shard = |id: u32, leader: i64, follower: i64, silent: u64| {
        json!({ "remote_cluster": "lon", "leader_index": "docs", "follower_index": "docs-follower", "shard_id": id,
            "leader_global_checkpoint": leader, "leader_max_seq_no": leader, "follower_global_checkpoint": follower,
            "follower_max_seq_no": follower, "last_requested_seq_no": leader, "outstanding_read_requests": 1,
            "outstanding_write_requests": 0, "write_buffer_operation_count": 0, "failed_read_requests": 0,
            "read_exceptions": [], "time_since_last_read_millis": silent })
    };
    let stats = |shards: Vec<Value>| json!({ "indices": [{ "index": "docs-follower", "shards": shards }] });
    assert_eq!(lag_of(&source, &[stats(vec![shard(0, 1_024, 768, 8), shard(1, 50, 50, 59_000)])]), Ok(256));
    let mut failing = shard(0, 9, 9, 8);
    let exception = json!({ "type": "connect_transport_exception", "reason": "unable to connect" });
    failing["read_exceptions"] = json!([{ "from_seq_no": 10, "retries": 3, "exception": exception }]);
    let mut fatal = shard(0, 9, 9, 8);
    fatal["fatal_exception"] = json!({ "type": "index_not_found_exception", "reason": "no such index" });
    let (mut untold, mut never) = (shard(1, 9, 9, 8), shard(1, 9, 9, 8));
    untold.as_object_mut().unwrap().remove("time_since_last_read_millis");
    never["time_since_last_read_millis"] = json!(-1);
    for (answer, said) in [
        (stats(vec![shard(0, 9, 9, 8), untold]), "the follower has never asked"),
        (stats(vec![never]), "the follower has never asked"),
        (stats(vec![failing]), "the follower can't read from its leader"),
        (stats(vec![fatal]), "the follower has given up"),
        (stats(vec![shard(0, 9, 9, 131_000)]), "the follower has asked its leader for nothing for 131 s"),
        (stats(vec![shard(0, i64::MIN, i64::MAX, 8)]), "AHEAD"),
        (stats(vec![]), "the follower has no shards"),
        (json!({ "indices": [] }), "the answer has no index \"docs-follower\""),
    ] {
        assert!(lag_of(&source, &[answer]).unwrap_err().starts_with(said), "{said}");
    }
    assert_eq!(lag_of(&source, &[stats(vec![shard(0, i64::MAX, 0, 8), shard(1, i64::MAX, -1, 8)])]), Ok(u64::MAX));
}

#[test]
fn weaviate_is_behind_by_what_waits_to_be_indexed() {
    let all = of_amount(r#""as": "weaviate""#);
    let one = of_amount(r#""as": "weaviate", "collection": "Docs""#);
    assert_eq!(requests(&all).unwrap()[0].as_str(), "https://kb.example/base/v1/nodes?output=verbose");
    assert_eq!(requests(&one).unwrap()[0].as_str(), "https://kb.example/base/v1/nodes/Docs?output=verbose");
    let shard = |class: &str, queue: i64| {
        json!({ "asyncReplicationStatus": [], "class": class, "compressed": false, "loaded": true,
            "name": "gvCkCYs2fnA3", "numberOfReplicas": 1, "objectCount": 9, "replicationFactor": 1,
            "vectorIndexingStatus": "INDEXING", "vectorQueueLength": queue })
    };
    let node = |status: &str, shards: Vec<Value>| {
        json!({ "batchStats": { "queueLength": 2, "ratePerSecond": 6 }, "gitHash": "9c22d0c", "name": "node1",
            "shards": shards, "stats": { "objectCount": 9, "shardCount": 2 }, "status": status, "version": "1.34.0" })
    };
    let nodes = |status: &str, queue: i64| {
        let first = node(status, vec![shard("Docs", queue), shard("Other", 5)]);
        json!({ "nodes": [first, node("HEALTHY", vec![])] })
    };
    assert_eq!(lag_of(&all, &[nodes("HEALTHY", 40)]), Ok(49));
    assert_eq!(lag_of(&one, &[nodes("INDEXING", 40)]), Ok(44));
    let other = of_amount(r#""as": "weaviate", "collection": "Gone""#);
    for (source, answer, said) in [
        (&all, nodes("UNAVAILABLE", 0), "the node \"node1\" is \"UNAVAILABLE\""),
        (&all, nodes("HEALTHY", -4), "AHEAD the lag is negative (-4)"),
        (&other, nodes("HEALTHY", 0), "no node has a shard of \"Gone\""),
        (&all, json!({ "error": [{ "message": "forbidden" }] }), "the answer has no nodes"),
    ] {
        assert!(lag_of(source, &[answer]).unwrap_err().starts_with(said), "{said}");
    }
}

/// One source of each kind.
fn sources() -> Vec<ReplicaSource> {
    vec![
        of_time(r#""as": "timestamp", "read": "/a", "now": "/b", "leader": "/c", "version": "/d""#),
        of_time(r#""as": "seconds", "read": "/a""#),
        of_amount(r#""as": "bytes", "read": "/a/0""#),
        of_time(r#""as": "prometheus", "series": { "name": "a" }"#),
        of_amount(r#""as": "qdrant", "collection": "a""#),
        of_amount(r#""as": "patroni", "member": "a""#),
        of_amount(r#""as": "elasticsearch-ccr", "index": "a""#),
        of_amount(r#""as": "weaviate", "collection": "a""#),
    ]
}

/// JSON of any shape, with the names that the readers look for.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (1_799_999_000_i64..1_800_000_500).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec!["a", "Active", "leader", "running", "HEALTHY", "2027-01-15T07:59:53Z", ""])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 5, |inner| {
        let names = prop::sample::select(vec![
            "a",
            "b",
            "c",
            "d",
            "result",
            "local_shards",
            "state",
            "update_queue",
            "length",
            "members",
            "name",
            "role",
            "lag",
            "indices",
            "index",
            "shards",
            "time_since_last_read_millis",
            "leader_global_checkpoint",
            "follower_global_checkpoint",
            "nodes",
            "status",
            "class",
            "vectorQueueLength",
            "batchStats",
            "queueLength",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(names.prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

#[test]
fn no_answer_makes_a_reader_panic_or_say_more_than_it_may() {
    let (cases, read_well, sources) = (Cell::new(0_u64), Cell::new(0_u64), sources());
    let page = |a, b, c, d| json!({ "a": a, "b": b, "c": c, "d": d });
    let pages = (any_json(), any_json(), any_json(), any_json()).prop_map(move |(a, b, c, d)| page(a, b, c, d));
    let bytes = prop_oneof![
        3 => pages.prop_map(|json| json.to_string().into_bytes()),
        3 => any_json().prop_map(|json| json.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..200),
        1 => "a(\\{[a-z=\",]{0,9}\\})? [-0-9a-zA-Z.+]{1,9}\n".prop_map(String::into_bytes),
    ];
    let config = ProptestConfig { cases: 4_000, ..ProptestConfig::default() };
    proptest!(config, |(first in bytes.clone(), second in bytes)| {
        for source in &sources {
            cases.set(cases.get() + 1);
            match read(source, &[&first, &second], NOW) {
                Ok(reading) => {
                    read_well.set(read_well.get() + 1);
                    let unit = source.reads.unit().unwrap();
                    prop_assert!(reading.lag.is_none_or(|lag| unit.fits(lag)), "{:?}", reading);
                    prop_assert!(reading.lag.is_some() || reading.is_leader);
                }
                Err(failure) => prop_assert!(failure.to_string().len() < 400, "{}", failure),
            }
        }
    });
    println!("answers tried: {}, readings: {}", cases.get(), read_well.get());
    assert!(read_well.get() > 50);
    assert!(read(&sources[1], &[&b" ".repeat(MAX_JSON + 1)], NOW).is_err() && read(&sources[1], &[], NOW).is_err());
}
