//! Takes values and problems, returns the API's JSON responses.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Why a request wasn't served: `{"error": {"message": "…"}}`, and `"messages"` when there are more.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    messages: Vec<String>,
}

impl Problem {
    /// One reason.
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, messages: vec![message.into()] }
    }

    /// All reasons at once.
    pub(super) fn all(status: StatusCode, messages: Vec<String>) -> Self {
        Self { status, messages }
    }
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
        (self.status, Json(Document { error: Body { message, messages } })).into_response()
    }
}
