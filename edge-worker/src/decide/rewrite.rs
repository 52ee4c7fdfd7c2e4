//! Makes the request that is sent to an endpoint. Takes the client's request and a [`Target`]; returns the URL, headers
//! and body. Only headers and query parameters of the allow-lists pass, and URLs aren't made by joining text. Called by
//! `proxy` for each attempt.

pub(crate) mod disposition;
pub(crate) mod headers;

use core::fmt;

use bailiwick_rules::rules::{NoUrl, RequestTarget, credential};
use url::Url;

use crate::decide::body::{Additions, Inspected, Needs};
use crate::decide::envelope::Failure;
use crate::decide::headers::Headers;
use crate::decide::multipart::form::Form;
use crate::decide::payload::{LARGEST_COPIED, Payload};
use crate::decide::plan::Target;
use crate::decide::route::Route;
use crate::decide::route::query::Query;

/// A client's body that the edge holds completely and has inspected.
pub(crate) enum Content {
    /// A JSON object.
    Json(Inspected),
    /// A multipart form, and the boundary between its parts when it is sent to an endpoint.
    Form(Form, String),
}

impl Content {
    /// The client's name of the model.
    #[must_use]
    pub(crate) fn model(&self) -> Option<&str> {
        match self {
            Self::Json(body) => body.model(),
            Self::Form(form, _) => Some(form.model()),
        }
    }

    /// Whether the answer is to be streamed.
    #[must_use]
    pub(crate) fn stream(&self) -> bool {
        match self {
            Self::Json(body) => body.stream(),
            Self::Form(form, _) => form.stream(),
        }
    }

    /// How many choices the answer should have at least.
    #[must_use]
    pub(crate) fn choices(&self) -> usize {
        self.json().map_or(1, Inspected::choices)
    }

    /// The body if it is JSON; `None` for a form.
    #[must_use]
    pub(crate) fn json(&self) -> Option<&Inspected> {
        match self {
            Self::Json(body) => Some(body),
            Self::Form(..) => None,
        }
    }

    /// Whether the body is so large that it is written to an endpoint in chunks.
    fn is_large(&self) -> bool {
        self.size() > LARGEST_COPIED
    }

    fn content_type(&self) -> String {
        match self {
            Self::Json(_) => "application/json".to_owned(),
            Self::Form(_, boundary) => form_type(boundary),
        }
    }

    /// The fields and models that an endpoint must know to serve the request.
    #[must_use]
    pub(crate) fn needs(&self) -> &Needs {
        match self {
            Self::Json(body) => body.needs(),
            Self::Form(form, _) => form.needs(),
        }
    }

    /// The bytes of the body for an endpoint, with the endpoint's name of the model.
    #[must_use]
    pub(crate) fn for_target(&self, target: &Target) -> Payload<'_> {
        let additions = Additions { usage: target.counts_tokens(), priority: target.priority() };
        match self {
            Self::Json(body) => body.for_endpoint_with(target.model(), target.models(), target.engine(), additions),
            Self::Form(form, boundary) => form.for_endpoint(boundary, target.model()),
        }
    }

    /// How many bytes the client sent.
    #[must_use]
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Json(body) => body.size(),
            Self::Form(form, _) => form.size(),
        }
    }
}

/// The `Content-Type` of a form.
#[must_use]
pub(crate) fn form_type(boundary: &str) -> String {
    format!("multipart/form-data; boundary={boundary}")
}

/// A request to an endpoint. It is sent without following redirects.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Outgoing {
    /// The method.
    pub(crate) method: &'static str,
    /// The URL. Its origin is that of the endpoint's base URL.
    pub(crate) url: Url,
    /// All headers, including the credential.
    pub(crate) headers: Headers,
    /// The body, if it is sent in one piece.
    pub(crate) body: Option<Vec<u8>>,
    /// The size of the body in bytes, if it is written in chunks.
    pub(crate) written: Option<usize>,
}

/// Leaves out what must not be logged: the credential and the body.
impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("method", &self.method).finish_non_exhaustive()
    }
}

/// Makes the request for `target`. `secret` is the value of `target.secret()`, and `headers` are the client's.
///
/// # Errors
/// 404 for a model whose name can't be part of a URL, 415 for a compressed body.
pub(crate) fn outgoing(
    target: &Target,
    route: &Route,
    query: &Query,
    headers: &Headers,
    body: Option<&Content>,
    secret: Option<&str>,
) -> Result<Outgoing, Failure> {
    let url = url(target, route, query)?;
    let mut headers = headers::to_endpoint(headers)?;
    let (mut bytes, mut written) = (None, None);
    if let Some(content) = body {
        headers.push("content-type", &content.content_type());
        let payload = content.for_target(target);
        if content.is_large() { written = Some(payload.len()) } else { bytes = Some(payload.concat()) }
    }
    if let Some(tier) = target.objective() {
        headers.push("x-gateway-inference-objective", tier.as_str());
    }
    // The edge reads the events of streams, and it can't decompress an answer.
    headers.push("accept-encoding", "identity");
    if let Some(secret) = secret {
        let (name, value) = credential(target.style(), secret);
        headers.push(name, &value);
    }
    Ok(Outgoing { method: route.method(), url, headers, body: bytes, written })
}

/// The URL of a request: the endpoint's base URL, followed by checked path segments and query parameters. Its origin is
/// always that of the base URL, and its path begins with the path of the base URL.
///
/// # Errors
/// 404 for a model whose name can't be part of a path.
pub(crate) fn url(target: &Target, route: &Route, query: &Query) -> Result<Url, Failure> {
    let own = |model| ["models", model];
    let named = route.model().and(target.model()).map(own);
    let written: Vec<&str> = route.segments().iter().map(String::as_str).collect();
    let path = RequestTarget {
        style: target.style(),
        api_version: target.api_version(),
        deployment: target.model().filter(|_| route.is_deployed()),
        segments: named.as_ref().map_or(&written[..], |named| &named[..]),
    };
    path.url(target.url(), query.pairs()).map_err(|error| match error {
        NoUrl::Segment => Failure::ModelNotFound { model: target.model().unwrap_or_default().to_owned() },
        NoUrl::Base => Failure::Internal,
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use bailiwick_rules::rules::Style;
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::decide::plan::Plan;
    use crate::decide::plan::tests::{american_plan, german_plan};

    fn target<'p>(plan: &'p Plan, name: &str) -> &'p Target {
        plan.targets().iter().find(|target| target.id().as_str() == name).unwrap()
    }

    fn sent(target: &Target, method: &str, path: &str, query: &str, secret: Option<&str>) -> Outgoing {
        let route = Route::parse(method, path).unwrap();
        let client = [("authorization", "Bearer client"), ("accept", "*/*")].into_iter().collect();
        outgoing(target, &route, &Query::parse(query).unwrap(), &client, None, secret).unwrap()
    }

    fn header<'o>(outgoing: &'o Outgoing, name: &str) -> Option<&'o str> {
        outgoing.headers.get(name)
    }

    #[test]
    fn openai_style_appends_to_the_base_and_brings_the_endpoints_credential() {
        let plan = german_plan();
        let out = sent(target(&plan, "fra-1"), "POST", "/v1/chat/completions", "limit=1&x=2", Some("ours\n"));
        assert_eq!(out.url.as_str(), "https://fra1.example.net/v1/chat/completions?limit=1");
        assert_eq!(header(&out, "authorization"), Some("Bearer ours"));
        assert_eq!(out.headers.iter().filter(|(name, _)| *name == "authorization").count(), 1);
        let keyless = sent(target(&plan, "fra-3"), "POST", "/chat/completions", "", None);
        assert_eq!(keyless.url.as_str(), "https://fra3.example.net/v1/chat/completions");
        assert_eq!(header(&keyless, "authorization"), None, "the client's credential never passes");
        assert!(!format!("{out:?}").contains("ours"));
    }

    #[test]
    fn azure_style_names_the_deployment_and_the_version() {
        let plan = german_plan();
        let azure = target(&plan, "azure");
        let out = sent(azure, "POST", "/v1/chat/completions", "api-version=1999", Some("k"));
        let expected =
            "https://acme.openai.azure.com/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";
        assert_eq!(out.url.as_str(), expected);
        assert_eq!((header(&out, "api-key"), header(&out, "authorization")), (Some("k"), None));
        let responses = sent(azure, "POST", "/v1/responses", "", None);
        assert_eq!(responses.url.as_str(), "https://acme.openai.azure.com/openai/responses?api-version=2024-10-21");
    }

    #[test]
    fn a_model_in_the_path_becomes_the_endpoints_name() {
        let plan = german_plan();
        let out = sent(target(&plan, "fra-1"), "GET", "/v1/models/chat", "", None);
        assert_eq!(out.url.path(), "/v1/models/llama");
    }

    #[test]
    fn a_model_cannot_climb_out_of_the_path() {
        for model in [
            ".", "..", "...", ".\t.", "\n.", "\t", "a\rb", "\u{7f}", "../../x", "a/..", "a//b", "/a", "a\\b", "%2e%2e",
            "a%2Fb",
        ] {
            let plan = american_plan(model);
            let route = Route::parse("GET", "/v1/models/x").unwrap();
            let failure = url(&plan.targets()[0], &route, &Query::default()).unwrap_err();
            assert_eq!(failure.status(), 404, "{model}");
        }
        let plan = american_plan("org/x?y#z");
        let route = Route::parse("GET", "/v1/models/x").unwrap();
        let out = url(&plan.targets()[0], &route, &Query::default()).unwrap();
        assert_eq!(out.as_str(), "https://iad1.example.net/v1/models/org%2Fx%3Fy%23z");
    }

    #[test]
    fn no_path_query_or_model_leads_to_another_origin() {
        let piece = prop_oneof![
            Just("/v1".to_owned()),
            Just("/models".to_owned()),
            Just("/files".to_owned()),
            Just("/..".to_owned()),
            Just("/%2e%2e".to_owned()),
            Just("//evil.example".to_owned()),
            Just("/@evil.example".to_owned()),
            Just("\\".to_owned()),
            Just("/%09".to_owned()),
            "/[ -~]{1,6}",
            "/\\PC{1,4}",
        ];
        let paths = proptest::collection::vec(piece, 1..5).prop_map(|pieces| pieces.concat());
        let model = prop_oneof!["\\PC{1,8}", "[.\\t\\n\\r/%2e]{1,4}"];
        let strategy = (paths, "[ -~]{0,12}", model);
        let (cases, made) = (Cell::new(0), Cell::new(0));
        let german = german_plan();
        TestRunner::new(ProptestConfig::with_cases(20_000))
            .run(&strategy, |(path, query, model)| {
                cases.set(cases.get() + 1);
                let Ok(route) = Route::parse("GET", &path) else { return Ok(()) };
                let Ok(query) = Query::parse(&query) else { return Ok(()) };
                if crate::decide::body::model_routes(&model) {
                    return Ok(());
                }
                let american = american_plan(&model);
                for target in german.targets().iter().chain(american.targets()) {
                    if let Ok(url) = url(target, &route, &query) {
                        made.set(made.get() + 1);
                        let base = target.url().as_url();
                        prop_assert_eq!(url.origin(), base.origin());
                        let below = url.path().strip_prefix(base.path().trim_end_matches('/'));
                        prop_assert_eq!(
                            below.map(|path| path.matches('/').count()),
                            Some(route.segments().len() + usize::from(target.style() == Style::Azure))
                        );
                        // A second parser reads the same URL.
                        prop_assert_eq!(&Url::parse(url.as_str()).unwrap(), &url);
                    }
                }
                Ok(())
            })
            .unwrap();
        println!("paths tried: {}, URLs made: {}", cases.get(), made.get());
        assert!(made.get() > 100);
    }
}
