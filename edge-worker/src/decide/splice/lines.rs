//! Passes the lines of a batch's output file to the client. Each line is a JSON text. Takes chunks of the file from the
//! endpoint; returns the same lines with the clients' names of models, without holding a whole line. Only `model` of
//! `body`, or of the `body` of `response`, is replaced. Called by `proxy`.

use core::fmt;
use std::collections::BTreeMap;

use super::json::Json;
use super::{NamePlaces, Names};

/// Passes the lines of a file on.
pub(crate) struct BatchLines {
    names: Names,
    json: Json,
}

/// Prints no bytes of the file.
impl fmt::Debug for BatchLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchLines").finish_non_exhaustive()
    }
}

impl BatchLines {
    /// Starts to pass a file from an endpoint to a client. `models` maps the clients' names of models to the
    /// endpoint's.
    #[must_use]
    pub(crate) fn to_client(models: &BTreeMap<String, String>) -> Self {
        // Of several pairs with one name of the endpoint, the last counts. In reverse order, that is the pair with the
        // client's first name.
        let pairs = models.iter().rev().map(|(client_name, endpoint_name)| (endpoint_name, client_name));
        Self { names: Names::translated(pairs, NamePlaces::Lines, None), json: Json::default() }
    }

    /// Takes the next bytes, and returns the bytes to pass on.
    #[must_use]
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + 64);
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.json.pass(&self.names, piece, &mut out);
            // The next line is a JSON text of its own, so a broken line doesn't spoil it.
            if piece.ends_with(b"\n") {
                self.json.reset(&mut out);
            }
        }
        out
    }

    /// Returns the bytes that were held back, at the end of the file.
    #[must_use]
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        self.json.take_held()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models() -> BTreeMap<String, String> {
        [("chat-large", "llama-3.3-70b"), ("chat-too", "llama-3.3-70b"), ("embed", "embed")]
            .map(|(client_name, endpoint_name)| (client_name.to_owned(), endpoint_name.to_owned()))
            .into()
    }

    fn pass(text: &str, size: usize) -> String {
        let (mut lines, mut out) = (BatchLines::to_client(&models()), Vec::new());
        for chunk in text.as_bytes().chunks(size) {
            out.extend(lines.pass(chunk));
        }
        out.extend(lines.finish());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_output_of_a_batch_has_the_clients_names() {
        let text = |model: &str| {
            format!(
                "{{\"id\":\"batch_req_1\",\"response\":{{\"status_code\":200,\"body\":{{\"model\":\"{model}\",\
                 \"choices\":[{{\"model\":\"llama-3.3-70b\"}}]}}}},\"error\":null}}\n\
                 {{\"broken\":\n{{\"body\":{{\"model\":\"other\",\"x\":NaN}}}}\n"
            )
        };
        // JSON has no `NaN`: it becomes `null`.
        for size in [1, 8, 1_000] {
            assert_eq!(
                pass(&text("llama-3.3-70b"), size),
                text("chat-large").replace("NaN", "null"),
                "the first of two names"
            );
        }
    }
}
