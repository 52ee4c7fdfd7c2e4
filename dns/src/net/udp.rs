//! DNS over UDP. Takes datagrams, sends each response from the address that its query was sent to. `listeners` starts
//! one thread for each socket and core.
//!
//! Datagrams are received and sent in batches, each with one system call ([`Batch`]). With one call per datagram, the
//! calls would take more time than the answers. This module doesn't interpret the datagrams.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bailiwick_host::system::batch::{Batch, SIZE};
use bailiwick_host::system::tasks::Pulse;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use smallvec::SmallVec;
use tracing::debug;

use crate::response::respond::Datagrams;

/// How often an idle loop checks whether it should stop.
const PATIENCE: Duration = Duration::from_millis(100);
/// The most datagrams that are answered after `stop` is set. That is more than usually wait in a receive buffer.
const LAST: usize = 4096;
/// The size of the receive buffer to ask for, in octets. It holds some ten thousand queries that arrive while the
/// thread isn't running.
const BUFFER: usize = 4 << 20;

/// One bound socket with its buffers.
pub(crate) struct UdpLoop {
    socket: UdpSocket,
    batch: Batch,
}

impl UdpLoop {
    /// Prepares a bound socket.
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        socket.set_read_timeout(Some(PATIENCE))?;
        // If the network device accepts nothing, each send waits no longer than this, and loses one datagram.
        socket.set_write_timeout(Some(PATIENCE))?;
        match socket.local_addr()?.ip() {
            IpAddr::V4(address) if address.is_unspecified() => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
            IpAddr::V6(address) if address.is_unspecified() => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
            _ => {}
        }
        // The system may allow only a smaller buffer. If the system's default is larger, it stays.
        if getsockopt(&socket, sockopt::RcvBuf)? < BUFFER {
            setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)
                .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &BUFFER))?;
        }
        Ok(Self { socket, batch: Batch::default() })
    }

    /// Answers until `stop` is set, then answers the datagrams that have already arrived, and returns. A panic loses
    /// the datagrams of its batch, but doesn't end the loop; it is reported to `pulse`.
    pub(crate) fn run(mut self, mut datagrams: Box<dyn Datagrams>, stop: &AtomicBool, pulse: &Pulse) {
        // Panics are caught outside of the loop, so that catching costs no time per batch.
        while catch_unwind(AssertUnwindSafe(|| self.answer(&mut *datagrams, stop))).is_err() {
            pulse.panicked();
            datagrams.recover();
        }
    }

    /// Answers until `stop` is set, then the datagrams that have already arrived.
    fn answer(&mut self, datagrams: &mut dyn Datagrams, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.round(datagrams, true);
        }
        for _ in 0..LAST / SIZE {
            if self.round(datagrams, false) == 0 {
                break;
            }
        }
    }

    /// Receives a batch and answers it. Returns the number of its datagrams. An error loses one datagram, but doesn't
    /// end the loop.
    fn round(&mut self, datagrams: &mut dyn Datagrams, wait: bool) -> usize {
        let received = self.batch.receive(self.socket.as_fd(), wait);
        datagrams.begin();
        let received = match received {
            Ok(received) => received,
            Err(error) => {
                if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) {
                    debug!(%error, "no datagram could be received");
                }
                return 0;
            }
        };
        // The batch is large, so it is filled in place instead of being collected and moved.
        let mut batch = SmallVec::<[_; SIZE]>::new();
        batch.extend(self.batch.datagrams());
        datagrams.respond(&mut batch);
        drop(batch);
        if let (failed @ 1.., Some(error)) = self.batch.send(self.socket.as_fd()) {
            debug!(failed, %error, "responses could not be sent");
        }
        received
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Arc;

    use super::*;
    use crate::response::respond::{Datagram, Respond};
    use crate::response::wire::{Outcome, Transport};

    /// Echoes packets. Packets that begin with 0 are dropped. The response to a packet that begins with 1 is too long
    /// for a datagram.
    struct Echo;

    impl Respond for Echo {
        fn respond(&self, packet: &[u8], _: IpAddr, _: Transport, out: &mut Vec<u8>) -> Outcome {
            out.clear();
            if packet.first() == Some(&0) {
                return Outcome::Dropped;
            }
            out.extend_from_slice(packet);
            if packet.first() == Some(&1) {
                out.resize(70_000, 1);
            }
            Outcome::positive()
        }
    }

    fn pulse() -> Pulse {
        bailiwick_host::system::tasks::Tasks::default().waiting("udp")
    }

    /// Runs a loop bound to `bind`, sends queries to each address of `asked`, and checks the responses' source
    /// addresses.
    fn ask(bind: &str, asked: &[&str]) {
        let socket = UdpSocket::bind(bind).unwrap();
        let port = socket.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (udp, stop) = (UdpLoop::new(socket).unwrap(), Arc::clone(&stop));
            move || udp.run(Arc::new(Echo).datagrams(), &stop, &pulse())
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
                assert_eq!(&buffer[..length], expected, "the dropped packet gets no response");
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
        // All of 127/8 is local. Without packet info the kernel would send from 127.0.0.1.
        ask("0.0.0.0:0", &["127.0.0.1", "127.0.0.2", "127.9.9.9"]);
        ask("[::]:0", &["::1"]);
    }

    /// Echoes packets, except the packet `[0]`, which gets no response.
    struct Choosy;

    impl Datagrams for Choosy {
        fn begin(&mut self) {}

        fn respond(&mut self, batch: &mut [Datagram<'_>]) {
            for Datagram { packet, response, .. } in batch.iter_mut().filter(|datagram| datagram.packet != [0]) {
                response.extend_from_slice(packet);
            }
        }
    }

    #[test]
    fn the_response_of_an_earlier_batch_is_not_sent_to_a_client_that_gets_no_response() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = socket.local_addr().unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (udp, stop) = (UdpLoop::new(socket).unwrap(), Arc::clone(&stop));
            move || udp.run(Box::new(Choosy), &stop, &pulse())
        });
        let mut buffer = [0; 10];
        for packets in [&[[7]][..], &[[0], [9]]] {
            packets.iter().for_each(|packet| _ = client.send_to(packet, server).unwrap());
            let (length, _) = client.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], packets.last().unwrap());
        }
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    }

    /// Echoes, and panics at packets that begin with 0.
    struct Fragile(bool);

    impl Datagrams for Fragile {
        fn begin(&mut self) {}

        fn respond(&mut self, batch: &mut [Datagram<'_>]) {
            assert!(!self.0, "`recover` was called before the next batch");
            for Datagram { packet, response, .. } in batch {
                self.0 = *packet == [0];
                assert!(!self.0, "a panic, for the test");
                response.extend_from_slice(packet);
            }
        }

        fn recover(&mut self) {
            self.0 = false;
        }
    }

    #[test]
    fn a_panic_at_one_query_does_not_end_the_thread() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = socket.local_addr().unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let (stop, tasks) = (Arc::new(AtomicBool::new(false)), bailiwick_host::system::tasks::Tasks::default());
        let pulse = tasks.waiting("udp");
        let thread = std::thread::spawn({
            let (udp, stop) = (UdpLoop::new(socket).unwrap(), Arc::clone(&stop));
            move || udp.run(Box::new(Fragile(false)), &stop, &pulse)
        });
        for round in 1..=3 {
            client.send_to(&[0], server).unwrap();
            while tasks.health()[0].panics < round {
                std::thread::yield_now();
            }
            client.send_to(&[7], server).unwrap();
            assert_eq!(client.recv_from(&mut [0; 10]).unwrap().0, 1, "other queries are answered");
        }
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    }

    #[test]
    fn datagrams_that_arrived_before_the_stop_are_answered() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = socket.local_addr().unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        for number in 2..=150 {
            client.send_to(&[number], server).unwrap();
        }
        UdpLoop::new(socket).unwrap().run(Arc::new(Echo).datagrams(), &AtomicBool::new(true), &pulse());
        let mut buffer = [0; 10];
        for number in 2..=150 {
            assert_eq!(client.recv_from(&mut buffer).unwrap().0, 1);
            assert_eq!(buffer[0], number);
        }
    }

    #[test]
    fn a_response_that_can_not_be_sent_does_not_affect_others() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = socket.local_addr().unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        for number in [2, 1, 3, 1, 1, 4] {
            client.send_to(&[number], server).unwrap();
        }
        UdpLoop::new(socket).unwrap().run(Arc::new(Echo).datagrams(), &AtomicBool::new(true), &pulse());
        let mut buffer = [0; 10];
        for number in [2, 3, 4] {
            assert_eq!(client.recv_from(&mut buffer).unwrap().0, 1);
            assert_eq!(buffer[0], number);
        }
    }

    #[test]
    fn the_largest_datagram_arrives_whole() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = socket.local_addr().unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let largest: Vec<u8> = (0..65_507_u32).map(|at| (at % 251) as u8 | 2).collect();
        client.send_to(&largest, server).unwrap();
        UdpLoop::new(socket).unwrap().run(Arc::new(Echo).datagrams(), &AtomicBool::new(true), &pulse());
        let mut buffer = vec![0; 70_000];
        let (length, _) = client.recv_from(&mut buffer).unwrap();
        assert!(buffer[..length] == largest[..]);
    }
}
