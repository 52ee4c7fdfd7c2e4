//! What a probe that asks a model says, as a node reports it. Holds the JSON that `/v1/health` carries as `probe` of an
//! endpoint or a region. Written by the DNS node.
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
    /// first probe.
    pub verdict: String,
    /// What the verdict means, as a sentence.
    pub says: String,
    /// Since when the verdict has been the same; absent before the first probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why the last probe failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// How many tokens the probe asks the model for, and in which field, if the model refused to make a single token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raised: Option<String>,
    /// Until when no probe is sent because the budget of tokens is spent. The last status stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpaid_until: Option<Timestamp>,
}
