//! `bailiwick rules approve`: takes a proposal, and adds a signature to it. A proposal is a file with a rules document
//! and its head, which says who publishes the document and why. Publishing the proposal later publishes what was
//! approved, byte for byte. Called by `bailiwick rules`.

use std::path::{Path, PathBuf};

use bailiwick_host::system::files::{Mode, replace};
use bailiwick_rules::fleet::head::{Approval, Head, Signature, sha256_hex};
use bailiwick_rules::time::Timestamp;
use clap::Args;
use serde::{Deserialize, Serialize};

use super::author::AuthorArgs;
use super::change::{Change, PlaceArgs};
use super::rules_store::{Base, RulesStore};
use crate::program::cli::node::{Access, NodeArgs};
use crate::program::report::{Report, print};
use crate::state::load::read_file;

/// Options of `bailiwick rules approve`.
#[derive(Debug, Args)]
pub(crate) struct ApproveArgs {
    /// The proposal, as `bailiwick rules publish --propose` wrote it.
    file: PathBuf,
    #[command(flatten)]
    author: AuthorArgs,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    places: PlaceArgs,
}

/// A document that is to be published, with its head.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Proposal {
    /// The head of the document, with approvals and without the publisher's signature.
    pub(super) head: Head,
    /// The document, with the revision that it will be published as.
    pub(super) document: String,
}

impl Proposal {
    /// The proposal of a document and its head.
    ///
    /// # Errors
    /// If the document is no text. A valid document is always a text.
    pub(super) fn new(head: Head, document: &[u8]) -> Result<Self, Vec<String>> {
        let document = String::from_utf8(document.to_vec()).map_err(|_| vec!["the document is no text".to_owned()])?;
        Ok(Self { head: Head { signature: None, ..head }, document })
    }

    /// Reads a proposal; `None` if these bytes are something else.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let proposal: Self = serde_json::from_slice(bytes).ok()?;
        // The head in a file isn't trusted either, so it is parsed with all checks.
        let head = Head::parse(&proposal.head.to_bytes()).ok()?;
        Some(Self { head, ..proposal })
    }

    /// Writes the proposal to a file.
    ///
    /// # Errors
    /// If the file can't be written.
    pub(super) fn write(&self, file: &Path) -> Result<(), Vec<String>> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        replace(file, text.as_bytes(), Mode::Public)
            .map_err(|error| vec![format!("{}: can't be written ({error})", file.display())])
    }

    /// Checks that the document is the one that the head names, and that the proposal replaces the document in service.
    ///
    /// # Errors
    /// If one of these doesn't hold.
    pub(super) fn check(&self, base: &Base) -> Result<(), Vec<String>> {
        if sha256_hex(self.document.as_bytes()) != self.head.sha256 {
            return Err(vec!["the proposal's document isn't the one that its head names; propose it again".to_owned()]);
        }
        if self.head.based_on != Some(base.revision) {
            return Err(vec![format!(
                "the proposal is based on {}, but revision {} is in service; propose it again",
                self.head.based_on.map_or_else(|| "no revision".to_owned(), |revision| format!("revision {revision}")),
                base.revision
            )]);
        }
        Ok(())
    }
}

/// Prints what a proposal changes, and signs it then. The impact by country needs the places of clients (`places`).
pub(super) fn approve(args: &ApproveArgs, now: Timestamp) -> Result<Report, Vec<String>> {
    let name = args.file.display().to_string();
    let bytes = read_file(&args.file).map_err(|error| vec![format!("{name}: can't be read ({error})")])?;
    let no_proposal = || vec![format!("{name}: is no proposal; `bailiwick rules publish --propose` writes one")];
    let mut proposal = Proposal::parse(&bytes).ok_or_else(no_proposal)?;
    let key =
        args.author.signing_key()?.ok_or_else(|| vec!["--key is missing; name the key that approves".to_owned()])?;
    let store = RulesStore::find(&args.node, Access::Read)?;
    let base = store.base()?;
    proposal.check(&base)?;
    let mut report = Report::default();
    let places = Some((&args.places, &args.node));
    let change = Change::of(&store, &base, proposal.document.as_bytes(), places, now, &mut report.warnings)?;
    // Before the signature: if it fails, or somebody stops the command, what it would have been for is told.
    print(&format!("{}\n", change.impact.to_text()));
    let head = &mut proposal.head;
    let signature = Signature::new(&key.public, &key.sign(&head.approved_bytes()));
    head.approvals.retain(|approval| approval.signature.key != signature.key);
    head.approvals.push(Approval { author: args.author.name(), signature });
    proposal.write(&args.file)?;
    let Head { revision, author, reason, .. } = &proposal.head;
    report.output = format!("revision {revision} of {author} is approved in {name}: {reason}\n");
    Ok(report)
}
