//! Splits a master file into entries. Takes the text, returns the entries as tokens with their lines (RFC 1035 §5.1).
//! Called by `file`. Each entry is read on its own, so that one bad entry doesn't affect the others.

/// A directive or record: everything up to a line end outside parentheses.
#[derive(Debug)]
pub(super) struct Entry<'t> {
    /// The line on which the entry begins.
    pub(super) line: u32,
    /// Whether the entry begins with blank space. Then it has the owner of the entry before it.
    pub(super) indented: bool,
    /// The tokens; there is at least one.
    pub(super) tokens: Vec<Token<'t>>,
}

/// A run of characters, or a quoted string with its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'t> {
    /// The text as written.
    pub(super) text: &'t [u8],
    /// Whether the token follows the previous token without a space, as in `alpn="h2"`.
    pub(super) glued: bool,
}

/// Splits a file into entries.
pub(super) struct Lexer<'t> {
    text: &'t [u8],
    at: usize,
    line: u32,
    /// How many parentheses were open at the end of the file.
    unclosed: u32,
}

/// The line and the message of a mistake in an entry.
pub(super) type LexError = (u32, String);

/// The most parentheses without an end. After these, the rest of the file isn't read. Each costs a pass over the rest.
const MAX_UNCLOSED: u32 = 16;

impl<'t> Lexer<'t> {
    /// Prepares to split `text`.
    pub(super) fn new(text: &'t [u8]) -> Self {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        Self { text, at: 0, line: 1, unclosed: 0 }
    }

    fn skip_line(&mut self) {
        while let Some(&byte) = self.text.get(self.at)
            && byte != b'\n'
        {
            self.at += 1;
        }
    }

    /// Reads the entry at the current position; `None` if it is empty.
    fn entry(&mut self) -> Result<Option<Entry<'t>>, LexError> {
        let mut entry = Entry {
            line: self.line,
            indented: matches!(self.text.get(self.at), Some(b' ' | b'\t')),
            tokens: Vec::new(),
        };
        let mut open: Vec<(usize, u32)> = Vec::new();
        let mut glued = false;
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\r' => {
                    self.at += 1;
                    glued = false;
                }
                b'\n' => {
                    self.at += 1;
                    self.line += 1;
                    glued = false;
                    if open.is_empty() {
                        return Ok((!entry.tokens.is_empty()).then_some(entry));
                    }
                }
                b';' => self.skip_line(),
                b'(' => {
                    open.push((self.at, self.line));
                    self.at += 1;
                    glued = false;
                }
                b')' => {
                    if open.pop().is_none() {
                        let line = self.line;
                        self.skip_line();
                        return Err((line, "a closing parenthesis without an opening one; remove it".into()));
                    }
                    self.at += 1;
                    glued = false;
                }
                _ => {
                    if entry.tokens.is_empty() {
                        entry.line = self.line;
                    }
                    let text = if byte == b'"' { self.quoted()? } else { self.plain() };
                    entry.tokens.push(Token { text, glued });
                    glued = true;
                }
            }
        }
        let Some(&(at, line)) = open.first() else {
            return Ok((!entry.tokens.is_empty()).then_some(entry));
        };
        // Continues after the line of the parenthesis: the next lines are probably entries of their own.
        self.unclosed += 1;
        if self.unclosed < MAX_UNCLOSED {
            (self.at, self.line) = (at, line);
            self.skip_line();
        }
        Err((line, "the parenthesis opened here is never closed; add `)` at the end of the record".into()))
    }

    /// A quoted string, quotes included.
    fn quoted(&mut self) -> Result<&'t [u8], LexError> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.text.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(&self.text[start..self.at]);
                }
                Some(b'\\') if !matches!(self.text.get(self.at + 1), None | Some(b'\n')) => self.at += 2,
                None | Some(b'\n') => {
                    return Err((self.line, "the quote is not closed on its line; add the closing quote".into()));
                }
                Some(_) => self.at += 1,
            }
        }
    }

    /// A run of characters up to a space, quote, comment or parenthesis.
    fn plain(&mut self) -> &'t [u8] {
        let start = self.at;
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'(' | b')' | b'"' => break,
                b'\\' if !matches!(self.text.get(self.at + 1), None | Some(b'\n')) => self.at += 2,
                _ => self.at += 1,
            }
        }
        &self.text[start..self.at]
    }
}

impl<'t> Iterator for Lexer<'t> {
    type Item = Result<Entry<'t>, LexError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.text.len() {
            if let Some(item) = self.entry().transpose() {
                if item.is_err() {
                    self.skip_line();
                }
                return Some(item);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Line, indentation and tokens of an entry, or the line of an error.
    type Cut = Result<(u32, bool, Vec<&'static str>), u32>;

    fn cut(text: &str) -> Vec<Cut> {
        let text_of = |token: &Token<'_>| std::str::from_utf8(token.text).expect("text").to_string().leak() as &str;
        Lexer::new(text.as_bytes())
            .map(|entry| match entry {
                Ok(entry) => Ok((entry.line, entry.indented, entry.tokens.iter().map(text_of).collect())),
                Err((line, _)) => Err(line),
            })
            .collect()
    }

    #[test]
    fn rfc1035_5_1_parentheses_comments_and_quotes() {
        let entries = cut("a (b ; no )\n c) d\n\n ; nothing\n\te \"f ;(\\\" g\"\r\nk=\"v\"");
        assert_eq!(
            entries,
            [
                Ok((1, false, vec!["a", "b", "c", "d"])),
                Ok((5, true, vec!["e", "\"f ;(\\\" g\""])),
                Ok((6, false, vec!["k=", "\"v\""])),
            ]
        );
    }

    #[test]
    fn a_broken_entry_does_not_affect_other_entries() {
        assert_eq!(cut("a ) x\nd \"open\ne\n"), [Err(1), Err(2), Ok((3, false, vec!["e"]))]);
    }

    #[test]
    fn an_open_parenthesis_is_reported_at_its_line() {
        assert_eq!(cut("a 1\nb (\nc 2\n"), [Ok((1, false, vec!["a", "1"])), Err(2), Ok((3, false, vec!["c", "2"]))]);
    }
}
