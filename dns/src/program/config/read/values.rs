//! Reads single values of the configuration: texts, booleans, paths and addresses. Takes a value of TOML; returns it
//! with its type, or notes an error with its line. Called by the readers of sections.

use std::net::SocketAddr;
use std::path::PathBuf;

use bailiwick_rules::time::Millis;
use toml::de::DeValue;

use super::{Reader, Value};
use crate::response::answer::identity::LONGEST;

impl Reader<'_> {
    /// Reads a text that fits into one character-string of DNS (255 octets).
    pub(super) fn short<'v>(&mut self, key: &str, value: &'v Value<'_>) -> Option<&'v str> {
        let text = self.string(key, value)?;
        match text.len() {
            0 => self.fail(value.span(), format!("\"{key}\" is empty; write what shall be told or remove the key")),
            1..=LONGEST => Some(text),
            length => self.fail(value.span(), format!("\"{key}\" has {length} octets; shorten it to {LONGEST}")),
        }
    }

    pub(super) fn boolean(&mut self, key: &str, value: &Value<'_>) -> Option<bool> {
        let kind = kind(value);
        let read = value.get_ref().as_bool();
        read.or_else(|| self.fail(value.span(), format!("\"{key}\" is {kind}; write true or false")))
    }

    /// Reads a list of files.
    pub(super) fn paths(&mut self, key: &str, value: &Value<'_>) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        let Some(items) = value.get_ref().as_array() else {
            let kind = kind(value);
            self.note(value.span(), format!("\"{key}\" is {kind}; write a list of files"));
            return paths;
        };
        for item in items {
            let Some(path) = self.path(key, item) else { continue };
            if paths.contains(&path) {
                self.note(item.span(), format!("\"{}\" is listed twice; remove one", path.display()));
                continue;
            }
            paths.push(path);
        }
        paths
    }

    /// Reads an address and port. `place` is where the error is noted.
    pub(super) fn address(&mut self, text: &str, place: &Value<'_>) -> Option<SocketAddr> {
        text.parse().ok().or_else(|| {
            self.fail(
                place.span(),
                format!("\"{text}\" is not an address and port; write \"127.0.0.1:5300\" or \"[::1]:5300\""),
            )
        })
    }

    pub(super) fn path(&mut self, key: &str, value: &Value<'_>) -> Option<PathBuf> {
        match self.string(key, value)? {
            "" => self.fail(value.span(), format!("\"{key}\" is empty; name a file")),
            path => Some(self.directory.join(path)),
        }
    }

    pub(super) fn string<'v>(&mut self, key: &str, value: &'v Value<'_>) -> Option<&'v str> {
        let kind = kind(value);
        let text = value.get_ref().as_str();
        text.or_else(|| self.fail(value.span(), format!("\"{key}\" is {kind}; write a string in quotes")))
    }

    /// Reads a pause from a tenth of a second to ten minutes. It is used for idle streams and between two requests to a
    /// peer. With shorter pauses, streams of slow clients would be closed; with longer ones, dead streams would be
    /// kept.
    pub(super) fn pause(&mut self, key: &str, value: &Value<'_>, example: &str) -> Option<Millis> {
        let text = self.string(key, value)?;
        Millis::parse(text).filter(|pause| (100..=600_000).contains(&pause.0)).or_else(|| {
            let message =
                format!("\"{key}\" is \"{text}\"; write a duration from \"100ms\" to \"10m\", such as \"{example}\"");
            self.fail(value.span(), message)
        })
    }

    /// Reads one of `words`, and returns what it stands for. Any other text is an error, and counts as `default`.
    pub(super) fn word<T: Copy>(&mut self, key: &str, value: &Value<'_>, words: &[(T, &str)], default: T) -> T {
        let Some(text) = self.string(key, value) else { return default };
        if let Some((meaning, _)) = words.iter().find(|(_, word)| *word == text) {
            return *meaning;
        }
        let quoted: Vec<String> = words.iter().map(|(_, word)| format!("\"{word}\"")).collect();
        let list =
            quoted.split_last().map_or_else(String::new, |(last, rest)| format!("{} or {last}", rest.join(", ")));
        self.note(value.span(), format!("\"{key}\" is \"{text}\"; write {list}"));
        default
    }
}

/// What kind of value this is, for messages.
pub(super) fn kind(value: &Value<'_>) -> &'static str {
    match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}
