//! Requests over TCP and TLS: a running server enters, requests per second and CPU time of each leave, by Debian's dnsperf over a few
//! connections. There is no echo beside it: these are figures to note, not to compare finely. HTTPS isn't measured: dnsperf 2.10 loses most of its
//! requests over it where curl has each answered in 50 µs, so that its figures would be its own.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::peers::found;
use crate::server::{Server, tethered};
use crate::world::{ORIGIN, static_label};

/// How many connections there are.
pub(crate) const CONNECTIONS: usize = 8;
/// How many queries are outstanding over all of them.
pub(crate) const OUTSTANDING: usize = 100;

/// What was measured of one server over one transport.
#[derive(Debug, Clone)]
pub(crate) struct Streamed {
    /// Of whom.
    pub(crate) server: String,
    /// `tcp` or `dot`.
    pub(crate) transport: &'static str,
    /// Requests per second.
    pub(crate) rate: f64,
    /// CPU time per request in µs.
    pub(crate) cpu: f64,
    /// Requests that had no answer.
    pub(crate) lost: u64,
}

/// Writes the questions that dnsperf asks.
///
/// # Errors
/// When the file can't be written.
pub(crate) fn questions(names: u32, file: &Path) -> Result<(), String> {
    let mut text = String::new();
    for number in 0..names.min(10_000) {
        let _ = writeln!(text, "{}.{ORIGIN} A", static_label(number));
    }
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

/// Measures one server over one transport.
///
/// # Errors
/// When dnsperf isn't there or nothing was answered.
#[allow(clippy::cast_precision_loss)] // counts of seconds
pub(crate) fn measure(
    server: &Server,
    transport: &'static str,
    questions: &Path,
    length: Duration,
) -> Result<Streamed, String> {
    let dnsperf =
        found("dnsperf").ok_or("dnsperf isn't installed; start this by scripts/bench/dns, which installs it")?;
    let address = match (transport, server.encrypted) {
        ("dot", Some(dot)) => dot,
        _ => server.address,
    };
    let mut command = tethered(&dnsperf.display().to_string());
    command.args([
        "-m",
        transport,
        "-s",
        &address.ip().to_string(),
        "-p",
        &address.port().to_string(),
        "-e",
        "-T",
        "1",
    ]);
    command.args(["-c", &CONNECTIONS.to_string(), "-q", &OUTSTANDING.to_string(), "-O", "suppress=timeout"]);
    // It takes whole seconds.
    command.args(["-l", &length.as_secs().max(1).to_string(), "-d"]).arg(questions).stdin(Stdio::null());
    server.settle();
    let before = server.cpu();
    let output = command.output().map_err(|error| format!("{}: {error}", dnsperf.display()))?;
    let spent = server.cpu().since(&before);
    let told = String::from_utf8_lossy(&output.stdout);
    let (Some(rate), Some(completed)) = (figure(&told, "Queries per second:"), figure(&told, "Queries completed:"))
    else {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("dnsperf over {transport} said: {}{}", told.trim(), errors.trim()));
    };
    if completed < 1.0 {
        return Err(format!("{} answered nothing over {transport}", server.peer.name()));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count
    let lost = figure(&told, "Queries lost:").unwrap_or(0.0) as u64;
    let cpu = spent.nanoseconds as f64 / 1e3 / completed;
    Ok(Streamed { server: server.peer.name().to_owned(), transport, rate, cpu, lost })
}

/// The figure behind a label of dnsperf's report.
fn figure(told: &str, label: &str) -> Option<f64> {
    let line = told.lines().find_map(|line| line.trim().strip_prefix(label))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dnsperfs_report_is_read() {
        let told = "Statistics:\n\n  Queries sent:         2000\n  Queries completed:    1999 (99.95%)\n  Queries lost:         1 (0.05%)\n\n  \
                    Queries per second:   66543.25\n";
        assert_eq!(figure(told, "Queries completed:"), Some(1999.0));
        assert_eq!(figure(told, "Queries lost:"), Some(1.0));
        assert_eq!(figure(told, "Queries per second:"), Some(66543.25));
        assert_eq!(figure("", "Queries lost:"), None);
    }
}
