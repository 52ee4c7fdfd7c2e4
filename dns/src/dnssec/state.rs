//! The state file of a zone's keys. Takes its JSON, returns each key with its stage and times, or every contradiction.
//! Called by `directory`, which reads and writes the file. Only [`super::timeline`] changes a state.

use std::collections::BTreeSet;

use bailiwick_rules::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::key::Algorithm;
use crate::protocol::name::Name;

/// The version of the format.
const VERSION: u32 = 1;

/// A zone's keys, the oldest first. Exactly one key is active and at most one is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The apex.
    pub zone: Name,
    /// Every key that the zone ever had, removed ones included.
    pub keys: Vec<KeyState>,
}

/// One key and its stage in the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyState {
    /// The private key's file, beside the state file.
    pub file: String,
    /// The key tag.
    pub tag: u16,
    /// The key's algorithm.
    pub algorithm: Algorithm,
    /// When the key was added to the DNSKEY RRset.
    pub published: Timestamp,
    /// The time from which the parent may have a DS of the key. By then, no cache holds a DNSKEY RRset without the key.
    pub ready: Timestamp,
    /// The key's stage.
    pub stage: Stage,
}

/// The stage of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The key is in the DNSKEY RRset, and signs only this RRset.
    Published,
    /// The key signs the whole zone.
    Active {
        /// When the key began to sign the zone.
        since: Timestamp,
    },
    /// The key is in the DNSKEY RRset, and signs only this RRset, for validators that cached its signatures or its DS.
    Retired {
        /// When the key began to sign the zone.
        active: Timestamp,
        /// When the key stopped signing the zone.
        since: Timestamp,
        /// When the key is removed from the DNSKEY RRset.
        remove: Timestamp,
    },
}

/// One mistake in a state file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {message}")]
pub struct StateError {
    /// The place, as a JSON pointer.
    pub pointer: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl State {
    /// Reads a state file.
    ///
    /// # Errors
    /// All mistakes in the file.
    pub fn parse(bytes: &[u8]) -> Result<Self, Vec<StateError>> {
        let file: StateFile =
            serde_json::from_slice(bytes).map_err(|error| vec![wrong("(document)", format!("{error}; {RESTORE}"))])?;
        let mut errors = Vec::new();
        if file.version != VERSION {
            let message = format!("is {}, and this program knows version {VERSION} alone; update it", file.version);
            return Err(vec![wrong("/version", message)]);
        }
        let zone = Name::parse(file.zone.as_bytes(), Some(Name::root().as_ref()));
        let zone = zone.map_err(|error| errors.push(wrong("/zone", format!("is no zone's name: {error}")))).ok();
        let keys: Vec<KeyState> = (0..)
            .zip(&file.keys)
            .filter_map(|(number, entry)| {
                entry.parse().map_err(|message: String| errors.push(wrong(format!("/keys/{number}"), message))).ok()
            })
            .collect();
        match zone {
            Some(zone) if errors.is_empty() => {
                let state = Self { zone, keys };
                let contradictions = state.contradictions();
                if contradictions.is_empty() { Ok(state) } else { Err(contradictions) }
            }
            _ => Err(errors),
        }
    }

    /// The contradictions between the keys.
    fn contradictions(&self) -> Vec<StateError> {
        let mut errors = Vec::new();
        if self.keys.is_empty() {
            return vec![wrong("/keys", "holds no key; make one with `bailiwick keys generate`")];
        }
        let count = |wanted: fn(&Stage) -> bool| self.keys.iter().filter(|key| wanted(&key.stage)).count();
        match count(|stage| matches!(stage, Stage::Active { .. })) {
            1 => {}
            number => {
                errors.push(wrong("/keys", format!("{number} keys are active, and exactly one has to be; {RESTORE}")));
            }
        }
        if count(|stage| matches!(stage, Stage::Published)) > 1 {
            errors.push(wrong("/keys", format!("more than one key is published and waits to be active; {RESTORE}")));
        }
        let mut files = BTreeSet::new();
        for (number, key) in self.keys.iter().enumerate() {
            if !files.insert(&key.file) {
                errors.push(wrong(format!("/keys/{number}/file"), format!("is an earlier key's too; {RESTORE}")));
            }
            if key.algorithm != self.keys[0].algorithm {
                // Validators may demand signatures by every algorithm of the DNSKEY RRset (RFC 4035 §2.2).
                let message = format!(
                    "is {}, the first key's is {}; all keys of a zone have to share one",
                    key.algorithm.number(),
                    self.keys[0].algorithm.number()
                );
                errors.push(wrong(format!("/keys/{number}/algorithm"), message));
            }
        }
        errors
    }

    /// The state file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let keys = self.keys.iter().map(Entry::from).collect();
        let file = StateFile { version: VERSION, zone: self.zone.to_string(), keys };
        // This can't fail: every value of a state file can be written as JSON.
        serde_json::to_string_pretty(&file).unwrap_or_default() + "\n"
    }

    /// The key that signs the zone.
    #[must_use]
    pub fn active(&self) -> Option<&KeyState> {
        self.keys.iter().find(|key| matches!(key.stage, Stage::Active { .. }))
    }

    /// The published key, which will replace the active one.
    #[must_use]
    pub fn successor(&self) -> Option<&KeyState> {
        self.keys.iter().find(|key| key.stage == Stage::Published)
    }
}

impl KeyState {
    /// Whether the key was removed from the DNSKEY RRset.
    #[must_use]
    pub fn is_removed(&self, now: Timestamp) -> bool {
        matches!(self.stage, Stage::Retired { remove, .. } if remove <= now)
    }
}

/// The advice in messages about a damaged state file.
const RESTORE: &str = "restore the file from the node where `bailiwick keys` was last run";

/// A mistake at a place of the file.
fn wrong(pointer: impl Into<String>, message: impl Into<String>) -> StateError {
    StateError { pointer: pointer.into(), message: message.into() }
}

/// The state file in JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    version: u32,
    zone: String,
    keys: Vec<Entry>,
}

/// A key in JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    file: String,
    tag: u16,
    algorithm: u8,
    state: Word,
    published: Timestamp,
    ready: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    active: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retired: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    remove: Option<Timestamp>,
}

/// The stage of a key in JSON.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Published,
    Active,
    Retired,
}

impl Entry {
    /// Checks one key of the state file, and turns its words and times into a [`KeyState`].
    fn parse(&self) -> Result<KeyState, String> {
        let stage = match (self.state, self.active, self.retired, self.remove) {
            (Word::Published, None, None, None) => Stage::Published,
            (Word::Active, Some(since), None, None) => Stage::Active { since },
            (Word::Retired, Some(active), Some(since), Some(remove)) => Stage::Retired { active, since, remove },
            (word, ..) => {
                let wants = match word {
                    Word::Published => "a published key has the times \"published\" and \"ready\"",
                    Word::Active => "an active key has the times \"published\", \"ready\" and \"active\"",
                    Word::Retired => "a retired key has all five times",
                };
                return Err(format!("{wants}, and no other; {RESTORE}"));
            }
        };
        let times = [Some(self.published), self.active, self.retired, self.remove];
        if !times.iter().flatten().is_sorted() || self.ready < self.published {
            return Err(format!("its times don't follow one another; {RESTORE}"));
        }
        if self.file.is_empty() || self.file.contains('/') || self.file.starts_with('.') {
            return Err(format!("\"{}\" is no name of a file beside the state file", self.file));
        }
        let algorithm = Algorithm::try_from(self.algorithm).map_err(|error| error.to_string())?;
        let (file, tag, published, ready) = (self.file.clone(), self.tag, self.published, self.ready);
        Ok(KeyState { file, tag, algorithm, published, ready, stage })
    }
}

impl From<&KeyState> for Entry {
    fn from(key: &KeyState) -> Self {
        let (state, active, retired, remove) = match key.stage {
            Stage::Published => (Word::Published, None, None, None),
            Stage::Active { since } => (Word::Active, Some(since), None, None),
            Stage::Retired { active, since, remove } => (Word::Retired, Some(active), Some(since), Some(remove)),
        };
        Self {
            file: key.file.clone(),
            tag: key.tag,
            algorithm: key.algorithm.number(),
            state,
            published: key.published,
            ready: key.ready,
            active,
            retired,
            remove,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"version": 1, "zone": "Example.com.", "keys": [
        {"file": "a.pem", "tag": 1, "algorithm": 13, "state": "retired", "published": "2026-01-01T00:00:00Z",
            "ready": "2026-01-02T00:00:00Z",
         "active": "2026-01-01T00:00:00Z", "retired": "2026-06-01T00:00:00Z", "remove": "2026-06-03T00:00:00Z"},
        {"file": "b.pem", "tag": 2, "algorithm": 13, "state": "active", "published": "2026-05-01T00:00:00Z",
            "ready": "2026-05-02T00:00:00Z",
         "active": "2026-06-01T00:00:00Z"},
        {"file": "c.pem", "tag": 3, "algorithm": 13, "state": "published", "published": "2026-07-01T00:00:00Z",
            "ready": "2026-07-02T00:00:00Z"}]}"#;

    fn errors_of(text: &str) -> Vec<String> {
        match State::parse(text.as_bytes()) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let state = State::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(State::parse(state.to_json().as_bytes()).unwrap(), state);
        assert_eq!(state.active().map(|key| key.tag), Some(2));
        assert_eq!(state.successor().map(|key| key.tag), Some(3));
        let removed = |text: &str| state.keys[0].is_removed(Timestamp::parse(text).unwrap());
        assert!(!removed("2026-06-02T23:59:59Z") && removed("2026-06-03T00:00:00Z"));
    }

    #[test]
    fn contradictions_are_reported_with_their_json_pointer() {
        let cases = [
            (r#""version": 1"#, r#""version": 2"#, "/version: is 2"),
            ("Example.com.", "a..b.", "/zone: is no zone's name"),
            (r#""state": "active""#, r#""state": "retired""#, "/keys/1: a retired key has all five times"),
            (r#""state": "published""#, r#""state": "active""#, "/keys/2: an active key has the times"),
            ("b.pem", "a.pem", "/keys/1/file: is an earlier key's too"),
            ("b.pem", "../b.pem", "/keys/1: \"../b.pem\" is no name of a file"),
            (
                r#""tag": 2, "algorithm": 13"#,
                r#""tag": 2, "algorithm": 15"#,
                "/keys/1/algorithm: is 15, the first key's is 13",
            ),
            (
                r#""tag": 2, "algorithm": 13"#,
                r#""tag": 2, "algorithm": 8"#,
                "/keys/1: algorithm 8 is not signed with here",
            ),
            ("2026-06-03", "2026-05-03", "/keys/0: its times don't follow one another"),
            (r#""ready": "2026-07-02"#, r#""ready": "2026-06-02"#, "/keys/2: its times don't follow one another"),
            (r#""tag": 3"#, r#""tag": 3, "note": """#, "(document): unknown field `note`"),
            ("2026-07-02T00:00:00Z", "soon", "(document): \"soon\" is not a time"),
        ];
        for (good, bad, wanted) in cases {
            assert!(GOOD.contains(good), "{good}");
            let reported = errors_of(&GOOD.replacen(good, bad, 1));
            assert!(reported.len() == 1 && reported[0].starts_with(wanted), "{wanted:?}: {reported:?}");
        }
        let published = r#""state": "active", "published": "2026-05-01T00:00:00Z",
            "ready": "2026-05-02T00:00:00Z",
         "active": "2026-06-01T00:00:00Z""#;
        let none = GOOD.replace(
            published,
            r#""state": "published", "published": "2026-05-01T00:00:00Z", "ready": "2026-05-02T00:00:00Z""#,
        );
        let none = errors_of(&none);
        assert!(
            none[0].starts_with("/keys: 0 keys are active")
                && none[1].starts_with("/keys: more than one key is published"),
            "{none:?}"
        );
        assert_eq!(
            errors_of(r#"{"version": 1, "zone": "a.", "keys": []}"#),
            ["/keys: holds no key; make one with `bailiwick keys generate`"]
        );
    }
}
