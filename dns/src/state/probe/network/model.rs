//! Asks a model for a token. Takes the model probe of the rules, sends the request, and reads the answer until a token
//! appears. Returns success or the failure. Called by the prober.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bailiwick_host::system::random;
use bailiwick_rules::probe::{Answer, Finding, MAX_REFUSAL, RefusalMeaning, TokenLimit, TokenProof, body, refused};
use bailiwick_rules::rules::{ModelProbe, credential};
use futures_util::future::try_join_all;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use reqwest::{Client, Response, Url};

use super::{NetworkProber, client_for, describe_by_address, host_of, prefixed};
use crate::state::probe::failure::{TlsSettings, describe};
use crate::state::probe::{ProbeFailure, ProbeSuccess, Targets};

/// How long connecting may take. This limit is short because a slow connection means that the endpoint is down, while a
/// late token may only mean that the engine is full.
pub(super) const CONNECT: Duration = Duration::from_secs(3);
/// For how many models a raised limit is remembered.
const MAX_RAISED: usize = 4_096;

/// The token limits of models that refused a limit of one token, by URL and model.
#[derive(Debug, Default)]
pub(super) struct RaisedLimits(Mutex<HashMap<(String, String), TokenLimit>>);

impl RaisedLimits {
    /// The limit to ask a model with.
    fn of(&self, probe: &ModelProbe) -> TokenLimit {
        let raised = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        raised.get(&key(probe)).copied().unwrap_or_default()
    }

    /// Remembers the limit of a model. The default limit of one token isn't stored; it removes the model's entry.
    fn set(&self, probe: &ModelProbe, limit: TokenLimit) {
        let mut raised = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !limit.is_raised() {
            raised.remove(&key(probe));
        } else if raised.len() < MAX_RAISED || raised.contains_key(&key(probe)) {
            raised.insert(key(probe), limit);
        }
    }
}

/// The URL and the model of a probe.
fn key(probe: &ModelProbe) -> (String, String) {
    (probe.http.url.to_string(), probe.model.clone())
}

/// Where a request is sent.
struct Destination<'a> {
    client: Client,
    url: Url,
    targets: Targets,
    /// The addresses that the client connects to. Failure messages name the first one.
    addresses: &'a [SocketAddr],
}

impl NetworkProber {
    /// Asks for a token at each group of addresses.
    pub(super) async fn ask_model(&self, probe: &ModelProbe, targets: Targets) -> Result<ProbeSuccess, ProbeFailure> {
        let (http, url) = (&probe.http, probe.http.url.as_url());
        let secret = match &http.secret {
            Some(name) => Some(self.secret(name.as_str()).await.map_err(misconfigured)?),
            None => None,
        };
        let is_plain = targets == Targets::Any && http.server_name().is_none() && http.ca_file.is_none();
        if is_plain {
            let destination =
                Destination { client: self.model_client.clone(), url: url.clone(), targets, addresses: &[] };
            return self.ask_until_accepted(probe, &destination, secret.as_deref()).await;
        }
        let (groups, tls) = self.addresses_and_tls(http, targets).await?;
        let ask = async |addresses: &Vec<SocketAddr>| {
            let (client, url) = client_for(http, tls.clone(), addresses, Some(CONNECT))?;
            self.ask_until_accepted(probe, &Destination { client, url, targets, addresses }, secret.as_deref()).await
        };
        let passed = try_join_all(groups.iter().map(ask)).await?;
        Ok(passed.into_iter().find(|passed| passed.raised.is_some()).unwrap_or_default())
    }

    /// Asks for one token. If the model refuses so low a limit, asks again with a higher limit and remembers it.
    async fn ask_until_accepted(
        &self,
        probe: &ModelProbe,
        destination: &Destination<'_>,
        secret: Option<&str>,
    ) -> Result<ProbeSuccess, ProbeFailure> {
        let mut limit = self.raised.of(probe);
        // A limit can be raised twice, so there are three requests at most.
        for _ in 0..3 {
            let response = self.send(probe, destination, secret, limit).await?;
            let status = response.status().as_u16();
            let passed = ProbeSuccess { raised: Some(limit).filter(|limit| limit.is_raised()) };
            if response.status().is_success() {
                return self.read(destination, probe, response).await.map(|()| passed);
            }
            let body = if matches!(status, 400 | 422) { beginning(response).await } else { Vec::new() };
            match refused(status, &body, limit) {
                RefusalMeaning::Generated => return Ok(passed),
                RefusalMeaning::Raise(raised) => {
                    limit = raised;
                    self.raised.set(probe, limit);
                    tracing::info!(
                        json.event = "probe_raised", json.limit = %limit, model = probe.model, url = %destination.url,
                        "the model refuses a single token; it is asked with {limit} from now on"
                    );
                }
                RefusalMeaning::Found(finding) => {
                    if finding == Finding::Misconfigured && limit.is_raised() {
                        self.raised.set(probe, TokenLimit::default());
                    }
                    return Err(destination.failed(finding, format!("answered {status}, expected a token")));
                }
            }
        }
        Err(destination.failed(Finding::Misconfigured, "refused every number of tokens that was asked for".to_owned()))
    }

    /// Sends the request and returns the response's head.
    async fn send(
        &self,
        probe: &ModelProbe,
        destination: &Destination<'_>,
        secret: Option<&str>,
        limit: TokenLimit,
    ) -> Result<Response, ProbeFailure> {
        let mut request = destination.client.post(destination.url.clone());
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
            .body(body(&probe.model, limit, random::bits()));
        request.send().await.map_err(|error| destination.broken(error, probe))
    }

    /// Reads an answer until a token appears.
    async fn read(
        &self,
        destination: &Destination<'_>,
        probe: &ModelProbe,
        mut response: Response,
    ) -> Result<(), ProbeFailure> {
        let mut answer = {
            let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap_or("?"));
            Answer::new(header(CONTENT_TYPE), header(CONTENT_ENCODING))
        }
        .map_err(|error| destination.failed(error.finding(), error.to_string()))?;
        while let Some(piece) = response.chunk().await.map_err(|error| destination.broken(error, probe))? {
            match answer.push(&piece) {
                Ok(TokenProof::Token) => return Ok(()),
                Ok(TokenProof::Nothing) => {}
                Err(error) => return Err(destination.failed(error.finding(), error.to_string())),
            }
        }
        answer.finish().map_err(|error| destination.failed(error.finding(), error.to_string()))
    }
}

impl Destination<'_> {
    /// The failure if an answer arrived that doesn't prove that the model made a token.
    fn failed(&self, finding: Finding, message: String) -> ProbeFailure {
        let message = if self.targets.tested_family().is_some() { prefixed(self.addresses, &message) } else { message };
        ProbeFailure { finding, message }
    }

    /// The failure if the connection failed.
    fn broken(&self, error: reqwest::Error, probe: &ModelProbe) -> ProbeFailure {
        let name = self.url.host_str().unwrap_or_default();
        let tls_settings = TlsSettings { name, ca_file: probe.http.ca_file.as_deref() };
        let error = error.without_url();
        describe_by_address(self.targets, self.addresses, describe(&error, tls_settings), &error).into()
    }
}

/// The failure if the operator has to mend the configuration.
fn misconfigured(message: String) -> ProbeFailure {
    ProbeFailure { finding: Finding::Misconfigured, message }
}

/// The first [`MAX_REFUSAL`] bytes of a response's body; fewer if the connection breaks.
async fn beginning(mut response: Response) -> Vec<u8> {
    let mut read = Vec::new();
    while read.len() < MAX_REFUSAL
        && let Ok(Some(piece)) = response.chunk().await
    {
        read.extend_from_slice(piece.get(..MAX_REFUSAL - read.len()).unwrap_or(&piece));
    }
    read
}
