//! Makes the JSON pointer (RFC 6901) of a position in a JSON text. Called by `field` for a value that is refused, and
//! by `models` for models below the top level.

use crate::decide::json::{InvalidJson, Kind, Scan};

/// The longest part of a client's key in a pointer, in characters.
const LONGEST_KEY: usize = 64;

/// The pointer of the innermost value at the byte `at`. The text is known to be JSON.
pub(super) fn pointer(text: &str, at: usize) -> String {
    let mut out = String::new();
    let _ = descend(&mut Scan::new(text), at, &mut out);
    out
}

/// Writes the path from this value to the value at the offset `at`.
fn descend(scan: &mut Scan<'_>, at: usize, out: &mut String) -> Result<(), InvalidJson> {
    let mut index = 0;
    match scan.kind()? {
        Kind::Object => scan.object(|key, value| step(value, at, out, || escaped(&key))),
        Kind::Array => scan.array(|item| {
            index += 1;
            step(item, at, out, || (index - 1).to_string())
        }),
        _ => scan.skip().map(drop),
    }
}

/// Writes the name of a member, and descends into it, if it holds the offset `at`.
fn step(value: &mut Scan<'_>, at: usize, out: &mut String, name: impl FnOnce() -> String) -> Result<(), InvalidJson> {
    value.kind()?;
    let mut inner = value.clone();
    if !value.skip()?.contains(&at) {
        return Ok(());
    }
    out.push('/');
    out.push_str(&name());
    descend(&mut inner, at, out)
}

/// A key as a part of a pointer, with `~` and `/` escaped (RFC 6901 §3).
fn escaped(key: &str) -> String {
    key.chars().take(LONGEST_KEY).collect::<String>().replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_has_its_pointer() {
        let text = r#"{"a":[1,{"b/~":"x"}], "c\u0064":{"e":null}}"#;
        let at = |needle: &str| pointer(text, text.find(needle).unwrap());
        assert_eq!(at("[1"), "/a");
        assert_eq!(at("1,"), "/a/0");
        assert_eq!(at("\"x\""), "/a/1/b~1~0");
        assert_eq!(at("null"), "/cd/e");
        assert_eq!(pointer(text, 10_000), "");
    }
}
