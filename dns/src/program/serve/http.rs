//! The API's socket. Takes the configuration of the API, returns a bound listener with tokens and certificate, which
//! then serves the API. Owned by [`super::serve`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bailiwick_host::certificate::Certificate;
use bailiwick_host::sockets::inherited::{HandedSocket, Inherited, Role};
use bailiwick_host::system::file_reload::Renew;
use bailiwick_host::system::tasks::{Ended, supervise};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tracing::warn;

use super::strings;
use crate::net::listeners::{Absent, bind_api};
use crate::program::access_log::AccessLog;
use crate::program::api::failed_tokens::FailedTokens;
use crate::program::api::tls::{PROTOCOLS, TlsListener};
use crate::program::api::token::{Tokens, warnings};
use crate::program::api::{self, Api};
use crate::program::config::{self, Fleet};
use crate::program::metrics::Metrics;
use crate::program::picture::Picture;
use crate::state::bundles::Bundles;
use crate::state::owner::Handle;
use crate::state::probe::Secrets;

/// How long the server waits at its end for requests in progress, and after that for the access log's receiver.
const DRAIN: Duration = Duration::from_secs(1);

/// The API's bound socket.
pub(super) struct Http {
    listener: std::net::TcpListener,
    address: SocketAddr,
    tokens: Tokens,
    certificate: Option<Arc<Certificate>>,
    tls: Option<TlsAcceptor>,
    access_log: Option<config::AccessLog>,
}

/// The API as it runs.
pub(super) struct ServedHttp {
    pub(super) address: SocketAddr,
    pub(super) api: Arc<Api>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) task: tokio::task::JoinHandle<()>,
}

impl Http {
    /// Binds the address, unless a socket for it is among the inherited ones.
    pub(super) fn bind(config: &config::Api, inherited: &mut Inherited) -> Result<Self, Vec<String>> {
        let tokens = Tokens::of(config);
        let bound = bind_api(config.listen, inherited).map_err(|error| error.to_string());
        let bound =
            bound.and_then(|listener| Ok((listener.local_addr().map_err(|error| error.to_string())?, listener)));
        for warning in config.token_files().flat_map(warnings) {
            warn!("{warning}");
        }
        let certificate = config.tls.as_ref().map(Certificate::read).transpose();
        match (tokens, certificate, bound) {
            (Ok(tokens), Ok(certificate), Ok((address, listener))) => {
                let tls = certificate.as_ref().map(|certificate| certificate.acceptor(PROTOCOLS)).transpose();
                let tls = tls.map_err(|error| vec![format!("the API can't speak TLS: {error}")])?;
                Ok(Self { listener, address, tokens, certificate, tls, access_log: config.access_log.clone() })
            }
            (tokens, certificate, bound) => {
                let faults = tokens.err().into_iter().flatten().chain(certificate.err().into_iter().flatten());
                Err(strings(faults).into_iter().chain(bound.err()).collect())
            }
        }
    }

    /// The tokens and the certificate, which change with their files while the API runs.
    pub(super) fn renewed(&self) -> impl Iterator<Item = Arc<dyn Renew>> {
        let tokens = self.tokens.all().cloned().map(|token| token as Arc<dyn Renew>);
        tokens.chain(self.certificate.clone().map(|certificate| certificate as Arc<dyn Renew>))
    }

    /// The address that the socket is bound to.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A copy of the socket, for a process that takes over.
    pub(super) fn copy(&self) -> io::Result<HandedSocket> {
        HandedSocket::copy(Role::Api, &self.listener)
    }

    /// Starts to serve the API.
    ///
    /// # Errors
    /// When the access log can't be sent.
    pub(super) fn serve(
        self,
        (handle, bundles, secrets): (Handle, Bundles, Secrets),
        metrics: Arc<Metrics>,
        node: String,
        fleet: Arc<Fleet>,
        is_handing_over: Arc<AtomicBool>,
        absent: Arc<Absent>,
    ) -> Result<ServedHttp, String> {
        let access_log = self
            .access_log
            .map(|settings| AccessLog::start(&settings, &node, secrets, Arc::clone(&metrics), handle.tasks()));
        let access_log = access_log.transpose()?.unwrap_or_default();
        let loopback = api::is_loopback(self.address);
        let draining = AtomicBool::new(false);
        let pulse = handle.tasks().waiting("api");
        let (begun, tokens) = (handle.now(), self.tokens);
        let api = Arc::new(Api {
            handle,
            metrics,
            node,
            fleet,
            tokens,
            begun,
            bundles,
            waiting: Semaphore::new(api::MOST_WAITING),
            sending: api::sending::Sending::default(),
            picture: Picture::default(),
            cached_picture: api::picture::Cached::default(),
            drills: api::drills::Drills::default(),
            publishing: Mutex::default(),
            access_log,
            failed_tokens: FailedTokens::default(),
            loopback,
            draining,
            is_handing_over,
            absent,
        });
        let (stop, stopped) = watch::channel(false);
        let (served, listener, tls) = (Arc::clone(&api), self.listener, self.tls);
        let task = tokio::spawn(supervise(pulse, move || {
            speak(Arc::clone(&served), listener.try_clone(), tls.clone(), stopped.clone())
        }));
        Ok(ServedHttp { address: self.address, api, stop, task })
    }
}

impl ServedHttp {
    /// Answers the requests in progress, and sends what the access log still has, each within a time limit.
    pub(super) async fn end(self) {
        let _ = self.stop.send(true);
        let _ = tokio::time::timeout(DRAIN, self.task).await;
        self.api.access_log.finish(DRAIN).await;
    }
}

/// Serves the API until `stopped` becomes true.
async fn speak(
    api: Arc<Api>,
    listener: io::Result<std::net::TcpListener>,
    tls: Option<TlsAcceptor>,
    mut stopped: watch::Receiver<bool>,
) -> Ended {
    let until = async move { _ = stopped.wait_for(|stopped| *stopped).await };
    let served = async {
        let listener = TcpListener::from_std(listener?)?;
        match tls {
            Some(acceptor) => api.serve(TlsListener::new(listener, acceptor)?, until).await,
            None => api.serve(listener, until).await,
        }
    };
    match served.await {
        Ok(()) => Ended::OnRequest,
        Err(error) => {
            warn!(%error, "the API can't be served");
            Ended::Failed
        }
    }
}
