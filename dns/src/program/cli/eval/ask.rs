//! Sends one case of an eval to the edge. Takes a request of the chat API, returns the answer, or why there is none.
//! Called by `bailiwick eval run`.
//!
//! If the edge refuses for now (429, 503), the request is sent again after the time in `Retry-After`; after other
//! failures it is sent again after one, two and four seconds. A refusal that would meet every case, such as a wrong
//! key, ends the run.

use std::time::{Duration, Instant};

use bailiwick_rules::rollout::Arm;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use rustls::crypto::ring;
use serde_json::Value;

use crate::text::cause::innermost;

/// The header that pins a request to a region. The edge obeys it with an operator's token.
const PIN: &str = "x-bailiwick-pin";
/// The header of the operator's token.
const OPERATOR: &str = "x-bailiwick-operator";
/// The header that says where an answer was made.
const REGION: &str = "x-bailiwick-region";
/// The header that says which arm of a rollout made it.
const ARM: &str = "x-bailiwick-arm";

/// The longest answer, in bytes.
const MAX_ANSWER: usize = 16 << 20;
/// The longest wait that `Retry-After` may ask for.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// The longest code of an error that is printed.
const MAX_CODE: usize = 60;

/// The name of a place where the edge chooses the region. No region's name begins like this.
const ANY: &str = "_any";

/// The region and the arm of a rollout to ask.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EdgeTarget<'a> {
    /// The region; `None` if the edge chooses.
    pub(super) region: Option<&'a str>,
    /// The arm of the rollout there; `None` for that of the session.
    pub(super) arm: Option<Arm>,
}

impl EdgeTarget<'_> {
    /// Its name, for a file and a table.
    pub(super) fn name(self) -> String {
        let region = self.region.unwrap_or(ANY);
        self.arm.map_or_else(|| region.to_owned(), |arm| format!("{region}.{arm}"))
    }
}

/// Where and how to ask.
pub(super) struct Edge {
    client: Client,
    url: String,
    key: Option<String>,
    operator: Option<String>,
    retries: u32,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    /// What the model said.
    pub(super) text: String,
    /// Where it was made.
    pub(super) region: Option<String>,
    /// By which arm of a rollout.
    pub(super) arm: Option<String>,
    /// The engine's `system_fingerprint`.
    pub(super) fingerprint: Option<String>,
    /// How long the last attempt took.
    pub(super) took: Duration,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Failure {
    /// The request is refused, and would be refused again. It counts as a wrong answer.
    Refused(String),
    /// Another run may get an answer.
    Unanswered(String),
    /// No case of the suite would be answered.
    Hopeless(String),
}

/// One attempt that failed.
enum Attempt {
    Failed(Failure),
    /// Ask again, after this time if the answer named one.
    Again(String, Option<Duration>),
}

impl Edge {
    /// Prepares to ask at a base URL, which ends with `/v1`.
    ///
    /// # Errors
    /// If TLS can't be set up.
    pub(super) fn new(
        base: &str,
        key: Option<String>,
        operator: Option<String>,
        (timeout, retries): (Duration, u32),
    ) -> Result<Self, String> {
        // The second to ask finds it installed, which is as good.
        let _ = ring::default_provider().install_default();
        // A redirect would send the key to another host.
        let client = Client::builder().no_proxy().redirect(Policy::none()).timeout(timeout).build();
        let client = client.map_err(|error| format!("TLS can't be set up: {error}"))?;
        let url = format!("{}/chat/completions", base.trim_end_matches('/'));
        Ok(Self { client, url, key, operator, retries })
    }

    /// Asks until there is an answer, or no hope for one. The answer has to come from the place, if it names a region.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn ask(&self, body: &Value, place: EdgeTarget<'_>) -> Result<Answer, Failure> {
        let mut tried = 0;
        loop {
            let (why, wait) = match self.attempt(body, place).await {
                Ok(answer) => return Ok(answer),
                Err(Attempt::Failed(failure)) => return Err(failure),
                Err(Attempt::Again(why, wait)) => (why, wait),
            };
            if tried >= self.retries || wait.is_some_and(|wait| wait > MAX_WAIT) {
                return Err(Failure::Unanswered(why));
            }
            let wait = wait.unwrap_or(Duration::from_secs(1 << tried.min(5)));
            tried += 1;
            tokio::time::sleep(wait).await;
        }
    }

    /// Sends a prompt to the edge once. With a region in `place`, asks the edge to use only that region, and that arm.
    async fn attempt(&self, body: &Value, place: EdgeTarget<'_>) -> Result<Answer, Attempt> {
        let mut request = self.client.post(&self.url).header("content-type", "application/json");
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        if let Some(region) = place.region {
            let arm = place.arm.map(|arm| format!(";arm={arm}")).unwrap_or_default();
            request = request.header(PIN, format!("{region}{arm}"));
            if let Some(token) = &self.operator {
                request = request.header(OPERATOR, format!("Bearer {token}"));
            }
        }
        let begun = Instant::now();
        let mut response = request.body(body.to_string()).send().await.map_err(|error| connection_failure(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| connection_failure(&error))? {
            if bytes.len() + chunk.len() > MAX_ANSWER {
                let why = format!("the answer is longer than {} MiB", MAX_ANSWER >> 20);
                return Err(Attempt::Failed(Failure::Refused(why)));
            }
            bytes.extend_from_slice(&chunk);
        }
        let whole: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status != StatusCode::OK {
            return Err(failure_of_status(status, &headers, &whole));
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let hopeless = |why| Attempt::Failed(Failure::Hopeless(why));
        if let Some(region) = place.region {
            is_from(region, text(REGION).as_deref()).map_err(hopeless)?;
        }
        if let Some(arm) = place.arm {
            is_of(arm, text(ARM).as_deref()).map_err(hopeless)?;
        }
        let message = &whole["choices"][0]["message"];
        if !message.is_object() {
            return Err(Attempt::Again("the answer is no chat completion".to_owned(), None));
        }
        Ok(Answer {
            // Null where the model refuses, or calls a tool.
            text: message["content"].as_str().unwrap_or_default().to_owned(),
            region: text(REGION),
            arm: text(ARM),
            fingerprint: whole["system_fingerprint"].as_str().map(str::to_owned),
            took: begun.elapsed(),
        })
    }
}

/// Whether an answer was made where it had to be.
fn is_from(region: &str, served_by: Option<&str>) -> Result<(), String> {
    match served_by {
        Some(served_by) if served_by == region => Ok(()),
        Some(served_by) => Err(format!(
            "{region} was asked and {served_by} answered; only an operator may choose: name the token by \
             --operator-token-file"
        )),
        None => Err(format!(
            "{region} was asked, and the answer doesn't say where it was made; is --base an edge of bailiwick? An \
             endpoint is asked without --region"
        )),
    }
}

/// Whether an answer was made by the arm that had to make it.
fn is_of(arm: Arm, served_arm: Option<&str>) -> Result<(), String> {
    match served_arm {
        Some(served_arm) if served_arm == arm.as_str() => Ok(()),
        Some(served_arm) => {
            Err(format!("the {arm} arm was asked and {served_arm:?} answered; name the operator's token"))
        }
        None => Err(format!(
            "the {arm} arm was asked, and the answer names none; has the service a rollout of this model, by the rules \
             that the edge follows?"
        )),
    }
}

fn connection_failure(error: &reqwest::Error) -> Attempt {
    let why = match error.is_timeout() {
        true => "no answer in time; --timeout gives it more".to_owned(),
        false => format!("the edge can't be reached: {}", innermost(error)),
    };
    Attempt::Again(why, None)
}

/// What a status means for this case and the others.
fn failure_of_status(status: StatusCode, headers: &HeaderMap, body: &Value) -> Attempt {
    // Only the code is printed, because a message may quote the prompt.
    let code = body["error"]["code"].as_str().or(body["error"]["type"].as_str()).unwrap_or_default();
    let code: String = code.chars().filter(|character| !character.is_control()).take(MAX_CODE).collect();
    let words = format!("status {} {code}", status.as_u16()).trim_end().to_owned();
    match status.as_u16() {
        429 | 503 => Attempt::Again(words, retry_after(headers)),
        408 | 425 | 500..=599 => Attempt::Again(words, None),
        // It names a region or an arm that isn't there: no case is to blame.
        400 if code == "invalid_pin" => Attempt::Failed(Failure::Hopeless(words)),
        400 | 413 | 422 => Attempt::Failed(Failure::Refused(words)),
        // Redirects, a wrong key, path, model or place.
        _ => Attempt::Failed(Failure::Hopeless(words)),
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_for_now_is_told_from_one_for_good() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "7".parse().expect("a value"));
        let with = |status: u16, code: &str| {
            let body = json!({ "error": { "code": code, "message": "a prompt" } });
            failure_of_status(StatusCode::from_u16(status).expect("a status"), &headers, &body)
        };
        let of = |status: u16| with(status, "some_code");
        assert!(matches!(with(400, "invalid_pin"), Attempt::Failed(Failure::Hopeless(_))), "a misspelt region");
        for status in [429, 503] {
            let Attempt::Again(why, Some(wait)) = of(status) else { panic!("{status}") };
            assert!(wait.as_secs() == 7 && why.ends_with(" some_code"), "{why}");
        }
        for status in [500, 502, 504, 408] {
            assert!(matches!(of(status), Attempt::Again(_, None)), "{status}");
        }
        for status in [400, 413, 422] {
            assert!(matches!(of(status), Attempt::Failed(Failure::Refused(_))), "{status}");
        }
        for status in [301, 401, 403, 404, 451] {
            let Attempt::Failed(Failure::Hopeless(why)) = of(status) else { panic!("{status}") };
            assert!(!why.contains("prompt"), "{why}");
        }
    }

    #[test]
    fn an_answer_from_elsewhere_is_none() {
        assert_eq!(is_from("eu-paris", Some("eu-paris")), Ok(()));
        assert!(is_from("eu-paris", Some("us-east")).is_err_and(|why| why.contains("--operator-token-file")));
        assert!(is_from("eu-paris", None).is_err_and(|why| why.contains("--base")));
        assert_eq!(is_of(Arm::New, Some("new")), Ok(()));
        assert!(is_of(Arm::New, Some("old")).is_err_and(|why| why.contains("\"old\" answered")));
        assert!(is_of(Arm::Old, None).is_err_and(|why| why.contains("has the service a rollout")));
    }
}
