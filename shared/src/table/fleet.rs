//! The nodes that vote on health, compiled. Takes `fleet` of the rules, returns a [`Fleet`] with positions instead of
//! names. Called by [`super::build`]; used by [`crate::fleet`], which counts the votes.

use super::RegionIndex;
use crate::id::{RegionId, SiteId, VoterId};
use crate::rules::{self, Ratio};
use crate::time::Millis;

/// The voters on health and their limits, compiled.
#[derive(Debug)]
pub struct Fleet {
    /// The voters, by name.
    pub voters: Vec<Voter>,
    /// The voters' sites, by name. Voters of one site may fail together, so a site has one vote.
    pub sites: Vec<SiteId>,
    /// The least time that a region stays down once it went down.
    pub min_hold: Millis,
    /// How long a verdict stands without enough votes. After that, a node uses what it sees itself.
    pub hold: Millis,
    /// The most probes per second that all voters together may send to one target.
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
