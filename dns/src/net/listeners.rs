//! The DNS sockets. Takes addresses and a responder, starts the threads and tasks that answer at these addresses, and
//! drains them at the end. Called by `serve`.

mod absent;
mod bind;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bailiwick_host::certificate::Certificate;
use bailiwick_host::sockets::bind::{BindError, Ipv6Only};
use bailiwick_host::sockets::inherited::{HandedSocket, Inherited, Role};
use bailiwick_host::system::tasks::{Tasks, supervise};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;

pub use absent::Absent;
use bind::Binding;
pub use bind::bind_api;

use crate::net::streams::{self, Gate, Shared, StreamProtocol, quic};
use crate::net::udp::UdpLoop;
use crate::response::respond::Respond;

/// A drain ends when no request has arrived over streams for this time.
const QUIET: Duration = Duration::from_millis(100);
/// How long a task that accepts connections may take to end once it is told to, and then all connections together.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The addresses at which the server answers, by protocol. Port 0 stands for any free port.
#[derive(Debug, Default, Clone)]
pub struct Addresses {
    /// UDP and TCP.
    pub dns: Vec<SocketAddr>,
    /// How many threads answer UDP at each address of `dns`. `None` means one for each core that this process may use.
    pub threads: Option<NonZero<usize>>,
    /// TLS (RFC 7858).
    pub dot: Vec<SocketAddr>,
    /// QUIC (RFC 9250).
    pub doq: Vec<SocketAddr>,
    /// HTTPS (RFC 8484).
    pub doh: Vec<SocketAddr>,
    /// Whether sockets at `[::]` refuse IPv4. With `None`, a UDP socket refuses it if another UDP socket gets IPv4 at
    /// the same port, and a TCP socket if another TCP socket does. The protocols over them don't matter.
    pub ipv6_only: Option<bool>,
}

impl Addresses {
    /// All addresses.
    pub fn all(&self) -> impl Iterator<Item = SocketAddr> {
        [&self.dns, &self.dot, &self.doq, &self.doh].into_iter().flatten().copied()
    }

    /// Which sockets at `[::]` refuse IPv4, if all sockets of the same transport (UDP or TCP) are at these addresses.
    fn ipv6_only_among<'a>(&self, transport: impl IntoIterator<Item = &'a Vec<SocketAddr>>) -> Ipv6Only {
        match self.ipv6_only {
            Some(always) => Ipv6Only::Fixed(always),
            None => {
                let addresses = transport.into_iter().flatten().filter(|address| address.is_ipv4());
                Ipv6Only::AtPorts(addresses.map(SocketAddr::port).collect())
            }
        }
    }
}

/// The certificate of each encrypted protocol. A protocol without a certificate isn't served.
#[derive(Debug, Default, Clone)]
pub struct Certificates {
    /// TLS.
    pub dot: Option<Arc<Certificate>>,
    /// QUIC.
    pub doq: Option<Arc<Certificate>>,
    /// HTTPS.
    pub doh: Option<Arc<Certificate>>,
}

impl Certificates {
    /// All certificates.
    pub fn all(&self) -> impl Iterator<Item = Arc<Certificate>> {
        [&self.dot, &self.doq, &self.doh].into_iter().flatten().cloned()
    }
}

/// Bound sockets that don't answer yet.
#[derive(Debug)]
pub struct Sockets {
    /// For each address, a TCP socket, and a UDP socket for every thread.
    dns: Vec<(TcpListener, Vec<UdpSocket>)>,
    dot: Vec<TcpListener>,
    doq: Vec<UdpSocket>,
    doh: Vec<TcpListener>,
}

impl Sockets {
    /// Binds every address.
    ///
    /// # Errors
    /// Every address that can't be bound.
    pub fn bind(addresses: &Addresses) -> Result<Self, Vec<BindError>> {
        Self::bind_with(addresses, &mut Inherited::default())
    }

    /// Binds every address for which no socket was inherited.
    ///
    /// # Errors
    /// Every address that can't be bound.
    pub fn bind_with(addresses: &Addresses, inherited: &mut Inherited) -> Result<Self, Vec<BindError>> {
        let mut errors = Vec::new();
        let threads = addresses.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZero::get);
        let Addresses { dns, dot, doq, doh, .. } = addresses;
        let tcp_ipv6_only = addresses.ipv6_only_among([dns, dot, doh]);
        let udp_ipv6_only = addresses.ipv6_only_among([dns, doq]);
        let mut binding = Binding { threads, tcp_ipv6_only, udp_ipv6_only, inherited };
        let dns = all(dns, &mut errors, |address| binding.dns(address));
        let dot = all(dot, &mut errors, |address| named(address, "TLS", binding.tcp(Role::Dot, address)));
        let doh = all(doh, &mut errors, |address| named(address, "HTTPS", binding.tcp(Role::Doh, address)));
        let doq = all(doq, &mut errors, |address| named(address, "QUIC", binding.quic(address)));
        if errors.is_empty() { Ok(Self { dns, dot, doq, doh }) } else { Err(errors) }
    }

    /// Copies of all sockets, for the process that takes over.
    ///
    /// # Errors
    /// If the system has no file descriptor left.
    pub fn copies(&self) -> io::Result<Vec<HandedSocket>> {
        let dns = self.dns.iter().map(|(tcp, _)| HandedSocket::copy(Role::Dns, tcp));
        let udp = self.dns.iter().flat_map(|(_, udp)| udp).map(|udp| HandedSocket::copy(Role::Dns, udp));
        let dot = self.dot.iter().map(|tcp| HandedSocket::copy(Role::Dot, tcp));
        let doq = self.doq.iter().map(|udp| HandedSocket::copy(Role::Doq, udp));
        let doh = self.doh.iter().map(|tcp| HandedSocket::copy(Role::Doh, tcp));
        dns.chain(udp).chain(dot).chain(doq).chain(doh).collect()
    }

    /// The addresses in the order of the configuration, with their real ports.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        let of_tcp = |sockets: &[TcpListener]| sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect();
        Addresses {
            dns: self.dns.iter().filter_map(|(tcp, _)| tcp.local_addr().ok()).collect(),
            dot: of_tcp(&self.dot),
            doq: self.doq.iter().filter_map(|socket| socket.local_addr().ok()).collect(),
            doh: of_tcp(&self.doh),
            threads: self.dns.first().and_then(|(_, udp)| NonZero::new(udp.len())),
            ipv6_only: None,
        }
    }

    /// Starts to answer. `gate` limits the connections of all streams together. `tasks` watches every loop, so that
    /// `/healthz` shows the loops that are down. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// If the system refuses a thread or a socket option. Loops that were started before go on; the caller ends the
    /// process.
    pub fn serve<R: Respond>(
        self,
        responder: &Arc<R>,
        gate: &Arc<Gate>,
        certificates: &Certificates,
        tasks: &Tasks,
    ) -> io::Result<Listeners> {
        let (closing, stop) = watch::channel(false);
        let (yielding, yielded) = watch::channel(false);
        let shared = Shared { responder: Arc::clone(responder), gate: Arc::clone(gate), stop, yielded };
        let stop_udp = Arc::new(AtomicBool::new(false));
        let (mut threads, mut accepting) = (Vec::new(), Vec::new());
        for (tcp, sockets) in self.dns {
            for udp in sockets {
                let address = udp.local_addr()?;
                let udp = UdpLoop::new(udp)?;
                let (datagrams, stop) = (Arc::clone(responder).datagrams(), Arc::clone(&stop_udp));
                let pulse = tasks.waiting(format!("udp {address}"));
                let run = move || udp.run(datagrams, &stop, &pulse);
                threads.push(std::thread::Builder::new().name(format!("udp {address}")).spawn(run)?);
            }
            accepting.push(spawn_accepting(tcp, "tcp", StreamProtocol::Tcp, &shared, tasks)?);
        }
        let by_tls: [(_, _, _, OverTls, &[&[u8]]); 2] = [
            (self.dot, "tls", &certificates.dot, StreamProtocol::Tls, &[b"dot"]),
            (self.doh, "https", &certificates.doh, StreamProtocol::Https, &[b"h2", b"http/1.1"]),
        ];
        for (sockets, name, certificate, over_tls, protocols) in by_tls {
            let Some(certificate) = certificate else { continue };
            let acceptor = certificate.acceptor(protocols).map_err(io::Error::other)?;
            for tcp in sockets {
                accepting.push(spawn_accepting(tcp, name, over_tls(acceptor.clone()), &shared, tasks)?);
            }
        }
        let mut listeners = Listeners { closing, yielding, stop_udp, gate: Arc::clone(gate), threads, accepting };
        if let Some(certificate) = &certificates.doq {
            listeners.begin_quic(QuicSockets(self.doq), responder, certificate, tasks)?;
        }
        Ok(listeners)
    }

    /// Takes the sockets of QUIC out, so that they can be served later. Two processes can't serve QUIC on one socket,
    /// because each would get packets of the other's connections.
    pub fn take_quic(&mut self) -> QuicSockets {
        QuicSockets(std::mem::take(&mut self.doq))
    }
}

/// Sockets of QUIC that aren't served yet.
#[derive(Debug)]
pub struct QuicSockets(Vec<UdpSocket>);

/// Starts a task that accepts connections of a listener until the server stops. If the task panics, it is restarted.
fn spawn_accepting<R: Respond>(
    listener: TcpListener,
    name: &str,
    protocol: StreamProtocol,
    shared: &Shared<R>,
    tasks: &Tasks,
) -> io::Result<tokio::task::JoinHandle<()>> {
    let pulse = tasks.waiting(format!("{name} {}", listener.local_addr()?));
    let shared = shared.clone();
    let accept = move || streams::accept(listener.try_clone(), protocol.clone(), shared.clone());
    Ok(tokio::spawn(supervise(pulse, accept)))
}

/// A function that makes a [`StreamProtocol`] from the acceptor of its TLS connections.
type OverTls = fn(TlsAcceptor) -> StreamProtocol;

/// Binds every address with `bind`. Collects the sockets, and the errors in `errors`.
fn all<T>(
    addresses: &[SocketAddr],
    errors: &mut Vec<BindError>,
    mut bind: impl FnMut(SocketAddr) -> Result<T, BindError>,
) -> Vec<T> {
    addresses.iter().filter_map(|&address| bind(address).map_err(|error| errors.push(error)).ok()).collect()
}

/// Adds the address and the protocol to the error of a bind.
fn named<T>(address: SocketAddr, protocol: &'static str, bound: io::Result<T>) -> Result<T, BindError> {
    bound.map_err(|error| BindError { address, protocol, error })
}

/// Sockets that answer.
#[derive(Debug)]
pub struct Listeners {
    /// True once connections must end.
    closing: watch::Sender<bool>,
    /// True once no new connections are accepted.
    yielding: watch::Sender<bool>,
    stop_udp: Arc<AtomicBool>,
    gate: Arc<Gate>,
    threads: Vec<JoinHandle<()>>,
    accepting: Vec<tokio::task::JoinHandle<()>>,
}

impl Listeners {
    /// Answers the queries in flight for at most `limit`, then stops. Streams stop when no query arrives any more, UDP
    /// when its buffers are empty.
    pub async fn drain(mut self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut before = self.gate.messages();
        loop {
            sleep(QUIET.min(limit)).await;
            let now = self.gate.messages();
            if now == before || Instant::now() >= end {
                break;
            }
            before = now;
        }
        self.stop_udp.store(true, Ordering::Relaxed);
        self.yielding.send_replace(true);
        self.closing.send_replace(true);
        self.join().await;
        self.join_connections(CLOSE_TIMEOUT).await;
    }

    /// Begins to answer by QUIC.
    ///
    /// # Errors
    /// If the system refuses a socket option.
    pub fn begin_quic<R: Respond>(
        &mut self,
        sockets: QuicSockets,
        responder: &Arc<R>,
        certificate: &Arc<Certificate>,
        tasks: &Tasks,
    ) -> io::Result<()> {
        let (stop, yielded) = (self.closing.subscribe(), self.yielding.subscribe());
        let shared = Shared { responder: Arc::clone(responder), gate: Arc::clone(&self.gate), stop, yielded };
        for udp in sockets.0 {
            udp.set_nonblocking(true)?;
            let pulse = tasks.waiting(format!("quic {}", udp.local_addr()?));
            let (certificate, shared) = (Arc::clone(certificate), shared.clone());
            let run = move || quic::accept(udp.try_clone(), Arc::clone(&certificate), shared.clone());
            self.accepting.push(tokio::spawn(supervise(pulse, run)));
        }
        Ok(())
    }

    /// Stops reading and accepting, because another process uses the same sockets now. Open connections go on until
    /// [`Listeners::linger`] ends them.
    pub async fn yield_sockets(&mut self) {
        self.stop_udp.store(true, Ordering::Relaxed);
        self.yielding.send_replace(true);
        self.join().await;
    }

    /// Answers on the open connections until their clients leave or are idle, for at most `limit`. Then ends them.
    pub async fn linger(self, limit: Duration) {
        self.join_connections(limit).await;
        self.closing.send_replace(true);
        self.join_connections(CLOSE_TIMEOUT).await;
    }

    /// Waits until the tasks that accept connections and the threads that read UDP have ended. A task that takes longer
    /// than [`CLOSE_TIMEOUT`] isn't waited for.
    async fn join(&mut self) {
        for accepting in self.accepting.drain(..) {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, accepting).await;
        }
        for thread in self.threads.drain(..) {
            // A thread ends soon after `stop_udp` is set. If it panicked, the panic was reported before.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// Waits for at most `limit` until no connection is left. Queries that have arrived are answered first.
    async fn join_connections(&self, limit: Duration) {
        let end = Instant::now() + limit;
        while self.gate.count() > 0 && Instant::now() < end {
            sleep(QUIET / 10).await;
        }
    }
}
