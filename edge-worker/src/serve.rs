//! One request from start to end: host, tenant, client, body, steering, plan; then the [`Driver`] takes over.

use bailiwick_rules::rules::Limits;
use bailiwick_rules::steer::{Ask, Conditions, PathClass, steer};
use bailiwick_rules::table::{Service, Table};
use futures_util::StreamExt;
use serde_json::json;
use worker::{Context, Env, Request, Response};

use crate::attempt::{Run, Task};
use crate::body::Inspected;
use crate::client::{self, Caller, Credentials, Origin};
use crate::envelope::Failure;
use crate::feed::{self, Snapshot};
use crate::plan::{self, Plan, Wanted};
use crate::proxy::{Driver, Job, cool_downs};
use crate::reply::Stamp;
use crate::rewrite::path::{Class, Route, Takes};
use crate::rewrite::query::Query;
use crate::wire::{self, Wire};

/// Paths of ours, under every host.
const OURS: &str = "/.well-known/bailiwick/";

/// Answers a request.
pub(crate) async fn serve(request: Request, env: Env, context: &Context) -> Response {
    let mut stamp = Stamp::new();
    let snapshot = feed::snapshot(&env, context).await;
    stamp.revision = revision(&snapshot);
    match answer(request, env, &snapshot, &mut stamp).await {
        Ok(response) => response,
        Err(failure) => stamp.failure(&failure, None),
    }
}

/// `7`, or `7;feed=invalid` when the feed offers something that can't be taken.
fn revision(snapshot: &Snapshot) -> Option<String> {
    let number = snapshot.table.as_ref()?.revision().number;
    Some(snapshot.trouble.map_or_else(|| number.to_string(), |trouble| format!("{number};feed={trouble}")))
}

async fn answer(request: Request, env: Env, snapshot: &Snapshot, stamp: &mut Stamp) -> Result<Response, Failure> {
    let address = Address::of(&request);
    if let Some(name) = address.path.strip_prefix(OURS) {
        return ours(name, request, snapshot, stamp).await;
    }
    let table = snapshot.table.as_deref().ok_or(Failure::Unready)?;
    let credentials = Credentials::of(request.headers());
    let caller = client::recognise(table, &address.host, &credentials, &Origin::of(&request))?;
    let route = Route::parse(request.method().as_ref(), &address.path)?;
    let query = Query::parse(&address.query)?;
    if route.class() == Class::State {
        return Err(Failure::NotCarried { what: "Files, batches, fine-tuning and stored responses" });
    }
    proxy(request, env, snapshot, stamp, Known { table, caller, route, query }).await
}

/// What is known of a request before its body is read.
struct Known<'t> {
    table: &'t Table,
    caller: Caller,
    route: Route,
    query: Query,
}

async fn proxy(
    mut request: Request,
    env: Env,
    snapshot: &Snapshot,
    stamp: &mut Stamp,
    known: Known<'_>,
) -> Result<Response, Failure> {
    let Known { table, caller, route, query } = known;
    let service = table.service(caller.service);
    let wire = Wire::of(&request);
    let headers = wire::headers_of(&request);
    // What would be refused at the endpoint's turn is refused before the body is read.
    crate::rewrite::headers::to_endpoint(pairs(&headers))?;
    let body = match route.takes() {
        Takes::Nothing => None,
        Takes::Form => return Err(Failure::NotCarried { what: "Multipart bodies" }),
        Takes::Json => {
            let bytes = read_body(&mut request, &service.limits).await?;
            Some(Inspected::json(bytes, &route, &service.allow)?)
        }
    };
    let model = body.as_ref().and_then(Inspected::model).or(route.model()).map(str::to_owned);

    // Conditions are those of now, not of when the body began to arrive.
    let now = feed::now();
    let local = cool_downs(|cool| cool.local(table, now));
    let conditions = Conditions { health: &snapshot.health, local: &local, now };
    let path_class = if service.is_hub_path(&route.path()) { PathClass::Hub } else { PathClass::Inference };
    let ask = Ask { service: caller.service, client: caller.client, model: model.as_deref(), path_class };
    let steering = steer(table, &ask, &conditions);
    stamp.steered = Some(now);

    if route.class() == Class::Models
        && !steering.ordered.is_empty()
        && let Some(names) = plan::models(table, &steering)
    {
        return models(&names, route.model(), stamp);
    }
    let affinity = affinity(table, service, &caller, body.as_ref(), &headers);
    let wanted = Wanted { model: model.as_deref(), conditions, affinity: &affinity };
    let has_secret = |name: &str| feed::text_of(&env, name).is_some_and(|value| !value.is_empty());
    let plan = Plan::from_steering(table, caller.service, &steering, &wanted, has_secret)?;
    let task = Task {
        plan,
        model: model.clone(),
        expect: route.expect(body.as_ref().is_some_and(Inspected::stream)),
        stateful: false,
        limits: service.limits,
    };
    let job = Job { env, route, query, headers, body, model };
    Ok(Driver::new(Run::new(task), job, stamp.clone(), wire).respond().await)
}

fn pairs(headers: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

/// The fence's names, when every endpoint of the fence has a closed list of them.
fn models(names: &[String], one: Option<&str>, stamp: &Stamp) -> Result<Response, Failure> {
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

/// What keeps a client's related requests at one endpoint, where their common prefix is cached: the tenant, and the best
/// hint there is.
fn affinity(
    table: &Table,
    service: &Service,
    caller: &Caller,
    body: Option<&Inspected>,
    headers: &[(String, String)],
) -> String {
    let hints = body.map(Inspected::affinity).unwrap_or_default();
    let session = headers.iter().find(|(name, _)| name == "x-session-id").map(|(_, value)| value.as_str());
    let hint = hints.prompt_cache_key.or(session).or(hints.user);
    let tenant = caller.tenant.map_or("", |tenant| table.tenant(tenant).id.as_str());
    match (hint, caller.client.address) {
        (Some(hint), _) => format!("{}/{tenant}/{hint}", service.id),
        (None, Some(address)) => format!("{}/{tenant}/{address}", service.id),
        (None, None) => format!("{}/{tenant}", service.id),
    }
}

/// Reads a body up to the service's limit: what is announced too large isn't read at all.
async fn read_body(request: &mut Request, limits: &Limits) -> Result<Vec<u8>, Failure> {
    let limit = limits.body_bytes;
    let too_large = || Failure::BodyTooLarge { limit };
    let announced = request.headers().get("content-length").ok().flatten().and_then(|text| text.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    if announced.is_some() {
        // The runtime holds a body to the length it announced.
        return wire::whole_body(request).await.ok_or(Failure::MissingBody);
    }
    let Ok(mut chunks) = request.stream() else { return Ok(Vec::new()) };
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        // Only a client that is going away breaks its own body off.
        bytes.extend_from_slice(&chunk.map_err(|_| Failure::MissingBody)?);
        if bytes.len() as u64 > limit {
            return Err(too_large());
        }
    }
    Ok(bytes)
}

/// Paths below [`OURS`].
async fn ours(name: &str, request: Request, snapshot: &Snapshot, stamp: &Stamp) -> Result<Response, Failure> {
    match name {
        "healthz" => Ok(healthz(snapshot, stamp)),
        #[cfg(feature = "vectors")]
        "test/vectors" => Ok(vectors(request, stamp).await),
        #[cfg(feature = "vectors")]
        "test/panic" => panic!("a prompt: {}", request.inner().url()),
        _ => {
            drop(request);
            Err(Failure::UnknownPath)
        }
    }
}

/// Whether this Worker can steer, and by what. Nothing in it is secret.
fn healthz(snapshot: &Snapshot, stamp: &Stamp) -> Response {
    let revision = snapshot.table.as_ref().map(|table| table.revision());
    let value = json!({
        "status": if revision.is_some() { "ok" } else { "no rules" },
        "revision": revision.map(|revision| revision.number),
        "rules_sha256": revision.map(|revision| revision.sha256_hex()),
        "rules_feed": snapshot.trouble.unwrap_or("ok"),
        "health_reports": snapshot.nodes,
        "time": snapshot.now.to_string(),
    });
    stamp.json(if revision.is_some() { 200 } else { 503 }, &value)
}

/// Runs a file of shared test vectors: the same the native tests run.
#[cfg(feature = "vectors")]
async fn vectors(mut request: Request, stamp: &Stamp) -> Response {
    let text = request.text().await.unwrap_or_default();
    match bailiwick_rules::testing::run(&text) {
        Ok(cases) => stamp.json(200, &json!({ "cases": cases })),
        Err(message) => stamp.json(422, &json!({ "message": message })),
    }
}

/// The parts of a request's URL, as the client wrote them.
struct Address {
    host: String,
    path: String,
    query: String,
}

impl Address {
    fn of(request: &Request) -> Self {
        let url = request.inner().url();
        let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        let rest = rest.split('#').next().unwrap_or(rest);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        // A port is digits after the last colon; an IPv6 address in brackets is nobody's host name here.
        let host = host
            .rsplit_once(':')
            .map_or(host, |(name, port)| if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host });
        Self { host: host.to_owned(), path: path.to_owned(), query: query.to_owned() }
    }
}
