//! A target: one endpoint of a plan, with all that an attempt at this endpoint needs to know. Made by `plan`; read by
//! the code that writes the request for the endpoint and by the code that reads the endpoint's answer. The arms of a
//! rollout are its two sides: the requests that get the old thing, and those that get the new thing.

use std::collections::BTreeMap;

use bailiwick_rules::id::{EndpointId, JurisdictionId, RegionId, TierId};
use bailiwick_rules::rollout::Arm;
use bailiwick_rules::rules::{Endpoint, Engine, HttpUrl, SecretName, Style};
use bailiwick_rules::table::{QuotaIndex, RegionIndex};

use crate::decide::body::models::NamedModel;
use crate::decide::body::{Needs, Priority};
use crate::decide::plan::endpoint::{lacks, model_at};
use crate::decide::state::Place;
use crate::decide::state::tuned::is_tuned;

/// An endpoint that the request may be sent to. The accessors below describe the fields.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(super) region: RegionIndex,
    pub(super) region_id: RegionId,
    pub(super) id: EndpointId,
    pub(super) endpoint: Endpoint,
    pub(super) model: Option<String>,
    pub(super) jurisdiction: Option<JurisdictionId>,
    pub(super) quota: Option<QuotaIndex>,
    pub(super) counts_tokens: bool,
    pub(super) priority: Option<Priority>,
    pub(super) objective: Option<TierId>,
    pub(super) arm: Option<Arm>,
    pub(super) is_trial: bool,
    pub(super) is_judged: bool,
}

impl Target {
    /// The name of the endpoint's region.
    #[must_use]
    pub(crate) fn region_id(&self) -> &RegionId {
        &self.region_id
    }

    /// The name of the endpoint.
    #[must_use]
    pub(crate) fn id(&self) -> &EndpointId {
        &self.id
    }

    /// The index of the endpoint's region in the rules.
    #[must_use]
    pub(crate) fn region(&self) -> RegionIndex {
        self.region
    }

    /// The quota that requests to this endpoint are counted against.
    #[must_use]
    pub(crate) fn quota(&self) -> Option<QuotaIndex> {
        self.quota
    }

    /// Whether the quota or the tenant's budget limits tokens, so that every answer has to report the tokens it used.
    #[must_use]
    pub(crate) fn counts_tokens(&self) -> bool {
        self.counts_tokens
    }

    /// The priority to write into the request's body, from the tenant's service tier. With `None` the body keeps the
    /// priority that the client wrote.
    #[must_use]
    pub(crate) fn priority(&self) -> Option<Priority> {
        self.priority
    }

    /// The service tier to name in a header of the request; only for llm-d.
    #[must_use]
    pub(crate) fn objective(&self) -> Option<&TierId> {
        self.objective.as_ref()
    }

    /// The arm of a rollout that this endpoint serves.
    #[must_use]
    pub(crate) fn arm(&self) -> Option<Arm> {
        self.arm
    }

    /// Whether it serves the new arm of a rollout under another name of the model, or with other prompts, while others
    /// get the old one there. Then failures don't count against the endpoint as a whole.
    #[must_use]
    pub(crate) fn is_trial(&self) -> bool {
        self.is_trial
    }

    /// Whether a rollout is judged by attempts here: the endpoint serves the arm that the session has in its region.
    #[must_use]
    pub(crate) fn is_judged(&self) -> bool {
        self.is_judged
    }

    /// The endpoint's base URL.
    #[must_use]
    pub(crate) fn url(&self) -> &HttpUrl {
        &self.endpoint.url
    }

    /// The dialect of the model API that the endpoint speaks.
    #[must_use]
    pub(crate) fn style(&self) -> Style {
        self.endpoint.style
    }

    /// The inference engine behind the endpoint, if the rules name one.
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

    /// Whether a model's name may name a model that was fine-tuned with another tenant's data. That is possible if the
    /// endpoint has no map of models and several tenants use its account (`is_sole` is false). In SGLang, the part of a
    /// name after a colon names a LoRA adapter, which is assumed to belong to one of the tenants.
    pub(crate) fn may_belong_to_tenant(&self, model: &str, has_tenant: bool, is_sole: impl FnOnce() -> bool) -> bool {
        let has_adapter = has_tenant && self.engine() == Some(Engine::Sglang) && model.contains(':');
        let is_custom = is_tuned(model) || has_adapter;
        is_custom && self.endpoint.models.is_none() && !is_sole()
    }

    /// The first model in [`Needs::models`] (models named below the top level of the body) that this request may not
    /// use at this endpoint. The same rules apply as to the request's own model.
    pub(crate) fn lacks<'n>(
        &self,
        needs: &'n Needs,
        has_tenant: bool,
        is_sole: impl Fn() -> bool,
    ) -> Option<&'n NamedModel> {
        let may_belong_to_tenant = |named: &&NamedModel| self.may_belong_to_tenant(&named.name, has_tenant, &is_sole);
        lacks(&self.endpoint, needs).or_else(|| needs.models.iter().find(may_belong_to_tenant))
    }

    /// Pairs of the endpoint's name and the client's name for the same model; `None` if all names are equal. If clients
    /// have two names for one model, the alphabetically first name comes last.
    #[must_use]
    pub(crate) fn renamed(&self) -> Option<impl DoubleEndedIterator<Item = (&String, &String)>> {
        let is_renamed = |(client_name, endpoint_name): (&String, &String)| client_name != endpoint_name;
        let models = self.models().filter(|models| models.iter().any(is_renamed))?;
        Some(models.iter().rev().map(|(client_name, endpoint_name)| (endpoint_name, client_name)))
    }

    /// The name of the secret that holds the endpoint's credential.
    #[must_use]
    pub(crate) fn secret(&self) -> Option<&str> {
        self.endpoint.secret.as_ref().map(SecretName::as_str)
    }

    /// The [`Place`] of the endpoint: its region and name.
    #[must_use]
    pub(crate) fn place(&self) -> Place {
        Place { region: self.region, endpoint: self.id.clone() }
    }

    /// The jurisdiction because of which the endpoint's region is in the fence; `*` if the residency rule allows any
    /// region.
    #[must_use]
    pub(crate) fn jurisdiction(&self) -> &str {
        self.jurisdiction.as_ref().map_or("*", JurisdictionId::as_str)
    }
}
