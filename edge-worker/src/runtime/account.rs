//! What became of a request, when it has ended: counted, and told in one log line unless all went smoothly. Called by
//! `serve` and `proxy`; the line's fields stand in docs/edge-operations.md.

use std::rc::Rc;

use bailiwick_rules::steer::{Ask, Steering, rank, stand};
use bailiwick_rules::table::{ServiceIndex, Table, TenantIndex};
use serde_json::{Map, Value, json};

use crate::decide::attempt::{End, Record, Stop};
use crate::decide::envelope::Failure;
use crate::decide::plan::Skip;
use crate::runtime::feed;
use crate::runtime::log;
use crate::runtime::metrics;
use crate::runtime::reply::Stamp;

/// Whose request it is, by the rules it was recognised by.
#[derive(Clone, Debug)]
pub(crate) struct Whose {
    /// The rules.
    pub(crate) table: Rc<Table>,
    /// The service.
    pub(crate) service: ServiceIndex,
    /// The tenant, if the service has any.
    pub(crate) tenant: Option<TenantIndex>,
}

/// Why a request has nowhere to go, in the words of `explain`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Denied {
    /// The one reason there is.
    pub(crate) reason: &'static str,
    /// The regions of the fence that were withheld, each with its own.
    pub(crate) withheld: Vec<(String, &'static str)>,
}

impl Denied {
    /// Made of a steering that led nowhere.
    #[inline(never)]
    pub(crate) fn of(table: &Table, ask: &Ask<'_>, steering: &Steering) -> Rc<Self> {
        let name = |one: &bailiwick_rules::steer::Withheld| table.region(one.ranked.fenced.region).id.to_string();
        let withheld: Vec<(String, &'static str)> =
            steering.withheld.iter().map(|one| (name(one), one.reason.as_str())).collect();
        let ranking = rank(table, ask.service, &stand(table, &ask.client), ask.path_class);
        let one = withheld.first().map(|(_, reason)| *reason);
        let reason = match one {
            _ if ranking.fence_by.is_none() => "no_rule",
            _ if ranking.order.is_empty() => "empty_fence",
            _ if ranking.only == Some(None) => "hub_outside",
            Some(one) if withheld.iter().all(|(_, reason)| *reason == one) => one,
            Some(_) => "withheld",
            None => "no_endpoint",
        };
        Rc::new(Self { reason, withheld })
    }
}

/// A request that was refused before anything was sent.
#[inline(never)]
pub(crate) fn refused(stamp: &Stamp, failure: &Failure, status: u16) {
    metrics::request(service(stamp), failure.word());
    if log::may_tell_failure(feed::now()) {
        let mut line = line(stamp, failure.word(), Some(status));
        add_denied(&mut line, stamp);
        tell(line, status >= 500);
    }
}

/// An answer of our own making that is no failure.
#[inline(never)]
pub(crate) fn answered(stamp: &Stamp, status: u16) {
    metrics::request(service(stamp), "ok");
    if log::is_all() {
        tell(line(stamp, "ok", Some(status)), false);
    }
}

/// A request that was sent to endpoints, or was about to be. `failure` is what its client was told instead of an
/// answer; `is_unmeasured`, whether the answer broke off without a length by which the client could see that.
#[inline(never)]
pub(crate) fn ran(stamp: &Stamp, record: &Record, failure: Option<(u16, &'static str)>, is_unmeasured: bool) {
    let committed = record.committed();
    let code = match (failure, committed, record.end) {
        (Some((_, code)), ..) => code,
        (None, Some(_), None | Some(End::Whole)) => "ok",
        (None, Some(_), Some(end)) => end.as_str(),
        (None, None, _) => "client_gone",
    };
    metrics::request(service(stamp), code);
    metrics::attempts(record);
    if is_unmeasured {
        metrics::note("unmeasured_answer");
    }
    // A client that leaves in the middle of a stream has what it wanted.
    let is_smooth = failure.is_none()
        && record.attempts.len() == 1
        && committed.is_some()
        && matches!(record.end, None | Some(End::Whole | End::ClientGone));
    let is_told = if is_smooth { log::is_all() } else { log::may_tell_failure(feed::now()) };
    if is_told {
        let mut line = line_of_run(stamp, record, code, failure.map(|(status, _)| status));
        line.insert("unmeasured".to_owned(), is_unmeasured.into());
        tell(line, !is_smooth);
    }
}

fn line_of_run(stamp: &Stamp, record: &Record, code: &str, status: Option<u16>) -> Map<String, Value> {
    let mut line = line(stamp, code, status);
    let regions: Vec<&str> = record.attempts.iter().map(|attempt| attempt.region.as_str()).collect();
    let skipped: Map<String, Value> =
        record.skipped.iter().map(|one| (one.endpoint.to_string(), one.why.as_str().into())).collect();
    line.insert("attempts".to_owned(), record.header().into());
    line.insert("regions".to_owned(), json!(regions));
    line.insert("skipped".to_owned(), skipped.into());
    let unkeyed = record.skipped.iter().filter(|one| one.why == Skip::NoSecret);
    let unkeyed: Vec<String> = unkeyed.map(|one| format!("{}/{}", one.region, one.endpoint)).collect();
    line.insert("no_secret".to_owned(), json!(unkeyed));
    line.insert("region".to_owned(), json!(record.committed().map(|attempt| attempt.region.as_str())));
    line.insert("endpoint".to_owned(), json!(record.committed().map(|attempt| attempt.endpoint.as_str())));
    line.insert("stopped".to_owned(), json!(record.stopped.map(Stop::as_str)));
    line.insert("end".to_owned(), json!(record.end.map(End::as_str)));
    add_denied(&mut line, stamp);
    line
}

/// The fields of every line.
fn line(stamp: &Stamp, code: &str, status: Option<u16>) -> Map<String, Value> {
    let whose = stamp.whose.as_ref();
    let tenant = whose.and_then(|whose| Some(whose.table.tenant(whose.tenant?).id.as_str()));
    let fields = json!({
        "event": "answer", "request_id": stamp.request_id, "service": whose.map(|_| service(stamp)), "tenant": tenant,
        "revision": stamp.revision, "status": status, "code": code, "ms": feed::now().since(stamp.began).0,
    });
    if let Value::Object(fields) = fields { fields } else { Map::new() }
}

fn add_denied(line: &mut Map<String, Value>, stamp: &Stamp) {
    if let Some(denied) = &stamp.denied {
        let withheld: Map<String, Value> =
            denied.withheld.iter().map(|(region, reason)| (region.clone(), (*reason).into())).collect();
        line.insert("reason".to_owned(), denied.reason.into());
        line.insert("withheld".to_owned(), withheld.into());
    }
}

fn tell(line: Map<String, Value>, is_warning: bool) {
    let line = Value::Object(line);
    if is_warning { log::warn(&line) } else { log::info(&line) }
}

/// The service's name; none for a request that never got to one.
fn service(stamp: &Stamp) -> &str {
    stamp.whose.as_ref().map_or("", |whose| whose.table.service(whose.service).id.as_str())
}
