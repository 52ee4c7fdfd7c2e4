//! The DNS sockets. Takes addresses and a responder, starts the threads and tasks that answer there until they are
//! drained. Owned by `serve`.

mod absent;
mod bind;
mod inherited;

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;

pub use absent::Absent;
use bind::Binding;
pub use bind::{BindError, bind_api, is_present};
pub use inherited::{Handed, Inherited, Role};

use crate::net::certificate::Certificate;
use crate::net::streams::{self, Gate, Shared, Speech, quic};
use crate::net::udp::UdpLoop;
use crate::response::respond::Respond;
use crate::system::tasks::{Tasks, supervise};

/// A drain ends when no request came over streams for this long.
const QUIET: Duration = Duration::from_millis(100);
/// How long connections may take to end after that.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
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
    /// Whether sockets at `[::]` take no IPv4; `None`: where `0.0.0.0` is listened on, too, by the same transport.
    pub ipv6_only: Option<bool>,
}

impl Addresses {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = SocketAddr> {
        [&self.dns, &self.dot, &self.doq, &self.doh].into_iter().flatten().copied()
    }

    /// Those of IPv4 beside which a socket at `[::]` may take no IPv4.
    fn v6_only_beside(&self, transport: &[SocketAddr]) -> Vec<SocketAddr> {
        match self.ipv6_only {
            Some(false) => Vec::new(),
            Some(true) => vec![SocketAddr::from(([0; 4], 0))],
            None => transport.iter().copied().filter(SocketAddr::is_ipv4).collect(),
        }
    }
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
        Self::bind_with(addresses, &mut Inherited::default())
    }

    /// Binds every address that isn't among what was inherited.
    ///
    /// # Errors
    /// Every address that can't be bound.
    pub fn bind_with(addresses: &Addresses, inherited: &mut Inherited) -> Result<Self, Vec<BindError>> {
        let mut errors = Vec::new();
        let threads = addresses.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZero::get);
        let Addresses { dns, dot, doq, doh, .. } = addresses;
        let by_tcp = [&dns[..], dot, doh].concat();
        let mut binding = Binding { threads, v6_only: addresses.v6_only_beside(&by_tcp), inherited };
        let dns = all(dns, &mut errors, |address| binding.dns(address));
        let dot = all(dot, &mut errors, |address| named(address, "TLS", binding.tcp(Role::Dot, address)));
        let doh = all(doh, &mut errors, |address| named(address, "HTTPS", binding.tcp(Role::Doh, address)));
        binding.v6_only = addresses.v6_only_beside(&[&addresses.dns[..], doq].concat());
        let doq = all(doq, &mut errors, |address| named(address, "QUIC", binding.quic(address)));
        if errors.is_empty() { Ok(Self { dns, dot, doq, doh }) } else { Err(errors) }
    }

    /// Copies of all sockets, for the process that takes over.
    ///
    /// # Errors
    /// When the system has no file left.
    pub fn copies(&self) -> io::Result<Vec<Handed>> {
        let dns = self.dns.iter().map(|(tcp, _)| Handed::copy(Role::Dns, tcp));
        let udp = self.dns.iter().flat_map(|(_, udp)| udp).map(|udp| Handed::copy(Role::Dns, udp));
        let dot = self.dot.iter().map(|tcp| Handed::copy(Role::Dot, tcp));
        let doq = self.doq.iter().map(|udp| Handed::copy(Role::Doq, udp));
        let doh = self.doh.iter().map(|tcp| Handed::copy(Role::Doh, tcp));
        dns.chain(udp).chain(dot).chain(doq).chain(doh).collect()
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
            ipv6_only: None,
        }
    }

    /// Starts to answer; `gate` bounds the connections of all streams together, `tasks` learns of every loop. Must be
    /// called within a Tokio runtime.
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
        let mut listeners = Listeners { closing, yielding, stop_udp, gate: Arc::clone(gate), threads, accepting };
        if let Some(certificate) = &certificates.doq {
            listeners.begin_quic(QuicSockets(self.doq), responder, certificate, tasks)?;
        }
        Ok(listeners)
    }

    /// Takes the sockets of QUIC out, to be served later: what two processes read at once would be of use to neither.
    pub fn take_quic(&mut self) -> QuicSockets {
        QuicSockets(std::mem::take(&mut self.doq))
    }
}

/// Sockets of QUIC that aren't served yet.
#[derive(Debug)]
pub struct QuicSockets(Vec<UdpSocket>);

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
    mut bind: impl FnMut(SocketAddr) -> Result<T, BindError>,
) -> Vec<T> {
    addresses.iter().filter_map(|&address| bind(address).map_err(|error| errors.push(error)).ok()).collect()
}

fn named<T>(address: SocketAddr, transport: &'static str, bound: io::Result<T>) -> Result<T, BindError> {
    bound.map_err(|error| BindError { address, transport, error })
}

/// Sockets that answer.
#[derive(Debug)]
pub struct Listeners {
    /// True once connections are to end.
    closing: watch::Sender<bool>,
    /// True once nothing new is accepted.
    yielding: watch::Sender<bool>,
    stop_udp: Arc<AtomicBool>,
    gate: Arc<Gate>,
    threads: Vec<JoinHandle<()>>,
    accepting: Vec<tokio::task::JoinHandle<()>>,
}

impl Listeners {
    /// Answers what is in flight, for at most `limit`, then stops: streams when they are quiet, UDP when its buffers
    /// are empty.
    pub async fn drain(mut self, limit: Duration) {
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

    /// Reads and accepts nothing more, as another process does by the same sockets. Connections go on:
    /// [`Listeners::linger`].
    pub async fn yield_sockets(&mut self) {
        self.stop_udp.store(true, Ordering::Relaxed);
        self.yielding.send_replace(true);
        self.join().await;
    }

    /// Answers on the connections there are until their clients leave or are idle, for at most `limit`, then ends them.
    pub async fn linger(self, limit: Duration) {
        self.join_connections(limit).await;
        self.closing.send_replace(true);
        self.join_connections(CLOSE_TIMEOUT).await;
    }

    /// Waits until nothing is read or accepted any more.
    async fn join(&mut self) {
        for accepting in self.accepting.drain(..) {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, accepting).await;
        }
        for thread in self.threads.drain(..) {
            // A loop ends within its patience, unless its thread panicked, which was reported then.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// Waits until no connection is left, for at most `limit`: what has arrived on one is answered before it ends.
    async fn join_connections(&self, limit: Duration) {
        let end = Instant::now() + limit;
        while self.gate.count() > 0 && Instant::now() < end {
            sleep(QUIET / 10).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{IpAddr, TcpStream};

    use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
    use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsOption};
    use hickory_proto::rr::{Name, RecordType};

    use super::*;
    use crate::net::streams::Limits;
    use crate::protocol::rdata::{RdataSet, Rdatas, rtype};
    use crate::response::answer::{Asking, Steered, SteeredAnswers};
    use crate::response::wire::{self, Outcome, Transport};
    use crate::zone::{ServiceIndex, SteeredOwner, Zone, file};
    use crate::zones::{ServedZone, Zones};

    const ZONE: &[u8] = b"$TTL 300\n@ SOA ns.example.org. hostmaster 1 3600 600 86400 60\n  NS ns.example.org.\n\
        www A 192.0.2.1\nwww A 192.0.2.2\n*.wild TXT \"one\" \"two\"\nalias CNAME WWW\nmail MX 10 www\n\
        _s._tcp SRV 1 2 443 www\n\
        @ CAA 0 issue \"ca.example\"\nnew TYPE65280 \\# 3 010203\nweb HTTPS 1 . alpn=h2\nsub NS ns.sub\n\
        ns.sub A 192.0.2.53\n";

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
            Self(Zones::new([Arc::new(ServedZone::unsigned(zone))]), RdataSet::new(rtype::A, [&[192, 0, 2, 77][..]]))
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
        let errors = Sockets::bind(&dns(&[&address.to_string()])).unwrap_err();
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(told[0].starts_with(&format!("can't listen on {address} by TCP: ")), "{told:?}");
        assert!(told[0].contains("another program listens there"), "{told:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_socket_of_ipv6_answers_ipv4_unless_that_has_its_own() {
        let answered = |addresses: Addresses, asked: &str| {
            let sockets = Sockets::bind(&addresses).unwrap();
            let port = sockets.addresses().dns[0].port();
            let (fixture, gate) = (Arc::new(Fixture::new()), Gate::new(Limits::default()));
            let listeners = sockets.serve(&fixture, &gate, &Certificates::default(), &Tasks::default()).unwrap();
            let server = SocketAddr::new(asked.parse().unwrap(), port);
            let packet = query("www.example.com.", RecordType::A, None).to_vec().unwrap();
            let by_tcp =
                TcpStream::connect(server).is_ok_and(|mut stream| by_tcp(&mut stream, &packet).answers.len() == 2);
            let is_answered = by_tcp && by_udp(server, &packet).answers.len() == 2;
            (is_answered, listeners)
        };
        for (only, expected) in [(None, true), (Some(false), true), (Some(true), false)] {
            let addresses = Addresses { ipv6_only: only, threads: NonZero::new(1), ..dns(&["[::]:0"]) };
            let (is_answered, listeners) = answered(addresses, "127.0.0.1");
            assert_eq!(is_answered, expected, "{only:?}");
            listeners.drain(Duration::from_secs(5)).await;
        }
        let port = Sockets::bind(&dns(&["[::]:0"])).unwrap().addresses().dns[0].port();
        let both = dns(&[&format!("[::]:{port}"), &format!("0.0.0.0:{port}")]);
        let (is_answered, listeners) = answered(both, "127.0.0.1");
        assert!(is_answered, "side by side");
        listeners.drain(Duration::from_secs(5)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_process_that_takes_over_answers_what_waits_in_the_sockets() {
        let addresses = Addresses { threads: NonZero::new(2), ..dns(&["127.0.0.1:0"]) };
        let old = Sockets::bind(&addresses).unwrap();
        let copies = old.copies().unwrap();
        assert_eq!(copies.len(), 3);
        let server = old.addresses().dns[0];
        let (fixture, gate) = (Arc::new(Fixture::new()), Gate::new(Limits::default()));
        let mut old = old.serve(&fixture, &gate, &Certificates::default(), &Tasks::default()).unwrap();
        old.yield_sockets().await;
        let packet = query("www.example.com.", RecordType::A, None).to_vec().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.send_to(&packet, server).unwrap();
        let mut stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();

        let mut inherited = Inherited::default();
        copies.into_iter().for_each(|one| inherited.add(Some(one.role), one.file).unwrap());
        let new = Sockets::bind_with(&addresses, &mut inherited).unwrap();
        assert!(inherited.is_empty() && new.addresses().dns == [server]);
        let new = new.serve(&fixture, &gate, &Certificates::default(), &Tasks::default()).unwrap();
        assert!(client.recv(&mut [0; 512]).unwrap() > 12);
        assert_eq!(by_tcp(&mut stream, &packet).answers.len(), 2);
        drop(stream);
        old.linger(Duration::from_secs(5)).await;
        new.drain(Duration::from_secs(5)).await;
        assert!(TcpStream::connect(server).is_err(), "nobody listens any more");
    }
}
