//! Handles one request from start to end. Takes the request, returns the [`Answer`]. Called by `runtime`.
//!
//! The steps: recognise host, tenant and client; read and inspect the body; steer the request and plan its endpoints
//! (`prepare`). Then the [`Driver`] sends the request.

mod prepare;

use std::rc::Rc;

use bailiwick_rules::table::Table;
use futures_util::future::LocalBoxFuture;
use serde_json::json;

use crate::decide::body::scope::Scope;
use crate::decide::body::{Inspected, Terms};
use crate::decide::buffer_pool::PooledBuffer;
use crate::decide::envelope::{Failure, Limited, PinFault};
use crate::decide::inflight::Reservation;
use crate::decide::logs::Subject;
use crate::decide::multipart::form::Form;
use crate::decide::multipart::is_form;
use crate::decide::pin::{OPERATOR, PIN, Pin};
use crate::decide::rewrite::{Content, headers};
use crate::decide::route::query::Query;
use crate::decide::route::{BodyForm, Class, Route};
use crate::decide::rules_state::Age;
use crate::decide::secrets;
use crate::decide::state;
use crate::decide::state::sealed_id::{Keyring, Owner};
use crate::platform::{Background, Env};
use crate::runtime::account;
use crate::runtime::client::{self, Caller, Credentials, Origin};
use crate::runtime::cors::{self, OriginPolicy};
use crate::runtime::exchange::Exchange;
use crate::runtime::explain;
use crate::runtime::feed::{self, Snapshot};
use crate::runtime::incoming::{drain, read_body};
use crate::runtime::leases;
use crate::runtime::logs::LogSender;
use crate::runtime::observe;
use crate::runtime::proxy::{Answer, Driver, add_budget_headers, budget_of};
use crate::runtime::receipt::{self, ReceiptPolicy};
use crate::runtime::reply::{Reply, ResponseInfo};
use crate::runtime::request::ClientRequest;
use crate::runtime::uploads::{self, OutboundUpload};
use prepare::{Preparation, PreparedRequest, batch_input, prepare, state_keys};

/// The prefix of the Worker's own paths, under every host.
const OURS: &str = "/.well-known/bailiwick/";

/// Answers a request.
///
/// The steps that most requests need are functions that aren't inlined. Waits that few requests need are boxed futures.
/// One large function would be 100 kB of Wasm, and slower for every request.
pub(crate) async fn serve(mut request: ClientRequest, exchange: Exchange, env: Env, background: &Background) -> Answer {
    let mut info = ResponseInfo::new(request.id.clone());
    if let Some(fresh) = feed::refresh(&env, background) {
        fresh.await;
    }
    if let Some(settings) = feed::current_settings() {
        observe::post_later(&env, background, &settings);
    }
    exchange.note_feeds_done();
    let snapshot = feed::snapshot();
    info.revision = revision(&snapshot);
    if let Age::Stale(age) | Age::TooOld(age) = snapshot.age {
        info.rules_age = Some(age.0 / 1000);
    }
    let log_sender = LogSender::of(snapshot.table.as_deref(), &request, &env);
    let page = OriginPolicy::of(&request, snapshot.table.as_deref());
    let answered = match page.as_ref().and_then(|page| of_page(page, &request, &info)) {
        Some(at_once) => at_once.map(Answer::Whole),
        None => answer(&mut request, exchange, env, background, &snapshot, &mut info, log_sender.as_ref()).await,
    };
    let mut answer = match answered {
        Ok(answer) => answer,
        Err(failure) => {
            recognise_host(&mut info, &snapshot, &request);
            Answer::Whole(refused(&mut request, &info, failure, log_sender.as_ref()).await)
        }
    };
    match (page, &info.whose) {
        (Some(page), _) => page.write(answer.headers()),
        (None, Some(whose)) => cors::write_for_none(whose.table.service(whose.service), answer.headers()),
        (None, None) => {}
    }
    answer
}

/// Answers a web page's request before its key is read: a preflight, which has no key, or a request from an origin that
/// isn't allowed. `None` for any other request.
#[inline(never)]
fn of_page(page: &OriginPolicy, request: &ClientRequest, info: &ResponseInfo) -> Option<Result<Reply, Failure>> {
    let refused = (*page == OriginPolicy::Refused).then_some(Err(Failure::OriginNotAllowed));
    page.preflight(request, info).or(refused)
}

/// Notes the service of a request that was refused before its tenant was known. The host names the service.
#[inline(never)]
fn recognise_host(info: &mut ResponseInfo, snapshot: &Snapshot, request: &ClientRequest) {
    if info.whose.is_none() {
        let service = snapshot.table.as_deref().and_then(|table| client::service_of(table, &request.address.host));
        info.whose = service.and_then(|service| snapshot.whose(service, None));
    }
}

/// Answers a request that is refused, after its body was drained.
#[inline(never)]
fn refused<'a>(
    request: &'a mut ClientRequest,
    info: &'a ResponseInfo,
    failure: Failure,
    log_sender: Option<&'a LogSender>,
) -> LocalBoxFuture<'a, Reply> {
    Box::pin(async move {
        let status = info.failure_headers(&failure, None).0;
        account::refused(info, &failure, status);
        if let Some(log_sender) = log_sender.filter(|_| !request.address.path.starts_with(OURS)) {
            log_sender.unsent(info, failure.own_code(), status);
        }
        // A body that was read in one call has no pieces left.
        if let Some(mut pieces) = request.pieces() {
            drain(&mut pieces).await;
        }
        let mut reply = info.failure(&failure);
        if let (Failure::Limited(Limited::Budget { .. }), Some(whose)) = (&failure, &info.whose) {
            add_budget_headers(whose, &mut reply.headers);
        }
        reply
    })
}

/// The revision in use as text: `7`, or `7;feed=invalid` if the feed offers a document that can't be used.
fn revision(snapshot: &Snapshot) -> Option<String> {
    let number = snapshot.table.as_ref()?.revision().number;
    Some(snapshot.trouble.map_or_else(|| number.to_string(), |trouble| format!("{number};feed={trouble}")))
}

/// Answers a request: recognises the caller, checks the request and its body, makes a plan, and starts the attempts.
async fn answer(
    request: &mut ClientRequest,
    mut exchange: Exchange,
    env: Env,
    background: &Background,
    snapshot: &Snapshot,
    info: &mut ResponseInfo,
    log_sender: Option<&LogSender>,
) -> Result<Answer, Failure> {
    if request.address.path.starts_with(OURS) {
        let reply = ours(request, &env, snapshot, info).await?;
        account::answered(info, reply.status);
        return Ok(Answer::Whole(reply));
    }
    let table = snapshot.rules()?;
    let mut recognised = RecognisedRequest::of(request, snapshot, table, info)?;
    let service = table.service(recognised.caller.service);
    let receipt_policy = match ReceiptPolicy::closed(service.receipts) {
        Some(closed) => closed,
        None => ReceiptPolicy::open(&env, service.receipts).await?,
    };
    recognised.check(request, &env)?;
    let mut reservation = Reservation::default();
    let body = if recognised.takes_body() {
        let bytes = read_body(request, &mut exchange, &service.limits, &mut reservation).await?;
        Some(recognised.inspect(request, bytes)?)
    } else {
        None
    };
    let caller = recognised.caller;
    let prepared = match prepare(request, env, snapshot, info, recognised, body, receipt_policy)? {
        Preparation::Answered(reply) => {
            account::answered(info, reply.status);
            if let Some(log_sender) = log_sender {
                log_sender.unsent(info, "ok", reply.status);
            }
            return Ok(Answer::Whole(reply));
        }
        Preparation::Sendable(prepared) => prepared,
    };
    let lines = prepared.load.and_then(|_| batch_input(request, snapshot, &caller, &prepared));
    let PreparedRequest { task, mut job, load } = *prepared;
    if let Some(load) = load {
        let upload = OutboundUpload::begin(request, load, lines, &service.allow, &service.limits, &mut reservation);
        job.upload = Some(upload.await?);
    }
    job.reservation = Some(Rc::new(reservation));
    job.log_sender = log_sender.cloned();
    job.headers = core::mem::take(&mut request.headers);
    if let (Some(_), Some(table)) = (&job.metering, &snapshot.table)
        && (budget_of(table, caller.tenant).is_some()
            || task.plan.targets().iter().any(|target| target.quota().is_some()))
    {
        leases::refresh(table, &job.env, background);
    }
    Ok(Driver::new(task, job, info.clone(), exchange).respond().await)
}

/// What is known of a request before its body is read.
struct RecognisedRequest<'t> {
    table: &'t Table,
    caller: Caller,
    route: Route,
    query: Query,
    /// The keys that ids are sealed with, if the request is about state.
    keys: Option<Keyring>,
    /// The region that the operator names.
    pin: Option<Pin>,
}

impl<'t> RecognisedRequest<'t> {
    /// Recognises the service, the tenant and the route of a request.
    #[inline(never)]
    fn of(
        request: &ClientRequest,
        snapshot: &Snapshot,
        table: &'t Table,
        info: &mut ResponseInfo,
    ) -> Result<Self, Failure> {
        let address = &request.address;
        // The query is read before the key: a client that puts its key into the query gets an error that says so.
        let query = Query::parse(&address.query);
        let credentials = Credentials::of(request);
        let caller = client::recognise(table, &address.host, &credentials, &Origin::of(request));
        let route = Route::parse(&request.method, &address.path);
        let is_good = query.is_ok() && route.is_ok();
        // A request of a known client that asks for nothing known has an event, too.
        if let Ok(caller) = &caller
            && (is_good || !table.sinks().is_empty())
        {
            info.whose = snapshot.whose(caller.service, caller.tenant);
            info.logged = logged(request, table, caller, route.as_ref().ok());
        }
        Ok(Self { table, query: query?, caller: caller?, route: route?, keys: None, pin: None })
    }

    /// Refuses a request before its body is read if it would be refused later anyway.
    fn check(&mut self, request: &ClientRequest, env: &Env) -> Result<(), Failure> {
        headers::check_encoding(request.header("content-encoding"))?;
        self.pin = pinned(request, env, self.table)?;
        self.check_pin(self.route.class() != Class::Inference)?;
        if self.is_state() {
            self.keys = Some(state_keys(env)?);
        }
        Ok(())
    }

    /// Refuses a pin (the region that an operator names) if `has_place`: the request has to go to a certain endpoint,
    /// or isn't inference.
    fn check_pin(&self, has_place: bool) -> Result<(), Failure> {
        match self.pin.is_some() && has_place {
            true => Err(Failure::BadPin { wrong: PinFault::State }),
            false => Ok(()),
        }
    }

    fn is_state(&self) -> bool {
        self.route.class() == Class::State
    }

    /// Whether the whole body is read before the request is planned. An upload is read later, while it is sent.
    fn takes_body(&self) -> bool {
        match self.route.takes() {
            BodyForm::Nothing => false,
            BodyForm::Form => !self.is_state(),
            BodyForm::Json | BodyForm::JsonOrForm => true,
        }
    }

    /// Reads the body as a form or as JSON, and checks its fields.
    #[inline(never)]
    fn inspect(&self, request: &ClientRequest, bytes: PooledBuffer) -> Result<Content, Failure> {
        let service = self.table.service(self.caller.service);
        let content_type = request.header("content-type").unwrap_or_default();
        let is_form = match self.route.takes() {
            BodyForm::Form => true,
            // A body whose Content-Type isn't a form's is read as JSON, and sent as JSON.
            BodyForm::JsonOrForm => is_form(content_type),
            BodyForm::Json | BodyForm::Nothing => false,
        };
        Ok(if is_form {
            Content::Form(Form::read(content_type, bytes, &self.route, &service.allow)?, uploads::boundary(request))
        } else {
            let Owner { service: name, tenant } = state::owner(self.table, self.caller.service, self.caller.tenant);
            let scope = Scope { service: name, tenant, request: request.id.clone() };
            Content::Json(Inspected::json(bytes, &self.route, &Terms { allow: &service.allow, scope })?)
        })
    }
}

/// What is known of a request for its event, if the rules have sinks.
fn logged(request: &ClientRequest, table: &Table, caller: &Caller, route: Option<&Route>) -> Option<Rc<Subject>> {
    Subject::of(table, caller.service, &caller.client, route, request.header("traceparent"), &request.id)
}

/// The region that the operator names for this request. A request of anybody else that names a region is refused. If
/// the header were ignored, the sender would believe that the answer comes from the named region.
#[inline(never)]
fn pinned(request: &ClientRequest, env: &Env, table: &Table) -> Result<Option<Pin>, Failure> {
    let Some(value) = request.header(PIN) else { return Ok(None) };
    let is_operators = request.header(OPERATOR).is_some_and(|token| explain::is_operators_token(env, token));
    if !is_operators {
        return Err(Failure::PinUnauthorised);
    }
    Pin::read(value, table).map(Some)
}

/// Answers the paths below [`OURS`].
#[inline(never)]
fn ours<'a>(
    request: &'a ClientRequest,
    env: &'a Env,
    snapshot: &'a Snapshot,
    info: &'a ResponseInfo,
) -> LocalBoxFuture<'a, Result<Reply, Failure>> {
    Box::pin(async move {
        match request.address.path.strip_prefix(OURS).unwrap_or_default() {
            "healthz" => Ok(healthz(request, env, snapshot, info)),
            "jwks.json" => Ok(info.json(200, &receipt::public(env).await)),
            "explain" => explain::answer(request, env, snapshot, info),
            "metrics" => explain::metrics(request, env, snapshot, info),
            #[cfg(feature = "vectors")]
            "test/vectors" => Ok(vectors(request, info).await),
            #[cfg(feature = "vectors")]
            "test/panic" => panic!("a prompt: {}", request.body().url()),
            _ => Err(Failure::UnknownPath),
        }
    })
}

/// The health page: says whether this Worker can steer, and by which rules and reports. Nothing on this page is secret.
/// The operator also sees which endpoints lack a credential.
fn healthz(request: &ClientRequest, env: &Env, snapshot: &Snapshot, info: &ResponseInfo) -> Reply {
    let revision = snapshot.table.as_ref().map(|table| table.revision());
    let status = match snapshot.rules() {
        Ok(_) => "ok",
        Err(Failure::RulesTooOld { .. }) => "rules too old",
        Err(_) => "no rules",
    };
    let (answering, sources) = snapshot.sources;
    let mut value = json!({
        "status": status,
        "revision": revision.map(|revision| revision.number),
        "rules_sha256": revision.map(|revision| revision.sha256_hex()),
        "rules_feed": snapshot.trouble.unwrap_or("ok"),
        "rules_age_seconds": snapshot.confirmed.map(|age| age.0 / 1000),
        "rules_sources": { "answering": answering, "all": sources },
        "health_reports": snapshot.nodes,
        "time": snapshot.now.to_string(),
    });
    if let (Some(missing), Some(fields)) = (explain::operators_health(request, env, snapshot), value.as_object_mut()) {
        fields.insert("no_secret".to_owned(), secrets::to_json(&missing));
    }
    info.json(if status == "ok" { 200 } else { 503 }, &value)
}

/// Runs a file of shared test vectors. The native tests run the same files.
#[cfg(feature = "vectors")]
async fn vectors(request: &ClientRequest, info: &ResponseInfo) -> Reply {
    let text = request.body().text().await;
    match bailiwick_rules::testing::run(&text) {
        Ok(cases) => info.json(200, &json!({ "cases": cases })),
        Err(message) => info.json(422, &json!({ "message": message })),
    }
}
