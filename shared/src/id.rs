//! Names that the rules document gives to regions, services and other things. Each kind of name is a type of its own,
//! so that no name is taken for one of another kind.

use core::borrow::Borrow;
use core::fmt;
use std::sync::Arc;

/// The longest name, in bytes: that of a DNS label, so that a name can stand in a host name, a header or a metric.
const LONGEST: usize = 63;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Reads a name: 1 to 63 ASCII letters, digits, `-`, `_` or `.`, the first a letter or digit.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                is_name(text).then(|| Self(text.into()))
            }

            /// The name as written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} {NOT_A_NAME}")))
            }
        }
    };
}

id!(
    /// The name of a jurisdiction, such as `eu`.
    JurisdictionId
);
id!(
    /// The name of a region, such as `eu-frankfurt`.
    RegionId
);
id!(
    /// The name of an endpoint within its region, such as `fra-1`.
    EndpointId
);
id!(
    /// The name of a service, such as `chat`.
    ServiceId
);
id!(
    /// The name of a tenant, such as `acme`.
    TenantId
);

id!(
    /// The name of a provider's quota, such as `swc-gpt41`.
    QuotaId
);
id!(
    /// The name of a service tier, such as `enterprise`.
    TierId
);

id!(
    /// The name of a rollout, such as `llama-fp8`.
    RolloutId
);

id!(
    /// The name of a drill, such as `london`.
    DrillId
);

id!(
    /// The name of a bundle of files, such as `prompts`.
    BundleId
);

id!(
    /// The name of a replica of knowledge, such as `kb`.
    ReplicaId
);

id!(
    /// The name of a sink, such as `eu`: a collector that gets the edge's events.
    SinkId
);

id!(
    /// The name of a node whose report counts as a vote on health, such as `ns1`.
    VoterId
);
id!(
    /// The name of a site, such as `london`: what voters may fail with together.
    SiteId
);

/// What an override forces: a region as a whole, or one of its endpoints. Its text is `eu-frankfurt` or
/// `eu-frankfurt/fra-1`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Overridden {
    /// The region that is forced, or whose endpoint is.
    pub region: RegionId,
    /// The endpoint; `None`: the region as a whole.
    pub endpoint: Option<EndpointId>,
}

impl Overridden {
    /// Reads `REGION` or `REGION/ENDPOINT`.
    ///
    /// ```
    /// use bailiwick_rules::id::Overridden;
    /// let fra = Overridden::parse("eu-frankfurt/fra-1").unwrap();
    /// assert_eq!((fra.region.as_str(), fra.to_string()), ("eu-frankfurt", "eu-frankfurt/fra-1".to_owned()));
    /// assert!(Overridden::parse("eu-frankfurt").unwrap().endpoint.is_none() && Overridden::parse("fra/").is_none());
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.split_once('/') {
            None => Self { region: RegionId::parse(text)?, endpoint: None },
            Some((region, endpoint)) => {
                Self { region: RegionId::parse(region)?, endpoint: Some(EndpointId::parse(endpoint)?) }
            }
        })
    }
}

impl Overridden {
    /// The endpoint's name; `None` for a region as a whole.
    #[must_use]
    pub fn endpoint_name(&self) -> Option<&str> {
        self.endpoint.as_ref().map(EndpointId::as_str)
    }
}

impl From<RegionId> for Overridden {
    fn from(region: RegionId) -> Self {
        Self { region, endpoint: None }
    }
}

impl fmt::Display for Overridden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            None => f.write_str(self.region.as_str()),
            Some(endpoint) => write!(f, "{}/{endpoint}", self.region),
        }
    }
}

/// The message about a text that isn't a name.
pub(crate) const NOT_A_NAME: &str =
    "is not a name; use 1 to 63 letters, digits, '-', '_' or '.', beginning with a letter or digit";

fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    text.len() <= LONGEST
        && text.bytes().all(fits)
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_labels_headers_and_metrics() {
        for good in ["eu", "eu-frankfurt", "R1", "a.b_c", &"x".repeat(63)] {
            assert!(RegionId::parse(good).is_some(), "{good:?}");
        }
        for bad in ["", "-a", "a b", "a/b", "é", "a\n", "*", &"x".repeat(64)] {
            assert!(RegionId::parse(bad).is_none(), "{bad:?}");
        }
    }
}
