//! Reads single values: strings of a fixed form, choices, references to names, and lists without repetition. Called by
//! the other readers.

use std::collections::HashMap;
use std::hash::Hash;

use crate::geo::{self, Coordinates, CountryCode, NonCountry};
use crate::json::{Node, Reader, nearest};
use crate::rules::{HostName, HttpUrl, SecretName, SteeredHost};
use crate::time::Millis;

pub(super) fn boolean(reader: &mut Reader<'_>, node: &Node) -> Option<bool> {
    reader.boolean(node)
}

pub(super) fn number(reader: &mut Reader<'_>, node: &Node) -> Option<f64> {
    reader.number(node)
}

pub(super) fn parsed<T: core::str::FromStr>(reader: &mut Reader<'_>, node: &Node, what: &str) -> Option<T> {
    let text = reader.string(node)?;
    text.parse().ok().or_else(|| reader.fail(format!("is {text:?}; write {what}")))
}

pub(super) fn country(reader: &mut Reader<'_>, node: &Node) -> Option<CountryCode> {
    let text = reader.string(node)?;
    CountryCode::parse(text).or_else(|| reader.fail(format!("is {text:?}{}", not_a_country(text))))
}

/// The end of a sentence about a text that stands in the place of a country's code: what to write instead.
fn not_a_country(text: &str) -> String {
    let upper = text.to_ascii_uppercase();
    if CountryCode::parse(&upper).is_some() {
        return format!("; write the code in upper case: \"{upper}\"");
    }
    match geo::non_country(&upper) {
        Some(NonCountry { about, stands_for: Some(code), .. }) => format!(", which {about}; write {code:?}"),
        Some(NonCountry { about, .. }) => {
            format!(", which {about}; write a country's ISO 3166-1 code, or leave it out: who has none is \"unknown\"")
        }
        None => "; write an ISO 3166-1 alpha-2 code such as \"DE\"".to_owned(),
    }
}

/// Reads coordinates.
pub(super) fn location(reader: &mut Reader<'_>, node: &Node) -> Option<Coordinates> {
    let mut fields = reader.object(node)?;
    let latitude = fields.required("latitude", "degrees north, from -90 to 90", number);
    let longitude = fields.required("longitude", "degrees east, from -180 to 180", number);
    let place = match (latitude, longitude) {
        (Some(latitude), Some(longitude)) => Coordinates::from_degrees(latitude, longitude).or_else(|| {
            fields.fail(format!("is {latitude}, {longitude}; write a latitude within ±90 and a longitude within ±180"))
        }),
        _ => None,
    };
    fields.finish();
    place
}

pub(super) fn host_name(reader: &mut Reader<'_>, node: &Node) -> Option<HostName> {
    let text = reader.string(node)?;
    HostName::parse(text).or_else(|| {
        reader.fail(format!("is {text:?}, which is no host name; write one such as \"chat.ai.example.com\""))
    })
}

/// A host name that is steered, or a wildcard.
pub(super) fn steered_host(reader: &mut Reader<'_>, node: &Node) -> Option<SteeredHost> {
    let text = reader.string(node)?;
    SteeredHost::parse(text).or_else(|| reader.fail(SteeredHost::problem(text)))
}

pub(super) fn http_url(reader: &mut Reader<'_>, node: &Node) -> Option<HttpUrl> {
    let text = reader.string(node)?;
    HttpUrl::parse(text).map_or_else(|message| reader.fail(message), Some)
}

pub(super) fn secret_name(reader: &mut Reader<'_>, node: &Node) -> Option<SecretName> {
    let text = reader.string(node)?;
    // The message doesn't repeat the text: somebody may have put the secret itself there.
    SecretName::parse(text)
        .or_else(|| reader.fail("is not the name of a secret; write a name such as \"FRA_KEY\", never the value"))
}

/// Reads a duration within a range.
pub(super) fn duration(
    reader: &mut Reader<'_>,
    node: &Node,
    range: core::ops::RangeInclusive<Millis>,
) -> Option<Millis> {
    let (low, high) = (range.start(), range.end());
    let Node::String(text) = node else {
        return reader.expected("a duration such as \"5s\"", node);
    };
    match Millis::parse(text) {
        Some(span) if range.contains(&span) => Some(span),
        Some(_) => reader.fail(format!("is {text:?}; write a duration from \"{low}\" to \"{high}\"")),
        None => {
            reader.fail(format!("is {text:?}; write a duration such as \"500ms\", \"5s\", \"2m\", \"1h\" or \"1d\""))
        }
    }
}

/// Reads one of these words.
pub(super) fn one_of<T: Copy>(reader: &mut Reader<'_>, node: &Node, choices: &[(&str, T)]) -> Option<T> {
    let text = reader.string(node)?;
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
        return Some(*value);
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    reader.fail(format!("is {text:?}; write one of {names:?}"))
}

/// A non-empty list whose items differ.
pub(super) fn distinct<T: PartialEq>(
    reader: &mut Reader<'_>,
    node: &Node,
    mut item: impl FnMut(&mut Reader<'_>, &Node) -> Option<T>,
) -> Option<Vec<T>> {
    let mut known: Vec<Node> = Vec::new();
    reader.filled_list(node, |reader, node| {
        if known.contains(node) {
            return reader.fail("stands twice in the list; keep one");
        }
        known.push(node.clone());
        item(reader, node)
    })
}

/// Takes a value that may stand only once in the whole document; refuses it the second time.
pub(super) fn once<K: Hash + Eq + Clone>(
    reader: &mut Reader<'_>,
    key: K,
    known: &mut HashMap<K, String>,
    problem: &str,
) -> Option<K> {
    let here = reader.place().to_owned();
    match known.get(&key) {
        Some(first) => reader.fail(format!("{problem} (first at {first}); keep one")),
        None => {
            known.insert(key.clone(), here);
            Some(key)
        }
    }
}

/// A reference to something that the document declares, by its name.
pub(super) fn reference<T>(
    reader: &mut Reader<'_>,
    node: &Node,
    kind: &str,
    names: &[String],
    parse: fn(&str) -> Option<T>,
) -> Option<T> {
    let text = reader.string(node)?;
    if names.iter().any(|name| name == text) {
        return parse(text); // a bad name is noted where it is declared
    }
    reader.fail(format!("names the {kind} {text:?}, which isn't declared{}", declared(text, names)))
}

/// The end of a sentence about a name that isn't declared: the most similar name that is, or all names if they are few.
pub(super) fn declared(text: &str, names: &[String]) -> String {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    match (nearest(text, &names), &names[..]) {
        (Some(name), _) => format!("; did you mean {name:?}?"),
        (None, []) => "; none is declared, so declare it first".to_owned(),
        (None, names) if names.len() <= 8 => format!("; declare it, or name one of {names:?}"),
        (None, _) => "; declare it first".to_owned(),
    }
}
