//! Posts to receivers of OTLP over HTTP. Takes a URL, the name of a secret and a body of JSON, returns whether the
//! receiver took it. Called by the tasks that send the aggregate and the access log.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};

use crate::state::probe::{Secrets, authorities};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long an answer may take.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// The largest answer that is read, in bytes.
const LARGEST_ANSWER: usize = 64 << 10;
/// The first and the longest pause before a body is sent again.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// For how long a body is sent again.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);

/// What became of a post.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Posted {
    /// The receiver took it, and said this, unless that was too long.
    Taken(Option<Vec<u8>>),
    /// The receiver refused it with this status. It would refuse it again.
    Refused(StatusCode),
    /// The receiver gave no answer. It may have taken it.
    NoAnswer,
    /// The receiver certainly didn't take it, and may take it later. The text says why.
    NotNow(String),
}

/// Posts to receivers. Cheap to clone.
#[derive(Clone)]
pub(super) struct Poster {
    secrets: Secrets,
    client: Client,
}

impl Poster {
    /// A poster that trusts the system's authorities. `what` is what it sends, for its name and for messages.
    ///
    /// # Errors
    /// When TLS can't be set up.
    pub(super) fn new(what: &str, secrets: Secrets) -> Result<Self, String> {
        // This fails if a provider is already installed, which does no harm.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let failed = |error: &dyn std::error::Error| format!("the {what} can't be sent over TLS: {error}");
        let tls = authorities::system().map_err(|error| failed(&error))?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(format!("bailiwick/{} ({what})", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            // A receiver may close an idle connection just when a body is sent, which would be lost without an answer.
            .pool_max_idle_per_host(0)
            .no_proxy()
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .build();
        Ok(Self { secrets, client: client.map_err(|error| failed(&error))? })
    }

    /// Posts a body once, with the secret of this name as its bearer token.
    pub(super) async fn post(&self, url: &Url, secret: Option<&str>, json: &Bytes) -> Posted {
        let content = HeaderValue::from_static("application/json");
        let mut request = self.client.post(url.clone()).header(CONTENT_TYPE, content).body(json.clone());
        if let Some(name) = secret {
            match self.secret(name).await {
                Ok(secret) => request = request.bearer_auth(secret),
                Err(why) => return Posted::NotNow(why),
            }
        }
        match request.send().await {
            Ok(response) if response.status().is_success() => Posted::Taken(answer(response).await),
            Ok(response) => of_status(response.status()),
            Err(error) if error.is_connect() => Posted::NotNow("it can't be reached".to_owned()),
            // It may have read the request, even if its answer can't be read.
            Err(_) => Posted::NoAnswer,
        }
    }

    /// The value of a secret. A disk may hang, so it is read on a blocking thread.
    async fn secret(&self, name: &str) -> Result<String, String> {
        let (secrets, name) = (self.secrets.clone(), name.to_owned());
        let read = tokio::task::spawn_blocking(move || secrets.get(&name)).await;
        read.unwrap_or_else(|error| Err(error.to_string()))
    }
}

/// The statuses after which OTLP/HTTP has a client send again: nothing was taken.
fn of_status(status: StatusCode) -> Posted {
    match status.as_u16() {
        429 | 502 | 503 | 504 => Posted::NotNow(format!("it answers {}", status.as_u16())),
        _ => Posted::Refused(status),
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
