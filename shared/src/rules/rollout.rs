//! The fields of the rules about rollouts. A rollout replaces something old by something new, region after region; the
//! sessions with the old and with the new thing are its arms. The fields say what is replaced, by which steps and
//! checks, and how far the rollout has got. Read by [`super::read`]; the edge chooses an arm for each request, and
//! [`crate::rollout`] decides about the next step.

use core::fmt;
use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::bundle::Version;
use crate::id::{BundleId, EndpointId, RegionId, ServiceId};
use crate::time::{Millis, Timestamp};

/// The replacement of something old by something new, region after region: of a model's name (`model`, `from`, `to`),
/// of endpoints by others beside them (`endpoints`), or of a bundle's version (`bundle`, `to`). Each session has one of
/// two arms, `old` or `new`. Per region, a share of the sessions has the new arm.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollout {
    /// The service.
    pub service: ServiceId,
    /// What is replaced.
    pub change: Change,
    /// Its regions, in the order in which they get the new arm.
    pub regions: Vec<RegionId>,
    /// The shares of a region, in per cent, rising.
    pub steps: Vec<u8>,
    /// How long a step lasts at least.
    pub hold: Millis,
    /// How long the last step of a region lasts at least.
    pub bake: Millis,
    /// How long after the begin of a step nothing is counted.
    pub warm_up: Millis,
    /// The samples that each arm needs.
    pub min_samples: u64,
    /// How long a step may last without a verdict.
    pub max_hold: Millis,
    /// What is compared, and how much worse the new arm may be.
    pub checks: BTreeMap<Measure, Allowed>,
    /// An eval that the new arm has to pass in each region.
    pub eval: Option<EvalCheck>,
    /// Where the rollout stands. `None`: it hasn't begun.
    pub progress: Option<Progress>,
}

/// What a rollout replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The endpoints' name of a model.
    Model {
        /// The clients' name.
        model: String,
        /// The endpoints' old name.
        from: String,
        /// The endpoints' new name.
        to: String,
    },
    /// An endpoint of each region.
    Endpoints(BTreeMap<RegionId, Pair>),
    /// The version of a bundle. The old one is what `bundles` pin for a region.
    Bundle {
        /// The bundle.
        bundle: BundleId,
        /// The new version.
        to: Version,
    },
}

/// Two endpoints of a region, of which one replaces the other.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Pair {
    /// The old endpoint.
    #[schemars(with = "String")]
    pub from: EndpointId,
    /// The new endpoint. Only the new arm is sent to it.
    #[schemars(with = "String")]
    pub to: EndpointId,
}

/// What is compared of two arms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// The share of attempts that failed. Attempts, so that a retry that succeeds hides nothing.
    Errors,
    /// The 95th percentile of the time to the first token.
    FirstToken,
    /// The 95th percentile of the mean time between tokens.
    BetweenTokens,
    /// The share of answers that ended because they were too long.
    Length,
    /// The share of answers that a filter ended.
    Refusals,
}

impl Measure {
    /// All of them, with their names in the rules.
    pub const ALL: [(&'static str, Self); 5] = [
        ("error_rate", Self::Errors),
        ("first_token_p95", Self::FirstToken),
        ("between_tokens_p95", Self::BetweenTokens),
        ("finish_length", Self::Length),
        ("refusal", Self::Refusals),
    ];

    /// The name in the rules.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(_, measure)| *measure == self).map_or("", |(name, _)| name)
    }

    /// Whether it is a time, which is compared by ratio, and not a share, which is compared by difference.
    #[must_use]
    pub fn is_time(self) -> bool {
        matches!(self, Self::FirstToken | Self::BetweenTokens)
    }
}

/// One of the two sides that a rollout compares.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Arm {
    /// What is replaced.
    Old,
    /// What replaces it.
    New,
}

impl Arm {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Old, Self::New];

    /// The word for headers, receipts and observations.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::New => "new",
        }
    }

    /// The arm of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::BOTH.into_iter().find(|arm| arm.as_str() == word)
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How much worse the new arm may be. One of the first two has to be given: that which fits.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Allowed {
    /// By how much its share may exceed the old arm's, from 0.0001 to 1: 0.005 is half a point. For `error_rate`,
    /// `finish_length` and `refusal`.
    #[schemars(default, range(min = 0.0001, max = 1))]
    pub max_diff: Option<f64>,
    /// How many times as long it may take, from 1.1 to 100; times are counted in steps of 9 %. For `first_token_p95`
    /// and `between_tokens_p95`.
    #[schemars(default, range(min = 1.1, max = 100))]
    pub max_ratio: Option<f64>,
    /// Whether it fails as soon as that is certain, even before there are `min_samples`.
    #[schemars(default)]
    pub critical: bool,
}

/// An eval of both arms, which the new arm has to pass in each region.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(rename = "RolloutEval", deny_unknown_fields)]
pub struct EvalCheck {
    /// The suite: the name of its file without `.jsonl`, of at most 64 letters, digits, `.`, `_` and `-`.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub suite: String,
    /// By how much the new arm's mean score may be less, from 0.001 to 0.5: 0.02 is two points of a hundred.
    #[schemars(range(min = 0.001, max = 0.5))]
    pub margin: f64,
}

/// Where a rollout stands. `bailiwick rollout` writes it.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Progress {
    /// The share of each region that has begun, in per cent. The others have none.
    #[schemars(default, with = "BTreeMap<String, Percentage>")]
    pub shares: BTreeMap<RegionId, u8>,
    /// When the present step began.
    pub since: Timestamp,
    /// Why the rollout waits for an operator. Absent: it doesn't.
    #[schemars(default)]
    pub paused: Option<String>,
    /// How it ended. Absent: it is under way.
    #[schemars(default)]
    pub ended: Option<String>,
}

/// A share in whole per cent.
#[derive(JsonSchema)]
#[schemars(transparent)]
#[expect(dead_code, reason = "only its schema is used")]
struct Percentage(#[schemars(range(min = 1, max = 100))] u8);

/// A rollout as written. What is replaced is said by `model`, `from` and `to`, by `endpoints`, or by `bundle` and `to`.
#[derive(JsonSchema)]
#[schemars(rename = "Rollout", deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used; reading is by hand, to note every violation")]
struct RolloutAsWritten {
    /// The service. It has one rollout at most.
    service: String,
    /// The clients' name of the model whose name at the endpoints is replaced.
    model: Option<String>,
    /// The endpoints' old name of the model. It stays in the `models` of the endpoints.
    from: Option<String>,
    /// The endpoints' new name of the model. Every endpoint with the old name has to know it. With `bundle`, the new
    /// version, all 64 digits.
    to: Option<String>,
    /// Instead of a model: the endpoint of each region that is replaced, and the one that replaces it.
    endpoints: Option<BTreeMap<String, Pair>>,
    /// Instead of a model: the bundle whose version `to` replaces the one that `bundles` pin for each of the regions.
    /// Applications choose the arm, and say it in `x-bailiwick-bundle`.
    bundle: Option<String>,
    /// Its regions, in the order in which they get the new arm, one after the other.
    #[schemars(length(min = 1))]
    regions: Vec<String>,
    /// The shares of a region that get the new arm, in per cent, rising; 1, 5, 25, 50, 100. The first is below 100.
    #[schemars(length(min = 1), inner(range(min = 1, max = 100)))]
    steps: Option<Vec<u8>>,
    /// How long a step lasts at least; 15m.
    hold: Option<Millis>,
    /// How long the last step of a region lasts at least, before the next region begins; 2h.
    bake: Option<Millis>,
    /// How long after the begin of a step nothing is counted, as caches are cold; 3m.
    warm_up: Option<Millis>,
    /// The samples that each arm needs before a check passes; 500.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    min_samples: Option<u64>,
    /// How long a step may last until all checks have passed. After that the rollout is rolled back; 1d.
    max_hold: Option<Millis>,
    /// What is compared.
    checks: ChecksAsWritten,
    /// Where it stands.
    progress: Option<Progress>,
}

/// The checks of a rollout. One at least has to be given.
#[derive(JsonSchema)]
#[schemars(rename = "RolloutChecks", deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct ChecksAsWritten {
    /// The share of attempts that failed. Attempts, so that a retry that succeeds hides nothing.
    error_rate: Option<Allowed>,
    /// The 95th percentile of the time to the first token.
    first_token_p95: Option<Allowed>,
    /// The 95th percentile of the mean time between tokens.
    between_tokens_p95: Option<Allowed>,
    /// The share of answers that ended because they were too long.
    finish_length: Option<Allowed>,
    /// The share of answers that a filter ended.
    refusal: Option<Allowed>,
    /// The mean score of an eval that asks both arms the same cases. `bailiwick rollout run --eval` gets the results.
    eval: Option<EvalCheck>,
}

impl JsonSchema for Rollout {
    fn schema_name() -> Cow<'static, str> {
        "Rollout".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        RolloutAsWritten::json_schema(generator)
    }
}
