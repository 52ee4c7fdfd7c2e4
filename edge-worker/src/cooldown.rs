//! Endpoints at rest in one isolate: failures in, what [`steer`](bailiwick_rules::steer::steer()) withholds as `cooling` out.

use bailiwick_rules::id::{EndpointId, RegionId};
use bailiwick_rules::steer::Local;
use bailiwick_rules::table::Table;
use bailiwick_rules::time::Timestamp;

/// All endpoints at rest, by name: they outlive a change of rules.
#[derive(Clone, Debug, Default)]
pub struct CoolDowns {}

impl CoolDowns {
    /// Lets an endpoint rest, as long as it asked or by backoff; at most 60 s. What `Action::CoolDown` calls.
    pub fn rest(
        &mut self,
        _region: &RegionId,
        _endpoint: &EndpointId,
        _model: Option<&str>,
        _asked_ms: Option<u64>,
        _now: Timestamp,
    ) {
        unimplemented!()
    }

    /// Forgets an endpoint's failures: it served. To be called at `Action::Commit`.
    pub fn recovered(&mut self, _region: &RegionId, _endpoint: &EndpointId, _model: Option<&str>) {
        unimplemented!()
    }

    /// Whether the endpoint rests, for `Run::pass_over`.
    #[must_use]
    pub fn is_resting(
        &self,
        _region: &RegionId,
        _endpoint: &EndpointId,
        _model: Option<&str>,
        _now: Timestamp,
    ) -> bool {
        unimplemented!()
    }

    /// What steering has to know of it.
    #[must_use]
    pub fn local(&self, _table: &Table, _now: Timestamp) -> Local {
        unimplemented!()
    }
}

/// How long an endpoint asks to be left alone, from its response headers (`header(name)`, names in lower case): the longest
/// of `retry-after-ms`, `retry-after` (seconds or HTTP date), `x-ratelimit-reset-*` of an exhausted limit.
#[must_use]
pub fn asked_rest(_header: impl Fn(&str) -> Option<String>, _now: Timestamp) -> Option<u64> {
    unimplemented!()
}
