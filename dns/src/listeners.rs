//! The DNS sockets: addresses and a responder enter, threads and tasks that answer on them run until they are drained; `serve` owns them.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hickory_server::Server;
use hickory_server::net::NetError;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;
use tracing::warn;

use crate::certificate::Certificate;
use crate::handler::QuicHandler;
use crate::respond::Respond;
use crate::streams::{self, Gate, Shared, Speech};
use crate::tasks::{Ended, Tasks, supervise};
use crate::udp::UdpLoop;

/// How many addresses with "any free port" are tried before UDP and TCP share one.
const TRIES: usize = 20;
/// A drain ends when no request came over streams for this long.
const QUIET: Duration = Duration::from_millis(100);
/// How long connections may take to end after that.
const PARTING: Duration = Duration::from_secs(1);
/// The backlog of connections not yet accepted.
const BACKLOG: i32 = 1024;

/// Why an address can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address} by {transport}: {error}; {}", mend(error))]
pub struct BindError {
    /// The address as configured.
    pub address: SocketAddr,
    /// `UDP`, `TCP` or what is spoken over them.
    pub transport: &'static str,
    /// What the system said.
    pub error: io::Error,
}

fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a right: `setcap cap_net_bind_service=+ep` on the program, \
             AmbientCapabilities=CAP_NET_BIND_SERVICE in its unit, or a port above 1023"
        }
        io::ErrorKind::AddrInUse => {
            "another program listens there (`ss -lntup` names it): stop it or choose another port"
        }
        io::ErrorKind::AddrNotAvailable => "no interface has this address: choose one that `ip address` lists",
        _ => "choose another address",
    }
}

/// Where DNS is spoken and how. Port 0 stands for any free port.
#[derive(Debug, Default, Clone)]
pub struct Addresses {
    /// UDP and TCP.
    pub dns: Vec<SocketAddr>,
    /// How many threads answer UDP at each of them; `None`: as many as there are cores this process may run on.
    pub threads: Option<NonZero<usize>>,
    /// TLS (RFC 7858).
    pub dot: Vec<SocketAddr>,
    /// QUIC (RFC 9250).
    pub doq: Vec<SocketAddr>,
    /// HTTPS (RFC 8484).
    pub doh: Vec<SocketAddr>,
}

/// The certificate of each encrypted transport; without one it isn't served.
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
    /// All there are.
    pub fn all(&self) -> impl Iterator<Item = Arc<Certificate>> {
        [&self.dot, &self.doq, &self.doh].into_iter().flatten().cloned()
    }
}

/// Bound sockets that don't answer yet.
#[derive(Debug)]
pub struct Sockets {
    /// Of each address a TCP socket, and a UDP socket for every thread.
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
        let mut errors = Vec::new();
        let threads = addresses.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZero::get);
        let dns = all(&addresses.dns, &mut errors, |address| bind(address, threads));
        let dot = all(&addresses.dot, &mut errors, |address| named(address, "TLS", bind_tcp(address)));
        let doq = all(&addresses.doq, &mut errors, |address| named(address, "QUIC", bind_udp(address, false)));
        let doh = all(&addresses.doh, &mut errors, |address| named(address, "HTTPS", bind_tcp(address)));
        if errors.is_empty() { Ok(Self { dns, dot, doq, doh }) } else { Err(errors) }
    }

    /// The addresses in the order they were named, with their real ports.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        let of_tcp = |sockets: &[TcpListener]| sockets.iter().filter_map(|one| one.local_addr().ok()).collect();
        Addresses {
            dns: self.dns.iter().filter_map(|(tcp, _)| tcp.local_addr().ok()).collect(),
            dot: of_tcp(&self.dot),
            doq: self.doq.iter().filter_map(|one| one.local_addr().ok()).collect(),
            doh: of_tcp(&self.doh),
            threads: self.dns.first().and_then(|(_, udp)| NonZero::new(udp.len())),
        }
    }

    /// Starts to answer; `gate` bounds the connections of all streams together, `tasks` learns of every loop. Must be called within a Tokio
    /// runtime.
    ///
    /// # Errors
    /// If the system refuses a thread or a socket option.
    pub fn serve<R: Respond>(
        self,
        responder: &Arc<R>,
        gate: &Arc<Gate>,
        certificates: &Certificates,
        tasks: &Tasks,
    ) -> io::Result<Listeners> {
        let (closing, stop) = watch::channel(false);
        let shared = Shared { responder: Arc::clone(responder), gate: Arc::clone(gate), stop };
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
            accepting.push(spawn_accepting(tcp, "tcp", Speech::Tcp, &shared, tasks)?);
        }
        let by_tls: [(_, _, _, Speak, &[&[u8]]); 2] = [
            (self.dot, "tls", &certificates.dot, Speech::Tls, &[b"dot"]),
            (self.doh, "https", &certificates.doh, Speech::Https, &[b"h2", b"http/1.1"]),
        ];
        for (sockets, name, certificate, speak, protocols) in by_tls {
            let Some(certificate) = certificate else { continue };
            let acceptor = certificate.acceptor(protocols).map_err(io::Error::other)?;
            for tcp in sockets {
                accepting.push(spawn_accepting(tcp, name, speak(acceptor.clone()), &shared, tasks)?);
            }
        }
        if let Some(certificate) = &certificates.doq {
            for udp in self.doq {
                udp.set_nonblocking(true)?;
                let pulse = tasks.waiting(format!("quic {}", udp.local_addr()?));
                let (certificate, shared) = (Arc::clone(certificate), shared.clone());
                accepting.push(tokio::spawn(supervise(pulse, move || {
                    let handler = QuicHandler::new(Arc::clone(&shared.responder), Arc::clone(&shared.gate));
                    by_quic(udp.try_clone(), handler, Arc::clone(&certificate), shared.clone())
                })));
            }
        }
        Ok(Listeners { closing, stop_udp, gate: Arc::clone(gate), threads, accepting })
    }
}

/// Accepts on a listener until told to stop, whatever happens.
fn spawn_accepting<R: Respond>(
    listener: TcpListener,
    name: &str,
    speech: Speech,
    shared: &Shared<R>,
    tasks: &Tasks,
) -> io::Result<tokio::task::JoinHandle<()>> {
    let (pulse, shared) = (tasks.waiting(format!("{name} {}", listener.local_addr()?)), shared.clone());
    Ok(tokio::spawn(supervise(pulse, move || streams::accept(listener.try_clone(), speech.clone(), shared.clone()))))
}

/// What is spoken once TLS stands.
type Speak = fn(TlsAcceptor) -> Speech;

fn all<T>(
    addresses: &[SocketAddr],
    errors: &mut Vec<BindError>,
    bind: impl Fn(SocketAddr) -> Result<T, BindError>,
) -> Vec<T> {
    addresses.iter().filter_map(|&address| bind(address).map_err(|error| errors.push(error)).ok()).collect()
}

fn named<T>(address: SocketAddr, transport: &'static str, bound: io::Result<T>) -> Result<T, BindError> {
    bound.map_err(|error| BindError { address, transport, error })
}

/// Serves QUIC through hickory until told to stop. Its limits are its own: a connection ends after 100 requests or 10 idle seconds, answers
/// one stream at a time, and counts in no gate; handshakes are made one after the other, each within 5 seconds.
async fn by_quic<R: Respond>(
    udp: io::Result<UdpSocket>,
    handler: QuicHandler<R>,
    certificate: Arc<Certificate>,
    mut shared: Shared<R>,
) -> Ended {
    let mut server = Server::new(handler);
    let idle = shared.gate.patience();
    let registered = udp
        .and_then(tokio::net::UdpSocket::from_std)
        .map_err(NetError::from)
        .and_then(|udp| server.register_quic_listener(udp, idle, certificate).map_err(NetError::from));
    if let Err(error) = registered {
        warn!(%error, "QUIC can't be served");
        return Ended::Failed;
    }
    tokio::select! {
        ended = server.block_until_done() => {
            warn!(error = ended.err().map(tracing::field::display), "QUIC is no longer served");
            Ended::Failed
        }
        () = async { _ = shared.stop.wait_for(|stop| *stop).await } => {
            let _ = server.shutdown_gracefully().await;
            Ended::AsTold
        }
    }
}

/// Sockets that answer.
#[derive(Debug)]
pub struct Listeners {
    closing: watch::Sender<bool>,
    stop_udp: Arc<AtomicBool>,
    gate: Arc<Gate>,
    threads: Vec<JoinHandle<()>>,
    accepting: Vec<tokio::task::JoinHandle<()>>,
}

impl Listeners {
    /// Answers what is in flight, for at most `limit`, then stops: streams when they are quiet, UDP when its buffers are empty.
    pub async fn drain(self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut seen = self.gate.messages();
        loop {
            sleep(QUIET.min(limit)).await;
            let now = self.gate.messages();
            if now == seen || Instant::now() >= end {
                break;
            }
            seen = now;
        }
        self.stop_udp.store(true, Ordering::Relaxed);
        self.closing.send_replace(true);
        for accepting in self.accepting {
            let _ = tokio::time::timeout(PARTING, accepting).await;
        }
        // What has arrived on a connection is answered before it ends.
        let parted = Instant::now() + PARTING;
        while self.gate.count() > 0 && Instant::now() < parted {
            sleep(QUIET / 10).await;
        }
        for thread in self.threads {
            // A loop ends within its patience, unless its thread panicked, which was reported then.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

/// Binds a TCP socket, and as many UDP sockets as threads, between which the kernel divides the clients.
fn bind(address: SocketAddr, threads: usize) -> Result<(TcpListener, Vec<UdpSocket>), BindError> {
    let fail = |transport| move |error| BindError { address, transport, error };
    let mut tries = if address.port() == 0 { TRIES } else { 1 };
    loop {
        tries -= 1;
        let tcp = bind_tcp(address).map_err(fail("TCP"))?;
        let chosen = tcp.local_addr().map_err(fail("TCP"))?;
        // Whoever else shares the port shares that of TCP, too, which nobody may.
        let udp: io::Result<Vec<_>> = (0..threads).map(|_| bind_udp(chosen, threads > 1)).collect();
        match udp {
            Ok(udp) => return Ok((tcp, udp)),
            Err(error) if tries > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(BindError { address, transport: "UDP", error }),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, Type::STREAM, Protocol::TCP)?;
    socket.set_reuse_address(true)?; // a restart doesn't wait for old connections' TIME_WAIT
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn bind_udp(address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = socket(address, Type::DGRAM, Protocol::UDP)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?; // [::] and 0.0.0.0 can stand side by side
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{IpAddr, TcpStream};

    use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
    use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsOption};
    use hickory_proto::rr::{Name, RecordType};

    use super::*;
    use crate::answer::{Asking, Steered, SteeredAnswers};
    use crate::rdata::{RdataSet, Rdatas, rtype};
    use crate::streams::Limits;
    use crate::wire::{self, Outcome, Transport};
    use crate::zone::{ServiceIndex, SteeredOwner, Zone, Zones, file};

    const ZONE: &[u8] = b"$TTL 300\n@ SOA ns.example.org. hostmaster 1 3600 600 86400 60\n  NS ns.example.org.\n\
        www A 192.0.2.1\nwww A 192.0.2.2\n*.wild TXT \"one\" \"two\"\nalias CNAME WWW\nmail MX 10 www\n_s._tcp SRV 1 2 443 www\n\
        @ CAA 0 issue \"ca.example\"\nnew TYPE65280 \\# 3 010203\nweb HTTPS 1 . alpn=h2\nsub NS ns.sub\nns.sub A 192.0.2.53\n";

    struct Fixture(Zones, RdataSet);

    /// Service 0 gives an address with a scope, service 1 gives nothing.
    impl SteeredAnswers for Fixture {
        fn resolve(&self, service: ServiceIndex, _: u16, client: &Asking) -> Steered<'_> {
            let scope = client.ecs.map_or(0, |ecs| ecs.source.min(20));
            match service.0 {
                0 => Steered::Records { ttl: 30, rdatas: self.records(), scope, region: None },
                _ => Steered::Nothing { scope, ede: 18 },
            }
        }
    }

    impl Fixture {
        fn new() -> Self {
            let origin = "example.com".parse().unwrap();
            let records = file::parse(ZONE, "z", &origin, &mut |_| Err(String::new())).unwrap();
            let owner = |name: &str, service| SteeredOwner {
                name: name.parse().unwrap(),
                service: ServiceIndex(service),
                types: vec![rtype::A],
            };
            let steered = [owner("chat.example.com", 0), owner("dark.example.com", 1)];
            let zone = Zone::compile(&origin, &records, &steered).unwrap().zone;
            Self(Zones::new([Arc::new(zone)]), RdataSet::new(rtype::A, [&[192, 0, 2, 77][..]]))
        }

        fn records(&self) -> Rdatas<'_> {
            self.1.as_ref()
        }
    }

    impl Respond for Fixture {
        fn respond(&self, packet: &[u8], from: IpAddr, transport: Transport, out: &mut Vec<u8>) -> Outcome {
            let settings = wire::Settings::anonymous();
            let context = wire::Context { settings: &settings, limiter: None, now: 0 };
            wire::respond(&context, &self.0, self, packet, from, transport, out)
        }
    }

    fn dns(addresses: &[&str]) -> Addresses {
        Addresses { dns: addresses.iter().map(|one| one.parse().unwrap()).collect(), ..Addresses::default() }
    }

    fn query(name: &str, rtype: RecordType, edns: Option<Edns>) -> Message {
        let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.queries.push(Query::query(Name::from_ascii(name).unwrap(), rtype));
        message.edns = edns;
        message
    }

    fn edns(subnet: Option<&str>) -> Option<Edns> {
        let mut edns = Edns::new();
        edns.set_max_payload(1232).set_dnssec_ok(true);
        if let Some(subnet) = subnet {
            edns.options_mut().insert(EdnsOption::Subnet(subnet.parse::<ClientSubnet>().unwrap()));
        }
        Some(edns)
    }

    fn by_udp(server: SocketAddr, packet: &[u8]) -> Message {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.send_to(packet, server).unwrap();
        let mut buffer = [0; 4096];
        let length = client.recv(&mut buffer).unwrap();
        Message::from_vec(&buffer[..length]).unwrap()
    }

    fn by_tcp(stream: &mut TcpStream, packet: &[u8]) -> Message {
        let length = u16::try_from(packet.len()).unwrap().to_be_bytes();
        stream.write_all(&[&length, packet].concat()).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut response = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut response).unwrap();
        Message::from_vec(&response).unwrap()
    }

    fn queries() -> Vec<Message> {
        let mut queries: Vec<Message> = [None, edns(None), edns(Some("198.51.100.0/24")), edns(Some("2001:db8::/48"))]
            .into_iter()
            .flat_map(|edns| {
                let ask = |(name, rtype)| query(name, rtype, edns.clone());
                [
                    ("chat.example.com.", RecordType::A),
                    ("cHaT.eXample.com.", RecordType::AAAA),
                    ("dark.example.com.", RecordType::A),
                    ("WWW.example.com.", RecordType::A),
                    ("alias.example.com.", RecordType::A),
                    ("x.wild.example.com.", RecordType::TXT),
                    ("mail.example.com.", RecordType::MX),
                    ("_s._tcp.example.com.", RecordType::SRV),
                    ("example.com.", RecordType::CAA),
                    ("example.com.", RecordType::SOA),
                    ("new.example.com.", RecordType::Unknown(65280)),
                    ("web.example.com.", RecordType::HTTPS),
                    ("host.sub.example.com.", RecordType::A),
                    ("none.example.com.", RecordType::A),
                    ("example.net.", RecordType::A),
                    ("example.com.", RecordType::AXFR),
                ]
                .map(ask)
            })
            .collect();
        let mut unknown_version = edns(None);
        unknown_version.as_mut().unwrap().set_version(1);
        queries.push(query("www.example.com.", RecordType::A, unknown_version));
        let mut two_questions = query("www.example.com.", RecordType::A, edns(None));
        two_questions.queries.push(Query::query(Name::root(), RecordType::NS));
        queries.push(two_questions);
        let mut update = query("example.com.", RecordType::SOA, None);
        update.metadata.op_code = OpCode::Status;
        update.metadata.checking_disabled = true;
        queries.push(update);
        queries
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn both_transports_give_the_same_flags_records_and_options() {
        let addresses = Addresses { threads: NonZero::new(3), ..dns(&["127.0.0.1:0"]) };
        let sockets = Sockets::bind(&addresses).unwrap();
        let server = sockets.addresses().dns[0];
        let listeners = sockets
            .serve(
                &Arc::new(Fixture::new()),
                &Gate::new(Limits::default()),
                &Certificates::default(),
                &Tasks::default(),
            )
            .unwrap();
        let comparing = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(server).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let mut codes = std::collections::BTreeSet::new();
            for query in queries() {
                let packet = query.to_vec().unwrap();
                let (udp, tcp) = (by_udp(server, &packet), by_tcp(&mut stream, &packet));
                assert_eq!(udp, tcp, "{query}");
                codes.insert(u16::from(udp.metadata.response_code));
            }
            let steered = query("chat.example.com.", RecordType::A, edns(Some("198.51.100.0/24")));
            let answer = by_tcp(&mut stream, &steered.to_vec().unwrap());
            assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 1));
            let Some(EdnsOption::Subnet(subnet)) = answer.edns.as_ref().unwrap().option(8.into()) else {
                panic!("no client subnet in {answer}");
            };
            assert_eq!((subnet.source_prefix(), subnet.scope_prefix()), (24, 20));
            codes
        });
        let codes = comparing.await.unwrap();
        assert_eq!(codes.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 16], "every kind of answer was compared");
        listeners.drain(Duration::from_secs(5)).await;
        assert!(TcpStream::connect(server).is_err(), "after the drain nobody listens");
        assert!(UdpSocket::bind(server).is_ok());
    }

    #[test]
    fn an_address_in_use_is_named_with_its_mend() {
        let first = Sockets::bind(&dns(&["127.0.0.1:0"])).unwrap();
        let address = first.addresses().dns[0];
        let errors = Sockets::bind(&dns(&[&address.to_string(), "192.0.2.1:0"])).unwrap_err();
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(told[0].starts_with(&format!("can't listen on {address} by TCP: ")), "{told:?}");
        assert!(told[0].contains("another program listens there"), "{told:?}");
        assert!(told[1].contains("no interface has this address"), "{told:?}");
    }
}
