//! The error messages for people. Takes a [`Failure`]; returns one or two sentences that say what was wrong and how to
//! mend it. Called by [`Failure::body`] and by logs.

use core::fmt::Write as _;

use super::{Failure, FieldFault, LASTING, PinFault};

/// The longest part of a client's word that a message quotes, in characters.
const LONGEST_QUOTE: usize = 80;

impl Failure {
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
            Self::UnknownPath => "This gateway has no such path of the model API. Check the base URL: it ends \
                                  in /v1."
                .into(),
            Self::NotOffered { what } => format!(
                "{what} are not offered here, because this gateway can't check what they store and do against \
                 where you \
                 may be processed. Chat completions, responses, embeddings, images, audio, files, uploads, batches, \
                 fine-tuning and vector stores are."
            ),
            Self::PathMistake(mistake) => mistake.message().to_owned(),
            Self::PinUnauthorised => "Only the operator may name the region that serves a request: send the token of \
                                      EXPLAIN_TOKEN as 'x-bailiwick-operator', or leave 'x-bailiwick-pin' out."
                .into(),
            Self::PinOutside => "The region that 'x-bailiwick-pin' names may not process this client's requests under \
                                 the residency rules. Nothing was sent."
                .into(),
            Self::BadPin { wrong } => bad_pin(*wrong).into(),
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
            Self::UnknownKey => "This API key is unknown. Check for missing characters, or ask for a new one.".into(),
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
                "The body is larger than {limit} bytes, which is the limit here. Send a smaller body, or raise \
                 the service's \
                 limits.body_bytes (up to 67108864)."
            ),
            Self::SlowBody => "The rest of the body didn't arrive in time. Send the request again.".into(),
            Self::MissingBody => "The body is empty or incomplete. Send a complete body.".into(),
            Self::NotJson { at } => {
                format!("The body is not JSON: the first error is at byte {at}. Send a JSON object in UTF-8.")
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
            Self::Background => {
                "A background response goes on after its request, where it can't be checked. Leave out \
                                 \"background\", or allow \"background\" for this service."
                    .into()
            }
            Self::Batch => "Batches are not allowed here. Send the requests one by one, or allow \"batch\" for this \
                            service."
                .into(),
            Self::BatchModel { line, model } => format!(
                "Line {line} of the batch names the model {}, which the endpoint for batches doesn't have. Name a \
                 model that GET /v1/models lists.",
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
            Self::UnknownId => "You have no object with this id. Use ids exactly as this gateway returned them.".into(),
            Self::ItemReference => "Answers aren't stored here, so an item can't be referred to by its id. Send the \
                                    items themselves: set \"store\": false and \"include\": \
                                    [\"reasoning.encrypted_content\"] in every request, and your SDK does so. Or ask \
                                    the operator to allow \"store\"."
                .into(),
            Self::IdsApart => {
                "The request names objects that live at different endpoints, and none of them has all. Create \
                               all of them again with one client."
                    .into()
            }
            Self::SharedList => {
                "This list would also show objects of other tenants, because several tenants use the same account \
                                 at the endpoint. Keep the ids that you get."
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
            Self::NotCarried { what } => {
                format!("{what}: not supported here yet. Use the other parts of the model API.")
            }
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
                 its operator has to check the account's plan and billing."
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
                 that secret, nobody gets metrics."
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
                "No source confirmed this gateway's rules for {age} seconds, which is longer than they allow \
                 (\"rules\": {{\"stale_for\": \"{stale_for}\"}}). Nothing was sent. Try again in a few seconds. Its \
                 operator has to \
                 make a source of rules reachable: RULES_URLS or KV."
            ),
            Self::Internal => {
                "This gateway made a mistake. Nothing more is known here; tell its operator the request id.".into()
            }
        }
    }
}

/// The message for a field that isn't allowed.
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
            "The field {field} tells a model host where, or with which model, to process the request. Only the rules \
             may decide that. Leave it out."
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
            "The field {field} holds a value that an engine compiles or unpickles, or that controls how it reads \
             media. It is for clients that the engine's operator trusts. Leave it out, or allow \
             \"engine_inputs\" for this service."
        ),
    }
}

/// The message for a request that names its region in a way that can't be followed.
fn bad_pin(wrong: PinFault) -> &'static str {
    match wrong {
        PinFault::Region => "'x-bailiwick-pin' names no region of the rules. Write a region's name there.",
        PinFault::Form => {
            "'x-bailiwick-pin' can't be read. Write a region's name there, and after it ';arm=old' or ';arm=new' if \
             you want one arm of a rollout."
        }
        PinFault::Arm => {
            "'x-bailiwick-pin' names an arm that this request has in no rollout there. Leave the arm out, or name a \
             model and a region of the service's rollout."
        }
        PinFault::Bundle => {
            "'x-bailiwick-pin' names an arm, and the rollout of this service moves a bundle. Its arm is that of the \
             prompts in the request. Leave the arm out, and name their version in 'x-bailiwick-bundle'."
        }
        PinFault::State => {
            "'x-bailiwick-pin' is only for inference. A list of models is that of all regions, and a request about \
             stored objects goes where they are. Leave it out."
        }
    }
}

/// The message for a prompt that is longer than the model allows. Agents look for these words before they shorten the
/// prompt.
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
