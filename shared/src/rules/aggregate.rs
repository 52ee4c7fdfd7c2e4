//! The fields of the rules that say what may be told across borders, and to whom. Read by [`super::read`]; used by
//! `aggregate`, which decides what is told, and by the DNS node, which sends it. The edge ignores them.

use schemars::JsonSchema;

use super::{HttpUrl, SecretName, schema};
use crate::time::Millis;

/// Where one node of a fleet sends sums of what Workers observed. They name no tenant and no endpoint, and no number in
/// them is of fewer than `min_count` requests, so they may cross borders.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Aggregate {
    /// The receiver: an OTLP/HTTP endpoint that takes metrics as JSON, such as
    /// `https://metrics.example.net/v1/metrics`.
    #[schemars(with = "String")]
    pub otlp: HttpUrl,
    /// The name of the secret that is sent as a bearer token.
    #[schemars(default, with = "Option<String>")]
    pub secret: Option<SecretName>,
    /// The interval that each sum is of, and to which all times are rounded, from 10s to 1d: `1m`. A whole part of a
    /// day.
    #[schemars(default = "schema::minute")]
    pub every: Millis,
    /// The fewest requests that a number may be of, from 5: `20`. What has fewer is added to `other`.
    #[schemars(default = "schema::twenty", range(min = 5, max = 1_000_000))]
    pub min_count: u32,
    /// Whether tenants are told apart: `false`. There is nothing else yet, as Workers observe no tenants.
    #[schemars(default, with = "schema::False")]
    pub tenants: bool,
}
