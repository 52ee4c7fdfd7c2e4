//! The attributes of events and spans. Takes fields and values, returns them as the JSON of OTLP. Called by `event`.

use core::fmt::Write as _;

use crate::decide::json::quoted;

/// Everything that an event or a span may say. `docs/logs.md` has a row for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Field {
    /// What the request asks for, in a word of OpenTelemetry's.
    Operation,
    /// The dialect of the endpoint that served, in a word of OpenTelemetry's.
    Provider,
    /// The client's name of the model, if it is a name of the rules.
    RequestModel,
    /// The endpoint's name of the model, if it is a name of the rules.
    ResponseModel,
    /// Tokens of the prompt.
    InputTokens,
    /// Tokens of the answer.
    OutputTokens,
    /// The edge's error code, or how an attempt failed.
    Error,
    /// The status that the client got, or that an endpoint answered.
    Status,
    /// The edge's id of the request.
    RequestId,
    /// The service.
    Service,
    /// A pseudonym of the tenant.
    Tenant,
    /// The revision of the rules.
    Revision,
    /// The regions that may process the client.
    Fence,
    /// How many more regions the fence has.
    FenceMore,
    /// Every attempt, as in `x-bailiwick-attempts`.
    Attempts,
    /// The region that served.
    Region,
    /// The endpoint that served.
    Endpoint,
    /// The jurisdiction because of which that region is in the fence.
    Jurisdiction,
    /// The arm of a rollout.
    Arm,
    /// The tenant's service tier.
    Tier,
    /// How long the request took, in milliseconds.
    Duration,
    /// How long it took until the first content of a stream, in milliseconds.
    FirstToken,
    /// The client's request body, of services that keep it.
    Prompt,
    /// The answer's body, of services that keep it.
    Answer,
    /// Whether prompt or answer is only the beginning.
    Truncated,
}

impl Field {
    /// All fields.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 25] = [
        Self::Operation,
        Self::Provider,
        Self::RequestModel,
        Self::ResponseModel,
        Self::InputTokens,
        Self::OutputTokens,
        Self::Error,
        Self::Status,
        Self::RequestId,
        Self::Service,
        Self::Tenant,
        Self::Revision,
        Self::Fence,
        Self::FenceMore,
        Self::Attempts,
        Self::Region,
        Self::Endpoint,
        Self::Jurisdiction,
        Self::Arm,
        Self::Tier,
        Self::Duration,
        Self::FirstToken,
        Self::Prompt,
        Self::Answer,
        Self::Truncated,
    ];

    /// The attribute's name. Those that don't begin with `bailiwick.` are of OpenTelemetry's
    /// [semantic conventions](https://opentelemetry.io/docs/specs/semconv/gen-ai/).
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Operation => "gen_ai.operation.name",
            Self::Provider => "gen_ai.provider.name",
            Self::RequestModel => "gen_ai.request.model",
            Self::ResponseModel => "gen_ai.response.model",
            Self::InputTokens => "gen_ai.usage.input_tokens",
            Self::OutputTokens => "gen_ai.usage.output_tokens",
            Self::Error => "error.type",
            Self::Status => "http.response.status_code",
            Self::RequestId => "bailiwick.request.id",
            Self::Service => "bailiwick.service",
            Self::Tenant => "bailiwick.tenant",
            Self::Revision => "bailiwick.revision",
            Self::Fence => "bailiwick.fence",
            Self::FenceMore => "bailiwick.fence.more",
            Self::Attempts => "bailiwick.attempts",
            Self::Region => "bailiwick.region",
            Self::Endpoint => "bailiwick.endpoint",
            Self::Jurisdiction => "bailiwick.jurisdiction",
            Self::Arm => "bailiwick.arm",
            Self::Tier => "bailiwick.tier",
            Self::Duration => "bailiwick.duration_ms",
            Self::FirstToken => "bailiwick.first_token_ms",
            Self::Prompt => "bailiwick.request.body",
            Self::Answer => "bailiwick.response.body",
            Self::Truncated => "bailiwick.body.truncated",
        }
    }
}

/// Attributes as a JSON list without its brackets.
#[derive(Default)]
pub(super) struct Attributes(String);

impl Attributes {
    /// Adds a text.
    pub(super) fn text(&mut self, field: Field, value: &str) {
        self.begin(field);
        self.string(value);
        self.0.push('}');
    }

    /// Adds a text, if there is one.
    pub(super) fn maybe(&mut self, field: Field, value: Option<&str>) {
        if let Some(value) = value {
            self.text(field, value);
        }
    }

    /// Adds a whole number, if there is one. Protobuf's JSON writes 64 bits as a string. They are signed: a number that
    /// an endpoint made up and that is larger is left out, as a collector would refuse the whole batch for it.
    pub(super) fn number(&mut self, field: Field, value: Option<u64>) {
        let Some(value) = value.filter(|value| i64::try_from(*value).is_ok()) else { return };
        self.begin(field);
        let _ = write!(self.0, "{{\"intValue\":\"{value}\"}}}}");
    }

    /// Adds that something is so.
    pub(super) fn yes(&mut self, field: Field) {
        self.begin(field);
        self.0.push_str("{\"boolValue\":true}}");
    }

    /// Adds a list of texts.
    pub(super) fn texts<'t>(&mut self, field: Field, values: impl Iterator<Item = &'t str>) {
        self.begin(field);
        self.0.push_str("{\"arrayValue\":{\"values\":[");
        for (position, value) in values.enumerate() {
            if position > 0 {
                self.0.push(',');
            }
            self.string(value);
        }
        self.0.push_str("]}}}");
    }

    /// The list.
    pub(super) fn into_json(self) -> String {
        self.0
    }

    fn begin(&mut self, field: Field) {
        let comma = if self.0.is_empty() { "" } else { "," };
        self.0.extend([comma, "{\"key\":\"", field.name(), "\",\"value\":"]);
    }

    fn string(&mut self, value: &str) {
        self.0.extend(["{\"stringValue\":", &quoted(value), "}"]);
    }
}
