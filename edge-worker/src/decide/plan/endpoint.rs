//! What a plan asks of an endpoint of the rules: its name for a model, and its place among the endpoints of its region.
//! Takes an endpoint and what a request names. Called by `plan`, `home` and `target`.

use bailiwick_rules::id::{EndpointId, RegionId};
use bailiwick_rules::rules::Endpoint;

use crate::decide::body::models::NamedModel;
use crate::decide::body::{Needs, model_routes};
use crate::decide::hash::hash;

/// The endpoint's own name for a model. `Some(None)` if the request names no model, `None` if the endpoint lacks the
/// model.
pub(super) fn model_at<'a>(endpoint: &'a Endpoint, model: Option<&'a str>) -> Option<Option<&'a str>> {
    match (model, &endpoint.models) {
        (None, _) => Some(None),
        (Some(model), None) => (!model_routes(model)).then_some(Some(model)),
        (Some(model), Some(map)) => map.get(model).map(|name| Some(name.as_str())),
    }
}

/// The first model, of those named below the top level of a body, that an endpoint lacks.
pub(super) fn lacks<'n>(endpoint: &Endpoint, needs: &'n Needs) -> Option<&'n NamedModel> {
    needs.models.iter().find(|named| model_at(endpoint, Some(&named.name)).is_none())
}

/// Weighted rendezvous hashing. The endpoint with the least score serves an affinity key, so each endpoint gets keys in
/// proportion to its weight. If an endpoint is removed, only the keys that it served move. `-ln(u) / weight`, with `u`
/// between 0 and 1, is the time of the first arrival of a Poisson process whose rate is the weight.
pub(super) fn score(affinity: &str, region: &RegionId, id: &EndpointId, endpoint: &Endpoint) -> u64 {
    let hash = hash(&[affinity.as_bytes(), region.as_str().as_bytes(), id.as_str().as_bytes()]);
    // A double holds 53 bits. Adding a half keeps `unit` above 0 and below 1, so its logarithm is finite and not zero.
    #[expect(clippy::cast_precision_loss, reason = "both are below 2^53")]
    let unit = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    // Positive doubles sort like their bits, read as integers.
    (-libm::log(unit) / f64::from(endpoint.weight.max(1))).to_bits()
}
