//! Small requests, whose answers are read as a whole: to DNS nodes and to sinks. Takes a request with limits, returns
//! the answer or the reason why there is none. Called by `runtime::feed::ask`.

use bytes::Bytes;
use hyper::Request;

use super::http::{OutgoingBody, read_at_most, reason, shared, whole};
use crate::decide::rules_state::ReadError;
use crate::platform::message::{Incoming, Outgoing};

/// Sends a request. Follows no redirect, so that no other host gets the token.
///
/// # Errors
/// The reason why there is no answer.
pub(crate) async fn fetch(outgoing: &Outgoing<'_>, headers: &[&str]) -> Result<Incoming, ReadError> {
    let limits = outgoing.limits;
    let request = request(outgoing).ok_or(ReadError::BadUrl)?;
    let fetched = async {
        let sent = shared().request(request).await;
        let response = sent.map_err(|error| reason(&error))?;
        let status = response.status().as_u16();
        let header = |name: &&str| response.headers().get(*name)?.to_str().ok().map(str::to_owned);
        let headers = headers.iter().map(header).collect();
        let is_good = limits.success.contains(&status);
        let bytes = if is_good { read_at_most(response.into_body(), limits.bytes).await? } else { Vec::new() };
        Ok(Incoming { status, headers, bytes })
    };
    // Whatever is dropped before its end is aborted.
    tokio::time::timeout(limits.timeout.to_std(), fetched).await.unwrap_or(Err(ReadError::Timeout))
}

fn request(outgoing: &Outgoing<'_>) -> Option<Request<OutgoingBody>> {
    let method = if outgoing.body.is_some() { "POST" } else { "GET" };
    let mut request = Request::builder().method(method).uri(outgoing.url);
    for (name, value) in outgoing.headers {
        request = request.header(*name, *value);
    }
    request.body(whole(Bytes::from(outgoing.body.unwrap_or_default().to_owned()))).ok()
}
