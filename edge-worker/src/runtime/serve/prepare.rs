//! A request whose body is known in; where it may be sent, and what with, out. `serve` calls it.
//!
//! Four steps: names that were handed out are opened, the request is steered, its endpoints are planned, and what the
//! [`Driver`](crate::runtime::proxy::Driver) needs is put together.

use std::rc::Rc;

use bailiwick_rules::rules::{Allowance, Receipts};
use bailiwick_rules::steer::{Ask, Conditions, Local, PathClass, Steering, steer};
use bailiwick_rules::table::{Service, Table};
use bailiwick_rules::time::{Millis, Timestamp};
use serde_json::json;
use worker::Env;

use super::Recognized;
use crate::decide::attempt::Task;
use crate::decide::batch::{BatchInput, BatchPolicy};
use crate::decide::body::{Inspected, Needs};
use crate::decide::denial::Denial;
use crate::decide::envelope::Failure;
use crate::decide::headers::Headers;
use crate::decide::multipart::upload::UploadKind;
use crate::decide::plan::{self, Plan, PlanRequest, Target};
use crate::decide::rewrite::{Content, headers};
use crate::decide::route::Expect;
use crate::decide::route::{BodyForm, Class};
use crate::decide::source::Source;
use crate::decide::state;
use crate::decide::state::claim::{Claimed, NamedIds, claim, needs_keys};
use crate::decide::state::sealed_id::{Keyring, Owner};
use crate::decide::state::tuned::is_tuned;
use crate::runtime::client::Caller;
use crate::runtime::clock;
use crate::runtime::env;
use crate::runtime::feed::Snapshot;
use crate::runtime::memory;
use crate::runtime::proxy::Job;
use crate::runtime::receipt::{ReceiptPolicy, ReceiptSigner};
use crate::runtime::reply::{Reply, ResponseInfo};
use crate::runtime::request::ClientRequest;

/// What is to be done when it is known where a request may go.
pub(super) enum Preparation {
    /// It is answered here.
    Answered(Reply),
    /// It can be sent.
    Sendable(Box<Prepared>),
}

/// A request that was steered.
pub(super) struct Prepared {
    pub(super) task: Task,
    /// But for its headers and an upload.
    pub(super) job: Job,
    /// What is to be uploaded.
    pub(super) load: Option<UploadKind>,
}

/// Steers a request whose body is known, and plans where it may be sent.
#[inline(never)]
pub(super) fn prepare(
    asked: &mut ClientRequest,
    env: Env,
    snapshot: &Snapshot,
    info: &mut ResponseInfo,
    mut known: Recognized<'_>,
    mut body: Option<Content>,
    receipt_policy: ReceiptPolicy,
) -> Result<Preparation, Failure> {
    let mut opened = open(&env, &mut known, &mut body)?;
    headers::scope(&mut asked.headers, &opened.owner);
    let json = body.as_ref().and_then(Content::json);
    let affinity = affinity(known.table, &known.caller, json, asked, &info.request_id);
    let source = Source::of(opened.owner.tenant.as_deref(), known.caller.client.address, &affinity);
    let way = SteeringInput { affinity, source, now: clock::now() };
    let (plan, steering) = match planned(&env, snapshot, info, &known, body.as_ref(), &mut opened, &way)? {
        Planned::Listed(reply) => return Ok(Preparation::Answered(reply)),
        Planned::Sendable(plan, steering) => (plan, steering),
    };
    let receipt_signer = receipt_policy.engage(known.table, &known.caller, &steering, &info.request_id);
    Ok(Preparation::Sendable(Box::new(prepared(env, known, body, opened, plan, source, receipt_signer))))
}

/// A request once the names in it that were handed out are opened.
struct OpenedRequest {
    /// The model, by the client's name.
    model: Option<String>,
    owner: Owner,
    /// Where there are names to open or to seal.
    keys: Option<Keyring>,
    claimed: Claimed,
}

impl OpenedRequest {
    /// The model to steer by. One that a job made is where it was made, whatever the maps of models say.
    fn steered_model(&self) -> Option<&str> {
        self.model.as_deref().filter(|_| self.claimed.model.is_none())
    }
}

/// Opens what was handed out, and puts the endpoint's own names in its places.
fn open(env: &Env, known: &mut Recognized<'_>, body: &mut Option<Content>) -> Result<OpenedRequest, Failure> {
    let (table, service) = (known.table, known.caller.service);
    let model = body.as_ref().and_then(Content::model).or(known.route.model()).map(str::to_owned);
    let owner = state::owner(table, service, known.caller.tenant);
    let stores = body.as_ref().and_then(Content::json).is_some_and(Inspected::stores);
    let keys = known.keys.take();
    let (route, query) = (&mut known.route, &mut known.query);
    let named = NamedIds { route, query, body: json_of(body), model: model.as_deref() };
    let keys = match keys {
        None if stores || needs_keys(table, service, &named) => Some(state_keys(env)?),
        // Without keys such an id can't be used again. The answer is one all the same.
        None if named.body.as_deref().is_some_and(Inspected::keeps) => state_keys(env).ok(),
        keys => keys,
    };
    let claimed = claim(keys.as_ref(), table, service, &owner, named)?;
    Ok(OpenedRequest { model, owner, keys, claimed })
}

/// By what a request is steered beside the rules.
struct SteeringInput {
    affinity: String,
    source: Source,
    /// Conditions are those of now, not of when the body began to arrive.
    now: Timestamp,
}

/// What steering came to.
enum Planned {
    /// The models that are asked for are those of the rules.
    Listed(Reply),
    /// It can be sent.
    Sendable(Plan, Steering),
}

/// Steers a request.
fn planned(
    env: &Env,
    snapshot: &Snapshot,
    info: &mut ResponseInfo,
    known: &Recognized<'_>,
    body: Option<&Content>,
    opened: &mut OpenedRequest,
    way: &SteeringInput,
) -> Result<Planned, Failure> {
    let Recognized { table, caller, route, .. } = known;
    let service = table.service(caller.service);
    let local = || memory::with(|memory| memory.local(table, Some(route.pattern()), Some(way.source), way.now));
    let local = if opened.claimed.is_stateful { Local::default() } else { local() };
    let conditions = Conditions { health: &snapshot.health, local: &local, now: way.now };
    let path_class = if service.is_hub_path(&route.path()) { PathClass::Hub } else { PathClass::Inference };
    let has_secret = |name: &str| env::has(env, name);
    let mut place = opened.claimed.place.take();
    let ask = Ask { service: caller.service, client: caller.client, model: opened.steered_model(), path_class };
    if known.is_state() && place.is_none() {
        let tenant = format!("{}/{}", service.id, opened.owner.tenant.as_deref().unwrap_or_default());
        place = Some(plan::home(table, &ask, &tenant, has_secret)?);
    }
    let steering = steer(table, &ask, &conditions);
    info.steered = Some(way.now);
    if let Some(listed) = listed(known, opened, &steering, info) {
        return listed.map(Planned::Listed);
    }
    if steering.ordered.is_empty() {
        info.denied = Some(Denial::of(table, &ask, &steering));
    }
    let no_needs = Needs::default();
    let needs = body.map_or(&no_needs, Content::needs);
    let wanted = PlanRequest { model: ask.model, needs, conditions, affinity: &way.affinity };
    let mut plan = match &place {
        None => Plan::from_steering(table, caller.service, &steering, &wanted, has_secret)?,
        Some(place) => Plan::pinned(table, &steering, &wanted, has_secret, place)?,
    };
    if let Some(place) = place
        && route.is_collection()
        && !state::is_sole(table, caller.tenant, &place)
    {
        return Err(Failure::SharedList);
    }
    let has_tenant = caller.tenant.is_some();
    match (&opened.claimed.model, ask.model) {
        (Some(theirs), _) => plan.call_model(theirs),
        (None, Some(model)) if is_tuned(model) || has_tenant && model.contains(':') => {
            plan.keep_apart(model, has_tenant, |place| state::is_sole(table, caller.tenant, place))?;
        }
        _ => {}
    }
    if !needs.models.is_empty() {
        plan.keep_named_apart(needs, has_tenant, |place| state::is_sole(table, caller.tenant, place))?;
    }
    Ok(Planned::Sendable(plan, steering))
}

/// The answer to a request about models that nobody has to be asked: where all of the fence's endpoints have closed
/// lists of them.
fn listed(
    known: &Recognized<'_>,
    opened: &OpenedRequest,
    steering: &Steering,
    info: &ResponseInfo,
) -> Option<Result<Reply, Failure>> {
    let route = &known.route;
    if route.class() != Class::Models || opened.claimed.model.is_some() {
        return None;
    }
    // Only what a job made can be deleted.
    if route.method() == "DELETE" {
        return Some(Err(Failure::ModelNotFound { model: opened.model.clone().unwrap_or_default() }));
    }
    let names = plan::models(known.table, steering).filter(|_| !steering.ordered.is_empty())?;
    Some(models(&names, route.model(), info))
}

/// What the [`Driver`](crate::runtime::proxy::Driver) gets.
fn prepared(
    env: Env,
    known: Recognized<'_>,
    body: Option<Content>,
    opened: OpenedRequest,
    plan: Plan,
    source: Source,
    receipt_signer: Option<ReceiptSigner>,
) -> Prepared {
    let is_state = known.is_state();
    let Recognized { table, caller, route, query, .. } = known;
    let OpenedRequest { model, owner, keys, claimed } = opened;
    let service = table.service(caller.service);
    let is_sole = |target: &Target| state::is_sole(table, caller.tenant, &target.place());
    let hides_models = route.class() == Class::Models && model.is_none() && !plan.targets().iter().all(is_sole);
    let stored_stream =
        query.stream() && is_state && route.segments().first().is_some_and(|first| first == "responses");
    let expect = route.expect(stored_stream || body.as_ref().is_some_and(Content::stream));
    let is_upload = is_state && route.takes() == BodyForm::Form;
    let load = is_upload.then(|| if route.is(&["files"]) { UploadKind::File } else { UploadKind::Part });
    let answer_kind = route.answer_kind();
    let task = Task {
        plan,
        model: model.clone(),
        expect,
        answer_kind,
        choices: body.as_ref().map_or(1, Content::choices),
        stateful: claimed.is_stateful,
        reads_only: route.method() == "GET",
        limits: service.limits,
    };
    let job = Job {
        keepalive: keepalive(service, expect),
        answer_kind,
        env,
        route,
        query,
        headers: Headers::default(),
        body: body.map(Rc::new),
        upload: None,
        model,
        source,
        receipt_signer,
        ids: keys.map(|keys| (keys, owner)),
        hides_models,
        hold: None,
    };
    Prepared { task, job, load }
}

/// What judges the lines of a file that may turn out to be a batch's.
#[inline(never)]
pub(super) fn batch_input(
    asked: &ClientRequest,
    snapshot: &Snapshot,
    caller: &Caller,
    prepared: &Prepared,
) -> Option<BatchInput> {
    let table = snapshot.table.clone()?;
    let may_batch = table.service(caller.service).allow.contains(&Allowance::Batch);
    let target = prepared.task.plan.targets().first().filter(|_| may_batch)?.clone();
    let (keys, owner) = prepared.job.ids.clone()?;
    let is_sole = state::is_sole(&table, caller.tenant, &target.place());
    let (service, request) = (caller.service, asked.id.clone());
    Some(BatchInput::new(BatchPolicy { table, service, owner, keys, target, is_sole, request }))
}

/// How often a client that waits hears something. A receipt stands in the headers, so what needs one can't begin before
/// it is known where the request went.
fn keepalive(service: &Service, expect: Expect) -> Option<Millis> {
    service.keepalive.filter(|_| expect == Expect::Stream && service.receipts != Receipts::Required)
}

fn json_of(body: &mut Option<Content>) -> Option<&mut Inspected> {
    match body {
        Some(Content::Json(json)) => Some(json),
        _ => None,
    }
}

/// The keys that ids are sealed with, from the secret `STATE_KEY`. Read where they are used, and kept nowhere.
pub(super) fn state_keys(env: &Env) -> Result<Keyring, Failure> {
    env::text(env, "STATE_KEY").and_then(|secret| Keyring::parse(&secret)).ok_or(Failure::NoStateKey)
}

/// The fence's names, when every endpoint of the fence has a closed list of them.
fn models(names: &[String], one: Option<&str>, info: &ResponseInfo) -> Result<Reply, Failure> {
    let model = |id: &str| json!({ "id": id, "object": "model", "created": 0, "owned_by": "bailiwick" });
    match one {
        None => {
            let data: Vec<_> = names.iter().map(|name| model(name)).collect();
            Ok(info.json(200, &json!({ "object": "list", "data": data })))
        }
        Some(id) if names.iter().any(|name| name == id) => Ok(info.json(200, &model(id))),
        Some(id) => Err(Failure::ModelNotFound { model: id.to_owned() }),
    }
}

/// What keeps a client's related requests at one endpoint, where their common prefix is cached.
fn affinity(
    table: &Table,
    caller: &Caller,
    body: Option<&Inspected>,
    asked: &ClientRequest,
    request_id: &str,
) -> String {
    let tenant = caller.tenant.map_or("", |tenant| table.tenant(tenant).id.as_str());
    body.map(Inspected::affinity).unwrap_or_default().key(tenant, asked.header("x-session-id"), request_id)
}
