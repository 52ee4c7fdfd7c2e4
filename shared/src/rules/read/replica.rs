//! Reads replicas of knowledge: how far a copy may be behind, where a node reads how far it is behind, and which
//! requests of a service need the replica. Called by the readers of the document, of regions and of services. A replica
//! is knowledge, such as a search index, of which regions hold copies.

use std::collections::BTreeMap;

use super::Context;
use super::http::{base_url, tls_fields};
use super::source::series;
use super::value::{boolean, duration, http_url, one_of, reference, secret_name};
use crate::health::{Lag, ReplicaSet};
use crate::id::ReplicaId;
use crate::json::{Fields, Node, Reader};
use crate::rules::{
    GroupBy, HttpProbe, JsonPointer, JsonReads, LagUnit, RegionReplica, Replica, ReplicaReads, ReplicaSource,
    WhenUnknown,
};
use crate::time::Millis;

/// The greatest lag that may be written: a year, or the largest number that JSON represents exactly.
const LONGEST_LAG: Millis = Millis(365 * 24 * 3_600_000);
const LARGEST_LAG: u64 = 1 << 53;
/// The longest name of a collection, a member or an index, and the longest version.
const LONGEST_NAME: usize = 256;

/// The values of `as`.
const KINDS: [&str; 10] = [
    "timestamp",
    "seconds",
    "bytes",
    "count",
    "version",
    "prometheus",
    "qdrant",
    "patroni",
    "elasticsearch-ccr",
    "weaviate",
];
/// The values of `as` that read JSON by JSON pointers.
const JSON: [&str; 5] = ["timestamp", "seconds", "bytes", "count", "version"];
/// The fields that only some values of `as` allow, with these values.
const OF_KINDS: [(&str, &[&str]); 8] = [
    ("read", &JSON),
    ("now", &["timestamp"]),
    ("version", &["timestamp", "seconds", "bytes", "count"]),
    ("series", &["prometheus"]),
    ("unit", &["prometheus"]),
    ("collection", &["qdrant", "weaviate"]),
    ("member", &["patroni"]),
    ("index", &["elasticsearch-ccr"]),
];
const UNITS: [(&str, LagUnit); 4] = [
    ("timestamp", LagUnit::Timestamp),
    ("seconds", LagUnit::Seconds),
    ("bytes", LagUnit::Bytes),
    ("count", LagUnit::Count),
];

/// One of the document's `replicas`.
pub(super) fn replica(reader: &mut Reader<'_>, node: &Node, context: &mut Context) -> Option<Replica> {
    check_count(reader, context);
    let mut fields = reader.object(node)?;
    let (had_max, had_resume) = (fields.has("max_lag"), fields.has("resume"));
    let max_lag = fields.optional("max_lag", lag);
    let resume = fields.optional("resume", lag);
    let unknown = [("withhold", WhenUnknown::Withhold), ("ignore", WhenUnknown::Ignore)];
    let unknown = fields.optional("unknown", |reader, node| one_of(reader, node, &unknown));
    let count =
        |reader: &mut Reader<'_>, node: &Node| reader.integer(node, 1..=1000).and_then(|n| u32::try_from(n).ok());
    let (down_thresh, up_thresh) = (fields.optional("down_thresh", count), fields.optional("up_thresh", count));
    let had_group = fields.has("group");
    let group = fields.optional("group", |reader, node| one_of(reader, node, &[("version", GroupBy::Version)]));
    let version = fields.optional("version", |reader, node| {
        let version = name(reader, node, "a version")?;
        if had_group { Some(version) } else { reader.fail("counts only with \"group\": \"version\"; add that") }
    });
    let keep_freshest = fields.optional("keep_freshest", boolean).unwrap_or(false);
    match (max_lag, resume) {
        (Some(max), Some(resume)) if core::mem::discriminant(&max) != core::mem::discriminant(&resume) => {
            fields.fail::<()>(
                "has a \"max_lag\" and a \"resume\" of different kinds; write two durations, or two numbers",
            );
        }
        (Some(max), Some(resume)) if resume > max => {
            let (max, resume) = (written(max), written(resume));
            fields.fail::<()>(format!(
                "has a \"resume\" of {resume}, above its \"max_lag\" of {max}; lower \"resume\", or raise \"max_lag\""
            ));
        }
        (None, _) if had_resume && !had_max => {
            fields.fail::<()>("has a \"resume\" without a \"max_lag\"; add \"max_lag\", such as \"60s\"");
        }
        (None, _) if !had_max && !had_group => {
            fields.fail::<()>(
                "says neither how far a copy may be behind nor which versions go together; add \"max_lag\": \"60s\" or \
                 \"group\": \"version\"",
            );
        }
        (None, _) if !had_max && keep_freshest => {
            fields.fail::<()>(
                "keeps the freshest of copies whose lag isn't limited; add \"max_lag\", or leave \"keep_freshest\" out",
            );
        }
        _ => {}
    }
    fields.finish();
    Some(Replica {
        max_lag,
        resume: resume.or(max_lag.map(|max| max.with(max.number() / 2))),
        unknown: unknown.unwrap_or_default(),
        down_thresh: down_thresh.unwrap_or(3),
        up_thresh: up_thresh.unwrap_or(3),
        group,
        version,
        keep_freshest,
    })
}

/// Refuses more replicas than a document may name, once.
fn check_count(reader: &mut Reader<'_>, context: &Context) {
    let count = context.replicas.len();
    if count > ReplicaSet::MOST && context.replicas.first().is_some_and(|name| is_at(reader, name)) {
        let most = ReplicaSet::MOST;
        reader.fail::<()>(format!("is one of {count} replicas, and a document may name {most}; remove some"));
    }
}

/// Whether the reader stands at the replica of this name.
fn is_at(reader: &Reader<'_>, name: &str) -> bool {
    reader.place().strip_prefix("/replicas/") == Some(name)
}

/// A lag as the rules write it.
fn written(lag: Lag) -> String {
    match lag {
        Lag::Time(time) => format!("\"{time}\""),
        Lag::Amount(amount) => amount.to_string(),
    }
}

/// A duration, or a whole number of bytes or operations.
fn lag(reader: &mut Reader<'_>, node: &Node) -> Option<Lag> {
    match node {
        Node::Number(_) => reader.integer(node, 0..=LARGEST_LAG).map(Lag::Amount),
        Node::String(_) => duration(reader, node, Millis(0)..=LONGEST_LAG).map(Lag::Time),
        other => reader.expected("a duration such as \"60s\", or a number of bytes or operations", other),
    }
}

/// One of a region's `replicas`.
pub(super) fn region_replica(reader: &mut Reader<'_>, node: &Node, _: &mut Context) -> Option<RegionReplica> {
    let mut fields = reader.object(node)?;
    let kinds = KINDS.map(|kind| (kind, kind));
    let has_url = fields.has("url");
    let leader = fields.optional("leader", leader).unwrap_or_default();
    if !has_url && leader.is_leader {
        if fields.has("as") {
            fields.fail::<()>("says how it is read, but not where; add \"url\", or leave out all but \"leader\": true");
        }
        for key in ["as", "read", "interval"] {
            fields.optional(key, |_, _| Some(()));
        }
        fields.finish();
        return Some(RegionReplica { is_leader: true, source: None });
    }
    let what = "what it reads, such as \"timestamp\" or \"qdrant\"";
    let kind = fields.required("as", what, |reader, node| one_of(reader, node, &kinds));
    if let (Some(kind), Some(_)) = (kind.filter(|kind| !JSON.contains(kind)), &leader.pointer) {
        fields.fail::<()>(format!(
            "names a \"leader\" by a pointer, but \"as\": \"{kind}\" reads no JSON by pointers; write true, or \
             leave it out"
        ));
    }
    let is_page = kind.is_none_or(|kind| JSON.contains(&kind) || kind == "prometheus");
    let url = match is_page {
        true => fields.required("url", "where it is read, such as https://kb.example.net/replica", http_url),
        false => fields.required("url", "the base of its API, such as https://kb.example.net", base_url),
    };
    let reads = reads(&mut fields, kind, leader.pointer);
    let secret = fields.optional("secret", secret_name);
    let (host, sni, ca_file) = tls_fields(&mut fields, url.as_ref());
    let (interval, timeout) = pace(&mut fields);
    fields.finish();
    let http = HttpProbe { url: url?, status: vec![200], body_contains: None, secret, host, sni, ca_file };
    let source = ReplicaSource { reads: reads?, http, interval, timeout };
    Some(RegionReplica { is_leader: leader.is_leader, source: Some(Box::new(source)) })
}

/// The interval and the timeout. The timeout has to end before the next reading is due. Otherwise a page that hangs
/// gives results so seldom that the last one is too old to count.
fn pace(fields: &mut Fields<'_, '_, '_>) -> (Millis, Millis) {
    let had_interval = fields.has("interval");
    let read = fields.optional("interval", |reader, node| duration(reader, node, Millis(500)..=Millis(3_600_000)));
    let timeout = fields.optional("timeout", |reader, node| duration(reader, node, Millis(10)..=Millis(60_000)));
    let interval = read.unwrap_or(Millis(5_000));
    let timeout = timeout.unwrap_or(interval.min(Millis(3_000)));
    if timeout > interval && (read.is_some() || !had_interval) {
        fields.fail::<()>(format!(
            "has a \"timeout\" of \"{timeout}\", above its \"interval\" of \"{interval}\"; lower \"timeout\", or raise \
             \"interval\""
        ));
    }
    (interval, timeout)
}

/// What `leader` says.
#[derive(Default)]
struct Leader {
    /// It is the leader.
    is_leader: bool,
    /// The answer tells whether it is.
    pointer: Option<JsonPointer>,
}

/// `leader`: true, false, or a JSON pointer to where the answer says it.
fn leader(reader: &mut Reader<'_>, node: &Node) -> Option<Leader> {
    match node {
        Node::Bool(is_leader) => Some(Leader { is_leader: *is_leader, pointer: None }),
        Node::String(_) => Some(Leader { is_leader: false, pointer: Some(pointer(reader, node)?) }),
        other => reader.expected("true, or a pointer such as \"/leader\"", other),
    }
}

/// The fields that belong to a kind of answer.
fn reads(fields: &mut Fields<'_, '_, '_>, kind: Option<&str>, leader: Option<JsonPointer>) -> Option<ReplicaReads> {
    let wrong = |key: &'static str, kinds: &[&str]| {
        let kinds: Vec<String> = kinds.iter().map(|kind| format!("{kind:?}")).collect();
        format!("belongs to \"as\": {} only; leave {key} out", kinds.join(", "))
    };
    for (key, kinds) in OF_KINDS {
        if kind.is_none_or(|kind| !kinds.contains(&kind)) {
            fields.optional(key, |reader, _| match kind {
                Some(_) => reader.fail(wrong(key, kinds)),
                // Without `as` it isn't known which fields belong to the source.
                None => Some(()),
            });
        }
    }
    let unit = UNITS.iter().find(|(name, _)| Some(*name) == kind).map(|(_, unit)| *unit);
    match kind? {
        "prometheus" => {
            let unit = fields.optional("unit", |reader, node| one_of(reader, node, &UNITS)).unwrap_or(LagUnit::Seconds);
            let series = fields.required("series", "the series, such as {\"name\": \"replica_lag_seconds\"}", series);
            Some(ReplicaReads::Prometheus { series: series?, unit })
        }
        "qdrant" => {
            let collection = fields.required("collection", "the collection's name", path_name);
            Some(ReplicaReads::Qdrant { collection: collection? })
        }
        "patroni" => {
            let member = fields.required("member", "the name of the member in this region", |reader, node| {
                name(reader, node, "the member's name")
            });
            Some(ReplicaReads::Patroni { member: member? })
        }
        "elasticsearch-ccr" => {
            let index = fields.required("index", "the follower index", path_name);
            Some(ReplicaReads::Elasticsearch { index: index? })
        }
        "weaviate" => {
            let had_collection = fields.has("collection");
            let collection = fields.optional("collection", path_name);
            (!had_collection || collection.is_some()).then_some(ReplicaReads::Weaviate { collection })
        }
        _ => {
            let read = fields.required("read", "where it stands in the answer, such as \"/applied_at\"", pointer);
            let (had_now, had_version) = (fields.has("now"), fields.has("version"));
            let (now, version) = (fields.optional("now", pointer), fields.optional("version", pointer));
            if had_now && unit == Some(LagUnit::Timestamp) && now.is_none() || had_version && version.is_none() {
                return None;
            }
            let (lag, version) = match unit {
                Some(unit) => (Some((read?, unit)), version),
                None => (None, Some(read?)),
            };
            Some(ReplicaReads::Json(JsonReads { lag, now, leader, version }))
        }
    }
}

/// A JSON pointer (RFC 6901).
fn pointer(reader: &mut Reader<'_>, node: &Node) -> Option<JsonPointer> {
    let text = reader.string(node)?;
    JsonPointer::parse(text).or_else(|| {
        reader.fail(format!(
            "is {text:?}, which is no JSON pointer; write steps that begin with \"/\", such as \"/applied_at\", with ~ \
             as ~0 and / as ~1"
        ))
    })
}

/// A name without control characters.
fn name(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<String> {
    let text = reader.string(node)?;
    let fits = !text.is_empty() && text.len() <= LONGEST_NAME && !text.chars().any(char::is_control);
    if fits {
        Some(text.to_owned())
    } else {
        reader.fail(format!("is empty, too long, or has control characters; write {what}"))
    }
}

/// A name that becomes one segment of a URL's path.
fn path_name(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    let text = name(reader, node, "its name")?;
    let is_segment = !text.contains(['/', '\\', '%', '?', '#', '*', ',']) && !text.bytes().all(|byte| byte == b'.');
    if is_segment { Some(text) } else { reader.fail(format!("is {text:?}; write one name, without / or wildcards")) }
}

/// The `needs` of a service: the replicas that each path needs.
pub(super) fn needs(
    reader: &mut Reader<'_>,
    node: &Node,
    context: &Context,
) -> Option<BTreeMap<String, Vec<ReplicaId>>> {
    let entries = reader.entries(node)?;
    if entries.is_empty() {
        return reader.fail("names no path; write {\"/chat/completions\": [\"kb\"]}, or leave it out");
    }
    let mut needs = BTreeMap::new();
    for (path, node) in entries {
        let reader = &mut reader.at(path);
        if let Some(problem) = wrong_path(path) {
            reader.fail::<()>(problem);
        }
        let mut known = Vec::new();
        let replicas = reader.list(node, |reader, node| {
            let replica = reference(reader, node, "replica", &context.replicas, ReplicaId::parse)?;
            if known.contains(&replica) {
                return reader.fail("stands twice in the list; keep one");
            }
            known.push(replica.clone());
            Some(replica)
        });
        needs.extend(replicas.map(|replicas| (path.to_owned(), replicas)));
    }
    Some(needs)
}

/// What is wrong with the text of a path.
fn wrong_path(path: &str) -> Option<String> {
    let is_segment = |segment: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(fits)
    };
    match path.strip_prefix('/') {
        Some("") => None,
        Some(rest) if rest.split('/').next() == Some("v1") => Some("begins with /v1; leave that out".to_owned()),
        Some(rest) if rest.split('/').all(is_segment) => None,
        _ => Some("is no path; write whole segments such as \"/chat/completions\", or \"/\" for all others".to_owned()),
    }
}

#[cfg(test)]
mod tests;
