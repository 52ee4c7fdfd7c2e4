//! What a rollout changes in a plan. Takes a region and the request; returns the part that each of its endpoints has in
//! the rollout. Called by `plan` for every region, which by itself decides that the region may be asked at all. The
//! arms of a rollout are its two sides: the requests that get the old thing, and those that get the new thing.

use bailiwick_rules::id::{EndpointId, RegionId};
use bailiwick_rules::rollout::{Arm, Choice, RequestedEndpoint, Role, arm_at, is_trial, role};
use bailiwick_rules::rules::Endpoint;
use bailiwick_rules::table::{RegionIndex, Rollout, Table};

use crate::decide::plan::{PlanRequest, Skip};

/// The rollouts of a document, as they concern one request in one region.
pub(super) struct Arms<'t> {
    table: &'t Table,
    region: RegionIndex,
    /// The rollout of the request's service, and the session's arm.
    own: Option<(&'t Rollout, Option<Arm>)>,
    model: Option<&'t str>,
    /// The version of the bundle that the rollout moves, as the application chose it.
    choice: Option<Choice>,
    pinned: Option<&'t EndpointId>,
    /// The only arm that an operator wants.
    only: Option<Arm>,
}

/// What an endpoint does in a rollout.
pub(super) struct RolloutPart<'t> {
    /// The arm that it serves.
    pub(super) arm: Arm,
    /// The endpoint's name of the model in this arm, if the rollout replaces it.
    pub(super) model: Option<&'t str>,
    /// The endpoint whose place it takes in the order.
    pub(super) stands_for: Option<(&'t EndpointId, &'t Endpoint)>,
    /// Whether it is asked only after all others of the region.
    pub(super) is_last: bool,
    /// Whether its failures don't count against the endpoint.
    pub(super) is_trial: bool,
    /// Whether the rollout is judged by attempts here. If the new endpoint fails, the old one gets its sessions, which
    /// are those of requests that failed once. By them the old arm isn't judged. Neither is an arm that an application
    /// chose by the share of another region.
    pub(super) is_judged: bool,
}

impl<'t> Arms<'t> {
    /// `None` if the rules have no rollout.
    pub(super) fn at(
        table: &'t Table,
        region: RegionIndex,
        request: &PlanRequest<'t>,
        pinned: Option<&'t EndpointId>,
    ) -> Option<Self> {
        let rollout = request.rollout.map(|rollout| {
            // An operator may try an arm before the region has a share.
            let arm = request.arm.or_else(|| {
                let version = request.choice.map(|choice| choice.version);
                arm_at(rollout, region, request.affinity, version)
            });
            (rollout, arm)
        });
        (!table.rollouts().is_empty()).then_some(Self {
            table,
            region,
            own: rollout,
            model: request.model,
            choice: request.choice,
            pinned,
            only: request.arm,
        })
    }

    fn region_id(&self) -> &'t RegionId {
        &self.table.region(self.region).id
    }

    /// The part of an endpoint, if it has one. `name_at_endpoint` is its name of the model.
    ///
    /// # Errors
    /// If the request may not be sent to it.
    pub(super) fn of(
        &self,
        endpoint: &EndpointId,
        name_at_endpoint: Option<&str>,
    ) -> Result<Option<RolloutPart<'t>>, Skip> {
        let part = self.part(endpoint, name_at_endpoint)?;
        // An operator who asks for one arm doesn't get the other, even if that is in better health.
        match self.only.is_none() || part.as_ref().map(|part| part.arm) == self.only {
            true => Ok(part),
            false => Err(Skip::Arm),
        }
    }

    /// As [`Arms::of`], but without the check against the arm that an operator asked for.
    fn part(&self, endpoint: &EndpointId, name_at_endpoint: Option<&str>) -> Result<Option<RolloutPart<'t>>, Skip> {
        let closed = || match self.pinned == Some(endpoint) {
            // What the new arm has made stays where it is.
            true => Ok(None),
            false => Err(Skip::Arm),
        };
        let Some((rollout, arm)) = self.own else {
            return if self.table.is_rolled_out(self.region, endpoint) { closed() } else { Ok(None) };
        };
        let requested = RequestedEndpoint { endpoint, model: self.model, name_at_endpoint };
        match role(rollout, self.region_id(), arm, requested) {
            Role::Unaffected if self.table.is_rolled_out(self.region, endpoint) => closed(),
            Role::Unaffected => Ok(None),
            Role::Closed => closed(),
            Role::Serves { arm: serves, model, stands_for, is_last } => Ok(Some(RolloutPart {
                arm: serves,
                model,
                stands_for: stands_for.and_then(|id| self.endpoint(id)),
                is_last,
                is_trial: is_trial(rollout, self.region, serves),
                is_judged: arm == Some(serves) && self.is_of_region(rollout),
            })),
        }
    }

    /// Whether the arm was chosen by the share of this region.
    fn is_of_region(&self, rollout: &Rollout) -> bool {
        let is_chosen_here = self.choice.is_some_and(|choice| choice.region == Some(self.region));
        rollout.bundle().is_none() || is_chosen_here
    }

    fn endpoint(&self, id: &EndpointId) -> Option<(&'t EndpointId, &'t Endpoint)> {
        let endpoints = &self.table.region(self.region).endpoints;
        endpoints.iter().find(|(own, _)| own == id).map(|(id, endpoint)| (id, endpoint))
    }
}

impl RolloutPart<'_> {
    /// The endpoint with the names of models that it has in this arm.
    pub(super) fn endpoint(&self, endpoint: &Endpoint, request: &PlanRequest<'_>) -> Endpoint {
        let mut endpoint = endpoint.clone();
        if let (Some(name), Some(model), Some(models)) = (self.model, request.model, &mut endpoint.models) {
            models.insert(model.to_owned(), name.to_owned());
        }
        endpoint
    }
}
