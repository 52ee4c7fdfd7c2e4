//! Asks a model for a token. Takes what the rules say of it, sends the request, and reads as much of the answer as it
//! takes to see a token. Called by the prober.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bailiwick_rules::probe::{Answer, Finding, MAX_REFUSAL, Refused, Seen, TokenLimit, body, refused};
use bailiwick_rules::rules::{ModelProbe, credential};
use futures_util::future::try_join_all;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use reqwest::{Client, Response, Url};

use super::{NetworkProber, client_for, describe_by_address, host_of, prefixed};
use crate::state::probe::failure::{Asked, describe};
use crate::state::probe::model::random;
use crate::state::probe::{Passed, ProbeFailure, Targets};

/// How long a connection may take. One that takes longer is no sign of a full engine, as a late token may be.
pub(super) const CONNECT: Duration = Duration::from_secs(3);
/// How many models' limits are remembered.
const MAX_RAISED: usize = 4_096;

/// What models refused, by URL and model: they are asked for more tokens from then on.
#[derive(Debug, Default)]
pub(super) struct Raised(Mutex<HashMap<(String, String), TokenLimit>>);

impl Raised {
    fn of(&self, probe: &ModelProbe) -> TokenLimit {
        let raised = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        raised.get(&key(probe)).copied().unwrap_or_default()
    }

    /// Remembers a limit. The first one is remembered by forgetting another.
    fn set(&self, probe: &ModelProbe, limit: TokenLimit) {
        let mut raised = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !limit.is_raised() {
            raised.remove(&key(probe));
        } else if raised.len() < MAX_RAISED || raised.contains_key(&key(probe)) {
            raised.insert(key(probe), limit);
        }
    }
}

fn key(probe: &ModelProbe) -> (String, String) {
    (probe.http.url.to_string(), probe.model.clone())
}

/// Whom a request goes to, and what its failures are called by.
struct Way<'a> {
    client: Client,
    url: Url,
    targets: Targets,
    by: &'a [SocketAddr],
}

impl NetworkProber {
    /// Asks for a token at each group of addresses.
    pub(super) async fn ask_model(&self, probe: &ModelProbe, targets: Targets) -> Result<Passed, ProbeFailure> {
        let (http, url) = (&probe.http, probe.http.url.as_url());
        let secret = match &http.secret {
            Some(name) => Some(self.secret(name.as_str()).await.map_err(misconfigured)?),
            None => None,
        };
        let is_plain = targets == Targets::Any && http.server_name().is_none() && http.ca_file.is_none();
        if is_plain {
            let way = Way { client: self.asking.clone(), url: url.clone(), targets, by: &[] };
            return self.ask_until_taken(probe, &way, secret.as_deref()).await;
        }
        let (groups, tls) = self.ways(http, targets).await?;
        let ask = async |some: &Vec<SocketAddr>| {
            let (client, url) = client_for(http, tls.clone(), some, Some(CONNECT))?;
            self.ask_until_taken(probe, &Way { client, url, targets, by: some }, secret.as_deref()).await
        };
        let passed = try_join_all(groups.iter().map(ask)).await?;
        Ok(passed.into_iter().find(|one| one.raised.is_some()).unwrap_or_default())
    }

    /// Asks for one token, or for as many as the model wants at least. What it wants is remembered.
    async fn ask_until_taken(
        &self,
        probe: &ModelProbe,
        way: &Way<'_>,
        secret: Option<&str>,
    ) -> Result<Passed, ProbeFailure> {
        let mut limit = self.raised.of(probe);
        // A limit is raised twice at most, and one that was remembered may have to be forgotten first.
        for _ in 0..3 {
            let response = self.send(probe, way, secret, limit).await?;
            let status = response.status().as_u16();
            let passed = Passed { raised: Some(limit).filter(|limit| limit.is_raised()) };
            if response.status().is_success() {
                return self.read(way, probe, response).await.map(|()| passed);
            }
            let words = if matches!(status, 400 | 422) { beginning(response).await } else { Vec::new() };
            match refused(status, &words, limit) {
                Refused::Generated => return Ok(passed),
                Refused::Raise(raised) => {
                    limit = raised;
                    self.raised.set(probe, limit);
                    tracing::info!(
                        json.event = "probe_raised", json.limit = %limit, model = probe.model, url = %way.url,
                        "the model refuses a single token; it is asked with {limit} from now on"
                    );
                }
                Refused::Found(finding) => {
                    if finding == Finding::Misconfigured && limit.is_raised() {
                        self.raised.set(probe, TokenLimit::default());
                    }
                    return Err(way.failed(finding, format!("answered {status}, expected a token")));
                }
            }
        }
        Err(way.failed(Finding::Misconfigured, "refused every number of tokens that was asked for".to_owned()))
    }

    async fn send(
        &self,
        probe: &ModelProbe,
        way: &Way<'_>,
        secret: Option<&str>,
        limit: TokenLimit,
    ) -> Result<Response, ProbeFailure> {
        let mut request = way.client.post(way.url.clone());
        if let Some(host) = host_of(&probe.http) {
            request = request.header(HOST, host);
        }
        if let Some(secret) = secret {
            let (name, value) = credential(probe.style, secret);
            let value = HeaderValue::try_from(value)
                .map_err(|_| misconfigured("the secret holds a character that can't be sent in a header".to_owned()))?;
            request = request.header(HeaderName::from_static(name), value);
        }
        request = request
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(ACCEPT, HeaderValue::from_static("text/event-stream, application/json"))
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
            .body(body(&probe.model, limit, random()));
        request.send().await.map_err(|error| way.broken(error, probe))
    }

    /// Reads an answer until it shows a token.
    async fn read(&self, way: &Way<'_>, probe: &ModelProbe, mut response: Response) -> Result<(), ProbeFailure> {
        let mut answer = {
            let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap_or("?"));
            Answer::new(header(CONTENT_TYPE), header(CONTENT_ENCODING))
        }
        .map_err(|error| way.failed(error.finding(), error.to_string()))?;
        while let Some(piece) = response.chunk().await.map_err(|error| way.broken(error, probe))? {
            match answer.push(&piece) {
                Ok(Seen::Token) => return Ok(()),
                Ok(Seen::Nothing) => {}
                Err(error) => return Err(way.failed(error.finding(), error.to_string())),
            }
        }
        answer.finish().map_err(|error| way.failed(error.finding(), error.to_string()))
    }
}

impl Way<'_> {
    fn failed(&self, finding: Finding, message: String) -> ProbeFailure {
        let message = if self.targets.tested_family().is_some() { prefixed(self.by, &message) } else { message };
        ProbeFailure { finding, message }
    }

    fn broken(&self, error: reqwest::Error, probe: &ModelProbe) -> ProbeFailure {
        let name = self.url.host_str().unwrap_or_default();
        let asked = Asked { name, ca_file: probe.http.ca_file.as_deref() };
        let error = error.without_url();
        describe_by_address(self.targets, self.by, describe(&error, asked), &error).into()
    }
}

fn misconfigured(message: String) -> ProbeFailure {
    ProbeFailure { finding: Finding::Misconfigured, message }
}

/// The beginning of a refusal's body, as far as it can be read.
async fn beginning(mut response: Response) -> Vec<u8> {
    let mut read = Vec::new();
    while read.len() < MAX_REFUSAL
        && let Ok(Some(piece)) = response.chunk().await
    {
        read.extend_from_slice(piece.get(..MAX_REFUSAL - read.len()).unwrap_or(&piece));
    }
    read
}
