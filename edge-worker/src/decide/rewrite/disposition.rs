//! Rewrites the `Content-Disposition` of a stored file. Takes the value that the endpoint sent; returns it with the
//! client's ids in the file's name. Called by `proxy`. The file name of a batch's output holds an id of the endpoint,
//! such as `batch_68af4030…_output.jsonl`. The client knows the object by a sealed id instead: the endpoint's id with a
//! proof of its owner.

/// A text counts as an endpoint's id if it has at least this many characters after one of the [`BEGINNINGS`]. OpenAI's
/// ids have at least 22 characters there.
const SHORTEST: usize = 20;
/// How the ids begin that occur in names of files.
const BEGINNINGS: &[&str] = &["batch", "file"];

/// Returns the header's value with the client's ids. `file_id` is the id of the file at the endpoint. `seal` returns
/// the client's id for an endpoint's id, or `None` if it can't be sealed.
#[must_use]
pub(crate) fn with_sealed_ids(value: &str, file_id: &str, seal: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(value.len() + 64);
    let mut rest = value;
    while !rest.is_empty() {
        let starts_word = !out.ends_with(|c: char| c.is_ascii_alphanumeric());
        let length = if starts_word { id_at(rest, file_id) } else { None };
        let sealed = length.and_then(|length| Some((rest.get(..length)?, rest.get(length..)?)));
        if let Some((id, after)) = sealed {
            // If the endpoint's id can't be sealed, the client sees the word `file` in its place.
            out.push_str(&seal(id).unwrap_or_else(|| "file".to_owned()));
            rest = after;
            continue;
        }
        let mut characters = rest.chars();
        out.extend(characters.next());
        rest = characters.as_str();
    }
    out
}

/// The length in bytes of the id that `text` begins with; `None` if it doesn't begin with an id.
fn id_at(text: &str, file_id: &str) -> Option<usize> {
    let ends = |length: usize| !text[length..].starts_with(|c: char| c.is_ascii_alphanumeric());
    if !file_id.is_empty() && text.starts_with(file_id) && ends(file_id.len()) {
        return Some(file_id.len());
    }
    let beginning = BEGINNINGS.iter().find(|beginning| text.starts_with(**beginning))?;
    let rest = text[beginning.len()..].strip_prefix(['-', '_'])?;
    let whole = |length: usize| beginning.len() + 1 + length;
    if is_uuid(rest) {
        return Some(whole(36)).filter(|length| ends(*length));
    }
    let length = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
    let is_id = length >= SHORTEST && rest[..length].contains(|c: char| c.is_ascii_digit());
    is_id.then(|| whole(length))
}

/// Whether a text begins with a UUID, like Azure's ids.
fn is_uuid(text: &str) -> bool {
    let fits = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    text.len() >= 36 && text.bytes().take(36).enumerate().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renamed(value: &str) -> String {
        with_sealed_ids(value, "file-9", |id| Some(format!("<{}>", id.len())))
    }

    #[test]
    fn ids_of_the_endpoint_become_the_clients() {
        let batch = "batch_68af4030baa48193b0b43b4c2a176a1a";
        let azure = "file-01234567-89ab-cdef-0123-456789abcdef";
        for (value, expected) in [
            (format!("attachment; filename=\"{batch}_output.jsonl\""), "attachment; filename=\"<38>_output.jsonl\""),
            (
                format!("attachment; filename={batch}.jsonl; filename*=UTF-8''{batch}.jsonl"),
                "attachment; filename=<38>.jsonl; filename*=UTF-8''<38>.jsonl",
            ),
            ("attachment; filename=\"file-9\"".to_owned(), "attachment; filename=\"<6>\""),
            (format!("attachment; filename={azure}"), "attachment; filename=<41>"),
            (format!("inline; filename=\"output_{batch}\""), "inline; filename=\"output_<38>\""),
        ] {
            assert_eq!(renamed(&value), expected);
        }
    }

    #[test]
    fn names_that_people_gave_stay() {
        for name in [
            "batch_of_invoices_2026.jsonl",
            "file-report.pdf",
            "file-99",
            "profile-9",
            "batch_abcdefghijklmnopqrstuvwxyz",
            "Gespräch batch.mp3",
            "file-01234567-89ab-cdef",
            "",
        ] {
            let value = format!("attachment; filename=\"{name}\"");
            assert_eq!(renamed(&value), value);
        }
    }

    #[test]
    fn ids_that_cannot_be_sealed_are_not_shown() {
        assert_eq!(with_sealed_ids("filename=file-9", "file-9", |_| None), "filename=file");
    }
}
