//! Reads the results of an eval for a rollout. `bailiwick eval run` writes one file for each arm (the old and the new
//! thing of the rollout). Takes both files, returns a [`Finding`], or why they can't be judged. Called by
//! [`crate::rollout::record::Record::note_eval`].

use super::Finding;
use crate::eval::{
    Header, ResultFilter, Run, Settings, Sides, compare, differences, digest, p_of_worse_by_at_most, read_log, read_run,
};
use crate::id::RegionId;
use crate::rules::{Arm, Change, EvalCheck, Rollout};
use crate::time::Timestamp;

/// Compares the results of a region's new arm with those of its old arm. Both runs must have begun at `since` or later.
///
/// # Errors
/// Why the results can't be judged, and what to run.
pub fn find(
    (rollout, check): (&Rollout, &EvalCheck),
    (region, since): (&RegionId, Timestamp),
    [old, new]: [&[u8]; 2],
    now: Timestamp,
) -> Result<Finding, String> {
    let [(of_old, begun_old), (of_new, begun_new)] = [
        read((rollout, check), (region, Arm::Old), old, since)?,
        read((rollout, check), (region, Arm::New), new, since)?,
    ];
    let different = differences(&of_old.run, &of_new.run);
    if let Some(first) = different.first() {
        return Err(format!("the results of its arms can't be compared: {first}"));
    }
    // The model in a header is the name that clients ask for. It has to be the same in both files: the arm decides what
    // answers under this name.
    if of_old.header.model != of_new.header.model {
        let [old, new] = [&of_old, &of_new].map(|file| &file.header.model);
        return Err(format!("the old arm was asked for the model {old:?} and the new one for {new:?}; ask both alike"));
    }
    // Only the means and the p-values are used. `alpha` and `seed` decide the interval and the verdict, which are
    // dropped. The module `evals` gives the verdict later, at a level that depends on how many results the region has
    // had.
    let settings = Settings { margin: check.margin, alpha: 0.05, seed: 1, sides: Sides::NotWorse };
    let compared = compare(&of_old.run, &of_new.run, settings);
    Ok(Finding {
        digest: digest_of(check, [old, new]),
        suite: check.suite.clone(),
        margin: check.margin,
        begun: begun_old.min(begun_new),
        at: now,
        cases: compared.cases,
        means: compared.means,
        // A small value refutes "worse by the margin at most": the check fails.
        p_within: p_of_worse_by_at_most(&of_old.run, &of_new.run, check.margin),
        // A small value refutes "worse by the margin or more": the check passes.
        p_beyond: compared.p_worse,
    })
}

/// A digest by which the same results are recognised at the next look.
pub(in crate::rollout) fn digest_of(check: &EvalCheck, files: [&[u8]; 2]) -> String {
    let [old, new] = files.map(digest);
    digest(format!("{} {} {old} {new}", check.suite, check.margin).as_bytes())
}

/// The results of one arm.
struct Results {
    header: Header,
    run: Run,
}

/// Reads the results of an arm, and checks that they are those that are wanted. Also returns when the run began.
fn read(
    (rollout, check): (&Rollout, &EvalCheck),
    (region, arm): (&RegionId, Arm),
    bytes: &[u8],
    since: Timestamp,
) -> Result<(Results, Timestamp), String> {
    let file = format!("{region}.{arm}.jsonl");
    let unread = |problem: String| format!("{file}: {problem}");
    // The header says what was asked. It is checked before the results are read by `read_run`, which doesn't return it.
    let log = read_log(bytes).map_err(unread)?;
    let header = log.ok_or_else(|| format!("{file}: has no whole line yet"))?.header;
    let none = || "none".to_owned();
    let expect = |name: &str, actual: String, expected: String| match actual == expected {
        true => Ok(()),
        false => {
            Err(format!("{file}: its {name} is {actual:?}, and {expected:?} is wanted; name another folder by --eval"))
        }
    };
    expect("suite", header.suite.clone(), check.suite.clone())?;
    expect("service", header.service.clone(), rollout.service.to_string())?;
    expect("region", header.region.clone().unwrap_or_else(none), region.to_string())?;
    expect("arm", header.arm.clone().unwrap_or_else(none), arm.to_string())?;
    if let Change::Model { model, .. } = &rollout.change {
        expect("model", header.model.clone(), model.clone())?;
    }
    let Some(begun) = header.begun else {
        return Err(format!("{file}: doesn't say when it was begun; run the eval anew into another folder"));
    };
    if begun < since {
        return Err(format!(
            "{file}: was begun at {begun}, before the new arm had its share of {region} at {since}; run the eval anew \
             into another folder, and name that by --eval"
        ));
    }
    // The companion (`None`) and the filter are only for files of lm-evaluation-harness, which have no such header.
    let run = read_run(bytes, None, ResultFilter::default()).map_err(unread)?;
    Ok((Results { header, run }, begun))
}
