//! Prepares a request to be sent. Takes a request whose body was inspected; returns the endpoints that it may be sent
//! to, and all that the [`Driver`](crate::runtime::proxy::Driver) needs to send it. Called by `serve`. A fence is the
//! list of the regions that may process a client's data.
//!
//! There are four steps: open sealed ids, steer the request, plan its endpoints, and make the driver's task and job.

use std::rc::Rc;

use bailiwick_rules::quota::Refusal;
use bailiwick_rules::rollout::{Choice, choice_in};
use bailiwick_rules::rules::{Allowance, Limits, Receipts, Streams};
use bailiwick_rules::steer::{
    Ask, Conditions, Local, PathClass, Ranking, Reason, Steering, by_path, decide, rank_for, stand,
};
use bailiwick_rules::table::{RegionIndex, Service, Table};
use bailiwick_rules::time::{Millis, Timestamp};
use serde_json::json;

use super::RecognisedRequest;
use crate::decide::admission::{self, Slot};
use crate::decide::attempt::Task;
use crate::decide::batch::{BatchInput, BatchPolicy};
use crate::decide::body::{Inspected, Needs};
use crate::decide::denial::Denial;
use crate::decide::envelope::{Failure, Limited};
use crate::decide::headers::Headers;
use crate::decide::multipart::upload::UploadKind;
use crate::decide::plan::{self, Plan, PlanRequest, Target};
use crate::decide::quota::{Demand, Output};
use crate::decide::rewrite::{Content, headers};
use crate::decide::route::Expect;
use crate::decide::route::{BodyForm, Class, Route};
use crate::decide::sender::Sender;
use crate::decide::shed::{self, sheds};
use crate::decide::stale::{stale, stale_at};
use crate::decide::state;
use crate::decide::state::claim::{IdClaims, NamedIds, claim, needs_keys};
use crate::decide::state::sealed_id::{Keyring, Owner};
use crate::decide::state::tuned::is_tuned;
use crate::platform::Env;
use crate::runtime::client::Caller;
use crate::runtime::clock;
use crate::runtime::env;
use crate::runtime::feed::Snapshot;
use crate::runtime::memory;
use crate::runtime::observe::Observation;
use crate::runtime::proxy::{Job, Metering, budget_of};
use crate::runtime::receipt::{ReceiptPolicy, ReceiptSigner};
use crate::runtime::reply::{Reply, ResponseInfo};
use crate::runtime::request::ClientRequest;

/// The header in which an application names the versions of bundles that a request was made with:
/// `prompts@VERSION;region=REGION`.
const BUNDLE: &str = "x-bailiwick-bundle";

/// The result of preparing a request.
pub(super) enum Preparation {
    /// The Worker answers the request itself.
    Answered(Reply),
    /// The request can be sent to an endpoint.
    Sendable(Box<PreparedRequest>),
}

/// A request that was steered and planned.
pub(super) struct PreparedRequest {
    pub(super) task: Task,
    /// The job, complete except for the headers and an upload, which `serve` adds.
    pub(super) job: Job,
    /// The kind of upload, if the request is one.
    pub(super) load: Option<UploadKind>,
}

/// Steers a request whose body was inspected, and plans where it may be sent.
#[inline(never)]
pub(super) fn prepare(
    request: &mut ClientRequest,
    env: Env,
    snapshot: &Snapshot,
    info: &mut ResponseInfo,
    mut recognised: RecognisedRequest<'_>,
    mut body: Option<Content>,
    receipt_policy: ReceiptPolicy,
) -> Result<Preparation, Failure> {
    let mut opened = open(&env, &mut recognised, &mut body)?;
    headers::scope(&mut request.headers, &opened.owner);
    let json = body.as_ref().and_then(Content::json);
    let affinity = affinity(recognised.table, &recognised.caller, json, request, &info.request_id);
    let sender = Sender::of(opened.owner.tenant.as_deref(), recognised.caller.client.address, &affinity);
    let choice = choice(recognised.table, &recognised.caller, request);
    let input = SteeringInput { affinity, sender, choice, now: clock::now() };
    let (mut plan, steering) = match planned(&env, snapshot, info, &recognised, body.as_ref(), &mut opened, &input)? {
        PlanOutcome::Listed(reply) => return Ok(Preparation::Answered(reply)),
        PlanOutcome::Sendable(plan, steering) => (plan, steering),
    };
    let metering = metering(recognised.table, &recognised.caller, &recognised.route, body.as_ref());
    let slot = admit(&recognised, snapshot, &mut plan, metering.as_deref())?;
    let receipt_signer = receipt_policy.engage(recognised.table, &recognised.caller, &steering, info);
    let mut prepared = prepared(env, recognised, body, opened, plan, sender, receipt_signer);
    (prepared.job.metering, prepared.job.slot) = (metering, slot);
    Ok(Preparation::Sendable(Box::new(prepared)))
}

/// The model and the ids of a request, after sealed ids were opened.
struct OpenedRequest {
    /// The client's name of the model.
    model: Option<String>,
    owner: Owner,
    /// The keys for sealing ids, if there are ids to open or to seal.
    keys: Option<Keyring>,
    claimed: IdClaims,
    /// Counts the request for the DNS nodes, from its steering on.
    observation: Option<Observation>,
}

impl OpenedRequest {
    /// The model to steer by. `None` for a fine-tuned model, which exists only at the endpoint that made it.
    fn steered_model(&self) -> Option<&str> {
        self.model.as_deref().filter(|_| self.claimed.model.is_none())
    }
}

/// Opens the sealed ids in path, query and body, and replaces each by the endpoint's own id.
fn open(
    env: &Env,
    recognised: &mut RecognisedRequest<'_>,
    body: &mut Option<Content>,
) -> Result<OpenedRequest, Failure> {
    let (table, service) = (recognised.table, recognised.caller.service);
    let model = body.as_ref().and_then(Content::model).or(recognised.route.model()).map(str::to_owned);
    let owner = state::owner(table, service, recognised.caller.tenant);
    let stores = body.as_ref().and_then(Content::json).is_some_and(Inspected::stores);
    let keys = recognised.keys.take();
    let (route, query) = (&mut recognised.route, &mut recognised.query);
    let named = NamedIds { route, query, body: json_of(body), model: model.as_deref() };
    let keys = match keys {
        None if stores || needs_keys(table, service, &named) => Some(state_keys(env)?),
        // The request is served even without keys. Then the client can't use an id in the answer again.
        None if named.body.as_deref().is_some_and(Inspected::keeps) => state_keys(env).ok(),
        keys => keys,
    };
    let claimed = claim(keys.as_ref(), table, service, &owner, named)?;
    Ok(OpenedRequest { model, owner, keys, claimed, observation: None })
}

/// The inputs of steering besides the rules.
struct SteeringInput {
    affinity: String,
    sender: Sender,
    /// The version of the bundle that a rollout of the service moves.
    choice: Option<Choice>,
    /// The time at which the body has arrived. The conditions of this time count.
    now: Timestamp,
}

/// The result of steering.
enum PlanOutcome {
    /// The request asks for models, and the rules list them.
    Listed(Reply),
    /// The request can be sent to an endpoint.
    Sendable(Plan, Steering),
}

/// Moves a request away from its first region because of times to the first token, load, or a drill. Returns what the
/// answer's header says of a move because of load or a drill.
fn move_away(
    table: &Table,
    snapshot: &Snapshot,
    ask: &Ask<'_>,
    ranking: &Ranking,
    affinity: &str,
    steering: &mut Steering,
) -> Option<Rc<str>> {
    // If the times to the first token gave the request another first region, it has left its home. Shares move clients
    // away from their home, so they don't apply to it.
    let is_elsewhere = snapshot.first_tokens.order(table, ask, ranking, steering);
    let mut header = None;
    if !is_elsewhere && sheds(table.service(ask.service), ask.path_class) {
        let moved = snapshot.shares.shed(table, ask.service, ranking, affinity.as_bytes(), steering);
        header = moved.map(|moved| shed::header(table, &moved));
    }
    if let Some(drilled) = snapshot.drilled.filter(|_| ask.path_class == PathClass::Inference)
        && drilled.take_away(table, affinity.as_bytes(), steering)
    {
        header = shed::drilled_header(table, drilled, steering);
    }
    header
}

/// Steers a request, and plans its endpoints in order.
fn planned(
    env: &Env,
    snapshot: &Snapshot,
    info: &mut ResponseInfo,
    recognised: &RecognisedRequest<'_>,
    body: Option<&Content>,
    opened: &mut OpenedRequest,
    input: &SteeringInput,
) -> Result<PlanOutcome, Failure> {
    let RecognisedRequest { table, caller, route, .. } = recognised;
    let service = table.service(caller.service);
    let local = || memory::with(|memory| memory.local(table, Some(route.pattern()), Some(input.sender), input.now));
    let local = if opened.claimed.is_stateful { Local::default() } else { local() };
    let conditions = Conditions { health: &snapshot.health, local: &local, now: input.now };
    let has_secret = |name: &str| env::has(env, name);
    let mut place = opened.claimed.place.take();
    let ask = ask_of(recognised, opened.steered_model());
    if recognised.is_state() && place.is_none() {
        let tenant = format!("{}/{}", service.id, opened.owner.tenant.as_deref().unwrap_or_default());
        place = Some(plan::home(table, &ask, &tenant, has_secret)?);
    }
    let standing = stand(table, &ask.client);
    let ranking = rank_for(table, &ask, &standing);
    let mut steering = decide(table, &ranking, ask.model, &conditions);
    info.stale = recognised.pin.map_or_else(
        || stale(table, ranking.needs, &steering, &conditions),
        |pin| stale_at(table, ranking.needs, pin.region, &conditions),
    );
    let may_move = place.is_none() && !opened.claimed.is_stateful && recognised.pin.is_none();
    recognised.check_pin(place.is_some() || opened.claimed.is_stateful)?;
    if may_move {
        info.shed = move_away(table, snapshot, &ask, &ranking, &input.affinity, &mut steering);
    }
    info.steered = Some(input.now);
    // A request that an operator sends to a named region isn't counted: it is no demand, and no rollout is judged by
    // it.
    let whose = info.whose.as_ref().filter(|_| recognised.pin.is_none());
    let observation = whose.and_then(|whose| Observation::begin(table, whose, &standing, &ranking));
    if let Some(listed) = listed(recognised, opened, &steering, info) {
        return listed.map(PlanOutcome::Listed);
    }
    if steering.ordered.is_empty() {
        info.denied = Some(Denial::of(table, &ask, &steering));
    }
    let no_needs = Needs::default();
    let needs = body.map_or(&no_needs, Content::needs);
    let rollout = table.rollout_of(caller.service);
    let (choice, affinity) = (input.choice, &input.affinity);
    let plan_request = PlanRequest { rollout, model: ask.model, needs, conditions, arm: None, choice, affinity };
    let mut plan = match &place {
        None if let Some(pin) = recognised.pin => Plan::in_region(table, &steering, &plan_request, has_secret, pin)?,
        None => Plan::from_steering(table, caller.service, &steering, &plan_request, has_secret)?,
        Some(place) => Plan::pinned(table, &steering, &plan_request, has_secret, place)?,
    };
    if may_move && route.class() == Class::Inference {
        check_spill(recognised, &ranking, &steering, &plan)?;
    }
    if let Some(place) = place
        && route.is_collection()
        && !state::is_sole(table, caller.tenant, &place)
    {
        return Err(Failure::SharedList);
    }
    keep_apart(recognised, &opened.claimed, ask.model, needs, &mut plan)?;
    if recognised.pin.is_some() {
        plan.keep_first();
    }
    opened.observation = observation;
    Ok(PlanOutcome::Sendable(plan, steering))
}

/// Leaves out endpoints where a model that the request names may have been fine-tuned with another tenant's data.
///
/// # Errors
/// 404 if no endpoint is left.
fn keep_apart(
    recognised: &RecognisedRequest<'_>,
    claimed: &IdClaims,
    model: Option<&str>,
    needs: &Needs,
    plan: &mut Plan,
) -> Result<(), Failure> {
    let RecognisedRequest { table, caller, .. } = recognised;
    let has_tenant = caller.tenant.is_some();
    match (&claimed.model, model) {
        (Some(theirs), _) => plan.call_model(theirs),
        (None, Some(model)) if is_tuned(model) || has_tenant && model.contains(':') => {
            plan.keep_apart(model, has_tenant, |place| state::is_sole(table, caller.tenant, place))?;
        }
        _ => {}
    }
    if !needs.models.is_empty() {
        plan.keep_named_apart(needs, has_tenant, |place| state::is_sole(table, caller.tenant, place))?;
    }
    Ok(())
}

/// The request to steer.
fn ask_of<'m>(recognised: &RecognisedRequest<'_>, model: Option<&'m str>) -> Ask<'m> {
    let RecognisedRequest { table, caller, route, .. } = recognised;
    let (path_class, needs) = by_path(table.service(caller.service), &route.path());
    Ask { service: caller.service, client: caller.client, model, path_class, needs: Some(needs) }
}

/// Refuses a request of a lower service tier that would be served away from its home region while most of its fence is
/// down.
///
/// # Errors
/// 429 with a wait.
fn check_spill(
    recognised: &RecognisedRequest<'_>,
    ranking: &Ranking,
    steering: &Steering,
    plan: &Plan,
) -> Result<(), Failure> {
    let Some(tenant) = recognised.caller.tenant.map(|tenant| recognised.table.tenant(tenant)) else { return Ok(()) };
    let is_up = |region: RegionIndex| {
        let is_down = |reason: Reason| {
            matches!(reason, Reason::Down | Reason::Forced | Reason::Lagging | Reason::Version | Reason::Skew)
        };
        !steering.withheld.iter().any(|withheld| withheld.ranked.fenced.region == region && is_down(withheld.reason))
    };
    admission::check_scarcity(
        recognised.table,
        tenant,
        &ranking.regions(),
        plan.targets().first().map(Target::region),
        is_up,
    )
}

/// Answers a request about models from the rules, if every endpoint of the fence has a closed list of models. `None` if
/// an endpoint has to be asked.
fn listed(
    recognised: &RecognisedRequest<'_>,
    opened: &OpenedRequest,
    steering: &Steering,
    info: &ResponseInfo,
) -> Option<Result<Reply, Failure>> {
    let route = &recognised.route;
    if route.class() != Class::Models || opened.claimed.model.is_some() {
        return None;
    }
    // A model of the rules can't be deleted, only a fine-tuned model.
    if route.method() == "DELETE" {
        return Some(Err(Failure::ModelNotFound { model: opened.model.clone().unwrap_or_default() }));
    }
    let names = plan::models(recognised.table, steering).filter(|_| !steering.ordered.is_empty())?;
    Some(models(&names, route.model(), info))
}

/// Puts together the task and the job for the [`Driver`](crate::runtime::proxy::Driver).
fn prepared(
    env: Env,
    recognised: RecognisedRequest<'_>,
    body: Option<Content>,
    opened: OpenedRequest,
    plan: Plan,
    sender: Sender,
    receipt_signer: Option<ReceiptSigner>,
) -> PreparedRequest {
    let is_state = recognised.is_state();
    let is_pinned = recognised.pin.is_some();
    let RecognisedRequest { table, caller, route, query, .. } = recognised;
    let OpenedRequest { model, owner, keys, claimed, observation } = opened;
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
        limits: if is_pinned { Limits { sends: 1, ..service.limits } } else { service.limits },
    };
    let job = Job {
        keepalive: keepalive(service, expect),
        pipes: service.streams == Streams::Pipe,
        answer_kind,
        env,
        route,
        query,
        headers: Headers::default(),
        body: body.map(Rc::new),
        upload: None,
        model,
        sender,
        receipt_signer,
        ids: keys.map(|keys| (keys, owner)),
        hides_models,
        reservation: None,
        metering: None,
        slot: None,
        observation,
        log_sender: None,
    };
    PreparedRequest { task, job, load }
}

/// Admits a request of a tenant with limits: by the tenant's service tier, by how many of its requests are in progress,
/// and by its budget. Returns the slot that counts the request as in progress.
///
/// # Errors
/// 429 with a wait.
fn admit(
    recognised: &RecognisedRequest<'_>,
    snapshot: &Snapshot,
    plan: &mut Plan,
    metering: Option<&Metering>,
) -> Result<Option<Slot>, Failure> {
    let RecognisedRequest { table, caller, route, .. } = recognised;
    let tenant = caller.tenant.map(|tenant| table.tenant(tenant)).filter(|_| route.class() == Class::Inference);
    let tier = tenant.and_then(|tenant| table.tier_of(tenant));
    if !table.tiers().is_empty() {
        plan.set_tier(tier);
    }
    let Some(tenant) = tenant.filter(|tenant| tenant.limits.is_some()) else { return Ok(None) };
    let regions = plan.targets().iter().map(Target::region);
    admission::check_tier(table, tenant, regions, |region| snapshot.load_of(region))?;
    let slot = Slot::take(tenant)?;
    if let (Some(metering), Some(budget)) = (metering, budget_of(table, caller.tenant)) {
        if budget.1.tokens.is_some() {
            plan.count_tokens();
        }
        let fits = memory::with(|memory| memory.quotas.check_budget(budget, metering.demand(), clock::now()));
        fits.map_err(|refusal| match refusal {
            Refusal::Wait(wait) => Failure::Limited(Limited::Budget { wait_ms: wait.0 }),
            Refusal::TooLarge => Failure::Limited(Limited::TooLarge),
        })?;
    }
    Ok(slot)
}

/// The metering of what a request takes of quotas and budgets. `None` if no quota or budget applies, or if the request
/// is no inference.
fn metering(table: &Table, caller: &Caller, route: &Route, body: Option<&Content>) -> Option<Box<Metering>> {
    if route.class() != Class::Inference || table.quotas().is_empty() && budget_of(table, caller.tenant).is_none() {
        return None;
    }
    let json = body.and_then(Content::json);
    let has_text = route.is(&["chat", "completions"]) || route.is(&["completions"]) || route.is(&["responses"]);
    let output = match json.and_then(Inspected::max_output) {
        _ if !has_text => Output::Nothing,
        Some(tokens) => Output::AtMost(tokens),
        None => Output::Unstated,
    };
    let demand = Demand {
        tenant: caller.tenant,
        model: body.and_then(Content::model).unwrap_or_default().to_owned(),
        // A form holds audio or images. How many tokens these have isn't known.
        bytes: json.map_or(0, |json| json.size() as u64),
        choices: body.map_or(1, |body| body.choices() as u64),
        output,
    };
    Some(Box::new(Metering::new(demand, json.is_some_and(Inspected::hides_usage))))
}

/// Makes the checker for the lines of an upload that may be a batch's input; `None` if the service allows no batches.
#[inline(never)]
pub(super) fn batch_input(
    request: &ClientRequest,
    snapshot: &Snapshot,
    caller: &Caller,
    prepared: &PreparedRequest,
) -> Option<BatchInput> {
    let table = snapshot.table.clone()?;
    let may_batch = table.service(caller.service).allow.contains(&Allowance::Batch);
    let target = prepared.task.plan.targets().first().filter(|_| may_batch)?.clone();
    let (keys, owner) = prepared.job.ids.clone()?;
    let is_sole = state::is_sole(&table, caller.tenant, &target.place());
    let (service, request) = (caller.service, request.id.clone());
    Some(BatchInput::new(BatchPolicy { table, service, owner, keys, target, is_sole, request }))
}

/// The interval between comments to a client that waits for a stream. `None` if receipts are required: the receipt is a
/// header, so the stream can't begin before the endpoint is known.
fn keepalive(service: &Service, expect: Expect) -> Option<Millis> {
    service.keepalive.filter(|_| expect == Expect::Stream && service.receipts != Receipts::Required)
}

fn json_of(body: &mut Option<Content>) -> Option<&mut Inspected> {
    match body {
        Some(Content::Json(json)) => Some(json),
        _ => None,
    }
}

/// Reads the keys that ids are sealed with from the secret `STATE_KEY`. They are read for each use, and never stored.
pub(super) fn state_keys(env: &Env) -> Result<Keyring, Failure> {
    env.text("STATE_KEY").and_then(|secret| Keyring::parse(&secret)).ok_or(Failure::NoStateKey)
}

/// Answers with the fence's models: all of `names`, or only the model `of_path` that the path names.
fn models(names: &[String], of_path: Option<&str>, info: &ResponseInfo) -> Result<Reply, Failure> {
    let model = |id: &str| json!({ "id": id, "object": "model", "created": 0, "owned_by": "bailiwick" });
    match of_path {
        None => {
            let data: Vec<_> = names.iter().map(|name| model(name)).collect();
            Ok(info.json(200, &json!({ "object": "list", "data": data })))
        }
        Some(id) if names.iter().any(|name| name == id) => Ok(info.json(200, &model(id))),
        Some(id) => Err(Failure::ModelNotFound { model: id.to_owned() }),
    }
}

/// The version of the bundle that the service's rollout moves, as the application chose and names it.
fn choice(table: &Table, caller: &Caller, request: &ClientRequest) -> Option<Choice> {
    let (bundle, _) = table.rollout_of(caller.service)?.bundle()?;
    let (version, region) = choice_in(request.header(BUNDLE)?, bundle)?;
    Some(Choice { version, region: region.and_then(|name| table.region_named(name)) })
}

/// The key that keeps a client's related requests at one endpoint, where their common prefix is cached.
fn affinity(
    table: &Table,
    caller: &Caller,
    body: Option<&Inspected>,
    request: &ClientRequest,
    request_id: &str,
) -> String {
    let tenant = caller.tenant.map_or("", |tenant| table.tenant(tenant).id.as_str());
    body.map(Inspected::affinity).unwrap_or_default().key(tenant, request.header("x-session-id"), request_id)
}
