//! The values of the secrets that monitors and load sources name. Takes a secret's name, returns its value: from the
//! file that `bailiwick.toml` names for the secret, or else from the environment variable of that name. Called before
//! each request that needs a secret.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bailiwick_host::system::files::{Fault, Stamp, read_text};

/// The longest value of a secret, in bytes.
const LONGEST: usize = 16 << 10;

/// The `[secrets]` section: the file of each secret, by its name in the rules.
pub type SecretFiles = BTreeMap<String, PathBuf>;

/// Finds the values of secrets. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Secrets {
    /// Values that a test sets. They count before files and the environment.
    by_name: BTreeMap<String, String>,
    files: Arc<Mutex<Files>>,
}

/// The files of secrets and their content.
#[derive(Default)]
struct Files {
    /// The file of each secret.
    named: SecretFiles,
    /// The files that were read.
    read: HashMap<PathBuf, CachedValue>,
}

/// A file as it was last read.
struct CachedValue {
    stamp: Stamp,
    /// The last valid value that the file held.
    last_valid: Option<String>,
    /// The mistake in the file's current version.
    fault: Option<Fault>,
}

impl Secrets {
    /// Secrets with these values. Other names are looked up in the environment.
    #[must_use]
    #[cfg(test)]
    pub(crate) fn new(by_name: BTreeMap<String, String>) -> Self {
        Self { by_name, files: Arc::default() }
    }

    /// Secrets in these files. Names without a file are looked up in the environment.
    #[must_use]
    pub(crate) fn in_files(named: SecretFiles) -> Self {
        let files = Files { named, read: HashMap::new() };
        Self { by_name: BTreeMap::new(), files: Arc::new(Mutex::new(files)) }
    }

    /// Replaces the files of secrets.
    pub(crate) fn set_files(&self, named: SecretFiles) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.read.retain(|path, _| named.values().any(|still_named| still_named == path));
        files.named = named;
    }

    /// The value of a secret. A changed file is read again. While the file is invalid, its last valid value counts.
    /// Reading may block on a disk.
    ///
    /// # Errors
    /// The reason why the secret has no value.
    pub(crate) fn get(&self, name: &str) -> Result<String, String> {
        if let Some(value) = self.by_name.get(name) {
            return Ok(value.clone());
        }
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        match files.named.get(name).cloned() {
            Some(path) => files.value(&path).map_err(|fault| format!("the secret {name} has no value: {fault}")),
            None => std::env::var(name).map_err(|_| format!("the secret {name} has no value on this node")),
        }
    }
}

impl Files {
    /// The value in a file, which is read again if it has changed.
    fn value(&mut self, path: &Path) -> Result<String, Fault> {
        let stamp = Stamp::of(path);
        if self.read.get(path).is_none_or(|cached| cached.stamp != stamp) {
            let before = self.read.remove(path);
            let (last_valid, fault) = match read(path) {
                Ok(value) => (Some(value), None),
                Err(fault) => (before.as_ref().and_then(|cached| cached.last_valid.clone()), Some(fault)),
            };
            if let Some(fault) = fault.as_ref().filter(|_| last_valid.is_some()) {
                let is_new = before.and_then(|cached| cached.fault).as_ref() != Some(fault);
                if is_new {
                    tracing::error!("{fault}; the value before it stays in use");
                }
            }
            self.read.insert(path.to_owned(), CachedValue { stamp, last_valid, fault });
        }
        let cached = self.read.get(path);
        match cached.map(|cached| (&cached.last_valid, &cached.fault)) {
            Some((Some(value), _)) => Ok(value.clone()),
            Some((None, Some(fault))) => Err(fault.clone()),
            _ => Err(Fault::of_file(path, "wasn't read, by a fault of this program")),
        }
    }
}

/// Reads a secret: the first line of a file.
///
/// # Errors
/// When the file can't be read, or its value can't be sent in a header. The error never holds the value.
pub(crate) fn read(path: &Path) -> Result<String, Fault> {
    let text = read_text(path).map_err(|error| {
        Fault::of_file(path, format!("can't be read ({error}); write the secret's value there, on one line"))
    })?;
    let value = text.lines().next().unwrap_or_default().trim();
    let problem = match value {
        "" => "holds no value in its first line; write the secret there",
        _ if value.len() > LONGEST => "is longer than any credential; write the secret alone there",
        _ if !value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) => {
            "holds a character that can't be sent in a header; write the secret in ASCII, on one line"
        }
        _ => return Ok(value.to_owned()),
    };
    Err(Fault::of_file(path, problem))
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_set().entries(self.by_name.keys().chain(files.named.keys())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_before_the_environment_and_are_read_again_when_they_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fra.secret");
        let write = |text: &str| {
            let fresh = folder.path().join("new");
            std::fs::write(&fresh, text).unwrap();
            std::fs::rename(&fresh, &path).unwrap();
        };
        // The variable PATH is set wherever tests run.
        let secrets = Secrets::in_files([("PATH".to_owned(), path.clone())].into());
        assert!(secrets.get("PATH").unwrap_err().starts_with("the secret PATH has no value: "));
        write("first\nsecond line\n");
        assert_eq!(secrets.get("PATH").as_deref(), Ok("first"));
        write("third-one");
        assert_eq!(secrets.get("PATH").as_deref(), Ok("third-one"));
        write("\u{1}");
        assert_eq!(secrets.get("PATH").as_deref(), Ok("third-one"), "the last valid value stays");
        secrets.set_files(SecretFiles::new());
        assert_eq!(secrets.get("PATH").ok(), std::env::var("PATH").ok());
        let error = secrets.get("BAILIWICK_NO_SUCH_KEY").unwrap_err();
        assert_eq!(error, "the secret BAILIWICK_NO_SUCH_KEY has no value on this node");
    }

    #[test]
    fn the_error_for_an_invalid_file_says_what_to_write_and_never_holds_the_value() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let long = "s3cret".repeat(10_000);
        for (text, expected) in
            [("\nx", "holds no value"), ("s3cr\u{e9}t", "can't be sent in a header"), (&long, "is longer than any")]
        {
            std::fs::write(&path, text).unwrap();
            let fault = read(&path).unwrap_err().to_string();
            assert!(fault.contains(expected) && !fault.contains("s3cr"), "{fault}");
        }
        std::fs::write(&path, "s3cret").unwrap();
        let secrets = Secrets::in_files([("KEY".to_owned(), path)].into());
        assert_eq!(secrets.get("KEY").as_deref(), Ok("s3cret"));
        assert_eq!(format!("{secrets:?}"), "{\"KEY\"}");
    }
}
