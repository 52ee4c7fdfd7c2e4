//! JSON of the rules. Takes a JSON text, returns a tree of `Node`s that keeps duplicate keys. A `Reader` reads such a
//! tree and collects every violation (mistake). Called by `rules::read` and other readers of this crate's documents.

mod pieces;

use core::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use crate::turns::Turns;

/// One mistake in a document: its place, and a message that says what is wrong and how to mend it.
///
/// ```
/// use bailiwick_rules::json::Violation;
/// let violation =
///     Violation { pointer: "/services/chat/hosts".into(), message: "is missing; add a list of host names".into() };
/// assert_eq!(violation.to_string(), "/services/chat/hosts: is missing; add a list of host names");
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
pub struct Violation {
    /// A JSON pointer (RFC 6901); empty for the document itself.
    pub pointer: String,
    /// What is wrong at this place, and how to mend it.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.pointer.is_empty() { "(document)" } else { &self.pointer };
        write!(f, "{place}: {}", self.message)
    }
}

/// A JSON value whose objects keep the order and the duplicates of their keys.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    String(String),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    /// Parses a JSON text in UTF-8. A byte-order mark is skipped, because some editors write one.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Violation> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        serde_json::from_slice(bytes).map_err(|error| Violation {
            pointer: String::new(),
            message: format!("is not JSON: {error}; mend the text at that line and column"),
        })
    }

    /// [`Node::parse`], with pauses for other work ([`Turns`]).
    pub(crate) async fn parse_in_turns(bytes: &[u8], turns: &mut Turns<'_>) -> Result<Self, Violation> {
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        match pieces::parse(text, turns).await {
            Some(node) => Ok(node),
            None => Self::parse(bytes),
        }
    }

    /// The work of reading this value, in the units of [`Turns`].
    pub(crate) fn weight(&self) -> usize {
        /// Finding a value takes about as long as reading this many bytes.
        const VALUE: usize = 24;
        VALUE
            + match self {
                Self::Null | Self::Bool(_) | Self::Number(_) => 0,
                Self::String(text) => text.len(),
                Self::Array(items) => items.iter().map(Self::weight).sum(),
                Self::Object(entries) => entries.iter().map(|(key, value)| key.len() + value.weight()).sum(),
            }
    }

    /// Frees the memory of this value, with pauses for other work. Freeing takes about an eighth of the time of
    /// reading.
    pub(crate) async fn free(self, turns: &mut Turns<'_>) {
        let Self::Object(sections) = self else { return };
        for (_, section) in sections {
            match section {
                Self::Array(items) => {
                    for item in items {
                        turns.spend(item.weight() / 8).await;
                    }
                }
                Self::Object(entries) => {
                    for (_, value) in entries {
                        turns.spend(value.weight() / 8).await;
                    }
                }
                _ => {}
            }
        }
    }

    /// The kind of the value, for messages.
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(serde_json::Number::from_f64(value).map_or(Node::Null, Node::Number))
    }
    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::String(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::String(value))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Object(entries))
    }
}

/// A place in the document, and the violations found so far.
pub(crate) struct Reader<'v> {
    pointer: String,
    violations: &'v mut Vec<Violation>,
}

impl<'v> Reader<'v> {
    /// A reader at the root of a document.
    pub(crate) fn new(violations: &'v mut Vec<Violation>) -> Self {
        Self { pointer: String::new(), violations }
    }

    /// A reader one step below, at an object's key or a list's index.
    pub(crate) fn at(&mut self, step: impl fmt::Display) -> Reader<'_> {
        Reader { pointer: child(&self.pointer, step), violations: self.violations }
    }

    /// The JSON pointer of this place.
    pub(crate) fn place(&self) -> &str {
        &self.pointer
    }

    /// Records a violation at this place. Returns `None`, so that a reading function can return the result of this
    /// call.
    pub(crate) fn fail<T>(&mut self, message: impl Into<String>) -> Option<T> {
        self.violations.push(Violation { pointer: self.pointer.clone(), message: message.into() });
        None
    }

    /// Records that `node` has the wrong kind. `what` is the expected kind.
    pub(crate) fn expected<T>(&mut self, what: &str, node: &Node) -> Option<T> {
        self.fail(format!("is {}; write {what}", node.kind()))
    }

    /// Reads a string.
    pub(crate) fn string<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        match node {
            Node::String(text) => Some(text),
            other => self.expected("a string", other),
        }
    }

    /// Reads a boolean.
    pub(crate) fn boolean(&mut self, node: &Node) -> Option<bool> {
        match node {
            Node::Bool(value) => Some(*value),
            other => self.expected("true or false", other),
        }
    }

    /// Reads a whole number within `range`.
    pub(crate) fn integer(&mut self, node: &Node, range: core::ops::RangeInclusive<u64>) -> Option<u64> {
        let (low, high) = (range.start(), range.end());
        match node {
            Node::Number(number) => match number.as_u64() {
                Some(value) if range.contains(&value) => Some(value),
                _ => self.fail(format!("is {number}; write a whole number from {low} to {high}")),
            },
            other => self.expected(&format!("a whole number from {low} to {high}"), other),
        }
    }

    /// Reads any number.
    pub(crate) fn number(&mut self, node: &Node) -> Option<f64> {
        match node {
            Node::Number(number) => number.as_f64(),
            other => self.expected("a number", other),
        }
    }

    /// Reads the items of a list.
    pub(crate) fn items<'n>(&mut self, node: &'n Node) -> Option<&'n [Node]> {
        match node {
            Node::Array(items) => Some(items),
            other => self.expected("a list", other),
        }
    }

    /// A list. `item` reads each item. Items that can't be read are left out, and their violations are recorded.
    pub(crate) fn list<T>(
        &mut self,
        node: &Node,
        mut item: impl FnMut(&mut Reader<'_>, &Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        let items = self.items(node)?;
        let read = |(index, node)| item(&mut self.at(index), node);
        Some(items.iter().enumerate().filter_map(read).collect())
    }

    /// [`Reader::list`], with at least one item.
    pub(crate) fn filled_list<T>(
        &mut self,
        node: &Node,
        item: impl FnMut(&mut Reader<'_>, &Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        if matches!(node, Node::Array(items) if items.is_empty()) {
            return self.fail("is an empty list; give at least one item");
        }
        self.list(node, item)
    }

    /// An object whose keys are names, as pairs of key and value. A duplicate key is left out and recorded as a
    /// violation.
    pub(crate) fn entries<'n>(&mut self, node: &'n Node) -> Option<Vec<(&'n str, &'n Node)>> {
        let Node::Object(entries) = node else {
            return self.expected("an object", node);
        };
        let mut keys = std::collections::HashSet::with_capacity(entries.len());
        let mut entries_once = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            if keys.insert(key.as_str()) {
                entries_once.push((key.as_str(), value));
            } else {
                self.at(key).fail::<()>("stands twice in its object; keep one");
            }
        }
        Some(entries_once)
    }

    /// An object with known fields, which are then read one by one.
    pub(crate) fn object<'n, 'r>(&'r mut self, node: &'n Node) -> Option<Fields<'n, 'r, 'v>> {
        let entries = self.entries(node)?;
        Some(Fields { reader: self, entries, known: Vec::new() })
    }
}

fn child(pointer: &str, step: impl fmt::Display) -> String {
    // RFC 6901 §3: `~` and `/` are escaped.
    format!("{pointer}/{}", step.to_string().replace('~', "~0").replace('/', "~1"))
}

/// The fields of one object. They are taken one by one. Fields that are left at the end are unknown.
pub(crate) struct Fields<'n, 'r, 'v> {
    reader: &'r mut Reader<'v>,
    entries: Vec<(&'n str, &'n Node)>,
    known: Vec<&'static str>,
}

impl<'n> Fields<'n, '_, '_> {
    /// Reads a field that may be missing.
    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Reader<'_>, &'n Node) -> Option<T>,
    ) -> Option<T> {
        let (mut reader, node) = self.take(key)?;
        read(&mut reader, node)
    }

    /// Takes a field that may be missing. Returns its value and a reader for it.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<(Reader<'_>, &'n Node)> {
        self.known.push(key);
        let position = self.entries.iter().position(|(name, _)| *name == key)?;
        let (_, node) = self.entries.swap_remove(position);
        Some((self.reader.at(key), node))
    }

    /// A field that must be there. `what` describes it for the message.
    pub(crate) fn required<T>(
        &mut self,
        key: &'static str,
        what: &str,
        read: impl FnOnce(&mut Reader<'_>, &'n Node) -> Option<T>,
    ) -> Option<T> {
        if self.has(key) {
            return self.optional(key, read);
        }
        self.known.push(key);
        self.reader.at(key).fail(format!("is missing; add {what}"))
    }

    /// Whether the field is there and wasn't taken yet.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, _)| *name == key)
    }

    /// Records a violation at the object itself.
    pub(crate) fn fail<T>(&mut self, message: impl Into<String>) -> Option<T> {
        self.reader.fail(message)
    }

    /// Records a violation for every field that wasn't taken, with the nearest known name.
    pub(crate) fn finish(self) {
        for (key, _) in &self.entries {
            let hint = match nearest(key, &self.known) {
                Some(name) => format!("did you mean {name:?}? Known are"),
                None => "known are".to_owned(),
            };
            let known = self.known.join(", ");
            let message = format!("is not a known key here; {hint} {known}");
            self.reader.at(key).fail::<()>(message);
        }
    }
}

/// The nearest candidate, if it is at most two edits away: for "did you mean".
pub(crate) fn nearest<'c>(word: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let scored = candidates.iter().map(|name| (edits(word, name), *name));
    scored.min().filter(|&(distance, name)| distance <= 2 && distance < name.len()).map(|(_, name)| name)
}

/// The Levenshtein distance of two texts.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(text: &str, read: impl FnOnce(&mut Reader<'_>, &Node)) -> Vec<String> {
        let mut found = Vec::new();
        read(&mut Reader::new(&mut found), &Node::parse(text.as_bytes()).unwrap());
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn duplicate_and_unknown_keys_are_reported_with_their_place() {
        let text = r#"{"name": 1, "nmae": 2, "name": 3, "a/b~c": 4}"#;
        let found = violations(text, |reader, node| {
            let mut fields = reader.object(node).unwrap();
            fields.optional("name", |_, _| Some(()));
            fields.finish();
        });
        assert_eq!(
            found,
            [
                "/name: stands twice in its object; keep one",
                "/a~1b~0c: is not a known key here; known are name",
                "/nmae: is not a known key here; did you mean \"name\"? Known are name",
            ]
        );
    }

    #[test]
    fn a_list_goes_on_after_a_bad_item() {
        let found = violations(r#"[1, "x", null, 9]"#, |reader, node| {
            let kept = reader.list(node, |reader, node| reader.integer(node, 0..=5));
            assert_eq!(kept, Some(vec![1]));
        });
        assert_eq!(found.len(), 3);
        assert_eq!(found[2], "/3: is 9; write a whole number from 0 to 5");
    }

    #[test]
    fn the_error_of_invalid_json_says_where_it_is() {
        let error = Node::parse(b"{\n  \"a\": }").unwrap_err();
        assert!(error.message.contains("line 2 column 8"), "{error}");
        assert!(Node::parse(&b"[".repeat(100_000)).is_err(), "depth is bounded");
        assert!(Node::parse(b"\xef\xbb\xbf{}").is_ok());
    }
}
