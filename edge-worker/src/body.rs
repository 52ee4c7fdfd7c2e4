//! A request's body in; what the edge has to know of it, and the bytes to send each endpoint, out.
//!
//! JSON is read whatever its Content-Type says, because endpoints do so too. Only the bytes of `model`, `store` and ids are
//! ever replaced: key order, `1e400`, 2^70 and odd spacing survive.

mod affinity;
mod policy;

pub use affinity::Affinity;
pub(crate) use policy::is_remote;

use core::ops::Range;
use std::borrow::Cow;
use std::collections::HashSet;

use bailiwick_rules::rules::Allowance;

use crate::envelope::Failure;
use crate::json::{Broken, Kind, Scan, known_as, quoted};
use crate::multipart::upload::{PURPOSE, check_purpose};
use crate::payload::Payload;
use crate::rewrite::path::{Class, Route};

/// Keys that decide something here. A server that ignores letters' case would read `"STORE"` as `store`; this one doesn't.
const DECIDING: &[&str] = &["model", "stream", "store", "background", "tools", "conversation", "prompt", "purpose"];

/// The longest name of a model, in bytes.
const LONGEST_MODEL: usize = 256;

/// A body that was looked through.
#[derive(Clone)]
pub struct Inspected {
    bytes: Vec<u8>,
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
    /// Where ids stand, and what the endpoint gets there: at first what the client wrote.
    ids: Vec<(Range<usize>, String)>,
}

impl Inspected {
    /// Looks a JSON body through, whatever its Content-Type.
    ///
    /// # Errors
    /// 400 with what is wrong, or what the service doesn't allow.
    pub fn json(bytes: Vec<u8>, route: &Route, allow: &[Allowance]) -> Result<Self, Failure> {
        if bytes.is_empty() {
            return Err(Failure::MissingBody);
        }
        let read = match core::str::from_utf8(&bytes) {
            Ok(text) => read(text, route, allow)?,
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

    /// The ids in it, in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.ids.iter().map(|(_, id)| id.as_str())
    }

    /// Has these sent instead of [`Inspected::ids`].
    pub fn replace_ids(&mut self, new: impl Iterator<Item = String>) {
        self.ids.iter_mut().zip(new).for_each(|((_, id), new)| *id = new);
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

    /// The bytes for an endpoint that calls the model `model`: every other byte as the client sent it.
    #[must_use]
    pub fn for_endpoint(&self, model: Option<&str>) -> Payload<'_> {
        let renamed = model.zip(self.model.as_ref()).filter(|(new, (_, old))| new != old);
        let renamed = renamed.map(|(new, (range, _))| (range.clone(), Cow::Owned(quoted(new))));
        let forced = self.forced.clone().map(|(range, text)| (range, Cow::Borrowed(text)));
        let ids = self.ids.iter().map(|(range, id)| (range.clone(), Cow::Owned(quoted(id))));
        let mut edits: Vec<(Range<usize>, Cow<'_, str>)> = renamed.into_iter().chain(forced).chain(ids).collect();
        edits.sort_by_key(|(range, _)| range.start);
        let mut out = Payload::default();
        let mut done = 0;
        for (range, text) in edits {
            out.push(self.bytes.get(done..range.start).unwrap_or_default());
            out.push(text.into_owned().into_bytes());
            done = range.end;
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

/// Reads the whole text, and only then judges it: what isn't JSON is told as that.
fn read(text: &str, route: &Route, allow: &[Allowance]) -> Result<Inspected, Failure> {
    let broken = |broken: Broken| Failure::NotJson { at: broken.at };
    let mut scan = Scan::new(text);
    let mut entries: Vec<(Cow<'_, str>, Kind, Range<usize>)> = Vec::new();
    if scan.kind().map_err(broken)? != Kind::Object {
        scan.skip().and_then(|_| scan.end()).map_err(broken)?;
        return Err(Failure::NotAnObject);
    }
    let brace = scan.at();
    let fields = scan.object(|key, value| {
        let kind = value.kind()?;
        entries.push((key, kind, value.skip()?));
        Ok(())
    });
    fields.and_then(|()| scan.end()).map_err(broken)?;

    let mut seen = HashSet::with_capacity(entries.len());
    for (key, _, _) in &entries {
        if let Some(known) = known_as(key, DECIDING).filter(|known| key != known) {
            return Err(Failure::MiscasedKey { key: known });
        }
        if !seen.insert(key.as_ref()) {
            return Err(Failure::DuplicateKey { key: key.chars().take(LONGEST_MODEL).collect() });
        }
    }
    let mut body = Inspected {
        bytes: Vec::new(),
        model: None,
        stream: false,
        choices: 1,
        prompt_cache_key: None,
        user: None,
        beginning: None,
        forced: None,
        stores: false,
        ids: Vec::new(),
    };
    let (is_response, is_upload) = (route.is_responses(), route.is(&["uploads"]));
    // Compactions and counts know no `store`.
    let stores = route.is(&["responses"]);
    let mut found = policy::Found::default();
    let may_store = allow.contains(&Allowance::Store);
    for (key, kind, range) in &entries {
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
            "tools" if !matches!(kind, Kind::Array | Kind::Null) => {
                return Err(Failure::BadField { field: "tools", expected: "a list" });
            }
            "purpose" if is_upload => {
                check_purpose(&string(value).unwrap_or_default(), allow.contains(&Allowance::Batch))?;
            }
            "prompt_cache_key" if *kind == Kind::String => body.prompt_cache_key = string(value),
            "user" if *kind == Kind::String => body.user = string(value),
            _ => {}
        }
        policy::check(key, *kind, value, range.start, allow, &mut found)?;
    }
    body.ids = found.ids;
    if body.prompt_cache_key.is_none() {
        body.beginning = affinity::beginning(route, &entries, text);
    }
    // The Responses API stores what doesn't say otherwise.
    if stores && !seen.contains("store") {
        body.stores = may_store;
        let text = if entries.is_empty() { "\"store\":false" } else { "\"store\":false," };
        body.forced = (!may_store).then(|| (brace + 1..brace + 1, text));
    }
    if route.class() == Class::Inference && body.model.is_none() && !route.is(&["moderations"]) {
        return Err(NO_MODEL);
    }
    if is_upload && !seen.contains("purpose") {
        return Err(Failure::BadField { field: "purpose", expected: PURPOSE });
    }
    if route.is(&["batches"]) && !allow.contains(&Allowance::Batch) {
        return Err(Failure::Batch);
    }
    Ok(body)
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;

    fn inspect(path: &str, text: &str, allow: &[Allowance]) -> Result<Inspected, Failure> {
        Inspected::json(text.as_bytes().to_vec(), &Route::parse("POST", path).unwrap(), allow)
    }

    fn chat(text: &str) -> Result<Inspected, Failure> {
        inspect("/v1/chat/completions", text, &[])
    }

    fn refusal(text: &str) -> Failure {
        chat(text).err().unwrap()
    }

    fn sent(body: &Inspected, model: &str) -> String {
        String::from_utf8(body.for_endpoint(Some(model)).concat()).unwrap()
    }

    #[test]
    fn only_the_bytes_of_the_model_change() {
        let text = "{ \"seed\":1e400,\n\t\"model\" : \"ch\\u0061t\" , \"n\":1180591620717411303424,\"a\":{\"model\":\"x\"},\"é\":-0.0 }";
        let body = chat(text).unwrap();
        assert_eq!(body.model(), Some("chat"));
        assert_eq!(sent(&body, "org/\"llama\""), text.replace("\"ch\\u0061t\"", "\"org/\\\"llama\\\"\""));
        assert_eq!(sent(&body, "chat"), text, "an equal name isn't written anew");
    }

    #[test]
    fn an_upload_in_parts_says_what_it_is_for_before_the_first_of_them() {
        let begin = |fields: &str, allow: &[Allowance]| {
            inspect("/v1/uploads", &format!("{{\"filename\":\"a\",\"bytes\":1{fields}}}"), allow).err()
        };
        assert_eq!(begin(",\"purpose\":\"user_data\"", &[]), None);
        assert_eq!(begin(",\"purpose\":\"batch\"", &[]), Some(Failure::Batch));
        assert_eq!(begin(",\"purpose\":\"b\\u0061tch\"", &[]), Some(Failure::Batch));
        assert_eq!(begin(",\"purpose\":\"batch\"", &[Allowance::Batch]), None);
        assert_eq!(begin(",\"Purpose\":\"batch\"", &[]), Some(Failure::MiscasedKey { key: "purpose" }));
        for odd in ["", ",\"purpose\":null", ",\"purpose\":[\"batch\"]", ",\"purpose\":\"Batch\""] {
            assert!(matches!(begin(odd, &[]), Some(Failure::BadField { field: "purpose", .. })), "{odd}");
        }
        let parts = "{\"part_ids\":[\"part_1\",\"part_2\"],\"md5\":\"x\"}";
        let done = inspect("/v1/uploads/upload_1/complete", parts, &[]).unwrap();
        assert_eq!(done.ids().collect::<Vec<_>>(), ["part_1", "part_2"]);
    }

    #[test]
    fn what_is_not_a_json_object_is_told() {
        assert_eq!(refusal(""), Failure::MissingBody);
        assert_eq!(refusal("{\"model\":NaN}"), Failure::NotJson { at: 9 });
        assert_eq!(refusal("[]"), Failure::NotAnObject);
        assert_eq!(refusal("{\"model\":\"a\"} x"), Failure::NotJson { at: 14 });
        let route = Route::parse("POST", "/v1/embeddings").unwrap();
        assert_eq!(Inspected::json(b"{\"a\":\"\xff\"}".to_vec(), &route, &[]).err(), Some(Failure::NotJson { at: 6 }));
        assert!(matches!(refusal(&"[".repeat(100_000)), Failure::NotJson { .. }));
    }

    #[test]
    fn ambiguous_keys_are_refused() {
        assert_eq!(refusal(r#"{"model":"a","mod\u0065l":"b"}"#), Failure::DuplicateKey { key: "model".into() });
        assert_eq!(refusal(r#"{"model":"a","x":1,"x":2}"#), Failure::DuplicateKey { key: "x".into() });
        assert_eq!(refusal(r#"{"model":"a","Store":true}"#), Failure::MiscasedKey { key: "store" });
        assert_eq!(refusal(r#"{"model":"a","tool\u017f":[{"type":"mcp"}]}"#), Failure::MiscasedKey { key: "tools" });
        assert_eq!(refusal("{\"model\":\"a\",\"bac\u{212a}ground\":true}"), Failure::MiscasedKey { key: "background" });
    }

    #[test]
    fn fields_have_their_types() {
        assert_eq!(refusal("{}"), NO_MODEL);
        assert_eq!(refusal(r#"{"model":7}"#), NO_MODEL);
        assert_eq!(refusal(r#"{"model":""}"#), NO_MODEL);
        assert!(matches!(refusal(r#"{"model":"a","stream":"true"}"#), Failure::BadField { field: "stream", .. }));
        let tools = r#"{"model":"a","tools":{"type":"web_search"}}"#;
        assert!(matches!(refusal(tools), Failure::BadField { field: "tools", .. }));
        assert!(chat(r#"{"model":"a","stream":true}"#).unwrap().stream());
        assert!(!chat(r#"{"model":"a","stream":null}"#).unwrap().stream());
        assert!(inspect("/v1/moderations", r#"{"input":"x"}"#, &[]).is_ok());
        let body = chat(r#"{"model":"a","user":"u\n1","prompt_cache_key":"k"}"#).unwrap();
        let hints = Affinity { prompt_cache_key: Some("k"), user: Some("u\n1"), model: Some("a"), beginning: None };
        assert_eq!(body.affinity(), hints);
    }

    #[test]
    fn nothing_is_stored_unless_allowed() {
        let stored = |path: &str, text: &str, allow: &[Allowance]| sent(&inspect(path, text, allow).unwrap(), "m");
        let responses = "/v1/responses";
        assert_eq!(stored(responses, r#" {"model":"a"}"#, &[]), r#" {"store":false,"model":"m"}"#);
        assert_eq!(stored(responses, r#"{"store":true,"model":"a"}"#, &[]), r#"{"store":false,"model":"m"}"#);
        assert_eq!(stored(responses, r#"{"model":"a","store":null}"#, &[]), r#"{"model":"m","store":false}"#);
        assert_eq!(stored(responses, r#"{"model":"a","store":false}"#, &[]), r#"{"model":"m","store":false}"#);
        assert_eq!(stored(responses, r#"{"model":"a"}"#, &[Allowance::Store]), r#"{"model":"m"}"#);
        let chat = "/v1/chat/completions";
        assert_eq!(stored(chat, r#"{"model":"a","store":"x"}"#, &[]), r#"{"model":"m","store":false}"#);
        assert_eq!(stored(chat, r#"{"model":"a"}"#, &[]), r#"{"model":"m"}"#);
    }

    #[test]
    fn ids_are_found_wherever_they_stand_but_in_the_clients_own_data() {
        let text = r#"{"model":"a","previous_response_id":"r","input":[{"content":[{"type":"input_file","f\u0069le_id":"f1"}]}],
            "tools":[{"type":"function","name":"f","parameters":{"file_id":"no"}}],"metadata":{"file_id":"no"},
            "x":{"vector_store_ids":["v1", null,"v2"],"FILE_ID":"f2","file_id":null}}"#;
        let mut body = inspect("/v1/responses", text, &[Allowance::Store]).unwrap();
        assert_eq!(body.ids().collect::<Vec<_>>(), ["r", "f1", "v1", "v2", "f2"]);
        assert_eq!(sent(&body, "a"), text);
        body.replace_ids(["R", "F\"1", "V1", "V2", "F2"].into_iter().map(str::to_owned));
        let mut expected = text.to_owned();
        for (old, new) in [("r", "R"), ("f1", "F\\\"1"), ("v1", "V1"), ("v2", "V2"), ("f2", "F2")] {
            expected = expected.replace(&format!("\"{old}\""), &format!("\"{new}\""));
        }
        assert_eq!(sent(&body, "a"), expected);
    }

    #[test]
    fn what_hides_state_or_work_from_inspection_is_refused() {
        let responses = |text: &str| inspect("/v1/responses", text, &[Allowance::Store]).err();
        let carried = |fields: &str| responses(&format!("{{\"model\":\"a\",{fields}}}"));
        assert!(matches!(carried(r#""conversation":"conv_1""#), Some(Failure::NotCarried { .. })));
        assert!(matches!(
            carried(r#""input":[{"type":"item_reference","id":"msg_1"}]"#),
            Some(Failure::NotCarried { .. })
        ));
        assert!(matches!(carried(r#""prompt":{"id":"pmpt_1"}"#), Some(Failure::HostedTool { .. })));
        assert_eq!(carried(r#""prompt":null,"conversation":null,"input":[{"type":"message"}]"#), None);
        let tuning = r#"{"model":"a","integrations":[{"type":"wandb"}]}"#;
        assert!(matches!(inspect("/v1/fine_tuning/jobs", tuning, &[]).err(), Some(Failure::HostedTool { .. })));
        assert!(inspect("/v1/completions", r#"{"model":"a","prompt":"x"}"#, &[]).is_ok());
        assert!(inspect("/v1/images/generations", r#"{"model":"a","background":"opaque"}"#, &[]).is_ok());
    }

    #[test]
    fn compactions_and_counts_are_judged_as_responses_but_store_nothing() {
        for path in ["/v1/responses/compact", "/v1/responses/input_tokens"] {
            let plain = inspect(path, r#"{"model":"a","input":"x"}"#, &[]).unwrap();
            assert_eq!((sent(&plain, "a").as_str(), plain.stores()), (r#"{"model":"a","input":"x"}"#, false));
            assert!(!inspect(path, r#"{"model":"a"}"#, &[Allowance::Store]).unwrap().stores());
            let refused = |fields: &str| inspect(path, &format!("{{\"model\":\"a\",{fields}}}"), &[]).err();
            assert!(matches!(refused(r#""conversation":"conv_1""#), Some(Failure::NotCarried { .. })));
            assert!(matches!(refused(r#""prompt":{"id":"p"}"#), Some(Failure::HostedTool { .. })));
            assert!(matches!(refused(r#""tools":[{"type":"mcp"}]"#), Some(Failure::HostedTool { .. })));
            assert_eq!(refused(r#""background":true"#), Some(Failure::Background));
            let with_id = inspect(path, r#"{"model":"a","previous_response_id":"resp_1","store":true}"#, &[]).unwrap();
            assert_eq!(with_id.ids().collect::<Vec<_>>(), ["resp_1"]);
            assert!(sent(&with_id, "a").ends_with(r#""store":false}"#));
        }
    }

    #[test]
    fn images_to_edit_are_looked_at_as_json_too() {
        let edits = |images: &str| {
            inspect("/v1/images/edits", &format!(r#"{{"model":"a","prompt":"x","images":[{images}]}}"#), &[])
        };
        assert!(edits(r#"{"image_url":"data:image/png;base64,AAAA"}"#).is_ok());
        let remote = edits(r#"{"image_url":"https://a/b.png"}"#).err().map(|failure| failure.code().to_owned());
        assert_eq!(remote.as_deref(), Some("remote_url_not_allowed"));
        assert_eq!(edits(r#"{"file_id":"file-1"}"#).unwrap().ids().collect::<Vec<_>>(), ["file-1"]);
    }

    #[test]
    fn whether_an_answer_is_stored() {
        let stores = |path: &str, text: &str| inspect(path, text, &[Allowance::Store]).unwrap().stores();
        assert!(
            stores("/v1/responses", r#"{"model":"a"}"#) && stores("/v1/responses", r#"{"model":"a","store":null}"#)
        );
        assert!(!stores("/v1/responses", r#"{"model":"a","store":false}"#));
        assert!(!stores("/v1/chat/completions", r#"{"model":"a"}"#));
        assert!(stores("/v1/chat/completions", r#"{"model":"a","store":true}"#));
        assert!(!inspect("/v1/responses", r#"{"model":"a","store":true}"#, &[]).unwrap().stores());
    }

    #[test]
    fn background_and_batches_need_leave() {
        let background = r#"{"model":"a","background":true}"#;
        assert_eq!(inspect("/v1/responses", background, &[]).err(), Some(Failure::Background));
        assert!(inspect("/v1/responses", background, &[Allowance::Background]).is_ok());
        let odd = r#"{"model":"a","background":1}"#;
        assert!(matches!(inspect("/v1/responses", odd, &[]).err(), Some(Failure::BadField { .. })));
        assert_eq!(inspect("/v1/batches", "{}", &[]).err(), Some(Failure::Batch));
    }

    #[test]
    fn a_splice_preserves_every_other_byte() {
        let value = || {
            prop_oneof![
                Just("1e400".to_owned()),
                Just("1180591620717411303424".to_owned()),
                Just("[ {\"model\":\"inner\"}, null ]".to_owned()),
                Just("\"\\\"model\\\":\"".to_owned()),
                any::<String>().prop_map(|text| quoted(&text)),
            ]
        };
        let strategy = (
            proptest::collection::btree_map("[a-e]{1,3}", ("[ \n\t]{0,2}", value()), 0..6),
            proptest::collection::btree_map("[f-k]{1,3}", ("[ \n\t]{0,2}", value()), 0..6),
            "\\PC{1,20}",
            "\\PC{1,20}",
        );
        let cases = Cell::new(0);
        TestRunner::new(ProptestConfig::with_cases(4_000))
            .run(&strategy, |(before, after, old, new)| {
                cases.set(cases.get() + 1);
                let write = |fields: &std::collections::BTreeMap<String, (String, String)>| {
                    let field = |(key, (space, value)): (&String, &(String, String))| {
                        format!("{space}\"{key}\":{value}{space}")
                    };
                    fields.iter().map(field).collect::<Vec<_>>()
                };
                let join = |model: &str| {
                    let mut parts = write(&before);
                    parts.push(format!("\"model\": {}", quoted(model)));
                    parts.extend(write(&after));
                    format!("{{{}}}", parts.join(","))
                };
                let body = chat(&join(&old)).map_err(|failure| TestCaseError::fail(failure.message()))?;
                prop_assert_eq!(body.model(), Some(old.as_str()));
                prop_assert_eq!(sent(&body, &new), join(&new));
                Ok(())
            })
            .unwrap();
        println!("splices tried: {}", cases.get());
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let route = Route::parse("POST", "/v1/responses").unwrap();
        let strategy = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..64),
            r#"[\[\]{}:,"a\\u0store:true tools model image_url.+-]{0,64}"#.prop_map(String::into_bytes),
        ];
        TestRunner::new(ProptestConfig::with_cases(4_000))
            .run(&strategy, |bytes| {
                if let Ok(body) = Inspected::json(bytes, &route, &[]) {
                    let _ = body.for_endpoint(Some("m"));
                }
                Ok(())
            })
            .unwrap();
    }
}
