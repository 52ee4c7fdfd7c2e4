//! The position of a rollout: the region and the step under way. A rollout goes region after region; in each region its
//! share of the sessions grows from step to step. Made by [`super::machine::place`] from the progress in the rules;
//! read by everything that judges or reports a step.

use crate::id::RegionId;

/// The position of a rollout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place<'r> {
    /// The region whose step is under way.
    pub region: &'r RegionId,
    /// The share of the region's sessions that have the new arm in this step, in per cent.
    pub share: u8,
    /// The share of the next step; `None` in the last step, which has all sessions and lasts longer than the others.
    pub next: Option<u8>,
}
