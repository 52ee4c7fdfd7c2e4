//! Plans that keep to one place: the endpoint that has what a request is about, or the region that an operator names.
//! Called by `prepare`. A fence is the list of the regions that may process a client's data.

use bailiwick_rules::steer::{Conditions, Local, Ranked, Reason, Steering};
use bailiwick_rules::table::Table;

use super::endpoint::{lacks, model_at};
use super::{Plan, PlanRequest, Skip, Skipped, no_engine};
use crate::decide::body::models::NamedModel;
use crate::decide::envelope::{Failure, PinFault};
use crate::decide::pin::Pin;
use crate::decide::state::Place;

impl Plan {
    /// Makes the plan for a request about an object that only one endpoint has. The plan holds only this endpoint, if
    /// it may be asked now. The endpoint is asked even while it rests, because no other endpoint can answer.
    ///
    /// # Errors
    /// 451 if the endpoint is outside the fence. 404 if the pattern allows only another region, or if the endpoint
    /// doesn't have the model. 503 if the endpoint is down.
    pub(crate) fn pinned(
        table: &Table,
        steering: &Steering,
        request: &PlanRequest<'_>,
        has_secret: impl Fn(&str) -> bool,
        place: &Place,
    ) -> Result<Self, Failure> {
        let here = |ranked: &Ranked| ranked.fenced.region == place.region;
        let fenced = steering.fence().find(|ranked| here(ranked)).ok_or(Failure::ResidencyDenied)?.fenced;
        let no_model = || {
            let endpoints = &table.region(place.region).endpoints;
            let here = endpoints
                .iter()
                .find(|(id, endpoint)| *id == place.endpoint && model_at(endpoint, request.model).is_some());
            let inner = here.and_then(|(_, endpoint)| lacks(endpoint, request.needs));
            let no_such_model = || Failure::ModelNotFound { model: request.model.unwrap_or_default().to_owned() };
            inner.map_or_else(no_such_model, NamedModel::not_found)
        };
        match steering.withheld.iter().find(|withheld| here(&withheld.ranked)).map(|withheld| withheld.reason) {
            // What only this endpoint has is asked for there, whatever it runs now.
            None | Some(Reason::Cooling | Reason::Skew) => {}
            Some(Reason::NotHome) => return Err(Failure::UnknownId),
            Some(Reason::NoModel) => return Err(no_model()),
            Some(Reason::Forced | Reason::Down | Reason::Lagging | Reason::Version) => {
                return Err(Failure::RegionUnavailable);
            }
        }
        let mut plan = Self { targets: Vec::new(), skipped: Vec::new() };
        let none_rest = Local::default();
        let request = &PlanRequest { conditions: Conditions { local: &none_rest, ..request.conditions }, ..*request };
        plan.add_region(table, fenced, (request, None), &has_secret, Some(&place.endpoint));
        plan.targets.retain(|target| target.id == place.endpoint);
        plan.skipped.retain(|skipped| skipped.endpoint == place.endpoint);
        match (plan.targets.is_empty(), plan.skipped.first()) {
            (false, _) => Ok(plan),
            (true, Some(Skipped { why: Skip::NoModel, .. })) => Err(no_model()),
            (true, Some(Skipped { why: Skip::Engine, .. })) => Err(no_engine(request.needs)),
            (true, _) => Err(Failure::RegionUnavailable),
        }
    }

    /// Makes the plan for a request that an operator sends to a region: one endpoint there, once. Only the fence
    /// counts. Health, load and knowledge don't, as a region is tried out before it serves others again.
    ///
    /// # Errors
    /// 451 if the region is outside the fence. 404 if no endpoint there has the model. 400 if none serves the arm. 503
    /// if none may be asked.
    pub(crate) fn in_region(
        table: &Table,
        steering: &Steering,
        request: &PlanRequest<'_>,
        has_secret: impl Fn(&str) -> bool,
        pin: Pin,
    ) -> Result<Self, Failure> {
        let here = |ranked: &Ranked| ranked.fenced.region == pin.region;
        let fenced = steering.fence().find(|ranked| here(ranked)).ok_or(Failure::PinOutside)?.fenced;
        if pin.arm.is_some() && request.rollout.is_some_and(|rollout| rollout.bundle().is_some()) {
            return Err(Failure::BadPin { wrong: PinFault::Bundle });
        }
        let mut plan = Self { targets: Vec::new(), skipped: Vec::new() };
        let none_rest = Local::default();
        let conditions = Conditions { local: &none_rest, ..request.conditions };
        let request = &PlanRequest { conditions, arm: pin.arm, ..*request };
        plan.add_region(table, fenced, (request, None), &has_secret, None);
        // Where the rules have no rollout, nothing has an arm.
        if pin.arm.is_some() && table.rollouts().is_empty() {
            return Err(Failure::BadPin { wrong: PinFault::Arm });
        }
        let skips = |why: Skip| plan.skipped.iter().any(|skipped| skipped.why == why);
        match plan.targets.is_empty() {
            false => Ok(plan),
            true if pin.arm.is_some() && skips(Skip::Arm) => Err(Failure::BadPin { wrong: PinFault::Arm }),
            true if plan.skipped.iter().all(|skipped| skipped.why == Skip::NoModel) => {
                Err(Failure::ModelNotFound { model: request.model.unwrap_or_default().to_owned() })
            }
            true if skips(Skip::Engine) => Err(no_engine(request.needs)),
            true => Err(Failure::RegionUnavailable),
        }
    }

    /// Keeps the first endpoint alone.
    pub(crate) fn keep_first(&mut self) {
        self.targets.truncate(1);
    }
}
