//! Makes a state directory, and locks it against other processes. Called before a program reads or writes what survives
//! a restart.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

/// Locks a state directory until the returned file is closed; `None` if another process holds the lock.
#[must_use]
pub fn lock(directory: &Path) -> Option<Arc<File>> {
    File::open(directory).ok().filter(|opened| opened.try_lock().is_ok()).map(Arc::new)
}

/// Creates a state directory, which only this user can read. An existing directory keeps its mode.
///
/// # Errors
/// When the directory can't be created.
pub fn make(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}
