//! Makes the plan of a request. Takes a steering and the endpoints of its regions; returns a [`Plan`]: every endpoint
//! that the request may be sent to, in order. Called by `prepare` and `explain`.
//!
//! A [`Target`] can only be made here, and only from a [`Steering`]. Whatever sends a request needs a `Target`. So code
//! that sends outside the fence doesn't compile.

use std::collections::{BTreeMap, BTreeSet};

use bailiwick_rules::health::Status;
use bailiwick_rules::id::{EndpointId, JurisdictionId, RegionId};
use bailiwick_rules::rules::{Endpoint, Engine, HttpUrl, Pattern, SecretName, Style};
use bailiwick_rules::steer::{
    Ask, Conditions, Cooling, Local, Ranked, Reason, Steering, Withheld, forced_endpoint, forces_endpoints, rank, stand,
};
use bailiwick_rules::table::{Fenced, RegionIndex, ServiceIndex, Table};

use crate::decide::body::engine::Engines;
use crate::decide::body::models::NamedModel;
use crate::decide::body::{Needs, model_routes};
use crate::decide::envelope::{Failure, FieldFault};
use crate::decide::hash::hash;
use crate::decide::state::Place;
use crate::decide::state::tuned::is_tuned;

/// An endpoint that may be sent the request.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    region: RegionIndex,
    region_id: RegionId,
    id: EndpointId,
    endpoint: Endpoint,
    model: Option<String>,
    jurisdiction: Option<JurisdictionId>,
}

impl Target {
    /// The name of its region.
    #[must_use]
    pub(crate) fn region_id(&self) -> &RegionId {
        &self.region_id
    }

    /// Its name.
    #[must_use]
    pub(crate) fn id(&self) -> &EndpointId {
        &self.id
    }

    /// Its base URL.
    #[must_use]
    pub(crate) fn url(&self) -> &HttpUrl {
        &self.endpoint.url
    }

    /// The dialect of the API that it speaks.
    #[must_use]
    pub(crate) fn style(&self) -> Style {
        self.endpoint.style
    }

    /// The engine that runs there, if the rules name it.
    #[must_use]
    pub(crate) fn engine(&self) -> Option<Engine> {
        self.endpoint.engine
    }

    /// The `api-version` to send, for Azure.
    #[must_use]
    pub(crate) fn api_version(&self) -> Option<&str> {
        self.endpoint.api_version.as_deref()
    }

    /// The endpoint's own name for the request's model; `None` if the request names no model.
    #[must_use]
    pub(crate) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The endpoint's names of models, by the clients' names. `None` if the endpoint takes any model.
    #[must_use]
    pub(crate) fn models(&self) -> Option<&BTreeMap<String, String>> {
        self.endpoint.models.as_ref()
    }

    /// The endpoint's own name for a model; `None` if the endpoint doesn't have the model.
    #[must_use]
    pub(crate) fn call<'a>(&'a self, model: &'a str) -> Option<&'a str> {
        model_at(&self.endpoint, Some(model)).flatten()
    }

    /// Whether a name may belong to a model that was made of another tenant's data. It may if the rules don't name the
    /// model and several tenants use the endpoint's account. At SGLang the part after a colon names an adapter, which
    /// belongs to some tenant if there are tenants.
    pub(crate) fn is_somebodys(&self, model: &str, has_tenant: bool, is_sole: impl FnOnce() -> bool) -> bool {
        let has_adapter = has_tenant && self.engine() == Some(Engine::Sglang) && model.contains(':');
        let is_marked = is_tuned(model) || has_adapter;
        is_marked && self.endpoint.models.is_none() && !is_sole()
    }

    /// The first model, of those named below the top level of a body, that this request may not use here. Each is
    /// judged like the request's own model.
    pub(crate) fn lacks<'n>(
        &self,
        needs: &'n Needs,
        has_tenant: bool,
        is_sole: impl Fn() -> bool,
    ) -> Option<&'n NamedModel> {
        let is_somebodys = |named: &&NamedModel| self.is_somebodys(&named.name, has_tenant, &is_sole);
        lacks(&self.endpoint, needs).or_else(|| needs.models.iter().find(is_somebodys))
    }

    /// Pairs of an endpoint's name and the client's name for the same model, if any differ. If clients have two names
    /// for one model, the first name comes last.
    #[must_use]
    pub(crate) fn renamed(&self) -> Option<impl DoubleEndedIterator<Item = (&String, &String)>> {
        let models = self.models().filter(|models| models.iter().any(|(ours, theirs)| ours != theirs))?;
        Some(models.iter().rev().map(|(ours, theirs)| (theirs, ours)))
    }

    /// The name of the secret that holds its credential.
    #[must_use]
    pub(crate) fn secret(&self) -> Option<&str> {
        self.endpoint.secret.as_ref().map(SecretName::as_str)
    }

    /// The endpoint as a [`Place`].
    #[must_use]
    pub(crate) fn place(&self) -> Place {
        Place { region: self.region, endpoint: self.id.clone() }
    }

    /// The jurisdiction that puts its region into the fence; `*` if the rule takes any region.
    #[must_use]
    pub(crate) fn jurisdiction(&self) -> &str {
        self.jurisdiction.as_ref().map_or("*", JurisdictionId::as_str)
    }
}

/// An endpoint of an offered region that isn't tried, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Skipped {
    /// Its region.
    pub(crate) region: RegionId,
    /// Its name.
    pub(crate) endpoint: EndpointId,
    /// The reason.
    pub(crate) why: Skip,
}

/// Why an endpoint isn't tried.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Skip {
    /// The Worker has no value for its secret.
    NoSecret,
    /// Its map of models lacks the model. Or it has no map, and the model's name would choose where the request goes.
    NoModel,
    /// Its engine doesn't know all fields of the request.
    Engine,
    /// It rests after a failure, and other endpoints can be asked.
    Cooling,
    /// Its monitor reports that it is down, and other endpoints of the region are up.
    Down,
    /// An operator forced it down.
    Forced,
}

impl Skip {
    /// The word for logs.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NoSecret => "no_secret",
            Self::NoModel => "no_model",
            Self::Engine => "engine",
            Self::Cooling => "cooling",
            Self::Down => "down",
            Self::Forced => "forced",
        }
    }
}

/// What a plan is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlanRequest<'a> {
    /// The client's name of the model.
    pub(crate) model: Option<&'a str>,
    /// What an endpoint must know: the request's fields, and the models that it names below its top level.
    pub(crate) needs: &'a Needs,
    /// The conditions that the steering was made under.
    pub(crate) conditions: Conditions<'a>,
    /// Requests with equal keys go to the same endpoint of a region, as long as it is up.
    pub(crate) affinity: &'a str,
}

/// The endpoints that one request may be sent to, the best first. None occurs twice.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    targets: Vec<Target>,
    skipped: Vec<Skipped>,
}

impl Plan {
    /// Makes the plan that follows from a steering. `has_secret` says whether the secret of that name has a value.
    ///
    /// # Errors
    /// If the steering offers no region: 451 if the fence is empty or a hub lies outside it, 404 if no region of the
    /// fence has the model, else 503.
    pub(crate) fn from_steering(
        table: &Table,
        service: ServiceIndex,
        steering: &Steering,
        wanted: &PlanRequest<'_>,
        has_secret: impl Fn(&str) -> bool,
    ) -> Result<Self, Failure> {
        if let Some(failure) = nothing_offered(table, service, steering, wanted) {
            return Err(failure);
        }
        let mut plan = Self { targets: Vec::new(), skipped: Vec::new() };
        for ranked in &steering.ordered {
            plan.add_region(table, ranked.fenced, wanted, &has_secret);
        }
        Ok(plan)
    }

    /// Makes the plan for a request about something that one endpoint has. The plan holds this endpoint alone, if it
    /// may be asked now. It is asked even while it rests, because no other endpoint can answer.
    ///
    /// # Errors
    /// 451 if the endpoint is outside the fence. 404 if the pattern keeps the client elsewhere, or if the endpoint
    /// lacks the model. 503 if the endpoint is down.
    pub(crate) fn pinned(
        table: &Table,
        steering: &Steering,
        wanted: &PlanRequest<'_>,
        has_secret: impl Fn(&str) -> bool,
        place: &Place,
    ) -> Result<Self, Failure> {
        let here = |ranked: &Ranked| ranked.fenced.region == place.region;
        let fenced = steering.fence().find(|ranked| here(ranked)).ok_or(Failure::ResidencyDenied)?.fenced;
        let no_model = || {
            let endpoints = &table.region(place.region).endpoints;
            let here = endpoints
                .iter()
                .find(|(id, endpoint)| *id == place.endpoint && model_at(endpoint, wanted.model).is_some());
            let inner = here.and_then(|(_, endpoint)| lacks(endpoint, wanted.needs));
            let own = || Failure::ModelNotFound { model: wanted.model.unwrap_or_default().to_owned() };
            inner.map_or_else(own, NamedModel::not_found)
        };
        match steering.withheld.iter().find(|withheld| here(&withheld.ranked)).map(|withheld| withheld.reason) {
            None | Some(Reason::Cooling) => {}
            Some(Reason::NotHome) => return Err(Failure::UnknownId),
            Some(Reason::NoModel) => return Err(no_model()),
            Some(Reason::Forced | Reason::Down) => return Err(Failure::RegionUnavailable),
        }
        let mut plan = Self { targets: Vec::new(), skipped: Vec::new() };
        let rested = Local::default();
        let wanted = &PlanRequest { conditions: Conditions { local: &rested, ..wanted.conditions }, ..*wanted };
        plan.add_region(table, fenced, wanted, &has_secret);
        plan.targets.retain(|target| target.id == place.endpoint);
        plan.skipped.retain(|skipped| skipped.endpoint == place.endpoint);
        match (plan.targets.is_empty(), plan.skipped.first()) {
            (false, _) => Ok(plan),
            (true, Some(Skipped { why: Skip::NoModel, .. })) => Err(no_model()),
            (true, Some(Skipped { why: Skip::Engine, .. })) => Err(no_engine(wanted.needs)),
            (true, _) => Err(Failure::RegionUnavailable),
        }
    }

    fn add_region(
        &mut self,
        table: &Table,
        fenced: Fenced,
        wanted: &PlanRequest<'_>,
        has_secret: &impl Fn(&str) -> bool,
    ) {
        let region = table.region(fenced.region);
        let mut skip = |endpoint: &EndpointId, why: Skip| {
            self.skipped.push(Skipped { region: region.id.clone(), endpoint: endpoint.clone(), why });
        };
        let mut able = Vec::new();
        let any_forced = forces_endpoints(table, fenced.region, &wanted.conditions);
        let forced_at = |position| {
            let forced = || forced_endpoint(table, fenced.region, position, &wanted.conditions);
            any_forced.then(forced).flatten().map(|forced| forced.status)
        };
        for (position, (id, endpoint)) in region.endpoints.iter().enumerate() {
            let secret = endpoint.secret.as_ref().is_none_or(|secret| has_secret(secret.as_str()));
            match model_at(endpoint, wanted.model) {
                None => skip(id, Skip::NoModel),
                Some(_) if lacks(endpoint, wanted.needs).is_some() => skip(id, Skip::NoModel),
                Some(_) if !wanted.needs.engines.includes(endpoint.engine) => skip(id, Skip::Engine),
                Some(_) if !secret => skip(id, Skip::NoSecret),
                Some(_) if forced_at(position) == Some(Status::Down) => skip(id, Skip::Forced),
                Some(model) => {
                    let against = speaks_against(fenced.region, position, id, wanted, forced_at(position).is_some());
                    able.push((against, id, endpoint, model));
                }
            }
        }
        // An endpoint that is down or at rest is left out if the region has a better one. `None` sorts first.
        let best = able.iter().map(|one| one.0).min().flatten();
        if able.len() > 1 {
            able.sort_by_cached_key(|(_, id, endpoint, _)| {
                (endpoint.priority, score(wanted.affinity, &region.id, id, endpoint), *id)
            });
        }
        for (against, id, endpoint, model) in able {
            match against {
                Some(why) if against != best => skip(id, why),
                _ => self.targets.push(Target {
                    region: fenced.region,
                    region_id: region.id.clone(),
                    id: id.clone(),
                    endpoint: endpoint.clone(),
                    model: model.map(str::to_owned),
                    jurisdiction: fenced.jurisdiction.map(|name| table.jurisdiction(name).clone()),
                }),
            }
        }
    }

    /// Sets the name by which every target is asked for the model.
    pub(crate) fn call_model(&mut self, name: &str) {
        self.targets.iter_mut().for_each(|target| target.model = Some(name.to_owned()));
    }

    /// Leaves out endpoints that take any model, if the model may be another tenant's. An endpoint stays if `is_sole`
    /// says that this tenant alone uses its account.
    ///
    /// # Errors
    /// 404 if no endpoint is left.
    pub(crate) fn keep_apart(
        &mut self,
        model: &str,
        has_tenant: bool,
        is_sole: impl Fn(&Place) -> bool,
    ) -> Result<(), Failure> {
        self.leave_out(|target| target.is_somebodys(model, has_tenant, || is_sole(&target.place())));
        if self.targets.is_empty() { Err(Failure::ModelNotFound { model: model.to_owned() }) } else { Ok(()) }
    }

    /// Leaves out endpoints where a model named below the body's top level may be another tenant's.
    ///
    /// # Errors
    /// 404 if no endpoint is left.
    #[inline(never)]
    pub(crate) fn keep_named_apart(
        &mut self,
        needs: &Needs,
        has_tenant: bool,
        is_sole: impl Fn(&Place) -> bool,
    ) -> Result<(), Failure> {
        let mut lacking = None;
        self.leave_out(|target| {
            let lacks = target.lacks(needs, has_tenant, || is_sole(&target.place()));
            lacking = lacking.or(lacks);
            lacks.is_some()
        });
        match lacking.filter(|_| self.targets.is_empty()) {
            Some(named) => Err(named.not_found()),
            None => Ok(()),
        }
    }

    /// Leaves out endpoints that lack a model for this client.
    fn leave_out(&mut self, mut lacks: impl FnMut(&Target) -> bool) {
        let skipped = &mut self.skipped;
        self.targets.retain(|target| {
            let is_left_out = lacks(target);
            if is_left_out {
                let (region, endpoint) = (target.region_id.clone(), target.id.clone());
                skipped.push(Skipped { region, endpoint, why: Skip::NoModel });
            }
            !is_left_out
        });
    }

    /// The endpoints in order.
    #[must_use]
    pub(crate) fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The endpoints of offered regions that are left out.
    #[must_use]
    pub(crate) fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }
}

/// Chooses the endpoint where a client's new state is made. All clients of a tenant in a jurisdiction get the same
/// endpoint, because later requests have to find the state there. So the choice depends neither on health nor on
/// distance. The region is the first of the fence in the order of the rules (standby last, then by tier), or the one
/// that the pattern keeps the client at. In that region, the tenant's name chooses the endpoint.
///
/// # Errors
/// 451 if the fence is empty or a hub lies outside it, 404 if no endpoint has the model, 503 if no endpoint's secret
/// has a value.
pub(crate) fn home(
    table: &Table,
    ask: &Ask<'_>,
    affinity: &str,
    has_secret: impl Fn(&str) -> bool,
) -> Result<Place, Failure> {
    let mut standing = stand(table, &ask.client);
    if table.service(ask.service).pattern != Pattern::RegionalSharding {
        standing.location = None;
    }
    let ranking = rank(table, ask.service, &standing, ask.path_class);
    let allowed = |region: RegionIndex| ranking.only.is_none_or(|only| only == Some(region));
    let mut regions =
        ranking.order.iter().map(|ranked| ranked.fenced.region).filter(|&region| allowed(region)).peekable();
    if regions.peek().is_none() {
        return Err(Failure::ResidencyDenied);
    }
    let mut failure = Failure::RegionUnavailable;
    for index in regions {
        let region = table.region(index);
        let able = region.endpoints.iter().filter(|(_, endpoint)| model_at(endpoint, ask.model).is_some());
        let mut able = able.peekable();
        if able.peek().is_none()
            && let Some(model) = ask.model
        {
            failure = Failure::ModelNotFound { model: model.to_owned() };
        }
        let keyed = able.filter(|(_, one)| one.secret.as_ref().is_none_or(|secret| has_secret(secret.as_str())));
        let best = keyed.min_by_key(|(id, one)| (one.priority, score(affinity, &region.id, id, one), id.clone()));
        if let Some((endpoint, _)) = best {
            return Ok(Place { region: index, endpoint: endpoint.clone() });
        }
    }
    Err(failure)
}

/// The clients' names of all models in the fence. `None` if some endpoint takes any model: then an endpoint has to be
/// asked.
#[must_use]
pub(crate) fn models(table: &Table, steering: &Steering) -> Option<Vec<String>> {
    let mut names = BTreeSet::new();
    for ranked in steering.fence() {
        for (_, endpoint) in &table.region(ranked.fenced.region).endpoints {
            names.extend(endpoint.models.as_ref()?.keys().cloned());
        }
    }
    Some(names.into_iter().collect())
}

/// What to answer when the steering offers no region.
fn nothing_offered(
    table: &Table,
    service: ServiceIndex,
    steering: &Steering,
    wanted: &PlanRequest<'_>,
) -> Option<Failure> {
    let model = wanted.model;
    let mut fence = steering.fence().peekable();
    let not_home = |withheld: &Withheld| withheld.reason == Reason::NotHome;
    let hub_outside = table.service(service).hub.is_some() && steering.withheld.iter().all(not_home);
    if fence.peek().is_none() || steering.ordered.is_empty() && hub_outside {
        return Some(Failure::ResidencyDenied);
    }
    let has_model = |ranked: Ranked| {
        table.region(ranked.fenced.region).endpoints.iter().any(|(_, endpoint)| model_at(endpoint, model).is_some())
    };
    if let Some(name) = model
        && !fence.any(has_model)
    {
        return Some(Failure::ModelNotFound { model: name.to_owned() });
    }
    if !wanted.needs.models.is_empty()
        && let Some(named) = lacking_everywhere(table, steering, wanted)
    {
        return Some(named.not_found());
    }
    let knows = |ranked: Ranked| {
        let fits =
            |endpoint: &Endpoint| wanted.needs.engines.includes(endpoint.engine) && model_at(endpoint, model).is_some();
        table.region(ranked.fenced.region).endpoints.iter().any(|(_, endpoint)| fits(endpoint))
    };
    if wanted.needs.engines != Engines::ALL && !steering.fence().any(knows) {
        return Some(no_engine(wanted.needs));
    }
    steering.ordered.is_empty().then_some(Failure::RegionUnavailable)
}

/// The model named below the body's top level because of which no endpoint of the fence can take the request.
#[inline(never)]
fn lacking_everywhere<'n>(table: &Table, steering: &Steering, wanted: &PlanRequest<'n>) -> Option<&'n NamedModel> {
    let endpoints = steering.fence().flat_map(|ranked| &table.region(ranked.fenced.region).endpoints);
    let with_model = endpoints.filter(|(_, endpoint)| model_at(endpoint, wanted.model).is_some());
    let mut lacking = None;
    for (_, endpoint) in with_model {
        lacking = Some(lacks(endpoint, wanted.needs)?);
    }
    lacking
}

/// The first model, of those named below the top level of a body, that an endpoint lacks.
fn lacks<'n>(endpoint: &Endpoint, needs: &'n Needs) -> Option<&'n NamedModel> {
    needs.models.iter().find(|named| model_at(endpoint, Some(&named.name)).is_none())
}

/// The failure if no endpoint that may be asked knows a field of the request.
pub(crate) fn no_engine(needs: &Needs) -> Failure {
    Failure::UnknownField { field: needs.field.clone(), odd: FieldFault::Engine }
}

/// The endpoint's own name for a model. `Some(None)` if the request names no model, `None` if the endpoint lacks the
/// model.
fn model_at<'a>(endpoint: &'a Endpoint, model: Option<&'a str>) -> Option<Option<&'a str>> {
    match (model, &endpoint.models) {
        (None, _) => Some(None),
        (Some(model), None) => (!model_routes(model)).then_some(Some(model)),
        (Some(model), Some(map)) => map.get(model).map(|name| Some(name.as_str())),
    }
}

/// Why an endpoint should be tried after others, if at all. Probes don't count if an operator forced it up.
fn speaks_against(
    region: RegionIndex,
    position: usize,
    id: &EndpointId,
    wanted: &PlanRequest<'_>,
    is_forced_up: bool,
) -> Option<Skip> {
    let conditions = &wanted.conditions;
    let health = conditions.health.get(region.get());
    if health.and_then(|health| health.endpoints.get(position)) == Some(&Status::Down) && !is_forced_up {
        return Some(Skip::Down);
    }
    let mine = |cooling: &Cooling| {
        let same_model = cooling.model.is_none() || cooling.model.as_deref() == wanted.model;
        cooling.region == region && cooling.endpoint == *id && same_model && cooling.until > conditions.now
    };
    conditions.local.cooling.iter().any(mine).then_some(Skip::Cooling)
}

/// Weighted rendezvous hashing. The endpoint with the least score serves a key, so each gets keys in proportion to its
/// weight. If an endpoint goes, only its own keys move. `-ln(u) / weight` is the first arrival of a Poisson process
/// with that rate.
fn score(affinity: &str, region: &RegionId, id: &EndpointId, endpoint: &Endpoint) -> u64 {
    let hash = hash(&[affinity.as_bytes(), region.as_str().as_bytes(), id.as_str().as_bytes()]);
    // A double holds 53 bits. Adding a half keeps the unit above 0 and below 1, so the logarithm is finite and not
    // zero.
    #[expect(clippy::cast_precision_loss, reason = "both are below 2^53")]
    let unit = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    // Positive doubles sort like their bits.
    (-libm::log(unit) / f64::from(endpoint.weight.max(1))).to_bits()
}

#[cfg(test)]
pub(crate) mod tests {
    use bailiwick_rules::geo::CountryCode;
    use bailiwick_rules::health::{Forced, RegionHealth};
    use bailiwick_rules::steer::{Client, PathClass, steer};
    use bailiwick_rules::time::Timestamp;
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;

    pub(crate) const RULES: &str = r#"{
      "version": 1, "revision": 1,
      "jurisdictions": { "eu": { "include": ["EU"] }, "us": { "countries": ["US"] } },
      "regions": {
        "fra": { "countries": ["DE"], "endpoints": {
          "fra-1": { "url": "https://fra1.example.net/v1", "secret": "FRA_KEY", "weight": 3,
                     "models": { "chat": "llama" } },
          "fra-2": { "url": "https://fra2.example.net/v1", "secret": "FRA_KEY", "models": { "chat": "llama" } },
          "fra-3": { "url": "https://fra3.example.net/v1", "priority": 1, "models": { "chat": "llama-small" } } } },
        "par": { "countries": ["FR"], "standby": true, "endpoints": {
          "azure": { "url": "https://acme.openai.azure.com", "style": "azure", "api_version": "2024-10-21",
                     "secret": "AZURE_KEY", "models": { "chat": "gpt-4o", "embed": "ada" } } } },
        "iad": { "countries": ["US"], "endpoints": { "iad-1": { "url": "https://iad1.example.net/v1" } } }
      },
      "services": { "chat": { "hosts": ["chat.example.com"], "pattern": "active-active",
        "regions": ["fra", "par", "iad"],
        "residency": [ { "clients": ["eu"], "process_in": ["eu"] }, { "clients": ["us"], "process_in": ["*"] } ] } }
    }"#;

    pub(crate) const NOW: Timestamp = Timestamp(1_000_000);

    struct Case<'a> {
        country: &'a str,
        model: Option<&'a str>,
        health: &'a [RegionHealth],
        local: Local,
        affinity: &'a str,
        missing: &'a str,
    }

    impl Default for Case<'_> {
        fn default() -> Self {
            Self {
                country: "DE",
                model: Some("chat"),
                health: &[],
                local: Local::default(),
                affinity: "k",
                missing: "",
            }
        }
    }

    fn plan(case: &Case<'_>) -> Result<Plan, Failure> {
        plan_by(RULES, case, &Needs::default())
    }

    fn plan_by(rules: &str, case: &Case<'_>, needs: &Needs) -> Result<Plan, Failure> {
        let table = Table::compile(rules.as_bytes()).unwrap();
        let service = table.service_named("chat").unwrap();
        let client = Client { country: CountryCode::parse(case.country), ..Client::default() };
        let conditions = Conditions { health: case.health, local: &case.local, now: NOW };
        let ask = Ask { service, client, model: case.model, path_class: PathClass::Inference };
        let steering = steer(&table, &ask, &conditions);
        let wanted = PlanRequest { model: case.model, needs, conditions, affinity: case.affinity };
        Plan::from_steering(&table, service, &steering, &wanted, |name| name != case.missing)
    }

    fn names(plan: &Plan) -> Vec<&str> {
        plan.targets().iter().map(|target| target.id().as_str()).collect()
    }

    /// A plan of every German endpoint, for tests of the attempt machine.
    pub(crate) fn german_plan() -> Plan {
        plan(&Case::default()).unwrap()
    }

    /// A plan of the one American endpoint, which takes any model.
    pub(crate) fn american_plan(model: &str) -> Plan {
        plan(&Case { country: "US", model: Some(model), ..Case::default() }).unwrap()
    }

    #[test]
    fn priority_goes_before_hash_and_standby_regions_come_last() {
        let plan = german_plan();
        let names = names(&plan);
        assert_eq!(names[2..], ["fra-3", "azure"]);
        assert!(names[..2].contains(&"fra-1") && names[..2].contains(&"fra-2"));
        let azure = &plan.targets()[3];
        assert_eq!((azure.model(), azure.secret(), azure.jurisdiction()), (Some("gpt-4o"), Some("AZURE_KEY"), "eu"));
        assert_eq!(azure.region_id().as_str(), "par");
    }

    #[test]
    fn keys_spread_by_weight_and_stay() {
        let first = |key: &str| names(&plan(&Case { affinity: key, ..Case::default() }).unwrap())[0].to_owned();
        let keys: Vec<String> = (0..1000).map(|key| format!("tenant/{key}")).collect();
        let heavy = keys.iter().filter(|key| first(key) == "fra-1").count();
        assert!((700..800).contains(&heavy), "weight 3 of 4 gets {heavy} of 1000");
        assert_eq!(first("same"), first("same"));
        // The value itself is pinned: the same on every machine and in Wasm.
        assert_eq!(hash(&[b"a", b"b"]), 0xb912_458b_53ec_5105);
    }

    #[test]
    fn an_endpoint_without_its_secret_is_skipped() {
        let plan = plan(&Case { missing: "FRA_KEY", ..Case::default() }).unwrap();
        assert_eq!(names(&plan), ["fra-3", "azure"]);
        assert!(plan.skipped().iter().all(|skipped| skipped.why == Skip::NoSecret) && plan.skipped().len() == 2);
    }

    #[test]
    fn an_endpoint_of_another_engine_is_skipped_and_none_is_told() {
        let rules = RULES.replace("\"weight\": 3,", "\"weight\": 3, \"engine\": \"vllm\",");
        let body = |fields: &str| {
            let route = crate::decide::route::Route::parse("POST", "/v1/chat/completions").unwrap();
            let text = format!("{{\"model\":\"chat\",{fields}}}");
            let body = crate::decide::body::Inspected::json(
                text.into_bytes(),
                &route,
                &crate::decide::body::tests::terms(&[]),
            )
            .unwrap();
            body.needs().clone()
        };
        let guided = plan_by(&rules, &Case::default(), &body("\"guided_regex\":\"x\"")).unwrap();
        assert_eq!(names(&guided), ["fra-1"]);
        assert!(guided.skipped().iter().all(|skipped| skipped.why == Skip::Engine) && guided.skipped().len() == 3);
        assert_eq!(plan_by(&rules, &Case::default(), &body("\"top_k\":4")).unwrap().targets().len(), 4);
        let none = plan_by(&rules, &Case::default(), &body("\"ebnf\":\"x\"")).unwrap_err();
        assert_eq!(none, Failure::UnknownField { field: "ebnf".into(), odd: FieldFault::Engine });
        let unnamed = plan_by(RULES, &Case::default(), &body("\"guided_regex\":\"x\"")).unwrap_err();
        assert_eq!(unnamed.code(), "unknown_field");
    }

    #[test]
    fn a_model_that_names_a_route_needs_a_map_that_knows_it() {
        let american = |model| plan(&Case { country: "US", model: Some(model), ..Case::default() }).map(|_| ());
        assert_eq!(american("gpt-4o"), Ok(()));
        assert!(matches!(american("gpt-4o:online"), Err(Failure::ModelNotFound { .. })));
        let rules =
            RULES.replace("iad1.example.net/v1\"", "iad1.example.net/v1\", \"models\": { \"gpt-4o:online\": \"m\" }");
        let case = Case { country: "US", model: Some("gpt-4o:online"), ..Case::default() };
        assert_eq!(plan_by(&rules, &case, &Needs::default()).unwrap().targets()[0].model(), Some("m"));
    }

    fn naming(models: &[&str]) -> Needs {
        let named = |name: &&str| NamedModel { name: (*name).to_owned(), field: format!("/tools/0/{name}") };
        Needs { models: models.iter().map(named).collect(), ..Needs::default() }
    }

    #[test]
    fn a_model_below_the_top_level_is_judged_as_the_requests_own() {
        let go = |country, model, inner: &[&str]| {
            plan_by(RULES, &Case { country, model: Some(model), ..Case::default() }, &naming(inner))
        };
        let lacking =
            |name: &str| Some(Failure::InnerModelNotFound { model: name.into(), field: format!("/tools/0/{name}") });
        assert_eq!(names(&go("DE", "chat", &["chat"]).unwrap()).len(), 4);
        let plan = go("DE", "chat", &["embed"]).unwrap();
        assert_eq!(names(&plan), ["azure"], "only its map knows both");
        assert!(plan.skipped().iter().all(|skipped| skipped.why == Skip::NoModel) && plan.skipped().len() == 3);
        assert_eq!(go("DE", "chat", &["embed", "gpt-us"]).err(), lacking("gpt-us"));
        assert_eq!(go("DE", "gpt-us", &["gpt-us"]).err(), Some(Failure::ModelNotFound { model: "gpt-us".into() }));
        assert_eq!(names(&go("US", "gpt-9", &["dall-e"]).unwrap()), ["iad-1"], "it takes any model");
        for routing in ["gpt-4o:online", "us.anthropic.claude", "@preset/x"] {
            assert_eq!(go("US", "gpt-9", &[routing]).err(), lacking(routing));
        }
    }

    #[test]
    fn a_model_of_somebodys_data_is_kept_apart_below_the_top_level_too() {
        let result = |country, needs: &Needs, is_sole: bool| {
            let model = if country == "US" { "gpt-9" } else { "chat" };
            let mut plan = plan_by(RULES, &Case { country, model: Some(model), ..Case::default() }, needs).unwrap();
            plan.keep_named_apart(needs, true, |_| is_sole).map(|()| names(&plan).len())
        };
        let tuned = naming(&["ft:gpt-4o:acme::1"]);
        let field = "/tools/0/ft:gpt-4o:acme::1".to_owned();
        let lacking = Failure::InnerModelNotFound { model: "ft:gpt-4o:acme::1".into(), field };
        assert_eq!(result("US", &tuned, false), Err(lacking));
        assert_eq!(result("US", &tuned, true), Ok(1));
        assert_eq!(result("DE", &naming(&["chat"]), false), Ok(4));
    }

    #[test]
    fn an_adapter_of_sglangs_is_somebodys_where_the_map_is_open() {
        let rules = RULES.replace("iad1.example.net/v1\"", "iad1.example.net/v1\", \"engine\": \"sglang\"");
        let plan_of = |rules: &str, model| {
            let case = Case { country: "US", model: Some(model), ..Case::default() };
            plan_by(rules, &case, &Needs::default()).unwrap()
        };
        let result = |rules: &str, model, is_sole: bool| plan_of(rules, model).keep_apart(model, true, |_| is_sole);
        assert_eq!(result(&rules, "llama", false), Ok(()));
        assert!(matches!(result(&rules, "llama:acme", false), Err(Failure::ModelNotFound { .. })));
        assert_eq!(result(&rules, "llama:acme", true), Ok(()));
        assert_eq!(result(RULES, "llama3:8b", false), Ok(()), "elsewhere it is a size");
        let inner = naming(&["llama:acme"]);
        let named = |has_tenant| plan_of(&rules, "llama").keep_named_apart(&inner, has_tenant, |_| false);
        assert!(named(true).is_err());
        assert_eq!(named(false), Ok(()), "without tenants it is nobody's");
    }

    #[test]
    fn a_down_or_resting_endpoint_is_skipped_while_its_region_has_others() {
        let fra = |statuses: [Status; 3]| {
            let mut health = vec![RegionHealth::default(); 3];
            health[0].endpoints = statuses.to_vec();
            health
        };
        let some = fra([Status::Up, Status::Down, Status::Unknown]);
        let one_down = plan(&Case { health: &some, ..Case::default() }).unwrap();
        assert_eq!(names(&one_down), ["fra-1", "fra-3", "azure"]);
        assert_eq!(one_down.skipped()[0].why, Skip::Down);

        let cooling = |name: &str, model: Option<&str>| Cooling {
            region: RegionIndex(0),
            endpoint: EndpointId::parse(name).unwrap(),
            model: model.map(str::to_owned),
            until: Timestamp(NOW.0 + 1),
        };
        let local = Local { cooling: vec![cooling("fra-1", Some("chat")), cooling("fra-2", Some("other"))] };
        let resting = plan(&Case { local, ..Case::default() }).unwrap();
        assert_eq!(names(&resting), ["fra-2", "fra-3", "azure"]);
        let mut down_and_up = fra([Status::Down; 3]);
        down_and_up[2].endpoints = vec![Status::Down];
        let revived = plan(&Case { health: &down_and_up, ..Case::default() }).unwrap();
        assert_eq!(revived.targets().len(), 4, "a fence that is all down is tried");
    }

    #[test]
    fn an_endpoint_forced_down_is_never_tried_and_one_forced_up_is_tried_whatever_its_probes_say() {
        let forced = |statuses: [Option<Status>; 3], probed: [Status; 3]| {
            let until = Timestamp(NOW.0 + 1);
            let one = |status| Forced { status, until, reason: "drill".to_owned() };
            let mut health = vec![RegionHealth::default(); 3];
            health[0].endpoints = probed.to_vec();
            health[0].forced_endpoints = statuses.map(|status| status.map(one)).to_vec();
            health
        };
        let (up, down) = (Some(Status::Up), Some(Status::Down));
        let drained = forced([None, down, None], [Status::Down, Status::Up, Status::Down]);
        let drained = plan(&Case { health: &drained, ..Case::default() }).unwrap();
        assert_eq!(names(&drained), ["azure"], "the others are down, and it is not asked in their place");
        let all_down = |mut health: Vec<RegionHealth>| {
            health[2].endpoints = vec![Status::Down];
            health[1].probed = Status::Down;
            health
        };
        let revived = all_down(forced([None, down, None], [Status::Down, Status::Up, Status::Down]));
        let revived = plan(&Case { health: &revived, ..Case::default() }).unwrap();
        assert_eq!(names(&revived), ["fra-1", "fra-3", "azure"]);
        assert_eq!((revived.skipped()[0].endpoint.as_str(), revived.skipped()[0].why), ("fra-2", Skip::Forced));
        let up = forced([up, None, None], [Status::Down, Status::Down, Status::Up]);
        assert_eq!(names(&plan(&Case { health: &up, ..Case::default() }).unwrap()), ["fra-1", "fra-3", "azure"]);

        let table = Table::compile(RULES.as_bytes()).unwrap();
        let health = forced([down, None, None], [Status::Up; 3]);
        let (local, service) = (Local::default(), table.service_named("chat").unwrap());
        let conditions = Conditions { health: &health, local: &local, now: NOW };
        let client = Client { country: CountryCode::parse("DE"), ..Client::default() };
        let steering =
            steer(&table, &Ask { service, client, model: None, path_class: PathClass::Inference }, &conditions);
        let needs = Needs::default();
        let wanted = PlanRequest { model: None, needs: &needs, conditions, affinity: "" };
        let pinned = |name: &str| {
            let place = Place { region: RegionIndex(0), endpoint: EndpointId::parse(name).unwrap() };
            Plan::pinned(&table, &steering, &wanted, |_| true, &place).map(|plan| plan.targets().len())
        };
        assert_eq!(pinned("fra-1").unwrap_err(), Failure::RegionUnavailable, "what it alone has can wait");
        assert_eq!(pinned("fra-2").unwrap(), 1);
    }

    #[test]
    fn a_closed_map_refuses_and_an_open_one_passes() {
        assert_eq!(
            plan(&Case { model: Some("gpt-9"), ..Case::default() }).unwrap_err(),
            Failure::ModelNotFound { model: "gpt-9".into() }
        );
        let american = plan(&Case { model: Some("gpt-9"), country: "US", ..Case::default() }).unwrap();
        assert_eq!(names(&american), ["iad-1"]);
        assert_eq!((american.targets()[0].model(), american.targets()[0].jurisdiction()), (Some("gpt-9"), "*"));
        let embed = plan(&Case { model: Some("embed"), ..Case::default() }).unwrap();
        assert_eq!(names(&embed), ["azure"]);
    }

    #[test]
    fn an_empty_fence_is_denied() {
        assert_eq!(plan(&Case { country: "CH", ..Case::default() }).unwrap_err(), Failure::ResidencyDenied);
        assert_eq!(
            plan(&Case { country: "??", model: None, ..Case::default() }).unwrap_err(),
            Failure::ResidencyDenied
        );
    }

    fn state_case(
        country: &str,
        statuses: &[Status],
        place: Option<(&str, &str)>,
        model: Option<&str>,
    ) -> Result<String, Failure> {
        let table = Table::compile(RULES.as_bytes()).unwrap();
        let client = Client { country: CountryCode::parse(country), ..Client::default() };
        let service = table.service_named("chat").unwrap();
        let ask = Ask { service, client, model, path_class: PathClass::Inference };
        let region = |status: &Status| RegionHealth { probed: *status, ..RegionHealth::default() };
        let health: Vec<RegionHealth> = statuses.iter().map(region).collect();
        let local = Local {
            cooling: vec![Cooling {
                region: RegionIndex(0),
                endpoint: EndpointId::parse("fra-1").unwrap(),
                model: None,
                until: Timestamp(NOW.0 + 1),
            }],
        };
        let conditions = Conditions { health: &health, local: &local, now: NOW };
        let place = match place {
            None => home(&table, &ask, "chat/acme", |_| true)?,
            Some((region, endpoint)) => {
                Place { region: table.region_named(region).unwrap(), endpoint: EndpointId::parse(endpoint).unwrap() }
            }
        };
        let wanted = PlanRequest { model, needs: &Needs::default(), conditions, affinity: "" };
        let plan = Plan::pinned(&table, &steer(&table, &ask, &conditions), &wanted, |_| true, &place)?;
        assert_eq!(plan.targets().len(), 1);
        Ok(plan.targets()[0].id().to_string())
    }

    #[test]
    fn state_stays_at_its_endpoint_inside_the_fence() {
        let at = |country: &str, place| state_case(country, &[], Some(place), None);
        assert_eq!(at("DE", ("fra", "fra-1")), Ok("fra-1".into()), "resting, and asked all the same");
        assert_eq!(at("DE", ("par", "azure")), Ok("azure".into()));
        assert_eq!(at("DE", ("iad", "iad-1")), Err(Failure::ResidencyDenied));
        assert_eq!(at("CH", ("fra", "fra-1")), Err(Failure::ResidencyDenied));
        assert_eq!(at("US", ("iad", "iad-1")), Ok("iad-1".into()));
        let with = |model| state_case("DE", &[], Some(("fra", "fra-2")), Some(model));
        assert_eq!(
            (with("chat"), with("embed")),
            (Ok("fra-2".into()), Err(Failure::ModelNotFound { model: "embed".into() }))
        );
    }

    #[test]
    fn state_is_made_at_one_endpoint_whatever_the_weather() {
        // By name of region: fra, iad, par.
        use Status::{Down, Up};
        let home = state_case("DE", &[Up, Up, Up], None, None).unwrap();
        assert!(["fra-1", "fra-2"].contains(&home.as_str()), "the first region as written, the least priority: {home}");
        assert_eq!(state_case("AT", &[Up, Up, Up], None, None), Ok(home));
        assert_eq!(state_case("DE", &[Down, Up, Up], None, None), Err(Failure::RegionUnavailable), "never elsewhere");
        assert_eq!(state_case("DE", &[Up, Up, Up], None, Some("embed")), Ok("azure".into()));
        assert_eq!(state_case("CH", &[], None, None), Err(Failure::ResidencyDenied));
        assert_eq!(state_case("DE", &[], None, Some("x")), Err(Failure::ModelNotFound { model: "x".into() }));
    }

    #[test]
    fn models_are_the_fences_union_unless_one_takes_all() {
        let table = Table::compile(RULES.as_bytes()).unwrap();
        let of = |country: &str| {
            let client = Client { country: CountryCode::parse(country), ..Client::default() };
            let service = table.service_named("chat").unwrap();
            let ask = Ask { service, client, model: None, path_class: PathClass::Inference };
            let local = Local::default();
            models(&table, &steer(&table, &ask, &Conditions { health: &[], local: &local, now: NOW }))
        };
        assert_eq!(of("DE"), Some(vec!["chat".to_owned(), "embed".to_owned()]));
        assert_eq!(of("US"), None);
    }

    #[test]
    fn every_target_lies_in_the_fence_and_none_stands_twice() {
        let status = || prop_oneof![Just(Status::Up), Just(Status::Down), Just(Status::Unknown)];
        let region = (status(), proptest::collection::vec(status(), 0..4));
        let strategy = (
            proptest::sample::select(vec!["DE", "US", "CH", "??"]),
            proptest::sample::select(vec![None, Some("chat"), Some("embed"), Some("gpt-9")]),
            proptest::collection::vec(region, 3),
            proptest::collection::vec(
                (0..3u32, proptest::sample::select(vec!["fra-1", "fra-2", "azure", "iad-1"])),
                0..4,
            ),
            proptest::sample::select(vec!["", "FRA_KEY", "AZURE_KEY"]),
            any::<String>(),
        );
        let cases = std::cell::Cell::new(0u32);
        TestRunner::new(ProptestConfig::with_cases(2_000))
            .run(&strategy, |(country, model, regions, cooling, missing, affinity)| {
                cases.set(cases.get() + 1);
                let health = regions.into_iter().map(|(probed, endpoints)| RegionHealth {
                    probed,
                    endpoints,
                    ..RegionHealth::default()
                });
                let health: Vec<RegionHealth> = health.collect();
                let cooling = cooling.into_iter().map(|(region, name)| Cooling {
                    region: RegionIndex(region),
                    endpoint: EndpointId::parse(name).unwrap(),
                    model: None,
                    until: Timestamp(NOW.0 + 1),
                });
                let local = Local { cooling: cooling.collect() };
                let case = Case { country, model, health: &health, local, affinity: &affinity, missing };
                let Ok(plan) = plan(&case) else { return Ok(()) };
                let allowed: &[&str] = if country == "DE" { &["fra", "par"] } else { &["fra", "par", "iad"] };
                let mut seen = BTreeSet::new();
                for target in plan.targets() {
                    prop_assert!(allowed.contains(&target.region_id().as_str()), "{} is outside", target.region_id());
                    prop_assert!(seen.insert((target.region_id().clone(), target.id().clone())), "twice");
                    prop_assert!(target.secret() != Some(missing));
                }
                for skipped in plan.skipped() {
                    prop_assert!(
                        seen.insert((skipped.region.clone(), skipped.endpoint.clone())),
                        "skipped, yet planned"
                    );
                }
                Ok(())
            })
            .unwrap();
        println!("plans made: {}", cases.get());
    }
}
