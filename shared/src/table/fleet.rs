//! The nodes that vote on health, compiled. Takes `fleet` of the rules, returns a [`Fleet`] with positions for names.
//! Called by `build`; `fleet` counts votes by it.

use super::RegionIndex;
use crate::id::{RegionId, SiteId, VoterId};
use crate::rules::{self, Ratio};
use crate::time::Millis;

/// Who votes on health, compiled.
#[derive(Debug)]
pub struct Fleet {
    /// The voters, by name.
    pub voters: Vec<Voter>,
    /// Their sites, by name.
    pub sites: Vec<SiteId>,
    /// For how long a region that went down stays down at least.
    pub min_hold: Millis,
    /// After how long without enough votes a node goes by what it sees itself.
    pub hold: Millis,
    /// How often one target may be probed per second by all voters together.
    pub max_probes_per_second: Option<Ratio>,
}

/// A voter, compiled.
#[derive(Debug)]
pub struct Voter {
    /// The node's name.
    pub id: VoterId,
    /// The position of its site.
    pub site: usize,
    /// The region it stands in.
    pub region: Option<RegionIndex>,
}

impl Fleet {
    /// Compiles `fleet` of a document whose names were checked.
    pub(super) fn new(fleet: &rules::Fleet, region: impl Fn(&RegionId) -> Option<RegionIndex>) -> Self {
        let mut sites: Vec<SiteId> = fleet.voters.values().map(|voter| voter.site.clone()).collect();
        sites.sort();
        sites.dedup();
        let voters = fleet.voters.iter().map(|(id, voter)| Voter {
            id: id.clone(),
            site: sites.binary_search(&voter.site).unwrap_or_default(),
            region: voter.region.as_ref().and_then(&region),
        });
        Self {
            voters: voters.collect(),
            sites,
            min_hold: fleet.min_hold,
            hold: fleet.hold,
            max_probes_per_second: fleet.max_probes_per_second,
        }
    }

    /// The position of the voter of that name.
    #[must_use]
    pub fn voter_named(&self, name: &str) -> Option<usize> {
        self.voters.binary_search_by(|voter| voter.id.as_str().cmp(name)).ok()
    }
}
