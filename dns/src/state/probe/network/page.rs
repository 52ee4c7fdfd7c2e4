//! Fetches a metrics page. Takes a load source, returns the reading of its page or an error message. Called by the
//! prober.

use bailiwick_rules::load::{EnginePage, EngineReading};
use bailiwick_rules::rules::LoadSource;
use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};

use super::{NetworkProber, failure};

/// The formats that the reader of pages understands.
pub(super) const ACCEPT: HeaderValue =
    HeaderValue::from_static("text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.5");

impl NetworkProber {
    /// Fetches and reads the page of a source. The download stops as soon as the page is found to be invalid or too
    /// long.
    pub(super) async fn page(&self, source: &LoadSource) -> Result<EngineReading, String> {
        let mut response = self.fetch(&source.http, ACCEPT).await?;
        let mut page = page_for(source, &response)?;
        while let Some(piece) = response.chunk().await.map_err(|error| failure(&source.http, error))? {
            page.push(&piece).map_err(|error| error.to_string())?;
        }
        let reading = page.finish(is_open_metrics(&response)).map_err(|error| error.to_string())?;
        match reading.load(Some(1)) {
            Some(_) => Ok(reading),
            None => Err(format!(
                "the page has no series of {}; look at \"type\" and \"url\", and whether the engine writes metrics",
                source.engine.as_str()
            )),
        }
    }
}

/// A reader for the page in a response, whose status and headers are checked.
fn page_for(source: &LoadSource, response: &Response) -> Result<EnginePage, String> {
    let status = response.status().as_u16();
    if status != 200 {
        return Err(format!("answered {status}, expected 200"));
    }
    match header(response, &CONTENT_ENCODING) {
        None | Some("identity") => Ok(EnginePage::new(&source.engine)),
        Some(_) => Err("the page is compressed, which wasn't asked for; let the endpoint send it as it is".to_owned()),
    }
}

/// Whether the response declares OpenMetrics.
fn is_open_metrics(response: &Response) -> bool {
    header(response, &CONTENT_TYPE).is_some_and(|kind| kind.trim_start().starts_with("application/openmetrics-text"))
}

/// The value of a header, if it is text.
fn header<'r>(response: &'r Response, name: &reqwest::header::HeaderName) -> Option<&'r str> {
    response.headers().get(name)?.to_str().ok()
}
