//! Everything that can be refused or can fail: a variant of [`Failure`] for each. Returns the OpenAI error envelope
//! with its status and headers. Used by whatever answers a client.
//!
//! No message quotes an endpoint's text, a prompt or a key. Messages quote only names that the client wrote in a path
//! or as a field name, shortened.

mod limited;
pub(crate) mod mistake;

use core::fmt::Write as _;

use serde_json::json;

pub(crate) use limited::Limited;
use mistake::Mistake;

/// The longest quotation of a client's word, in characters.
const LONGEST_QUOTE: usize = 80;
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
            | Self::ItemReference
            | Self::BatchLine { .. }
            | Self::IdsApart => 400,
            Self::MissingKey
            | Self::UnknownKey
            | Self::ConflictingKeys
            | Self::ExplainUnauthorised
            | Self::MetricsUnauthorised => 401,
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
            Self::ResidencyDenied => 451,
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

    /// The code in the body of the error, for programs: the endpoint's code if it has one, else ours.
    #[must_use]
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Refused { code: Some(code), .. } | Self::Interrupted { code: Some(code), .. } => code,
            _ => self.own_code(),
        }
    }

    /// The code in logs and metrics. It is always one of ours, whatever the endpoint says.
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
            Self::ResidencyDenied => "residency_denied",
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
            Self::ExplainOthers => "explain_not_allowed",
            Self::BadQuestion { .. } => "invalid_question",
            Self::Unready => "not_ready",
            Self::RulesTooOld { .. } => "rules_too_old",
            Self::Internal => "internal_error",
        }
    }

    /// The family of errors, in OpenAI's words.
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
            | Self::MetricsUnauthorised => "authentication_error",
            Self::NotYourService
            | Self::ExplainOthers
            | Self::ResidencyDenied
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

    /// One or two sentences: what was wrong and how to mend it.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a table of messages")]
    pub(crate) fn message(&self) -> String {
        match self {
            Self::UnknownHost => {
                "No service is steered under this host name. Check the base URL, or add the name to a \
                                  service's \"hosts\"."
                    .into()
            }
            Self::UnknownPath => {
                "This is not a path of the model API that is carried here. Check the base URL: it ends \
                                  in /v1."
                    .into()
            }
            Self::NotOffered { what } => format!(
                "{what} are not offered here: what they keep at an endpoint, or have it do, is not checked against \
                 where you \
                 may be processed. Chat completions, responses, embeddings, images, audio, files, uploads, batches, \
                 fine-tuning and vector stores are."
            ),
            Self::PathMistake(mistake) => mistake.message().to_owned(),
            Self::OriginNotAllowed => {
                "Web pages of this origin are not served here. Ask from a server, or add the origin to the \
                                       service: \"cors\": {\"origins\": [...]}."
                    .into()
            }
            Self::WrongMethod { allowed } => format!("This path doesn't take that method. Use {allowed}."),
            Self::BadPath => {
                "The path holds an empty or dot segment, a backslash, or an encoded one. Send the plain path.".into()
            }
            Self::KeyInQuery => "A credential stands in the query string, where logs would keep it. Send it as \
                                 'Authorization: Bearer ...' and replace the key."
                .into(),
            Self::BadQuery => "The query string can't be read. Send name=value pairs in UTF-8, percent-encoded.".into(),
            Self::MissingKey => {
                "This service needs an API key. Send it as 'Authorization: Bearer ...' or 'api-key: ...'.".into()
            }
            Self::UnknownKey => "Nobody has this API key. Check for missing characters, or ask for a new one.".into(),
            Self::ConflictingKeys => "'Authorization' and 'api-key' carry two different keys. Send one.".into(),
            Self::NotYourService => "This API key belongs to a tenant that may not use this service.".into(),
            Self::ModelNotFound { model } => {
                format!("No region allowed to you has the model {}. GET /v1/models lists what there is.", quote(model))
            }
            Self::InnerModelNotFound { model, field } => format!(
                "The field {} names the model {}, which no region allowed to you has beside the request's own model. \
                 GET /v1/models lists what there is.",
                quote(field),
                quote(model)
            ),
            Self::EncodedBody => "The body is compressed, and compressed bodies aren't inspected. Send it without \
                                  Content-Encoding."
                .into(),
            Self::BodyTooLarge { limit } => format!(
                "The body is larger than {limit} bytes, the most that is taken here. Send a smaller one, or raise \
                 the service's \
                 limits.body_bytes (up to 67108864)."
            ),
            Self::SlowBody => "The rest of the body didn't come in time. Send the request again.".into(),
            Self::MissingBody => "The body is empty, or broke off. Send a whole one.".into(),
            Self::NotJson { at } => {
                format!("The body is not JSON: it stops making sense at byte {at}. Send a JSON object in UTF-8.")
            }
            Self::NotAnObject => "The body is JSON, but not an object. Send {\"model\": ...}.".into(),
            Self::DuplicateKey { key } => format!("The key {} stands twice in the body. Keep one.", quote(key)),
            Self::MiscasedKey { key } => {
                format!("A key of the body is \"{key}\" in other letters' case. Write \"{key}\".")
            }
            Self::BadField { field, expected } => format!("The field \"{field}\" has to be {expected}."),
            Self::RemoteUrl { field } => format!(
                "The field {} may name a place (a URL, a host with its port, an address, or a path), from which the \
                 model host could fetch, or to which it could connect. Send the content itself as a data: URL, or as \
                 base64 if \
                 it isn't short. Where a service allows \"remote_urls\", http and https URLs of public hosts pass.",
                quote(field)
            ),
            Self::UnknownField { field, odd } => unknown_field(field, *odd),
            Self::HostedTool { tool } => format!(
                "{} is run by the model host and could reach out of your jurisdiction. Leave it out, or allow \
                 \"hosted_tools\" for this service.",
                quote(tool)
            ),
            Self::Background => "A background response outlives its request, where it can't be watched. Leave out \
                                 \"background\", or allow \"background\" for this service."
                .into(),
            Self::Batch => "Batches are not allowed here. Send the requests one by one, or allow \"batch\" for this \
                            service."
                .into(),
            Self::BatchModel { line, model } => format!(
                "Line {line} of the batch names the model {}, which isn't to be had where batches are run. Name one \
                 of GET \
                 /v1/models.",
                quote(model)
            ),
            Self::BatchLine { line } => {
                format!(
                    "Line {line} of the batch is no JSON object of one line. Write each request on a line of its own."
                )
            }
            Self::EncryptedElsewhere => "The endpoint that may have encrypted the reasoning in this request rests, \
                                         and no \
                                         other can read it. Send the request again in a moment, or without its \
                                         reasoning items."
                .into(),
            Self::BatchRequest { line, failure } => format!("Line {line} of the batch: {}", failure.message()),
            Self::BadForm { what } => format!("The form can't be read: {what}. Send multipart/form-data by RFC 7578."),
            Self::UnknownId => "No object of yours has this id. Use an id exactly as it was handed out here.".into(),
            Self::ItemReference => "Answers aren't stored here, so an item can't be referred to by its id. Send the \
                                    items themselves: set \"store\": false and \"include\": \
                                    [\"reasoning.encrypted_content\"] in every request, and your SDK does so. Or ask \
                                    the operator to allow \"store\"."
                .into(),
            Self::IdsApart => {
                "The request names objects that live at different endpoints, and none of them has all. Make \
                               them anew by one client."
                    .into()
            }
            Self::SharedList => {
                "A list here would show what is other customers' too, because several use the same account \
                                 at the endpoint. Keep the ids you are given."
                    .into()
            }
            Self::NoStateKey => {
                "This gateway can't hand out or read ids: its secret STATE_KEY is missing or shorter than 32 \
                                 characters. Nothing was sent. Its operator has to set it."
                    .into()
            }
            Self::Busy => {
                "So many large requests are under way here that another one doesn't fit. Nothing was sent. Try \
                           again in a second."
                    .into()
            }
            Self::NotCarried { what } => format!("{what}: not carried here yet. Use the other parts of the model API."),
            Self::ResidencyDenied => "No region of this service may process your request under its residency rules. \
                                      Nothing was sent."
                .into(),
            Self::RegionUnavailable => {
                "Every region allowed to process your request is unavailable. It was sent nowhere \
                                        else. Try again later."
                    .into()
            }
            Self::EndpointsFailed { needs_operator: true, .. } => {
                "Every region allowed to process your request refuses this gateway's own credential or address. \
                 Trying again \
                 won't help; tell its operator the request id."
                    .into()
            }
            Self::EndpointsFailed { retry_after: Some(seconds), .. } => format!(
                "Every region allowed to process your request failed. It was sent nowhere else. Try again in {seconds} \
                 seconds."
            ),
            Self::EndpointsFailed { .. } => {
                "Every region allowed to process your request failed. It was sent nowhere else. Try again.".into()
            }
            Self::PathNotServed => {
                "No endpoint allowed to process your request has this path. Use another part of the model API there, \
                 such as \
                 /v1/chat/completions, or ask the operator for an endpoint that has it."
                    .into()
            }
            Self::OutOfQuota => {
                "The account that this gateway uses at every region allowed to you has used up its quota. Waiting \
                 won't help; \
                 its operator has to see to the account's plan and billing."
                    .into()
            }
            Self::UpstreamTimeout => "Every region allowed to process your request took too long. It was sent nowhere \
                                      else. Try again later, or ask for less."
                .into(),
            Self::RateLimited { retry_after: Some(seconds) } => {
                format!("Every region allowed to process your request is at its limit. Try again in {seconds} seconds.")
            }
            Self::RateLimited { retry_after: None } => {
                "Every region allowed to process your request is at its limit. Try again later.".into()
            }
            Self::Limited(limited) => limited.message(),
            Self::Refused { code: Some(code), limit, sent, .. } if code == "context_length_exceeded" => {
                too_long(*limit, *sent)
            }
            Self::Refused { status, code, param, .. } => {
                let mut text = format!("The model endpoint refused the request with status {status}");
                if let Some(code) = code {
                    let _ = write!(text, ", code {code}");
                }
                if let Some(param) = param {
                    let _ = write!(text, ", at {param}");
                }
                text.push_str(". Sending the same again won't help.");
                text
            }
            Self::Interrupted { code: Some(code), .. } if LASTING.contains(&code.as_str()) => format!(
                "The model endpoint ended the answer because of what was sent, with code {code}: the answer is \
                 incomplete. Sending the same again won't help."
            ),
            Self::Interrupted { .. } => {
                "The model endpoint failed after it had begun to answer: the answer is incomplete. \
                                         Send the request again."
                    .into()
            }
            Self::NoReceiptKey => {
                "This service answers only with a signed receipt, and this gateway has no valid key to \
                                   sign one. Nothing was sent. Its operator has to set RECEIPT_KEY."
                    .into()
            }
            Self::ExplainUnauthorised => {
                "An explanation is for the tenant whose key is sent, or for the operator with \
                                          the token of EXPLAIN_TOKEN. Send either as 'Authorization: Bearer ...'."
                    .into()
            }
            Self::MetricsUnauthorised => {
                "Metrics are for the operator: send the token of EXPLAIN_TOKEN as 'Authorization: Bearer ...'. Without \
                 that secret nobody is told."
                    .into()
            }
            Self::ExplainOthers => {
                "A tenant's key explains the tenant's own requests: ask with \"model\" and \"path\" \
                                    alone. Other clients are explained to the operator."
                    .into()
            }
            Self::BadQuestion { errors } => errors.join(" "),
            Self::Unready => "This gateway has no valid rules. Nothing was sent. Its operator has to mend them.".into(),
            Self::RulesTooOld { age, stale_for } => format!(
                "No source confirmed this gateway's rules for {age} seconds, which is longer than they may be used so \
                 (\"rules\": {{\"stale_for\": \"{stale_for}\"}}). Nothing was sent. Try again in a few seconds. Its \
                 operator has to \
                 make a source of rules reachable: RULES_URLS or KV."
            ),
            Self::Internal => {
                "This gateway made a mistake. Nothing more is known here; tell its operator the request id.".into()
            }
        }
    }

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

#[inline(never)]
fn unknown_field(field: &str, odd: FieldFault) -> String {
    let field = quote(field);
    match odd {
        FieldFault::Undocumented => format!(
            "The field {field} is not one that this path documents, so nobody here knows what a model host does with \
             it. Leave it out; if it is an engine's own, name the \"engine\" at its endpoints; or allow \
             \"unknown_fields\" for \
             this service."
        ),
        FieldFault::Routes => format!(
            "The field {field} tells a model host where, or by what, to process the request. Here the rules alone say \
             that. Leave it out."
        ),
        FieldFault::Priority => format!(
            "The field {field} would put this request before those of other customers. Leave it out, send 0, or allow \
             \"unknown_fields\" for this service."
        ),
        FieldFault::Kind => format!(
            "The field {field} is a type that the model API doesn't document, so nobody here knows what a model host \
             does with the rest. Use a documented type."
        ),
        FieldFault::NoText => format!(
            "The field {field} has to be a text. A model host gets metadata as the model API documents it: an object \
             of texts."
        ),
        FieldFault::Engine => format!(
            "The field {field} is an engine's own, and no endpoint that may process this request has that engine. \
             Leave it out, or name the \"engine\" at the endpoints that know it."
        ),
        FieldFault::EngineInput => format!(
            "The field {field} is something that an engine compiles, unpickles or obeys when it reads media: it is for \
             clients that the engine's operator trusts. Leave it out, or allow \"engine_inputs\" for this service."
        ),
    }
}

/// A prompt that is longer than the model takes, in words that agents look for before they shorten it.
fn too_long(limit: Option<u64>, sent: Option<u64>) -> String {
    let mut text = match limit {
        Some(limit) => format!("This model's maximum context length is {limit} tokens"),
        None => "The request is longer than this model's maximum context length".to_owned(),
    };
    match (limit, sent) {
        (_, Some(sent)) => {
            let _ = write!(text, "; your request has {sent} tokens");
        }
        (Some(_), None) => text.push_str(", and your request has more"),
        (None, None) => {}
    }
    text.push_str(". Shorten it; sending the same again won't help.");
    text
}

/// A client's own word in quotation marks, shortened, without control characters.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let short: String = word.chars().take(LONGEST_QUOTE).map(plain).collect();
    let more = if word.chars().nth(LONGEST_QUOTE).is_some() { "…" } else { "" };
    format!("\"{short}{more}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(failure: &Failure) -> serde_json::Value {
        serde_json::from_str(&failure.body()).unwrap()
    }

    #[test]
    fn the_envelope_has_its_four_fields() {
        let error = parsed(&Failure::ModelNotFound { model: "gpt-\u{7}9".into() });
        let error = error["error"].as_object().unwrap();
        assert_eq!(error.keys().collect::<Vec<_>>(), ["code", "message", "param", "type"]);
        assert_eq!(error["code"], "model_not_found");
        assert_eq!(error["param"], "model");
        assert!(error["message"].as_str().unwrap().contains("\"gpt-\u{fffd}9\""));
        assert!(parsed(&Failure::UnknownPath)["error"]["param"].is_null());
    }

    #[test]
    fn clients_are_told_not_to_retry_what_no_retry_can_mend() {
        let failed = |retry_after, needs_operator| Failure::EndpointsFailed { retry_after, needs_operator };
        for failure in [Failure::ResidencyDenied, Failure::RegionUnavailable, Failure::OutOfQuota, failed(None, true)] {
            assert_eq!(failure.headers(), [("x-should-retry", "false".to_owned())]);
        }
        assert_eq!([failed(None, false).headers(), Failure::UpstreamTimeout.headers()], [[], []]);
        assert_eq!(failed(Some(2), false).headers(), [("retry-after", "2".to_owned())]);
        assert_eq!(
            (failed(None, false).status(), failed(None, false).code().to_owned()),
            (503, "region_unavailable".into())
        );
        let limited = Failure::RateLimited { retry_after: Some(7) };
        assert_eq!((limited.status(), limited.headers()), (429, vec![("retry-after", "7".to_owned())]));
    }

    #[test]
    fn long_words_are_shortened() {
        let message = Failure::ModelNotFound { model: "x".repeat(10_000) }.message();
        assert!(message.len() < 250 && message.contains("x…\""), "{message}");
    }

    #[test]
    fn an_event_is_one_data_line() {
        for (code, again) in [("context_length_exceeded", false), ("server_error", true)] {
            let failure = Failure::Interrupted { kind: None, code: Some(code.into()), param: None };
            assert_eq!(failure.message().contains("Send the request again"), again, "{code}");
        }
        let event = Failure::Interrupted { kind: None, code: None, param: None }.event();
        let text = String::from_utf8(event).unwrap();
        assert!(text.starts_with("data: {") && text.ends_with("}\n\n") && text.matches('\n').count() == 2);
        assert!(text.contains("upstream_interrupted") && text.contains("server_error"));
    }
}
