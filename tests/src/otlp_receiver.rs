//! A stand-in for a receiver of OTLP over HTTP: keeps every request, and answers as a test wants it. What it got is
//! decoded by the official protobufs, where they are installed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::process::{pypi_python, text_of};

/// What it does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This status and body.
    Says(u16, String),
    /// It reads the request, and never answers.
    Mute,
    /// It closes the connection without an answer.
    Hangs,
    /// An answer that never ends.
    Endless,
}

impl Answer {
    /// Receivers at their worst: mute, one that hangs up, one that is full, one that refuses, nonsense, an endless
    /// answer, and one that rejects so many of what `field` counts. `said` is in each error that has a text.
    #[must_use]
    pub fn worst(said: &str, field: &str, rejected: u32) -> [Self; 7] {
        let partial = json!({ "partialSuccess": { field: rejected.to_string(), "errorMessage": said } });
        [
            Self::Mute,
            Self::Hangs,
            Self::Says(503, said.to_owned()),
            Self::Says(400, said.to_owned()),
            Self::Says(200, "<html>\0{".to_owned()),
            Self::Endless,
            Self::Says(200, partial.to_string()),
        ]
    }
}

/// One request that it got.
#[derive(Debug, Clone)]
pub struct Got {
    /// Its first line.
    pub line: String,
    /// Its headers, in lower case, each on a line.
    pub headers: String,
    /// Its body.
    pub body: String,
}

/// A listener on loopback; ends when dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    answer: Mutex<Answer>,
    got: Mutex<Vec<Got>>,
    /// Whether it has ended.
    ended: Mutex<bool>,
}

impl Receiver {
    /// Starts one that takes everything.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn start() -> Self {
        Self::answering(Answer::Says(200, "{}".to_owned()))
    }

    /// Starts one that answers so.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn answering(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared { answer: Mutex::new(answer), got: Mutex::default(), ended: Mutex::new(false) });
        let seen = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if *lock(&seen.ended) {
                    return;
                }
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || seen.serve(stream));
            }
        });
        Self { address, shared }
    }

    /// Where it listens, with a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// From now on it answers so.
    pub fn answer(&self, answer: Answer) {
        *lock(&self.shared.answer) = answer;
    }

    /// What it got until now.
    #[must_use]
    pub fn got(&self) -> Vec<Got> {
        lock(&self.shared.got).clone()
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        let Ok(mut writer) = stream.try_clone() else { return };
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
            let mut headers = String::new();
            loop {
                let before = headers.len();
                if !reader.read_line(&mut headers).is_ok_and(|read| read > 0) || headers[before..].trim().is_empty() {
                    break;
                }
            }
            let headers = headers.to_ascii_lowercase();
            let length = headers.lines().find_map(|header| header.strip_prefix("content-length:"));
            let mut body = vec![0; length.and_then(|length| length.trim().parse().ok()).unwrap_or(0)];
            if reader.read_exact(&mut body).is_err() {
                return;
            }
            let body = String::from_utf8_lossy(&body).into_owned();
            lock(&self.got).push(Got { line: line.trim().to_owned(), headers, body });
            let answer = lock(&self.answer).clone();
            match answer {
                Answer::Says(status, text) => {
                    let head = format!("HTTP/1.1 {status} So\r\ncontent-length: {}\r\n\r\n{text}", text.len());
                    if writer.write_all(head.as_bytes()).is_err() {
                        return;
                    }
                }
                Answer::Hangs => return,
                Answer::Mute => {
                    // Until the client gives up.
                    let _ = reader.read(&mut [0]);
                    return;
                }
                Answer::Endless => {
                    let _ = writer.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
                    while writer.write_all(b"400\r\n").is_ok() && writer.write_all(&[b'x'; 1024]).is_ok() {
                        if writer.write_all(b"\r\n").is_err() {
                            return;
                        }
                    }
                    return;
                }
            }
            line.clear();
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        *lock(&self.shared.ended) = true;
        // Wakes the thread out of `accept`.
        let _ = TcpStream::connect(self.address);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Decodes a request of metrics in JSON by the official protobufs, which refuse fields that they don't have. Returns a
/// line for each point, sorted: its metric, attributes and value. `None` if they aren't installed.
///
/// # Panics
/// If the request isn't OTLP.
#[must_use]
pub fn decode_metrics(script: &Path, file: &Path, body: &str) -> Option<Vec<String>> {
    let python = pypi_python()?;
    std::fs::write(file, body).expect("written");
    let arguments = [script.display().to_string(), file.display().to_string()];
    Some(text_of(&python.display().to_string(), arguments).lines().map(str::to_owned).collect())
}

/// Decodes requests of log records in JSON by the official protobufs, which refuse fields that they don't have. Returns
/// each record, with its attributes as an object in place of a list. `None` if they aren't installed.
///
/// # Panics
/// If a request isn't OTLP.
#[must_use]
pub fn decode_logs(script: &Path, file: &Path, got: &[Got]) -> Option<Vec<Value>> {
    let python = pypi_python()?;
    let posts: Value = got.iter().map(|got| json!({ "path": "/v1/logs", "body": got.body })).collect();
    std::fs::write(file, posts.to_string()).expect("written");
    let arguments = [script.display().to_string(), file.display().to_string()];
    let decoded = text_of(&python.display().to_string(), arguments);
    let mut messages: Vec<Value> = serde_json::from_str(&decoded).expect("a list");
    let mut records = Vec::new();
    for scope in messages.iter_mut().flat_map(|message| list(message, "resourceLogs")) {
        records.extend(list(scope, "scopeLogs").flat_map(|scope| list(scope, "logRecords")).map(Value::take));
    }
    for record in &mut records {
        let named = |one: &Value| Some((one["key"].as_str()?.to_owned(), one["value"].clone()));
        record["attributes"] = record["attributes"].as_array().into_iter().flatten().filter_map(named).collect();
    }
    Some(records)
}

/// The values of a list in an object.
fn list<'v>(object: &'v mut Value, key: &str) -> impl Iterator<Item = &'v mut Value> {
    object.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}
