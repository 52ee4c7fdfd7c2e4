//! Judges a request's JSON body. Takes its bytes and its route; returns what the edge needs to know of it, and later
//! the bytes to send to each endpoint. Called by `serve`.
//!
//! A body is read as JSON whatever its Content-Type says, because endpoints do the same. Only certain values are
//! replaced, such as `model`, `store`, ids and the salt of a cache. Every other byte stays: key order, `1e400`, 2^70
//! and odd spacing survive.

mod additions;
mod affinity;
pub(crate) mod engine;
pub(crate) mod fault;
pub(crate) mod field;
pub(crate) mod fields;
mod form_name;
mod grader;
mod guess;
pub(crate) mod ids;
mod keys;
pub(crate) mod line;
mod media;
mod metadata;
pub(crate) mod models;
mod names;
mod paths;
mod place;
pub(crate) mod playlist;
mod pointer;
pub(crate) mod purpose;
mod reach;
mod regional;
pub(crate) mod scope;
mod shape;
#[cfg(test)]
pub(crate) mod tests;
mod unlisted;
mod walk;

pub(crate) use additions::{Additions, Priority};
pub(crate) use affinity::Affinity;
pub(crate) use form_name::has_id;
pub(crate) use names::model_routes;
pub(crate) use place::{is_plain, lenient};

use core::ops::Range;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use bailiwick_rules::rules::{Allowance, Engine};
use memchr::memmem;

use crate::decide::buffer_pool::PooledBuffer;
use crate::decide::envelope::Failure;
use crate::decide::json::{InvalidJson, Kind, Scan, known_as, quoted};
use crate::decide::payload::Payload;
use crate::decide::route::{Class, Route};
use additions::{PriorityFields, UsageOption};
pub(crate) use field::Needs;
use ids::ItemId;
use purpose::{PURPOSE, check_purpose};
use scope::{NamedField, Scope};
use walk::Walk;

/// Keys whose values decide something in this file. Some servers ignore case and read `"STORE"` as `store`, so another
/// spelling of such a key is refused.
const DECIDING: &[&str] =
    &["model", "stream", "store", "background", "tools", "conversation", "prompt", "purpose", "endpoint"];

/// What the purpose of an upload in parts must be, for the error message.
const WHOLE_BATCH: &str = "another than batch, as its lines are read here: send the file whole, to /files";

/// Tools that run in containers of the model host. If a name is written with escapes it isn't found, and the answer's
/// ids aren't sealed.
const CONTAINER_TOOLS: &[&[u8]] = &[b"code_interpreter", b"shell"];

/// An endpoint's names of models, by the client's names.
type Models = BTreeMap<String, String>;

/// Up to this number of fields, duplicates are found by comparing each pair.
const FEW_FIELDS: usize = 32;

/// The longest name of a model, in bytes.
const LONGEST_MODEL: usize = 256;

/// A JSON body that was read and judged.
#[derive(Clone)]
pub(crate) struct Inspected {
    bytes: PooledBuffer,
    model: Option<(Range<usize>, String)>,
    stream: bool,
    choices: usize,
    /// The most tokens that each answer may have, if the request says it.
    max_output: Option<u32>,
    /// Whether a stream tells its usage, and how to make it.
    usage: Option<Box<UsageOption>>,
    /// How it says how important it is; only of inference.
    priority: Option<Box<PriorityFields>>,
    prompt_cache_key: Option<String>,
    user: Option<String>,
    /// A hash of the conversation's beginning.
    beginning: Option<u64>,
    /// The text for `store` that every endpoint gets in place of the client's, and where it goes.
    forced: Option<(Range<usize>, &'static str)>,
    stores: bool,
    /// Whether the answer may hold the id of something that the host keeps for a while: audio, or a container for code.
    keeps: bool,
    /// Where ids stand, and the text that the endpoint gets there. At first it is the client's.
    ids: Vec<(Range<usize>, String)>,
    /// The ids of items of the Responses API.
    items: Vec<ItemId>,
    /// Where names of models stand below the top level, and the client's names there.
    models: Vec<(Range<usize>, String)>,
    /// Where names stand that an engine would share among all clients, and the scoped names that it gets instead.
    names: Vec<(Range<usize>, String)>,
    /// The salt of the engine's prefix cache, and where it goes.
    salt: Option<Box<Salt>>,
    needs: Needs,
}

/// The salt for an engine's prefix cache.
#[derive(Clone)]
struct Salt {
    range: Range<usize>,
    scope: Scope,
    /// The client's own salt.
    own: Option<String>,
    /// Whether other fields follow an inserted salt, so that it needs a comma.
    before_others: bool,
}

/// What a request may ask for, and in whose scope its names are.
#[derive(Clone, Debug)]
pub(crate) struct Terms<'a> {
    /// What the service allows.
    pub(crate) allow: &'a [Allowance],
    /// The scope of the names in the body.
    pub(crate) scope: Scope,
}

impl Inspected {
    /// A body that holds nothing, and decides nothing.
    fn empty() -> Self {
        Self {
            bytes: PooledBuffer::default(),
            model: None,
            stream: false,
            choices: 1,
            max_output: None,
            usage: None,
            priority: None,
            prompt_cache_key: None,
            user: None,
            beginning: None,
            forced: None,
            stores: false,
            keeps: false,
            ids: Vec::new(),
            items: Vec::new(),
            models: Vec::new(),
            names: Vec::new(),
            salt: None,
            needs: Needs::default(),
        }
    }

    /// Reads and judges a JSON body, whatever its Content-Type.
    ///
    /// # Errors
    /// 400 that names what is wrong, or what the service doesn't allow.
    pub(crate) fn json(bytes: impl Into<PooledBuffer>, route: &Route, terms: &Terms<'_>) -> Result<Self, Failure> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(Failure::MissingBody);
        }
        let read = match core::str::from_utf8(&bytes) {
            Ok(text) => read(text, route, terms)?,
            Err(error) => return Err(Failure::NotJson { at: error.valid_up_to() }),
        };
        Ok(Self { bytes, ..read })
    }

    /// The client's name of the model.
    #[must_use]
    pub(crate) fn model(&self) -> Option<&str> {
        self.model.as_ref().map(|(_, name)| name.as_str())
    }

    /// Whether the answer is to be streamed.
    #[must_use]
    pub(crate) fn stream(&self) -> bool {
        self.stream
    }

    /// How many choices the answer should have at least: `n`.
    #[must_use]
    pub(crate) fn choices(&self) -> usize {
        self.choices
    }

    /// The most tokens that each answer may have; `None` if the request doesn't say it.
    #[must_use]
    pub(crate) fn max_output(&self) -> Option<u64> {
        self.max_output.map(u64::from)
    }

    /// Whether the answer is a stream that tells its usage only because the edge asks for it.
    #[must_use]
    pub(crate) fn hides_usage(&self) -> bool {
        matches!(self.usage.as_deref(), Some(UsageOption::Unasked(..)))
    }

    /// Whether the endpoint stores the answer, if it can. Then the client may use the answer's id again.
    #[must_use]
    pub(crate) fn stores(&self) -> bool {
        self.stores
    }

    /// Whether the answer may hold the id of something that the host keeps for a while. Then the client may use that id
    /// again.
    #[must_use]
    pub(crate) fn keeps(&self) -> bool {
        self.keeps
    }

    /// The ids in the body, in order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.ids.iter().map(|(_, id)| id.as_str())
    }

    /// Replaces [`Inspected::ids`] in what is sent, in the same order.
    pub(crate) fn replace_ids(&mut self, new: impl Iterator<Item = String>) {
        self.ids.iter_mut().zip(new).for_each(|((_, id), new)| *id = new);
    }

    /// The ids of the items in the body, in order.
    #[must_use]
    pub(crate) fn items(&self) -> &[ItemId] {
        &self.items
    }

    /// The ids of the items, to set what is sent in their place.
    pub(crate) fn items_mut(&mut self) -> &mut [ItemId] {
        &mut self.items
    }

    /// What keeps related requests at one endpoint: `prompt_cache_key`, else the header `x-session-id`, else `user`,
    /// else the beginning of the conversation.
    #[must_use]
    pub(crate) fn affinity(&self) -> Affinity<'_> {
        Affinity {
            prompt_cache_key: self.prompt_cache_key.as_deref(),
            user: self.user.as_deref(),
            model: self.model(),
            beginning: self.beginning,
        }
    }

    /// What an endpoint must be able to do for this request.
    #[must_use]
    pub(crate) fn needs(&self) -> &Needs {
        &self.needs
    }

    /// [`Inspected::for_endpoint_with`] without additions.
    #[must_use]
    pub(crate) fn for_endpoint(
        &self,
        model: Option<&str>,
        names: Option<&Models>,
        engine: Option<Engine>,
    ) -> Payload<'_> {
        self.for_endpoint_with(model, names, engine, Additions::default())
    }

    /// The bytes for an endpoint of this engine that calls the model `model`, and those named below the top level by
    /// its `names`, with additions: every other byte as the client sent it.
    #[must_use]
    pub(crate) fn for_endpoint_with(
        &self,
        model: Option<&str>,
        names: Option<&Models>,
        engine: Option<Engine>,
        additions: Additions,
    ) -> Payload<'_> {
        let renamed = model.zip(self.model.as_ref()).filter(|(new, (_, old))| new != old);
        let renamed = renamed.map(|(new, (range, _))| (range.clone(), Cow::Owned(quoted(new))));
        let forced = self.forced.clone().map(|(range, text)| (range, Cow::Borrowed(text)));
        let words = self.ids.iter().chain(&self.names);
        let words = words.map(|(range, word)| (range.clone(), Cow::Owned(quoted(word))));
        let salt = self.salt.as_ref().and_then(|salt| Some((salt.range.clone(), Cow::Owned(salt.text(engine)?))));
        let items = self.items.iter().filter_map(|item| item.edit().map(|(range, text)| (range, Cow::Owned(text))));
        let theirs = |(range, name): &(Range<usize>, String)| {
            let theirs = names?.get(name).filter(|theirs| *theirs != name)?;
            Some((range.clone(), Cow::Owned(quoted(theirs))))
        };
        let inner = self.models.iter().filter_map(theirs);
        let usage = self.usage.as_deref().filter(|_| additions.usage).and_then(UsageOption::edit);
        let priority = self.priority.as_ref().zip(additions.priority);
        let priority = priority.map(|(fields, priority)| fields.edits(priority)).unwrap_or_default();
        let mut edits: Vec<(Range<usize>, Cow<'_, str>)> = renamed
            .into_iter()
            .chain(forced)
            .chain(words)
            .chain(items)
            .chain(inner)
            .chain(salt)
            .chain(usage)
            .chain(priority)
            .collect();
        edits.sort_by_key(|(range, _)| range.start);
        let mut out = Payload::default();
        let mut done = 0;
        for (range, text) in edits {
            out.push(self.bytes.get(done..range.start).unwrap_or_default());
            out.push(text.into_owned().into_bytes());
            done = done.max(range.end);
        }
        out.push(self.bytes.get(done..).unwrap_or_default());
        out
    }

    /// How many bytes the client sent.
    #[must_use]
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }
}

impl Salt {
    /// The text to write for an endpoint of this engine; `None` if the engine has no salt. A client's own salt is never
    /// sent unchanged.
    fn text(&self, engine: Option<Engine>) -> Option<String> {
        if self.range.is_empty() && !engine::salts(engine) {
            return None;
        }
        let own = self.own.as_deref().unwrap_or_default();
        let salt = quoted(&self.scope.name(NamedField::Salt, own).unwrap_or_default());
        Some(match (self.range.is_empty(), self.before_others) {
            (false, _) => salt,
            (true, false) => format!("\"cache_salt\":{salt}"),
            (true, true) => format!("\"cache_salt\":{salt},"),
        })
    }
}

/// Reads the whole text before it judges it. So a text that isn't JSON is always reported as such.
fn read(text: &str, route: &Route, terms: &Terms<'_>) -> Result<Inspected, Failure> {
    let broken = |broken: InvalidJson| Failure::NotJson { at: broken.at };
    let mut scan = Scan::new(text);
    if scan.kind().map_err(broken)? != Kind::Object {
        scan.skip().and_then(|_| scan.end()).map_err(broken)?;
        return Err(Failure::NotAnObject);
    }
    let brace = scan.at();
    let fields = paths::fields(route.pattern());
    let may_be_unknown = terms.allow.contains(&Allowance::UnknownFields);
    let (mut walk, mut needs) = (Walk::new(terms.allow), Needs::default());
    let read = |key: &str, value: &mut Scan<'_>| field::read(&mut walk, &mut needs, fields, key, value, may_be_unknown);
    let entries = entries(&mut scan, read).map_err(broken)?;
    duplicates(&entries, DECIDING)?;
    let mut body = read_top_level(text, brace, &entries, route, terms.allow)?;
    if let Some((at, wrong)) = walk.wrong {
        return Err(field::failure_at(text, at, wrong));
    }
    if route.class() == Class::Inference {
        body.salt = Some(Box::new(salt(text, brace, &entries, &terms.scope)));
        walk.names.retain(|(_, named, _)| *named != NamedField::Salt);
    }
    let scoped =
        |(range, named, name): (Range<usize>, NamedField, String)| Some((range, terms.scope.name(named, &name)?));
    body.names = walk.names.into_iter().filter_map(scoped).collect();
    if !walk.models.is_empty() {
        needs.models = models::named(text, &walk.models)?;
    }
    (body.ids, body.models, body.needs) = (walk.ids, walk.models, needs);
    Ok(body)
}

/// A top-level field: its key, and the kind and the range of its value.
type Entry<'t> = (Cow<'t, str>, Kind, Range<usize>);

/// Reads the object that makes up the rest of a text, and returns its entries. `read` reads each value.
fn entries<'t>(
    scan: &mut Scan<'t>,
    mut read: impl FnMut(&str, &mut Scan<'t>) -> Result<(), InvalidJson>,
) -> Result<Vec<Entry<'t>>, InvalidJson> {
    let mut entries: Vec<Entry<'t>> = Vec::new();
    scan.object(|key, value| {
        let (kind, start) = (value.kind()?, value.at());
        read(&key, value)?;
        entries.push((key, kind, start..value.at()));
        Ok(())
    })?;
    scan.end()?;
    Ok(entries)
}

/// Refuses duplicate keys and deciding keys in another case, because two parsers could read them differently.
fn duplicates(entries: &[Entry<'_>], deciding: &[&'static str]) -> Result<(), Failure> {
    // Most bodies have few fields. To compare them is faster than to make a set.
    let mut seen = HashSet::new();
    for (i, (key, _, _)) in entries.iter().enumerate() {
        if let Some(known) = known_as(key, deciding).filter(|known| key != known) {
            return Err(Failure::MiscasedKey { key: known });
        }
        let is_new =
            if entries.len() <= FEW_FIELDS { !entries[..i].iter().any(|one| one.0 == *key) } else { seen.insert(key) };
        if !is_new {
            return Err(Failure::DuplicateKey { key: key.chars().take(LONGEST_MODEL).collect() });
        }
    }
    Ok(())
}

/// Finds where the cache's salt stands, or where it will be inserted.
fn salt(text: &str, brace: usize, entries: &[Entry<'_>], scope: &Scope) -> Salt {
    let given = entries.iter().find(|(key, _, _)| key == "cache_salt");
    let own = given.filter(|(_, kind, _)| *kind != Kind::Null);
    Salt {
        range: given.map_or(brace + 1..brace + 1, |(_, _, range)| range.clone()),
        scope: scope.clone(),
        own: own.and_then(|(_, _, range)| text.get(range.clone())).map(str::to_owned),
        before_others: !entries.is_empty(),
    }
}

/// Reads what the top-level fields decide.
fn read_top_level(
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

/// What the path and the service mean for the top-level fields of a body.
struct TopLevel<'a> {
    text: &'a str,
    allow: &'a [Allowance],
    is_response: bool,
    is_upload: bool,
    is_batch: bool,
    /// Whether the service allows that answers are stored.
    may_store: bool,
    /// Whether the endpoint stores the answer unless `store` is false. In the Responses API it does, but requests for
    /// compaction and for token counts have no `store`.
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
                // Nobody means more than thousands of millions. A number that is odd is the endpoint's to refuse.
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

    /// Refuses a field that asks for what the service doesn't allow, or for what can't be judged here.
    fn check(&self, key: &str, kind: Kind, value: &str) -> Result<(), Failure> {
        let allows = |what: Allowance| self.allow.contains(&what);
        match key {
            // For images `background` is a colour.
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

/// Checks a batch's `endpoint`: a path that its lines may ask.
#[inline(never)]
fn check_endpoint(value: &str) -> Result<(), Failure> {
    let is_carried = string(value).is_some_and(|path| line::carried(&path).is_some());
    if is_carried { Ok(()) } else { Err(Failure::BadField { field: "endpoint", expected: line::PATH }) }
}

pub(crate) const NO_MODEL: Failure = Failure::BadField { field: "model", expected: "a string of 1 to 256 bytes" };

fn model(value: &str) -> Result<String, Failure> {
    model_name(&string(value).ok_or(NO_MODEL)?)
}

/// Checks the name of a model.
pub(crate) fn model_name(name: &str) -> Result<String, Failure> {
    if (1..=LONGEST_MODEL).contains(&name.len()) { Ok(name.to_owned()) } else { Err(NO_MODEL) }
}

fn string(value: &str) -> Option<String> {
    Scan::new(value).string().ok().map(Cow::into_owned)
}

/// Reads a boolean; `null` is false. Some servers take `"true"` or `1` for `true`. Here they are refused, because they
/// would evade inspection.
fn boolean(field: &'static str, kind: Kind) -> Result<bool, Failure> {
    match kind {
        Kind::True => Ok(true),
        Kind::False | Kind::Null => Ok(false),
        _ => Err(Failure::BadField { field, expected: "true or false" }),
    }
}
