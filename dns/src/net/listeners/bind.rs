//! Binds sockets. Takes an address, returns a bound socket, or an error that says what to do. Called by `listeners` and
//! the API.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use super::inherited::{Inherited, Role};

/// The most ports that are tried if the address has port 0, until a port is free for both TCP and UDP.
const TRIES: usize = 20;
/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Why an address can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address} by {protocol}: {error}; {}", mend(error))]
pub struct BindError {
    /// The address as configured.
    pub address: SocketAddr,
    /// `UDP`, `TCP`, or the protocol over one of them: `TLS`, `QUIC`, `HTTPS`.
    pub protocol: &'static str,
    /// The error of the system.
    pub error: io::Error,
}

/// What an operator can do if an address can't be bound.
fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a right: `setcap cap_net_bind_service=+ep` on the program, \
             AmbientCapabilities=CAP_NET_BIND_SERVICE in its unit, or a port above 1023"
        }
        io::ErrorKind::AddrInUse => {
            "another program listens there, or this one by another of its addresses (`ss -lntup` names it): stop it \
             (`serve --takeover` takes its place if it is bailiwick), or choose another port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine can't have this address: `ip address` lists those it has, `ip -6 address` those of IPv6"
        }
        _ => "choose another address",
    }
}

/// Which sockets at `[::]` refuse IPv4.
#[derive(Debug)]
pub(super) enum Ipv6Only {
    /// All, or none.
    Fixed(bool),
    /// Those with one of these ports, because another socket gets IPv4 there. 0 is a port that the system will choose,
    /// so it may be any.
    AtPorts(Vec<u16>),
}

impl Ipv6Only {
    fn applies_to(&self, port: u16) -> bool {
        match self {
            Self::Fixed(always) => *always,
            Self::AtPorts(ports) => ports.iter().any(|&taken| taken == port || taken == 0 || port == 0),
        }
    }
}

/// What is needed to bind the sockets of one configuration.
pub(super) struct Binding<'i> {
    /// How many UDP sockets each address gets: one for each thread.
    pub(super) threads: usize,
    /// Which TCP sockets at `[::]` refuse IPv4.
    pub(super) tcp_ipv6_only: Ipv6Only,
    /// Which UDP sockets at `[::]` refuse IPv4.
    pub(super) udp_ipv6_only: Ipv6Only,
    /// Sockets that another process has bound.
    pub(super) inherited: &'i mut Inherited,
}

impl<'i> Binding<'i> {
    /// For one thread, with sockets at `[::]` that take IPv4.
    fn of_one(inherited: &'i mut Inherited) -> Self {
        let (tcp_ipv6_only, udp_ipv6_only) = (Ipv6Only::Fixed(false), Ipv6Only::Fixed(false));
        Self { threads: 1, tcp_ipv6_only, udp_ipv6_only, inherited }
    }

    /// Binds a TCP socket, and a UDP socket for each thread. The kernel divides the clients among the UDP sockets.
    pub(super) fn dns(&mut self, address: SocketAddr) -> Result<(TcpListener, Vec<UdpSocket>), BindError> {
        let fail = |protocol| move |error| BindError { address, protocol, error };
        let mut tries = if address.port() == 0 { TRIES } else { 1 };
        loop {
            tries -= 1;
            // With port 0, an inherited socket may have chosen the port already.
            let mut udp = self.inherited.take_udp(Role::Dns, address);
            let wanted = udp.first().and_then(|socket| socket.local_addr().ok()).unwrap_or(address);
            let tcp = match self.inherited.take_tcp(Role::Dns, wanted) {
                Some(tcp) => tcp,
                None => self.bind_tcp(wanted).map_err(fail("TCP"))?,
            };
            let chosen = tcp.local_addr().map_err(fail("TCP"))?;
            // UDP sockets may share a port even with another program, but TCP sockets may not. So binding TCP first
            // shows that no other bailiwick uses the port.
            match self.fill(&mut udp, chosen) {
                Ok(()) => return Ok((tcp, udp)),
                Err(error) if tries > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(BindError { address, protocol: "UDP", error }),
            }
        }
    }

    /// Adds UDP sockets until there is one for each thread. If an inherited socket doesn't share its address, all
    /// threads read from copies of it.
    fn fill(&self, udp: &mut Vec<UdpSocket>, address: SocketAddr) -> io::Result<()> {
        let are_inherited = !udp.is_empty();
        while udp.len() < self.threads {
            let socket = match (self.bind_udp(address, self.threads > 1), udp.first()) {
                (Ok(socket), _) => socket,
                (Err(_), Some(first)) if are_inherited => first.try_clone()?,
                (Err(error), _) => return Err(error),
            };
            udp.push(socket);
        }
        Ok(())
    }

    /// A listener for a protocol over TLS, or for the API.
    pub(super) fn tcp(&mut self, role: Role, address: SocketAddr) -> io::Result<TcpListener> {
        match self.inherited.take_tcp(role, address) {
            Some(listener) => Ok(listener),
            None => self.bind_tcp(address),
        }
    }

    /// A socket for QUIC. There is only one for each address, because all packets of a connection must arrive at one
    /// socket.
    pub(super) fn quic(&mut self, address: SocketAddr) -> io::Result<UdpSocket> {
        match self.inherited.take_udp(Role::Doq, address).pop() {
            Some(socket) => Ok(socket),
            None => self.bind_udp(address, false),
        }
    }

    /// Binds a socket for TCP.
    fn bind_tcp(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let socket = socket(address, Type::STREAM, Protocol::TCP, &self.tcp_ipv6_only)?;
        socket.set_reuse_address(true)?; // a restart doesn't wait for old connections' TIME_WAIT
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    }

    fn bind_udp(&self, address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
        let socket = socket(address, Type::DGRAM, Protocol::UDP, &self.udp_ipv6_only)?;
        socket.set_reuse_port(shared)?;
        socket.bind(&address.into())?;
        Ok(socket.into())
    }
}

/// Makes a socket for an address, without binding it.
fn socket(address: SocketAddr, kind: Type, protocol: Protocol, ipv6_only: &Ipv6Only) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    // The socket is bound even if no interface has the address yet. It may come later: a floating address, or an IPv6
    // address that is still being checked for duplicates.
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(!address.ip().is_unspecified() || ipv6_only.applies_to(address.port()))?;
            socket.set_freebind_v6(true)?;
        }
    }
    Ok(socket)
}

/// Binds the API's address, unless its socket was inherited.
///
/// # Errors
/// If the address can't be bound.
pub fn bind_api(address: SocketAddr, inherited: &mut Inherited) -> Result<TcpListener, BindError> {
    let bound = Binding::of_one(inherited).tcp(Role::Api, address);
    bound.map_err(|error| BindError { address, protocol: "TCP for the API", error })
}

/// Whether an interface has this address now, so that packets can arrive at it.
#[must_use]
pub fn is_present(address: IpAddr) -> bool {
    let any_port = SocketAddr::new(address, 0);
    let missing = |error: &io::Error| error.kind() == io::ErrorKind::AddrNotAvailable;
    address.is_unspecified() || !UdpSocket::bind(any_port).is_err_and(|error| missing(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_no_interface_has_is_bound_and_reported() {
        let mut inherited = Inherited::default();
        let mut binding = Binding { threads: 2, ..Binding::of_one(&mut inherited) };
        for address in ["192.0.2.1:0", "[2001:db8::1]:0"] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(binding.dns(address).unwrap().1.len(), 2);
            assert!(!is_present(address.ip()));
        }
        assert!(is_present("127.0.0.1".parse().unwrap()) && is_present("::".parse().unwrap()));
    }

    #[test]
    fn a_socket_that_can_not_be_shared_is_read_by_every_thread() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        let mut inherited = Inherited::default();
        inherited.add(Some(Role::Dns), udp.into()).unwrap();
        let mut binding = Binding { threads: 3, ..Binding::of_one(&mut inherited) };
        let (tcp, udp) = binding.dns(address).unwrap();
        assert_eq!((tcp.local_addr().unwrap(), udp.len()), (address, 3));
        assert!(udp.iter().all(|socket| socket.local_addr().unwrap() == address));
    }
}
