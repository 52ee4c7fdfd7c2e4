//! The fields of the rules about releases: what every region should run under one name of a model. Read by
//! [`super::read`]; used by `release`, which compares a release with what endpoints say.

use schemars::JsonSchema;

use super::Canary;
use crate::time::Millis;

/// What should run under a client's name of a model. Each field that is given is a pin. Without it the value that most
/// regions of a fence have counts.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Release {
    /// The model's name as the endpoint answers it. `*` stands for any characters.
    #[schemars(default, with = "Option<String>", length(min = 1, max = 256))]
    pub model: Option<Glob>,
    /// Where the endpoint has its weights from, as `/v1/models` tells it in `root`. `*` stands for any characters.
    #[schemars(default, with = "Option<String>", length(min = 1, max = 256))]
    pub root: Option<Glob>,
    /// The endpoint's `system_fingerprint`, such as `vllm-0.11.*`. `*` stands for any characters.
    #[schemars(default, with = "Option<String>", length(min = 1, max = 256))]
    pub fingerprint: Option<Glob>,
    /// The longest context, in tokens, as `/v1/models` tells it in `max_model_len`.
    #[schemars(default, range(min = 1, max = 9_007_199_254_740_992u64))]
    pub max_model_len: Option<u64>,
    /// The canary's record, as `bailiwick releases --json` prints it.
    #[schemars(default, with = "Option<String>")]
    pub canary: Option<Canary>,
    /// How far two canaries may be apart, in nats: the mean difference of log probabilities.
    #[schemars(default = "tolerance", range(min = 0.001, max = 10.0))]
    pub tolerance: f64,
    /// Time between two readings of an endpoint.
    #[schemars(default = "hour")]
    pub interval: Millis,
    /// What happens to a region that runs something else.
    #[schemars(default)]
    pub skew: Skew,
}

/// What happens to a region that runs something else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Skew {
    /// It is told, and serves all the same.
    #[default]
    Warn,
    /// It is withheld from requests for the model, unless no other region of the fence is left.
    Withhold,
}

/// The tolerance of a release that names none, in nats.
pub(super) fn tolerance() -> f64 {
    0.1
}

/// The interval of a release that names none.
pub(super) fn hour() -> Millis {
    Millis(3_600_000)
}

/// A text in which `*` stands for any characters, also none.
///
/// ```
/// use bailiwick_rules::rules::Glob;
/// let glob = Glob::parse("vllm-0.11.*-a3b21f94").unwrap();
/// assert!(glob.matches("vllm-0.11.2-H100-tp8-bf16-a3b21f94") && !glob.matches("vllm-0.10.0-H100-tp8-bf16-a3b21f94"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Box<str>);

impl Glob {
    /// The longest pattern, in bytes.
    const LONGEST: usize = 256;

    /// Reads a pattern: 1 to 256 bytes without control characters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= Self::LONGEST && !text.chars().any(char::is_control);
        fits.then(|| Self(text.into()))
    }

    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a text matches as a whole. Takes at most the product of both lengths.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            let Some((_, after)) = rest.split_once(part) else { return false };
            rest = after;
        }
        rest.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_and_nothing_else_does() {
        let matches = |pattern: &str, text: &str| Glob::parse(pattern).unwrap().matches(text);
        for (pattern, text) in [
            ("a", "a"),
            ("*", ""),
            ("*", "anything"),
            ("a*", "a"),
            ("*a", "ba"),
            ("a*b*c", "a1b2b3c"),
            ("**", "x"),
            ("a*a", "aa"),
            ("*b*", "abc"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("a", "ab"), ("a", "ba"), ("a*a", "a"), ("a*b", "ac"), ("a?", "ab"), ("*b*b*", "ab"), ("[a]", "a")]
        {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
        for bad in ["", "a\n", &"x".repeat(257)] {
            assert!(Glob::parse(bad).is_none(), "{bad:?}");
        }
    }
}
