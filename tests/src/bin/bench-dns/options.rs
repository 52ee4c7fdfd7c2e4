//! The command line of the benchmark: `scripts/bench/dns` passes its arguments on, `main` reads them here.

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use bailiwick_tests::geo;
use clap::Parser;

use crate::workload::Kind;

/// Measures what an answer by UDP costs this server, gdnsd, NSD and Knot, in one run.
///
/// Each server is pinned to one core and a generator to another; the generator keeps a window of queries outstanding
/// and looks at every answer (id, QR, response code, number of records). Some hundred answers of each server are
/// compared with what the zone says before.
///
/// The figure to trust is ×echo: the server's CPU time per answer over that of an echo on this project's own socket
/// loop, measured just before and just after, as a machine's speed drifts by tens of percent within seconds. 1.00 would
/// be a server that finds its answers in no time. The row of the echo itself shows how far the method is to be trusted:
/// it ought to be 1.00.
///
/// Servers are plain processes with configurations of their own in a temporary folder, on loopback and free ports.
/// Nothing is left behind.
#[derive(Debug, Parser)]
#[command(
    name = "scripts/bench/dns",
    bin_name = "scripts/bench/dns",
    version,
    max_term_width = 100,
    after_help = "\
Workloads:
  static    10,000 names, A records, EDNS
  steered   one name; EDNS Client Subnet with a random /24 of the country database, each answered by its country's site
  missing   names that don't exist, never the same twice

Examples:
  scripts/bench/dns --quick                          whether all of it works here
  scripts/bench/dns --rounds 10 --secs 2             figures to show
  scripts/bench/dns --only bailiwick,gdnsd --workloads steered
  scripts/bench/dns --names 1000000 --workloads static
  scripts/bench/dns --also 'before=/old/bailiwick serve --config {folder}/bailiwick.toml'
  scripts/bench/dns --threads 2                      two threads beside one
  scripts/bench/dns --flood --workloads missing      whether a flood disturbs known names
  scripts/bench/dns --shedding --workloads steered   while clients are moved because of load
  scripts/bench/dns --viewers --workloads steered    while a hundred viewers follow its picture
  scripts/bench/dns --streams                        TCP, TLS, HTTPS and QUIC, too

Writes target/bench/dns.json (every sample) and target/bench/dns.svg (a bar chart).
Exit codes: 0 measured, 1 something failed or answers were wrong, 2 wrong usage."
)]
pub(crate) struct Options {
    /// How often each server is measured with each workload.
    #[arg(long, value_name = "N", default_value = "5")]
    pub(crate) rounds: NonZero<usize>,
    /// How long each time, in seconds.
    #[arg(long, value_name = "S", default_value = "2", value_parser = seconds)]
    pub(crate) secs: Duration,
    /// Two rounds of 0.3 seconds: whether it works, not what it costs.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Leave out all other servers. Of: bailiwick, gdnsd, nsd, knot, with --streams bind and knot-quic, with --shedding
    /// shedding, with --viewers watched, and the names of --also; the echo is always there.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Which workloads.
    #[arg(long, value_name = "KIND", value_delimiter = ',', default_value = "static,steered,missing")]
    pub(crate) workloads: Vec<Kind>,
    /// One more server. In the command, {port} stands for where it is to answer on 127.0.0.1, and {folder} for a folder
    /// with bailiwick.toml, rules.json, zone and geo.mmdb.
    #[arg(long, value_name = "NAME=COMMAND", value_parser = also)]
    pub(crate) also: Vec<(String, String)>,
    /// How many static names the zone has.
    #[arg(long, value_name = "N", default_value = "10000")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) names: u32,
    /// How many UDP threads (of NSD: processes) each server has, each on a core of its own. If it isn't one, the same
    /// with one is measured beside it. Where no core is left for the generator it shares theirs: what it takes of them
    /// is told, and answers per second are scaled by what it left. Bursts that are answered while it sleeps show all
    /// threads at work at once.
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) threads: NonZero<usize>,
    /// How many queries are outstanding; fewer if a default receive buffer (net.core.rmem_default) doesn't hold them.
    #[arg(long, value_name = "N", default_value = "1000")]
    pub(crate) window: NonZero<usize>,
    /// Queries per second at which latency is measured; 0: it isn't.
    #[arg(long, value_name = "N", default_value = "20000")]
    pub(crate) rate: u32,
    /// Measure too how soon known names are answered, at --rate, alone and beside floods of names that don't exist,
    /// never the same twice, at a quarter, half and three quarters of what the server takes of them; beside as many of
    /// known names; and what memory that costs.
    #[arg(long)]
    pub(crate) flood: bool,
    /// Measure this server, too, while it moves clients of every site because of load: it is called shedding.
    #[arg(long)]
    pub(crate) shedding: bool,
    /// Measure this server, too, while a hundred viewers follow the events of its picture, 10,000 an hour: it is called
    /// watched.
    #[arg(long)]
    pub(crate) viewers: bool,
    /// Measure requests by TCP and TLS (dnsperf), HTTPS (h2load) and QUIC (this program) too, of whoever speaks them,
    /// and of BIND.
    #[arg(long)]
    pub(crate) streams: bool,
    /// With --streams: a knotd of Knot 3.3 or later to measure over QUIC, called knot-quic; Debian 12's has no
    /// `listen-quic`.
    #[arg(long, value_name = "FILE")]
    pub(crate) knot_quic: Option<PathBuf>,
    /// This project's server [default: the one built beside this program].
    #[arg(long, value_name = "FILE", default_value_os_t = beside("bailiwick"), hide_default_value = true)]
    pub(crate) bailiwick: PathBuf,
    /// Where the results are written [default: target/bench].
    #[arg(long, value_name = "FOLDER", default_value_os_t = results(), hide_default_value = true)]
    pub(crate) out: PathBuf,
    /// Be the echo, at this address.
    #[arg(long, value_name = "ADDRESS", hide = true)]
    pub(crate) echo: Option<SocketAddr>,
}

impl Options {
    /// As the user gave them, with what `--quick` means.
    pub(crate) fn read() -> Self {
        let mut options = Self::parse();
        if options.quick {
            options.rounds = NonZero::<usize>::MIN.saturating_add(1);
            options.secs = Duration::from_millis(300);
        }
        options.workloads.sort();
        options.workloads.dedup();
        options
    }

    /// Whether a server is to be measured.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || name == "echo" || self.only.iter().any(|only| only == name)
    }
}

fn beside(name: &str) -> PathBuf {
    std::env::current_exe().map_or_else(|_| PathBuf::from(name), |own| own.with_file_name(name))
}

fn results() -> PathBuf {
    let root = geo::root();
    root.canonicalize().unwrap_or(root).join("target/bench")
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.05..=600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "a number of seconds from 0.05 to 600 is wanted".to_owned())
}

fn also(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, command))
            if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) =>
        {
            Ok((name.to_owned(), command.to_owned()))
        }
        _ => Err("NAME=COMMAND is wanted, the name of letters, digits, - _ .".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_misuse_is_reported() {
        Options::command().debug_assert();
        let read = |arguments: &[&str]| Options::try_parse_from([&["bench"], arguments].concat());
        assert_eq!(read(&["--workloads", "missing,static"]).unwrap().workloads, [Kind::Missing, Kind::Static]);
        assert_eq!(read(&["--also", "a=b c=d"]).unwrap().also, [("a".to_owned(), "b c=d".to_owned())]);
        for wrong in
            [&["--also", "=x"][..], &["--secs", "0"], &["--rounds", "0"], &["--workloads", "x"], &["--names", "0"]]
        {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
