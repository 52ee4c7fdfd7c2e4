//! The API's socket: its configuration enters, a bound listener with token and certificate leaves and then serves; [`super::serve`] owns it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tracing::warn;

use super::strings;
use crate::api::tls::{PROTOCOLS, TlsListener};
use crate::api::token::{TokenFile, warnings};
use crate::api::{self, Api};
use crate::certificate::Certificate;
use crate::listeners::BindError;
use crate::metrics::Metrics;
use crate::owner::Handle;
use crate::renewal::Renew;

/// The API's bound socket.
pub(super) struct Http {
    listener: TcpListener,
    address: SocketAddr,
    token: Option<Arc<TokenFile>>,
    certificate: Option<Arc<Certificate>>,
    tls: Option<TlsAcceptor>,
}

/// The API as it runs.
pub(super) struct ServedHttp {
    pub(super) address: SocketAddr,
    pub(super) api: Arc<Api>,
    pub(super) stop: oneshot::Sender<()>,
    pub(super) task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Http {
    pub(super) async fn bind(config: &crate::config::Api) -> Result<Self, Vec<String>> {
        let token = config.token_file.as_deref().map(TokenFile::read).transpose();
        let bound = TcpListener::bind(config.listen).await.and_then(|one| Ok((one.local_addr()?, one)));
        let bound = bound
            .map_err(|error| BindError { address: config.listen, transport: "TCP for the API", error }.to_string());
        for warning in config.token_file.as_deref().into_iter().flat_map(warnings) {
            warn!("{warning}");
        }
        let certificate = config.tls.as_ref().map(Certificate::read).transpose();
        match (token, certificate, bound) {
            (Ok(token), Ok(certificate), Ok((address, listener))) => {
                let tls = certificate.as_ref().map(|certificate| certificate.acceptor(PROTOCOLS)).transpose();
                let tls = tls.map_err(|error| vec![format!("the API can't speak TLS: {error}")])?;
                Ok(Self { listener, address, token: token.map(Arc::new), certificate, tls })
            }
            (token, certificate, bound) => {
                let faults = token.err().into_iter().chain(certificate.err().into_iter().flatten());
                Err(strings(faults).into_iter().chain(bound.err()).collect())
            }
        }
    }

    /// What changes with its files while the API runs.
    pub(super) fn renewed(&self) -> impl Iterator<Item = Arc<dyn Renew>> {
        let token = self.token.clone().map(|token| token as Arc<dyn Renew>);
        token.into_iter().chain(self.certificate.clone().map(|certificate| certificate as Arc<dyn Renew>))
    }

    pub(super) fn serve(self, handle: Handle, metrics: Arc<Metrics>, node: String) -> ServedHttp {
        let loopback = api::is_loopback(self.address);
        let draining = AtomicBool::new(false);
        let api = Arc::new(Api { handle, metrics, node, token: self.token, loopback, draining });
        let (stop, stopped) = oneshot::channel();
        let until = async {
            let _ = stopped.await;
        };
        let served = Arc::clone(&api);
        let task = tokio::spawn(async move {
            match self.tls {
                Some(acceptor) => served.serve(TlsListener::new(self.listener, acceptor)?, until).await,
                None => served.serve(self.listener, until).await,
            }
        });
        ServedHttp { address: self.address, api, stop, task }
    }
}
