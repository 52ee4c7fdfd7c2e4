//! Requests over TCP, TLS, HTTPS and QUIC. Takes a running server, returns requests per second and the CPU time of
//! each. Called by `main`. The generator is Debian's dnsperf for TCP and TLS, h2load for HTTPS, and [`crate::quic`]
//! for QUIC.
//!
//! There is no echo beside it. Servers take turns, so compare a server with another of the same round.
//!
//! Not dnsperf over HTTPS: of several responses that arrive in one TLS record, 2.10 takes one answer and loses the
//! others, so that it measures how seldom a server writes several at once.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bailiwick_tests::dns::question;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::peers::found;
use crate::quic;
use crate::server::{Server, tethered};
use crate::workload::Workload;
use crate::world::{ORIGIN, static_label};

/// The transports, in the order of the table.
pub(crate) const TRANSPORTS: [&str; 4] = ["tcp", "dot", "doh", "doq"];
/// How many connections there are.
pub(crate) const CONNECTIONS: usize = 8;
/// How many queries are outstanding over all of them.
pub(crate) const OUTSTANDING: usize = 100;

/// What was measured of one server over one transport.
#[derive(Debug, Clone)]
pub(crate) struct Streamed {
    /// The server.
    pub(crate) server: String,
    /// One of [`TRANSPORTS`].
    pub(crate) transport: &'static str,
    /// Requests per second.
    pub(crate) rate: f64,
    /// CPU time per request in µs.
    pub(crate) cpu: f64,
    /// Requests that had no answer.
    pub(crate) lost: u64,
    /// In which round.
    pub(crate) round: usize,
}

/// Writes the questions: `questions` for dnsperf, `addresses` for h2load.
///
/// # Errors
/// When a file can't be written.
pub(crate) fn questions(names: u32, folder: &Path) -> Result<(), String> {
    let (mut questions, mut addresses) = (String::new(), String::new());
    for number in 0..names.min(10_000) {
        let name = format!("{}.{ORIGIN}", static_label(number));
        let _ = writeln!(questions, "{name} A");
        // RFC 8484 §4.1: the id is 0, for caches.
        let mut query = question(&name, "A").to_wire();
        query[..2].fill(0);
        let _ = writeln!(addresses, "https://localhost/dns-query?dns={}", URL_SAFE_NO_PAD.encode(query));
    }
    let write = |name: &str, text: String| {
        fs::write(folder.join(name), text).map_err(|error| format!("{}/{name}: {error}", folder.display()))
    };
    write("questions", questions)?;
    write("addresses", addresses)
}

/// Measures one server over one transport; the questions are in `folder`.
///
/// # Errors
/// When dnsperf or h2load isn't there, or nothing was answered.
#[allow(clippy::cast_precision_loss)] // counts of seconds
pub(crate) fn measure(
    server: &Server,
    transport: &'static str,
    folder: &Path,
    workload: &Arc<Workload>,
    (round, length): (usize, Duration),
) -> Result<Streamed, String> {
    // dnsperf and h2load take whole seconds.
    let seconds = length.as_secs().max(1);
    let generator = match transport {
        "doh" => Some(h2load(server, folder, &seconds.to_string())?),
        "doq" => None,
        _ => Some(dnsperf(server, transport, folder, &seconds.to_string())?),
    };
    server.cores.on_generator()?;
    server.settle();
    let before = server.cpu();
    let counted = match generator {
        Some(generator) => generate(transport, generator),
        None => {
            let address = server.quic.unwrap_or(server.address);
            quic::run(address, &server.folder.join("cert.pem"), workload, Duration::from_secs(seconds))
                .map_err(|error| format!("{}: {error}", server.peer.name()))
        }
    };
    let spent = server.cpu().since(&before);
    let Counted { rate, completed, lost } = counted?;
    if completed < 1.0 {
        return Err(format!("{} answered nothing over {transport}", server.peer.name()));
    }
    let cpu = spent.nanoseconds as f64 / 1e3 / completed;
    Ok(Streamed { server: server.peer.name().to_owned(), transport, rate, cpu, lost, round })
}

/// Runs a generator and reads its report.
fn generate(transport: &str, mut command: Command) -> Result<Counted, String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    let reported = String::from_utf8_lossy(&output.stdout);
    let counted = match transport {
        "doh" => counted_by_h2load(&reported),
        _ => counted_by_dnsperf(&reported),
    };
    counted.ok_or_else(|| failed(transport, &output))
}

fn program(name: &str) -> Result<Command, String> {
    let path = found(name)
        .ok_or_else(|| format!("{name} isn't installed; start this by scripts/bench/dns, which installs it"))?;
    Ok(tethered(&path.display().to_string()))
}

fn dnsperf(server: &Server, transport: &str, folder: &Path, seconds: &str) -> Result<Command, String> {
    let address = match (transport, server.encrypted) {
        ("dot", Some(dot)) => dot,
        _ => server.address,
    };
    let mut command = program("dnsperf")?;
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    command.args(["-m", transport, "-s", &ip, "-p", &port, "-e", "-T", "1", "-l", seconds, "-O", "suppress=timeout"]);
    command.args(["-c", &CONNECTIONS.to_string(), "-q", &OUTSTANDING.to_string(), "-d"]).arg(folder.join("questions"));
    Ok(command)
}

fn h2load(server: &Server, folder: &Path, seconds: &str) -> Result<Command, String> {
    let address = server.https.unwrap_or(server.address);
    let mut command = program("h2load")?;
    let each = (OUTSTANDING / CONNECTIONS).to_string();
    command.args(["-t", "1", "-D", seconds, "-c", &CONNECTIONS.to_string(), "-m", &each]);
    // Where it connects to; the addresses tell only what it asks.
    command.args(["-H", "accept: application/dns-message", "-B", &format!("https://{address}"), "-i"]);
    command.arg(folder.join("addresses"));
    Ok(command)
}

/// What a generator counted.
#[derive(Debug, PartialEq)]
pub(crate) struct Counted {
    /// Requests per second.
    pub(crate) rate: f64,
    /// Requests with an answer.
    pub(crate) completed: f64,
    /// Requests without one.
    pub(crate) lost: u64,
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count
fn counted_by_dnsperf(reported: &str) -> Option<Counted> {
    let lost = figure(reported, "Queries lost:").unwrap_or(0.0) as u64;
    Some(Counted {
        rate: figure(reported, "Queries per second:")?,
        completed: figure(reported, "Queries completed:")?,
        lost,
    })
}

/// What is under way when it stops isn't lost; whatever isn't a success (2xx) is.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // counts
fn counted_by_h2load(reported: &str) -> Option<Counted> {
    let before = |line: &str, word: &str| {
        let line = reported.lines().find_map(|one| one.strip_prefix(line))?;
        let part = line.split(',').map(str::trim).find_map(|part| part.strip_suffix(word))?;
        part.trim().parse::<f64>().ok()
    };
    let succeeded = before("status codes:", "2xx")?;
    let lost =
        before("requests:", "done")? - succeeded + before("requests:", "errored")? + before("requests:", "timeout")?;
    let rate =
        reported.lines().find_map(|line| line.strip_prefix("finished in")?.split(", ").nth(1)?.strip_suffix(" req/s"));
    Some(Counted { rate: rate?.parse().ok()?, completed: succeeded, lost: lost.max(0.0) as u64 })
}

fn failed(transport: &str, output: &Output) -> String {
    let [reported, errors] = [&output.stdout, &output.stderr].map(|octets| String::from_utf8_lossy(octets));
    format!("measuring over {transport} failed: {}{}", reported.trim(), errors.trim())
}

/// The figure behind a label of dnsperf's report.
fn figure(reported: &str, label: &str) -> Option<f64> {
    let line = reported.lines().find_map(|line| line.trim().strip_prefix(label))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dnsperfs_report_is_read() {
        let reported = "Statistics:\n\n  Queries sent:         2000\n  Queries completed:    1999 (99.95%)\n  Queries \
            lost:         1 (0.05%)\n\n  \
                    Queries per second:   66543.25\n";
        assert_eq!(counted_by_dnsperf(reported), Some(Counted { rate: 66543.25, completed: 1999.0, lost: 1 }));
        assert_eq!(counted_by_dnsperf(""), None);
    }

    #[test]
    fn h2loads_report_is_read() {
        let reported = "progress: 100% of clients started\n\nfinished in 2.00s, 51234.50 req/s, 9.04MB/s\n\
                    requests: 102570 total, 102570 started, 102469 done, 102460 succeeded, 9 failed, 2 errored, 1 \
                    timeout\n\
                    status codes: 102460 2xx, 0 3xx, 9 4xx, 0 5xx\n";
        assert_eq!(counted_by_h2load(reported), Some(Counted { rate: 51234.5, completed: 102_460.0, lost: 12 }));
        assert_eq!(counted_by_h2load("finished in 2.00s, 51234.50 req/s, 9.04MB/s\n"), None);
    }

    #[test]
    fn each_name_is_asked_by_both() {
        let folder = tempfile::tempdir().unwrap();
        questions(3, folder.path()).unwrap();
        let lines = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        let (questions, addresses) = (lines("questions"), lines("addresses"));
        assert_eq!((questions.lines().count(), addresses.lines().count()), (3, 3));
        for (question, address) in questions.lines().zip(addresses.lines()) {
            let query = URL_SAFE_NO_PAD.decode(address.split_once("?dns=").unwrap().1).unwrap();
            let message = hickory_proto::op::Message::from_vec(&query).unwrap();
            assert_eq!(format!("{} A", message.queries[0].name().to_string().trim_end_matches('.')), question);
            assert_eq!(message.metadata.id, 0);
        }
    }
}
