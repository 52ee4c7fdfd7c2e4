//! Parses metrics pages. Takes the names of the wanted series and the bytes of a page in pieces; returns the samples of
//! these series. Called by [`super::engine`].
//!
//! The parser understands Prometheus's text format 0.0.4 and OpenMetrics 1.0. A page comes from another program and may
//! hold any bytes. So every length is bounded. An invalid line of a wanted series makes the whole page invalid; other
//! lines are skipped without a check.

use core::fmt;

/// The most bytes of a page that are read.
pub const MAX_PAGE: usize = 4 << 20;
/// The longest line, in bytes.
const MAX_LINE: usize = 64 << 10;
/// The most samples of wanted series.
const MAX_SAMPLES: usize = 4_096;

/// One sample of a page.
#[derive(Clone, PartialEq, Debug)]
pub struct Sample {
    /// The index of the sample's series in the wanted names.
    pub name: usize,
    /// The labels, sorted by name.
    pub labels: Vec<(String, String)>,
    /// The value, which may be NaN, infinite or negative.
    pub value: f64,
}

impl Sample {
    /// The value of a label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.as_str())
    }
}

/// Why a page isn't used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageError {
    /// The page has more than [`MAX_PAGE`] bytes.
    TooLong,
    /// A line is longer than the limit of 64 KiB.
    LongLine,
    /// The page has more samples of the wanted series than the limit of 4,096.
    TooMany,
    /// The line with this number, counted from 1, holds a wanted series and is invalid.
    Line(usize),
    /// The page has no valid end, so a part of it is missing.
    Cut,
}

impl fmt::Display for PageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "the page is longer than {} MiB; scrape one with fewer series", MAX_PAGE >> 20),
            Self::LongLine => write!(f, "a line is longer than {} KiB, so this is no metrics page", MAX_LINE >> 10),
            Self::TooMany => write!(f, "the page has more than {MAX_SAMPLES} samples of the series that are read"),
            Self::Line(number) => write!(f, "line {number} of the page is no sample of the Prometheus text format"),
            Self::Cut => f.write_str("the page ends in the middle; the rest of it is missing"),
        }
    }
}

/// Parses one page, piece by piece.
///
/// ```
/// use bailiwick_rules::load::Page;
/// let mut page = Page::new(vec!["queue".to_owned()]);
/// page.push(b"# TYPE queue gauge\nqueue{pool=\"a \\\"b\\\"\"} 3 1700000000").unwrap();
/// page.push(b"000\nother 7\n").unwrap();
/// let samples = page.finish(false).unwrap();
/// assert_eq!((samples[0].label("pool"), samples[0].value), (Some("a \"b\""), 3.0));
/// ```
#[derive(Clone, Debug)]
pub struct Page {
    names: Vec<String>,
    samples: Vec<Sample>,
    /// The beginning of a line whose end hasn't arrived yet.
    line: Vec<u8>,
    /// How many lines have ended.
    lines: usize,
    /// How many bytes were taken.
    bytes: usize,
    /// Whether the last line was OpenMetrics' `# EOF`.
    ended: bool,
}

impl Page {
    /// Starts to parse a page. The series with exactly these names are wanted.
    #[must_use]
    pub fn new(names: Vec<String>) -> Self {
        Self { names, samples: Vec::new(), line: Vec::new(), lines: 0, bytes: 0, ended: false }
    }

    /// The names of the wanted series.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Takes the next piece of the page.
    ///
    /// # Errors
    /// When the page can't be used. The caller needn't read the rest of the page then.
    pub fn push(&mut self, mut piece: &[u8]) -> Result<(), PageError> {
        self.bytes = self.bytes.saturating_add(piece.len());
        if self.bytes > MAX_PAGE {
            return Err(PageError::TooLong);
        }
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            let (head, rest) = piece.split_at(end);
            piece = rest.get(1..).unwrap_or_default();
            if self.line.len() + head.len() > MAX_LINE {
                return Err(PageError::LongLine);
            }
            if self.line.is_empty() {
                self.end_line(head)?;
            } else {
                let mut line = core::mem::take(&mut self.line);
                line.extend_from_slice(head);
                self.end_line(&line)?;
            }
        }
        if self.line.len() + piece.len() > MAX_LINE {
            return Err(PageError::LongLine);
        }
        self.line.extend_from_slice(piece);
        Ok(())
    }

    /// Ends the page and returns the samples. An OpenMetrics page has to end with `# EOF`, every other page with a
    /// complete line.
    ///
    /// # Errors
    /// When the end of the page is missing.
    pub fn finish(self, is_open_metrics: bool) -> Result<Vec<Sample>, PageError> {
        // In OpenMetrics the last line needs no line feed.
        let is_complete = if self.line.is_empty() { self.ended || !is_open_metrics } else { self.line == b"# EOF" };
        if is_complete { Ok(self.samples) } else { Err(PageError::Cut) }
    }

    /// Parses a complete line.
    fn end_line(&mut self, line: &[u8]) -> Result<(), PageError> {
        self.lines += 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.ended = line == b"# EOF";
        if matches!(line.first(), None | Some(b'#')) {
            return Ok(());
        }
        let Some(name) = self.wanted(line) else { return Ok(()) };
        let sample = core::str::from_utf8(line).ok().and_then(|line| Line(line).sample(name));
        let sample = sample.ok_or(PageError::Line(self.lines))?;
        if self.samples.len() == MAX_SAMPLES {
            return Err(PageError::TooMany);
        }
        self.samples.push(sample);
        Ok(())
    }

    /// The index of the wanted name that the line's series has; `None` for other series.
    fn wanted(&self, line: &[u8]) -> Option<usize> {
        let line = line.trim_ascii_start();
        let (rest, ends): (&[u8], &[u8]) = match line.strip_prefix(b"{") {
            // Prometheus 3 writes a name with unusual characters in quotes: {"a name", label="value"} 1
            Some(quoted) => (quoted.trim_ascii_start().strip_prefix(b"\"")?, b"\""),
            None => (line, b"{ \t"),
        };
        let is_name = |name: &String| {
            rest.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first().is_none_or(|byte| ends.contains(byte)))
        };
        self.names.iter().position(is_name)
    }
}

/// The part of a line that isn't parsed yet.
struct Line<'l>(&'l str);

impl Line<'_> {
    /// Parses the line as a sample of the wanted series with this index; `None` if the line is invalid.
    fn sample(mut self, name: usize) -> Option<Sample> {
        self.blanks();
        let is_quoted = self.0.starts_with('{');
        if !is_quoted {
            let end = self.0.find(['{', ' ', '\t'])?;
            self.0 = &self.0[end..];
            self.blanks();
        }
        let mut labels = if self.takes('{') { self.labels(is_quoted)? } else { Vec::new() };
        labels.sort_unstable();
        if labels.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return None;
        }
        let value = number(self.word()?)?;
        // A timestamp may follow, and in OpenMetrics an exemplar.
        let is_valid_end = match self.word() {
            None => true,
            Some(word) if word.starts_with('#') => true,
            Some(word) => number(word).is_some() && self.word().is_none_or(|word| word.starts_with('#')),
        };
        is_valid_end.then_some(Sample { name, labels, value })
    }

    /// Parses the labels up to the closing brace. With `name_first` the series' name is the first item in the braces.
    fn labels(&mut self, name_first: bool) -> Option<Vec<(String, String)>> {
        let mut labels = Vec::new();
        self.blanks();
        if name_first {
            self.takes('"').then_some(())?;
            self.quoted()?;
            self.blanks();
            if self.takes('}') {
                return Some(labels);
            }
            self.takes(',').then_some(())?;
            self.blanks();
        }
        while !self.takes('}') {
            let name = if self.takes('"') { self.quoted()? } else { self.label_name()? };
            self.blanks();
            self.takes('=').then_some(())?;
            self.blanks();
            self.takes('"').then_some(())?;
            labels.push((name, self.quoted()?));
            self.blanks();
            // The formats allow a comma after the last label.
            if !self.takes(',') {
                return self.takes('}').then_some(labels);
            }
            self.blanks();
        }
        Some(labels)
    }

    /// Parses a label's name that isn't in quotes.
    fn label_name(&mut self) -> Option<String> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':' || c == '.';
        let end = self.0.find(|c| !is_part(c)).filter(|end| *end > 0)?;
        let (name, rest) = self.0.split_at(end);
        self.0 = rest;
        Some(name.to_owned())
    }

    /// Parses a quoted text after its opening quote. The escapes are `\\`, `\"` and `\n`.
    fn quoted(&mut self) -> Option<String> {
        let mut text = String::new();
        let mut chars = self.0.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.0 = &self.0[at + 1..];
                    return Some(text);
                }
                '\\' => match chars.next()?.1 {
                    'n' => text.push('\n'),
                    escaped @ ('"' | '\\') => text.push(escaped),
                    other => text.extend(['\\', other]),
                },
                c => text.push(c),
            }
        }
        None
    }

    /// Skips blanks.
    fn blanks(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t']);
    }

    /// Skips this character; false if the next character is another one.
    fn takes(&mut self, c: char) -> bool {
        match self.0.strip_prefix(c) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    /// The next word, without the blanks around the word; `None` at the end of the line.
    fn word(&mut self) -> Option<&str> {
        self.blanks();
        let end = self.0.find([' ', '\t']).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }
}

/// Parses a number as Go and C write numbers, including `+Inf` and `NaN`.
fn number(word: &str) -> Option<f64> {
    word.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> Result<Vec<Sample>, PageError> {
        let mut page = Page::new(vec!["queue".to_owned(), "kv:use".to_owned()]);
        page.push(text)?;
        page.finish(false)
    }

    /// Value and labels of the sample in a line; `None` without a valid sample of a wanted series.
    fn sample(line: &str) -> Option<(f64, Vec<(String, String)>)> {
        let mut samples = read(format!("{line}\n").as_bytes()).ok()?;
        assert!(samples.len() < 2, "{line}");
        samples.pop().map(|found| (found.value, found.labels))
    }

    fn labels(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn series_are_found_by_their_exact_names() {
        let page = "# HELP queue Requests\n# TYPE queue gauge\n\nqueue 1\nqueue_total 2\nqueue:x 3\nqueu 4\n\
                    my_queue 5\nkv:use{a=\"b\"} 0.5\n# queue 6\nqueue_created 1.7e9\n";
        let samples = read(page.as_bytes()).unwrap();
        let found: Vec<_> = samples.iter().map(|sample| (sample.name, sample.value)).collect();
        assert_eq!(found, [(0, 1.0), (1, 0.5)]);
    }

    #[test]
    fn labels_may_hold_quotes_line_feeds_braces_and_commas() {
        let line = r#"queue{a="say \"hi\"",b="one\ntwo",c="x} 9",d="a,b=c",e="back\\slash",f="\d",} 7"#;
        let expected =
            [("a", "say \"hi\""), ("b", "one\ntwo"), ("c", "x} 9"), ("d", "a,b=c"), ("e", "back\\slash"), ("f", "\\d")];
        assert_eq!(sample(line), Some((7.0, labels(&expected))));
        assert_eq!(sample("queue { b = \"2\" , a=\"1\" }\t7"), Some((7.0, labels(&[("a", "1"), ("b", "2")]))));
        assert_eq!(sample(r#"{"queue", "a b"="1"} 7"#), Some((7.0, labels(&[("a b", "1")]))));
        assert_eq!(sample(r#"{ "kv:use" } 7"#), Some((7.0, Vec::new())));
        assert_eq!(sample(r#"{"other"} 7"#), None);
    }

    #[test]
    fn values_time_stamps_and_exemplars_are_read() {
        for (text, value) in [
            ("1", 1.0),
            ("+Inf", f64::INFINITY),
            ("-Inf", f64::NEG_INFINITY),
            ("-3.5e-2", -0.035),
            ("2 1700000000000", 2.0),
        ] {
            assert_eq!(sample(&format!("queue {text}")), Some((value, Vec::new())), "{text}");
        }
        assert!(sample("queue NaN").unwrap().0.is_nan());
        assert_eq!(sample("queue{} 5 # {trace=\"a b\"} 0.67 1.5").unwrap().0, 5.0);
        assert_eq!(sample("queue 5 1.5 # {} 1").unwrap().0, 5.0);
        assert_eq!(sample("queue 5\r").unwrap().0, 5.0);
    }

    #[test]
    fn an_invalid_line_of_a_wanted_series_makes_the_page_invalid() {
        for bad in [
            "queue",
            "queue{a=\"1\"}",
            "queue{a=\"1} 2",
            "queue{a=1} 2",
            "queue{a} 2",
            "queue{\"a\"} 2",
            "queue{a=\"1\"b=\"2\"} 2",
            "queue{a=\"1\",a=\"2\"} 2",
            "queue{,} 2",
            "queue two",
            "queue 0x10",
            "queue 1 yesterday",
            "queue 1 2 3",
            "queue{a=\"\\",
            "queue {",
        ] {
            let page = format!("other {{ broken\n{bad}\n");
            assert_eq!(read(page.as_bytes()), Err(PageError::Line(2)), "{bad}");
        }
        assert_eq!(read(b"queue{a=\"\xff\"} 1\n"), Err(PageError::Line(1)));
        assert_eq!(read(b"\xff\xfe other\n{ 3\n{\"\n").unwrap(), [], "invalid lines of other series are skipped");
    }

    #[test]
    fn a_page_without_a_valid_end_is_an_error() {
        assert_eq!(read(b"queue 1\nqueue 1"), Err(PageError::Cut));
        assert_eq!(read(b""), Ok(Vec::new()));
        let samples_of_open_metrics = |text: &[u8]| {
            let mut page = Page::new(vec!["queue".to_owned()]);
            page.push(text)?;
            page.finish(true).map(|samples| samples.len())
        };
        assert_eq!(samples_of_open_metrics(b"queue 1\n"), Err(PageError::Cut));
        assert_eq!(
            (samples_of_open_metrics(b"queue 1\n# EOF\n"), samples_of_open_metrics(b"queue 1\n# EOF")),
            (Ok(1), Ok(1))
        );
        assert_eq!(samples_of_open_metrics(b"# EOF\nqueue 1\n"), Err(PageError::Cut));
    }

    #[test]
    fn lengths_are_bounded() {
        let mut page = Page::new(vec!["queue".to_owned()]);
        let line = [b"x".repeat(MAX_LINE), b"\n".to_vec()].concat();
        let taken = (0..1_000).take_while(|_| page.push(&line).is_ok()).count();
        assert_eq!(taken, MAX_PAGE / line.len());
        assert_eq!(page.push(b"\n"), Err(PageError::TooLong));
        let endless = |piece: &[u8]| {
            let mut page = Page::new(Vec::new());
            (0..1_000_000).find_map(|_| page.push(piece).err())
        };
        assert_eq!(endless(b"no line feed "), Some(PageError::LongLine));
        assert_eq!(endless(&b"x".repeat(MAX_LINE + 1)), Some(PageError::LongLine));
        assert_eq!(read("queue 1\n".repeat(MAX_SAMPLES + 1).as_bytes()), Err(PageError::TooMany));
    }

    proptest! {
        /// 256 random cases.
        #[test]
        fn any_labels_are_read_as_they_were_written(
            pairs in prop::collection::btree_map("[a-z_]{1,8}", ".{0,12}", 0..5), value in any::<f64>()
        ) {
            let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let written: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
            let read = sample(&format!("queue{{{}}} {value:e}", written.join(","))).expect("a valid line");
            prop_assert_eq!(read.1, pairs.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(read.0.to_bits(), value.to_bits());
        }

        /// 256 random cases, each in pieces of every length from 1 to 9.
        #[test]
        fn how_a_page_is_cut_into_pieces_does_not_matter(
            page in prop::collection::vec(prop_oneof![
                Just(b"queue".to_vec()), Just(b"{a=\"b\"}".to_vec()), Just(b" 1".to_vec()), Just(b"\n".to_vec()),
                Just(b"# EOF\n".to_vec()), prop::collection::vec(any::<u8>(), 0..4),
            ], 0..20).prop_map(|parts| parts.concat())
        ) {
            let whole = read(&page);
            for length in 1..10 {
                let mut pieces = Page::new(vec!["queue".to_owned(), "kv:use".to_owned()]);
                let pushed = page.chunks(length).try_for_each(|piece| pieces.push(piece));
                prop_assert_eq!(pushed.and_then(|()| pieces.finish(false)).map(|all| format!("{all:?}")),
                    whole.clone().map(|all| format!("{all:?}")));
            }
        }
    }
}
