//! Reads the hosts of a service: names that are steered, or wildcards. Takes the text of a host, returns a
//! [`SteeredHost`]. Called by the reader of services.

use core::fmt;

use super::HostName;

/// The longest host in text form without a final dot (RFC 1035 §2.3.4).
const LONGEST: usize = 253;

/// A host that is steered: a host name, or `*.` before one for every name that a DNS wildcard stands for (RFC 4592).
/// In lower case without a final dot.
///
/// ```
/// use bailiwick_rules::rules::SteeredHost;
/// let host = SteeredHost::parse("*.GPU.example.com.").unwrap();
/// assert_eq!((host.as_str(), host.is_wildcard()), ("*.gpu.example.com", true));
/// assert!(SteeredHost::parse("a*.example.com").is_none());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SteeredHost(Box<str>);

impl SteeredHost {
    /// A host name as [`HostName::parse`] reads it, or one behind `*.`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let host: Box<str> = match text.strip_prefix("*.") {
            Some(parent) => format!("*.{}", HostName::parse(parent)?).into(),
            None => HostName::parse(text)?.as_str().into(),
        };
        (host.len() <= LONGEST).then_some(Self(host))
    }

    /// The host.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a wildcard.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }

    /// Why this text is no host, and what to write instead.
    pub(super) fn problem(text: &str) -> String {
        let write = "write one such as \"chat.ai.example.com\"";
        if text.contains('*') {
            return format!(
                "is {text:?}; an asterisk stands for whole labels only, once and at the start: write it as \
                 \"*.gpu.example.com\""
            );
        }
        if !text.is_ascii() {
            return format!("is {text:?}, which has letters outside ASCII; write it in Punycode (xn--…)");
        }
        format!("is {text:?}, which is no host name; {write}, or \"*.gpu.example.com\" for all names below one")
    }
}

impl fmt::Display for SteeredHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_a_wildcard_above_one() {
        for (good, host) in [("Chat.example.", "chat.example"), ("*.GPU.example", "*.gpu.example"), ("*.a", "*.a")] {
            assert_eq!(SteeredHost::parse(good).unwrap().as_str(), host);
        }
        let label = "x".repeat(63);
        let longest = format!("*.{label}.{label}.{label}.{}", "x".repeat(59));
        assert_eq!(SteeredHost::parse(&longest).unwrap().as_str().len(), LONGEST);
        let longer = format!("{longest}x");
        for bad in
            ["", "*", "*.", "*.*.example", "a.*.example", "*a.example", "**.example", "*.a..b", "*example", &longer]
        {
            assert!(SteeredHost::parse(bad).is_none(), "{bad:?}");
        }
    }
}
