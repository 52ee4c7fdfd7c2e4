//! Finds the results of the eval by which a rollout is judged. An eval asks a model the cases of a suite and scores the
//! answers; `bailiwick eval run` writes a file for each region and arm (the old and the new thing of the rollout).
//! Takes the folder that the operator names, returns the files of both arms of a region. Called by `run` at each look.
//! The decisions are in `bailiwick_rules::rollout::evals`.

use std::path::{Path, PathBuf};

use bailiwick_rules::id::RegionId;
use bailiwick_rules::rollout::Arm;
use bailiwick_rules::rules::EvalCheck;

use crate::program::cli::eval::MAX_FILE;
use crate::state::load::read_file;

/// The folder with the results of a suite, as the operator writes it: `smoke=results`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EvalFolder {
    suite: String,
    folder: PathBuf,
}

/// Reads the value of the option `--eval`.
///
/// # Errors
/// How the value is written.
pub(super) fn eval_folder(text: &str) -> Result<EvalFolder, String> {
    match text.split_once('=') {
        Some((suite, folder)) if !suite.is_empty() && !folder.is_empty() => {
            Ok(EvalFolder { suite: suite.to_owned(), folder: PathBuf::from(folder) })
        }
        _ => Err("write SUITE=FOLDER, such as smoke=results".to_owned()),
    }
}

impl EvalFolder {
    /// Checks that the results are of the suite that a rollout asks for.
    ///
    /// # Errors
    /// If the rollout asks for another suite, or for none.
    pub(super) fn fits(&self, check: Option<&EvalCheck>) -> Result<(), String> {
        let suite = &self.suite;
        match check {
            Some(check) if check.suite == *suite => Ok(()),
            Some(check) => Err(format!("--eval names the suite {suite:?}, and the rollout asks for {:?}", check.suite)),
            None => Err(format!("--eval names the suite {suite:?}, and the rollout has no eval among its checks")),
        }
    }

    /// The files of the old and the new arm of a region.
    ///
    /// # Errors
    /// Which file is missing, and which command makes it.
    pub(super) fn files(&self, region: &RegionId) -> Result<[Vec<u8>; 2], String> {
        let file = |arm: Arm| self.folder.join(format!("{region}.{arm}.jsonl"));
        let (suite, folder) = (&self.suite, self.folder.display());
        let [old, new] = Arm::BOTH.map(|arm| read(&file(arm)));
        let missing = |name: String| {
            format!(
                "{name}; make it by `bailiwick eval run --suite {suite}.jsonl --region {region} --arm old,new --out \
                 {folder} …`"
            )
        };
        Ok([old.map_err(missing)?, new.map_err(missing)?])
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let name = file.display();
    if std::fs::metadata(file).is_ok_and(|metadata| metadata.len() > MAX_FILE) {
        return Err(format!("{name} has more than {} MiB", MAX_FILE >> 20));
    }
    read_file(file).map_err(|error| format!("{name} can't be read ({error})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_names_a_suite_and_a_folder() {
        let folder = eval_folder("smoke=a=b/c").expect("a folder");
        assert_eq!(folder, EvalFolder { suite: "smoke".into(), folder: "a=b/c".into() });
        for wrong in ["smoke", "=x", "smoke=", ""] {
            assert!(eval_folder(wrong).is_err(), "{wrong}");
        }
        let check = |suite: &str| EvalCheck { suite: suite.to_owned(), margin: 0.02 };
        assert_eq!(folder.fits(Some(&check("smoke"))), Ok(()));
        assert!(folder.fits(Some(&check("other"))).is_err_and(|why| why.contains("asks for \"other\"")));
        assert!(folder.fits(None).is_err_and(|why| why.contains("no eval among its checks")));
    }
}
