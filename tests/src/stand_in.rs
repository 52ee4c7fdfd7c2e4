//! A stand-in for a region's health endpoint: answers `GET` with 200 or 503 and counts connections. No GPU is behind
//! it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A listener on loopback with a thread of its own; ends when dropped.
#[derive(Debug)]
pub struct StandIn {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    ill: AtomicBool,
    /// Requests with any of these in them are answered 503.
    refused: Mutex<Vec<String>>,
    ended: AtomicBool,
    connections: AtomicUsize,
}

impl StandIn {
    /// Starts one, healthy.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                if seen.ended.load(Ordering::SeqCst) {
                    return;
                }
                seen.connections.fetch_add(1, Ordering::SeqCst);
                let mut request = [0; 2048];
                let length = stream.read(&mut request).unwrap_or(0);
                let is_ill = seen.ill.load(Ordering::SeqCst) || seen.refuses(&request[..length]);
                let status = if is_ill { "503 Service Unavailable" } else { "200 OK" };
                let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL a monitor asks.
    #[must_use]
    pub fn health_url(&self) -> String {
        format!("http://{}/health", self.address)
    }

    /// From now on it answers 503.
    pub fn fall_ill(&self) {
        self.shared.ill.store(true, Ordering::SeqCst);
    }

    /// From now on it answers 200.
    pub fn heal(&self) {
        self.shared.ill.store(false, Ordering::SeqCst);
    }

    /// From now on it answers 503 to requests that hold one of these, such as the token of one node, and to no others.
    pub fn refuse(&self, tokens: impl IntoIterator<Item = String>) {
        *self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner) = tokens.into_iter().collect();
    }

    /// How many connections it has accepted.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn refuses(&self, request: &[u8]) -> bool {
        let request = String::from_utf8_lossy(request);
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.iter().any(|token| request.contains(token.as_str()))
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the thread out of `accept`.
        let _ = std::net::TcpStream::connect(self.address);
    }
}
