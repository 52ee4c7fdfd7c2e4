//! A stand-in for the API of a store of knowledge: answers `GET` of each path with the JSON that a test gave it. No
//! store is behind it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

/// A listener on loopback with a thread of its own; ends when dropped.
#[derive(Debug)]
pub struct StoreStandIn {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    answers: Mutex<BTreeMap<String, String>>,
    ended: AtomicBool,
}

impl StoreStandIn {
    /// Starts one that knows no path.
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
            for stream in listener.incoming().flatten() {
                if seen.ended.load(Ordering::SeqCst) {
                    return;
                }
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || answer(stream, &seen));
            }
        });
        Self { address, shared }
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers a path, with its query, by this JSON from now on.
    pub fn set(&self, path: &str, answer: &Value) {
        self.shared.answers().insert(path.to_owned(), answer.to_string());
    }
}

impl Drop for StoreStandIn {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn answers(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers one request and hangs up.
fn answer(mut stream: TcpStream, shared: &Shared) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16 << 10 {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let found = shared.answers().get(path).cloned();
    let (status, body) = found.map_or(("404 Not Found", "{}".to_owned()), |body| ("200 OK", body));
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}");
    let _ = write!(stream, "{head}\r\nconnection: close\r\n\r\n{body}");
}
