//! Small requests, whose answers are read as a whole: to DNS nodes and to sinks. Takes a request with limits, returns
//! the answer or the reason why there is none. Called by `runtime::feed::ask`.

use bailiwick_rules::time::Millis;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Request;

use super::http::{OutgoingBody, reason, shared, whole};
use crate::decide::rules_state::ReadError;

/// A request.
pub(crate) struct Outgoing<'a> {
    pub(crate) url: &'a str,
    /// Names and values of headers.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// The body of a POST. Without one, the request is a GET.
    pub(crate) body: Option<&'a str>,
    /// How long the answer may take, with its body.
    pub(crate) timeout: Millis,
    /// The most bytes of the answer's body.
    pub(crate) most_bytes: usize,
}

/// An answer.
pub(crate) struct Incoming {
    pub(crate) status: u16,
    /// The values of the headers that were wanted.
    pub(crate) headers: Vec<Option<String>>,
    /// The body; empty if `is_wanted` didn't want it.
    pub(crate) bytes: Vec<u8>,
}

/// Sends a request. Follows no redirect, so that no other host gets the token. The body is read if the status
/// `is_wanted`.
///
/// # Errors
/// The reason why there is no answer.
pub(crate) async fn fetch(
    outgoing: &Outgoing<'_>,
    headers: &[&str],
    is_wanted: impl Fn(u16) -> bool,
) -> Result<Incoming, ReadError> {
    let request = request(outgoing).ok_or(ReadError::BadUrl)?;
    let fetched = async {
        let sent = shared().request(request).await;
        let response = sent.map_err(|error| reason(&error))?;
        let status = response.status().as_u16();
        let header = |name: &&str| response.headers().get(*name)?.to_str().ok().map(str::to_owned);
        let headers = headers.iter().map(header).collect();
        let (mut bytes, mut body) = (Vec::new(), response.into_body());
        while is_wanted(status)
            && let Some(frame) = body.frame().await
        {
            if let Ok(data) = frame.map_err(|_| ReadError::Connection)?.into_data() {
                bytes.extend_from_slice(&data);
            }
            if bytes.len() > outgoing.most_bytes {
                return Err(ReadError::TooLarge);
            }
        }
        Ok(Incoming { status, headers, bytes })
    };
    // Whatever is dropped before its end is aborted.
    tokio::time::timeout(outgoing.timeout.to_std(), fetched).await.unwrap_or(Err(ReadError::Timeout))
}

fn request(outgoing: &Outgoing<'_>) -> Option<Request<OutgoingBody>> {
    let method = if outgoing.body.is_some() { "POST" } else { "GET" };
    let mut request = Request::builder().method(method).uri(outgoing.url);
    for (name, value) in outgoing.headers {
        request = request.header(*name, *value);
    }
    request.body(whole(Bytes::from(outgoing.body.unwrap_or_default().to_owned()))).ok()
}
