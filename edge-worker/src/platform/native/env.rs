//! Variables and secrets. Takes a name, returns the value: that of a secret's file, else that of the configuration,
//! else that of the process's environment. Called by `runtime`.

use core::fmt;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bailiwick_host::system::file_reload::Renew;
use bailiwick_host::system::files::{Fault, read_text};
use bailiwick_rules::time::Millis;

use crate::decide::rules_state::ReadError;

/// The environment. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Env(Arc<Values>);

/// Variables, secrets, and the file of the rules.
#[derive(Default)]
struct Values {
    rules: Option<PathBuf>,
    variables: BTreeMap<String, String>,
    secrets: Arc<SecretFiles>,
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It has secrets.
        f.write_str("Env")
    }
}

impl Env {
    /// The environment with these variables and secrets, and with a file of the rules.
    pub(crate) fn of(rules: Option<PathBuf>, variables: BTreeMap<String, String>, secrets: Arc<SecretFiles>) -> Self {
        Self(Arc::new(Values { rules, variables, secrets }))
    }

    /// A variable or secret, if it exists and is a text.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let values = &self.0;
        let of_file = values.secrets.current.load().get(name).cloned();
        of_file.or_else(|| values.variables.get(name).cloned()).or_else(|| std::env::var(name).ok())
    }

    /// Whether rules are in a file.
    pub(crate) fn has_kv(&self) -> bool {
        self.0.rules.is_some()
    }

    /// Reads the file of the rules. A disk may hang, so it is read on a blocking thread.
    pub(crate) async fn rules_in_kv(&self, timeout: Millis) -> Result<Vec<u8>, ReadError> {
        let path = self.0.rules.clone().ok_or(ReadError::NoKey)?;
        let read = tokio::task::spawn_blocking(move || std::fs::read(path));
        match tokio::time::timeout(timeout.to_std(), read).await {
            Ok(Ok(Ok(bytes))) => Ok(bytes),
            Ok(Ok(Err(error))) if error.kind() == std::io::ErrorKind::NotFound => Err(ReadError::NoKey),
            Ok(_) => Err(ReadError::Connection),
            Err(_) => Err(ReadError::Timeout),
        }
    }
}

/// Secrets in files, by name. They are read again when a file changes.
#[derive(Default)]
pub(crate) struct SecretFiles {
    files: BTreeMap<String, PathBuf>,
    current: ArcSwap<BTreeMap<String, String>>,
}

impl SecretFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// A fault for each file that can't be read or is empty.
    pub(crate) fn read(files: BTreeMap<String, PathBuf>) -> Result<Arc<Self>, Vec<Fault>> {
        let current = ArcSwap::from_pointee(contents(&files)?);
        Ok(Arc::new(Self { files, current }))
    }
}

/// The contents of the files, without the line break at the end.
fn contents(files: &BTreeMap<String, PathBuf>) -> Result<BTreeMap<String, String>, Vec<Fault>> {
    let (mut read, mut faults) = (BTreeMap::new(), Vec::new());
    for (name, path) in files {
        let fault = |message: String| Fault::of_file(path, message);
        match read_text(path) {
            Ok(text) if text.trim().is_empty() => {
                faults.push(fault(format!("is empty; write the secret {name} there")));
            }
            Ok(text) => _ = read.insert(name.clone(), text.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) => {
                faults.push(fault(format!(
                    "can't be read as the secret {name} ({error}); mend its path, mode or content"
                )));
            }
        }
    }
    if faults.is_empty() { Ok(read) } else { Err(faults) }
}

impl Renew for SecretFiles {
    fn files(&self) -> Vec<PathBuf> {
        self.files.values().cloned().collect()
    }

    fn renew(&self) -> Result<(), Vec<Fault>> {
        self.current.store(Arc::new(contents(&self.files)?));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_before_a_variable_and_that_before_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "of-file\n").unwrap();
        let files = SecretFiles::read(BTreeMap::from([("FRA_KEY".to_owned(), path.clone())])).unwrap();
        let variables = ["FRA_KEY", "LOG", "PATH"].map(|name| (name.to_owned(), "of-variable".to_owned()));
        let env = Env::of(None, variables.into(), Arc::clone(&files));
        assert_eq!(env.text("FRA_KEY").as_deref(), Some("of-file"));
        assert_eq!(env.text("PATH").as_deref(), Some("of-variable"));
        assert!(env.text("CARGO_MANIFEST_DIR").is_some(), "of the environment");
        assert_eq!(env.text("NOWHERE_AT_ALL"), None);

        std::fs::write(&path, "another").unwrap();
        files.renew().unwrap();
        assert_eq!(env.text("FRA_KEY").as_deref(), Some("another"));
        std::fs::write(&path, " \n").unwrap();
        assert!(files.renew().unwrap_err()[0].to_string().contains("is empty; write the secret FRA_KEY there"));
        assert_eq!(env.text("FRA_KEY").as_deref(), Some("another"), "the last good one stays");
    }
}
