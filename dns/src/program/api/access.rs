//! Logs who changes what by the API. Takes every request that isn't for reading nor from a Worker, and its response;
//! logs one event for each. Called by the router.
//!
//! The event has these facts and no others: what was done, to which region, endpoint, bundle, drill or revision, the
//! status, the file of the token that was sent, and the sender's address. It has no token, no body and no text of the
//! sender: names are told only of what was found.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use bailiwick_rules::id::{BundleId, DrillId, EndpointId, RegionId};
use tracing::{info, warn};

use super::{Api, Remote, WORKER_PATHS};

/// What a request changed. Handlers whose path doesn't say it put it into the response's extensions.
#[derive(Debug, Clone)]
pub(super) struct Changed(pub String);

/// What a request is about to do, and to what.
#[derive(Debug, PartialEq, Eq)]
struct Intent {
    action: &'static str,
    of: Option<String>,
}

impl Intent {
    fn of(method: &Method, path: &str) -> Self {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let region = |text: &str| RegionId::parse(text).map(|region| region.to_string());
        let endpoint = |text: &str| EndpointId::parse(text).map(|endpoint| endpoint.to_string());
        let drill = |text: &str| DrillId::parse(text).map(|drill| drill.to_string());
        let (action, of) = match (method.as_str(), &parts[..]) {
            ("PUT", ["v1", "rules"]) => ("publish_rules", None),
            ("PUT", ["v1", "rules", "head"]) => ("publish_head", None),
            ("PUT", ["v1", "bundles", name]) => ("push_bundle", BundleId::parse(name).map(|name| name.to_string())),
            ("POST", ["v1", "overrides"]) => ("set_override", None),
            ("DELETE", ["v1", "overrides", name]) => ("end_override", region(name)),
            ("DELETE", ["v1", "overrides", name, of]) => (
                "end_override",
                region(name).zip(endpoint(of)).map(|(region, endpoint)| format!("{region}/{endpoint}")),
            ),
            ("POST", ["v1", "drills"]) => ("run_drill", None),
            ("DELETE", ["v1", "drills", name]) => ("end_drill", drill(name)),
            ("PUT", ["v1", "drill-records", name]) => ("keep_drill_record", drill(name)),
            _ => ("other", None),
        };
        Self { action, of }
    }
}

/// Passes a request on, and logs what became of it.
pub(super) async fn record(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if reads || WORKER_PATHS.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let Intent { action, of } = Intent::of(request.method(), request.uri().path());
    let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let by = authorization.and_then(|authorization| api.tokens.file_of(authorization));
    let by = by.map(|file| file.display().to_string());
    let from = request.extensions().get::<ConnectInfo<Remote>>().map(|ConnectInfo(Remote(remote))| remote.ip());
    let unanswered = Unanswered { action, by: by.clone(), from, is_answered: false };
    let response = next.run(request).await;
    unanswered.answered();
    let status = response.status();
    // A name in a path that wasn't found is whatever the sender made up.
    let of =
        response.extensions().get::<Changed>().map(|Changed(of)| of.clone()).or(of.filter(|_| status.is_success()));
    let is_logged = status != StatusCode::UNAUTHORIZED || by.is_some() || api.failed_tokens.may_log(api.handle.now());
    if is_logged {
        log(&Entry { action, of: of.as_deref(), status, by: by.as_deref(), from });
    }
    response
}

/// A request that has no response yet. If it is dropped, its sender hung up; what it asked for may have been done.
struct Unanswered {
    action: &'static str,
    by: Option<String>,
    from: Option<IpAddr>,
    is_answered: bool,
}

impl Unanswered {
    fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(by) = self.by.as_deref().filter(|_| !self.is_answered) {
            let from = self.from.map(|from| from.to_canonical().to_string());
            info!(
                json.event = "api_access",
                json.action = self.action,
                json.by = by,
                json.from = from.as_deref(),
                "{} by {by}: the sender hung up before the answer",
                self.action
            );
        }
    }
}

struct Entry<'a> {
    action: &'static str,
    of: Option<&'a str>,
    status: StatusCode,
    by: Option<&'a str>,
    from: Option<IpAddr>,
}

fn log(entry: &Entry<'_>) {
    let Entry { action, of, status, by, from } = *entry;
    let from = from.map(|from| from.to_canonical().to_string());
    let (from, status) = (from.as_deref(), status.as_u16());
    match by {
        Some(by) => info!(
            json.event = "api_access",
            json.action = action,
            json.of = of,
            json.status = status,
            json.by = by,
            json.from = from,
            "{action} {}by {by}: {status}",
            of.map(|of| format!("of {of} ")).unwrap_or_default()
        ),
        // Nobody's wish says what is in a log. After some wrong tokens an address gets 429, which isn't logged.
        None if status == StatusCode::UNAUTHORIZED.as_u16() => warn!(
            json.event = "api_access",
            json.action = action,
            json.status = status,
            json.from = from,
            "{action} by nobody that this node knows: {status}"
        ),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_one_of_few_words_and_names_have_the_form_of_names() {
        let intent = |method: Method, path: &str| {
            let Intent { action, of } = Intent::of(&method, path);
            (action, of)
        };
        let named = |name: &str| Some(name.to_owned());
        assert_eq!(intent(Method::PUT, "/v1/rules"), ("publish_rules", None));
        assert_eq!(intent(Method::PUT, "/v1/rules/head"), ("publish_head", None));
        assert_eq!(intent(Method::PUT, "/v1/bundles/prompts"), ("push_bundle", named("prompts")));
        assert_eq!(intent(Method::DELETE, "/v1/overrides/uk-london"), ("end_override", named("uk-london")));
        assert_eq!(intent(Method::DELETE, "/v1/overrides/uk/e1"), ("end_override", named("uk/e1")));
        assert_eq!(intent(Method::POST, "/v1/drills"), ("run_drill", None));
        assert_eq!(intent(Method::DELETE, "/v1/drills/lon"), ("end_drill", named("lon")));
        assert_eq!(intent(Method::DELETE, "/v1/drills/a%0Ab"), ("end_drill", None));
        assert_eq!(intent(Method::PUT, "/v1/drill-records/lon"), ("keep_drill_record", named("lon")));
        for odd in ["/v1/overrides/a%0Ab", "/v1/overrides/<script>", "/v1/overrides/uk/%20"] {
            assert_eq!(intent(Method::DELETE, odd), ("end_override", None), "{odd}");
        }
        assert_eq!(intent(Method::PATCH, "/v1/secret-in-a-path"), ("other", None));
    }

    /// What is written to the log while `act` runs.
    fn logged(act: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);
        impl std::io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, act);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn whoever_hangs_up_before_the_answer_is_logged_if_he_has_a_token() {
        let request = |by: Option<&str>| Unanswered {
            action: "publish_rules",
            by: by.map(str::to_owned),
            from: Some("::ffff:192.0.2.1".parse().unwrap()),
            is_answered: false,
        };
        let line = logged(|| drop(request(Some("api.token"))));
        for part in ["api_access", "publish_rules by api.token: the sender hung up", "192.0.2.1"] {
            assert!(line.contains(part) && !line.contains("ffff"), "{line}");
        }
        assert_eq!(logged(|| request(Some("api.token")).answered()), "");
        assert_eq!(logged(|| drop(request(None))), "");
    }
}
