//! The lines of a batch's file enter, chunk by chunk; the same lines with each model by the other side's name leave. `upload` calls
//! it for what a batch asks, `proxy` for what came of it. No line is held.

use core::fmt;
use std::collections::BTreeMap;

use super::json::Json;
use super::{Names, Places};

/// What is wrong with a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wrong {
    /// It names a model that isn't in the map.
    Model {
        /// The line, from 1.
        line: u64,
        /// What it names.
        model: String,
    },
    /// It is no JSON object of one line.
    Broken {
        /// The line, from 1.
        line: u64,
    },
}

/// The lines of a file, on their way.
pub struct BatchLines {
    names: Names,
    json: Json,
    line: u64,
    /// Whether a model that isn't in the map is refused: what is asked. What comes back is passed as it is.
    is_closed: bool,
}

/// Without what passes.
impl fmt::Debug for BatchLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchLines").field("line", &self.line).finish_non_exhaustive()
    }
}

impl BatchLines {
    /// For what is asked of an endpoint: `models` has its names by the client's.
    #[must_use]
    pub fn to_endpoint(models: &BTreeMap<String, String>) -> Self {
        Self::new(models.iter(), true)
    }

    /// For what an endpoint answered.
    #[must_use]
    pub fn to_client(models: &BTreeMap<String, String>) -> Self {
        // Of two names for one model the first stands for it.
        Self::new(models.iter().rev().map(|(ours, theirs)| (theirs, ours)), false)
    }

    fn new<'m>(pairs: impl Iterator<Item = (&'m String, &'m String)>, is_closed: bool) -> Self {
        let names = Names::translated(pairs, Places::Lines, None);
        let json = if is_closed { Json::keeping_numbers() } else { Json::default() };
        Self { names, json, line: 1, is_closed }
    }

    /// Whether any name was replaced by another one.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.json.has_changed()
    }

    /// The next bytes.
    ///
    /// # Errors
    /// If a line isn't what it has to be: only of what is asked.
    pub fn pass(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Wrong> {
        let mut out = Vec::with_capacity(bytes.len() + 64);
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.json.pass(&self.names, piece, &mut out);
            if let Some(model) = self.json.take_strange().filter(|_| self.is_closed) {
                return Err(Wrong::Model { line: self.line, model });
            }
            if piece.ends_with(b"\n") {
                if self.is_closed && self.json.is_open() {
                    return Err(Wrong::Broken { line: self.line });
                }
                self.json.reset(&mut out);
                self.line += 1;
            }
        }
        Ok(out)
    }

    /// What is held back.
    #[must_use]
    pub fn held(&self) -> Vec<u8> {
        self.json.held()
    }

    /// What was held back, at the end.
    ///
    /// # Errors
    /// If the last line isn't whole: only of what is asked.
    pub fn finish(&mut self) -> Result<Vec<u8>, Wrong> {
        if self.is_closed && self.json.is_open() {
            return Err(Wrong::Broken { line: self.line });
        }
        Ok(self.json.take_held())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models() -> BTreeMap<String, String> {
        [("chat-large", "llama-3.3-70b"), ("chat-too", "llama-3.3-70b"), ("embed", "embed")]
            .map(|(ours, theirs)| (ours.to_owned(), theirs.to_owned()))
            .into()
    }

    fn pass(mut lines: BatchLines, text: &str, size: usize) -> Result<(String, bool), Wrong> {
        let mut out = Vec::new();
        for chunk in text.as_bytes().chunks(size) {
            out.extend(lines.pass(chunk)?);
        }
        out.extend(lines.finish()?);
        Ok((String::from_utf8(out).unwrap(), lines.has_changed()))
    }

    #[test]
    fn what_a_batch_asks_has_the_endpoints_names() {
        let line = |model: &str| {
            format!(
                r#"{{"custom_id":"1","model":"chat-large","body":{{"messages":[{{"content":"\"model\":\"chat-large\""}}],"metadata":{{"model":"chat-large"}},"mod\u0065l" : "{model}"}}}}"#
            )
        };
        for end in ["\n", "\r\n"] {
            let text = [line("chat-large"), line("embed"), line("chat\\u002dtoo"), String::new()].join(end);
            let expected = [line("llama-3.3-70b"), line("embed"), line("llama-3.3-70b"), String::new()].join(end);
            for size in [1, 7, 1_000] {
                assert_eq!(pass(BatchLines::to_endpoint(&models()), &text, size), Ok((expected.clone(), true)));
            }
        }
        let same = line("embed");
        assert_eq!(
            pass(BatchLines::to_endpoint(&models()), &same, 9),
            Ok((same.clone(), false)),
            "without a last end of line"
        );
    }

    #[test]
    fn a_line_never_names_a_model_that_is_not_in_the_map() {
        let good = "{\"body\":{\"model\":\"embed\"}}\n";
        let wrong = |line: &str| pass(BatchLines::to_endpoint(&models()), &[good, line].concat(), 5).unwrap_err();
        for (line, model) in [
            ("{\"body\":{\"model\":\"llama-3.3-70b\"}}\n", "llama-3.3-70b"),
            ("{\"body\":{\"model\":\"embed\",\"model\":\"gpt\"}}\n", "gpt"),
            ("{\"body\":{\"model\":\"embed\"},\"body\":{\"MODEL\":\"gpt\"}}\n", "gpt"),
            ("{\"Body\":{\"model\":\"g\\u0070t\"}}", "gpt"),
            ("{} {\"body\":{\"model\":\"gpt\"}}\n", "gpt"),
        ] {
            assert_eq!(wrong(line), Wrong::Model { line: 2, model: model.to_owned() }, "{line}");
        }
        for line in ["{\n\"body\":{}}\n", "{\"body\":\n", "{\"a", "[\n", "{\"body\":{\"model\":\"embed"] {
            assert_eq!(wrong(line), Wrong::Broken { line: 2 }, "{line}");
        }
        let long = format!("{{\"body\":{{\"model\":\"{}\"}}}}\n", "x".repeat(5_000));
        assert!(matches!(wrong(&long), Wrong::Model { line: 2, .. }), "longer than any name");
    }

    #[test]
    fn what_came_of_a_batch_has_the_clients_names() {
        let text = |model: &str| {
            format!(
                "{{\"id\":\"batch_req_1\",\"response\":{{\"status_code\":200,\"body\":{{\"model\":\"{model}\",\"choices\":[{{\"model\":\"llama-3.3-70b\"}}]}}}},\"error\":null}}\n{{\"broken\":\n{{\"body\":{{\"model\":\"other\",\"x\":NaN}}}}\n"
            )
        };
        for size in [1, 8, 1_000] {
            let (out, _) = pass(BatchLines::to_client(&models()), &text("llama-3.3-70b"), size).unwrap();
            assert_eq!(out, text("chat-large").replace("NaN", "null"), "the first of its names");
        }
    }
}
