//! The lines of a batch's input enter, chunk by chunk; the same lines as their endpoint may get them leave.
//! `multipart::upload` calls it.
//!
//! Each line is a request. It is refused for what the same request would be refused for if it came alone, and
//! rewritten in the same way. So one line at a time is held whole.

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
use crate::decide::state::claim::{Claimed, NamedIds, claim};
use crate::decide::state::sealed_id::{Keyring, Owner};

/// The longest line, in bytes: some images fit.
const LONGEST: usize = 8 << 20;

/// A host is told the path once more when the batch is made, and some go by that.
const ONE_PATH: &str = "the same path in every line of the file";

/// What some readers take for the end of a line besides `\n` (Python's `splitlines`), and how it is written within a
/// JSON text instead. If readers didn't agree where a line ends, what stands between two ends would be a request that
/// nobody judged.
const ENDS: &[(&str, &str)] = &[("\r", " "), ("\u{85}", "\\u0085"), ("\u{2028}", "\\u2028"), ("\u{2029}", "\\u2029")];

/// Whose batch it is, and where it will run.
pub struct BatchPolicy {
    /// The rules.
    pub table: Rc<Table>,
    /// The service that was asked.
    pub service: ServiceIndex,
    /// The client.
    pub owner: Owner,
    /// How its ids are sealed.
    pub keys: Keyring,
    /// Where the file goes.
    pub target: Target,
    /// Whether the client's tenant alone uses that account.
    pub is_sole: bool,
    /// The id of the upload's request.
    pub request: String,
}

impl BatchPolicy {
    /// What is sent instead of a line; `None` if it stays as it is. All lines of a file ask one path: the first says
    /// which.
    fn line(&self, number: u64, text: &str, asked: &mut Option<String>) -> Result<Option<Vec<u8>>, Failure> {
        let allow = &self.table.service(self.service).allow;
        let Some(line::Line { mut route, body: at }) = line::read(text, allow)? else { return Ok(None) };
        let path = route.path();
        if *asked.get_or_insert_with(|| path.clone()) != path {
            return Err(Failure::BadField { field: "url", expected: ONE_PATH });
        }
        let Owner { service, tenant } = self.owner.clone();
        // Each line is a request of its own.
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
        if !body.needs().engines.hold(self.target.engine()) {
            return Err(no_engine(body.needs()));
        }
        if let Some(named) = self.target.lacks(body.needs(), self.owner.tenant.is_some(), || self.is_sole) {
            return Err(named.not_found());
        }
        let theirs = model.map(|model| self.model(&claimed, model)).transpose()?;
        let body = body.for_endpoint(theirs.as_deref(), self.target.models(), self.target.engine()).concat();
        let (before, after) = (text.get(..at.start).unwrap_or_default(), text.get(at.end..).unwrap_or_default());
        let whole = [before.as_bytes(), &body, after.as_bytes()].concat();
        Ok((whole != text.as_bytes()).then_some(whole))
    }

    /// What the endpoint calls a model, by the rules of `serve` for a request that comes alone.
    fn model(&self, claimed: &Claimed, model: String) -> Result<String, Failure> {
        if let Some(theirs) = &claimed.model {
            return Ok(theirs.clone());
        }
        let theirs = self.target.call(&model).map(str::to_owned);
        let has_tenant = self.owner.tenant.is_some();
        let is_somebodys = self.target.is_somebodys(&model, has_tenant, || self.is_sole);
        theirs.filter(|_| !is_somebodys).ok_or(Failure::ModelNotFound { model })
    }
}

/// The lines of a file, on their way.
pub struct BatchInput {
    judge: BatchPolicy,
    /// The line in hand, from 1.
    number: u64,
    /// Its bytes so far.
    line: Vec<u8>,
    /// The path that the lines before it ask.
    asked: Option<String>,
    hold: Reservation,
    has_changed: bool,
}

/// Without what passes.
impl fmt::Debug for BatchInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchInput").field("number", &self.number).finish_non_exhaustive()
    }
}

impl BatchInput {
    /// For a file that is judged so.
    #[must_use]
    pub fn new(judge: BatchPolicy) -> Self {
        Self { judge, number: 1, line: Vec::new(), asked: None, hold: Reservation::default(), has_changed: false }
    }

    /// Whether any line is sent otherwise than it came.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.has_changed
    }

    /// The next bytes in, the lines that end in them out.
    ///
    /// # Errors
    /// What a line would be refused for if it came alone, with its number. All from that line on is then held as it
    /// came.
    pub fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
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

    /// The last line.
    ///
    /// # Errors
    /// As of the others.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        self.end(out)
    }

    /// Takes what is held back, as it came.
    pub fn take_held(&mut self) -> Vec<u8> {
        self.hold = Reservation::default();
        core::mem::take(&mut self.line)
    }

    /// Counts what a line takes of this isolate's memory: itself, and copies of its body while it is read and written.
    fn count(&mut self) -> Result<(), Failure> {
        self.hold.resize((self.line.capacity() + 2 * self.line.len()) as u64)
    }

    fn extend(&mut self, piece: &[u8]) -> Result<(), Failure> {
        // What doesn't begin as an object is told at once, and not held: most files that aren't a batch's.
        let begins =
            |line: &[u8]| line.iter().find(|byte| !byte.is_ascii_whitespace()).is_none_or(|byte| *byte == b'{');
        let is_odd = self.line.trim_ascii_start().is_empty() && !begins(piece);
        self.line.extend_from_slice(piece);
        if is_odd {
            return Err(Failure::BatchLine { line: self.number });
        }
        if self.line.len() > LONGEST {
            return Err(told(self.number, Failure::BodyTooLarge { limit: LONGEST as u64 }));
        }
        self.count()
    }

    /// Writes the line in hand, which is whole.
    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        if !self.line.trim_ascii().is_empty() {
            let number = self.number;
            let text = core::str::from_utf8(&self.line).map_err(|_| Failure::BatchLine { line: number })?;
            let (text, end) = text.split_at(text.trim_end_matches(['\r', '\n']).len());
            let one = one_line(text);
            let new = self.judge.line(number, &one, &mut self.asked).map_err(|failure| told(number, failure))?;
            self.has_changed |= new.is_some() || matches!(one, Cow::Owned(_));
            out.extend_from_slice(new.as_deref().unwrap_or(one.as_bytes()));
            out.extend_from_slice(end.as_bytes());
        } else {
            out.extend_from_slice(&self.line);
        }
        self.line.clear();
        // A long line is no reason to hold as much for all that follow.
        self.line.shrink_to(64 << 10);
        self.number += 1;
        self.count()
    }
}

/// What is told of a line that is refused.
fn told(line: u64, failure: Failure) -> Failure {
    match failure {
        Failure::NotJson { .. } | Failure::NotAnObject => Failure::BatchLine { line },
        Failure::ModelNotFound { model } => Failure::BatchModel { line, model },
        other => Failure::BatchRequest { line, failure: Box::new(other) },
    }
}

/// A JSON text that nobody takes for more lines than one.
fn one_line(text: &str) -> Cow<'_, str> {
    let found = ENDS.iter().filter(|(end, _)| memmem::find(text.as_bytes(), end.as_bytes()).is_some());
    found.fold(Cow::Borrowed(text), |text, (end, written)| Cow::Owned(text.replace(end, written)))
}

#[cfg(test)]
pub(crate) mod tests;
