//! How often a node of a fleet probes, so that many voters don't ask an endpoint too often. Takes a monitor's interval
//! and the rules' voters, returns the node's own interval. Called by the owner of the DNS half when it starts monitors.

use crate::table::Fleet;
use crate::time::Millis;

/// The longest interval that this returns: the longest that a monitor may have.
const LONGEST: Millis = Millis(3_600_000);

/// The interval between a node's probes of one target. It is the monitor's interval, or longer if all voters together
/// would probe the target more often than `max_probes_per_second`.
///
/// ```
/// use bailiwick_rules::fleet::pace::interval;
/// use bailiwick_rules::table::Table;
/// use bailiwick_rules::time::Millis;
///
/// let rules = br#"{ "version": 1, "revision": 1, "fleet": { "max_probes_per_second": 0.5,
///     "voters": { "a": { "site": "x" }, "b": { "site": "y" }, "c": { "site": "z" } } } }"#;
/// let table = Table::compile(rules).unwrap();
/// assert_eq!(interval(Millis(1_000), table.fleet()), Millis(6_000));
/// assert_eq!(interval(Millis(10_000), table.fleet()), Millis(10_000));
/// assert_eq!(interval(Millis(1_000), None), Millis(1_000));
/// ```
#[must_use]
pub fn interval(interval: Millis, fleet: Option<&Fleet>) -> Millis {
    let Some((fleet, limit)) = fleet.and_then(|fleet| Some((fleet, fleet.max_probes_per_second?))) else {
        return interval;
    };
    // The limit counts in millionths, and the result is in milliseconds: hence the factor of 10^9.
    let least = (fleet.voters.len() as u64).saturating_mul(1_000_000_000).div_ceil(u64::from(limit.0.max(1)));
    interval.max(Millis(least).min(LONGEST))
}
