//! Where a rollout stands: the region and the step under way. Found by [`super::machine::place`].

use crate::id::RegionId;

/// Where a rollout stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place<'r> {
    /// The region whose step is under way.
    pub region: &'r RegionId,
    /// The region's share, in per cent.
    pub share: u8,
    /// The next share; `None` for the last step, which bakes.
    pub next: Option<u8>,
}
