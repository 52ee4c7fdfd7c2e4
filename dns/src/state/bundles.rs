//! The bundles that this node stores. A bundle is a named set of files for applications, such as prompts; a version is
//! identified by the digest of its files; a pack is a version as one piece of bytes. Takes packs, keeps them in the
//! state directory; returns which version a region gets by the rules, and its files. Called by the API, and by
//! [`fleet`](crate::state::fleet), which fetches bundles from other nodes and from NATS.
//!
//! Digests are checked before a pack is stored, and again before a file is served. A version that was damaged on the
//! disk is removed, and fetched again as if it had never been there.

mod folder;
mod served;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bailiwick_rules::bundle::{
    BundleError, Digest, LARGEST_PACK, MOST_VERSIONS, Manifest, Version, served, superfluous, unpack,
};
use bailiwick_rules::id::{BundleId, RegionId};
use bailiwick_rules::table::Table;
use bailiwick_rules::time::Timestamp;
use tokio::sync::watch;

use folder::Folder;
use served::LastServed;

/// How many bundles a node holds.
const MOST_BUNDLES: usize = 256;

/// All bundles of a node. Copies share them.
#[derive(Debug, Clone)]
pub(crate) struct Bundles(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None` without a state directory: then nothing can be held.
    folder: Option<Folder>,
    known: Mutex<FolderState>,
    /// Counts the changes of what is known.
    changes: watch::Sender<u64>,
    /// Whether requests may no longer wait for another version, because the server stops.
    is_closed: AtomicBool,
}

/// What is known of the folder, and of what regions were served.
#[derive(Debug, Default)]
struct FolderState {
    versions: BTreeMap<BundleId, BTreeMap<Version, StoredVersion>>,
    served: LastServed,
    /// Why a version that is pinned isn't here.
    troubles: BTreeMap<(BundleId, Version), String>,
}

/// A version in the folder.
#[derive(Debug, Clone)]
pub(crate) struct StoredVersion {
    /// Its files.
    pub(crate) manifest: Arc<Manifest>,
    /// When it came.
    pub(crate) came: Timestamp,
    /// Where the contents begin in its pack.
    contents: usize,
}

/// Why a bundle can't be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PutError {
    /// There is no state directory.
    #[error("this node has no state_dir, so it can keep no bundles; set state_dir in its configuration")]
    NoFolder,
    /// It is none.
    #[error("{0}")]
    Unfit(#[from] BundleError),
    /// It isn't the version that was asked for.
    #[error("it is version {0}, which wasn't asked for")]
    Other(Version),
    /// There are too many others.
    #[error("this node holds {MOST_BUNDLES} bundles already; use the name of one of them")]
    TooMany,
    /// The disk takes it not.
    #[error("it can't be written to state_dir ({0})")]
    Disk(#[from] io::Error),
}

/// The version that somebody gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resolved {
    /// The rules don't name the bundle.
    Unpinned,
    /// Neither the pinned version nor an earlier one is here; why, if that is known.
    Missing(Version, Option<String>),
    /// This version.
    Serves {
        /// What is served.
        version: Version,
        /// What is pinned: the same, unless it isn't here yet.
        pinned: Version,
    },
}

/// Whether a state directory that isn't opened has a version.
pub(crate) fn is_kept(state_dir: &Path, name: &BundleId, version: Version) -> bool {
    Folder::of(state_dir).has(name, version)
}

/// Whether a file that can't be read is cut or gone. Other errors pass, such as too many open files, and are no reason
/// to remove what may be the only copy.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
}

impl Bundles {
    /// Reads what a state directory holds. What isn't whole is removed.
    pub(crate) fn open(state_dir: Option<&Path>) -> Self {
        let folder = state_dir.map(Folder::of);
        let (versions, served) = folder.as_ref().map(Folder::read).unwrap_or_default();
        let known = FolderState { versions, served, troubles: BTreeMap::new() };
        Self(Arc::new(Inner {
            folder,
            known: Mutex::new(known),
            changes: watch::Sender::new(0),
            is_closed: AtomicBool::new(false),
        }))
    }

    fn folder_state(&self) -> MutexGuard<'_, FolderState> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the requests that wait for another version.
    pub(crate) fn tell(&self) {
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// Ends the waiting of all requests, because the server stops.
    pub(crate) fn close(&self) {
        self.0.is_closed.store(true, Ordering::Relaxed);
        self.tell();
    }

    /// Whether requests may no longer wait.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed.load(Ordering::Relaxed)
    }

    /// Gives every change from now on.
    pub(crate) fn follow(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Everything that is held, by name and version.
    pub(crate) fn all(&self) -> BTreeMap<BundleId, BTreeMap<Version, StoredVersion>> {
        self.folder_state().versions.clone()
    }

    /// A version that is held.
    pub(crate) fn stored(&self, name: &BundleId, version: Version) -> Option<StoredVersion> {
        self.folder_state().versions.get(name)?.get(&version).cloned()
    }

    /// The version that a region gets, or somebody of none.
    pub(crate) fn resolve(&self, table: &Table, name: &BundleId, region: Option<&RegionId>) -> Resolved {
        let (pins, pinned) = (table.bundles().get(name), table.bundle_version(name, region));
        let Some((pins, pinned)) = pins.zip(pinned) else { return Resolved::Unpinned };
        let known = self.folder_state();
        match served(pinned, known.served.of(name, region, pins), |version| known.holds(name, version)) {
            Some(version) => Resolved::Serves { version, pinned },
            None => Resolved::Missing(pinned, known.troubles.get(&(name.clone(), pinned)).cloned()),
        }
    }

    /// Takes a pack, if it is sound and is `expected`. Returns what is held now, and whether it is new. Called where a
    /// disk may hang.
    ///
    /// # Errors
    /// Why it isn't kept.
    pub(crate) fn put(
        &self,
        (name, expected): (&BundleId, Option<Version>),
        pack: &[u8],
        table: &Table,
        now: Timestamp,
    ) -> Result<(Version, StoredVersion, bool), PutError> {
        let folder = self.0.folder.as_ref().ok_or(PutError::NoFolder)?;
        let (manifest, contents) = unpack(pack)?;
        let bytes: usize = contents.iter().map(|content| content.len()).sum();
        let version = manifest.version();
        if expected.is_some_and(|expected| expected != version) {
            return Err(PutError::Other(version));
        }
        if let Some(stored) = self.stored(name, version)
            && folder.pack(name, version).is_ok_and(|there| there == pack)
        {
            return Ok((version, stored, false));
        }
        let is_full = |known: &FolderState| known.versions.len() >= MOST_BUNDLES && !known.versions.contains_key(name);
        if is_full(&self.folder_state()) {
            return Err(PutError::TooMany);
        }
        folder.write(name, version, pack)?;
        let stored = StoredVersion { manifest: Arc::new(manifest), came: now, contents: pack.len() - bytes };
        {
            let mut known = self.folder_state();
            known.versions.entry(name.clone()).or_default().insert(version, stored.clone());
            known.troubles.remove(&(name.clone(), version));
            for old in known.superfluous(name, table) {
                folder.remove(name, old);
                known.versions.entry(name.clone()).or_default().remove(&old);
            }
        }
        self.tell();
        Ok((version, stored, true))
    }

    /// Reads a whole pack. `None` if it isn't held, or was damaged. Called where a disk may hang.
    pub(crate) fn pack(&self, name: &BundleId, version: Version) -> Option<Vec<u8>> {
        let (folder, _) = (self.0.folder.as_ref()?, self.stored(name, version)?);
        let read = folder.pack(name, version);
        if read.as_ref().is_err_and(|error| !is_damage(error)) {
            return None;
        }
        let pack = read.ok().filter(|pack| pack.len() <= LARGEST_PACK);
        let pack = pack.filter(|pack| unpack(pack).is_ok_and(|(manifest, _)| manifest.version() == version));
        if pack.is_none() {
            self.lose(name, version);
        }
        pack
    }

    /// Reads a file of a version that is held. `None` if it was damaged. Called where a disk may hang.
    pub(crate) fn file(
        &self,
        name: &BundleId,
        version: Version,
        stored: &StoredVersion,
        path: &str,
    ) -> Option<Vec<u8>> {
        let (folder, (file, from)) = (self.0.folder.as_ref()?, stored.manifest.file(path)?);
        let content = folder.part(name, version, stored.contents as u64 + from, file.bytes);
        if content.as_ref().is_err_and(|error| !is_damage(error)) {
            return None;
        }
        let content = content.ok().filter(|content| Digest::of(content) == file.sha256);
        if content.is_none() {
            self.lose(name, version);
        }
        content
    }

    /// Forgets a version that was damaged on the disk.
    fn lose(&self, name: &BundleId, version: Version) {
        let was_held = {
            let mut known = self.folder_state();
            let removed = known.versions.get_mut(name).and_then(|versions| versions.remove(&version));
            if removed.is_some()
                && let Some(folder) = &self.0.folder
            {
                folder.remove(name, version);
            }
            removed.is_some()
        };
        if was_held {
            tracing::error!(
                json.event = "bundle_damaged", bundle = %name, %version,
                "version {version} of bundle {name} was damaged in state_dir, and is removed; it is fetched again if \
                 it is pinned"
            );
            self.tell();
        }
    }

    /// Notes what regions are served by these rules, and writes it. Returns the versions that the rules name and aren't
    /// here. Called where a disk may hang.
    pub(crate) fn settle(&self, table: &Table) -> Vec<(BundleId, Version)> {
        let mut missing = BTreeSet::new();
        let written = {
            let mut known = self.folder_state();
            let FolderState { versions, served, troubles } = &mut *known;
            let is_held = |name: &BundleId, version| versions.get(name).is_some_and(|all| all.contains_key(&version));
            let lacking = table.bundle_versions().filter(|(name, _, version)| !is_held(name, *version));
            missing.extend(lacking.map(|(name, _, version)| (name.clone(), version)));
            troubles.retain(|of, _| missing.contains(of));
            served.follow(table, is_held).then(|| served.to_bytes())
        };
        if let (Some(folder), Some(bytes)) = (&self.0.folder, written)
            && let Err(error) = folder.write_served(&bytes)
        {
            tracing::error!(%error, "which bundles were served last can't be written to state_dir");
        }
        // Pins may have changed, whatever is here.
        self.tell();
        missing.into_iter().collect()
    }

    /// Notes why a version isn't here. Returns whether that is news.
    pub(crate) fn note_trouble(&self, name: &BundleId, version: Version, why: String) -> bool {
        self.folder_state().troubles.insert((name.clone(), version), why.clone()) != Some(why)
    }
}

impl FolderState {
    fn holds(&self, name: &BundleId, version: Version) -> bool {
        self.versions.get(name).is_some_and(|versions| versions.contains_key(&version))
    }

    /// The versions of a bundle that aren't kept any longer.
    fn superfluous(&self, name: &BundleId, table: &Table) -> Vec<Version> {
        let named = table.bundle_versions().filter(|(bundle, ..)| *bundle == name).map(|(.., version)| version);
        let in_use = named.chain(self.served.versions(name)).collect();
        let stored: Vec<_> =
            self.versions.get(name).into_iter().flatten().map(|(version, stored)| (*version, stored.came)).collect();
        superfluous(&stored, &in_use, MOST_VERSIONS)
    }
}
