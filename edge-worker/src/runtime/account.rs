//! Counts how each request ended, and logs a line for each request that didn't go smoothly. Takes the outcome of a
//! request; changes metrics and the log. Called by `serve` and `proxy`. docs/edge-operations.md describes the fields of
//! the line.

use serde_json::{Map, Value, json};

use crate::decide::attempt::{End, Record, Stop};
use crate::decide::envelope::Failure;
use crate::decide::plan::Skip;
use crate::runtime::clock;
use crate::runtime::log;
use crate::runtime::metrics;
use crate::runtime::observe;
use crate::runtime::reply::ResponseInfo;

/// Counts and logs a request that was refused before anything was sent.
#[inline(never)]
pub(crate) fn refused(info: &ResponseInfo, failure: &Failure, status: u16) {
    metrics::request(service(info), failure.own_code());
    observe::refused(info, failure.own_code());
    if log::may_log_failure(clock::now()) {
        let mut line = line(info, failure.own_code(), Some(status));
        add_denied(&mut line, info);
        write_line(line, status >= 500);
    }
}

/// Counts, and perhaps logs, a successful answer that the Worker made itself.
#[inline(never)]
pub(crate) fn answered(info: &ResponseInfo, status: u16) {
    metrics::request(service(info), "ok");
    if log::is_all() {
        write_line(line(info, "ok", Some(status)), false);
    }
}

/// Counts and logs a request that was sent to endpoints, or was about to be sent. `failure` is the status and the code
/// of the failure that the client got instead of an answer. `is_unmeasured` says that the answer had no length, so the
/// client couldn't notice if it broke off. Returns the word for how the request ended.
#[inline(never)]
pub(crate) fn ran(
    info: &ResponseInfo,
    record: &Record,
    failure: Option<(u16, &'static str)>,
    is_unmeasured: bool,
) -> &'static str {
    let committed = record.committed();
    let code = match (failure, committed, record.end) {
        (Some((_, code)), ..) => code,
        (None, Some(_), None | Some(End::Whole | End::Piped)) => "ok",
        (None, Some(_), Some(end)) => end.as_str(),
        (None, None, _) => "client_gone",
    };
    metrics::request(service(info), code);
    metrics::attempts(record);
    if is_unmeasured {
        metrics::note("unmeasured_answer");
    }
    // It is normal that clients close the connection in the middle of a stream.
    let is_smooth = failure.is_none()
        && record.attempts.len() == 1
        && committed.is_some()
        && matches!(record.end, None | Some(End::Whole | End::Piped | End::ClientGone));
    let should_log = if is_smooth { log::is_all() } else { log::may_log_failure(clock::now()) };
    if should_log {
        let mut line = line_of_run(info, record, code, failure.map(|(status, _)| status));
        line.insert("unmeasured".to_owned(), is_unmeasured.into());
        write_line(line, !is_smooth);
    }
    code
}

/// The log line of a request that was sent to endpoints.
fn line_of_run(info: &ResponseInfo, record: &Record, code: &str, status: Option<u16>) -> Map<String, Value> {
    let mut line = line(info, code, status);
    let regions: Vec<&str> = record.attempts.iter().map(|attempt| attempt.region.as_str()).collect();
    let skipped: Map<String, Value> =
        record.skipped.iter().map(|skipped| (skipped.endpoint.to_string(), skipped.why.as_str().into())).collect();
    line.insert("attempts".to_owned(), record.header().into());
    line.insert("regions".to_owned(), json!(regions));
    line.insert("skipped".to_owned(), skipped.into());
    let no_secret = record.skipped.iter().filter(|skipped| skipped.why == Skip::NoSecret);
    let no_secret: Vec<String> = no_secret.map(|skipped| format!("{}/{}", skipped.region, skipped.endpoint)).collect();
    line.insert("no_secret".to_owned(), json!(no_secret));
    line.insert("region".to_owned(), json!(record.committed().map(|attempt| attempt.region.as_str())));
    line.insert("endpoint".to_owned(), json!(record.committed().map(|attempt| attempt.endpoint.as_str())));
    line.insert("stopped".to_owned(), json!(record.stopped.map(Stop::as_str)));
    line.insert("end".to_owned(), json!(record.end.map(End::as_str)));
    add_denied(&mut line, info);
    line
}

/// The fields that every log line has.
fn line(info: &ResponseInfo, code: &str, status: Option<u16>) -> Map<String, Value> {
    let whose = info.whose.as_ref();
    let tenant = whose.and_then(|whose| Some(whose.table.tenant(whose.tenant?).id.as_str()));
    let fields = json!({
        "event": "answer", "request_id": info.request_id, "service": whose.map(|_| service(info)), "tenant": tenant,
        "revision": info.revision, "status": status, "code": code, "ms": clock::now().since(info.began).0,
    });
    if let Value::Object(fields) = fields { fields } else { Map::new() }
}

/// Adds the reasons why no endpoint could be asked, if there was none.
fn add_denied(line: &mut Map<String, Value>, info: &ResponseInfo) {
    if let Some(denied) = &info.denied {
        let withheld: Map<String, Value> =
            denied.withheld.iter().map(|(region, reason)| (region.clone(), (*reason).into())).collect();
        line.insert("reason".to_owned(), denied.reason.into());
        line.insert("withheld".to_owned(), withheld.into());
    }
}

/// Writes the line to the log.
fn write_line(line: Map<String, Value>, is_warning: bool) {
    let line = Value::Object(line);
    if is_warning { log::warn(&line) } else { log::info(&line) }
}

/// The service's name; empty if the request reached no service.
fn service(info: &ResponseInfo) -> &str {
    info.whose.as_ref().map_or("", |whose| whose.table.service(whose.service).id.as_str())
}
