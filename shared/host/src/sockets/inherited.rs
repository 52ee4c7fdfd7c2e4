//! Sockets that another process bound. Takes sockets with their roles from a running server that this process replaces,
//! or from systemd, and gives each socket to the code that would otherwise bind its address. Unused sockets are closed.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::socket::{SockType, getsockopt, sockopt};
use tracing::warn;

/// The purpose of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// DNS over UDP or TCP.
    Dns,
    /// DNS over TLS.
    Dot,
    /// DNS over QUIC.
    Doq,
    /// DNS over HTTPS.
    Doh,
    /// The API.
    Api,
    /// The edge: requests to models by HTTPS or HTTP.
    Edge,
}

impl Role {
    /// Every role with its name in `FileDescriptorName=` of systemd and in a takeover.
    const NAMES: [(Self, &str); 6] = [
        (Self::Dns, "dns"),
        (Self::Dot, "dot"),
        (Self::Doq, "doq"),
        (Self::Doh, "doh"),
        (Self::Api, "api"),
        (Self::Edge, "edge"),
    ];

    /// The role with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(role, _)| *role)
    }

    /// The role's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(role, _)| *role == self).map_or("", |(_, name)| name)
    }
}

/// A bound socket, and its role if it is known.
#[derive(Debug)]
struct BoundSocket {
    role: Option<Role>,
    kind: SockType,
    address: SocketAddr,
    file: OwnedFd,
}

/// Sockets that wait to be used.
#[derive(Debug, Default)]
pub struct Inherited(Vec<BoundSocket>);

impl Inherited {
    /// Adds a socket. A socket without a role may be used for any role at its address.
    ///
    /// # Errors
    /// If the file is neither a bound UDP socket nor a listening TCP socket.
    pub fn add(&mut self, role: Option<Role>, file: OwnedFd) -> io::Result<()> {
        let kind = getsockopt(&file, sockopt::SockType)?;
        // This works for TCP sockets too: both types ask the system for the address in the same way.
        let address = UdpSocket::from(file.try_clone()?).local_addr()?;
        let is_usable = match kind {
            SockType::Datagram => true,
            SockType::Stream => getsockopt(&file, sockopt::AcceptConn)?,
            _ => false,
        };
        if !is_usable {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no socket that listens by UDP or TCP"));
        }
        self.0.push(BoundSocket { role, kind, address, file });
        Ok(())
    }

    /// Whether there are no sockets.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the sockets of `other`.
    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// A listener at this address, if there is one. Port 0 stands for any port.
    pub fn take_tcp(&mut self, role: Role, address: SocketAddr) -> Option<TcpListener> {
        let listener = TcpListener::from(self.take(role, SockType::Stream, address)?);
        listener.set_nonblocking(true).ok()?;
        Some(listener)
    }

    /// All UDP sockets at this address. The kernel divides the clients among them, so every one must be read.
    pub fn take_udp(&mut self, role: Role, address: SocketAddr) -> Vec<UdpSocket> {
        let Some(first) = self.take(role, SockType::Datagram, address).map(UdpSocket::from) else { return Vec::new() };
        let chosen = first.local_addr().unwrap_or(address);
        let rest = std::iter::from_fn(|| self.take(role, SockType::Datagram, chosen).map(UdpSocket::from));
        std::iter::once(first).chain(rest).collect()
    }

    /// Takes the inherited socket with this role, kind and address, if there is one.
    fn take(&mut self, role: Role, kind: SockType, address: SocketAddr) -> Option<OwnedFd> {
        let fits = |bound: &BoundSocket| {
            let at = bound.address;
            let is_there = at.ip() == address.ip() && (address.port() == 0 || at.port() == address.port());
            is_there && bound.kind == kind && bound.role.is_none_or(|bound_role| bound_role == role)
        };
        let at = self.0.iter().position(fits)?;
        Some(self.0.remove(at).file)
    }

    /// Closes the sockets that weren't taken, and logs a warning for each.
    pub fn close_rest(self) {
        for BoundSocket { role, address, .. } in self.0 {
            let role = role.map_or("no role", Role::name);
            warn!("the inherited socket at {address} ({role}) is closed: the configuration doesn't listen there");
        }
    }
}

/// A copy of a socket for the process that takes over.
#[derive(Debug)]
pub struct HandedSocket {
    /// The purpose of the socket.
    pub role: Role,
    /// The socket.
    pub file: OwnedFd,
}

impl HandedSocket {
    /// Copies a socket.
    ///
    /// # Errors
    /// If the system has no file descriptor left.
    pub fn copy(role: Role, socket: &impl AsFd) -> io::Result<Self> {
        Ok(Self { role, file: socket.as_fd().try_clone_to_owned()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_taken_by_address_and_role() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, tcp_address) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        let any = SocketAddr::new(address.ip(), 0);
        let mut inherited = Inherited::default();
        inherited.add(Some(Role::Dns), udp.try_clone().unwrap().into()).unwrap();
        inherited.add(Some(Role::Dns), udp.into()).unwrap();
        inherited.add(None, tcp.into()).unwrap();
        assert!(inherited.take_udp(Role::Doq, address).is_empty(), "the socket has another role");
        assert!(inherited.take_udp(Role::Dns, "127.0.0.2:0".parse().unwrap()).is_empty());
        assert_eq!(inherited.take_udp(Role::Dns, any).len(), 2, "both sockets of the address");
        assert!(inherited.take_tcp(Role::Dot, tcp_address).is_some(), "any role");
        assert!(inherited.is_empty());
    }

    #[test]
    fn other_files_are_not_inherited_as_sockets() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut inherited = Inherited::default();
        assert!(inherited.add(None, client.into()).is_err());
        assert!(inherited.add(None, std::fs::File::open("/dev/null").unwrap().into()).is_err());
        assert!(inherited.is_empty());
    }
}
