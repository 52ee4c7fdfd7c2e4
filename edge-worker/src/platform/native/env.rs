//! Variables and secrets. Takes a name, returns the value. Called by `runtime`.

use core::fmt;
use std::path::PathBuf;
use std::rc::Rc;

use bailiwick_rules::time::Millis;

use crate::decide::rules_state::ReadError;

/// The environment of the process, and the file of the rules. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Env(Rc<Option<PathBuf>>);

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It has secrets.
        f.write_str("Env")
    }
}

impl Env {
    /// The environment with a file of the rules.
    pub(crate) fn of(rules: Option<PathBuf>) -> Self {
        Self(Rc::new(rules))
    }

    /// A variable or secret, if it exists and is a text.
    #[expect(clippy::unused_self, reason = "other platforms have an environment for each request")]
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    /// Whether rules are in a file.
    pub(crate) fn has_kv(&self) -> bool {
        self.0.is_some()
    }

    /// Reads the file of the rules. A disk may hang, so it is read on a blocking thread.
    pub(crate) async fn rules_in_kv(&self, timeout: Millis) -> Result<Vec<u8>, ReadError> {
        let path = (*self.0).clone().ok_or(ReadError::NoKey)?;
        let read = tokio::task::spawn_blocking(move || std::fs::read(path));
        match tokio::time::timeout(timeout.to_std(), read).await {
            Ok(Ok(Ok(bytes))) => Ok(bytes),
            Ok(Ok(Err(error))) if error.kind() == std::io::ErrorKind::NotFound => Err(ReadError::NoKey),
            Ok(_) => Err(ReadError::Connection),
            Err(_) => Err(ReadError::Timeout),
        }
    }
}
