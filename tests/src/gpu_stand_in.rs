//! A stand-in for an endpoint with a GPU: answers chat completions, `/health` and `/metrics` as vLLM, SGLang, OpenAI
//! and Azure do, in whatever state a test wants it. No GPU and no model is behind it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bailiwick_rules::testing::Random;
use serde_json::{Value, json};

/// What it does with a request for a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gpu {
    /// It streams a token as vLLM does: first the role alone.
    Vllm,
    /// As SGLang does: the role, a null usage beside it, then the token.
    Sglang,
    /// As Azure does: first what its filter says of the prompt, without a choice.
    Azure,
    /// As a reasoning model of OpenAI does: it refuses `max_tokens`, and fewer than 16 by the other field.
    Reasoning,
    /// It takes the request, sends headers and the role, and never a token. Its queue is empty.
    Mute,
    /// The same, while its metrics say that others' requests wait and that tokens are made.
    Saturated,
    /// The same, while its metrics say that requests wait and that no tokens are made.
    Frozen,
    /// 429, as OpenAI words it.
    Throttled,
    /// 401.
    Unauthorized,
    /// 404: it has no such model.
    NoModel,
}

/// What it runs, as it tells it in `/v1/models` and in completions that aren't streamed.
#[derive(Debug, Clone)]
pub struct Runs {
    /// Where its weights are from.
    pub root: &'static str,
    /// Its longest context.
    pub max_model_len: u64,
    /// Its `system_fingerprint`.
    pub fingerprint: &'static str,
    /// The weights: equal ones make equal tokens.
    pub weights: u64,
    /// By how much log probabilities are moved up and down, as batches do it.
    pub noise: f64,
    /// Whether it tells log probabilities.
    pub has_logprobs: bool,
    /// Whether it takes requests for the list of models and never answers.
    pub hangs_at_models: bool,
}

impl Default for Runs {
    fn default() -> Self {
        Self {
            root: "example/llama-fp8",
            max_model_len: 131_072,
            fingerprint: "vllm-0.11.0-H100-tp8-bf16-a3b21f94",
            weights: 1,
            noise: 0.0,
            has_logprobs: true,
            hangs_at_models: false,
        }
    }
}

impl Runs {
    /// The list of models, as vLLM writes it.
    fn models(&self) -> Value {
        let model = json!({ "id": "m", "object": "model", "created": 1, "owned_by": "vllm", "root": self.root,
            "parent": null, "max_model_len": self.max_model_len,
            "permission": [{ "id": "modelperm-1", "object": "model_permission", "allow_logprobs": true }] });
        json!({ "object": "list", "data": [model] })
    }

    /// A completion that isn't streamed, as vLLM writes it.
    fn completion(&self, asked: &Value) -> Value {
        let prompt = asked["messages"][0]["content"].as_str().unwrap_or_default();
        let wanted = asked["logprobs"] == true && self.has_logprobs;
        let hash = |sum: u64, byte: u8| sum.wrapping_mul(31).wrapping_add(u64::from(byte));
        let mut random = Random::new(self.weights ^ prompt.bytes().fold(7, hash));
        let positions: Vec<Value> = (0..4).map(|_| self.position(&mut random)).collect();
        let logprobs = if wanted { json!({ "content": positions }) } else { Value::Null };
        json!({ "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": asked["model"],
            "system_fingerprint": self.fingerprint, "choices": [{ "index": 0, "logprobs": logprobs,
            "message": { "role": "assistant", "content": "a" }, "finish_reason": "length" }],
            "usage": { "prompt_tokens": 20, "completion_tokens": 4, "total_tokens": 24 } })
    }

    /// The five likeliest tokens of a position.
    fn position(&self, random: &mut Random) -> Value {
        let mut logprob = 0.0;
        let mut is_up = false;
        let tokens: Vec<Value> = (0..5)
            .map(|_| {
                logprob -= 0.4 + f64::from(u32::try_from(random.below(100)).unwrap_or(0)) / 100.0;
                is_up = !is_up;
                let noisy = logprob + if is_up { self.noise } else { -self.noise };
                let token = format!("t{}", random.below(1_000));
                json!({ "bytes": token.as_bytes(), "token": token, "logprob": noisy })
            })
            .collect();
        json!({ "token": tokens[0]["token"], "bytes": tokens[0]["bytes"], "logprob": tokens[0]["logprob"],
            "top_logprobs": tokens })
    }
}

/// A completion that was asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The path with its query.
    pub path: String,
    /// The header lines, in lower case.
    pub headers: Vec<String>,
    /// The body.
    pub body: Value,
}

/// A listener on loopback with a thread for each connection; ends when dropped.
#[derive(Debug)]
pub struct GpuStandIn {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    gpu: Gpu,
    runs: Runs,
    asked: Vec<Asked>,
    /// What the counter of iterations says; it rises with every reading while tokens are made.
    iterations: u64,
    has_ended: bool,
    /// Connections on which nothing more is said.
    held: Vec<TcpStream>,
}

impl GpuStandIn {
    /// Starts one.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn start(gpu: Gpu) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Shared {
            gpu,
            runs: Runs::default(),
            asked: Vec::new(),
            iterations: 1_000,
            has_ended: false,
            held: Vec::new(),
        };
        let shared = Arc::new(Mutex::new(shared));
        let ours = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if lock(&ours).has_ended {
                    return;
                }
                let shared = Arc::clone(&ours);
                // Metrics are read over a connection that is kept, so each has a thread.
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

    /// Where its metrics are.
    #[must_use]
    pub fn metrics_url(&self) -> String {
        format!("http://{}/metrics", self.address)
    }

    /// Where it says that it is well, whatever its GPU does.
    #[must_use]
    pub fn health_url(&self) -> String {
        format!("http://{}/health", self.address)
    }

    /// From now on it does this.
    pub fn become_(&self, gpu: Gpu) {
        lock(&self.shared).gpu = gpu;
    }

    /// From now on it runs this.
    pub fn run(&self, runs: Runs) {
        lock(&self.shared).runs = runs;
    }

    /// The completions that it was asked for so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.shared).asked.clone()
    }
}

impl Drop for GpuStandIn {
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
        let (path, asked) = request(&mut reader)?;
        if lock(shared).has_ended {
            return None;
        }
        match path.as_str() {
            "/health" => whole(stream, "200 OK", "text/plain", "ok")?,
            "/metrics" => {
                let page = metrics(&mut lock(shared));
                whole(stream, "200 OK", "text/plain; version=0.0.4", &page)?;
            }
            "/v1/models" => {
                let runs = lock(shared).runs.clone();
                if runs.hangs_at_models {
                    lock(shared).held.push(stream.try_clone().ok()?);
                } else {
                    whole(stream, "200 OK", "application/json", &runs.models().to_string())?;
                }
            }
            _ if asked.body["stream"] != true && asked.body.is_object() => {
                let runs = {
                    let mut shared = lock(shared);
                    shared.asked.push(asked.clone());
                    shared.runs.clone()
                };
                whole(stream, "200 OK", "application/json", &runs.completion(&asked.body).to_string())?;
            }
            _ => {
                let gpu = {
                    let mut shared = lock(shared);
                    shared.asked.push(asked.clone());
                    shared.gpu
                };
                if complete(stream, gpu, &asked)? {
                    lock(shared).held.push(stream.try_clone().ok()?);
                }
            }
        }
    }
}

/// The next request: its path without the query, and all of it.
fn request(reader: &mut BufReader<TcpStream>) -> Option<(String, Asked)> {
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
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Some((path.split('?').next()?.to_owned(), Asked { path, headers, body }))
}

/// One piece of a streamed answer, with this delta.
fn piece(delta: &Value, finish: Option<&str>) -> Value {
    let choice = json!({ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish });
    json!({ "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice] })
}

/// The first piece: a role, and not a word of a model.
fn role() -> Value {
    piece(&json!({ "role": "assistant", "content": "" }), None)
}

/// An error as the OpenAI API words it.
fn error(message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> Value {
    json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
}

/// Answers a request for a completion. Returns whether the connection is to be held without another word.
fn complete(stream: &TcpStream, gpu: Gpu, asked: &Asked) -> Option<bool> {
    let token = piece(&json!({ "content": "Yes" }), Some("length"));
    let refuse =
        |status: &str, body: &Value| whole(stream, status, "application/json", &body.to_string()).map(|()| false);
    match gpu {
        Gpu::Vllm => events(stream, &[role(), token]),
        Gpu::Sglang => {
            let mut first = role();
            first["usage"] = Value::Null;
            let delta = json!({ "role": null, "content": null, "reasoning_content": "Yes", "tool_calls": null });
            events(stream, &[first, piece(&delta, None)])
        }
        Gpu::Azure => {
            let harmless = json!({ "hate": { "filtered": false, "severity": "safe" } });
            let filter = json!({ "choices": [], "created": 0, "id": "", "model": "", "object": "",
                "prompt_filter_results": [{ "prompt_index": 0, "content_filter_results": harmless }] });
            events(stream, &[filter, role(), token])
        }
        Gpu::Reasoning if asked.body.get("max_tokens").is_some() => {
            let message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use \
                'max_completion_tokens' instead.";
            let (kind, param) = ("invalid_request_error", Some("max_tokens"));
            refuse("400 Bad Request", &error(message, kind, param, Some("unsupported_parameter")))
        }
        Gpu::Reasoning if asked.body["max_completion_tokens"].as_u64() < Some(16) => {
            let message = "Could not finish the message because max_tokens or model output limit was reached. Please \
                try again with higher max_tokens.";
            refuse("400 Bad Request", &error(message, "invalid_request_error", None, None))
        }
        Gpu::Reasoning => events(stream, &[role(), piece(&json!({}), Some("length"))]),
        Gpu::Mute | Gpu::Saturated | Gpu::Frozen => {
            head(stream)?;
            event(stream, &role().to_string())?;
            chunk(stream, ": ping\n\n")?;
            Some(true)
        }
        Gpu::Throttled => {
            let body = error("Rate limit reached for requests", "requests", None, Some("rate_limit_exceeded"));
            refuse("429 Too Many Requests\r\nretry-after: 7", &body)
        }
        Gpu::Unauthorized => {
            let body = error("Incorrect API key provided", "invalid_request_error", None, Some("invalid_api_key"));
            refuse("401 Unauthorized", &body)
        }
        Gpu::NoModel => {
            let message = "The model `m` does not exist.";
            let body = json!({ "object": "error", "message": message, "type": "NotFoundError", "code": 404 });
            refuse("404 Not Found", &body)
        }
    }
}

fn head(mut stream: &TcpStream) -> Option<()> {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).ok()
}

fn chunk(mut stream: &TcpStream, text: &str) -> Option<()> {
    stream.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).ok()
}

fn event(stream: &TcpStream, data: &str) -> Option<()> {
    chunk(stream, &format!("data: {data}\n\n"))
}

/// A whole stream.
fn events(mut stream: &TcpStream, pieces: &[Value]) -> Option<bool> {
    head(stream)?;
    pieces.iter().try_for_each(|piece| event(stream, &piece.to_string()))?;
    event(stream, "[DONE]")?;
    stream.write_all(b"0\r\n\r\n").ok().map(|()| false)
}

fn whole(mut stream: &TcpStream, status: &str, kind: &str, body: &str) -> Option<()> {
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}").ok()
}

/// vLLM's page, as far as a node reads it.
fn metrics(shared: &mut Shared) -> String {
    let (waiting, running) = match shared.gpu {
        Gpu::Saturated | Gpu::Frozen => (3, 64),
        _ => (0, 0),
    };
    if shared.gpu == Gpu::Saturated {
        shared.iterations += 7;
    }
    let labels = "{engine=\"0\",model_name=\"m\"}";
    format!(
        "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{labels} {waiting}.0\n\
         # TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{labels} {running}.0\n\
         # TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc{labels} 0.5\n\
         # TYPE vllm:iteration_tokens_total histogram\nvllm:iteration_tokens_total_count{labels} {}.0\n",
        shared.iterations
    )
}
