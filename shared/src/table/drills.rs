//! The drills of a table. Called by [`crate::drill`] and the node's API.

use super::{RegionIndex, Table};
use crate::id::DrillId;
use crate::rules::Drill;

impl Table {
    /// All drills, by name.
    #[must_use]
    pub fn drills(&self) -> &[(DrillId, Drill)] {
        &self.drills
    }

    /// The drill of this name, and its region.
    #[must_use]
    pub fn drill_named(&self, name: &str) -> Option<(&DrillId, &Drill, RegionIndex)> {
        let (id, drill) = self.drills.iter().find(|(id, _)| id.as_str() == name)?;
        Some((id, drill, self.region_named(drill.region.as_str())?))
    }
}
