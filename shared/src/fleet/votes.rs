//! Counts votes: a majority inside each site, then a strict majority over the sites. A voter is a node whose report
//! counts as a vote on health; a site is what voters may fail with together. Takes what each voter says of one region
//! or endpoint, returns a [`Count`]. Called by [`super::verdict`].

use crate::health::Status;
use crate::report::Votes;
use crate::table::{Fleet, RegionIndex};

/// The result of the votes on one region, endpoint or copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// How the sites vote.
    pub(super) votes: Votes,
    /// What a strict majority of the sites says; `None`: no status has such a majority.
    pub(super) majority: Option<Status>,
    /// Whether in a strict majority of the sites most voters say `up` or `down`.
    pub(super) is_quorum: bool,
}

/// The votes of one site, counted by voter.
#[derive(Clone, Copy, Debug, Default)]
struct Site {
    voters: u32,
    heard: u32,
    up: u32,
    down: u32,
    /// Voters that stand in the region that is judged and call it up.
    inside_up: u32,
    inside_down: u32,
}

impl Site {
    /// Whether `count` voters are a strict majority of the site's voters, silent ones included.
    fn is_most(self, count: u32) -> bool {
        count * 2 > self.voters
    }
}

/// Counts the votes on something that belongs to `region`. `status_by` gives the vote of the voter at a position, or
/// `None` if no fresh report of that voter is known. All majorities are of the voters and sites that the rules name,
/// not only of those that reported.
pub(super) fn count(fleet: &Fleet, region: RegionIndex, status_by: impl Fn(usize) -> Option<Status>) -> Count {
    let mut sites = vec![Site::default(); fleet.sites.len()];
    for (position, voter) in fleet.voters.iter().enumerate() {
        let Some(site) = sites.get_mut(voter.site) else { continue };
        site.voters += 1;
        let Some(status) = status_by(position) else { continue };
        site.heard += 1;
        let is_inside = voter.region == Some(region);
        match status {
            Status::Up if is_inside => site.inside_up += 1,
            Status::Down if is_inside => site.inside_down += 1,
            Status::Up => site.up += 1,
            Status::Down => site.down += 1,
            Status::Unknown => {}
        }
    }
    let (mut votes, mut up, mut knowing_sites) = (Votes::default(), 0, 0);
    for site in &sites {
        up += u32::from(site.is_most(site.up));
        knowing_sites += u32::from(site.is_most(site.up + site.down + site.inside_up + site.inside_down));
        match () {
            () if site.is_most(site.down) => votes.down += 1,
            () if site.is_most(site.up + site.inside_up) => votes.up += 1,
            () if site.heard > 0 => votes.unknown += 1,
            () => votes.silent += 1,
        }
    }
    let is_most = |count: u32| count as usize * 2 > sites.len();
    // A voter that stands in the region may be up and down together with the region. So its vote counts for `up` only
    // if at least as many of the other sites say `up` as say `down`.
    let majority = match () {
        () if is_most(votes.down) => Some(Status::Down),
        () if is_most(up) || up >= votes.down && is_most(votes.up) => Some(Status::Up),
        () => None,
    };
    Count { votes, majority, is_quorum: is_most(knowing_sites) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;

    /// Counts the votes of voters at these sites; `*` marks a voter that stands in the region.
    fn counted(voters: &[(&str, Option<Status>)]) -> Count {
        let entries = voters.iter().enumerate().map(|(number, (site, _))| {
            let region = if site.ends_with('*') { r#", "region": "fra""# } else { "" };
            format!(r#""v{number:02}": {{ "site": "{}"{region} }}"#, site.trim_end_matches('*'))
        });
        let entries = entries.collect::<Vec<_>>().join(", ");
        let document = format!(
            r#"{{ "version": 1, "revision": 1, "regions": {{ "fra": {{ "countries": ["DE"] }} }},
                "fleet": {{ "voters": {{ {entries} }} }} }}"#
        );
        let table = Table::compile(document.as_bytes()).unwrap_or_else(|errors| panic!("{errors:?}"));
        count(table.fleet().unwrap(), RegionIndex(0), |voter| voters[voter].1)
    }

    const UP: Option<Status> = Some(Status::Up);
    const DOWN: Option<Status> = Some(Status::Down);
    const UNKNOWN: Option<Status> = Some(Status::Unknown);

    #[test]
    fn a_strict_majority_of_the_configured_sites_decides_and_silence_is_no_vote() {
        assert_eq!(counted(&[("a", DOWN), ("b", DOWN), ("c", UP)]).majority, DOWN);
        assert_eq!(counted(&[("a", DOWN), ("b", UP), ("c", UP)]).majority, UP);
        let alone = counted(&[("a", DOWN), ("b", None), ("c", None)]);
        assert_eq!((alone.majority, alone.is_quorum), (None, false), "a single voter decides nothing");
        assert_eq!(alone.votes, Votes { up: 0, down: 1, unknown: 0, silent: 2 });
        let tie = counted(&[("a", DOWN), ("b", UP), ("c", UNKNOWN)]);
        assert_eq!((tie.majority, tie.is_quorum), (None, true));
        assert_eq!(counted(&[("a", DOWN), ("b", DOWN), ("c", UP), ("d", UP)]).majority, None);
        assert_eq!(counted(&[("a", DOWN)]).majority, DOWN, "a fleet may have a single site");
    }

    #[test]
    fn a_site_votes_once_however_many_stand_there() {
        let many = counted(&[("a", DOWN), ("a", DOWN), ("a", DOWN), ("b", UP), ("c", UP)]);
        assert_eq!(many.majority, UP);
        let split = counted(&[("a", DOWN), ("a", UP), ("b", DOWN), ("c", UP)]);
        assert_eq!((split.majority, split.is_quorum), (None, true));
        assert_eq!(split.votes, Votes { up: 1, down: 1, unknown: 1, silent: 0 });
        assert_eq!(
            counted(&[("a", DOWN), ("a", None), ("b", DOWN), ("c", UP)]).majority,
            None,
            "half of a site's voters are no majority"
        );
    }

    #[test]
    fn who_stands_in_the_region_only_breaks_a_tie_towards_up() {
        assert_eq!(counted(&[("a", DOWN), ("b", UP), ("c*", UP)]).majority, UP);
        assert_eq!(counted(&[("a", DOWN), ("b", UP), ("c*", DOWN)]).majority, None);
        assert_eq!(counted(&[("a", DOWN), ("b", DOWN), ("c*", UP)]).majority, DOWN);
        let outvoted = counted(&[("a", DOWN), ("b", DOWN), ("c*", UP), ("d*", UP), ("e*", UP)]);
        assert_eq!((outvoted.majority, outvoted.is_quorum), (None, true), "more sites say down than up");
        assert_eq!(counted(&[("a*", DOWN), ("b*", DOWN), ("c", UP)]).majority, None);
    }
}
