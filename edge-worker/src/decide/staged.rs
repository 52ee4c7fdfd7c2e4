//! Decides whether rules are for the edge yet. Takes the URL of a source of rules, and returns the URL to ask. Takes
//! the head that came with a document (which says who published it, and for which nodes), and returns whether the
//! document is for some nodes only. Called by `runtime::feed`.
//!
//! A fleet of DNS nodes may try a document on some nodes first. There is only one edge, so it follows only documents
//! that are for all nodes.

use bailiwick_rules::fleet::head::Stage;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The header in which a DNS node sends the head of its document.
pub(crate) const HEAD: &str = "x-bailiwick-head";

/// The URL to ask. For a DNS node, it asks for the newest rules that are for all nodes. URLs of other sources stay.
#[must_use]
pub(crate) fn for_all(url: &str) -> String {
    if url.ends_with("/v1/rules") { format!("{url}?stage={}", Stage::Rest) } else { url.to_owned() }
}

/// Whether the head of a document says that the document is for some nodes only. A source that sends no head has one
/// document for all nodes.
#[must_use]
pub(crate) fn is_for_some(head: Option<&str>) -> bool {
    let read = |head: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(head).ok()?;
        let head: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
        Some(head.get("stage")?.as_str() != Some(Stage::Rest.as_str()))
    };
    head.and_then(read).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_for_the_edge_if_its_head_says_no_earlier_stage() {
        let head = |json: &str| URL_SAFE_NO_PAD.encode(json);
        for (json, expected) in [
            (r#"{"stage": "canary"}"#, true),
            (r#"{"stage": "early", "new": 1}"#, true),
            (r#"{"stage": "some later word"}"#, true),
            (r#"{"stage": "rest"}"#, false),
            (r#"{"revision": 7}"#, false),
            ("no JSON", false),
        ] {
            assert_eq!(is_for_some(Some(&head(json))), expected, "{json}");
        }
        assert!(!is_for_some(None) && !is_for_some(Some("no base64!")));
    }

    #[test]
    fn nodes_are_asked_for_what_is_for_all_of_them() {
        assert_eq!(for_all("https://ns1.example:8053/v1/rules"), "https://ns1.example:8053/v1/rules?stage=rest");
        for other in ["https://bucket.example/rules.json", "https://ns1.example/v1/rules?token=x", "nonsense"] {
            assert_eq!(for_all(other), other);
        }
    }
}
