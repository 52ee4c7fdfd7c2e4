//! Ports.

use std::net::{SocketAddr, TcpListener, UdpSocket};

/// A loopback address whose port is free for UDP and TCP at this moment; for servers that can't bind port 0.
///
/// # Panics
/// If the machine has no port left.
#[must_use]
pub fn free_port() -> SocketAddr {
    for _ in 0..100 {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free UDP port");
        let address = socket.local_addr().expect("its address");
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port is free for UDP and TCP");
}
