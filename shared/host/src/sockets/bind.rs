//! Binds sockets. Takes an address, returns a bound socket, or an error that says what to do. Called by all code that
//! listens.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use crate::sockets::inherited::{Inherited, Role};

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
pub enum Ipv6Only {
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

/// A listener at an address: the inherited one with this role, or a new one.
///
/// # Errors
/// If the address can't be bound.
pub fn listen(
    role: Role,
    address: SocketAddr,
    ipv6_only: &Ipv6Only,
    inherited: &mut Inherited,
) -> io::Result<TcpListener> {
    match inherited.take_tcp(role, address) {
        Some(listener) => Ok(listener),
        None => bind_tcp(address, ipv6_only),
    }
}

/// Binds a socket for TCP.
///
/// # Errors
/// If the address can't be bound.
pub fn bind_tcp(address: SocketAddr, ipv6_only: &Ipv6Only) -> io::Result<TcpListener> {
    let socket = socket(address, Type::STREAM, Protocol::TCP, ipv6_only)?;
    socket.set_reuse_address(true)?; // a restart doesn't wait for old connections' TIME_WAIT
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Binds a socket for UDP. With `shared`, other sockets may be bound to the same address.
///
/// # Errors
/// If the address can't be bound.
pub fn bind_udp(address: SocketAddr, shared: bool, ipv6_only: &Ipv6Only) -> io::Result<UdpSocket> {
    let socket = socket(address, Type::DGRAM, Protocol::UDP, ipv6_only)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
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
        for address in ["192.0.2.1:0", "[2001:db8::1]:0"] {
            let address: SocketAddr = address.parse().unwrap();
            let any = Ipv6Only::Fixed(false);
            assert_eq!(bind_tcp(address, &any).unwrap().local_addr().unwrap().ip(), address.ip());
            assert_eq!(bind_udp(address, false, &any).unwrap().local_addr().unwrap().ip(), address.ip());
            assert!(!is_present(address.ip()));
        }
        assert!(is_present("127.0.0.1".parse().unwrap()) && is_present("::".parse().unwrap()));
    }

    #[test]
    fn an_inherited_listener_is_used_by_its_role_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut inherited = Inherited::default();
        inherited.add(Some(Role::Edge), listener.into()).unwrap();
        let any = Ipv6Only::Fixed(false);
        let error = listen(Role::Api, address, &any, &mut inherited).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(listen(Role::Edge, address, &any, &mut inherited).unwrap().local_addr().unwrap(), address);
        assert!(inherited.is_empty());
    }
}
