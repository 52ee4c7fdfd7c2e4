//! A steering and the endpoints of its regions in; a [`Plan`] out: every endpoint a request may be sent to, in order.
//!
//! A [`Target`] can only be made here, and only from a [`Steering`]: whatever sends needs a `Target`, so code that sends
//! outside the fence doesn't compile.

use bailiwick_rules::id::{EndpointId, RegionId};
use bailiwick_rules::rules::{Endpoint, HttpUrl, Style};
use bailiwick_rules::steer::{Conditions, Steering};
use bailiwick_rules::table::{RegionIndex, ServiceIndex, Table};

use crate::envelope::Failure;

/// An endpoint that may be sent the request.
#[derive(Clone, Debug)]
pub struct Target {
    region: RegionIndex,
    region_id: RegionId,
    id: EndpointId,
    endpoint: Endpoint,
    model: Option<String>,
    jurisdiction: Option<bailiwick_rules::id::JurisdictionId>,
}

impl Target {
    /// Its region's position in the table the plan was made from.
    #[must_use]
    pub fn region(&self) -> RegionIndex {
        self.region
    }

    /// Its region's name.
    #[must_use]
    pub fn region_id(&self) -> &RegionId {
        &self.region_id
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &EndpointId {
        &self.id
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> &HttpUrl {
        &self.endpoint.url
    }

    /// The dialect it speaks.
    #[must_use]
    pub fn style(&self) -> Style {
        self.endpoint.style
    }

    /// Its `api-version`.
    #[must_use]
    pub fn api_version(&self) -> Option<&str> {
        self.endpoint.api_version.as_deref()
    }

    /// The model by the endpoint's own name; `None` if the request names none.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The name of the secret that holds its credential.
    #[must_use]
    pub fn secret(&self) -> Option<&str> {
        self.endpoint.secret.as_ref().map(bailiwick_rules::rules::SecretName::as_str)
    }

    /// The jurisdiction by which its region lies in the fence; `*` where the rule takes any region.
    #[must_use]
    pub fn jurisdiction(&self) -> &str {
        self.jurisdiction.as_ref().map_or("*", bailiwick_rules::id::JurisdictionId::as_str)
    }
}

/// An endpoint of an offered region that isn't tried, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Skipped {
    /// Its region.
    pub region: RegionId,
    /// Its name.
    pub endpoint: EndpointId,
    /// Why.
    pub why: Skip,
}

/// Why an endpoint isn't tried.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Skip {
    /// Its secret has no value here.
    NoSecret,
    /// Its model map, which is closed, lacks the model.
    NoModel,
    /// Its monitor says so, and its region has others.
    Down,
    /// It asked for a rest, and its region has others.
    Cooling,
}

/// What the plan is for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The model, by the client's name.
    pub model: Option<&'a str>,
    /// The conditions the steering was made under.
    pub conditions: Conditions<'a>,
    /// Requests with equal keys go to the same endpoint of a region while it lasts.
    pub affinity: &'a str,
}

/// The endpoints one request may be sent to, best first; never the same twice.
#[derive(Clone, Debug)]
pub struct Plan {
    targets: Vec<Target>,
    skipped: Vec<Skipped>,
}

impl Plan {
    /// The plan that follows a steering. `has_secret` tells whether the secret of a name has a value.
    ///
    /// # Errors
    /// When the steering offers nothing: 451 for an empty fence (or a hub outside it), 404 for a model no region of the
    /// fence has, else 503.
    pub fn from_steering(
        _table: &Table,
        _service: ServiceIndex,
        _steering: &Steering,
        _wanted: &Wanted<'_>,
        _has_secret: impl Fn(&str) -> bool,
    ) -> Result<Self, Failure> {
        unimplemented!()
    }

    /// The endpoints in order.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Endpoints of offered regions that are left out.
    #[must_use]
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }
}

/// The client's names of all models in the fence; `None` if some endpoint takes any model, so that an endpoint has to be asked.
#[must_use]
pub fn models(_table: &Table, _steering: &Steering) -> Option<Vec<String>> {
    unimplemented!()
}
