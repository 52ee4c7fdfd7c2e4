//! Asks the API of a peer over HTTP. Takes a path and what this node has, returns the body if it is new, within bounds
//! of size and time. Called by [`super::peers`].

use std::path::PathBuf;
use std::time::Duration;

use bailiwick_rules::fleet::head::LONGEST_HEAD;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::{ETAG, HeaderName, IF_NONE_MATCH};
use reqwest::{Response, StatusCode};

use super::Settings;
use crate::state::probe::authorities;
use crate::system::files::read_text;
use crate::text::cause::innermost;

/// The header that carries the head of a document, as JSON in base64url.
pub(crate) const HEAD: HeaderName = HeaderName::from_static("x-bailiwick-head");

/// How long a connection to a peer may take to come about.
const CONNECT: Duration = Duration::from_secs(3);
/// How long all of an answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Asks peers.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    token_file: Option<PathBuf>,
}

/// What a peer answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// It has what was named.
    Same,
    /// It has another document.
    Other(Offered),
}

/// A document that a peer offers.
#[derive(Debug)]
pub(super) struct Offered {
    /// Its entity tag.
    pub(super) tag: Option<String>,
    /// Its head, if the peer has one.
    pub(super) head: Option<Vec<u8>>,
    /// Its bytes, to be read.
    body: Response,
}

impl Client {
    /// A client that trusts the configured authorities.
    pub(super) fn new(settings: &Settings) -> Result<Self, Vec<String>> {
        // This fails if a provider is already installed, which does no harm.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tls = match &settings.peers_ca_file {
            Some(file) => authorities::read(file).map_err(|fault| vec![fault.to_string()])?,
            None => authorities::system().map_err(|error| vec![format!("peers can't be asked over TLS: {error}")])?,
        };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("bailiwick/", env!("CARGO_PKG_VERSION"), " (peer)"))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .timeout(ANSWER);
        let http = client.build().map_err(|error| vec![format!("peers can't be asked over TLS: {error}")])?;
        Ok(Self { http, token_file: settings.peers_token_file.clone() })
    }

    /// Asks for the rules, unless the peer has one of the documents with these entity tags.
    pub(super) async fn rules(&self, peer: &str, tags: &[String]) -> Result<Answer, String> {
        let response = self.get(peer, "/v1/rules", &tags.join(", ")).await?;
        let header = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
        let tag = header(ETAG).map(str::to_owned);
        match response.status() {
            StatusCode::NOT_MODIFIED => Ok(Answer::Same),
            StatusCode::OK => {
                let head = header(HEAD).filter(|value| value.len() <= LONGEST_HEAD * 2);
                let head = head.and_then(|value| URL_SAFE_NO_PAD.decode(value).ok());
                Ok(Answer::Other(Offered { tag, head, body: response }))
            }
            status => Err(refused(status)),
        }
    }

    /// Asks for a document of JSON of at most `most` bytes.
    pub(super) async fn json(&self, peer: &str, path: &str, most: usize) -> Result<Vec<u8>, String> {
        let response = self.get(peer, path, "").await?;
        match response.status() {
            StatusCode::OK => read(response, most).await,
            status => Err(refused(status)),
        }
    }

    async fn get(&self, peer: &str, path: &str, tags: &str) -> Result<Response, String> {
        let mut request = self.http.get(format!("{peer}{path}"));
        if !tags.is_empty() {
            request = request.header(IF_NONE_MATCH, tags);
        }
        if let Some(file) = self.token_file.clone() {
            // It is read each time, so that a new token needs no restart; a disk may hang.
            let read = tokio::task::spawn_blocking(move || read_text(&file)).await;
            let text = read.map_err(|error| error.to_string())?;
            let text = text.map_err(|error| format!("peers_token_file can't be read ({error})"))?;
            request = request.bearer_auth(text.lines().next().unwrap_or_default().trim());
        }
        request.send().await.map_err(|error| why(&error))
    }
}

impl Offered {
    /// Its bytes, of which there may be `most`. One more is read at most.
    pub(super) async fn bytes(self, most: usize) -> Result<Vec<u8>, String> {
        read(self.body, most).await
    }
}

/// Reads a body up to one chunk more than `most` bytes.
async fn read(mut response: Response, most: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| why(&error))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > most {
            break;
        }
    }
    Ok(bytes)
}

fn refused(status: StatusCode) -> String {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            format!("it answers {status}; send a token that may read there by [fleet] peers_token_file")
        }
        _ => format!("it answers {status}; is it bailiwick's API?"),
    }
}

/// The innermost cause, without the URL.
fn why(error: &reqwest::Error) -> String {
    match error.is_timeout() {
        true => format!("no whole answer within {} s", ANSWER.as_secs()),
        false => innermost(error).to_string(),
    }
}
