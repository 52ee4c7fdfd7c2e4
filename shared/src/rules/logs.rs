//! Sinks: collectors that get the edge's events by OTLP. Read by [`super::read`]; compiled by [`crate::table`].

use schemars::JsonSchema;

use super::{HttpUrl, Place, SecretName};

/// A collector that gets events of requests, over HTTP with JSON ([OTLP](https://opentelemetry.io/docs/specs/otlp/)).
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Sink {
    /// All the places where it keeps what it gets: ISO codes, jurisdictions by name, or `*` alone.
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub countries: Vec<Place>,
    /// Where events are posted, such as `https://otel.eu.example.net/v1/logs`. `https`, or `http` to a loopback
    /// address.
    #[schemars(with = "String")]
    pub otlp: HttpUrl,
    /// Where spans are posted, such as `https://otel.eu.example.net/v1/traces`. Absent: no spans are made.
    #[schemars(default, with = "Option<String>")]
    pub traces: Option<HttpUrl>,
    /// The name of the secret sent as a bearer token; a value with a space, such as `Basic …`, is sent as it is.
    /// Without its value the sink gets nothing.
    #[schemars(default, with = "Option<String>")]
    pub secret: Option<SecretName>,
    /// Whether it takes prompts and answers of services with `log_content`.
    #[schemars(default)]
    pub content: bool,
}
