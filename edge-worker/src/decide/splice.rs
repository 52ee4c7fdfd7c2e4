//! Puts the client's names into a committed answer. Takes the endpoint's bytes, returns the same bytes with the
//! client's names of models and with sealed ids. Called by `proxy` for each chunk, if the endpoint's name for the model
//! differs from the client's, or if the answer may hold ids.
//!
//! Only strings at known places of the model API are replaced (`splice/json.rs`). The answer isn't parsed into a tree
//! and written again, and at most one such string is held back. Text that isn't the expected JSON passes unchanged.

mod json;
mod lines;

use std::collections::BTreeMap;

use bailiwick_rules::id::{EndpointId, RegionId};
use memchr::{memchr_iter, memchr2, memmem};

use crate::decide::json::{has_odd_numbers, quoted};
use crate::decide::sse::without_mark;
use crate::decide::state::sealed_id::{Keyring, Owner};
use crate::decide::state::tuned::{is_tuned, without_tuned};
use json::Json;
pub(crate) use lines::BatchLines;

/// The longest list of models that is passed on, in bytes. A longer one is withheld, because it can only be filtered as
/// a whole.
const LONGEST_LIST: usize = 8 << 20;
/// The longest beginning of an event that is remembered, in bytes.
const LONGEST_BEGINNING: usize = 1_024;

/// The names and ids to write in place of those that a text holds.
#[derive(Clone)]
pub(crate) struct Names {
    /// The names of models to write, as quoted JSON strings.
    models: Models,
    /// Where names of models stand.
    places: NamePlaces,
    /// How ids are sealed, if the text may hold any.
    ids: Option<Ids>,
}

#[derive(Clone)]
enum Models {
    /// Names stay as they are.
    Same,
    /// Every name becomes this one, the client's.
    One(String),
    /// Each name that is found becomes the one it maps to.
    Map(BTreeMap<String, String>),
}

/// Where names of models stand in a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NamePlaces {
    /// An answer: its `model`, and the `model` of its `response`.
    Answer,
    /// A stored object, or a list of them: as in an answer, and `model` of each entry of `data`.
    Objects,
    /// A model, or a list of models: their `id`, `root` and `parent`.
    Models,
    /// A line of a batch: `model` of its `body`, or of the `body` of its `response`.
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

    /// Names for a text that may name any model. `pairs` holds a name that is found and the name to write. If a found
    /// name occurs in several pairs, the last counts.
    #[must_use]
    pub(crate) fn translated<'m>(
        pairs: impl Iterator<Item = (&'m String, &'m String)>,
        places: NamePlaces,
        ids: Option<Ids>,
    ) -> Self {
        let models = pairs.map(|(found, written)| (found.clone(), quoted(written))).collect();
        Self { models: Models::Map(models), places, ids }
    }

    /// Whether only the first name of a model in a text has to be replaced.
    fn is_one_model(&self) -> bool {
        self.ids.is_none() && self.places == NamePlaces::Answer && matches!(self.models, Models::One(_))
    }

    fn has_models(&self) -> bool {
        !matches!(self.models, Models::Same)
    }

    /// The quoted string to write in place of a model's name; `None` if the name stays.
    fn model(&self, found: &str) -> Option<&str> {
        match &self.models {
            Models::Same => None,
            Models::One(model) => Some(model),
            Models::Map(models) => models.get(found).map(String::as_str),
        }
    }

    /// The quoted sealed id to write in place of an endpoint's id.
    fn id(&self, id: &str) -> Option<String> {
        let ids = self.ids.as_ref()?;
        Some(quoted(&ids.keys.seal(&ids.owner, ids.region.as_str(), ids.endpoint.as_str(), id)?))
    }

    /// The quoted text to write in place of one that holds names of fine-tuned models; `None` if it holds none.
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
    /// A list of models. Other tenants' models are removed when the list is complete.
    Models(Vec<u8>, Option<Names>),
    /// The output of a batch, a line for each request.
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
        // The rest may be copied unless it has another `model`, perhaps written with escapes, or a number that isn't
        // JSON.
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

    /// Returns what was held back, at the end of the answer.
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

/// Rewrites a stream of events. It is passed whole events, or pieces of a very long one.
pub(crate) struct Events {
    names: Names,
    json: Json,
    /// The kind of line that the next byte belongs to.
    line: Line,
    after_cr: bool,
    /// Whether the first bytes were seen. Only they may hold a byte-order mark.
    begun: bool,
    /// A cache for streams in which only the model is replaced: the beginning of the last event, up to the model, and
    /// what was written for it. Most events of a stream begin with the same bytes.
    last: Option<(Vec<u8>, Vec<u8>)>,
    /// Whether the model of this event was replaced, so that the rest passes unchanged.
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

    fn data(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let is_odd = has_odd_numbers(text);
        let fresh = self.json.is_fresh() && !is_odd;
        if let Some((before, after)) = self.last.as_ref().filter(|(before, _)| fresh && text.starts_with(before)) {
            out.extend_from_slice(after);
            out.extend_from_slice(&text[before.len()..]);
            self.done = true;
            return;
        }
        // Data may span several lines. Then all of them are read, from the first on.
        let whole = || text.trim_ascii_end().ends_with(b"}");
        if fresh && whole() && !worth(text, self.names.ids.is_some()) {
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

/// Whether a line may hold something to replace. This is cheaper than reading the line, and most lines hold only a few
/// letters of text.
fn worth(text: &[u8], ids: bool) -> bool {
    let has = |word: &[u8]| memmem::find(text, word).is_some();
    has(b"\"model\"")
        || ids && (has(b"id\"") || has(b"\"container\"") || has(b"file") || has(b"vector_store") || has(b"ft:"))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::decide::testing::cut;

    fn ids() -> Ids {
        Ids {
            keys: Keyring::parse(&"k".repeat(32)).unwrap(),
            owner: Owner { service: "chat".into(), tenant: Some("acme".into()) },
            region: RegionId::parse("fra").unwrap(),
            endpoint: EndpointId::parse("fra-1").unwrap(),
        }
    }

    fn sealed(id: &str) -> String {
        let ids = ids();
        ids.keys.seal(&ids.owner, "fra", "fra-1", id).unwrap()
    }

    fn run(names: &Names, events: bool, chunks: &[&[u8]]) -> String {
        let mut splice = Splice::new(names.clone(), events);
        let mut out: Vec<u8> = chunks.iter().flat_map(|chunk| splice.pass(chunk)).collect();
        out.extend(splice.finish());
        let mut splice = Splice::new(names.clone(), events);
        let mut at_once = splice.whole(&chunks.concat());
        at_once.extend(splice.finish());
        assert_eq!(String::from_utf8_lossy(&at_once), String::from_utf8_lossy(&out), "all at once");
        String::from_utf8(out).unwrap()
    }

    fn model_only() -> Names {
        Names::new(Some("ch\"at"), None).unwrap()
    }

    fn both() -> Names {
        Names::new(Some("chat"), Some(ids())).unwrap()
    }

    fn translated(places: NamePlaces) -> Names {
        let pairs =
            [("llama", "chat"), ("bge", "embed")].map(|(found, written)| (found.to_owned(), written.to_owned()));
        Names::translated(pairs.iter().map(|(found, written)| (found, written)), places, None)
    }

    #[test]
    fn models_of_kept_objects_are_the_clients() {
        let text = r#"{"object":"list","model":"llama","data":[{"id":"b","model":"llama","x":{"model":"llama"}},
            {"model":"bge"},{"model":"gpt"}],
            "response":{"model":"bge"},"metadata":{"model":"llama"}}"#;
        let expected = r#"{"object":"list","model":"chat","data":[{"id":"b","model":"chat","x":{"model":"llama"}},
            {"model":"embed"},{"model":"gpt"}],
            "response":{"model":"embed"},"metadata":{"model":"llama"}}"#;
        assert_eq!(run(&translated(NamePlaces::Objects), false, &[text.as_bytes()]), expected);
        let one = run(&translated(NamePlaces::Answer), false, &[text.as_bytes()]);
        assert_eq!(
            one,
            expected
                .replace(r#""data":[{"id":"b","model":"chat""#, r#""data":[{"id":"b","model":"llama""#)
                .replace(r#"{"model":"embed"},{"#, r#"{"model":"bge"},{"#)
        );
    }

    #[test]
    fn models_themselves_are_called_by_the_clients_names() {
        let text = r#"{"object":"list","data":[{"id":"llama","root":"llama","parent":null,
            "permission":[{"id":"llama"}]},
            {"id":"bge","root":"/models/bge"}]}"#;
        let expected = r#"{"object":"list","data":[{"id":"chat","root":"chat","parent":null,
            "permission":[{"id":"llama"}]},
            {"id":"embed","root":"/models/bge"}]}"#;
        assert_eq!(run(&translated(NamePlaces::Models), false, &[text.as_bytes()]), expected);
        let one = Names::of_one("chat", NamePlaces::Models);
        assert_eq!(run(&one, false, &[br#"{"id":"llama","owned_by":"x"}"#]), r#"{"id":"chat","owned_by":"x"}"#);
    }

    #[test]
    fn numbers_that_json_has_not_got_become_null_where_something_is_replaced() {
        let text = r#"{"a":NaN,"model":"llama","b":[ -Infinity ,Infinity, -1,"NaN"],"c":nan}"#;
        let expected = r#"{"a":null,"model":"ch\"at","b":[ null ,null, -1,"NaN"],"c":nan}"#;
        for size in [1, 2, 3, 5, 200] {
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(run(&model_only(), false, &chunks), expected);
        }
        let event = |model: &str, number: &str| format!("data: {{\"model\":\"{model}\",\"x\":{number}}}\n\n");
        let stream = ["1", "NaN", "1", "-Infinity"].map(|number| event("llama", number)).concat();
        let spliced = ["1", "null", "1", "null"].map(|number| event("ch\\\"at", number)).concat();
        assert_eq!(run(&model_only(), true, &[stream.as_bytes()]), spliced);
    }

    #[test]
    fn the_model_is_the_clients_at_its_two_places_alone() {
        let text = r#" {"choices":[{"model":"llama","x":"\"model\":\"llama\""}],"n":1e400 , "mod\u0065l" :"ll\u0061ma",
            "model":null,
            "response":{"model":"llama","output":[{"model":"llama"}]}} "#;
        let expected = text.replace(r#"ll\u0061ma"#, r#"ch\"at"#);
        let expected = expected.replace(r#""response":{"model":"llama""#, r#""response":{"model":"ch\"at""#);
        assert_eq!(run(&model_only(), false, &[text.as_bytes()]), expected);
        for odd in ["", "[]", "[{\"model\":\"llama\"}]", "no json {\"a", "\"model\"", "{\"model\":\"cut"] {
            assert_eq!(run(&model_only(), false, &[odd.as_bytes()]), odd);
        }
    }

    #[test]
    fn ids_are_sealed_where_the_model_api_has_them() {
        let text = r#"{"object":"list","id":"file-0","data":[{"id":"file-1","metadata":{"file_id":"mine","id":"x"},
            "file_counts":{"id":"no"},"file_ids":["file-2",null,"file-3"],"output_file_id":null,
            "training_file":"file-4"}],
            "first_id":"file-1","last_id":"file-5","output":[{"id":"msg_1","call_id":"call_1","item":{"id":"no"},
            "content":[{"annotations":[{"file_id":"file-6"}]}]}],
            "item":{"id":"rs_1"},"item_id":"rs_1","fine_tuned_model":"m",
            "response":{"id":"resp_7","previous_response_id":"resp_8","instructions":[{"id":"msg_2"}],
            "output":[{"id":"ig_1","approval_request_id":"mcpr_1"}]},
            "file":{"id":"file-9","x":{"id":"no"}},"file_":{"id":"no"},"tools":[{"parameters":{"file_id":"p"}}]}"#;
        let mut expected = text.to_owned();
        for id in [
            "file-0", "file-1", "file-2", "file-3", "file-4", "file-5", "file-6", "resp_7", "resp_8", "file-9",
            "msg_1", "msg_2", "rs_1", "ig_1", "mcpr_1", "m",
        ] {
            expected = expected.replace(&format!("\"{id}\""), &format!("\"{}\"", sealed(id)));
        }
        assert_eq!(run(&both(), false, &[text.as_bytes()]), expected);
    }

    #[test]
    fn ids_of_sound_and_of_containers_are_sealed() {
        let text = r#"{"choices":[{"message":{"audio":{"id":"audio_1","x":{"id":"no"}},"id":"no"},
            "delta":{"audio":{"id":"audio_2"}}}],
            "metadata":{"audio":{"id":"mine"},"container":"mine"},"audio":"no","container":{"type":"auto","id":"no"},
            "tools":[{"type":"code_interpreter","container":"cntr_1"}],
            "output":[{"container_id":"cntr_2","content":[{"annotations":[{"container_id":"cntr_3"}]}]}]}"#;
        let mut expected = text.to_owned();
        for id in ["audio_1", "audio_2", "cntr_1", "cntr_2", "cntr_3"] {
            expected = expected.replace(&format!("\"{id}\""), &format!("\"{}\"", sealed(id)));
        }
        assert_eq!(run(&Names::new(None, Some(ids())).unwrap(), false, &[text.as_bytes()]), expected);
    }

    #[test]
    fn names_of_fine_tuned_models_are_sealed() {
        let text = r#"{"object":"list","data":[{"id":"ftevent-1","message":"New model: ft:gpt-4o:acme::abc.",
            "type":"message"},
            {"id":"ftevent-2","message":"no left: one"}],"model":"ft:gpt-4o:acme::abc",
            "x":{"model":"ft:gpt-4o:acme::abc"},
            "fine_tuned_model_checkpoint":"gpt-4o.ft-1:ckpt-step-9"}"#;
        let tuned = sealed("ft:gpt-4o:acme::abc");
        let expected = text.replacen("ft:gpt-4o:acme::abc", &tuned, 2);
        let expected = expected.replace("ftevent-1", &sealed("ftevent-1")).replace("ftevent-2", &sealed("ftevent-2"));
        let expected = expected.replace("gpt-4o.ft-1:ckpt-step-9", &sealed("gpt-4o.ft-1:ckpt-step-9"));
        assert_eq!(run(&Names::new(None, Some(ids())).unwrap(), false, &[text.as_bytes()]), expected);
    }

    #[test]
    fn a_list_of_models_is_told_at_its_end() {
        let list = r#"{"data":[{"id":"a"},{"id":"ft:x:acme::1"}]}"#;
        let mut splice = Splice::models(Some(translated(NamePlaces::Models)));
        assert!(list.as_bytes().chunks(7).all(|chunk| splice.pass(chunk).is_empty()));
        assert_eq!(splice.finish(), br#"{"data":[{"id":"a"}]}"#);
        let mut renamed = Splice::models(Some(translated(NamePlaces::Models)));
        renamed.pass(br#"{"data":[{"id":"llama"},{"id":"ft:llama:x::1"}]}"#);
        assert_eq!(renamed.finish(), br#"{"data":[{"id":"chat"}]}"#);
    }

    #[test]
    fn events_are_spliced_one_by_one() {
        for names in [model_only(), both()] {
            let chunk = |model: &str, id: &str, text: &str| {
                format!(
                    "data: {{\"id\":\"{id}\",\"model\":\"{model}\",\
                     \"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\r\n\r\n"
                )
            };
            let (model, id) = match &names.ids {
                None => ("ch\\\"at", "c-1".to_owned()),
                Some(_) => ("chat", sealed("c-1")),
            };
            let stream = |model: &str, id: &str| {
                let ping = ": ping\n\nevent: x\ndata: {\"delta\":\"model\"}\n\n";
                let split = format!("data: {{\"id\":\"{id}\",\ndata: \"model\":\ndata:\"{model}\"}}\n\n");
                let parts =
                    [chunk(model, id, "a"), chunk(model, id, "model"), ping.to_owned(), split, chunk(model, id, "b")];
                format!("{}data: [DONE]\n\n", parts.concat())
            };
            for mark in ["", "\u{feff}"] {
                let text = [mark, &stream("llama", "c-1")].concat();
                assert_eq!(run(&names, true, &[text.as_bytes()]), [mark, &stream(model, &id)].concat());
            }
            // The model may change within a stream.
            let other = chunk("gpt", "c-1", "a") + &chunk("llama", "c-1", "a");
            assert_eq!(run(&names, true, &[other.as_bytes()]), chunk(model, &id, "a") + &chunk(model, &id, "a"));
        }
    }

    #[test]
    fn any_chunking_gives_the_same_bytes_and_all_others_stay() {
        let value = || {
            prop_oneof![
                Just("1e400".to_owned()),
                Just(" [ {\"model\":\"inner\",\"id\":\"x\"}, null ] ".to_owned()),
                Just("{\"metadata\":{\"file_id\":\"f\"}}".to_owned()),
                Just("\"\\\"model\\\":\\\\\"".to_owned()),
                any::<String>().prop_map(|text| quoted(&text)),
            ]
        };
        let fields = || proptest::collection::btree_map("[a-d]{1,2}", ("[ \n\t]{0,2}", value()), 0..5);
        let strategy =
            (fields(), fields(), "\\PC{1,12}", "[a-z]{1,4}[-_]\\PC{1,12}", proptest::collection::vec(1..7usize, 1..40));
        let cases = Cell::new(0);
        TestRunner::new(ProptestConfig::with_cases(4_000))
            .run(&strategy, |(before, after, model, id, sizes)| {
                cases.set(cases.get() + 1);
                let write =
                    |fields: &std::collections::BTreeMap<String, (String, String)>, mark: &str| -> Vec<String> {
                        fields.iter().map(|(key, (space, value))| format!("{space}\"{mark}{key}\":{value}")).collect()
                    };
                let join = |model: &str, id: &str, file: &str| {
                    let mut parts = write(&before, "b");
                    let mine = [("model", model), ("id", id), ("output_file_id", file)];
                    parts.extend(mine.iter().map(|(key, value)| format!("\"{key}\" : {}", quoted(value))));
                    parts.extend(write(&after, "a"));
                    format!("{{{}}}", parts.join(","))
                };
                let (text, sealed) = (join(&model, &id, &id), sealed(&id));
                let chunks = cut(text.as_bytes(), &sizes);
                prop_assert_eq!(run(&both(), false, &chunks), join("chat", &sealed, &sealed));
                Ok(())
            })
            .unwrap();
        println!("answers spliced: {}", cases.get());
    }

    #[test]
    fn no_bytes_make_it_panic_and_what_is_not_json_passes() {
        let strategy = proptest::collection::vec(r#"[\[\]{}:,"a\\u0id:model data:\n\r]{0,12}"#, 0..8);
        TestRunner::new(ProptestConfig::with_cases(4_000))
            .run(&strategy, |chunks| {
                let bytes: Vec<&[u8]> = chunks.iter().map(String::as_bytes).collect();
                for events in [true, false] {
                    let out = run(&both(), events, &bytes);
                    prop_assert!(chunks.iter().any(|chunk| chunk.contains('"')) || out == chunks.concat());
                }
                Ok(())
            })
            .unwrap();
    }
}
