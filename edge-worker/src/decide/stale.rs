//! What an answer from knowledge that is too far behind says of it. Takes a steering, returns the copies that are
//! behind. Called by `prepare`; `reply` and `receipt` tell it to the client.

use std::rc::Rc;

use bailiwick_rules::health::ReplicaSet;
use bailiwick_rules::steer::{Conditions, Steering, behind};
use bailiwick_rules::table::Table;

/// The copies of the offered region that are too far behind, each as `kb;lag=75s`. `None` unless the region was kept as
/// the freshest of its fence.
pub(crate) fn stale(
    table: &Table,
    needs: ReplicaSet,
    steering: &Steering,
    conditions: &Conditions<'_>,
) -> Option<Rc<[String]>> {
    let kept = steering.ordered.first().filter(|_| steering.stale)?;
    let copies = behind(needs, kept.fenced.region, conditions).into_iter().map(|(replica, lag)| {
        let lag = lag.map_or_else(|| "unknown".to_owned(), |lag| lag.to_string());
        format!("{};lag={lag}", table.replica(replica).id)
    });
    Some(copies.collect())
}
