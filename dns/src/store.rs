//! What survives a restart: last-good rules and the API's overrides enter, files in the state directory leave, and the other way round at start.
//!
//! Each file is replaced by a rename, so that a reader, or a restart after a crash, finds the old or the new one and never half of either.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bailiwick_rules::health::{Forced, Status};
use bailiwick_rules::id::RegionId;
use bailiwick_rules::time::Timestamp;
use serde::{Deserialize, Serialize};

/// The rules last in service, byte for byte.
const RULES: &str = "rules.last-good.json";
/// The API's overrides.
const OVERRIDES: &str = "overrides.json";

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The rules last in service.
    Rules,
    /// The API's overrides.
    Overrides,
}

/// The state directory.
#[derive(Debug, Clone)]
pub struct Store {
    directory: PathBuf,
    /// Held for as long as the directory is used; `None` where another process holds it, or the system has no such locks.
    lock: Option<Arc<File>>,
}

/// An override as a file keeps it.
#[derive(Serialize, Deserialize)]
struct Kept {
    status: Status,
    until: Timestamp,
    reason: String,
}

impl Store {
    /// Opens a state directory, making it if need be.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn open(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let lock = File::open(directory).ok().filter(|opened| opened.try_lock().is_ok()).map(Arc::new);
        Ok(Self { directory: directory.to_owned(), lock })
    }

    /// Whether no other process uses the directory, as far as can be told.
    #[must_use]
    pub fn is_ours_alone(&self) -> bool {
        self.lock.is_some()
    }

    /// Where the last-good rules are kept.
    #[must_use]
    pub fn rules_path(&self) -> PathBuf {
        Self::rules_in(&self.directory)
    }

    /// Where a state directory that isn't opened keeps the last-good rules.
    #[must_use]
    pub fn rules_in(directory: &Path) -> PathBuf {
        directory.join(RULES)
    }

    /// Where the overrides are kept.
    #[must_use]
    pub fn overrides_path(&self) -> PathBuf {
        self.directory.join(OVERRIDES)
    }

    /// The last-good rules; `None` where there never were any.
    ///
    /// # Errors
    /// When the file is there and can't be read.
    pub fn rules(&self) -> io::Result<Option<Vec<u8>>> {
        read(&self.rules_path())
    }

    /// Keeps the rules that are now in service.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn keep_rules(&self, bytes: &[u8]) -> io::Result<()> {
        replace(&self.rules_path(), bytes)
    }

    /// The overrides, ended ones included.
    ///
    /// # Errors
    /// When the file is there and can't be read or understood.
    pub fn overrides(&self) -> io::Result<BTreeMap<RegionId, Forced>> {
        let Some(bytes) = read(&self.overrides_path())? else { return Ok(BTreeMap::new()) };
        let kept: BTreeMap<RegionId, Kept> = serde_json::from_slice(&bytes)?;
        let forced = |kept: Kept| Forced { status: kept.status, until: kept.until, reason: kept.reason };
        Ok(kept.into_iter().map(|(region, kept)| (region, forced(kept))).collect())
    }

    /// Keeps these overrides and no others.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn keep_overrides(&self, overrides: &BTreeMap<RegionId, Forced>) -> io::Result<()> {
        let kept = |forced: &Forced| Kept { status: forced.status, until: forced.until, reason: forced.reason.clone() };
        let kept: BTreeMap<&RegionId, Kept> = overrides.iter().map(|(region, forced)| (region, kept(forced))).collect();
        replace(&self.overrides_path(), &serde_json::to_vec_pretty(&kept)?)
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes beside the file, then renames over it.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A name of its own each time, so that two that share a directory don't write into one another's.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let beside = path.with_extension(format!("{}-{number}.new", std::process::id()));
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    // Renamed before its bytes are on disk, the file could be empty after a power cut.
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("a/b")).unwrap();
        assert_eq!(store.rules().unwrap(), None);
        assert!(store.overrides().unwrap().is_empty());

        let forced = Forced { status: Status::Down, until: Timestamp(1_796_104_800_000), reason: "drill".into() };
        let overrides = BTreeMap::from([(RegionId::parse("fra").unwrap(), forced)]);
        store.keep_rules(b"{}").unwrap();
        store.keep_rules(b"{ }").unwrap();
        store.keep_overrides(&overrides).unwrap();
        assert_eq!(store.rules().unwrap().as_deref(), Some(&b"{ }"[..]));
        assert_eq!(store.overrides().unwrap(), overrides);
        let files = std::fs::read_dir(directory.path().join("a/b")).unwrap().count();
        assert_eq!(files, 2, "nothing is left beside them");
    }

    #[test]
    fn a_directory_in_use_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let first = Store::open(directory.path()).unwrap();
        assert!(first.is_ours_alone() && !Store::open(directory.path()).unwrap().is_ours_alone());
        drop(first);
        assert!(Store::open(directory.path()).unwrap().is_ours_alone());
    }

    #[test]
    fn damaged_overrides_are_an_error_and_no_panic() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        std::fs::write(store.overrides_path(), b"{\"fra\": 1}").unwrap();
        assert!(store.overrides().is_err());
    }
}
