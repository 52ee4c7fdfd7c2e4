//! What an isolate believes: rules documents and nodes' health reports enter, the table and the health that requests are
//! steered by leave. Pure; [`crate::feed`] brings the bytes and the time.

use std::rc::Rc;

use bailiwick_rules::health::RegionHealth;
use bailiwick_rules::json::Violation;
use bailiwick_rules::report::{HealthReport, Received, aggregate};
use bailiwick_rules::table::{Revision, Succession, Table};
use bailiwick_rules::time::{Millis, Timestamp};

/// How long an aggregate of health reports is used again: reports age, but not by the request.
const AGGREGATE_FOR: Millis = Millis(500);

/// The rules in service and what the last offers were.
#[derive(Debug, Default)]
pub(crate) struct Book {
    table: Option<Rc<Table>>,
    /// The digest of the document that was refused last, and why. Gone when a good one is taken.
    refused: Option<([u8; 32], Refused)>,
    /// Whether the last try to read the feed failed.
    unreachable: bool,
}

/// Why a document wasn't taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// It has violations.
    Invalid,
    /// It has the revision in service and other bytes.
    Conflict,
}

/// What became of an offered document.
#[derive(Debug)]
pub(crate) enum Offer {
    /// It is in service.
    Taken(Revision),
    /// It is in service already, or older than what is, or was refused before: nothing to tell.
    Unchanged,
    /// It isn't taken, which is news. `Conflict` has no violations.
    Refused(Refused, Vec<Violation>),
}

impl Book {
    /// Takes the document, if it is good and newer. Anything else keeps the last good one.
    pub(crate) fn offer(&mut self, bytes: &[u8]) -> Offer {
        self.unreachable = false;
        let digest = digest(bytes);
        if self.refused.is_some_and(|(refused, _)| refused == digest) {
            return Offer::Unchanged;
        }
        if self.table.as_ref().is_some_and(|table| table.revision().sha256 == digest) {
            self.refused = None;
            return Offer::Unchanged;
        }
        let (refused, violations) = match Table::compile(bytes) {
            Err(violations) => (Refused::Invalid, violations),
            Ok(table) => match self.table.as_ref().map(|now| now.revision().succession(&table.revision())) {
                None | Some(Succession::Newer) => {
                    let revision = table.revision();
                    *self = Self { table: Some(Rc::new(table)), ..Self::default() };
                    return Offer::Taken(revision);
                }
                Some(Succession::Same | Succession::Older) => {
                    self.refused = None;
                    return Offer::Unchanged;
                }
                Some(Succession::Conflict) => (Refused::Conflict, Vec::new()),
            },
        };
        self.refused = Some((digest, refused));
        Offer::Refused(refused, violations)
    }

    /// Begins with the document that was built in. One that steers nothing is a placeholder: it is not remembered, so that
    /// the feed's first document is taken whatever its revision.
    pub(crate) fn bundled(bytes: &[u8]) -> Self {
        let mut book = Self::default();
        book.offer(bytes);
        match &book.table {
            Some(table) if table.services().is_empty() => Self::default(),
            _ => book,
        }
    }

    /// Notes that the feed could not be read. True when that is news.
    pub(crate) fn note_unreachable(&mut self) -> bool {
        !core::mem::replace(&mut self.unreachable, true)
    }

    /// Notes that the feed holds what it held before.
    pub(crate) fn note_unmodified(&mut self) {
        self.unreachable = false;
    }

    /// The rules in service.
    pub(crate) fn table(&self) -> Option<&Rc<Table>> {
        self.table.as_ref()
    }

    /// What is wrong with the feed, in a word, if anything.
    pub(crate) fn trouble(&self) -> Option<&'static str> {
        match (self.unreachable, self.refused) {
            (true, _) => Some("unreachable"),
            (false, Some((_, Refused::Invalid))) => Some("invalid"),
            (false, Some((_, Refused::Conflict))) => Some("conflict"),
            (false, None) => None,
        }
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).into()
}

/// The nodes' last reports, and what they add up to.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    by_node: Vec<Option<Received>>,
    aggregate: Option<(Revision, Timestamp, Rc<[RegionHealth]>)>,
}

impl Reports {
    /// Notes what the node at `position` of the configured list reported.
    pub(crate) fn receive(&mut self, position: usize, at: Timestamp, report: HealthReport) {
        if self.by_node.len() <= position {
            self.by_node.resize(position + 1, None);
        }
        if let Some(slot) = self.by_node.get_mut(position) {
            *slot = Some(Received { at, report });
        }
        self.aggregate = None;
    }

    /// Health by region of `table`: what the reports that are still fresh say by majority.
    pub(crate) fn health(&mut self, table: &Table, now: Timestamp) -> Rc<[RegionHealth]> {
        if let Some((revision, at, health)) = &self.aggregate
            && *revision == table.revision()
            && *at <= now
            && now.since(*at) < AGGREGATE_FOR
        {
            return Rc::clone(health);
        }
        // One from what is now the future is of any age: the clock was set back.
        let received: Vec<Received> = self.by_node.iter().flatten().filter(|told| told.at <= now).cloned().collect();
        let health: Rc<[RegionHealth]> = aggregate(table, &received, now).into();
        self.aggregate = Some((table.revision(), now, Rc::clone(&health)));
        health
    }

    /// How many nodes have reported at all.
    pub(crate) fn nodes(&self) -> usize {
        self.by_node.iter().flatten().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bailiwick_rules::health::Status;

    fn rules(revision: u64, region: &str) -> Vec<u8> {
        serde_json::json!({
            "version": 1, "revision": revision,
            "regions": { region: { "countries": ["DE"] } },
            "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": [region],
                                    "residency": [{ "clients": ["*"], "process_in": ["*"] }] } },
        })
        .to_string()
        .into_bytes()
    }

    fn revision(book: &Book) -> Option<u64> {
        book.table().map(|table| table.revision().number)
    }

    #[test]
    fn a_newer_document_is_taken_an_older_one_ignored() {
        let mut book = Book::default();
        assert!(matches!(book.offer(&rules(7, "fra")), Offer::Taken(_)));
        assert!(matches!(book.offer(&rules(7, "fra")), Offer::Unchanged));
        assert!(matches!(book.offer(&rules(6, "ams")), Offer::Unchanged));
        assert_eq!((revision(&book), book.trouble()), (Some(7), None));
        assert!(matches!(book.offer(&rules(8, "ams")), Offer::Taken(_)));
        assert_eq!(revision(&book), Some(8));
    }

    #[test]
    fn a_bad_document_keeps_the_last_good_one_and_is_told_once() {
        let mut book = Book::default();
        book.offer(&rules(7, "fra"));
        let bad = br#"{"version": 1, "revision": 8, "regoins": {}}"#;
        assert!(matches!(book.offer(bad), Offer::Refused(Refused::Invalid, violations) if violations.len() == 1));
        assert!(matches!(book.offer(bad), Offer::Unchanged));
        assert_eq!((revision(&book), book.trouble()), (Some(7), Some("invalid")));
        assert!(matches!(book.offer(&rules(7, "ams")), Offer::Refused(Refused::Conflict, _)));
        assert_eq!((revision(&book), book.trouble()), (Some(7), Some("conflict")));
        book.offer(&rules(7, "fra"));
        assert_eq!(book.trouble(), None, "the feed is back at what is in service");
    }

    #[test]
    fn an_unreachable_feed_is_told_once_and_forgotten_when_it_answers() {
        let mut book = Book::bundled(&rules(3, "fra"));
        assert!(book.note_unreachable());
        assert!(!book.note_unreachable());
        assert_eq!(book.trouble(), Some("unreachable"));
        book.note_unmodified();
        assert_eq!((revision(&book), book.trouble()), (Some(3), None));
    }

    #[test]
    fn the_document_shipped_compiles_and_stands_in_nobodys_way() {
        let shipped = include_bytes!("../rules.json");
        assert!(Table::compile(shipped).is_ok());
        let mut book = Book::bundled(shipped);
        assert_eq!(revision(&book), None);
        assert!(matches!(book.offer(&rules(1, "fra")), Offer::Taken(_)));
        let mut own = Book::bundled(&rules(5, "fra"));
        assert!(matches!(own.offer(&rules(4, "ams")), Offer::Unchanged), "a bundled document counts like any other");
    }

    #[test]
    fn reports_add_up_until_they_are_old() {
        let table = Table::compile(&rules(1, "fra")).unwrap();
        let report = |status: &str| -> HealthReport {
            serde_json::from_value(serde_json::json!({
                "node": "ns1", "revision": 1, "rules_sha256": "",
                "regions": { "fra": { "status": status, "probed": status, "stale": false, "override": null,
                                      "age_ms": 0, "interval_ms": 1000, "endpoints": {} } },
            }))
            .unwrap()
        };
        let mut reports = Reports::default();
        let probed = |reports: &mut Reports, now| reports.health(&table, Timestamp(now))[0].probed;
        assert_eq!(probed(&mut reports, 0), Status::Unknown);
        reports.receive(1, Timestamp(0), report("down"));
        assert_eq!(probed(&mut reports, 0), Status::Down, "a new report counts at once");
        reports.receive(0, Timestamp(1000), report("up"));
        assert_eq!(probed(&mut reports, 1000), Status::Up, "a tie is up");
        assert_eq!(probed(&mut reports, 9000), Status::Unknown, "nobody has spoken for three intervals");
        assert_eq!(reports.nodes(), 2);
        reports.receive(0, Timestamp(9000), report("down"));
        assert_eq!(probed(&mut reports, 9000), Status::Down);
        assert_eq!(probed(&mut reports, 8000), Status::Unknown, "the clock was set back");
    }
}
