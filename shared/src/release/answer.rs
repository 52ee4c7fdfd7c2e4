//! Reads what an endpoint says of the release that it runs. Takes the bytes of an answer of `/v1/models` or of a
//! completion, returns its fields as types. Called by the DNS node.
//!
//! The answers come from other programs and may hold any bytes. A field that can't be read is left out, and so is a
//! text that is too long.

use serde_json::Value;

use crate::rules::{Canary, Position, Token};

/// The most bytes of an answer that are read.
pub const LONGEST_ANSWER: usize = 256 << 10;
/// The longest name, root or fingerprint that is accepted, in bytes.
pub(super) const LONGEST_TEXT: usize = 256;

/// What `/v1/models` says of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelListing {
    /// Where the weights come from, such as a repository or a path; `None` if the answer only repeats the model's name.
    pub root: Option<String>,
    /// The longest context, in tokens.
    pub max_model_len: Option<u64>,
}

/// What a completion says of the release.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompletionReport {
    /// The model's name.
    pub model: Option<String>,
    /// The engine, as its `system_fingerprint` names it.
    pub fingerprint: Option<String>,
    /// The likeliest tokens at each position of the answer; `None` if the answer has no log probabilities.
    pub positions: Option<Vec<Position>>,
}

/// Reads the list of models of vLLM, SGLang, llama.cpp, TGI or OpenAI, and returns the entry of `model`. llama.cpp
/// lists a single model under another name; a list with one entry is taken for the model, whatever its name. `None` if
/// the answer is no such list or lacks the model.
#[must_use]
pub fn models(bytes: &[u8], model: &str) -> Option<ModelListing> {
    let page: Value = serde_json::from_slice(bytes).ok()?;
    let listed = page.get("data")?.as_array()?;
    let id = |entry: &Value| entry.get("id").and_then(Value::as_str).map(str::to_owned);
    let entry = listed.iter().find(|entry| id(entry).as_deref() == Some(model)).or(match &listed[..] {
        [only] => Some(only),
        _ => None,
    })?;
    let id = id(entry).unwrap_or_default();
    // vLLM and SGLang have the length in a field of its own, llama.cpp among its metadata.
    let length = entry.get("max_model_len").or_else(|| entry.get("meta")?.get("n_ctx"));
    Some(ModelListing {
        root: text(entry.get("root")).filter(|root| *root != id && root != model),
        max_model_len: length.and_then(Value::as_u64).filter(|length| *length > 0),
    })
}

/// Reads a completion that isn't streamed. `None` if the bytes are no completion.
#[must_use]
pub fn completion(bytes: &[u8]) -> Option<CompletionReport> {
    let answer: Value = serde_json::from_slice(bytes).ok()?;
    let choice = answer.get("choices")?.as_array()?.first()?;
    let tokens = choice.get("logprobs").and_then(|logprobs| logprobs.get("content")).and_then(Value::as_array);
    let positions = tokens.map(|tokens| tokens.iter().take(Canary::POSITIONS).map_while(position).collect::<Vec<_>>());
    Some(CompletionReport {
        model: text(answer.get("model")),
        fingerprint: text(answer.get("system_fingerprint")).or_else(|| weights(&answer)),
        positions: positions.filter(|positions| !positions.is_empty()),
    })
}

/// SGLang's stand-in for a fingerprint: the version of the weights that were loaded last, if somebody named a version.
fn weights(answer: &Value) -> Option<String> {
    let version = text(answer.get("metadata")?.get("weight_version")).filter(|version| version != "default")?;
    text(Some(&format!("weights-{version}").into()))
}

/// The chosen token of a position, followed by the other tokens, likeliest first.
fn position(place: &Value) -> Option<Position> {
    let chosen = token(place)?;
    let others = place.get("top_logprobs").and_then(Value::as_array).into_iter().flatten();
    // A list of more tokens than were asked for isn't read to its end.
    let mut others: Vec<Token> = others.take(4 * Canary::TOKENS).filter_map(token).collect();
    others.retain(|token| token.hash != chosen.hash);
    others.sort_by_key(|token| (token.cost, token.hash));
    others.dedup_by_key(|token| token.hash);
    Some(Position(core::iter::once(chosen).chain(others).take(Canary::TOKENS).collect()))
}

/// A token by its bytes, or by its text if the answer has no bytes.
fn token(value: &Value) -> Option<Token> {
    let logprob = value.get("logprob")?.as_f64()?;
    let byte = |value: &Value| value.as_u64().and_then(|byte| u8::try_from(byte).ok());
    let bytes = value.get("bytes").and_then(Value::as_array).filter(|bytes| !bytes.is_empty());
    let bytes: Option<Vec<u8>> = bytes.and_then(|bytes| bytes.iter().take(LONGEST_TEXT).map(byte).collect());
    match bytes {
        Some(bytes) => Token::new(&bytes, logprob),
        None => Token::new(value.get("token")?.as_str()?.as_bytes(), logprob),
    }
}

/// The text of a value, if it isn't empty, isn't too long and holds no control characters.
fn text(value: Option<&Value>) -> Option<String> {
    let text = value?.as_str()?.trim();
    let fits = !text.is_empty() && text.len() <= LONGEST_TEXT && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_of_each_engine_are_read() {
        let vllm = br#"{"object":"list","data":[{"id":"llama","object":"model","created":1,"owned_by":"vllm",
            "root":"RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic","parent":null,"max_model_len":131072,
            "permission":[{"id":"modelperm-1","object":"model_permission","allow_logprobs":true}]},
            {"id":"adapter","object":"model","root":"/adapters/a","parent":"llama","max_model_len":null}]}"#;
        let listed = models(vllm, "llama").unwrap();
        assert_eq!(listed.root.as_deref(), Some("RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic"));
        assert_eq!(listed.max_model_len, Some(131_072));
        assert_eq!(models(vllm, "adapter").unwrap().max_model_len, None);
        assert_eq!(models(vllm, "gpt"), None, "the list has two models, and not this one");
        let sglang = br#"{"object":"list","data":[{"id":"llama","object":"model","created":1,"owned_by":"sglang",
            "root":"llama","parent":null,"max_model_len":32768}]}"#;
        assert_eq!(models(sglang, "llama"), Some(ModelListing { root: None, max_model_len: Some(32_768) }));
        let llama_cpp = br#"{"models":[],"object":"list","data":[{"id":"/models/llama-q4.gguf","object":"model",
            "created":1,"owned_by":"llamacpp","meta":{"vocab_type":2,"n_vocab":128256,"n_ctx":8192,
            "n_ctx_train":131072}}]}"#;
        assert_eq!(models(llama_cpp, "llama"), Some(ModelListing { root: None, max_model_len: Some(8_192) }));
        let openai = br#"{"object":"list","data":[{"id":"gpt-4o","object":"model","created":1,"owned_by":"system"}]}"#;
        assert_eq!(models(openai, "gpt-4o"), Some(ModelListing::default()));
    }

    #[test]
    fn the_completions_of_each_engine_are_read() {
        let vllm = br#"{"id":"c","object":"chat.completion","model":"llama","system_fingerprint":
            "vllm-0.11.0-H100-tp8-bf16-a3b21f94","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},
            "logprobs":{"content":[{"token":"Hi","logprob":-0.25,"bytes":[72,105],"top_logprobs":[
                {"token":"Hi","logprob":-0.25,"bytes":[72,105]},{"token":"Yo","logprob":-1.75,"bytes":[89,111]},
                {"token":"No","logprob":-9999.0,"bytes":null}]}]},"finish_reason":"length"}],"prompt_logprobs":null}"#;
        let told = completion(vllm).unwrap();
        assert_eq!(told.model.as_deref(), Some("llama"));
        assert_eq!(told.fingerprint.as_deref(), Some("vllm-0.11.0-H100-tp8-bf16-a3b21f94"));
        let token = |text: &str, logprob| Token::new(text.as_bytes(), logprob).unwrap();
        let expected = vec![Position(vec![token("Hi", -0.25), token("Yo", -1.75), token("No", -20.0)])];
        assert_eq!(told.positions, Some(expected));
        let sglang = br#"{"model":"llama","choices":[{"index":0,"message":{"content":"Hi"},"logprobs":null}],
            "metadata":{"weight_version":"step-7"}}"#;
        assert_eq!(completion(sglang).unwrap().fingerprint.as_deref(), Some("weights-step-7"));
        assert_eq!(completion(sglang).unwrap().positions, None);
        let default = br#"{"choices":[{"index":0}],"metadata":{"weight_version":"default"}}"#;
        assert_eq!(completion(default), Some(CompletionReport::default()), "nobody named a version");
        let tgi =
            br#"{"model":"tgi","system_fingerprint":"2.4.1-native","choices":[{"index":0,"message":{"content":"H"},
            "logprobs":{"content":[{"token":"H","logprob":-0.5,"top_logprobs":[{"token":"A","logprob":-0.9}]}]}}]}"#;
        let told = completion(tgi).unwrap();
        assert_eq!(told.positions, Some(vec![Position(vec![token("H", -0.5), token("A", -0.9)])]));
        let azure = br#"{"model":"gpt-4o-2024-08-06","system_fingerprint":"fp_44709d6fcb","prompt_filter_results":[],
            "choices":[{"index":0,"message":{"content":"A"},"logprobs":null,"content_filter_results":{}}]}"#;
        let told = completion(azure).unwrap();
        assert_eq!(
            (told.model.as_deref(), told.fingerprint.as_deref()),
            (Some("gpt-4o-2024-08-06"), Some("fp_44709d6fcb"))
        );
    }

    #[test]
    fn a_token_is_the_same_by_bytes_and_by_text_and_the_chosen_one_is_first() {
        let by = |one: &str| position(&serde_json::from_str(one).unwrap());
        let bytes = by(r#"{"token":"x","bytes":[195,169],"logprob":-1,"top_logprobs":[]}"#);
        assert_eq!(bytes, by("{\"token\":\"\u{e9}\",\"logprob\":-1}"));
        let second = by(r#"{"token":"b","logprob":-0.8,"top_logprobs":[{"token":"a","logprob":-0.7},
            {"token":"b","logprob":-0.8},{"token":"a","logprob":-0.7}]}"#);
        let token = |text: &str, logprob| Token::new(text.as_bytes(), logprob).unwrap();
        assert_eq!(second, Some(Position(vec![token("b", -0.8), token("a", -0.7)])));
    }

    #[test]
    fn lies_and_nonsense_say_nothing() {
        for text in ["", "null", "[]", "{}", r#"{"choices":[]}"#, r#"{"choices":{"0":1}}"#, r#"{"data":1,"choices":7}"#]
        {
            assert_eq!(completion(text.as_bytes()), None, "{text}");
            assert_eq!(models(text.as_bytes(), "m"), None, "{text}");
        }
        assert_eq!(completion("[".repeat(100_000).as_bytes()), None, "deep nesting is refused");
        let long = "x".repeat(LONGEST_TEXT + 1);
        let told =
            completion(format!(r#"{{"model":"{long}","system_fingerprint":"a\u0007","choices":[{{}}]}}"#).as_bytes());
        assert_eq!(told, Some(CompletionReport::default()));
        for logprobs in [
            r#"{"content":[]}"#,
            r#"{"content":[{"token":"a"}]}"#,
            r#"{"content":[{"token":"a","logprob":"-1"}]}"#,
            r#"{"content":[{"token":7,"logprob":-1}]}"#,
            r#"{"content":[null]}"#,
            r#"{"content":"a"}"#,
            "[]",
        ] {
            let text = format!(r#"{{"choices":[{{"logprobs":{logprobs}}}]}}"#);
            assert_eq!(completion(text.as_bytes()), Some(CompletionReport::default()), "{text}");
        }
        let nan = br#"{"choices":[{"logprobs":{"content":[{"token":"a","logprob":NaN}]}}]}"#;
        assert_eq!(completion(nan), None, "NaN is no JSON");
        let many = format!(
            r#"{{"token":"a","logprob":-1,"top_logprobs":[{}]}}"#,
            r#"{"token":"b","logprob":-2},"#.repeat(9_999)
        );
        assert!(completion(many.as_bytes()).is_none());
    }
}
