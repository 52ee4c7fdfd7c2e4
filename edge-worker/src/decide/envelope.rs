//! All refusals and failures: each is a variant of [`Failure`]. A failure returns its error envelope (the JSON object
//! in which OpenAI's API sends errors), its status and its headers. Used by all code that answers a client.
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

/// Codes of errors that a retry can't mend.
const LASTING: &[&str] = &["context_length_exceeded", "content_filter", "insufficient_quota"];

/// Why a request gets an error instead of a model's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// 404: no service is steered under this host name.
    UnknownHost,
    /// 404: not a path of the model API.
    UnknownPath,
    /// 404: a part of the model API that is deliberately not offered.
    NotOffered {
        /// The name of this part, such as `Evals`.
        what: &'static str,
    },
    /// 400 or 404: a path that is nearly right.
    PathMistake(Mistake),
    /// 403: a web page of an origin that the service doesn't list.
    OriginNotAllowed,
    /// 405: a known path with another method.
    WrongMethod {
        /// The methods of the path, such as `GET, DELETE`.
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
    /// 401: the key belongs to no tenant.
    UnknownKey,
    /// 401: two headers carry different keys.
    ConflictingKeys,
    /// 403: the key's tenant may not use this service.
    NotYourService,
    /// 404: no region of the fence (the regions that may process the client) has this model.
    ModelNotFound {
        /// The client's name of the model.
        model: String,
    },
    /// 404: no region of the fence has a model that the body names below its top level.
    InnerModelNotFound {
        /// The model.
        model: String,
        /// The JSON pointer of the field that names the model.
        field: String,
    },
    /// 415: the body has a `Content-Encoding`.
    EncodedBody,
    /// 413: a body over the limit.
    BodyTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// 408: the client stopped sending in the middle of its body.
    SlowBody,
    /// 400: the request has no body, but needs one.
    MissingBody,
    /// 400: the body isn't JSON.
    NotJson {
        /// The offset of the first byte that isn't valid JSON.
        at: usize,
    },
    /// 400: the body is JSON, but not an object.
    NotAnObject,
    /// 400: a top-level key occurs twice.
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// 400: a top-level key differs from a known key only in upper and lower case.
    MiscasedKey {
        /// The known key.
        key: &'static str,
    },
    /// 400: a field is missing or of the wrong type.
    BadField {
        /// The field.
        field: &'static str,
        /// The expected value, such as `a string`.
        expected: &'static str,
    },
    /// 400: a value is a URL or an address that the model host would fetch from or connect to.
    RemoteUrl {
        /// The value's JSON pointer, or the field of a form.
        field: String,
    },
    /// 400: a field that may make a model host do something that the rules don't allow.
    UnknownField {
        /// The field's JSON pointer, or its name in a form.
        field: String,
        /// Why the field is refused.
        odd: FieldFault,
    },
    /// 400: a tool that the model host runs.
    HostedTool {
        /// The tool's type, or the field that asks for it.
        tool: String,
    },
    /// 400: a background response, which the endpoint computes after the request has ended. The service doesn't allow
    /// it.
    Background,
    /// 400: the service doesn't allow batches.
    Batch,
    /// 404: a line of a batch names a model that the endpoint doesn't have.
    BatchModel {
        /// The line, from 1.
        line: u64,
        /// The client's name of the model.
        model: String,
    },
    /// 400: a line of a batch isn't a JSON object.
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
    /// 503: no endpoint that was asked can read the encrypted reasoning, and the endpoint that may have made it can't
    /// be asked now.
    EncryptedElsewhere,
    /// 400: the body isn't a form, or two programs could read it differently.
    BadForm {
        /// The mistake in the form.
        what: &'static str,
    },
    /// 404: the client owns no object with this id. Objects of other clients count as missing.
    UnknownId,
    /// 400: a reference to a stored item, in a service that stores no answers.
    ItemReference,
    /// 400: ids of objects that live at different endpoints.
    IdsApart,
    /// 403: a list that would show objects of other customers.
    SharedList,
    /// 503: the secret for sealing ids is missing.
    NoStateKey,
    /// 503: the isolate holds so many bodies that one more might exceed its memory.
    Busy,
    /// 501: a part of the model API that isn't supported yet.
    NotCarried {
        /// The name of this part, such as `Realtime` or `multipart bodies`.
        what: &'static str,
    },
    /// 451: no region may process this client's request.
    ResidencyDenied,
    /// 503: every region of the fence is withheld, because it is down or forced down.
    RegionUnavailable,
    /// 503: every endpoint that was asked failed.
    EndpointsFailed {
        /// The shortest wait that any endpoint asked for, in seconds.
        retry_after: Option<u32>,
        /// Whether a retry can't help, so that the operator has to act.
        needs_operator: bool,
    },
    /// 404: no endpoint that was asked has the path.
    PathNotServed,
    /// 429: the provider's account has used up its quota. Waiting doesn't help.
    OutOfQuota,
    /// 504: every attempt ran out of time.
    UpstreamTimeout,
    /// 429: a quota, or a limit of the tenant, doesn't allow the request.
    Limited(Limited),
    /// 429: every endpoint that was asked is at its limit.
    RateLimited {
        /// The shortest wait that any endpoint asked for, in seconds.
        retry_after: Option<u32>,
    },
    /// The endpoint refuses the client's request. Holds the status, type, code and parameter of the endpoint's error,
    /// but never its text.
    Refused {
        /// The endpoint's status.
        status: u16,
        /// The error's `type`, if it is a plain word.
        kind: Option<String>,
        /// The error's `code`, if it is a plain word.
        code: Option<String>,
        /// The error's `param`, if it looks like a field's name.
        param: Option<String>,
        /// How many tokens the model accepts, if the prompt is too long.
        limit: Option<u64>,
        /// How many tokens were sent, if the prompt is too long.
        sent: Option<u64>,
    },
    /// The endpoint failed after it had begun to answer. The error is an event of the stream, because the status was
    /// sent before.
    Interrupted {
        /// The error's `type`, if it is a plain word.
        kind: Option<String>,
        /// The error's `code`, if it is a plain word.
        code: Option<String>,
        /// The error's `param`, if it looks like a field's name.
        param: Option<String>,
    },
    /// 503: the service answers only with a receipt, and the key to sign receipts is missing.
    NoReceiptKey,
    /// 401: an explanation is only for the tenant itself or for the operator.
    ExplainUnauthorised,
    /// 401: metrics are only for the operator.
    MetricsUnauthorised,
    /// 403: a tenant asks for the explanation of another tenant.
    ExplainOthers,
    /// 400: the request for an explanation is invalid.
    BadQuestion {
        /// The mistakes, each with a hint how to mend it.
        errors: Vec<String>,
    },
    /// 451: the region that the operator names is outside the client's fence.
    PinOutside,
    /// 401: a request names the region that should serve it, but doesn't come from the operator.
    PinUnauthorised,
    /// 400: a request names the region that should serve it, but the edge can't follow that.
    BadPin {
        /// What is wrong with the name or the request.
        wrong: PinFault,
    },
    /// 503: no rules are loaded, or the operator has to mend another state of the Worker.
    Unready,
    /// 503: no source of rules answers, and the current rules were confirmed too long ago.
    RulesTooOld {
        /// The time since the rules were confirmed, in seconds.
        age: u64,
        /// The longest time that the rules allow.
        stale_for: String,
    },
    /// 500: a fault of this program.
    Internal,
}

/// Why a field is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FieldFault {
    /// The documentation of the path doesn't have the field.
    Undocumented,
    /// The field decides where, or by which model, a request is processed.
    Routes,
    /// The field raises the priority of the request above that of other clients.
    Priority,
    /// The field is the type of a part or an item, and this type is undocumented.
    Kind,
    /// The field belongs to an engine, and no endpoint that may be asked has that engine.
    Engine,
    /// An engine compiles or unpickles the field, or uses it as a setting when it reads media.
    EngineInput,
    /// The field is a list or an object, but should be a text.
    NoText,
}

/// What is wrong with a request that names the region that should serve it (header `x-bailiwick-pin`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PinFault {
    /// The request names no region of the rules.
    Region,
    /// The header's value is neither a region, nor a region with an arm.
    Form,
    /// No endpoint of the region serves this arm to the request.
    Arm,
    /// It names an arm of a rollout of a bundle, which the application chooses.
    Bundle,
    /// The request isn't for inference, or is about a stored object, which stays at its own endpoint.
    State,
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

    /// The headers of this error, besides `content-type: application/json` and `cache-control: no-store`, which every
    /// error has.
    #[must_use]
    pub(crate) fn headers(&self) -> Vec<(&'static str, String)> {
        match self {
            // OpenAI's official clients retry unless this header says that a retry won't help. An override or an outage
            // lasts longer than the few seconds of their retries.
            Self::ResidencyDenied
            | Self::PinOutside
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

    /// The failure as an SSE event, for a stream that has begun already. No `[DONE]` follows the event.
    #[must_use]
    pub(crate) fn event(&self) -> Vec<u8> {
        format!("data: {}\n\n", self.body()).into_bytes()
    }
}
