//! Asks an endpoint which model it runs. Takes the source, returns what the list of models or the answer to a prompt
//! says. Called by the prober.

use bailiwick_rules::probe::MAX_REFUSAL;
use bailiwick_rules::release::{
    CompletionReport, Form, LONGEST_ANSWER, ModelListing, Refusal, ReleaseSource, body, completion, models,
};
use bailiwick_rules::rules::{HttpProbe, credential};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use reqwest::{Client, Method, Response, Url};

use super::model::CONNECT;
use super::{NetworkProber, client_for, failure, host_of};
use crate::state::probe::Targets;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl NetworkProber {
    /// Reads the list of models.
    pub(super) async fn list(&self, source: &ReleaseSource) -> Result<ModelListing, String> {
        let Some(url) = source.models.clone() else { return Err("there is none".to_owned()) };
        let http = HttpProbe { url, ..source.http.clone() };
        let response = self.release_request(source, &http, None).await?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(format!("answered {status}, expected 200"));
        }
        let page = whole(&http, response, LONGEST_ANSWER).await?;
        models(&page, &source.model).ok_or_else(|| "it doesn't have the model".to_owned())
    }

    /// Asks one prompt. If the endpoint refuses this form of the request, tries simpler forms. Returns the form that
    /// was accepted.
    pub(super) async fn prompt(
        &self,
        source: &ReleaseSource,
        prompt: usize,
        mut form: Form,
    ) -> Result<(CompletionReport, Form), String> {
        for _ in 0..Form::TRIES {
            let request_body = body(&source.model, prompt, form);
            let response = self.release_request(source, &source.http, Some(request_body)).await?;
            let status = response.status();
            if status.is_success() {
                let answer = whole(&source.http, response, LONGEST_ANSWER).await?;
                let report = completion(&answer).ok_or_else(|| "the answer isn't a completion".to_owned())?;
                return Ok((report, form));
            }
            let refusal = whole(&source.http, response, MAX_REFUSAL).await.unwrap_or_default();
            match form.after(status.as_u16(), &refusal) {
                Refusal::Again(next) => form = next,
                Refusal::Failed => return Err(format!("answered {}, expected a completion", status.as_u16())),
            }
        }
        Err("refused every form of the request".to_owned())
    }

    /// Sends a request, with a body or without.
    async fn release_request(
        &self,
        source: &ReleaseSource,
        http: &HttpProbe,
        body: Option<String>,
    ) -> Result<Response, String> {
        let (client, url) = self.release_client(source, http).await?;
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let mut request = client.request(method, url).header(ACCEPT, JSON);
        if let Some(host) = host_of(http) {
            request = request.header(HOST, host);
        }
        if let Some(name) = &http.secret {
            let (name, value) = credential(source.style, &self.secret(name.as_str()).await?);
            let value = HeaderValue::try_from(value)
                .map_err(|_| "the secret holds a character that can't be sent in a header".to_owned())?;
            request = request.header(HeaderName::from_static(name), value);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, JSON).body(body);
        }
        let request = request.header(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        request.send().await.map_err(|error| failure(http, error))
    }

    /// A client for the endpoint, and the URL for its requests.
    async fn release_client(&self, source: &ReleaseSource, http: &HttpProbe) -> Result<(Client, Url), String> {
        let targets = Targets::of(source.family).first().copied().unwrap_or(Targets::Any);
        if targets == Targets::Any && http.server_name().is_none() && http.ca_file.is_none() {
            return Ok((self.model_client.clone(), http.url.as_url().clone()));
        }
        let (groups, tls) = self.addresses_and_tls(http, targets).await?;
        client_for(http, tls, &groups.concat(), Some(CONNECT))
    }
}

/// A whole body. The download stops as soon as it is found to be too long.
async fn whole(http: &HttpProbe, mut response: Response, longest: usize) -> Result<Vec<u8>, String> {
    if response.headers().get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err("the answer is compressed, which wasn't asked for; let it be sent as it is".to_owned());
    }
    let mut read = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| failure(http, error))? {
        if read.len() + piece.len() > longest {
            return Err(format!("the answer is longer than {} KiB", longest >> 10));
        }
        read.extend_from_slice(&piece);
    }
    Ok(read)
}
