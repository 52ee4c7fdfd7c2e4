//! Takes the text of a Rust file, returns its code without comments, literals and what only tests compile. Called by
//! [`super::modules`].

/// The code with a space in the place of each comment, and of what stands in a literal.
pub(super) fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let after_name = code.chars().next_back().is_some_and(is_of_name);
        let length = match letter {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => quoted(rest, '"'),
            '\'' => character(rest),
            'r' | 'b' if !after_name => literal_with_prefix(rest),
            _ => 0,
        };
        let taken = if length == 0 { letter.len_utf8() } else { length };
        code.push(if length == 0 { letter } else { ' ' });
        rest = &rest[taken..];
    }
    code
}

pub(super) fn is_of_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// The length of a literal that begins with this mark; `\` escapes.
fn quoted(text: &str, mark: char) -> usize {
    let mut escaped = true; // the mark itself
    for (at, letter) in text.char_indices() {
        if letter == mark && !escaped {
            return at + 1;
        }
        escaped = letter == '\\' && !escaped;
    }
    text.len()
}

/// The length of a character literal; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut letters = text.char_indices().skip(1);
    match (letters.next(), letters.next()) {
        (Some((_, '\\')), _) => quoted(text, '\''),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// The length of `b"…"`, `b'…'`, `r"…"`, `br#"…"#` and the like; 0 for a name.
fn literal_with_prefix(text: &str) -> usize {
    let prefix = text.len() - text.trim_start_matches(['b', 'r']).len();
    let rest = &text[prefix..];
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    match rest[hashes..].chars().next() {
        Some('"') if text[..prefix].contains('r') => {
            let start = prefix + hashes + 1;
            let end = format!("\"{}", "#".repeat(hashes));
            text[start..].find(&end).map_or(text.len(), |at| start + at + end.len())
        }
        Some('"') if hashes == 0 => prefix + quoted(rest, '"'),
        Some('\'') if hashes == 0 && prefix == 1 => prefix + character(rest),
        _ => 0,
    }
}

/// The code without the items that only tests compile, and the names of the modules among these.
pub(super) fn without_tests(code: &str) -> (String, Vec<String>) {
    let (mut kept, mut modules) = (String::with_capacity(code.len()), Vec::new());
    let mut rest = code;
    while let Some(start) = rest.find("#[cfg(") {
        let end = start + rest[start..].find(']').map_or(rest.len() - start, |end| end + 1);
        kept.push_str(&rest[..start]);
        let condition = &rest[start..end];
        rest = &rest[end..];
        let is_test = condition.split(|letter| !is_of_name(letter)).any(|word| word == "test");
        if !is_test || condition.contains("not(test") {
            continue;
        }
        let item = &rest[..item_length(rest)];
        let mut words = item.split(|letter| !is_of_name(letter)).filter(|word| !word.is_empty());
        if words.any(|word| word == "mod") {
            modules.extend(words.next().map(str::to_owned));
        }
        rest = &rest[item.len()..];
    }
    kept.push_str(rest);
    (kept, modules)
}

/// How long the item is that the code begins with: to its `;`, to the end of its block, or to the `,` of a field.
fn item_length(code: &str) -> usize {
    const ITEMS: [&str; 11] =
        ["fn", "impl", "mod", "struct", "enum", "const", "static", "type", "trait", "async", "use"];
    let item = code.split(|letter: char| !is_of_name(letter)).filter(|word| !word.is_empty());
    let (is_item, is_use) = item.take(4).fold((false, false), |(is_item, is_use), word| {
        (is_item || ITEMS.contains(&word), is_use || (word == "use" && !is_item))
    });
    let mut depth = 0_usize;
    for (at, letter) in code.char_indices() {
        match letter {
            '(' | '[' | '{' => depth += 1,
            '}' if depth == 1 && !is_use => return at + 1,
            ')' | ']' | '}' if depth == 0 => return at,
            ')' | ']' | '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            ',' if depth == 0 && !is_item => return at + 1,
            _ => {}
        }
    }
    code.len()
}

#[test]
fn comments_literals_and_tests_are_left_out() {
    let text = r##"use a; // crate::b
        const TEXT: &str = r#"crate::c " } "#; const ONE: [char; 2] = ['"', '\''];
        #[cfg(test)] use crate::d::{e, f};
        struct Key<'k> { #[cfg(test)] fails: crate::g::Flag, name: &'k str }
        #[cfg(any(test, feature = "testing"))] pub(crate) mod testing { fn go() { crate::h() } }
        #[cfg(not(test))] use crate::i;
        #[cfg(test)] mod tests;
        fn last() {}"##;
    let (kept, modules) = without_tests(&code(text));
    assert_eq!(modules, ["testing", "tests"]);
    assert_eq!(kept.matches("crate::").count(), 1, "{kept}");
    assert!(kept.contains("crate::i") && kept.contains("name: &'k str") && kept.ends_with("fn last() {}"), "{kept}");
}
