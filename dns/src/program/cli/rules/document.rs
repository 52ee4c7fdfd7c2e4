//! Gives a rules document another revision. Takes its bytes and the number, returns the same text with that number.

use bailiwick_rules::table::Table;

use crate::text::json_place::value_at;

/// The document with this revision; every other byte stays. `None` if it has none, or has mistakes.
pub(in crate::program::cli) fn with_revision(bytes: &[u8], revision: u64) -> Option<Vec<u8>> {
    let place = value_at(bytes, "/revision")?;
    let (before, after) = (bytes.get(..place.start)?, bytes.get(place.end..)?);
    let document = [before, revision.to_string().as_bytes(), after].concat();
    let is_right = Table::compile_quietly(&document).is_ok_and(|table| table.revision().number == revision);
    is_right.then_some(document)
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
