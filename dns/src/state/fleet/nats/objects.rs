//! Bundles (named sets of files for applications) in NATS' object store. The bucket `bw_bundles` has an object
//! `NAME/VERSION` for each version; its content is the pack, all files in one piece. Takes a connection, reads and
//! writes objects. Called by nodes, which fetch bundles, and by `bailiwick bundle push`.
//!
//! Objects are stored as NATS' own tools do it: chunks on one subject, then an entry that names the subject. So these
//! tools can list and read the objects, and an object without its entry doesn't exist. No JetStream consumer is made.

use std::sync::{Arc, PoisonError, RwLock};

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RawMessageErrorKind, StorageType};
use bailiwick_host::system::random;
use bailiwick_rules::bundle::{LARGEST_PACK, Version};
use bailiwick_rules::id::BundleId;
use bailiwick_rules::time::Timestamp;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::bucket::{BUNDLES, LARGEST_ENTRY, PART, noted, stream_of};
use super::bus::Bus;

/// What the subjects of objects' entries begin with.
const ENTRIES: &str = "$O.bw_bundles.M.";
/// What the subjects of chunks begin with.
const CHUNKS: &str = "$O.bw_bundles.C.";
/// How many versions are listed at most.
const MOST_LISTED: usize = 4_096;

/// The store, as soon as there is a connection. Copies share it.
#[derive(Debug, Clone, Default)]
pub(in crate::state::fleet) struct Objects(Arc<RwLock<Option<Bus>>>);

impl Objects {
    /// Uses this connection from now on.
    pub(super) fn connect(&self, bus: &Bus) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(bus.clone());
    }

    /// Reads the pack of a version, or what is stored in its place. The caller checks it.
    ///
    /// # Errors
    /// When it isn't there or can't be read.
    pub(in crate::state::fleet) async fn fetch(&self, name: &BundleId, version: Version) -> Result<Vec<u8>, String> {
        let bus = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let bus = bus.filter(Bus::is_connected).ok_or_else(|| "no NATS server can be reached".to_owned())?;
        bus.bundle(name, version).await?.ok_or_else(|| no_version(name, version))
    }
}

/// An object's entry, as NATS' tools write it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    name: String,
    bucket: String,
    nuid: String,
    size: usize,
    chunks: usize,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    mtime: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
    #[serde(default)]
    options: Options,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Options {
    max_chunk_size: usize,
}

/// A version that is stored.
#[derive(Debug, Clone)]
pub(crate) struct StoredBundle {
    /// The bundle.
    pub(crate) name: BundleId,
    /// The version.
    pub(crate) version: Version,
    /// The size of its pack.
    pub(crate) bytes: usize,
    /// When it was pushed.
    pub(crate) came: Timestamp,
}

impl Bus {
    /// The entry of a version; `None` if there is none.
    async fn object(&self, name: &BundleId, version: Version) -> Result<Option<Entry>, String> {
        let last = self.last(BUNDLES, &subject(name, version)).await?.and_then(|last| last.bytes);
        let entry = last.and_then(|bytes| serde_json::from_slice::<Entry>(&bytes).ok());
        Ok(entry.filter(|entry| !entry.deleted && entry.nuid.bytes().all(|byte| byte.is_ascii_alphanumeric())))
    }

    /// Whether a version is stored.
    ///
    /// # Errors
    /// When nothing is known.
    pub(crate) async fn has_bundle(&self, name: &BundleId, version: Version) -> Result<bool, String> {
        Ok(self.object(name, version).await?.is_some())
    }

    /// Reads the pack of a version, or what stands in its place; `None` if there is none.
    ///
    /// # Errors
    /// When it can't be read.
    pub(crate) async fn bundle(&self, name: &BundleId, version: Version) -> Result<Option<Vec<u8>>, String> {
        let Some(entry) = self.object(name, version).await? else { return Ok(None) };
        let (stream, chunks) = (self.stream(BUNDLES).await?, format!("{CHUNKS}{}", entry.nuid));
        let (mut pack, mut from) = (Vec::new(), 1);
        for _ in 0..entry.chunks {
            match stream.raw_message_builder().sequence(from).next_by_subject(&chunks).send().await {
                Ok(message) => {
                    from = message.sequence + 1;
                    pack.extend_from_slice(&message.payload);
                }
                Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => break,
                Err(error) => return Err(self.no_answer(&error)),
            }
            if pack.len() > LARGEST_PACK {
                break;
            }
        }
        Ok(Some(pack))
    }

    /// Stores a pack, unless it is there already. Returns whether it wasn't.
    ///
    /// # Errors
    /// When it can't be stored.
    pub(crate) async fn put_bundle(&self, name: &BundleId, version: Version, pack: &[u8]) -> Result<bool, String> {
        self.make_bundles().await?;
        if self.bundle(name, version).await?.is_some_and(|there| there == pack) {
            return Ok(false);
        }
        let nuid = format!("{:016x}{:016x}", random::bits(), random::bits());
        let mut chunks = 0;
        for chunk in pack.chunks(PART) {
            self.store(format!("{CHUNKS}{nuid}"), HeaderMap::new(), chunk.to_vec()).await?;
            chunks += 1;
        }
        let entry = Entry {
            name: format!("{name}/{version}"),
            bucket: BUNDLES.to_owned(),
            nuid,
            size: pack.len(),
            chunks,
            digest: format!("SHA-256={}", URL_SAFE.encode(digest(&SHA256, pack))),
            mtime: String::new(),
            deleted: false,
            options: Options { max_chunk_size: PART },
        };
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Rollup", "sub");
        let bytes = serde_json::to_vec(&entry).map_err(|error| error.to_string())?;
        self.store(subject(name, version), headers, bytes).await.map(|()| true)
    }

    /// Sends something and waits until it is stored.
    async fn store(&self, subject: String, headers: HeaderMap, bytes: Vec<u8>) -> Result<(), String> {
        let failed = |error: async_nats::jetstream::context::PublishError| {
            self.why(&format!("NATS doesn't confirm that the bundle is stored ({error}); push it again"))
        };
        let sent = self.jetstream.publish_with_headers(subject, headers, bytes.into()).await;
        sent.map_err(failed)?.await.map(drop).map_err(failed)
    }

    /// The versions that are stored, the newest first.
    ///
    /// # Errors
    /// When they can't be read.
    pub(crate) async fn bundles(&self) -> Result<Vec<StoredBundle>, String> {
        let (stream, mut listed, mut from) = (self.stream(BUNDLES).await?, Vec::new(), 1);
        let filter = format!("{ENTRIES}>");
        while listed.len() < MOST_LISTED {
            match stream.raw_message_builder().sequence(from).next_by_subject(&filter).send().await {
                Ok(message) => {
                    from = message.sequence + 1;
                    let entry = serde_json::from_slice::<Entry>(&message.payload).ok().filter(|entry| !entry.deleted);
                    let parts = entry.as_ref().and_then(|entry| entry.name.split_once('/'));
                    let bundle = parts.and_then(|(name, version)| BundleId::parse(name).zip(Version::parse(version)));
                    let came = noted(&message);
                    listed.extend(bundle.zip(entry.as_ref()).map(|((name, version), entry)| StoredBundle {
                        name,
                        version,
                        bytes: entry.size,
                        came,
                    }));
                }
                Err(error) if is_end(&error) => break,
                Err(error) => return Err(self.no_answer(&error)),
            }
        }
        listed.reverse();
        Ok(listed)
    }

    /// Makes the bucket if it isn't there.
    async fn make_bundles(&self) -> Result<(), String> {
        let config = Config {
            name: stream_of(BUNDLES),
            subjects: vec![format!("{CHUNKS}>"), format!("{ENTRIES}>")],
            max_message_size: LARGEST_ENTRY,
            discard: DiscardPolicy::New,
            storage: StorageType::File,
            num_replicas: self.replicas,
            allow_direct: true,
            allow_rollup: true,
            ..Config::default()
        };
        let result = self.jetstream.get_or_create_stream(config).await;
        result
            .map(drop)
            .map_err(|error| self.why(&format!("the bucket {BUNDLES} can't be made ({error}); are enough servers up?")))
    }
}

/// Whether a listing is at its end: nothing more, or no bucket at all.
fn is_end(error: &async_nats::jetstream::stream::RawMessageError) -> bool {
    match error.kind() {
        RawMessageErrorKind::NoMessageFound => true,
        RawMessageErrorKind::JetStream(error) => {
            error.error_code() == async_nats::jetstream::ErrorCode::STREAM_NOT_FOUND
        }
        _ => false,
    }
}

/// What to tell where a version isn't stored.
pub(crate) fn no_version(name: &BundleId, version: Version) -> String {
    format!(
        "the bucket {BUNDLES} has no version {version} of {name}; push it: bailiwick bundle push FOLDER --name {name}"
    )
}

/// The subject of an object's entry.
fn subject(name: &BundleId, version: Version) -> String {
    format!("{ENTRIES}{}", URL_SAFE.encode(format!("{name}/{version}")))
}
