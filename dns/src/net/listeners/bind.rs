//! Binds the sockets of DNS and of the API. Takes an address, returns its sockets, or an error that says what to do.
//! Called by `listeners` and the API.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use bailiwick_host::sockets::bind::{BindError, Ipv6Only, bind_tcp, bind_udp, listen};
use bailiwick_host::sockets::inherited::{Inherited, Role};

/// The most ports that are tried if the address has port 0, until a port is free for both TCP and UDP.
const TRIES: usize = 20;

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

impl Binding<'_> {
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
                None => bind_tcp(wanted, &self.tcp_ipv6_only).map_err(fail("TCP"))?,
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
            let socket = match (bind_udp(address, self.threads > 1, &self.udp_ipv6_only), udp.first()) {
                (Ok(socket), _) => socket,
                (Err(_), Some(first)) if are_inherited => first.try_clone()?,
                (Err(error), _) => return Err(error),
            };
            udp.push(socket);
        }
        Ok(())
    }

    /// A listener for a protocol over TLS.
    pub(super) fn tcp(&mut self, role: Role, address: SocketAddr) -> io::Result<TcpListener> {
        listen(role, address, &self.tcp_ipv6_only, self.inherited)
    }

    /// A socket for QUIC. There is only one for each address, because all packets of a connection must arrive at one
    /// socket.
    pub(super) fn quic(&mut self, address: SocketAddr) -> io::Result<UdpSocket> {
        match self.inherited.take_udp(Role::Doq, address).pop() {
            Some(socket) => Ok(socket),
            None => bind_udp(address, false, &self.udp_ipv6_only),
        }
    }
}

/// Binds the API's address, unless its socket was inherited.
///
/// # Errors
/// If the address can't be bound.
pub fn bind_api(address: SocketAddr, inherited: &mut Inherited) -> Result<TcpListener, BindError> {
    let bound = listen(Role::Api, address, &Ipv6Only::Fixed(false), inherited);
    bound.map_err(|error| BindError { address, protocol: "TCP for the API", error })
}

#[cfg(test)]
mod tests {
    use bailiwick_host::sockets::bind::is_present;

    use super::*;

    /// For this many threads, with sockets at `[::]` that take IPv4.
    fn of_threads(threads: usize, inherited: &mut Inherited) -> Binding<'_> {
        let (tcp_ipv6_only, udp_ipv6_only) = (Ipv6Only::Fixed(false), Ipv6Only::Fixed(false));
        Binding { threads, tcp_ipv6_only, udp_ipv6_only, inherited }
    }

    #[test]
    fn an_address_that_no_interface_has_is_bound_and_reported() {
        let mut inherited = Inherited::default();
        let mut binding = of_threads(2, &mut inherited);
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
        let mut binding = of_threads(3, &mut inherited);
        let (tcp, udp) = binding.dns(address).unwrap();
        assert_eq!((tcp.local_addr().unwrap(), udp.len()), (address, 3));
        assert!(udp.iter().all(|socket| socket.local_addr().unwrap() == address));
    }
}
