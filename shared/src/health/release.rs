//! What is known about the release that an endpoint runs. A release is what should run under a model's name. Made by
//! `release`, which compares endpoints' answers; used by steering. Holds only small numbers, so that decisions don't
//! change with each reading.

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

/// What an endpoint's answer says about one aspect.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Said {
    /// Nothing that can be compared. This never counts as skew, that is, as running something else.
    #[default]
    Unknown,
    /// The value that the rules pin.
    Pinned,
    /// Another value than the rules pin.
    Other,
    /// One of several values, where the rules pin none. Endpoints with the same number have the same value.
    Version(u32),
}

/// What is known about the release of one model at one endpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReleaseHealth {
    /// The release's position in the rules.
    pub release: usize,
    /// The endpoint's position in its region.
    pub endpoint: usize,
    /// By aspect, in the order of [`Aspect::ALL`].
    pub said: [Said; Aspect::ALL.len()],
}

impl ReleaseHealth {
    /// What the endpoint's answer says about one aspect.
    #[must_use]
    pub fn of(&self, aspect: Aspect) -> Said {
        Aspect::ALL.iter().zip(self.said).find(|(one, _)| **one == aspect).map_or(Said::Unknown, |(_, said)| said)
    }
}
