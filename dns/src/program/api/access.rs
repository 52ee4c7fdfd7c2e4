//! Logs who changes what by the API. Takes every request that isn't for reading nor from a Worker, and its response;
//! logs one event for each, and sends it to the access log's receiver. Called by the router.
//!
//! The event has these facts and no others: what was done, to which region, endpoint, bundle, drill or revision, the
//! status, the file of the token that was sent, and the sender's address. It has no token, no body and no text of the
//! sender: names are told only of what was found.

use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use bailiwick_rules::id::{BundleId, DrillId, EndpointId, RegionId};
use tracing::{info, warn};

use super::{Api, Remote, WORKER_PATHS};
use crate::program::access_log::Access;

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
    let unanswered = Unanswered {
        api: Arc::clone(&api),
        access: Some(Access { at: api.handle.now(), action, of: None, status: None, by, from }),
    };
    let response = next.run(request).await;
    let access = unanswered.answered();
    let status = response.status();
    // A name in a path that wasn't found is whatever the sender made up.
    let of =
        response.extensions().get::<Changed>().map(|Changed(of)| of.clone()).or(of.filter(|_| status.is_success()));
    tell(&api, access.map(|access| Access { at: api.handle.now(), of, status: Some(status.as_u16()), ..access }));
    response
}

/// A request that has no response yet. If it is dropped, its sender hung up; what it asked for may have been done.
struct Unanswered {
    api: Arc<Api>,
    access: Option<Access>,
}

impl Unanswered {
    /// The request has a response. Returns what is known of it.
    fn answered(mut self) -> Option<Access> {
        self.access.take()
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        tell(&self.api, self.access.take());
    }
}

/// Logs an event, and sends it to the receiver, if it is to be told.
fn tell(api: &Api, access: Option<Access>) {
    if let Some(access) = access.filter(|access| is_told(access, || api.failed_tokens.may_log(api.handle.now()))) {
        log(&access);
        api.access_log.send(access);
    }
}

/// Whether an event is told. Nobody's wish says what is in a log, so of those without a good token only wrong tokens
/// are told, as long as `may_log` is true. After some wrong tokens an address gets 429, which isn't told.
fn is_told(access: &Access, may_log: impl Fn() -> bool) -> bool {
    access.by.is_some() || (access.status == Some(StatusCode::UNAUTHORIZED.as_u16()) && may_log())
}

fn log(access: &Access) {
    let (from, sentence) = (access.from(), access.sentence());
    let Access { action, of, status, by, .. } = access;
    let (of, by, from) = (of.as_deref(), by.as_deref(), from.as_deref());
    let event = "api_access";
    match by {
        Some(_) => info!(
            json.event = event,
            json.action = *action,
            json.of = of,
            json.status = *status,
            json.by = by,
            json.from = from,
            "{sentence}"
        ),
        None => warn!(json.event = event, json.action = *action, json.status = *status, json.from = from, "{sentence}"),
    }
}

#[cfg(test)]
mod tests {
    use bailiwick_rules::time::Timestamp;

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

    fn access(by: Option<&str>, status: Option<u16>) -> Access {
        let (by, from) = (by.map(str::to_owned), Some("::ffff:192.0.2.1".parse().unwrap()));
        Access { at: Timestamp(0), action: "publish_rules", of: None, status, by, from }
    }

    #[test]
    fn a_line_has_who_what_and_from_where() {
        let line = logged(|| log(&access(Some("api.token"), None)));
        for part in ["api_access", "publish_rules by api.token: the sender hung up", "192.0.2.1", "INFO"] {
            assert!(line.contains(part) && !line.contains("ffff"), "{line}");
        }
        let line = logged(|| log(&access(None, Some(401))));
        for part in ["api_access", "publish_rules by nobody that this node knows: 401", "192.0.2.1", "WARN"] {
            assert!(line.contains(part), "{line}");
        }
    }

    #[test]
    fn only_wrong_tokens_are_told_of_those_without_a_good_one() {
        for (by, status, may_log, expected) in [
            (Some("api.token"), None, true, true),
            (Some("api.token"), Some(409), false, true),
            (None, Some(401), true, true),
            (None, Some(401), false, false),
            (None, Some(429), true, false),
            (None, Some(404), true, false),
            (None, None, true, false),
        ] {
            assert_eq!(is_told(&access(by, status), || may_log), expected, "{by:?} {status:?} {may_log}");
        }
    }
}
