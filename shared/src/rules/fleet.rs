//! The fields of the rules that say how several nodes agree on health: which nodes vote, how long a status stands, and
//! how much of a fence health may take away. Read by [`super::read`]; used by `fleet`, which decides. A fence is the
//! list of the regions that may process a client's data.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::{Ratio, schema};
use crate::id::{RegionId, SiteId, VoterId};
use crate::time::Millis;

/// How the nodes agree on health. DNS and the edge follow the same votes.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Fleet {
    /// The nodes that vote, by the `node` of their bailiwick.toml. Majorities are of all these, whether they are heard
    /// or not.
    #[schemars(with = "BTreeMap<String, Voter>", extend("minProperties" = 1))]
    pub voters: BTreeMap<VoterId, Voter>,
    /// For how long a region that went down stays down at least, up to 1h: `30s`.
    #[schemars(default = "schema::half_minute")]
    pub min_hold: Millis,
    /// After how long without enough votes a node goes by what it sees itself, from 10s to 1d: `5m`.
    #[schemars(default = "schema::five_minutes")]
    pub hold: Millis,
    /// How often one target may be probed per second by all voters together, from 0.01 to 100. Where their monitors
    /// would probe it more often, their intervals are stretched.
    #[schemars(default, with = "Option<f64>", range(min = 0.01, max = 100))]
    pub max_probes_per_second: Option<Ratio>,
}

/// A node that votes on health.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Voter {
    /// What it may fail with: its building, network or provider. Voters of one site have one vote together.
    #[schemars(with = "String")]
    pub site: SiteId,
    /// The region it stands in. Its vote on that region counts only to break a tie, towards up.
    #[schemars(with = "Option<String>", default)]
    pub region: Option<RegionId>,
}

/// How much of a fence health may take away at once. Beyond it a region is still offered, until `window` has passed and
/// the voters still call it down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct Guard {
    /// How many regions of each fence are left at least: 1.
    #[schemars(range(max = 1_000))]
    pub keep: u32,
    /// What part of a fence's regions may go down within `window`, from `1%` to `100%`: `50%`. Rounded down.
    #[schemars(with = "schema::Percent")]
    pub max_down: Ratio,
    /// The time in which they are counted, and after which the voters are believed, from 1s to 1d: `10m`.
    pub window: Millis,
}

impl Default for Guard {
    fn default() -> Self {
        Self { keep: 1, max_down: Ratio(500_000), window: Millis(600_000) }
    }
}
