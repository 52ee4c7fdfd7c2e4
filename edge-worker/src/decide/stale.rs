//! Finds the copies of knowledge (replicas of a data set) that are too far behind their leader in the region that
//! answers. Takes a steering, returns these copies with their lags. Called by `prepare`; `reply` and `receipt` tell
//! them to the client.

use std::rc::Rc;

use bailiwick_rules::health::ReplicaSet;
use bailiwick_rules::steer::{Conditions, Steering, behind};
use bailiwick_rules::table::{RegionIndex, Table};

/// The copies of the first region of the steering that are too far behind, each as `kb;lag=75s`. `None` unless this
/// region was kept as the freshest of its fence, because no other region could be offered.
pub(crate) fn stale(
    table: &Table,
    needs: ReplicaSet,
    steering: &Steering,
    conditions: &Conditions<'_>,
) -> Option<Rc<[String]>> {
    let kept = steering.ordered.first().filter(|_| steering.stale)?;
    Some(copies(table, needs, kept.fenced.region, conditions))
}

/// The copies that are too far behind in a region that an operator names for a request; `None` if no copy is. The
/// region is asked in any case.
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
