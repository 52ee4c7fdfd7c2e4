//! The fields of the rules that describe a service: its names, who may be processed where, and what the edge allows.
//! Read by [`super::read`]; compiled by [`crate::table`].

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::{Answers, Cors, Guard, Order, Shed, ShedAt, Slew, SteeredHost, schema};
use crate::id::{JurisdictionId, RegionId, ReplicaId, SinkId};
use crate::time::Millis;

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
    /// Whether its clients may be moved because of load; never with `regional-sharding`.
    #[schemars(default)]
    pub shed: Shed,
    /// Which half moves them; by default the edge where a region has endpoints, else DNS.
    #[schemars(default)]
    pub shed_at: Option<ShedAt>,
    /// How fast a region's share of moved clients may change.
    #[schemars(default)]
    pub slew: Slew,
    /// By what the edge orders regions of one residency tier.
    #[schemars(default)]
    pub order: Order,
    /// How much of each of its fences health may take away at once. Absent: all of it. Counts where `fleet` names
    /// voters.
    #[schemars(default)]
    pub guard: Option<Guard>,
    /// The replicas that requests of a path need, by path without `/v1`; the longest that matches whole segments
    /// counts, and `/` stands for all others. A path that isn't listed needs none. DNS, which knows no path, withholds
    /// a region only if `/` is listed and every path needs the replica.
    #[schemars(default, with = "BTreeMap<String, Vec<String>>")]
    pub needs: BTreeMap<String, Vec<ReplicaId>>,
    /// Whether prompts and answers go to the sinks of `logs` too. Each sink of its clients has to take them
    /// (`"content": true`), and `receipts` have to be `required`, as they say so.
    #[schemars(default)]
    pub log_content: bool,
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
    /// The sink of these clients' events, which has to lie in every tier. Absent: the only sink that does.
    #[schemars(default, with = "Option<String>")]
    pub logs: Option<SinkId>,
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
