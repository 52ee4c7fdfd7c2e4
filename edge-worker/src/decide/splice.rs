//! Puts the client's names into a committed answer (one that is already being passed to the client). Takes the
//! endpoint's bytes; returns the same bytes with the client's names of models, and with sealed ids (an endpoint's id
//! with proof of its owner) in place of the endpoint's ids. Called by `proxy` for each chunk, if the endpoint's name
//! for the model differs from the client's, or if the answer may hold ids.
//!
//! Only strings in known fields of the model API are replaced (`splice/json.rs`). The answer is rewritten while it
//! passes, and at most one of these strings is held back. Text that isn't the expected JSON passes unchanged.

mod json;
mod lines;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bailiwick_rules::id::{EndpointId, RegionId};
use memchr::{memchr_iter, memchr2, memmem};

use crate::decide::json::{has_odd_numbers, quoted};
use crate::decide::sse::without_mark;
use crate::decide::state::sealed_id::{Keyring, Owner};
use crate::decide::state::tuned::{is_tuned, without_tuned};
use json::Json;
pub(crate) use lines::BatchLines;

/// The longest list of models that is passed on, in bytes. A list can only be filtered as a whole, so a longer list is
/// withheld.
const LONGEST_LIST: usize = 8 << 20;
/// The longest beginning of an event that [`Events`] keeps for comparison with the next event, in bytes.
const LONGEST_BEGINNING: usize = 1_024;

/// The names and ids to write in place of those that an endpoint's text holds.
#[derive(Clone)]
pub(crate) struct Names {
    /// The names of models to write, as quoted JSON strings.
    models: Models,
    /// Which fields of the text hold names of models.
    places: NamePlaces,
    /// How ids are sealed, if the text may hold any.
    ids: Option<Ids>,
}

#[derive(Clone)]
enum Models {
    /// Names of models stay as they are.
    Same,
    /// Every name of a model is replaced by this one, which is the client's.
    One(String),
    /// Each name of a model is replaced by the name that it maps to. A name that isn't in the map stays.
    Map(BTreeMap<String, String>),
}

/// Which fields of a text hold names of models.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NamePlaces {
    /// The text is an answer: `model`, and `model` of `response`.
    Answer,
    /// The text is a stored object, or a list of stored objects: the fields of an answer, and `model` of each entry of
    /// `data`.
    Objects,
    /// The text is a model, or a list of models: `id`, `root` and `parent` of each model.
    Models,
    /// The text is a line of a batch: `model` of `body`, or of the `body` of `response`.
    Lines,
}

/// How an answer's ids are sealed.
#[derive(Clone)]
pub(crate) struct Ids {
    /// The keys to seal with.
    pub(crate) keys: Keyring,
    /// Who owns the ids.
    pub(crate) owner: Owner,
    /// The region that answers.
    pub(crate) region: RegionId,
    /// The endpoint of that region that answers.
    pub(crate) endpoint: EndpointId,
}

impl Names {
    /// Names for the answer to a request that names at most one model. `None` if the answer needs no change.
    #[must_use]
    pub(crate) fn new(model: Option<&str>, ids: Option<Ids>) -> Option<Self> {
        let models = model.map_or(Models::Same, |model| Models::One(quoted(model)));
        (model.is_some() || ids.is_some()).then_some(Self { models, places: NamePlaces::Answer, ids })
    }

    /// Names for a text that names one model, at the places given.
    #[must_use]
    pub(crate) fn of_one(model: &str, places: NamePlaces) -> Self {
        Self { models: Models::One(quoted(model)), places, ids: None }
    }

    /// Names for a text that may name any model. Each of `pairs` is a name in the text and the name to write in its
    /// place. If a name in the text occurs in several pairs, the last pair counts.
    #[must_use]
    pub(crate) fn translated<'m>(
        pairs: impl Iterator<Item = (&'m String, &'m String)>,
        places: NamePlaces,
        ids: Option<Ids>,
    ) -> Self {
        let models = pairs.map(|(at_endpoint, written)| (at_endpoint.clone(), quoted(written))).collect();
        Self { models: Models::Map(models), places, ids }
    }

    /// Whether nothing but the first name of a model in a text has to be replaced.
    fn is_one_model(&self) -> bool {
        self.ids.is_none() && self.places == NamePlaces::Answer && matches!(self.models, Models::One(_))
    }

    fn has_models(&self) -> bool {
        !matches!(self.models, Models::Same)
    }

    /// The quoted string to write in place of a model's name; `None` if the name stays.
    fn model(&self, at_endpoint: &str) -> Option<&str> {
        match &self.models {
            Models::Same => None,
            Models::One(model) => Some(model),
            Models::Map(models) => models.get(at_endpoint).map(String::as_str),
        }
    }

    /// The quoted sealed id to write in place of an endpoint's id.
    fn id(&self, id: &str) -> Option<String> {
        let ids = self.ids.as_ref()?;
        Some(quoted(&ids.keys.seal(&ids.owner, ids.region.as_str(), ids.endpoint.as_str(), id)?))
    }

    /// The quoted text to write in place of `text`, with sealed names of fine-tuned models; `None` if `text` names no
    /// fine-tuned model.
    fn tuned(&self, text: &str) -> Option<String> {
        let ids = self.ids.as_ref()?;
        let seal = |name: &str| ids.keys.seal(&ids.owner, ids.region.as_str(), ids.endpoint.as_str(), name);
        let word = |word: &str| {
            let name = word.trim_matches(|c: char| !c.is_alphanumeric());
            let sealed = is_tuned(name).then(|| seal(name)).flatten();
            sealed.map_or_else(|| word.to_owned(), |sealed| word.replace(name, &sealed))
        };
        let new: String = text.split_inclusive(char::is_whitespace).map(word).collect();
        (new != text).then(|| quoted(&new))
    }
}

/// Rewrites one answer on its way to the client.
pub(crate) enum Splice {
    /// A JSON document.
    Json(Names, Json),
    /// A stream of events.
    Events(Box<Events>),
    /// A list of models, and the names to write. When the list is complete, fine-tuned models are removed, because they
    /// may be another tenant's.
    Models(Vec<u8>, Option<Names>),
    /// The output file of a batch: a line of JSON for each request.
    Lines(Box<BatchLines>),
}

impl Splice {
    /// For a list of models. `names` holds the names to write in place of the endpoint's.
    #[must_use]
    pub(crate) fn models(names: Option<Names>) -> Self {
        Self::Models(Vec::new(), names)
    }

    /// For a JSON answer, or for a stream of events that hold JSON.
    #[must_use]
    pub(crate) fn new(names: Names, events: bool) -> Self {
        if events { Self::Events(Box::new(Events::new(names))) } else { Self::Json(names, Json::default()) }
    }

    /// Takes the next bytes, and returns the bytes to pass on.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + 64);
        match self {
            Self::Json(names, json) => json.pass(names, bytes, &mut out),
            Self::Events(events) => events.pass(bytes, &mut out),
            Self::Models(list, _) => {
                if list.len() <= LONGEST_LIST {
                    list.extend_from_slice(bytes);
                }
            }
            Self::Lines(lines) => return lines.pass(bytes),
        }
        out
    }

    /// Takes a complete document, and returns it rewritten.
    pub(crate) fn whole(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Self::Json(names, json) = self else { return self.pass(bytes) };
        let mut out = Vec::with_capacity(bytes.len() + 64);
        let is_one = names.is_one_model();
        let from = if is_one { json.pass_to_model(names, bytes, &mut out) } else { Some(0) };
        let rest = from.and_then(|from| bytes.get(from..)).unwrap_or_default();
        // The rest is copied unless it has another key `model` (perhaps written with escapes), or a number such as
        // `NaN`, which JSON doesn't have.
        let plain = || {
            memmem::find(rest, b"model\"").is_none()
                && !memchr_iter(b'\\', rest).any(|at| rest.get(at + 1) == Some(&b'u'))
                && !has_odd_numbers(rest)
        };
        if is_one && plain() {
            out.extend_from_slice(rest);
        } else {
            json.pass(names, rest, &mut out);
        }
        out
    }

    /// Returns the bytes that were held back, at the end of the answer.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        match self {
            Self::Json(_, json) => json.take_held(),
            Self::Events(events) => events.json.take_held(),
            Self::Models(list, names) => {
                let list = without_tuned(list);
                match names.take() {
                    Some(names) => Self::new(names, false).whole(&list),
                    None => list,
                }
            }
            Self::Lines(lines) => lines.finish(),
        }
    }
}

/// Rewrites a stream of events. The caller passes whole events, or pieces of a very long event.
pub(crate) struct Events {
    names: Names,
    json: Json,
    /// The kind of line that the next byte belongs to.
    line: Line,
    after_cr: bool,
    /// Whether the first bytes of the stream were read. Only these may hold a byte-order mark.
    begun: bool,
    /// A cache for streams in which only the model is replaced: the beginning of the last event up to the end of the
    /// model's name, and the bytes that were written for it. Most events of a stream begin with the same bytes.
    last: Option<(Vec<u8>, Vec<u8>)>,
    /// Whether the model's name in this event was replaced, so that the rest of the event passes unchanged.
    done: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Start,
    Data,
    Other,
}

impl Events {
    fn new(names: Names) -> Self {
        let (json, line) = (Json::default(), Line::Start);
        Self { names, json, line, after_cr: false, begun: false, last: None, done: false }
    }

    /// Writes the next bytes of an event stream to `out`, with the replacements. An event may be cut anywhere.
    fn pass(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        if !self.begun && !bytes.is_empty() {
            self.begun = true;
            let (mark, rest) = bytes.split_at(bytes.len() - without_mark(bytes).len());
            out.extend_from_slice(mark);
            bytes = rest;
        }
        while let Some(&first) = bytes.first() {
            if self.line == Line::Start {
                if matches!(first, b'\n' | b'\r') {
                    // The second half of a CRLF, or the empty line that ends an event.
                    if !(first == b'\n' && core::mem::take(&mut self.after_cr)) {
                        self.json.reset(out);
                        self.done = false;
                    }
                    self.after_cr = first == b'\r';
                    out.push(first);
                    bytes = &bytes[1..];
                    continue;
                }
                self.after_cr = false;
                self.line = if bytes.starts_with(b"data:") { Line::Data } else { Line::Other };
                if self.line == Line::Data {
                    out.extend_from_slice(&bytes[..5]);
                    bytes = &bytes[5..];
                }
            }
            let (text, rest) = bytes.split_at(memchr2(b'\n', b'\r', bytes).unwrap_or(bytes.len()));
            match self.line {
                Line::Data if !self.done => self.data(text, out),
                _ => out.extend_from_slice(text),
            }
            if let Some((end, rest)) = rest.split_first() {
                out.push(*end);
                self.after_cr = *end == b'\r';
                self.line = Line::Start;
                bytes = rest;
            } else {
                bytes = rest;
            }
        }
    }

    /// Writes a piece of an event's data with the replacements. If the data begins like those of the last event, which
    /// is usual, the beginning isn't read again.
    fn data(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let is_odd = has_odd_numbers(text);
        let fresh = self.json.is_fresh() && !is_odd;
        if let Some((before, after)) = self.last.as_ref().filter(|(before, _)| fresh && text.starts_with(before)) {
            out.extend_from_slice(after);
            out.extend_from_slice(&text[before.len()..]);
            self.done = true;
            return;
        }
        // The data of an event may span several lines. Then all of these lines are read.
        let whole = || text.trim_ascii_end().ends_with(b"}");
        if fresh && whole() && !may_need_edit(text, self.names.ids.is_some()) {
            return out.extend_from_slice(text);
        }
        if is_odd || !self.names.is_one_model() {
            return self.json.pass(&self.names, text, out);
        }
        let from = out.len();
        let Some(at) = self.json.pass_to_model(&self.names, text, out) else { return };
        if fresh && at <= LONGEST_BEGINNING {
            self.last = Some((text[..at].to_vec(), out[from..].to_vec()));
        }
        out.extend_from_slice(&text[at..]);
        self.json.reset(out);
        self.done = true;
    }
}

/// Whether a line may hold a string to replace. Most lines hold none, and this check is cheaper than reading the line.
fn may_need_edit(text: &[u8], ids: bool) -> bool {
    let has = |word: &[u8]| memmem::find(text, word).is_some();
    has(b"\"model\"")
        || ids && (has(b"id\"") || has(b"\"container\"") || has(b"file") || has(b"vector_store") || has(b"ft:"))
}
