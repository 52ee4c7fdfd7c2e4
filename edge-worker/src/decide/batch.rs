//! Checks and rewrites the input file of a batch. Takes the file's chunks; returns its lines as they are sent to the
//! endpoint. Called by `multipart::upload`.
//!
//! Each line is a request. A line is refused for the same reasons as the same request outside a batch, and rewritten in
//! the same way. For this, one line at a time is held as a whole.

use core::fmt;
use std::borrow::Cow;
use std::rc::Rc;

use bailiwick_rules::table::{ServiceIndex, Table};
use memchr::{memchr, memmem};

use crate::decide::body::scope::Scope;
use crate::decide::body::{Inspected, Terms, line};
use crate::decide::envelope::Failure;
use crate::decide::inflight::Reservation;
use crate::decide::plan::{Target, no_engine};
use crate::decide::route::query::Query;
use crate::decide::state::claim::{IdClaims, NamedIds, claim};
use crate::decide::state::sealed_id::{Keyring, Owner};

/// The longest line, in bytes. A line of this length has room for some images.
const LONGEST: usize = 8 << 20;

/// The expected URL of a line, for error messages. The path is named again when the batch is made, and some hosts use
/// that path for all lines.
const ONE_PATH: &str = "the same path in every line of the file";

/// Characters besides `\n` that some programs take for the end of a line (Python's `splitlines`), each with the text
/// that replaces it in JSON. If the edge and a host didn't agree where a line ends, the host could read a request that
/// the edge didn't judge.
const ENDS: &[(&str, &str)] = &[("\r", " "), ("\u{85}", "\\u0085"), ("\u{2028}", "\\u2028"), ("\u{2029}", "\\u2029")];

/// The owner of a batch, and the endpoint where it will run.
pub(crate) struct BatchPolicy {
    /// The rules.
    pub(crate) table: Rc<Table>,
    /// The service of the upload's host.
    pub(crate) service: ServiceIndex,
    /// The owner of the batch.
    pub(crate) owner: Owner,
    /// The keys for sealing ids.
    pub(crate) keys: Keyring,
    /// The endpoint that gets the file.
    pub(crate) target: Target,
    /// Whether this tenant is the only tenant that uses that endpoint's account.
    pub(crate) is_sole: bool,
    /// The id of the upload's request.
    pub(crate) request: String,
}

impl BatchPolicy {
    /// Returns the rewritten line; `None` if the line stays as it is. All lines of a file must have the path of the
    /// first line.
    fn line(&self, number: u64, text: &str, first_path: &mut Option<String>) -> Result<Option<Vec<u8>>, Failure> {
        let allow = &self.table.service(self.service).allow;
        let Some(line::Line { mut route, body: at }) = line::read(text, allow)? else { return Ok(None) };
        let path = route.path();
        if *first_path.get_or_insert_with(|| path.clone()) != path {
            return Err(Failure::BadField { field: "url", expected: ONE_PATH });
        }
        let Owner { service, tenant } = self.owner.clone();
        // Each line has a request id of its own.
        let scope = Scope { service, tenant, request: format!("{}/{number}", self.request) };
        let bytes = text.get(at.clone()).unwrap_or_default().as_bytes().to_vec();
        let mut body = Inspected::json(bytes, &route, &Terms { allow, scope })?;
        let model = body.model().map(str::to_owned);
        let named = NamedIds {
            route: &mut route,
            query: &mut Query::default(),
            body: Some(&mut body),
            model: model.as_deref(),
        };
        let claimed = claim(Some(&self.keys), &self.table, self.service, &self.owner, named)?;
        if claimed.place.as_ref().is_some_and(|place| *place != self.target.place()) {
            return Err(Failure::IdsApart);
        }
        if !body.needs().engines.includes(self.target.engine()) {
            return Err(no_engine(body.needs()));
        }
        if let Some(named) = self.target.lacks(body.needs(), self.owner.tenant.is_some(), || self.is_sole) {
            return Err(named.not_found());
        }
        let endpoint_model = model.map(|model| self.model(&claimed, model)).transpose()?;
        let body = body.for_endpoint(endpoint_model.as_deref(), self.target.models(), self.target.engine()).concat();
        let (before, after) = (text.get(..at.start).unwrap_or_default(), text.get(at.end..).unwrap_or_default());
        let whole = [before.as_bytes(), &body, after.as_bytes()].concat();
        Ok((whole != text.as_bytes()).then_some(whole))
    }

    /// The endpoint's name for a model, by the same rules as for a single request.
    fn model(&self, claimed: &IdClaims, model: String) -> Result<String, Failure> {
        if let Some(endpoint_model) = &claimed.model {
            return Ok(endpoint_model.clone());
        }
        let endpoint_model = self.target.call(&model).map(str::to_owned);
        let has_tenant = self.owner.tenant.is_some();
        let may_belong_to_tenant = self.target.may_belong_to_tenant(&model, has_tenant, || self.is_sole);
        endpoint_model.filter(|_| !may_belong_to_tenant).ok_or(Failure::ModelNotFound { model })
    }
}

/// Checks and rewrites one file, line by line.
pub(crate) struct BatchInput {
    policy: BatchPolicy,
    /// The number of the current line, from 1.
    number: u64,
    /// The bytes of the current line so far.
    line: Vec<u8>,
    /// The path of the first line.
    first_path: Option<String>,
    reservation: Reservation,
    has_changed: bool,
}

/// Doesn't show the lines.
impl fmt::Debug for BatchInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchInput").field("number", &self.number).finish_non_exhaustive()
    }
}

impl BatchInput {
    /// Makes the checker of one file.
    #[must_use]
    pub(crate) fn new(policy: BatchPolicy) -> Self {
        Self {
            policy,
            number: 1,
            line: Vec::new(),
            first_path: None,
            reservation: Reservation::default(),
            has_changed: false,
        }
    }

    /// Whether any line was changed.
    #[must_use]
    pub(crate) fn has_changed(&self) -> bool {
        self.has_changed
    }

    /// Takes the next bytes, and appends the lines that end in them to `out`.
    ///
    /// # Errors
    /// The failure of the first bad line, with its number. That line and the bytes after it are then held unchanged.
    pub(crate) fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(memchr(b'\n', rest).map_or(rest.len(), |end| end + 1));
            rest = after;
            let passed = self.extend(piece).and_then(|()| if piece.ends_with(b"\n") { self.end(out) } else { Ok(()) });
            if let Err(failure) = passed {
                self.line.extend_from_slice(rest);
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Ends the file with its last line.
    ///
    /// # Errors
    /// As for the other lines.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        self.end(out)
    }

    /// Returns the held bytes unchanged, and holds them no longer.
    pub(crate) fn take_held(&mut self) -> Vec<u8> {
        self.reservation = Reservation::default();
        core::mem::take(&mut self.line)
    }

    /// Reserves the memory for a line: the line itself, and copies of its body while it is read and written.
    fn count(&mut self) -> Result<(), Failure> {
        self.reservation.resize((self.line.capacity() + 2 * self.line.len()) as u64)
    }

    /// Appends a piece to the current line.
    fn extend(&mut self, piece: &[u8]) -> Result<(), Failure> {
        // A line that doesn't begin like a JSON object is refused before it is complete. So most files that aren't
        // batches are refused without being held in memory.
        let may_be_object =
            |line: &[u8]| line.iter().find(|byte| !byte.is_ascii_whitespace()).is_none_or(|byte| *byte == b'{');
        let is_refused = self.line.trim_ascii_start().is_empty() && !may_be_object(piece);
        self.line.extend_from_slice(piece);
        if is_refused {
            return Err(Failure::BatchLine { line: self.number });
        }
        if self.line.len() > LONGEST {
            return Err(line_failure(self.number, Failure::BodyTooLarge { limit: LONGEST as u64 }));
        }
        self.count()
    }

    /// Writes the current line, which is complete.
    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        if !self.line.trim_ascii().is_empty() {
            let number = self.number;
            let text = core::str::from_utf8(&self.line).map_err(|_| Failure::BatchLine { line: number })?;
            let (text, end) = text.split_at(text.trim_end_matches(['\r', '\n']).len());
            let text = one_line(text);
            let new = self
                .policy
                .line(number, &text, &mut self.first_path)
                .map_err(|failure| line_failure(number, failure))?;
            self.has_changed |= new.is_some() || matches!(text, Cow::Owned(_));
            out.extend_from_slice(new.as_deref().unwrap_or(text.as_bytes()));
            out.extend_from_slice(end.as_bytes());
        } else {
            out.extend_from_slice(&self.line);
        }
        self.line.clear();
        // After a long line, the buffer shrinks again.
        self.line.shrink_to(64 << 10);
        self.number += 1;
        self.count()
    }
}

/// The failure for a line that is refused.
fn line_failure(line: u64, failure: Failure) -> Failure {
    match failure {
        Failure::NotJson { .. } | Failure::NotAnObject => Failure::BatchLine { line },
        Failure::ModelNotFound { model } => Failure::BatchModel { line, model },
        other => Failure::BatchRequest { line, failure: Box::new(other) },
    }
}

/// The JSON text, changed so that every program takes it for one line.
fn one_line(text: &str) -> Cow<'_, str> {
    let ends_in_text = ENDS.iter().filter(|(end, _)| memmem::find(text.as_bytes(), end.as_bytes()).is_some());
    ends_in_text.fold(Cow::Borrowed(text), |text, (end, written)| Cow::Owned(text.replace(end, written)))
}

#[cfg(test)]
pub(crate) mod tests;
