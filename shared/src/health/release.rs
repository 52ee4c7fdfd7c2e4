//! What is known of the release that an endpoint runs. Made by `release`, which compares endpoints' answers; steering
//! goes by it. Holds small numbers, so that decisions don't change with each reading.

/// What of a release is compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Aspect {
    /// The model's name as the endpoint answers it.
    Model,
    /// Where its weights come from.
    Root,
    /// The longest context.
    MaxModelLen,
    /// The engine, by its `system_fingerprint`.
    Fingerprint,
    /// The likeliest tokens of its answers.
    Canary,
}

impl Aspect {
    /// All of them.
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

/// What an endpoint said of one aspect.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Said {
    /// Nothing that can be compared. That is never skew.
    #[default]
    Unknown,
    /// What the rules pin.
    Pinned,
    /// Something else than the rules pin.
    Other,
    /// One of several versions, of which the rules pin none. Endpoints with equal numbers have the same.
    Version(u32),
}

/// What is known of the release of one model at one endpoint.
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
    /// What the endpoint said of one aspect.
    #[must_use]
    pub fn of(&self, aspect: Aspect) -> Said {
        Aspect::ALL.iter().zip(self.said).find(|(one, _)| **one == aspect).map_or(Said::Unknown, |(_, said)| said)
    }
}
