//! Which endpoints lack the value of the secret that they name: a table and what has a value enter, their names leave,
//! for the operator alone; called by `explain`, `serve` (health) and `feed` (the log).
//!
//! Such an endpoint is skipped, so that a region without another serves nothing: seen from outside, a 503.

use bailiwick_rules::id::{EndpointId, RegionId};
use bailiwick_rules::rules::SecretName;
use bailiwick_rules::table::Table;
use serde_json::{Value, json};

/// An endpoint without its credential.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Missing {
    region: RegionId,
    endpoint: EndpointId,
    /// The secret's name, never a value.
    secret: String,
}

/// Every endpoint whose secret has no value, of the regions for which `asked` holds.
pub(crate) fn missing(
    table: &Table,
    asked: impl Fn(&RegionId) -> bool,
    has_value: impl Fn(&str) -> bool,
) -> Vec<Missing> {
    let mut missing = Vec::new();
    for region in table.regions().iter().filter(|region| asked(&region.id)) {
        for (endpoint, told) in &region.endpoints {
            let absent = told.secret.as_ref().map(SecretName::as_str).filter(|name| !has_value(name));
            missing.extend(absent.map(|secret| Missing {
                region: region.id.clone(),
                endpoint: endpoint.clone(),
                secret: secret.to_owned(),
            }));
        }
    }
    missing
}

/// Each as an object.
pub(crate) fn to_json(missing: &[Missing]) -> Value {
    let one = |one: &Missing| json!({ "region": one.region, "endpoint": one.endpoint, "secret": one.secret });
    missing.iter().map(one).collect()
}

/// A line of each, for a person; lines end with `\n`.
pub(crate) fn to_text(missing: &[Missing]) -> String {
    let line = |one: &Missing| {
        format!(
            "no secret  {}/{}: {} has no value here, so the endpoint is skipped; set it (wrangler secret put {}, or \
             workerd's environment)\n",
            one.region, one.endpoint, one.secret, one.secret
        )
    };
    missing.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_without_the_value_of_their_secret_are_named() {
        let endpoint = |secret: &str| serde_json::json!({ "url": "https://e.example/v1", "secret": secret });
        let rules = serde_json::json!({ "version": 1, "revision": 1, "regions": {
            "fra": { "countries": ["DE"], "endpoints": { "fra-1": endpoint("FRA_KEY"), "fra-2": { "url": "https://e.example/v1" } } },
            "lon": { "countries": ["GB"], "endpoints": { "lon-1": endpoint("LON_KEY"), "lon-2": endpoint("FRA_KEY") } },
        } });
        let table = Table::compile(rules.to_string().as_bytes()).unwrap();
        let told = |region: &str| {
            let missing = missing(&table, |id| region == "*" || id.as_str() == region, |name| name == "LON_KEY");
            missing.iter().map(|one| format!("{}/{}={}", one.region, one.endpoint, one.secret)).collect::<Vec<_>>()
        };
        assert_eq!(told("*"), ["fra/fra-1=FRA_KEY", "lon/lon-2=FRA_KEY"]);
        assert_eq!(told("lon"), ["lon/lon-2=FRA_KEY"]);
        let line = to_text(&missing(&table, |id| id.as_str() == "fra", |_| false));
        assert!(line.starts_with("no secret  fra/fra-1: FRA_KEY has no value here") && line.ends_with('\n'), "{line}");
    }
}
