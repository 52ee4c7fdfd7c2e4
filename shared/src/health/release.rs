//! What is known about the release that an endpoint runs. A release says which model, engine and settings should run
//! under a model's name; skew means that an endpoint runs something else. The module [`crate::release`] compares the
//! endpoints' answers and makes a [`ReleaseHealth`] for each endpoint; steering reads it.
//!
//! The results of the comparison stand here, not the answers. Answers vary a little from reading to reading. The
//! results change only when an endpoint really runs something else.

/// A property of a release that is compared between endpoints.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Aspect {
    /// The model's name in the endpoint's answer.
    Model,
    /// Where the model's weights come from.
    Root,
    /// The longest context, in tokens.
    MaxModelLen,
    /// The engine, by its `system_fingerprint`.
    Fingerprint,
    /// The likeliest tokens of the model's answers to fixed prompts.
    Canary,
}

impl Aspect {
    /// All aspects.
    pub const ALL: [Self; 5] = [Self::Model, Self::Root, Self::MaxModelLen, Self::Fingerprint, Self::Canary];

    /// The name in the rules and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Root => "root",
            Self::MaxModelLen => "max_model_len",
            Self::Fingerprint => "fingerprint",
            Self::Canary => "canary",
        }
    }
}

/// What is known about one aspect of the release that an endpoint runs: how its value compares with the value that the
/// rules pin, or with the values of other endpoints.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum AspectValue {
    /// The endpoint didn't say anything that can be compared. This never counts as skew.
    #[default]
    Unknown,
    /// The rules pin a value, and the endpoint has it.
    MatchesPin,
    /// The rules pin a value, and the endpoint has another one.
    DiffersFromPin,
    /// The rules pin no value. Endpoints with the same number have the same value. A number is valid within one
    /// comparison: the same value may get another number in the next.
    Version(u32),
}

/// What is known about the release of one model at one endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReleaseHealth {
    /// The release's position in the rules.
    pub release: usize,
    /// The endpoint's position in the region whose [`super::RegionHealth`] holds this.
    pub endpoint: usize,
    /// One value for each aspect, in the order of [`Aspect::ALL`].
    pub values: [AspectValue; Aspect::ALL.len()],
}

impl ReleaseHealth {
    /// The value of one aspect.
    #[must_use]
    pub fn value(&self, aspect: Aspect) -> AspectValue {
        let position = Aspect::ALL.iter().position(|known| *known == aspect);
        position.and_then(|position| self.values.get(position)).copied().unwrap_or_default()
    }
}
