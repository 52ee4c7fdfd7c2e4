//! The author of a publication. Takes the options that name the author; returns heads with the author's name and
//! signature. A head says which rules are published, by whom and why. Called by every command that makes a head.

use std::path::PathBuf;

use bailiwick_rules::fleet::head::{Head, LONGEST_TEXT, Stage, sha256_hex};
use bailiwick_rules::time::Timestamp;
use clap::Args;

use super::document::with_revision;
use crate::program::cli::fleet::Publisher;

/// Who publishes.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AuthorArgs {
    /// Who publishes; else the name of this user.
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
    /// The publisher's key, if nodes have trusted_publishers.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

impl AuthorArgs {
    /// The author's name: the option, else the user's name, else `unknown`.
    pub(super) fn name(&self) -> String {
        let user = || std::env::var("USER").ok().filter(|name| !name.is_empty());
        self.author.clone().or_else(user).unwrap_or_else(|| "unknown".to_owned())
    }

    /// The publisher's key, if the options name one.
    ///
    /// # Errors
    /// If the key can't be read.
    pub(super) fn signing_key(&self) -> Result<Option<Publisher>, Vec<String>> {
        self.key.as_deref().map(Publisher::read).transpose().map_err(|error| vec![error])
    }

    /// The document `bytes` under a new revision, and its head, which is for all nodes and isn't signed yet. `based_on`
    /// is the revision that the document replaces.
    ///
    /// # Errors
    /// When the document has mistakes.
    pub(in crate::program::cli) fn draft(
        &self,
        (revision, based_on): (u64, u64),
        bytes: &[u8],
        reason: &str,
        now: Timestamp,
    ) -> Result<(Head, Vec<u8>), Vec<String>> {
        let bytes = with_revision(bytes, revision).ok_or_else(|| {
            vec![format!("the document can't be published as revision {revision}; it has mistakes, or no revision")]
        })?;
        let head = Head {
            revision,
            sha256: sha256_hex(&bytes),
            based_on: Some(based_on),
            author: self.name(),
            reason: reason.to_owned(),
            created_at: now,
            stage: Stage::Rest,
            approvals: Vec::new(),
            impact: None,
            signature: None,
        };
        Ok((head, bytes))
    }

    /// The head with the author's signature, if there is a key.
    ///
    /// # Errors
    /// When the key can't be read.
    pub(in crate::program::cli) fn sign(&self, head: Head) -> Result<Head, Vec<String>> {
        let head = match self.signing_key()? {
            None => head,
            Some(key) => {
                let signature = key.sign(&head.signed_bytes());
                head.signed(&key.public, &signature)
            }
        };
        // Nodes couldn't read an invalid head, nor follow the heads that come after it.
        Head::parse(&head.to_bytes()).map_err(|error| vec![format!("the head can't be published: {error}")])?;
        Ok(head)
    }
}

/// Checks a reason that a head may carry.
///
/// # Errors
/// How to write a reason.
pub(in crate::program::cli) fn reason(text: &str) -> Result<String, String> {
    let is_fine =
        !text.trim().is_empty() && text.chars().count() <= LONGEST_TEXT && !text.chars().any(char::is_control);
    is_fine.then(|| text.to_owned()).ok_or_else(|| format!("write a line of at most {LONGEST_TEXT} characters"))
}

/// Reads the word for a stage.
///
/// # Errors
/// Which words there are.
pub(super) fn stage(text: &str) -> Result<Stage, String> {
    Stage::parse(text).ok_or_else(|| "write canary, early or rest".to_owned())
}
