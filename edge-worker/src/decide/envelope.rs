//! Everything that can be refused or can fail: a variant of [`Failure`] for each. Returns the OpenAI error envelope
//! with its status and headers. Used by whatever answers a client.
//!
//! No message quotes an endpoint's text, a prompt or a key. Messages quote only names that the client wrote in a path
//! or as a field name, shortened.

mod classify;
mod limited;
mod message;
pub(crate) mod mistake;
#[cfg(test)]
mod tests;

use serde_json::json;

pub(crate) use limited::Limited;
pub(crate) use message::quote;
use mistake::Mistake;

/// Codes of errors that a repetition doesn't mend.
const LASTING: &[&str] = &["context_length_exceeded", "content_filter", "insufficient_quota"];

/// Why a request got no answer of a model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// 404: no service is steered under this host name.
    UnknownHost,
    /// 404: not a path of the model API.
    UnknownPath,
    /// 404: a part of the model API that is deliberately not offered.
    NotOffered {
        /// What, in words: `Evals`.
        what: &'static str,
    },
    /// 400 or 404: a path that is nearly right.
    PathMistake(Mistake),
    /// 403: a web page of an origin that the service doesn't list.
    OriginNotAllowed,
    /// 405: a known path with another method.
    WrongMethod {
        /// The methods it knows, such as `GET, DELETE`.
        allowed: &'static str,
    },
    /// 400: a path with empty or dot segments, backslashes, or encodings of them.
    BadPath,
    /// 400: a credential in the query string.
    KeyInQuery,
    /// 400: a query string that can't be read.
    BadQuery,
    /// 401: the service needs a key, and the request has none.
    MissingKey,
    /// 401: nobody has this key.
    UnknownKey,
    /// 401: two headers carry two keys.
    ConflictingKeys,
    /// 403: the key's tenant may not use this service.
    NotYourService,
    /// 404: no region of the fence has this model.
    ModelNotFound {
        /// The client's name of the model.
        model: String,
    },
    /// 404: no region of the fence has a model that the body names below its top level.
    InnerModelNotFound {
        /// The model.
        model: String,
        /// Its JSON pointer.
        field: String,
    },
    /// 415: a `Content-Encoding`.
    EncodedBody,
    /// 413: a body over the limit.
    BodyTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// 408: the client stopped in the middle of its body.
    SlowBody,
    /// 400: no body where one is needed.
    MissingBody,
    /// 400: the body isn't JSON.
    NotJson {
        /// The byte at which it stops being JSON.
        at: usize,
    },
    /// 400: the body is JSON, but no object.
    NotAnObject,
    /// 400: a top-level key stands twice.
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// 400: a top-level key differs from a known one in its letters' case only.
    MiscasedKey {
        /// The known key.
        key: &'static str,
    },
    /// 400: a field is missing or of the wrong type.
    BadField {
        /// The field.
        field: &'static str,
        /// What belongs there, such as `a string`.
        expected: &'static str,
    },
    /// 400: a value names a place from which the model host would fetch, or to which it would connect.
    RemoteUrl {
        /// Its JSON pointer, or the field of a form.
        field: String,
    },
    /// 400: a field that may make a model host do something that the rules don't allow.
    UnknownField {
        /// Its JSON pointer, or the field of a form.
        field: String,
        /// What is wrong with it.
        odd: FieldFault,
    },
    /// 400: a tool that the model host runs.
    HostedTool {
        /// The tool's type, or the field that asks for it.
        tool: String,
    },
    /// 400: a background response, which outlives the request.
    Background,
    /// 400: the service doesn't allow batches.
    Batch,
    /// 404: a line of a batch names a model that the endpoint lacks.
    BatchModel {
        /// The line, from 1.
        line: u64,
        /// The client's name of the model.
        model: String,
    },
    /// 400: a line of a batch that is no JSON object.
    BatchLine {
        /// The line, from 1.
        line: u64,
    },
    /// A line of a batch is refused for the same reason as the same request alone, with the same status.
    BatchRequest {
        /// The line, from 1.
        line: u64,
        /// What is wrong with the request.
        failure: Box<Failure>,
    },
    /// 503: no endpoint that was asked can read the encrypted reasoning, and the one that may have made it rests.
    EncryptedElsewhere,
    /// 400: a body that isn't a form, or that two readers could read differently.
    BadForm {
        /// What is wrong with it.
        what: &'static str,
    },
    /// 404: the client owns no object with this id. Objects of others count as missing.
    UnknownId,
    /// 400: a reference to a stored item, in a service that stores no answers.
    ItemReference,
    /// 400: ids of objects that live at different endpoints.
    IdsApart,
    /// 403: a list that would show objects of other customers.
    SharedList,
    /// 503: the secret for sealing ids is missing.
    NoStateKey,
    /// 503: so many bodies are held that another one might exceed the isolate's memory.
    Busy,
    /// 501: part of the model API that isn't carried yet.
    NotCarried {
        /// What, in words: `Realtime`, `multipart bodies`.
        what: &'static str,
    },
    /// 451: no region may process this client's request.
    ResidencyDenied,
    /// 503: every allowed region is withheld because it is down or an override says so.
    RegionUnavailable,
    /// 503: every endpoint that was asked failed.
    EndpointsFailed {
        /// The least wait that any endpoint asked for, in seconds.
        retry_after: Option<u32>,
        /// Whether a retry can't help, so that the operator has to act.
        needs_operator: bool,
    },
    /// 404: no endpoint that was asked has the path.
    PathNotServed,
    /// 429: the account that is used at the endpoints has used up its quota. Waiting doesn't help.
    OutOfQuota,
    /// 504: every attempt ran out of time.
    UpstreamTimeout,
    /// 429: a quota, or a limit of the tenant, doesn't allow the request.
    Limited(Limited),
    /// 429: every endpoint that was asked is at its limit.
    RateLimited {
        /// The least wait that any endpoint asked for, in seconds.
        retry_after: Option<u32>,
    },
    /// The endpoint refuses the client's request. Holds its status, type, code and parameter, but never its text.
    Refused {
        /// The endpoint's status.
        status: u16,
        /// Its error's `type`, if it is a plain word.
        kind: Option<String>,
        /// Its `code`, if it is a plain word.
        code: Option<String>,
        /// Its `param`, if it looks like a field's name.
        param: Option<String>,
        /// How many tokens the model takes, if the prompt is too long.
        limit: Option<u64>,
        /// How many were sent.
        sent: Option<u64>,
    },
    /// The endpoint failed after it had begun to answer; told inside the stream, where no status is left to set.
    Interrupted {
        /// Its error's `type`, if it is a plain word.
        kind: Option<String>,
        /// Its `code`, if it is a plain word.
        code: Option<String>,
        /// Its `param`, if it looks like a field's name.
        param: Option<String>,
    },
    /// 503: the service answers only with a receipt, and there is no key to sign one with.
    NoReceiptKey,
    /// 401: an explanation is for the tenant itself or the operator.
    ExplainUnauthorised,
    /// 401: metrics are for the operator.
    MetricsUnauthorised,
    /// 403: a tenant asks for the explanation of somebody else.
    ExplainOthers,
    /// 400: a question nobody can answer, with what is wrong with it.
    BadQuestion {
        /// What is wrong, each with how to mend it.
        errors: Vec<String>,
    },
    /// 503: no rules are loaded, or another state that is ours to mend.
    Unready,
    /// 503: no source of rules answers, and those in service were confirmed too long ago.
    RulesTooOld {
        /// How long ago, in seconds.
        age: u64,
        /// What the rules allow.
        stale_for: String,
    },
    /// 500: our own mistake.
    Internal,
}

/// Why a field is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FieldFault {
    /// The path's documentation doesn't have it.
    Undocumented,
    /// It says where, or by what, a request is processed.
    Routes,
    /// It puts a request before those of others.
    Priority,
    /// It is the type of a part or an item, and nobody documents it.
    Kind,
    /// It is an engine's own, and no endpoint that may be asked has that engine.
    Engine,
    /// An engine compiles it, unpickles it, or obeys it when it reads media.
    EngineInput,
    /// It is a list or an object where a text of the client's own belongs.
    NoText,
}

impl Failure {
    /// The body: `{"error": {"message", "type", "param", "code"}}`.
    #[must_use]
    pub(crate) fn body(&self) -> String {
        json!({ "error": {
            "message": self.message(), "type": self.kind(), "param": self.param(), "code": self.code(),
        } })
        .to_string()
    }

    /// Headers beside the `content-type: application/json` and `cache-control: no-store` of every error.
    #[must_use]
    pub(crate) fn headers(&self) -> Vec<(&'static str, String)> {
        match self {
            // The official clients retry by themselves unless told that it won't help. An override or a region that is
            // down outlasts their few seconds.
            Self::ResidencyDenied
            | Self::RegionUnavailable
            | Self::EndpointsFailed { needs_operator: true, .. }
            | Self::OutOfQuota
            | Self::NoStateKey
            | Self::NoReceiptKey => vec![("x-should-retry", "false".to_owned())],
            Self::Limited(limited) => limited.headers(),
            Self::RateLimited { retry_after: Some(seconds) }
            | Self::EndpointsFailed { retry_after: Some(seconds), .. } => vec![("retry-after", seconds.to_string())],
            Self::Busy | Self::EncryptedElsewhere => {
                vec![("retry-after", "1".to_owned())]
            }
            Self::RulesTooOld { .. } => vec![("retry-after", "5".to_owned())],
            Self::WrongMethod { allowed } => vec![("allow", (*allowed).to_owned())],
            _ => Vec::new(),
        }
    }

    /// The failure as an SSE event, for a stream that already began. No `[DONE]` follows it.
    #[must_use]
    pub(crate) fn event(&self) -> Vec<u8> {
        format!("data: {}\n\n", self.body()).into_bytes()
    }
}
