//! Answers `/.well-known/bailiwick/explain`. Takes a question in the query; returns which regions a client's request
//! would go to and why, in the words of `bailiwick explain`. Also writes the metrics page and the operator's part of
//! the health page. Called by `serve`.
//!
//! With a tenant's key, the answer explains this tenant's own requests from its present location. With the operator's
//! token (`EXPLAIN_TOKEN`), it explains any request, or with `all` every fence (the regions that may process a client),
//! and names the endpoints without a secret. The answer uses the health and cool-downs of this isolate, which may
//! differ from those of other isolates.

#[cfg(test)]
mod tests;

use core::net::IpAddr;
use std::collections::BTreeSet;

use bailiwick_rules::explain::explain_at_edge;
use bailiwick_rules::geo::{CountryCode, is_like_code};
use bailiwick_rules::health::ReplicaSet;
use bailiwick_rules::id::RegionId;
use bailiwick_rules::overview::overview;
use bailiwick_rules::steer::{Ask, Client, Conditions, Cooling, PathClass, by_path, rank, stand};
use bailiwick_rules::table::{ServiceIndex, Table, TenantIndex};
use url::form_urlencoded;

use crate::decide::envelope::{Failure, quote};
use crate::decide::explained_limits::{ExplainedLimits, LimitsQuestion};
use crate::decide::inflight;
use crate::decide::route::query::Query;
use crate::decide::secrets::{self, Missing};
use crate::decide::sender::Sender;
use crate::decide::shed::sheds;
use crate::platform::Env;
use crate::runtime::client::{self, Credentials, Origin};
use crate::runtime::clock;
use crate::runtime::env;
use crate::runtime::feed::{self, Snapshot};
use crate::runtime::isolate;
use crate::runtime::memory;
use crate::runtime::metrics::{self, Format, Gauges};
use crate::runtime::reply::{Reply, ResponseInfo};
use crate::runtime::request::ClientRequest;
use crate::runtime::task;

/// The secret that holds the operator's token.
const TOKEN: &str = "EXPLAIN_TOKEN";
/// The query parameters that a tenant may use, for its own requests.
const OWN: &[&str] = &["model", "path"];
/// The parameters that only the operator may use.
const OPERATORS: &[&str] = &["service", "client", "country", "tenant", "all"];
/// The parameters that the operator may use with `all`.
const WITH_ALL: &[&str] = &["all", "service", "tenant"];

/// Answers a request with JSON, or with text if it accepts `text/plain`.
pub(crate) fn answer(
    request: &ClientRequest,
    env: &Env,
    snapshot: &Snapshot,
    info: &ResponseInfo,
) -> Result<Reply, Failure> {
    only_get(request)?;
    let table = snapshot.rules()?;
    let token = operators_token(env);
    let asker = Requester {
        host: &request.address.host,
        credentials: Credentials::of(request),
        origin: Origin::of(request),
        token: token.as_deref(),
    };
    let question = asker.question(table, &request.address.query)?;
    let explanation = match &question {
        Question::All { service, tenant } => {
            let all = overview(table, *service, *tenant);
            let missing = missing_secrets(table, env, |_| true);
            Explained::of(serde_json::to_string(&all), all.to_text(), &missing, &ExplainedLimits::default())?
        }
        Question::ClientQuestion(question) => {
            let now = clock::now();
            let tenant = question.client.tenant.map(|tenant| table.tenant(tenant).id.as_str());
            // A breaker may be open for one sender (a tenant or a client). It counts only if the question names the
            // sender.
            let is_known = tenant.is_some() || question.client.address.is_some();
            let sender = is_known.then(|| Sender::of(tenant, question.client.address, ""));
            let local = memory::with(|memory| memory.local(table, None, sender, now));
            let conditions = Conditions { health: &snapshot.health, local: &local, now };
            let mut explanation = explain_at_edge(table, &question.ask(), &conditions, &snapshot.first_tokens);
            if sheds(table.service(question.ask().service), question.ask().path_class) {
                let ask = question.ask();
                let ranking = rank(table, ask.service, &stand(table, &ask.client), ask.path_class);
                explanation.add_shed(table, snapshot.shares.moves(ask.service, &ranking));
            }
            let in_fence = |region: &RegionId| question.by_operator && explanation.fence.contains(region);
            let missing = missing_secrets(table, env, in_fence);
            let region = |name: &RegionId| table.region_named(name.as_str());
            let fence: Vec<_> = explanation.fence.iter().filter_map(region).collect();
            let offered: Vec<_> =
                explanation.ordered.iter().filter_map(|explained| region(&explained.region)).collect();
            let (tenant, by_operator) = (question.client.tenant, question.by_operator);
            let asked = LimitsQuestion { fence: &fence, offered: &offered, tenant, by_operator };
            let load = |region| snapshot.load_of(region);
            let limits = memory::with(|memory| ExplainedLimits::of(table, &asked, &mut memory.quotas, load, now));
            Explained::of(serde_json::to_string(&explanation), explanation.to_text(), &missing, &limits)?
        }
    };
    let accepted = request.header("accept").unwrap_or_default();
    if accepted.to_ascii_lowercase().contains("text/plain") {
        return Ok(info.of_type("text/plain; charset=utf-8", &explanation.text));
    }
    Ok(info.of_type("application/json", &explanation.json))
}

/// The endpoints whose secret has no value in this Worker.
fn missing_secrets(table: &Table, env: &Env, is_wanted: impl Fn(&RegionId) -> bool) -> Vec<Missing> {
    secrets::missing(table, is_wanted, |name| env::has(env, name))
}

/// The part of the health page that only the operator sees: the missing secrets. `None` for other requesters.
pub(crate) fn operators_health(request: &ClientRequest, env: &Env, snapshot: &Snapshot) -> Option<Vec<Missing>> {
    let table = snapshot.table.as_deref()?;
    is_operators(request, env).then(|| missing_secrets(table, env, |_| true))
}

/// The operator's token, if it is set and not empty.
fn operators_token(env: &Env) -> Option<String> {
    env.text(TOKEN).filter(|token| !token.is_empty())
}

/// Whether a request has the operator's token.
fn is_operators(request: &ClientRequest, env: &Env) -> bool {
    operators_token(env).is_some_and(|token| Credentials::of(request).are(&token))
}

/// Whether this is the operator's token.
pub(crate) fn is_operators_token(env: &Env, token: &str) -> bool {
    operators_token(env).is_some_and(|known| Credentials::of_token(token).are(&known))
}

/// Refuses methods other than GET.
fn only_get(request: &ClientRequest) -> Result<(), Failure> {
    if request.method == "GET" { Ok(()) } else { Err(Failure::WrongMethod { allowed: "GET" }) }
}

/// An explanation as JSON and as text, with the secrets that the operator has to set.
struct Explained {
    json: String,
    text: String,
}

impl Explained {
    /// Adds limits and missing secrets to an explanation. `json` is an object.
    fn of(
        json: serde_json::Result<String>,
        text: String,
        missing: &[Missing],
        limits: &ExplainedLimits,
    ) -> Result<Self, Failure> {
        let mut json = json.map_err(|_| Failure::Internal)?;
        // The fields are appended to the text, so that the fields of the explanation keep their order.
        if json.pop() == Some('}') {
            json += &format!("{}}}", limits.to_fields());
        }
        if !missing.is_empty() && json.pop() == Some('}') {
            json += &format!(",\"no_secret\":{}}}", secrets::to_json(missing));
        }
        Ok(Self { json, text: text + &limits.to_text() + &secrets::to_text(missing) })
    }
}

/// The metrics of this isolate, for the operator.
pub(crate) fn metrics(
    request: &ClientRequest,
    env: &Env,
    snapshot: &Snapshot,
    info: &ResponseInfo,
) -> Result<Reply, Failure> {
    only_get(request)?;
    if !is_operators(request, env) {
        return Err(Failure::MetricsUnauthorised);
    }
    let format = Format::of(request.header("accept").unwrap_or_default());
    Ok(info.of_type(format.content_type(), &exposition(format, snapshot)))
}

/// All metrics of this isolate as text.
pub(crate) fn exposition(format: Format, snapshot: &Snapshot) -> String {
    let table = snapshot.table.as_deref();
    let resting = table.map(|table| {
        let local = memory::with(|memory| memory.local(table, None, None, clock::now()));
        let name = |cooling: &Cooling| (table.region(cooling.region).id.to_string(), cooling.endpoint.to_string());
        local.cooling.iter().map(name).collect::<BTreeSet<_>>().into_iter().collect()
    });
    let gauges = Gauges {
        revision: table.map(|table| table.revision().number),
        rules_age_ms: snapshot.confirmed.map(|age| age.0),
        health_age_ms: feed::health_ages(),
        in_flight: task::in_progress(),
        held_bytes: inflight::held(),
        memory_bytes: isolate::memory_bytes(),
        resting: resting.unwrap_or_default(),
        quotas: table
            .map(|table| memory::with(|memory| memory.quotas.standings(table, clock::now())))
            .unwrap_or_default(),
        began_ms: feed::began().0,
    };
    metrics::write(format, &gauges, table)
}

/// The sender of a request for an explanation.
struct Requester<'a> {
    host: &'a str,
    credentials: Credentials,
    origin: Origin,
    /// The operator's token, if there is an operator.
    token: Option<&'a str>,
}

/// A request for an explanation that was read and that its sender may ask.
#[derive(Debug, PartialEq)]
enum Question {
    /// What one client's request would get.
    ClientQuestion(ClientQuestion),
    /// Every fence, or only the fences of a service and of a tenant, if named.
    All { service: Option<ServiceIndex>, tenant: Option<TenantIndex> },
}

/// A client of a service, and what it requests.
#[derive(Debug, PartialEq)]
struct ClientQuestion {
    service: ServiceIndex,
    client: Client,
    model: Option<String>,
    path_class: PathClass,
    /// The replicas that the path needs; `None` if no path is asked for.
    needs: Option<ReplicaSet>,
    /// Whether the operator asks. Only the operator sees names of secrets.
    by_operator: bool,
}

impl ClientQuestion {
    /// The request to steer.
    fn ask(&self) -> Ask<'_> {
        let (model, path_class, needs) = (self.model.as_deref(), self.path_class, self.needs);
        Ask { service: self.service, client: self.client, model, path_class, needs }
    }
}

impl Requester<'_> {
    /// Reads the request for an explanation from a query string.
    fn question(&self, table: &Table, query: &str) -> Result<Question, Failure> {
        // As on all paths, a key in the query is refused.
        Query::parse(query)?;
        let mut reader =
            QueryReader { pairs: form_urlencoded::parse(query.as_bytes()).into_owned().collect(), errors: Vec::new() };
        let by_operator = self.token.is_some_and(|token| self.credentials.are(token));
        if by_operator && reader.wants_all() {
            return all(table, &mut reader);
        }
        let (service, client) = if by_operator {
            reader.refuse_all_but(&[OWN, OPERATORS]);
            self.any_client(table, &mut reader)
        } else {
            let (service, client) = self.own(table)?;
            if reader.pairs.iter().any(|(name, _)| OPERATORS.contains(&name.as_str())) {
                return Err(Failure::ExplainOthers);
            }
            reader.refuse_all_but(&[OWN]);
            (Some(service), client)
        };
        if by_operator && reader.value("all").is_some() {
            reader.errors.push("all: takes no other value than true; leave it out to ask for one client.".to_owned());
        }
        let (model, path) = (reader.value("model"), reader.value("path"));
        match service {
            Some(service) if reader.errors.is_empty() => {
                let (path_class, needs) = path_of(table, service, path.as_deref());
                let question = ClientQuestion { service, client, model, path_class, needs, by_operator };
                Ok(Question::ClientQuestion(question))
            }
            _ => Err(Failure::BadQuestion { errors: reader.errors }),
        }
    }

    /// The service and the client of the tenant's own requests. A service without tenants has no such requests.
    fn own(&self, table: &Table) -> Result<(ServiceIndex, Client), Failure> {
        match client::recognise(table, self.host, &self.credentials, &self.origin) {
            Ok(caller) if caller.tenant.is_some() => Ok((caller.service, caller.client)),
            Ok(_) | Err(Failure::MissingKey) => Err(Failure::ExplainUnauthorised),
            Err(failure) => Err(failure),
        }
    }

    /// The service and the client that the operator asks for. By default, it is a client at the operator's location.
    fn any_client(&self, table: &Table, reader: &mut QueryReader) -> (Option<ServiceIndex>, Client) {
        let service = match reader.value("service") {
            Some(name) => reader.require("service", &name, table.service_named(&name)),
            None => {
                let here = client::service_of(table, self.host);
                if here.is_none() {
                    reader.errors.push("service: is missing, and no service has this host; name one.".to_owned());
                }
                here
            }
        };
        let mut client = match (reader.value("client"), reader.value("country")) {
            (None, None) => self.origin.client(),
            (client, country) => Client {
                address: client.as_deref().and_then(|text| reader.address(text, country.is_some())),
                country: country.as_deref().and_then(|text| reader.country(text)),
                ..Client::default()
            },
        };
        if let Some(name) = reader.value("tenant") {
            client.tenant = reader.require("tenant", &name, table.tenant_named(&name));
            if let (Some(tenant), Some(service)) = (client.tenant, service)
                && !table.tenant(tenant).services.contains(&service)
            {
                let service = &table.service(service).id;
                reader.errors.push(format!("tenant: {name} may not use {service}: its requests are refused with 403."));
            }
        }
        (service, client)
    }
}

/// Reads the operator's question for every fence, or for those of the service and the tenant that it names.
fn all(table: &Table, reader: &mut QueryReader) -> Result<Question, Failure> {
    reader.refuse_all_but(&[WITH_ALL]);
    reader.value("all");
    let service = reader.value("service").and_then(|name| reader.require("service", &name, table.service_named(&name)));
    let tenant = reader.value("tenant").and_then(|name| reader.require("tenant", &name, table.tenant_named(&name)));
    if reader.errors.is_empty() {
        return Ok(Question::All { service, tenant });
    }
    Err(Failure::BadQuestion { errors: core::mem::take(&mut reader.errors) })
}

/// Reads a query string, and collects the mistakes in it.
struct QueryReader {
    pairs: Vec<(String, String)>,
    errors: Vec<String>,
}

impl QueryReader {
    /// Records a mistake for every parameter that isn't one of these.
    fn refuse_all_but(&mut self, known: &[&[&str]]) {
        let known = known.concat();
        for (name, _) in self.pairs.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
            self.errors.push(format!("{}: is not a part of the question; ask with {}.", quote(name), known.join(", ")));
        }
    }

    /// Whether the query asks for every fence: `all`, `all=true` or `all=1`.
    fn wants_all(&self) -> bool {
        self.pairs.iter().any(|(name, value)| name == "all" && matches!(value.as_str(), "" | "1" | "true"))
    }

    /// The value of a parameter. Records a mistake if the parameter stands twice.
    fn value(&mut self, name: &str) -> Option<String> {
        let mut values = self.pairs.iter().filter(|(parameter, _)| parameter == name).map(|(_, value)| value.clone());
        let value = values.next();
        if values.next().is_some() {
            self.errors.push(format!("{name}: stands twice; give one."));
        }
        value
    }

    /// Returns `found`, what the rules have under `name`. Records a mistake if it is `None`.
    fn require<T>(&mut self, what: &str, name: &str, found: Option<T>) -> Option<T> {
        if found.is_none() {
            self.errors.push(format!("{what}: the rules have no {what} {}.", quote(name)));
        }
        found
    }

    /// Reads the client's address. `unknown` means a client whose address and country aren't known.
    fn address(&mut self, text: &str, has_country: bool) -> Option<IpAddr> {
        match text.parse() {
            Ok(address) => return Some(address),
            Err(_) if text == "unknown" && has_country => {
                self.errors
                    .push("client, country: a client that is unknown has no country; give one of them.".to_owned());
            }
            Err(_) if text == "unknown" => {}
            Err(_) => {
                let text = quote(text);
                self.errors.push(format!("client: {text} is no address; write one such as 203.0.113.7, or unknown."));
            }
        }
        None
    }

    /// Reads the client's country.
    fn country(&mut self, text: &str) -> Option<CountryCode> {
        let code = CountryCode::parse(&text.to_ascii_uppercase());
        // A code for an unknown place, such as XX, is treated as in a request: the country is unknown.
        if code.is_none() && !is_like_code(text) {
            let text = quote(text);
            self.errors.push(format!("country: {text} is no ISO 3166-1 code of two letters, such as DE."));
        }
        code
    }
}

/// The class of a path, with or without `/v1`, and the replicas that it needs.
fn path_of(table: &Table, service: ServiceIndex, path: Option<&str>) -> (PathClass, Option<ReplicaSet>) {
    let Some(path) = path else { return (PathClass::Inference, None) };
    let path = path.split('?').next().unwrap_or_default();
    let within = path.strip_prefix("/v1").filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(path);
    let (class, needs) = by_path(table.service(service), within);
    (class, Some(needs))
}
