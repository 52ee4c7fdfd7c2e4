//! The parts of an error that programs read. Takes a [`Failure`]; returns its status, code, type and parameter. Called
//! by [`Failure::body`], logs and metrics.

use super::{Failure, FieldFault};

impl Failure {
    /// The HTTP status.
    #[must_use]
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::BadPath
            | Self::KeyInQuery
            | Self::BadQuery
            | Self::MissingBody
            | Self::NotJson { .. }
            | Self::NotAnObject
            | Self::DuplicateKey { .. }
            | Self::MiscasedKey { .. }
            | Self::BadField { .. }
            | Self::RemoteUrl { .. }
            | Self::UnknownField { .. }
            | Self::HostedTool { .. }
            | Self::Background
            | Self::Batch
            | Self::BadQuestion { .. }
            | Self::BadForm { .. }
            | Self::BadPin { .. }
            | Self::ItemReference
            | Self::BatchLine { .. }
            | Self::IdsApart => 400,
            Self::MissingKey
            | Self::UnknownKey
            | Self::ConflictingKeys
            | Self::ExplainUnauthorised
            | Self::MetricsUnauthorised
            | Self::PinUnauthorised => 401,
            Self::NotYourService | Self::ExplainOthers | Self::SharedList | Self::OriginNotAllowed => 403,
            Self::UnknownHost
            | Self::UnknownPath
            | Self::NotOffered { .. }
            | Self::PathNotServed
            | Self::ModelNotFound { .. }
            | Self::InnerModelNotFound { .. }
            | Self::BatchModel { .. }
            | Self::UnknownId => 404,
            Self::PathMistake(mistake) => mistake.status(),
            Self::BatchRequest { failure, .. } => failure.status(),
            Self::WrongMethod { .. } => 405,
            Self::SlowBody => 408,
            Self::BodyTooLarge { .. } => 413,
            Self::EncodedBody => 415,
            Self::RateLimited { .. } | Self::OutOfQuota | Self::Limited(_) => 429,
            Self::ResidencyDenied | Self::PinOutside => 451,
            Self::Internal => 500,
            Self::Interrupted { .. } => 502,
            Self::NotCarried { .. } => 501,
            Self::EndpointsFailed { .. }
            | Self::RegionUnavailable
            | Self::NoReceiptKey
            | Self::Unready
            | Self::RulesTooOld { .. }
            | Self::NoStateKey
            | Self::EncryptedElsewhere
            | Self::Busy => 503,
            Self::UpstreamTimeout => 504,
            Self::Refused { status, .. } => *status,
        }
    }

    /// The code in the body of the error, for programs: the code that the endpoint gave, else a code of the edge.
    #[must_use]
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Refused { code: Some(code), .. } | Self::Interrupted { code: Some(code), .. } => code,
            _ => self.own_code(),
        }
    }

    /// The code in logs and metrics. This is always a code of the edge, even if the endpoint gave another code.
    #[must_use]
    pub(crate) fn own_code(&self) -> &'static str {
        match self {
            Self::UnknownHost => "unknown_host",
            Self::UnknownPath => "unknown_path",
            Self::NotOffered { .. } => "not_offered",
            Self::PathMistake(mistake) => mistake.code(),
            Self::OriginNotAllowed => "origin_not_allowed",
            Self::WrongMethod { .. } => "method_not_allowed",
            Self::BadPath => "invalid_path",
            Self::KeyInQuery => "key_in_query",
            Self::BadQuery => "invalid_query",
            Self::MissingKey => "missing_api_key",
            Self::UnknownKey => "invalid_api_key",
            Self::ConflictingKeys => "conflicting_api_keys",
            Self::NotYourService => "service_not_allowed",
            Self::ModelNotFound { .. } | Self::InnerModelNotFound { .. } | Self::BatchModel { .. } => "model_not_found",
            Self::EncodedBody => "unsupported_content_encoding",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::SlowBody => "request_timeout",
            Self::MissingBody => "missing_body",
            Self::NotJson { .. } | Self::NotAnObject => "invalid_json",
            Self::DuplicateKey { .. } => "duplicate_key",
            Self::MiscasedKey { .. } => "miscased_key",
            Self::BadField { .. } => "invalid_field",
            Self::RemoteUrl { .. } => "remote_url_not_allowed",
            Self::UnknownField { odd: FieldFault::EngineInput, .. } => "engine_input_not_allowed",
            Self::UnknownField { .. } => "unknown_field",
            Self::HostedTool { .. } => "hosted_tool_not_allowed",
            Self::Background => "background_not_allowed",
            Self::Batch => "batch_not_allowed",
            Self::EncryptedElsewhere => "invalid_encrypted_content",
            Self::BatchLine { .. } => "invalid_batch_line",
            Self::BatchRequest { failure, .. } => failure.own_code(),
            Self::BadForm { .. } => "invalid_form",
            Self::UnknownId => "not_found",
            Self::ItemReference => "item_reference_not_allowed",
            Self::IdsApart => "ids_apart",
            Self::SharedList => "list_not_allowed",
            Self::NoStateKey => "no_state_key",
            Self::Busy => "busy",
            Self::NotCarried { .. } => "not_implemented",
            Self::ResidencyDenied | Self::PinOutside => "residency_denied",
            Self::RegionUnavailable | Self::EndpointsFailed { .. } => "region_unavailable",
            Self::PathNotServed => "path_not_served",
            Self::OutOfQuota => "insufficient_quota",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::RateLimited { .. } => "rate_limit_exceeded",
            Self::Limited(limited) => limited.code(),
            Self::Refused { .. } => "upstream_refused",
            Self::Interrupted { .. } => "upstream_interrupted",
            Self::NoReceiptKey => "receipt_unavailable",
            Self::ExplainUnauthorised => "explain_unauthorized",
            Self::MetricsUnauthorised => "metrics_unauthorized",
            Self::PinUnauthorised => "pin_unauthorized",
            Self::BadPin { .. } => "invalid_pin",
            Self::ExplainOthers => "explain_not_allowed",
            Self::BadQuestion { .. } => "invalid_question",
            Self::Unready => "not_ready",
            Self::RulesTooOld { .. } => "rules_too_old",
            Self::Internal => "internal_error",
        }
    }

    /// The error's `type`: the family of errors, in OpenAI's words.
    #[must_use]
    pub(crate) fn kind(&self) -> &str {
        match self {
            Self::Refused { kind: Some(kind), .. } | Self::Interrupted { kind: Some(kind), .. } => kind,
            Self::RateLimited { .. } | Self::Limited(_) => "rate_limit_error",
            Self::OutOfQuota => "insufficient_quota",
            Self::MissingKey
            | Self::UnknownKey
            | Self::ConflictingKeys
            | Self::ExplainUnauthorised
            | Self::MetricsUnauthorised
            | Self::PinUnauthorised => "authentication_error",
            Self::NotYourService
            | Self::ExplainOthers
            | Self::ResidencyDenied
            | Self::PinOutside
            | Self::SharedList
            | Self::OriginNotAllowed => "permission_error",
            _ if self.status() >= 500 => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// The field of the request at fault.
    #[must_use]
    pub(crate) fn param(&self) -> Option<&str> {
        match self {
            Self::ModelNotFound { .. } | Self::BatchModel { .. } => Some("model"),
            Self::DuplicateKey { key }
            | Self::RemoteUrl { field: key }
            | Self::UnknownField { field: key, .. }
            | Self::InnerModelNotFound { field: key, .. } => Some(key),
            Self::MiscasedKey { key } | Self::BadField { field: key, .. } => Some(key),
            Self::HostedTool { .. } => Some("tools"),
            Self::Background => Some("background"),
            Self::ItemReference => Some("input"),
            Self::BatchRequest { failure, .. } => failure.param(),
            Self::Refused { param, .. } | Self::Interrupted { param, .. } => param.as_deref(),
            _ => None,
        }
    }
}
