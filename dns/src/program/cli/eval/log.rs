//! Writes the file of results of an eval. Takes its path and a header (what is run, and where), returns a
//! [`ResultFile`] that goes on where the last run stopped. Called by `bailiwick eval run`.
//!
//! Lines are appended, so a run that is killed loses only the line that it was writing. The next run cuts that line
//! off. A lock keeps two runs from writing at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bailiwick_rules::eval::{Header, Outcome, read_log};
use serde::Serialize;

/// The longest file of results, in bytes.
pub(in crate::program::cli) const MAX_FILE: u64 = 1 << 30;

/// A file of results that is being written.
pub(super) struct ResultFile {
    path: PathBuf,
    file: File,
    outcomes: BTreeMap<(String, u32), Outcome>,
}

impl ResultFile {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// If another run is writing the file, or if the file holds results of another run.
    pub(super) fn open(path: &Path, header: &Header) -> Result<Self, String> {
        let name = path.display();
        let unread = |error: std::io::Error| format!("{name}: can't be read or written: {error}");
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(unread)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!("{name}: another run is writing it; wait for that one, or choose another --out"));
            }
            Err(TryLockError::Error(error)) => return Err(unread(error)),
        }
        if file.metadata().map_err(unread)?.len() > MAX_FILE {
            return Err(format!("{name}: has more than {} MiB; choose another --out", MAX_FILE >> 20));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(unread)?;
        let log = read_log(&bytes).map_err(|problem| format!("{name}: {problem}"))?;
        let (whole_bytes, outcomes) = match log {
            None => (0, Vec::new()),
            Some(log) => {
                check_same_run(&log.header, header).map_err(|problem| format!("{name}: {problem}"))?;
                (log.whole_bytes, log.outcomes)
            }
        };
        file.set_len(whole_bytes as u64).map_err(unread)?;
        file.seek(SeekFrom::End(0)).map_err(unread)?;
        let outcomes = outcomes.into_iter().map(|outcome| ((outcome.case.clone(), outcome.repeat), outcome)).collect();
        let mut log = Self { path: path.to_owned(), file, outcomes };
        if whole_bytes == 0 {
            log.write(header)?;
        }
        Ok(log)
    }

    /// The cases and repetitions that have a score. They aren't asked again.
    pub(super) fn done(&self) -> BTreeSet<(String, u32)> {
        self.outcomes.iter().filter(|(_, outcome)| outcome.score.is_some()).map(|(key, _)| key.clone()).collect()
    }

    /// The outcome of each case and repetition.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.values()
    }

    /// Appends the outcome of asking a case.
    ///
    /// # Errors
    /// If it can't be written.
    pub(super) fn append(&mut self, outcome: Outcome) -> Result<(), String> {
        self.write(&outcome)?;
        self.outcomes.insert((outcome.case.clone(), outcome.repeat), outcome);
        Ok(())
    }

    /// Appends a line of JSON.
    fn write(&mut self, line: &impl Serialize) -> Result<(), String> {
        let unwritten = |error: String| format!("{}: can't be written: {error}", self.path.display());
        let mut text = serde_json::to_string(line).map_err(|error| unwritten(error.to_string()))?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(|error| unwritten(error.to_string()))
    }
}

/// Checks that a file holds results of the same run. The error says in what the runs differ.
fn check_same_run(existing: &Header, expected: &Header) -> Result<(), String> {
    let optional = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
    let seed = |header: &Header| header.seed.map_or("none".to_owned(), |seed| seed.to_string());
    let compared = [
        ("cases", existing.suite_hash.clone(), expected.suite_hash.clone()),
        ("model", existing.model.clone(), expected.model.clone()),
        ("service", existing.service.clone(), expected.service.clone()),
        ("region", optional(&existing.region), optional(&expected.region)),
        ("arm", optional(&existing.arm), optional(&expected.arm)),
        ("seed", seed(existing), seed(expected)),
        ("repeat", existing.repeat.to_string(), expected.repeat.to_string()),
    ];
    match compared.into_iter().find(|(_, existing, expected)| existing != expected) {
        None => Ok(()),
        Some((name, existing, expected)) => Err(format!(
            "holds results of another run: {name} was {existing}, and is {expected} now; choose another --out, or \
             remove it"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            bailiwick_eval: bailiwick_rules::eval::VERSION,
            suite: "smoke".into(),
            suite_hash: "00".into(),
            cases: 1,
            service: "chat".into(),
            region: None,
            arm: None,
            begun: None,
            model: "large".into(),
            seed: None,
            repeat: 1,
        }
    }

    fn refused(path: &Path, header: &Header) -> String {
        ResultFile::open(path, header).err().expect("an error")
    }

    #[test]
    fn a_run_goes_on_behind_the_last_whole_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("r.jsonl");
        let outcome = |case: &str, score| Outcome { case: case.into(), score, ..Outcome::default() };
        let mut log = ResultFile::open(&path, &header()).expect("a file");
        log.append(outcome("a", Some(1.0))).expect("written");
        log.append(outcome("b", None)).expect("written");
        assert!(refused(&path, &header()).contains("another run is writing it"));
        drop(log);
        let before = std::fs::read(&path).expect("a file");
        std::fs::write(&path, [before.as_slice(), b"{\"case\": \"c"].concat()).expect("written");
        let mut log = ResultFile::open(&path, &header()).expect("a file");
        assert_eq!(log.done(), BTreeSet::from([("a".to_owned(), 0)]));
        assert_eq!(std::fs::read(&path).expect("a file"), before, "the torn line is cut off");
        log.append(outcome("b", Some(0.0))).expect("written");
        assert_eq!(log.outcomes().count(), 2);
    }

    #[test]
    fn results_of_another_run_are_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("r.jsonl");
        drop(ResultFile::open(&path, &header()).expect("a file"));
        for (other, words) in [
            (Header { model: "small".into(), ..header() }, "model was large, and is small now"),
            (Header { suite_hash: "11".into(), ..header() }, "cases was 00"),
            (Header { seed: Some(1), ..header() }, "seed was none, and is 1 now"),
            (Header { repeat: 2, ..header() }, "repeat was 1"),
            (Header { arm: Some("new".into()), ..header() }, "arm was none, and is new now"),
        ] {
            assert!(refused(&path, &other).contains(words), "{words}");
        }
        std::fs::write(&path, "{\"doc_id\": 1}\n").expect("written");
        assert!(refused(&path, &header()).contains("line 1: is no header"));
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "{\"doc_id\": 1}\n");
    }
}
