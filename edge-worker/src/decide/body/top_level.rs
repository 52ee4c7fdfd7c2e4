//! Reads the top-level fields of a JSON body: what the fields ask for, and whether the service allows that. Takes the
//! ranges of the fields in the text; returns an [`Inspected`], or the reason why the body is refused. Called by
//! [`super::read`].

use bailiwick_rules::rules::Allowance;
use memchr::memmem;

use super::additions::{PriorityFields, UsageOption};
use super::entries::{Entry, NO_MODEL, boolean, model_name, string};
use super::purpose::{PURPOSE, check_purpose};
use super::scope::Scope;
use super::{Inspected, Salt, affinity, ids, line};
use crate::decide::envelope::Failure;
use crate::decide::json::Kind;
use crate::decide::route::{Class, Route};

/// Keys whose values this file acts on. Some servers ignore case and read `"STORE"` as `store`, so such a key in
/// another case is refused.
pub(super) const DECIDING: &[&str] =
    &["model", "stream", "store", "background", "tools", "conversation", "prompt", "purpose", "endpoint"];

/// What the purpose of an upload in parts must be, for the error message.
const WHOLE_BATCH: &str = "another than batch, as its lines are read here: send the file whole, to /files";

/// Tools that run in containers of the model host. The search misses a name that the body writes with JSON escapes.
/// Then the ids in the answer aren't sealed (bound to the tenant and the endpoint).
const CONTAINER_TOOLS: &[&[u8]] = &[b"code_interpreter", b"shell"];

/// Finds the range of the prefix cache's salt, or the offset where a salt can be inserted.
pub(super) fn salt(text: &str, brace: usize, entries: &[Entry<'_>], scope: &Scope) -> Salt {
    let given = entries.iter().find(|(key, _, _)| key == "cache_salt");
    let own = given.filter(|(_, kind, _)| *kind != Kind::Null);
    Salt {
        range: given.map_or(brace + 1..brace + 1, |(_, _, range)| range.clone()),
        scope: scope.clone(),
        own: own.and_then(|(_, _, range)| text.get(range.clone())).map(str::to_owned),
        before_others: !entries.is_empty(),
    }
}

/// Reads the top-level fields, and applies the defaults for a missing `store` and a missing `stream_options`.
pub(super) fn read_top_level(
    text: &str,
    brace: usize,
    entries: &[Entry<'_>],
    route: &Route,
    allow: &[Allowance],
) -> Result<Inspected, Failure> {
    let path = TopLevel::of(text, route, allow);
    let mut body = Inspected::empty();
    for entry in entries {
        path.read(entry, &mut body)?;
    }
    if body.prompt_cache_key.is_none() {
        body.beginning = affinity::beginning(route, entries, text);
    }
    let has = |name: &str| entries.iter().any(|(key, _, _)| key == name);
    if path.stores_by_default && !has("store") {
        body.stores = path.may_store;
        let text = if entries.is_empty() { "\"store\":false" } else { "\"store\":false," };
        body.forced = (!path.may_store).then(|| (brace + 1..brace + 1, text));
    }
    if route.class() == Class::Inference {
        let (is_chat, is_response) = (route.is(&["chat", "completions"]), route.is(&["responses"]));
        let takes = (is_chat || is_response || route.is(&["completions"]), is_chat || is_response);
        let mut fields = PriorityFields::new(brace, takes);
        for known in ["priority", "service_tier"] {
            if let Some((_, _, range)) = entries.iter().find(|(key, _, _)| key == known) {
                fields.note(text, known, range.clone());
            }
        }
        body.priority = Some(Box::new(fields));
    }
    let is_stream_of_choices = body.stream && (route.is(&["chat", "completions"]) || route.is(&["completions"]));
    body.usage = match body.usage {
        _ if !is_stream_of_choices => None,
        None if has("stream_options") => None,
        None => Some(Box::new(UsageOption::absent(brace))),
        given => given,
    };
    if route.class() == Class::Inference && body.model.is_none() && !route.is(&["moderations"]) {
        return Err(NO_MODEL);
    }
    if path.is_upload && !has("purpose") {
        return Err(Failure::BadField { field: "purpose", expected: PURPOSE });
    }
    if path.is_batch && !allow.contains(&Allowance::Batch) {
        return Err(Failure::Batch);
    }
    Ok(body)
}

/// The properties of the path and of the service that decide how top-level fields are read.
struct TopLevel<'a> {
    text: &'a str,
    allow: &'a [Allowance],
    is_response: bool,
    is_upload: bool,
    is_batch: bool,
    /// Whether the service allows that answers are stored.
    may_store: bool,
    /// Whether the endpoint stores the answer unless `store` is false. That holds for requests that create a response,
    /// but not for requests for a compaction or a token count.
    stores_by_default: bool,
}

impl<'a> TopLevel<'a> {
    fn of(text: &'a str, route: &Route, allow: &'a [Allowance]) -> Self {
        Self {
            text,
            allow,
            is_response: route.is_responses(),
            is_upload: route.is(&["uploads"]),
            is_batch: route.is(&["batches"]),
            may_store: allow.contains(&Allowance::Store),
            stores_by_default: route.is(&["responses"]),
        }
    }

    /// Reads a field into `body`.
    fn read(&self, (key, kind, range): &Entry<'_>, body: &mut Inspected) -> Result<(), Failure> {
        let value = self.text.get(range.clone()).unwrap_or_default();
        match key.as_ref() {
            "model" => body.model = Some((range.clone(), model(value)?)),
            "stream" => body.stream = boolean("stream", *kind)?,
            "n" => body.choices = value.parse().unwrap_or(1),
            "max_tokens" | "max_completion_tokens" | "max_output_tokens" if *kind == Kind::Number => {
                // A number above `u32::MAX` counts as `u32::MAX`. Anything that isn't a `u64` counts as no limit, and
                // the endpoint judges it.
                let tokens = value.parse().ok().map(|tokens: u64| u32::try_from(tokens).unwrap_or(u32::MAX));
                body.max_output = body.max_output.max(tokens);
            }
            "stream_options" => {
                body.usage = UsageOption::read(self.text, *kind, range.clone()).map(Box::new);
            }
            "store" if *kind != Kind::False && !self.may_store => body.forced = Some((range.clone(), "false")),
            "store" => body.stores = boolean("store", *kind)? || self.stores_by_default && *kind == Kind::Null,
            "audio" if *kind == Kind::Object => body.keeps = true,
            "tools" if *kind == Kind::Array && self.allow.contains(&Allowance::HostedTools) => {
                body.keeps |= CONTAINER_TOOLS.iter().any(|tool| memmem::find(value.as_bytes(), tool).is_some());
            }
            "prompt_cache_key" if *kind == Kind::String => body.prompt_cache_key = string(value),
            "user" if *kind == Kind::String => body.user = string(value),
            "input" if self.is_response && matches!(kind, Kind::Array | Kind::Object) => {
                body.items = ids::items(self.text, range.clone());
            }
            key => self.check(key, *kind, value)?,
        }
        Ok(())
    }

    /// Refuses a field that asks for something that the service doesn't allow, or that the edge can't judge.
    fn check(&self, key: &str, kind: Kind, value: &str) -> Result<(), Failure> {
        let allows = |what: Allowance| self.allow.contains(&what);
        match key {
            // In requests for images, `background` is a colour.
            "background" if self.is_response && boolean("background", kind)? && !allows(Allowance::Background) => {
                Err(Failure::Background)
            }
            "conversation" if self.is_response && kind != Kind::Null => {
                Err(Failure::NotCarried { what: "Conversations" })
            }
            // A prompt stored at the endpoint may hold tools and URLs that the edge can't judge.
            "prompt" if self.is_response && kind != Kind::Null && !allows(Allowance::HostedTools) => {
                Err(Failure::HostedTool { tool: "prompt".to_owned() })
            }
            // A host may accept a single tool without a list around it, and would run it unjudged.
            "tools" if !matches!(kind, Kind::Array | Kind::Null) => {
                Err(Failure::BadField { field: "tools", expected: "a list" })
            }
            "endpoint" if self.is_batch && kind != Kind::Null => check_endpoint(value),
            "purpose" if self.is_upload => {
                let purpose = string(value).unwrap_or_default();
                check_purpose(&purpose, allows(Allowance::Batch))?;
                // The lines of a batch can't be judged in the separate parts of a file.
                if purpose.starts_with("batch") {
                    return Err(Failure::BadField { field: "purpose", expected: WHOLE_BATCH });
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Checks a batch's `endpoint`: a path that its lines may use.
#[inline(never)]
fn check_endpoint(value: &str) -> Result<(), Failure> {
    let is_batchable = string(value).is_some_and(|path| line::batchable(&path).is_some());
    if is_batchable { Ok(()) } else { Err(Failure::BadField { field: "endpoint", expected: line::PATH }) }
}

fn model(value: &str) -> Result<String, Failure> {
    model_name(&string(value).ok_or(NO_MODEL)?)
}
