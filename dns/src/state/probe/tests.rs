//! Tests of probes, against servers on 127.0.0.1 and with a prober that only records when it is called.

mod loads;
mod models;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use bailiwick_host::system::clock::Clock;
use bailiwick_rules::table::Table;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::network::MAX_BODY;
use super::*;
use crate::state::observed::Observed;

/// An HTTP server that gives the same answer to every request and records the requests. It stops when dropped.
struct Server {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Starts a server that answers the first request of every connection with these bytes. Then it closes the
    /// connection, or keeps it open if `hold` is set.
    async fn start(answer: impl Into<Vec<u8>>, hold: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (answer, requests) = (answer.into(), Arc::new(Mutex::new(Vec::new())));
        let recorded = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => request.push(byte),
                        Err(_) => break,
                    }
                }
                let head = String::from_utf8_lossy(&request).into_owned();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                let mut body = vec![0; length.unwrap_or(0)];
                let _ = stream.read_exact(&mut body).await;
                request.extend(body);
                recorded.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
                let _ = stream.write_all(&answer).await;
                if hold {
                    held.push(stream);
                }
            }
        });
        Self { address, requests, task }
    }
}

/// A monitor with these JSON fields, as the rules have it.
fn monitor(fields: &str) -> Monitor {
    let json = format!(
        r#"{{ "version": 1, "revision": 1, "regions": {{ "r": {{ "countries": ["DE"],
            "monitor": {{ {fields} }} }} }} }}"#
    );
    let table = Table::compile(json.as_bytes()).unwrap_or_else(|violations| panic!("{violations:?}"));
    table.regions()[0].monitor.clone().unwrap()
}

/// An HTTP monitor of a server, with more JSON fields.
fn http(server: &Server, more: &str) -> Monitor {
    monitor(&format!(r#""type": "http", "url": "http://{}/health"{more}"#, server.address))
}

/// A prober that knows the secret `HEALTH_KEY`.
fn prober() -> NetworkProber {
    let secrets = BTreeMap::from([("HEALTH_KEY".to_owned(), "s3cret".to_owned())]);
    NetworkProber::new(Secrets::new(secrets), Path::new("")).unwrap()
}

/// The surroundings of a node to which no Worker reports observations.
fn alone() -> NodeContext {
    let clock = Clock::of_runtime(Timestamp(1_800_000_000_000));
    NodeContext { clock, node: "ns1".into(), observed: Observed::default() }
}

/// An HTTP response.
fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

#[tokio::test]
async fn a_tcp_probe_passes_only_if_the_port_is_open() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let monitor = monitor(&format!(r#""type": "tcp", "address": "{address}""#));
    assert_eq!(prober().probe(&monitor, Targets::Any).await, Ok(ProbeSuccess::default()));
    drop(listener);
    let error = prober().probe(&monitor, Targets::Any).await.unwrap_err().message;
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn an_http_probe_passes_only_with_the_expected_status_and_body() {
    let server = Server::start(answer("200 OK", "", "all is ready here"), false).await;
    assert_eq!(prober().probe(&http(&server, ""), Targets::Any).await, Ok(ProbeSuccess::default()));
    assert_eq!(
        prober().probe(&http(&server, r#", "body_contains": "ready""#), Targets::Any).await,
        Ok(ProbeSuccess::default())
    );
    let error =
        prober().probe(&http(&server, r#", "body_contains": "steady""#), Targets::Any).await.unwrap_err().message;
    assert_eq!(error, "the body doesn't contain \"steady\"");
    let error = prober().probe(&http(&server, r#", "status": [204, 503]"#), Targets::Any).await.unwrap_err().message;
    assert_eq!(error, "answered 200, expected 204 or 503");
    assert!(server.requests.lock().unwrap()[0].starts_with("GET /health HTTP/1.1\r\n"));
    assert_eq!(server.requests.lock().unwrap().len(), 4, "each probe opens a new connection");
}

#[tokio::test]
async fn a_redirect_fails_and_is_not_followed() {
    let other = Server::start(answer("200 OK", "", ""), false).await;
    let location = format!("location: http://{}/\r\n", other.address);
    let server = Server::start(answer("302 Found", &location, ""), false).await;
    let error = prober().probe(&http(&server, ""), Targets::Any).await.unwrap_err().message;
    assert_eq!(error, "answered 302, expected 200");
    assert!(other.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_secret_is_sent_as_a_bearer_token_and_a_missing_secret_fails_the_probe() {
    let server = Server::start(answer("200 OK", "", ""), false).await;
    assert_eq!(
        prober().probe(&http(&server, r#", "secret": "HEALTH_KEY""#), Targets::Any).await,
        Ok(ProbeSuccess::default())
    );
    assert!(server.requests.lock().unwrap()[0].contains("authorization: Bearer s3cret\r\n"));
    let error =
        prober().probe(&http(&server, r#", "secret": "BAILIWICK_NO_SUCH_KEY""#), Targets::Any).await.unwrap_err();
    assert_eq!(error.message, "the secret BAILIWICK_NO_SUCH_KEY has no value on this node");
    assert_eq!(server.requests.lock().unwrap().len(), 1, "without its secret a probe sends nothing");
    assert!(!format!("{:?}", prober()).contains("s3cret"));
}

#[tokio::test]
async fn only_the_beginning_of_a_body_is_read() {
    let body = format!("{}ready", "x".repeat(MAX_BODY));
    let server = Server::start(answer("200 OK", "", &body), false).await;
    let error =
        prober().probe(&http(&server, r#", "body_contains": "ready""#), Targets::Any).await.unwrap_err().message;
    assert_eq!(error, "the first 65536 bytes of the body don't contain \"ready\"");

    // This body never ends, and contains the expected text.
    let server = Server::start("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nready\r\n", true).await;
    assert_eq!(
        prober().probe(&http(&server, r#", "body_contains": "ready""#), Targets::Any).await,
        Ok(ProbeSuccess::default())
    );
}

#[tokio::test]
async fn a_probe_of_an_https_url_begins_a_tls_handshake() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let monitor = monitor(&format!(r#""type": "http", "url": "https://{}/health""#, listener.local_addr().unwrap()));
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let kind = stream.read_u8().await.unwrap();
        stream.write_all(answer("200 OK", "", "").as_bytes()).await.unwrap();
        kind
    });
    assert!(prober().probe(&monitor, Targets::Any).await.is_err(), "an answer without TLS fails the probe");
    assert_eq!(server.await.unwrap(), 22, "a TLS handshake record (RFC 8446 §5.1)");
}

#[tokio::test]
async fn a_probe_that_takes_too_long_fails() {
    let server = Server::start("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nre", true).await;
    let (results, mut recorded) = mpsc::channel(8);
    let probing = Probing::new(prober(), results, mpsc::channel(1).0, mpsc::channel(1).0, mpsc::channel(1).0, alone());
    let monitor = http(&server, r#", "body_contains": "ready", "timeout": "150ms", "interval": "1s""#);
    let _running = probing.start(MonitorId(3), monitor, Targets::Any, &Places::default(), false);
    let result = recorded.recv().await.unwrap();
    assert_eq!(result.monitor, MonitorId(3));
    let late = ProbeFailure::from("no answer within 150ms".to_owned());
    assert_eq!(result.outcome, Outcome::Failed(late), "the probe fails though part of the body arrived");
}

/// A prober that passes at once and sends the time of each probe.
struct Instants(mpsc::UnboundedSender<Instant>);

impl Prober for Instants {
    async fn probe(&self, _: &Monitor, _: Targets) -> Result<ProbeSuccess, ProbeFailure> {
        self.0.send(Instant::now()).map_err(|error| error.to_string())?;
        Ok(ProbeSuccess::default())
    }

    async fn read_load(
        &self,
        _: &bailiwick_rules::rules::LoadSource,
    ) -> Result<bailiwick_rules::load::EngineReading, String> {
        Err("this prober reads no pages".to_owned())
    }

    async fn read_replica(
        &self,
        _: &bailiwick_rules::rules::ReplicaSource,
        _: &Clock,
    ) -> Result<bailiwick_rules::replica::ReplicaReading, bailiwick_rules::replica::ReadFailure> {
        Err(bailiwick_rules::replica::ReadFailure::Wrong("nothing is read here".to_owned()))
    }
}

#[tokio::test(start_paused = true)]
async fn monitors_probe_at_once_and_then_at_every_interval_but_not_at_the_same_time() {
    let (instants, mut probed) = mpsc::unbounded_channel();
    let (results, mut recorded) = mpsc::channel(64);
    let probing =
        Probing::new(Instants(instants), results, mpsc::channel(1).0, mpsc::channel(1).0, mpsc::channel(1).0, alone());
    let begun = Instant::now();
    let mut seconds = Vec::new();
    for number in 0..4 {
        let running = probing.start(
            MonitorId(number),
            monitor(r#""type": "tcp", "address": "a:1", "interval": "8s""#),
            Targets::Any,
            &Places::default(),
            false,
        );
        let mut at = Vec::new();
        for _ in 0..4 {
            at.push(probed.recv().await.unwrap().duration_since(begun).as_millis());
            recorded.recv().await.unwrap();
        }
        drop(running);
        assert!((4000..=8000).contains(&(at[1] - at[0])), "{at:?}");
        assert!(at.windows(2).skip(1).all(|pair| (7999..=8001).contains(&(pair[1] - pair[0]))), "{at:?}");
        seconds.push((at[1] - at[0]) / 500);
    }
    seconds.sort_unstable();
    seconds.dedup();
    assert_eq!(seconds.len(), 4, "the later rounds of two monitors never coincide");
}

/// Raises this process's limit of open files to the maximum that the system allows.
fn raise_limit_of_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_endpoints_do_not_delay_the_probes_of_others() {
    raise_limit_of_files();
    // This server accepts every connection and never answers.
    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = hung.local_addr().unwrap();
    let holding = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = hung.accept().await {
            held.push(stream);
        }
    });
    let live = Server::start("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", false).await;
    let (results, mut recorded) = mpsc::channel(4096);
    let probing = Probing::new(
        NetworkProber::new(Secrets::default(), Path::new("")).unwrap(),
        results,
        mpsc::channel(1).0,
        mpsc::channel(1).0,
        mpsc::channel(1).0,
        alone(),
    );
    let timing = r#", "interval": "1s", "timeout": "4s""#;
    let hang = |number: u64| {
        let monitor = monitor(&format!(r#""type": "http", "url": "http://{address}/{number}"{timing}"#));
        probing.start(MonitorId(number), monitor, Targets::Any, &Places::default(), false)
    };
    let mut running: Vec<Running> = (1..=600).map(hang).collect();
    let begun = Instant::now();
    running.push(probing.start(MonitorId(0), http(&live, timing), Targets::Any, &Places::default(), false));
    let mut passed_at = Vec::new();
    while passed_at.len() < 8 {
        let result = timeout(Duration::from_secs(60), recorded.recv()).await.unwrap().unwrap();
        if result.monitor == MonitorId(0) {
            assert_eq!(result.outcome, Outcome::Passed(ProbeSuccess::default()));
            passed_at.push(begun.elapsed());
        }
    }
    // If the 600 hanging endpoints, each for 4 seconds, shared the 256 quick slots with the live endpoint, it would be
    // probed only every 9 seconds or so.
    let longest = passed_at.windows(2).map(|two| two[1] - two[0]).max().unwrap();
    assert!(longest < Duration::from_millis(2500), "{passed_at:?}");
    drop(running);
    holding.abort();
}
