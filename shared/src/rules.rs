//! The rules document as types. Takes the document as JSON, returns [`Rules`]: each field has its type, but references
//! between the parts aren't checked yet. Called by [`crate::table`], which checks them, for instance that a service
//! names a region that exists.
//!
//! Reading doesn't stop at the first mistake: it reports every field that can't be read, with its JSON pointer.

mod aggregate;
mod authority;
mod binding;
mod bundle;
mod canary;
mod cors;
mod drill;
mod fleet;
mod host;
mod load;
mod logs;
mod monitor;
mod quota;
pub(crate) mod read;
mod release;
mod replica;
mod request;
mod rollout;
mod scalar;
mod schema;
mod service;
mod source;

use core::net::{Ipv4Addr, Ipv6Addr};
use std::collections::BTreeMap;

use ipnet::IpNet;
use schemars::JsonSchema;

pub use aggregate::Aggregate;
pub use authority::Authority;
pub use binding::ServiceBinding;
pub use bundle::Bundle;
pub use canary::{Canary, Position, Token};
pub use cors::{Cors, WebOrigin};
pub use drill::{AbortLimits, DateRange, Drill, Weekly};
pub use fleet::{Fleet, Guard, Voter};
pub use host::SteeredHost;
pub use load::{Order, Ratio, RegionLoad, Shed, ShedAt, Slew};
pub use logs::Sink;
pub use monitor::{Family, HttpProbe, ModelProbe, Monitor, PROBE_TOKENS, Probe, ProbeBudget};
pub use quota::{Budget, PriorityForm, Quota, ServiceTier, TenantLimits};
pub use release::{Glob, Release, Skew};
pub use replica::{
    GroupBy, JsonPointer, JsonReads, LagUnit, RegionReplica, Replica, ReplicaReads, ReplicaSource, WhenUnknown,
};
pub use request::{NoUrl, RequestTarget, credential};
pub use rollout::{Allowed, Arm, Change, EvalCheck, Measure, Pair, Progress, Rollout};
pub use scalar::{HostName, HttpUrl, KeyDigest, SecretName};
pub use schema::json_schema_text;
pub(crate) use schema::output_default as default_output;
pub(crate) use schema::{five_minutes, half_minute, minute as one_minute, twenty};
pub use service::{
    Allowance, ClientMatch, Hub, Limits, Pattern, Receipts, ResidencyRule, Service, Streams, Tier, TtlBounds,
    WhenAllDown,
};
pub use source::{LoadSource, MetricsOf, NamedSeries, Series};

use crate::geo::{self, Coordinates, CountryCode, CountrySet};
use crate::health::Status;
#[cfg(any(test, feature = "drills"))]
use crate::id::DrillId;
use crate::id::{
    BundleId, EndpointId, JurisdictionId, Overridden, QuotaId, RegionId, ReplicaId, RolloutId, ServiceId, SinkId,
    TenantId, TierId,
};
use crate::time::{Millis, Timestamp};

/// One rules document. Every section but `version` and `revision` may be missing.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Rules {
    /// The version of this format: 1.
    #[schemars(range(min = 1, max = 1))]
    pub version: u64,
    /// Increases with every change. A lower one is ignored; an equal one with other bytes is rejected.
    #[schemars(range(min = 1))]
    pub revision: u64,
    /// Named sets of countries whose law governs data.
    #[schemars(default, with = "BTreeMap<String, Jurisdiction>")]
    pub jurisdictions: BTreeMap<JurisdictionId, Jurisdiction>,
    /// Places that serve.
    #[schemars(default, with = "BTreeMap<String, Region>")]
    pub regions: BTreeMap<RegionId, Region>,
    /// Steered host names with a pattern, regions and residency rules.
    #[schemars(default, with = "BTreeMap<String, Service>")]
    pub services: BTreeMap<ServiceId, Service>,
    /// Customers known by API key.
    #[schemars(default, with = "BTreeMap<String, Tenant>")]
    pub tenants: BTreeMap<TenantId, Tenant>,
    /// Quotas of providers, shared by the endpoints that name them.
    #[schemars(default, with = "BTreeMap<String, Quota>")]
    pub quotas: BTreeMap<QuotaId, Quota>,
    /// How important tenants are when regions are full.
    #[schemars(default, with = "BTreeMap<String, ServiceTier>")]
    pub tiers: BTreeMap<TierId, ServiceTier>,
    /// What replaces something old, region after region.
    #[schemars(default, with = "BTreeMap<String, Rollout>")]
    pub rollouts: BTreeMap<RolloutId, Rollout>,
    /// Rehearsals of the loss of a region.
    #[cfg(any(test, feature = "drills"))]
    #[schemars(default, with = "BTreeMap<String, Drill>")]
    pub drills: BTreeMap<DrillId, Drill>,
    /// Knowledge that regions hold copies of, and how far a copy may be behind.
    #[schemars(default, with = "BTreeMap<String, Replica>")]
    pub replicas: BTreeMap<ReplicaId, Replica>,
    /// Which version of each bundle of files applications get, such as prompts.
    #[schemars(default, with = "BTreeMap<String, Bundle>")]
    pub bundles: BTreeMap<BundleId, Bundle>,
    /// What every region should run, by the clients' name of the model.
    #[schemars(default)]
    pub releases: BTreeMap<String, Release>,
    /// Collectors of the edge's events. Each gets only events of clients that may be processed where it stands.
    #[schemars(default, with = "BTreeMap<String, Sink>")]
    pub logs: BTreeMap<SinkId, Sink>,
    /// How several nodes agree on health. Absent: each goes by its own probes, and the edge by those it hears.
    #[schemars(default)]
    pub fleet: Option<Fleet>,
    /// Sums of what Workers observed, for a receiver anywhere. Absent: none are sent.
    #[schemars(default)]
    pub aggregate: Option<Aggregate>,
    /// Address prefixes whose place is known better than a GeoIP database knows it.
    #[schemars(default)]
    pub networks: Vec<Network>,
    /// Statuses forced by an operator, each with an end.
    #[schemars(default)]
    pub overrides: Vec<Override>,
    /// How this document may be used while it can't be confirmed.
    #[schemars(default)]
    pub rules: Keeping,
}

/// How a rules document may be used while no source of rules can be asked whether it is the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Keeping {
    /// How long the edge serves by it after a source last confirmed it. `0s`: not longer than the edge's own greatest
    /// age.
    pub stale_for: Millis,
}

impl Default for Keeping {
    fn default() -> Self {
        Self { stale_for: Millis(3_600_000) }
    }
}

/// A named set of countries: those listed and those of the included sets, without those excluded.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Jurisdiction {
    /// ISO 3166-1 alpha-2 codes.
    #[schemars(default)]
    pub countries: Vec<CountryCode>,
    /// Built-in sets, where the treaties apply: `EU` (the 27 members and AX, GF, GP, MF, MQ, RE, YT) or `EEA`.
    #[schemars(default, with = "Vec<schema::BuiltInSet>")]
    pub include: Vec<String>,
    /// Codes of the included sets that are left out.
    #[schemars(default)]
    pub exclude: Vec<CountryCode>,
    /// What the set means, for people.
    #[schemars(default)]
    pub description: Option<String>,
}

impl Jurisdiction {
    /// All countries of the jurisdiction.
    #[must_use]
    pub fn territory(&self) -> CountrySet {
        let mut set = CountrySet::default();
        for included in self.include.iter().filter_map(|name| geo::built_in_set(name)) {
            set.extend(&included);
        }
        for excluded in &self.exclude {
            set.remove(*excluded);
        }
        set.extend(&self.countries.iter().copied().collect());
        set
    }
}

/// A place that serves.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Region {
    /// All the places it may process in: ISO codes, jurisdictions by name, or `*` alone.
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub countries: Vec<Place>,
    /// Where it stands; by default the middle of its first country.
    #[schemars(default)]
    pub location: Option<Coordinates>,
    /// Sorts after every other region, before tiers are looked at.
    #[schemars(default)]
    pub standby: bool,
    /// What DNS answers for it.
    #[schemars(default)]
    pub answers: Option<Answers>,
    /// The HTTP base URLs that speak the model API.
    #[schemars(default, with = "BTreeMap<String, Endpoint>")]
    pub endpoints: BTreeMap<EndpointId, Endpoint>,
    /// A health check of the region as a whole.
    #[schemars(default)]
    pub monitor: Option<Monitor>,
    /// How full it may get. Clients are moved by it.
    #[schemars(default)]
    pub load: Option<RegionLoad>,
    /// Its copies of the document's `replicas`, by name.
    #[schemars(default, with = "BTreeMap<String, RegionReplica>")]
    pub replicas: BTreeMap<ReplicaId, RegionReplica>,
}

/// One entry of a region's `countries`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `*`: anywhere. Such a region lies in no jurisdiction.
    Anywhere,
    /// One country.
    Country(CountryCode),
    /// All countries of a jurisdiction.
    Jurisdiction(JurisdictionId),
}

/// Records by type. Every region of a service publishes the same types.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Answers {
    /// IPv4 addresses.
    #[schemars(rename = "A", default)]
    pub a: Vec<Ipv4Addr>,
    /// IPv6 addresses.
    #[schemars(rename = "AAAA", default)]
    pub aaaa: Vec<Ipv6Addr>,
    /// One string is one record; it is split at 255 bytes.
    #[schemars(rename = "TXT", default)]
    pub txt: Vec<String>,
    /// Exactly one name, and no other type beside it.
    #[schemars(rename = "CNAME", default, with = "Option<[String; 1]>")]
    pub cname: Option<HostName>,
    /// Service bindings for HTTPS (RFC 9460), such as `1 . alpn=h2`. Address hints are derived from `A` and `AAAA`,
    /// never written.
    #[schemars(rename = "HTTPS", default, with = "Vec<String>")]
    pub https: Vec<ServiceBinding>,
    /// Service bindings for other protocols, written likewise.
    #[schemars(rename = "SVCB", default, with = "Vec<String>")]
    pub svcb: Vec<ServiceBinding>,
}

/// One HTTP base URL of a region.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Endpoint {
    /// The base, with the API's `/v1` where it has one. `https`, or `http` to a loopback address.
    #[schemars(with = "String")]
    pub url: HttpUrl,
    /// How it is spoken to.
    #[schemars(default)]
    pub style: Style,
    /// What runs there. Fields that only it knows go to its endpoints alone; its cache is kept apart by tenant.
    #[schemars(default)]
    pub engine: Option<Engine>,
    /// The `api-version` of an `azure` endpoint.
    #[schemars(default)]
    pub api_version: Option<String>,
    /// The name of the secret that holds its credential. Without its value the endpoint is skipped.
    #[schemars(default, with = "Option<String>")]
    pub secret: Option<SecretName>,
    /// The client's name for each model and the endpoint's. Absent: any model, by the client's name.
    #[schemars(default)]
    pub models: Option<BTreeMap<String, String>>,
    /// Lower is tried first.
    #[schemars(default)]
    pub priority: u16,
    /// Its share among endpoints of equal priority.
    #[schemars(default = "schema::one", range(min = 1))]
    pub weight: u16,
    /// Its health check.
    #[schemars(default)]
    pub monitor: Option<Monitor>,
    /// How many requests it serves at once. Clients are moved by it.
    #[schemars(default, range(min = 1, max = 1_000_000_000))]
    pub capacity: Option<u32>,
    /// The quota that its requests are counted against.
    #[schemars(default, with = "Option<String>")]
    pub quota: Option<QuotaId>,
    /// How it is told the rank of a tenant's service tier; by default not at all.
    #[schemars(default)]
    pub priority_as: Option<PriorityForm>,
    /// Where the DNS nodes read how full it is.
    #[schemars(default)]
    pub load: Option<Box<LoadSource>>,
}

/// The dialect an endpoint speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Style {
    /// The OpenAI API: `Authorization: Bearer`, the model in the body.
    #[default]
    OpenAi,
    /// Azure OpenAI: `api-key`, the deployment in the path.
    Azure,
}

/// A server of models whose own request fields are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Engine {
    /// vLLM.
    Vllm,
    /// SGLang.
    Sglang,
}

/// A customer known by API key.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Tenant {
    /// SHA-256 of each API key, 64 lower-case hex digits.
    #[schemars(with = "Vec<schema::HexDigest>", length(min = 1))]
    pub key_sha256: Vec<KeyDigest>,
    /// Exactly these jurisdictions, whatever the address says; absent: by geography. A rule of each of its services
    /// names one of them, unless `process_in` says the fence.
    #[schemars(default, with = "Option<schema::OneOrMore>")]
    pub residency: Vec<JurisdictionId>,
    /// Its fence, in tiers: the regions of a service that lie there, and no others, whatever the service's rules say.
    /// Absent: by those rules.
    #[schemars(default, with = "Option<Vec<schema::OneOrMore>>", length(min = 1))]
    pub process_in: Option<Vec<Tier>>,
    /// The sink of its events; only beside `process_in`, in whose tiers it has to lie. Absent: the only sink that does.
    #[schemars(default, with = "Option<String>")]
    pub logs: Option<SinkId>,
    /// The services it may use.
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub services: Vec<ServiceId>,
    /// How much it may use, and how important it is.
    #[schemars(flatten, with = "schema::TenantLimitsAsWritten")]
    pub limits: TenantLimits,
}

/// An address prefix with its place.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Network {
    /// A prefix without host bits, such as `198.51.100.0/24`.
    #[schemars(with = "String")]
    pub prefix: IpNet,
    /// Its country.
    pub country: CountryCode,
    /// Its place, if better known than by its country.
    #[schemars(default)]
    pub location: Option<Coordinates>,
}

/// A status forced by an operator.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Override {
    /// The region.
    #[schemars(with = "String")]
    pub region: RegionId,
    /// One endpoint of the region; without it the region as a whole.
    #[schemars(with = "String", default)]
    pub endpoint: Option<EndpointId>,
    /// `up` or `down`.
    #[schemars(with = "schema::ForcedStatus")]
    pub status: Status,
    /// When probes decide again.
    pub until: Timestamp,
    /// Why.
    pub reason: String,
}

impl Override {
    /// The region or endpoint whose status it forces.
    #[must_use]
    pub fn of(&self) -> Overridden {
        Overridden { region: self.region.clone(), endpoint: self.endpoint.clone() }
    }
}
