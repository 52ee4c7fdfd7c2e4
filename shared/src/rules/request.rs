//! Makes the URL and the credential header of a request to an endpoint. Takes the endpoint's base URL and style, and
//! what is asked for. Called by the edge for each attempt, and by the reader of monitors that ask a model.

use url::{Position, Url};

use super::{HttpUrl, Style};

/// What a request adds to the base URL of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct RequestTarget<'a> {
    /// How the endpoint is spoken to.
    pub style: Style,
    /// The endpoint's `api_version`; of `azure` only.
    pub api_version: Option<&'a str>,
    /// The deployment that Azure names in the path, if it does for this path.
    pub deployment: Option<&'a str>,
    /// The segments of the path, such as `chat` and `completions`.
    pub segments: &'a [&'a str],
}

/// Why there is no URL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoUrl {
    /// A segment can't stand in a path. It would change the path, in this URL parser or in a server that decodes `%2F`.
    Segment,
    /// The URL would lead out of the base. No segment should be able to do that.
    Base,
}

impl RequestTarget<'_> {
    /// Checks the segments, and appends them and the names and values of `query` to the endpoint's base URL. The base's
    /// origin and path always come first.
    ///
    /// # Errors
    /// If a segment can't be part of a path, or the URL would leave the base.
    pub fn url(&self, base: &HttpUrl, query: &[(String, String)]) -> Result<Url, NoUrl> {
        let base = base.as_url();
        let mut segments: Vec<&str> = Vec::new();
        if self.style == Style::Azure {
            segments.push("openai");
            if let Some(deployment) = self.deployment {
                segments.extend(["deployments", deployment]);
            }
        }
        segments.extend(self.segments);
        // A URL parser drops the segments `.` and `..`, even in encoded form, and removes tabs and line breaks before
        // that. `\` counts as a slash, and `%` could hide any of these. A model with such a name would change the path.
        // Empty parts are refused, too, as servers merge slashes.
        let has_more_than_dots = |part: &str| !part.bytes().all(|byte| byte == b'.');
        let plain = |segment: &&str| {
            !segment.contains(|c: char| c.is_control() || matches!(c, '\\' | '%'))
                && segment.split('/').all(has_more_than_dots)
        };
        if !segments.iter().all(plain) {
            return Err(NoUrl::Segment);
        }
        let mut url = base.clone();
        url.path_segments_mut().map_err(|()| NoUrl::Base)?.pop_if_empty().extend(segments);
        let version = self.api_version.filter(|_| self.style == Style::Azure);
        if version.is_some() || !query.is_empty() {
            let mut pairs = url.query_pairs_mut();
            pairs.extend_pairs(query);
            pairs.extend_pairs(version.map(|version| ("api-version", version)));
        }
        let base_path = base.path().trim_end_matches('/');
        let inside = url.path().strip_prefix(base_path).is_some_and(|rest| rest.starts_with('/'));
        let same = url[..Position::BeforePath] == base[..Position::BeforePath];
        if same && inside { Ok(url) } else { Err(NoUrl::Base) }
    }
}

/// The name and the value of the header that carries an endpoint's credential.
#[must_use]
pub fn credential(style: Style, secret: &str) -> (&'static str, String) {
    // A secret that was read from a file may end with a line break.
    let secret = secret.trim();
    match style {
        Style::OpenAi => ("authorization", ["Bearer ", secret].concat()),
        Style::Azure => ("api-key", secret.to_owned()),
    }
}
