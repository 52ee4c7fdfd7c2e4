//! One connection: the PROXY protocol, TLS, then HTTP/1.1 or HTTP/2 to its end, within the limits. Called by `isolate`.

use core::convert::Infallible;
use core::pin::pin;
use core::time::Duration;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch::Receiver;
use tokio::time::timeout;

use super::config::Limits;
use super::counts::Refusal;
use super::proxy_protocol::{self, Header};
use super::request::Sender;
use super::settings::Isolate;
use super::tasks;
use super::transport::{Socket, Transport};
use super::watch::{Reason, Watch};
use crate::platform::native::exchange::AnswerBody;

/// Streams that a client resets before they were answered, and resets that it causes by mistakes. Past these, the
/// connection ends (CVE-2023-44487 and its kind).
const MOST_RESETS: usize = 64;
/// How much of a request's body may wait to be read, for each stream and each connection of HTTP/2.
const WINDOWS: (u32, u32) = (256 << 10, 1 << 20);
/// How much of an answer HTTP/2 keeps for a client that is slow, for each stream.
const SEND_BUFFER: usize = 64 << 10;

/// How long a connection without a request may still ask when the process ends. Its request may be under way.
const LAST_REQUEST: Duration = Duration::from_secs(1);
/// How much later than the watch, which counts why it closes a connection, hyper closes one whose client is silent.
const SLACK: Duration = Duration::from_secs(5);

/// Runs what hyper spawns on this thread.
#[derive(Clone, Copy)]
struct Here;

impl<F: Future<Output = ()> + 'static> Executor<F> for Here {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Serves a connection to its end. When the process ends, the requests that it has are answered, and no more. One
/// without any may ask once.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, isolate: Rc<Isolate>, watch: Rc<Watch>) {
    let _ = stream.set_nodelay(true);
    let limits = &isolate.settings.limits;
    let mut ending = isolate.is_ending.clone();
    let begun = tokio::select! {
        begun = timeout(limits.headers, begin(stream, peer, &isolate, &watch)) => begun,
        () = last_call(&mut ending, core::future::pending()) => return,
    };
    let (transport, sender) = match begun {
        Ok(Ok(begun)) => begun,
        Ok(Err(refusal)) => return isolate.counts.refused(refusal),
        Err(_) => return isolate.counts.closed(Reason::Silent),
    };
    let builder = builder(limits);
    let service = {
        let (isolate, watch) = (Rc::clone(&isolate), Rc::clone(&watch));
        service_fn(move |request| answer(request, sender, Rc::clone(&isolate), Rc::clone(&watch)))
    };
    let mut served = pin!(builder.serve_connection(TokioIo::new(transport), service));
    let mut is_closing = false;
    loop {
        tokio::select! {
            _ = &mut served => return,
            () = last_call(&mut ending, watch.next_request()), if !is_closing => {}
            reason = watch.breaks() => match reason {
                Reason::Idle if !is_closing => {}
                Reason::Resets => return isolate.counts.closed(Reason::Resets),
                _ => return,
            }
        }
        is_closing = true;
        served.as_mut().graceful_shutdown();
    }
}

/// Waits until the process ends, and then for a request, for [`LAST_REQUEST`] at most.
async fn last_call(ending: &mut Receiver<bool>, next_request: impl Future<Output = ()>) {
    let _ = ending.wait_for(|is_ending| *is_ending).await;
    let _ = timeout(LAST_REQUEST, next_request).await;
}

/// Reads what comes before HTTP.
async fn begin(
    mut stream: TcpStream,
    peer: SocketAddr,
    isolate: &Isolate,
    watch: &Watch,
) -> Result<(Transport, Sender), Refusal> {
    let locator = &isolate.settings.locator;
    let is_trusted = locator.trusts(peer.ip());
    let (sender, before) = if is_trusted && isolate.settings.speaks_proxy_protocol {
        let (client, before) = behind_proxy(&mut stream).await.map_err(|_| Refusal::Proxy)?;
        // The client speaks HTTP itself, so nothing it says is the proxy's word.
        (Sender { address: client.unwrap_or(peer.ip()), is_trusted: false }, before)
    } else {
        (Sender { address: peer.ip(), is_trusted }, Bytes::new())
    };
    let socket = Socket::new(stream, before, Rc::clone(&watch.stall));
    let Some(acceptor) = &isolate.settings.tls else { return Ok((Transport::Plain(socket), sender)) };
    let stream = acceptor.accept(socket).await.map_err(|_| Refusal::Handshake)?;
    Ok((Transport::Tls(Box::new(stream)), sender))
}

/// Reads the header of the PROXY protocol. Returns the client's address, and what it has sent after the header.
async fn behind_proxy(stream: &mut TcpStream) -> io::Result<(Option<IpAddr>, Bytes)> {
    // With room for all that has come: bytes that are left unread reset a connection that is refused.
    let mut bytes = Vec::with_capacity(proxy_protocol::LONGEST);
    loop {
        match proxy_protocol::read(&bytes) {
            Header::Whole { client, length } => return Ok((client, Bytes::from(bytes.split_off(length)))),
            // None are read if the connection has ended.
            Header::Begun if bytes.len() < proxy_protocol::LONGEST && stream.read_buf(&mut bytes).await? > 0 => {}
            Header::Begun | Header::Broken => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn builder(limits: &Limits) -> Builder<Here> {
    let mut builder = Builder::new(Here);
    let header_bytes = limits.header_bytes;
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.headers.max(limits.idle) + SLACK)
        .max_buf_size(header_bytes as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(header_bytes)
        .max_pending_accept_reset_streams(MOST_RESETS)
        .max_local_error_reset_streams(MOST_RESETS)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(limits.headers);
    builder
}

/// Answers a request.
async fn answer(
    request: Request<Incoming>,
    sender: Sender,
    isolate: Rc<Isolate>,
    watch: Rc<Watch>,
) -> Result<Response<AnswerBody>, Infallible> {
    let asking = watch.asks();
    let is_http1 = request.version() < Version::HTTP_2;
    let mut response = tasks::answer(request, sender, &isolate.settings.locator, isolate.env.clone()).await;
    if is_http1 && *isolate.is_ending.borrow() {
        // It closes the connection after this answer, and says so: or the client's next request would be lost.
        tasks::close_after(&mut response);
    }
    asking.answered(response.body().taken());
    Ok(response)
}
