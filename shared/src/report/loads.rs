//! How full regions are, as a node reports it. Holds the JSON that `/v1/health` carries as `loads`. Written by the DNS
//! node.
//!
//! ```json
//! { "eu-frankfurt": { "load": 0.75, "read": 2, "missing": 1, "endpoints": {
//!     "fra-1": { "load": 0.75, "age_ms": 812, "waiting": 3, "running": 60, "kv": 0.6 },
//!     "fra-2": { "load": null, "age_ms": null } } } }
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ratio;
use crate::id::EndpointId;
use crate::rules::Ratio;

/// The load of a region: the mean of its endpoints' loads, weighted by capacity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    /// 1 is full; `null` if no endpoint has a fresh reading.
    #[serde(with = "ratio::optional")]
    pub load: Option<Ratio>,
    /// How many endpoints have a fresh reading, of which the load is the mean.
    pub read: u32,
    /// How many endpoints that aren't down have no fresh reading.
    pub missing: u32,
    /// The endpoints whose load is read.
    pub endpoints: BTreeMap<EndpointId, EndpointLoadReport>,
}

/// The last reading of an endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointLoadReport {
    /// 1 is full; `null` if the last good reading is too old, or if there was none.
    #[serde(with = "ratio::optional")]
    pub load: Option<Ratio>,
    /// Milliseconds since the last good reading.
    pub age_ms: Option<u64>,
    /// Requests that were waiting at the last good reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<f64>,
    /// Requests that were being served at the last good reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<f64>,
    /// The used part of the engine's KV cache (attention keys and values) at the last good reading, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "ratio::optional")]
    pub kv: Option<Ratio>,
}
