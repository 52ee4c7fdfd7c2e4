//! Changes one value in a rules document. Takes the document's bytes and a revision, or the progress of a rollout;
//! returns the same text with the new value. Called by the commands that publish rules.

use bailiwick_rules::rules::Progress;
use bailiwick_rules::table::Table;
use serde_json::{Map, Value, json};

use crate::text::json_place::value_at;

/// The document with this revision. Every other byte stays. `None` if the document has no revision, or has mistakes.
pub(in crate::program::cli) fn with_revision(bytes: &[u8], revision: u64) -> Option<Vec<u8>> {
    let place = value_at(bytes, "/revision")?;
    let (before, after) = (bytes.get(..place.start)?, bytes.get(place.end..)?);
    let document = [before, revision.to_string().as_bytes(), after].concat();
    let is_right = Table::compile_quietly(&document).is_ok_and(|table| table.revision().number == revision);
    is_right.then_some(document)
}

/// The document with this progress of a rollout. Every other byte stays. `None` if the document has no such rollout.
pub(in crate::program::cli) fn with_progress(bytes: &[u8], rollout: &str, progress: &Progress) -> Option<Vec<u8>> {
    let text = progress_json(progress).to_string();
    let replace =
        |start: usize, end: usize, text: &str| Some([bytes.get(..start)?, text.as_bytes(), bytes.get(end..)?].concat());
    if let Some(place) = value_at(bytes, &format!("/rollouts/{rollout}/progress")) {
        return replace(place.start, place.end, &text);
    }
    let place = value_at(bytes, &format!("/rollouts/{rollout}"))?;
    let last =
        bytes.get(place.start..place.end.checked_sub(1)?)?.iter().rposition(|byte| !byte.is_ascii_whitespace())?;
    let end = place.start + last + 1;
    replace(end, end, &format!(", \"progress\": {text}"))
}

/// The progress as JSON, in the form of the rules.
pub(in crate::program::cli) fn progress_json(progress: &Progress) -> Value {
    let shares: Map<String, Value> =
        progress.shares.iter().map(|(region, share)| (region.to_string(), json!(share))).collect();
    let mut json = json!({ "shares": shares, "since": progress.since.to_string() });
    for (name, text) in [("paused", &progress.paused), ("ended", &progress.ended)] {
        if let Some(text) = text {
            json[name] = json!(text);
        }
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_number_changes() {
        let text = "{\n  \"version\": 1, \"jurisdictions\": { \"revision\": { \"countries\": [\"DE\"] } },\n  \
                    \"revision\" : 7 }\n";
        let changed = String::from_utf8(with_revision(text.as_bytes(), 1234).unwrap()).unwrap();
        assert_eq!(changed, text.replace(": 7 }", ": 1234 }"));
        assert_eq!(
            with_revision(b"{\"version\": 1, \"revision\": 7}", 8).unwrap(),
            b"{\"version\": 1, \"revision\": 8}"
        );
    }

    #[test]
    fn what_has_no_revision_or_mistakes_is_none() {
        for text in ["", "{}", "{\"version\": 1}", "[1]", "{\"revision\": 7"] {
            assert_eq!(with_revision(text.as_bytes(), 8), None, "{text}");
        }
    }
}
