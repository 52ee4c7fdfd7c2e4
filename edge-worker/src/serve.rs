//! One request from start to end: host, tenant, client, body, steering, plan; then the [`Driver`] takes over.

use std::rc::Rc;

use bailiwick_rules::rules::Receipts;
use bailiwick_rules::steer::{Ask, Conditions, Local, PathClass, steer};
use bailiwick_rules::table::{Service, Table};
use bailiwick_rules::time::Millis;
use futures_util::future::LocalBoxFuture;
use serde_json::json;
use worker::{Context, Env};

use crate::account::{self, Denied};
use crate::asked::Asked;
use crate::attempt::{Expect, Task};
use crate::body::scope::Scope;
use crate::body::{Inspected, Needs, Terms};
use crate::book::Age;
use crate::client::{self, Caller, Credentials, Origin};
use crate::cors::Page;
use crate::envelope::Failure;
use crate::explain;
use crate::feed::{self, Snapshot};
use crate::incoming::{drain, read_body};
use crate::inflight::Hold;
use crate::memory;
use crate::multipart::form::Form;
use crate::multipart::is_form;
use crate::multipart::upload::Load;
use crate::plan::{self, Plan, Target, Wanted};
use crate::proxy::{Answer, Driver, Job};
use crate::receipt::{self, Office};
use crate::reply::{Reply, Stamp};
use crate::rewrite::path::{Class, Route, Takes};
use crate::rewrite::query::Query;
use crate::rewrite::{Content, headers};
use crate::room::Room;
use crate::secrets;
use crate::source::Source;
use crate::state::claim::{Named, claim, needs_keys};
use crate::state::seal::{Keyring, Owner};
use crate::state::tuned::is_tuned;
use crate::state::{self, Place};
use crate::uploads::{self, Outbound};
use crate::wire::Wire;

/// Paths of ours, under every host.
const OURS: &str = "/.well-known/bailiwick/";

/// What an upload in parts may be.
const WHOLE_BATCH: &str = "another than batch, as its lines are read here: send the file whole, to /files";

/// Answers a request.
///
/// What most requests need is done in functions that aren't inlined, and what few of them wait for in futures of their own: as one
/// function, all of it is a hundred kilobytes of Wasm, of which every request would have to find its way through some.
pub(crate) async fn serve(mut asked: Asked, wire: Wire, env: Env, context: &Context) -> Answer {
    let mut stamp = Stamp::new(asked.id.clone());
    if let Some(fresh) = feed::refresh(&env, context) {
        fresh.await;
    }
    wire.note_fed();
    let snapshot = feed::snapshot();
    stamp.revision = revision(&snapshot);
    if let Age::Stale(age) | Age::TooOld(age) = snapshot.age {
        stamp.rules_age = Some(age.0 / 1000);
    }
    let page = Page::of(&asked, snapshot.table.as_deref());
    let answered = match page.as_ref().and_then(|page| of_page(page, &asked, &stamp)) {
        Some(at_once) => at_once.map(Answer::Whole),
        None => answer(&mut asked, wire, env, &snapshot, &mut stamp).await,
    };
    let mut answer = match answered {
        Ok(answer) => answer,
        Err(failure) => {
            recognise_host(&mut stamp, &snapshot, &asked);
            Answer::Whole(refused(&mut asked, &stamp, failure).await)
        }
    };
    if let Some(page) = page {
        page.write(answer.headers());
    }
    answer
}

/// What a page is answered before anybody looks at its key: a preflight, which has none, and what isn't for pages of
/// its origin.
#[inline(never)]
fn of_page(page: &Page, asked: &Asked, stamp: &Stamp) -> Option<Result<Reply, Failure>> {
    let refused = (*page == Page::Refused).then_some(Err(Failure::OriginNotAllowed));
    page.preflight(asked, stamp).or(refused)
}

/// Whose a request is that was refused before its tenant was known: its host tells the service.
#[inline(never)]
fn recognise_host(stamp: &mut Stamp, snapshot: &Snapshot, asked: &Asked) {
    if stamp.whose.is_none() {
        let service = snapshot.table.as_deref().and_then(|table| client::service_of(table, &asked.address.host));
        stamp.whose = service.and_then(|service| snapshot.whose(service, None));
    }
}

/// The answer to a request that isn't carried.
#[inline(never)]
fn refused<'a>(asked: &'a mut Asked, stamp: &'a Stamp, failure: Failure) -> LocalBoxFuture<'a, Reply> {
    Box::pin(async move {
        account::refused(stamp, &failure, stamp.failed(&failure, None).0);
        // What was taken whole has nothing left, and can't be asked again.
        if let Some(mut pieces) = asked.pieces() {
            drain(&mut pieces).await;
        }
        stamp.failure(&failure)
    })
}

/// `7`, or `7;feed=invalid` when the feed offers something that can't be taken.
fn revision(snapshot: &Snapshot) -> Option<String> {
    let number = snapshot.table.as_ref()?.revision().number;
    Some(snapshot.trouble.map_or_else(|| number.to_string(), |trouble| format!("{number};feed={trouble}")))
}

async fn answer(
    asked: &mut Asked,
    mut wire: Wire,
    env: Env,
    snapshot: &Snapshot,
    stamp: &mut Stamp,
) -> Result<Answer, Failure> {
    if asked.address.path.starts_with(OURS) {
        let reply = ours(asked, &env, snapshot, stamp).await?;
        account::answered(stamp, reply.status);
        return Ok(Answer::Whole(reply));
    }
    let table = snapshot.rules()?;
    let mut known = Known::of(asked, table)?;
    stamp.whose = snapshot.whose(known.caller.service, known.caller.tenant);
    let service = table.service(known.caller.service);
    let office = match Office::closed(service.receipts) {
        Some(closed) => closed,
        None => Office::open(&env, service.receipts).await?,
    };
    known.check(asked, &env)?;
    let mut hold = Hold::default();
    let body = if known.takes_body() {
        let bytes = read_body(asked, &mut wire, &service.limits, &mut hold).await?;
        Some(known.inspect(asked, bytes)?)
    } else {
        None
    };
    let Prepared { task, mut job, load } = match prepare(asked, env, snapshot, stamp, known, body, office)? {
        Turn::Answered(reply) => {
            account::answered(stamp, reply.status);
            return Ok(Answer::Whole(reply));
        }
        Turn::Sendable(prepared) => *prepared,
    };
    if let Some(load) = load {
        let models = task.plan.targets().first().and_then(Target::models);
        let upload = Outbound::begin(asked, load, models, &service.allow, &service.limits, &mut hold);
        job.upload = Some(upload.await?);
    }
    job.hold = Some(Rc::new(hold));
    job.headers = core::mem::take(&mut asked.headers);
    Ok(Driver::new(task, job, stamp.clone(), wire).respond().await)
}

/// What is known of a request before its body is read.
struct Known<'t> {
    table: &'t Table,
    caller: Caller,
    route: Route,
    query: Query,
    /// How ids are sealed, where the request is about state.
    keys: Option<Keyring>,
}

impl<'t> Known<'t> {
    #[inline(never)]
    fn of(asked: &Asked, table: &'t Table) -> Result<Self, Failure> {
        let address = &asked.address;
        // Before the key: a client that sends its key here has none elsewhere, and should hear of it.
        let query = Query::parse(&address.query)?;
        let credentials = Credentials::of(asked);
        let caller = client::recognise(table, &address.host, &credentials, &Origin::of(asked))?;
        let route = Route::parse(&asked.method, &address.path)?;
        Ok(Self { table, caller, route, query, keys: None })
    }

    /// What would be refused at the endpoint's turn is refused before the body is read.
    fn check(&mut self, asked: &Asked, env: &Env) -> Result<(), Failure> {
        headers::check_encoding(asked.header("content-encoding"))?;
        if self.is_state() {
            self.keys = Some(state_keys(env)?);
        }
        Ok(())
    }

    fn is_state(&self) -> bool {
        self.route.class() == Class::State
    }

    /// Whether a body is read before it is known where to. An upload begins later.
    fn takes_body(&self) -> bool {
        match self.route.takes() {
            Takes::Nothing => false,
            Takes::Form => !self.is_state(),
            Takes::Json | Takes::JsonOrForm => true,
        }
    }

    #[inline(never)]
    fn inspect(&self, asked: &Asked, bytes: Room) -> Result<Content, Failure> {
        let service = self.table.service(self.caller.service);
        let content_type = asked.header("content-type").unwrap_or_default();
        let is_form = match self.route.takes() {
            Takes::Form => true,
            // What isn't said to be a form is read as JSON, and sent on as that.
            Takes::JsonOrForm => is_form(content_type),
            Takes::Json | Takes::Nothing => false,
        };
        Ok(if is_form {
            Content::Form(Form::read(content_type, bytes, &self.route, &service.allow)?, uploads::boundary(asked))
        } else {
            let Owner { service: name, tenant } = state::owner(self.table, self.caller.service, self.caller.tenant);
            let scope = Scope { service: name, tenant, request: asked.id.clone() };
            Content::Json(Inspected::json(bytes, &self.route, &Terms { allow: &service.allow, scope })?)
        })
    }
}

/// What is to be done when it is known where a request may go.
enum Turn {
    /// It is answered here.
    Answered(Reply),
    /// It can be sent.
    Sendable(Box<Prepared>),
}

/// A request that was steered.
struct Prepared {
    task: Task,
    /// But for its headers and an upload.
    job: Job,
    /// What is to be uploaded.
    load: Option<Load>,
}

/// Steers a request whose body is known, and plans where it may be sent.
#[inline(never)]
fn prepare(
    asked: &mut Asked,
    env: Env,
    snapshot: &Snapshot,
    stamp: &mut Stamp,
    known: Known<'_>,
    mut body: Option<Content>,
    office: Office,
) -> Result<Turn, Failure> {
    let is_state = known.is_state();
    let Known { table, caller, mut route, mut query, keys } = known;
    let service = table.service(caller.service);
    let model = body.as_ref().and_then(Content::model).or(route.model()).map(str::to_owned);
    let owner = state::owner(table, caller.service, caller.tenant);
    headers::scope(&mut asked.headers, &owner);
    let stores = body.as_ref().and_then(Content::json).is_some_and(Inspected::stores);
    let named = Named { route: &mut route, query: &mut query, body: json_of(&mut body), model: model.as_deref() };
    let keys = match keys {
        None if stores || needs_keys(table, caller.service, &named) => Some(state_keys(&env)?),
        keys => keys,
    };
    let mut claimed = claim(keys.as_ref(), table, caller.service, &owner, named)?;
    let stateful = claimed.is_stateful;

    // Conditions are those of now, not of when the body began to arrive.
    let now = feed::now();
    let affinity = affinity(table, &caller, body.as_ref().and_then(Content::json), asked, &stamp.request_id);
    let source = Source::of(owner.tenant.as_deref(), caller.client.address, &affinity);
    let local = || memory::with(|memory| memory.local(table, Some(route.pattern()), Some(source), now));
    let local = if stateful { Local::default() } else { local() };
    let conditions = Conditions { health: &snapshot.health, local: &local, now };
    let path_class = if service.is_hub_path(&route.path()) { PathClass::Hub } else { PathClass::Inference };
    // A model that a job made is where it was made, whatever the maps of models say.
    let steered_model = model.as_deref().filter(|_| claimed.model.is_none());
    let ask = Ask { service: caller.service, client: caller.client, model: steered_model, path_class };
    let has_secret = |name: &str| feed::text_of(&env, name).is_some_and(|value| !value.is_empty());
    if is_state && claimed.place.is_none() {
        let tenant = format!("{}/{}", service.id, owner.tenant.as_deref().unwrap_or_default());
        claimed.place = Some(plan::home(table, &ask, &tenant, has_secret)?);
    }
    let steering = steer(table, &ask, &conditions);
    stamp.steered = Some(now);

    let is_deletion = route.class() == Class::Models && route.method() == "DELETE";
    if is_deletion && claimed.model.is_none() {
        return Err(Failure::ModelNotFound { model: model.unwrap_or_default() });
    }
    if route.class() == Class::Models
        && claimed.model.is_none()
        && !steering.ordered.is_empty()
        && let Some(names) = plan::models(table, &steering)
    {
        return models(&names, route.model(), stamp).map(Turn::Answered);
    }
    if steering.ordered.is_empty() {
        stamp.denied = Some(Denied::of(table, &ask, &steering));
    }
    let no_needs = Needs::default();
    let needs = body.as_ref().map_or(&no_needs, Content::needs);
    let wanted = Wanted { model: steered_model, needs, conditions, affinity: &affinity };
    let mut plan = match &claimed.place {
        None => Plan::from_steering(table, caller.service, &steering, &wanted, has_secret)?,
        Some(place) => {
            let plan = Plan::pinned(table, &steering, &wanted, has_secret, place)?;
            if route.is_collection() && !state::is_sole(table, caller.tenant, place) {
                return Err(Failure::SharedList);
            }
            plan
        }
    };
    let is_sole = |place: &Place| state::is_sole(table, caller.tenant, place);
    match (&claimed.model, steered_model) {
        (Some(theirs), _) => plan.call_model(theirs),
        (None, Some(model)) if is_tuned(model) => plan.keep_apart(model, is_sole)?,
        _ => {}
    }
    let hides_models = route.class() == Class::Models && model.is_none();
    let hides_models = hides_models && !plan.targets().iter().all(|target| is_sole(&target.place()));
    // Nobody would see where a line begins in a part of a file, nor what model it names.
    let is_batch_upload = body.as_ref().and_then(Content::json).is_some_and(Inspected::is_batch_upload);
    if is_batch_upload && plan.targets().iter().any(|target| target.models().is_some()) {
        return Err(Failure::BadField { field: "purpose", expected: WHOLE_BATCH });
    }
    let stored_stream =
        query.stream() && is_state && route.segments().first().is_some_and(|first| first == "responses");
    let expect = route.expect(stored_stream || body.as_ref().is_some_and(Content::stream));
    let is_upload = is_state && route.takes() == Takes::Form;
    let load = is_upload.then(|| if route.is(&["files"]) { Load::File } else { Load::Part });
    let ids = keys.filter(|_| expect != Expect::File).map(|keys| (keys, owner));
    let notary = office.engage(table, &caller, &steering, &stamp.request_id);
    let choices = body.as_ref().map_or(1, Content::choices);
    let kindred = route.kindred();
    let reads_only = route.method() == "GET";
    let task =
        Task { plan, model: model.clone(), expect, kindred, choices, stateful, reads_only, limits: service.limits };
    let (headers, upload, hold, body) = (Vec::new(), None, None, body.map(Rc::new));
    let keepalive = keepalive(service, expect);
    let job = Job {
        keepalive,
        kindred,
        env,
        route,
        query,
        headers,
        body,
        upload,
        model,
        source,
        notary,
        ids,
        hides_models,
        hold,
    };
    Ok(Turn::Sendable(Box::new(Prepared { task, job, load })))
}

/// How often a client that waits hears something. A receipt stands in the headers, so what needs one can't begin before it is
/// known where the request went.
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
fn state_keys(env: &Env) -> Result<Keyring, Failure> {
    feed::text_of(env, "STATE_KEY").and_then(|secret| Keyring::parse(&secret)).ok_or(Failure::NoStateKey)
}

/// The fence's names, when every endpoint of the fence has a closed list of them.
fn models(names: &[String], one: Option<&str>, stamp: &Stamp) -> Result<Reply, Failure> {
    let model = |id: &str| json!({ "id": id, "object": "model", "created": 0, "owned_by": "bailiwick" });
    match one {
        None => {
            let data: Vec<_> = names.iter().map(|name| model(name)).collect();
            Ok(stamp.json(200, &json!({ "object": "list", "data": data })))
        }
        Some(id) if names.iter().any(|name| name == id) => Ok(stamp.json(200, &model(id))),
        Some(id) => Err(Failure::ModelNotFound { model: id.to_owned() }),
    }
}

/// What keeps a client's related requests at one endpoint, where their common prefix is cached.
fn affinity(table: &Table, caller: &Caller, body: Option<&Inspected>, asked: &Asked, request_id: &str) -> String {
    let tenant = caller.tenant.map_or("", |tenant| table.tenant(tenant).id.as_str());
    body.map(Inspected::affinity).unwrap_or_default().key(tenant, asked.header("x-session-id"), request_id)
}

/// Paths below [`OURS`].
#[inline(never)]
fn ours<'a>(
    asked: &'a Asked,
    env: &'a Env,
    snapshot: &'a Snapshot,
    stamp: &'a Stamp,
) -> LocalBoxFuture<'a, Result<Reply, Failure>> {
    Box::pin(async move {
        match asked.address.path.strip_prefix(OURS).unwrap_or_default() {
            "healthz" => Ok(healthz(asked, env, snapshot, stamp)),
            "jwks.json" => Ok(stamp.json(200, &receipt::public(env).await)),
            "explain" => explain::answer(asked, env, snapshot, stamp),
            "metrics" => explain::metrics(asked, env, snapshot, stamp),
            #[cfg(feature = "vectors")]
            "test/vectors" => Ok(vectors(asked, stamp).await),
            #[cfg(feature = "vectors")]
            "test/panic" => panic!("a prompt: {}", asked.raw().url()),
            _ => Err(Failure::UnknownPath),
        }
    })
}

/// Whether this Worker can steer, and by what. Nothing in it is secret; the operator is told of endpoints without a
/// credential too.
fn healthz(asked: &Asked, env: &Env, snapshot: &Snapshot, stamp: &Stamp) -> Reply {
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
    if let (Some(missing), Some(fields)) = (explain::operators_health(asked, env, snapshot), value.as_object_mut()) {
        fields.insert("no_secret".to_owned(), secrets::to_json(&missing));
    }
    stamp.json(if status == "ok" { 200 } else { 503 }, &value)
}

/// Runs a file of shared test vectors: the same the native tests run.
#[cfg(feature = "vectors")]
async fn vectors(asked: &Asked, stamp: &Stamp) -> Reply {
    let text = worker::Request::from(Clone::clone(asked.raw())).text().await.unwrap_or_default();
    match bailiwick_rules::testing::run(&text) {
        Ok(cases) => stamp.json(200, &json!({ "cases": cases })),
        Err(message) => stamp.json(422, &json!({ "message": message })),
    }
}
