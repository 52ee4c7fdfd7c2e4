//! The allow-list of query parameters. Takes a raw query string; returns the pairs that may pass. Called by `serve`
//! and `explain`.

use url::form_urlencoded;

use crate::decide::envelope::Failure;

/// Query parameters of the model API that pass. Azure's `api-version` doesn't pass, because the rules name the version
/// of each endpoint.
const PASSING: &[&str] =
    &["after", "before", "filter", "include", "include[]", "limit", "order", "purpose", "starting_after", "stream"];

/// The parameters whose value is an id.
const IDS: &[&str] = &["after", "before"];

/// Names of parameters that hold credentials, in lower case without `-` and `_`.
const CREDENTIALS: &[&str] = &[
    "accesstoken",
    "apikey",
    "auth",
    "authorization",
    "bearer",
    "key",
    "secret",
    "subscriptionkey",
    "token",
    "xapikey",
];

/// The pairs that may pass.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads a raw query string (without `?`). Unknown parameters are dropped.
    ///
    /// # Errors
    /// 400 for a credential in the query, or for bytes that aren't UTF-8.
    pub(crate) fn parse(raw: &str) -> Result<Self, Failure> {
        let mut pairs = Vec::new();
        for (name, value) in form_urlencoded::parse(raw.as_bytes()) {
            let plain: String = name.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect();
            if CREDENTIALS.contains(&plain.as_str()) || value.starts_with("sk-") {
                return Err(Failure::KeyInQuery);
            }
            if name.contains(char::REPLACEMENT_CHARACTER) || value.contains(char::REPLACEMENT_CHARACTER) {
                return Err(Failure::BadQuery);
            }
            if PASSING.contains(&name.as_ref()) {
                pairs.push((name.into_owned(), value.into_owned()));
            }
        }
        Ok(Self { pairs })
    }

    /// Whether the query asks for a stream.
    #[must_use]
    pub(crate) fn stream(&self) -> bool {
        self.pairs.iter().any(|(name, value)| name == "stream" && value == "true")
    }

    /// The ids in the query, in order. The client asks for the part of a list after or before such an id.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter(|(name, _)| IDS.contains(&name.as_str())).map(|(_, id)| id.as_str())
    }

    /// Replaces [`Query::ids`] by these ids, in the same order.
    pub(crate) fn replace_ids(&mut self, new: &mut impl Iterator<Item = String>) {
        let slots = self.pairs.iter_mut().filter(|(name, _)| IDS.contains(&name.as_str()));
        slots.zip(new).for_each(|((_, id), new)| *id = new);
    }

    /// The pairs, decoded.
    #[must_use]
    pub(crate) fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_refused_however_they_are_written() {
        for raw in
            ["api-key=x", "API_KEY=x", "key=x", "a=1&%61pi-key=x", "access_token=", "q=sk-abc", "subscription-key"]
        {
            assert_eq!(Query::parse(raw), Err(Failure::KeyInQuery), "{raw}");
        }
    }

    #[test]
    fn unknown_parameters_and_the_api_version_are_dropped() {
        let query = Query::parse("api-version=2020&include[]=a&include%5B%5D=b&x=y&&=").unwrap();
        assert_eq!(query.pairs().len(), 2);
        assert_eq!(Query::parse("limit=20&utm_source=x").unwrap().pairs(), [("limit".to_owned(), "20".to_owned())]);
        assert_eq!(Query::parse("limit=%ff"), Err(Failure::BadQuery));
        assert_eq!(Query::parse(""), Ok(Query::default()));
    }

    #[test]
    fn ids_are_replaced_in_their_order() {
        let mut query = Query::parse("before=b&limit=2&after=a&starting_after=7&stream=true").unwrap();
        assert_eq!(query.ids().collect::<Vec<_>>(), ["b", "a"]);
        query.replace_ids(&mut ["B".to_owned(), "A".to_owned()].into_iter());
        let values: Vec<&str> = query.pairs().iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["B", "2", "A", "7", "true"]);
        assert!(query.stream() && !Query::parse("stream=1").unwrap().stream());
    }
}
