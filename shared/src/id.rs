//! The names the rules document gives to things, each a type of its own so that none is taken for another.

use core::borrow::Borrow;
use core::fmt;
use std::sync::Arc;

/// Longest name: that of a DNS label, so that a name can stand in a host name, a header or a metric.
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

/// What to say of a text that is no name.
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
