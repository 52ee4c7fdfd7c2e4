//! Takes a rules document as JSON, returns [`Rules`]: each field has its type, but references between the parts aren't
//! checked yet. Called by [`crate::table`], which checks them, for instance that a service names a region that exists.
//!
//! Reading doesn't stop at the first mistake: it reports every field that can't be read, with its JSON pointer.

mod authority;
mod binding;
mod cors;
mod host;
mod load;
mod quota;
pub(crate) mod read;
mod scalar;
mod schema;
mod source;

use core::net::{Ipv4Addr, Ipv6Addr};
use std::collections::BTreeMap;

use ipnet::IpNet;
use schemars::JsonSchema;

pub use authority::Authority;
pub use binding::ServiceBinding;
pub use cors::{Cors, WebOrigin};
pub use host::SteeredHost;
pub use load::{Ratio, RegionLoad, Shed, ShedAt, Slew};
pub use quota::{Budget, PriorityForm, Quota, ServiceTier, TenantLimits};
pub use scalar::{HostName, HttpUrl, KeyDigest, SecretName};
pub use schema::json_schema_text;
pub(crate) use schema::output_default as default_output;
pub use source::{LoadSource, MetricsOf, NamedSeries, Series};

use crate::geo::{self, Coordinates, CountryCode, CountrySet};
use crate::health::{AddressFamily, Status, Thresholds};
use crate::id::{EndpointId, JurisdictionId, Overridden, QuotaId, RegionId, ServiceId, TenantId, TierId};
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
    /// How full it may get. The edge moves clients by it; DNS doesn't yet.
    #[schemars(default)]
    pub load: Option<RegionLoad>,
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
    /// How many requests it serves at once. The edge moves clients by it; DNS doesn't yet.
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

/// A health check.
#[derive(Clone, Debug, PartialEq)]
pub struct Monitor {
    /// What is tried.
    pub probe: Probe,
    /// Which addresses of a name are tried. `None` if the document doesn't say, which means [`Family::Any`].
    pub family: Option<Family>,
    /// Time between the starts of two probes.
    pub interval: Millis,
    /// How long one probe may take.
    pub timeout: Millis,
    /// How many results change the status.
    pub thresholds: Thresholds,
}

/// By which addresses of a name a monitor tries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Family {
    /// Whichever answers.
    #[default]
    Any,
    /// Whichever IPv4 address answers.
    Ipv4,
    /// Whichever IPv6 address answers.
    Ipv6,
    /// All of them, each family with a health of its own: the records of a dead family are withheld.
    Both,
}

/// What a monitor tries.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// A TCP connection.
    Tcp {
        /// `host:port` or `[v6]:port`.
        address: String,
    },
    /// An HTTP GET. The response's status and body are checked. A redirect counts as a failure.
    Http(HttpProbe),
}

impl Probe {
    /// The family of the probe's address; `None` if the probe names a host.
    #[must_use]
    pub fn address_family(&self) -> Option<AddressFamily> {
        let is_ipv4 = match self {
            Self::Tcp { address } => address.parse::<core::net::SocketAddr>().ok()?.is_ipv4(),
            Self::Http(probe) => match probe.url.as_url().host()? {
                url::Host::Domain(_) => return None,
                url::Host::Ipv4(_) => true,
                url::Host::Ipv6(_) => false,
            },
        };
        Some(if is_ipv4 { AddressFamily::Ipv4 } else { AddressFamily::Ipv6 })
    }
}

/// The HTTP request that a monitor sends, and the response that it expects.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpProbe {
    /// `http` or `https`; TLS is verified.
    pub url: HttpUrl,
    /// Statuses that mean success.
    pub status: Vec<u16>,
    /// Text that the body has to contain.
    pub body_contains: Option<String>,
    /// The name of the secret sent as a bearer token.
    pub secret: Option<SecretName>,
    /// The `Host` header to send instead of the URL's host.
    pub host: Option<Authority>,
    /// The TLS server name to use instead of `host` or the URL's host. The certificate has to be valid for it.
    pub sni: Option<HostName>,
    /// A file on the DNS node. Its certificate authorities are trusted instead of the system's.
    pub ca_file: Option<String>,
}

impl HttpProbe {
    /// The TLS server name, if it isn't the URL's host: `sni`, else the name in `host`.
    #[must_use]
    pub fn server_name(&self) -> Option<&HostName> {
        self.sni.as_ref().or_else(|| self.host.as_ref()?.name())
    }
}

/// A steered service.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Service {
    /// The names that are steered: DNS owners and HTTP hosts. `*.` before a name stands for the names below it, as a
    /// wildcard of DNS does (RFC 4592): any number of labels deep, but for hosts and other names that exist.
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub hosts: Vec<SteeredHost>,
    /// How regions inside the fence are ordered.
    pub pattern: Pattern,
    /// Regions by name, in the order `active-passive` follows.
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub regions: Vec<RegionId>,
    /// Who may be processed where. The first rule whose `clients` match decides.
    #[schemars(length(min = 1))]
    pub residency: Vec<ResidencyRule>,
    /// What happens when every region of the fence is withheld.
    #[schemars(default)]
    pub when_all_down: WhenAllDown,
    /// Bounds of DNS TTLs, in seconds.
    #[schemars(default)]
    pub ttl: TtlBounds,
    /// What DNS answers when steering offers nothing; else SERVFAIL.
    #[schemars(default)]
    pub denied_answers: Option<Answers>,
    /// The hub of `hub-and-spoke`.
    #[schemars(default)]
    pub hub: Option<Hub>,
    /// Time and size limits at the edge.
    #[schemars(default)]
    pub limits: Limits,
    /// What a fenced service refuses unless it is listed here.
    #[schemars(default)]
    pub allow: Vec<Allowance>,
    /// Whether the edge's answers carry a signed receipt.
    #[schemars(default)]
    pub receipts: Receipts,
    /// Which web pages may ask; by default none.
    #[schemars(default)]
    pub cors: Option<Cors>,
    /// How long a client that asked for a stream hears nothing before the edge begins it with comments of its own; at
    /// least 1s. By default it hears nothing until there is content.
    #[schemars(default)]
    pub keepalive: Option<Millis>,
    /// How the edge passes streams of events on once they have begun.
    #[schemars(default)]
    pub streams: Streams,
    /// Whether its clients may be moved because of load; never with `regional-sharding`. The edge moves them; DNS
    /// doesn't yet.
    #[schemars(default)]
    pub shed: Shed,
    /// Which half moves them; by default the edge where a region has endpoints, else DNS, which doesn't move any yet.
    #[schemars(default)]
    pub shed_at: Option<ShedAt>,
    /// How fast a region's share of moved clients may change.
    #[schemars(default)]
    pub slew: Slew,
}

/// How regions inside the fence are ordered, and whether a request crosses regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub enum Pattern {
    /// By tier, then by distance to the client.
    ActiveActive,
    /// By tier, then in the order written: the primary first.
    ActivePassive,
    /// Home only: the nearest by tier and distance.
    RegionalSharding,
    /// Inference as `active-active`; hub paths to the hub only.
    HubAndSpoke,
}

/// One residency rule: these clients may be processed in these tiers.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ResidencyRule {
    /// Jurisdictions by name, `*` (any known country) or `unknown`.
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub clients: Vec<ClientMatch>,
    /// Tiers in order: each a jurisdiction, a list of them (the nearest of all wins), or `*`. None: these clients are
    /// denied.
    #[schemars(with = "Vec<schema::OneOrMore>")]
    pub process_in: Vec<Tier>,
}

/// One entry of a rule's `clients`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientMatch {
    /// `*`: any client whose jurisdictions are known.
    Known,
    /// `unknown`: a client whose jurisdictions aren't known.
    Unknown,
    /// Clients of a jurisdiction.
    Jurisdiction(JurisdictionId),
}

/// One tier of `process_in`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// `*`: any region.
    Anywhere,
    /// Regions that lie in one of these.
    In(Vec<JurisdictionId>),
}

/// What happens when every region of the fence is withheld.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub enum WhenAllDown {
    /// Regions withheld as `down` or `cooling` are offered again.
    #[default]
    ServeFence,
    /// Nothing is offered.
    Fail,
}

/// Whether the edge's answers carry a signed receipt of where a request went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Receipts {
    /// Never.
    Off,
    /// Where the edge has a key to sign with.
    #[default]
    Optional,
    /// Always: without a key nothing is sent.
    Required,
}

/// How the edge passes a stream of events on once its first content has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Streams {
    /// Event by event: the edge notices silence, errors and an end without its last event.
    #[default]
    Inspect,
    /// By the runtime's own pipe, which costs far less: the edge notices only that the connection broke. A stream in
    /// which names or ids have to be replaced is inspected all the same.
    Pipe,
}

/// Bounds of a service's DNS TTLs, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct TtlBounds {
    /// Never lower.
    #[schemars(range(max = 86_400))]
    pub min: u32,
    /// Never higher.
    #[schemars(range(min = 1, max = 86_400))]
    pub max: u32,
}

impl Default for TtlBounds {
    fn default() -> Self {
        Self { min: 5, max: 60 }
    }
}

/// The hub of a `hub-and-spoke` service.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Hub {
    /// Where hub paths go, and nowhere else.
    #[schemars(with = "String")]
    pub region: RegionId,
    /// Whole-segment path prefixes without `/v1`, such as `/fine_tuning`.
    #[schemars(length(min = 1))]
    pub paths: Vec<String>,
}

/// Limits of one request at the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Limits {
    /// Until anything of a streaming endpoint's body comes: keep-alives and progress events count.
    pub headers_streamed: Millis,
    /// From an endpoint's first sign of life, such as a keep-alive, to its first content event: 2m by default, and
    /// never less than `headers_streamed` unless it is given.
    pub first_token: Millis,
    /// Until a unary endpoint's headers.
    pub headers_unary: Millis,
    /// Between two signs of life before the first content, and between two events of a committed answer.
    pub idle: Millis,
    /// Over all attempts, before anything is committed.
    pub total: Millis,
    /// The largest request body that is held, in bytes: 32 MiB by default, 64 MiB at most.
    #[schemars(range(min = 1, max = 67_108_864))]
    pub body_bytes: u64,
    /// The most endpoints that may be sent one request.
    #[schemars(range(min = 1, max = 3))]
    pub sends: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            headers_streamed: Millis(15_000),
            first_token: Millis(120_000),
            headers_unary: Millis(300_000),
            idle: Millis(60_000),
            total: Millis(600_000),
            body_bytes: 32 << 20,
            sends: 3,
        }
    }
}

/// Ways by which a model host could reach out of the fence, refused unless allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum Allowance {
    /// Values that are `http:` or `https:` URLs of public names and addresses, such as a remote `image_url`.
    RemoteUrls,
    /// Tools the host runs: web search, MCP, code interpreter.
    HostedTools,
    /// Background responses.
    Background,
    /// Stored responses.
    Store,
    /// Batch input, which escapes inspection.
    Batch,
    /// Fields that the model API doesn't document.
    UnknownFields,
    /// What an engine compiles, unpickles or obeys when it reads media: chat templates, embeddings, options of
    /// processors.
    EngineInputs,
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
