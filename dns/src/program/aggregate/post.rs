//! Posts the aggregate to its receiver. Takes bodies from a queue, one after the other. What the receiver certainly
//! didn't take is sent again for a while; what it may have taken isn't, as it would be counted twice.

use std::sync::Arc;
use std::time::Duration;

use bailiwick_rules::aggregate::{Rejected, rejected};
use bailiwick_rules::rules::{Aggregate, SecretName};
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::program::api::Api;
use crate::program::metrics::{Lost, Window};
use crate::state::probe::{Secrets, authorities};
use crate::system::tasks::Ended;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// The largest answer that is read, in bytes.
const LARGEST_ANSWER: usize = 64 << 10;
/// The first and the longest pause before a body is sent again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// For how long a body is sent again.
const PATIENCE: Duration = Duration::from_secs(600);

/// One request to the receiver.
#[derive(Debug)]
pub(super) struct Body {
    url: Url,
    /// The name of the secret that is sent along.
    secret: Option<String>,
    json: Bytes,
    /// How many requests of clients it tells.
    requests: u64,
}

impl Body {
    /// A body for the receiver of these rules.
    pub(super) fn new(rule: &Aggregate, json: Bytes, requests: u64) -> Self {
        let secret = rule.secret.as_ref().map(|name| name.as_str().to_owned());
        Self { url: rule.otlp.as_url().clone(), secret, json, requests }
    }

    /// Whether the rules still have its receiver and its secret.
    fn is_for(&self, rule: &Aggregate) -> bool {
        *rule.otlp.as_url() == self.url && rule.secret.as_ref().map(SecretName::as_str) == self.secret.as_deref()
    }
}

/// What became of one attempt.
#[derive(Debug, PartialEq, Eq)]
enum Became {
    Taken,
    Lost(Lost),
    /// It was certainly not taken, and may be sent again.
    Again(String),
}

/// Posts.
#[derive(Clone)]
pub(super) struct Poster {
    api: Arc<Api>,
    secrets: Secrets,
    client: Client,
}

impl Poster {
    /// A poster that trusts the system's authorities.
    ///
    /// # Errors
    /// When TLS can't be set up.
    pub(super) fn new(api: Arc<Api>, secrets: Secrets) -> Result<Self, String> {
        // This fails if a provider is already installed, which does no harm.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let failed = |error: &dyn std::error::Error| format!("the aggregate can't be sent over TLS: {error}");
        let tls = authorities::system().map_err(|error| failed(&error))?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("bailiwick/", env!("CARGO_PKG_VERSION"), " (aggregate)"))
            .redirect(reqwest::redirect::Policy::none())
            // A receiver may close an idle connection just when a body is sent, which would be lost without an answer.
            .pool_max_idle_per_host(0)
            .no_proxy()
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .build();
        Ok(Self { api, secrets, client: client.map_err(|error| failed(&error))? })
    }

    /// Posts each body of the queue.
    pub(super) async fn run(self, queue: &mut mpsc::Receiver<Body>, beat: impl Fn()) -> Ended {
        loop {
            beat();
            // While nothing is to be sent, the task is alive nevertheless.
            match tokio::time::timeout(ANSWER, queue.recv()).await {
                Ok(Some(body)) => {
                    self.post(&body, &beat).await;
                    self.api.metrics.aggregated.unqueued();
                }
                Ok(None) => return Ended::OnRequest,
                Err(_) => {}
            }
        }
    }

    /// Posts a body until it is taken or lost.
    async fn post(&self, body: &Body, beat: &impl Fn()) {
        let (begun, mut pause) = (Instant::now(), PAUSES.0);
        loop {
            beat();
            let snapshot = self.api.handle.snapshot_owned();
            if !snapshot.table().aggregate().is_some_and(|rule| body.is_for(rule)) {
                // Whether that receiver takes anything doesn't matter any more.
                self.api.metrics.aggregated.set_failing(false);
                return self.api.metrics.aggregated.lost(Lost::Withdrawn, body.requests);
            }
            let lost = match self.attempt(body).await {
                Became::Taken => {
                    self.api.metrics.aggregated.window(Window::Sent);
                    return self.note(None);
                }
                Became::Again(why) if begun.elapsed() < PATIENCE => {
                    self.note(Some(&why));
                    sleep(pause).await;
                    pause = pause.saturating_mul(2).min(PAUSES.1);
                    continue;
                }
                Became::Again(_) => Lost::Unreachable,
                Became::Lost(why) => why,
            };
            self.note(Some(lost.as_str()));
            return self.api.metrics.aggregated.lost(lost, body.requests);
        }
    }

    async fn attempt(&self, body: &Body) -> Became {
        let json = HeaderValue::from_static("application/json");
        let mut request = self.client.post(body.url.clone()).header(CONTENT_TYPE, json).body(body.json.clone());
        if let Some(name) = &body.secret {
            match self.secret(name).await {
                Ok(secret) => request = request.bearer_auth(secret),
                Err(why) => return Became::Again(why),
            }
        }
        match request.send().await {
            Ok(response) if response.status().is_success() => {
                if let Some(Rejected(points)) = answer(response).await.as_deref().and_then(rejected) {
                    self.api.metrics.aggregated.rejected(points);
                }
                Became::Taken
            }
            Ok(response) => of_status(response.status()),
            Err(error) if error.is_connect() => Became::Again("it can't be reached".to_owned()),
            // It may have read the request, even if its answer can't be read.
            Err(_) => Became::Lost(Lost::NoAnswer),
        }
    }

    /// The value of a secret. A disk may hang, so it is read on a blocking thread.
    async fn secret(&self, name: &str) -> Result<String, String> {
        let (secrets, name) = (self.secrets.clone(), name.to_owned());
        let read = tokio::task::spawn_blocking(move || secrets.get(&name)).await;
        read.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Logs when the receiver begins or ceases to take what is sent. What it answers isn't logged.
    fn note(&self, failed: Option<&str>) {
        if !self.api.metrics.aggregated.set_failing(failed.is_some()) {
            return;
        }
        match failed {
            Some(reason) => {
                warn!(json.event = "aggregate_not_taken", reason, "the receiver doesn't take the aggregate");
            }
            None => info!(json.event = "aggregate_taken", "the receiver takes the aggregate again"),
        }
    }
}

/// The statuses after which OTLP/HTTP has a client send again: nothing was taken.
fn of_status(status: StatusCode) -> Became {
    match status.as_u16() {
        429 | 502 | 503 | 504 => Became::Again(format!("it answers {}", status.as_u16())),
        _ => Became::Lost(Lost::Refused),
    }
}

/// The body of an answer, if it is short enough and comes in time.
async fn answer(mut response: Response) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > LARGEST_ANSWER {
            return None;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use bailiwick_rules::table::Table;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_is_for_the_receiver_that_it_was_made_for_and_no_other() {
        let table = |url: &str, secret: Option<&str>| {
            let mut rules = json!({ "version": 1, "revision": 1, "jurisdictions": { "eu": { "include": ["EU"] } },
                                    "regions": {}, "aggregate": { "otlp": url } });
            if let Some(name) = secret {
                rules["aggregate"]["secret"] = json!(name);
            }
            Table::compile(rules.to_string().as_bytes()).unwrap()
        };
        let (one, other) = ("https://one.example/v1/metrics", "https://other.example/v1/metrics");
        let of = table(one, Some("A"));
        let body = Body::new(of.aggregate().unwrap(), Bytes::new(), 20);
        for (url, secret, expected) in
            [(one, Some("A"), true), (one, Some("B"), false), (one, None, false), (other, Some("A"), false)]
        {
            let now = table(url, secret);
            assert_eq!(body.is_for(now.aggregate().unwrap()), expected, "{url} {secret:?}");
        }
    }
}
