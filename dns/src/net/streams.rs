//! The accept loop of DNS over TCP, TLS and HTTPS. Takes a bound listener, accepts its connections within the gate's
//! limits, and answers each connection in its own task. Called by `listeners`, one loop for each address.

mod connection;
mod gate;
mod https;
pub(super) mod quic;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

pub use gate::{Gate, Limits};

use bailiwick_host::system::tasks::Ended;

use crate::response::respond::Respond;
use crate::response::wire::Transport;
use gate::Pass;

/// How long the accept loop pauses if the system has no file descriptor or memory left. Meanwhile connections wait in
/// the backlog.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// The protocol on the connections of a listener.
#[derive(Clone)]
pub(crate) enum StreamProtocol {
    /// DNS over TCP (RFC 7766).
    Tcp,
    /// DNS over TLS (RFC 7858).
    Tls(TlsAcceptor),
    /// DNS over HTTPS (RFC 8484).
    Https(TlsAcceptor),
}

/// What all connections share.
pub(crate) struct Shared<R> {
    /// Answers queries.
    pub(crate) responder: Arc<R>,
    /// Limits the number of connections, and how long they may be idle.
    pub(crate) gate: Arc<Gate>,
    /// True once connections must end. Queries that have arrived are still answered.
    pub(crate) stop: watch::Receiver<bool>,
    /// True once this process accepts no more connections, because it ends or another one takes over. Comes before
    /// `stop`.
    pub(crate) yielded: watch::Receiver<bool>,
}

impl<R> Clone for Shared<R> {
    fn clone(&self) -> Self {
        Self {
            responder: Arc::clone(&self.responder),
            gate: Arc::clone(&self.gate),
            stop: self.stop.clone(),
            yielded: self.yielded.clone(),
        }
    }
}

/// Accepts connections until `shared.yielded` is set. Errors don't end the loop: an error of one connection affects
/// only that connection, and if the system is short of file descriptors, the loop pauses instead of spinning.
pub(crate) async fn accept<R: Respond>(
    listener: io::Result<std::net::TcpListener>,
    protocol: StreamProtocol,
    shared: Shared<R>,
) -> Ended {
    let listener = match listener.and_then(TcpListener::from_std) {
        Ok(listener) => listener,
        Err(error) => {
            warn!(%error, "a listener can't be used");
            return Ended::Failed;
        }
    };
    let mut yielded = shared.yielded.clone();
    let mut is_warned = false;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = yielded.wait_for(|yielded| *yielded) => return Ended::OnRequest,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, client)) => {
                is_warned = false;
                // Refused connections are closed at once, so that their clients notice.
                if let Some(pass) = shared.gate.admit(client.ip()) {
                    tokio::spawn(serve_connection(stream, client, protocol.clone(), shared.clone(), pass));
                }
            }
            // The client closed the connection before it was accepted. The next connection may be fine.
            Err(error) if is_of_one_connection(&error) => {
                debug!(%error, "a connection was gone before it was accepted");
            }
            Err(error) => {
                if !std::mem::replace(&mut is_warned, true) {
                    warn!(%error, "connections can't be accepted; trying on. Raise the limit of open files, or lower \
                        [tcp] connections");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Serves one connection from its first octet to its last.
async fn serve_connection<R: Respond>(
    stream: TcpStream,
    client: SocketAddr,
    protocol: StreamProtocol,
    shared: Shared<R>,
    pass: Pass,
) {
    // Without TCP_NODELAY, the second of two small responses would wait until the first is acknowledged.
    let _ = stream.set_nodelay(true);
    match protocol {
        StreamProtocol::Tcp => connection::serve(stream, client, Transport::Tcp, &shared).await,
        StreamProtocol::Tls(acceptor) => match timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => connection::serve(stream, client, Transport::Tls, &shared).await,
            Ok(Err(error)) => debug!(%client, %error, "a TLS handshake failed"),
            Err(_) => debug!(%client, "a TLS handshake took too long"),
        },
        StreamProtocol::Https(acceptor) => match timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => https::serve(stream, client, &shared).await,
            Ok(Err(error)) => debug!(%client, %error, "a TLS handshake failed"),
            Err(_) => debug!(%client, "a TLS handshake took too long"),
        },
    }
    // Now there is room for another connection.
    drop(pass);
}
