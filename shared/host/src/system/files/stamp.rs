//! Takes a path, returns a [`Stamp`]: the metadata of the file there. Two stamps of a path differ if the file has
//! changed. Called every second or more often for each watched file.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The state of a file at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The path that was asked for.
    pub path: PathBuf,
    /// The file's metadata; `None` if the file doesn't exist or its metadata can't be read.
    pub found: Option<FileMetadata>,
}

/// The metadata of a file that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMetadata {
    /// The canonical path, with all symbolic links followed.
    pub real: PathBuf,
    /// The id of the device that holds the file (`st_dev`).
    pub device: u64,
    /// The file's number on the device (`st_ino`).
    pub inode: u64,
    /// The length, in bytes.
    pub length: u64,
    /// The modification time (`st_mtim`), in seconds and nanoseconds.
    pub written: (i64, i64),
    /// The status change time (`st_ctim`): the last change of the content, name, mode or owner.
    pub changed: (i64, i64),
}

impl Stamp {
    /// The stamp of the file that is at the path now.
    #[must_use]
    pub fn of(path: &Path) -> Self {
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
