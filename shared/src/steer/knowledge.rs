//! Replicas of knowledge in a decision. A replica is a body of knowledge, such as a search index, and regions hold
//! copies of it. A copy lags if it is too far behind its leader. Takes what a request needs and the health of regions,
//! returns which regions lag, which have another version, and which is least behind. Called by [`super::decide`]; does
//! nothing for requests that need no replica. A fence is the list of the regions that may process a client's data.

use super::{Conditions, Ranking};
use crate::health::{Lag, RegionHealth, ReplicaHealth, ReplicaSet, Status, version_of_most};
use crate::table::{RegionIndex, ReplicaIndex, Table};
use crate::time::Millis;

/// What is needed to judge the copies of the regions of a fence for one request.
pub(super) struct Knowledge<'a> {
    table: &'a Table,
    needs: ReplicaSet,
    health: &'a [RegionHealth],
    /// The version that the copies in the fence have to have, by the replica's position in the table. Only for replicas
    /// that are grouped by version.
    versions: Vec<(usize, RequiredVersion<'a>)>,
}

/// The version that a replica's copies have to have.
struct RequiredVersion<'a> {
    version: &'a str,
    /// Whether a copy whose version isn't known is withheld.
    withholds_unknown: bool,
}

/// What keeps a region from serving a request because of its copies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Copies {
    /// Whether a copy is too far behind.
    pub(super) lags: bool,
    /// Whether a copy has another version than the fence should have, or an unknown one.
    pub(super) has_other_version: bool,
    /// How far the region is behind, in thousandths of its limit (the worst of its copies). `None` if the region isn't
    /// withheld for its lag alone, or if a replica doesn't allow the freshest region to be kept.
    pub(super) kept_at: Option<u64>,
}

impl<'a> Knowledge<'a> {
    /// Prepares the judgement for a fence; `None` if the request needs no replica.
    pub(super) fn of(table: &'a Table, ranking: &Ranking, conditions: &Conditions<'a>) -> Option<Self> {
        if ranking.needs.is_empty() {
            return None;
        }
        let health = conditions.health;
        let copies = |replica: usize| {
            let regions = ranking.order.iter().filter_map(|ranked| health.get(ranked.fenced.region.get()));
            let copies = regions.flat_map(|region| &region.replicas).filter(move |copy| copy.replica == replica);
            copies.filter_map(|copy| Some((copy.version.as_deref()?, copy.is_leader)))
        };
        let grouped = table.replicas().iter().enumerate();
        let grouped = grouped.filter(|(at, replica)| replica.is_grouped && ranking.needs.contains(*at));
        let versions = grouped.filter_map(|(at, replica)| {
            let pinned = replica.version.as_deref();
            let version = pinned.or_else(|| version_of_most(copies(at)))?;
            // While no version is known at all, as at an edge without reports of nodes, a pinned version withholds
            // nothing.
            let is_any_known = copies(at).next().is_some();
            Some((at, RequiredVersion { version, withholds_unknown: is_any_known && replica.limits.withholds_unknown }))
        });
        Some(Self { table, needs: ranking.needs, health, versions: versions.collect() })
    }

    /// The copies of a region that the request needs.
    fn copies(&self, region: RegionIndex) -> impl Iterator<Item = &'a ReplicaHealth> {
        let needs = self.needs;
        let copies = self.health.get(region.get()).map_or(&[][..], |health| &health.replicas);
        copies.iter().filter(move |copy| needs.contains(copy.replica))
    }

    /// Judges the copies of a region.
    pub(super) fn judge(&self, region: RegionIndex) -> Copies {
        let mut copies = Copies { kept_at: Some(0), ..Copies::default() };
        for copy in self.copies(region) {
            let Some(replica) = self.table.replicas().get(copy.replica) else { continue };
            if copy.status == Status::Down {
                copies.lags = true;
                // A copy that couldn't be read counts as further behind than any that was read.
                let lag = copy.lag.zip(replica.limits.max).map_or(u64::MAX, |(lag, max)| lag.per_mille_of(max));
                copies.kept_at = copies.kept_at.filter(|_| replica.keep_freshest).map(|worst| worst.max(lag));
            }
            if let Some((_, required)) = self.versions.iter().find(|(at, _)| *at == copy.replica) {
                let is_other = |version: &str| required.version != version;
                copies.has_other_version |= copy.version.as_deref().map_or(required.withholds_unknown, is_other);
            }
        }
        copies.kept_at = copies.kept_at.filter(|_| copies.lags && !copies.has_other_version);
        copies
    }
}

/// A copy that lags: its replica, and how far it is behind if that is known.
pub type Behind = (ReplicaIndex, Option<Lag>);

/// The copies of a region that are too far behind for a request with these needs, by name. Empty unless the region was
/// kept as the freshest, or is withheld.
#[must_use]
pub fn behind(needs: ReplicaSet, region: RegionIndex, conditions: &Conditions<'_>) -> Vec<Behind> {
    if needs.is_empty() {
        return Vec::new();
    }
    let copies = conditions.health.get(region.get()).map_or(&[][..], |health| &health.replicas);
    let lagging = copies.iter().filter(|copy| needs.contains(copy.replica) && copy.status == Status::Down);
    lagging.map(|copy| (ReplicaIndex::new(copy.replica), copy.lag)).collect()
}

/// The shortest time until a copy of an offered region could lag.
pub(super) fn time_to_lag(needs: ReplicaSet, health: &RegionHealth) -> Option<Millis> {
    let needed = health.replicas.iter().filter(|copy| needs.contains(copy.replica));
    needed.filter_map(|copy| copy.to_down).min()
}

/// The shortest time until all lagging copies of a region could be fresh again.
pub(super) fn time_to_return(needs: ReplicaSet, health: &RegionHealth) -> Option<Millis> {
    let lagging = health.replicas.iter().filter(|copy| needs.contains(copy.replica) && copy.status == Status::Down);
    lagging.filter_map(|copy| copy.to_up).max()
}
