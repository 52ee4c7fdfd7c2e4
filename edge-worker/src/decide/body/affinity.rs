//! Finds which requests belong together. Takes a body's hints, or the beginning of its conversation; returns a key.
//! `body` reads the hints, `prepare` makes the key, and [`plan`](crate::decide::plan) uses the key to choose among the
//! endpoints of a region.
//!
//! The second turn of a conversation begins with the same text as the first. If both go to the same endpoint, the
//! second turn finds its prefix in that endpoint's cache, and the endpoint's account can decrypt the encrypted
//! reasoning of the first turn. Many conversations share their instructions, so the hash includes the first user
//! message too.

use core::ops::Range;

use crate::decide::json::{InvalidJson, Kind, Scan};
use crate::decide::route::Route;

/// How many bytes at the beginning of a text are hashed. The length of the text is hashed too, and the last bytes of a
/// longer text.
const HEAD: usize = 1_024;
/// How many bytes at the end of a text are hashed.
const TAIL: usize = 256;
/// The most messages and parts that are hashed.
const MAX_PARTS: u32 = 64;

/// A body's hints on which requests belong together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Affinity<'a> {
    /// `prompt_cache_key`.
    pub(crate) prompt_cache_key: Option<&'a str>,
    /// `user`.
    pub(crate) user: Option<&'a str>,
    /// The client's name of the model.
    pub(crate) model: Option<&'a str>,
    /// A hash of the conversation's beginning.
    pub(crate) beginning: Option<u64>,
}

impl Affinity<'_> {
    /// The affinity key of a [`PlanRequest`](crate::decide::plan::PlanRequest): the tenant with the best hint. The best
    /// hint is `prompt_cache_key`, else `session` (the header `x-session-id`), else `user`. So one tenant's prefix
    /// caches stay warm, and no tenant can choose the key of another. Without a hint, the key has the model and the
    /// beginning of the conversation. Without a conversation, the key has `request`, the request's unique id, which
    /// spreads such requests over the endpoints.
    #[must_use]
    pub(crate) fn key(&self, tenant: &str, session: Option<&str>, request: &str) -> String {
        let hints = [("cache", self.prompt_cache_key), ("session", session), ("user", self.user)];
        let best = hints.into_iter().find_map(|(kind, hint)| Some((kind, hint.filter(|hint| !hint.is_empty())?)));
        match (best, self.beginning) {
            (Some((kind, hint)), _) => [tenant, kind, hint].join("\0"),
            (None, Some(beginning)) => {
                [tenant, "beginning", self.model.unwrap_or_default(), &beginning.to_string()].join("\0")
            }
            (None, None) => [tenant, "request", request].join("\0"),
        }
    }
}

/// Hashes the beginning of a conversation: the instructions, and the messages up to the first user message. `fields`
/// are the body's top-level fields, with ranges in `text`. `None` for a path without conversations, or a body without
/// texts.
pub(super) fn beginning<K: AsRef<str>>(route: &Route, fields: &[(K, Kind, Range<usize>)], text: &str) -> Option<u64> {
    let words: &[&str] = match route.segments().first()?.as_str() {
        "chat" | "messages" | "responses" => &["instructions", "system", "messages", "input"],
        // A prompt may hold a whole conversation, and its first turn can't be distinguished from the rest. So only
        // equal prompts match.
        "completions" => &["prompt"],
        _ => return None,
    };
    let mut digest = Digest::default();
    for word in words {
        let Some((_, kind, range)) = fields.iter().find(|(key, ..)| key.as_ref() == *word) else { continue };
        let text = text.get(range.clone()).unwrap_or_default();
        let (mut value, mut scan) = (Value { text, digest: &mut digest }, Scan::new(text));
        // The body is known to be JSON, so an error only means that enough was read.
        let _ = match (*word, kind) {
            ("messages" | "input", Kind::Array) => value.messages(&mut scan),
            ("prompt", _) => {
                value.digest.text(text);
                Ok(())
            }
            _ => value.parts(&mut scan),
        };
    }
    (digest.parts > 0).then_some(digest.state)
}

/// A field whose texts are hashed.
struct Value<'t> {
    text: &'t str,
    digest: &'t mut Digest,
}

impl Value<'_> {
    /// Reads messages up to the first user message. Then it returns an error, so that the scanner stops there.
    fn messages(&mut self, scan: &mut Scan<'_>) -> Result<(), InvalidJson> {
        scan.array(|message| {
            if message.kind()? != Kind::Object {
                return self.parts(message);
            }
            let mut is_users = false;
            message.object(|key, value| match (key.as_ref(), value.kind()?) {
                ("role", Kind::String) => {
                    is_users = value.string()? == "user";
                    Ok(())
                }
                ("content", _) => self.parts(value),
                _ => value.skip().map(drop),
            })?;
            if is_users || self.digest.parts >= MAX_PARTS { Err(InvalidJson { at: message.at() }) } else { Ok(()) }
        })
    }

    /// Reads the texts of a content, which is one text or a list of parts. Skips fields that only control the cache or
    /// name the kind, because clients may move them in the next turn.
    fn parts(&mut self, scan: &mut Scan<'_>) -> Result<(), InvalidJson> {
        match scan.kind()? {
            Kind::String => {
                let quoted = scan.skip()?;
                let inner = quoted.start + 1..quoted.end.saturating_sub(1);
                self.digest.text(self.text.get(inner).unwrap_or_default());
                Ok(())
            }
            Kind::Array => scan.array(|part| self.parts(part)),
            Kind::Object => scan.object(|key, value| match key.as_ref() {
                "type" | "cache_control" | "detail" | "id" => value.skip().map(drop),
                _ => self.parts(value),
            }),
            _ => scan.skip().map(drop),
        }
    }
}

/// A running hash of texts, eight bytes at a time.
#[derive(Default)]
struct Digest {
    state: u64,
    parts: u32,
}

impl Digest {
    /// Adds a text to the digest: its length, its beginning and its end.
    fn text(&mut self, text: &str) {
        if self.parts >= MAX_PARTS {
            return;
        }
        self.parts += 1;
        let (head, rest) = text.as_bytes().split_at(text.len().min(HEAD));
        self.mix(text.len() as u64);
        self.bytes(head);
        self.bytes(&rest[rest.len().saturating_sub(TAIL)..]);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let (eights, rest) = bytes.as_chunks::<8>();
        for eight in eights {
            self.mix(u64::from_le_bytes(*eight));
        }
        self.mix(rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    }

    /// Mixes one word into the hash. [`plan`](crate::decide::plan) spreads the bits of the result.
    fn mix(&mut self, word: u64) {
        let mixed = (self.state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xd6e8_feb8_6659_fd93);
        self.state = mixed ^ mixed >> 32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::body::Inspected;
    use crate::decide::body::tests::terms;

    fn at(path: &str, body: &serde_json::Value) -> Option<u64> {
        let text = body.to_string();
        let mut fields = Vec::new();
        Scan::new(&text)
            .object(|key, value| {
                let kind = value.kind()?;
                fields.push((key, kind, value.skip()?));
                Ok(())
            })
            .unwrap();
        beginning(&Route::parse("POST", path).unwrap(), &fields, &text)
    }

    #[expect(clippy::needless_pass_by_value, reason = "tests write literals")]
    fn chat(messages: serde_json::Value) -> Option<u64> {
        at("/v1/chat/completions", &serde_json::json!({ "model": "m", "messages": messages }))
    }

    #[expect(clippy::needless_pass_by_value, reason = "tests write literals")]
    fn responses(fields: serde_json::Value) -> Option<u64> {
        at("/v1/responses", &fields)
    }

    #[test]
    fn the_best_hint_keeps_requests_together_within_a_tenant() {
        let both = Affinity { prompt_cache_key: Some("k"), user: Some("u"), ..Affinity::default() };
        assert_eq!(both.key("acme", Some("s"), "1"), both.key("acme", None, "2"));
        assert_ne!(both.key("acme", None, "1"), both.key("other", None, "1"));
        let user = Affinity { prompt_cache_key: Some(""), user: Some("u"), beginning: Some(1), model: None };
        assert_ne!(user.key("acme", Some("s"), "1"), user.key("acme", None, "1"), "a session goes before a user");
        assert_eq!(user.key("acme", None, "1"), user.key("acme", None, "2"), "a user goes before the beginning");
        assert_ne!(Affinity::default().key("acme", None, "1"), Affinity::default().key("acme", None, "2"));
    }

    #[test]
    fn without_a_hint_the_key_is_tenant_model_and_beginning() {
        let begun =
            |model, beginning| Affinity { model: Some(model), beginning: Some(beginning), ..Affinity::default() };
        let key = |tenant: &str, affinity: Affinity<'_>, request: &str| affinity.key(tenant, None, request);
        assert_eq!(key("acme", begun("m", 7), "1"), key("acme", begun("m", 7), "2"));
        for other in [key("emca", begun("m", 7), "1"), key("acme", begun("n", 7), "1"), key("acme", begun("m", 8), "1")]
        {
            assert_ne!(key("acme", begun("m", 7), "1"), other);
        }
        let body = br#"{"model":"m","messages":[{"role":"user","content":"q"}]}"#.to_vec();
        let route = Route::parse("POST", "/v1/chat/completions").unwrap();
        let body = Inspected::json(body, &route, &terms(&[])).unwrap();
        assert_eq!(body.affinity().model, Some("m"));
        assert!(body.affinity().beginning.is_some());
    }

    #[test]
    fn a_second_turn_has_the_hash_of_the_first() {
        let system = serde_json::json!({ "role": "system", "content": "You are kind." });
        let user = |text: &str| serde_json::json!({ "role": "user", "content": text });
        let answer = serde_json::json!({ "role": "assistant", "content": "a" });
        let first = chat(serde_json::json!([system, user("q")]));
        assert!(first.is_some());
        assert_eq!(first, chat(serde_json::json!([system, user("q"), answer, user("more")])));
        assert_ne!(
            first,
            chat(serde_json::json!([system, user("r")])),
            "equal instructions alone don't make equal hashes"
        );
        assert_ne!(first, chat(serde_json::json!([user("q")])));
        assert_eq!(chat(serde_json::json!([])), None);
        let marked = serde_json::json!([{ "type": "text", "text": "q", "cache_control": { "type": "ephemeral" } }]);
        let parts = chat(serde_json::json!([system, { "role": "user", "content": marked }]));
        assert_eq!(first, parts, "cache_control isn't hashed, because clients move it to a later message");
    }

    #[test]
    fn responses_begin_with_instructions_and_the_first_input() {
        let input = serde_json::json!([{ "role": "user", "content": "q" }]);
        let more = serde_json::json!([
            { "role": "user", "content": [{ "type": "input_text", "text": "q" }] },
            { "type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x" },
            { "role": "user", "content": "more" },
        ]);
        let first = responses(serde_json::json!({ "instructions": "i", "input": input }));
        assert!(first.is_some());
        assert_eq!(first, responses(serde_json::json!({ "input": more, "instructions": "i", "store": false })));
        assert_eq!(first, responses(serde_json::json!({ "instructions": "i", "input": "q" })));
        assert_ne!(first, responses(serde_json::json!({ "instructions": "j", "input": input })));
        assert_eq!(responses(serde_json::json!({ "input": [], "prompt": { "id": "pmpt_1" } })), None);
    }

    #[test]
    fn a_prompt_is_hashed_as_one_text_and_other_paths_have_no_conversation() {
        let prompt = |value: serde_json::Value| at("/v1/completions", &serde_json::json!({ "prompt": value }));
        assert_eq!(prompt("a".into()), prompt("a".into()));
        assert_ne!(prompt("a".into()), prompt("b".into()));
        assert_ne!(
            prompt(serde_json::json!([1, 2, 3])),
            prompt(serde_json::json!([1, 2, 4])),
            "a prompt may be tokens"
        );
        assert_eq!(at("/v1/embeddings", &serde_json::json!({ "input": "a" })), None);
    }

    #[test]
    fn long_texts_differ_by_their_beginning_length_and_end() {
        let hash_of = |text: String| chat(serde_json::json!([{ "role": "user", "content": text }]));
        let long = "x".repeat(100_000);
        let plain = hash_of(long.clone());
        assert_eq!(plain, hash_of(long.clone()));
        for other in [format!("{long}x"), format!("y{}", &long[1..]), format!("{}y", &long[1..])] {
            assert_ne!(plain, hash_of(other));
        }
        let many = |count: usize| chat(serde_json::json!(vec![serde_json::json!({ "content": "x" }); count]));
        assert_eq!(many(100), many(1_000), "only the first messages are hashed");
    }
}
