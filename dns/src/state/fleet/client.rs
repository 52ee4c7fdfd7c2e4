//! Asks the API of a peer over HTTP. Takes a path and the entity tags of what this node has, returns the body if it is
//! new. Size and time of an answer are limited. Called by [`super::peers`] and other modules of [`super`].

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bailiwick_host::system::files::{Stamp, read_text};
use bailiwick_rules::bundle::Version;
use bailiwick_rules::fleet::head::{LONGEST_HEAD, Stage};
use bailiwick_rules::id::BundleId;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::{ETAG, HeaderName, IF_NONE_MATCH};
use reqwest::{Response, StatusCode};

use super::Settings;
use crate::state::probe::authorities;
use crate::text::cause::innermost;

/// The header that carries the head of a document, as JSON in base64url.
pub(crate) const HEAD: HeaderName = HeaderName::from_static("x-bailiwick-head");

/// How long connecting to a peer may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a whole answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long the whole pack of a bundle (its files in one piece) may take.
const PACK: Duration = Duration::from_secs(120);

/// Asks peers.
#[derive(Debug)]
pub(super) struct Client {
    http: Mutex<Http>,
    ca_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
}

/// An HTTP client, and the version of the file of authorities that it trusts.
#[derive(Debug)]
struct Http {
    client: reqwest::Client,
    /// The state of the file of authorities when it was last read; `None` if the system's authorities are trusted.
    stamp: Option<Stamp>,
}

/// What a peer answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// The peer has no document for this stage.
    Nothing,
    /// The peer has one of the documents that the request named, with this head, if any.
    Same(Option<Vec<u8>>),
    /// The peer has another document.
    Other(OfferedDocument),
}

/// A document that a peer offers.
#[derive(Debug)]
pub(super) struct OfferedDocument {
    /// The document's entity tag.
    pub(super) tag: Option<String>,
    /// The document's head, if the peer has one.
    pub(super) head: Option<Vec<u8>>,
    /// The response, whose body is the document.
    body: Response,
}

impl Client {
    /// A client that trusts the configured authorities.
    pub(super) fn new(settings: &Settings) -> Result<Self, Vec<String>> {
        // This fails if a provider is already installed, which does no harm.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let ca_file = settings.peers_ca_file.clone();
        // The stamp is taken before the file is read, so that a change meanwhile is noticed.
        let stamp = ca_file.as_deref().map(Stamp::of);
        let client = trusting(ca_file.as_deref()).map_err(|error| vec![error])?;
        let http = Mutex::new(Http { client, stamp });
        Ok(Self { http, ca_file, token_file: settings.peers_token_file.clone() })
    }

    /// The HTTP client. If the file of authorities has changed, it is read again. While the file is invalid, the
    /// authorities read before stay trusted.
    fn http(&self) -> reqwest::Client {
        let mut http = self.http.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.ca_file.as_deref().map(Stamp::of);
        if http.stamp != stamp {
            http.stamp = stamp;
            match trusting(self.ca_file.as_deref()) {
                Ok(client) => http.client = client,
                Err(error) => tracing::error!("{error}; the authorities before stay trusted"),
            }
        }
        http.client.clone()
    }

    /// Asks for the newest rules for nodes of a stage, unless they are one of the documents with these entity tags.
    pub(super) async fn rules(&self, peer: &str, stage: Stage, tags: &[String]) -> Result<Answer, String> {
        let response = self.get(peer, &format!("/v1/rules?stage={stage}"), &tags.join(", ")).await?;
        let header = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
        let tag = header(ETAG).map(str::to_owned);
        let head = header(HEAD).filter(|value| value.len() <= LONGEST_HEAD * 2);
        let head = head.and_then(|value| URL_SAFE_NO_PAD.decode(value).ok());
        match response.status() {
            StatusCode::NO_CONTENT => Ok(Answer::Nothing),
            StatusCode::NOT_MODIFIED => Ok(Answer::Same(head)),
            StatusCode::OK => Ok(Answer::Other(OfferedDocument { tag, head, body: response })),
            status => Err(refused(status)),
        }
    }

    /// Asks for a document of JSON of at most `most` bytes.
    pub(super) async fn json(&self, peer: &str, path: &str, most: usize) -> Result<Vec<u8>, String> {
        let response = self.get(peer, path, "").await?;
        match response.status() {
            StatusCode::OK => read(response, most, ANSWER).await,
            status => Err(refused(status)),
        }
    }

    /// Asks for the pack of a bundle's version, of at most `most` bytes.
    pub(super) async fn pack(
        &self,
        peer: &str,
        name: &BundleId,
        version: Version,
        most: usize,
    ) -> Result<Vec<u8>, String> {
        let path = format!("/v1/bundles/{name}?version={version}&as=pack");
        let response = self.get_within(peer, &path, "", PACK).await?;
        match response.status() {
            StatusCode::OK => read(response, most, PACK).await,
            StatusCode::NOT_FOUND => Err("it doesn't have it".to_owned()),
            status => Err(refused(status)),
        }
    }

    async fn get(&self, peer: &str, path: &str, tags: &str) -> Result<Response, String> {
        self.get_within(peer, path, tags, ANSWER).await
    }

    /// Sends a GET request to a peer, with the token for peers.
    async fn get_within(&self, peer: &str, path: &str, tags: &str, patience: Duration) -> Result<Response, String> {
        let mut request = self.http().get(format!("{peer}{path}")).timeout(patience);
        if !tags.is_empty() {
            request = request.header(IF_NONE_MATCH, tags);
        }
        if let Some(file) = self.token_file.clone() {
            // The token is read for each request, so that a new token needs no restart. A disk may hang, so a blocking
            // thread reads it.
            let read = tokio::task::spawn_blocking(move || read_text(&file)).await;
            let text = read.map_err(|error| error.to_string())?;
            let text = text.map_err(|error| format!("peers_token_file can't be read ({error})"))?;
            request = request.bearer_auth(text.lines().next().unwrap_or_default().trim());
        }
        request.send().await.map_err(|error| why(&error, patience))
    }
}

/// A client that trusts the authorities of a file, or the system's.
fn trusting(ca_file: Option<&Path>) -> Result<reqwest::Client, String> {
    let tls = match ca_file {
        Some(file) => authorities::read(file).map_err(|fault| fault.to_string())?,
        None => authorities::system().map_err(|error| format!("peers can't be asked over TLS: {error}"))?,
    };
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("bailiwick/", env!("CARGO_PKG_VERSION"), " (peer)"))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT)
        .timeout(ANSWER);
    client.build().map_err(|error| format!("peers can't be asked over TLS: {error}"))
}

impl OfferedDocument {
    /// The document's bytes. If there are more than `most`, reading stops after the chunk that exceeds the limit, and
    /// the caller sees that there are too many.
    pub(super) async fn bytes(self, most: usize) -> Result<Vec<u8>, String> {
        read(self.body, most, ANSWER).await
    }
}

/// Reads a body up to one chunk more than `most` bytes.
async fn read(mut response: Response, most: usize, patience: Duration) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| why(&error, patience))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > most {
            break;
        }
    }
    Ok(bytes)
}

/// The message about an unexpected status.
fn refused(status: StatusCode) -> String {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            format!("it answers {status}; send a token that may read there by [fleet] peers_token_file")
        }
        _ => format!("it answers {status}; is it bailiwick's API?"),
    }
}

/// The innermost cause, without the URL.
fn why(error: &reqwest::Error, patience: Duration) -> String {
    match error.is_timeout() {
        true => format!("no whole answer within {} s", patience.as_secs()),
        false => innermost(error).to_string(),
    }
}
