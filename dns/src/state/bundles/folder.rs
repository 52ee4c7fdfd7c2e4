//! The folder of bundles in the state directory. The file `bundles/NAME/VERSION` is a pack (a version as one piece of
//! bytes); `bundles/served.json` says which version each region was served last. Takes names and versions, reads and
//! writes these files. Called by [`super::Bundles`].

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bailiwick_host::system::files::{Mode, replace};
use bailiwick_rules::bundle::{HEADER_MOST, Version, read_header};
use bailiwick_rules::id::BundleId;
use bailiwick_rules::time::Timestamp;

use super::StoredVersion;
use super::served::LastServed;

/// The folder within the state directory.
const BUNDLES: &str = "bundles";
/// The file in it that says what regions were served last.
const SERVED: &str = "served.json";

/// The folder.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// The folder of a state directory, which may not be there yet.
    pub(super) fn of(state_dir: &Path) -> Self {
        Self(state_dir.join(BUNDLES))
    }

    fn file(&self, name: &BundleId, version: Version) -> PathBuf {
        self.0.join(name.as_str()).join(version.to_string())
    }

    /// Whether there is a whole pack of a version.
    pub(super) fn has(&self, name: &BundleId, version: Version) -> bool {
        read_pack(&self.file(name, version), version).is_ok_and(|stored| stored.is_some())
    }

    /// Reads the whole folder. A file that isn't a whole pack is removed: it can be fetched again.
    pub(super) fn read(&self) -> (BTreeMap<BundleId, BTreeMap<Version, StoredVersion>>, LastServed) {
        let served = std::fs::read(self.0.join(SERVED)).ok().and_then(|bytes| LastServed::parse(&bytes));
        let mut all = BTreeMap::new();
        for folder in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let Some(name) = folder.file_name().to_str().and_then(BundleId::parse) else { continue };
            let mut versions = BTreeMap::new();
            for entry in std::fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                let version = entry.file_name().to_str().and_then(Version::parse);
                match version
                    .map_or(Ok(None), |version| Ok(read_pack(&entry.path(), version)?.map(|stored| (version, stored))))
                {
                    Ok(Some((version, stored))) => _ = versions.insert(version, stored),
                    Ok(None) => remove(&entry.path()),
                    // It may be read after the next start.
                    Err(error) => {
                        let error: io::Error = error;
                        tracing::error!("{}: can't be read ({error})", entry.path().display());
                    }
                }
            }
            if !versions.is_empty() {
                all.insert(name, versions);
            }
        }
        (all, served.unwrap_or_default())
    }

    /// Writes a pack, so that a reader finds all of it or none.
    pub(super) fn write(&self, name: &BundleId, version: Version, pack: &[u8]) -> io::Result<()> {
        let file = self.file(name, version);
        self.make()?;
        make(&self.0.join(name.as_str()))?;
        replace(&file, pack, Mode::Private)
    }

    /// Writes what regions were served last.
    pub(super) fn write_served(&self, bytes: &[u8]) -> io::Result<()> {
        self.make()?;
        replace(&self.0.join(SERVED), bytes, Mode::Private)
    }

    /// Makes the folder. Not the state directory itself: where that is gone, another may be about to be mounted.
    fn make(&self) -> io::Result<()> {
        make(&self.0)
    }

    /// Reads a pack.
    pub(super) fn pack(&self, name: &BundleId, version: Version) -> io::Result<Vec<u8>> {
        std::fs::read(self.file(name, version))
    }

    /// Reads a part of a pack.
    pub(super) fn part(&self, name: &BundleId, version: Version, from: u64, bytes: u64) -> io::Result<Vec<u8>> {
        let mut part = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
        File::open(self.file(name, version))?.read_exact_at(&mut part, from)?;
        Ok(part)
    }

    /// Removes a pack.
    pub(super) fn remove(&self, name: &BundleId, version: Version) {
        remove(&self.file(name, version));
    }
}

fn make(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes a file. If that fails, logs why.
fn remove(file: &Path) {
    if let Err(error) = std::fs::remove_file(file).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }) {
        tracing::warn!("{}: can't be removed ({error})", file.display());
    }
}

/// A pack on the disk, if its header and its size are those of this version. Contents are checked when they are read.
fn read_pack(file: &Path, version: Version) -> io::Result<Option<StoredVersion>> {
    let opened = File::open(file)?;
    let metadata = opened.metadata()?;
    let mut begin = Vec::new();
    opened.take(HEADER_MOST as u64).read_to_end(&mut begin)?;
    let came = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let came = Timestamp(i64::try_from(came.as_millis()).unwrap_or(i64::MAX));
    let Ok((manifest, contents)) = read_header(&begin) else { return Ok(None) };
    let is_whole = metadata.len() == contents as u64 + manifest.bytes();
    let is_it = is_whole && manifest.version() == version;
    Ok(is_it.then(|| StoredVersion { manifest: Arc::new(manifest), came, contents }))
}
