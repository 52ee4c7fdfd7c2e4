//! The rules an isolate follows: documents of several sources enter, the table that requests are steered by leaves,
//! with how long ago a source confirmed it. Pure; `runtime::feed` brings the bytes and the time, which never goes back.

use core::fmt;
use std::rc::Rc;

use bailiwick_rules::json::Violation;
use bailiwick_rules::table::{Revision, Succession, Table};
use bailiwick_rules::time::{Millis, Timestamp};

/// How often it is told again that the rules in service are old.
const TOLD_AGAIN: Millis = Millis(60_000);

/// The rules in service, and what each source said of them last.
#[derive(Debug, Default)]
pub(crate) struct RulesState {
    table: Option<Rc<Table>>,
    /// Whether they are those that were built in.
    is_bundled: bool,
    /// When a source last had them, or when this isolate began with those built in.
    confirmed: Timestamp,
    sources: Vec<Source>,
    /// How many of the sources are asked at every look. KV may stand behind them.
    primary: usize,
    /// When it was last told that they are old.
    told_old: Option<Timestamp>,
}

/// What is known of one source.
#[derive(Clone, Debug, Default)]
struct Source {
    /// The entity tag of the document it has, if that one is good.
    etag: Option<String>,
    /// The digest of the document that was refused last, and why. Gone when a good one comes.
    refused: Option<([u8; 32], Refused)>,
    /// Why it couldn't be read when it was last tried.
    unread: Option<ReadError>,
}

/// Why a document wasn't taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// It has violations.
    Invalid,
    /// It has the revision in service and other bytes.
    Conflict,
}

impl Refused {
    /// The word for it in logs and headers.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Conflict => "conflict",
        }
    }
}

/// What became of an offered document.
#[derive(Debug)]
pub(crate) enum OfferOutcome {
    /// It is in service.
    Taken(Revision),
    /// It is in service already, or older than what is.
    Known,
    /// It was refused before, and is again.
    RefusedBefore,
    /// It isn't taken, which is news. `Conflict` has no violations.
    Refused(Refused, Vec<Violation>),
}

impl OfferOutcome {
    /// The word for it in metrics.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Taken(_) => "taken",
            Self::Known => "known",
            Self::RefusedBefore => "refused_again",
            Self::Refused(why, _) => why.as_str(),
        }
    }

    /// Whether its source says that there are no newer rules than those in service now.
    pub(crate) fn is_good(&self) -> bool {
        matches!(self, Self::Taken(_) | Self::Known)
    }
}

/// How old the rules in service are: how long ago a source confirmed them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Age {
    /// Young enough, or there is no source but the document built in.
    Fresh,
    /// Older than the greatest age, by which they may be used for a while, as no source answers.
    Stale(Millis),
    /// Too old to be used.
    TooOld(Millis),
}

impl RulesState {
    /// Begins with the document that was built in. One that steers nothing is a placeholder: it is not remembered, so
    /// that the first document of a source is taken whatever its revision.
    pub(crate) fn bundled(bytes: &[u8]) -> Self {
        match Table::compile_quietly(bytes) {
            Ok(table) if !table.services().is_empty() => {
                Self { table: Some(Rc::new(table)), is_bundled: true, ..Self::default() }
            }
            _ => Self::default(),
        }
    }

    /// Says how many sources there are, and how many of them are asked at every look. Rules that were built in age from
    /// now on.
    pub(crate) fn arrange(&mut self, sources: usize, primary: usize, now: Timestamp) {
        self.sources = vec![Source::default(); sources];
        self.primary = primary;
        self.confirmed = now;
    }

    /// The entity tag of what a source had when it was last asked.
    pub(crate) fn etag(&self, source: usize) -> Option<&str> {
        self.sources.get(source)?.etag.as_deref()
    }

    /// Takes the document of a source, if it is good and newer. Anything else keeps the last good one.
    pub(crate) fn offer(&mut self, source: usize, bytes: &[u8], etag: Option<String>, now: Timestamp) -> OfferOutcome {
        let is_primary = source < self.primary;
        let digest = digest(bytes);
        let Some(known) = self.sources.get_mut(source) else { return OfferOutcome::RefusedBefore };
        (known.unread, known.etag) = (None, None);
        if known.refused.is_some_and(|(refused, _)| refused == digest) {
            return OfferOutcome::RefusedBefore;
        }
        let succession = |table: &Table, revision| table.revision().succession(&revision);
        let (offer, confirmed) = match &self.table {
            // The very document in service isn't compiled again.
            Some(table) if table.revision().sha256 == digest => (OfferOutcome::Known, true),
            current => match Table::compile_quietly(bytes) {
                Err(violations) => (OfferOutcome::Refused(Refused::Invalid, violations), false),
                Ok(table) => match current.as_deref().map(|now| succession(now, table.revision())) {
                    None | Some(Succession::Newer) => (self.take(table), true),
                    Some(Succession::Same) => (OfferOutcome::Known, true),
                    // KV as a last resort may hold anything old.
                    Some(Succession::Older) => (OfferOutcome::Known, is_primary),
                    Some(Succession::Conflict) => (OfferOutcome::Refused(Refused::Conflict, Vec::new()), false),
                },
            },
        };
        if confirmed {
            self.confirmed = now;
        }
        if let Some(known) = self.sources.get_mut(source) {
            match offer {
                OfferOutcome::Refused(why, _) => known.refused = Some((digest, why)),
                _ => (known.refused, known.etag) = (None, etag),
            }
        }
        offer
    }

    fn take(&mut self, table: Table) -> OfferOutcome {
        let revision = table.revision();
        (self.table, self.is_bundled) = (Some(Rc::new(table)), false);
        // Beside another document, nothing needs to be in conflict.
        for source in &mut self.sources {
            source.refused.take_if(|(_, why)| *why == Refused::Conflict);
        }
        OfferOutcome::Taken(revision)
    }

    /// Notes that a source has what it had before, which was good.
    pub(crate) fn note_unmodified(&mut self, source: usize, now: Timestamp) {
        if let Some(known) = self.sources.get_mut(source) {
            known.unread = None;
            self.confirmed = now;
        }
    }

    /// Notes that a source couldn't be read. True when that is news. Whether the caller need ask no further is
    /// [`Self::is_answer`].
    pub(crate) fn note_unread(&mut self, source: usize, why: ReadError, now: Timestamp) -> bool {
        if self.is_answer(source, why) {
            self.confirmed = now;
        }
        match self.sources.get_mut(source) {
            Some(known) => known.unread.replace(why) != Some(why) && why != ReadError::NoKey,
            None => false,
        }
    }

    /// Whether it is an answer that KV has no rules: then those built in count, unless KV had others before.
    pub(crate) fn is_answer(&self, source: usize, why: ReadError) -> bool {
        why == ReadError::NoKey && source < self.primary && (self.is_bundled || self.table.is_none())
    }

    /// Whether a source couldn't be read when it was last tried.
    pub(crate) fn is_unread(&self, source: usize) -> bool {
        self.sources.get(source).is_some_and(|source| source.unread.is_some())
    }

    /// The rules in service.
    pub(crate) fn table(&self) -> Option<&Rc<Table>> {
        self.table.as_ref()
    }

    /// How long ago a source confirmed the rules in service; `None` where there is none to do so.
    pub(crate) fn since_confirmed(&self, now: Timestamp) -> Option<Millis> {
        (!self.sources.is_empty()).then(|| now.since(self.confirmed))
    }

    /// How old the rules in service are, where `max_age` is what they may be while sources answer.
    pub(crate) fn age(&self, now: Timestamp, max_age: Millis) -> Age {
        let Some(age) = self.since_confirmed(now).filter(|age| *age >= max_age) else { return Age::Fresh };
        let may_be = self.table.as_ref().map_or(Millis(0), |table| table.stale_for());
        if age <= may_be { Age::Stale(age) } else { Age::TooOld(age) }
    }

    /// Whether it is to be told that the rules are of this age: when they begin to be old, and now and then.
    pub(crate) fn is_news(&mut self, age: Age, now: Timestamp) -> bool {
        if age == Age::Fresh {
            self.told_old = None;
            return false;
        }
        let is_news = self.told_old.is_none_or(|told| now.since(told) >= TOLD_AGAIN);
        if is_news {
            self.told_old = Some(now);
        }
        is_news
    }

    /// What is wrong with the sources, in a word, if anything. One of several that can't be read is nothing wrong.
    pub(crate) fn trouble(&self) -> Option<&'static str> {
        let primary = self.sources.get(..self.primary).unwrap_or_default();
        let is_unread = |source: &Source| source.unread.is_some_and(|why| why != ReadError::NoKey);
        if !primary.is_empty() && primary.iter().all(is_unread) {
            return Some("unreachable");
        }
        let refused = |why: Refused| primary.iter().any(|source| source.refused.is_some_and(|(_, known)| known == why));
        [Refused::Invalid, Refused::Conflict].into_iter().find(|&why| refused(why)).map(Refused::as_str)
    }

    /// How many sources were read when they were last tried, and how many there are.
    pub(crate) fn answering(&self) -> (usize, usize) {
        let primary = self.sources.get(..self.primary).unwrap_or_default();
        (primary.iter().filter(|source| source.unread.is_none()).count(), primary.len())
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

/// Why a source said nothing, as far as the runtime tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReadError {
    /// Its URL, or the token for it, can't be used.
    BadUrl,
    /// Its host name has no address.
    NoAddress,
    /// Nobody listens there.
    Refused,
    /// Its certificate isn't trusted, or TLS failed otherwise.
    Tls,
    /// The connection couldn't be made or broke, and the runtime doesn't say why.
    Connection,
    /// It didn't answer in time.
    Timeout,
    /// It answered with another status than 200 or 304.
    Status(u16),
    /// Its answer is too large.
    TooLarge,
    /// Its answer isn't what was asked for.
    Unreadable,
    /// KV has no such key.
    NoKey,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "http_{status}"),
            other => f.write_str(other.word()),
        }
    }
}

impl ReadError {
    /// The word for it in metrics: of statuses the class alone.
    pub(crate) fn word(self) -> &'static str {
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_AGE: Millis = Millis(15_000);

    fn rules_with(revision: u64, region: &str, more: serde_json::Value) -> Vec<u8> {
        let mut rules = serde_json::json!({
            "version": 1, "revision": revision,
            "regions": { region: { "countries": ["DE"] } },
            "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": [region],
                                    "residency": [{ "clients": ["*"], "process_in": ["*"] }] } },
        });
        rules["rules"] = more;
        rules.to_string().into_bytes()
    }

    fn rules(revision: u64, region: &str) -> Vec<u8> {
        rules_with(revision, region, serde_json::json!({}))
    }

    /// A book of two URLs with KV behind them.
    fn book() -> RulesState {
        let mut book = RulesState::default();
        book.arrange(3, 2, Timestamp(0));
        book
    }

    fn offer(book: &mut RulesState, source: usize, bytes: &[u8]) -> OfferOutcome {
        book.offer(source, bytes, Some("\"tag\"".to_owned()), Timestamp(0))
    }

    fn revision(book: &RulesState) -> Option<u64> {
        book.table().map(|table| table.revision().number)
    }

    #[test]
    fn a_newer_document_is_taken_an_older_one_ignored() {
        let mut book = book();
        assert!(matches!(offer(&mut book, 0, &rules(7, "fra")), OfferOutcome::Taken(_)));
        assert!(matches!(offer(&mut book, 0, &rules(7, "fra")), OfferOutcome::Known));
        assert!(matches!(offer(&mut book, 0, &rules(6, "ams")), OfferOutcome::Known));
        assert_eq!((revision(&book), book.trouble()), (Some(7), None));
        assert!(
            matches!(offer(&mut book, 1, &rules(8, "ams")), OfferOutcome::Taken(_)),
            "the highest of all sources wins"
        );
        assert_eq!(revision(&book), Some(8));
    }

    #[test]
    fn a_bad_document_keeps_the_last_good_one_and_is_told_once() {
        let mut book = book();
        offer(&mut book, 0, &rules(7, "fra"));
        assert_eq!(book.etag(0), Some("\"tag\""));
        let bad = br#"{"version": 1, "revision": 8, "regoins": {}}"#;
        assert!(
            matches!(offer(&mut book, 0, bad), OfferOutcome::Refused(Refused::Invalid, violations) if violations.len() == 1)
        );
        assert!(matches!(offer(&mut book, 0, bad), OfferOutcome::RefusedBefore));
        assert_eq!(book.etag(0), None, "it is offered again, as it may be none in conflict any more");
        assert_eq!((revision(&book), book.trouble()), (Some(7), Some("invalid")));
        assert!(matches!(offer(&mut book, 0, &rules(7, "ams")), OfferOutcome::Refused(Refused::Conflict, _)));
        assert_eq!((revision(&book), book.trouble()), (Some(7), Some("conflict")));
        offer(&mut book, 0, &rules(7, "fra"));
        assert_eq!(book.trouble(), None, "the feed is back at what is in service");
    }

    #[test]
    fn a_conflict_between_sources_is_told_until_newer_rules_come() {
        let mut book = book();
        offer(&mut book, 0, &rules(7, "fra"));
        assert!(matches!(offer(&mut book, 1, &rules(7, "ams")), OfferOutcome::Refused(Refused::Conflict, _)));
        assert!(matches!(offer(&mut book, 0, &rules(7, "fra")), OfferOutcome::Known));
        assert_eq!(book.trouble(), Some("conflict"));
        offer(&mut book, 0, &rules(8, "fra"));
        assert_eq!(book.trouble(), None);
        assert!(matches!(offer(&mut book, 1, &rules(7, "ams")), OfferOutcome::Known), "it is merely old now");
    }

    #[test]
    fn unreachable_sources_are_told_once_each_and_forgotten_when_they_answer() {
        let mut book = RulesState::bundled(&rules(3, "fra"));
        book.arrange(2, 2, Timestamp(0));
        let mut unread = |source, why| (book.note_unread(source, why, Timestamp(0)), book.trouble());
        assert_eq!(unread(0, ReadError::Refused), (true, None), "the other one may answer");
        assert_eq!(unread(1, ReadError::Timeout), (true, Some("unreachable")));
        assert!(!unread(1, ReadError::Timeout).0);
        assert!(unread(1, ReadError::Tls).0, "why is news");
        assert_eq!(book.answering(), (0, 2));
        book.note_unmodified(1, Timestamp(0));
        assert_eq!((revision(&book), book.trouble(), book.answering()), (Some(3), None, (1, 2)));
    }

    #[test]
    fn rules_age_from_when_a_source_last_had_them() {
        let mut book = book();
        let age = |book: &RulesState, now| book.age(Timestamp(now), MAX_AGE);
        offer(&mut book, 0, &rules(7, "fra"));
        assert_eq!((age(&book, 14_999), age(&book, 15_000)), (Age::Fresh, Age::Stale(MAX_AGE)));
        let hour = 3_600_000;
        assert_eq!(age(&book, hour), Age::Stale(Millis(3_600_000)));
        assert_eq!(age(&book, hour + 1), Age::TooOld(Millis(3_600_001)));

        book.note_unread(0, ReadError::Timeout, Timestamp(20_000));
        book.offer(0, b"<html>", None, Timestamp(20_000));
        book.offer(1, &rules(7, "ams"), None, Timestamp(20_000));
        book.offer(2, &rules(6, "fra"), None, Timestamp(20_000));
        assert_eq!(book.since_confirmed(Timestamp(20_000)), Some(Millis(20_000)), "none of these says that they hold");
        book.offer(2, &rules(7, "fra"), None, Timestamp(20_000));
        assert_eq!(age(&book, 20_000), Age::Fresh, "KV has the very same");
        book.offer(1, &rules(6, "fra"), None, Timestamp(40_000));
        assert_eq!(age(&book, 40_000), Age::Fresh, "a node that lags behind knows of no newer ones");
        book.note_unmodified(0, Timestamp(60_000));
        assert_eq!(age(&book, 60_000), Age::Fresh);
    }

    #[test]
    fn the_document_decides_how_long_it_may_be_used_unconfirmed() {
        let mut book = book();
        offer(&mut book, 0, &rules_with(7, "fra", serde_json::json!({ "stale_for": "0s" })));
        let age = |now| book.age(Timestamp(now), MAX_AGE);
        assert_eq!((age(14_999), age(15_000)), (Age::Fresh, Age::TooOld(MAX_AGE)));
    }

    #[test]
    fn old_rules_are_told_of_at_once_and_every_minute() {
        let mut book = book();
        let mut told = |age, now| book.is_news(age, Timestamp(now));
        let stale = Age::Stale(MAX_AGE);
        assert_eq!(
            [told(Age::Fresh, 0), told(stale, 1), told(stale, 2), told(stale, 60_001)],
            [false, true, false, true]
        );
        assert_eq!([told(Age::Fresh, 60_002), told(stale, 60_003)], [false, true]);
    }

    #[test]
    fn the_document_shipped_compiles_and_stands_in_nobodys_way() {
        let shipped = include_bytes!("../../rules.json");
        assert!(Table::compile(shipped).is_ok());
        let mut book = RulesState::bundled(shipped);
        book.arrange(1, 1, Timestamp(0));
        assert_eq!(revision(&book), None);
        assert!(matches!(offer(&mut book, 0, &rules(1, "fra")), OfferOutcome::Taken(_)));
        let mut own = RulesState::bundled(&rules(5, "fra"));
        own.arrange(1, 1, Timestamp(0));
        assert!(
            matches!(offer(&mut own, 0, &rules(4, "ams")), OfferOutcome::Known),
            "a bundled document counts like any other"
        );
    }

    #[test]
    fn rules_built_in_hold_while_kv_has_none_and_never_age_without_a_source() {
        let mut book = RulesState::bundled(&rules(5, "fra"));
        assert_eq!(book.age(Timestamp(i64::MAX), MAX_AGE), Age::Fresh);
        book.arrange(1, 1, Timestamp(0));
        assert!(!book.note_unread(0, ReadError::NoKey, Timestamp(9_000_000)), "no news");
        assert_eq!((book.age(Timestamp(9_000_000), MAX_AGE), book.trouble()), (Age::Fresh, None));
        offer(&mut book, 0, &rules(6, "fra"));
        book.note_unread(0, ReadError::NoKey, Timestamp(9_000_000));
        assert_eq!(book.age(Timestamp(9_000_000), MAX_AGE), Age::TooOld(Millis(9_000_000)), "it was taken away");
    }
}
