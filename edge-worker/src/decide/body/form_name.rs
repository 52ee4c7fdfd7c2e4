//! Judges the name of a form's field. Takes the name; refuses it if one of its parts isn't allowed. Called by `field`
//! and `multipart`.
//!
//! PHP, Rails, `qs` and similar parsers turn names into objects: `a[fallbacks]` and `a.fallbacks` become
//! `{"a":{"fallbacks":…}}`, and PHP reads `api.base` as `api_base`. So every part of a name is judged like the name of
//! a field. `multipart` allows only names of letters, digits and `-_.[]`.

use bailiwick_rules::rules::Allowance;

use super::fault::{failure, unknown};
use super::guess::may_route;
use super::keys::names_id;
use super::names::{is_hosted, parts, routes};
use super::shape::engine_input;
use super::walk::BodyFault;
use crate::decide::envelope::Failure;

/// The field that a name belongs to: `image` for `image[]`, `chunking_strategy` for `chunking_strategy[type]`.
pub(crate) fn base(name: &str) -> &str {
    name.split(['[', '.']).next().unwrap_or(name)
}

/// Refuses a name if one of its parts routes (chooses a model, a place or an account), makes the model host run
/// something, or names a value that an engine compiles or unpickles. Refuses names of ids too, because no form of the
/// model API has ids.
///
/// # Errors
/// 400 that names the fault.
pub(super) fn check(name: &str, allow: &[Allowance]) -> Result<(), Failure> {
    // Most names have one part.
    if base(name).len() == name.len() {
        return Ok(());
    }
    for part in parts(name) {
        if part.eq_ignore_ascii_case("model") || routes(part) || may_route(part) {
            return Err(failure(BodyFault::Routes, || name.to_owned()));
        }
        if is_hosted(part) && !allow.contains(&Allowance::HostedTools) {
            return Err(unknown(name.to_owned()));
        }
        if names_id(part) {
            return Err(Failure::UnknownId);
        }
        if engine_input(part).is_some() && !allow.contains(&Allowance::EngineInputs) {
            return Err(failure(BodyFault::EngineInput, || name.to_owned()));
        }
    }
    if routes(name) { Err(failure(BodyFault::Routes, || name.to_owned())) } else { Ok(()) }
}

/// Whether a part of a name is the name of a field that holds ids.
pub(crate) fn has_id(name: &str) -> bool {
    parts(name).any(names_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_name_is_judged() {
        for name in [
            "a[fallbacks]",
            "fallbacks.0",
            "fallbacks[0][model]",
            "x[model]",
            "x.model",
            "x[Model]",
            "a[b][models]",
            "[fallbacks]",
            "a.b.apiKey",
            "a[provider][order][]",
            "api.base",
            "a[model_id]",
            "chunking_strategy[region]",
            "a.conversation_id",
            "model.0",
        ] {
            assert!(check(name, &[]).is_err(), "{name}");
            assert!(check(name, &[Allowance::UnknownFields, Allowance::RemoteUrls]).is_err(), "{name}");
        }
        for name in ["a[web_search]", "a[chat_template]", "x.prompt_embeds"] {
            assert!(check(name, &[Allowance::UnknownFields]).is_err(), "{name}");
            assert!(check(name, &[Allowance::EngineInputs, Allowance::HostedTools]).is_ok(), "{name}");
        }
        for name in [
            "",
            "image[]",
            "image",
            "chunking_strategy[type]",
            "expires_after[seconds]",
            "include[]",
            "keywords[0]",
            "timestamp_granularities[]",
            "known_speaker_references[]",
            "top-k",
            "a[b].c",
        ] {
            assert!(check(name, &[]).is_ok(), "{name}");
        }
    }

    #[test]
    fn names_have_their_base_and_their_ids() {
        for (name, expected) in [("image[]", "image"), ("a.b", "a"), ("model", "model"), ("[x]", "")] {
            assert_eq!(base(name), expected, "{name}");
        }
        for name in ["file_id", "image[file_id]", "images[0][file_id]", "a.file_id", "file_ids[]"] {
            assert!(has_id(name), "{name}");
        }
        assert!(!has_id("image[]") && !has_id("file"));
    }
}
