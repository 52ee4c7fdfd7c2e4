//! Publishes rules in NATS, a message broker. Takes a document with its head (who publishes it and why), replaces the
//! head in the fleet's bucket; also reads the history and asks the nodes. Called by [`super`] and by `rules restore`.
//! `bundles` and `leases` use the same connection for the buckets of bundles and of leases.

mod bundles;
mod leases;

use bailiwick_host::system::clock::Clock;
use bailiwick_rules::fleet::head::{Head, sha256_hex};
use bailiwick_rules::fleet::impact::Queries;
use bailiwick_rules::fleet::traffic::TrafficReport;
use tokio::runtime::Runtime;

use super::{Base, Document, Mark, Nodes, Put};
use crate::program::api::publish::Entry;
use crate::program::config::Fleet;
use crate::program::fleet_report::{FleetReport, HeadReport, Limits};
use crate::state::fleet::{Bus, HeadEntry, Question, SwapOutcome, no_bucket, no_head};

/// The buckets of a fleet.
pub(in crate::program::cli) struct Buckets {
    bus: Bus,
    /// The publisher's settings.
    fleet: Fleet,
    /// What drives the connection.
    runtime: Runtime,
}

impl Buckets {
    /// Connects.
    ///
    /// # Errors
    /// That no NATS is named, or that it can't be reached.
    pub(in crate::program::cli) fn open(fleet: &Fleet) -> Result<Self, Vec<String>> {
        let nats = fleet.nats.as_ref().ok_or_else(|| vec!["no NATS is configured".to_owned()])?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| vec![format!("the system gives no event queue: {error}")])?;
        let bus = runtime.block_on(Bus::connect(nats, "bailiwick rules")).map_err(as_list)?;
        Ok(Self { bus, fleet: fleet.clone(), runtime })
    }

    /// Makes the buckets that are missing, then reads the head. Returns the head, if there is one that can be trusted,
    /// and the number of the head's last entry. [`Buckets::put`] takes this number, and replaces the head only if no
    /// later entry was written since.
    ///
    /// # Errors
    /// When a bucket can't be made, or the head can't be read.
    pub(in crate::program::cli::rules) fn prepare(&self) -> Result<(Option<Head>, u64), Vec<String>> {
        self.runtime.block_on(self.bus.make_buckets()).map_err(as_list)?;
        match self.read_head()? {
            // A head that can't be trusted counts as none here, because only `rules restore` may overwrite such a head.
            HeadEntry::Head(bytes, entry) => Ok((self.verify_head(&bytes).ok(), entry)),
            HeadEntry::Absent(entry) => Ok((None, entry)),
            HeadEntry::NoBucket => Err(vec![no_bucket()]),
        }
    }

    /// Reads a head, and checks that one of `trusted_publishers` of the publisher's file signed it. The next
    /// publication starts from the document that this head names, and is signed: a forged document would become a
    /// trusted one. If the file names no publishers, any head is accepted.
    fn verify_head(&self, bytes: &[u8]) -> Result<Head, Vec<String>> {
        let head = self.fleet.trust().believe(bytes);
        head.map_err(|error| {
            vec![format!(
                "what stands in NATS as head can't be used: {error}; `bailiwick rules restore` puts the rules back"
            )]
        })
    }

    /// Checks that the nodes will accept a head, as far as the publisher's file says whom they trust. Otherwise a head
    /// that they refuse would replace one that they accept.
    fn check_accepted(&self, head: &Head) -> Result<(), Vec<String>> {
        self.fleet.trust().believe(&head.to_bytes()).map(drop).map_err(|error| {
            vec![format!("no node would take it: {error}; sign it with --key by one of trusted_publishers")]
        })
    }

    fn read_head(&self) -> Result<HeadEntry, Vec<String>> {
        self.runtime.block_on(self.bus.head()).map_err(as_list)
    }

    /// The bytes of the head and the number of its entry.
    ///
    /// # Errors
    /// That there is no head or no bucket, or that it can't be read.
    fn present_head(&self) -> Result<(Vec<u8>, u64), Vec<String>> {
        match self.read_head()? {
            HeadEntry::Head(bytes, entry) => Ok((bytes, entry)),
            HeadEntry::Absent(_) => Err(vec![no_head()]),
            HeadEntry::NoBucket => Err(vec![no_bucket()]),
        }
    }

    /// The document in service, which the next publication replaces.
    pub(super) fn base(&self) -> Result<Base, Vec<String>> {
        let (bytes, entry) = self.present_head()?;
        let head = self.verify_head(&bytes)?;
        Ok(Base { revision: head.revision, mark: Mark::Entry(entry), document: self.read(head)? })
    }

    /// The document that a head names.
    fn read(&self, head: Head) -> Result<Document, Vec<String>> {
        let bytes = self.runtime.block_on(self.bus.document(&head.sha256)).map_err(as_list)?;
        match sha256_hex(&bytes) == head.sha256 {
            true => Ok(Document { bytes, head: Some(head) }),
            false => Err(vec![format!(
                "what stands in NATS for revision {} doesn't have the digest that its head names; it was cut or \
                 changed",
                head.revision
            )]),
        }
    }

    /// Writes a document, unless the bucket already has it whole.
    ///
    /// # Errors
    /// When it can't be written.
    pub(in crate::program::cli::rules) fn put_document(&self, bytes: &[u8]) -> Result<(), Vec<String>> {
        self.runtime.block_on(self.bus.put_document(bytes)).map_err(as_list)
    }

    /// Publishes a document in place of the head with this entry.
    ///
    /// # Errors
    /// Why it isn't published.
    pub(in crate::program::cli::rules) fn put(
        &self,
        entry: u64,
        head: &Head,
        bytes: &[u8],
    ) -> Result<Put, Vec<String>> {
        self.check_accepted(head)?;
        self.put_document(bytes)?;
        match self.runtime.block_on(self.bus.swap_head(head, entry)).map_err(as_list)? {
            SwapOutcome::Done => Ok(Put::Stored),
            SwapOutcome::Behind => Ok(Put::Stale(self.verify_head(&self.present_head()?.0)?.revision)),
            SwapOutcome::Unknown(why) => Ok(Put::Unknown(vec![why])),
        }
    }

    /// Writes a head that brings the document in service to more nodes.
    pub(super) fn put_head(&self, head: &Head) -> Result<(), Vec<String>> {
        self.check_accepted(head)?;
        let (bytes, entry) = self.present_head()?;
        let current = self.verify_head(&bytes)?;
        if current.names() != head.names() || current.stage >= head.stage {
            let Head { revision, stage, .. } = current;
            return Err(vec![format!("revision {revision}, for stage {stage}, is in service by now")]);
        }
        match self.runtime.block_on(self.bus.swap_head(head, entry)).map_err(as_list)? {
            SwapOutcome::Done => Ok(()),
            SwapOutcome::Behind => Err(vec!["somebody else has published meanwhile; look, then try again".to_owned()]),
            SwapOutcome::Unknown(why) => match self.read_head() {
                Ok(HeadEntry::Head(bytes, _)) if bytes == head.to_bytes() => Ok(()),
                _ => Err(vec![why, "whether it was published isn't known; look again in a while".to_owned()]),
            },
        }
    }

    /// What a change has to keep to, as the publisher's file says.
    pub(super) fn limits(&self) -> Limits {
        Limits::from(&self.fleet)
    }

    /// The trusted heads that were published, the newest first, each revision once.
    fn heads(&self) -> Result<Vec<Head>, Vec<String>> {
        let mut heads = self.runtime.block_on(self.bus.heads()).map_err(as_list)?;
        heads.retain(|head| self.verify_head(&head.to_bytes()).is_ok());
        heads.reverse();
        heads.dedup_by_key(|head| head.revision);
        Ok(heads)
    }

    /// What every node says of itself.
    pub(super) fn nodes(&self) -> Result<Nodes, Vec<String>> {
        let mut nodes = Nodes::default();
        let add = |node: &str, bytes: Vec<u8>| match serde_json::from_slice::<FleetReport>(&bytes) {
            Ok(report) if report.node == node => _ = nodes.answered.insert(node.to_owned(), report),
            _ => nodes.missing.push(node.to_owned()),
        };
        let missing = self.ask(Question::Fleet, add)?;
        nodes.missing.extend(missing);
        Ok(nodes)
    }

    /// The queries that all nodes together counted in the last week. None if none were.
    pub(super) fn queries(&self) -> Result<Option<Queries>, Vec<String>> {
        let mut sum: Option<TrafficReport> = None;
        let add = |_: &str, bytes: Vec<u8>| match (serde_json::from_slice(&bytes), &mut sum) {
            (Ok(report), Some(sum)) => sum.add(report),
            (Ok(report), None) => sum = Some(report),
            (Err(_), _) => {}
        };
        self.ask(Question::Traffic, add)?;
        Ok(sum.map(|sum| sum.queries()).filter(|queries| !queries.is_empty()))
    }

    /// Asks every node. Returns those that gave no answer.
    fn ask(&self, question: Question, each: impl FnMut(&str, Vec<u8>)) -> Result<Vec<String>, Vec<String>> {
        self.runtime.block_on(self.bus.ask_nodes(question, Clock::system().now(), each)).map_err(as_list)
    }

    /// The history, the newest first.
    pub(super) fn history(&self) -> Result<Vec<Entry>, Vec<String>> {
        let entry = |head: &Head| Entry { revision: head.revision, head: Some(HeadReport::from(head)) };
        Ok(self.heads()?.iter().map(entry).collect())
    }

    /// A document of the history.
    pub(super) fn document(&self, revision: u64) -> Result<Document, Vec<String>> {
        let head = self.heads()?.into_iter().find(|head| head.revision == revision);
        let head = head.ok_or_else(|| {
            vec![format!("revision {revision} isn't among those in NATS; `bailiwick rules history` lists them")]
        })?;
        self.read(head)
    }
}

fn as_list(error: String) -> Vec<String> {
    vec![error]
}
