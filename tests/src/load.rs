//! Asks queries without a pause. Takes a server's address, returns how many were asked and how many of them got no
//! answer. Used by tests and `bench-takeover`.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How many queries of a client by UDP are under way at once.
const WINDOW: u8 = 16;
/// How many windows a client asks from one port: others reach other sockets of the server.
const WINDOWS: usize = 8;
/// How many queries one connection carries.
const PER_CONNECTION: usize = 4;
/// A query without an answer within that is lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many queries were asked, and how many were lost.
#[derive(Debug, Default)]
pub struct Counts {
    /// Queries by UDP.
    pub udp: AtomicU64,
    /// Queries by TCP.
    pub tcp: AtomicU64,
    /// Queries of either that got no answer.
    pub lost: AtomicU64,
}

impl Counts {
    /// All queries.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.udp.load(Ordering::Relaxed) + self.tcp.load(Ordering::Relaxed)
    }
}

/// Clients that ask until they are stopped.
#[derive(Debug)]
pub struct Load {
    /// The counts so far.
    pub counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Asks `server` for the addresses of `name` by so many clients of UDP, and by one of TCP.
    #[must_use]
    pub fn start(server: SocketAddr, name: &str, clients: usize) -> Self {
        let (counts, stop) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
        let packet = packet(name);
        let threads = (0..=clients).map(|number| {
            let (counts, stop, mut packet) = (Arc::clone(&counts), Arc::clone(&stop), packet.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let (asked, counter, wanted) = match number {
                        0 => (by_tcp(server, &packet), &counts.tcp, PER_CONNECTION as u64),
                        _ => (by_udp(server, &mut packet), &counts.udp, WINDOWS as u64 * u64::from(WINDOW)),
                    };
                    counter.fetch_add(wanted, Ordering::Relaxed);
                    counts.lost.fetch_add(wanted - asked, Ordering::Relaxed);
                }
            })
        });
        Self { threads: threads.collect(), counts, stop }
    }

    /// Ends it and tells what came of it.
    ///
    /// # Panics
    /// If a client did.
    #[must_use]
    pub fn stop(self) -> Arc<Counts> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("a client goes on to its end"));
        self.counts
    }
}

/// A query for the IPv4 addresses of `name`.
fn packet(name: &str) -> Vec<u8> {
    let mut packet = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap_or(63));
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, 1, 0, 1]);
    packet
}

/// Asks a few windows from one port; how many were answered.
fn by_udp(server: SocketAddr, packet: &mut [u8]) -> u64 {
    let Ok(client) = UdpSocket::bind((if server.is_ipv4() { "127.0.0.1" } else { "::1" }, 0)) else { return 0 };
    let _ = client.set_read_timeout(Some(PATIENCE)).and_then(|()| client.connect(server));
    let mut answered = 0;
    for _ in 0..WINDOWS {
        for id in 0..WINDOW {
            packet[1] = id;
            let _ = client.send(packet);
        }
        let mut seen = [false; WINDOW as usize];
        while seen.iter().any(|seen| !seen) {
            let mut response = [0; 512];
            let Ok(length @ 12..) = client.recv(&mut response) else { break };
            if let Some(seen) = seen.get_mut(usize::from(response[1])).filter(|_| response[..length][2] & 0x80 != 0) {
                *seen = true;
            }
        }
        answered += seen.iter().filter(|seen| **seen).count() as u64;
    }
    answered
}

/// Asks a few times on one connection; how many were answered.
fn by_tcp(server: SocketAddr, packet: &[u8]) -> u64 {
    let mut answered = 0;
    let mut ask = || -> io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let message = [&u16::try_from(packet.len()).unwrap_or_default().to_be_bytes()[..], packet].concat();
        for _ in 0..PER_CONNECTION {
            stream.write_all(&message)?;
            let mut length = [0; 2];
            stream.read_exact(&mut length)?;
            stream.read_exact(&mut vec![0; usize::from(u16::from_be_bytes(length))])?;
            answered += 1;
        }
        Ok(())
    };
    let _ = ask();
    answered
}
