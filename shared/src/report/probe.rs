//! What probes of a model say, as a node tells it. Holds the JSON that `/v1/health` carries as `probe` of an endpoint
//! or a region. Written by the DNS node.
//!
//! ```json
//! { "verdict": "busy", "says": "no token in time, but the engine makes tokens for others: it is full, not down",
//!   "since": "2026-11-29T08:00:00Z", "failure": "no token within 5s", "raised": "max_completion_tokens = 16" }
//! ```

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// What the last probe of a model says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// The verdict: `answered`, `served`, `busy`, `throttled`, `frozen`, `misconfigured` or `down`; `none` before the
    /// first.
    pub verdict: String,
    /// What that means.
    pub says: String,
    /// Since when it is that; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// What the last probe failed of, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// How many tokens the model is asked for, and by which field, since it refused a single one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raised: Option<String>,
    /// Until when the budget pays for no probe. The last status stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpaid_until: Option<Timestamp>,
}
