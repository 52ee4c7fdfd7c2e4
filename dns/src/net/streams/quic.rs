//! DNS over QUIC (RFC 9250). Takes a bound UDP socket, accepts connections within the gate's limits and answers each
//! connection in its own task. Called by `listeners`, one loop for each address.
//!
//! 0-RTT is off, which is the default of rustls, so that a query can't be replayed (RFC 9250 §4.5).

mod connection;

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use bailiwick_host::certificate::Certificate;
use bailiwick_host::system::tasks::Ended;
use hickory_server::net::quic::DoqErrorCode;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, Incoming, ServerConfig, TokioRuntime, TransportConfig};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{HANDSHAKE, Shared};
use crate::response::respond::Respond;

/// The protocol's name in the TLS handshake (RFC 9250 §4.1.1).
const ALPN: &[u8] = b"doq";
/// How many streams of a connection may be open at once. RFC 9250 requires no number; resolvers use about a hundred.
const STREAMS: u32 = 256;
/// How many octets may arrive on a stream before they are read: the longest query with its length prefix.
const STREAM_WINDOW: u32 = 2 + 65_535;
/// How many octets may arrive on a connection before they are read.
const RECEIVE_WINDOW: u32 = 4 * STREAM_WINDOW;
/// How many octets of responses may wait on a connection until its client has acknowledged them.
const SEND_WINDOW: u64 = 256 * 1024;
/// If more handshakes than this are in progress, a client has to prove its address first (Retry, RFC 9000 §8.1.2). So
/// an attacker who forges addresses can't use up the connections of their owners. This is half of the default limit per
/// client.
const UNPROVEN: usize = 32;
/// How long connections may still answer received queries after the server has stopped accepting.
const LAST: Duration = Duration::from_millis(500);
/// How long connections may take to close after that, so that clients receive the close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(300);

/// Accepts connections until `shared.yielded` is set. Then all connections are closed, because their state is in this
/// process, and another process may read from the same socket.
pub(crate) async fn accept<R: Respond>(
    udp: io::Result<UdpSocket>,
    certificate: Arc<Certificate>,
    shared: Shared<R>,
) -> Ended {
    let endpoint = match udp.and_then(|udp| endpoint(udp, &certificate, shared.gate.patience())) {
        Ok(endpoint) => endpoint,
        Err(error) => {
            warn!(%error, "QUIC can't be served");
            return Ended::Failed;
        }
    };
    let handshakes = Arc::new(());
    let mut yielded = shared.yielded.clone();
    loop {
        let incoming = tokio::select! {
            biased;
            _ = yielded.wait_for(|yielded| *yielded) => break,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else {
            warn!("QUIC is no longer served");
            return Ended::Failed;
        };
        admit(incoming, &handshakes, &shared);
    }
    let _ = timeout(LAST, endpoint.wait_idle()).await;
    endpoint.close(DoqErrorCode::NoError.into(), b"");
    let _ = timeout(CLOSE_TIMEOUT, endpoint.wait_idle()).await;
    Ended::OnRequest
}

/// Admits a connection and answers it in a task, or refuses it.
fn admit<R: Respond>(incoming: Incoming, handshakes: &Arc<()>, shared: &Shared<R>) {
    let client = incoming.remote_address();
    if !incoming.remote_address_validated() && Arc::strong_count(handshakes) > UNPROVEN {
        // This fails only for a client that has already had a Retry. Such a client has a validated address.
        let _ = incoming.retry();
        return;
    }
    let Some(pass) = shared.gate.admit(client.ip()) else {
        incoming.refuse();
        return;
    };
    let (handshake, shared) = (Arc::clone(handshakes), shared.clone());
    tokio::spawn(async move {
        let connected = match incoming.accept() {
            Ok(connecting) => timeout(HANDSHAKE, connecting).await,
            Err(error) => Ok(Err(error)),
        };
        drop(handshake);
        match connected {
            Ok(Ok(connection)) => connection::serve(connection, &shared).await,
            Ok(Err(error)) => debug!(%client, %error, "a QUIC handshake failed"),
            Err(_) => debug!(%client, "a QUIC handshake took too long"),
        }
        drop(pass);
    });
}

fn endpoint(udp: UdpSocket, certificate: &Arc<Certificate>, idle: Duration) -> io::Result<Endpoint> {
    let tls = certificate.tls(&[ALPN]).map_err(io::Error::other)?;
    let crypto = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport(idle)?));
    Endpoint::new(EndpointConfig::default(), Some(config), udp, Arc::new(TokioRuntime))
}

/// The transport's limits: only bidirectional streams that the client opens (RFC 9250 §4.2), and bounded memory for
/// each connection.
fn transport(idle: Duration) -> io::Result<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(STREAMS.into())
        .max_concurrent_uni_streams(0u32.into())
        .datagram_receive_buffer_size(None)
        .datagram_send_buffer_size(0)
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(RECEIVE_WINDOW.into())
        .send_window(SEND_WINDOW)
        .max_idle_timeout(Some(idle.try_into().map_err(io::Error::other)?));
    Ok(config)
}
