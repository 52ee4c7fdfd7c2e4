//! Makes the API's JSON responses. Takes a value or a [`Problem`], returns a response. Also says, by entity tags,
//! whether the caller has an answer already. Called by all paths of the API.

use axum::Json;
use axum::http::header::IF_NONE_MATCH;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Why a request wasn't served: `{"error": {"message": "…"}}`, and `"messages"` when there are more.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    messages: Vec<String>,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// One reason.
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, messages: vec![message.into()], header: None }
    }

    /// All reasons at once.
    pub(super) fn all(status: StatusCode, messages: Vec<String>) -> Self {
        Self { status, messages, header: None }
    }

    /// With a header.
    pub(super) fn with(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { header: Some((name, value)), ..self }
    }
}

/// Whether the caller has what this entity tag names, by the weak comparison of `If-None-Match` (RFC 9110 §13.1.2).
pub(super) fn is_known(request: &HeaderMap, tag: &str) -> bool {
    let matches = |value: &str| value == "*" || value.strip_prefix("W/").unwrap_or(value) == tag;
    let known = request.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known.flat_map(|value| value.split(',')).any(|value| matches(value.trim()))
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Document {
            error: Body,
        }
        #[derive(Serialize)]
        struct Body {
            message: String,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            messages: Vec<String>,
        }
        let message = self.messages.first().cloned().unwrap_or_default();
        let messages = if self.messages.len() > 1 { self.messages } else { Vec::new() };
        let headers: HeaderMap = self.header.into_iter().collect();
        (self.status, headers, Json(Document { error: Body { message, messages } })).into_response()
    }
}
