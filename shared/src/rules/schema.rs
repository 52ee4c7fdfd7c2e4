//! Makes the JSON Schema of the rules document from the types of [`super`]. A test writes it to
//! `shared/rules.schema.json`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{
    Budget, DateRange, Family, LagUnit, LoadSource, Monitor, RegionReplica, Rules, Series, Slew, Style, WebOrigin,
    Weekly,
};
use crate::geo::{Coordinates, CountryCode};
use crate::time::{Millis, Timestamp};

/// The schema (draft 2020-12) as pretty-printed JSON with a final newline.
///
/// Editors complete and check a rules document by it when the document names it as `$schema`. It describes the form of
/// a document only. Whether the parts of a document fit each other is checked by `bailiwick check`.
#[must_use]
pub fn json_schema_text() -> String {
    let mut schema = schemars::schema_for!(Rules);
    if let Some(properties) = schema.get_mut("properties").and_then(|value| value.as_object_mut()) {
        properties.insert("$schema".to_owned(), serde_json::json!({ "type": "string" }));
    }
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

pub(super) fn one() -> u16 {
    1
}

pub(super) fn three() -> u32 {
    3
}

pub(crate) fn minute() -> Millis {
    Millis(60_000)
}

pub(crate) fn twenty() -> u32 {
    20
}

pub(crate) fn half_minute() -> Millis {
    Millis(30_000)
}

pub(crate) fn five_minutes() -> Millis {
    Millis(300_000)
}

pub(crate) fn output_default() -> u64 {
    800
}

pub(super) fn headroom() -> f64 {
    0.05
}

/// The limits of a tenant, which stand beside its other fields.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct TenantLimitsAsWritten {
    /// Its service tier.
    #[schemars(default)]
    tier: Option<String>,
    /// How many of its requests may be under way at once in one isolate of the edge.
    #[schemars(default, range(min = 1, max = 1_000_000))]
    concurrency: Option<u32>,
    /// What it may use in a span.
    #[schemars(default)]
    budget: Option<Budget>,
    /// The part of each quota that is kept for it, from 0 to 1. What it doesn't use is lent to others.
    #[schemars(default)]
    reserve: BTreeMap<String, f64>,
}

macro_rules! string_schema {
    ($type:ty, $name:literal, $schema:tt) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

string_schema!(CountryCode, "CountryCode", { "type": "string", "pattern": "^[A-Z]{2}$", "description": "ISO 3166-1 \
    alpha-2 code." });
string_schema!(Millis, "Duration", { "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$", "description": "A duration: \
    500ms, 5s, 2m, 1h, 1d." });
string_schema!(Slew, "Slew", { "type": "string", "pattern": "^[0-9]+%/[0-9]+(ms|s|m|h)$",
    "description": "A share in a time: 5%/10s." });
string_schema!(Weekly, "Weekly", { "type": "string", "pattern": "^(Mon|Tue|Wed|Thu|Fri|Sat|Sun) [0-2][0-9]:[0-5][0-9]$",
    "description": "A time of each week, in UTC: Tue 10:00." });
string_schema!(DateRange, "DateRange", { "type": "string",
    "pattern": "^[0-1][0-9]-[0-3][0-9]/[0-1][0-9]-[0-3][0-9]$",
    "description": "Days of each year, both included, in UTC: 12-15/01-05." });
string_schema!(WebOrigin, "WebOrigin", { "type": "string", "pattern": r"^(\*|[a-z][a-z0-9+.-]*://[^/?#@*]+)$",
    "description": "An origin as browsers write it, or `*`." });
string_schema!(Timestamp, "Timestamp", { "type": "string", "format": "date-time" });

impl JsonSchema for Coordinates {
    fn schema_name() -> Cow<'static, str> {
        "Coordinates".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Degrees north and east.",
            "type": "object",
            "properties": {
                "latitude": { "type": "number", "minimum": -90, "maximum": 90 },
                "longitude": { "type": "number", "minimum": -180, "maximum": 180 },
            },
            "required": ["latitude", "longitude"],
            "additionalProperties": false,
        })
    }
}

/// A monitor as written: `type` decides which fields belong.
#[derive(JsonSchema)]
#[schemars(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used; reading is by hand, to note every violation")]
enum MonitorAsWritten {
    /// A TCP connection.
    Tcp {
        /// `host:port` or `[v6]:port`.
        address: String,
        /// By which addresses of a name; `any`.
        family: Option<Family>,
        /// Time between the starts of two probes; 10s.
        interval: Option<Millis>,
        /// How long one probe may take; 3s.
        timeout: Option<Millis>,
        /// Successes in a row that bring DOWN to UP; 3.
        #[schemars(range(min = 1, max = 1000))]
        up_thresh: Option<u32>,
        /// Successes in a row that forget failures; 5.
        #[schemars(range(min = 1, max = 1000))]
        ok_thresh: Option<u32>,
        /// Failures that bring UP to DOWN; 3.
        #[schemars(range(min = 1, max = 1000))]
        down_thresh: Option<u32>,
    },
    /// A GET whose status and body are looked at. A redirect fails.
    Http {
        /// `http` or `https`; TLS is verified.
        url: String,
        /// Statuses that mean success; 200.
        status: Option<Vec<u16>>,
        /// Text that the body has to contain.
        body_contains: Option<String>,
        /// The name of the secret sent as a bearer token.
        secret: Option<String>,
        /// The `Host` that is asked for, with a port if need be; the URL's.
        host: Option<String>,
        /// The server name of TLS, for which the certificate has to be; `host`, else the URL's. `https` only.
        sni: Option<String>,
        /// A PEM file of the DNS node with the authorities that are trusted instead of the system's. A relative path
        /// starts at the folder of bailiwick.toml. `https` only.
        ca_file: Option<String>,
        /// By which addresses of a name; `any`.
        family: Option<Family>,
        /// Time between the starts of two probes; 10s.
        interval: Option<Millis>,
        /// How long one probe may take; 3s.
        timeout: Option<Millis>,
        /// Successes in a row that bring DOWN to UP; 3.
        #[schemars(range(min = 1, max = 1000))]
        up_thresh: Option<u32>,
        /// Successes in a row that forget failures; 5.
        #[schemars(range(min = 1, max = 1000))]
        ok_thresh: Option<u32>,
        /// Failures that bring UP to DOWN; 3.
        #[schemars(range(min = 1, max = 1000))]
        down_thresh: Option<u32>,
    },
    /// A token of a model, streamed: proof that the endpoint generates.
    Openai {
        /// The model to ask, by the client's name for it.
        model: String,
        /// How long the token is awaited, less than `interval`; 5s.
        first_token: Option<Millis>,
        /// How many tokens probes may use on one node.
        budget: Option<ProbeBudgetAsWritten>,
        /// The name of the secret with the credential. It is sent as the style demands.
        secret: Option<String>,
        /// The base URL to ask; the endpoint's own. A region's monitor has to name one.
        url: Option<String>,
        /// How it is spoken to, of a region's monitor only: an endpoint says it itself; openai.
        style: Option<Style>,
        /// The `api-version` of Azure, of a region's monitor only.
        api_version: Option<String>,
        /// The `Host` that is asked for, with a port if need be; the URL's.
        host: Option<String>,
        /// The server name of TLS, for which the certificate has to be; `host`, else the URL's. `https` only.
        sni: Option<String>,
        /// A PEM file of the DNS node with the authorities that are trusted instead of the system's. A relative path
        /// starts at the folder of bailiwick.toml. `https` only.
        ca_file: Option<String>,
        /// By which addresses of a name, `both` excepted; `any`.
        family: Option<Family>,
        /// Time between the starts of two probes; 30s.
        interval: Option<Millis>,
        /// Successes in a row that bring DOWN to UP; 3.
        #[schemars(range(min = 1, max = 1000))]
        up_thresh: Option<u32>,
        /// Successes in a row that forget failures; 5.
        #[schemars(range(min = 1, max = 1000))]
        ok_thresh: Option<u32>,
        /// Failures that bring UP to DOWN; 3.
        #[schemars(range(min = 1, max = 1000))]
        down_thresh: Option<u32>,
    },
}

/// How many tokens the probes of a monitor may use, as written.
#[derive(JsonSchema)]
#[schemars(rename = "ProbeBudget", deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct ProbeBudgetAsWritten {
    /// Tokens of prompts and answers together. A probe counts as 64.
    #[schemars(range(min = 64, max = 1_000_000_000_000u64))]
    tokens: u64,
    /// The span that they are for, from 1m to 31d; 1d.
    #[schemars(default = "day")]
    per: Millis,
}

fn day() -> Millis {
    Millis(86_400_000)
}

impl JsonSchema for Monitor {
    fn schema_name() -> Cow<'static, str> {
        "Monitor".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        MonitorAsWritten::json_schema(generator)
    }
}

/// A source of loads as written.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used; reading is by hand, to note every violation")]
struct LoadSourceAsWritten {
    /// Whose series the page has.
    #[schemars(rename = "type")]
    kind: MetricsType,
    /// The metrics page: `http` or `https`; TLS is verified.
    url: String,
    /// The name of the secret sent as a bearer token.
    secret: Option<String>,
    /// The `Host` that is asked for, with a port if need be; the URL's.
    host: Option<String>,
    /// The server name of TLS, for which the certificate has to be; `host`, else the URL's. `https` only.
    sni: Option<String>,
    /// A PEM file of the DNS node with the authorities that are trusted instead of the system's. A relative path starts
    /// at the folder of bailiwick.toml. `https` only.
    ca_file: Option<String>,
    /// Time between the starts of two readings; 2s.
    interval: Option<Millis>,
    /// How long one reading may take; 2s.
    timeout: Option<Millis>,
    /// Requests that wait. This and the next three with `prometheus` only, which needs one of the first three.
    waiting: Option<Series>,
    /// Requests that are being served; counts only with the endpoint's `capacity`.
    running: Option<Series>,
    /// The used part of the cache of keys and values, from 0 to 1.
    kv: Option<Series>,
    /// A counter that rises while tokens are made.
    progress: Option<Series>,
}

/// Whose series a metrics page has.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used")]
enum MetricsType {
    /// vLLM.
    Vllm,
    /// SGLang, started with `--enable-metrics`.
    Sglang,
    /// Text Generation Inference.
    Tgi,
    /// `trtllm-serve` of TensorRT-LLM.
    Trtllm,
    /// NVIDIA Dynamo.
    Dynamo,
    /// Any other program, by named series.
    Prometheus,
}

impl JsonSchema for LoadSource {
    fn schema_name() -> Cow<'static, str> {
        "LoadSource".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        LoadSourceAsWritten::json_schema(generator)
    }
}

/// A region's copy of a replica of knowledge: where it is read how far it is behind, or that it is the original.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used; reading is by hand, to note every violation")]
struct RegionReplicaAsWritten {
    /// Whether the region holds the original, which isn't gated by lag: `true`, or where the answer says it. Alone,
    /// `true` is enough.
    leader: Option<LeaderAsWritten>,
    /// Where it is read how far the copy is behind; for a store, the base of its API. `http` or `https`; TLS is
    /// verified.
    url: Option<String>,
    /// What is read.
    #[schemars(rename = "as")]
    kind: Option<ReplicaType>,
    /// Where it stands in a JSON answer: a pointer such as `/applied_at`. With `timestamp`, `seconds`, `bytes`, `count`
    /// and `version`.
    read: Option<String>,
    /// Where the answer says what time it is, by the clock that `read` is written by; by default the node's own clock
    /// counts. With `timestamp`.
    now: Option<String>,
    /// Where the answer says the version of the copy. With `timestamp`, `seconds`, `bytes` and `count`.
    version: Option<String>,
    /// The series of a metrics page; of several samples the one that is furthest behind counts. With `prometheus`.
    series: Option<Series>,
    /// What the series' number means; `seconds`. With `prometheus`.
    unit: Option<LagUnit>,
    /// The collection. With `qdrant`, and with `weaviate`, where it may be left out.
    collection: Option<String>,
    /// The member that stands in the region. With `patroni`.
    member: Option<String>,
    /// The follower index. With `elasticsearch-ccr`.
    index: Option<String>,
    /// The name of the secret sent as a bearer token.
    secret: Option<String>,
    /// The `Host` that is asked for, with a port if need be; the URL's.
    host: Option<String>,
    /// The server name of TLS, for which the certificate has to be; `host`, else the URL's. `https` only.
    sni: Option<String>,
    /// A PEM file of the DNS node with the authorities that are trusted instead of the system's. A relative path starts
    /// at the folder of bailiwick.toml. `https` only.
    ca_file: Option<String>,
    /// Time between the starts of two readings; 5s.
    interval: Option<Millis>,
    /// How long one reading may take, at most `interval`; 3s, or `interval` where that is shorter.
    timeout: Option<Millis>,
}

/// `true`, or a pointer.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum LeaderAsWritten {
    Said(bool),
    Told(String),
}

/// What is read of a replica.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used")]
enum ReplicaType {
    /// JSON: the time of the newest thing that was applied, RFC 3339 or a number since 1970.
    Timestamp,
    /// JSON: seconds behind.
    Seconds,
    /// JSON: bytes behind.
    Bytes,
    /// JSON: operations, objects or rows behind.
    Count,
    /// JSON: the version alone.
    Version,
    /// A series of a metrics page.
    Prometheus,
    /// Qdrant: the length of the update queue; all shards have to be active.
    Qdrant,
    /// Patroni: bytes that the member is behind.
    Patroni,
    /// Elasticsearch's cross-cluster replication: operations that the follower lacks.
    #[schemars(rename = "elasticsearch-ccr")]
    Elasticsearch,
    /// Weaviate: objects that wait to be indexed.
    Weaviate,
}

impl JsonSchema for RegionReplica {
    fn schema_name() -> Cow<'static, str> {
        "RegionReplica".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        RegionReplicaAsWritten::json_schema(generator)
    }
}

/// How far a copy is behind: a duration, or a number.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum LagAsWritten {
    Time(Millis),
    Amount(#[schemars(range(min = 0, max = 9_007_199_254_740_992u64))] u64),
}

/// Built-in sets of countries.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum BuiltInSet {
    #[schemars(rename = "EU")]
    Eu,
    #[schemars(rename = "EEA")]
    Eea,
}

/// What an operator can force.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum ForcedStatus {
    Up,
    Down,
}

/// One jurisdiction (or `*`), or a list of them.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum OneOrMore {
    One(String),
    More(#[schemars(length(min = 1))] Vec<String>),
}

pub(super) struct False;
impl JsonSchema for False {
    fn schema_name() -> Cow<'static, str> {
        "False".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "boolean", "const": false, "description": "`false`." })
    }
}

pub(super) struct Percent;
string_schema!(Percent, "Percent", { "type": "string", "pattern": "^[0-9]+%$", "description": "Whole per cent: 50%." });

pub(super) struct HexDigest;
string_schema!(HexDigest, "HexDigest", { "type": "string", "pattern": "^[0-9a-f]{64}$" });
