//! The client for HTTP: pools of connections to endpoints, nodes and sinks. Each thread has its own. Called by the
//! exchange and by `fetch`.

use core::fmt::Write as _;
use std::error::Error;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::ConfigVerifierExt;

use crate::decide::rules_state::ReadError;

/// The body of a request that is sent.
pub(crate) type OutgoingBody = UnsyncBoxBody<Bytes, std::io::Error>;
/// A client.
pub(crate) type HttpClient = Client<HttpsConnector<HttpConnector>, OutgoingBody>;

/// How long an idle connection is kept.
const IDLE: core::time::Duration = core::time::Duration::from_secs(60);

thread_local! {
    static CLIENT: HttpClient = client();
}

/// The client of this thread.
pub(crate) fn shared() -> HttpClient {
    CLIENT.with(Clone::clone)
}

fn client() -> HttpClient {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    // Redirects are never followed, and no proxy is asked.
    let config = ClientConfig::with_platform_verifier().unwrap_or_else(|_| {
        // Without the system's authorities no certificate is good.
        ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth()
    });
    let https = HttpsConnectorBuilder::new();
    let https = https.with_tls_config(config).https_or_http().enable_http1().wrap_connector(tcp);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        // Only what was never sent: the kept connection had ended.
        .retry_canceled_requests(true)
        .build(https)
}

/// A body that is complete.
pub(crate) fn whole(bytes: Bytes) -> OutgoingBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// Reads a body as a whole.
///
/// # Errors
/// If it breaks off, or has more than so many bytes.
pub(crate) async fn read_at_most(mut body: Incoming, most: usize) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|_| ReadError::Connection)?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() > most {
            return Err(ReadError::TooLarge);
        }
    }
    Ok(bytes)
}

/// Headers as text: each name and each value on a line of its own. The values of a repeated header are joined by a
/// comma.
pub(crate) fn lines_of(headers: &HeaderMap, is_told: impl Fn(&HeaderName) -> bool) -> String {
    let mut text = String::new();
    for name in headers.keys().filter(|name| is_told(name)) {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        let _ = writeln!(text, "{name}\n{}", values.collect::<Vec<_>>().join(", "));
    }
    text
}

/// The lines of a text. `str::split` takes some ten times as long for lines as short as those of headers.
pub(crate) fn each_line(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    core::iter::from_fn(move || {
        let text = rest?;
        let (line, after) = match memchr::memchr(b'\n', text.as_bytes()) {
            Some(end) => (&text[..end], Some(&text[end + 1..])),
            None => (text, None),
        };
        rest = after;
        Some(line)
    })
}

/// The headers of such a text: name and value alternate.
pub(crate) fn of_lines<'t>(mut lines: impl Iterator<Item = &'t str>) -> impl Iterator<Item = (&'t str, &'t [u8])> {
    core::iter::from_fn(move || Some((lines.next()?, lines.next()?.as_bytes())))
}

/// Why a request failed, as one word. The text of the error is neither logged nor passed on.
pub(crate) fn reason(error: &(dyn Error + 'static)) -> ReadError {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<rustls::Error>() {
            return ReadError::Tls;
        }
        let of_system = error.downcast_ref::<std::io::Error>();
        if of_system.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused) {
            return ReadError::Refused;
        }
        if error.to_string() == "dns error" {
            return ReadError::NoAddress;
        }
        // The source of a wrapping `io::Error` is that of the error in it, which would be left out.
        next = match of_system.and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    ReadError::Connection
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_certificate_that_is_refused_is_told_however_deep_its_error_lies() {
        let refused = || rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let once = io::Error::new(io::ErrorKind::InvalidData, refused());
        let twice = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, refused()));
        assert_eq!([reason(&refused()), reason(&once), reason(&twice)], [ReadError::Tls; 3]);
        let system = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(reason(&io::Error::other(system)), ReadError::Refused);
        assert_eq!(reason(&io::Error::from(io::ErrorKind::ConnectionReset)), ReadError::Connection);
    }
}
