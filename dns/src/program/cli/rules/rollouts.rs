//! Checks that a document to publish leaves every rollout where it stands: only `bailiwick rollout` may move a rollout.
//! Takes the document in service and the new document, returns what is wrong. Called by `publish` and `rollback`.

use bailiwick_rules::id::RolloutId;
use bailiwick_rules::table::{Rollout, Table};

use super::change::texts;
use super::document::with_progress;
use super::rules_store::Base;

/// Checks that a document leaves every rollout where it stands. Otherwise somebody who publishes an old copy of the
/// rules would move a rollout, or bring back one that was rolled back, without noticing.
///
/// # Errors
/// The first rollout that the document would move.
pub(super) fn keeps_rollouts(base: &Base, new: &Table) -> Result<(), Vec<String>> {
    // If the document in service can't be read, no rollout in it is under way.
    let Ok(old) = Table::compile_quietly(&base.document.bytes) else { return Ok(()) };
    keeps(&old, new)
}

/// Whether the new document leaves every rollout under way as it is. An error says what it changes.
fn keeps(old: &Table, new: &Table) -> Result<(), Vec<String>> {
    let is_under_way =
        |rollout: &Rollout| rollout.rule.progress.as_ref().is_some_and(|progress| progress.ended.is_none());
    let revision = old.revision().number;
    for under_way in old.rollouts().iter().filter(|rollout| is_under_way(rollout)) {
        let Rollout { id, rule, .. } = under_way;
        let same_rollout = rollout_of(new, id);
        if same_rollout.is_none_or(|same_rollout| same_rollout.rule.progress != rule.progress) {
            return Err(vec![format!(
                "the rollout {id} is under way, and stands elsewhere in this document; take its \"progress\" from the \
                 rules in service (`bailiwick rules show {revision}`), or end it first: bailiwick rollout abort {id}"
            )]);
        }
        // Also the pins of a bundle in its regions: the old arm is what they say.
        let what = |rollout: &Rollout| {
            (
                rollout.rule.service.clone(),
                rollout.rule.change.clone(),
                rollout.rule.regions.clone(),
                rollout.pins.clone(),
            )
        };
        if same_rollout.is_some_and(|same_rollout| what(same_rollout) != what(under_way)) {
            return Err(vec![format!(
                "the rollout {id} is under way, and this document changes what it replaces or where; what was counted \
                 so far is of something else; end it first: bailiwick rollout abort {id}"
            )]);
        }
    }
    let begun = new.rollouts().iter().filter(|rollout| rollout.rule.progress.is_some());
    for Rollout { id, rule, .. } in begun {
        if rollout_of(old, id).is_none_or(|rollout| rollout.rule.progress != rule.progress) {
            return Err(vec![format!(
                "this document has a \"progress\" of the rollout {id} that isn't in service; leave it out: `bailiwick \
                 rollout start {id}` begins it"
            )]);
        }
    }
    Ok(())
}

fn rollout_of<'a>(table: &'a Table, id: &RolloutId) -> Option<&'a Rollout> {
    table.rollouts().iter().find(|rollout| rollout.id == *id)
}

/// The content of an earlier revision, but with the rollouts where they stand now.
///
/// # Errors
/// The first rollout that can't be left where it stands.
pub(super) fn with_rollouts_of(base: &Base, earlier: Vec<u8>) -> Result<Vec<u8>, Vec<String>> {
    let (Ok(old), Ok(new)) = (Table::compile_quietly(&base.document.bytes), Table::compile_quietly(&earlier)) else {
        return Ok(earlier);
    };
    let mut moved = old.rollouts().iter().filter_map(|current| {
        let earlier = new.rollouts().iter().find(|earlier| earlier.id == current.id)?;
        let progress = current.rule.progress.as_ref().filter(|_| earlier.rule.progress != current.rule.progress)?;
        Some((current.id.as_str(), progress))
    });
    let placed = moved.try_fold(earlier, |bytes, (id, progress)| with_progress(&bytes, id, progress));
    let placed =
        placed.ok_or_else(|| vec!["a rollout's progress can't be written into the earlier rules".to_owned()])?;
    let table = Table::compile_quietly(&placed).map_err(texts)?;
    keeps(&old, &table)?;
    Ok(placed)
}
