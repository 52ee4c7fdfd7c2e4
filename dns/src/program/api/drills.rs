//! `/v1/drills` and `/v1/drill-records`. Takes requests that begin a drill, go on with it or end it; returns the drills
//! of the rules, whether they could begin, and what was counted while one is under way. Also keeps the records of
//! drills that ended.
//!
//! Whoever runs a drill asks again and again. Without that it ends by itself, so nothing here waits or runs.

mod counts;
mod facts;
pub(crate) mod records;

use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use bailiwick_rules::audit::Book;
use bailiwick_rules::drill::kept::{Refusal, Run};
use bailiwick_rules::drill::preflight::Verdict;
use bailiwick_rules::drill::record::Record;
use bailiwick_rules::drill::schedule;
use bailiwick_rules::drill::told::{DrillAsk, DrillLook, DrillStatus, DrillsReport};
use bailiwick_rules::id::DrillId;
use bailiwick_rules::report::DrillRecord;
use bailiwick_rules::rules::Drill;
use bailiwick_rules::table::{Revision, Table};
use bailiwick_rules::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::Api;
use super::reply::Problem;
use crate::state::snapshot::Snapshot;
use crate::text::nearest::suggestion;

pub(crate) use records::DrillRecords;

/// The longest record of a drill that is taken, in bytes.
pub(super) const LARGEST_RECORD: usize = 4 << 20;

/// What is kept for drills.
#[derive(Debug, Default)]
pub(crate) struct Drills {
    /// The second reading of the rules, by which counts are compared with fences.
    book: Mutex<Option<(Revision, Arc<Book>)>>,
    /// The records of drills that ended.
    pub(crate) records: DrillRecords,
}

impl Drills {
    fn book(&self, snapshot: &Snapshot) -> Arc<Book> {
        let revision = snapshot.table().revision();
        let mut kept = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((of, book)) if *of == revision => Arc::clone(book),
            _ => {
                let book = Arc::new(Book::read(snapshot.rules_bytes()));
                *kept = Some((revision, Arc::clone(&book)));
                book
            }
        }
    }
}

/// The drills of the rules in service, and whether each could begin now.
pub(super) async fn drills(State(api): State<Arc<Api>>) -> Result<Json<DrillsReport>, Problem> {
    apart(move || {
        let (snapshot, now) = (api.handle.snapshot_owned(), api.handle.now());
        let table = snapshot.table();
        let of = |(id, drill): &(DrillId, Drill)| (id.clone(), status(&api, &snapshot, drill));
        Json(DrillsReport {
            node: api.node.clone(),
            at: now,
            revision: table.revision().number,
            rules_sha256: table.revision().sha256_hex(),
            last: snapshot.health().drill.clone(),
            drills: table.drills().iter().map(of).collect(),
        })
    })
    .await
}

fn status(api: &Api, snapshot: &Snapshot, drill: &Drill) -> DrillStatus {
    let (table, now) = (snapshot.table(), api.handle.now());
    let has_region = |service: &&bailiwick_rules::table::Service| {
        service.regions.iter().any(|region| table.region(*region).id == drill.region)
    };
    let ttls = table.services().iter().filter(has_region).map(|service| service.ttl.max);
    DrillStatus {
        region: drill.region.clone(),
        next: schedule::next(drill, now),
        span_ms: drill.span().0,
        longest_ttl: ttls.max().unwrap_or(0),
        preflight: facts::looked(api, snapshot, drill),
    }
}

/// How a drill stands, and what was counted of its services.
pub(super) async fn look(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Json<DrillLook>, Problem> {
    apart(move || {
        let snapshot = api.handle.snapshot_owned();
        let (_, drill) = known(snapshot.table(), &name)?;
        let book = api.drills.book(&snapshot);
        let counted = counts::counted(&api, &snapshot, &book, drill);
        Ok(Json(DrillLook { last: snapshot.health().drill.clone(), counted }))
    })
    .await?
}

/// Begins a drill, or goes on with one. Queries see it when the response leaves.
pub(super) async fn ask(
    State(api): State<Arc<Api>>,
    body: Result<Json<DrillAsk>, JsonRejection>,
) -> Result<Json<DrillRecord>, Problem> {
    let Json(asked) = body.map_err(|rejection| {
        let how = "send JSON such as {\"name\": \"lon\", \"share\": 10, \"hold_ms\": 30000}";
        Problem::new(rejection.status(), format!("{}; {how}", rejection.body_text()))
    })?;
    if asked.began.is_none() {
        let (looking, name) = (Arc::clone(&api), asked.name.clone());
        let looked = apart(move || {
            let snapshot = looking.handle.snapshot_owned();
            let (_, drill) = known(snapshot.table(), name.as_str())?;
            Ok(facts::looked(&looking, &snapshot, drill))
        });
        let looked = looked.await??;
        if looked.verdict != Verdict::Go {
            let verdict = looked.verdict.as_str();
            let reasons = looked.reasons.into_iter().map(|reason| format!("{verdict}: {reason}"));
            return Err(Problem::all(StatusCode::CONFLICT, reasons.collect()));
        }
    }
    let name = asked.name.clone();
    api.handle.drill(asked.into()).await.map(Json).map_err(|refusal| match refusal {
        None => stopped(),
        Some(Refusal::Unknown) => unknown(api.handle.snapshot().table(), name.as_str()),
        Some(refusal @ Refusal::Share(_)) => Problem::new(StatusCode::BAD_REQUEST, format!("share: {refusal}")),
        Some(refusal) => Problem::new(StatusCode::CONFLICT, refusal.to_string()),
    })
}

/// The body of `DELETE /v1/drills/NAME`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ending {
    reason: String,
    /// Which run, by when and at which node it began; absent for the one that is under way.
    #[serde(default)]
    began: Option<Timestamp>,
    #[serde(default)]
    origin: Option<String>,
}

/// Ends the drill of this name. All clients come back at once. A run that is named ends even if this node was restarted
/// and doesn't know of it: other nodes and the edge learn its end from here.
pub(super) async fn end(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    body: Result<Json<Ending>, JsonRejection>,
) -> Result<Json<DrillRecord>, Problem> {
    let Json(Ending { reason, began, origin }) = body.map_err(|rejection| {
        let how = "send JSON such as {\"reason\": \"phones ring\"}";
        Problem::new(rejection.status(), format!("{}; {how}", rejection.body_text()))
    })?;
    let length = reason.chars().count();
    if reason.trim().is_empty() || length > 500 || reason.chars().any(char::is_control) {
        return Err(Problem::new(StatusCode::BAD_REQUEST, "reason: must be one line of at most 500 characters"));
    }
    let run = match (began, origin) {
        (Some(began), Some(origin)) => Some(Run { began, origin }),
        (None, None) => None,
        _ => return Err(Problem::new(StatusCode::BAD_REQUEST, "began and origin: name a run together, or name none")),
    };
    api.handle
        .end_drill(&name, run, &reason)
        .await
        .map(Json)
        .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, format!("no drill {name:?} is under way; see /v1/drills")))
}

/// The records of drills that ended, without traffic by minute.
#[derive(Serialize)]
pub(super) struct RecordList {
    node: String,
    /// The newest first.
    records: Vec<Record>,
}

/// The records of drills that ended.
pub(super) async fn records(State(api): State<Arc<Api>>) -> Json<RecordList> {
    let short = |record: Arc<Record>| Record { minutes: Vec::new(), ..Record::clone(&record) };
    let records = api.drills.records.newest_first().into_iter().map(short).collect();
    Json(RecordList { node: api.node.clone(), records })
}

/// The newest record of a drill, with traffic by minute.
pub(super) async fn record(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Json<Record>, Problem> {
    let found = api.drills.records.newest_first().into_iter().find(|record| record.drill.as_str() == name);
    let unknown = || Problem::new(StatusCode::NOT_FOUND, format!("this node has no record of a drill {name:?}"));
    found.map(|record| Json(Record::clone(&record))).ok_or_else(unknown)
}

/// Takes the record of a drill that ended, from whoever ran it.
pub(super) async fn put_record(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    body: Result<Json<Record>, JsonRejection>,
) -> Result<StatusCode, Problem> {
    let Json(record) = body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    if record.drill.as_str() != name {
        let message = format!("drill: is {}, but the path says {name:?}", record.drill);
        return Err(Problem::new(StatusCode::BAD_REQUEST, message));
    }
    known(api.handle.snapshot().table(), &name)?;
    api.drills.records.add(record);
    let bytes = api.drills.records.to_bytes();
    api.handle.keep(crate::state::store::Kind::Drills, Box::new(move |store| store.keep_drills(&bytes)));
    Ok(StatusCode::NO_CONTENT)
}

/// Runs work that takes a moment on a thread that serves no connections.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let fault = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "a fault of this program");
    tokio::task::spawn_blocking(work).await.map_err(fault)
}

/// Finds a drill of the rules.
fn known<'t>(table: &'t Table, name: &str) -> Result<(&'t DrillId, &'t Drill), Problem> {
    table.drill_named(name).map(|(id, drill, _)| (id, drill)).ok_or_else(|| unknown(table, name))
}

fn unknown(table: &Table, name: &str) -> Problem {
    let hint = suggestion(name, table.drills().iter().map(|(id, _)| id.as_str()));
    Problem::new(StatusCode::NOT_FOUND, format!("the rules have no drill {name:?}; {hint}"))
}

fn stopped() -> Problem {
    let message = "the server is shutting down or failed at it; look whether the drill is there, else ask again";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, message)
}
