//! Small requests, whose answers are read as a whole: to DNS nodes and to sinks. Takes a request with limits, returns
//! the answer or the reason why there is none. Called by `runtime::feed::ask`.

use futures_util::future::{self, Either};
use futures_util::{StreamExt, pin_mut};
use worker::{AbortController, Fetch, Headers, Method, Request, RequestInit, RequestRedirect};

use super::time::sleep;
use crate::decide::rules_state::ReadError;
use crate::platform::message::{Incoming, Outgoing};

/// Sends a request. Follows no redirect, so that no other host gets the token.
///
/// # Errors
/// The reason why there is no answer.
pub(crate) async fn fetch(outgoing: &Outgoing<'_>, headers: &[&str]) -> Result<Incoming, ReadError> {
    let limits = outgoing.limits;
    let request = request(outgoing).ok_or(ReadError::BadUrl)?;
    let abort = AbortController::default();
    let signal = abort.signal();
    let fetched = async {
        let sent = Fetch::Request(request).send_with_signal(&signal).await;
        let mut response = sent.map_err(|error| of_message(&error.to_string()))?;
        let status = response.status_code();
        let header = |name: &&str| response.headers().get(name).ok().flatten();
        let headers = headers.iter().map(header).collect();
        let mut bytes = Vec::new();
        if limits.success.contains(&status)
            && let Ok(mut chunks) = response.stream()
        {
            while let Some(chunk) = chunks.next().await {
                bytes.extend_from_slice(&chunk.map_err(|_| ReadError::Connection)?);
                if bytes.len() > limits.bytes {
                    return Err(ReadError::TooLarge);
                }
            }
        }
        Ok(Incoming { status, headers, bytes })
    };
    let delay = sleep(limits.timeout);
    pin_mut!(fetched, delay);
    let read = match future::select(fetched, delay).await {
        Either::Left((read, _)) => read,
        Either::Right(_) => Err(ReadError::Timeout),
    };
    // Nothing more of the answer is read.
    if !read.as_ref().is_ok_and(|incoming| limits.success.contains(&incoming.status) || incoming.status == 304) {
        abort.abort();
    }
    read
}

fn request(outgoing: &Outgoing<'_>) -> Option<Request> {
    let headers = Headers::new();
    for (name, value) in outgoing.headers {
        headers.set(name, value).ok()?;
    }
    let mut init = RequestInit::new();
    init.with_headers(headers).with_redirect(RequestRedirect::Manual);
    if let Some(body) = outgoing.body {
        init.with_method(Method::Post).with_body(Some(body.into()));
    }
    Request::new_with_init(outgoing.url, &init).ok()
}

/// Why the runtime's `fetch` failed, by the text of its error. The text itself is neither logged nor passed on.
fn of_message(message: &str) -> ReadError {
    let message = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&["certificate", "tls", "ssl"]) {
        ReadError::Tls
    } else if says(&["refused"]) {
        ReadError::Refused
    } else if says(&["dns", "no address", "getaddrinfo", "resolve"]) {
        ReadError::NoAddress
    } else {
        ReadError::Connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_failed_fetch_is_one_word() {
        for (message, word) in [
            ("Error: TLS peer's certificate is not trusted; reason = self-signed certificate", "tls"),
            ("connect(): Connection refused", "refused"),
            ("DNS lookup failed.", "no_address"),
            ("Network connection lost.", "connection"),
            ("internal error; reference = abc", "connection"),
        ] {
            assert_eq!(of_message(message).to_string(), word, "{message}");
        }
    }
}
