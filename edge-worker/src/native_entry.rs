//! The native gateway's entry: serves connections, and gives each request to `runtime`. Takes a configuration, returns
//! when it ends. Called by `main`.
//!
//! Each thread accepts connections of its own on the shared address, and keeps every request on itself.

use core::cell::{Cell, RefCell};
use core::fmt::Write as _;
use core::panic::AssertUnwindSafe;
use core::pin::pin;
use core::time::Duration;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::header::{HOST, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use ipnet::IpNet;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::LocalOptions;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::platform::native::exchange::{AnswerBody, Reports};
use crate::platform::native::http::lines_of;
use crate::platform::native::{background, later};
use crate::platform::notice::Notice;
use crate::platform::{Background, ClientBody, Env, RawExchange, console, isolate};
use crate::runtime;

/// The most connections of a thread. Further ones wait in the kernel.
const MOST_CONNECTIONS: usize = 8_192;
/// The most requests at once over one connection of HTTP/2.
const MOST_STREAMS: u32 = 128;
/// How long a client may take to send its headers.
const HEADERS: Duration = Duration::from_secs(30);
/// How often a silent connection of HTTP/2 is asked whether its client is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long a thread waits at its end for work that blocks.
const LAST_WORK: Duration = Duration::from_secs(1);
/// How long the process waits at its end for requests in progress.
const DRAIN: Duration = Duration::from_secs(30);

/// How often a thread wakes at least.
const TICK: Duration = Duration::from_millis(500);

thread_local! {
    /// Numbers of tasks that have ended, and how many numbers were given out. Each number is a slot of the runtime.
    static FREE: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    static NUMBERS: Cell<u32> = const { Cell::new(0) };
    /// Whether the thread ends, and answers no more.
    static IS_CLOSED: Cell<bool> = const { Cell::new(false) };
    /// The exchange of each task, to end it after a panic.
    static EXCHANGES: RefCell<BTreeMap<u32, RawExchange>> = const { RefCell::new(BTreeMap::new()) };
}

const REPORTS: Reports = Reports { notify, run, ended };

fn notify(task: u32, notice: Notice, attempt: u8, bytes: Option<Vec<u8>>) {
    guarded(task, || runtime::notify(task, notice, attempt, bytes));
}

fn run(task: u32) {
    guarded(task, || runtime::run(task));
}

fn ended(task: u32) {
    EXCHANGES.with_borrow_mut(|exchanges| exchanges.remove(&task));
    FREE.with_borrow_mut(|free| free.push(task));
}

/// Runs a task. If it panics, its client gets an error, and other tasks go on.
fn guarded(task: u32, turn: impl FnOnce()) {
    if std::panic::catch_unwind(AssertUnwindSafe(turn)).is_err() {
        let exchange = EXCHANGES.with_borrow(|exchanges| exchanges.get(&task).cloned());
        if let Some(exchange) = exchange {
            exchange.fail();
        }
    }
}

/// What the gateway is told beside the environment.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Networks whose proxies are believed what they say of a client.
    pub trusted: Vec<IpNet>,
    /// The file of the rules.
    pub rules: Option<PathBuf>,
}

/// Serves on an address with so many threads, until SIGTERM or SIGINT. Then requests in progress are answered.
///
/// # Errors
/// When the address can't be used.
pub fn serve(listen: SocketAddr, threads: usize, settings: &Settings) -> io::Result<()> {
    // This fails if a provider is already installed, which does no harm.
    let _ = rustls::crypto::ring::default_provider().install_default();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        console::error(&json!({ "event": "panic", "at": place }).to_string());
    }));
    let first = listener(listen)?;
    let address = first.local_addr()?;
    console::info(&json!({ "event": "serving", "address": address.to_string(), "threads": threads }).to_string());
    let mut listeners = vec![first];
    for _ in 1..threads {
        listeners.push(listener(address)?);
    }
    let (ending, is_ending) = watch::channel(false);
    let mut all = Vec::new();
    for listener in listeners {
        let (settings, is_ending) = (settings.clone(), is_ending.clone());
        all.push(std::thread::spawn(move || isolate_on(listener, settings, is_ending)));
    }
    let signals = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    signals.block_on(signal_to_end())?;
    console::info(&json!({ "event": "draining" }).to_string());
    ending.send_replace(true);
    // A second signal doesn't wait.
    std::thread::spawn(move || {
        let _ = signals.block_on(signal_to_end());
        std::process::exit(1);
    });
    all.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
}

/// A socket that other threads listen on, too. The kernel divides connections among them.
fn listener(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1_024)?;
    Ok(socket.into())
}

/// Waits for SIGTERM or SIGINT.
async fn signal_to_end() -> io::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

/// What all connections of a thread have.
struct Isolate {
    env: Env,
    trusted: Vec<IpNet>,
    is_ending: watch::Receiver<bool>,
}

/// One thread's work: accepts connections until the process ends, and lets those that are open answer what they got.
fn isolate_on(listener: std::net::TcpListener, settings: Settings, is_ending: watch::Receiver<bool>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    // As a task, since whatever wakes the outermost future wakes the thread by a call of the system.
    let served = runtime.block_on(async { tokio::task::spawn_local(accept(listener, settings, is_ending)).await });
    // A disk or a name server may hang.
    runtime.shutdown_timeout(LAST_WORK);
    served?
}

async fn accept(
    listener: std::net::TcpListener,
    settings: Settings,
    is_ending: watch::Receiver<bool>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let (mut ending, Settings { trusted, rules }) = (is_ending.clone(), settings);
    let isolate = Rc::new(Isolate { env: Env::of(rules), trusted, is_ending });
    let mut connections = JoinSet::new();
    tokio::task::spawn_local(later::run());
    tokio::task::spawn_local(tick());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => accepted,
            Some(_) = connections.join_next() => continue,
            _ = ending.wait_for(|is_ending| *is_ending) => break,
        };
        match accepted {
            Ok((stream, peer)) => _ = connections.spawn_local(connection(stream, peer, Rc::clone(&isolate))),
            // Too many files are open, for example. Those that end make room.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    drop(listener);
    let ended = async {
        while connections.join_next().await.is_some() {}
        background::finish().await;
    };
    let _ = tokio::time::timeout(DRAIN, ended).await;
    // What is left is ended here, while all that it needs is there.
    IS_CLOSED.set(true);
    let left: Vec<u32> = EXCHANGES.with_borrow(|exchanges| exchanges.keys().copied().collect());
    left.into_iter().for_each(|task| notify(task, Notice::ClientGone, 0, None));
    connections.shutdown().await;
    Ok(())
}

/// Keeps a timer that rings soon. For a timer that would be the next to ring, tokio calls the system to wake itself; so
/// nearly none of a request's is.
async fn tick() {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
    }
}

/// Runs what hyper spawns on this thread.
#[derive(Clone, Copy)]
struct Here;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Serves a connection to its end. When the process ends, the requests that it has are answered, and no more.
async fn connection(stream: TcpStream, peer: SocketAddr, isolate: Rc<Isolate>) {
    let _ = stream.set_nodelay(true);
    let mut builder = Builder::new(Here);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(64 << 10);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MOST_STREAMS).keep_alive_interval(KEEP_ALIVE);
    let mut ending = isolate.is_ending.clone();
    let is_trusted = isolate.trusted.iter().any(|network| network.contains(&peer.ip().to_canonical()));
    let seen = Rc::new(Cell::new(false));
    let service = {
        let seen = Rc::clone(&seen);
        service_fn(move |request| {
            seen.set(true);
            answer(request, peer, is_trusted, isolate.env.clone())
        })
    };
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut first = pin!(tokio::time::sleep(HEADERS));
    loop {
        tokio::select! {
            _ = &mut served => return,
            _ = ending.wait_for(|is_ending| *is_ending) => break,
            // Whoever says nothing has no place here.
            () = &mut first, if !first.is_elapsed() => if !seen.get() { return },
        }
    }
    served.as_mut().graceful_shutdown();
    let _ = served.await;
}

/// Answers a request.
async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    is_trusted: bool,
    env: Env,
) -> Result<Response<AnswerBody>, Infallible> {
    if !has_one_host(&request) {
        return Ok(AnswerBody::refusal(400));
    }
    if IS_CLOSED.get() {
        return Ok(AnswerBody::refusal(503));
    }
    let id = request_id();
    let head = described(&request, &id, peer, is_trusted);
    let number = FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| NUMBERS.replace(NUMBERS.get() + 1));
    let (answer, answered) = oneshot::channel();
    let exchange = RawExchange::new(REPORTS, number, id, answer);
    EXCHANGES.with_borrow_mut(|exchanges| exchanges.insert(number, exchange.clone()));
    let gone = Gone(Some(exchange.clone()));
    let body = ClientBody::of(request.into_body());
    guarded(number, || runtime::begin(number, exchange.clone(), body, env, Background, head.into_bytes()));
    let answered = answered.await;
    gone.answered();
    Ok(answered.unwrap_or_else(|_| exchange.broken()))
}

/// Whether a request has no more than one host, and that of the form of one. Whoever forwarded it may have meant
/// another (RFC 9112 §3.2).
fn has_one_host(request: &Request<Incoming>) -> bool {
    let of_target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let mut hosts = request.headers().get_all(HOST).iter().map(HeaderValue::as_bytes);
    let (first, more) = (hosts.next(), hosts.next());
    let is_host = |host: &[u8]| host.iter().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(byte));
    more.is_none() && first.into_iter().chain(of_target).all(is_host)
}

/// The wait for a response. Dropped before it, the client has gone.
struct Gone(Option<RawExchange>);

impl Gone {
    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        if let Some(exchange) = self.0.take() {
            exchange.client_gone();
        }
    }
}

/// A random UUID (RFC 9562 §5.4).
fn request_id() -> String {
    let (high, low) = (isolate::random(), isolate::random());
    let (high, low) = (high & !0xf000 | 0x4000, low & (u64::MAX >> 2) | 1 << 63);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

/// What only a trusted proxy may say of a client: its address, and its place as JSON with `country`, `latitude` and
/// `longitude`. They are those that workerd gets from the same proxy.
const ADDRESS: &str = "cf-connecting-ip";
const PLACE: &str = "bailiwick-cf";

/// Describes a request as text, with one item on each line: id, method, URL, country, latitude, longitude, then the
/// name and the value of each header.
fn described(request: &Request<Incoming>, id: &str, peer: SocketAddr, is_trusted: bool) -> String {
    // Of two values the client may have sent one, so neither counts.
    let of_proxy = |name: &str| {
        let mut values = request.headers().get_all(name).iter().filter(|_| is_trusted);
        values.next().filter(|_| values.next().is_none())?.to_str().ok()
    };
    let place = of_proxy(PLACE).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let [country, latitude, longitude] = ["country", "latitude", "longitude"].map(|name| line(&place, name));
    let host = request.uri().authority().map(ToString::to_string);
    let host = host.or_else(|| Some(request.headers().get(HOST)?.to_str().ok()?.to_owned())).unwrap_or_default();
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let mut text = format!("{id}\n{}\nhttp://{host}{path}\n{country}\n{latitude}\n{longitude}\n", request.method());
    text += &lines_of(request.headers(), |name| ![ADDRESS, PLACE].contains(&name.as_str()));
    let own = (!is_trusted).then(|| peer.ip().to_canonical().to_string());
    if let Some(address) = own.as_deref().or_else(|| of_proxy(ADDRESS)) {
        let _ = write!(text, "{ADDRESS}\n{address}\n");
    }
    text
}

/// A member of a place as one line of text. Empty if it is missing or isn't a single line.
fn line(place: &Value, name: &str) -> String {
    match &place[name] {
        Value::String(text) if !text.contains('\n') => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_random_uuid() {
        let ids: Vec<String> = (0..1_000).map(|_| request_id()).collect();
        for id in &ids {
            assert_eq!(id.len(), 36);
            assert_eq!(id.as_bytes()[14], b'4');
            assert!(matches!(id.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{id}");
        }
        assert!(ids.windows(2).all(|two| two[0] != two[1]));
    }

    #[test]
    fn a_place_is_read_line_by_line() {
        let place = json!({ "country": "DE", "latitude": 52.5, "longitude": "13.4", "odd": ["x"], "two": "a\nb" });
        let lines = ["country", "latitude", "longitude", "odd", "two", "none"].map(|name| line(&place, name));
        assert_eq!(lines, ["DE", "52.5", "13.4", "", "", ""]);
        assert_eq!(line(&Value::Null, "country"), "");
    }

    #[test]
    fn numbers_are_used_again() {
        ended(7);
        assert_eq!(FREE.with_borrow_mut(Vec::pop), Some(7));
    }
}
