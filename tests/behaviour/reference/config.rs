//! The reference's part on `bailiwick.toml`: takes the keys that the reader knows, returns a table for each section.

use std::fmt::Write as _;

use bailiwick_dns::program::config::keys::{SECTIONS, WhenMissing};

use super::Table;

/// Everything below the heading `bailiwick.toml`.
pub(super) fn section() -> String {
    let mut out = String::from("## `bailiwick.toml`\n");
    for section in SECTIONS {
        let mut table = Table::default();
        for key in section.keys {
            let otherwise = match key.when_missing {
                WhenMissing::Required => "required".to_owned(),
                WhenMissing::Nothing => "–".to_owned(),
                WhenMissing::Value(value) => format!("`{value}`"),
                WhenMissing::Words(words) => words.to_owned(),
            };
            table.row(key.name, key.kind, &otherwise, key.meaning);
        }
        let _ = write!(out, "\n### {}\n\n{}\n\n{table}", section.heading, section.meaning);
    }
    out
}
