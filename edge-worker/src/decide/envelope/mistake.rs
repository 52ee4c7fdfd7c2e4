//! Recognises common mistakes in paths. Takes a raw path and its segments, returns a [`Mistake`] that says what to
//! write instead. Called by `route`. Most of these paths come from a base URL that ends in the wrong place.

/// What is wrong with a path.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Mistake {
    /// `/v1/v1/…`.
    DoubledVersion,
    /// `/v1/models/`.
    TrailingSlash,
    /// `/v1//models`.
    EmptySegment,
    /// `/openai/v1/…`, as clients of Azure's newer API write it.
    AzureBase,
    /// `/openai/deployments/…`, as clients of Azure's older API write it.
    AzureDeployment,
    /// `/health` and similar, which engines serve but the model API doesn't have.
    Health,
}

impl Mistake {
    /// Finds the mistake in a path, if it is a known one. `path` is raw; `segments` are decoded and don't include
    /// `/v1`.
    pub(crate) fn of(path: &str, segments: &[String]) -> Option<Self> {
        let words: Vec<&str> = segments.iter().map(String::as_str).collect();
        match words.as_slice() {
            // The path is only the base.
            [""] => None,
            [before @ .., ""] if before.iter().all(|word| !word.is_empty()) => Some(Self::TrailingSlash),
            words if words.contains(&"") => Some(Self::EmptySegment),
            ["v1", ..] if path.starts_with("/v1/") => Some(Self::DoubledVersion),
            ["openai", "deployments", ..] => Some(Self::AzureDeployment),
            ["openai", ..] => Some(Self::AzureBase),
            ["health" | "healthz" | "ping" | "ready" | "version" | "metrics"] => Some(Self::Health),
            _ => None,
        }
    }

    /// The HTTP status.
    #[must_use]
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::TrailingSlash | Self::EmptySegment => 400,
            Self::DoubledVersion | Self::AzureBase | Self::AzureDeployment | Self::Health => 404,
        }
    }

    /// The error code that programs branch on.
    #[must_use]
    pub(crate) fn code(self) -> &'static str {
        if self.status() == 400 { "invalid_path" } else { "unknown_path" }
    }

    /// What to write instead.
    #[must_use]
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::DoubledVersion => {
                "The path holds /v1 twice: once from the base URL and once from the client. Use a base URL that ends \
                 in one /v1, \
                 such as https://HOST/v1, with paths such as /chat/completions."
            }
            Self::TrailingSlash => {
                "The path ends in a slash, and no path of the model API does. Leave the slash out, such as \
                 /v1/chat/completions."
            }
            Self::EmptySegment => {
                "The path holds two slashes in a row. Most often the base URL ends in a slash and the path begins \
                 with one: use \
                 https://HOST/v1 without a slash at its end."
            }
            Self::AzureBase => {
                "Azure's paths are not served here. Use the base URL https://HOST/v1 instead of one that \
                 ends in \
                 /openai/v1."
            }
            Self::AzureDeployment => {
                "Azure's deployments are not served here. Use OpenAI's client with the base URL \
                 https://HOST/v1, and \
                 send the model in the body's \"model\"; the gateway sets the api-version."
            }
            Self::Health => {
                "The model API has no such path. To ask whether this gateway can serve, use \
                 /.well-known/bailiwick/healthz."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::envelope::Failure;
    use crate::decide::route::Route;

    #[test]
    fn a_path_that_is_nearly_right_gets_the_right_path_in_the_error() {
        for (path, mistake) in [
            ("/v1/v1/chat/completions", Mistake::DoubledVersion),
            ("/v1/v1", Mistake::DoubledVersion),
            ("/v1/chat/completions/", Mistake::TrailingSlash),
            ("/v1/models/", Mistake::TrailingSlash),
            ("/v1/models/org/name/", Mistake::TrailingSlash),
            ("/v1//chat/completions", Mistake::EmptySegment),
            ("//v1/chat/completions", Mistake::EmptySegment),
            ("/v1/chat//completions/", Mistake::EmptySegment),
            ("/v1/models/org%2F%2Fname", Mistake::EmptySegment),
            ("/openai/v1/chat/completions", Mistake::AzureBase),
            ("/openai/deployments/m/chat/completions", Mistake::AzureDeployment),
            ("/v1/openai/deployments/m/chat/completions", Mistake::AzureDeployment),
            ("/health", Mistake::Health),
            ("/v1/health", Mistake::Health),
        ] {
            let failure = Route::parse("POST", path).unwrap_err();
            assert_eq!(failure, Failure::PathMistake(mistake), "{path}");
            assert_eq!((failure.status(), failure.code()), (mistake.status(), mistake.code()));
            assert!(failure.message().len() > 60 && failure.message().contains('/'), "{path}");
        }
        for path in ["/", "/v1", "/v1/", "/v2/models", "/v1x/models"] {
            assert!(!matches!(Route::parse("GET", path), Err(Failure::PathMistake(_)) | Ok(_)), "{path}");
        }
    }
}
