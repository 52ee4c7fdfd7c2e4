//! Publishes the progress of a rollout. The progress (which region has which share) is a part of the rules document.
//! Takes the progress, writes it into the document in service and publishes that; returns the new revision. Nothing
//! else changes in the document. Called by every command of `bailiwick rollout` that changes something.
//!
//! A fleet with a writer or with NATS publishes the document like any other, in place of the document that it was made
//! from. A single node has its rules in a file, and the progress is written into that file.

use std::path::PathBuf;
use std::sync::Arc;

use bailiwick_host::system::files::{Mode, replace};
use bailiwick_rules::fleet::head::{Head, LONGEST_TEXT, Stage};
use bailiwick_rules::rules::Progress;
use bailiwick_rules::table::Rollout;
use bailiwick_rules::time::Timestamp;

use crate::program::cli::node::{Access, NodeArgs};
use crate::program::cli::rules::author::AuthorArgs;
use crate::program::cli::rules::document::{with_progress, with_revision};
use crate::program::cli::rules::rules_store::{Base, Buckets, Put, RulesStore};
use crate::program::cli::rules::stage::last_for_all;
use crate::program::config::Config;
use crate::state::load::{compile_rules, read_file};
use crate::state::snapshot::Rules;
use crate::text::nearest::suggestion;

/// The place where the rules with the progress are published.
pub(super) enum ProgressStore {
    /// At the writer of a fleet, or in NATS.
    Fleet(RulesStore),
    /// In the file that a single node reads.
    File(PathBuf),
}

/// The document in service.
pub(super) struct Current {
    rules: Arc<Rules>,
    base: Option<Base>,
}

/// The outcome of publishing a step.
pub(super) enum Step {
    /// It is published under this revision.
    Published(u64),
    /// Not published, because somebody else has published meanwhile. The caller decides again by the new document.
    Stale,
}

impl Current {
    /// The document's revision, and its SHA-256 in hexadecimal digits.
    pub(super) fn revision(&self) -> (u64, String) {
        let revision = self.rules.table.revision();
        (revision.number, revision.sha256_hex())
    }

    /// A rollout of the document, by its name.
    ///
    /// # Errors
    /// If the document has no rollout of that name.
    pub(super) fn rollout(&self, name: &str) -> Result<&Rollout, Vec<String>> {
        let rollouts = self.rules.table.rollouts();
        rollouts.iter().find(|rollout| rollout.id.as_str() == name).ok_or_else(|| {
            let hint = suggestion(name, rollouts.iter().map(|rollout| rollout.id.as_str()));
            vec![format!("the rules have no rollout {name:?}; {hint}")]
        })
    }
}

impl ProgressStore {
    /// Finds the place by the configuration, or at the API that the options name.
    ///
    /// # Errors
    /// What is wrong with the configuration, or that the place can't be reached.
    pub(super) fn find(args: &NodeArgs) -> Result<Self, Vec<String>> {
        if args.api.is_none()
            && let Ok(config) = Config::read(&args.config)
            && !config.fleet.follows()
        {
            return Ok(Self::File(config.rules));
        }
        RulesStore::find(args, Access::Write).map(Self::Fleet)
    }

    /// The store of the fleet, if it has one.
    pub(super) fn store(&self) -> Option<&Buckets> {
        match self {
            Self::Fleet(RulesStore::Nats(buckets)) => Some(buckets),
            Self::Fleet(RulesStore::Writer(_)) | Self::File(_) => None,
        }
    }

    /// The document in service.
    ///
    /// # Errors
    /// When it can't be read.
    pub(super) fn current(&self) -> Result<Current, Vec<String>> {
        let (bytes, base) = match self {
            Self::Fleet(store) => {
                let base = store.base()?;
                (base.document.bytes.clone(), Some(base))
            }
            Self::File(file) => {
                let name = file.display();
                (read_file(file).map_err(|error| vec![format!("{name}: can't be read ({error})")])?, None)
            }
        };
        let texts = |errors: Vec<_>| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
        let rules = compile_rules(bytes, "the rules in service").map_err(texts)?;
        Ok(Current { rules, base })
    }

    /// Publishes the progress of a rollout in place of the document in service.
    ///
    /// # Errors
    /// Why the progress isn't published, or that it isn't known whether it is.
    pub(super) fn publish(
        &self,
        current: &Current,
        (rollout, progress): (&Rollout, &Progress),
        reason: &str,
        author: &AuthorArgs,
        now: Timestamp,
    ) -> Result<Step, Vec<String>> {
        let broken = || vec!["the progress can't be written into the rules; are they JSON with comments?".to_owned()];
        let bytes = with_progress(&current.rules.bytes, rollout.id.as_str(), progress).ok_or_else(broken)?;
        // A head carries one line of bounded length.
        let reason: String = format!("rollout {}: {reason}", rollout.id).chars().take(LONGEST_TEXT).collect();
        match (self, &current.base) {
            (Self::File(file), _) => {
                let revision = current.rules.table.revision().number + 1;
                let bytes = with_revision(&bytes, revision).ok_or_else(broken)?;
                let name = file.display();
                let failed = |error| vec![format!("{name}: can't be written ({error})")];
                if read_file(file).map_err(failed)? != *current.rules.bytes {
                    return Ok(Step::Stale);
                }
                replace(file, &bytes, Mode::Public).map_err(failed)?;
                Ok(Step::Published(revision))
            }
            (Self::Fleet(store), Some(base)) => {
                let staged = base.document.head.as_ref().filter(|head| head.stage != Stage::Rest);
                let bytes = match staged {
                    None => bytes,
                    // The document is for some nodes only, and the rollout is rolled back. That doesn't wait: the
                    // earlier document, with the end of the rollout, replaces the one that is being tried out.
                    Some(_) if progress.ended.is_some() => {
                        let earlier = store.document(last_for_all(store, base)?)?.bytes;
                        with_progress(&earlier, rollout.id.as_str(), progress).ok_or_else(broken)?
                    }
                    Some(Head { revision, stage, .. }) => {
                        return Err(vec![format!(
                            "revision {revision} is for nodes of stage {stage} yet; it goes on then"
                        )]);
                    }
                };
                let (head, bytes) = author.draft((base.next()?, base.revision), &bytes, &reason, now)?;
                let revision = head.revision;
                match store.put(base, &author.sign(head)?, bytes)? {
                    Put::Served | Put::Stored | Put::Awaited | Put::Lost => Ok(Step::Published(revision)),
                    Put::Stale(_) => Ok(Step::Stale),
                    Put::Unknown(errors) => Err(errors),
                }
            }
            (Self::Fleet(_), None) => Err(vec!["the document in service was read from another place".to_owned()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use bailiwick_rules::id::RegionId;
    use bailiwick_rules::table::Table;
    use serde_json::json;

    use super::*;
    use crate::program::cli::rules::document::progress_json;

    const NOW: Timestamp = Timestamp(1_796_104_800_000);

    fn rules() -> String {
        let endpoints = json!({ "e": { "url": "https://e.example/v1", "models": { "m": "old" } } });
        let rules = json!({
            "version": 1, "revision": 7, "jurisdictions": { "eu": { "include": ["EU"] } },
            "regions": { "fra": { "countries": ["DE"], "endpoints": endpoints } },
            "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra"],
                                    "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } },
            "rollouts": { "next": { "service": "chat", "model": "m", "from": "old", "to": "new", "regions": ["fra"],
                                    "checks": { "error_rate": { "max_diff": 0.01 } } } },
        });
        format!("{rules:#}\n")
    }

    fn progress(share: u8, ended: Option<&str>) -> Progress {
        let shares = [(RegionId::parse("fra").unwrap(), share)].into();
        Progress { shares, since: NOW, paused: None, ended: ended.map(str::to_owned) }
    }

    #[test]
    fn progress_is_written_and_replaced_and_every_other_byte_stays() {
        let before = rules();
        let first = with_progress(before.as_bytes(), "next", &progress(5, None)).unwrap();
        let of = |bytes: &[u8]| Table::compile(bytes).unwrap().rollouts()[0].rule.progress.clone().unwrap();
        assert_eq!(of(&first), progress(5, None));
        let second = with_progress(&first, "next", &progress(25, Some("a \"reason\""))).unwrap();
        assert_eq!(of(&second), progress(25, Some("a \"reason\"")));
        let third = with_progress(&second, "next", &progress(5, None)).unwrap();
        assert_eq!(third, first, "old content again is the same bytes");
        let added = format!(", \"progress\": {}", progress_json(&progress(5, None)));
        assert_eq!(String::from_utf8(first).unwrap().replacen(&added, "", 1), before);
        assert_eq!(with_progress(before.as_bytes(), "other", &progress(5, None)), None);
    }

    #[test]
    fn a_file_that_changed_meanwhile_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("rules.json");
        std::fs::write(&file, rules()).unwrap();
        let store = ProgressStore::File(file.clone());
        let author = AuthorArgs::default();
        let stale = store.current().unwrap();
        let publish = |current: &Current, share| {
            let rollout = current.rollout("next").unwrap();
            store.publish(current, (rollout, &progress(share, None)), "a step", &author, NOW).unwrap()
        };
        assert!(matches!(publish(&stale, 5), Step::Published(8)));
        assert!(matches!(publish(&stale, 25), Step::Stale));
        let now = store.current().unwrap();
        assert_eq!((now.rules.table.revision().number, now.rules.table.rollouts()[0].regions[0].1), (8, Some(5)));
        assert!(now.rollout("nxt").unwrap_err()[0].contains("did you mean \"next\"?"));
    }
}
