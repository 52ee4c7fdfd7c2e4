//! The rules that an isolate follows. Takes rules documents of several sources (URLs and Workers KV); returns the table
//! to steer by, and how long ago a source confirmed it. Pure: `runtime::feed` passes the bytes, and a time that never
//! goes back. An isolate is one instance of the Worker; the platform runs several, which share no memory.

#[cfg(test)]
mod tests;

use core::fmt;
use std::rc::Rc;

use bailiwick_rules::json::Violation;
use bailiwick_rules::table::{Revision, Succession, Table};
use bailiwick_rules::time::{Millis, Timestamp};

/// The log repeats that the current rules are old, at most once in this time.
const LOG_AGAIN: Millis = Millis(60_000);

/// The current rules, and what is known of each source.
#[derive(Debug, Default)]
pub(crate) struct RulesState {
    table: Option<Rc<Table>>,
    /// Whether the current rules are those that were built into the Worker.
    is_bundled: bool,
    /// When a source last confirmed the current rules. For built-in rules: when this isolate began.
    confirmed: Timestamp,
    sources: Vec<SourceState>,
    /// How many of `sources`, from the first on, are asked each time. KV may come after them as a fallback.
    primary: usize,
    /// When the log last said that the current rules are old.
    logged_old: Option<Timestamp>,
}

/// What is known of one source.
#[derive(Clone, Debug, Default)]
struct SourceState {
    /// The entity tag of the source's document, if the document is valid.
    etag: Option<String>,
    /// The digest of the last document of this source, and the reason, if that document was refused.
    refused: Option<([u8; 32], RefusalReason)>,
    /// Why the last attempt to read the source failed.
    unread: Option<ReadError>,
}

/// Why a document was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RefusalReason {
    /// The document has violations.
    Invalid,
    /// The document has the number of the current revision, but other bytes.
    Conflict,
}

impl RefusalReason {
    /// The word for logs and headers.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Conflict => "conflict",
        }
    }
}

/// The result of an offered document.
#[derive(Debug)]
pub(crate) enum OfferOutcome {
    /// The document is now in use.
    Taken(Revision),
    /// The document is in use already, or is older than the current one.
    Known,
    /// The document was refused before.
    RefusedBefore,
    /// The document was refused for the first time. `Conflict` has no violations.
    Refused(RefusalReason, Vec<Violation>),
}

impl OfferOutcome {
    /// The word for metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Taken(_) => "taken",
            Self::Known => "known",
            Self::RefusedBefore => "refused_again",
            Self::Refused(why, _) => why.as_str(),
        }
    }

    /// Whether the source of the document has no newer rules than the current rules.
    pub(crate) fn is_good(&self) -> bool {
        matches!(self, Self::Taken(_) | Self::Known)
    }
}

/// How old the current rules are: how long ago a source confirmed them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Age {
    /// Young enough, or there is no source to confirm them.
    Fresh,
    /// Older than `max_age`. The rules may still be used for a while, because no source answers.
    Stale(Millis),
    /// The rules are too old to be used.
    TooOld(Millis),
}

impl RulesState {
    /// Begins with the built-in document. If this document has no services, it is only a placeholder and isn't stored.
    /// Then the first document of a source is taken, whatever its revision.
    pub(crate) fn bundled(bytes: &[u8]) -> Self {
        match Table::compile_quietly(bytes) {
            Ok(table) if !table.services().is_empty() => {
                Self { table: Some(Rc::new(table)), is_bundled: true, ..Self::default() }
            }
            _ => Self::default(),
        }
    }

    /// Sets how many sources there are, and how many of them are asked each time. The age of built-in rules counts from
    /// `now`.
    pub(crate) fn arrange(&mut self, sources: usize, primary: usize, now: Timestamp) {
        self.sources = vec![SourceState::default(); sources];
        self.primary = primary;
        self.confirmed = now;
    }

    /// The entity tag of a source's last document.
    pub(crate) fn etag(&self, source: usize) -> Option<&str> {
        self.sources.get(source)?.etag.as_deref()
    }

    /// Looks up a source's document by its SHA-256. `None` if it has to be compiled and passed to [`Self::offer`].
    /// Otherwise it is known, and this is the outcome.
    pub(crate) fn look_at(
        &mut self,
        source: usize,
        sha256: [u8; 32],
        etag: Option<&str>,
        now: Timestamp,
    ) -> Option<OfferOutcome> {
        let Some(known) = self.sources.get_mut(source) else { return Some(OfferOutcome::RefusedBefore) };
        (known.unread, known.etag) = (None, None);
        if known.refused.is_some_and(|(refused, _)| refused == sha256) {
            return Some(OfferOutcome::RefusedBefore);
        }
        if self.table.as_ref().is_none_or(|table| table.revision().sha256 != sha256) {
            return None;
        }
        (known.refused, known.etag) = (None, etag.map(str::to_owned));
        self.confirmed = now;
        Some(OfferOutcome::Known)
    }

    /// Takes a source's compiled document into use, if it is valid and newer. Otherwise the current document stays.
    /// `now` is when the source answered.
    pub(crate) fn offer(
        &mut self,
        source: usize,
        sha256: [u8; 32],
        compiled: Result<Table, Vec<Violation>>,
        etag: Option<String>,
        now: Timestamp,
    ) -> OfferOutcome {
        let is_primary = source < self.primary;
        let succession = |table: &Table, revision| table.revision().succession(&revision);
        let (offer, confirmed) = match compiled {
            Err(violations) => (OfferOutcome::Refused(RefusalReason::Invalid, violations), false),
            Ok(table) => match self.table.as_deref().map(|current| succession(current, table.revision())) {
                None | Some(Succession::Newer) => (self.take(table), true),
                Some(Succession::Same) => (OfferOutcome::Known, true),
                // KV is only a fallback, so it may hold an old document.
                Some(Succession::Older) => (OfferOutcome::Known, is_primary),
                Some(Succession::Conflict) => (OfferOutcome::Refused(RefusalReason::Conflict, Vec::new()), false),
            },
        };
        if confirmed {
            self.confirmed = now;
        }
        if let Some(known) = self.sources.get_mut(source) {
            match offer {
                OfferOutcome::Refused(why, _) => known.refused = Some((sha256, why)),
                _ => (known.refused, known.etag) = (None, etag),
            }
        }
        offer
    }

    /// Puts a table in service.
    fn take(&mut self, table: Table) -> OfferOutcome {
        let revision = table.revision();
        (self.table, self.is_bundled) = (Some(Rc::new(table)), false);
        // A conflict with the earlier document no longer matters.
        for source in &mut self.sources {
            source.refused.take_if(|(_, why)| *why == RefusalReason::Conflict);
        }
        OfferOutcome::Taken(revision)
    }

    /// Notes that a source's document didn't change since the last attempt, when it was valid.
    pub(crate) fn note_unmodified(&mut self, source: usize, now: Timestamp) {
        if let Some(known) = self.sources.get_mut(source) {
            known.unread = None;
            self.confirmed = now;
        }
    }

    /// Notes that a source couldn't be read. Returns whether the reason is new. [`Self::is_answer`] says whether other
    /// sources need to be asked.
    pub(crate) fn note_unread(&mut self, source: usize, why: ReadError, now: Timestamp) -> bool {
        if self.is_answer(source, why) {
            self.confirmed = now;
        }
        match self.sources.get_mut(source) {
            Some(known) => known.unread.replace(why) != Some(why) && why != ReadError::NoKey,
            None => false,
        }
    }

    /// Whether "KV has no rules" counts as an answer: if KV is a primary source, and the isolate has no rules but the
    /// built-in ones. Then the isolate uses the built-in rules.
    pub(crate) fn is_answer(&self, source: usize, why: ReadError) -> bool {
        why == ReadError::NoKey && source < self.primary && (self.is_bundled || self.table.is_none())
    }

    /// Whether the last attempt to read a source failed.
    pub(crate) fn is_unread(&self, source: usize) -> bool {
        self.sources.get(source).is_some_and(|source| source.unread.is_some())
    }

    /// The current rules.
    pub(crate) fn table(&self) -> Option<&Rc<Table>> {
        self.table.as_ref()
    }

    /// How long ago a source confirmed the current rules; `None` if there is no source.
    pub(crate) fn since_confirmed(&self, now: Timestamp) -> Option<Millis> {
        (!self.sources.is_empty()).then(|| now.since(self.confirmed))
    }

    /// How old the current rules are. `max_age` is how old they may be while sources answer.
    pub(crate) fn age(&self, now: Timestamp, max_age: Millis) -> Age {
        let Some(age) = self.since_confirmed(now).filter(|age| *age >= max_age) else { return Age::Fresh };
        let may_be = self.table.as_ref().map_or(Millis(0), |table| table.stale_for());
        if age <= may_be { Age::Stale(age) } else { Age::TooOld(age) }
    }

    /// Whether to log that the rules are of this age: when they become old, and again after [`LOG_AGAIN`].
    pub(crate) fn should_log_age(&mut self, age: Age, now: Timestamp) -> bool {
        if age == Age::Fresh {
            self.logged_old = None;
            return false;
        }
        let should_log_age = self.logged_old.is_none_or(|reported| now.since(reported) >= LOG_AGAIN);
        if should_log_age {
            self.logged_old = Some(now);
        }
        should_log_age
    }

    /// What is wrong with the primary sources, in one word. A source that can't be read is no trouble while another one
    /// can be read.
    pub(crate) fn trouble(&self) -> Option<&'static str> {
        let primary = self.sources.get(..self.primary).unwrap_or_default();
        let is_unread = |source: &SourceState| source.unread.is_some_and(|why| why != ReadError::NoKey);
        if !primary.is_empty() && primary.iter().all(is_unread) {
            return Some("unreachable");
        }
        let refused =
            |why: RefusalReason| primary.iter().any(|source| source.refused.is_some_and(|(_, known)| known == why));
        [RefusalReason::Invalid, RefusalReason::Conflict]
            .into_iter()
            .find(|&why| refused(why))
            .map(RefusalReason::as_str)
    }

    /// How many primary sources could be read at the last attempt, and how many there are.
    pub(crate) fn answering(&self) -> (usize, usize) {
        let primary = self.sources.get(..self.primary).unwrap_or_default();
        (primary.iter().filter(|source| source.unread.is_none()).count(), primary.len())
    }
}

/// Why a source couldn't be read, as far as the Workers runtime says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReadError {
    /// The source's URL or token is invalid.
    BadUrl,
    /// The source's host name has no address.
    NoAddress,
    /// The connection was refused: no process listens on the port.
    Refused,
    /// The source's certificate isn't trusted, or TLS failed otherwise.
    Tls,
    /// The connection failed or broke off, and the runtime doesn't say why.
    Connection,
    /// The source didn't answer in time.
    Timeout,
    /// The source answered with a status other than 200 and 304.
    Status(u16),
    /// The source's answer is too large.
    TooLarge,
    /// The source's answer has the wrong form.
    Unreadable,
    /// KV has no such key.
    NoKey,
    /// The source has no rules that are for all nodes of its fleet: the new rules are still tried on some nodes.
    Staged,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "http_{status}"),
            other => f.write_str(other.label()),
        }
    }
}

impl ReadError {
    /// The word for metrics. A status is reduced to its class, such as `http_5xx`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::BadUrl => "bad_url",
            Self::NoAddress => "no_address",
            Self::Refused => "refused",
            Self::Tls => "tls",
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::Status(300..=399) => "http_3xx",
            Self::Status(400..=499) => "http_4xx",
            Self::Status(500..=599) => "http_5xx",
            Self::Status(_) => "http_other",
            Self::TooLarge => "too_large",
            Self::Unreadable => "unreadable",
            Self::NoKey => "no_key",
            Self::Staged => "staged",
        }
    }
}
