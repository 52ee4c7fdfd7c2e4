//! This server while it moves clients because of load. Takes the rules of the map, returns rules in which each site is
//! two regions of the same address, the first of them full; an engine's stand-in tells so. `main` waits until clients
//! of every site are moved. Right answers stay the same, whoever is moved.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use bailiwick_tests::dns::exchange;
use hickory_proto::op::Message;
use serde_json::{Value, json};

use crate::workload::{Draw, Workload};
use crate::world::STEERED_TTL;

/// The TTL of answers to clients that may be moved, in seconds.
const SHORT_TTL: u32 = 5;
/// How long it may take until clients of every site are moved.
const BEGINNING: Duration = Duration::from_secs(60);
/// How many answers are looked at.
const SAMPLE: usize = 300;
/// The name of a site's second region.
const SECOND: &str = "two";

/// A stand-in for vLLM: at `/full/metrics` it tells a queue that is full, at any other path an idle engine. It ends
/// with this program.
///
/// # Errors
/// When no port can be had.
pub(crate) fn engine() -> Result<SocketAddr, String> {
    let fault = |error: std::io::Error| format!("the engine's stand-in: {error}");
    let listener = TcpListener::bind("127.0.0.1:0").map_err(fault)?;
    let address = listener.local_addr().map_err(fault)?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 1024];
            let length = stream.read(&mut request).unwrap_or(0);
            let waiting = if request[..length].starts_with(b"GET /full/") { 5 } else { 0 };
            let page = format!(
                "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{{engine=\"0\"}} {waiting}\n\
                 # TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{{engine=\"0\"}} 0\n"
            );
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n";
            // Whoever asked may have gone.
            let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{page}", page.len());
        }
    });
    Ok(address)
}

/// The same rules with two regions for each site, whose loads are read.
pub(crate) fn rules(mut rules: Value, engine: SocketAddr) -> Value {
    let loaded = |region: &Value, path: &str| {
        let mut region = region.clone();
        let (url, metrics) = (format!("http://{engine}/v1"), format!("http://{engine}/{path}/metrics"));
        let load = json!({ "type": "vllm", "url": metrics, "interval": "2s" });
        region["endpoints"] = json!({ "engine": { "url": url, "capacity": 100, "load": load } });
        region
    };
    let firsts: Vec<(String, Value)> =
        rules["regions"].as_object().into_iter().flatten().map(|(name, one)| (name.clone(), one.clone())).collect();
    for (name, region) in &firsts {
        rules["regions"][name] = loaded(region, "full");
        rules["regions"][format!("{name}{SECOND}")] = loaded(region, "idle");
    }
    let service = &mut rules["services"]["geo"];
    service["shed_at"] = "dns".into();
    service["slew"] = "20%/1s".into();
    service["ttl"] = json!({ "min": SHORT_TTL, "max": STEERED_TTL });
    let seconds = firsts.iter().map(|(name, _)| Value::from(format!("{name}{SECOND}")));
    service["regions"].as_array_mut().into_iter().for_each(|regions| regions.extend(seconds.clone()));
    rules
}

/// Waits until clients of every site are moved, and returns how long it took.
///
/// # Errors
/// When they aren't.
pub(crate) fn wait(server: SocketAddr, workload: &Workload, draw: &mut Draw) -> Result<Duration, String> {
    let began = Instant::now();
    let mut packet = workload.template().to_vec();
    let mut moved = 0;
    while began.elapsed() < BEGINNING {
        moved = 0;
        for number in 0..SAMPLE {
            workload.write(u16::try_from(number).unwrap_or_default(), draw, &mut packet);
            let answer = exchange(server, &packet).and_then(|answer| Message::from_vec(&answer).ok());
            moved += usize::from(answer.is_some_and(|one| one.answers.iter().all(|record| record.ttl == SHORT_TTL)));
        }
        if moved == SAMPLE {
            return Ok(began.elapsed());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Err(format!("of {SAMPLE} clients only {moved} are of a class that is moved"))
}
