//! Reads whole files that the operator configured, replaces files atomically, and detects that a file has changed.
//! Called by all code that reads or writes such files.

mod replace;
mod stamp;

use std::fmt;
use std::io;
use std::path::Path;

pub use replace::{Mode, replace};
pub use stamp::{FileMetadata, Stamp};

/// The error message for a pipe, a socket or a device.
pub const NO_FILE: &str = "is no file but a pipe, a socket or a device";

/// One mistake in a file: its place, what is wrong, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Fault {
    /// The file with a line or a JSON pointer; empty if the message already names the place.
    pub place: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.place, self.message) }
    }
}

impl Fault {
    /// A mistake in a file as a whole.
    #[must_use]
    pub fn of_file(path: &Path, message: impl Into<String>) -> Self {
        Self { place: path.display().to_string(), message: message.into() }
    }
}

/// Reads a whole file. Special files ([`is_special`]) are refused.
///
/// # Errors
/// When the file can't be read.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    match is_special(path) {
        true => Err(io::Error::new(io::ErrorKind::InvalidInput, NO_FILE)),
        false => std::fs::read(path),
    }
}

/// Reads a whole file as UTF-8 text. Special files ([`is_special`]) are refused.
///
/// # Errors
/// When the file can't be read, or isn't UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read_file(path)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
}

/// Whether the path names a pipe, a socket or a device. Reading one may block for ever, and the thread that watches the
/// files would then notice no change of any file.
#[must_use]
pub fn is_special(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}
