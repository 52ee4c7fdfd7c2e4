//! Reads what stores of knowledge answer about how far they are behind: Qdrant, Patroni, Elasticsearch and Weaviate.
//! Takes their JSON, returns a reading. Called by [`super::read`].

use serde_json::Value;

use super::json::is_leading;
use super::{ReadFailure, ReplicaReading, ahead, quoted, wrong};
use crate::health::Lag;

/// How long a follower of Elasticsearch may have sent its leader no request, in milliseconds. A follower that is up to
/// date asks once a minute (`read_poll_timeout`).
const SILENT_FOR: u64 = 130_000;

/// The reading of a copy that is behind by this many bytes or operations.
fn behind(amount: u64) -> ReplicaReading {
    ReplicaReading { lag: Some(Lag::Amount(amount)), ..ReplicaReading::default() }
}

/// The text of a field; empty if there is none.
fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The items of a field that is a list; none if it isn't.
fn items<'v>(value: &'v Value, field: &str) -> impl Iterator<Item = &'v Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

/// Qdrant: the answers of `/collections/NAME/cluster` and `/collections/NAME`. Every shard has to be active, or
/// searches miss what it holds. The lag is the number of updates that wait in the queue.
pub(super) fn qdrant(cluster: &Value, collection: &Value) -> Result<ReplicaReading, ReadFailure> {
    let Some(cluster) = cluster.get("result") else { return wrong("the answer has no \"result\" about the cluster") };
    let shards: Vec<&Value> = items(cluster, "local_shards").chain(items(cluster, "remote_shards")).collect();
    if shards.is_empty() {
        return wrong("the collection has no shards");
    }
    if let Some(shard) = shards.iter().find(|shard| text(shard, "state") != "Active") {
        let id = shard.get("shard_id").and_then(Value::as_u64).unwrap_or_default();
        return wrong(format!("shard {id} isn't Active but {}", quoted(text(shard, "state"))));
    }
    let result = collection.get("result").unwrap_or(&Value::Null);
    if text(result, "status") == "red" {
        return wrong("the collection is red: an operation failed and wasn't recovered");
    }
    match result.pointer("/update_queue/length").and_then(Value::as_u64) {
        Some(length) => Ok(behind(length)),
        None => wrong("the answer doesn't tell the length of its \"update_queue\", as newer versions do"),
    }
}

/// Patroni: the answer of `/cluster`. `name` is the member of the cluster that is this region's copy.
pub(super) fn patroni(cluster: &Value, name: &str) -> Result<ReplicaReading, ReadFailure> {
    let Some(member) = items(cluster, "members").find(|member| text(member, "name") == name) else {
        return wrong(format!("the cluster has no member {}", quoted(name)));
    };
    let (role, state) = (text(member, "role"), text(member, "state"));
    if !["running", "streaming", "in archive recovery"].contains(&state) {
        return wrong(format!("the member is {}", quoted(state)));
    }
    if is_leading(role) {
        return Ok(ReplicaReading { is_leader: true, ..ReplicaReading::default() });
    }
    if role == "standby_leader" {
        return wrong("the member leads a standby cluster, whose lag Patroni doesn't know; read a heartbeat instead");
    }
    let lag = member.get("replay_lag").or_else(|| member.get("lag"));
    match lag.and_then(Value::as_i64) {
        Some(lag) => u64::try_from(lag).map(behind).map_err(|_| ahead(&lag.to_string())),
        None => wrong("Patroni doesn't know how far the member is behind"),
    }
}

/// Elasticsearch: the answer of `/INDEX/_ccr/stats`. The follower reports the last checkpoint that it received from its
/// leader, so the checkpoints don't show a broken connection. Failed reads and a long time without a request do.
pub(super) fn elasticsearch(stats: &Value, index: &str) -> Result<ReplicaReading, ReadFailure> {
    let Some(follower) = items(stats, "indices").find(|shard| text(shard, "index") == index) else {
        return wrong(format!("the answer has no index {}; is it a follower?", quoted(index)));
    };
    let is_fatal = |value: &Value| value.get("fatal_exception").is_some_and(|fault| !fault.is_null());
    let (mut lag, mut shards) = (0_u64, 0);
    for shard in items(follower, "shards") {
        shards += 1;
        if is_fatal(shard) || is_fatal(follower) {
            return wrong("the follower has given up (fatal_exception); resume it");
        }
        if items(shard, "read_exceptions").next().is_some() {
            return wrong("the follower can't read from its leader (read_exceptions)");
        }
        let number = |field: &str| shard.get(field).and_then(Value::as_i64);
        // A follower that has never asked its leader reports -1 or nothing.
        let silent = number("time_since_last_read_millis").and_then(|ms| u64::try_from(ms).ok());
        let Some(silent) = silent else { return wrong("the follower has never asked its leader for anything") };
        if silent > SILENT_FOR {
            return wrong(format!("the follower has asked its leader for nothing for {} s", silent / 1_000));
        }
        let checkpoints = number("leader_global_checkpoint").zip(number("follower_global_checkpoint"));
        let Some((leader, follower)) = checkpoints else { return wrong("a shard tells no checkpoints") };
        let behind = i128::from(leader) - i128::from(follower);
        lag = lag.saturating_add(u64::try_from(behind).map_err(|_| ahead(&behind.to_string()))?);
    }
    if shards == 0 { wrong("the follower has no shards that follow; is it paused?") } else { Ok(behind(lag)) }
}

/// Weaviate: the answer of `/v1/nodes?output=verbose`. The lag is the number of objects that wait to be indexed:
/// searches don't find them yet.
pub(super) fn weaviate(answer: &Value, collection: Option<&str>) -> Result<ReplicaReading, ReadFailure> {
    let (mut waiting, mut nodes, mut shards) = (0_u64, 0, 0);
    for node in items(answer, "nodes") {
        nodes += 1;
        let status = text(node, "status");
        if !["HEALTHY", "INDEXING"].contains(&status) {
            return wrong(format!("the node {} is {}", quoted(text(node, "name")), quoted(status)));
        }
        let queued = |value: &Value, pointer: &str| match value.pointer(pointer) {
            None => Ok(0),
            Some(number) => number.as_i64().map_or_else(
                || wrong("a length of a queue is no whole number"),
                |length| u64::try_from(length).map_err(|_| ahead(&length.to_string())),
            ),
        };
        waiting = waiting.saturating_add(queued(node, "/batchStats/queueLength")?);
        let is_wanted = |shard: &&Value| collection.is_none_or(|wanted| text(shard, "class") == wanted);
        for shard in items(node, "shards").filter(is_wanted) {
            shards += 1;
            waiting = waiting.saturating_add(queued(shard, "/vectorQueueLength")?);
        }
    }
    match collection {
        _ if nodes == 0 => wrong("the answer has no nodes"),
        Some(name) if shards == 0 => wrong(format!("no node has a shard of {}", quoted(name))),
        _ => Ok(behind(waiting)),
    }
}
