//! Fine-tuned models: models that were made of one tenant's data. Takes a model's name, and says whether the model is
//! fine-tuned. Takes a list of models, and removes the fine-tuned ones. Called by `plan`, `prepare` and `splice`.
//!
//! A fine-tuned model may be used and listed by its own name only at an account that the tenant shares with nobody, or
//! if the rules name the model. The name in the answers of a fine-tuning job is sealed like an id
//! ([`super::sealed_id`]), and its tenant may use this sealed name everywhere.

use core::ops::Range;

use crate::decide::body::{is_plain, lenient};
use crate::decide::json::{InvalidJson, Kind, Scan};

/// Whether a name is that of a fine-tuned model, as OpenAI (`ft:gpt-4o:acme::abc`) and Azure
/// (`gpt-4o-2024-08-06.ft-abc`) write it. Some gateways put the provider before the name (`openai/ft:…`). The name is
/// read as the most lenient server would read it.
#[must_use]
pub(crate) fn is_tuned(name: &str) -> bool {
    if is_plain(name) {
        return is_tuned_name(name.as_bytes());
    }
    is_tuned_name(lenient(name).as_bytes())
}

/// Whether a name holds the name of a fine-tuned model, such as `ft:gpt-4o:acme::abc`.
fn is_tuned_name(name: &[u8]) -> bool {
    let mut before = b'/';
    for (at, byte) in name.iter().enumerate() {
        let rest = name.get(at..).unwrap_or_default();
        let begins = |start: &[u8]| rest.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start));
        let is_word = before.is_ascii_alphanumeric() || matches!(before, b'-' | b'_' | b'.');
        if !is_word && begins(b"ft:") || begins(b".ft-") {
            return true;
        }
        before = *byte;
    }
    false
}

/// Removes fine-tuned models and adapters from a list of models, and keeps every other byte. A text that isn't a list
/// of models becomes an empty list.
#[must_use]
pub(crate) fn without_tuned(list: &[u8]) -> Vec<u8> {
    let kept = core::str::from_utf8(list).ok().and_then(|text| {
        let mut dropped = Vec::new();
        let mut scan = Scan::new(text);
        top(&mut scan, &mut dropped).and_then(|()| scan.end()).ok()?;
        let mut out = String::with_capacity(text.len());
        let mut done = 0;
        for range in dropped {
            out.push_str(text.get(done..range.start)?);
            done = range.end;
        }
        out.push_str(text.get(done..)?);
        Some(out)
    });
    kept.unwrap_or_else(|| r#"{"object":"list","data":[]}"#.to_owned()).into_bytes()
}

/// Finds the lists of models: servers write a list as `data`, some also as `models`, and some as the whole document.
fn top(scan: &mut Scan<'_>, dropped: &mut Vec<Range<usize>>) -> Result<(), InvalidJson> {
    match scan.kind()? {
        Kind::Array => models(scan, dropped),
        Kind::Object => scan.object(|_, value| match value.kind()? {
            Kind::Array => models(value, dropped),
            _ => value.skip().map(drop),
        }),
        _ => Err(InvalidJson { at: scan.at() }),
    }
}

/// Collects the ranges of the items to remove. If an item that stays stands before them, the range begins with the
/// comma after it. Otherwise the range ends at the next item that stays.
fn models(scan: &mut Scan<'_>, dropped: &mut Vec<Range<usize>>) -> Result<(), InvalidJson> {
    let (mut kept_until, mut leading): (Option<usize>, Option<Range<usize>>) = (None, None);
    scan.array(|item| {
        let kind = item.kind()?;
        let start = item.at();
        let goes = if kind == Kind::Object { is_private(item)? } else { item.skip().map(|_| false)? };
        let end = item.at();
        match (goes, kept_until) {
            (true, Some(kept)) => {
                dropped.push(kept..end);
                kept_until = Some(end);
            }
            (true, None) => leading = Some(leading.take().map_or(start, |range| range.start)..end),
            (false, _) => {
                dropped.extend(leading.take().map(|range| range.start..start));
                kept_until = Some(end);
            }
        }
        Ok(())
    })?;
    dropped.extend(leading);
    Ok(())
}

/// Whether an entry is a fine-tuned model, or, as vLLM lists them, an adapter on top of its `parent`.
fn is_private(scan: &mut Scan<'_>) -> Result<bool, InvalidJson> {
    let mut is_private = false;
    scan.object(|key, value| {
        match (key.as_ref(), value.kind()?) {
            ("id" | "name" | "model", Kind::String) => is_private |= is_tuned(&value.string()?),
            ("parent", Kind::String) => is_private |= value.skip()?.len() > 2,
            _ => value.skip().map(drop)?,
        }
        Ok(())
    })?;
    Ok(is_private)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fine_tuned_models_are_known_by_their_names() {
        for name in [
            "ft:gpt-4o:acme:merger-plans:abc",
            "FT:gpt-4o:acme::abc",
            " ft:x",
            "openai/ft:gpt-4o:acme::abc",
            "openai:ft:gpt-4o:acme::abc",
            "litellm_proxy/openai/FT:x",
            "a@ft:x",
            "ft%3Agpt-4o:acme::abc",
            "openai%2Fft%253Ax",
            "\u{200b}ft:x",
            "f\u{200b}t:x",
            "ｆｔ：x",
            "a\\ft:x",
            "\tft:x",
            "ft:gpt-4o-mini-2024-07-18:acme::abc:ckpt-step-100",
            "gpt-4o-2024-08-06.ft-0123456789abcdef-suffix",
        ] {
            assert!(is_tuned(name), "{name}");
        }
        for name in
            ["", "f", "gpt-4o", "ft", "minecraft:base", "llama3:ft-v1", "org/soft:ft", "swift.ftw", "ft-a", "é:ft"]
        {
            assert!(!is_tuned(name), "{name}");
        }
    }

    #[test]
    fn lists_lose_what_is_somebodys() {
        let model = |id: &str| format!("{{\"id\":\"{id}\",\"n\":1e400}}");
        let (a, b, tuned) = (model("a"), model("b"), model("ft:x:acme::1"));
        let adapter = r#"{"id":"lora-acme","parent":"base","root":"/lora"}"#.to_owned();
        let base = r#"{"id":"base","parent":null}"#.to_owned();
        let cases: [(&[&String], &[&String]); 9] = [
            (&[&a, &b], &[&a, &b]),
            (&[&tuned], &[]),
            (&[&tuned, &tuned], &[]),
            (&[&tuned, &adapter, &a], &[&a]),
            (&[&a, &tuned], &[&a]),
            (&[&a, &tuned, &adapter], &[&a]),
            (&[&a, &tuned, &b, &adapter], &[&a, &b]),
            (&[&tuned, &a, &tuned, &b], &[&a, &b]),
            (&[&base, &adapter], &[&base]),
        ];
        for (all, rest) in cases {
            let join = |models: &[&String], comma: &str| {
                models.iter().map(|text| text.as_str()).collect::<Vec<_>>().join(comma)
            };
            for (start, end) in [("{\"object\":\"list\",\"data\":[", "],\"x\":[1,2]}"), ("[", "]")] {
                let out = without_tuned([start, &join(all, ","), end].concat().as_bytes());
                assert_eq!(String::from_utf8(out).unwrap(), [start, &join(rest, ","), end].concat());
                let spaced = without_tuned([start, " ", &join(all, " ,\n"), " ", end].concat().as_bytes());
                let read: serde_json::Value =
                    serde_json::from_str(&String::from_utf8(spaced).unwrap().replace("1e400", "1")).unwrap();
                let list = read.get("data").unwrap_or(&read).as_array().unwrap();
                assert_eq!(list.len(), rest.len());
            }
        }
        for odd in ["", "no", "7", "{\"data\":[{\"id\":\"a\"}", "[] x"] {
            assert_eq!(without_tuned(odd.as_bytes()), br#"{"object":"list","data":[]}"#, "{odd}");
        }
    }
}
