//! Makes the plan of a request. Takes a steering and the endpoints of its regions; returns a [`Plan`]: every endpoint
//! that the request may be sent to, in order. Called by `prepare` and `explain`.
//!
//! A [`Target`] can only be made here, and only from a [`Steering`]. All code that sends a request needs a `Target`. So
//! code that sends a request outside of the fence doesn't compile.

mod arm;
mod endpoint;
mod home;
mod only;
mod target;

use std::collections::BTreeSet;

use bailiwick_rules::health::Status;
use bailiwick_rules::id::{EndpointId, RegionId, TierId};
use bailiwick_rules::rollout::{Arm, Choice};
use bailiwick_rules::rules::{Endpoint, PriorityForm, ServiceTier};
use bailiwick_rules::steer::{
    Conditions, Cooling, Ranked, Reason, Skew, Steering, Withheld, forced_endpoint, forces_endpoints,
};
use bailiwick_rules::table::{Fenced, QuotaIndex, RegionIndex, Rollout, ServiceIndex, Table};

use crate::decide::body::engine::Engines;
use crate::decide::body::models::NamedModel;
use crate::decide::body::{Needs, Priority};
use crate::decide::envelope::{Failure, FieldFault};
use crate::decide::state::Place;
use arm::Arms;
use endpoint::{lacks, model_at, score};
pub(crate) use home::home;
pub(crate) use target::Target;

/// An endpoint of an offered region that isn't tried, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Skipped {
    /// The endpoint's region.
    pub(crate) region: RegionId,
    /// The endpoint's name.
    pub(crate) endpoint: EndpointId,
    /// The reason.
    pub(crate) why: Skip,
}

/// Why an endpoint isn't tried.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Skip {
    /// The Worker has no value for the endpoint's secret.
    NoSecret,
    /// The endpoint's map of models doesn't have the model. Or the endpoint has no map, and the model's name would
    /// decide where the request is processed.
    NoModel,
    /// The endpoint's engine doesn't know all fields of the request.
    Engine,
    /// The endpoint runs another release of the model, and other endpoints of the region don't.
    Skew,
    /// The endpoint rests after a failure, and other endpoints can be asked.
    Cooling,
    /// The endpoint's monitor reports it down, and other endpoints of the region are up.
    Down,
    /// An operator forced the endpoint down.
    Forced,
    /// The endpoint's quota doesn't allow the request now.
    Quota,
    /// The endpoint is the new one of a rollout, and the request doesn't have that arm.
    Arm,
}

impl Skip {
    /// The word for logs.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NoSecret => "no_secret",
            Self::NoModel => "no_model",
            Self::Engine => "engine",
            Self::Skew => "skew",
            Self::Cooling => "cooling",
            Self::Down => "down",
            Self::Forced => "forced",
            Self::Quota => "quota",
            Self::Arm => "arm",
        }
    }
}

/// The request that a plan is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlanRequest<'a> {
    /// The rollout of the service.
    pub(crate) rollout: Option<&'a Rollout>,
    /// The client's name of the model.
    pub(crate) model: Option<&'a str>,
    /// The fields that an endpoint's engine has to know, and the models that the body names below its top level.
    pub(crate) needs: &'a Needs,
    /// The conditions that the steering was made under.
    pub(crate) conditions: Conditions<'a>,
    /// The arm that an operator wants; else the session's own.
    pub(crate) arm: Option<Arm>,
    /// The version of the bundle that the rollout moves, as the application chose and names it.
    pub(crate) choice: Option<Choice>,
    /// Requests with equal keys go to the same endpoint of a region, as long as it is up.
    pub(crate) affinity: &'a str,
}

/// The endpoints that one request may be sent to, best first, each once.
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
        request: &PlanRequest<'_>,
        has_secret: impl Fn(&str) -> bool,
    ) -> Result<Self, Failure> {
        if let Some(failure) = nothing_offered(table, service, steering, request) {
            return Err(failure);
        }
        let mut plan = Self { targets: Vec::new(), skipped: Vec::new() };
        let skew = skew(table, steering, request);
        for ranked in &steering.ordered {
            plan.add_region(table, ranked.fenced, (request, skew.as_ref()), &has_secret, None);
        }
        Ok(plan)
    }

    /// Adds the endpoints of a region: those that may be asked, in order, to the targets; the others to the skipped.
    /// `pinned` is the only endpoint that has what the request is about.
    fn add_region(
        &mut self,
        table: &Table,
        fenced: Fenced,
        (request, skew): (&PlanRequest<'_>, Option<&Skew>),
        has_secret: &impl Fn(&str) -> bool,
        pinned: Option<&EndpointId>,
    ) {
        let region = table.region(fenced.region);
        let arms = Arms::at(table, fenced.region, request, pinned);
        let mut skip = |endpoint: &EndpointId, why: Skip| {
            self.skipped.push(Skipped { region: region.id.clone(), endpoint: endpoint.clone(), why });
        };
        let mut able = Vec::new();
        let any_forced = forces_endpoints(table, fenced.region, &request.conditions);
        let forced_at = |position| {
            let forced = || forced_endpoint(table, fenced.region, position, &request.conditions);
            any_forced.then(forced).flatten().map(|forced| forced.status)
        };
        for (position, (id, endpoint)) in region.endpoints.iter().enumerate() {
            let secret = endpoint.secret.as_ref().is_none_or(|secret| has_secret(secret.as_str()));
            match model_at(endpoint, request.model) {
                None => skip(id, Skip::NoModel),
                Some(_) if lacks(endpoint, request.needs).is_some() => skip(id, Skip::NoModel),
                Some(_) if !request.needs.engines.includes(endpoint.engine) => skip(id, Skip::Engine),
                Some(_) if !secret => skip(id, Skip::NoSecret),
                Some(_) if forced_at(position) == Some(Status::Down) => skip(id, Skip::Forced),
                Some(model) => match arms.as_ref().map_or(Ok(None), |arms| arms.of(id, model)) {
                    Err(closed) => skip(id, closed),
                    Ok(part) => {
                        let is_forced_up = forced_at(position).is_some();
                        let reason = reason_to_wait((fenced.region, position, id), request, is_forced_up, skew);
                        able.push((reason, id, endpoint, model, part));
                    }
                },
            }
        }
        // An endpoint that is down or at rest is left out if the region has a better one. `None` sorts first.
        let best = able.iter().map(|(reason, ..)| *reason).min().flatten();
        if able.len() > 1 {
            able.sort_by_cached_key(|(_, id, endpoint, _, part)| {
                let is_last = part.as_ref().is_some_and(|part| part.is_last);
                // An endpoint that replaces another takes its place.
                let stands_for = part.as_ref().and_then(|part| part.stands_for);
                let (as_id, as_endpoint) = stands_for.unwrap_or((id, endpoint));
                (is_last, as_endpoint.priority, score(request.affinity, &region.id, as_id, as_endpoint), *id)
            });
        }
        for (reason, id, endpoint, model, part) in able {
            match reason {
                Some(why) if reason != best => skip(id, why),
                _ => self.targets.push(Target {
                    region: fenced.region,
                    region_id: region.id.clone(),
                    id: id.clone(),
                    endpoint: part.as_ref().map_or_else(|| endpoint.clone(), |part| part.endpoint(endpoint, request)),
                    model: part.as_ref().and_then(|part| part.model).or(model).map(str::to_owned),
                    arm: part.as_ref().map(|part| part.arm),
                    is_trial: part.as_ref().is_some_and(|part| part.is_trial),
                    is_judged: part.as_ref().is_some_and(|part| part.is_judged),
                    jurisdiction: fenced.jurisdiction.map(|name| table.jurisdiction(name).clone()),
                    quota: quota_of(table, endpoint),
                    counts_tokens: quota_of(table, endpoint)
                        .and_then(|quota| table.quotas().get(quota.get()))
                        .is_some_and(|quota| quota.rule.tokens.is_some()),
                    priority: None,
                    objective: None,
                }),
            }
        }
    }

    /// Sets the name of the model that is sent to every target.
    pub(crate) fn call_model(&mut self, name: &str) {
        self.targets.iter_mut().for_each(|target| target.model = Some(name.to_owned()));
    }

    /// Sets the priority for every endpoint: the tenant's service tier, in the endpoint's own form. The priority that
    /// the client wrote is never sent.
    pub(crate) fn set_tier(&mut self, tier: Option<(&TierId, &ServiceTier)>) {
        for target in &mut self.targets {
            let (priority, objective) = match (tier, target.endpoint.priority_as) {
                (Some((_, tier)), Some(PriorityForm::Vllm)) => (Priority::Vllm(tier.rank), None),
                (Some((_, tier)), Some(PriorityForm::OpenAi)) => (Priority::OpenAi(tier.rank), None),
                (Some((name, _)), Some(PriorityForm::LlmD)) => (Priority::Absent, Some(name.clone())),
                (None, _) | (_, None) => (Priority::Absent, None),
            };
            (target.priority, target.objective) = (Some(priority), objective);
        }
    }

    /// Makes every endpoint report the tokens that an answer used, because they count for the tenant's budget.
    pub(crate) fn count_tokens(&mut self) {
        self.targets.iter_mut().for_each(|target| target.counts_tokens = true);
    }

    /// Leaves out endpoints that take any model, if the model may be fine-tuned with another tenant's data. An endpoint
    /// stays if only this tenant uses its account (`is_sole`).
    ///
    /// # Errors
    /// 404 if no endpoint is left.
    pub(crate) fn keep_apart(
        &mut self,
        model: &str,
        has_tenant: bool,
        is_sole: impl Fn(&Place) -> bool,
    ) -> Result<(), Failure> {
        self.leave_out(|target| target.may_belong_to_tenant(model, has_tenant, || is_sole(&target.place())));
        if self.targets.is_empty() { Err(Failure::ModelNotFound { model: model.to_owned() }) } else { Ok(()) }
    }

    /// Leaves out endpoints where a model named below the body's top level may be fine-tuned with another tenant's
    /// data.
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

    /// Leaves out endpoints that don't have a model for this client.
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

/// The clients' names of all models in the fence. `None` if an endpoint takes any model; then the list has to come from
/// an endpoint.
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

/// Which endpoints run another release of the model than counts in the fence. `None` if none does.
fn skew(table: &Table, steering: &Steering, request: &PlanRequest<'_>) -> Option<Skew> {
    if table.releases().is_empty() {
        return None;
    }
    let fence: Vec<RegionIndex> = steering.fence().map(|ranked| ranked.fenced.region).collect();
    Skew::of(table, &fence, request.model, &request.conditions)
}

/// The quota that an endpoint's requests are counted against.
fn quota_of(table: &Table, endpoint: &Endpoint) -> Option<QuotaIndex> {
    table.quota_named(endpoint.quota.as_ref()?.as_str())
}

/// What to answer when the steering offers no region.
fn nothing_offered(
    table: &Table,
    service: ServiceIndex,
    steering: &Steering,
    request: &PlanRequest<'_>,
) -> Option<Failure> {
    let model = request.model;
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
    if !request.needs.models.is_empty()
        && let Some(named) = lacking_everywhere(table, steering, request)
    {
        return Some(named.not_found());
    }
    let knows = |ranked: Ranked| {
        let fits = |endpoint: &Endpoint| {
            request.needs.engines.includes(endpoint.engine) && model_at(endpoint, model).is_some()
        };
        table.region(ranked.fenced.region).endpoints.iter().any(|(_, endpoint)| fits(endpoint))
    };
    if request.needs.engines != Engines::ALL && !steering.fence().any(knows) {
        return Some(no_engine(request.needs));
    }
    steering.ordered.is_empty().then_some(Failure::RegionUnavailable)
}

/// The model named below the body's top level because of which no endpoint of the fence can take the request.
#[inline(never)]
fn lacking_everywhere<'n>(table: &Table, steering: &Steering, request: &PlanRequest<'n>) -> Option<&'n NamedModel> {
    let endpoints = steering.fence().flat_map(|ranked| &table.region(ranked.fenced.region).endpoints);
    let with_model = endpoints.filter(|(_, endpoint)| model_at(endpoint, request.model).is_some());
    let mut lacking = None;
    for (_, endpoint) in with_model {
        lacking = Some(lacks(endpoint, request.needs)?);
    }
    lacking
}

/// The failure if no endpoint that may be asked knows a field of the request.
pub(crate) fn no_engine(needs: &Needs) -> Failure {
    Failure::UnknownField { field: needs.field.clone(), odd: FieldFault::Engine }
}

/// Why an endpoint should be tried after others, if at all. Probes don't count if an operator forced it up.
fn reason_to_wait(
    (region, position, id): (RegionIndex, usize, &EndpointId),
    request: &PlanRequest<'_>,
    is_forced_up: bool,
    skew: Option<&Skew>,
) -> Option<Skip> {
    let conditions = &request.conditions;
    let health = conditions.health.get(region.get());
    if health.and_then(|health| health.endpoints.get(position)) == Some(&Status::Down) && !is_forced_up {
        return Some(Skip::Down);
    }
    let mine = |cooling: &Cooling| {
        let same_model = cooling.model.is_none() || cooling.model.as_deref() == request.model;
        cooling.region == region && cooling.endpoint == *id && same_model && cooling.until > conditions.now
    };
    let is_cooling = conditions.local.cooling.iter().any(mine);
    let is_skewed = skew.is_some_and(|skew| skew.has(region, position));
    is_cooling.then_some(Skip::Cooling).or(is_skewed.then_some(Skip::Skew))
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod rollouts;
#[cfg(test)]
pub(crate) mod tests;
