//! The history of rules that were in service, in the state directory. Takes a rules document when it comes into
//! service, with its head (the publisher's signed statement of who published it and why). Returns both by revision. If
//! there are more than [`MOST`] documents, the oldest are removed.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use bailiwick_rules::fleet::head::Head;

use super::{HISTORY, Store, read, replace_if_other};

/// The most documents that are kept.
pub(crate) const MOST: usize = 64;

impl Store {
    /// Stores a document that is in service now, and its head if it has one.
    ///
    /// # Errors
    /// When they can't be written.
    pub(crate) fn keep_in_history(&self, revision: u64, bytes: &[u8], head: Option<&Head>) -> io::Result<()> {
        Self::write_history(&self.directory, revision, bytes, head)
    }

    /// Like [`Store::keep_in_history`], for a state directory that isn't opened.
    pub(crate) fn write_history(state_dir: &Path, revision: u64, bytes: &[u8], head: Option<&Head>) -> io::Result<()> {
        let directory = state_dir.join(HISTORY);
        // If the state directory itself is missing, it isn't created, because a file system may be about to be mounted
        // there.
        match DirBuilder::new().mode(0o700).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        if let Some(head) = head {
            replace_if_other(&head_file(state_dir, revision), &head.to_bytes())?;
        }
        replace_if_other(&document_file(state_dir, revision), bytes)?;
        let revisions = Self::history(state_dir)?;
        for old in revisions.iter().take(revisions.len().saturating_sub(MOST)) {
            std::fs::remove_file(document_file(state_dir, *old))?;
            match std::fs::remove_file(head_file(state_dir, *old)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// The revisions in the history of a state directory, the lowest first.
    ///
    /// # Errors
    /// When the directory exists and can't be read.
    pub(crate) fn history(state_dir: &Path) -> io::Result<Vec<u64>> {
        let entries = match std::fs::read_dir(state_dir.join(HISTORY)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let revision = |name: &str| name.strip_suffix(".json").filter(|name| !name.contains('.'))?.parse().ok();
        let mut revisions: Vec<u64> = entries.filter_map(|entry| revision(entry.ok()?.file_name().to_str()?)).collect();
        revisions.sort_unstable();
        Ok(revisions)
    }

    /// The document of a revision in the history; `None` if it isn't there.
    ///
    /// # Errors
    /// When the file exists and can't be read.
    pub(crate) fn document_in_history(state_dir: &Path, revision: u64) -> io::Result<Option<Vec<u8>>> {
        read(&document_file(state_dir, revision))
    }

    /// The head of a revision in the history; `None` if there is none, or none that can be read.
    pub(crate) fn head_in_history(state_dir: &Path, revision: u64) -> Option<Head> {
        Head::parse(&read(&head_file(state_dir, revision)).ok()??).ok()
    }
}

fn document_file(state_dir: &Path, revision: u64) -> PathBuf {
    state_dir.join(HISTORY).join(format!("{revision}.json"))
}

fn head_file(state_dir: &Path, revision: u64) -> PathBuf {
    state_dir.join(HISTORY).join(format!("{revision}.head.json"))
}

#[cfg(test)]
mod tests {
    use bailiwick_rules::fleet::head::{Stage, sha256_hex};
    use bailiwick_rules::time::Timestamp;

    use super::*;

    #[test]
    fn the_last_documents_are_kept_with_their_heads() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        assert!(Store::history(directory.path()).unwrap().is_empty());
        for revision in 1..=70 {
            let bytes = format!("{{\"revision\": {revision}}}").into_bytes();
            let head = Head {
                revision,
                sha256: sha256_hex(&bytes),
                based_on: None,
                author: "ann".into(),
                reason: "a test".into(),
                created_at: Timestamp(0),
                stage: Stage::Rest,
                approvals: Vec::new(),
                impact: None,
                signature: None,
            };
            store.keep_in_history(revision, &bytes, Some(&head).filter(|_| revision % 2 == 0)).unwrap();
        }
        assert_eq!(Store::history(directory.path()).unwrap(), (7..=70).collect::<Vec<_>>());
        let document = |revision| Store::document_in_history(directory.path(), revision).unwrap();
        assert_eq!(document(70).unwrap(), b"{\"revision\": 70}");
        assert_eq!(document(6), None);
        assert_eq!(Store::head_in_history(directory.path(), 70).unwrap().revision, 70);
        assert_eq!(Store::head_in_history(directory.path(), 69), None);
        let files = std::fs::read_dir(directory.path().join(HISTORY)).unwrap().count();
        assert_eq!(files, 64 + 32, "nothing of the oldest is left");
    }
}
