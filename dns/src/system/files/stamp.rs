//! Takes a path, returns a [`Stamp`]: what the file system says of the file there. Two stamps differ if the file has
//! changed. Called every second or more often for each file that is watched.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The state of a file at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) path: PathBuf,
    /// `None` for a file that isn't there or can't be examined.
    pub(crate) found: Option<Found>,
}

/// A file that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Where it really is, all links followed.
    pub(crate) real: PathBuf,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) length: u64,
    /// When it was last written to, in seconds and nanoseconds.
    pub(crate) written: (i64, i64),
    /// When that or its inode last changed: its name, mode or owner.
    pub(crate) changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(path: &Path) -> Self {
        let found = std::fs::metadata(path).ok().map(|found| Found {
            real: std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()),
            device: found.dev(),
            inode: found.ino(),
            length: found.len(),
            written: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        });
        Self { path: path.to_owned(), found }
    }
}
