//! Finds endpoints whose secret (the credential at the provider) has no value in the Worker's environment. Takes the
//! table, and which secrets have a value; returns these endpoints with the names of their secrets, which only the
//! operator sees. Called by `explain`, `serve` (for the health page) and `feed` (for the log).
//!
//! An endpoint without its secret is skipped. If its region has no other endpoint, clients see a 503.

use bailiwick_rules::id::{EndpointId, RegionId};
use bailiwick_rules::rules::SecretName;
use bailiwick_rules::table::Table;
use serde_json::{Value, json};

/// An endpoint without a credential.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Missing {
    region: RegionId,
    endpoint: EndpointId,
    /// The name of the secret, never its value.
    secret: String,
}

/// Every endpoint whose secret has no value, in the regions that `is_wanted` selects.
pub(crate) fn missing(
    table: &Table,
    is_wanted: impl Fn(&RegionId) -> bool,
    has_value: impl Fn(&str) -> bool,
) -> Vec<Missing> {
    let mut missing = Vec::new();
    for region in table.regions().iter().filter(|region| is_wanted(&region.id)) {
        for (id, endpoint) in &region.endpoints {
            let absent = endpoint.secret.as_ref().map(SecretName::as_str).filter(|name| !has_value(name));
            missing.extend(absent.map(|secret| Missing {
                region: region.id.clone(),
                endpoint: id.clone(),
                secret: secret.to_owned(),
            }));
        }
    }
    missing
}

/// The list as JSON: an array with an object for each endpoint.
pub(crate) fn to_json(missing: &[Missing]) -> Value {
    let object =
        |entry: &Missing| json!({ "region": entry.region, "endpoint": entry.endpoint, "secret": entry.secret });
    missing.iter().map(object).collect()
}

/// The list as text for a person, with a line for each endpoint. Lines end with `\n`.
pub(crate) fn to_text(missing: &[Missing]) -> String {
    let line = |entry: &Missing| {
        format!(
            "no secret  {}/{}: {} has no value here, so the endpoint is skipped; set it (wrangler secret put {}, or \
             workerd's environment)\n",
            entry.region, entry.endpoint, entry.secret, entry.secret
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
            "fra": { "countries": ["DE"], "endpoints": { "fra-1": endpoint("FRA_KEY"),
                                                         "fra-2": { "url": "https://e.example/v1" } } },
            "lon": { "countries": ["GB"], "endpoints": { "lon-1": endpoint("LON_KEY"), "lon-2": endpoint("FRA_KEY") } },
        } });
        let table = Table::compile(rules.to_string().as_bytes()).unwrap();
        let missing_in = |region: &str| {
            let missing = missing(&table, |id| region == "*" || id.as_str() == region, |name| name == "LON_KEY");
            let text = |entry: &Missing| format!("{}/{}={}", entry.region, entry.endpoint, entry.secret);
            missing.iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(missing_in("*"), ["fra/fra-1=FRA_KEY", "lon/lon-2=FRA_KEY"]);
        assert_eq!(missing_in("lon"), ["lon/lon-2=FRA_KEY"]);
        let line = to_text(&missing(&table, |id| id.as_str() == "fra", |_| false));
        assert!(line.starts_with("no secret  fra/fra-1: FRA_KEY has no value here") && line.ends_with('\n'), "{line}");
    }
}
