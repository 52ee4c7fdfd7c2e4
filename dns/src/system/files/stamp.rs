//! Takes a path, returns a [`Stamp`]: the metadata of the file there. Two stamps of a path differ if the file has
//! changed. Called every second or more often for each watched file.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The state of a file at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) path: PathBuf,
    /// The file's metadata; `None` if the file doesn't exist or its metadata can't be read.
    pub(crate) found: Option<FileMetadata>,
}

/// The metadata of a file that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileMetadata {
    /// The canonical path, with all symbolic links followed.
    pub(crate) real: PathBuf,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) length: u64,
    /// The modification time (`st_mtim`), in seconds and nanoseconds.
    pub(crate) written: (i64, i64),
    /// The status change time (`st_ctim`): the last change of the content, name, mode or owner.
    pub(crate) changed: (i64, i64),
}

impl Stamp {
    /// The stamp of the file that is at the path now.
    pub(crate) fn of(path: &Path) -> Self {
        let found = std::fs::metadata(path).ok().map(|found| FileMetadata {
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
