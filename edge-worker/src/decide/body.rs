//! Judges a request's JSON body. Takes the bytes and the route of the request; returns an [`Inspected`] body, which
//! later gives the bytes to send to each endpoint. Called by `serve`, and by `batch` for each line of a batch.
//! `multipart` judges the fields of forms by [`field`].
//!
//! A body is read as JSON with any Content-Type, because endpoints do the same. Only some values are replaced, such as
//! `model`, `store`, ids and the salt of the engine's prefix cache. All other bytes stay as the client sent them, with
//! the order of keys, numbers such as `1e400`, and white space.

mod additions;
mod affinity;
pub(crate) mod engine;
mod entries;
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
mod top_level;
mod unlisted;
mod walk;

pub(crate) use additions::{Additions, Priority};
pub(crate) use affinity::Affinity;
pub(crate) use form_name::has_id;
pub(crate) use names::model_routes;
pub(crate) use place::{is_plain, lenient};

use core::ops::Range;
use std::borrow::Cow;
use std::collections::BTreeMap;

use bailiwick_rules::rules::{Allowance, Engine};

use crate::decide::buffer_pool::PooledBuffer;
use crate::decide::envelope::Failure;
use crate::decide::json::{InvalidJson, Kind, Scan, quoted};
use crate::decide::payload::Payload;
use crate::decide::route::{Class, Route};
use additions::{PriorityFields, UsageOption};
pub(crate) use entries::{NO_MODEL, model_name};
use entries::{duplicates, entries};
pub(crate) use field::Needs;
use ids::ItemId;
use scope::{NamedField, Scope};
use top_level::{DECIDING, read_top_level, salt};
use walk::Walk;

/// An endpoint's names of models. The key is the client's name of the same model.
type Models = BTreeMap<String, String>;

/// A JSON body that was read and judged.
#[derive(Clone)]
pub(crate) struct Inspected {
    bytes: PooledBuffer,
    model: Option<(Range<usize>, String)>,
    stream: bool,
    choices: usize,
    /// The most tokens that each answer may have, if the request states a limit.
    max_output: Option<u32>,
    /// Whether the client asks for a stream that reports its usage (tokens), or else the edit that makes the body ask
    /// for usage.
    usage: Option<Box<UsageOption>>,
    /// The fields that state the request's priority; only for inference.
    priority: Option<Box<PriorityFields>>,
    prompt_cache_key: Option<String>,
    user: Option<String>,
    /// A hash of the conversation's beginning.
    beginning: Option<u64>,
    /// The edit that sets `store` for every endpoint: the range to replace, and the new text. `None` if `store` stays
    /// as the client sent it.
    forced: Option<(Range<usize>, &'static str)>,
    /// Whether the endpoint stores the answer.
    stores: bool,
    /// Whether the answer may hold the id of an object that the model host (the provider behind an endpoint) keeps for
    /// a while: audio, or a container for code.
    keeps: bool,
    /// The ids in the body. Each has its range, and the id to send to the endpoint, which is the client's id until
    /// [`Inspected::replace_ids`].
    ids: Vec<(Range<usize>, String)>,
    /// The ids of items of the Responses API.
    items: Vec<ItemId>,
    /// The ranges of models' names below the top level, with the client's names.
    models: Vec<(Range<usize>, String)>,
    /// The names that an engine would share among all tenants. Each has its range, and the scoped name: a name of this
    /// tenant alone, which is sent instead.
    names: Vec<(Range<usize>, String)>,
    /// The salt of the engine's prefix cache, and the range that it replaces.
    salt: Option<Box<Salt>>,
    needs: Needs,
}

/// The salt for an engine's prefix cache. Tenants have different salts, so they share no entries of the cache.
#[derive(Clone)]
struct Salt {
    range: Range<usize>,
    scope: Scope,
    /// The client's own salt.
    own: Option<String>,
    /// Whether other fields follow. Then an inserted salt needs a comma.
    before_others: bool,
}

/// The permissions of a request, and the owner of the names in it.
#[derive(Clone, Debug)]
pub(crate) struct Terms<'a> {
    /// The permissions of the service.
    pub(crate) allow: &'a [Allowance],
    /// The owner of the names in the body, by which they are scoped.
    pub(crate) scope: Scope,
}

impl Inspected {
    /// A body without any field.
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
    /// 400 that names the fault.
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

    /// The most tokens that each answer may have; `None` if the request has no limit.
    #[must_use]
    pub(crate) fn max_output(&self) -> Option<u64> {
        self.max_output.map(u64::from)
    }

    /// Whether the answer is a stream that reports its usage only because the edge asks for it.
    #[must_use]
    pub(crate) fn hides_usage(&self) -> bool {
        matches!(self.usage.as_deref(), Some(UsageOption::Unasked(..)))
    }

    /// Whether an endpoint that can store answers will store this answer. Then the client may use the answer's id
    /// again.
    #[must_use]
    pub(crate) fn stores(&self) -> bool {
        self.stores
    }

    /// Whether the answer may hold the id of an object that the host keeps for a while. Then the client may use that id
    /// again.
    #[must_use]
    pub(crate) fn keeps(&self) -> bool {
        self.keeps
    }

    /// The ids in the body, in order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.ids.iter().map(|(_, id)| id.as_str())
    }

    /// Replaces [`Inspected::ids`] by these ids, in the same order, in the bytes for endpoints.
    pub(crate) fn replace_ids(&mut self, new: impl Iterator<Item = String>) {
        self.ids.iter_mut().zip(new).for_each(|((_, id), new)| *id = new);
    }

    /// The ids of the items in the body, in order.
    #[must_use]
    pub(crate) fn items(&self) -> &[ItemId] {
        &self.items
    }

    /// The ids of the items, to set their replacements.
    pub(crate) fn items_mut(&mut self) -> &mut [ItemId] {
        &mut self.items
    }

    /// The value that keeps related requests at one endpoint: `prompt_cache_key`, else the header `x-session-id`, else
    /// `user`, else the beginning of the conversation.
    #[must_use]
    pub(crate) fn affinity(&self) -> Affinity<'_> {
        Affinity {
            prompt_cache_key: self.prompt_cache_key.as_deref(),
            user: self.user.as_deref(),
            model: self.model(),
            beginning: self.beginning,
        }
    }

    /// The requirements of this request on an endpoint.
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

    /// The bytes for an endpoint with this engine. `model` is the endpoint's name of the request's model. `names` are
    /// the endpoint's names of the models that the body names below its top level. `additions` are fields to add. All
    /// other bytes stay as the client sent them.
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
        let ids_and_names = self.ids.iter().chain(&self.names);
        let ids_and_names = ids_and_names.map(|(range, name)| (range.clone(), Cow::Owned(quoted(name))));
        let salt = self.salt.as_ref().and_then(|salt| Some((salt.range.clone(), Cow::Owned(salt.text(engine)?))));
        let items = self.items.iter().filter_map(|item| item.edit().map(|(range, text)| (range, Cow::Owned(text))));
        let renamed_model = |(range, name): &(Range<usize>, String)| {
            let new = names?.get(name).filter(|new| *new != name)?;
            Some((range.clone(), Cow::Owned(quoted(new))))
        };
        let inner = self.models.iter().filter_map(renamed_model);
        let usage = self.usage.as_deref().filter(|_| additions.usage).and_then(UsageOption::edit);
        let priority = self.priority.as_ref().zip(additions.priority);
        let priority = priority.map(|(fields, priority)| fields.edits(priority)).unwrap_or_default();
        let mut edits: Vec<(Range<usize>, Cow<'_, str>)> = renamed
            .into_iter()
            .chain(forced)
            .chain(ids_and_names)
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

    /// The bytes that the client sent.
    #[must_use]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
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

/// Reads and judges a text. A text that isn't JSON gets the error for invalid JSON, even if it has other faults too.
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
    if let Some((at, fault)) = walk.fault {
        return Err(field::failure_at(text, at, fault));
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
