//! Posts the aggregate to its receiver. Takes bodies from a queue, one after the other. What the receiver certainly
//! didn't take is sent again for a while; what it may have taken isn't, as it would be counted twice.

use std::sync::Arc;

use bailiwick_host::system::tasks::Ended;
use bailiwick_rules::aggregate::{Rejected, rejected};
use bailiwick_rules::rules::{Aggregate, SecretName};
use bytes::Bytes;
use reqwest::Url;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::program::api::Api;
use crate::program::metrics::{Lost, Window};
use crate::program::otlp::{self, ANSWER, PATIENCE, PAUSES, Posted};
use crate::state::probe::Secrets;

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
    posts: otlp::Poster,
}

impl Poster {
    /// A poster that trusts the system's authorities.
    ///
    /// # Errors
    /// When TLS can't be set up.
    pub(super) fn new(api: Arc<Api>, secrets: Secrets) -> Result<Self, String> {
        Ok(Self { api, posts: otlp::Poster::new("aggregate", secrets)? })
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
        match self.posts.post(&body.url, body.secret.as_deref(), &body.json).await {
            Posted::Taken(answer) => {
                if let Some(Rejected(points)) =
                    answer.as_deref().and_then(|answer| rejected(answer, "rejectedDataPoints"))
                {
                    self.api.metrics.aggregated.rejected(points);
                }
                Became::Taken
            }
            Posted::NotNow(why) => Became::Again(why),
            Posted::Refused(_) => Became::Lost(Lost::Refused),
            Posted::NoAnswer => Became::Lost(Lost::NoAnswer),
        }
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
