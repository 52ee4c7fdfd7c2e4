//! Types for strings of the rules document that have a fixed form: host names, URLs, digests, names of secrets. Each
//! type is read from a text; the error says what is wrong with the text. Called by [`super::read`].

use core::fmt;
use core::net::IpAddr;

/// A host name in lower case without a final dot.
///
/// ```
/// use bailiwick_rules::rules::HostName;
/// assert_eq!(HostName::parse("Chat.AI.example.com.").unwrap().as_str(), "chat.ai.example.com");
/// assert!(HostName::parse("a..b").is_none());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostName(Box<str>);

impl HostName {
    /// Labels of 1 to 63 letters, digits, `-` or `_`, 253 bytes in all (RFC 1035 §2.3.4).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(fits)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        (text.len() <= 253 && text.split('.').all(label)).then(|| Self(text.to_ascii_lowercase().into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl core::borrow::Borrow<str> for HostName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// An `http` or `https` URL without user, query or fragment.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HttpUrl(url::Url);

impl HttpUrl {
    /// Reads a URL. The error is the end of a message about the text.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let Ok(url) = url::Url::parse(text) else {
            return Err("is not a URL; write one such as https://gpu.example.net/v1");
        };
        if !matches!(url.scheme(), "https" | "http") || !url.has_host() {
            return Err("is not an https URL; write one such as https://gpu.example.net/v1");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("holds a user or password; name a \"secret\" instead");
        }
        if url.fragment().is_some() {
            return Err("holds a fragment; leave out '#' and what follows");
        }
        Ok(Self(url))
    }

    /// Reads the URL of a receiver of OTLP: `https`, or `http` to this machine, without a query. The error is the end
    /// of a message about the text.
    ///
    /// # Errors
    /// What is wrong with the text, and how to mend it.
    pub fn of_receiver(text: &str) -> Result<Self, &'static str> {
        let url = Self::parse(text)?;
        url.unfit_for_endpoint().map_or(Ok(url.clone()), Err)
    }

    /// The URL of a request below such a URL; it may have a query.
    #[must_use]
    pub fn of_request(url: url::Url) -> Self {
        Self(url)
    }

    /// Why this URL can't be an endpoint's base; `None` if it can.
    pub(super) fn unfit_for_endpoint(&self) -> Option<&'static str> {
        if self.0.query().is_some() {
            return Some("holds a query; leave out '?' and what follows");
        }
        if self.0.scheme() == "http" && !self.is_loopback() {
            return Some("is http to another machine; use https (http is for loopback only)");
        }
        None
    }

    /// Whether the host is this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.0.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
            Some(url::Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
            None => false,
        }
    }

    /// The URL, normalised.
    #[must_use]
    pub fn as_url(&self) -> &url::Url {
        &self.0
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The SHA-256 of an API key; 64 lower-case hex digits in JSON.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyDigest(pub [u8; 32]);

impl KeyDigest {
    /// The digest of an API key as a client sends it.
    ///
    /// ```
    /// use bailiwick_rules::rules::KeyDigest;
    /// let digest = KeyDigest::of_key("sk-test");
    /// assert_eq!(KeyDigest::parse(&digest.to_string()), Some(digest));
    /// ```
    #[must_use]
    pub fn of_key(key: &str) -> Self {
        use sha2::Digest;
        Self(sha2::Sha256::digest(key.as_bytes()).into())
    }

    /// Reads 64 lower-case hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut digest = [0; 32];
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return None;
        }
        for (out, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
            *out = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(digest))
    }
}

impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The name under which a secret's value is found, such as `FRA_KEY`. Never the value.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SecretName(Box<str>);

impl SecretName {
    /// A name fit for an environment variable: letters, digits and `_`, not beginning with a digit.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let starts = text.bytes().next().is_some_and(|first| !first.is_ascii_digit());
        (fits && starts && text.len() <= 128).then(|| Self(text.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a secret of the Worker itself. Sent as a credential, the Worker's own key would be another's too.
    #[must_use]
    pub fn is_of_worker(&self) -> bool {
        const OWN: [&str; 6] = ["EXPLAIN_TOKEN", "HEALTH_TOKEN", "LOGS_KEY", "RECEIPT_KEY", "RULES_TOKEN", "STATE_KEY"];
        OWN.contains(&self.as_str())
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_ldh_labels() {
        for good in ["a", "chat.ai.example.com", "_dmarc.example", "xn--bcher-kva.example"] {
            assert_eq!(HostName::parse(good).unwrap().as_str(), good);
        }
        let long = format!("{}.example", "x".repeat(64));
        for bad in ["", ".", "a..b", "-a", "a-", "a b", "*.example", "bücher.example", "a:80", &long] {
            assert!(HostName::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn endpoint_urls_are_https_or_loopback() {
        let unfit = |text: &str| match HttpUrl::parse(text) {
            Ok(url) => url.unfit_for_endpoint(),
            Err(message) => Some(message),
        };
        for good in [
            "https://gpu.example.net/v1",
            "http://127.0.0.1:8080",
            "http://127.8.8.8/v1/",
            "http://[::1]:1/",
            "http://localhost/",
        ] {
            assert_eq!(unfit(good), None, "{good}");
        }
        for bad in [
            "gpu.example.net/v1",
            "ftp://gpu.example.net",
            "http://gpu.example.net",
            "http://localhost.example/",
            "https://user@gpu.example.net",
            "https://:pw@gpu.example.net",
            "https://gpu.example.net/?a",
            "https://gpu.example.net/#a",
            "https://",
            "",
        ] {
            assert!(unfit(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn digests_are_lower_case_hex() {
        let digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!(KeyDigest::of_key("hello").to_string(), digest);
        assert_eq!(KeyDigest::parse(digest), Some(KeyDigest::of_key("hello")));
        assert_eq!(KeyDigest::parse(&digest.to_uppercase()), None);
        assert_eq!(KeyDigest::parse(&digest[1..]), None);
    }
}
