//! A stand-in for an edge or an engine that answers whole chat completions as a test says. No model is behind it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

/// A request for a completion.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The path.
    pub path: String,
    /// The header lines, in lower case.
    pub headers: Vec<String>,
    /// The body.
    pub body: Value,
}

impl Asked {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// The last message.
    #[must_use]
    pub fn prompt(&self) -> &str {
        let messages = self.body["messages"].as_array().and_then(|all| all.last());
        messages.and_then(|last| last["content"].as_str()).unwrap_or_default()
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub enum Reply {
    /// This text, with these header lines.
    Text(String, Vec<String>),
    /// This status, with these header lines and this body.
    Status(String, Vec<String>, String),
    /// Nothing, and the connection is kept.
    Silence,
}

impl Reply {
    /// A text without more headers.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned(), Vec::new())
    }
}

type Answers = Box<dyn FnMut(&Asked) -> Reply + Send>;

/// A listener on loopback with a thread for each connection; ends when dropped.
pub struct ChatStandIn {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    answers: Answers,
    asked: Vec<Asked>,
    has_ended: bool,
    /// Connections on which nothing more is said.
    held: Vec<TcpStream>,
}

impl ChatStandIn {
    /// Starts one that answers like this.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn start(answers: impl FnMut(&Asked) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Shared { answers: Box::new(answers), asked: Vec::new(), has_ended: false, held: Vec::new() };
        let shared = Arc::new(Mutex::new(shared));
        let ours = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if lock(&ours).has_ended {
                    return;
                }
                let shared = Arc::clone(&ours);
                std::thread::spawn(move || serve(&stream, &shared));
            }
        });
        Self { address, shared }
    }

    /// Its base URL, with `/v1`.
    #[must_use]
    pub fn base(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// From now on it answers like this.
    pub fn answer(&self, answers: impl FnMut(&Asked) -> Reply + Send + 'static) {
        lock(&self.shared).answers = Box::new(answers);
    }

    /// What it was asked for so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.shared).asked.clone()
    }
}

impl Drop for ChatStandIn {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        shared.has_ended = true;
        shared.held.clear();
        drop(shared);
        // Wakes the thread out of `accept`.
        let _ = TcpStream::connect(self.address);
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers the requests of one connection, one after the other.
fn serve(stream: &TcpStream, shared: &Mutex<Shared>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let asked = request(&mut reader)?;
        let reply = {
            let mut shared = lock(shared);
            if shared.has_ended {
                return None;
            }
            shared.asked.push(asked.clone());
            (shared.answers)(&asked)
        };
        match reply {
            Reply::Text(text, headers) => {
                let message = json!({ "role": "assistant", "content": text });
                let choice = json!({ "index": 0, "message": message, "finish_reason": "stop" });
                let body = json!({ "id": "chatcmpl-1", "object": "chat.completion", "created": 1,
                    "model": asked.body["model"], "system_fingerprint": "fp_1", "choices": [choice] });
                whole(stream, "200 OK", &headers, &body.to_string())?;
            }
            Reply::Status(status, headers, body) => whole(stream, &status, &headers, &body)?,
            Reply::Silence => lock(shared).held.push(stream.try_clone().ok()?),
        }
    }
}

fn request(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let path = lines.first()?.split(' ').nth(1)?.to_owned();
    let headers: Vec<String> = lines.iter().skip(1).map(|line| line.to_ascii_lowercase()).collect();
    let length = headers.iter().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { path, headers, body: serde_json::from_slice(&body).unwrap_or(Value::Null) })
}

fn whole(mut stream: &TcpStream, status: &str, headers: &[String], body: &str) -> Option<()> {
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{headers}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .ok()
}
