//! DNS over UDP: datagrams enter, their responses leave from the address they were sent to. `listeners` starts one thread per socket.
//!
//! The loop is plain on purpose: one datagram at a time, two buffers reused for all of them. It reads and sends by `recvmsg` and `sendmsg`
//! through `nix`, because a socket bound to a wildcard address has to answer from the address that was asked, which only the packet-info
//! control message tells (RFC 3542 §6.1 for IPv6, Linux's `IP_PKTINFO` for IPv4).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::{in_addr, in_pktinfo, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use tracing::debug;

use crate::respond::Respond;
use crate::wire::{Outcome, Transport};

/// The largest datagram.
const LARGEST: usize = 65_535;
/// How often an idle loop looks whether it should stop.
const PATIENCE: Duration = Duration::from_millis(100);
/// The most datagrams that are still answered after the word to stop: more than a receive buffer usually holds.
const LAST: usize = 4096;

/// One bound socket with its buffers.
pub(crate) struct UdpLoop {
    socket: UdpSocket,
    packet: Box<[u8]>,
    control: Vec<u8>,
    response: Vec<u8>,
}

/// What is known of a datagram besides its bytes.
struct Envelope {
    length: usize,
    from: SocketAddr,
    /// The address it was sent to, where the socket is bound to all of them.
    to: Option<Local>,
}

/// The address and interface to answer from, as the kernel told it.
enum Local {
    V4(in_pktinfo),
    V6(in6_pktinfo),
}

impl UdpLoop {
    /// Prepares a bound socket.
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        socket.set_read_timeout(Some(PATIENCE))?;
        match socket.local_addr()?.ip() {
            IpAddr::V4(address) if address.is_unspecified() => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
            IpAddr::V6(address) if address.is_unspecified() => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
            _ => {}
        }
        Ok(Self {
            socket,
            packet: vec![0; LARGEST].into(),
            control: cmsg_space!(in_pktinfo, in6_pktinfo),
            response: Vec::with_capacity(LARGEST),
        })
    }

    /// Answers until `stop`, then what has already arrived, and returns.
    pub(crate) fn run(mut self, responder: &impl Respond, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.one(responder, MsgFlags::empty());
        }
        for _ in 0..LAST {
            if !self.one(responder, MsgFlags::MSG_DONTWAIT) {
                break;
            }
        }
    }

    /// Receives and answers one datagram; `false` if there was none. Errors cost one datagram, never the loop.
    fn one(&mut self, responder: &impl Respond, flags: MsgFlags) -> bool {
        let envelope = match self.receive(flags) {
            Ok(Some(envelope)) => envelope,
            Ok(None) => return true,
            Err(Errno::EAGAIN | Errno::EINTR) => return false,
            Err(error) => {
                debug!(%error, "a datagram could not be received");
                return false;
            }
        };
        let packet = &self.packet[..envelope.length];
        let outcome = responder.respond(packet, envelope.from.ip().to_canonical(), Transport::Udp, &mut self.response);
        if !matches!(outcome, Outcome::Dropped)
            && let Err(error) = self.send(&envelope)
        {
            debug!(%error, to = %envelope.from, "a response could not be sent");
        }
        true
    }

    /// `None`: a datagram nobody could answer, as its source has no port.
    fn receive(&mut self, flags: MsgFlags) -> nix::Result<Option<Envelope>> {
        let mut parts = [IoSliceMut::new(&mut self.packet)];
        let fd = self.socket.as_raw_fd();
        let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut self.control), flags)?;
        let to = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(Local::V4(info)),
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(Local::V6(info)),
            _ => None,
        });
        let from = message.address.as_ref().and_then(address_of).filter(|from| from.port() != 0);
        Ok(from.map(|from| Envelope { length: message.bytes, from, to }))
    }

    fn send(&self, envelope: &Envelope) -> nix::Result<usize> {
        let fd = self.socket.as_raw_fd();
        let parts = [IoSlice::new(&self.response)];
        let to = SockaddrStorage::from(envelope.from);
        let send = |control: &[ControlMessage<'_>]| sendmsg(fd, &parts, control, MsgFlags::MSG_DONTWAIT, Some(&to));
        match &envelope.to {
            None => send(&[]),
            Some(Local::V4(info)) => {
                // Routing finds the interface; the source is the local address the datagram reached.
                let from =
                    in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: info.ipi_spec_dst, ipi_addr: in_addr { s_addr: 0 } };
                send(&[ControlMessage::Ipv4PacketInfo(&from)])
            }
            Some(Local::V6(info)) => send(&[ControlMessage::Ipv6PacketInfo(info)]),
        }
    }
}

fn address_of(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|&address| SocketAddr::V4(address.into()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|&address| SocketAddr::V6(address.into())))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use super::*;
    use crate::answer::Rcode;

    /// Echoes packets; drops those that begin with 0.
    struct Echo;

    impl Respond for Echo {
        fn respond(&self, packet: &[u8], _: IpAddr, _: Transport, out: &mut Vec<u8>) -> Outcome {
            out.clear();
            if packet.first() == Some(&0) {
                return Outcome::Dropped;
            }
            out.extend_from_slice(packet);
            Outcome::Answered { rcode: Rcode::NOERROR, qtype: None, truncated: false, service: None }
        }
    }

    /// Runs a loop bound to `bind`, asks it at each of `asked`, and checks who answers.
    fn ask(bind: &str, asked: &[&str]) {
        let socket = UdpSocket::bind(bind).unwrap();
        let port = socket.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (udp, stop) = (UdpLoop::new(socket).unwrap(), Arc::clone(&stop));
            move || udp.run(&Echo, &stop)
        });
        for address in asked {
            let address: IpAddr = address.parse().unwrap();
            let client = UdpSocket::bind((if address.is_ipv4() { "127.0.0.1" } else { "::1" }, 0)).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            for packet in [&[0][..], &[7; 3], &[9; 1400]] {
                client.send_to(packet, (address, port)).unwrap();
            }
            let mut buffer = [0; 2000];
            for expected in [&[7; 3][..], &[9; 1400]] {
                let (length, from) = client.recv_from(&mut buffer).unwrap();
                assert_eq!(&buffer[..length], expected, "the dropped packet is answered by nothing");
                assert_eq!(from, SocketAddr::from((address, port)), "the answer comes from the address that was asked");
            }
        }
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    }

    #[test]
    fn answers_come_from_the_bound_address() {
        ask("127.0.0.1:0", &["127.0.0.1"]);
        ask("[::1]:0", &["::1"]);
    }

    #[test]
    fn a_wildcard_socket_answers_from_the_address_that_was_asked() {
        // All of 127/8 is local; the kernel would choose 127.0.0.1 by itself.
        ask("0.0.0.0:0", &["127.0.0.1", "127.0.0.2", "127.9.9.9"]);
        ask("[::]:0", &["::1"]);
    }

    #[test]
    fn what_arrived_before_the_word_to_stop_is_answered() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = socket.local_addr().unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        for number in 1..=50 {
            client.send_to(&[number], server).unwrap();
        }
        UdpLoop::new(socket).unwrap().run(&Echo, &AtomicBool::new(true));
        let mut buffer = [0; 10];
        for number in 1..=50 {
            assert_eq!(client.recv_from(&mut buffer).unwrap().0, 1);
            assert_eq!(buffer[0], number);
        }
    }
}
