//! Replaces a file atomically: a reader, or a restart after a crash, finds the whole old file or the whole new file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Who may read the new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The owner alone: 0600.
    Private,
    /// All users whom the umask allows: 0666 without the umask's bits.
    Public,
}

/// Writes the bytes to a temporary file in the same directory, then renames that file to `path`. If anything fails, the
/// old file stays.
///
/// # Errors
/// When the file can't be written.
pub fn replace(path: &Path, bytes: &[u8], mode: Mode) -> io::Result<()> {
    // Each temporary file has its own name, so that two processes or calls never write to the same file.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{number}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = write(&temporary, bytes, mode).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
        return written;
    }
    match path.parent().map(File::open) {
        Some(Ok(directory)) => directory.sync_all(),
        _ => Ok(()), // a directory that can't be read may still be written to
    }
}

/// Creates a file and writes the bytes to disk.
fn write(path: &Path, bytes: &[u8], mode: Mode) -> io::Result<()> {
    let bits = match mode {
        Mode::Private => 0o600,
        Mode::Public => 0o666,
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(bits).open(path)?;
    file.write_all(bytes)?;
    // If the file were renamed before its bytes are on disk, the new file could be empty after a power cut.
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_no_temporary_file_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        replace(&path, b"one", Mode::Public).unwrap();
        assert_ne!(mode(), 0o600);
        replace(&path, b"another", Mode::Private).unwrap();
        assert_eq!((std::fs::read(&path).unwrap(), mode()), (b"another".to_vec(), 0o600));
        std::fs::create_dir(directory.path().join("full")).unwrap();
        std::fs::write(directory.path().join("full/file"), "").unwrap();
        replace(&directory.path().join("full"), b"no file", Mode::Private).unwrap_err();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
