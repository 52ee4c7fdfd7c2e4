//! The headers of a request or an answer, stored as one text: a line for each name, followed by a line for its value.
//! In this form headers cross between Wasm and JavaScript. A request has dozens of headers, and a string for each would
//! cost more than all other work on them.

/// Headers in order. The methods compare names exactly, and the runtime gives names in lower case.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Headers {
    text: String,
    /// The offsets in `text` where each header's name ends, and where its value ends. A line break stands at each
    /// offset.
    ends: Vec<(usize, usize)>,
}

impl Headers {
    /// Reads headers from the text that crossed from JavaScript. An incomplete pair of lines at the end is left out.
    #[must_use]
    pub(crate) fn read(mut text: String) -> Self {
        let mut ends = Vec::with_capacity(16);
        let mut lines = memchr::memchr_iter(b'\n', text.as_bytes());
        while let (Some(name), Some(value)) = (lines.next(), lines.next()) {
            ends.push((name, value));
        }
        text.truncate(ends.last().map_or(0, |(_, end)| end + 1));
        Self { text, ends }
    }

    /// All headers as the text that crosses to JavaScript.
    #[must_use]
    pub(crate) fn as_text(&self) -> &str {
        &self.text
    }

    /// Names and values, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let starts = core::iter::once(0).chain(self.ends.iter().map(|(_, end)| end + 1));
        starts.zip(&self.ends).map(|(start, (name, value))| (&self.text[start..*name], &self.text[name + 1..*value]))
    }

    /// The value of the first header of this name.
    #[must_use]
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Adds a header. A header that HTTP can't carry is left out: the request shouldn't fail because of it, and a line
    /// break in it would make another header.
    pub(crate) fn push(&mut self, name: &str, value: &str) {
        if !is_writable(value) || name.contains('\n') {
            return;
        }
        if self.ends.is_empty() {
            self.ends.reserve(16);
            self.text.reserve(512);
        }
        self.text.push_str(name);
        let end_of_name = self.text.len();
        self.text.push('\n');
        self.text.push_str(value);
        self.ends.push((end_of_name, self.text.len()));
        self.text.push('\n');
    }

    /// Sets a header, and removes others of this name.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.push(name, value);
    }

    /// Removes all headers of this name.
    pub(crate) fn remove(&mut self, name: &str) {
        if self.get(name).is_some() {
            *self = self.iter().filter(|(key, _)| *key != name).collect();
        }
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut headers = Self::default();
        pairs.into_iter().for_each(|(name, value)| headers.push(name.as_ref(), value.as_ref()));
        headers
    }
}

/// Whether a header may have this value (RFC 9110 §5.5). The runtime writes one byte for each character.
fn is_writable(value: &str) -> bool {
    value.chars().all(|c| c == '\t' || !c.is_control() && c <= '\u{ff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(headers: &Headers) -> Vec<(&str, &str)> {
        headers.iter().collect()
    }

    #[test]
    fn headers_cross_as_lines() {
        let headers = Headers::from_iter([("accept", "*/*"), ("x-empty", ""), ("x-latin", "\u{e9}")]);
        assert_eq!(headers.as_text(), "accept\n*/*\nx-empty\n\nx-latin\n\u{e9}\n");
        let read = Headers::read(headers.as_text().to_owned());
        assert_eq!((&read, pairs(&read).len()), (&headers, 3));
        assert_eq!((read.get("x-empty"), read.get("x-none")), (Some(""), None));
    }

    #[test]
    fn what_is_no_pair_of_lines_is_left_out() {
        for text in ["", "a", "a\n", "a\nb"] {
            assert_eq!(Headers::read(text.to_owned()), Headers::default(), "{text:?}");
        }
        let mut cut = Headers::read("a\nb\nc".to_owned());
        cut.push("d", "e");
        assert_eq!(pairs(&cut), [("a", "b"), ("d", "e")]);
    }

    #[test]
    fn no_value_makes_another_header() {
        for value in ["a\nset-cookie\nx", "a\r", "\0", "\u{7f}", "\u{85}", "\u{100}", "\u{2028}"] {
            assert_eq!(Headers::from_iter([("x", value)]), Headers::default(), "{value:?}");
        }
        assert_eq!(Headers::from_iter([("x\ny", "z")]), Headers::default());
        assert_eq!(Headers::from_iter([("x", "a\tb")]).get("x"), Some("a\tb"));
    }

    #[test]
    fn one_that_is_set_stands_once_and_last() {
        let mut headers = Headers::from_iter([("a", "1"), ("b", "2"), ("a", "3")]);
        headers.set("a", "4");
        assert_eq!(pairs(&headers), [("b", "2"), ("a", "4")]);
        headers.remove("b");
        headers.remove("c");
        assert_eq!(pairs(&headers), [("a", "4")]);
    }
}
