//! TLS for the API. Takes a listener, returns connections to the HTTP server after their handshake.
//!
//! Handshakes run side by side, each within a time limit. So a silent client doesn't delay others.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How many handshakes may be under way.
const HANDSHAKES: usize = 64;
/// What the API speaks over TLS (RFC 7301).
pub(crate) const PROTOCOLS: &[&[u8]] = &[b"http/1.1"];

/// A listener whose connections speak TLS.
#[derive(Debug)]
pub(crate) struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl TlsListener {
    /// Accepts on `listener`. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When the listener has no address.
    pub(crate) fn new(listener: TcpListener, acceptor: TlsAcceptor) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (done, ready) = mpsc::channel(1);
        Ok(Self { ready, address, accepting: tokio::spawn(accept(listener, acceptor, done)) })
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The accepting task ends with this listener, not before.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// Accepts connections and makes their TLS handshakes at the same time, so that a slow client delays no other. Sends
/// each connection whose handshake is done.
async fn accept(
    mut listener: TcpListener,
    acceptor: TlsAcceptor,
    done: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let slots = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let (stream, client) = Listener::accept(&mut listener).await;
        let (handshake, done) = (acceptor.accept(stream), done.clone());
        tokio::spawn(async move {
            match timeout(HANDSHAKE, handshake).await {
                Ok(Ok(stream)) => {
                    let _ = done.send((stream, client)).await;
                }
                Ok(Err(error)) => debug!(%client, %error, "a TLS handshake failed"),
                Err(_) => debug!(%client, "a TLS handshake took too long"),
            }
            drop(slot);
        });
    }
}

#[cfg(test)]
mod tests {
    use bailiwick_host::certificate::Certificate;
    use rustls::crypto::ring;
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::program::config::TlsFiles;

    #[tokio::test]
    async fn a_silent_client_keeps_nobody_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let files = TlsFiles { cert: directory.path().join("api.pem"), key: directory.path().join("api.key") };
        std::fs::write(&files.cert, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener =
            TlsListener::new(listener, Certificate::read(&files).unwrap().acceptor(PROTOCOLS).unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new().route("/", axum::routing::get(|| async { "by TLS" }));
        let serving = tokio::spawn(async { axum::serve(listener, router).await });

        let _silent = TcpStream::connect(address).await.unwrap();
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap();
        let connector = TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200") && response.ends_with("by TLS"), "{response}");
        serving.abort();
    }
}
