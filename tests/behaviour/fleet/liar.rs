//! A peer that lies: an HTTP server that answers `/v1/rules` with whatever a test wants, and nothing else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bailiwick_rules::fleet::head::sha256_hex;
use bailiwick_tests::wait;

/// What it answers.
#[derive(Clone)]
enum Answer {
    /// Nothing: it closes the connection.
    Closed,
    /// This document with these further lines of a header.
    Document(String, String),
    /// A body that never ends.
    Endless,
    /// Nothing, with the connection open.
    Nothing,
}

struct Shared {
    answer: Mutex<Answer>,
    asked: AtomicUsize,
    ended: AtomicBool,
}

/// The server; it ends when this is dropped.
pub(super) struct Liar {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// The entity tag of a document.
pub(super) fn tag(document: &[u8], revision: u64) -> String {
    format!("\"{revision}-{}\"", sha256_hex(document))
}

impl Liar {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            answer: Mutex::new(Answer::Closed),
            asked: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        });
        let seen = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if seen.ended.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&seen);
                std::thread::spawn(move || lie(stream, &shared));
            }
        });
        Self { address, shared }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it answers with this document.
    pub(super) fn answers(&self, document: &str) {
        self.answers_with(document, "");
    }

    /// From now on it answers with this document and further lines of a header.
    pub(super) fn answers_with(&self, document: &str, header: &str) {
        self.set(Answer::Document(document.to_owned(), header.to_owned()));
    }

    /// From now on its answers never end.
    pub(super) fn never_ends(&self) {
        self.set(Answer::Endless);
    }

    /// From now on it accepts and says nothing.
    pub(super) fn hangs(&self) {
        self.set(Answer::Nothing);
    }

    /// Waits until it was asked twice more: what it answered before was looked at.
    pub(super) fn is_asked_again(&self) {
        let before = self.shared.asked.load(Ordering::SeqCst);
        wait::until_true("the liar is asked", || self.shared.asked.load(Ordering::SeqCst) > before + 1);
    }

    fn set(&self, answer: Answer) {
        *self.shared.answer.lock().expect("no panic") = answer;
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the thread out of `accept`.
        let _ = TcpStream::connect(self.address);
    }
}

fn lie(mut stream: TcpStream, shared: &Shared) {
    let mut request = [0; 4096];
    let length = stream.read(&mut request).unwrap_or_default();
    let is_rules = String::from_utf8_lossy(&request[..length]).starts_with("GET /v1/rules?");
    let answer = shared.answer.lock().expect("no panic").clone();
    shared.asked.fetch_add(usize::from(is_rules), Ordering::SeqCst);
    match answer {
        Answer::Closed => {}
        Answer::Document(document, header) => {
            let tag = tag(document.as_bytes(), 99);
            let head = format!("HTTP/1.1 200 OK\r\netag: {tag}\r\ncontent-length: {}\r\n", document.len());
            let _ = write!(stream, "{head}{header}connection: close\r\n\r\n{document}");
        }
        Answer::Endless => {
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
            while !shared.ended.load(Ordering::SeqCst) {
                if stream.write_all(&[b' '; 65536]).is_err() {
                    return;
                }
            }
        }
        Answer::Nothing => {
            // Returns when the other side closes.
            let _ = stream.read(&mut request);
        }
    }
}
