//! A request's body in; what the edge has to know of it, and the bytes to send each endpoint, out.
//!
//! JSON is read whatever its Content-Type says, because endpoints do so too. Only the bytes of `model`, `store` and ids are
//! ever replaced: key order, `1e400`, 2^70 and odd spacing survive.

mod affinity;
pub(crate) mod engine;
pub(crate) mod field;
pub(crate) mod fields;
mod form_name;
mod grader;
mod guess;
pub mod ids;
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
mod reach;
mod regional;
pub(crate) mod scope;
mod shape;
#[cfg(test)]
pub(crate) mod tests;
mod unlisted;
mod walk;

pub use affinity::Affinity;
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
use crate::decide::multipart::upload::{PURPOSE, check_purpose};
use crate::decide::payload::Payload;
use crate::decide::route::{Class, Route};
pub use field::Needs;
use ids::ItemId;
use scope::{NamedField, Scope};
use walk::Walk;

/// Keys that decide something here. A server that ignores letters' case would read `"STORE"` as `store`; this one doesn't.
const DECIDING: &[&str] =
    &["model", "stream", "store", "background", "tools", "conversation", "prompt", "purpose", "endpoint"];

/// What an upload in parts may be.
const WHOLE_BATCH: &str = "another than batch, as its lines are read here: send the file whole, to /files";

/// Tools that run in containers of the host's. A name that is written with escapes goes without sealed ids.
const KEEPING: &[&[u8]] = &[b"code_interpreter", b"shell"];

/// An endpoint's names of models by the clients'.
type Models = BTreeMap<String, String>;

/// How many fields are compared each with each.
const FEW: usize = 32;

/// The longest name of a model, in bytes.
const LONGEST_MODEL: usize = 256;

/// A body that was looked through.
#[derive(Clone)]
pub struct Inspected {
    bytes: PooledBuffer,
    model: Option<(Range<usize>, String)>,
    stream: bool,
    choices: usize,
    prompt_cache_key: Option<String>,
    user: Option<String>,
    /// A hash of the conversation's beginning.
    beginning: Option<u64>,
    /// What every endpoint gets instead of what the client wrote: `store`.
    forced: Option<(Range<usize>, &'static str)>,
    stores: bool,
    /// Whether the answer may name what the host keeps for a while: sound, or a container that code runs in.
    keeps: bool,
    /// Where ids stand, and what the endpoint gets there: at first what the client wrote.
    ids: Vec<(Range<usize>, String)>,
    /// The ids of items of the Responses API.
    items: Vec<ItemId>,
    /// Where models stand below the top level, by the client's names.
    models: Vec<(Range<usize>, String)>,
    /// Where names stand that engines keep for everybody, and what they get instead.
    names: Vec<(Range<usize>, String)>,
    /// Where the client salts an engine's cache, or where that could be written, and by what.
    salt: Option<Box<Salt>>,
    needs: Needs,
}

/// What an engine's prefix cache is salted with.
#[derive(Clone)]
struct Salt {
    range: Range<usize>,
    scope: Scope,
    /// The client's own salt.
    own: Option<String>,
    /// Whether fields follow what is inserted.
    before_others: bool,
}

/// What a request may ask for, and whose it is.
#[derive(Clone, Debug)]
pub struct Terms<'a> {
    /// What the service allows.
    pub allow: &'a [Allowance],
    /// Whose names are in it.
    pub scope: Scope,
}

impl Inspected {
    /// Looks a JSON body through, whatever its Content-Type.
    ///
    /// # Errors
    /// 400 with what is wrong, or what the service doesn't allow.
    pub fn json(bytes: impl Into<PooledBuffer>, route: &Route, terms: &Terms<'_>) -> Result<Self, Failure> {
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

    /// The model, by the client's name.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_ref().map(|(_, name)| name.as_str())
    }

    /// Whether the answer is to be streamed.
    #[must_use]
    pub fn stream(&self) -> bool {
        self.stream
    }

    /// How many choices the answer is to have: `n`, at least.
    #[must_use]
    pub fn choices(&self) -> usize {
        self.choices
    }

    /// Whether an endpoint that can will store the answer, so that its id may be used again.
    #[must_use]
    pub fn stores(&self) -> bool {
        self.stores
    }

    /// Whether the answer may name what the host keeps for a while, so that its id may be used again.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.keeps
    }

    /// The ids in it, in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.ids.iter().map(|(_, id)| id.as_str())
    }

    /// Has these sent instead of [`Inspected::ids`].
    pub fn replace_ids(&mut self, new: impl Iterator<Item = String>) {
        self.ids.iter_mut().zip(new).for_each(|((_, id), new)| *id = new);
    }

    /// The ids of the items in it, in order.
    #[must_use]
    pub fn items(&self) -> &[ItemId] {
        &self.items
    }

    /// The same, for whoever says what is sent instead.
    pub fn items_mut(&mut self) -> &mut [ItemId] {
        &mut self.items
    }

    /// What keeps related requests together: `prompt_cache_key`, else `user` (`x-session-id` stands between them), else the
    /// beginning of the conversation.
    #[must_use]
    pub fn affinity(&self) -> Affinity<'_> {
        Affinity {
            prompt_cache_key: self.prompt_cache_key.as_deref(),
            user: self.user.as_deref(),
            model: self.model(),
            beginning: self.beginning,
        }
    }

    /// What an endpoint has to know.
    #[must_use]
    pub fn needs(&self) -> &Needs {
        &self.needs
    }

    /// The bytes for an endpoint of this engine that calls the model `model`, and those named below the top level by
    /// its `names`: every other byte as the client sent it.
    #[must_use]
    pub fn for_endpoint(&self, model: Option<&str>, names: Option<&Models>, engine: Option<Engine>) -> Payload<'_> {
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
        let mut edits: Vec<(Range<usize>, Cow<'_, str>)> =
            renamed.into_iter().chain(forced).chain(words).chain(items).chain(inner).chain(salt).collect();
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
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
}

impl Salt {
    /// What is written for an endpoint of this engine. A client's own salt never passes as it is.
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

/// Reads the whole text, and only then judges it: what isn't JSON is told as that.
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
    let mut body = decided(text, brace, &entries, route, terms.allow)?;
    if let Some((at, wrong)) = walk.wrong {
        return Err(field::told(text, at, wrong));
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

/// A top-level field: its key, and its value's kind and place.
type Entry<'t> = (Cow<'t, str>, Kind, Range<usize>);

/// The entries of the object that is the rest of a text. `read` reads each value.
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

/// Refuses keys that two readers could read differently.
fn duplicates(entries: &[Entry<'_>], deciding: &[&'static str]) -> Result<(), Failure> {
    // Most bodies have few fields, which are compared sooner than a set of them is made.
    let mut seen = HashSet::new();
    for (i, (key, _, _)) in entries.iter().enumerate() {
        if let Some(known) = known_as(key, deciding).filter(|known| key != known) {
            return Err(Failure::MiscasedKey { key: known });
        }
        let is_new =
            if entries.len() <= FEW { !entries[..i].iter().any(|one| one.0 == *key) } else { seen.insert(key) };
        if !is_new {
            return Err(Failure::DuplicateKey { key: key.chars().take(LONGEST_MODEL).collect() });
        }
    }
    Ok(())
}

/// Where the cache's salt stands, or is to stand.
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

/// What the top-level fields decide here.
fn decided(
    text: &str,
    brace: usize,
    entries: &[Entry<'_>],
    route: &Route,
    allow: &[Allowance],
) -> Result<Inspected, Failure> {
    let mut body = Inspected {
        bytes: PooledBuffer::default(),
        model: None,
        stream: false,
        choices: 1,
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
    };
    let (is_response, is_upload, is_batch) = (route.is_responses(), route.is(&["uploads"]), route.is(&["batches"]));
    // Compactions and counts know no `store`.
    let stores = route.is(&["responses"]);
    let may_store = allow.contains(&Allowance::Store);
    let has = |name: &str| entries.iter().any(|(key, _, _)| key == name);
    for (key, kind, range) in entries {
        let value = text.get(range.clone()).unwrap_or_default();
        match key.as_ref() {
            "model" => body.model = Some((range.clone(), model(value)?)),
            "stream" => body.stream = boolean("stream", *kind)?,
            "n" => body.choices = value.parse().unwrap_or(1),
            // Of images it is the colour behind them.
            "background" if is_response && boolean("background", *kind)? && !allow.contains(&Allowance::Background) => {
                return Err(Failure::Background);
            }
            "store" if *kind != Kind::False && !may_store => body.forced = Some((range.clone(), "false")),
            "store" => body.stores = boolean("store", *kind)? || stores && *kind == Kind::Null,
            "conversation" if is_response && *kind != Kind::Null => {
                return Err(Failure::NotCarried { what: "Conversations" });
            }
            // A prompt stored at the endpoint can hold tools and URLs that nobody here has seen.
            "prompt" if is_response && *kind != Kind::Null && !allow.contains(&Allowance::HostedTools) => {
                return Err(Failure::HostedTool { tool: "prompt".to_owned() });
            }
            // A host that takes one tool without its list would run what nobody looked at.
            "audio" if *kind == Kind::Object => body.keeps = true,
            "tools" if *kind == Kind::Array && allow.contains(&Allowance::HostedTools) => {
                body.keeps |= KEEPING.iter().any(|tool| memmem::find(value.as_bytes(), tool).is_some());
            }
            "tools" if !matches!(kind, Kind::Array | Kind::Null) => {
                return Err(Failure::BadField { field: "tools", expected: "a list" });
            }
            "endpoint" if is_batch && *kind != Kind::Null => check_endpoint(value)?,
            "purpose" if is_upload => {
                let purpose = string(value).unwrap_or_default();
                check_purpose(&purpose, allow.contains(&Allowance::Batch))?;
                // Nobody would see where a line begins in a part of a file, nor what it asks.
                if purpose.starts_with("batch") {
                    return Err(Failure::BadField { field: "purpose", expected: WHOLE_BATCH });
                }
            }
            "prompt_cache_key" if *kind == Kind::String => body.prompt_cache_key = string(value),
            "user" if *kind == Kind::String => body.user = string(value),
            "input" if is_response && matches!(kind, Kind::Array | Kind::Object) => {
                body.items = ids::items(text, range.clone());
            }
            _ => {}
        }
    }
    if body.prompt_cache_key.is_none() {
        body.beginning = affinity::beginning(route, entries, text);
    }
    // The Responses API stores what doesn't say otherwise.
    if stores && !has("store") {
        body.stores = may_store;
        let text = if entries.is_empty() { "\"store\":false" } else { "\"store\":false," };
        body.forced = (!may_store).then(|| (brace + 1..brace + 1, text));
    }
    if route.class() == Class::Inference && body.model.is_none() && !route.is(&["moderations"]) {
        return Err(NO_MODEL);
    }
    if is_upload && !has("purpose") {
        return Err(Failure::BadField { field: "purpose", expected: PURPOSE });
    }
    if is_batch && !allow.contains(&Allowance::Batch) {
        return Err(Failure::Batch);
    }
    Ok(body)
}

/// What a batch asks: the path that its lines name too.
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

/// `true` or not. Some servers take `"true"` or `1` for `true`; here that would be a way around inspection.
fn boolean(field: &'static str, kind: Kind) -> Result<bool, Failure> {
    match kind {
        Kind::True => Ok(true),
        Kind::False | Kind::Null => Ok(false),
        _ => Err(Failure::BadField { field, expected: "true or false" }),
    }
}
