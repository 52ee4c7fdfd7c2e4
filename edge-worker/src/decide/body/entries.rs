//! Takes a JSON object; returns its keys with the kinds and the ranges of their values. Also reads values of simple
//! types, and refuses keys that two JSON parsers could read differently. Called by `body`, `top_level` and `line`.

use core::ops::Range;
use std::borrow::Cow;
use std::collections::HashSet;

use crate::decide::envelope::Failure;
use crate::decide::json::{InvalidJson, Kind, Scan, known_as};

/// With at most this number of fields, duplicates are found by comparing each pair.
const FEW_FIELDS: usize = 32;

/// The longest name of a model, in bytes.
pub(super) const LONGEST_MODEL: usize = 256;

/// A top-level field: its key, and the kind and the range of its value.
pub(super) type Entry<'t> = (Cow<'t, str>, Kind, Range<usize>);

/// Reads an object up to the end of the text, and returns its entries. `read` is called for each value.
pub(super) fn entries<'t>(
    scan: &mut Scan<'t>,
    mut read: impl FnMut(&str, &mut Scan<'t>) -> Result<(), InvalidJson>,
) -> Result<Vec<Entry<'t>>, InvalidJson> {
    let mut entries: Vec<Entry<'t>> = Vec::new();
    scan.object(|key, value| {
        let (kind, start) = (value.kind()?, value.at());
        read(&key, value)?;
        entries.push((key, kind, start..value.at()));
        Ok(())
    })?;
    scan.end()?;
    Ok(entries)
}

/// Refuses duplicate keys, and keys that differ from a `deciding` key only in case. Two parsers could read such a body
/// differently.
pub(super) fn duplicates(entries: &[Entry<'_>], deciding: &[&'static str]) -> Result<(), Failure> {
    // Most bodies have few fields. Comparing each pair is faster than making a set.
    let mut seen = HashSet::new();
    for (i, (key, _, _)) in entries.iter().enumerate() {
        if let Some(known) = known_as(key, deciding).filter(|known| key != known) {
            return Err(Failure::MiscasedKey { key: known });
        }
        let is_new =
            if entries.len() <= FEW_FIELDS { !entries[..i].iter().any(|old| old.0 == *key) } else { seen.insert(key) };
        if !is_new {
            return Err(Failure::DuplicateKey { key: key.chars().take(LONGEST_MODEL).collect() });
        }
    }
    Ok(())
}

pub(crate) const NO_MODEL: Failure = Failure::BadField { field: "model", expected: "a string of 1 to 256 bytes" };

/// Checks the name of a model.
pub(crate) fn model_name(name: &str) -> Result<String, Failure> {
    if (1..=LONGEST_MODEL).contains(&name.len()) { Ok(name.to_owned()) } else { Err(NO_MODEL) }
}

pub(super) fn string(value: &str) -> Option<String> {
    Scan::new(value).string().ok().map(Cow::into_owned)
}

/// Reads a boolean; `null` is false. Some servers take `"true"` or `1` for `true`. Here these values are refused,
/// because the edge and such a server would read them differently.
pub(super) fn boolean(field: &'static str, kind: Kind) -> Result<bool, Failure> {
    match kind {
        Kind::True => Ok(true),
        Kind::False | Kind::Null => Ok(false),
        _ => Err(Failure::BadField { field, expected: "true or false" }),
    }
}
