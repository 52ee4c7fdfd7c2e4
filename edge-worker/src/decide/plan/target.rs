//! A target: one endpoint of a plan, with what its attempt needs to know. `plan` makes targets; whoever sends a request
//! or reads an answer asks them.

use std::collections::BTreeMap;

use bailiwick_rules::id::{EndpointId, JurisdictionId, RegionId, TierId};
use bailiwick_rules::rules::{Endpoint, Engine, HttpUrl, SecretName, Style};
use bailiwick_rules::table::{QuotaIndex, RegionIndex};

use crate::decide::body::models::NamedModel;
use crate::decide::body::{Needs, Priority};
use crate::decide::plan::endpoint::{lacks, model_at};
use crate::decide::state::Place;
use crate::decide::state::tuned::is_tuned;

/// An endpoint that may be sent the request.
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

    /// The position of its region in the rules.
    #[must_use]
    pub(crate) fn region(&self) -> RegionIndex {
        self.region
    }

    /// The quota that its requests are counted against.
    #[must_use]
    pub(crate) fn quota(&self) -> Option<QuotaIndex> {
        self.quota
    }

    /// Whether its quota or the tenant's budget limits tokens, so that every answer has to tell how many it used.
    #[must_use]
    pub(crate) fn counts_tokens(&self) -> bool {
        self.counts_tokens
    }

    /// How its body tells the importance of the tenant; `None`: as the client says.
    #[must_use]
    pub(crate) fn priority(&self) -> Option<Priority> {
        self.priority
    }

    /// The service tier to name in a header, for llm-d.
    #[must_use]
    pub(crate) fn objective(&self) -> Option<&TierId> {
        self.objective.as_ref()
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
