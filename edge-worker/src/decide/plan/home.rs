//! Where new state of a client is made, such as a stored file. Takes the rules and the client, returns one endpoint.
//! Called by `prepare`.

use bailiwick_rules::id::EndpointId;
use bailiwick_rules::rules::Pattern;
use bailiwick_rules::steer::{Ask, rank, stand};
use bailiwick_rules::table::{RegionIndex, Table};

use crate::decide::envelope::Failure;
use crate::decide::plan::endpoint::{model_at, score};
use crate::decide::state::Place;

/// Chooses the endpoint where a client's new state is made. All clients of a tenant in a jurisdiction get the same
/// endpoint, because later requests have to find the state there. So the choice depends neither on health nor on
/// distance. The region is the first of the fence in the order of the rules (standby last, then by tier), or the one
/// that the pattern keeps the client at. In that region, the tenant's name chooses the endpoint.
///
/// # Errors
/// 451 if the fence is empty or a hub lies outside it, 404 if no endpoint has the model, 503 if no endpoint's secret
/// has a value.
pub(crate) fn home(
    table: &Table,
    ask: &Ask<'_>,
    affinity: &str,
    has_secret: impl Fn(&str) -> bool,
) -> Result<Place, Failure> {
    let mut standing = stand(table, &ask.client);
    if table.service(ask.service).pattern != Pattern::RegionalSharding {
        standing.location = None;
    }
    let ranking = rank(table, ask.service, &standing, ask.path_class);
    let allowed = |region: RegionIndex| ranking.only.is_none_or(|only| only == Some(region));
    let mut regions =
        ranking.order.iter().map(|ranked| ranked.fenced.region).filter(|&region| allowed(region)).peekable();
    if regions.peek().is_none() {
        return Err(Failure::ResidencyDenied);
    }
    let mut failure = Failure::RegionUnavailable;
    for index in regions {
        let region = table.region(index);
        // A rollout that is rolled back mustn't take state with it.
        let is_kept = |id: &EndpointId| table.rollouts().is_empty() || !table.is_rolled_out(index, id);
        let able =
            region.endpoints.iter().filter(|(id, endpoint)| is_kept(id) && model_at(endpoint, ask.model).is_some());
        let mut able = able.peekable();
        if able.peek().is_none()
            && let Some(model) = ask.model
        {
            failure = Failure::ModelNotFound { model: model.to_owned() };
        }
        let keyed =
            able.filter(|(_, endpoint)| endpoint.secret.as_ref().is_none_or(|secret| has_secret(secret.as_str())));
        let best = keyed
            .min_by_key(|(id, endpoint)| (endpoint.priority, score(affinity, &region.id, id, endpoint), id.clone()));
        if let Some((endpoint, _)) = best {
            return Ok(Place { region: index, endpoint: endpoint.clone() });
        }
    }
    Err(failure)
}
