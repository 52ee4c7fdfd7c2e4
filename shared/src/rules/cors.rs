//! The `cors` of a service in the rules document: which web pages of other origins may send requests to the service.

use core::fmt;

use schemars::JsonSchema;

use crate::time::Millis;

/// Which web pages may ask, by the Fetch standard's CORS protocol.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Cors {
    /// Exact origins such as `https://app.example.com`, or `*` alone where every request needs a key.
    #[schemars(length(min = 1))]
    pub origins: Vec<WebOrigin>,
    /// How long a browser may keep the answer to a preflight; by default 10 minutes.
    #[schemars(default)]
    pub max_age: Option<Millis>,
}

impl Cors {
    /// How long a browser keeps the answer to a preflight unless told.
    pub const MAX_AGE: Millis = Millis(600_000);

    /// What to allow a page of `origin`, in the words of `Access-Control-Allow-Origin`; `None` if it may not ask.
    #[must_use]
    pub fn allowed(&self, origin: &str) -> Option<&str> {
        let is_its = |allowed: &&WebOrigin| allowed.is_any() || allowed.as_str() == origin;
        self.origins.iter().find(is_its).map(WebOrigin::as_str)
    }

    /// Whether pages of every origin may ask.
    #[must_use]
    pub fn is_for_all(&self) -> bool {
        self.origins.iter().any(WebOrigin::is_any)
    }
}

/// An origin (RFC 6454) as browsers write it, or `*`.
///
/// ```
/// use bailiwick_rules::rules::WebOrigin;
/// assert_eq!(WebOrigin::parse("https://app.example.com").unwrap().as_str(), "https://app.example.com");
/// assert!(WebOrigin::parse("https://app.example.com/").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WebOrigin(Box<str>);

impl WebOrigin {
    /// Reads one; the error is what to say about it.
    ///
    /// # Errors
    /// For what no browser would send, `null`, and `http` from another machine.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self(text.into()));
        }
        if text == "null" {
            return Err(
                "is \"null\", which any file and any sandboxed frame is; list the origins that may ask".to_owned()
            );
        }
        let example = "write an origin such as \"https://app.example.com\"";
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("is {text:?}, which has no scheme; {example}"));
        };
        if rest.contains('*') {
            return Err(format!("is {text:?}, and patterns aren't known; list each origin, or \"*\" alone"));
        }
        if rest.contains(['/', '?', '#', '@']) {
            return Err(format!("is {text:?}, and an origin ends with its host or port; {example}"));
        }
        if !matches!(scheme, "http" | "https") {
            return Self::of_application(scheme, rest).ok_or_else(|| format!("is {text:?}; {example}"));
        }
        let Ok(url) = url::Url::parse(text) else { return Err(format!("is {text:?}, which is no URL; {example}")) };
        // A browser writes an origin in lower case, in Punycode, and without a default port.
        let written = url.origin().ascii_serialization();
        if written != text {
            return Err(format!("is {text:?}; write it as browsers do: {written:?}"));
        }
        if scheme == "http" && !super::HttpUrl::parse(text).is_ok_and(|url| url.is_loopback()) {
            return Err(format!(
                "is {text:?}, whose pages anybody on the way can change; use https (http is for loopback only)"
            ));
        }
        Ok(Self(written.into()))
    }

    /// Of an application that has a scheme of its own: `chrome-extension://…`, `capacitor://localhost`.
    fn of_application(scheme: &str, rest: &str) -> Option<Self> {
        let in_scheme = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+.-".contains(&byte);
        let in_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        let is_origin = scheme.starts_with(|first: char| first.is_ascii_lowercase())
            && scheme.bytes().all(in_scheme)
            && scheme != "file"
            && (1..=253).contains(&rest.len())
            && rest.bytes().all(in_host);
        is_origin.then(|| Self(format!("{scheme}://{rest}").into()))
    }

    /// Whether it stands for every origin.
    #[must_use]
    pub fn is_any(&self) -> bool {
        &*self.0 == "*"
    }

    /// As a browser writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for text in [
            "https://app.example.com",
            "https://app.example.com:8443",
            "http://localhost:3000",
            "http://127.0.0.1:5173",
            "http://[::1]:8080",
            "https://xn--mnchen-3ya.example",
            "chrome-extension://abcdefghijklmnop",
            "capacitor://localhost",
            "*",
        ] {
            assert_eq!(WebOrigin::parse(text).map(|origin| origin.to_string()).as_deref(), Ok(text));
        }
        for (text, word) in [
            ("null", "sandboxed"),
            ("app.example.com", "no scheme"),
            ("https://app.example.com/", "ends with its host"),
            ("https://app.example.com/chat", "ends with its host"),
            ("https://user@app.example.com", "ends with its host"),
            ("https://*.example.com", "patterns"),
            ("https://app.example.com:443", "\"https://app.example.com\""),
            ("https://App.example.com", "\"https://app.example.com\""),
            ("https://münchen.example", "xn--mnchen-3ya"),
            ("http://app.example.com", "https"),
            ("http://192.168.1.7:3000", "https"),
            ("file://a", "such as"),
            ("https://", "no URL"),
            ("", "no scheme"),
        ] {
            let message = WebOrigin::parse(text).unwrap_err();
            assert!(message.contains(word), "{text}: {message}");
        }
    }

    #[test]
    fn only_what_is_listed_may_ask() {
        let cors = |origins: &[&str]| Cors {
            origins: origins.iter().map(|text| WebOrigin::parse(text).unwrap()).collect(),
            max_age: None,
        };
        let some = cors(&["https://a.example", "http://localhost:3000"]);
        assert_eq!(some.allowed("http://localhost:3000"), Some("http://localhost:3000"));
        for other in [
            "https://a.example.evil",
            "https://a.example:8443",
            "http://a.example",
            "null",
            "",
            "*",
            "https://A.example",
        ] {
            assert_eq!(some.allowed(other), None, "{other}");
        }
        assert_eq!(cors(&["*"]).allowed("null"), Some("*"));
    }
}
