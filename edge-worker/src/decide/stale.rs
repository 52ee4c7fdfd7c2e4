//! What an answer from knowledge that is too far behind says of it. Takes a steering, returns the copies that are
//! behind. Called by `prepare`; `reply` and `receipt` tell it to the client.

use std::rc::Rc;

use bailiwick_rules::health::ReplicaSet;
use bailiwick_rules::steer::{Conditions, Steering, behind};
use bailiwick_rules::table::{RegionIndex, Table};

/// The copies of the offered region that are too far behind, each as `kb;lag=75s`. `None` unless the region was kept as
/// the freshest of its fence.
pub(crate) fn stale(
    table: &Table,
    needs: ReplicaSet,
    steering: &Steering,
    conditions: &Conditions<'_>,
) -> Option<Rc<[String]>> {
    let kept = steering.ordered.first().filter(|_| steering.stale)?;
    Some(copies(table, needs, kept.fenced.region, conditions))
}

/// The copies of a region that an operator names, if any is too far behind: it is asked all the same.
pub(crate) fn stale_at(
    table: &Table,
    needs: ReplicaSet,
    region: RegionIndex,
    conditions: &Conditions<'_>,
) -> Option<Rc<[String]>> {
    Some(copies(table, needs, region, conditions)).filter(|copies| !copies.is_empty())
}

fn copies(table: &Table, needs: ReplicaSet, region: RegionIndex, conditions: &Conditions<'_>) -> Rc<[String]> {
    let copies = behind(needs, region, conditions).into_iter().map(|(replica, lag)| {
        let lag = lag.map_or_else(|| "unknown".to_owned(), |lag| lag.to_string());
        format!("{};lag={lag}", table.replica(replica).id)
    });
    copies.collect()
}
