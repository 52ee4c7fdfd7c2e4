//! The buckets of a fleet in JetStream, the storage of NATS. Takes a connection; reads the head (the small document
//! that says which rules are published) and documents, and replaces the head if it is still the same. Called by nodes
//! that follow the rules, and by commands that publish them.
//!
//! `bw_rules` holds `head` and `doc.<sha256>`; `bw_state` holds `node.<name>`, `lease.<pool>` and `run.<rollout>`. Both
//! are key-value buckets, so that the tools of NATS show them. This module makes no JetStream consumer: it reads the
//! head, and the server announces a new one on the subject [`NEWS`].

use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, RawMessageError, RawMessageErrorKind, Republish, StorageType, Stream,
};
use async_nats::jetstream::{ErrorCode, context::PublishError};
use async_nats::{HeaderMap, header};
use bailiwick_rules::fleet::follow::LARGEST_DOCUMENT;
use bailiwick_rules::fleet::head::{Head, sha256_hex};
use bailiwick_rules::time::Timestamp;

use super::bus::{Bus, PATIENCE};
use crate::state::fleet::turns::Stored;
use crate::text::cause::innermost;

/// The bucket of rules.
pub(crate) const RULES: &str = "bw_rules";
/// The bucket of what nodes tell of themselves.
pub(crate) const STATE: &str = "bw_state";
/// The bucket of bundles, an object store.
pub(super) const BUNDLES: &str = "bw_bundles";
/// Where a server tells of a new head, once it is stored.
pub(crate) const NEWS: &str = "bw.head";
/// The key of the head.
const HEAD: &str = "$KV.bw_rules.head";
/// How many heads are kept.
const HISTORY: i64 = 64;
/// How much of a document one entry holds, in bytes: servers take 1 MiB by default.
pub(super) const PART: usize = 900 << 10;
/// The largest entry, in bytes.
pub(super) const LARGEST_ENTRY: i32 = 1 << 20;

/// The entry at the key `head`.
#[derive(Debug)]
pub(crate) enum HeadEntry {
    /// A head, and the number of its entry.
    Head(Vec<u8>, u64),
    /// Nothing, and the number of the entry that says so, or 0.
    Absent(u64),
    /// There is no bucket.
    NoBucket,
}

/// The last entry of a subject.
#[derive(Debug, Default)]
pub(super) struct Last {
    /// Its bytes; `None` if it was deleted, or if there is none.
    pub(super) bytes: Option<Vec<u8>>,
    /// Its number; 0 if there is none.
    number: u64,
    /// When the server noted it.
    noted: Timestamp,
}

/// The last report of a node about itself.
#[derive(Debug)]
pub(super) struct OfNode {
    /// Its name.
    pub(super) node: String,
    /// The bytes.
    pub(super) bytes: Vec<u8>,
    /// When the server noted them.
    pub(super) noted: Timestamp,
}

/// The outcome of replacing an entry.
#[derive(Debug)]
pub(crate) enum SwapOutcome {
    /// It is written.
    Done,
    /// Another one stands there now.
    Behind,
    /// Nobody knows, for this reason.
    Unknown(String),
}

impl Bus {
    /// Reads the last entry of a subject from the server that leads, so that what is read is what was written last.
    /// `None` if there is no bucket.
    pub(super) async fn last(&self, bucket: &str, subject: &str) -> Result<Option<Last>, String> {
        match self.stream(bucket).await?.get_last_raw_message_by_subject(subject).await {
            Ok(message) => {
                let bytes = if is_deleted(&message) { None } else { Some(message.payload.to_vec()) };
                Ok(Some(Last { bytes, number: message.sequence, noted: noted(&message) }))
            }
            Err(error) => match error.kind() {
                RawMessageErrorKind::NoMessageFound => Ok(Some(Last::default())),
                RawMessageErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
                _ => Err(self.no_answer(&error)),
            },
        }
    }

    /// Reads the head.
    ///
    /// # Errors
    /// Why nothing is known.
    pub(crate) async fn head(&self) -> Result<HeadEntry, String> {
        Ok(match self.last(RULES, HEAD).await? {
            None => HeadEntry::NoBucket,
            Some(Last { bytes: Some(bytes), number, .. }) => HeadEntry::Head(bytes, number),
            Some(Last { bytes: None, number, .. }) => HeadEntry::Absent(number),
        })
    }

    /// Reads a key of the bucket of state. `None` if it was never written.
    ///
    /// # Errors
    /// Why nothing is known.
    pub(crate) async fn state(&self, key: &str) -> Result<Option<Stored>, String> {
        let last = self.last(STATE, &format!("$KV.{STATE}.{key}")).await?;
        let Last { bytes, number, noted } = last.ok_or_else(|| format!("there is no bucket {STATE}"))?;
        Ok((number > 0).then(|| Stored { bytes: bytes.unwrap_or_default(), number, noted }))
    }

    /// Writes a key of the bucket of state if the entry `before` is still the last one, 0 being none.
    ///
    /// # Errors
    /// When it certainly wasn't written.
    pub(crate) async fn swap_state(&self, key: &str, bytes: &[u8], before: u64) -> Result<SwapOutcome, String> {
        self.put_if(&format!("$KV.{STATE}.{key}"), bytes, before).await
    }

    /// Reads the document with this digest, or what is stored in its place. The caller compares the digest.
    ///
    /// # Errors
    /// When it isn't there or can't be read.
    pub(crate) async fn document(&self, sha256: &str) -> Result<Vec<u8>, String> {
        let (stream, mut document) = (self.stream(RULES).await?, Vec::new());
        for part in 0.. {
            let entry = self.entry(&stream, &key(sha256, part)).await?;
            let bytes = entry.ok_or_else(|| {
                format!(
                    "the bucket {RULES} has no whole document {sha256}; publish it again, or `bailiwick rules restore`"
                )
            })?;
            document.extend_from_slice(&bytes);
            if bytes.len() != PART || document.len() > LARGEST_DOCUMENT {
                break;
            }
        }
        Ok(document)
    }

    /// Reads an entry of a document from any server that holds it. If that one doesn't answer, as its line may be cut,
    /// or doesn't have it yet, it is read from the one that leads. `None` if there is none.
    async fn entry(&self, stream: &Stream<()>, subject: &str) -> Result<Option<Vec<u8>>, String> {
        match stream.direct_get_last_for_subject(subject).await {
            Ok(message) if is_deleted(&message) => Ok(None),
            Ok(message) => Ok(Some(message.payload.to_vec())),
            Err(_) => Ok(self.last(RULES, subject).await?.and_then(|last| last.bytes)),
        }
    }

    /// Writes a document, unless it is there already.
    ///
    /// # Errors
    /// When it can't be written, or something else stands there.
    pub(crate) async fn put_document(&self, bytes: &[u8]) -> Result<(), String> {
        let sha256 = sha256_hex(bytes);
        // The last part is shorter than all others, if need be empty, so that a reader knows the end.
        let whole = bytes.len() / PART;
        for part in 0..=whole {
            let piece = bytes.get(part * PART..bytes.len().min((part + 1) * PART)).unwrap_or_default();
            let key = key(&sha256, part);
            // Most documents are new, and the servers may be far: it is read only if something stands there.
            if matches!(self.put_if(&key, piece, 0).await?, SwapOutcome::Done) {
                continue;
            }
            let read = async || self.last(RULES, &key).await?.ok_or_else(no_bucket);
            let Last { bytes, number, .. } = read().await?;
            if bytes.as_deref() == Some(piece) {
                continue;
            }
            // The key names the digest, so nothing else belongs there: what was deleted or overwritten is put right.
            match self.put_if(&key, piece, number).await? {
                SwapOutcome::Done => {}
                SwapOutcome::Behind if read().await?.bytes.as_deref() == Some(piece) => {}
                SwapOutcome::Behind => return Err(format!("the entry {key} was changed meanwhile; try again")),
                SwapOutcome::Unknown(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// Writes the head if the entry `before` is still the last one, 0 being none.
    ///
    /// # Errors
    /// When it certainly wasn't written.
    pub(crate) async fn swap_head(&self, head: &Head, before: u64) -> Result<SwapOutcome, String> {
        self.put_if(HEAD, &head.to_bytes(), before).await
    }

    /// Writes an entry if `before` is still the last one of its key.
    async fn put_if(&self, subject: &str, bytes: &[u8], before: u64) -> Result<SwapOutcome, String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, before.to_string().as_str());
        let unknown =
            |error: &PublishError| SwapOutcome::Unknown(self.why(&format!("NATS doesn't confirm it ({error})")));
        let sent = self.jetstream.publish_with_headers(subject.to_owned(), headers, bytes.to_vec().into()).await;
        let answer = match sent {
            Ok(answer) => answer.await,
            Err(error) => return Err(self.why(&format!("it can't be sent to NATS ({error})"))),
        };
        match answer {
            Ok(_) => Ok(SwapOutcome::Done),
            Err(error) => match error.kind() {
                PublishErrorKind::WrongLastSequence => Ok(SwapOutcome::Behind),
                PublishErrorKind::StreamNotFound => Err(no_bucket()),
                _ => Ok(unknown(&error)),
            },
        }
    }

    /// The heads that were written, the oldest first. Entries that aren't heads are left out.
    ///
    /// # Errors
    /// When they can't be read.
    pub(crate) async fn heads(&self) -> Result<Vec<Head>, String> {
        let (stream, mut heads, mut from) = (self.stream(RULES).await?, Vec::new(), 1);
        // A server that lies might have no last one.
        for _ in 0..2 * HISTORY {
            match stream.raw_message_builder().sequence(from).next_by_subject(HEAD).send().await {
                Ok(message) => {
                    from = message.sequence + 1;
                    heads.extend(Head::parse(&message.payload).ok().filter(|_| !is_deleted(&message)));
                }
                Err(error) => match error.kind() {
                    RawMessageErrorKind::NoMessageFound => return Ok(heads),
                    RawMessageErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                        return Err(no_bucket());
                    }
                    _ => return Err(self.no_answer(&error)),
                },
            }
        }
        Err(format!("the bucket {RULES} has more than {HISTORY} heads; it isn't one that bailiwick made"))
    }

    /// How many copies of each bucket there are, and whether all are there.
    pub(super) async fn copies(&self) -> Vec<Result<String, String>> {
        let mut findings = Vec::new();
        for bucket in [RULES, STATE] {
            let stream = match self.jetstream.get_stream(stream_of(bucket)).await {
                Ok(stream) => stream,
                Err(error) => {
                    findings.push(Err(self.why(&format!("the bucket {bucket} can't be looked at ({error})"))));
                    continue;
                }
            };
            let info = stream.cached_info();
            let wanted = info.config.num_replicas;
            // One server alone is no cluster.
            let late = info.cluster.iter().flat_map(|cluster| &cluster.replicas).filter(|peer| !peer.current);
            let late: Vec<&str> = late.map(|peer| peer.name.as_str()).collect();
            findings.push(match late[..] {
                [] if wanted < self.replicas => Err(format!(
                    "the bucket {bucket} is kept {wanted} times, for {} servers; raise it with `nats stream edit`",
                    self.replicas
                )),
                [] => Ok(format!("the bucket {bucket} is kept {wanted} times")),
                _ => Err(format!("the bucket {bucket} has copies that are late or missing: {}", late.join(", "))),
            });
        }
        findings
    }

    /// Makes the buckets that aren't there.
    ///
    /// # Errors
    /// When they can't be made.
    pub(crate) async fn make_buckets(&self) -> Result<(), String> {
        let republish = Republish { source: HEAD.to_owned(), destination: NEWS.to_owned(), headers_only: false };
        for (bucket, history, republish) in [(RULES, HISTORY, Some(republish)), (STATE, 1, None)] {
            let config = Config {
                name: stream_of(bucket),
                subjects: vec![format!("$KV.{bucket}.>")],
                max_messages_per_subject: history,
                max_message_size: LARGEST_ENTRY,
                discard: DiscardPolicy::New,
                storage: StorageType::File,
                num_replicas: self.replicas,
                allow_direct: true,
                deny_delete: true,
                republish,
                ..Config::default()
            };
            let result = self.jetstream.get_or_create_stream(config).await;
            result.map_err(|error| {
                self.why(&format!("the bucket {bucket} can't be made ({error}); are enough servers up?"))
            })?;
        }
        Ok(())
    }

    /// Writes what this node tells of itself.
    pub(super) async fn put_node(&self, node: &str, bytes: Vec<u8>) -> Result<(), String> {
        let sent = self.jetstream.publish(format!("$KV.{STATE}.node.{node}"), bytes.into()).await;
        let failed =
            |error: &PublishError| self.why(&format!("the entry node.{node} of {STATE} can't be written ({error})"));
        sent.map_err(|error| failed(&error))?.await.map_err(|error| failed(&error)).map(drop)
    }

    /// Reads the last reports of at most `most` nodes.
    pub(super) async fn nodes(&self, most: usize) -> Result<Vec<OfNode>, String> {
        let (stream, mut nodes, mut from) = (self.stream(STATE).await?, Vec::new(), 1);
        let (filter, before) = (format!("$KV.{STATE}.node.>"), format!("$KV.{STATE}.node."));
        while nodes.len() < most {
            match stream.raw_message_builder().sequence(from).next_by_subject(&filter).send().await {
                Ok(message) => {
                    from = message.sequence + 1;
                    if let Some(node) = message.subject.strip_prefix(&before).filter(|_| !is_deleted(&message)) {
                        let (node, noted) = (node.to_owned(), noted(&message));
                        nodes.push(OfNode { node, bytes: message.payload.to_vec(), noted });
                    }
                }
                Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => break,
                Err(error) => return Err(self.no_answer(&error)),
            }
        }
        Ok(nodes)
    }

    pub(super) async fn stream(&self, bucket: &str) -> Result<Stream<()>, String> {
        let stream = self.jetstream.get_stream_no_info(stream_of(bucket)).await;
        stream.map_err(|error| format!("the bucket {bucket} can't be named ({error})"))
    }

    pub(super) fn no_answer(&self, error: &RawMessageError) -> String {
        self.why(&format!(
            "JetStream gives no answer within {} s ({}); is a majority of the NATS servers up?",
            PATIENCE.as_secs(),
            innermost(error)
        ))
    }
}

/// What to tell where the bucket of rules is missing.
pub(crate) fn no_bucket() -> String {
    format!(
        "there is no bucket {RULES}: it was deleted, or never made; `bailiwick rules restore` makes it and puts the \
         rules back"
    )
}

/// The name of the stream behind a bucket.
pub(crate) fn stream_of(bucket: &str) -> String {
    match bucket {
        BUNDLES => format!("OBJ_{bucket}"),
        _ => format!("KV_{bucket}"),
    }
}

/// The subject of a part of a document.
fn key(sha256: &str, part: usize) -> String {
    match part {
        0 => format!("$KV.{RULES}.doc.{sha256}"),
        part => format!("$KV.{RULES}.doc.{sha256}.{part}"),
    }
}

/// When the server noted an entry.
pub(super) fn noted(message: &StreamMessage) -> Timestamp {
    Timestamp(i64::try_from(message.time.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX))
}

/// Whether an entry says that there is none any more.
fn is_deleted(message: &StreamMessage) -> bool {
    message.headers.get("KV-Operation").is_some_and(|operation| operation.as_str() != "PUT")
}
