//! Amounts of both dimensions of a pool: what isolates and nodes ask for, are granted, spend and give back.

use serde::{Deserialize, Serialize};

use super::Cost;

/// A number of requests and a number of tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Amounts {
    /// A number of requests.
    pub requests: u64,
    /// A number of tokens.
    pub tokens: u64,
}

impl From<Cost> for Amounts {
    fn from(cost: Cost) -> Self {
        Self { requests: cost.requests, tokens: cost.tokens }
    }
}

impl From<Amounts> for Cost {
    fn from(amounts: Amounts) -> Self {
        Self { requests: amounts.requests, tokens: amounts.tokens }
    }
}

impl Amounts {
    /// The difference; 0 where `other` is larger.
    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(other.requests),
            tokens: self.tokens.saturating_sub(other.tokens),
        }
    }

    /// The sum.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            tokens: self.tokens.saturating_add(other.tokens),
        }
    }
}
