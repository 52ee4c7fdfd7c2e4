//! The client for HTTP: pools of connections to endpoints, nodes and sinks. Each thread has its own. Called by the
//! exchange and by `fetch`.

use std::error::Error;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
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
        .retry_canceled_requests(false)
        .build(https)
}

/// A body that is complete.
pub(crate) fn whole(bytes: Bytes) -> OutgoingBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// Why a request failed, as one word. The text of the error is neither logged nor passed on.
pub(crate) fn reason(error: &(dyn Error + 'static)) -> ReadError {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<rustls::Error>() {
            return ReadError::Tls;
        }
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            if error.kind() == std::io::ErrorKind::ConnectionRefused {
                return ReadError::Refused;
            }
            if let Some(inner) = error.get_ref()
                && inner.is::<rustls::Error>()
            {
                return ReadError::Tls;
            }
        }
        if error.to_string() == "dns error" {
            return ReadError::NoAddress;
        }
        next = error.source();
    }
    ReadError::Connection
}
